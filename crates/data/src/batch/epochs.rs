//! The epochs of a sequence of batches: the sequences of each epoch, their order, and the first sequence of each batch.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::options::{BatchOptions, BatchSize};
use crate::plan::{self, Instance, PairRule};
use crate::random::{Purpose, Random};
use crate::shards::Documents;

/// All epochs over a set of documents, planned on demand.
#[derive(Debug)]
pub(super) struct Epochs {
    pub(super) documents: Documents,
    pub(super) options: BatchOptions,
    /// Documents with at least one token.
    usable: Vec<u32>,
    /// Number of special tokens in a sequence.
    added: usize,
    index: Mutex<EpochIndex>,
}

/// Properties of the epochs planned so far.
#[derive(Debug)]
struct EpochIndex {
    /// The start of each epoch. It has one element more than the number of epochs whose size is known.
    starts: Vec<EpochStart>,
    /// Number of sequences in each round planned so far.
    counts: HashMap<u64, u64>,
    /// The two epochs that were used last.
    recent: VecDeque<(u64, Arc<Epoch>)>,
}

#[derive(Clone, Copy, Debug)]
struct EpochStart {
    /// Number of sequences in all earlier epochs.
    sequences: u64,
    /// Number of batches that begin in all earlier epochs.
    batches: u64,
    /// Number of tokens in the last, incomplete batch, for [`BatchSize::Tokens`].
    open_tokens: usize,
}

/// The sequences of one epoch in their random order.
#[derive(Debug)]
pub(super) struct Epoch {
    pub(super) instances: Vec<Instance>,
    /// For [`BatchSize::Tokens`]: the index of the first sequence of each batch.
    cuts: Vec<u32>,
}

impl Epochs {
    /// `usable` lists the documents with at least one token; `added` is the number of special tokens in a sequence.
    pub(super) fn new(documents: Documents, usable: Vec<u32>, options: BatchOptions, added: usize) -> Epochs {
        let index = EpochIndex {
            starts: vec![EpochStart { sequences: 0, batches: 0, open_tokens: 0 }],
            counts: HashMap::new(),
            recent: VecDeque::new(),
        };
        Epochs { documents, options, usable, added, index: Mutex::new(index) }
    }

    /// Number of special tokens in a sequence.
    pub(super) fn added(&self) -> usize {
        self.added
    }

    /// Length of an instance's sequence in tokens, special tokens included.
    pub(super) fn length(&self, instance: &Instance) -> usize {
        instance.text_tokens() + self.added
    }

    /// The round of masks. Epochs with the same round have the same masks.
    pub(super) fn mask_round(&self, epoch: u64) -> u64 {
        self.options.duplicates.map_or(epoch, |n| epoch % u64::from(n))
    }

    /// The round of plans. Epochs with the same round have the same sequences.
    fn plan_round(&self, epoch: u64) -> u64 {
        // Without pairs, the plan is not random.
        if self.options.pairs.has_pairs() { self.mask_round(epoch) } else { 0 }
    }

    /// The epoch in which batch `batch` begins, the position of the batch's first sequence in that epoch, and the epoch.
    pub(super) fn locate(&self, batch: u64) -> (u64, usize, Arc<Epoch>) {
        let mut index = self.lock_index();
        match self.options.size {
            BatchSize::Sequences(n) => {
                let sequence = batch.saturating_mul(n as u64);
                while index.last().sequences <= sequence {
                    self.extend(&mut index);
                }
                let after = index.starts.partition_point(|s| s.sequences <= sequence);
                let epoch = after as u64 - 1;
                let first = sequence - index.starts[after - 1].sequences;
                (epoch, first as usize, self.fetch(&mut index, epoch))
            }
            BatchSize::Tokens(_) => {
                while index.last().batches <= batch {
                    self.extend(&mut index);
                }
                let after = index.starts.partition_point(|s| s.batches <= batch);
                let epoch = after as u64 - 1;
                let plan = self.fetch(&mut index, epoch);
                let cut = batch - index.starts[after - 1].batches;
                (epoch, plan.cuts[cut as usize] as usize, plan)
            }
        }
    }

    /// The plan of an epoch.
    pub(super) fn load(&self, epoch: u64) -> Arc<Epoch> {
        let mut index = self.lock_index();
        while (index.starts.len() as u64) <= epoch {
            self.extend(&mut index);
        }
        self.fetch(&mut index, epoch)
    }

    fn lock_index(&self) -> MutexGuard<'_, EpochIndex> {
        // A panic cannot leave the index inconsistent, because each push is atomic.
        self.index.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds the start of the epoch after the last known one.
    fn extend(&self, index: &mut EpochIndex) {
        let epoch = index.starts.len() as u64 - 1;
        let start = index.last();
        let next = match self.options.size {
            BatchSize::Sequences(_) => {
                let known = index.counts.get(&self.plan_round(epoch)).copied();
                let count = known.unwrap_or_else(|| self.fetch(index, epoch).instances.len() as u64);
                EpochStart { sequences: start.sequences + count, ..start }
            }
            BatchSize::Tokens(budget) => {
                let plan = self.fetch(index, epoch);
                let mut open_tokens = start.open_tokens;
                for instance in &plan.instances {
                    let len = self.length(instance);
                    open_tokens = if open_tokens + len > budget { len } else { open_tokens + len };
                }
                EpochStart {
                    sequences: start.sequences + plan.instances.len() as u64,
                    batches: start.batches + plan.cuts.len() as u64,
                    open_tokens,
                }
            }
        };
        index.starts.push(next);
    }

    /// The plan of an epoch whose start is known, from the cache or newly planned.
    fn fetch(&self, index: &mut EpochIndex, epoch: u64) -> Arc<Epoch> {
        if let Some(at) = index.recent.iter().position(|cached| cached.0 == epoch)
            && let Some(cached) = index.recent.remove(at)
        {
            let plan = Arc::clone(&cached.1);
            index.recent.push_back(cached);
            return plan;
        }
        // Evict first, so that at most two plans are in memory.
        while index.recent.len() >= 2 {
            index.recent.pop_front();
        }
        let plan = Arc::new(self.plan(epoch, index.starts[epoch as usize]));
        index.counts.insert(self.plan_round(epoch), plan.instances.len() as u64);
        index.recent.push_back((epoch, Arc::clone(&plan)));
        plan
    }

    fn plan(&self, epoch: u64, start: EpochStart) -> Epoch {
        let options = &self.options;
        let mut instances = if options.pairs.has_pairs() {
            let rule = PairRule {
                task: options.pairs,
                max_tokens: options.seq_len - self.added,
                short_seq_prob: options.short_seq_prob,
                seed: options.seed,
                round: self.plan_round(epoch),
            };
            plan::pairs(&self.documents, &self.usable, rule)
        } else {
            plan::sentences(&self.documents, &self.usable, options.seq_len - self.added)
        };
        Random::keyed(options.seed, Purpose::Order, &[epoch]).shuffle(&mut instances);
        let mut cuts = Vec::new();
        if let BatchSize::Tokens(budget) = options.size {
            // There is no open batch before the first epoch: an open batch that is full has the same effect.
            let mut open_tokens = if start.batches == 0 { budget } else { start.open_tokens };
            for (at, instance) in (0u32..).zip(&instances) {
                let len = self.length(instance);
                open_tokens += len;
                if open_tokens > budget {
                    cuts.push(at);
                    open_tokens = len;
                }
            }
        }
        Epoch { instances, cuts }
    }
}

impl EpochIndex {
    fn last(&self) -> EpochStart {
        self.starts[self.starts.len() - 1]
    }
}
