//! Rows of a table, of which some columns are asked for.
//!
//! | ending | a row is | columns |
//! | --- | --- | --- |
//! | `.tsv`, `.txt` | a line cut at its tabs, without any quoting, as in GLUE's files | the first line's names, or numbers |
//! | `.csv` | a record of RFC 4180: quoted cells may hold commas and lines | the first line's names, or numbers |
//! | `.jsonl`, `.ndjson`, `.json` | an object a line; strings, numbers and booleans, lists where they are asked for | keys |
//! | `.parquet`, `.pq` | a row; strings, integers, floats and booleans | names, or numbers |
//!
//! Names and numbers are not mixed in TSV and CSV: with names the first line is a header, with numbers it is a row.

mod delimited;
mod json;
mod parquet;

use std::borrow::Cow;
use std::fmt;
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};

use super::file::{plain_name, read_text};
use super::{listed, suggestion};
use crate::TaskError;
pub(super) use json::{kind, objects};

/// Which column of a table: `sentence`, or `#4` for the fourth.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Column {
    /// By its name in the header, or by its key.
    Name(Cow<'static, str>),
    /// By its number from 1.
    Number(NonZeroUsize),
}

impl Column {
    /// A column by name.
    pub const fn name(name: &'static str) -> Column {
        Column::Name(Cow::Borrowed(name))
    }

    /// A column by number, from 1 (0 is taken for 1).
    pub const fn number(number: usize) -> Column {
        match NonZeroUsize::new(number) {
            Some(number) => Column::Number(number),
            None => Column::Number(NonZeroUsize::MIN),
        }
    }

    /// What a person writes: `#` and digits is a number, anything else a name (`#1 String` is one, of MRPC).
    ///
    /// # Errors
    /// [`TaskError::Setting`] for `#0`, a number too large, and the empty text.
    pub fn parse(text: &str) -> Result<Column, TaskError> {
        let wrong = |problem: String| TaskError::Setting { name: "column", problem };
        if text.is_empty() {
            return Err(wrong("expected a name or a number as #4, found nothing".into()));
        }
        match text.strip_prefix('#').filter(|rest| !rest.is_empty() && rest.bytes().all(|b| b.is_ascii_digit())) {
            Some(digits) => match digits.parse() {
                Ok(number) => Ok(Column::Number(number)),
                Err(e) => Err(wrong(format!("{text}: {e}; columns are numbered from 1"))),
            },
            None => Ok(Column::Name(Cow::Owned(text.to_owned()))),
        }
    }
}

impl fmt::Display for Column {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Column::Name(name) => write!(f, "\"{name}\""),
            Column::Number(number) => write!(f, "#{number}"),
        }
    }
}

/// What to do with a line of a TSV or CSV file that has not as many cells as its header, or too few for the columns
/// asked for. Some of GLUE's own files have such lines (QQP).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum RaggedRows {
    /// It is an error.
    #[default]
    Error,
    /// It is left out; [`Table::skipped`] tells its line.
    Skip,
}

/// One row of a [`Table`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Row {
    /// The line where it begins, from 1; in a Parquet file the number of the row.
    pub line: usize,
    /// Its cells of the required columns, in the order in which they were asked for.
    pub cells: Vec<String>,
    /// Its cells of the optional columns; none where the file lacks the column or the cell is null.
    pub optional: Vec<Option<String>>,
}

/// The rows of a file, by the columns asked for; at least one row.
#[derive(Clone, Debug)]
pub struct Table {
    path: PathBuf,
    rows: Vec<Row>,
    skipped: Vec<usize>,
}

impl Table {
    /// Reads a file's rows by columns that it must have.
    ///
    /// # Errors
    /// [`TaskError::Io`] when it cannot be read. [`TaskError::File`] when its ending tells no format, a column is
    /// missing or it holds no rows. [`TaskError::Line`] for a row of too few or too many cells, a cell that is null or
    /// no scalar, broken JSON, an unclosed quote and bytes that are not UTF-8.
    ///
    /// ```
    /// use cloze_tasks::datasets::table::{Column, Table};
    /// let dir = tempfile::tempdir()?;
    /// let path = dir.path().join("train.tsv");
    /// std::fs::write(&path, "sentence\tlabel\nIt said \"yes.\t1\n")?;
    /// let table = Table::open(&path, &[Column::name("label"), Column::name("sentence")])?;
    /// assert_eq!(table.rows()[0].cells, ["1", "It said \"yes."]);
    /// assert_eq!(table.rows()[0].line, 2);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn open(path: &Path, columns: &[Column]) -> Result<Table, TaskError> {
        Table::open_with(path, columns, &[], RaggedRows::Error)
    }

    /// Reads a file's rows by columns that it must have and columns that it may have.
    ///
    /// # Errors
    /// Those of [`open`](Self::open); a ragged row is none if they are to be skipped.
    pub fn open_with(
        path: &Path,
        required: &[Column],
        optional: &[Column],
        ragged: RaggedRows,
    ) -> Result<Table, TaskError> {
        Table::open_with_lists(path, required, optional, &[], ragged)
    }

    /// As [`open_with`](Self::open_with); of a file of JSON objects the columns `lists` may hold lists, which are given as JSON.
    ///
    /// # Errors
    /// Those of [`open`](Self::open).
    pub fn open_with_lists(
        path: &Path,
        required: &[Column],
        optional: &[Column],
        lists: &[Column],
        ragged: RaggedRows,
    ) -> Result<Table, TaskError> {
        TableFile::open(path)?.table(required, optional, lists, ragged)
    }

    /// The names of a file's columns: of the header, the first object's keys, the schema.
    ///
    /// # Errors
    /// [`TaskError::Io`] when it cannot be read, [`TaskError::File`] when its ending tells no format or it is empty.
    pub fn names(path: &Path) -> Result<Vec<String>, TaskError> {
        TableFile::open(path)?.names()
    }

    /// The file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Its rows, in order.
    pub fn rows(&self) -> &[Row] {
        &self.rows
    }

    /// The rows, in order, to keep.
    pub fn into_rows(self) -> Vec<Row> {
        self.rows
    }

    /// The lines of the rows that were left out under [`RaggedRows::Skip`].
    pub fn skipped(&self) -> &[usize] {
        &self.skipped
    }
}

/// A file that was read, before it is known which columns are wanted.
pub(super) struct TableFile {
    path: PathBuf,
    content: Content,
}

enum Content {
    Delimited(delimited::Kind, String),
    Json(String),
    Parquet(cloze_data::corpus::ParquetColumns),
}

impl TableFile {
    pub fn open(path: &Path) -> Result<TableFile, TaskError> {
        let name = plain_name(path);
        let content = match name.rsplit_once('.').map(|(_, ending)| ending) {
            Some("tsv" | "txt") => Content::Delimited(delimited::Kind::Tsv, read_text(path)?),
            Some("csv") => Content::Delimited(delimited::Kind::Csv, read_text(path)?),
            Some("jsonl" | "ndjson" | "json") => Content::Json(read_text(path)?),
            Some("parquet" | "pq") => Content::Parquet(parquet::open(path)?),
            _ => {
                let problem = "a table of an unknown kind; expected a name ending in .tsv, .txt, .csv, .jsonl or .parquet (.gz or .zst may follow)";
                return Err(TaskError::file(path, problem));
            }
        };
        Ok(TableFile { path: path.to_owned(), content })
    }

    /// The names of its columns: of the header, the first object's keys, the schema.
    pub fn names(&self) -> Result<Vec<String>, TaskError> {
        match &self.content {
            Content::Delimited(kind, text) => delimited::header(&self.path, *kind, text),
            Content::Json(text) => json::first_keys(&self.path, text),
            Content::Parquet(file) => Ok(file.names()),
        }
    }

    /// Its text, if it is one object a line.
    pub fn json_text(&self) -> Option<&str> {
        match &self.content {
            Content::Json(text) => Some(text),
            _ => None,
        }
    }

    pub fn table(
        &self,
        required: &[Column],
        optional: &[Column],
        lists: &[Column],
        ragged: RaggedRows,
    ) -> Result<Table, TaskError> {
        let mut skipped = Vec::new();
        let path = &self.path;
        let wanted = Wanted { path, required, optional, lists };
        let rows = match &self.content {
            Content::Delimited(kind, text) => delimited::rows(&wanted, *kind, text, ragged, &mut skipped)?,
            Content::Json(text) => json::rows(&wanted, text)?,
            Content::Parquet(file) => parquet::rows(&wanted, file)?,
        };
        if rows.is_empty() {
            let problem = match skipped.len() {
                0 => "holds no rows; expected at least one".to_owned(),
                n => format!("holds no row of the right number of cells ({n} of another); expected at least one"),
            };
            return Err(TaskError::file(path, problem));
        }
        Ok(Table { path: path.clone(), rows, skipped })
    }
}

/// The columns asked for, and of which file.
struct Wanted<'a> {
    path: &'a Path,
    required: &'a [Column],
    optional: &'a [Column],
    /// Those of them whose cells may be lists.
    lists: &'a [Column],
}

impl Wanted<'_> {
    /// Where each column is among names; for the optional ones, if it is.
    fn find(&self, names: &[String]) -> Result<(Vec<usize>, Vec<Option<usize>>), TaskError> {
        let required: Result<_, _> = self.required.iter().map(|column| self.find_one(column, names)).collect();
        let optional = self.optional.iter().map(|column| match self.position(column, names) {
            None => Ok(None),
            Some(_) => self.find_one(column, names).map(Some),
        });
        Ok((required?, optional.collect::<Result<_, _>>()?))
    }

    fn position(&self, column: &Column, names: &[String]) -> Option<usize> {
        match column {
            Column::Name(name) => names.iter().position(|other| other == name),
            Column::Number(number) => Some(number.get() - 1).filter(|&index| index < names.len()),
        }
    }

    fn find_one(&self, column: &Column, names: &[String]) -> Result<usize, TaskError> {
        let Some(index) = self.position(column, names) else {
            return Err(self.missing(column, names));
        };
        if let Column::Name(name) = column
            && names.iter().filter(|other| *other == name).count() > 1
        {
            return Err(TaskError::file(self.path, format!("has more than one column {column}; rename all but one")));
        }
        Ok(index)
    }

    /// That a column is not there, and what is.
    fn missing(&self, column: &Column, names: &[String]) -> TaskError {
        let known = || names.iter().map(String::as_str);
        let near = match column {
            Column::Name(name) => suggestion(name, known()),
            Column::Number(_) => String::new(),
        };
        TaskError::file(self.path, format!("no column {column}{near}; it has {}", listed(known())))
    }
}

#[cfg(test)]
mod tests;
