//! Documents → packed batches. Each batch is a pure function of (seed, index).
//!
//! An *epoch* is one pass over the documents: a plan of sequences (see [`crate::plan`]) in a random order. Epochs follow
//! each other without end and batches are cut from that one long row: by a number of sequences, or as many sequences as
//! fit a budget of tokens. **The last batch of an epoch is carried over**: it is filled up from the next epoch, so that
//! every step has the same size, and no text is dropped.
//!
//! Without `duplicates` every epoch has its own pairs and masks (dynamic masking, Liu et al. 2019). With `duplicates = N`
//! epoch e has those of epoch e mod N (static masking, as Google's `dupe_factor`), in an order of its own.
//!
//! Index → epoch needs the sizes of the epochs before it, which differ a little as chunks are cut at random. They are
//! planned on the first call that needs them and remembered: an epoch of fifty million words takes some tenths of
//! a second, once. The plans of the last two epochs are kept.

use std::collections::{HashMap, VecDeque};
use std::ops::Range;
use std::sync::{Arc, Mutex, PoisonError};

use cloze_text::Tokenizer;

use crate::DataError;
use crate::masking::{self, MaskScratch, Masking};
use crate::plan::{self, Instance, PairRule};
use crate::random::{Purpose, Random};
use crate::shards::Documents;
use crate::tokens::TokenTable;

/// S sequences laid end to end: T tokens in all, M of them predicted. No padding.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Batch {
    /// `[T]` input ids, after masking.
    pub ids: Vec<i32>,
    /// `[T]` 0 for \[CLS\] A \[SEP\], 1 for B \[SEP\].
    pub segments: Vec<i32>,
    /// `[S+1]` where each sequence begins; the last is T.
    pub cu_seqlens: Vec<i32>,
    /// `[M]` rows in `0..T` whose token is to be predicted, ascending.
    pub mlm_rows: Vec<i32>,
    /// `[M]` the token that stood there.
    pub mlm_labels: Vec<i32>,
    /// `[S]` 0: B continues A; 1: B is of another document. Empty when there are no pairs.
    pub nsp_labels: Vec<i32>,
}

impl Batch {
    /// Number of sequences, S.
    pub fn sequences(&self) -> usize {
        self.cu_seqlens.len().saturating_sub(1)
    }

    /// Number of tokens, T.
    pub fn tokens(&self) -> usize {
        self.ids.len()
    }

    /// Number of predicted tokens, M. Zero only if the text of every sequence is nothing but special tokens.
    pub fn predictions(&self) -> usize {
        self.mlm_rows.len()
    }

    /// Length of each sequence, `[S]`.
    pub fn lengths(&self) -> impl Iterator<Item = usize> + '_ {
        self.cu_seqlens.windows(2).map(|pair| (pair[1] - pair[0]) as usize)
    }

    /// The rows of sequence `sequence`, in `0..T`.
    pub fn rows(&self, sequence: usize) -> Range<usize> {
        self.cu_seqlens[sequence] as usize..self.cu_seqlens[sequence + 1] as usize
    }

    /// Where in `mlm_rows` the predictions of sequence `sequence` lie.
    pub fn prediction_range(&self, sequence: usize) -> Range<usize> {
        let rows = self.rows(sequence);
        let before = |end: usize| self.mlm_rows.partition_point(|&row| (row as usize) < end);
        before(rows.start)..before(rows.end)
    }
}

/// How much a batch holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BatchSize {
    /// This many sequences, exactly.
    Sequences(usize),
    /// As many sequences as fit this many tokens, specials included; never more tokens.
    Tokens(usize),
}

/// How batches are made of documents.
#[derive(Clone, Debug, PartialEq)]
pub struct BatchOptions {
    /// Tokens of a sequence at most, with \[CLS\] and each \[SEP\]: 5 to 65535 (3 without pairs).
    pub seq_len: usize,
    /// Sequences or tokens of a batch.
    pub size: BatchSize,
    /// Sentence pairs with next-sentence labels; otherwise whole sentences of one document in a single segment.
    pub nsp: bool,
    /// Probability that a document's pairs aim at a random shorter length (pairs only).
    pub short_seq_prob: f64,
    /// What is hidden.
    pub masking: Masking,
    /// `None`: pairs and masks are new in each epoch. `Some(n)`: those of n epochs, again and again.
    pub duplicates: Option<u32>,
    /// The seed of everything random here.
    pub seed: u64,
}

impl Default for BatchOptions {
    /// The paper's first phase with small batches: pairs of 128, 32 of them.
    fn default() -> BatchOptions {
        BatchOptions {
            seq_len: 128,
            size: BatchSize::Sequences(32),
            nsp: true,
            short_seq_prob: 0.1,
            masking: Masking::default(),
            duplicates: None,
            seed: 0,
        }
    }
}

impl BatchOptions {
    /// Checks each value and how they go together.
    ///
    /// # Errors
    /// [`DataError::Option`] names the option, what was found and what was expected.
    pub fn validate(&self) -> Result<(), DataError> {
        let refuse = |option, reason| Err(DataError::Option { option, reason });
        let least = if self.nsp { 5 } else { 3 };
        if !(least..=usize::from(u16::MAX)).contains(&self.seq_len) {
            let reason = format!("is {}; expected {least} to 65535", self.seq_len);
            return refuse("seq_len", reason);
        }
        if !(0.0..=1.0).contains(&self.short_seq_prob) {
            let reason = format!("is {}; expected 0 to 1", self.short_seq_prob);
            return refuse("short_seq_prob", reason);
        }
        if self.duplicates == Some(0) {
            let reason = "is 0; expected at least 1, or none for new masks in each epoch";
            return refuse("duplicates", reason.to_string());
        }
        match self.size {
            BatchSize::Sequences(0) => {
                let reason = "holds 0 sequences; expected at least 1".to_string();
                return refuse("batch size", reason);
            }
            BatchSize::Tokens(budget) if budget < self.seq_len => {
                let reason = format!(
                    "of {budget} tokens cannot hold one sequence of seq_len {}; expected at least as many",
                    self.seq_len
                );
                return refuse("batch size", reason);
            }
            // Row numbers are 32-bit.
            BatchSize::Sequences(n) if n.saturating_mul(self.seq_len) > i32::MAX as usize => {
                let reason = format!("of {n} sequences is more than 2^31 tokens; make it smaller");
                return refuse("batch size", reason);
            }
            BatchSize::Tokens(n) if n > i32::MAX as usize => {
                let reason = format!("of {n} tokens is more than 2^31; make it smaller");
                return refuse("batch size", reason);
            }
            BatchSize::Sequences(_) | BatchSize::Tokens(_) => {}
        }
        self.masking.validate()
    }

    /// What a sequence of `len` tokens takes of a batch, and what a batch holds.
    fn cost(&self, len: usize) -> usize {
        match self.size {
            BatchSize::Sequences(_) => 1,
            BatchSize::Tokens(_) => len,
        }
    }

    fn capacity(&self) -> usize {
        match self.size {
            BatchSize::Sequences(n) | BatchSize::Tokens(n) => n,
        }
    }
}

/// An endless row of batches, any of which can be asked for at once, in any order, from any thread.
#[derive(Debug)]
pub struct BatchSource {
    documents: Documents,
    table: TokenTable,
    options: BatchOptions,
    /// Documents with at least one token.
    usable: Vec<u32>,
    calendar: Mutex<Calendar>,
}

/// What is known of the epochs so far.
#[derive(Debug)]
struct Calendar {
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
struct Epoch {
    instances: Vec<Instance>,
    /// For [`BatchSize::Tokens`]: the sequences that begin a batch.
    cuts: Vec<u32>,
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
        options.validate()?;
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
        Ok(BatchSource {
            documents,
            table: vocab,
            options,
            usable,
            calendar: Mutex::new(Calendar {
                starts: vec![EpochStart { sequences: 0, batches: 0, open: 0 }],
                counts: HashMap::new(),
                recent: VecDeque::new(),
            }),
        })
    }

    /// The options it was made with.
    pub fn options(&self) -> &BatchOptions {
        &self.options
    }

    /// Batch number `index`: the same whenever, from whichever thread and in whichever order it is asked for.
    pub fn batch(&self, index: u64) -> Batch {
        let (mut number, mut first, mut epoch) = self.locate(index);
        let capacity = self.options.capacity();
        let mut batch = self.empty();
        let (mut scratch, mut held) = (Scratch::default(), 0);
        loop {
            for instance in &epoch.instances[first..] {
                held += self.options.cost(instance.len());
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
            epoch = self.load(number);
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
        let plan = self.load(epoch);
        let capacity = self.options.capacity();
        let mut next = 0;
        let mut scratch = Scratch::default();
        std::iter::from_fn(move || {
            let mut batch = self.empty();
            let mut held = 0;
            while let Some(instance) = plan.instances.get(next) {
                held += self.options.cost(instance.len());
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
        self.load(epoch).instances.len()
    }

    /// How many times the documents have been gone through where batch `index` begins: 2.5 is the middle of the third
    /// epoch.
    pub fn epoch_of(&self, index: u64) -> f64 {
        let (number, first, epoch) = self.locate(index);
        number as f64 + first as f64 / epoch.instances.len() as f64
    }

    fn empty(&self) -> Batch {
        let tokens = match self.options.size {
            BatchSize::Sequences(n) => n.saturating_mul(self.options.seq_len).min(1 << 20),
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
        let (cls, sep) = (self.table.special.cls as i32, self.table.special.sep as i32);
        let base = batch.ids.len();
        batch.ids.push(cls);
        let a = instance.a();
        a.read(&self.documents, &mut scratch.sentences, &mut batch.ids);
        batch.ids.push(sep);
        batch.segments.resize(batch.ids.len(), 0);
        if let Some(b) = instance.b() {
            b.read(&self.documents, &mut scratch.sentences, &mut batch.ids);
            batch.ids.push(sep);
            batch.segments.resize(batch.ids.len(), 1);
            batch.nsp_labels.push(i32::from(instance.random_next));
        }
        batch.cu_seqlens.push(batch.ids.len() as i32);

        let [a_key, b_key, rest] = instance.key();
        let key = [self.mask_round(epoch), a_key, b_key, rest];
        let mut random = Random::keyed(self.options.seed, Purpose::Mask, &key);
        masking::hide(&mut batch.ids[base..], &self.table, &self.options.masking, &mut random, &mut scratch.mask);
        for &(at, label) in &scratch.mask.chosen {
            batch.mlm_rows.push(base as i32 + at as i32);
            batch.mlm_labels.push(label);
        }
    }

    /// Epochs of the same round have the same masks.
    fn mask_round(&self, epoch: u64) -> u64 {
        self.options.duplicates.map_or(epoch, |n| epoch % u64::from(n))
    }

    /// Epochs of the same round have the same sequences.
    fn plan_round(&self, epoch: u64) -> u64 {
        // Without pairs nothing about the cutting is random.
        if self.options.nsp { self.mask_round(epoch) } else { 0 }
    }

    /// The epoch in which batch `index` begins, and the sequence of it that begins the batch.
    fn locate(&self, index: u64) -> (u64, usize, Arc<Epoch>) {
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

    fn load(&self, epoch: u64) -> Arc<Epoch> {
        let mut calendar = self.calendar();
        while (calendar.starts.len() as u64) <= epoch {
            self.extend(&mut calendar);
        }
        self.fetch(&mut calendar, epoch)
    }

    fn calendar(&self) -> std::sync::MutexGuard<'_, Calendar> {
        // Nothing is left half-done in the calendar by a panic: each push is whole.
        self.calendar.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds the start of the epoch after the last one known.
    fn extend(&self, calendar: &mut Calendar) {
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
                    let len = instance.len();
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
    fn fetch(&self, calendar: &mut Calendar, epoch: u64) -> Arc<Epoch> {
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
                max_tokens: options.seq_len - 3,
                short_seq_prob: options.short_seq_prob,
                seed: options.seed,
                round: self.plan_round(epoch),
            };
            plan::pairs(&self.documents, &self.usable, rule)
        } else {
            plan::sentences(&self.documents, &self.usable, options.seq_len - 2)
        };
        Random::keyed(options.seed, Purpose::Order, &[epoch]).shuffle(&mut instances);
        let mut cuts = Vec::new();
        if let BatchSize::Tokens(budget) = options.size {
            // No batch is open before the first: as if one were full.
            let mut open = if start.batches == 0 { budget } else { start.open };
            for (at, instance) in (0u32..).zip(&instances) {
                open += instance.len();
                if open > budget {
                    cuts.push(at);
                    open = instance.len();
                }
            }
        }
        Epoch { instances, cuts }
    }
}

impl Calendar {
    fn last(&self) -> EpochStart {
        self.starts[self.starts.len() - 1]
    }
}

/// One sequence of a batch, in words.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Example {
    /// Its tokens in order, with \[CLS\] and \[SEP\].
    pub pieces: Vec<ExamplePiece>,
    /// Whether B is of another document (label 1) or continues A (label 0); `None` without pairs.
    pub random_next: Option<bool>,
}

/// One token of an [`Example`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ExamplePiece {
    /// What the model sees: `[MASK]`, `walk`, `##ing`…
    pub token: String,
    /// What stood there, if it is to be predicted. The same as `token` for one chosen in ten.
    pub label: Option<String>,
    /// 0 for \[CLS\] A \[SEP\], 1 for B \[SEP\].
    pub segment: u8,
}

/// Every sequence of a batch in words, to be shown. An id outside the vocabulary is written `<id>`.
pub fn describe(batch: &Batch, tokenizer: &Tokenizer) -> Vec<Example> {
    describe_with(batch, |id| tokenizer.token(id).map(str::to_string))
}

fn describe_with(batch: &Batch, token: impl Fn(u32) -> Option<String>) -> Vec<Example> {
    let name = |id: i32| token(id as u32).unwrap_or_else(|| format!("<{id}>"));
    (0..batch.sequences())
        .map(|sequence| {
            let rows = batch.rows(sequence);
            let mut pieces: Vec<ExamplePiece> = rows
                .clone()
                .map(|row| ExamplePiece {
                    token: name(batch.ids[row]),
                    label: None,
                    segment: batch.segments[row] as u8,
                })
                .collect();
            for at in batch.prediction_range(sequence) {
                let row = batch.mlm_rows[at] as usize - rows.start;
                pieces[row].label = Some(name(batch.mlm_labels[at]));
            }
            Example { pieces, random_next: batch.nsp_labels.get(sequence).map(|&label| label == 1) }
        })
        .collect()
}

#[cfg(test)]
pub(crate) mod tests;
