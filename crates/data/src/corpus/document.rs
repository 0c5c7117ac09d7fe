//! A document, and how long ones are cut.

use std::path::Path;
use std::sync::Arc;

/// Longest document in bytes: longer ones are cut at a line or a space, so that memory stays bounded.
pub const MAX_DOCUMENT: usize = 4 << 20;

/// How a corpus is read.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct CorpusOptions {
    /// The column that holds the text, in .jsonl and .parquet files.
    pub text_column: String,
}

impl Default for CorpusOptions {
    fn default() -> CorpusOptions {
        CorpusOptions { text_column: "text".into() }
    }
}

/// One document, or a part of one longer than [`MAX_DOCUMENT`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Document {
    /// Its text: never blank, never longer than [`MAX_DOCUMENT`] bytes.
    pub text: String,
    /// The file it is from (`-` for standard input).
    pub file: Arc<Path>,
    /// The line or row where it begins, from 1.
    pub line: u64,
}

/// What a source gives next.
pub(super) enum Row {
    /// A text and where it begins.
    Document(String, u64),
    /// A row without text.
    Blank,
    /// The source has ended.
    End,
}

/// Cuts a text into parts of at most `limit` bytes, each ending at a line, else at a space, else at a character.
pub(super) fn cut(text: String, limit: usize) -> Vec<String> {
    if text.len() <= limit {
        return vec![text];
    }
    let mut parts = Vec::new();
    let mut rest = text.as_str();
    while !rest.is_empty() {
        let end = if rest.len() <= limit { rest.len() } else { cut_point(rest.as_bytes(), limit) };
        let (part, tail) = rest.split_at(end);
        if !part.trim().is_empty() {
            parts.push(part.trim_end().to_string());
        }
        rest = tail;
    }
    parts
}

/// Where to cut UTF-8 bytes longer than `limit`, in `1..=limit`: after the last newline of the second half, else after
/// the last space of the last 4 KiB, else before the character that crosses the limit.
pub(super) fn cut_point(bytes: &[u8], limit: usize) -> usize {
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
