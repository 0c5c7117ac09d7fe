//! What differs between the kinds of tokenizers: who encodes, how tokens mark words, how tokens become text.

use std::sync::OnceLock;

use ahash::AHashSet;
use tokenizers::normalizers::BertNormalizer;
use tokenizers::{Model, ModelWrapper, PreTokenizerWrapper};

use crate::trie::Trie;
use crate::vocabulary::{CONTINUATION, Vocabulary};
use crate::words::Words;

/// The kind of a tokenizer.
pub(crate) enum Kind {
    /// `##` continues a word; our own path where the configuration is BERT's.
    WordPiece(Option<Box<Fast>>),
    /// Any other model of the `tokenizers` crate, which does all the work.
    Other(Box<Other>),
}

/// Our own path.
pub(crate) struct Fast {
    pub(crate) words: Words,
    pub(crate) trie: Trie,
}

/// A tokenizer that only the `tokenizers` crate knows.
pub(crate) struct Other {
    boundaries: Boundaries,
    /// Ids of special and added tokens.
    added: AHashSet<u32>,
    /// A copy that finds the mask in text and no other of BERT's special tokens; made on first use.
    finds_mask: OnceLock<tokenizers::Tokenizer>,
}

/// How tokens show where words begin.
#[derive(Debug, PartialEq)]
enum Boundaries {
    /// Tokens that continue a word have this prefix.
    Continues(String),
    /// Tokens that begin a word have this first character.
    Begins(char),
    /// Each token is a word.
    Whole,
    /// They do not show it.
    Unknown,
}

impl Fast {
    /// `None` unless everything but the added tokens is as in the original BERT.
    pub(crate) fn new(
        vocabulary: &Vocabulary,
        reference: &tokenizers::Tokenizer,
        normalizer: Option<BertNormalizer>,
    ) -> Option<Fast> {
        let normalizer = normalizer.filter(|n| n.clean_text)?;
        let Some(PreTokenizerWrapper::BertPreTokenizer(_)) = reference.get_pre_tokenizer() else {
            return None;
        };
        let ModelWrapper::WordPiece(model) = reference.get_model() else {
            return None;
        };
        // Added tokens that the model itself does not have come after its own, and no word is spelled with them.
        let own = vocabulary.tokens.get(..reference.get_vocab_size(false))?;
        if model.continuing_subword_prefix != CONTINUATION || own.iter().any(|token| model.token_to_id(token).is_none())
        {
            return None;
        }
        let unk = *vocabulary.ids.get(&model.unk_token)?;
        Some(Fast {
            words: Words::new(normalizer),
            trie: Trie::new(own.iter().map(String::as_str), CONTINUATION, unk, model.max_input_chars_per_word),
        })
    }
}

impl Other {
    pub(crate) fn new(reference: &tokenizers::Tokenizer) -> Other {
        let added = reference.get_added_tokens_decoder().into_keys().collect();
        Other { boundaries: Boundaries::of(reference), added, finds_mask: OnceLock::new() }
    }

    /// The copy of the tokenizer that finds the mask; `make` makes it.
    pub(crate) fn finding_mask(&self, make: impl FnOnce() -> tokenizers::Tokenizer) -> &tokenizers::Tokenizer {
        self.finds_mask.get_or_init(make)
    }

    /// Whether tokens show where words begin.
    pub(crate) fn shows_words(&self) -> bool {
        self.boundaries != Boundaries::Unknown
    }

    /// Whether the space before a word is part of its first token.
    pub(crate) fn marks_spaces(&self) -> bool {
        matches!(self.boundaries, Boundaries::Begins(_))
    }

    /// Whether a token continues a word.
    pub(crate) fn is_continuation(&self, id: u32, token: &str) -> bool {
        match &self.boundaries {
            Boundaries::Continues(prefix) => token.len() > prefix.len() && token.starts_with(prefix),
            Boundaries::Begins(mark) => !token.starts_with(*mark) && !self.added.contains(&id),
            Boundaries::Whole | Boundaries::Unknown => false,
        }
    }
}

impl Boundaries {
    fn of(reference: &tokenizers::Tokenizer) -> Boundaries {
        match reference.get_model() {
            ModelWrapper::WordLevel(_) => return Boundaries::Whole,
            ModelWrapper::BPE(bpe) => {
                if let Some(prefix) = bpe.continuing_subword_prefix.as_ref().filter(|prefix| !prefix.is_empty()) {
                    return Boundaries::Continues(prefix.clone());
                }
            }
            ModelWrapper::Unigram(_) | ModelWrapper::WordPiece(_) => {}
        }
        reference.get_pre_tokenizer().and_then(mark).map_or(Boundaries::Unknown, Boundaries::Begins)
    }
}

/// The character that a pre-tokeniser puts in the place of the space before a word.
fn mark(pre_tokenizer: &PreTokenizerWrapper) -> Option<char> {
    match pre_tokenizer {
        // The visible form of the space's byte.
        PreTokenizerWrapper::ByteLevel(_) => Some('Ġ'),
        PreTokenizerWrapper::Metaspace(metaspace) => Some(metaspace.get_replacement()),
        PreTokenizerWrapper::Sequence(sequence) => sequence.as_ref().iter().find_map(mark),
        _ => None,
    }
}
