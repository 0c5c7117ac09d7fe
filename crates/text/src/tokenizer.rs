//! The tokenizer: text → ids → text.

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};

use ahash::{AHashMap, AHashSet};
use tokenizers::normalizers::BertNormalizer;
use tokenizers::{
    ModelWrapper, NormalizedString, Normalizer, NormalizerWrapper, OffsetReferential, OffsetType, PreTokenizedString,
    PreTokenizer,
};

use crate::added::{Added, SpecialTokens, Stretch};
use crate::kind::{Fast, Kind, Other};
use crate::source::Source;
use crate::special::Special;
use crate::truncation::truncate_pair;
use crate::vocabulary::{CONTINUATION, Vocabulary};
use crate::words::Words;
use crate::{Template, TextError};

/// A token with the place in the text that it came from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Piece {
    /// The token's id.
    pub id: u32,
    /// First byte in the original text.
    pub start: usize,
    /// One past the last byte in the original text.
    pub end: usize,
}

/// A special or added token beside the vocabulary's ordinary ones.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AddedToken {
    /// Its text.
    pub text: String,
    /// Its id.
    pub id: u32,
    /// Whether decoding for people leaves it out.
    pub special: bool,
}

/// A tokenizer. Cheap to clone (one shared allocation), and shared freely between threads.
#[derive(Clone)]
pub struct Tokenizer {
    inner: Arc<Inner>,
    special_tokens: SpecialTokens,
}

struct Inner {
    vocabulary: Vocabulary,
    special: Special,
    template: Template,
    /// The `tokenizers` crate's tokenizer, which reads as Transformers' does.
    exact: tokenizers::Tokenizer,
    /// The same with BERT's own special tokens in texts as text; made when it is needed.
    text: OnceLock<tokenizers::Tokenizer>,
    added: Added,
    normalizer: Option<BertNormalizer>,
    kind: Kind,
    source: Source,
    /// How often texts had the names of BERT's own special tokens.
    own_names: AtomicU64,
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

/// `tokenizer` with these special tokens, and none that it takes for one in a text.
fn passing_over(
    tokenizer: &tokenizers::Tokenizer,
    special: &AHashSet<&str>,
) -> Result<tokenizers::Tokenizer, TextError> {
    let engine = |reason: String| TextError::Engine { action: "set its special tokens", reason };
    let json = tokenizer.to_string(false).map_err(|e| engine(e.to_string()))?;
    let mut json: serde_json::Value = serde_json::from_str(&json).map_err(|e| engine(e.to_string()))?;
    for token in json["added_tokens"].as_array_mut().into_iter().flatten() {
        token["special"] = token["content"].as_str().is_some_and(|content| special.contains(content)).into();
    }
    let mut copy: tokenizers::Tokenizer = json.to_string().parse().map_err(|e: Box<_>| engine(format!("{e}")))?;
    copy.set_encode_special_tokens(true);
    Ok(copy)
}

impl Tokenizer {
    /// `source` is what it was read from, to be written again.
    pub(crate) fn assemble(
        vocabulary: Vocabulary,
        special: Special,
        template: Template,
        mut exact: tokenizers::Tokenizer,
        source: Source,
    ) -> Result<Tokenizer, TextError> {
        let splits_special = source.settings.splits_special();
        exact.set_encode_special_tokens(splits_special);
        let engine = |e: Box<dyn std::error::Error + Send + Sync>| TextError::Engine {
            action: "set truncation",
            reason: e.to_string(),
        };
        // Length is the business of whoever makes batches.
        exact.with_truncation(None).map_err(engine)?;
        exact.with_padding(None);
        let normalizer = match exact.get_normalizer() {
            Some(NormalizerWrapper::BertNormalizer(n)) => Some(*n),
            _ => None,
        };
        let kind = match exact.get_model() {
            ModelWrapper::WordPiece(_) => Kind::WordPiece(Fast::new(&vocabulary, &exact, normalizer).map(Box::new)),
            _ => Kind::Other(Box::new(Other::new(&exact))),
        };
        let tokens: AHashMap<u32, tokenizers::AddedToken> = exact.get_added_tokens_decoder().into_iter().collect();
        let own = special.all();
        let text = OnceLock::new();
        if !splits_special && tokens.iter().any(|(id, token)| token.special != own.contains(id)) {
            let names = own.iter().filter_map(|&id| vocabulary.tokens.get(id as usize)).map(String::as_str).collect();
            let _ = text.set(passing_over(&exact, &names)?);
        }
        let added = Added::new(tokens, |content| {
            let mut content = NormalizedString::from(content);
            let done = exact.get_normalizer().map(|normalizer| normalizer.normalize(&mut content));
            if matches!(done, Some(Err(_))) { String::new() } else { content.get().to_owned() }
        })?;
        // The one failure that the model knows, an absent unknown token, shows here rather than in `encode`.
        exact
            .encode_fast("\u{1f9ff}\u{10348}", false)
            .map_err(|e| TextError::Engine { action: "encode", reason: e.to_string() })?;
        let special_tokens = source.special_tokens();
        let own_names = AtomicU64::new(0);
        let template = if source.settings.hides_segments() { template.in_one_segment() } else { template };
        let inner = Inner { vocabulary, special, template, exact, text, added, normalizer, kind, source, own_names };
        Ok(Tokenizer { inner: Arc::new(inner), special_tokens })
    }

    /// This tokenizer with another reading of BERT's own special tokens in texts. [`save`](Self::save) writes it down, and
    /// [`open`](Self::open) reads it.
    pub fn with_special_tokens(&self, special_tokens: SpecialTokens) -> Tokenizer {
        Tokenizer { special_tokens, inner: Arc::clone(&self.inner) }
    }

    /// How it reads BERT's own special tokens in texts.
    pub fn special_tokens(&self) -> SpecialTokens {
        self.special_tokens
    }

    /// How often the texts encoded so far, by this tokenizer and its clones, had the names of BERT's own special tokens (that of the
    /// mask not counted where [`encode_masked`](Self::encode_masked) looks for it).
    pub fn special_names_seen(&self) -> u64 {
        self.inner.own_names.load(Ordering::Relaxed)
    }

    /// A sentence about [them](Self::special_names_seen), if there were any.
    pub fn special_names_note(&self) -> Option<String> {
        let times = match self.special_names_seen() {
            0 => return None,
            1 => "once".to_owned(),
            seen => format!("{seen} times"),
        };
        let read = match self.special_tokens {
            SpecialTokens::Text => {
                "were read as ordinary text; --special-tokens parse reads them as those tokens, as Transformers does"
            }
            SpecialTokens::Parse => "were read as those tokens",
        };
        let name = self.token(self.special().sep).unwrap_or_default();
        Some(format!("names of special tokens, such as {name}, are in the texts {times} and {read}"))
    }

    /// What somebody who uses it must know about how it was read: sentences.
    pub fn notes(&self) -> &[String] {
        &self.inner.source.notes
    }

    /// Whether a token in a text is passed over.
    fn passes_over(&self, id: u32) -> bool {
        match (self.inner.source.settings.splits_special(), self.special_tokens) {
            (true, _) => self.inner.added.token(id).is_some_and(|token| token.special),
            (false, SpecialTokens::Text) => self.inner.special.all().contains(&id),
            (false, SpecialTokens::Parse) => false,
        }
    }

    /// Counts the names of BERT's own special tokens in a text, but that of `found`.
    fn count_names(&self, text: &str, found: Option<u32>) {
        let own = self.inner.special.all();
        let seen = self.inner.added.occurrences(text, |id| own.contains(&id) && Some(id) != found);
        if seen > 0 {
            self.inner.own_names.fetch_add(seen, Ordering::Relaxed);
        }
    }

    /// Ids of `text`, no special tokens added. BERT's own special tokens written in the text are ordinary text (`[MASK]` becomes
    /// the ids of `[`, `mask` and `]` in WordPiece) unless [`special_tokens`](Self::special_tokens) says otherwise; other special
    /// and added tokens are one token each.
    pub fn encode(&self, text: &str) -> Vec<u32> {
        // English has about 4.5 bytes a token.
        let mut out = Vec::with_capacity(text.len() / 4 + 4);
        self.encode_into(text, &mut out);
        out
    }

    /// As [`encode`](Self::encode), appending to `out`.
    pub fn encode_into(&self, text: &str, out: &mut Vec<u32>) {
        self.count_names(text, None);
        match self.fast() {
            Some(fast) => self.encode_fast(fast, text, out),
            None => self.encode_reference(text, out),
        }
    }

    /// As [`encode_into`](Self::encode_into) by our own path.
    fn encode_fast(&self, fast: &Fast, text: &str, out: &mut Vec<u32>) {
        let (Fast { words, trie }, added) = (fast, &self.inner.added);
        let mut buffer = String::new();
        added.cut(
            text,
            |id| self.passes_over(id),
            |stretch| match stretch {
                Stretch::Token(id) => out.push(id),
                Stretch::Text(text) if added.has_normalized() => {
                    added.cut_normalized(
                        &words.normalize(text),
                        |id| self.passes_over(id),
                        |stretch| match stretch {
                            Stretch::Token(id) => out.push(id),
                            Stretch::Text(text) => {
                                Words::split_normalized(text, |word, chars| trie.encode(word, chars, out))
                            }
                        },
                    );
                }
                Stretch::Text(text) => words.split(text, &mut buffer, |word, chars| trie.encode(word, chars, out)),
            },
        );
    }

    /// As [`encode_into`](Self::encode_into) but always by the `tokenizers` crate: the same ids, slowly. For checks and
    /// for the bench.
    pub fn encode_reference(&self, text: &str, out: &mut Vec<u32>) {
        self.encode_by(self.reference(), text, out);
    }

    fn encode_by(&self, reference: &tokenizers::Tokenizer, text: &str, out: &mut Vec<u32>) {
        match reference.encode_fast(text, false) {
            Ok(encoding) => out.extend_from_slice(encoding.get_ids()),
            // Cannot happen: `assemble` has tried it. An unknown text is [UNK].
            Err(_) => out.push(self.special().unk),
        }
    }

    /// Ids of one word of a text, as after a space: BPE and Unigram may have other tokens for a word at the beginning of a text.
    pub fn encode_word(&self, word: &str) -> Vec<u32> {
        match &self.inner.kind {
            Kind::Other(other) if other.marks_spaces() => self.encode(&format!(" {word}")),
            Kind::Other(_) | Kind::WordPiece(_) => self.encode(word),
        }
    }

    /// As [`encode`](Self::encode), except that the [mask](Self::mask_token) written in the text becomes the mask's id.
    pub fn encode_masked(&self, text: &str) -> Vec<u32> {
        let mask = self.special().mask;
        let mut out = Vec::new();
        self.count_names(text, Some(mask));
        match (&self.inner.kind, self.special_tokens) {
            (_, SpecialTokens::Parse) if !self.inner.source.settings.splits_special() => {
                self.encode_by(&self.inner.exact, text, &mut out);
            }
            (Kind::Other(other), _) => self.encode_by(other.finding_mask(|| self.finding_mask()), text, &mut out),
            (Kind::WordPiece(fast), _) => {
                for (i, part) in text.split(self.mask_token()).enumerate() {
                    if i > 0 {
                        out.push(mask);
                    }
                    match fast {
                        Some(fast) => self.encode_fast(fast, part, &mut out),
                        None => self.encode_reference(part, &mut out),
                    }
                }
            }
        }
        out
    }

    /// A copy of the crate's tokenizer that finds the mask in a text and none of BERT's other special tokens.
    fn finding_mask(&self) -> tokenizers::Tokenizer {
        let mask = self.special().mask;
        let passed_over = (0..self.vocab_size() as u32).filter(|&id| id != mask && self.passes_over(id));
        let passed_over = passed_over.filter_map(|id| self.token(id)).collect();
        // It was read from a text like the one that is written and read here.
        passing_over(&self.inner.exact, &passed_over).unwrap_or_else(|_| self.inner.exact.clone())
    }

    /// Ids of `text` with the bytes of the original text that each stands for. Runs on the `tokenizers` crate.
    pub fn encode_with_offsets(&self, text: &str) -> Vec<Piece> {
        self.count_names(text, None);
        match self.reference().encode(text, false) {
            Ok(encoding) => encoding
                .get_ids()
                .iter()
                .zip(encoding.get_offsets())
                .map(|(&id, &(start, end))| Piece { id, start, end })
                .collect(),
            Err(_) => vec![Piece { id: self.special().unk, start: 0, end: text.len() }],
        }
    }

    /// Readable text of `ids`, \[PAD\], \[CLS\] and \[SEP\] left out. An id outside the vocabulary reads as \[UNK\].
    pub fn decode(&self, ids: &[u32]) -> String {
        let Special { pad, cls, sep, .. } = self.special();
        let kept: Vec<u32> = ids.iter().copied().filter(|id| ![pad, cls, sep].contains(id)).collect();
        self.decode_all(&kept)
    }

    /// As [`decode`](Self::decode), with every special token. WordPiece: `##` pieces are joined, words separated by a space.
    pub fn decode_all(&self, ids: &[u32]) -> String {
        let unk = self.special().unk;
        if let Kind::Other(_) = self.inner.kind {
            let known = |&id: &u32| if self.token(id).is_some() { id } else { unk };
            let ids: Vec<u32> = ids.iter().map(known).collect();
            // Decoders of the crate fail on nothing that is in the vocabulary.
            return self.inner.exact.decode(&ids, false).unwrap_or_default();
        }
        let mut text = String::new();
        for &id in ids {
            let token = self.token(id).or(self.token(unk)).unwrap_or_default();
            match token.strip_prefix(CONTINUATION) {
                Some(rest) if self.is_continuation(id) => text.push_str(rest),
                _ => {
                    if !text.is_empty() {
                        text.push(' ');
                    }
                    text.push_str(token);
                }
            }
        }
        text
    }

    /// The text of one token, without the mark of its place in a word: `ing` for `##ing`, `the` for `Ġthe` or `▁the`.
    pub fn piece_text(&self, id: u32) -> String {
        match (&self.inner.kind, self.token(id).unwrap_or_default()) {
            (Kind::WordPiece(_), token) if self.is_continuation(id) => token[CONTINUATION.len()..].to_owned(),
            (Kind::WordPiece(_), token) => token.to_owned(),
            (Kind::Other(_), _) => self.decode_all(&[id]).trim_start().to_owned(),
        }
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

    /// The special and added tokens beside BERT's own, by id. Each is a single token wherever a text has it.
    pub fn added_tokens(&self) -> Vec<AddedToken> {
        let own = self.inner.special.all();
        let all = self.inner.added.sorted().into_iter().filter(|(id, _)| !own.contains(id));
        all.map(|(id, token)| AddedToken { text: token.content.clone(), id, special: token.special }).collect()
    }

    /// Tokens of its model, without those that were only added: ids below it.
    pub(crate) fn model_size(&self) -> usize {
        self.inner.exact.get_vocab_size(false)
    }

    /// The special and added tokens with all that is known of them, by id.
    pub(crate) fn all_added(&self) -> Vec<(u32, &tokenizers::AddedToken)> {
        self.inner.added.sorted()
    }

    /// The mask as it is written in texts: `[MASK]`, or the tokenizer's own.
    pub fn mask_token(&self) -> &str {
        self.token(self.inner.special.mask).unwrap_or_default()
    }

    /// How texts become sequences: which special tokens are added, and where.
    pub fn template(&self) -> &Template {
        &self.inner.template
    }

    /// Cuts two texts so that both together have at most `room` tokens, by [`truncate_pair`]: the ends, or the beginnings where
    /// tokenizer_config.json says so (`truncation_side`). Returns how many tokens were cut.
    pub fn truncate_pair(&self, first: &mut Vec<u32>, second: &mut Vec<u32>, room: usize) -> usize {
        if !self.truncates_left() {
            return truncate_pair(first, second, room);
        }
        [&mut *first, &mut *second].into_iter().for_each(|ids| ids.reverse());
        let cut = truncate_pair(first, second, room);
        [first, second].into_iter().for_each(|ids| ids.reverse());
        cut
    }

    /// Whether texts that are too long lose their beginning (`truncation_side` of tokenizer_config.json).
    pub fn truncates_left(&self) -> bool {
        self.inner.source.settings.truncates_left()
    }

    /// Tokens of a sequence at most, special tokens included, as its configuration says (`model_max_length` of
    /// tokenizer_config.json). None where it says nothing, or a number so large that it means no limit, as Transformers writes.
    pub fn model_max_length(&self) -> Option<usize> {
        self.inner.source.settings.longest()
    }

    /// Whether the token continues a word: `##ing` of WordPiece (the lone token `##` does not), a token without `Ġ` of
    /// byte-level BPE, one without `▁` of Unigram. No token does where tokens do not [show](Self::shows_words) it.
    pub fn is_continuation(&self, id: u32) -> bool {
        let Some(token) = self.token(id) else { return false };
        match &self.inner.kind {
            Kind::WordPiece(_) => token.len() > CONTINUATION.len() && token.starts_with(CONTINUATION),
            Kind::Other(other) => other.is_continuation(id, token),
        }
    }

    /// Whether tokens show where words begin.
    pub fn shows_words(&self) -> bool {
        match &self.inner.kind {
            Kind::WordPiece(_) => true,
            Kind::Other(other) => other.shows_words(),
        }
    }

    /// The kind of model: "WordPiece", "BPE", "Unigram" or "WordLevel".
    pub fn model(&self) -> &'static str {
        match self.inner.exact.get_model() {
            ModelWrapper::WordPiece(_) => "WordPiece",
            ModelWrapper::BPE(_) => "BPE",
            ModelWrapper::Unigram(_) => "Unigram",
            ModelWrapper::WordLevel(_) => "WordLevel",
        }
    }

    /// Whether case is kept.
    pub fn is_cased(&self) -> bool {
        match &self.inner.normalizer {
            Some(normalizer) => !normalizer.lowercase,
            // Any other normaliser: see what it does.
            None => {
                let normalizer = self.inner.exact.get_normalizer();
                let mut text = tokenizers::NormalizedString::from("A");
                let done = normalizer.map(|n| n.normalize(&mut text));
                !matches!(done, Some(Ok(()))) || text.get() != "a"
            }
        }
    }

    /// Whether accents and other marks above and below letters are stripped, as far as BERT's normaliser decides it.
    pub fn strips_accents(&self) -> bool {
        self.inner.normalizer.is_some_and(|normalizer| normalizer.strip_accents.unwrap_or(normalizer.lowercase))
    }

    /// The class of Transformers that reads it, such as "BertTokenizer".
    pub fn class_name(&self) -> &str {
        self.inner.source.class_name()
    }

    /// Whether [`encode`](Self::encode) runs on our own path (BERT's normaliser, pre-tokeniser and WordPiece) rather than on the
    /// `tokenizers` crate.
    pub fn is_fast(&self) -> bool {
        self.fast().is_some()
    }

    /// The `tokenizers` crate's tokenizer that reads special tokens in texts as this one does.
    pub(crate) fn reference(&self) -> &tokenizers::Tokenizer {
        match self.special_tokens {
            SpecialTokens::Parse => &self.inner.exact,
            SpecialTokens::Text => self.inner.text.get_or_init(|| {
                let mut copy = self.inner.exact.clone();
                copy.set_encode_special_tokens(true);
                copy
            }),
        }
    }

    /// The `tokenizers` crate's tokenizer that reads as Transformers' does.
    pub(crate) fn exact(&self) -> &tokenizers::Tokenizer {
        &self.inner.exact
    }

    /// What it was read from.
    pub(crate) fn source(&self) -> &Source {
        &self.inner.source
    }

    pub(crate) fn is_word_piece(&self) -> bool {
        matches!(self.inner.kind, Kind::WordPiece(_))
    }

    /// BERT's normaliser, unless another one is used.
    pub(crate) fn normalizer(&self) -> Option<&BertNormalizer> {
        self.inner.normalizer.as_ref()
    }

    /// Our own path; none where the configuration is not BERT's.
    pub(crate) fn fast(&self) -> Option<&Fast> {
        match &self.inner.kind {
            Kind::WordPiece(fast) => fast.as_deref(),
            Kind::Other(_) => None,
        }
    }

    /// The words that `text` consists of, normalised, as the `tokenizers` crate splits it; none where its normaliser fails.
    pub(crate) fn words(&self, text: &str) -> Vec<String> {
        let reference = &self.inner.exact;
        let mut split = PreTokenizedString::from(text);
        let normalized = split.normalize(|part| reference.get_normalizer().map_or(Ok(()), |n| n.normalize(part)));
        let done = normalized.and_then(|()| match reference.get_pre_tokenizer() {
            Some(pre_tokenizer) => pre_tokenizer.pre_tokenize(&mut split),
            None => Ok(()),
        });
        if done.is_err() {
            return Vec::new();
        }
        let words = split.get_splits(OffsetReferential::Normalized, OffsetType::Byte);
        words.into_iter().map(|(word, ..)| word.to_owned()).filter(|word| !word.is_empty()).collect()
    }

    /// The stretches of a normalised word that its added tokens cut it into, the tokens among them.
    pub(crate) fn cut_at_added(&self, word: &str) -> Vec<String> {
        let mut parts = Vec::new();
        let text_of = |stretch: Stretch<'_>| match stretch {
            Stretch::Token(id) => self.token(id).unwrap_or_default().to_owned(),
            Stretch::Text(text) => text.to_owned(),
        };
        self.inner.added.cut(
            word,
            |id| self.passes_over(id),
            |stretch| match stretch {
                Stretch::Text(text) => {
                    self.inner.added.cut_normalized(text, |id| self.passes_over(id), |part| parts.push(text_of(part)));
                }
                token => parts.push(text_of(token)),
            },
        );
        parts
    }

    /// 32 hexadecimal digits that change with anything that changes ids: the tokens in their order, the normaliser, the
    /// pre-tokeniser, the model's settings, added tokens but BERT's own. The same whichever of the files was opened.
    pub fn fingerprint(&self) -> String {
        let mut hash = blake3::Hasher::new();
        let mut field = |bytes: &[u8]| {
            hash.update(&(bytes.len() as u64).to_le_bytes());
            hash.update(bytes);
        };
        for token in &self.inner.vocabulary.tokens {
            field(token.as_bytes());
        }
        let reference = &self.inner.exact;
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
        // serde_json's maps are sorted, so equal settings give equal text.
        field(settings.to_string().as_bytes());
        hash.finalize().to_hex()[..32].to_owned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::SPECIAL_TOKENS;
    use std::fs;
    use std::path::Path;

    const PLAIN: &[&str] = &[
        "the",
        "un",
        "##aff",
        "##able",
        "cat",
        "##s",
        "mask",
        "[",
        "]",
        ",",
        ".",
        "!",
        "日",
        "本",
        "cafe",
        "a",
        "b",
        "c",
        "##a",
        "##b",
        "##c",
        "e",
        "##e",
        "s",
        "##t",
        "##\u{1d165}",
        "ا",
        "##ل",
        "ᄀ",
        "##ᅡ",
        "☃",
        "İ",
        "##i",
        "i",
        "#",
        "##",
        "0",
        "##0",
        "ß",
        "ñ",
        "n",
        "-",
        "🙂",
        "MASK",
        "É",
        "The",
    ];

    fn plain(cased: bool) -> Tokenizer {
        let tokens = SPECIAL_TOKENS.iter().chain(PLAIN).map(|t| t.to_string()).collect();
        Tokenizer::from_tokens(tokens, cased).unwrap()
    }

    fn words<'a>(tokenizer: &'a Tokenizer, ids: &[u32]) -> Vec<&'a str> {
        ids.iter().map(|&id| tokenizer.token(id).unwrap()).collect()
    }

    #[test]
    fn special_tokens_in_text_are_text() {
        let t = plain(false);
        assert_eq!(words(&t, &t.encode("the [MASK]")), ["the", "[", "mask", "]"]);
        assert_eq!(
            words(&t, &t.encode_masked("the [MASK], [MASK] [CLS]")),
            ["the", "[MASK]", ",", "[MASK]", "[", "[UNK]", "]"]
        );
        assert!(!t.encode("[CLS][SEP][PAD][MASK]").iter().any(|&id| {
            let s = t.special();
            [s.cls, s.sep, s.pad, s.mask].contains(&id)
        }));
        let pieces = t.encode_with_offsets("[MASK]");
        assert_eq!(pieces.len(), 3);
        assert_eq!((pieces[1].start, pieces[1].end), (1, 5));
    }

    #[test]
    fn offsets_are_bytes_of_the_original() {
        let t = plain(false);
        let text = "Thé CAFÉ日cats";
        let spans: Vec<&str> = t.encode_with_offsets(text).iter().map(|p| &text[p.start..p.end]).collect();
        assert_eq!(spans, ["Thé", "CAFÉ", "日", "cat", "s"]);
        let ids: Vec<u32> = t.encode_with_offsets(text).iter().map(|p| p.id).collect();
        assert_eq!(ids, t.encode(text));
    }

    #[test]
    fn decode_joins_pieces_and_hides_frames() {
        let t = plain(false);
        let ids = [2, t.id("un").unwrap(), t.id("##aff").unwrap(), t.id("##able").unwrap(), 4, 1, 3, 0];
        assert_eq!(t.decode(&ids), "unaffable [MASK] [UNK]");
        assert_eq!(t.decode(&[9999]), "[UNK]");
        assert!(t.is_continuation(t.id("##s").unwrap()));
        assert!(!t.is_continuation(t.id("##").unwrap()));
        assert!(!t.is_continuation(9999));
    }

    #[test]
    fn own_path_equals_the_reference_on_random_mixtures() {
        let atoms = [
            "the",
            "The",
            "unaffable",
            "cats",
            "a",
            "b",
            "ab",
            "é",
            "e\u{301}",
            "É",
            "\u{301}",
            "\u{316}",
            "日",
            "本",
            "\u{f900}",
            "\u{2f800}",
            "\u{1d165}",
            "\u{302e}",
            "\u{200d}",
            "\u{200b}",
            "\u{feff}",
            "\u{ad}",
            "\0",
            "\u{7}",
            "\u{fffd}",
            " ",
            "\t",
            "\n",
            "\r\n",
            "\u{a0}",
            "\u{3000}",
            "\u{2028}",
            "\u{85}",
            "[MASK]",
            "[CLS]",
            "##s",
            "#",
            "!",
            ".",
            "—",
            "「",
            "¿",
            "🙂",
            "👩\u{200d}🔬",
            "가",
            "각",
            "İ",
            "ß",
            "ẞ",
            "ﬁ",
            "ا",
            "ل",
            "\u{64e}",
            "ñ",
            "≠",
            "\u{37e}",
            "\u{1fef}",
            "x",
            "0",
            "½",
            "☃",
            "\u{e000}",
            "\u{10ffff}",
            "\u{378}",
            "\u{16ff0}",
            "\u{1b44}",
            "ก็",
            "न्",
            "ǅ",
            "Σ",
            "\u{345}",
            "\u{1c4}",
            "-",
            "\u{2212}",
            "_",
            "$",
            "^",
            "`",
        ];
        let long = "a".repeat(99);
        let mut state = 1u64;
        for cased in [true, false] {
            let t = plain(cased);
            assert!(t.is_fast());
            for _ in 0..5_000 {
                let mut text = String::new();
                for _ in 0..state >> 60 {
                    state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
                    let pick = (state >> 33) as usize;
                    if pick.is_multiple_of(97) {
                        text.push_str(&long);
                    }
                    if pick.is_multiple_of(13) {
                        // Any character at all.
                        text.extend(char::from_u32((pick as u32 >> 4) % 0x11_0000));
                    }
                    text.push_str(atoms[pick % atoms.len()]);
                }
                state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(99);
                let mut expected = Vec::new();
                t.encode_reference(&text, &mut expected);
                assert_eq!(t.encode(&text), expected, "cased {cased}: {text:?}");
            }
        }
    }

    #[test]
    fn saved_folders_open_with_the_same_ids_whichever_file_is_read() {
        for cased in [true, false] {
            let t = plain(cased);
            let dir = tempfile::tempdir().unwrap();
            let out = dir.path().join("new/folder");
            t.save(&out).unwrap();
            let mut names: Vec<_> =
                fs::read_dir(&out).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
            names.sort();
            assert_eq!(names, ["tokenizer.json", "tokenizer_config.json", "vocab.txt"]);
            for path in [out.clone(), out.join("vocab.txt"), out.join("tokenizer.json")] {
                let again = Tokenizer::open(&path).unwrap();
                assert_eq!(again.fingerprint(), t.fingerprint(), "{}", path.display());
                assert_eq!(again.is_cased(), cased);
                assert!(again.is_fast());
            }
            // With no config, the vocabulary's capitals decide.
            fs::remove_file(out.join("tokenizer.json")).unwrap();
            fs::remove_file(out.join("tokenizer_config.json")).unwrap();
            assert!(Tokenizer::open(&out).unwrap().is_cased());
        }
        assert_ne!(plain(true).fingerprint(), plain(false).fingerprint());
    }

    #[test]
    fn r13_the_limit_in_tokenizer_config_counts() {
        let dir = tempfile::tempdir().unwrap();
        plain(false).save(dir.path()).unwrap();
        let config = dir.path().join("tokenizer_config.json");
        let longest = |text: &str| {
            fs::write(&config, text).unwrap();
            ["", "vocab.txt", "tokenizer.json"]
                .map(|name| Tokenizer::open(&dir.path().join(name)).unwrap().model_max_length())
        };
        assert_eq!(longest(r#"{"model_max_length": 16}"#), [Some(16); 3]);
        assert_eq!(longest(r#"{"max_len": 24}"#), [Some(24); 3]);
        assert_eq!(longest(r#"{"max_len": 24, "model_max_length": null}"#), [None; 3]);
        // What Transformers writes where there is no limit.
        assert_eq!(longest(r#"{"model_max_length": 1000000000000000019884624838656}"#), [None; 3]);
        assert_eq!(longest("{}"), [None; 3]);
    }

    /// The values are those of BertTokenizerFast with these settings.
    #[test]
    fn truncation_side_and_model_input_names_count() {
        let dir = tempfile::tempdir().unwrap();
        plain(false).save(dir.path()).unwrap();
        let open = |config: &str| {
            fs::write(dir.path().join("tokenizer_config.json"), config).unwrap();
            Tokenizer::open(dir.path()).unwrap()
        };
        let cut = |tokenizer: &Tokenizer| {
            let (mut first, mut second) = ((10..15).collect(), (20..25).collect());
            let cut = tokenizer.truncate_pair(&mut first, &mut second, 5);
            (cut, first, second)
        };
        let usual = open("{}");
        assert_eq!(cut(&usual), (5, vec![10, 11], vec![20, 21, 22]));
        assert_eq!(usual.template().sequence(&[7], Some(&[8])).segments, [0, 0, 0, 1, 1]);
        let left = open(r#"{"truncation_side": "left", "model_input_names": ["input_ids", "attention_mask"]}"#);
        assert_eq!(cut(&left), (5, vec![13, 14], vec![22, 23, 24]));
        assert_eq!(left.template().sequence(&[7], Some(&[8])).segments, [0; 5]);
        let named = open(r#"{"model_input_names": ["input_ids", "token_type_ids", "attention_mask"]}"#);
        assert_eq!(named.template(), usual.template());
    }

    /// A vocab.txt beside `BertJapaneseTokenizer` was read as BERT's, with other words than MeCab gives.
    #[test]
    fn a_list_of_tokens_of_another_class_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        plain(false).save(dir.path()).unwrap();
        fs::remove_file(dir.path().join("tokenizer.json")).unwrap();
        let open = |config: &[u8]| {
            fs::write(dir.path().join("tokenizer_config.json"), config).unwrap();
            Tokenizer::open(dir.path()).map_err(|e| e.to_string())
        };
        let refused = open(br#"{"tokenizer_class": "BertJapaneseTokenizer"}"#).err().unwrap();
        assert!(refused.contains("tokenizer_config.json: tokenizer_class is BertJapaneseTokenizer"), "{refused}");
        assert!(open(br#"{"tokenizer_class": "ElectraTokenizerFast"}"#).is_ok());
        let marked = open(b"\xef\xbb\xbf{}").err().unwrap();
        assert!(marked.contains("byte-order mark"), "{marked}");
    }

    #[test]
    fn other_configurations_go_to_the_reference() {
        let dir = tempfile::tempdir().unwrap();
        plain(false).save(dir.path()).unwrap();
        fs::write(dir.path().join("tokenizer_config.json"), r#"{"tokenizer_class": "PreTrainedTokenizerFast"}"#)
            .unwrap();
        let path = dir.path().join("tokenizer.json");
        let mut json: serde_json::Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
        json["normalizer"] = serde_json::json!({"type": "Lowercase"});
        json["truncation"] = serde_json::json!({
            "direction": "Right", "max_length": 2, "strategy": "LongestFirst", "stride": 0
        });
        fs::write(&path, json.to_string()).unwrap();
        let t = Tokenizer::open(dir.path()).unwrap();
        assert!(!t.is_fast() && !t.is_cased());
        // No truncation, no accents stripped, [MASK] not injected.
        assert_eq!(words(&t, &t.encode("The CAT, [MASK] é")), ["the", "cat", ",", "[", "mask", "]", "[UNK]"]);
        assert_ne!(t.fingerprint(), plain(false).fingerprint());
    }

    #[test]
    fn bad_files_give_one_clear_line() {
        let dir = tempfile::tempdir().unwrap();
        let fails = |path: &Path| Tokenizer::open(path).unwrap_err().to_string();
        assert!(fails(dir.path()).contains("holds no tokenizer"));
        let json = dir.path().join("tokenizer.json");
        assert!(fails(&json).contains("cannot read"));
        let check = |text: &str, expected: &str| {
            fs::write(&json, text).unwrap();
            let message = fails(dir.path());
            assert!(message.contains("tokenizer.json") && message.contains(expected), "{message}");
            assert!(!message.contains('\n'), "{message}");
        };
        check("{\"model\": ", "line 1");
        check("", "not JSON");
        check("{}", "no \"model\"");
        check(r#"{"model": {"type": "Morfessor"}}"#, "its model is Morfessor");
        check(r#"{"model": {"type": "BPE"}}"#, "not a tokenizer.json");
        check(r#"{"model": {"type": "WordPiece", "vocab": 3}}"#, "not a tokenizer.json");
        plain(true).save(dir.path()).unwrap();
        let whole = fs::read_to_string(&json).unwrap();
        check(&whole.replace("\"cat\": 9,", "\"cat\": 999,"), "expected");
        check(&whole[..whole.len() / 2], "not JSON");
    }
}
