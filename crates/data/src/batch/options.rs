//! Options for making batches.

use cloze_text::Template;

use crate::DataError;
use crate::masking::Masking;
use crate::plan::PairTask;

/// The size of a batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BatchSize {
    /// Exactly this number of sequences.
    Sequences(usize),
    /// The number of sequences that fit into this number of tokens, special tokens included.
    Tokens(usize),
}

/// Options for making batches.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct BatchOptions {
    /// Maximal length of a sequence in tokens, special tokens included: 5 to 65535 with BERT's \[CLS\] and \[SEP\] (3 without
    /// sentence pairs).
    pub seq_len: usize,
    /// Number of sequences or tokens in a batch.
    pub size: BatchSize,
    /// Whether sequences are pairs of segments, and of which kind.
    pub pairs: PairTask,
    /// Probability that the pairs of a document get a random shorter target length (only with pairs).
    pub short_seq_prob: f64,
    /// Masking for the masked language model; `None` for no masks and no predictions.
    pub masking: Option<Masking>,
    /// `None`: pairs and masks are new in each epoch. `Some(n)`: the pairs and masks of n epochs are repeated.
    pub duplicates: Option<u32>,
    /// The seed of all random choices in batches.
    pub seed: u64,
}

impl Default for BatchOptions {
    /// The first phase of the BERT paper with smaller batches: 32 sequences of 128 tokens.
    fn default() -> BatchOptions {
        BatchOptions {
            seq_len: 128,
            size: BatchSize::Sequences(32),
            pairs: PairTask::Nsp,
            short_seq_prob: 0.1,
            masking: Some(Masking::default()),
            duplicates: None,
            seed: 0,
        }
    }
}

impl BatchOptions {
    /// Checks each value and their combinations, for sequences of this template.
    ///
    /// # Errors
    /// [`DataError::Option`] with the option, what was expected and what was found.
    pub fn validate(&self, template: &Template) -> Result<(), DataError> {
        let reject = |option, reason| Err(DataError::Option { option, reason });
        // At least one token of each text.
        let has_pairs = self.pairs.has_pairs();
        let min = template.added(has_pairs) + if has_pairs { 2 } else { 1 };
        if !(min..=usize::from(u16::MAX)).contains(&self.seq_len) {
            let reason = format!("must be between {min} and 65535, found {}", self.seq_len);
            return reject("seq_len", reason);
        }
        if !(0.0..=1.0).contains(&self.short_seq_prob) {
            let reason = format!("must be between 0 and 1, found {}", self.short_seq_prob);
            return reject("short_seq_prob", reason);
        }
        if self.duplicates == Some(0) {
            let reason = "must be at least 1, found 0; leave it unset for new masks in each epoch";
            return reject("duplicates", reason.to_string());
        }
        match self.size {
            BatchSize::Sequences(0) => {
                let reason = "must be at least 1 sequence, found 0".to_string();
                return reject("size", reason);
            }
            BatchSize::Tokens(budget) if budget < self.seq_len => {
                let reason = format!("must be at least `seq_len`, {} tokens, found {budget}", self.seq_len);
                return reject("size", reason);
            }
            // Row indices have 32 bits.
            BatchSize::Sequences(n) if n.saturating_mul(self.seq_len) > i32::MAX as usize => {
                let reason = format!("of {n} sequences is more than 2^31 tokens; reduce it");
                return reject("size", reason);
            }
            BatchSize::Tokens(n) if n > i32::MAX as usize => {
                let reason = format!("must be at most 2^31 tokens, found {n}");
                return reject("size", reason);
            }
            BatchSize::Sequences(_) | BatchSize::Tokens(_) => {}
        }
        self.masking.as_ref().map_or(Ok(()), Masking::validate)
    }

    /// The part of a batch's [capacity](Self::capacity) that a sequence of `len` tokens uses.
    pub(super) fn cost(&self, len: usize) -> usize {
        match self.size {
            BatchSize::Sequences(_) => 1,
            BatchSize::Tokens(_) => len,
        }
    }

    /// The capacity of a batch, in sequences or tokens.
    pub(super) fn capacity(&self) -> usize {
        match self.size {
            BatchSize::Sequences(n) | BatchSize::Tokens(n) => n,
        }
    }
}
