//! Streaming the texts of a file.
//!
//! The module [`crate::datasets::format`] determines the format of a file.
//!
//! | format | a text is |
//! | --- | --- |
//! | `jsonl` | a column (default `text`) of one object per line; blank lines are skipped |
//! | `tsv`, `csv`, `json`, `parquet` | a column (default `text`) of a row; the file is read completely ([`crate::datasets::table`]) |
//! | `lines` | a line; blank lines too, so that the numbers of texts and lines agree |
//!
//! A row whose text cannot be read becomes a blank text with a [`problem`](Text::problem), so that the numbers of rows
//! and vectors agree.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use serde_json::Value;

use crate::TaskError;
use crate::datasets::format::{DataFile, Format, display_name};
use crate::datasets::quoted_list;
use crate::datasets::table::{Column, Row, Table};
use crate::input::{Object, object_of_line, string_of};
use crate::lines::Lines;

/// The default column.
const COLUMN: &str = "text";

/// A text and its position.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Text {
    /// The line or row, from 1.
    pub line: usize,
    /// The text; blank if it cannot be read.
    pub text: String,
    /// The problem, if it cannot be read.
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

/// An iterator over the texts of a file, which are read lazily.
pub struct Texts {
    source: Source,
    progress: Progress,
    note: Option<String>,
    ended: bool,
    found: bool,
}

/// The progress of reading. It is shared with [`Texts`] and remains available when these are moved.
#[derive(Clone, Debug)]
pub struct Progress {
    /// The number of bytes of a file of lines, or of rows of a table; none for standard input and pipes.
    total: Option<u64>,
    read: Arc<AtomicU64>,
    texts: Arc<AtomicU64>,
}

impl Progress {
    /// Whether the total size is known.
    pub fn is_bounded(&self) -> bool {
        self.total.is_some()
    }

    /// The completed fraction of all texts if `done` of the texts read so far are completed; none if the total size is
    /// not known.
    pub fn share(&self, done: usize) -> Option<f64> {
        let ratio = |part: f64, total: f64| (part / total.max(1.0)).min(1.0);
        let read = ratio(self.read.load(Ordering::Relaxed) as f64, self.total? as f64);
        Some(read * ratio(done as f64, self.texts.load(Ordering::Relaxed) as f64))
    }
}

enum Source {
    Lines(Lines),
    /// Lines of JSON objects, and the key of the text.
    Json(Lines, String),
    /// The file, the remaining rows, and the number of rows returned.
    Table(PathBuf, std::vec::IntoIter<Result<Row, TaskError>>, usize),
}

impl Texts {
    /// Opens a file, or standard input for `-`. `column` is the column of the texts, `format` overrides the detection
    /// of the format.
    ///
    /// # Errors
    /// [`TaskError::Io`]; [`TaskError::Setting`] for a column of plain lines; [`TaskError::File`] for a file of tagged
    /// words or of questions; for tables, those of [`Table::open`].
    pub fn open(path: &Path, column: Option<&str>, format: Option<Format>) -> Result<Texts, TaskError> {
        let file = DataFile { path, format };
        let wanted = Column::parse(column.unwrap_or(COLUMN))?;
        let found = file.texts_format(&wanted, column.is_some())?;
        let source = match found.format {
            Format::Lines if column.is_some() => {
                let problem = format!(
                    "{} is read as plain lines, which have no columns; omit `column`, or set `format`",
                    display_name(path)
                );
                return Err(TaskError::setting("column", problem));
            }
            Format::Lines => Source::Lines(Lines::open(path)?),
            Format::Jsonl => Source::Json(Lines::open(path)?, column.unwrap_or(COLUMN).to_owned()),
            Format::Tsv | Format::Csv | Format::Json | Format::Parquet => {
                let table = Table::open(DataFile { path, format: Some(found.format) }, &[wanted])?;
                Source::Table(path.to_owned(), table.into_rows().into_iter(), 0)
            }
            Format::Columns | Format::ConllU | Format::WikiAnn | Format::Squad => {
                let name = found.format.name();
                let problem = format!("its format is {name}, which has no column of texts; set `format`");
                return Err(TaskError::file(path, problem));
            }
        };
        let total = match &source {
            Source::Lines(lines) | Source::Json(lines, _) => lines.bytes_total(),
            Source::Table(_, rows, _) => Some(rows.len() as u64),
        };
        let note = found.note(path);
        let progress = Progress { total, read: Arc::default(), texts: Arc::default() };
        Ok(Texts { source, progress, note, ended: false, found: false })
    }

    /// A note for the user about how the file is read.
    pub fn note(&self) -> Option<&str> {
        self.note.as_deref()
    }

    /// The progress of reading.
    pub fn progress(&self) -> Progress {
        self.progress.clone()
    }

    fn next_text(&mut self) -> Result<Option<Text>, TaskError> {
        let path = match &mut self.source {
            Source::Lines(lines) => {
                match lines.advance() {
                    Ok(true) => return Ok(Some(Text::of(lines.number(), Ok(lines.text().to_owned())))),
                    // The next line can still be read.
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
        if self.found { Ok(None) } else { Err(TaskError::file(path, "expected at least one text, found none")) }
    }
}

/// The iterator ends after the first error. A file without texts is an error.
impl Iterator for Texts {
    type Item = Result<Text, TaskError>;

    fn next(&mut self) -> Option<Result<Text, TaskError>> {
        if self.ended {
            return None;
        }
        let next = self.next_text().transpose();
        self.found = true;
        self.ended = !matches!(next, Some(Ok(_)));
        let texts = self.progress.texts.fetch_add(u64::from(!self.ended), Ordering::Relaxed);
        let read = match &self.source {
            Source::Lines(lines) | Source::Json(lines, _) => lines.bytes_read(),
            Source::Table(..) => texts + u64::from(!self.ended),
        };
        self.progress.read.store(read, Ordering::Relaxed);
        next
    }
}

/// The text of a line with a JSON object.
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
            let keys = quoted_list(object.keys().map(String::as_str));
            format!("no key \"{column}\"; the keys are {keys}; set `column` to one of them")
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
    fn texts_are_lines_or_cells_of_a_column() {
        assert_eq!(read("a.txt", b"\xef\xbb\xbfone\r\n\ntwo", None), pairs(&[(1, "one"), (2, ""), (3, "two")]));
        assert_eq!(read("a", b"\n", None), pairs(&[(1, "")]));
        let json = b"{\"text\": \"a\", \"b\": \"c\"}\n\n{\"b\": \"d\", \"text\": \"e\"}\n";
        assert_eq!(read("a.jsonl", json, None), pairs(&[(1, "a"), (3, "e")]));
        assert_eq!(read("a.tsv", b"id\ttext\n1\ta b\n2\tc\n", None), pairs(&[(2, "a b"), (3, "c")]));
        assert_eq!(read("a.csv", b"1,\"a,\nb\"\n2,c\n", Some("#2")), pairs(&[(1, "a,\nb"), (3, "c")]));
        assert_eq!(read("a.JSON", json, Some("b")), pairs(&[(1, "c"), (3, "d")]));
    }

    #[test]
    fn errors_of_invalid_files_say_where_and_what() {
        let fails = |name: &str, bytes: &[u8], column| read(name, bytes, column).unwrap_err();
        assert!(fails("a.txt", b"", None).contains("a.txt: expected at least one text"));
        assert!(fails("a.jsonl", b"\n\n", None).contains("at least one text"));
        assert!(fails("a.txt", b"good\nb\xe4d", None).contains("a.txt:2: byte 2 of the line (0xe4)"));
        assert!(fails("a.txt", b"x", Some("text")).contains("no column \"text\""));
        assert!(fails("a.conll", b"a O\n", None).contains("its format is columns"));
        assert!(fails("a.csv", b"x,y\n1,2\n", None).contains("a.csv: no column \"text\"; the columns are "));
        assert!(fails("a.csv", b"text\n", None).contains("expected at least one row"));
        let missing = fails("a.jsonl", b"{\"a\": \"x\", \"text\": \"y\"}\n{\"a\": 1, \"b\": 2}", None);
        assert!(missing.contains("a.jsonl:2: no key \"text\"; the keys are \"a\", \"b\""), "{missing}");
        assert_eq!(read("a.jsonl", b"{\"text\": 7}", None), pairs(&[(1, "7")]));
        assert!(fails("a.jsonl", b"{\"text\": null}", None).contains("\"text\": expected a string, found null"));
        assert!(fails("a.jsonl", b"[1]", None).contains("expected a JSON object"));
        assert!(fails("a.jsonl", b"{", None).contains("a.jsonl:1: not JSON"));
        assert!(Texts::open(Path::new("absent.txt"), None, None).err().unwrap().to_string().contains("absent.txt"));
    }

    /// Regression test: embedding showed no remaining time, because the size of its input was not known.
    #[test]
    fn progress_is_a_fraction_of_the_file() {
        let dir = tempfile::tempdir().unwrap();
        let rows: String = (0..1000).map(|n| format!("row {n:03}\n")).collect();
        let table = format!("text\n{rows}");
        let json: String = (0..1000).map(|n| format!("{{\"text\": \"{n:03}\"}}\n")).collect();
        for (name, bytes) in [("a.txt", &rows), ("a.tsv", &table), ("a.jsonl", &json)] {
            let path = dir.path().join(name);
            std::fs::write(&path, bytes).unwrap();
            let mut texts = Texts::open(&path, None, None).unwrap();
            let progress = texts.progress();
            assert!(progress.is_bounded());
            assert_eq!(progress.share(0), Some(0.0));
            assert_eq!(texts.by_ref().take(250).count(), 250);
            let share = |done| (progress.share(done).unwrap() * 1000.0).round();
            // Although the complete file is in memory: some of the texts that were read may not be completed.
            assert_eq!([share(250), share(100), share(0)], [250.0, 100.0, 0.0], "{name}");
            assert_eq!(texts.count(), 750);
            assert_eq!(share(1000), 1000.0, "{name}");
        }
        let path = dir.path().join("a.gz");
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        std::io::Write::write_all(&mut encoder, rows.as_bytes()).unwrap();
        std::fs::write(&path, encoder.finish().unwrap()).unwrap();
        let mut texts = Texts::open(&path, None, None).unwrap();
        let progress = texts.progress();
        assert_eq!(texts.by_ref().count(), 1000);
        assert_eq!(progress.share(1000), Some(1.0), "counts compressed bytes");
    }

    #[cfg(unix)]
    #[test]
    fn the_size_of_a_pipe_is_not_known() {
        let (reader, writer) = std::io::pipe().unwrap();
        drop(writer);
        let pipe = std::os::fd::AsRawFd::as_raw_fd(&reader);
        let path = format!("/dev/fd/{pipe}");
        if Path::new(&path).exists() {
            assert!(!Texts::open(Path::new(&path), None, None).unwrap().progress().is_bounded());
        }
    }

    /// Regression test: one null row among thousands ended `embed`.
    #[test]
    fn r32_an_invalid_row_keeps_its_position() {
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
