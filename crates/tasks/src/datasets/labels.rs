//! Labels and their numbers.

use std::collections::{BTreeSet, HashMap};

use super::{listed, suggestion};
use crate::TaskError;

/// The labels of a task in the order of a classifier's outputs: output `i` is label `i`.
///
/// ```
/// use cloze_tasks::datasets::labels::Labels;
/// let labels = Labels::given(["negative", "positive"])?;
/// assert_eq!(labels.id("positive"), Some(1));
/// assert_eq!(labels.id("1"), Some(1)); // As GLUE's SST-2 writes it.
/// let found = Labels::found(["10", "9", "10"])?;
/// assert_eq!(found.names(), ["9", "10"]);
/// # Ok::<(), cloze_tasks::TaskError>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Labels {
    names: Vec<String>,
    ids: HashMap<String, usize>,
}

impl Labels {
    /// Labels in a known order. Data may write a label as its name or, if no name is an integer, as its number: so does
    /// GLUE in part, and so do exports of Hugging Face's data sets.
    ///
    /// # Errors
    /// [`TaskError::Setting`] for no labels, an empty one and one that occurs twice.
    pub fn given<S: Into<String>>(names: impl IntoIterator<Item = S>) -> Result<Labels, TaskError> {
        let mut labels = Labels::ordered(names.into_iter().map(Into::into).collect())?;
        if labels.names.iter().all(|name| integer(name).is_none()) {
            labels.ids.extend((0..labels.names.len()).map(|id| (id.to_string(), id)));
        }
        Ok(labels)
    }

    /// The distinct labels of data, sorted: by value if all are integers, else as text.
    ///
    /// # Errors
    /// [`TaskError::Setting`] for no labels and an empty one.
    pub fn found<'a>(labels: impl IntoIterator<Item = &'a str>) -> Result<Labels, TaskError> {
        let distinct: BTreeSet<&str> = labels.into_iter().collect();
        let mut names: Vec<&str> = distinct.into_iter().collect();
        if names.iter().all(|name| integer(name).is_some()) {
            names.sort_by_key(|name| integer(name));
        }
        Labels::ordered(names.into_iter().map(String::from).collect())
    }

    fn ordered(names: Vec<String>) -> Result<Labels, TaskError> {
        let wrong = |problem: String| Err(TaskError::Setting { name: "labels", problem });
        if names.is_empty() {
            return wrong("none; expected at least one".into());
        }
        let mut ids = HashMap::new();
        for (id, name) in names.iter().enumerate() {
            if name.is_empty() {
                return wrong("one is empty; expected a name for each".into());
            }
            if ids.insert(name.clone(), id).is_some() {
                return wrong(format!("\"{name}\" occurs twice; expected each once"));
            }
        }
        Ok(Labels { names, ids })
    }

    /// The names by number.
    pub fn names(&self) -> &[String] {
        &self.names
    }

    /// How many there are, at least one.
    #[expect(clippy::len_without_is_empty, reason = "never empty")]
    pub fn len(&self) -> usize {
        self.names.len()
    }

    /// The number of a label.
    pub fn id(&self, name: &str) -> Option<usize> {
        self.ids.get(name).copied()
    }

    /// The name of a number.
    pub fn name(&self, id: usize) -> Option<&str> {
        self.names.get(id).map(String::as_str)
    }

    /// The number of a label, or what is wrong with it and which labels there are.
    pub(crate) fn id_or_problem(&self, name: &str) -> Result<usize, String> {
        let known = || self.names.iter().map(String::as_str);
        self.id(name).ok_or_else(|| {
            let near = suggestion(name, known());
            format!("unknown label \"{name}\"{near}; known are {}", listed(known()))
        })
    }
}

fn integer(name: &str) -> Option<i64> {
    name.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::datasets::testing::fails;

    #[test]
    fn found_labels_are_sorted_by_value_or_as_text() {
        for (found, expected) in [
            (vec!["2", "10", "-1", "2"], vec!["-1", "2", "10"]),
            (vec!["2", "10", "x"], vec!["10", "2", "x"]),
            (vec!["O", "I-PER", "B-PER", "O"], vec!["B-PER", "I-PER", "O"]),
        ] {
            let labels = Labels::found(found).unwrap();
            assert_eq!(labels.names(), expected);
            for (id, name) in expected.iter().enumerate() {
                assert_eq!((labels.id(name), labels.name(id)), (Some(id), Some(*name)));
            }
            assert_eq!(labels.name(labels.len()), None);
        }
        assert_eq!(Labels::found(["b", "a"]).unwrap().id("0"), None, "an order nobody gave");
    }

    #[test]
    fn given_labels_keep_their_order_and_may_be_numbers_in_the_data() {
        let labels = Labels::given(["entailment", "neutral", "contradiction"]).unwrap();
        assert_eq!((labels.id("contradiction"), labels.id("2"), labels.id("3")), (Some(2), Some(2), None));
        let labels = Labels::given(["1", "0"]).unwrap();
        assert_eq!((labels.id("1"), labels.id("0")), (Some(0), Some(1)), "numbers are names here");
        let labels = Labels::given(["none", "7"]).unwrap();
        assert_eq!((labels.id("0"), labels.id("7")), (None, Some(1)));
    }

    #[test]
    fn lists_that_are_none() {
        fails(Labels::given(["a", "b", "a"]), &["labels", "\"a\" occurs twice"]);
        fails(Labels::given(["a", ""]), &["empty"]);
        fails(Labels::given(Vec::<String>::new()), &["at least one"]);
        fails(Labels::found([]), &["at least one"]);
        let problem = Labels::given(["positive", "negative"]).unwrap().id_or_problem("Positve").unwrap_err();
        assert!(problem.contains("did you mean \"positive\"?") && problem.contains("\"negative\""), "{problem}");
    }
}
