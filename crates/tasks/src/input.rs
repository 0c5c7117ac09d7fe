//! One row to predict, as JSON: a string, or an object with the texts under the names of columns.

use serde_json::{Map, Value};

use crate::TaskError;
use crate::datasets::table::Column;

/// The object of a row.
pub type Object = Map<String, Value>;

/// A row without what is right.
#[derive(Debug, Clone, Copy)]
pub enum Input<'a> {
    /// Plain text, read as a line of a file: where a kind of task has pairs, a tab separates the two texts.
    Text(&'a str),
    /// Texts by their names.
    Object(&'a Object),
}

impl<'a> Input<'a> {
    /// A JSON value as a row.
    ///
    /// # Errors
    /// A value that is neither a string nor an object.
    pub fn of(value: &'a Value) -> Result<Input<'a>, TaskError> {
        match value {
            Value::String(text) => Ok(Input::Text(text)),
            Value::Object(object) => Ok(Input::Object(object)),
            other => Err(TaskError::input("row", format!("expected a string or an object, found {other}"))),
        }
    }

    /// The object, for kinds of tasks whose rows are more than a text.
    ///
    /// # Errors
    /// Plain text; the message shows `example`.
    pub(crate) fn object(self, example: &str) -> Result<&'a Object, TaskError> {
        match self {
            Input::Object(object) => Ok(object),
            Input::Text(_) => Err(TaskError::input("line", format!("expected a JSON object such as {example}"))),
        }
    }
}

/// A line as a row: one that begins with a brace is an object, any other is plain text.
///
/// # Errors
/// A brace at the beginning of what is not JSON.
pub fn of_line(line: &str) -> Result<Value, TaskError> {
    if !line.trim_start().starts_with('{') {
        return Ok(Value::String(line.to_owned()));
    }
    let object: Object = serde_json::from_str(line).map_err(|e| TaskError::input("JSON", e.to_string()))?;
    Ok(Value::Object(object))
}

/// The key of a column, which the plain one stands for where the column is not named.
pub(crate) fn key_of(column: &Column, plain: &str) -> String {
    match column {
        Column::Name(name) => name.to_string(),
        Column::Number(_) => plain.to_owned(),
    }
}

/// The key of a row's text: that of the column that was given; else that of the training files or of a known task where the row has
/// it, else the plain one where the row has that.
pub(crate) fn text_key(object: &Object, given: Option<&Column>, own: Option<&Column>, plain: &str) -> String {
    if let Some(given) = given {
        return key_of(given, plain);
    }
    let own = own.map(|column| key_of(column, plain));
    own.filter(|key| object.contains_key(key) || !object.contains_key(plain)).unwrap_or_else(|| plain.to_owned())
}

/// A string of a row.
///
/// # Errors
/// A key that is missing, a value of another type.
pub(crate) fn string_of(object: &Object, key: &str) -> Result<String, TaskError> {
    match object.get(key) {
        Some(Value::String(text)) => Ok(text.clone()),
        Some(other) => Err(TaskError::input(format!("\"{key}\""), format!("expected a string, found {other}"))),
        None => {
            let keys: Vec<&str> = object.keys().map(String::as_str).collect();
            Err(TaskError::input(format!("\"{key}\""), format!("missing; the line has {}", keys.join(", "))))
        }
    }
}
