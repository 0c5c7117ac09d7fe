//! Functions that the kinds with labelled texts share.

use crate::TaskError;
use crate::datasets::LabelsNeeded;
use crate::datasets::classification::{LabelledText, LabelledTexts};
use crate::datasets::labels::Labels;
use crate::kinds::text::Text;
use crate::reading::non_blank;
use crate::task::FileRows;

/// The texts of files. If labels are needed, each text has its label, parsed by `read`; rows to predict may have any
/// label.
pub(super) fn texts_of<L>(
    files: Vec<LabelledTexts>,
    need: LabelsNeeded,
    read: impl Fn(&str) -> Result<L, String>,
) -> FileRows<(Text, Option<L>)> {
    let text = |row: LabelledText| Text { text: row.text, pair: row.pair };
    let of_file = |file: LabelledTexts| -> FileRows<(Text, Option<L>)> {
        match need {
            LabelsNeeded::Required => {
                let rows = file.with_labels(&read).into_iter();
                rows.map(|row| row.map(|(row, label)| (text(row), Some(label)))).collect()
            }
            LabelsNeeded::Optional => {
                let rows = file.without_labels().into_iter();
                rows.map(|row| Ok((non_blank(text(row?))?, None))).collect()
            }
        }
    };
    files.into_iter().flat_map(of_file).collect()
}

/// All labels of several files.
pub(super) fn merge_labels(of_files: impl IntoIterator<Item = Result<Labels, TaskError>>) -> Result<Labels, TaskError> {
    let all: Vec<Labels> = of_files.into_iter().collect::<Result<_, _>>()?;
    Labels::from_data(all.iter().flat_map(|labels| labels.names().iter().map(String::as_str)))
}

/// The names of a model's labels. If its configuration has no names they are `LABEL_0`, …, as in Transformers.
pub(crate) fn labels_of(config: &cloze_model::Config, count: usize) -> Vec<String> {
    let named = config.labels().filter(|labels| labels.len() == count);
    named.unwrap_or_else(|| (0..count).map(|id| format!("LABEL_{id}")).collect())
}

/// The frequencies of the labels, in one line, and a note about labels that differ only in case. Empty if there are no
/// labels.
pub(super) fn label_counts(labels: &[String], ids: impl Iterator<Item = usize>) -> Vec<String> {
    /// Maximum number of labels in the line.
    const SHOWN: usize = 12;
    let mut counts = vec![0usize; labels.len()];
    ids.filter(|id| *id < labels.len()).for_each(|id| counts[id] += 1);
    if counts.iter().all(|count| *count == 0) {
        return Vec::new();
    }
    let mut shown: Vec<String> =
        labels.iter().zip(&counts).take(SHOWN).map(|(label, count)| format!("{label} {count}")).collect();
    if labels.len() > SHOWN {
        shown.push(format!("and {} more", labels.len() - SHOWN));
    }
    let mut lines = vec![format!("{} labels: {}", labels.len(), shown.join(", "))];
    let alike = labels.iter().enumerate().find_map(|(id, label)| {
        let other = labels[..id].iter().find(|other| other.to_lowercase() == label.to_lowercase())?;
        Some((other, label))
    });
    if let Some((a, b)) = alike {
        lines.push(format!("the labels \"{a}\" and \"{b}\" differ only in case"));
    }
    lines
}
