//! Rows of a table, of which some columns are asked for.
//!
//! How a file is written decides [`format`](super::format).
//!
//! | format | a row is | columns |
//! | --- | --- | --- |
//! | `tsv` | a line cut at its tabs, without any quoting, as in GLUE's files; with quoting where it is recognised | the first line's names, or numbers |
//! | `csv` | a record of RFC 4180: quoted cells may hold commas and lines | the first line's names, or numbers |
//! | `jsonl`, `json` | an object a line, or of a list; strings, numbers and booleans, lists where they are asked for | keys |
//! | `parquet` | a row; strings, integers, floats and booleans, lists of them where they are asked for | names, or numbers |
//!
//! Names and numbers are not mixed in TSV and CSV: with names the first line is a header, with numbers it is a row.

mod columns;
mod delimited;
mod json;
mod parquet;

use std::path::{Path, PathBuf};

use super::file::read_text;
use super::format::{DataFile, Format};
use crate::TaskError;
use crate::task::FileRows;
use columns::ColumnSelection;
pub use columns::{Column, RaggedRows, Row};
use json::Objects;
pub(crate) use json::kind;
pub(super) use json::objects;

/// The rows of a file, by the columns asked for; at least one row.
#[derive(Debug)]
pub struct Table {
    path: PathBuf,
    rows: FileRows<Row>,
    skipped: Vec<usize>,
    /// The names that the file gives the numbers of some columns.
    class_names: Vec<(Column, Vec<String>)>,
    remarks: Vec<String>,
}

impl Table {
    /// Reads a file's rows by columns that it must have. A row of too few or too many cells, a cell that is null or no scalar, broken
    /// JSON and an unclosed quote are a [`TaskError::Line`] in the row's place.
    ///
    /// # Errors
    /// [`TaskError::Io`] when it cannot be read. [`TaskError::File`] when its ending tells no format, a column is
    /// missing or it holds no rows. [`TaskError::Line`] for bytes that are not UTF-8.
    ///
    /// ```
    /// use cloze_tasks::datasets::table::{Column, Table};
    /// let dir = tempfile::tempdir()?;
    /// let path = dir.path().join("train.tsv");
    /// std::fs::write(&path, "sentence\tlabel\nIt said \"yes.\t1\n")?;
    /// let table = Table::open(&path, &[Column::name("label"), Column::name("sentence")])?;
    /// let first = table.into_rows().remove(0)?;
    /// assert_eq!((first.line, first.cells), (2, vec!["1".to_owned(), "It said \"yes.".to_owned()]));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn open<'a>(file: impl Into<DataFile<'a>>, columns: &[Column]) -> Result<Table, TaskError> {
        Table::open_with(file, columns, &[], RaggedRows::Error)
    }

    /// Reads a file's rows by columns that it must have and columns that it may have.
    ///
    /// # Errors
    /// Those of [`open`](Self::open); a ragged row is none if they are to be skipped.
    pub fn open_with<'a>(
        file: impl Into<DataFile<'a>>,
        required: &[Column],
        optional: &[Column],
        ragged: RaggedRows,
    ) -> Result<Table, TaskError> {
        Table::open_with_lists(file, required, optional, &[], ragged)
    }

    /// As [`open_with`](Self::open_with); in files of JSON objects and of Parquet the columns `lists` may hold lists, which are given as JSON.
    ///
    /// # Errors
    /// Those of [`open`](Self::open).
    pub fn open_with_lists<'a>(
        file: impl Into<DataFile<'a>>,
        required: &[Column],
        optional: &[Column],
        lists: &[Column],
        ragged: RaggedRows,
    ) -> Result<Table, TaskError> {
        TableFile::open(file)?.table(required, optional, lists, ragged)
    }

    /// The names of a file's columns: of the header, the first object's keys, the schema.
    ///
    /// # Errors
    /// [`TaskError::Io`] when it cannot be read, [`TaskError::File`] when its ending tells no format or it is empty.
    pub fn names<'a>(file: impl Into<DataFile<'a>>) -> Result<Vec<String>, TaskError> {
        TableFile::open(file)?.names()
    }

    /// The file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Its rows, in order.
    pub fn into_rows(self) -> FileRows<Row> {
        self.rows
    }

    /// The names that the file itself gives the numbers of a column that was asked for (Hugging Face's `ClassLabel` in Parquet); none
    /// where it gives none.
    pub fn class_names(&self, column: &Column) -> &[String] {
        self.class_names.iter().find(|(known, _)| known == column).map_or(&[], |(_, names)| names)
    }

    /// The lines of the rows that were left out under [`RaggedRows::Skip`].
    pub fn skipped(&self) -> &[usize] {
        &self.skipped
    }

    /// What a person should know of how it was read.
    pub fn remarks(&self) -> &[String] {
        &self.remarks
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
    pub fn open<'a>(file: impl Into<DataFile<'a>>) -> Result<TableFile, TaskError> {
        let file = file.into();
        let path = file.path;
        let content = match file.table_format()? {
            Format::Parquet => Content::Parquet(parquet::open(path)?),
            Format::Csv => Content::Delimited(delimited::Kind::Csv, read_text(path)?),
            Format::Tsv => {
                let text = read_text(path)?;
                Content::Delimited(delimited::Kind::of_tsv(&text), text)
            }
            _ => Content::Json(read_text(path)?),
        };
        Ok(TableFile { path: path.to_owned(), content })
    }

    /// The names of its columns: of the header, the first object's keys, the schema.
    pub fn names(&self) -> Result<Vec<String>, TaskError> {
        match &self.content {
            Content::Delimited(kind, text) => delimited::header(&self.path, *kind, text),
            Content::Json(text) => json::first_keys(&self.path, text),
            Content::Parquet(file) => Ok(parquet::names(file)),
        }
    }

    /// Whether it is one object a line.
    pub fn is_json(&self) -> bool {
        matches!(self.content, Content::Json(_))
    }

    /// The rows as objects: all of an object of JSON; of Parquet the columns with these names. Lists are lists.
    pub fn objects(&self, keys: &[&str]) -> Result<Objects, TaskError> {
        match &self.content {
            Content::Json(text) => Ok(objects(&self.path, text).collect()),
            Content::Parquet(file) => parquet::objects(&self.path, file, keys),
            Content::Delimited(..) => {
                Err(TaskError::file(&self.path, "a table without lists; expected JSON or Parquet"))
            }
        }
    }

    /// The names that the file itself gives the numbers of a column: Hugging Face's of a Parquet file.
    pub fn class_names(&self, column: &str) -> Option<Vec<String>> {
        match &self.content {
            Content::Parquet(file) => parquet::class_names(file, column),
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
        let (mut skipped, mut remarks) = (Vec::new(), Vec::new());
        let path = &self.path;
        let wanted = ColumnSelection { path, required, optional, lists };
        let rows = match &self.content {
            Content::Delimited(kind, text) => {
                delimited::rows(&wanted, *kind, text, ragged, &mut skipped, &mut remarks)?
            }
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
        let class_names = |column: &Column| match column {
            Column::Name(name) => Some((column.clone(), self.class_names(name)?)),
            Column::Number(number) => {
                Some((column.clone(), self.class_names(self.names().ok()?.get(number.get() - 1)?)?))
            }
        };
        let class_names = required.iter().chain(optional).filter_map(class_names).collect();
        Ok(Table { path: path.clone(), rows, skipped, class_names, remarks })
    }
}

#[cfg(test)]
mod tests;
