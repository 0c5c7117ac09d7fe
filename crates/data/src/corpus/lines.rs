//! Lines of UTF-8, checked, and the documents made of them.

use std::sync::Arc;

use serde::de::{self, DeserializeSeed, IgnoredAny, MapAccess, Visitor};

use super::compression::Stream;
use super::document::{MAX_DOCUMENT, Row, cut_point};
use super::text::{Beginning, MAX_LINE, clean_line, too_long, without_lone_surrogates};
use crate::DataError;

/// A text file of so many lines without a blank one is reported: it may hold many documents.
const MANY_LINES: u64 = 10_000;

/// Lines of a stream, without their ends, as [`super::text`] has them.
pub(super) struct Lines {
    stream: Stream,
    bytes: Vec<u8>,
    /// What was read of the next line already, when a line longer than the limit was cut.
    carried: Vec<u8>,
    /// What ends a line; not known before the first.
    line_end: Option<u8>,
    /// Number of the line in `bytes`, from 1.
    line: u64,
    /// Bytes of the line that come before those in `bytes`, and how many those were when they were read.
    before: usize,
    read: usize,
    /// NULs that were dropped.
    nuls: usize,
    /// Whether `bytes` ends inside its line.
    cut: bool,
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
            nuls: 0,
            cut: false,
            continued: false,
        }
    }

    /// Goes to the next line, or to the next part of one longer than `limit` bytes; false at the end.
    fn advance(&mut self, limit: usize) -> Result<bool, DataError> {
        let line_end = match self.line_end {
            Some(line_end) => line_end,
            None => {
                let beginning = Beginning::of(self.stream.fill()?);
                let path = || self.stream.path().to_path_buf();
                beginning.map_err(|reason| DataError::NotText { path: path(), reason })?.line_end
            }
        };
        self.line_end = Some(line_end);
        self.continued = std::mem::take(&mut self.cut);
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
            self.cut = true;
            let end = cut_point(&self.bytes, limit);
            self.carried.extend_from_slice(&self.bytes[end..]);
            self.bytes.truncate(end);
        }
        self.read = self.bytes.len();
        if self.bytes.is_empty() {
            return Ok(false);
        }
        let nuls = clean_line(&mut self.bytes, self.before).map_err(|reason| self.record(reason))?;
        self.nuls += nuls;
        while matches!(self.bytes.last(), Some(b'\n' | b'\r')) {
            self.bytes.pop();
        }
        Ok(true)
    }

    /// An error of the line.
    fn record(&self, reason: String) -> DataError {
        DataError::Record { path: self.stream.path().to_path_buf(), line: self.line, reason }
    }

    /// NULs that were dropped so far.
    pub fn nuls(&self) -> usize {
        self.nuls
    }

    fn text(&self) -> &str {
        // Checked by `advance`; removing a mark and line ends leaves it valid.
        std::str::from_utf8(&self.bytes).unwrap_or_default()
    }
}

/// Documents of a text file: lines between blank lines, or articles of WikiText.
pub(super) struct TextDocuments {
    lines: Lines,
    wikitext: bool,
    /// A WikiText title that ended the document before.
    title: Option<(String, u64)>,
    blank_lines: u64,
    cut_documents: u64,
    /// Whether the document now read is a part of one that was cut.
    within_cut: bool,
    ended: bool,
}

impl TextDocuments {
    pub fn new(lines: Lines, wikitext: bool) -> TextDocuments {
        TextDocuments {
            lines,
            wikitext,
            title: None,
            blank_lines: 0,
            cut_documents: 0,
            within_cut: false,
            ended: false,
        }
    }

    pub fn next_row(&mut self) -> Result<Row, DataError> {
        let (mut text, mut begin) = self.title.take().unwrap_or_default();
        while !self.ended {
            // A quarter, so that a document that is not yet full always takes a whole part.
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
                self.within_cut = false;
                if self.wikitext || text.is_empty() {
                    continue;
                }
                break;
            }
            if self.wikitext && is_title(line) && !text.is_empty() {
                self.title = Some((line.to_string(), self.lines.line));
                self.within_cut = false;
                break;
            }
            if text.is_empty() {
                begin = self.lines.line;
            } else {
                text.push('\n');
            }
            text.push_str(line);
            if text.len() > MAX_DOCUMENT / 2 {
                self.cut_documents += u64::from(!self.within_cut);
                self.within_cut = true;
                break;
            }
        }
        if text.is_empty() {
            return Ok(Row::End);
        }
        Ok(Row::Document(text, begin))
    }

    /// Its lines, for what was dropped of them.
    pub fn lines(&self) -> &Lines {
        &self.lines
    }

    /// Documents that were cut because they were too long.
    pub fn cut_documents(&self) -> u64 {
        self.cut_documents
    }

    /// Whether this file is long and has no blank line.
    pub fn lacks_boundaries(&self) -> bool {
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

/// Documents of a file with one JSON object a line.
pub(super) struct JsonDocuments {
    lines: Lines,
    column: Arc<str>,
    /// Escaped surrogates without their other half.
    mended: usize,
}

impl JsonDocuments {
    pub fn new(lines: Lines, column: &str) -> JsonDocuments {
        JsonDocuments { lines, column: Arc::from(column), mended: 0 }
    }

    fn read(&self, text: &str) -> serde_json::Result<Found> {
        let mut json = serde_json::Deserializer::from_str(text);
        let found = TextColumn { name: &self.column }.deserialize(&mut json)?;
        json.end()?;
        Ok(found)
    }

    /// Lines, for what was dropped of them; escaped surrogates that were mended.
    pub fn mended(&self) -> (&Lines, usize) {
        (&self.lines, self.mended)
    }

    pub fn next_row(&mut self) -> Result<Row, DataError> {
        loop {
            if !self.lines.advance(MAX_LINE)? {
                return Ok(Row::End);
            }
            let line = self.lines.line;
            let record = |reason: String| self.lines.record(reason);
            if self.lines.cut {
                return Err(record(too_long("line")));
            }
            let text = self.lines.text();
            if text.trim().is_empty() {
                continue;
            }
            let mut found = self.read(text);
            if found.is_err()
                && let Some((text, count)) = without_lone_surrogates(text)
            {
                found = self.read(&text);
                self.mended += count;
            }
            let found = found.map_err(|e| {
                // serde_json says "line 1": of this one line. Ours is said before.
                let at = format!(" at line 1 column {}", e.column());
                record(format!(
                    "not a JSON object with text: {} (column {})",
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
                    "no text column \"{}\"; it has {}: name one with --text-column",
                    self.column,
                    if present.is_empty() { "none".into() } else { present.join(", ") }
                ))),
            };
        }
    }
}

/// What an object holds under the column's name.
enum Found {
    Text(String),
    Null,
    Other(&'static str),
    /// Nothing: the names it has.
    Missing(Vec<String>),
}

/// Reads one key of an object and passes over the others without keeping them.
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
