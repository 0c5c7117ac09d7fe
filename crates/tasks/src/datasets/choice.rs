//! Multiple choice: a context and several choices, one of which is correct.

use std::path::{Path, PathBuf};

use serde_json::{Map, Value};

use super::format::DataFile;
use super::labels::{is_missing, parse_index};
use super::table::{Column, RaggedRows, Row, TableFile, kind};
use super::{LabelsNeeded, quoted_list};
use crate::TaskError;
use crate::task::FileRows;

/// One context with its choices.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Choice {
    /// The context (SWAG's `sent1`, a paragraph), or the question.
    pub context: String,
    /// The text before each choice (SWAG's `sent2`, the question about a paragraph); may be empty.
    pub ending_prefix: String,
    /// The choices, without the prefix.
    pub endings: Vec<String>,
    /// The index of the correct choice; none if it is not known.
    pub label: Option<usize>,
    /// The line where it starts, from 1; in a Parquet file the row.
    pub line: usize,
}

/// A choice with its label as it is in the file.
#[derive(Clone, Debug)]
struct RawChoice {
    choice: Choice,
    /// The file's own labels of the choices, if it has any: ARC's `choices.label`.
    keys: Vec<String>,
    label: Option<String>,
}

impl Choice {
    /// Parses the choice of a JSON object; its label is ignored.
    pub(crate) fn of_object(object: Map<String, Value>) -> Result<Choice, String> {
        Ok(RawChoice::of_object(object, 1)?.choice)
    }
}

/// The choices of one file; at least one row.
#[derive(Debug)]
pub struct Choices {
    path: PathBuf,
    need: LabelsNeeded,
    rows: FileRows<RawChoice>,
}

/// Keys of the first text, in order of preference.
const CONTEXTS: [&str; 4] = ["context", "ctx", "article", "passage"];
/// Keys of a question. Without a context the question is the context; else it is the prefix of each choice.
const QUESTIONS: [&str; 2] = ["question", "question_stem"];
/// Keys of the list of choices, in order of preference.
const ENDINGS: [&str; 3] = ["choices", "endings", "options"];
/// Keys of the correct choice, in order of preference.
const LABELS: [&str; 3] = ["answerKey", "label", "answer"];
/// Prefixes of the names of columns with one choice each, and the number of the first column.
const CHOICE_COLUMNS: [(&str, usize); 5] = [("ending", 0), ("choice", 0), ("choice", 1), ("option", 0), ("option", 1)];

impl Choices {
    /// Reads a file of choices. It is a table with a column for each choice (SWAG: `sent1` or `startphrase`, `sent2`,
    /// `ending0`, `ending1`, …; or `choice1`, …; or `option1`, …), or JSON objects or Parquet rows with a list of
    /// choices (`context`, `ctx`, `article` or `passage`, or `question`; `choices`, `endings` or `options`;
    /// `ending_prefix`). Rows may have different numbers of choices.
    ///
    /// The correct choice is in `answerKey`, `label` or `answer`: the file's own label of the choice (ARC's
    /// `choices.label`), its letter (A is the first), its number (see [`first_number`](Self::first_number)) or its
    /// text. With [`LabelsNeeded::Optional`] it may be missing. A row with fewer than two choices is a
    /// [`TaskError::Line`] in its position.
    ///
    /// # Errors
    /// Those of [`Table::open`](super::table::Table::open); [`TaskError::File`] for a table without choices.
    pub fn read<'a>(file: impl Into<DataFile<'a>>, need: LabelsNeeded) -> Result<Choices, TaskError> {
        let file = file.into();
        let path = file.path;
        let file = TableFile::open(file)?;
        let names = file.names()?;
        let has_list = names.iter().any(|name| {
            let name = name.split('.').next().unwrap_or_default();
            ENDINGS.contains(&name) || QUESTIONS.contains(&name)
        });
        let rows = match choice_columns(|name| names.iter().any(|other| other == name)) {
            Some(columns) => rows_of_columns(&file, &names, columns)?,
            None if has_list || file.is_json() => {
                let keys = [&CONTEXTS[..], &QUESTIONS, &ENDINGS, &LABELS, &["ending_prefix"]].concat();
                let raw = |row: Result<(usize, Map<String, Value>), TaskError>| {
                    let (line, object) = row?;
                    RawChoice::of_object(object, line).map_err(|problem| TaskError::line(path, line, problem))
                };
                file.objects(&keys)?.into_iter().map(raw).collect()
            }
            None => {
                let names = quoted_list(names.iter().map(String::as_str));
                let problem = format!(
                    "expected a column \"ending0\" (SWAG: sent1, sent2, ending0, …) or a list of choices; the columns are {names}"
                );
                return Err(TaskError::file(path, problem));
            }
        };
        let check = |row: Result<RawChoice, TaskError>| {
            let raw = row?;
            match raw.choice.endings.len() {
                found @ 0..2 => {
                    Err(TaskError::line(path, raw.choice.line, format!("expected at least two choices, found {found}")))
                }
                _ => Ok(raw),
            }
        };
        Ok(Choices { path: path.to_owned(), need, rows: rows.into_iter().map(check).collect() })
    }

    /// The file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The number of the first choice in numeric labels: 0 if a label is 0; 1 if no label is 0 and a row's label equals
    /// its number of choices. None if the labels do not determine it, or are not numbers.
    pub fn first_number(&self) -> Option<usize> {
        let labels = || self.numbers();
        if labels().any(|(number, _)| number == 0) {
            Some(0)
        } else {
            labels().any(|(number, choices)| number == choices).then_some(1)
        }
    }

    /// Whether any label is a number.
    pub fn has_numbers(&self) -> bool {
        self.numbers().next().is_some()
    }

    /// The numeric labels, each with the number of choices of its row.
    fn numbers(&self) -> impl Iterator<Item = (usize, usize)> {
        let number = |raw: &RawChoice| {
            let number = parse_index(raw.label.as_deref().filter(|_| raw.keys.is_empty())?)?;
            Some((number, raw.choice.endings.len()))
        };
        self.rows.iter().flatten().filter_map(number)
    }

    /// The choices, in order. `first` is the number of the first choice in numeric labels. A label that is not one of
    /// the choices, or that is missing although it is required, is a [`TaskError::Line`] in the row's position.
    pub fn into_rows(self, first: usize) -> FileRows<Choice> {
        let Choices { path, need, rows } = self;
        let choice = |row: Result<RawChoice, TaskError>| {
            let raw = row?;
            let label = match raw.label_index(first) {
                Ok(label) => label,
                // A label that is not needed may have any value, such as the -1 of Hugging Face's test sets.
                Err(_) if need == LabelsNeeded::Optional => None,
                Err(problem) => return Err(TaskError::line(&path, raw.choice.line, problem)),
            };
            if label.is_none() && need == LabelsNeeded::Required {
                let problem = "no label; expected the number, letter or text of the correct choice";
                return Err(TaskError::line(&path, raw.choice.line, problem));
            }
            Ok(Choice { label, ..raw.choice })
        };
        rows.into_iter().map(choice).collect()
    }
}

impl RawChoice {
    /// Parses an object with a list of choices, or with one key for each choice.
    fn of_object(mut object: Map<String, Value>, line: usize) -> Result<RawChoice, String> {
        if let Some(columns) = choice_columns(|name| object.contains_key(name)) {
            let endings: Vec<Value> = columns.iter().filter_map(|name| object.remove(name)).collect();
            // As in a table: the start phrase contains the prefix.
            let moved = match object.remove("sent1") {
                Some(context) => [("context", Some(context)), ("ending_prefix", object.remove("sent2"))],
                None => [("context", object.remove("startphrase")), ("choices", None)],
            };
            let choices = ("choices", Some(endings.into()));
            object.extend(moved.into_iter().chain([choices]).filter_map(|(key, value)| Some((key.to_owned(), value?))));
        }
        // In CommonsenseQA's original files the choices are inside the question.
        let question = object.get_mut("question").and_then(Value::as_object_mut).map(std::mem::take);
        if let Some(mut question) = question {
            object.insert("question".to_owned(), question.remove("stem").unwrap_or_default());
            object.extend(question.remove("choices").map(|choices| ("choices".to_owned(), choices)));
        }
        let mut take = |keys: &[&'static str]| {
            let key = keys.iter().find(|key| object.get(**key).is_some_and(|value| !value.is_null()))?;
            object.remove(*key).map(|value| (*key, value))
        };
        let string = |found: Option<(&str, Value)>| match found {
            None => Ok(None),
            Some((_, Value::String(text))) => Ok(Some(text)),
            Some((key, other)) => Err(format!("\"{key}\" is {}, expected a string", kind(&other))),
        };
        let (context, question) = (string(take(&CONTEXTS))?, string(take(&QUESTIONS))?);
        let prefix = string(take(&["ending_prefix"]))?;
        let (context, before) = match (context, question) {
            (Some(context), question) => (context, question),
            (None, Some(question)) => (question, None),
            (None, None) => {
                return Err(format!(
                    "no context; expected one of the keys {}",
                    quoted_list([&CONTEXTS[..], &QUESTIONS].concat())
                ));
            }
        };
        let ending_prefix =
            before.into_iter().chain(prefix).filter(|text| !text.is_empty()).collect::<Vec<_>>().join(" ");
        let Some((key, value)) = take(&ENDINGS) else {
            return Err(format!("no choices; expected a list under one of the keys {}", quoted_list(ENDINGS)));
        };
        let (endings, keys) = choices_of(key, value)?;
        let label = match take(&LABELS) {
            None => None,
            Some((_, Value::String(text))) => Some(text),
            Some((_, Value::Number(number))) => Some(number.to_string()),
            Some((key, other)) => {
                return Err(format!("\"{key}\" is {}, expected a choice's number, letter or text", kind(&other)));
            }
        };
        Ok(RawChoice { choice: Choice { context, ending_prefix, endings, label: None, line }, keys, label })
    }

    /// The index of the correct choice; numeric labels start at `first`.
    fn label_index(&self, first: usize) -> Result<Option<usize>, String> {
        let Some(label) = self.label.as_deref().map(str::trim).filter(|label| !is_missing(label)) else {
            return Ok(None);
        };
        let endings = &self.choice.endings;
        if let Some(place) = self.keys.iter().position(|key| key.trim().eq_ignore_ascii_case(label)) {
            return Ok(Some(place));
        }
        let letter = match label.as_bytes() {
            [letter] if letter.is_ascii_alphabetic() => Some(usize::from(letter.to_ascii_uppercase() - b'A')),
            _ => None,
        };
        let number = parse_index(label).and_then(|number| number.checked_sub(first));
        let by_place = number.or(letter).filter(|place| *place < endings.len() && self.keys.is_empty());
        let by_text: Vec<usize> = (0..endings.len()).filter(|place| endings[*place].trim() == label).collect();
        match (by_place, &by_text[..]) {
            (Some(place), [text]) if place != *text => Err(format!(
                "label \"{label}\" is ambiguous: it is the number or letter of one choice and the text of another; expected a label that is only one of them"
            )),
            (Some(place), _) | (None, &[place]) => Ok(Some(place)),
            (None, []) if !self.keys.is_empty() => {
                let keys = quoted_list(self.keys.iter().map(String::as_str));
                Err(format!("label \"{label}\": expected one of the choices' labels, {keys}, or the text of a choice"))
            }
            (None, []) => {
                let last = first + endings.len() - 1;
                Err(format!(
                    "label \"{label}\": expected the number of a choice, {first} to {last}, its letter or its text"
                ))
            }
            (None, _) => {
                Err(format!("label \"{label}\" is the text of several choices; expected a number or a letter"))
            }
        }
    }
}

/// The names of the columns with one choice each, if there are any.
fn choice_columns(has: impl Fn(&str) -> bool) -> Option<Vec<String>> {
    CHOICE_COLUMNS.into_iter().find_map(|(name, first)| {
        let names: Vec<String> =
            (first..).map(|number| format!("{name}{number}")).take_while(|name| has(name)).collect();
        (!names.is_empty()).then_some(names)
    })
}

/// The texts of the choices and the file's labels for them. The value is a list of texts, `{"text": […], "label":
/// […]}`, or a list of `{"text": …, "label": …}`.
fn choices_of(key: &str, value: Value) -> Result<(Vec<String>, Vec<String>), String> {
    let texts = |value: Value| -> Result<Vec<String>, String> {
        serde_json::from_value(value).map_err(|e| format!("\"{key}\": {e}; expected a list of strings"))
    };
    let mut lists = match value {
        Value::Array(list) if list.first().is_some_and(Value::is_object) => {
            let column = |name: &str| list.iter().map(|choice| choice.get(name).cloned().unwrap_or_default()).collect();
            [("text", Value::Array(column("text"))), ("label", Value::Array(column("label")))]
                .map(|(n, v)| (n.to_owned(), v))
                .into_iter()
                .collect()
        }
        Value::Object(lists) => lists,
        list => return Ok((texts(list)?, Vec::new())),
    };
    let (endings, keys) = (texts(lists.remove("text").unwrap_or_default())?, lists.remove("label"));
    let keys = keys.map(texts).transpose()?.unwrap_or_default();
    if !keys.is_empty() && keys.len() != endings.len() {
        return Err(format!(
            "\"{key}\" has {} texts and {} labels; expected the same number",
            endings.len(),
            keys.len()
        ));
    }
    Ok((endings, keys))
}

fn rows_of_columns(file: &TableFile, names: &[String], endings: Vec<String>) -> Result<FileRows<RawChoice>, TaskError> {
    let first_of =
        |candidates: &[&'static str]| candidates.iter().copied().find(|name| names.iter().any(|other| other == name));
    let swag = first_of(&["sent1", "startphrase"]);
    let others = [&CONTEXTS[..], &QUESTIONS].concat();
    let context = swag.or_else(|| first_of(&others)).unwrap_or("sent1");
    let mut required = vec![Column::name(context)];
    required.extend(endings.into_iter().map(|name| Column::Name(name.into())));
    // The start phrase contains the prefix; a question about a context is a prefix.
    let prefix = match context {
        "sent1" => "sent2",
        _ if CONTEXTS.contains(&context) => first_of(&QUESTIONS).unwrap_or("ending_prefix"),
        _ => "ending_prefix",
    };
    let optional = [Column::name(prefix), Column::name(first_of(&LABELS).unwrap_or("label"))];
    let table = file.table(&required, &optional, &[], RaggedRows::Error)?;
    let raw = |row: Result<Row, TaskError>| {
        let row = row?;
        let mut cells = row.cells.into_iter();
        let context = cells.next().unwrap_or_default();
        // Rows with fewer choices than others have empty cells at the end.
        let mut endings: Vec<String> = cells.collect();
        while endings.last().is_some_and(|ending| ending.trim().is_empty()) {
            endings.pop();
        }
        let mut optional = row.optional.into_iter();
        let ending_prefix = optional.next().flatten().unwrap_or_default();
        let label = optional.next().flatten();
        let choice = Choice { context, ending_prefix, endings, label: None, line: row.line };
        Ok(RawChoice { choice, keys: Vec::new(), label })
    };
    Ok(table.into_rows().into_iter().map(raw).collect())
}

#[cfg(test)]
mod tests;
