//! Rows of texts for training embeddings, and their files.
//!
//! A row has an anchor, positives, negatives and scores. Without names of columns, their order decides, as in
//! sentence-transformers: the first text is the anchor, the second the positive, and all others are negatives. A column
//! with the name `label`, `labels`, `score` or `scores` has the score of a pair, a teacher's scores or a teacher's vector.
//! In JSON and Parquet, a cell may be a list: of positives, of negatives, of scores. A file with only one text in each row
//! is for unsupervised training: each text is its own positive.

use std::path::{Path, PathBuf};

use serde_json::Value;

use crate::TaskError;
use crate::datasets::format::{DataFile, Format};
use crate::datasets::quoted_list;
use crate::datasets::table::{Column, RaggedRows, TableFile};
use crate::embed::texts::Texts;
use crate::task::FileRows;

/// Names of columns of scores.
const SCORES: [&str; 4] = ["label", "score", "labels", "scores"];

/// The columns of a file.
#[derive(Debug, Clone, Default, PartialEq)]
#[non_exhaustive]
pub struct Columns {
    /// The anchor's; none: the first that is not of scores.
    pub anchor: Option<Column>,
    /// The positives'; empty: the second.
    pub positives: Vec<Column>,
    /// The negatives'; empty: all others, unless the positives' are given.
    pub negatives: Vec<Column>,
    /// That of the scores; none: the first with a known name.
    pub scores: Option<Column>,
}

/// A row of training or dev data.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct TextRow {
    /// The text that others are compared with, such as a query.
    pub anchor: String,
    /// Texts that belong to it.
    pub positives: Vec<String>,
    /// Texts that do not.
    pub negatives: Vec<String>,
    /// The score of a pair, a teacher's scores of the positives and negatives, or a teacher's vector.
    pub scores: Vec<f32>,
    /// The file, for messages.
    pub path: PathBuf,
    /// The line or row in the file, from 1.
    pub line: usize,
}

/// Reads the rows of a file. A row that cannot be used is an error in its position.
///
/// # Errors
/// A file that cannot be read, or without the given columns.
pub fn read(path: &Path, columns: &Columns, format: Option<Format>) -> Result<FileRows<TextRow>, TaskError> {
    let file = DataFile { path, format };
    let is_given = columns.anchor.is_some() || !columns.positives.is_empty();
    if file.texts_format(&Column::name("text"), is_given)?.format == Format::Lines {
        return texts(path, format);
    }
    let file = TableFile::open(file)?;
    let names = file.names()?;
    let chosen = Chosen::new(path, columns, &names)?;
    let cells = chosen.cells(&file, &names)?;
    Ok(cells.into_iter().map(|row| row.and_then(|(line, cells)| chosen.row(path, line, cells))).collect())
}

/// The lines of a plain file: each is its own positive.
fn texts(path: &Path, format: Option<Format>) -> Result<FileRows<TextRow>, TaskError> {
    let lines = Texts::open(path, None, format)?
        .filter(|text| text.as_ref().map_or(true, |text| text.problem.is_some() || !text.text.trim().is_empty()));
    Ok(lines
        .map(|text| {
            let text = text?;
            match text.problem {
                Some(problem) => Err(TaskError::line(path, text.line, problem)),
                None => Ok(unsupervised(path, text.line, text.text)),
            }
        })
        .collect())
}

fn unsupervised(path: &Path, line: usize, text: String) -> TextRow {
    let (positives, negatives, scores) = (vec![text.clone()], Vec::new(), Vec::new());
    TextRow { anchor: text, positives, negatives, scores, path: path.to_owned(), line }
}

/// The chosen columns of a file.
struct Chosen {
    anchor: Column,
    positives: Vec<Column>,
    negatives: Vec<Column>,
    scores: Option<Column>,
}

/// A cell: a text, or the items of a list.
type Cells = Vec<Value>;

impl Chosen {
    fn new(path: &Path, columns: &Columns, names: &[String]) -> Result<Chosen, TaskError> {
        let by_name = |name: &String| Column::Name(name.clone().into());
        let known = names.iter().find(|name| SCORES.contains(&name.to_lowercase().as_str())).map(by_name);
        let by_number =
            [&columns.anchor].into_iter().flatten().chain(&columns.positives).any(|c| matches!(c, Column::Number(_)));
        // A number means that the first line is a row.
        let scores = columns.scores.clone().or(known.filter(|_| !by_number));
        let taken: Vec<&Column> = [&columns.anchor, &scores]
            .into_iter()
            .flatten()
            .chain(&columns.positives)
            .chain(&columns.negatives)
            .collect();
        let mut rest = names.iter().map(by_name).filter(|column| !taken.contains(&column));
        let none = || {
            let names = quoted_list(names.iter().map(String::as_str));
            TaskError::file(path, format!("expected a column of texts; the columns are {names}"))
        };
        let anchor = match columns.anchor.clone() {
            Some(anchor) => anchor,
            None if columns.positives.is_empty() => rest.next().ok_or_else(none)?,
            None => {
                let problem = "expected the anchor's column as well as the positives'";
                return Err(TaskError::setting("anchor", problem));
            }
        };
        let is_by_order = columns.anchor.is_none();
        let positives = match &columns.positives[..] {
            [] if is_by_order => rest.next().into_iter().collect(),
            given => given.to_vec(),
        };
        let negatives = match &columns.negatives[..] {
            [] if is_by_order => rest.collect(),
            given => given.to_vec(),
        };
        Ok(Chosen { anchor, positives, negatives, scores })
    }

    fn all(&self) -> Vec<Column> {
        let texts = std::iter::once(&self.anchor).chain(&self.positives).chain(&self.negatives);
        texts.chain(&self.scores).cloned().collect()
    }

    /// The cells of each row, in the order of [`all`](Self::all).
    fn cells(&self, file: &TableFile, names: &[String]) -> Result<FileRows<(usize, Vec<Cells>)>, TaskError> {
        let all = self.all();
        if !file.has_lists() {
            let table = file.table(&all, &[], &[], RaggedRows::Error)?;
            let cells = |row: crate::datasets::table::Row| {
                (row.line, row.cells.into_iter().map(|cell| vec![Value::String(cell)]).collect())
            };
            return Ok(table.into_rows().into_iter().map(|row| row.map(cells)).collect());
        }
        let mut keys = Vec::new();
        for column in &all {
            keys.push(match column {
                Column::Name(name) => name.to_string(),
                Column::Number(number) => {
                    let missing = || {
                        TaskError::setting("anchor", format!("column #{number}: the file has {} columns", names.len()))
                    };
                    names.get(number.get() - 1).ok_or_else(missing)?.clone()
                }
            });
        }
        let keys: Vec<&str> = keys.iter().map(String::as_str).collect();
        file.require(&keys)?;
        let rows = file.objects(&keys)?.into_iter().map(|row| {
            let (line, mut object) = row?;
            let cell = |key: &&str| match object.remove(*key) {
                Some(Value::Array(items)) => items,
                Some(Value::Null) | None => Vec::new(),
                Some(one) => vec![one],
            };
            Ok((line, keys.iter().map(cell).collect()))
        });
        Ok(rows.collect())
    }

    fn row(&self, path: &Path, line: usize, cells: Vec<Cells>) -> Result<TextRow, TaskError> {
        let bad = |column: &Column, problem: String| TaskError::line(path, line, format!("column {column}: {problem}"));
        let text = |column: &Column, cell: Value| match cell {
            Value::String(text) if text.trim().is_empty() => {
                Err(bad(column, "expected a text, found an empty cell".to_owned()))
            }
            Value::String(text) => Ok(text),
            other => Err(bad(column, format!("expected a text, found {other}"))),
        };
        let mut cells = cells.into_iter();
        let mut next = || cells.next().unwrap_or_default();
        let mut anchors = next().into_iter().map(|cell| text(&self.anchor, cell));
        let anchor = match (anchors.next(), anchors.next()) {
            (Some(anchor), None) => anchor?,
            (None, _) => return Err(bad(&self.anchor, "expected a text, found an empty cell".to_owned())),
            (Some(_), Some(_)) => {
                return Err(bad(&self.anchor, "expected one text, found a list of several".to_owned()));
            }
        };
        let mut texts_of = |columns: &[Column]| -> Result<Vec<String>, TaskError> {
            let mut all = Vec::new();
            for column in columns {
                for cell in next() {
                    all.push(text(column, cell)?);
                }
            }
            Ok(all)
        };
        let (positives, negatives) = (texts_of(&self.positives)?, texts_of(&self.negatives)?);
        if self.positives.is_empty() && self.negatives.is_empty() && self.scores.is_none() {
            return Ok(unsupervised(path, line, anchor));
        }
        if let [column, ..] = &self.positives[..]
            && positives.is_empty()
        {
            return Err(bad(column, "expected a text, found an empty cell".to_owned()));
        }
        if let Some(both) = negatives.iter().find(|negative| positives.contains(negative)) {
            let problem = format!("the text {both:?} is a positive and a negative; remove one of them");
            return Err(TaskError::line(path, line, problem));
        }
        let mut scores = Vec::new();
        if let Some(column) = &self.scores {
            for cell in next() {
                let number = match &cell {
                    Value::String(text) => text.trim().parse::<f32>().ok(),
                    Value::Bool(is_true) => Some(f32::from(u8::from(*is_true))),
                    other => other.as_f64().map(|number| number as f32),
                };
                match number.filter(|number| number.is_finite()) {
                    Some(number) => scores.push(number),
                    None => return Err(bad(column, format!("expected a finite number, found {cell}"))),
                }
            }
            if scores.is_empty() {
                return Err(bad(column, "expected a number, found an empty cell".to_owned()));
            }
        }
        Ok(TextRow { anchor, positives, negatives, scores, path: path.to_owned(), line })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rows(name: &str, text: &str, columns: &Columns) -> Result<FileRows<TextRow>, String> {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join(name);
        std::fs::write(&path, text).unwrap();
        read(&path, columns, None).map_err(|e| e.to_string())
    }

    fn one(name: &str, text: &str, columns: &Columns) -> (String, Vec<String>, Vec<String>, Vec<f32>) {
        let TextRow { anchor, positives, negatives, scores, .. } =
            rows(name, text, columns).unwrap().remove(0).unwrap();
        (anchor, positives, negatives, scores)
    }

    fn expected(
        anchor: &str,
        positives: &[&str],
        negatives: &[&str],
        scores: &[f32],
    ) -> (String, Vec<String>, Vec<String>, Vec<f32>) {
        let owned = |texts: &[&str]| texts.iter().map(|text| (*text).to_owned()).collect();
        (anchor.to_owned(), owned(positives), owned(negatives), scores.to_vec())
    }

    #[test]
    fn the_order_of_columns_decides_without_names() {
        let plain = Columns::default();
        assert_eq!(one("a.tsv", "q\tp\nx\ty\n", &plain), expected("x", &["y"], &[], &[]));
        assert_eq!(one("a.csv", "score,q,p\n0.5,x,y\n", &plain), expected("x", &["y"], &[], &[0.5]));
        let triplet = "{\"anchor\": \"x\", \"positive\": \"y\", \"negative\": \"z\", \"n2\": \"w\"}\n";
        assert_eq!(one("a.jsonl", triplet, &plain), expected("x", &["y"], &["z", "w"], &[]));
        let lists = "{\"q\": \"x\", \"p\": [\"y\", \"y2\"], \"n\": [\"z\", \"w\"], \"labels\": [1, 2, 3.5, 4]}\n";
        assert_eq!(one("a.jsonl", lists, &plain), expected("x", &["y", "y2"], &["z", "w"], &[1.0, 2.0, 3.5, 4.0]));
        assert_eq!(one("a.jsonl", "{\"text\": \"[1]\"}\n", &plain), expected("[1]", &["[1]"], &[], &[]));
        assert_eq!(one("a.txt", "\nx y\n", &plain), expected("x y", &["x y"], &[], &[]));
    }

    #[test]
    fn columns_can_be_named_or_numbered() {
        let mut columns =
            Columns { anchor: Some(Column::name("b")), positives: vec![Column::name("c")], ..Columns::default() };
        assert_eq!(one("a.tsv", "a\tb\tc\tlabel\n1\tx\ty\t3\n", &columns), expected("x", &["y"], &[], &[3.0]));
        columns.scores = Some(Column::name("a"));
        assert_eq!(one("a.tsv", "a\tb\tc\tlabel\n1\tx\ty\t3\n", &columns), expected("x", &["y"], &[], &[1.0]));
        let numbered =
            Columns { anchor: Some(Column::number(2)), positives: vec![Column::number(1)], ..Columns::default() };
        assert_eq!(one("a.tsv", "x\ty\n", &numbered), expected("y", &["x"], &[], &[]));
        assert!(rows("a.tsv", "a\tb\n1\t2\n", &columns).unwrap_err().contains("no column \"c\""));
        let json = rows("a.jsonl", "{\"b\": \"x\"}\n", &columns).unwrap_err();
        assert!(json.contains("no column \"c\"") && json.contains("\"b\""), "{json}");
    }

    #[test]
    fn rows_that_cannot_be_used_say_why() {
        let problem =
            |name: &str, text: &str| rows(name, text, &Columns::default()).unwrap().remove(0).unwrap_err().to_string();
        assert!(
            problem("a.tsv", "q\tp\n \ty\n").contains("a.tsv:2: column \"q\": expected a text, found an empty cell")
        );
        assert!(problem("a.jsonl", "{\"q\": \"x\", \"p\": []}\n").contains("column \"p\": expected a text"));
        assert!(
            problem("a.jsonl", "{\"q\": [\"x\", \"y\"], \"p\": \"z\"}\n").contains("expected one text, found a list")
        );
        assert!(problem("a.jsonl", "{\"q\": \"x\", \"p\": 7}\n").contains("expected a text, found 7"));
        assert!(problem("a.tsv", "q\tp\tscore\nx\ty\tnan\n").contains("column \"score\": expected a finite number"));
        assert!(problem("a.tsv", "q\tp\tn\nx\ty\ty\n").contains("\"y\" is a positive and a negative"));
    }
}
