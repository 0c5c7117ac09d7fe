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
    ended: bool,
    found: bool,
}

enum Source {
    Lines(Lines),
    /// Objects, and the key that is wanted.
    Json(Lines, String),
    Table(PathBuf, std::vec::IntoIter<Row>),
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
        Ok(Texts { source, ended: false, found: false })
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
