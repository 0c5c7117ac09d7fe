//! The exchange of gradients and weights between the ranks of a job.
//!
//! Each rank sums the gradients of its micro-batches. The sums of all ranks are added slice by slice: a rank gets the slices of its
//! [`Share`] from all ranks, adds them in the order of the [`Tree`](cloze_comm::Tree), and updates these weights. Then all ranks get
//! all weights. So the result has the same bits for any number of ranks.
//!
//! Gradients are sent in buckets, from the end of the arena to its start, which is the order of the backward pass. A thread sends and adds
//! a bucket while the pass goes on.

use std::ops::Range;
use std::sync::mpsc::{SyncSender, sync_channel};
use std::sync::{Mutex, MutexGuard, PoisonError};

use cloze_comm::{Communicator, ReduceBuffers};
use cloze_engine::{Device, GradientSums, Gradients, Parameters, Share};
use serde::{Deserialize, Serialize};

/// Packed buckets that wait to be sent. More would not make a slow network faster.
const WAITING: usize = 8;

/// The type of gradients on the way between ranks. They are added in f32.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum Wire {
    /// The same bits for any number of ranks.
    #[default]
    F32,
    /// Half of the bytes. The gradient of each rank is rounded once, with a relative error of at most 2⁻⁹.
    Bf16,
}

impl Wire {
    /// Whether it is the default.
    pub fn is_default(&self) -> bool {
        *self == Wire::default()
    }
}

/// A range of the arena whose gradients are sent together: a round of the shares. The slices of the ranks are consecutive.
struct Bucket {
    range: Range<usize>,
    /// The number of weights of each rank's slice.
    counts: Vec<usize>,
}

impl Bucket {
    /// The slice of a rank.
    fn slice(&self, rank: usize) -> Range<usize> {
        let start = self.range.start + self.counts[..rank].iter().sum::<usize>();
        start..start + self.counts[rank]
    }
}

/// The buckets of a network, and how they are sent.
pub(crate) struct Exchange<'a> {
    ranks: &'a Communicator,
    share: Share,
    buckets: Vec<Bucket>,
    /// Number of micro-batches of the step.
    parts: usize,
    wire: Wire,
}

/// Memory that all steps use again.
#[derive(Default)]
pub(crate) struct Buffers {
    /// Of packed buckets.
    packed: Mutex<Vec<Vec<f32>>>,
    rounded: Vec<u16>,
    received: ReduceBuffers,
    /// The gradients of the share, added over all ranks.
    own: Option<Gradients>,
}

impl<'a> Exchange<'a> {
    /// For a step with `parts` micro-batches. Rounds without trained weights are not sent.
    pub(crate) fn new(
        ranks: &'a Communicator,
        share: Share,
        params: &Parameters,
        parts: usize,
        wire: Wire,
    ) -> Exchange<'a> {
        let (round, count) = (share.round(), params.count());
        let trained = params.trained_ranges();
        let of_rounds = trained.iter().flat_map(|range| range.start / round..range.end.div_ceil(round));
        let mut rounds: Vec<usize> = of_rounds.collect();
        rounds.dedup();
        let of_rank = round / ranks.size();
        let bucket = |number: usize| {
            let range = number * round..count.min((number + 1) * round);
            let slice = |rank: usize| range.len().saturating_sub(rank * of_rank).min(of_rank);
            Bucket { counts: (0..ranks.size()).map(slice).collect(), range }
        };
        Exchange { ranks, share, buckets: rounds.into_iter().map(bucket).collect(), parts, wire }
    }

    /// Sends and adds all buckets. `packed` gives those of this rank, from the last to the first.
    fn sum(
        &self,
        packed: impl IntoIterator<Item = Vec<f32>>,
        free: &Mutex<Vec<Vec<f32>>>,
        (rounded, received, own): (&mut Vec<u16>, &mut ReduceBuffers, &mut Gradients),
    ) {
        for (bucket, numbers) in self.buckets.iter().rev().zip(packed) {
            own.edit_part(bucket.slice(self.ranks.rank()), |to| match self.wire {
                Wire::F32 => self.ranks.reduce_scatter(self.parts, &numbers, &bucket.counts, received, to),
                Wire::Bf16 => {
                    rounded.clear();
                    rounded.extend(numbers.iter().map(|number| to_bf16(*number)));
                    self.ranks.reduce_scatter(self.parts, rounded, &bucket.counts, received, to);
                }
            });
            lock(free).push(numbers);
        }
    }

    /// Runs the last backward pass of this rank, which reports complete gradients to the [`Sending`], while buckets are sent and added.
    /// The gradients of the share are then in the buffers.
    pub(crate) fn overlap(&self, device: &Device, buffers: &mut Buffers, run: impl FnOnce(&mut Sending<'_>)) {
        let (sender, receiver) = sync_channel(WAITING);
        let Buffers { packed: free, rounded, received, own } = buffers;
        let own = own.as_mut().expect("buffers of this network");
        // Taken by the thread, or afterwards if the system cannot start one.
        let work = Mutex::new(Some((receiver, (rounded, received, own))));
        let free = &*free;
        let sum = || {
            let (receiver, memory) = lock(&work).take().expect("the work is done once");
            self.sum(receiver, free, memory);
        };
        std::thread::scope(|scope| {
            let thread = std::thread::Builder::new().name("exchange".into()).spawn_scoped(scope, sum);
            let mut sender = sender;
            if thread.is_err()
                && let Some((receiver, _)) = &mut *lock(&work)
            {
                // Nobody receives until all are sent.
                (sender, *receiver) = sync_channel(self.buckets.len());
            }
            let unsent = self.buckets.iter().map(|bucket| bucket.range.len()).collect();
            run(&mut Sending { exchange: self, device, sender, free, unsent, next: self.buckets.len() });
            match thread {
                Ok(thread) => thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)),
                Err(_) => sum(),
            }
        });
    }

    /// The rank that updates a block.
    pub(crate) fn owner(&self, block: usize) -> usize {
        self.share.owner(block)
    }

    /// Gets the weights that other ranks have updated.
    pub(crate) fn gather_weights(&self, params: &mut Parameters) {
        params.edit_all(|weights| {
            for Bucket { range, counts } in &self.buckets {
                self.ranks.all_gather_parts(&mut weights[range.clone()], counts);
            }
        });
    }
}

impl Buffers {
    /// Makes room for the gradients of a share.
    pub(crate) fn prepare(&mut self, params: &Parameters, share: Share) {
        self.own.get_or_insert_with(|| Gradients::zeros_of(params, share));
    }

    /// The gradients of the share after an exchange; of all weights (`alone`) in a job of one process.
    pub(crate) fn gradients<'a>(&'a self, alone: &'a Gradients) -> &'a Gradients {
        self.own.as_ref().unwrap_or(alone)
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Packs buckets whose gradients are complete, and gives them to the thread that sends them.
pub(crate) struct Sending<'a> {
    exchange: &'a Exchange<'a>,
    device: &'a Device,
    sender: SyncSender<Vec<f32>>,
    free: &'a Mutex<Vec<Vec<f32>>>,
    /// Weights of each bucket whose gradients are not complete.
    unsent: Vec<usize>,
    /// The bucket after the next to be sent.
    next: usize,
}

impl Sending<'_> {
    /// The gradients of a range are complete, except for earlier micro-batches in `sums`.
    pub(crate) fn completed(&mut self, range: &Range<usize>, gradients: &Gradients, sums: &GradientSums) {
        let buckets = &self.exchange.buckets;
        let first = buckets.partition_point(|bucket| bucket.range.end <= range.start);
        for (bucket, unsent) in buckets.iter().zip(&mut self.unsent).skip(first) {
            let overlap = range.start.max(bucket.range.start)..range.end.min(bucket.range.end);
            if overlap.is_empty() {
                break;
            }
            *unsent -= overlap.len();
        }
        while self.next > 0 && self.unsent[self.next - 1] == 0 {
            self.next -= 1;
            let packed = self.pack(&buckets[self.next], gradients, sums);
            // The receiver lives until this value is dropped.
            let _ = self.sender.send(packed);
        }
    }

    /// This rank has no micro-batches: it only adds those of others.
    pub(crate) fn nothing(&mut self) {
        for _ in 0..std::mem::take(&mut self.next) {
            let _ = self.sender.send(Vec::new());
        }
    }

    /// The gradients of a bucket, packed for all ranks.
    fn pack(&self, bucket: &Bucket, gradients: &Gradients, sums: &GradientSums) -> Vec<f32> {
        let of_rank = sums.kept() + 1;
        let mut numbers = lock(self.free).pop().unwrap_or_default();
        numbers.resize(of_rank * bucket.counts.iter().sum::<usize>(), 0.0);
        let mut rest = &mut numbers[..];
        for rank in 0..bucket.counts.len() {
            let slice = bucket.slice(rank);
            for sum in 0..of_rank {
                let (now, later) = rest.split_at_mut(slice.len());
                // In parts, which the threads share.
                let parts: Vec<Range<usize>> = Share::WHOLE.ranges(slice.clone()).collect();
                sums.read(self.device, gradients, sum, &parts, now);
                rest = later;
            }
        }
        numbers
    }
}

/// The bits of the nearest bf16, ties to even. NaN stays NaN.
fn to_bf16(number: f32) -> u16 {
    let bits = number.to_bits();
    if number.is_nan() {
        return (bits >> 16) as u16 | 0x40;
    }
    ((bits + 0x7fff + (bits >> 16 & 1)) >> 16) as u16
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bf16_is_rounded_to_the_nearest() {
        for (number, bits) in [
            (1.0, 0x3f80),
            (-2.5, 0xc020),
            (1.0 + 1.0 / 256.0, 0x3f80),
            (1.0 + 3.0 / 256.0, 0x3f82),
            (f32::INFINITY, 0x7f80),
            (f32::MAX, 0x7f80),
            (0.0, 0),
        ] {
            assert_eq!(to_bf16(number), bits, "{number}");
        }
        assert!(f32::from_bits(u32::from(to_bf16(f32::NAN)) << 16).is_nan());
    }
}
