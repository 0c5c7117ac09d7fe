//! Sequences of the epochs → packed, masked batches.

use cloze_text::Slot;

use super::epochs::Epochs;
use super::options::{BatchOptions, BatchSize};
use super::packed::Batch;
use crate::DataError;
use crate::masking::{self, MaskScratch};
use crate::plan::Instance;
use crate::random::{Purpose, Random};
use crate::shards::Documents;
use crate::tokens::TokenTable;

/// An endless row of batches, any of which can be asked for at once, in any order, from any thread.
#[derive(Debug)]
pub struct BatchSource {
    table: TokenTable,
    epochs: Epochs,
}

/// Memory used again from sequence to sequence.
#[derive(Default)]
struct Scratch {
    sentences: Vec<u32>,
    mask: MaskScratch,
}

impl BatchOptions {
    /// These options, without sentence pairs if the documents give none.
    pub fn fitting(self, documents: &Documents, vocab: &TokenTable) -> BatchOptions {
        match BatchSource::new(documents.clone(), vocab.clone(), self.clone()) {
            Err(DataError::Sampling { .. }) => BatchOptions { nsp: false, ..self },
            _ => self,
        }
    }
}

impl BatchSource {
    /// Checks the options and that the documents can give what they ask.
    ///
    /// # Errors
    /// [`DataError::Option`] for options that cannot work; [`DataError::Sampling`] when there is no text, or when sentence
    /// pairs are asked of a single document or of documents of one sentence each.
    pub fn new(documents: Documents, vocab: TokenTable, options: BatchOptions) -> Result<BatchSource, DataError> {
        options.validate(&vocab.template)?;
        if options.masking.as_ref().is_some_and(|masking| masking.whole_word) && vocab.continuation.is_none() {
            let reason = "needs a tokenizer whose tokens show where words begin (##, Ġ or ▁), and this one's do not; turn it off";
            return Err(DataError::Option { option: "whole-word masking", reason: reason.to_string() });
        }
        let refuse = |reason: &str| Err(DataError::Sampling { reason: reason.to_string() });
        let ordinary = (0..vocab.vocab_size as u32).any(|id| !vocab.is_special(id));
        if !ordinary {
            return refuse("the vocabulary holds nothing but special tokens; learn a larger one");
        }
        if documents.len() > u32::MAX as usize {
            return refuse("more than 2^32 documents; split the corpus");
        }
        let usable: Vec<u32> =
            (0..documents.len() as u32).filter(|&doc| documents.document_len(doc as usize) > 0).collect();
        if usable.is_empty() {
            return refuse("it holds no tokens; prepare a corpus that has text in this split");
        }
        if options.nsp {
            if usable.len() == 1 {
                return refuse(
                    "sentence pairs need a second document to take random sentences from, and there is only one: \
                     put a blank line between documents (or take a larger valid fraction), or set objective.nsp = false",
                );
            }
            let has_pair = usable.iter().any(|&doc| {
                let ends = documents.sentence_ends(doc as usize);
                ends.iter().any(|&end| end > 0 && end < ends[ends.len() - 1])
            });
            if !has_pair {
                return refuse(
                    "no document has two sentences, so that no pair would be a true continuation: put a blank line \
                     between documents only, not after each sentence, or set objective.nsp = false",
                );
            }
        }
        let added = vocab.template.added(options.nsp);
        Ok(BatchSource { table: vocab, epochs: Epochs::new(documents, usable, options, added) })
    }

    /// The options it was made with.
    pub fn options(&self) -> &BatchOptions {
        &self.epochs.options
    }

    /// Batch number `index`: the same whenever, from whichever thread and in whichever order it is asked for.
    pub fn batch(&self, index: u64) -> Batch {
        let (mut number, mut first, mut epoch) = self.epochs.locate(index);
        let capacity = self.epochs.options.capacity();
        let mut batch = self.empty();
        let (mut scratch, mut held) = (Scratch::default(), 0);
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

    /// The batches of one optimizer step that accumulates over `micro_batches` of them: consecutive batches, so that
    /// the same number of sequences makes the same step however it is split.
    pub fn step(&self, step: u64, micro_batches: usize) -> Vec<Batch> {
        let first = step * micro_batches as u64;
        (first..first + micro_batches as u64).map(|index| self.batch(index)).collect()
    }

    /// Every sequence of epoch `epoch` once, in batches of which the last may be smaller: a pass for evaluation.
    pub fn epoch_batches(&self, epoch: u64) -> impl Iterator<Item = Batch> + '_ {
        let plan = self.epochs.load(epoch);
        let capacity = self.epochs.options.capacity();
        let mut next = 0;
        let mut scratch = Scratch::default();
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
            (batch.sequences() > 0).then_some(batch)
        })
    }

    /// Number of sequences of an epoch.
    pub fn sequences_of(&self, epoch: u64) -> usize {
        self.epochs.load(epoch).instances.len()
    }

    /// How many times the documents have been gone through where batch `index` begins: 2.5 is the middle of the third
    /// epoch.
    pub fn epoch_of(&self, index: u64) -> f64 {
        let (number, first, epoch) = self.epochs.locate(index);
        number as f64 + first as f64 / epoch.instances.len() as f64
    }

    fn empty(&self) -> Batch {
        let tokens = match self.epochs.options.size {
            BatchSize::Sequences(n) => n.saturating_mul(self.epochs.options.seq_len).min(1 << 20),
            BatchSize::Tokens(n) => n.min(1 << 20),
        };
        Batch {
            ids: Vec::with_capacity(tokens),
            segments: Vec::with_capacity(tokens),
            cu_seqlens: vec![0],
            ..Batch::default()
        }
    }

    /// Adds one sequence, masked, to the batch.
    fn append(&self, instance: &Instance, epoch: u64, scratch: &mut Scratch, batch: &mut Batch) {
        let base = batch.ids.len();
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
                text.read(&self.epochs.documents, &mut scratch.sentences, &mut batch.ids);
            }
            batch.segments.resize(batch.ids.len(), i32::from(part.segment));
        }
        if b.is_some() {
            batch.nsp_labels.push(i32::from(instance.random_next));
        }
        batch.cu_seqlens.push(batch.ids.len() as i32);

        let Some(masking) = &self.epochs.options.masking else { return };
        let [a_key, b_key, rest] = instance.key();
        let key = [self.epochs.mask_round(epoch), a_key, b_key, rest];
        let mut random = Random::keyed(self.epochs.options.seed, Purpose::Mask, &key);
        masking::apply_mask(&mut batch.ids[base..], &self.table, masking, &mut random, &mut scratch.mask);
        for &(at, label) in &scratch.mask.chosen {
            batch.mlm_rows.push(base as i32 + at as i32);
            batch.mlm_labels.push(label);
        }
    }
}
