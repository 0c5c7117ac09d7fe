//! What batches need to know of a tokenizer.

use cloze_text::{Special, Template, Tokenizer};

/// The part of a tokenizer that sampling and masking use: its size, its special tokens, the layout of a sequence, and which
/// ids continue a word. Small enough to be cloned; needs no tokenizer, so that tests can make one by hand.
#[derive(Clone, Debug)]
pub struct TokenTable {
    /// Number of ids, V: ids are `0..V`.
    pub vocab_size: usize,
    /// The ids of \[PAD\], \[UNK\], \[CLS\], \[SEP\] and \[MASK\].
    pub special: Special,
    /// Which special tokens a sequence has, and where.
    pub template: Template,
    /// `[V]`: whether the id is a piece inside a word (`##…`); none where tokens do not show it.
    pub continuation: Option<Vec<bool>>,
}

impl TokenTable {
    /// Whether `id` is one of the five special tokens.
    pub fn is_special(&self, id: u32) -> bool {
        self.special.all().contains(&id)
    }

    /// Whether `id` continues the word before it. False for ids outside the vocabulary, and where it is not known.
    pub fn is_continuation(&self, id: u32) -> bool {
        self.continuation.as_ref().and_then(|all| all.get(id as usize)).copied().unwrap_or_default()
    }
}

impl From<&Tokenizer> for TokenTable {
    fn from(tokenizer: &Tokenizer) -> TokenTable {
        let vocab_size = tokenizer.vocab_size();
        TokenTable {
            vocab_size,
            special: tokenizer.special(),
            template: tokenizer.template().clone(),
            continuation: tokenizer
                .marks_word_starts()
                .then(|| (0..vocab_size as u32).map(|id| tokenizer.is_continuation(id)).collect()),
        }
    }
}
