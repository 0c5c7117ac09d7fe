//! Labelled data in the formats that people have. A file is read whole and checked whole, before training starts: a
//! mistake in its last line costs seconds, not hours.
//!
//! | module | in → out |
//! | --- | --- |
//! | [`format`](mod@format) | a file's option, name and beginning → how it is written |
//! | [`table`] | TSV, CSV, JSONL, Parquet → rows of the columns asked for |
//! | [`classification`] | a table → texts or pairs of texts with labels or scores |
//! | [`labels`] | labels ↔ their numbers |
//! | [`tagged`] | CoNLL columns, WikiANN, CoNLL-U → sentences of tagged words |
//! | [`squad`] | SQuAD 1.1 and 2.0, JSONL → questions with answers in a context |
//! | [`choice`] | SWAG's tables, JSONL → contexts with endings to choose from |
//! | [`known`] | a task's name → its files, columns, labels, metrics and the paper's settings |
//!
//! Every file may be plain, gzip or zstd (a Parquet file compresses within).

pub mod choice;
pub mod classification;
mod file;
pub mod format;
pub mod labels;
pub mod preset;
pub mod squad;
pub mod table;
pub mod tagged;

pub use file::plain_name;

#[cfg(test)]
mod testing;

/// Whether a file must hold what a model is to learn, or may leave it out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LabelsNeeded {
    /// Every example must have it: training, evaluation.
    Required,
    /// Examples may be without: prediction.
    Optional,
}

/// Says of a name that is not among `known` which one is nearest to it, if one is near: ` (did you mean "x"?)`.
fn suggestion<'a>(name: &str, known: impl IntoIterator<Item = &'a str>) -> String {
    let name = name.to_lowercase();
    let near = |other: &'a str| (strsim::normalized_damerau_levenshtein(&name, &other.to_lowercase()), other);
    let nearest = known.into_iter().map(near).max_by(|a, b| a.0.total_cmp(&b.0));
    match nearest {
        Some((likeness, other)) if likeness >= 0.5 => format!(" (did you mean \"{other}\"?)"),
        _ => String::new(),
    }
}

/// Names for a message, in quotes and joined by commas, cut after forty.
pub(crate) fn listed<'a>(names: impl IntoIterator<Item = &'a str>) -> String {
    let mut names = names.into_iter().map(|name| format!("\"{name}\""));
    let mut list: Vec<String> = names.by_ref().take(40).collect();
    let more = names.count();
    if more > 0 {
        list.push(format!("and {more} more"));
    }
    if list.is_empty() { "none".into() } else { list.join(", ") }
}
