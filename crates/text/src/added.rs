//! Finds special and added tokens in running text, as the `tokenizers` crate does.
//!
//! A token that is not `normalized` is searched in the original text. The text between such tokens is normalised, and the
//! other tokens are searched there in their normalised form. The leftmost match wins; of several, the longest
//! (`AddedVocabulary::extract_and_normalize`).

use std::sync::OnceLock;

use ahash::{AHashMap, AHashSet};
use daachorse::{DoubleArrayAhoCorasick, DoubleArrayAhoCorasickBuilder, MatchKind};
use regex::Regex;
use serde::{Deserialize, Serialize};
use tokenizers::AddedToken;

use crate::TextError;

/// How the names of BERT's own special tokens (\[PAD\], \[UNK\], \[CLS\], \[SEP\], \[MASK\], or the tokens in these roles)
/// are read where they occur in a text. All other special and added tokens are always single tokens.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum SpecialTokens {
    /// As ordinary text: `[SEP]` becomes `[`, `sep` and `]`.
    #[default]
    Text,
    /// As special tokens, like `AutoTokenizer` of Transformers.
    Parse,
}

impl SpecialTokens {
    /// All values with their names and descriptions.
    pub const ALL: [(SpecialTokens, &'static str, &'static str); 2] = [
        (SpecialTokens::Text, "text", "As ordinary text: [SEP] becomes the tokens [, sep and ]"),
        (SpecialTokens::Parse, "parse", "As the special tokens"),
    ];

    /// The name in [`ALL`](Self::ALL).
    pub fn name(self) -> &'static str {
        SpecialTokens::ALL.iter().find(|(value, ..)| *value == self).map_or("", |(_, name, _)| name)
    }

    /// The value with this name.
    pub fn named(name: &str) -> Option<SpecialTokens> {
        SpecialTokens::ALL.iter().find(|(_, known, _)| *known == name).map(|(value, ..)| *value)
    }
}

/// A part of a text.
pub(crate) enum TextPart<'a> {
    /// Ordinary text.
    Text(&'a str),
    /// A special or added token.
    Token(u32),
}

/// The special and added tokens of a tokenizer.
pub(crate) struct Added {
    tokens: AHashMap<u32, AddedToken>,
    raw: Option<Matcher>,
    normalized: Option<Matcher>,
}

/// Searches either the tokens that are `normalized` or those that are not.
struct Matcher {
    automaton: DoubleArrayAhoCorasick<u32>,
    /// The distinct first bytes of the patterns, if there are at most three; otherwise empty.
    first: Vec<u8>,
}

impl Matcher {
    fn new(patterns: &[(String, u32)]) -> Result<Option<Matcher>, TextError> {
        if patterns.is_empty() {
            return Ok(None);
        }
        let built = DoubleArrayAhoCorasickBuilder::new()
            .match_kind(MatchKind::LeftmostLongest)
            .build_with_values(patterns.iter().map(|(pattern, id)| (pattern.as_str(), *id)));
        let automaton =
            built.map_err(|e| TextError::Engine { action: "find the added tokens", reason: e.to_string() })?;
        let mut first: Vec<u8> = patterns.iter().filter_map(|(pattern, _)| pattern.bytes().next()).collect();
        first.sort_unstable();
        first.dedup();
        first.truncate(if first.len() > 3 { 0 } else { 3 });
        Ok(Some(Matcher { automaton, first }))
    }

    /// Whether the text may contain a token. This is a fast pre-check, since most texts contain none.
    fn may_match(&self, text: &[u8]) -> bool {
        match self.first[..] {
            [a] => memchr::memchr(a, text).is_some(),
            [a, b] => memchr::memchr2(a, b, text).is_some(),
            [a, b, c] => memchr::memchr3(a, b, c, text).is_some(),
            _ => true,
        }
    }
}

impl Added {
    /// `tokens` maps ids to tokens; `normalize` is the tokenizer's normaliser.
    pub(crate) fn new(
        tokens: AHashMap<u32, AddedToken>,
        normalize: impl Fn(&str) -> String,
    ) -> Result<Added, TextError> {
        let (mut raw, mut normalized) = (Vec::new(), Vec::new());
        for (&id, token) in &tokens {
            match token.normalized {
                true => normalized.push((normalize(&token.content), id)),
                false => raw.push((token.content.clone(), id)),
            }
        }
        Ok(Added { raw: Matcher::new(&raw)?, normalized: Matcher::new(&normalized)?, tokens })
    }

    /// The added or special token with this id.
    pub(crate) fn token(&self, id: u32) -> Option<&AddedToken> {
        self.tokens.get(&id)
    }

    /// All tokens, by id.
    pub(crate) fn sorted(&self) -> Vec<(u32, &AddedToken)> {
        let mut all: Vec<(u32, &AddedToken)> = self.tokens.iter().map(|(&id, token)| (id, token)).collect();
        all.sort_unstable_by_key(|(id, _)| *id);
        all
    }

    /// Whether some tokens are searched in normalised text.
    pub(crate) fn has_normalized(&self) -> bool {
        self.normalized.is_some()
    }

    /// Splits the original text at its added tokens, except those for which `skip` is true.
    #[inline]
    pub(crate) fn split<'a>(&self, text: &'a str, skip: impl Fn(u32) -> bool, each: impl FnMut(TextPart<'a>)) {
        self.split_with(self.raw.as_ref(), text, skip, each);
    }

    /// As [`split`](Self::split), for text that has been normalised.
    pub(crate) fn split_normalized<'a>(
        &self,
        text: &'a str,
        skip: impl Fn(u32) -> bool,
        each: impl FnMut(TextPart<'a>),
    ) {
        self.split_with(self.normalized.as_ref(), text, skip, each);
    }

    fn split_with<'a>(
        &self,
        matcher: Option<&Matcher>,
        text: &'a str,
        skip: impl Fn(u32) -> bool,
        mut each: impl FnMut(TextPart<'a>),
    ) {
        let Some(matcher) = matcher.filter(|matcher| matcher.may_match(text.as_bytes())) else {
            each(TextPart::Text(text));
            return;
        };
        let mut done = 0;
        for found in matcher.automaton.leftmost_find_iter(text) {
            let (mut start, mut end, id) = (found.start(), found.end(), found.value());
            let Some(token) = self.tokens.get(&id).filter(|_| !skip(id)) else { continue };
            if token.single_word && (ends_with_word(&text[..start]) || starts_with_word(&text[end..])) {
                continue;
            }
            if token.lstrip {
                start = text[..start].trim_end().len().max(done);
            }
            if token.rstrip {
                end += text[end..].len() - text[end..].trim_start().len();
            }
            if done < start {
                each(TextPart::Text(&text[done..start]));
            }
            each(TextPart::Token(id));
            done = end;
        }
        if done < text.len() {
            each(TextPart::Text(&text[done..]));
        }
    }

    /// The number of occurrences in `text` of the tokens for which `counted` is true.
    #[inline]
    pub(crate) fn occurrences(&self, text: &str, counted: impl Fn(u32) -> bool) -> u64 {
        let Some(matcher) = self.raw.as_ref().filter(|matcher| matcher.may_match(text.as_bytes())) else { return 0 };
        matcher.automaton.leftmost_find_iter(text).filter(|found| counted(found.value())).count() as u64
    }
}

/// Words are delimited by the regular expression class `\w`, as in the `tokenizers` crate.
fn ends_with_word(text: &str) -> bool {
    text.chars().next_back().is_some_and(is_word)
}

fn starts_with_word(text: &str) -> bool {
    text.chars().next().is_some_and(is_word)
}

fn is_word(c: char) -> bool {
    static WORD: OnceLock<Option<Regex>> = OnceLock::new();
    match WORD.get_or_init(|| Regex::new(r"^\w$").ok()) {
        Some(word) => word.is_match(c.encode_utf8(&mut [0; 4])),
        // Unreachable: the expression is valid.
        None => c.is_alphanumeric(),
    }
}

/// A copy of a Unigram tokenizer whose model has no pieces for the tokens `ids`. Other ids do not change.
pub(crate) fn without_pieces(
    tokenizer: &tokenizers::Tokenizer,
    ids: &[u32],
) -> Result<tokenizers::Tokenizer, TextError> {
    let engine = |reason: String| TextError::Engine { action: "set its special tokens", reason };
    let encodes_special = tokenizer.get_encode_special_tokens();
    let mut json = serde_json::to_value(tokenizer).map_err(|e| engine(e.to_string()))?;
    for (id, piece) in json["model"]["vocab"].as_array_mut().into_iter().flatten().enumerate() {
        if ids.contains(&(id as u32)) {
            // A text that no normaliser or pre-tokeniser gives, and different for each.
            piece[0] = format!("\0 {id}").into();
        }
    }
    if let Some(added) = json["added_tokens"].as_array_mut() {
        added.retain(|token| !token["id"].as_u64().is_some_and(|id| ids.iter().any(|&own| u64::from(own) == id)));
    }
    let mut copy = tokenizers::Tokenizer::deserialize(&json).map_err(|e| engine(e.to_string()))?;
    copy.set_encode_special_tokens(encodes_special);
    Ok(copy)
}

/// A copy of `tokenizer` whose special tokens are exactly `special`, and which reads them as ordinary text.
pub(crate) fn with_literal_special_tokens(
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
