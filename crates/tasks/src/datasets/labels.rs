//! Labels and their numbers.
//!
//! Data write a label as its name, or as a number. These rules hold for every format and every command:
//!
//! - **One spelling.** White space around a label does not count. Numbers are compared by value: `1`, `1.0`, `01` and `1e0` are one
//!   label, and so are `0` and `-0.0`. `true`, `True` and `TRUE` are one label; they are not 1.
//! - **Missing values are not labels**: nothing, `NaN`, `null`, `None`, `NA`, `N/A`, `<NA>` and `NaT`, unless a label of this name is given or the
//!   model has one.
//! - **Numbers for names.** If a label's name is a number, numbers in the data are names. Else the number `i` is the label `i` of the
//!   known task's order (GLUE's), or of the order that was given with the labels; of `LABEL_0`, `LABEL_1`, … it is the one with that
//!   number. Else it is the label at position `i` of the model, which is an assumption that [`Labels::is_assumed`] reports.

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
/// let found = Labels::found(["10", "9", "10.0"])?;
/// assert_eq!(found.names(), ["9", "10"]);
/// # Ok::<(), cloze_tasks::TaskError>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Labels {
    names: Vec<String>,
    /// By the names as they are.
    exact: HashMap<String, usize>,
    /// By their one spelling; none where several names share it.
    spelled: HashMap<String, Option<usize>>,
    numbers: Numbers,
}

/// What a whole number in the data stands for.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Numbers {
    /// A label's name.
    Names,
    /// The label of this number in a known order.
    Order(Vec<usize>),
    /// The label at this position, which is assumed.
    Positions,
}

impl Labels {
    /// Labels in an order that somebody gave: data may write a label as its number in it.
    ///
    /// # Errors
    /// [`TaskError::Setting`] for no labels, an empty one and one that occurs twice, in whatever spelling.
    pub fn given<S: Into<String>>(names: impl IntoIterator<Item = S>) -> Result<Labels, TaskError> {
        let names: Vec<String> = names.into_iter().map(|name| name.into().trim().to_owned()).collect();
        let order = (0..names.len()).collect();
        let labels = Labels::new(names, Numbers::Order(order))?;
        match labels.names.iter().find(|name| labels.spelled.get(&spelling(name)) == Some(&None)) {
            Some(name) => Err(TaskError::setting(
                "labels",
                format!("\"{name}\" occurs twice, as the same number; expected each once"),
            )),
            None => Ok(labels),
        }
    }

    /// The labels of a model. `known` are those of a known task in its order, if one is named.
    ///
    /// # Errors
    /// [`TaskError::Setting`] for no labels, an empty one and one that occurs twice.
    pub fn of_model(names: &[String], known: &[&str]) -> Result<Labels, TaskError> {
        let known: Vec<String> = known.iter().map(|name| (*name).to_owned()).collect();
        let placeholders: Option<Vec<usize>> = names.iter().map(|name| placeholder(name)).collect();
        let by_number = placeholders.and_then(|numbers| {
            (0..numbers.len()).map(|number| numbers.iter().position(|other| *other == number)).collect()
        });
        let places = same_labels(names, &known);
        let numbers = by_number.or_else(|| places.clone()).map_or(Numbers::Positions, Numbers::Order);
        let mut labels = Labels::new(names.to_vec(), numbers)?;
        // A known task's data have its own spelling of the names: MNLI's "entailment" for a model's "ENTAILMENT".
        for (name, place) in known.into_iter().zip(places.into_iter().flatten()) {
            labels.exact.entry(name).or_insert(place);
        }
        Ok(labels)
    }

    /// The distinct labels of data in their one spelling, sorted: by value if all are whole numbers, else as text. Missing values are
    /// left out.
    ///
    /// # Errors
    /// [`TaskError::Setting`] for no labels.
    pub fn found<'a>(labels: impl IntoIterator<Item = &'a str>) -> Result<Labels, TaskError> {
        let present = labels.into_iter().filter(|label| !is_missing(label));
        let distinct: BTreeSet<String> = present.map(spelling).collect();
        let mut names: Vec<String> = distinct.into_iter().collect();
        if names.iter().all(|name| integer(name).is_some()) {
            names.sort_by_key(|name| integer(name));
        }
        Labels::new(names, Numbers::Names)
    }

    fn new(names: Vec<String>, numbers: Numbers) -> Result<Labels, TaskError> {
        let wrong = |problem: String| Err(TaskError::Setting { name: "labels", problem });
        if names.is_empty() {
            return wrong("none; expected at least one".into());
        }
        let (mut exact, mut spelled) = (HashMap::new(), HashMap::new());
        for (id, name) in names.iter().enumerate() {
            if name.is_empty() {
                return wrong("one is empty; expected a name for each".into());
            }
            if exact.insert(name.clone(), id).is_some() {
                return wrong(format!("\"{name}\" occurs twice; expected each once"));
            }
            spelled.entry(spelling(name)).and_modify(|known| *known = None).or_insert(Some(id));
        }
        let numbers = if names.iter().any(|name| number(name).is_some()) { Numbers::Names } else { numbers };
        Ok(Labels { names, exact, spelled, numbers })
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

    /// The number of a label as data write it.
    pub fn id(&self, written: &str) -> Option<usize> {
        self.by_name(written).or_else(|| match &self.numbers {
            Numbers::Names => None,
            Numbers::Order(places) => places.get(position(written)?).copied(),
            Numbers::Positions => position(written).filter(|position| *position < self.names.len()),
        })
    }

    fn by_name(&self, written: &str) -> Option<usize> {
        let written = written.trim();
        self.exact.get(written).copied().or_else(|| self.spelled.get(&spelling(written)).copied().flatten())
    }

    /// Whether there is a label of this name, in whatever spelling.
    pub(crate) fn has_name(&self, written: &str) -> bool {
        self.by_name(written).is_some()
    }

    /// Whether a label as data write it is a number that is only assumed to be a position in the model's order.
    pub fn is_assumed(&self, written: &str) -> bool {
        self.numbers == Numbers::Positions && self.by_name(written).is_none() && self.id(written).is_some()
    }

    /// The name of a number.
    pub fn name(&self, id: usize) -> Option<&str> {
        self.names.get(id).map(String::as_str)
    }

    /// The number of a label, or what is wrong with it and which labels there are.
    pub(crate) fn id_or_problem(&self, written: &str) -> Result<usize, String> {
        let known = || self.names.iter().map(String::as_str);
        self.id(written).ok_or_else(|| {
            if is_missing(written) {
                return format!("\"{written}\" is a missing value; expected a label: {} (if it is one, name all labels with --labels)", listed(known()));
            }
            if self.spelled.get(&spelling(written)) == Some(&None) {
                return format!("\"{written}\" is the same number as several labels; known are {}", listed(known()));
            }
            self.unknown(written)
        })
    }

    /// That a label is not known, and which are.
    pub(crate) fn unknown(&self, written: &str) -> String {
        let known = || self.names.iter().map(String::as_str);
        let near = suggestion(written, known());
        format!("unknown label \"{written}\"{near}; known are {}", listed(known()))
    }

    /// The first labels with the numbers that data write for them, for a note: `0 = neg, 1 = pos`.
    pub(crate) fn positions(&self) -> String {
        let mut shown: Vec<String> =
            self.names.iter().enumerate().take(4).map(|(id, name)| format!("{id} = {name}")).collect();
        if self.names.len() > shown.len() {
            shown.push("…".to_owned());
        }
        shown.join(", ")
    }
}

/// Whether a label as data write it is a missing value.
pub fn is_missing(written: &str) -> bool {
    let written = written.trim();
    let unsigned = written.strip_prefix(['-', '+']).unwrap_or(written);
    unsigned.eq_ignore_ascii_case("nan")
        || ["", "null", "Null", "NULL", "None", "NA", "N/A", "n/a", "#N/A", "<NA>", "NaT"].contains(&written)
}

/// The one spelling of a label: without white space around it; numbers as briefly as their value can be written.
pub fn spelling(written: &str) -> String {
    let written = written.trim();
    match written {
        "True" | "TRUE" => "true".to_owned(),
        "False" | "FALSE" => "false".to_owned(),
        _ => number(written).unwrap_or_else(|| written.to_owned()),
    }
}

/// For each label of `to` its place among `from`, if both are the same labels: by name, else by value, else in another case. `LABEL_1`
/// is the number 1.
pub(crate) fn same_labels(from: &[String], to: &[String]) -> Option<Vec<usize>> {
    let numbered = |name: &str| placeholder(name).map_or_else(|| spelling(name), |number| number.to_string());
    let keys: [&dyn Fn(&str) -> String; 4] =
        [&|name| name.to_owned(), &spelling, &|name| spelling(name).to_lowercase(), &numbered];
    keys.into_iter().find_map(|key| {
        let places: HashMap<String, usize> = from.iter().enumerate().map(|(place, name)| (key(name), place)).collect();
        let found: Vec<usize> = to.iter().map(|name| places.get(&key(name)).copied()).collect::<Option<_>>()?;
        let distinct: BTreeSet<&usize> = found.iter().collect();
        (distinct.len() == from.len() && from.len() == to.len()).then_some(found)
    })
}

/// The number of a name that Transformers gives a label without one: `LABEL_1`.
pub(crate) fn placeholder(name: &str) -> Option<usize> {
    position(name.strip_prefix("LABEL_")?)
}

/// A number as briefly as its value can be written; none of text.
fn number(text: &str) -> Option<String> {
    let (is_negative, digits) = match text.strip_prefix('-') {
        Some(digits) => (true, digits),
        None => (false, text.strip_prefix('+').unwrap_or(text)),
    };
    // No names of numbers, such as "inf".
    let numeric = |byte: u8| byte.is_ascii_digit() || matches!(byte, b'.' | b'e' | b'E' | b'+' | b'-');
    if !digits.starts_with(|first: char| first.is_ascii_digit() || first == '.') || !digits.bytes().all(numeric) {
        return None;
    }
    // Whole numbers of any length keep all their digits.
    let (whole, fraction) = digits.split_once('.').unwrap_or((digits, ""));
    if !whole.is_empty() && whole.bytes().all(|b| b.is_ascii_digit()) && fraction.bytes().all(|b| b == b'0') {
        return Some(match whole.trim_start_matches('0') {
            "" => "0".to_owned(),
            whole if is_negative => format!("-{whole}"),
            whole => whole.to_owned(),
        });
    }
    let value: f64 = text.parse().ok().filter(|value: &f64| value.is_finite())?;
    // Not "-0".
    Some(if value == 0.0 { "0".to_owned() } else { value.to_string() })
}

fn integer(name: &str) -> Option<i64> {
    name.parse().ok()
}

/// A label as data write it, as a position: a whole number from 0.
pub(crate) fn position(written: &str) -> Option<usize> {
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
        let labels = Labels::given(["entailment", " neutral", "contradiction"]).unwrap();
        assert_eq!((labels.id("contradiction"), labels.id("2"), labels.id("3")), (Some(2), Some(2), None));
        assert_eq!((labels.id(" neutral "), labels.is_assumed("2")), (Some(1), false));
        let labels = Labels::given(["1", "0"]).unwrap();
        assert_eq!((labels.id("1"), labels.id("0")), (Some(0), Some(1)), "numbers are names here");
        let labels = Labels::given(["none", "7"]).unwrap();
        assert_eq!((labels.id("0"), labels.id("7")), (None, Some(1)));
    }

    #[test]
    fn r25_one_number_is_one_label_however_it_is_written() {
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
            assert_eq!(spelling(written), expected, "{written}");
        }
        assert_eq!(Labels::found(["1", "1.0", "01", "1e0", "-0.0", "0"]).unwrap().names(), ["0", "1"]);
        assert_eq!(Labels::found(["true", "True", "FALSE"]).unwrap().names(), ["false", "true"]);
        // Names of a model that pandas wrote.
        let labels = Labels::of_model(&owned(&["1.0", "2.0"]), &[]).unwrap();
        assert_eq!((labels.id("1"), labels.id("2.0"), labels.id("0")), (Some(0), Some(1), None), "by value");
        let labels = Labels::of_model(&owned(&["False", "True"]), &[]).unwrap();
        assert_eq!((labels.id("true"), labels.id("1")), (Some(1), Some(1)));
        // A model from before 1 and 1.0 were one label.
        let labels = Labels::of_model(&owned(&["0", "1", "1.0"]), &[]).unwrap();
        assert_eq!((labels.id("1"), labels.id("1.0")), (Some(1), Some(2)));
        assert!(labels.id_or_problem("01").unwrap_err().contains("same number as several labels"));
        fails(Labels::given(["1", "1.0"]), &["labels", "occurs twice"]);
    }

    #[test]
    fn r26_numbers_are_labels_of_a_known_order_or_assumed_positions() {
        let names = owned(&["contradiction", "entailment", "neutral"]);
        let mnli = ["entailment", "neutral", "contradiction"];
        let labels = Labels::of_model(&names, &mnli).unwrap();
        assert_eq!([labels.id("0"), labels.id("1"), labels.id("2.0")], [Some(1), Some(2), Some(0)]);
        assert!(!labels.is_assumed("0"));
        let labels = Labels::of_model(&names, &[]).unwrap();
        assert_eq!([labels.id("0"), labels.id("2"), labels.id("3")], [Some(0), Some(2), None]);
        assert!(labels.is_assumed("0") && !labels.is_assumed("neutral") && !labels.is_assumed("3"));
        assert_eq!(labels.positions(), "0 = contradiction, 1 = entailment, 2 = neutral");
        // In another case than the known task's names.
        let labels = Labels::of_model(&owned(&["CONTRADICTION", "NEUTRAL", "ENTAILMENT"]), &mnli).unwrap();
        assert_eq!([labels.id("0"), labels.id("contradiction"), labels.id("Neutral")], [Some(2), Some(0), None]);
        // Another data set's names give no order.
        assert!(Labels::of_model(&names, &["negative", "positive"]).unwrap().is_assumed("1"));
        let labels = Labels::of_model(&owned(&["LABEL_1", "LABEL_0"]), &[]).unwrap();
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
        let labels = Labels::found(["pos", "NaN", "null", "neg"]).unwrap();
        assert_eq!(labels.names(), ["neg", "pos"]);
        assert!(labels.id_or_problem("NaN").unwrap_err().contains("missing value"));
        assert_eq!(Labels::given(["None", "some"]).unwrap().id("None"), Some(0), "named, it is a label");
    }

    #[test]
    fn n1_labels_of_two_heads_are_matched_by_name() {
        let same = |from: &[&str], to: &[&str]| same_labels(&owned(from), &owned(to));
        assert_eq!(same(&["c", "e", "n"], &["e", "n", "c"]), Some(vec![1, 2, 0]));
        assert_eq!(same(&["NEG", "POS"], &["pos", "neg"]), Some(vec![1, 0]));
        assert_eq!(same(&["1.0", "0.0"], &["0", "1"]), Some(vec![1, 0]));
        assert_eq!(same(&["LABEL_0", "LABEL_1"], &["1", "0"]), Some(vec![1, 0]));
        assert_eq!(same(&["a", "A"], &["A", "a"]), Some(vec![1, 0]), "names come before case");
        for (from, to) in [(["neg", "pos"], ["ham", "spam"]), (["a", "b"], ["a", "c"]), (["a", "A"], ["a", "b"])] {
            assert_eq!(same(&from, &to), None);
        }
        assert_eq!(same(&["a", "b", "c"], &["a", "b"]), None);
        assert_eq!(same(&["a"], &["a", "a"]), None);
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
