//! What the kinds that read texts with a label have in common.

use crate::TaskError;
use crate::datasets::Need;
use crate::datasets::classification::LabelledTexts;
use crate::datasets::labels::Labels;
use crate::kinds::text::Text;

/// The texts of some files, each with what `labels` makes of its label if labels are needed: of others a prediction's rows may have any.
pub(super) fn texts_of<L: Clone>(
    files: &[LabelledTexts],
    need: Need,
    labels: impl Fn(&LabelledTexts) -> Result<Vec<L>, TaskError>,
) -> Result<Vec<(Text, Option<L>)>, TaskError> {
    let mut rows = Vec::new();
    for file in files {
        let known = (need == Need::Required).then(|| labels(file)).transpose()?;
        rows.extend(file.examples().iter().enumerate().map(|(number, row)| {
            let text = Text { text: row.text.clone(), pair: row.pair.clone() };
            (text, known.as_ref().map(|known| known[number].clone()))
        }));
    }
    Ok(rows)
}

/// All labels that some files hold.
pub(super) fn found_in(of_files: impl IntoIterator<Item = Result<Labels, TaskError>>) -> Result<Labels, TaskError> {
    let all: Vec<Labels> = of_files.into_iter().collect::<Result<_, _>>()?;
    Labels::found(all.iter().flat_map(|labels| labels.names().iter().map(String::as_str)))
}

/// The names of a model's labels: `LABEL_0`, … where its configuration has none, as Transformers calls them.
pub(super) fn labels_of(config: &cloze_model::Config, count: usize) -> Vec<String> {
    let named = config.labels().filter(|labels| labels.len() == count);
    named.unwrap_or_else(|| (0..count).map(|id| format!("LABEL_{id}")).collect())
}
