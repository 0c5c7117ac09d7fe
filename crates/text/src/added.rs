//! Special and added tokens in running text: where they are, as the `tokenizers` crate finds them.
//!
//! A token that is not `normalized` is looked for in the text as it is; what lies between such tokens is normalised, and there
//! the others are looked for in their normalised form. The leftmost match counts, of several the longest
//! (`AddedVocabulary::extract_and_normalize`).

use std::sync::OnceLock;

use ahash::AHashMap;
use daachorse::{DoubleArrayAhoCorasick, DoubleArrayAhoCorasickBuilder, MatchKind};
use regex::Regex;
use serde::{Deserialize, Serialize};
use tokenizers::AddedToken;

use crate::TextError;

/// What is done with the special tokens that BERT itself adds (\[PAD\], \[UNK\], \[CLS\], \[SEP\], \[MASK\], whatever their
/// names) where a text has their names. All other special and added tokens are always single tokens.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum SpecialTokens {
    /// They are ordinary text: `[SEP]` is `[`, `sep` and `]`.
    #[default]
    Text,
    /// They are the special tokens, as `AutoTokenizer` of Transformers reads them.
    Parse,
}

impl SpecialTokens {
    /// Its name: "text" or "parse".
    pub fn name(self) -> &'static str {
        match self {
            SpecialTokens::Text => "text",
            SpecialTokens::Parse => "parse",
        }
    }

    /// The value of this name.
    pub fn of_name(name: &str) -> Option<SpecialTokens> {
        [SpecialTokens::Text, SpecialTokens::Parse].into_iter().find(|value| value.name() == name)
    }
}

/// A stretch of a text.
pub(crate) enum Stretch<'a> {
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

/// Finds tokens of one of both sorts.
struct Matcher {
    automaton: DoubleArrayAhoCorasick<u32>,
    /// The first bytes of all, at most three; empty if there are more.
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

    /// Whether the text may have a token: quick, since most texts have none.
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
    /// Of these tokens with their ids; `normalize` is the tokenizer's normaliser.
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

    /// The token of an id, if it is an added or special one.
    pub(crate) fn token(&self, id: u32) -> Option<&AddedToken> {
        self.tokens.get(&id)
    }

    /// All of them, by id.
    pub(crate) fn sorted(&self) -> Vec<(u32, &AddedToken)> {
        let mut all: Vec<(u32, &AddedToken)> = self.tokens.iter().map(|(&id, token)| (id, token)).collect();
        all.sort_unstable_by_key(|(id, _)| *id);
        all
    }

    /// Whether some are looked for in normalised text.
    pub(crate) fn has_normalized(&self) -> bool {
        self.normalized.is_some()
    }

    /// Cuts a text as it was given at its tokens but those to be passed over.
    #[inline]
    pub(crate) fn cut<'a>(&self, text: &'a str, skip: impl Fn(u32) -> bool, each: impl FnMut(Stretch<'a>)) {
        self.cut_by(self.raw.as_ref(), text, skip, each);
    }

    /// The same of a stretch that has been normalised.
    pub(crate) fn cut_normalized<'a>(&self, text: &'a str, skip: impl Fn(u32) -> bool, each: impl FnMut(Stretch<'a>)) {
        self.cut_by(self.normalized.as_ref(), text, skip, each);
    }

    fn cut_by<'a>(
        &self,
        matcher: Option<&Matcher>,
        text: &'a str,
        skip: impl Fn(u32) -> bool,
        mut each: impl FnMut(Stretch<'a>),
    ) {
        let Some(matcher) = matcher.filter(|matcher| matcher.may_match(text.as_bytes())) else {
            each(Stretch::Text(text));
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
                each(Stretch::Text(&text[done..start]));
            }
            each(Stretch::Token(id));
            done = end;
        }
        if done < text.len() {
            each(Stretch::Text(&text[done..]));
        }
    }

    /// How often `text` has one of the tokens that `counted` names.
    #[inline]
    pub(crate) fn occurrences(&self, text: &str, counted: impl Fn(u32) -> bool) -> u64 {
        let Some(matcher) = self.raw.as_ref().filter(|matcher| matcher.may_match(text.as_bytes())) else { return 0 };
        matcher.automaton.leftmost_find_iter(text).filter(|found| counted(found.value())).count() as u64
    }
}

/// What a regular expression calls a word's character decides, as in the crate.
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
        // Cannot happen: the expression is right.
        None => c.is_alphanumeric(),
    }
}
