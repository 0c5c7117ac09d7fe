//! Texts of a file, one after another.
//!
//! How a file is written decides [`crate::datasets::format`].
//!
//! | format | a text is |
//! | --- | --- |
//! | `jsonl` | a column, `text` unless another is named, of one object a line; blank lines are passed over |
//! | `tsv`, `csv`, `json`, `parquet` | a column, `text` unless another is named, of a row; read whole ([`crate::datasets::table`]) |
//! | `lines` | a line, blank ones too, so that text and line numbers agree |
//!
//! A row without a text that can be read is a blank text with a [`problem`](Text::problem), so that rows and vectors agree.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use serde_json::Value;

use crate::TaskError;
use crate::datasets::format::{DataFile, Format, shown};
use crate::datasets::listed;
use crate::datasets::table::{Column, Row, Table};
use crate::input::{Object, object_of_line, string_of};
use crate::lines::Lines;

/// The column unless another is named.
const COLUMN: &str = "text";

/// A text and where it stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Text {
    /// The line, from 1.
    pub line: usize,
    /// What it says; blank where it cannot be read.
    pub text: String,
    /// Why it cannot be read, if it cannot.
    pub problem: Option<String>,
}

impl Text {
    fn of(line: usize, text: Result<String, TaskError>) -> Text {
        match text {
            Ok(text) => Text { line, text, problem: None },
            Err(error) => Text { line, text: String::new(), problem: Some(error.to_string()) },
        }
    }
}

impl AsRef<str> for Text {
    fn as_ref(&self) -> &str {
        &self.text
    }
}

/// The texts of a file, read as they are asked for.
pub struct Texts {
    source: Source,
    reading: Reading,
    note: Option<String>,
    ended: bool,
    found: bool,
}

/// How far texts have been read; stays when they are handed over to be read.
#[derive(Clone, Debug)]
pub struct Reading {
    /// Bytes of a file of lines, rows of a table; unknown of standard input and of pipes.
    total: Option<u64>,
    read: Arc<AtomicU64>,
    texts: Arc<AtomicU64>,
}

impl Reading {
    /// Whether it is known how much there is to read.
    pub fn is_bounded(&self) -> bool {
        self.total.is_some()
    }

    /// The share of all texts that is done when `done` of those that were read are; none if it is not known how many there are.
    pub fn share(&self, done: usize) -> Option<f64> {
        let of = |part: f64, whole: f64| (part / whole.max(1.0)).min(1.0);
        let read = of(self.read.load(Ordering::Relaxed) as f64, self.total? as f64);
        Some(read * of(done as f64, self.texts.load(Ordering::Relaxed) as f64))
    }
}

enum Source {
    Lines(Lines),
    /// Objects, and the key that is wanted.
    Json(Lines, String),
    /// The file, the rows that are left, and how many were given.
    Table(PathBuf, std::vec::IntoIter<Result<Row, TaskError>>, usize),
}

impl Texts {
    /// Opens a file, or standard input for `-`. `column` is that of the texts, `format` how the file is written if that is given.
    ///
    /// # Errors
    /// [`TaskError::Io`]; [`TaskError::Setting`] for a column of plain text; [`TaskError::File`] for a file of tagged words or of
    /// questions; of a table, those of [`Table::open`].
    pub fn open(path: &Path, column: Option<&str>, format: Option<Format>) -> Result<Texts, TaskError> {
        let file = DataFile { path, format };
        let wanted = Column::parse(column.unwrap_or(COLUMN))?;
        let found = file.texts_format(&wanted, column.is_some())?;
        let source = match found.format {
            Format::Lines if column.is_some() => {
                let problem = format!("{} is read as plain lines, which have no columns; see --format", shown(path));
                return Err(TaskError::setting("--column", problem));
            }
            Format::Lines => Source::Lines(Lines::open(path)?),
            Format::Jsonl => Source::Json(Lines::open(path)?, column.unwrap_or(COLUMN).to_owned()),
            Format::Tsv | Format::Csv | Format::Json | Format::Parquet => {
                let table = Table::open(DataFile { path, format: Some(found.format) }, &[wanted])?;
                Source::Table(path.to_owned(), table.into_rows().into_iter(), 0)
            }
            Format::Columns | Format::ConllU | Format::WikiAnn | Format::Squad => {
                let name = found.format.name();
                let problem = format!("is read as {name}, which has no column of texts; see --format");
                return Err(TaskError::file(path, problem));
            }
        };
        let total = match &source {
            Source::Lines(lines) | Source::Json(lines, _) => lines.bytes_total(),
            Source::Table(_, rows, _) => Some(rows.len() as u64),
        };
        let note = found.note(path);
        let reading = Reading { total, read: Arc::default(), texts: Arc::default() };
        Ok(Texts { source, reading, note, ended: false, found: false })
    }

    /// What a person should know of how the file is read.
    pub fn note(&self) -> Option<&str> {
        self.note.as_deref()
    }

    /// How far they have been read.
    pub fn reading(&self) -> Reading {
        self.reading.clone()
    }

    fn next_text(&mut self) -> Result<Option<Text>, TaskError> {
        let path = match &mut self.source {
            Source::Lines(lines) => {
                match lines.advance() {
                    Ok(true) => return Ok(Some(Text::of(lines.number(), Ok(lines.text().to_owned())))),
                    // The line after it can be read.
                    Err(error @ TaskError::Line { .. }) => return Ok(Some(Text::of(lines.number(), Err(error)))),
                    Err(error) => return Err(error),
                    Ok(false) => {}
                }
                lines.path()
            }
            Source::Json(lines, column) => {
                loop {
                    let text = match lines.advance() {
                        Ok(false) => break,
                        Ok(true) if lines.text().trim().is_empty() => continue,
                        Ok(true) => cell(lines.text(), column).map_err(|problem| lines.problem(problem)),
                        Err(error @ TaskError::Line { .. }) => Err(error),
                        Err(error) => return Err(error),
                    };
                    return Ok(Some(Text::of(lines.number(), text)));
                }
                lines.path()
            }
            Source::Table(path, rows, given) => {
                if let Some(row) = rows.next() {
                    *given += 1;
                    let line = row.as_ref().map_or(*given, |row| row.line);
                    return Ok(Some(Text::of(line, row.map(|row| row.cells.into_iter().next().unwrap_or_default()))));
                }
                path.as_path()
            }
        };
        if self.found { Ok(None) } else { Err(TaskError::file(path, "holds no text; expected at least one line")) }
    }
}

/// Ends after the first error. A file without any text is one.
impl Iterator for Texts {
    type Item = Result<Text, TaskError>;

    fn next(&mut self) -> Option<Result<Text, TaskError>> {
        if self.ended {
            return None;
        }
        let next = self.next_text().transpose();
        self.found = true;
        self.ended = !matches!(next, Some(Ok(_)));
        let texts = self.reading.texts.fetch_add(u64::from(!self.ended), Ordering::Relaxed);
        let read = match &self.source {
            Source::Lines(lines) | Source::Json(lines, _) => lines.bytes_read(),
            Source::Table(..) => texts + u64::from(!self.ended),
        };
        self.reading.read.store(read, Ordering::Relaxed);
        next
    }
}

/// A text of a line's JSON object.
fn cell(line: &str, column: &str) -> Result<String, String> {
    let object = match object_of_line(line) {
        Ok(Value::Object(object)) => object,
        Ok(_) => Object::new(),
        Err(TaskError::Input { problem, .. }) => return Err(problem),
        Err(error) => return Err(error.to_string()),
    };
    string_of(&object, column).map_err(|error| match object.contains_key(column) {
        true => error.to_string(),
        false => {
            let keys = listed(object.keys().map(String::as_str));
            format!("no \"{column}\" in it; it has {keys}: name a column with --column")
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(name: &str, bytes: &[u8], column: Option<&str>) -> Result<Vec<(usize, String)>, String> {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join(name);
        std::fs::write(&path, bytes).unwrap();
        let texts = Texts::open(&path, column, None).map_err(|e| e.to_string())?;
        let one = |text: Result<Text, TaskError>| match text.map_err(|e| e.to_string())? {
            Text { problem: Some(problem), .. } => Err(problem),
            Text { line, text, .. } => Ok((line, text)),
        };
        texts.map(one).collect()
    }

    fn pairs(expected: &[(usize, &str)]) -> Result<Vec<(usize, String)>, String> {
        Ok(expected.iter().map(|&(line, text)| (line, text.to_owned())).collect())
    }

    #[test]
    fn lines_and_columns() {
        assert_eq!(read("a.txt", b"\xef\xbb\xbfone\r\n\ntwo", None), pairs(&[(1, "one"), (2, ""), (3, "two")]));
        assert_eq!(read("a", b"\n", None), pairs(&[(1, "")]));
        let json = b"{\"text\": \"a\", \"b\": \"c\"}\n\n{\"b\": \"d\", \"text\": \"e\"}\n";
        assert_eq!(read("a.jsonl", json, None), pairs(&[(1, "a"), (3, "e")]));
        assert_eq!(read("a.tsv", b"id\ttext\n1\ta b\n2\tc\n", None), pairs(&[(2, "a b"), (3, "c")]));
        assert_eq!(read("a.csv", b"1,\"a,\nb\"\n2,c\n", Some("#2")), pairs(&[(1, "a,\nb"), (3, "c")]));
        assert_eq!(read("a.JSON", json, Some("b")), pairs(&[(1, "c"), (3, "d")]));
    }

    #[test]
    fn bad_files_say_where_and_what() {
        let fails = |name: &str, bytes: &[u8], column| read(name, bytes, column).unwrap_err();
        assert!(fails("a.txt", b"", None).contains("a.txt: holds no text"));
        assert!(fails("a.jsonl", b"\n\n", None).contains("holds no text"));
        assert!(fails("a.txt", b"good\nb\xe4d", None).contains("a.txt:2: byte 2 of the line (0xe4)"));
        assert!(fails("a.txt", b"x", Some("text")).contains("no column \"text\""));
        assert!(fails("a.conll", b"a O\n", None).contains("is read as columns"));
        assert!(fails("a.csv", b"x,y\n1,2\n", None).contains("a.csv: no column \"text\"; it has "));
        assert!(fails("a.csv", b"text\n", None).contains("holds no rows"));
        let missing = fails("a.jsonl", b"{\"a\": \"x\", \"text\": \"y\"}\n{\"a\": 1, \"b\": 2}", None);
        assert!(missing.contains("a.jsonl:2: no \"text\" in it; it has \"a\", \"b\""), "{missing}");
        assert_eq!(read("a.jsonl", b"{\"text\": 7}", None), pairs(&[(1, "7")]));
        assert!(fails("a.jsonl", b"{\"text\": null}", None).contains("\"text\": expected a string, found null"));
        assert!(fails("a.jsonl", b"[1]", None).contains("expected a JSON object"));
        assert!(fails("a.jsonl", b"{", None).contains("a.jsonl:1: not JSON"));
        assert!(Texts::open(Path::new("absent.txt"), None, None).err().unwrap().to_string().contains("absent.txt"));
    }

    /// Embedding told no time left: the length of its input was not known.
    #[test]
    fn what_is_read_is_a_share_of_the_file() {
        let dir = tempfile::tempdir().unwrap();
        let rows: String = (0..1000).map(|n| format!("row {n:03}\n")).collect();
        let table = format!("text\n{rows}");
        let json: String = (0..1000).map(|n| format!("{{\"text\": \"{n:03}\"}}\n")).collect();
        for (name, bytes) in [("a.txt", &rows), ("a.tsv", &table), ("a.jsonl", &json)] {
            let path = dir.path().join(name);
            std::fs::write(&path, bytes).unwrap();
            let mut texts = Texts::open(&path, None, None).unwrap();
            let reading = texts.reading();
            assert!(reading.is_bounded());
            assert_eq!(reading.share(0), Some(0.0));
            assert_eq!(texts.by_ref().take(250).count(), 250);
            let share = |done| (reading.share(done).unwrap() * 1000.0).round();
            // Though the whole file is in memory: of what was read some may not be done yet.
            assert_eq!([share(250), share(100), share(0)], [250.0, 100.0, 0.0], "{name}");
            assert_eq!(texts.count(), 750);
            assert_eq!(share(1000), 1000.0, "{name}");
        }
        let path = dir.path().join("a.gz");
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        std::io::Write::write_all(&mut encoder, rows.as_bytes()).unwrap();
        std::fs::write(&path, encoder.finish().unwrap()).unwrap();
        let mut texts = Texts::open(&path, None, None).unwrap();
        let reading = texts.reading();
        assert_eq!(texts.by_ref().count(), 1000);
        assert_eq!(reading.share(1000), Some(1.0), "as stored");
    }

    #[cfg(unix)]
    #[test]
    fn a_pipe_has_no_length() {
        let (reader, writer) = std::io::pipe().unwrap();
        drop(writer);
        let pipe = std::os::fd::AsRawFd::as_raw_fd(&reader);
        let path = format!("/dev/fd/{pipe}");
        if Path::new(&path).exists() {
            assert!(!Texts::open(Path::new(&path), None, None).unwrap().reading().is_bounded());
        }
    }

    /// One row of thousands that was null ended `embed`.
    #[test]
    fn r32_a_bad_row_keeps_its_place() {
        let found = |name: &str, bytes: &[u8]| {
            let dir = tempfile::tempdir().unwrap();
            let path = dir.path().join(name);
            std::fs::write(&path, bytes).unwrap();
            let texts = Texts::open(&path, None, None).unwrap();
            texts.map(Result::unwrap).map(|text| (text.line, text.text, text.problem.is_some())).collect::<Vec<_>>()
        };
        let expected = [(1, "a", false), (2, "", true), (3, "b", false)].map(|(n, s, bad)| (n, s.to_owned(), bad));
        assert_eq!(found("x.jsonl", b"{\"text\": \"a\"}\n{\"text\": null}\n{\"text\": \"b\"}\n"), expected);
        assert_eq!(found("x.txt", b"a\n\xff\nb\n"), expected);
        let json = b"[{\"text\": \"a\"},\n{},\n{\"text\": \"b\"}]";
        assert_eq!(found("x.json", json), expected);
    }
}
