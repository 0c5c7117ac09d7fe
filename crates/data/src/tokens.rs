//! The properties of a tokenizer that batches need.

use cloze_text::{Special, Template, Tokenizer};

/// The part of a tokenizer that sampling and masking use: vocabulary size, special tokens, template, and which ids continue
/// a word. It is small, so it can be cloned. Tests can build it without a tokenizer.
#[derive(Clone, Debug)]
pub struct TokenTable {
    /// Number of ids, V; ids are `0..V`.
    pub vocab_size: usize,
    /// The ids of \[PAD\], \[UNK\], \[CLS\], \[SEP\] and \[MASK\].
    pub special: Special,
    /// The positions of special tokens in a sequence.
    pub template: Template,
    /// `[V]`: whether each id continues a word (`##…`); `None` if tokens do not mark it.
    pub continuation: Option<Vec<bool>>,
}

impl TokenTable {
    /// Whether `id` is one of the five special tokens.
    pub fn is_special(&self, id: u32) -> bool {
        self.special.all().contains(&id)
    }

    /// Whether `id` continues a word. False for ids outside the vocabulary, and if tokens do not mark it.
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
