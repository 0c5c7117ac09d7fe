//! Labelled data in common formats. A file is read and checked completely before training starts: an error in its last
//! line is found within seconds, not after hours.
//!
//! | module | in → out |
//! | --- | --- |
//! | [`format`](mod@format) | the option, name and first bytes of a file → its format |
//! | [`table`] | TSV, CSV, JSONL, Parquet → rows with the selected columns |
//! | [`classification`] | a table → texts or pairs of texts with labels or scores |
//! | [`labels`] | labels ↔ their indices |
//! | [`tagged`] | CoNLL columns, WikiANN, CoNLL-U → sentences of tagged words |
//! | [`squad`] | SQuAD 1.1 and 2.0, JSONL → questions with answers in a context |
//! | [`choice`] | SWAG's tables, JSONL → contexts with endings to choose from |
//! | [`tuples`] | a table → pairs with scores or labels, triplets, texts with duplicates |
//! | [`rankings`] | JSON, Parquet → queries with relevant and irrelevant documents |
//! | [`preset`] | a data set's name → its files, columns, labels, metrics and the paper's settings |
//!
//! Every file may be plain, gzip or zstd (Parquet files are compressed internally).

pub mod choice;
pub mod classification;
mod file;
pub mod format;
pub mod labels;
pub mod preset;
pub mod rankings;
pub mod squad;
pub mod table;
pub mod tagged;
pub mod tuples;

pub use file::plain_name;

#[cfg(test)]
mod testing;

/// Whether the rows of a file need labels.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LabelsNeeded {
    /// Every row must have a label: for training and evaluation.
    Required,
    /// Rows may have no label: for prediction.
    Optional,
}

/// A suggestion for an unknown name, ` (did you mean "x"?)`, if one of `known` is similar; else empty.
fn suggestion<'a>(name: &str, known: impl IntoIterator<Item = &'a str>) -> String {
    let name = name.to_lowercase();
    let near = |other: &'a str| (strsim::normalized_damerau_levenshtein(&name, &other.to_lowercase()), other);
    let nearest = known.into_iter().map(near).max_by(|a, b| a.0.total_cmp(&b.0));
    match nearest {
        Some((likeness, other)) if likeness >= 0.5 => format!(" (did you mean \"{other}\"?)"),
        _ => String::new(),
    }
}

/// Formats names for a message: in quotes, separated by commas, at most forty of them.
pub(crate) fn quoted_list<'a>(names: impl IntoIterator<Item = &'a str>) -> String {
    let mut names = names.into_iter().map(|name| format!("\"{name}\""));
    let mut list: Vec<String> = names.by_ref().take(40).collect();
    let more = names.count();
    if more > 0 {
        list.push(format!("and {more} more"));
    }
    if list.is_empty() { "none".into() } else { list.join(", ") }
}
