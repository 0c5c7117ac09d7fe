//! Labels and their indices.
//!
//! Data contain labels as names or as numbers. These rules apply to all formats and commands:
//! - **Canonical form.** White space around a label is ignored. Numbers are compared by value: `1`, `1.0`, `01` and `1e0` are one
//!   label, and so are `0` and `-0.0`. `true`, `True` and `TRUE` are one label; they are not 1.
//! - **Missing values are not labels**: the empty text, `NaN`, `null`, `None`, `NA`, `N/A`, `<NA>` and `NaT`, unless the caller gives a label of this name or the
//!   model has it.
//! - **Numbers as labels.** If the name of any label is a number, numbers in the data are names. Else the number `i` is label `i` in the
//!   order of the data set preset (GLUE's) or in the order of the caller's labels; among `LABEL_0`, `LABEL_1`, … it is the one with this
//!   number. Else it is label `i` of the model, which is an assumption that [`Labels::is_assumed`] reports.

use std::collections::{BTreeSet, HashMap};

use super::{quoted_list, suggestion};
use crate::TaskError;

/// The labels of a task in the order of a classifier's outputs: output `i` belongs to label `i`.
///
/// ```
/// use cloze_tasks::datasets::labels::Labels;
/// let labels = Labels::from_names(["negative", "positive"])?;
/// assert_eq!(labels.id("positive"), Some(1));
/// assert_eq!(labels.id("1"), Some(1)); // As in GLUE's SST-2.
/// let found = Labels::from_data(["10", "9", "10.0"])?;
/// assert_eq!(found.names(), ["9", "10"]);
/// # Ok::<(), cloze_tasks::TaskError>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Labels {
    names: Vec<String>,
    /// The index of each name.
    exact: HashMap<String, usize>,
    /// The index of each canonical form; none if several names have it.
    by_canonical: HashMap<String, Option<usize>>,
    numbers: Numbers,
}

/// The meaning of integers in the data.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Numbers {
    /// The name of a label.
    Names,
    /// A number in a known order; the vector maps it to the label's index.
    Order(Vec<usize>),
    /// The index of a label, which is an assumption.
    Positions,
}

impl Labels {
    /// Labels in the order that the caller gives. Data may contain a label as its number in this order.
    ///
    /// # Errors
    /// [`TaskError::Setting`] for an empty list, an empty label and two labels with the same canonical form.
    pub fn from_names<S: Into<String>>(names: impl IntoIterator<Item = S>) -> Result<Labels, TaskError> {
        let names: Vec<String> = names.into_iter().map(|name| name.into().trim().to_owned()).collect();
        let order = (0..names.len()).collect();
        let labels = Labels::new(names, Numbers::Order(order))?;
        match labels.names.iter().find(|name| labels.by_canonical.get(&canonical(name)) == Some(&None)) {
            Some(name) => Err(TaskError::setting(
                "labels",
                format!("expected distinct labels; \"{name}\" is the same number as another label"),
            )),
            None => Ok(labels),
        }
    }

    /// The labels of a model. `known` are the labels of the data set preset in its order, if there is one.
    ///
    /// # Errors
    /// [`TaskError::Setting`] for an empty list, an empty label and duplicate labels.
    pub fn from_model(names: &[String], known: &[&str]) -> Result<Labels, TaskError> {
        let known: Vec<String> = known.iter().map(|name| (*name).to_owned()).collect();
        let placeholders: Option<Vec<usize>> = names.iter().map(|name| placeholder_number(name)).collect();
        let by_number = placeholders.and_then(|numbers| {
            (0..numbers.len()).map(|number| numbers.iter().position(|other| *other == number)).collect()
        });
        let places = match_labels(names, &known);
        let numbers = by_number.or_else(|| places.clone()).map_or(Numbers::Positions, Numbers::Order);
        let mut labels = Labels::new(names.to_vec(), numbers)?;
        // The data of a preset have the preset's names: MNLI's "entailment" for a model's "ENTAILMENT".
        for (name, place) in known.into_iter().zip(places.into_iter().flatten()) {
            labels.exact.entry(name).or_insert(place);
        }
        Ok(labels)
    }

    /// The distinct labels of data in canonical form, sorted by value if all are integers, else as text. Missing values
    /// are ignored.
    ///
    /// # Errors
    /// [`TaskError::Setting`] if there are no labels.
    pub fn from_data<'a>(labels: impl IntoIterator<Item = &'a str>) -> Result<Labels, TaskError> {
        let present = labels.into_iter().filter(|label| !is_missing(label));
        let distinct: BTreeSet<String> = present.map(canonical).collect();
        let mut names: Vec<String> = distinct.into_iter().collect();
        if names.iter().all(|name| integer(name).is_some()) {
            names.sort_by_key(|name| integer(name));
        }
        Labels::new(names, Numbers::Names)
    }

    fn new(names: Vec<String>, numbers: Numbers) -> Result<Labels, TaskError> {
        let invalid = |problem: String| Err(TaskError::Setting { name: "labels", problem });
        if names.is_empty() {
            return invalid("expected at least one label, found none".into());
        }
        let (mut exact, mut by_canonical) = (HashMap::new(), HashMap::new());
        for (id, name) in names.iter().enumerate() {
            if name.is_empty() {
                return invalid("expected a name for each label, found an empty one".into());
            }
            if exact.insert(name.clone(), id).is_some() {
                return invalid(format!("expected distinct labels, found \"{name}\" twice"));
            }
            by_canonical.entry(canonical(name)).and_modify(|known| *known = None).or_insert(Some(id));
        }
        let numbers = if names.iter().any(|name| number(name).is_some()) { Numbers::Names } else { numbers };
        Ok(Labels { names, exact, by_canonical, numbers })
    }

    /// The names, by index.
    pub fn names(&self) -> &[String] {
        &self.names
    }

    /// The number of labels, at least one.
    #[expect(clippy::len_without_is_empty, reason = "never empty")]
    pub fn len(&self) -> usize {
        self.names.len()
    }

    /// The index of a label as it is in the data.
    pub fn id(&self, written: &str) -> Option<usize> {
        self.by_name(written).or_else(|| match &self.numbers {
            Numbers::Names => None,
            Numbers::Order(places) => places.get(parse_index(written)?).copied(),
            Numbers::Positions => parse_index(written).filter(|position| *position < self.names.len()),
        })
    }

    fn by_name(&self, written: &str) -> Option<usize> {
        let written = written.trim();
        self.exact.get(written).copied().or_else(|| self.by_canonical.get(&canonical(written)).copied().flatten())
    }

    /// Whether there is a label with this name, compared in canonical form.
    pub(crate) fn has_name(&self, written: &str) -> bool {
        self.by_name(written).is_some()
    }

    /// Whether a label of the data is a number that is only assumed to be an index in the model's order.
    pub fn is_assumed(&self, written: &str) -> bool {
        self.numbers == Numbers::Positions && self.by_name(written).is_none() && self.id(written).is_some()
    }

    /// The name of the label with this index.
    pub fn name(&self, id: usize) -> Option<&str> {
        self.names.get(id).map(String::as_str)
    }

    /// The index of a label of the data, or the problem with a list of the known labels.
    pub(crate) fn id_or_problem(&self, written: &str) -> Result<usize, String> {
        let known = || self.names.iter().map(String::as_str);
        self.id(written).ok_or_else(|| {
            if is_missing(written) {
                return format!("expected a label among {}, found the missing value \"{written}\"; if it is a label, list all labels in `labels`", quoted_list(known()));
            }
            if self.by_canonical.get(&canonical(written)) == Some(&None) {
                return format!("\"{written}\" is the same number as several labels; known labels: {}", quoted_list(known()));
            }
            self.unknown(written)
        })
    }

    /// The problem of an unknown label, with a list of the known labels.
    pub(crate) fn unknown(&self, written: &str) -> String {
        let known = || self.names.iter().map(String::as_str);
        let near = suggestion(written, known());
        format!("unknown label \"{written}\"{near}; known labels: {}", quoted_list(known()))
    }

    /// The first labels with their indices, for a note: `0 = neg, 1 = pos`.
    pub(crate) fn positions(&self) -> String {
        let mut shown: Vec<String> =
            self.names.iter().enumerate().take(4).map(|(id, name)| format!("{id} = {name}")).collect();
        if self.names.len() > shown.len() {
            shown.push("…".to_owned());
        }
        shown.join(", ")
    }
}

/// Whether a label of the data is a missing value.
pub fn is_missing(written: &str) -> bool {
    let written = written.trim();
    let unsigned = written.strip_prefix(['-', '+']).unwrap_or(written);
    unsigned.eq_ignore_ascii_case("nan")
        || ["", "null", "Null", "NULL", "None", "NA", "N/A", "n/a", "#N/A", "<NA>", "NaT"].contains(&written)
}

/// The canonical form of a label: trimmed, with numbers in their shortest form.
pub fn canonical(written: &str) -> String {
    let written = written.trim();
    match written {
        "True" | "TRUE" => "true".to_owned(),
        "False" | "FALSE" => "false".to_owned(),
        _ => number(written).unwrap_or_else(|| written.to_owned()),
    }
}

/// For each label of `to` its index in `from`, if both lists have the same labels. They are compared by name, else by
/// value, else case-insensitively. `LABEL_1` equals the number 1.
pub(crate) fn match_labels(from: &[String], to: &[String]) -> Option<Vec<usize>> {
    let numbered = |name: &str| placeholder_number(name).map_or_else(|| canonical(name), |number| number.to_string());
    let keys: [&dyn Fn(&str) -> String; 4] =
        [&|name| name.to_owned(), &canonical, &|name| canonical(name).to_lowercase(), &numbered];
    keys.into_iter().find_map(|key| {
        let places: HashMap<String, usize> = from.iter().enumerate().map(|(place, name)| (key(name), place)).collect();
        let found: Vec<usize> = to.iter().map(|name| places.get(&key(name)).copied()).collect::<Option<_>>()?;
        let distinct: BTreeSet<&usize> = found.iter().collect();
        (distinct.len() == from.len() && from.len() == to.len()).then_some(found)
    })
}

/// The number in a placeholder name of Transformers: 1 for `LABEL_1`. None for other names.
pub(crate) fn placeholder_number(name: &str) -> Option<usize> {
    parse_index(name.strip_prefix("LABEL_")?)
}

/// The shortest form of a number; none for text that is not a number.
fn number(text: &str) -> Option<String> {
    let (is_negative, digits) = match text.strip_prefix('-') {
        Some(digits) => (true, digits),
        None => (false, text.strip_prefix('+').unwrap_or(text)),
    };
    // Not names of numbers, such as "inf".
    let numeric = |byte: u8| byte.is_ascii_digit() || matches!(byte, b'.' | b'e' | b'E' | b'+' | b'-');
    if !digits.starts_with(|first: char| first.is_ascii_digit() || first == '.') || !digits.bytes().all(numeric) {
        return None;
    }
    // Integers of any length keep all their digits.
    let (integral, fraction) = digits.split_once('.').unwrap_or((digits, ""));
    if !integral.is_empty() && integral.bytes().all(|b| b.is_ascii_digit()) && fraction.bytes().all(|b| b == b'0') {
        return Some(match integral.trim_start_matches('0') {
            "" => "0".to_owned(),
            integral if is_negative => format!("-{integral}"),
            integral => integral.to_owned(),
        });
    }
    let value: f64 = text.parse().ok().filter(|value: &f64| value.is_finite())?;
    // Not "-0".
    Some(if value == 0.0 { "0".to_owned() } else { value.to_string() })
}

fn integer(name: &str) -> Option<i64> {
    name.parse().ok()
}

/// Parses a label of the data as an index: an integer from 0.
pub(crate) fn parse_index(written: &str) -> Option<usize> {
    number(written.trim())?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::datasets::testing::fails;

    fn owned(names: &[&str]) -> Vec<String> {
        names.iter().map(|name| (*name).to_owned()).collect()
    }

    #[test]
    fn found_labels_are_sorted_by_value_or_as_text() {
        for (found, expected) in [
            (vec!["2", "10", "-1", "2"], vec!["-1", "2", "10"]),
            (vec!["2", "10", "x"], vec!["10", "2", "x"]),
            (vec!["O", "I-PER", "B-PER", "O"], vec!["B-PER", "I-PER", "O"]),
        ] {
            let labels = Labels::from_data(found).unwrap();
            assert_eq!(labels.names(), expected);
            for (id, name) in expected.iter().enumerate() {
                assert_eq!((labels.id(name), labels.name(id)), (Some(id), Some(*name)));
            }
            assert_eq!(labels.name(labels.len()), None);
        }
        assert_eq!(Labels::from_data(["b", "a"]).unwrap().id("0"), None, "no order was given");
    }

    #[test]
    fn given_labels_keep_their_order_and_may_be_numbers_in_the_data() {
        let labels = Labels::from_names(["entailment", " neutral", "contradiction"]).unwrap();
        assert_eq!((labels.id("contradiction"), labels.id("2"), labels.id("3")), (Some(2), Some(2), None));
        assert_eq!((labels.id(" neutral "), labels.is_assumed("2")), (Some(1), false));
        let labels = Labels::from_names(["1", "0"]).unwrap();
        assert_eq!((labels.id("1"), labels.id("0")), (Some(0), Some(1)), "numbers are names here");
        let labels = Labels::from_names(["none", "7"]).unwrap();
        assert_eq!((labels.id("0"), labels.id("7")), (None, Some(1)));
    }

    #[test]
    fn r25_equal_numbers_are_one_label() {
        for (written, expected) in [
            ("1", "1"),
            ("1.0", "1"),
            ("01", "1"),
            ("1e0", "1"),
            ("+1", "1"),
            ("1.", "1"),
            (" 1 ", "1"),
            ("0", "0"),
            ("-0.0", "0"),
            ("-0", "0"),
            ("0e5", "0"),
            ("-02.00", "-2"),
            ("0.50", "0.5"),
            (".5", "0.5"),
            ("5e-1", "0.5"),
            ("1e2", "100"),
            ("12345678901234567890123", "12345678901234567890123"),
            ("True", "true"),
            ("FALSE", "false"),
            ("1_000", "1_000"),
            ("0x10", "0x10"),
            ("inf", "inf"),
            ("1,5", "1,5"),
            ("1-2", "1-2"),
            ("e1", "e1"),
            ("-", "-"),
        ] {
            assert_eq!(canonical(written), expected, "{written}");
        }
        assert_eq!(Labels::from_data(["1", "1.0", "01", "1e0", "-0.0", "0"]).unwrap().names(), ["0", "1"]);
        assert_eq!(Labels::from_data(["true", "True", "FALSE"]).unwrap().names(), ["false", "true"]);
        // Names of a model whose labels were written by pandas.
        let labels = Labels::from_model(&owned(&["1.0", "2.0"]), &[]).unwrap();
        assert_eq!((labels.id("1"), labels.id("2.0"), labels.id("0")), (Some(0), Some(1), None), "by value");
        let labels = Labels::from_model(&owned(&["False", "True"]), &[]).unwrap();
        assert_eq!((labels.id("true"), labels.id("1")), (Some(1), Some(1)));
        // A model of an early version, in which 1 and 1.0 were different labels.
        let labels = Labels::from_model(&owned(&["0", "1", "1.0"]), &[]).unwrap();
        assert_eq!((labels.id("1"), labels.id("1.0")), (Some(1), Some(2)));
        assert!(labels.id_or_problem("01").unwrap_err().contains("same number as several labels"));
        fails(Labels::from_names(["1", "1.0"]), &["`labels`", "same number"]);
    }

    #[test]
    fn r26_numbers_are_labels_in_a_known_order_or_assumed_indices() {
        let names = owned(&["contradiction", "entailment", "neutral"]);
        let mnli = ["entailment", "neutral", "contradiction"];
        let labels = Labels::from_model(&names, &mnli).unwrap();
        assert_eq!([labels.id("0"), labels.id("1"), labels.id("2.0")], [Some(1), Some(2), Some(0)]);
        assert!(!labels.is_assumed("0"));
        let labels = Labels::from_model(&names, &[]).unwrap();
        assert_eq!([labels.id("0"), labels.id("2"), labels.id("3")], [Some(0), Some(2), None]);
        assert!(labels.is_assumed("0") && !labels.is_assumed("neutral") && !labels.is_assumed("3"));
        assert_eq!(labels.positions(), "0 = contradiction, 1 = entailment, 2 = neutral");
        // Names that differ from the preset's in case.
        let labels = Labels::from_model(&owned(&["CONTRADICTION", "NEUTRAL", "ENTAILMENT"]), &mnli).unwrap();
        assert_eq!([labels.id("0"), labels.id("contradiction"), labels.id("Neutral")], [Some(2), Some(0), None]);
        // The names of a different data set give no order.
        assert!(Labels::from_model(&names, &["negative", "positive"]).unwrap().is_assumed("1"));
        let labels = Labels::from_model(&owned(&["LABEL_1", "LABEL_0"]), &[]).unwrap();
        assert_eq!((labels.id("0"), labels.id("1"), labels.is_assumed("1")), (Some(1), Some(0), false));
    }

    #[test]
    fn r27_missing_values_are_not_labels() {
        for missing in ["", " ", "NaN", "nan", "-nan", "null", "NULL", "None", "NA", "N/A", "<NA>"] {
            assert!(is_missing(missing), "{missing}");
        }
        for label in ["none", "NONE", "na", "0", "nano"] {
            assert!(!is_missing(label), "{label}");
        }
        let labels = Labels::from_data(["pos", "NaN", "null", "neg"]).unwrap();
        assert_eq!(labels.names(), ["neg", "pos"]);
        assert!(labels.id_or_problem("NaN").unwrap_err().contains("missing value"));
        assert_eq!(
            Labels::from_names(["None", "some"]).unwrap().id("None"),
            Some(0),
            "a label because its name was given"
        );
    }

    #[test]
    fn n1_labels_of_two_heads_are_matched_by_name() {
        let same = |from: &[&str], to: &[&str]| match_labels(&owned(from), &owned(to));
        assert_eq!(same(&["c", "e", "n"], &["e", "n", "c"]), Some(vec![1, 2, 0]));
        assert_eq!(same(&["NEG", "POS"], &["pos", "neg"]), Some(vec![1, 0]));
        assert_eq!(same(&["1.0", "0.0"], &["0", "1"]), Some(vec![1, 0]));
        assert_eq!(same(&["LABEL_0", "LABEL_1"], &["1", "0"]), Some(vec![1, 0]));
        assert_eq!(same(&["a", "A"], &["A", "a"]), Some(vec![1, 0]), "exact names take precedence");
        for (from, to) in [(["neg", "pos"], ["ham", "spam"]), (["a", "b"], ["a", "c"]), (["a", "A"], ["a", "b"])] {
            assert_eq!(same(&from, &to), None);
        }
        assert_eq!(same(&["a", "b", "c"], &["a", "b"]), None);
        assert_eq!(same(&["a"], &["a", "a"]), None);
    }

    #[test]
    fn invalid_lists_are_errors() {
        fails(Labels::from_names(["a", "b", "a"]), &["`labels`", "found \"a\" twice"]);
        fails(Labels::from_names(["a", ""]), &["empty"]);
        fails(Labels::from_names(Vec::<String>::new()), &["at least one"]);
        fails(Labels::from_data([]), &["at least one"]);
        let problem = Labels::from_names(["positive", "negative"]).unwrap().id_or_problem("Positve").unwrap_err();
        assert!(problem.contains("did you mean \"positive\"?") && problem.contains("\"negative\""), "{problem}");
    }
}
