//! The list of tokens: reading `vocab.txt` and checking.

use std::path::Path;

use ahash::AHashMap;
use serde_json::Value;

use crate::{Special, Template, TextError};

/// The prefix of tokens that continue a word.
pub(crate) const CONTINUATION: &str = "##";

/// Longest word in characters, as in Transformers: longer ones are \[UNK\].
pub(crate) const MAX_WORD_CHARS: usize = 100;

/// Tokens by id and ids by token; unique, without holes.
#[derive(Debug)]
pub(crate) struct Vocabulary {
    pub(crate) tokens: Vec<String>,
    pub(crate) ids: AHashMap<String, u32>,
}

impl Vocabulary {
    /// Checks `tokens`, whose ids are their positions; `path` is for the errors.
    pub(crate) fn new(tokens: Vec<String>, path: &Path) -> Result<Vocabulary, TextError> {
        if tokens.is_empty() {
            return Err(TextError::EmptyVocabulary(path.to_owned()));
        }
        let mut ids: AHashMap<String, u32> = AHashMap::with_capacity(tokens.len());
        for (id, token) in tokens.iter().enumerate() {
            // U+2028 alone is a token of bert-base-chinese: only ASCII's blanks are a mistake.
            if token.bytes().all(|b| b.is_ascii_whitespace()) {
                return Err(TextError::BlankLine { path: path.to_owned(), line: id + 1 });
            }
            if let Some(first) = ids.insert(token.clone(), id as u32) {
                return Err(TextError::DuplicateToken {
                    path: path.to_owned(),
                    line: id + 1,
                    first: first as usize + 1,
                    token: token.clone(),
                });
            }
        }
        Ok(Vocabulary { tokens, ids })
    }

    /// `tokens` of a tokenizer.json, each of which may be any text.
    pub(crate) fn of_any(tokens: Vec<String>) -> Vocabulary {
        let ids = tokens.iter().cloned().zip(0..).collect();
        Vocabulary { tokens, ids }
    }

    /// The special tokens among them (see [`Special::find`]); `path` is for the error.
    pub(crate) fn special(
        &self,
        configs: &[&Value],
        template: Option<&Template>,
        path: &Path,
    ) -> Result<Special, TextError> {
        Special::find(&self.ids, configs, template).map_err(|missing| TextError::MissingSpecial {
            path: path.to_owned(),
            count: self.tokens.len(),
            missing,
        })
    }

    /// Reads the bytes of a `vocab.txt`: one token a line, ids from 0, LF or CRLF.
    pub(crate) fn parse(bytes: &[u8], path: &Path) -> Result<Vocabulary, TextError> {
        let text = std::str::from_utf8(bytes).map_err(|error| {
            let byte = error.valid_up_to();
            TextError::NotUtf8 {
                path: path.to_owned(),
                line: bytes[..byte].iter().filter(|&&b| b == b'\n').count() + 1,
                byte,
            }
        })?;
        let text = text.strip_prefix('\u{feff}').unwrap_or(text);
        // Not `lines()`, and no trimming: a token may be any character, also one that Unicode counts as a space.
        let mut lines: Vec<&str> = text.split('\n').collect();
        if lines.last().is_some_and(|last| last.is_empty()) {
            lines.pop();
        }
        let tokens = lines.into_iter().map(|line| line.strip_suffix('\r').unwrap_or(line).to_owned()).collect();
        Vocabulary::new(tokens, path)
    }

    /// Whether ordinary tokens hold capitals: what casing a vocabulary is for when nothing beside it says so.
    pub(crate) fn has_capitals(&self) -> bool {
        // ℝ, a token of bert-base-uncased, counts as upper case but has no lower one: only what lowercasing changes tells.
        let is_capital = |c: char| c.to_lowercase().ne([c]);
        self.tokens.iter().any(|token| !token.starts_with('[') && token.chars().any(is_capital))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(bytes: &[u8]) -> Result<Vocabulary, TextError> {
        Vocabulary::parse(bytes, Path::new("a/vocab.txt"))
    }

    fn message(bytes: &[u8]) -> String {
        parse(bytes).and_then(|list| list.special(&[], None, Path::new("a/vocab.txt"))).unwrap_err().to_string()
    }

    #[test]
    fn reads_lines_of_both_kinds() {
        let vocabulary = parse(b"[PAD]\r\n[UNK]\n[CLS]\n[SEP]\n[MASK]\r\nthe\n##s").unwrap();
        assert_eq!(vocabulary.tokens[5..], ["the", "##s"]);
        assert_eq!(vocabulary.special(&[], None, Path::new("a/vocab.txt")).unwrap().mask, 4);
        assert!(!vocabulary.has_capitals());
        let capitals = |token: &str| {
            let text = format!("[PAD]\n[UNK]\n[CLS]\n[SEP]\n[MASK]\n{token}\n");
            parse(text.as_bytes()).unwrap().has_capitals()
        };
        assert_eq!(["the", "ℝ", "##ℝ", "The", "##É"].map(capitals), [false, false, false, true, true]);
        let odd = parse("[PAD]\n[UNK]\n[CLS]\n[SEP]\n[MASK]\n\u{2028}\n".as_bytes()).unwrap();
        assert_eq!(odd.tokens[5], "\u{2028}");
    }

    #[test]
    fn malformed_vocabularies_name_file_and_line() {
        assert!(message(b"").contains("a/vocab.txt is empty"));
        let duplicate = message(b"[PAD]\n[UNK]\n[CLS]\n[SEP]\n[MASK]\nthe\nof\nthe\n");
        assert!(duplicate.contains("a/vocab.txt, line 8: token \"the\""), "{duplicate}");
        assert!(duplicate.contains("line 6"), "{duplicate}");
        let missing = message(b"[PAD]\n[CLS]\n[SEP]\nthe\n");
        assert!(missing.contains("no [UNK] [MASK];"), "{missing}");
        let binary = message(b"[PAD]\n[UNK]\n\xff\xfe\n");
        assert!(binary.contains("line 3: not UTF-8 (byte 12"), "{binary}");
        let blank = message(b"[PAD]\n\n[UNK]\n");
        assert!(blank.contains("line 2: blank"), "{blank}");
    }
}
