//! Texts, or pairs of texts, with a label or a score each.

use std::path::{Path, PathBuf};

use super::format::DataFile;
use super::labels::{Labels, position};
use super::table::{Column, RaggedRows, Row, Table};
use super::{LabelsNeeded, listed};
use crate::TaskError;
use crate::task::FileRows;

/// The columns of a table that hold the texts and the label.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TextColumns {
    /// The text, or the first of a pair.
    pub text: Column,
    /// The second text of a pair, if the task is about pairs.
    pub pair: Option<Column>,
    /// The label or score; none if the file is known to have none.
    pub label: Option<Column>,
}

/// One text or pair.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LabelledText {
    /// The text, or the first of the pair.
    pub text: String,
    /// The second of the pair.
    pub pair: Option<String>,
    /// Its label or score as written, without white space around it; none if the file has none.
    pub label: Option<String>,
    /// The line where it begins, from 1; in a Parquet file the row.
    pub line: usize,
}

/// The texts of one file, at least one row.
#[derive(Debug)]
pub struct LabelledTexts {
    path: PathBuf,
    label: Option<Column>,
    rows: FileRows<LabelledText>,
    skipped: Vec<usize>,
    /// The names that the file gives its labels' numbers.
    class_names: Vec<String>,
    remarks: Vec<String>,
}

impl LabelledTexts {
    /// Reads a table's texts; with [`LabelsNeeded::Optional`] the label's column may be missing, and labels empty or null. An empty label
    /// where labels are required is a [`TaskError::Line`] in the row's place.
    ///
    /// # Errors
    /// Those of [`Table::open`]; [`TaskError::File`] for no label column where labels are required.
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
        // A name means a header, a number none: a label that is not needed does not decide that.
        let mixes = |label: &&Column| matches!((label, &columns.text), (Column::Name(_), Column::Number(_)));
        let label = match columns.label.as_ref().filter(mixes) {
            Some(_) if need == LabelsNeeded::Optional => &[],
            _ => columns.label.as_slice(),
        };
        let optional = match need {
            LabelsNeeded::Optional => label,
            LabelsNeeded::Required if label.is_empty() => {
                let names = Table::names(file)?;
                let names = listed(names.iter().map(String::as_str));
                let problem = format!("has no column known to hold labels; name it with --label; the file has {names}");
                return Err(TaskError::file(path, problem));
            }
            LabelsNeeded::Required => {
                required.extend(columns.label.clone());
                &[]
            }
        };
        let table = Table::open_with(file, &required, optional, ragged)?;
        let (skipped, remarks) = (table.skipped().to_vec(), table.remarks().to_vec());
        let class_names: Vec<String> =
            columns.label.as_ref().map_or(&[][..], |column| table.class_names(column)).to_vec();
        let text_of = |row: Result<Row, TaskError>| {
            let row = row?;
            let mut cells = row.cells.into_iter();
            let text = cells.next().unwrap_or_default();
            let pair = columns.pair.as_ref().and_then(|_| cells.next());
            let label = cells.next().or_else(|| row.optional.into_iter().next().flatten());
            let label = label.map(|label| label.trim().to_owned()).filter(|label| !label.is_empty());
            // A number without a name is Hugging Face's for a label that is not known.
            let label = match class_names.is_empty() {
                true => label,
                false => label.and_then(|label| class_names.get(position(&label)?).cloned()),
            };
            if let (None, LabelsNeeded::Required, Some(column)) = (&label, need, &columns.label) {
                return Err(TaskError::line(path, row.line, format!("column {column} is empty, expected a label")));
            }
            Ok(LabelledText { text, pair, label, line: row.line })
        };
        let rows = table.into_rows().into_iter().map(text_of).collect();
        Ok(LabelledTexts { path: path.to_owned(), label: columns.label.clone(), rows, skipped, class_names, remarks })
    }

    /// The file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The texts, in order.
    pub fn rows(&self) -> &[Result<LabelledText, TaskError>] {
        &self.rows
    }

    /// The texts that can be used.
    fn usable(&self) -> impl Iterator<Item = &LabelledText> {
        self.rows.iter().flatten()
    }

    /// The lines of rows that were left out under [`RaggedRows::Skip`].
    pub fn skipped(&self) -> &[usize] {
        &self.skipped
    }

    /// What a person should know of how they were read.
    pub fn remarks(&self) -> &[String] {
        &self.remarks
    }

    /// Whether every text has a label.
    pub fn is_labelled(&self) -> bool {
        self.usable().all(|text| text.label.is_some())
    }

    /// The labels that occur, as they are written.
    pub fn written(&self) -> impl Iterator<Item = &str> {
        self.usable().filter_map(|text| text.label.as_deref())
    }

    /// The labels that occur, sorted as [`Labels::found`] says.
    ///
    /// # Errors
    /// [`TaskError::File`] when there are none.
    pub fn labels(&self) -> Result<Labels, TaskError> {
        Labels::found(self.written())
            .map_err(|_| TaskError::file(&self.path, "has no labels; expected one on each row"))
    }

    /// The texts with numbers for labels again, if the file's own names of the numbers are none of the labels: a model may have learned
    /// the numbers.
    pub fn known_by(mut self, labels: &Labels) -> LabelledTexts {
        if self.class_names.iter().any(|name| labels.has_name(name)) {
            return self;
        }
        for text in self.rows.iter_mut().flatten() {
            let number = text.label.as_ref().and_then(|label| self.class_names.iter().position(|name| name == label));
            text.label = number.map(|number| number.to_string()).or(text.label.take());
        }
        self
    }

    /// The texts, each with what `read` makes of its label; a label that is missing, or of which `read` makes a problem, is a
    /// [`TaskError::Line`] in the row's place.
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

/// A label as a number.
///
/// # Errors
/// The problem of a label that is not a finite number.
pub fn score(label: &str) -> Result<f32, String> {
    match label.parse::<f32>() {
        Ok(score) if score.is_finite() => Ok(score),
        _ => Err(format!("\"{label}\" is not a finite number; expected a score such as 3.5")),
    }
}

#[cfg(test)]
mod tests;
