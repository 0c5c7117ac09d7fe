//! Batches prepared by a background thread, in order.

use std::sync::Arc;
use std::sync::mpsc::{Receiver, sync_channel};
use std::thread::JoinHandle;

use crate::batch::{Batch, BatchSource};

/// Maximal number of prepared batches.
const MAX_DEPTH: usize = 64;

/// Consecutive batches of a source, some of which are prepared in advance. Its thread ends when it is dropped.
#[derive(Debug)]
pub struct Prefetch {
    source: Arc<BatchSource>,
    /// Index of the batch that [`Prefetch::next`] returns.
    next: u64,
    /// `None` if there is no thread (any more): batches are then made on demand.
    ready: Option<Receiver<Batch>>,
    thread: Option<JoinHandle<()>>,
}

impl Prefetch {
    /// Starts to make batches from `first` on, at most `depth` of them in advance (at least one).
    pub fn start(source: Arc<BatchSource>, first: u64, depth: usize) -> Prefetch {
        // In addition to the queue, the thread holds one batch that it cannot send yet.
        let (sender, receiver) = sync_channel(depth.saturating_sub(1).min(MAX_DEPTH));
        let from = Arc::clone(&source);
        let thread = std::thread::Builder::new()
            .name("batches".into())
            .spawn(move || {
                for index in first.. {
                    if sender.send(from.batch(index)).is_err() {
                        return;
                    }
                }
            })
            .ok();
        Prefetch { source, next: first, ready: thread.is_some().then_some(receiver), thread }
    }

    /// The next batch. Waits if it is not ready.
    #[expect(
        clippy::should_implement_trait,
        reason = "batches never end, so an iterator's Option would be unnecessary"
    )]
    pub fn next(&mut self) -> Batch {
        let index = self.next;
        self.next += 1;
        if let Some(ready) = &self.ready {
            if let Ok(batch) = ready.recv() {
                return batch;
            }
            self.ready = None;
        }
        self.source.batch(index)
    }

    /// Index of the batch that [`Prefetch::next`] returns.
    pub fn position(&self) -> u64 {
        self.next
    }
}

impl Drop for Prefetch {
    fn drop(&mut self) {
        // Without a receiver, the thread's next send fails and the thread returns.
        self.ready = None;
        if let Some(thread) = self.thread.take() {
            // A panic of the thread has already been reported, and `next` works without the thread.
            let _ = thread.join();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::batch::BatchOptions;
    use crate::batch::tests::{corpus, table};

    fn source() -> Arc<BatchSource> {
        let options = BatchOptions { seq_len: 32, ..BatchOptions::default() };
        Arc::new(BatchSource::new(corpus(50), table(), options).unwrap())
    }

    #[test]
    fn returns_the_batches_of_the_source_in_order() {
        let source = source();
        for depth in [0, 1, 4] {
            let mut prefetch = Prefetch::start(Arc::clone(&source), 17, depth);
            for index in 17..30 {
                assert_eq!(prefetch.position(), index);
                assert_eq!(prefetch.next(), source.batch(index));
            }
        }
    }

    #[test]
    fn dropping_ends_the_thread() {
        let source = source();
        for taken in 0..4 {
            let mut prefetch = Prefetch::start(Arc::clone(&source), 0, 2);
            for _ in 0..taken {
                prefetch.next();
            }
            drop(prefetch);
            // The thread held the only other handle.
            assert_eq!(Arc::strong_count(&source), 1);
        }
    }
}
