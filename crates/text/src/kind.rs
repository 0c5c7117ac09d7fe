//! What differs between the kinds of tokenizers: who encodes, how tokens mark words, how tokens become text.

use std::sync::OnceLock;

use ahash::AHashSet;
use serde_json::Value;
use tokenizers::normalizers::BertNormalizer;
use tokenizers::{ModelWrapper, PreTokenizerWrapper};

use crate::trie::Trie;
use crate::vocabulary::{CONTINUATION, Vocabulary};
use crate::words::Words;

/// The kind of a tokenizer.
pub(crate) enum Kind {
    /// `##` continues a word; our own path where the configuration is plain BERT.
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
    /// What it was read from, to be written again.
    pub(crate) files: Files,
    /// A copy that finds special tokens in text; made on first use.
    finds_special: OnceLock<tokenizers::Tokenizer>,
}

/// The files of a tokenizer as they were read.
#[derive(Default)]
pub(crate) struct Files {
    /// tokenizer.json.
    pub(crate) json: Vec<u8>,
    /// tokenizer_config.json; null if there was none.
    pub(crate) config: Value,
    /// special_tokens_map.json; null if there was none.
    pub(crate) special: Value,
}

impl Files {
    /// Tokens of a sequence at most, unless the number means that there is no limit.
    pub(crate) fn longest(&self) -> Option<usize> {
        /// Transformers writes 10³⁰ where it knows no limit.
        const UNLIMITED: f64 = 1e9;
        let said = if self.config["model_max_length"].is_null() { "max_len" } else { "model_max_length" };
        let longest = self.config[said].as_f64().filter(|longest| (1.0..UNLIMITED).contains(longest))?;
        Some(longest as usize)
    }
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
    /// `None` unless everything is as in the original BERT.
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
        let added = reference.get_added_tokens_decoder();
        if model.continuing_subword_prefix != CONTINUATION
            || added.values().any(|token| !token.special)
            // Added tokens that the model itself does not have would otherwise be reachable through the trie.
            || reference.get_vocab_size(false) != vocabulary.tokens.len()
        {
            return None;
        }
        let unk = *vocabulary.ids.get(&model.unk_token)?;
        Some(Fast {
            words: Words::new(normalizer),
            trie: Trie::new(
                vocabulary.tokens.iter().map(String::as_str),
                CONTINUATION,
                unk,
                model.max_input_chars_per_word,
            ),
        })
    }
}

impl Other {
    pub(crate) fn new(reference: &tokenizers::Tokenizer, files: Files) -> Other {
        let added = reference.get_added_tokens_decoder().into_keys().collect();
        Other { boundaries: Boundaries::of(reference), added, files, finds_special: OnceLock::new() }
    }

    /// `reference`, with special tokens in text taken for what they are.
    pub(crate) fn finding_special(&self, reference: &tokenizers::Tokenizer) -> &tokenizers::Tokenizer {
        self.finds_special.get_or_init(|| {
            let mut copy = reference.clone();
            copy.set_encode_special_tokens(false);
            copy
        })
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
