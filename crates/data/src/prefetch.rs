//! Batches prepared by a background thread, in order.

use std::ops::Range;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, sync_channel};
use std::thread::JoinHandle;

use crate::batch::{Batch, BatchSource, UnmaskedBatch};

/// Maximal number of prepared batches.
const MAX_DEPTH: usize = 64;

/// Consecutive batches of a source, some of which are prepared in advance. Its thread ends when it is dropped.
///
/// A batch is masked only when it is taken, because the masking rate may depend on the progress of the run, which is not known in
/// advance if the run has a time limit. So batches do not depend on how many of them were prepared.
#[derive(Debug)]
pub struct Prefetch {
    source: Arc<BatchSource>,
    /// Indices of the batches that [`Prefetch::next`] returns.
    indices: Indices,
    /// `None` if there is no thread (any more): batches are then made on demand.
    ready: Option<Receiver<UnmaskedBatch>>,
    thread: Option<JoinHandle<()>>,
}

/// Which batches are made: of each group of consecutive batches, those in a range.
#[derive(Debug, Clone)]
struct Indices {
    /// Index of the first batch of the current group.
    first: u64,
    /// Batches in a group.
    group: u64,
    range: Range<u64>,
    /// The next one in the range.
    next: u64,
}

impl Iterator for Indices {
    type Item = u64;

    fn next(&mut self) -> Option<u64> {
        if self.range.is_empty() {
            return None;
        }
        if self.next == self.range.end {
            self.first += self.group;
            self.next = self.range.start;
        }
        self.next += 1;
        Some(self.first + self.next - 1)
    }
}

impl Prefetch {
    /// Starts to make batches from `first` on, at most `depth` of them in advance (at least one).
    pub fn start(source: Arc<BatchSource>, first: u64, depth: usize) -> Prefetch {
        Prefetch::start_part(source, first, 1, 0..1, depth)
    }

    /// As [`start`](Self::start), for a part of each step: of each `group` batches from `first` on, those in `range`.
    pub fn start_part(source: Arc<BatchSource>, first: u64, group: u64, range: Range<u64>, depth: usize) -> Prefetch {
        let indices = Indices { first, group, next: range.start, range };
        // In addition to the queue, the thread holds one batch that it cannot send yet.
        let (sender, receiver) = sync_channel(depth.saturating_sub(1).min(MAX_DEPTH));
        let (from, to_make) = (Arc::clone(&source), indices.clone());
        let thread = std::thread::Builder::new()
            .name("batches".into())
            .spawn(move || {
                for index in to_make {
                    if sender.send(from.unmasked(index)).is_err() {
                        return;
                    }
                }
            })
            .ok();
        Prefetch { source, indices, ready: thread.is_some().then_some(receiver), thread }
    }

    /// The next batch, masked at this progress of the run, 0 to 1. Waits if it is not ready. Panics if the part of each step has no
    /// batches.
    pub fn next(&mut self, progress: f64) -> Batch {
        let unmasked = self.next_unmasked();
        self.source.mask(unmasked, progress)
    }

    fn next_unmasked(&mut self) -> UnmaskedBatch {
        let index = self.indices.next().expect("a part with batches");
        if let Some(ready) = &self.ready {
            if let Ok(batch) = ready.recv() {
                return batch;
            }
            self.ready = None;
        }
        self.source.unmasked(index)
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
    use crate::masking::Masking;

    fn source() -> Arc<BatchSource> {
        let masking = Masking { rate: 0.4, final_rate: Some(0.1), ..Masking::default() };
        let options = BatchOptions { seq_len: 32, masking: Some(masking), ..BatchOptions::default() };
        Arc::new(BatchSource::new(corpus(50), table(), options).unwrap())
    }

    #[test]
    fn returns_the_batches_of_the_source_in_order() {
        let source = source();
        for depth in [0, 1, 4] {
            let mut prefetch = Prefetch::start(Arc::clone(&source), 17, depth);
            for index in 17..30 {
                let progress = index as f64 / 30.0;
                assert_eq!(prefetch.next(progress), source.mask(source.unmasked(index), progress));
            }
        }
    }

    #[test]
    fn a_part_of_each_step_has_every_other_batch() {
        let source = source();
        let mut prefetch = Prefetch::start_part(Arc::clone(&source), 8, 4, 1..3, 2);
        for index in [9, 10, 13, 14, 17] {
            assert_eq!(prefetch.next(0.5), source.mask(source.unmasked(index), 0.5));
        }
        drop(Prefetch::start_part(source, 8, 4, 1..1, 2));
    }

    #[test]
    fn dropping_ends_the_thread() {
        let source = source();
        for taken in 0..4 {
            let mut prefetch = Prefetch::start(Arc::clone(&source), 0, 2);
            for _ in 0..taken {
                prefetch.next(0.0);
            }
            drop(prefetch);
            // The thread held the only other handle.
            assert_eq!(Arc::strong_count(&source), 1);
        }
    }
}
