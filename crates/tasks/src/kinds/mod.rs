//! The kinds of tasks. Each file defines the rows, examples, predictions and scores of a kind, how its files are read,
//! and which models it accepts.
//!
//! | module | row → prediction | source |
//! | --- | --- | --- |
//! | [`classify`] | a text or pair → a label | Devlin et al. 2019, 4.1 |
//! | [`multi_label`] | a text or pair → any number of labels | `BCEWithLogitsLoss`, as in Transformers |
//! | [`regress`] | a text or pair → a number | 4.1 (STS-B) |
//! | [`rerank`] | a query and a document → a score of relevance | Nogueira and Cho 2019 |
//! | [`tag`] | words → a label for each; entities | 5.3 |
//! | [`answer`] | a question and a paragraph → a span of the paragraph | 4.2, 4.3 |
//! | [`choose`] | a context and endings → the correct ending | 4.4 |
//!
//! To add a kind, add a file with a [`Task`](crate::Task) and a [`Kind`], and list it in [`KINDS`].

pub mod answer;
pub mod choose;
pub mod classify;
pub mod description;
pub mod kind;
mod labelled_texts;
pub mod multi_label;
pub(crate) mod probabilities;
pub mod regress;
pub mod rerank;
pub mod tag;
pub mod text;

use std::path::Path;

use cloze_model::{Config, TaskHead};

pub use description::Description;
pub use kind::Kind;
use kind::Mismatch;
pub(crate) use labelled_texts::labels_of;

use crate::TaskError;

/// All kinds, in the order of display. The kind of a model that does not name one is the first kind that accepts it.
pub const KINDS: &[&Kind] =
    &[&classify::KIND, &multi_label::KIND, &regress::KIND, &rerank::KIND, &tag::KIND, &answer::KIND, &choose::KIND];

/// The kind of this name.
pub fn named(name: &str) -> Option<&'static Kind> {
    KINDS.iter().copied().find(|kind| kind.name() == name)
}

/// The names of all kinds for a message: "classify, regress or tag".
pub fn names() -> String {
    let names: Vec<&str> = KINDS.iter().map(|kind| kind.name()).collect();
    description::alternatives(&names)
}

/// The kinds to which an option applies; empty for an option that applies to all kinds.
pub fn with_option(option: &str) -> Vec<&'static Kind> {
    KINDS.iter().copied().filter(|kind| kind.description.has_option(option)).collect()
}

/// The kind of a model whose configuration does not name one. `dir` is the model folder.
///
/// # Errors
/// [`TaskError::Folder`] if no kind accepts it.
pub fn of_model(config: &Config, head: TaskHead, dir: &Path) -> Result<&'static Kind, TaskError> {
    // Its single output is a score, and not the number of a regression.
    if rerank::KIND.accepts(config, head).is_ok() && crate::rerank::is_cross_encoder_folder(config, dir)? {
        return Ok(&rerank::KIND);
    }
    let mut closest: Option<(&Kind, Mismatch)> = None;
    for kind in KINDS.iter().copied() {
        match kind.accepts(config, head) {
            Ok(()) => return Ok(kind),
            Err(mismatch)
                if closest.is_none() || closest.as_ref().is_some_and(|(_, first)| *first == Mismatch::Head) =>
            {
                closest = Some((kind, mismatch));
            }
            Err(_) => {}
        }
    }
    let (kind, mismatch) = closest.unwrap_or((KINDS[0], Mismatch::Head));
    Err(kind.mismatch_error(mismatch, head, dir))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::datasets::preset::{DatasetPreset, NAMES};

    #[test]
    fn every_preset_has_a_kind() {
        for name in NAMES {
            let known = DatasetPreset::named(name).unwrap();
            let kind = named(known.kind).unwrap();
            let metrics = kind.description.metrics;
            assert!(metrics.is_empty() || metrics.contains(&known.best), "{name}");
        }
        assert_eq!(named("sort"), None);
    }

    #[test]
    fn no_name_occurs_twice() {
        let mut names_seen = std::collections::HashSet::new();
        for kind in KINDS {
            let mut own = kind.description.own_options.iter();
            assert!(names_seen.insert(kind.name()) && own.all(|option| names_seen.insert(option.name)), "{kind:?}");
        }
    }
}
