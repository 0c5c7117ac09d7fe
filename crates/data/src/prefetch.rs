//! Batches made ready on a background thread, in order.

use std::sync::Arc;
use std::sync::mpsc::{Receiver, sync_channel};
use std::thread::JoinHandle;

use crate::batch::{Batch, BatchSource};

/// Batches ready at most.
const MOST_AHEAD: usize = 64;

/// Consecutive batches of a source, a few of them made ahead of time. Ends its thread when dropped.
#[derive(Debug)]
pub struct Prefetch {
    source: Arc<BatchSource>,
    /// Index of the batch that [`Prefetch::next`] gives.
    next: u64,
    /// `None` when there is no thread (any more): batches are then made when they are asked for.
    ready: Option<Receiver<Batch>>,
    thread: Option<JoinHandle<()>>,
}

impl Prefetch {
    /// Begins to make batches from `first` on, at most `depth` of them ahead (at least one).
    pub fn start(source: Arc<BatchSource>, first: u64, depth: usize) -> Prefetch {
        // One more than the queue holds waits in the thread's hand.
        let (sender, receiver) = sync_channel(depth.saturating_sub(1).min(MOST_AHEAD));
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

    /// The next batch; waits if it is not ready.
    #[expect(clippy::should_implement_trait, reason = "batches never end: an iterator's Option would be noise")]
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

    /// Index of the batch that [`Prefetch::next`] gives.
    pub fn position(&self) -> u64 {
        self.next
    }
}

impl Drop for Prefetch {
    fn drop(&mut self) {
        // With nobody to receive, the thread's next send fails and it returns.
        self.ready = None;
        if let Some(thread) = self.thread.take() {
            // A panic in there has shown itself already, and `next` went on without it.
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
    fn gives_the_sources_batches_in_order_from_anywhere() {
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
