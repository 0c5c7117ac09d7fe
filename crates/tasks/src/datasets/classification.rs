//! Texts, or pairs of texts, with a label or a score each.

use std::path::{Path, PathBuf};

use super::Need;
use super::labels::Labels;
use super::table::{Column, RaggedRows, Table};
use crate::TaskError;

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

/// The texts of one file, at least one.
#[derive(Clone, Debug)]
pub struct LabelledTexts {
    path: PathBuf,
    label: Option<Column>,
    examples: Vec<LabelledText>,
    skipped: Vec<usize>,
}

impl LabelledTexts {
    /// Reads a table's texts; with [`Need::Optional`] the label's column may be missing, and labels empty or null.
    ///
    /// # Errors
    /// Those of [`Table::open`]; [`TaskError::Line`] for an empty label and [`TaskError::Setting`] for no label column
    /// where labels are required.
    pub fn read(
        path: &Path,
        columns: &TextColumns,
        need: Need,
        ragged: RaggedRows,
    ) -> Result<LabelledTexts, TaskError> {
        let mut required = vec![columns.text.clone()];
        required.extend(columns.pair.clone());
        let label = columns.label.as_slice();
        let optional = match need {
            Need::Optional => label,
            Need::Required if label.is_empty() => {
                let problem = "none given; expected the name or number of the column that holds the labels".to_owned();
                return Err(TaskError::Setting { name: "label column", problem });
            }
            Need::Required => {
                required.extend(columns.label.clone());
                &[]
            }
        };
        let table = Table::open_with(path, &required, optional, ragged)?;
        let skipped = table.skipped().to_vec();
        let mut examples = Vec::with_capacity(table.rows().len());
        for row in table.into_rows() {
            let mut cells = row.cells.into_iter();
            let text = cells.next().unwrap_or_default();
            let pair = columns.pair.as_ref().and_then(|_| cells.next());
            let label = cells.next().or_else(|| row.optional.into_iter().next().flatten());
            let label = label.map(|label| label.trim().to_owned()).filter(|label| !label.is_empty());
            if let (None, Need::Required, Some(column)) = (&label, need, &columns.label) {
                return Err(TaskError::line(path, row.line, format!("column {column} is empty, expected a label")));
            }
            examples.push(LabelledText { text, pair, label, line: row.line });
        }
        Ok(LabelledTexts { path: path.to_owned(), label: columns.label.clone(), examples, skipped })
    }

    /// The file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The texts, in order.
    pub fn examples(&self) -> &[LabelledText] {
        &self.examples
    }

    /// The lines of rows that were left out under [`RaggedRows::Skip`].
    pub fn skipped(&self) -> &[usize] {
        &self.skipped
    }

    /// Whether every text has a label.
    pub fn is_labelled(&self) -> bool {
        self.examples.iter().all(|example| example.label.is_some())
    }

    /// The labels that occur, sorted as [`Labels::found`] says.
    ///
    /// # Errors
    /// [`TaskError::File`] when there are none.
    pub fn labels(&self) -> Result<Labels, TaskError> {
        let found = Labels::found(self.examples.iter().filter_map(|example| example.label.as_deref()));
        found.map_err(|_| TaskError::file(&self.path, "has no labels; expected one on each row"))
    }

    /// The number of each text's label.
    ///
    /// # Errors
    /// [`TaskError::Line`] for a label that is not known or missing.
    pub fn class_ids(&self, labels: &Labels) -> Result<Vec<usize>, TaskError> {
        self.each_label(|label| labels.id_or_problem(label))
    }

    /// Each text's label as a number.
    ///
    /// # Errors
    /// [`TaskError::Line`] for a label that is not a finite number or missing.
    pub fn scores(&self) -> Result<Vec<f32>, TaskError> {
        self.each_label(|label| match label.parse::<f32>() {
            Ok(score) if score.is_finite() => Ok(score),
            _ => Err(format!("\"{label}\" is not a finite number; expected a score such as 3.5")),
        })
    }

    fn each_label<T>(&self, read: impl Fn(&str) -> Result<T, String>) -> Result<Vec<T>, TaskError> {
        let column = self.label.as_ref().map_or("label".into(), |column| format!("column {column}"));
        let one = |example: &LabelledText| {
            let value = match &example.label {
                Some(label) => read(label),
                None => Err("no label; expected one".into()),
            };
            value.map_err(|problem| TaskError::line(&self.path, example.line, format!("{column}: {problem}")))
        };
        self.examples.iter().map(one).collect()
    }
}

#[cfg(test)]
mod tests;
