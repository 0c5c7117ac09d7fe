//! One row to predict, as JSON: a string, or an object whose keys are the names of the columns.

use cloze_data::corpus::text::parse_json;
use serde_json::{Map, Value};

use crate::TaskError;
use crate::datasets::quoted_list;
use crate::datasets::table::{Column, kind};

/// A JSON object.
pub type Object = Map<String, Value>;

/// A row to predict.
#[derive(Debug, Clone, Copy)]
pub enum Input<'a> {
    /// Plain text, parsed as a line of a file: if the kind of task has pairs, a tab separates the two texts.
    Text(&'a str),
    /// Texts by column name.
    Object(&'a Object),
}

impl<'a> Input<'a> {
    /// The row of a JSON value.
    ///
    /// # Errors
    /// A value that is neither a string nor an object.
    pub fn from_json(value: &'a Value) -> Result<Input<'a>, TaskError> {
        match value {
            Value::String(text) => Ok(Input::Text(text)),
            Value::Object(object) => Ok(Input::Object(object)),
            other => Err(TaskError::input("row", format!("expected a string or an object, found {other}"))),
        }
    }

    /// The object, for kinds of tasks whose rows have several parts.
    ///
    /// # Errors
    /// [`TaskError::Input`] for plain text; the message shows `example`.
    pub(crate) fn object(self, example: &str) -> Result<&'a Object, TaskError> {
        match self {
            Input::Object(object) => Ok(object),
            Input::Text(_) => Err(TaskError::input("line", format!("expected a JSON object such as {example}"))),
        }
    }
}

/// Parses a line of JSON as a row.
///
/// # Errors
/// [`TaskError::Input`] for text that is not a JSON object.
pub fn object_of_line(line: &str) -> Result<Value, TaskError> {
    match parse_json(line, &mut 0) {
        Ok(object @ Value::Object(_)) => Ok(object),
        Ok(other) => Err(TaskError::input("line", format!("expected a JSON object, found {}", kind(&other)))),
        Err(e) => {
            let reason = e.to_string().replace(&format!(" at line {} column {}", e.line(), e.column()), "");
            Err(TaskError::input("line", format!("not JSON: {reason} (column {})", e.column())))
        }
    }
}

/// The key of a column: its name, or `plain` if the column is a number.
pub(crate) fn key_of(column: &Column, plain: &str) -> String {
    match column {
        Column::Name(name) => name.to_string(),
        Column::Number(_) => plain.to_owned(),
    }
}

/// The key of a row's text: that of the column that the caller gives; else that of the training files or of the data
/// set preset, if the row has it; else `plain`, if the row has that.
pub(crate) fn text_key(object: &Object, given: Option<&Column>, own: Option<&Column>, plain: &str) -> String {
    if let Some(given) = given {
        return key_of(given, plain);
    }
    let own = own.map(|column| key_of(column, plain));
    own.filter(|key| object.contains_key(key) || !object.contains_key(plain)).unwrap_or_else(|| plain.to_owned())
}

/// A text of a row. Numbers and booleans are converted to text, as in tables.
///
/// # Errors
/// A missing key, a value of a different type.
pub(crate) fn string_of(object: &Object, key: &str) -> Result<String, TaskError> {
    match object.get(key) {
        Some(Value::String(text)) => Ok(text.clone()),
        Some(scalar @ (Value::Number(_) | Value::Bool(_))) => Ok(scalar.to_string()),
        Some(other) => Err(TaskError::input(format!("\"{key}\""), format!("expected a string, found {}", kind(other)))),
        None => {
            let keys = quoted_list(object.keys().map(String::as_str));
            Err(TaskError::input(format!("\"{key}\""), format!("missing; the row has {keys}")))
        }
    }
}
