//! The list of tokens: reading `vocab.txt` and checking it.

use std::path::Path;

use ahash::AHashMap;
use tokenizers::models::wordpiece::WordPiece;

use crate::{Special, Template, TextError, files};

/// The prefix of tokens that continue a word.
pub(crate) const CONTINUATION: &str = "##";

/// Maximal word length in characters, as in Transformers: longer words are \[UNK\].
pub(crate) const MAX_WORD_CHARS: usize = 100;

/// Tokens by id and ids by token. Tokens are unique, and ids have no gaps.
#[derive(Debug)]
pub(crate) struct Vocabulary {
    pub(crate) tokens: Vec<String>,
    pub(crate) ids: AHashMap<String, u32>,
}

impl Vocabulary {
    /// Checks `tokens`, whose ids are their positions. `path` is used in errors.
    pub(crate) fn new(tokens: Vec<String>, path: &Path) -> Result<Vocabulary, TextError> {
        if tokens.is_empty() {
            return Err(TextError::EmptyVocabulary(path.to_owned()));
        }
        let mut ids: AHashMap<String, u32> = AHashMap::with_capacity(tokens.len());
        for (id, token) in tokens.iter().enumerate() {
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

    /// The tokens of a vocabulary, sorted by id; the ids must run from 0.
    pub(crate) fn in_order(
        vocabulary: impl IntoIterator<Item = (String, u32)>,
        path: &Path,
    ) -> Result<Vec<String>, TextError> {
        let mut entries: Vec<(u32, String)> = vocabulary.into_iter().map(|(token, id)| (id, token)).collect();
        entries.sort_unstable();
        for (expected, (id, token)) in entries.iter().enumerate() {
            if *id as usize != expected {
                let reason = format!(
                    "token {token:?} has id {id}, expected {expected}: ids must run from 0 without gaps or repeats"
                );
                return Err(TextError::BadFile { path: path.to_owned(), reason });
            }
        }
        Ok(entries.into_iter().map(|(_, token)| token).collect())
    }

    /// The tokens of a tokenizer.json, without checks: they may be any text, and the list may be empty.
    pub(crate) fn unchecked(tokens: Vec<String>) -> Vocabulary {
        let ids = tokens.iter().cloned().zip(0..).collect();
        Vocabulary { tokens, ids }
    }

    /// A WordPiece model over these tokens.
    pub(crate) fn word_piece(&self, unk: &str, prefix: &str, max_chars: usize) -> Result<WordPiece, TextError> {
        let builder = WordPiece::builder().vocab(self.ids.clone()).unk_token(unk.to_owned());
        let builder = builder.continuing_subword_prefix(prefix.to_owned()).max_input_chars_per_word(max_chars);
        builder.build().map_err(|e| TextError::Engine { action: "build the model", reason: e.to_string() })
    }

    /// Finds the special tokens (see [`Special::find`]). `path` is used in the error.
    pub(crate) fn find_special<'a>(
        &self,
        named: impl Fn(&str) -> Option<&'a str>,
        template: Option<&Template>,
        path: &Path,
    ) -> Result<Special, TextError> {
        Special::find(&self.ids, named, template).map_err(|missing| TextError::MissingSpecial {
            path: path.to_owned(),
            count: self.tokens.len(),
            missing,
        })
    }

    /// Parses the bytes of a `vocab.txt`: one token per line, without trailing white space; ids from 0; LF or CRLF. Blank
    /// lines at the end are left out; the flag is true if there are any.
    pub(crate) fn parse(bytes: &[u8], path: &Path) -> Result<(Vocabulary, bool), TextError> {
        let text = files::text(bytes, path)?;
        // Not `lines()`: a token may be any character except LF, including other line separators.
        let mut lines: Vec<&str> = text.strip_suffix('\n').unwrap_or(text).split('\n').collect();
        let all = lines.len();
        let is_blank = |line: &str| line.bytes().all(|b| b.is_ascii_whitespace());
        while lines.last().is_some_and(|last| is_blank(last)) {
            lines.pop();
        }
        let has_blank_end = lines.len() < all && !lines.is_empty();
        if let Some(line) = lines.iter().position(|line| is_blank(line)) {
            return Err(TextError::BlankLine { path: path.to_owned(), line: line + 1 });
        }
        // As in the reader of the `tokenizers` crate. White space such as U+2028 is a token of bert-base-chinese.
        let token = |line: &str| if line.trim_end().is_empty() { line } else { line.trim_end() }.to_owned();
        Ok((Vocabulary::new(lines.into_iter().map(token).collect(), path)?, has_blank_end))
    }

    /// Whether tokens contain capitals. It decides whether the vocabulary is cased if the configuration does not say so.
    /// Tokens for which `is_special` is true are ignored.
    pub(crate) fn has_capitals(&self, is_special: impl Fn(&str) -> bool) -> bool {
        // ℝ, a token of bert-base-uncased, is upper case but has no lower-case form: only lowercasing shows the difference.
        let is_capital = |c: char| c.to_lowercase().ne([c]);
        let is_ordinary = |token: &str| !token.starts_with('[') && !is_special(token);
        self.tokens.iter().any(|token| token.chars().any(is_capital) && is_ordinary(token))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(bytes: &[u8]) -> Result<Vocabulary, TextError> {
        Vocabulary::parse(bytes, Path::new("a/vocab.txt")).map(|(vocabulary, _)| vocabulary)
    }

    fn message(bytes: &[u8]) -> String {
        parse(bytes)
            .and_then(|list| list.find_special(|_| None, None, Path::new("a/vocab.txt")))
            .unwrap_err()
            .to_string()
    }

    #[test]
    fn reads_lf_and_crlf() {
        let vocabulary = parse(b"[PAD]\r\n[UNK]\n[CLS]\n[SEP]\n[MASK]\r\nthe\n##s").unwrap();
        assert_eq!(vocabulary.tokens[5..], ["the", "##s"]);
        assert_eq!(vocabulary.find_special(|_| None, None, Path::new("a/vocab.txt")).unwrap().mask, 4);
        let capitals = |token: &str| {
            let text = format!("[PAD]\n[UNK]\n[CLS]\n[SEP]\n[MASK]\n{token}\n");
            parse(text.as_bytes()).unwrap().has_capitals(|token| token == "<E1>")
        };
        let tokens = ["the", "ℝ", "##ℝ", "<E1>", "The", "##É"];
        assert_eq!(tokens.map(capitals), [false, false, false, false, true, true]);
        let odd = parse("[PAD]\n[UNK]\n[CLS]\n[SEP]\n[MASK]\n\u{2028}\n".as_bytes()).unwrap();
        assert_eq!(odd.tokens[5], "\u{2028}");
    }

    #[test]
    fn r6_blank_lines_at_the_end_are_not_tokens() {
        for (end, blank) in [("", false), ("\n", false), ("\n\n", true), ("\r\n\r\n \n", true)] {
            let text = format!("[PAD]\n[UNK]\n[CLS]\n[SEP]\n[MASK]\nthe \u{3000}{end}");
            let (vocabulary, found) = Vocabulary::parse(text.as_bytes(), Path::new("a/vocab.txt")).unwrap();
            assert_eq!((&vocabulary.tokens[5..], found), (&["the".to_owned()][..], blank), "{end:?}");
        }
    }

    #[test]
    fn malformed_vocabularies_name_file_and_line() {
        assert!(message(b"").contains("a/vocab.txt is empty"));
        let duplicate = message(b"[PAD]\n[UNK]\n[CLS]\n[SEP]\n[MASK]\nthe\nof\nthe \n");
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
