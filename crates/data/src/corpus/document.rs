//! Documents, and how long ones are split.

use std::path::Path;
use std::sync::Arc;

/// Maximal length of a document in bytes. Longer ones are split at a line or a space, which limits memory.
pub const MAX_DOCUMENT: usize = 4 << 20;

/// Options for reading a corpus.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct CorpusOptions {
    /// The text column in .jsonl and .parquet files.
    pub text_column: String,
}

impl Default for CorpusOptions {
    fn default() -> CorpusOptions {
        CorpusOptions { text_column: "text".into() }
    }
}

/// A document, or a part of one that is longer than [`MAX_DOCUMENT`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Document {
    /// The text: not blank, at most [`MAX_DOCUMENT`] bytes.
    pub text: String,
    /// The file that contains it (`-` for standard input).
    pub file: Arc<Path>,
    /// The line or row at which it begins, from 1.
    pub line: u64,
}

/// The next item of a source.
pub(super) enum Row {
    /// A text and its first line or row.
    Document(String, u64),
    /// A row without text.
    Blank,
    /// The end of the source.
    End,
}

/// Splits a text into parts of at most `limit` bytes, each ending at a line, otherwise at a space, otherwise at a character.
pub(super) fn split(text: String, limit: usize) -> Vec<String> {
    if text.len() <= limit {
        return vec![text];
    }
    let mut parts = Vec::new();
    let mut rest = text.as_str();
    while !rest.is_empty() {
        let end = if rest.len() <= limit { rest.len() } else { split_point(rest.as_bytes(), limit) };
        let (part, tail) = rest.split_at(end);
        if !part.trim().is_empty() {
            parts.push(part.trim_end().to_string());
        }
        rest = tail;
    }
    parts
}

/// Where to split UTF-8 bytes that are longer than `limit`, in `1..=limit`: after the last newline of the second half,
/// otherwise after the last space of the last 4 KiB, otherwise before the character that crosses the limit.
pub(super) fn split_point(bytes: &[u8], limit: usize) -> usize {
    if let Some(at) = memchr::memrchr(b'\n', &bytes[limit / 2..limit]) {
        return limit / 2 + at + 1;
    }
    let window = limit.saturating_sub(4096);
    if let Some(at) = memchr::memrchr(b' ', &bytes[window..limit]) {
        return window + at + 1;
    }
    let mut end = limit;
    // Continuation bytes are 10xxxxxx; a character has at most three.
    while end + 4 > limit && end > 1 && bytes[end] & 0xC0 == 0x80 {
        end -= 1;
    }
    end
}
