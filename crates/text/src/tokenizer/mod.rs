//! The tokenizer: its parts and properties.

mod decode;
mod encode;
#[cfg(test)]
mod tests;

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};

use ahash::AHashMap;
use tokenizers::normalizers::BertNormalizer;
use tokenizers::{ModelWrapper, NormalizedString, Normalizer, NormalizerWrapper};

use crate::added::{Added, SpecialTokens, with_literal_special_tokens};
use crate::kind::{Fast, Kind, Other};
use crate::source::Source;
use crate::special::Special;
use crate::truncation::truncate_pair;
use crate::vocabulary::Vocabulary;
use crate::{Template, TextError};

/// A token and its position in the text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Piece {
    /// The token's id.
    pub id: u32,
    /// First byte in the original text.
    pub start: usize,
    /// One past the last byte in the original text.
    pub end: usize,
    /// The number of its word, as Transformers' `word_ids`: see [`encode_with_words`](Tokenizer::encode_with_words).
    pub word: u32,
}

/// A special or added token, in addition to the vocabulary's ordinary ones.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AddedToken {
    /// The text.
    pub text: String,
    /// The id.
    pub id: u32,
    /// Whether it is a special token, which readable output omits.
    pub special: bool,
}

/// A tokenizer. Clones share one allocation, so cloning is cheap; threads can share it.
#[derive(Clone)]
pub struct Tokenizer {
    inner: Arc<Inner>,
    special_tokens: SpecialTokens,
}

struct Inner {
    vocabulary: Vocabulary,
    special: Special,
    template: Template,
    /// The tokenizer of the `tokenizers` crate. If there is no `literal`, special tokens in texts are text. Copies are created
    /// only when they are needed, because a large Unigram model takes hundreds of megabytes.
    hf: tokenizers::Tokenizer,
    /// A copy for tokenizers whose special tokens are not exactly BERT's own: those of BERT in texts are text, the others are not.
    literal: Option<tokenizers::Tokenizer>,
    /// A copy that reads special tokens in texts as Transformers does.
    parsing: OnceLock<tokenizers::Tokenizer>,
    /// Copies of `hf` or `literal`, and of that which recognises the mask: see [`Tokenizer::without_names`].
    nameless: [OnceLock<tokenizers::Tokenizer>; 2],
    added: Added,
    normalizer: Option<BertNormalizer>,
    kind: Kind,
    source: Source,
    /// How often BERT's own special tokens occurred by name in the encoded texts.
    special_names: AtomicU64,
}

impl fmt::Debug for Tokenizer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tokenizer")
            .field("model", &self.model())
            .field("vocab_size", &self.vocab_size())
            .field("cased", &self.is_cased())
            .field("fast", &self.is_fast())
            .finish()
    }
}

impl Tokenizer {
    /// Builds a tokenizer. `source` is what it was read from, for [`save`](Self::save).
    pub(crate) fn assemble(
        vocabulary: Vocabulary,
        special: Special,
        template: Template,
        mut hf: tokenizers::Tokenizer,
        source: Source,
    ) -> Result<Tokenizer, TextError> {
        let engine = |e: Box<dyn std::error::Error + Send + Sync>| TextError::Engine {
            action: "set truncation",
            reason: e.to_string(),
        };
        // Truncation and padding are done when batches are made.
        hf.with_truncation(None).map_err(engine)?;
        hf.with_padding(None);
        let normalizer = match hf.get_normalizer() {
            Some(NormalizerWrapper::BertNormalizer(n)) => Some(*n),
            _ => None,
        };
        let kind = match hf.get_model() {
            ModelWrapper::WordPiece(_) => Kind::WordPiece(Fast::new(&vocabulary, &hf, normalizer).map(Box::new)),
            _ => Kind::Other(Box::new(Other::new(&hf))),
        };
        let tokens: AHashMap<u32, tokenizers::AddedToken> = hf.get_added_tokens_decoder().into_iter().collect();
        let own = special.all();
        let has_others = tokens.iter().any(|(id, token)| token.special != own.contains(id));
        let literal = if has_others && !source.settings.splits_special() {
            let names = own.iter().filter_map(|&id| vocabulary.tokens.get(id as usize)).map(String::as_str).collect();
            Some(with_literal_special_tokens(&hf, &names)?)
        } else {
            None
        };
        hf.set_encode_special_tokens(literal.is_none());
        let added = Added::new(tokens, |content| {
            let mut content = NormalizedString::from(content);
            let done = hf.get_normalizer().map(|normalizer| normalizer.normalize(&mut content));
            if matches!(done, Some(Err(_))) { String::new() } else { content.get().to_owned() }
        })?;
        // An unknown token that is missing is the model's only failure. It is reported here rather than in `encode`.
        hf.encode_fast("\u{1f9ff}\u{10348}", false)
            .map_err(|e| TextError::Engine { action: "encode", reason: e.to_string() })?;
        let special_tokens = source.special_tokens();
        let special_names = AtomicU64::new(0);
        let template = if source.settings.omits_segments() { template.in_one_segment() } else { template };
        let inner = Inner {
            vocabulary,
            special,
            template,
            hf,
            literal,
            parsing: OnceLock::new(),
            nameless: Default::default(),
            added,
            normalizer,
            kind,
            source,
            special_names,
        };
        Ok(Tokenizer { inner: Arc::new(inner), special_tokens })
    }

    /// This tokenizer with another way of reading BERT's own special tokens in texts. [`save`](Self::save) stores it, and
    /// [`open`](Self::open) restores it.
    pub fn with_special_tokens(&self, special_tokens: SpecialTokens) -> Tokenizer {
        Tokenizer { special_tokens, inner: Arc::clone(&self.inner) }
    }

    /// How this tokenizer reads BERT's own special tokens in texts.
    pub fn special_tokens(&self) -> SpecialTokens {
        self.special_tokens
    }

    /// How often BERT's own special tokens occurred by name in the texts that this tokenizer and its clones have encoded.
    /// ([`encode_masked`](Self::encode_masked) does not count the mask.)
    pub fn special_name_count(&self) -> u64 {
        self.inner.special_names.load(Ordering::Relaxed)
    }

    /// Adds occurrences that other processes have seen.
    pub fn add_special_names(&self, seen: u64) {
        self.inner.special_names.fetch_add(seen, Ordering::Relaxed);
    }

    /// A message that reports [these occurrences](Self::special_name_count); `None` if there were none.
    pub fn special_names_note(&self) -> Option<String> {
        let times = match self.special_name_count() {
            0 => return None,
            1 => "once".to_owned(),
            seen => format!("{seen} times"),
        };
        let read = match self.special_tokens {
            SpecialTokens::Text => {
                "they were read as ordinary text; `special_tokens = parse` reads them as special tokens, as in Transformers"
            }
            SpecialTokens::Parse => "they were read as special tokens",
        };
        let name = self.token(self.special().sep).unwrap_or_default();
        Some(format!("names of special tokens, such as {name}, occur in the texts {times}; {read}"))
    }

    /// Messages to the user about how the tokenizer's files were interpreted.
    pub fn notes(&self) -> &[String] {
        &self.inner.source.notes
    }

    /// Number of tokens; ids are `0..vocab_size`.
    pub fn vocab_size(&self) -> usize {
        self.inner.vocabulary.tokens.len()
    }

    /// All tokens, by id.
    pub(crate) fn tokens(&self) -> &[String] {
        &self.inner.vocabulary.tokens
    }

    /// The token of an id.
    pub fn token(&self, id: u32) -> Option<&str> {
        self.inner.vocabulary.tokens.get(id as usize).map(String::as_str)
    }

    /// The id of a token, spelled as in the vocabulary (`##ing`, `[MASK]`).
    pub fn id(&self, token: &str) -> Option<u32> {
        self.inner.vocabulary.ids.get(token).copied()
    }

    /// The special tokens' ids.
    pub fn special(&self) -> Special {
        self.inner.special
    }

    /// Whether a token is one of the [special tokens](Self::special) or an added one that is marked as special.
    pub fn is_special(&self, id: u32) -> bool {
        self.inner.special.all().contains(&id) || self.inner.added.token(id).is_some_and(|token| token.special)
    }

    /// The special and added tokens except BERT's own, by id. Each is always encoded as a single token.
    pub fn added_tokens(&self) -> Vec<AddedToken> {
        let own = self.inner.special.all();
        let all = self.inner.added.sorted().into_iter().filter(|(id, _)| !own.contains(id));
        all.map(|(id, token)| AddedToken { text: token.content.clone(), id, special: token.special }).collect()
    }

    /// Number of tokens in the model's own vocabulary. Tokens that were only added have higher ids.
    pub(crate) fn model_size(&self) -> usize {
        self.inner.hf.get_vocab_size(false)
    }

    /// The special and added tokens with all their attributes, by id.
    pub(crate) fn all_added(&self) -> Vec<(u32, &tokenizers::AddedToken)> {
        self.inner.added.sorted()
    }

    /// The mask as it is written in texts: `[MASK]`, or the tokenizer's equivalent.
    pub fn mask_token(&self) -> &str {
        self.token(self.inner.special.mask).unwrap_or_default()
    }

    /// The template that adds special tokens to texts.
    pub fn template(&self) -> &Template {
        &self.inner.template
    }

    /// Truncates two texts to at most `room` tokens together, by the rule of [`truncate_pair`]: at the end, or at the beginning if
    /// tokenizer_config.json says so (`truncation_side`). Returns the number of tokens removed.
    pub fn truncate_pair(&self, first: &mut Vec<u32>, second: &mut Vec<u32>, room: usize) -> usize {
        if !self.truncates_left() {
            return truncate_pair(first, second, room);
        }
        [&mut *first, &mut *second].into_iter().for_each(|ids| ids.reverse());
        let cut = truncate_pair(first, second, room);
        [first, second].into_iter().for_each(|ids| ids.reverse());
        cut
    }

    /// Whether texts are truncated at the beginning (`truncation_side` of tokenizer_config.json).
    pub fn truncates_left(&self) -> bool {
        self.inner.source.settings.truncates_left()
    }

    /// Maximal number of tokens in a sequence, special tokens included (`model_max_length` of tokenizer_config.json). `None`
    /// if it is not set, or so large that it means "no limit", as Transformers writes it.
    pub fn model_max_length(&self) -> Option<usize> {
        self.inner.source.settings.max_length()
    }

    /// The kind of model: "WordPiece", "BPE", "Unigram" or "WordLevel".
    pub fn model(&self) -> &'static str {
        match self.inner.hf.get_model() {
            ModelWrapper::WordPiece(_) => "WordPiece",
            ModelWrapper::BPE(_) => "BPE",
            ModelWrapper::Unigram(_) => "Unigram",
            ModelWrapper::WordLevel(_) => "WordLevel",
        }
    }

    /// Whether upper case is preserved.
    pub fn is_cased(&self) -> bool {
        match &self.inner.normalizer {
            Some(normalizer) => !normalizer.lowercase,
            // Any other normaliser is tested with a letter.
            None => self.normalized("A") != "a",
        }
    }

    /// A text after normalisation; unchanged if the normaliser fails.
    fn normalized(&self, text: &str) -> String {
        let mut normal = NormalizedString::from(text);
        match self.inner.hf.get_normalizer().map(|normalizer| normalizer.normalize(&mut normal)) {
            Some(Ok(())) => normal.get().to_owned(),
            Some(Err(_)) | None => text.to_owned(),
        }
    }

    /// Whether accents and other combining marks are stripped.
    pub fn strips_accents(&self) -> bool {
        match &self.inner.normalizer {
            Some(normalizer) => normalizer.strip_accents.unwrap_or(normalizer.lowercase),
            // Any other normaliser is tested with an accent.
            None => self.normalized("e\u{301}") == "e",
        }
    }

    /// The tokenizer class of Transformers for this tokenizer, such as "BertTokenizer".
    pub fn class_name(&self) -> &str {
        self.inner.source.class_name()
    }

    /// Whether [`encode`](Self::encode) uses the fast path (BERT's normaliser and pre-tokeniser, WordPiece) rather than the
    /// `tokenizers` crate.
    pub fn is_fast(&self) -> bool {
        self.fast().is_some()
    }

    /// The `tokenizers` crate's tokenizer with this tokenizer's reading of special tokens in texts.
    pub(crate) fn reference(&self) -> &tokenizers::Tokenizer {
        let Inner { hf, literal, parsing, source, .. } = &*self.inner;
        match (self.special_tokens, literal) {
            (SpecialTokens::Text, Some(literal)) => literal,
            (SpecialTokens::Text, None) => hf,
            (SpecialTokens::Parse, Some(_)) => hf,
            (SpecialTokens::Parse, None) if source.settings.splits_special() => hf,
            (SpecialTokens::Parse, None) => parsing.get_or_init(|| {
                let mut copy = hf.clone();
                copy.set_encode_special_tokens(false);
                copy
            }),
        }
    }

    /// The `tokenizers` crate's tokenizer, for all but encoding.
    pub(crate) fn hf(&self) -> &tokenizers::Tokenizer {
        &self.inner.hf
    }

    /// The files that it was read from.
    pub(crate) fn source(&self) -> &Source {
        &self.inner.source
    }

    /// What only other kinds than WordPiece have.
    pub(crate) fn other(&self) -> Option<&Other> {
        match &self.inner.kind {
            Kind::WordPiece(_) => None,
            Kind::Other(other) => Some(other),
        }
    }

    /// BERT's normaliser; `None` if another one is used.
    pub(crate) fn normalizer(&self) -> Option<&BertNormalizer> {
        self.inner.normalizer.as_ref()
    }

    /// The fast path; `None` if the configuration is not BERT's.
    pub(crate) fn fast(&self) -> Option<&Fast> {
        match &self.inner.kind {
            Kind::WordPiece(fast) => fast.as_deref(),
            Kind::Other(_) => None,
        }
    }

    /// 32 hexadecimal digits that identify everything on which ids depend: the tokens in their order, the normaliser, the
    /// pre-tokeniser, the model's settings, and added tokens except BERT's own. They are the same for each file from which
    /// the tokenizer can be opened.
    pub fn fingerprint(&self) -> String {
        let mut hash = blake3::Hasher::new();
        let mut field = |bytes: &[u8]| {
            hash.update(&(bytes.len() as u64).to_le_bytes());
            hash.update(bytes);
        };
        for token in &self.inner.vocabulary.tokens {
            field(token.as_bytes());
        }
        let reference = &self.inner.hf;
        let mut settings = serde_json::json!({
            "normalizer": reference.get_normalizer(),
            "pre_tokenizer": reference.get_pre_tokenizer(),
        });
        match reference.get_model() {
            ModelWrapper::WordPiece(model) => {
                settings["max_chars"] = model.max_input_chars_per_word.into();
                settings["prefix"] = model.continuing_subword_prefix.as_str().into();
                settings["unk"] = model.unk_token.as_str().into();
            }
            model => settings["model"] = serde_json::json!(model),
        }
        let own = self.inner.special.all();
        let added = self.inner.added.sorted().into_iter().filter(|(id, token)| !token.special || !own.contains(id));
        let mut added: Vec<String> = added.map(|(_, token)| format!("{token:?}")).collect();
        added.sort_unstable();
        settings["added"] = added.into();
        // serde_json's maps are sorted, so equal settings have equal text.
        field(settings.to_string().as_bytes());
        hash.finalize().to_hex()[..32].to_owned()
    }
}
