//! Valid UTF-8 lines, and the documents that consist of them.

use std::sync::Arc;

use serde::de::{self, DeserializeSeed, IgnoredAny, MapAccess, Visitor};

use super::compression::Stream;
use super::document::{MAX_DOCUMENT, Row, split_point};
use super::text::{MAX_LINE, TextFormat, clean_line, replace_lone_surrogates, too_long};
use crate::DataError;

/// A text file with more lines than this and no blank line is reported, because it may contain many documents.
const MANY_LINES: u64 = 10_000;

/// The lines of a stream without their line ends, by the rules of [`super::text`].
pub(super) struct Lines {
    stream: Stream,
    bytes: Vec<u8>,
    /// The part of the next line that has already been read, if a line longer than the limit was split.
    carried: Vec<u8>,
    /// The line terminator; unknown before the first line.
    line_end: Option<u8>,
    /// Number of the line in `bytes`, from 1.
    line: u64,
    /// Number of bytes of the line before those in `bytes`, and the number of bytes in `bytes` before cleaning.
    before: usize,
    read: usize,
    /// Number of NUL bytes that were removed.
    nul_bytes: usize,
    /// Whether `bytes` ends inside its line.
    is_split: bool,
    /// Whether `bytes` begins inside its line.
    continued: bool,
}

impl Lines {
    pub fn new(stream: Stream) -> Lines {
        Lines {
            stream,
            bytes: Vec::new(),
            carried: Vec::new(),
            line_end: None,
            line: 0,
            before: 0,
            read: 0,
            nul_bytes: 0,
            is_split: false,
            continued: false,
        }
    }

    /// Reads the next line, or the next part of a line that is longer than `limit` bytes; false at the end.
    fn advance(&mut self, limit: usize) -> Result<bool, DataError> {
        let line_end = match self.line_end {
            Some(line_end) => line_end,
            None => {
                let format = TextFormat::detect(self.stream.fill()?);
                let path = || self.stream.path().to_path_buf();
                format.map_err(|reason| DataError::NotText { path: path(), reason })?.line_end
            }
        };
        self.line_end = Some(line_end);
        self.continued = std::mem::take(&mut self.is_split);
        if self.continued {
            self.before += self.read;
        } else {
            self.line += 1;
            self.before = 0;
        }
        std::mem::swap(&mut self.bytes, &mut self.carried);
        self.carried.clear();
        let mut ended = false;
        while self.bytes.len() <= limit {
            let ready = self.stream.fill()?;
            if ready.is_empty() {
                ended = true;
                break;
            }
            let newline = memchr::memchr(line_end, ready);
            let n = newline.map_or(ready.len(), |at| at + 1);
            self.bytes.extend_from_slice(&ready[..n]);
            self.stream.consume(n);
            if newline.is_some() {
                ended = true;
                break;
            }
        }
        if !ended {
            self.is_split = true;
            let end = split_point(&self.bytes, limit);
            self.carried.extend_from_slice(&self.bytes[end..]);
            self.bytes.truncate(end);
        }
        self.read = self.bytes.len();
        if self.bytes.is_empty() {
            return Ok(false);
        }
        let removed = clean_line(&mut self.bytes, self.before).map_err(|reason| self.record(reason))?;
        self.nul_bytes += removed;
        while matches!(self.bytes.last(), Some(b'\n' | b'\r')) {
            self.bytes.pop();
        }
        Ok(true)
    }

    /// An error with the number of the current line.
    fn record(&self, reason: String) -> DataError {
        DataError::Record { path: self.stream.path().to_path_buf(), line: self.line, reason }
    }

    /// Number of NUL bytes removed so far.
    pub fn nul_bytes(&self) -> usize {
        self.nul_bytes
    }

    fn text(&self) -> &str {
        // Validated by `advance`. Removing a byte-order mark and line ends keeps it valid.
        std::str::from_utf8(&self.bytes).unwrap_or_default()
    }
}

/// Documents of a text file: lines between blank lines, or articles of WikiText.
pub(super) struct TextDocuments {
    lines: Lines,
    wikitext: bool,
    /// A WikiText title line, which ended the previous document, and its number.
    title: Option<(String, u64)>,
    blank_lines: u64,
    split_documents: u64,
    /// Whether the current document is a part of one that was split.
    within_split: bool,
    ended: bool,
}

impl TextDocuments {
    pub fn new(lines: Lines, wikitext: bool) -> TextDocuments {
        TextDocuments {
            lines,
            wikitext,
            title: None,
            blank_lines: 0,
            split_documents: 0,
            within_split: false,
            ended: false,
        }
    }

    pub fn next_row(&mut self) -> Result<Row, DataError> {
        let (mut text, mut begin) = self.title.take().unwrap_or_default();
        while !self.ended {
            // A quarter of the limit, so that a document that is not full can always take an entire part.
            if !self.lines.advance(MAX_DOCUMENT / 4)? {
                self.ended = true;
                break;
            }
            let line = self.lines.text();
            if line.trim().is_empty() {
                if self.lines.continued {
                    continue;
                }
                self.blank_lines += 1;
                self.within_split = false;
                if self.wikitext || text.is_empty() {
                    continue;
                }
                break;
            }
            if self.wikitext && is_title(line) && !text.is_empty() {
                self.title = Some((line.to_string(), self.lines.line));
                self.within_split = false;
                break;
            }
            if text.is_empty() {
                begin = self.lines.line;
            } else {
                text.push('\n');
            }
            text.push_str(line);
            if text.len() > MAX_DOCUMENT / 2 {
                self.split_documents += u64::from(!self.within_split);
                self.within_split = true;
                break;
            }
        }
        if text.is_empty() {
            return Ok(Row::End);
        }
        Ok(Row::Document(text, begin))
    }

    /// The lines that it reads, with the count of removed bytes.
    pub fn lines(&self) -> &Lines {
        &self.lines
    }

    /// Number of documents that were split because they were too long.
    pub fn split_documents(&self) -> u64 {
        self.split_documents
    }

    /// Whether this file has many lines and no blank line.
    pub fn has_no_boundaries(&self) -> bool {
        !self.wikitext && self.blank_lines == 0 && self.lines.line > MANY_LINES
    }
}

/// ` = Title = `, but not ` = = Section = = `.
fn is_title(line: &str) -> bool {
    line.trim()
        .strip_prefix("= ")
        .and_then(|rest| rest.strip_suffix(" ="))
        .is_some_and(|title| !title.starts_with("= ") && !title.ends_with(" ="))
}

/// Documents of a file with one JSON object per line.
pub(super) struct JsonDocuments {
    lines: Lines,
    column: Arc<str>,
    /// Number of unpaired surrogate escapes that were replaced.
    lone_surrogates: usize,
}

impl JsonDocuments {
    pub fn new(lines: Lines, column: &str) -> JsonDocuments {
        JsonDocuments { lines, column: Arc::from(column), lone_surrogates: 0 }
    }

    fn read(&self, text: &str) -> serde_json::Result<Found> {
        let mut json = serde_json::Deserializer::from_str(text);
        let found = TextColumn { name: &self.column }.deserialize(&mut json)?;
        json.end()?;
        Ok(found)
    }

    /// The lines that it reads, with the count of removed bytes.
    pub fn lines(&self) -> &Lines {
        &self.lines
    }

    /// Number of unpaired surrogate escapes that were replaced by U+FFFD.
    pub fn lone_surrogates(&self) -> usize {
        self.lone_surrogates
    }

    pub fn next_row(&mut self) -> Result<Row, DataError> {
        loop {
            if !self.lines.advance(MAX_LINE)? {
                return Ok(Row::End);
            }
            let line = self.lines.line;
            let record = |reason: String| self.lines.record(reason);
            if self.lines.is_split {
                return Err(record(too_long("line")));
            }
            let text = self.lines.text();
            if text.trim().is_empty() {
                continue;
            }
            let mut found = self.read(text);
            if found.is_err()
                && let Some((text, count)) = replace_lone_surrogates(text)
            {
                found = self.read(&text);
                self.lone_surrogates += count;
            }
            let found = found.map_err(|e| {
                // serde_json reports the position in this line; the line number is already in our message.
                let at = format!(" at line 1 column {}", e.column());
                record(format!(
                    "expected a JSON object with text: {} (column {})",
                    e.to_string().replace(&at, ""),
                    e.column()
                ))
            })?;
            return match found {
                Found::Text(text) if text.trim().is_empty() => Ok(Row::Blank),
                Found::Text(text) => Ok(Row::Document(text, line)),
                Found::Null => Ok(Row::Blank),
                Found::Other(kind) => Err(record(format!("\"{}\" is {kind}, expected a string", self.column))),
                Found::Missing(present) => Err(record(format!(
                    "found no text column \"{}\" among {}; name one with `text_column`",
                    self.column,
                    if present.is_empty() { "none".into() } else { present.join(", ") }
                ))),
            };
        }
    }
}

/// The value of the text column in an object.
enum Found {
    Text(String),
    Null,
    Other(&'static str),
    /// The column is missing; the object has these keys.
    Missing(Vec<String>),
}

/// Reads one key of an object and skips the values of all others.
struct TextColumn<'a> {
    name: &'a str,
}

impl<'de> DeserializeSeed<'de> for TextColumn<'_> {
    type Value = Found;

    fn deserialize<D: de::Deserializer<'de>>(self, deserializer: D) -> Result<Found, D::Error> {
        deserializer.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for TextColumn<'_> {
    type Value = Found;

    fn expecting(&self, f: &mut std::fmt::Formatter) -> std::fmt::Result {
        write!(f, "an object with \"{}\"", self.name)
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Found, A::Error> {
        let mut found = None;
        let mut present = Vec::new();
        while let Some(key) = map.next_key::<std::borrow::Cow<str>>()? {
            if key == self.name {
                found = Some(map.next_value::<TextValue>()?.0);
            } else {
                map.next_value::<IgnoredAny>()?;
                if found.is_none() && present.len() < 20 {
                    present.push(key.into_owned());
                }
            }
        }
        Ok(found.unwrap_or(Found::Missing(present)))
    }
}

struct TextValue(Found);

impl<'de> de::Deserialize<'de> for TextValue {
    fn deserialize<D: de::Deserializer<'de>>(deserializer: D) -> Result<TextValue, D::Error> {
        struct AnyValue;
        impl<'de> Visitor<'de> for AnyValue {
            type Value = Found;

            fn expecting(&self, f: &mut std::fmt::Formatter) -> std::fmt::Result {
                f.write_str("a string")
            }
            fn visit_str<E>(self, text: &str) -> Result<Found, E> {
                Ok(Found::Text(text.to_string()))
            }
            fn visit_unit<E>(self) -> Result<Found, E> {
                Ok(Found::Null)
            }
            fn visit_bool<E>(self, _: bool) -> Result<Found, E> {
                Ok(Found::Other("a boolean"))
            }
            fn visit_i64<E>(self, _: i64) -> Result<Found, E> {
                Ok(Found::Other("a number"))
            }
            fn visit_u64<E>(self, _: u64) -> Result<Found, E> {
                Ok(Found::Other("a number"))
            }
            fn visit_f64<E>(self, _: f64) -> Result<Found, E> {
                Ok(Found::Other("a number"))
            }
            fn visit_seq<A: de::SeqAccess<'de>>(self, mut seq: A) -> Result<Found, A::Error> {
                while seq.next_element::<IgnoredAny>()?.is_some() {}
                Ok(Found::Other("a list"))
            }
            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Found, A::Error> {
                while map.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {}
                Ok(Found::Other("an object"))
            }
        }
        deserializer.deserialize_any(AnyValue).map(TextValue)
    }
}
