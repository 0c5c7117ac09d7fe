//! A context and several endings, of which one is right.

use std::path::{Path, PathBuf};

use serde_json::{Map, Value};

use super::table::{Column, RaggedRows, Row, TableFile, kind, objects};
use super::{Need, listed};
use crate::TaskError;
use crate::task::FileRows;

/// One context with its endings.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Choice {
    /// What comes first (SWAG's `sent1`), or the question.
    pub context: String,
    /// What each ending begins with (SWAG's `sent2`); may be empty.
    pub ending_prefix: String,
    /// The endings, without the prefix; as many in each row of a file.
    pub endings: Vec<String>,
    /// The index of the right ending; none if the file has no labels.
    pub label: Option<usize>,
    /// The line where it begins, from 1; in a Parquet file the row.
    pub line: usize,
}

impl Choice {
    /// The choice of one JSON object without regard to labels: with a list of endings, or with SWAG's columns as its keys.
    pub(crate) fn of_object(mut object: Map<String, Value>) -> Result<Choice, String> {
        let flat: Vec<Value> = (0..).map_while(|index| object.remove(&format!("ending{index}"))).collect();
        if !flat.is_empty() {
            // As in a table: the start phrase holds the prefix.
            let moved = match object.remove("sent1") {
                Some(context) => [("context", Some(context)), ("ending_prefix", object.remove("sent2"))],
                None => [("context", object.remove("startphrase")), ("choices", None)],
            };
            let choices = ("choices", Some(flat.into()));
            object.extend(moved.into_iter().chain([choices]).filter_map(|(key, value)| Some((key.to_owned(), value?))));
        }
        choice_of_lists(object, 1, Need::Optional)
    }
}

/// The choices of one file, at least one row.
#[derive(Debug)]
pub struct Choices {
    path: PathBuf,
    rows: FileRows<Choice>,
}

/// Keys of the first text, in order of preference.
const CONTEXTS: [&str; 3] = ["context", "question", "ctx"];
/// Keys of the list of endings, in order of preference.
const ENDINGS: [&str; 2] = ["choices", "endings"];

impl Choices {
    /// Reads a table with SWAG's columns (`sent1` or, without it, `startphrase`; `sent2`, `ending0`, `ending1`, …,
    /// `label`; any [`table`](super::table) with names), or JSON objects with a list: `context`, `question` or `ctx`;
    /// `choices` or `endings`; `ending_prefix` and `label`. With [`Need::Optional`] labels may be missing. Fewer than two endings,
    /// another number than the first row's, and a label that is no index of an ending or missing where it is required are a
    /// [`TaskError::Line`] in the row's place.
    ///
    /// # Errors
    /// Those of [`Table::open`](super::table::Table::open); [`TaskError::File`] for a table without endings.
    pub fn read(path: &Path, need: Need) -> Result<Choices, TaskError> {
        let file = TableFile::open(path)?;
        let names = file.names()?;
        let flat: Vec<String> =
            (0..).map(|index| format!("ending{index}")).take_while(|name| names.contains(name)).collect();
        let rows = match file.json_text() {
            Some(text) if flat.is_empty() => rows_of_lists(path, text, need),
            _ => rows_of_columns(path, &file, &names, flat, need)?,
        };
        let expected = rows.iter().flatten().next().map_or(0, |first| first.endings.len());
        let check = |row: Result<Choice, TaskError>| {
            let choice = row?;
            let found = choice.endings.len();
            let problem = match found {
                0 | 1 => format!("has {found} endings, expected at least two"),
                _ if found != expected => format!("has {found} endings, expected {expected} as in the first row"),
                _ => return Ok(choice),
            };
            Err(TaskError::line(path, choice.line, problem))
        };
        Ok(Choices { path: path.to_owned(), rows: rows.into_iter().map(check).collect() })
    }

    /// The file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The choices, in order.
    pub fn into_rows(self) -> FileRows<Choice> {
        self.rows
    }
}

fn rows_of_columns(
    path: &Path,
    file: &TableFile,
    names: &[String],
    endings: Vec<String>,
    need: Need,
) -> Result<FileRows<Choice>, TaskError> {
    if endings.is_empty() {
        let names = listed(names.iter().map(String::as_str));
        return Err(TaskError::file(
            path,
            format!("no column \"ending0\" (SWAG's: sent1, sent2, ending0, …); it has {names}"),
        ));
    }
    let has = |name: &str| names.iter().any(|other| other == name);
    let context = if !has("sent1") && has("startphrase") { "startphrase" } else { "sent1" };
    let count = endings.len();
    let mut required = vec![Column::name(context)];
    required.extend(endings.into_iter().map(|name| Column::Name(name.into())));
    // The start phrase holds the prefix.
    let prefix = if context == "sent1" { "sent2" } else { "ending_prefix" };
    let optional = [Column::name(prefix), Column::name("label")];
    let table = file.table(&required, &optional, &[], RaggedRows::Error)?;
    let choice = |row: Result<Row, TaskError>| {
        let row = row?;
        let mut cells = row.cells.into_iter();
        let context = cells.next().unwrap_or_default();
        let endings: Vec<String> = cells.collect();
        let mut optional = row.optional.into_iter();
        let ending_prefix = optional.next().flatten().unwrap_or_default();
        let label = label(optional.next().flatten().as_deref(), count, need)
            .map_err(|problem| TaskError::line(path, row.line, problem))?;
        Ok(Choice { context, ending_prefix, endings, label, line: row.line })
    };
    Ok(table.into_rows().into_iter().map(choice).collect())
}

fn rows_of_lists(path: &Path, text: &str, need: Need) -> FileRows<Choice> {
    let choice = |object: Result<(usize, Map<String, Value>), TaskError>| {
        let (line, object) = object?;
        choice_of_lists(object, line, need).map_err(|problem| TaskError::line(path, line, problem))
    };
    objects(path, text).map(choice).collect()
}

fn choice_of_lists(mut object: Map<String, Value>, line: usize, need: Need) -> Result<Choice, String> {
    let mut take = |keys: &[&'static str]| {
        let key = keys.iter().find(|key| object.contains_key(**key))?;
        object.remove(*key).filter(|value| !value.is_null()).map(|value| (*key, value))
    };
    let string = |found: Option<(&str, Value)>| match found {
        None => Ok(None),
        Some((_, Value::String(text))) => Ok(Some(text)),
        Some((key, other)) => Err(format!("\"{key}\" is {}, expected a string", kind(&other))),
    };
    let Some(context) = string(take(&CONTEXTS))? else {
        return Err(format!("no context; expected one of the keys {}", listed(CONTEXTS)));
    };
    let ending_prefix = string(take(&["ending_prefix"]))?.unwrap_or_default();
    let endings: Vec<String> = match take(&ENDINGS) {
        None => return Err(format!("no endings; expected a list under one of the keys {}", listed(ENDINGS))),
        Some((key, value)) => {
            serde_json::from_value(value).map_err(|e| format!("\"{key}\": {e}; expected a list of strings"))?
        }
    };
    let written = match take(&["label"]) {
        None => None,
        Some((_, Value::String(text))) => Some(text),
        Some((_, Value::Number(number))) => Some(number.to_string()),
        Some((_, other)) => return Err(format!("\"label\" is {}, expected an ending's index", kind(&other))),
    };
    let label = label(written.as_deref(), endings.len(), need)?;
    Ok(Choice { context, ending_prefix, endings, label, line })
}

/// The index of the right ending. Where it is not needed it may be anything: empty, or -1 as in Hugging Face's test sets.
fn label(written: Option<&str>, endings: usize, need: Need) -> Result<Option<usize>, String> {
    let written = written.map(str::trim).filter(|written| !written.is_empty());
    match (written.map(|written| (written, written.parse::<usize>())), need) {
        (Some((_, Ok(index))), _) if index < endings => Ok(Some(index)),
        (Some((written, _)), Need::Required) => {
            Err(format!("label \"{written}\": expected the index of an ending, 0 to {}", endings.saturating_sub(1)))
        }
        (None, Need::Required) => Err("no label; expected the index of the right ending".into()),
        (_, Need::Optional) => Ok(None),
    }
}

#[cfg(test)]
mod tests;
