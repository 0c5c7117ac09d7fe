//! The kinds of tasks: each file says what a row, an example, a prediction and a score are, how files are read, and which models are
//! of the kind.
//!
//! | module | a row → what is predicted | source |
//! | --- | --- | --- |
//! | [`classify`] | a text or pair → a label | Devlin et al. 2019, 4.1 |
//! | [`multi_label`] | a text or pair → any number of labels | `BCEWithLogitsLoss`, as in Transformers |
//! | [`regress`] | a text or pair → a number | 4.1 (STS-B) |
//! | [`tag`] | words → a label for each; entities | 5.3 |
//! | [`answer`] | a question and a paragraph → a part of the paragraph | 4.2, 4.3 |
//! | [`choose`] | a context and endings → the ending | 4.4 |
//!
//! A new kind is a file with a [`Task`](crate::Task) and its [`Kind`], and its line in [`KINDS`].

pub mod answer;
pub mod choose;
pub mod classify;
pub mod description;
pub mod kind;
mod labelled_texts;
pub mod multi_label;
mod probabilities;
pub mod regress;
pub mod tag;
pub mod text;

use std::path::Path;

use cloze_model::{Config, TaskHead};

pub use description::Description;
pub use kind::Kind;
use kind::Misfit;

use crate::TaskError;

/// All kinds, in the order in which they are listed. Of a model that does not name its kind it is the first that accepts it.
pub const KINDS: &[&Kind] =
    &[&classify::KIND, &multi_label::KIND, &regress::KIND, &tag::KIND, &answer::KIND, &choose::KIND];

/// The kind of this name.
pub fn named(name: &str) -> Option<&'static Kind> {
    KINDS.iter().copied().find(|kind| kind.name() == name)
}

/// The names of all kinds, for people: "classify, regress or tag".
pub fn names() -> String {
    let names: Vec<&str> = KINDS.iter().map(|kind| kind.name()).collect();
    description::alternatives(&names)
}

/// The kinds that an option concerns, of the options that concern some kinds alone; none of the others.
pub fn with_option(option: &str) -> Vec<&'static Kind> {
    KINDS.iter().copied().filter(|kind| kind.description.has_option(option)).collect()
}

/// The kind of a model that does not name it. `dir` is its folder.
///
/// # Errors
/// [`TaskError::Folder`] when no kind accepts it.
pub fn of_model(config: &Config, head: TaskHead, dir: &Path) -> Result<&'static Kind, TaskError> {
    let mut closest: Option<(&Kind, Misfit)> = None;
    for kind in KINDS.iter().copied() {
        match kind.accepts(config, head) {
            Ok(()) => return Ok(kind),
            Err(misfit) if closest.is_none() || closest.as_ref().is_some_and(|(_, first)| *first == Misfit::Head) => {
                closest = Some((kind, misfit));
            }
            Err(_) => {}
        }
    }
    let (kind, misfit) = closest.unwrap_or((KINDS[0], Misfit::Head));
    Err(kind.refusal(misfit, head, dir))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::datasets::preset::{DatasetPreset, NAMES};

    #[test]
    fn every_known_task_is_of_a_kind() {
        for name in NAMES {
            let known = DatasetPreset::named(name).unwrap();
            let kind = named(known.kind).unwrap();
            let decides = kind.description.metrics;
            assert!(decides.is_empty() || decides.contains(&known.best), "{name}");
        }
        assert_eq!(named("sort"), None);
    }

    #[test]
    fn no_name_occurs_twice() {
        let mut seen = std::collections::HashSet::new();
        for kind in KINDS {
            let mut own = kind.description.own_options.iter();
            assert!(seen.insert(kind.name()) && own.all(|option| seen.insert(option.name)), "{kind:?}");
        }
    }
}
