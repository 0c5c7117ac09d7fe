//! What differs between kinds of tokenizers: which code encodes, and how tokens mark word boundaries.

use std::sync::OnceLock;

use ahash::AHashSet;
use tokenizers::normalizers::BertNormalizer;
use tokenizers::pre_tokenizers::metaspace::PrependScheme;
use tokenizers::{Model, ModelWrapper, PreTokenizerWrapper};

use crate::trie::Trie;
use crate::vocabulary::{CONTINUATION, Vocabulary};
use crate::words::WordSplitter;

/// The kind of a tokenizer.
pub(crate) enum Kind {
    /// WordPiece, where `##` continues a word; with the fast path if the configuration is BERT's.
    WordPiece(Option<Box<Fast>>),
    /// Any other model; the `tokenizers` crate does all the work.
    Other(Box<Other>),
}

/// The visible form of the space byte.
const SPACE_BYTE: char = 'Ġ';

/// The fast path for BERT's configuration.
pub(crate) struct Fast {
    pub(crate) words: WordSplitter,
    pub(crate) trie: Trie,
}

/// A tokenizer that is encoded and decoded by the `tokenizers` crate.
pub(crate) struct Other {
    boundaries: Boundaries,
    /// Whether the first word of a text is encoded like the others only if a space is before it.
    needs_space: bool,
    /// Ids of special and added tokens.
    added: AHashSet<u32>,
    /// A copy that recognises only the mask token in texts, none of BERT's other special tokens; made on first use.
    mask_only: OnceLock<tokenizers::Tokenizer>,
}

/// How tokens mark the beginning of a word.
#[derive(Debug, PartialEq)]
enum Boundaries {
    /// Tokens that continue a word have this prefix.
    Continues(String),
    /// Tokens that begin a word have this first character.
    Begins(char),
    /// Each token is a word.
    EveryToken,
    /// They do not mark it.
    Unknown,
}

impl Fast {
    /// `None` unless everything except the added tokens is configured as in the original BERT.
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
        // Added tokens that are not in the model's own vocabulary have higher ids. They never spell a word.
        let own = vocabulary.tokens.get(..reference.get_vocab_size(false))?;
        if model.continuing_subword_prefix != CONTINUATION || own.iter().any(|token| model.token_to_id(token).is_none())
        {
            return None;
        }
        let unk = *vocabulary.ids.get(&model.unk_token)?;
        Some(Fast {
            words: WordSplitter::new(normalizer),
            trie: Trie::new(own.iter().map(String::as_str), CONTINUATION, unk, model.max_input_chars_per_word),
        })
    }
}

impl Other {
    pub(crate) fn new(reference: &tokenizers::Tokenizer) -> Other {
        let added = reference.get_added_tokens_decoder().into_keys().collect();
        let boundaries = Boundaries::of(reference);
        let needs_space =
            matches!(boundaries, Boundaries::Begins(_)) && !reference.get_pre_tokenizer().is_some_and(adds_space);
        Other { boundaries, needs_space, added, mask_only: OnceLock::new() }
    }

    /// The copy of the tokenizer that recognises the mask token; `make` creates it.
    pub(crate) fn mask_only(&self, make: impl FnOnce() -> tokenizers::Tokenizer) -> &tokenizers::Tokenizer {
        self.mask_only.get_or_init(make)
    }

    /// A word without the mark of its beginning.
    pub(crate) fn without_mark<'a>(&self, word: &'a str) -> &'a str {
        self.after_mark(word).unwrap_or(word)
    }

    /// A word without the mark of its beginning; `None` if it has none.
    pub(crate) fn after_mark<'a>(&self, word: &'a str) -> Option<&'a str> {
        match self.boundaries {
            Boundaries::Begins(mark) => word.strip_prefix(mark),
            _ => None,
        }
    }

    /// Whether tokens are of bytes, in the visible form of byte-level BPE.
    pub(crate) fn is_of_bytes(&self) -> bool {
        self.boundaries == Boundaries::Begins(SPACE_BYTE)
    }

    /// Whether tokens mark the beginning of a word.
    pub(crate) fn marks_word_starts(&self) -> bool {
        self.boundaries != Boundaries::Unknown
    }

    /// Whether the first word of a text is encoded like the others only if a space is before it.
    pub(crate) fn needs_space(&self) -> bool {
        self.needs_space
    }

    /// Whether a token continues a word.
    pub(crate) fn is_continuation(&self, id: u32, token: &str) -> bool {
        match &self.boundaries {
            Boundaries::Continues(prefix) => token.len() > prefix.len() && token.starts_with(prefix),
            Boundaries::Begins(mark) => !token.starts_with(*mark) && !self.added.contains(&id),
            Boundaries::EveryToken | Boundaries::Unknown => false,
        }
    }
}

impl Boundaries {
    fn of(reference: &tokenizers::Tokenizer) -> Boundaries {
        match reference.get_model() {
            ModelWrapper::WordLevel(_) => return Boundaries::EveryToken,
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

/// Whether a pre-tokeniser adds a space at the beginning of a text.
fn adds_space(pre_tokenizer: &PreTokenizerWrapper) -> bool {
    match pre_tokenizer {
        PreTokenizerWrapper::ByteLevel(bytes) => bytes.add_prefix_space,
        PreTokenizerWrapper::Metaspace(metaspace) => metaspace.get_prepend_scheme() != PrependScheme::Never,
        PreTokenizerWrapper::Sequence(sequence) => sequence.as_ref().iter().any(adds_space),
        _ => false,
    }
}

/// The character that a pre-tokeniser substitutes for the space before a word.
fn mark(pre_tokenizer: &PreTokenizerWrapper) -> Option<char> {
    match pre_tokenizer {
        PreTokenizerWrapper::ByteLevel(_) => Some(SPACE_BYTE),
        PreTokenizerWrapper::Metaspace(metaspace) => Some(metaspace.get_replacement()),
        PreTokenizerWrapper::Sequence(sequence) => sequence.as_ref().iter().find_map(mark),
        _ => None,
    }
}
