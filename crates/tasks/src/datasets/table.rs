//! Tables: rows with selected columns.
//!
//! The module [`format`](super::format) determines the format of a file.
//!
//! | format | a row is | columns |
//! | --- | --- | --- |
//! | `tsv` | a line split at tabs, without quoting, as in GLUE's files; with quoting if it is detected | the first
//! line's names, or numbers | | `csv` | a record of RFC 4180: quoted cells may contain commas and line breaks | the
//! first line's names, or numbers | | `jsonl`, `json` | an object per line or of a list; strings, numbers and booleans,
//! and lists in selected columns | keys | | `parquet` | a row; strings, integers, floats and booleans, and lists of
//! these in selected columns | names, or numbers |
//!
//! In TSV and CSV, columns are selected either by names or by numbers: with names the first line is a header, with
//! numbers it is a row.

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

/// The rows of a file with the selected columns; at least one row.
#[derive(Debug)]
pub struct Table {
    path: PathBuf,
    rows: FileRows<Row>,
    skipped: Vec<usize>,
    /// The file's own names of the numbers in some columns.
    class_names: Vec<(Column, Vec<String>)>,
    notes: Vec<String>,
}

impl Table {
    /// Reads the rows of a file with required columns. A row with too few or too many cells, a cell that is null or not
    /// a scalar, invalid JSON and an unclosed quote are a [`TaskError::Line`] in the row's position.
    ///
    /// # Errors
    /// [`TaskError::Io`] if the file cannot be read. [`TaskError::File`] if its format is unknown, a column is missing
    /// or it has no rows. [`TaskError::Line`] for bytes that are not UTF-8.
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

    /// Reads the rows of a file with required and optional columns.
    ///
    /// # Errors
    /// Those of [`open`](Self::open); ragged rows are not errors if they are skipped.
    pub fn open_with<'a>(
        file: impl Into<DataFile<'a>>,
        required: &[Column],
        optional: &[Column],
        ragged: RaggedRows,
    ) -> Result<Table, TaskError> {
        Table::open_with_lists(file, required, optional, &[], ragged)
    }

    /// As [`open_with`](Self::open_with). In JSON and Parquet files the columns `lists` may contain lists, which are
    /// returned as JSON.
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

    /// The names of a file's columns: from the header, the keys of the first object, or the schema.
    ///
    /// # Errors
    /// [`TaskError::Io`] if the file cannot be read, [`TaskError::File`] if its format is unknown or it is empty.
    pub fn names<'a>(file: impl Into<DataFile<'a>>) -> Result<Vec<String>, TaskError> {
        TableFile::open(file)?.names()
    }

    /// The file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The rows, in order.
    pub fn into_rows(self) -> FileRows<Row> {
        self.rows
    }

    /// The file's own names of the numbers in a selected column (Hugging Face's `ClassLabel` in Parquet); empty if it
    /// has none.
    pub fn class_names(&self, column: &Column) -> &[String] {
        self.class_names.iter().find(|(known, _)| known == column).map_or(&[], |(_, names)| names)
    }

    /// The lines of the rows that were skipped because of [`RaggedRows::Skip`].
    pub fn skipped(&self) -> &[usize] {
        &self.skipped
    }

    /// Notes for the user about how the file was read.
    pub fn notes(&self) -> &[String] {
        &self.notes
    }
}

/// A file that was read, before columns are selected.
pub(crate) struct TableFile {
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

    /// The names of the columns: from the header, the keys of the first object, or the schema.
    pub fn names(&self) -> Result<Vec<String>, TaskError> {
        match &self.content {
            Content::Delimited(kind, text) => delimited::header(&self.path, *kind, text),
            Content::Json(text) => json::first_keys(&self.path, text),
            Content::Parquet(file) => Ok(parquet::names(file)),
        }
    }

    /// Whether it is JSON.
    pub fn is_json(&self) -> bool {
        matches!(self.content, Content::Json(_))
    }

    /// Whether its cells can be lists: JSON and Parquet.
    pub fn has_lists(&self) -> bool {
        !matches!(self.content, Content::Delimited(..))
    }

    /// Checks that the file has columns with these names.
    pub fn require(&self, names: &[&str]) -> Result<(), TaskError> {
        let columns: Vec<Column> = names.iter().map(|name| Column::Name((*name).to_owned().into())).collect();
        let selection = ColumnSelection { path: &self.path, required: &columns, optional: &[], lists: &[] };
        selection.find(&self.names()?).map(|_| ())
    }

    /// Whether the first line may hold the names of the columns: TSV and CSV.
    pub fn has_header_line(&self) -> bool {
        matches!(self.content, Content::Delimited(..))
    }

    /// The rows as objects: JSON objects with all their keys, Parquet rows with these columns. Lists are JSON lists.
    pub fn objects(&self, keys: &[&str]) -> Result<Objects, TaskError> {
        match &self.content {
            Content::Json(text) => Ok(objects(&self.path, text).collect()),
            Content::Parquet(file) => parquet::objects(&self.path, file, keys),
            Content::Delimited(..) => {
                Err(TaskError::file(&self.path, "expected JSON or Parquet with lists, found a table"))
            }
        }
    }

    /// The file's own names of the numbers in a column: Hugging Face's metadata of a Parquet file.
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
        let (mut skipped, mut notes) = (Vec::new(), Vec::new());
        let path = &self.path;
        let selection = ColumnSelection { path, required, optional, lists };
        let rows = match &self.content {
            Content::Delimited(kind, text) => {
                delimited::rows(&selection, *kind, text, ragged, &mut skipped, &mut notes)?
            }
            Content::Json(text) => json::rows(&selection, text)?,
            Content::Parquet(file) => parquet::rows(&selection, file)?,
        };
        if rows.is_empty() {
            let problem = match skipped.len() {
                0 => "expected at least one row, found none".to_owned(),
                n => format!(
                    "expected at least one row with the number of cells of the header, found {n} rows with a different number"
                ),
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
        Ok(Table { path: path.clone(), rows, skipped, class_names, notes })
    }
}

#[cfg(test)]
mod tests;
