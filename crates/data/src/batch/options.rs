//! How batches are made of documents.

use cloze_text::Template;

use crate::DataError;
use crate::masking::Masking;

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
#[non_exhaustive]
pub struct BatchOptions {
    /// Tokens of a sequence at most, special ones included: 5 to 65535 with BERT's \[CLS\] and \[SEP\] (3 without pairs).
    pub seq_len: usize,
    /// Sequences or tokens of a batch.
    pub size: BatchSize,
    /// Sentence pairs with next-sentence labels; otherwise whole sentences of one document in a single segment.
    pub nsp: bool,
    /// Probability that a document's pairs aim at a random shorter length (pairs only).
    pub short_seq_prob: f64,
    /// What is hidden; `None`: nothing, and nothing is to be predicted.
    pub masking: Option<Masking>,
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
            masking: Some(Masking::default()),
            duplicates: None,
            seed: 0,
        }
    }
}

impl BatchOptions {
    /// Checks each value and how they go together, for sequences of this template.
    ///
    /// # Errors
    /// [`DataError::Option`] names the option, what was found and what was expected.
    pub fn validate(&self, template: &Template) -> Result<(), DataError> {
        let refuse = |option, reason| Err(DataError::Option { option, reason });
        // A token of each text.
        let least = template.added(self.nsp) + if self.nsp { 2 } else { 1 };
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
        self.masking.as_ref().map_or(Ok(()), Masking::validate)
    }

    /// What a sequence of `len` tokens takes of a batch's [capacity](Self::capacity).
    pub(super) fn cost(&self, len: usize) -> usize {
        match self.size {
            BatchSize::Sequences(_) => 1,
            BatchSize::Tokens(_) => len,
        }
    }

    /// What a batch holds: sequences or tokens.
    pub(super) fn capacity(&self) -> usize {
        match self.size {
            BatchSize::Sequences(n) | BatchSize::Tokens(n) => n,
        }
    }
}
