//! Rows of a table, of which some columns are asked for.
//!
//! | ending | a row is | columns |
//! | --- | --- | --- |
//! | `.tsv`, `.txt` | a line cut at its tabs, without any quoting, as in GLUE's files | the first line's names, or numbers |
//! | `.csv` | a record of RFC 4180: quoted cells may hold commas and lines | the first line's names, or numbers |
//! | `.jsonl`, `.ndjson`, `.json` | an object a line; strings, numbers and booleans, lists where they are asked for | keys |
//! | `.parquet`, `.pq` | a row; strings, integers, floats and booleans, lists of them where they are asked for | names, or numbers |
//!
//! Names and numbers are not mixed in TSV and CSV: with names the first line is a header, with numbers it is a row.

mod columns;
mod delimited;
mod json;
mod parquet;

use std::path::{Path, PathBuf};

use super::file::{plain_name, read_text};
use crate::TaskError;
use crate::task::FileRows;
use columns::Wanted;
pub use columns::{Column, RaggedRows, Row};
use json::Objects;
pub(super) use json::{kind, objects};

/// The rows of a file, by the columns asked for; at least one row.
#[derive(Debug)]
pub struct Table {
    path: PathBuf,
    rows: FileRows<Row>,
    skipped: Vec<usize>,
    /// The names that the file gives the numbers of some columns.
    class_names: Vec<(Column, Vec<String>)>,
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

    /// As [`open_with`](Self::open_with); in files of JSON objects and of Parquet the columns `lists` may hold lists, which are given as JSON.
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
        let class_names = |column: &Column| match column {
            Column::Name(name) => Some((column.clone(), self.class_names(name)?)),
            Column::Number(number) => {
                Some((column.clone(), self.class_names(self.names().ok()?.get(number.get() - 1)?)?))
            }
        };
        let class_names = required.iter().chain(optional).filter_map(class_names).collect();
        Ok(Table { path: path.clone(), rows, skipped, class_names })
    }
}

#[cfg(test)]
mod tests;
