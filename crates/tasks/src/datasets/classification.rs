//! Texts or pairs of texts, each with a label or a score.

use std::path::{Path, PathBuf};

use super::format::DataFile;
use super::labels::{Labels, parse_index};
use super::table::{Column, RaggedRows, Row, Table};
use super::{LabelsNeeded, quoted_list};
use crate::TaskError;
use crate::task::FileRows;

/// The columns of a table that hold the texts and the label.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TextColumns {
    /// The text, or the first of a pair.
    pub text: Column,
    /// The second text of a pair, if the task is about pairs.
    pub pair: Option<Column>,
    /// The label or score; none if the file is known to have no such column.
    pub label: Option<Column>,
}

/// One text or pair.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LabelledText {
    /// The text, or the first of the pair.
    pub text: String,
    /// The second of the pair.
    pub pair: Option<String>,
    /// The label or score as in the file, trimmed; none if the file has none.
    pub label: Option<String>,
    /// The line where it starts, from 1; in a Parquet file the row.
    pub line: usize,
}

/// The texts of one file; at least one row.
#[derive(Debug)]
pub struct LabelledTexts {
    path: PathBuf,
    label: Option<Column>,
    rows: FileRows<LabelledText>,
    skipped: Vec<usize>,
    /// The file's own names of numeric labels.
    class_names: Vec<String>,
    notes: Vec<String>,
}

impl LabelledTexts {
    /// Reads the texts of a table. With [`LabelsNeeded::Optional`] the column of labels may be missing, and labels may
    /// be empty or null. With [`LabelsNeeded::Required`] an empty label is a [`TaskError::Line`] in the row's position.
    ///
    /// # Errors
    /// Those of [`Table::open`]; [`TaskError::File`] if labels are required and there is no column of labels.
    pub fn read<'a>(
        file: impl Into<DataFile<'a>>,
        columns: &TextColumns,
        need: LabelsNeeded,
        ragged: RaggedRows,
    ) -> Result<LabelledTexts, TaskError> {
        let file = file.into();
        let path = file.path;
        let mut required = vec![columns.text.clone()];
        required.extend(columns.pair.clone());
        // A column name implies a header, a number implies none. A label that is not needed must not decide this.
        let mixes = |label: &&Column| matches!((label, &columns.text), (Column::Name(_), Column::Number(_)));
        let label = match columns.label.as_ref().filter(mixes) {
            Some(_) if need == LabelsNeeded::Optional => &[],
            _ => columns.label.as_slice(),
        };
        let optional = match need {
            LabelsNeeded::Optional => label,
            LabelsNeeded::Required if label.is_empty() => {
                let names = Table::names(file)?;
                let names = quoted_list(names.iter().map(String::as_str));
                let problem = format!("expected a column of labels; set `label` to one of the columns {names}");
                return Err(TaskError::file(path, problem));
            }
            LabelsNeeded::Required => {
                required.extend(columns.label.clone());
                &[]
            }
        };
        let table = Table::open_with(file, &required, optional, ragged)?;
        let (skipped, notes) = (table.skipped().to_vec(), table.notes().to_vec());
        let class_names: Vec<String> =
            columns.label.as_ref().map_or(&[][..], |column| table.class_names(column)).to_vec();
        let text_of = |row: Result<Row, TaskError>| {
            let row = row?;
            let mut cells = row.cells.into_iter();
            let text = cells.next().unwrap_or_default();
            let pair = columns.pair.as_ref().and_then(|_| cells.next());
            let label = cells.next().or_else(|| row.optional.into_iter().next().flatten());
            let label = label.map(|label| label.trim().to_owned()).filter(|label| !label.is_empty());
            // In Hugging Face's data sets, a number without a name means that the label is not known.
            let label = match class_names.is_empty() {
                true => label,
                false => label.and_then(|label| class_names.get(parse_index(&label)?).cloned()),
            };
            if let (None, LabelsNeeded::Required, Some(column)) = (&label, need, &columns.label) {
                return Err(TaskError::line(
                    path,
                    row.line,
                    format!("column {column}: expected a label, found an empty cell"),
                ));
            }
            Ok(LabelledText { text, pair, label, line: row.line })
        };
        let rows = table.into_rows().into_iter().map(text_of).collect();
        Ok(LabelledTexts { path: path.to_owned(), label: columns.label.clone(), rows, skipped, class_names, notes })
    }

    /// The file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The texts, in order.
    pub fn rows(&self) -> &[Result<LabelledText, TaskError>] {
        &self.rows
    }

    /// The rows that can be used.
    fn usable(&self) -> impl Iterator<Item = &LabelledText> {
        self.rows.iter().flatten()
    }

    /// The lines of the rows that were skipped because of [`RaggedRows::Skip`].
    pub fn skipped(&self) -> &[usize] {
        &self.skipped
    }

    /// Notes for the user about how the file was read.
    pub fn notes(&self) -> &[String] {
        &self.notes
    }

    /// Whether every text has a label.
    pub fn is_labelled(&self) -> bool {
        self.usable().all(|text| text.label.is_some())
    }

    /// The labels that occur, as they are in the file.
    pub fn raw_labels(&self) -> impl Iterator<Item = &str> {
        self.usable().filter_map(|text| text.label.as_deref())
    }

    /// The distinct labels, sorted as by [`Labels::from_data`].
    ///
    /// # Errors
    /// [`TaskError::File`] if there are no labels.
    pub fn labels(&self) -> Result<Labels, TaskError> {
        Labels::from_data(self.raw_labels())
            .map_err(|_| TaskError::file(&self.path, "expected a label in each row, found none"))
    }

    /// Restores numeric labels if none of the file's own names is among `labels`: the model may have been trained on
    /// the numbers.
    pub fn restore_numbers(mut self, labels: &Labels) -> LabelledTexts {
        if self.class_names.iter().any(|name| labels.has_name(name)) {
            return self;
        }
        for text in self.rows.iter_mut().flatten() {
            let number = text.label.as_ref().and_then(|label| self.class_names.iter().position(|name| name == label));
            text.label = number.map(|number| number.to_string()).or(text.label.take());
        }
        self
    }

    /// The texts, each with its label parsed by `read`. A label that is missing or that `read` rejects is a
    /// [`TaskError::Line`] in the row's position.
    pub fn with_labels<L>(self, read: impl Fn(&str) -> Result<L, String>) -> FileRows<(LabelledText, L)> {
        let column = self.label.as_ref().map_or("label".into(), |column| format!("column {column}"));
        let one = |row: Result<LabelledText, TaskError>| {
            let text = row?;
            let value = match &text.label {
                Some(label) => read(label),
                None => Err("no label; expected one".into()),
            };
            match value {
                Ok(value) => Ok((text, value)),
                Err(problem) => Err(TaskError::line(&self.path, text.line, format!("{column}: {problem}"))),
            }
        };
        self.rows.into_iter().map(one).collect()
    }

    /// The texts without their labels.
    pub fn without_labels(self) -> FileRows<LabelledText> {
        self.rows
    }
}

/// Parses a label as a score.
///
/// # Errors
/// The problem, for a label that is not a finite number.
pub fn score(label: &str) -> Result<f32, String> {
    match label.parse::<f32>() {
        Ok(score) if score.is_finite() => Ok(score),
        _ => Err(format!("expected a finite number such as 3.5, found \"{label}\"")),
    }
}

#[cfg(test)]
mod tests;
