//! Columns of a table, and their selection.

use std::borrow::Cow;
use std::fmt;
use std::num::NonZeroUsize;
use std::path::Path;

use crate::TaskError;
use crate::datasets::{quoted_list, suggestion};

/// A column of a table: `sentence`, or `#4` for the fourth column.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Column {
    /// Selected by its name in the header, or by its key.
    Name(Cow<'static, str>),
    /// Selected by its number, from 1.
    Number(NonZeroUsize),
}

impl Column {
    /// A column by name.
    pub const fn name(name: &'static str) -> Column {
        Column::Name(Cow::Borrowed(name))
    }

    /// A column by number, from 1 (0 is treated as 1).
    pub const fn number(number: usize) -> Column {
        match NonZeroUsize::new(number) {
            Some(number) => Column::Number(number),
            None => Column::Number(NonZeroUsize::MIN),
        }
    }

    /// Parses a column: `#` and digits is a number, anything else is a name (such as `#1 String` of MRPC).
    ///
    /// # Errors
    /// [`TaskError::Setting`] for `#0`, for a number that is too large, and for an empty text.
    pub fn parse(text: &str) -> Result<Column, TaskError> {
        let wrong = |problem: String| TaskError::Setting { name: "column", problem };
        if text.is_empty() {
            return Err(wrong("expected a name, or a number such as #4; found an empty text".into()));
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

/// How a line of a TSV or CSV file is handled whose number of cells differs from that of the header, or that has too
/// few cells for the selected columns. Some official files of GLUE have such lines (QQP).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum RaggedRows {
    /// It is an error.
    #[default]
    Error,
    /// It is skipped; [`Table::skipped`](super::Table::skipped) returns its line.
    Skip,
}

/// One row of a [`Table`](super::Table).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Row {
    /// The line where it starts, from 1; in a Parquet file the number of the row.
    pub line: usize,
    /// The cells of the required columns, in the order of selection.
    pub cells: Vec<String>,
    /// The cells of the optional columns; none if the file does not have the column or the cell is null.
    pub optional: Vec<Option<String>>,
}

/// The selected columns of a file.
pub(super) struct ColumnSelection<'a> {
    pub(super) path: &'a Path,
    pub(super) required: &'a [Column],
    pub(super) optional: &'a [Column],
    /// The columns whose cells may be lists.
    pub(super) lists: &'a [Column],
}

impl ColumnSelection<'_> {
    /// The index of each column among `names`; none for optional columns that do not exist.
    pub(super) fn find(&self, names: &[String]) -> Result<(Vec<usize>, Vec<Option<usize>>), TaskError> {
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
            return Err(TaskError::file(
                self.path,
                format!("expected one column {column}, found several; rename all but one"),
            ));
        }
        Ok(index)
    }

    /// The error about a missing column, with a list of the columns.
    fn missing(&self, column: &Column, names: &[String]) -> TaskError {
        let known = || names.iter().map(String::as_str);
        let near = match column {
            Column::Name(name) => suggestion(name, known()),
            Column::Number(_) => String::new(),
        };
        TaskError::file(self.path, format!("no column {column}{near}; the columns are {}", quoted_list(known())))
    }
}
