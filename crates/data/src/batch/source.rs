//! Makes packed, masked batches from the sequences of the epochs.

use cloze_text::Slot;

use super::epochs::Epochs;
use super::options::{BatchOptions, BatchSize};
use super::packed::Batch;
use crate::DataError;
use crate::masking::{self, MaskScratch};
use crate::plan::{Instance, PairTask};
use crate::random::{Purpose, Random};
use crate::shards::Documents;
use crate::tokens::TokenTable;

/// An endless sequence of batches. Each can be made directly, in any order, from any thread.
#[derive(Debug)]
pub struct BatchSource {
    table: TokenTable,
    epochs: Epochs,
}

/// A batch whose tokens are still to be chosen and masked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UnmaskedBatch {
    batch: Batch,
    /// `[S]` the key of each sequence's masks.
    keys: Vec<[u64; 4]>,
}

impl BatchOptions {
    /// These options, but without pairs if none can be made from the documents.
    pub fn without_unavailable_pairs(self, documents: &Documents, vocab: &TokenTable) -> BatchOptions {
        match BatchSource::new(documents.clone(), vocab.clone(), self.clone()) {
            Err(DataError::Sampling { .. }) => BatchOptions { pairs: PairTask::None, ..self },
            _ => self,
        }
    }
}

impl BatchSource {
    /// Checks the options, and that batches can be made from the documents.
    ///
    /// # Errors
    /// [`DataError::Option`] for invalid options. [`DataError::Sampling`] if there is no text, or if pairs are required from
    /// documents of one sentence each, or next sentences from a single document.
    pub fn new(documents: Documents, vocab: TokenTable, options: BatchOptions) -> Result<BatchSource, DataError> {
        options.validate(&vocab.template)?;
        if options.masking.as_ref().is_some_and(|masking| masking.unit.needs_words()) && vocab.continuation.is_none() {
            let reason = "of words requires a tokenizer whose tokens mark word starts (##, Ġ or ▁), and this one does not mark them; choose \
                          single tokens";
            return Err(DataError::Option { option: "masking.unit", reason: reason.to_string() });
        }
        let reject = |reason: &str| Err(DataError::Sampling { reason: reason.to_string() });
        let ordinary = (0..vocab.vocab_size as u32).any(|id| !vocab.is_special(id));
        if !ordinary {
            return reject("the vocabulary contains only special tokens; use a larger one");
        }
        if documents.len() > u32::MAX as usize {
            return reject("found more than 2^32 documents; split the corpus");
        }
        let usable: Vec<u32> =
            (0..documents.len() as u32).filter(|&doc| documents.document_len(doc as usize) > 0).collect();
        if usable.is_empty() {
            return reject("found no tokens; prepare a corpus that has text in this split");
        }
        if options.pairs.has_pairs() {
            if options.pairs == PairTask::Nsp && usable.len() == 1 {
                return reject(
                    "sentence pairs need a second document to sample random sentences from, but there is only one: \
                     put a blank line between documents (or increase `valid_fraction`), or set objective.nsp = false",
                );
            }
            let has_pair = usable.iter().any(|&doc| {
                let ends = documents.sentence_ends(doc as usize);
                ends.iter().any(|&end| end > 0 && end < ends[ends.len() - 1])
            });
            if !has_pair {
                return reject(match options.pairs {
                    PairTask::Sop => {
                        "no document has two sentences, so there is no order to predict: put a blank line between \
                         documents only, not after each sentence, or set objective.sop = false"
                    }
                    _ => {
                        "no document has two sentences, so no pair would be a true continuation: put a blank line \
                         between documents only, not after each sentence, or set objective.nsp = false"
                    }
                });
            }
        }
        let added = vocab.template.added(options.pairs.has_pairs());
        Ok(BatchSource { table: vocab, epochs: Epochs::new(documents, usable, options, added) })
    }

    /// The options that it was made with.
    pub fn options(&self) -> &BatchOptions {
        &self.epochs.options
    }

    /// Number of special tokens in each sequence.
    pub fn added_tokens(&self) -> usize {
        self.epochs.added()
    }

    /// Batch number `index`, with the masking rate of the start of a run. It is the same for every call, thread and order of
    /// calls.
    pub fn batch(&self, index: u64) -> Batch {
        self.mask(self.unmasked(index), 0.0)
    }

    /// Batch number `index`, to be [masked](Self::mask) when the progress of the run is known.
    pub fn unmasked(&self, index: u64) -> UnmaskedBatch {
        let (mut number, mut first, mut epoch) = self.epochs.locate(index);
        let capacity = self.epochs.options.capacity();
        let mut batch = self.empty();
        let (mut scratch, mut held) = (Vec::new(), 0);
        loop {
            for instance in &epoch.instances[first..] {
                held += self.epochs.options.cost(self.epochs.length(instance));
                if held > capacity {
                    return batch;
                }
                self.append(instance, number, &mut scratch, &mut batch);
            }
            if held == capacity {
                return batch;
            }
            number += 1;
            first = 0;
            epoch = self.epochs.load(number);
        }
    }

    /// Chooses and masks the tokens of a batch of this source, with the masking rate at this progress of the run, 0 to 1. The
    /// result depends only on the seed, the batch's number and the rate.
    pub fn mask(&self, unmasked: UnmaskedBatch, progress: f64) -> Batch {
        let UnmaskedBatch { mut batch, keys } = unmasked;
        let BatchOptions { masking: Some(masking), seed, .. } = &self.epochs.options else { return batch };
        let (rate, mut scratch) = (masking.rate_at(progress), MaskScratch::default());
        for (sequence, key) in keys.iter().enumerate() {
            let rows = batch.rows(sequence);
            let base = rows.start as i32;
            let mut random = Random::keyed(*seed, Purpose::Mask, key);
            masking::apply_mask(&mut batch.ids[rows], &self.table, masking, rate, &mut random, &mut scratch);
            for &(at, label) in &scratch.chosen {
                batch.mlm_rows.push(base + at as i32);
                batch.mlm_labels.push(label);
            }
        }
        batch
    }

    /// The batches of one optimizer step that accumulates over `micro_batches`. They are consecutive, so a step has the same
    /// sequences for any number of micro-batches.
    pub fn step(&self, step: u64, micro_batches: usize) -> Vec<Batch> {
        let first = step * micro_batches as u64;
        (first..first + micro_batches as u64).map(|index| self.batch(index)).collect()
    }

    /// Every sequence of epoch `epoch` once, for evaluation, with the masking rate of the start of a run. The last batch may be
    /// smaller.
    pub fn epoch_batches(&self, epoch: u64) -> impl Iterator<Item = Batch> + '_ {
        let plan = self.epochs.load(epoch);
        let capacity = self.epochs.options.capacity();
        let mut next = 0;
        let mut scratch = Vec::new();
        std::iter::from_fn(move || {
            let mut batch = self.empty();
            let mut held = 0;
            while let Some(instance) = plan.instances.get(next) {
                held += self.epochs.options.cost(self.epochs.length(instance));
                if held > capacity {
                    break;
                }
                self.append(instance, epoch, &mut scratch, &mut batch);
                next += 1;
            }
            (batch.batch.sequences() > 0).then(|| self.mask(batch, 0.0))
        })
    }

    /// Number of sequences in an epoch.
    pub fn epoch_sequences(&self, epoch: u64) -> usize {
        self.epochs.load(epoch).instances.len()
    }

    /// The number of passes over the documents before batch `index`: 2.5 is the middle of the third epoch.
    pub fn epoch_at(&self, index: u64) -> f64 {
        let (number, first, epoch) = self.epochs.locate(index);
        number as f64 + first as f64 / epoch.instances.len() as f64
    }

    fn empty(&self) -> UnmaskedBatch {
        let tokens = match self.epochs.options.size {
            BatchSize::Sequences(n) => n.saturating_mul(self.epochs.options.seq_len).min(1 << 20),
            BatchSize::Tokens(n) => n.min(1 << 20),
        };
        let batch = Batch {
            ids: Vec::with_capacity(tokens),
            segments: Vec::with_capacity(tokens),
            cu_seqlens: vec![0],
            ..Batch::default()
        };
        UnmaskedBatch { batch, keys: Vec::new() }
    }

    /// Adds one sequence to the batch. `scratch` is reused memory.
    fn append(&self, instance: &Instance, epoch: u64, scratch: &mut Vec<u32>, unmasked: &mut UnmaskedBatch) {
        let UnmaskedBatch { batch, keys } = unmasked;
        let b = instance.b();
        for part in self.table.template.parts(b.is_some()) {
            let text = match part.slot {
                Slot::Special(id) => {
                    batch.ids.push(id as i32);
                    None
                }
                Slot::First => Some(instance.a()),
                Slot::Second => b,
            };
            if let Some(text) = text {
                text.read(&self.epochs.documents, scratch, &mut batch.ids);
            }
            batch.segments.resize(batch.ids.len(), i32::from(part.segment));
        }
        if b.is_some() {
            batch.pair_labels.push(i32::from(instance.label));
        }
        batch.cu_seqlens.push(batch.ids.len() as i32);
        let [a_key, b_key, rest] = instance.key();
        keys.push([self.epochs.mask_round(epoch), a_key, b_key, rest]);
    }
}
