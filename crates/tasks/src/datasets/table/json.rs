//! JSON tables: one object per line, or a list of objects.

use std::path::Path;

use cloze_data::corpus::text::parse_json;
use serde::de::{Deserialize, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Value};

use super::columns::{Column, ColumnSelection, Row};
use crate::TaskError;
use crate::datasets::file::lines;
use crate::datasets::{quoted_list, suggestion};
use crate::task::FileRows;

/// Rows as objects, with their line numbers.
pub(in crate::datasets) type Objects = FileRows<(usize, Map<String, Value>)>;

/// An object with its line number, or an error.
type NumberedObject = Result<(usize, Map<String, Value>), TaskError>;

/// The objects of a text with one object per line, with their line numbers; blank lines are skipped. Or the objects of
/// a JSON list, with their numbers from 1.
pub(in crate::datasets) fn objects<'a>(path: &'a Path, text: &'a str) -> Box<dyn Iterator<Item = NumberedObject> + 'a> {
    let is_list = |text: &str| text.strip_prefix('[').is_some_and(|rest| rest.trim_start().starts_with('{'));
    if is_list(text.trim_start()) {
        let list: Vec<Value> = match parse_json(text, &mut 0) {
            Ok(list) => list,
            Err(e) => {
                let problem = format!("expected a list of JSON objects: {} (column {})", reason(&e), e.column());
                return Box::new(std::iter::once(Err(TaskError::line(path, e.line(), problem))));
            }
        };
        return Box::new((1..).zip(list).map(move |(number, value)| object(path, number, value)));
    }
    let of_line = move |(line, text): (usize, &str)| match parse_json(text, &mut 0) {
        Ok(value) => object(path, line, value),
        Err(e) => {
            let problem = format!("expected one JSON object per line: {} (column {})", reason(&e), e.column());
            Err(TaskError::line(path, line, problem))
        }
    };
    Box::new(lines(text).filter(|(_, text)| !text.trim().is_empty()).map(of_line))
}

fn object(path: &Path, line: usize, value: Value) -> Result<(usize, Map<String, Value>), TaskError> {
    match value {
        Value::Object(object) => Ok((line, object)),
        other => Err(TaskError::line(path, line, format!("expected one JSON object per line, found {}", kind(&other)))),
    }
}

/// The reason of an error without serde_json's position, which is relative to the text that it was given.
fn reason(error: &serde_json::Error) -> String {
    error.to_string().replace(&format!(" at line {} column {}", error.line(), error.column()), "")
}

/// The type of a value, for a message.
pub(crate) fn kind(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "a boolean",
        Value::Number(_) => "a number",
        Value::String(_) => "a string",
        Value::Array(_) => "a list",
        Value::Object(_) => "an object",
    }
}

/// The keys of the first object, in the order of the file: for readers whose columns are in that order.
pub(super) fn first_keys(path: &Path, text: &str) -> Result<Vec<String>, TaskError> {
    match objects(path, text).next() {
        Some(object) => {
            let object = object?.1;
            let text = text.trim_start_matches('\u{feff}');
            let ordered = Keys::deserialize(&mut serde_json::Deserializer::from_str(text));
            let known = |keys: &Keys| keys.0.len() == object.len() && keys.0.iter().all(|key| object.contains_key(key));
            // What only the lenient parser reads has its keys in alphabetical order.
            Ok(ordered.ok().filter(known).map_or_else(|| object.keys().cloned().collect(), |keys| keys.0))
        }
        None => Err(TaskError::file(path, "expected one JSON object per line, found an empty file")),
    }
}

/// The keys of an object, or of the first object of a list.
struct Keys(Vec<String>);

impl<'de> Deserialize<'de> for Keys {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Keys, D::Error> {
        struct OfObject;
        impl<'de> Visitor<'de> for OfObject {
            type Value = Keys;

            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("an object or a list of objects")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Keys, A::Error> {
                let mut keys = Vec::new();
                while let Some((key, IgnoredAny)) = map.next_entry::<String, IgnoredAny>()? {
                    keys.push(key);
                }
                Ok(Keys(keys))
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Keys, A::Error> {
                let first = list.next_element::<Keys>()?;
                while list.next_element::<IgnoredAny>()?.is_some() {}
                Ok(first.unwrap_or(Keys(Vec::new())))
            }
        }
        from.deserialize_any(OfObject)
    }
}

pub(super) fn rows(selection: &ColumnSelection<'_>, text: &str) -> Result<FileRows<Row>, TaskError> {
    let names = |columns: &[Column]| -> Result<Vec<String>, TaskError> {
        let name = |column: &Column| match column {
            Column::Name(name) => Ok(name.to_string()),
            Column::Number(_) => {
                let problem = format!(
                    "expected the name of a key, found column {column}; the keys of JSON objects have no numbers"
                );
                Err(TaskError::file(selection.path, problem))
            }
        };
        columns.iter().map(name).collect()
    };
    let (required, optional, lists) = (names(selection.required)?, names(selection.optional)?, names(selection.lists)?);
    let row = |object: Result<(usize, Map<String, Value>), TaskError>| -> Result<Row, TaskError> {
        let (line, object) = object?;
        let cell = |name: &String| -> Result<Option<String>, TaskError> {
            match object.get(name) {
                None | Some(Value::Null) => Ok(None),
                Some(Value::String(text)) => Ok(Some(text.clone())),
                Some(Value::Number(number)) => Ok(Some(number.to_string())),
                Some(Value::Bool(flag)) => Ok(Some(flag.to_string())),
                Some(list @ Value::Array(_)) if lists.contains(name) => Ok(Some(list.to_string())),
                Some(other) => {
                    let problem = format!("\"{name}\" is {}, expected a string, number or boolean", kind(other));
                    Err(TaskError::line(selection.path, line, problem))
                }
            }
        };
        let cells: Vec<Option<String>> = required.iter().map(cell).collect::<Result<_, _>>()?;
        let optional = optional.iter().map(cell).collect::<Result<_, _>>()?;
        let absent = required.iter().zip(&cells).find(|(_, cell)| cell.is_none());
        if let Some((name, _)) = absent {
            let keys = || object.keys().map(String::as_str);
            let problem = if object.contains_key(name) {
                format!("\"{name}\" is null, expected a string, number or boolean")
            } else {
                format!("no key \"{name}\"{}; the keys are {}", suggestion(name, keys()), quoted_list(keys()))
            };
            return Err(TaskError::line(selection.path, line, problem));
        }
        Ok(Row { line, cells: cells.into_iter().flatten().collect(), optional })
    };
    Ok(objects(selection.path, text).map(row).collect())
}
