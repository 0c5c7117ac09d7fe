//! The epochs of a row of batches: what sequences each has, in which order, and where each batch begins.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::options::{BatchOptions, BatchSize};
use crate::plan::{self, Instance, PairRule};
use crate::random::{Purpose, Random};
use crate::shards::Documents;

/// All epochs over some documents, planned on demand.
#[derive(Debug)]
pub(super) struct Epochs {
    pub(super) documents: Documents,
    pub(super) options: BatchOptions,
    /// Documents with at least one token.
    usable: Vec<u32>,
    /// Special tokens of a sequence.
    added: usize,
    calendar: Mutex<EpochIndex>,
}

/// What is known of the epochs so far.
#[derive(Debug)]
struct EpochIndex {
    /// Where each epoch starts, as far as known; one more than there are epochs whose size is known.
    starts: Vec<EpochStart>,
    /// Number of sequences of each round planned so far.
    counts: HashMap<u64, u64>,
    /// The last two epochs used.
    recent: VecDeque<(u64, Arc<Epoch>)>,
}

#[derive(Clone, Copy, Debug)]
struct EpochStart {
    /// Sequences of all epochs before.
    sequences: u64,
    /// Batches begun in all epochs before.
    batches: u64,
    /// What the batch that is still open holds: tokens, for [`BatchSize::Tokens`].
    open: usize,
}

/// One epoch's sequences in their random order.
#[derive(Debug)]
pub(super) struct Epoch {
    pub(super) instances: Vec<Instance>,
    /// For [`BatchSize::Tokens`]: the sequences that begin a batch.
    cuts: Vec<u32>,
}

impl Epochs {
    /// Of the documents named by `usable`, each with at least one token; `added` is the number of special tokens of a sequence.
    pub(super) fn new(documents: Documents, usable: Vec<u32>, options: BatchOptions, added: usize) -> Epochs {
        let calendar = EpochIndex {
            starts: vec![EpochStart { sequences: 0, batches: 0, open: 0 }],
            counts: HashMap::new(),
            recent: VecDeque::new(),
        };
        Epochs { documents, options, usable, added, calendar: Mutex::new(calendar) }
    }

    /// Tokens of a finished sequence, special ones included.
    pub(super) fn length(&self, instance: &Instance) -> usize {
        instance.text_tokens() + self.added
    }

    /// Epochs of the same round have the same masks.
    pub(super) fn mask_round(&self, epoch: u64) -> u64 {
        self.options.duplicates.map_or(epoch, |n| epoch % u64::from(n))
    }

    /// Epochs of the same round have the same sequences.
    fn plan_round(&self, epoch: u64) -> u64 {
        // Without pairs nothing about the cutting is random.
        if self.options.nsp { self.mask_round(epoch) } else { 0 }
    }

    /// The epoch in which batch `index` begins, and the sequence of it that begins the batch.
    pub(super) fn locate(&self, index: u64) -> (u64, usize, Arc<Epoch>) {
        let mut calendar = self.calendar();
        match self.options.size {
            BatchSize::Sequences(n) => {
                let sequence = index.saturating_mul(n as u64);
                while calendar.last().sequences <= sequence {
                    self.extend(&mut calendar);
                }
                let after = calendar.starts.partition_point(|s| s.sequences <= sequence);
                let epoch = after as u64 - 1;
                let first = sequence - calendar.starts[after - 1].sequences;
                (epoch, first as usize, self.fetch(&mut calendar, epoch))
            }
            BatchSize::Tokens(_) => {
                while calendar.last().batches <= index {
                    self.extend(&mut calendar);
                }
                let after = calendar.starts.partition_point(|s| s.batches <= index);
                let epoch = after as u64 - 1;
                let plan = self.fetch(&mut calendar, epoch);
                let cut = index - calendar.starts[after - 1].batches;
                (epoch, plan.cuts[cut as usize] as usize, plan)
            }
        }
    }

    /// The plan of an epoch.
    pub(super) fn load(&self, epoch: u64) -> Arc<Epoch> {
        let mut calendar = self.calendar();
        while (calendar.starts.len() as u64) <= epoch {
            self.extend(&mut calendar);
        }
        self.fetch(&mut calendar, epoch)
    }

    fn calendar(&self) -> MutexGuard<'_, EpochIndex> {
        // Nothing is left half-done in the calendar by a panic: each push is whole.
        self.calendar.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds the start of the epoch after the last one known.
    fn extend(&self, calendar: &mut EpochIndex) {
        let epoch = calendar.starts.len() as u64 - 1;
        let start = calendar.last();
        let next = match self.options.size {
            BatchSize::Sequences(_) => {
                let known = calendar.counts.get(&self.plan_round(epoch)).copied();
                let count = known.unwrap_or_else(|| self.fetch(calendar, epoch).instances.len() as u64);
                EpochStart { sequences: start.sequences + count, ..start }
            }
            BatchSize::Tokens(budget) => {
                let plan = self.fetch(calendar, epoch);
                let mut open = start.open;
                for instance in &plan.instances {
                    let len = self.length(instance);
                    open = if open + len > budget { len } else { open + len };
                }
                EpochStart {
                    sequences: start.sequences + plan.instances.len() as u64,
                    batches: start.batches + plan.cuts.len() as u64,
                    open,
                }
            }
        };
        calendar.starts.push(next);
    }

    /// The plan of an epoch whose start is known: remembered, or made.
    fn fetch(&self, calendar: &mut EpochIndex, epoch: u64) -> Arc<Epoch> {
        if let Some(at) = calendar.recent.iter().position(|kept| kept.0 == epoch)
            && let Some(kept) = calendar.recent.remove(at)
        {
            let plan = Arc::clone(&kept.1);
            calendar.recent.push_back(kept);
            return plan;
        }
        // Room first, so that no more than two are in memory for us.
        while calendar.recent.len() >= 2 {
            calendar.recent.pop_front();
        }
        let plan = Arc::new(self.plan(epoch, calendar.starts[epoch as usize]));
        calendar.counts.insert(self.plan_round(epoch), plan.instances.len() as u64);
        calendar.recent.push_back((epoch, Arc::clone(&plan)));
        plan
    }

    fn plan(&self, epoch: u64, start: EpochStart) -> Epoch {
        let options = &self.options;
        let mut instances = if options.nsp {
            let rule = PairRule {
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
            // No batch is open before the first: as if one were full.
            let mut open = if start.batches == 0 { budget } else { start.open };
            for (at, instance) in (0u32..).zip(&instances) {
                let len = self.length(instance);
                open += len;
                if open > budget {
                    cuts.push(at);
                    open = len;
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
