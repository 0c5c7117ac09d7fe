//! Texts of a file, one after another.
//!
//! | ending | a text is |
//! | --- | --- |
//! | `.jsonl`, `.ndjson`, `.json` | a column, `text` unless another is named, of one object a line; blank lines are passed over |
//! | `.tsv`, `.csv`, `.parquet` | a column, `text` unless another is named, of a row; read whole ([`crate::datasets::table`]) |
//! | any other, and standard input | a line, blank ones too, so that text and line numbers agree; of standard input, with a column named, as `.jsonl` |
//!
//! Each but Parquet may be plain, `.gz` or `.zst`.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use serde_json::Value;

use crate::TaskError;
use crate::datasets::plain_name;
use crate::datasets::table::{Column, Row, Table};
use crate::lines::Lines;

/// The column unless another is named.
const COLUMN: &str = "text";

/// A text and where it stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Text {
    /// The line, from 1.
    pub line: usize,
    /// What it says.
    pub text: String,
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
    Table(PathBuf, std::vec::IntoIter<Result<Row, TaskError>>),
}

impl Texts {
    /// Opens a file, or standard input for `-`.
    ///
    /// # Errors
    /// [`TaskError::Io`]; [`TaskError::Setting`] for a column of plain text; of a table, those of [`Table::open`].
    pub fn open(path: &Path, column: Option<&str>) -> Result<Texts, TaskError> {
        let name = plain_name(path);
        let ends = |endings: &[&str]| endings.iter().any(|ending| name.ends_with(ending));
        let is_stdin = path == Path::new("-");
        let source = if ends(&[".tsv", ".csv", ".parquet", ".pq"]) {
            let table = Table::open(path, &[Column::parse(column.unwrap_or(COLUMN))?])?;
            Source::Table(path.to_owned(), table.into_rows().into_iter())
        } else if ends(&[".jsonl", ".ndjson", ".json"]) {
            Source::Json(Lines::open(path)?, column.unwrap_or(COLUMN).to_owned())
        } else {
            match column {
                Some(column) if is_stdin => Source::Json(Lines::open(path)?, column.to_owned()),
                Some(_) => {
                    let problem = format!("{} is read as plain lines, which have no columns", path.display());
                    return Err(TaskError::setting("--column", problem));
                }
                None => Source::Lines(Lines::open(path)?),
            }
        };
        let total = match &source {
            Source::Lines(lines) | Source::Json(lines, _) => lines.bytes_total(),
            Source::Table(_, rows) => Some(rows.len() as u64),
        };
        let reading = Reading { total, read: Arc::default(), texts: Arc::default() };
        Ok(Texts { source, reading, ended: false, found: false })
    }

    /// How far they have been read.
    pub fn reading(&self) -> Reading {
        self.reading.clone()
    }

    fn next_text(&mut self) -> Result<Option<Text>, TaskError> {
        let path = match &mut self.source {
            Source::Lines(lines) => {
                if lines.advance()? {
                    return Ok(Some(Text { line: lines.number(), text: lines.text().to_owned() }));
                }
                lines.path()
            }
            Source::Json(lines, column) => {
                while lines.advance()? {
                    if !lines.text().trim().is_empty() {
                        let text = cell(lines.text(), column).map_err(|problem| lines.problem(problem))?;
                        return Ok(Some(Text { line: lines.number(), text }));
                    }
                }
                lines.path()
            }
            Source::Table(path, rows) => {
                if let Some(row) = rows.next() {
                    let row = row?;
                    let text = row.cells.into_iter().next().unwrap_or_default();
                    return Ok(Some(Text { line: row.line, text }));
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

/// A string of a line's JSON object.
fn cell(line: &str, column: &str) -> Result<String, String> {
    let object: Value = serde_json::from_str(line).map_err(|e| format!("not JSON: {e}"))?;
    let Value::Object(mut object) = object else { return Err("expected a JSON object on each line".into()) };
    match object.remove(column) {
        Some(Value::String(text)) => Ok(text),
        Some(other) => Err(format!("expected a string in \"{column}\", found {other}")),
        None => {
            let keys: Vec<&str> = object.keys().map(String::as_str).collect();
            Err(format!("no \"{column}\" in it, only {}; name a column with --column", keys.join(", ")))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(name: &str, bytes: &[u8], column: Option<&str>) -> Result<Vec<(usize, String)>, String> {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join(name);
        std::fs::write(&path, bytes).unwrap();
        let texts = Texts::open(&path, column).map_err(|e| e.to_string())?;
        texts.map(|text| text.map(|text| (text.line, text.text)).map_err(|e| e.to_string())).collect()
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
        assert!(fails("a.txt", b"x", Some("text")).contains("--column"));
        assert!(fails("a.csv", b"x,y\n1,2\n", None).contains("a.csv: no column \"text\"; it has "));
        assert!(fails("a.csv", b"text\n", None).contains("holds no rows"));
        let missing = fails("a.jsonl", b"{\"a\": \"x\", \"text\": \"y\"}\n{\"a\": 1, \"b\": 2}", None);
        assert!(missing.contains("a.jsonl:2: no \"text\" in it, only a, b"), "{missing}");
        assert!(fails("a.jsonl", b"{\"text\": 7}", None).contains("expected a string in \"text\", found 7"));
        assert!(fails("a.jsonl", b"[1]", None).contains("expected a JSON object"));
        assert!(fails("a.jsonl", b"{", None).contains("a.jsonl:1: not JSON"));
        assert!(Texts::open(Path::new("absent.txt"), None).err().unwrap().to_string().contains("absent.txt"));
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
            let mut texts = Texts::open(&path, None).unwrap();
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
        let mut texts = Texts::open(&path, None).unwrap();
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
            assert!(!Texts::open(Path::new(&path), None).unwrap().reading().is_bounded());
        }
    }

    #[test]
    fn nothing_follows_an_error() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("x.jsonl");
        std::fs::write(&path, "{}\n{\"text\": \"good\"}\n").unwrap();
        let mut texts = Texts::open(&path, None).unwrap();
        assert!(texts.next().unwrap().is_err());
        assert!(texts.next().is_none());
    }
}
