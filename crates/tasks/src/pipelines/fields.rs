//! The fields of a JSON object, with their types. Null is the same as absent.

use serde_json::Value;

use crate::TaskError;
use crate::datasets::table::kind;
use crate::input::Object;

/// The parameters of a request.
pub(super) struct Fields(Object);

impl Fields {
    /// The fields of `parameters`; null has none.
    pub(super) fn of_parameters(value: Value) -> Result<Fields, TaskError> {
        match value {
            Value::Object(object) => Ok(Fields(object)),
            Value::Null => Ok(Fields(Object::new())),
            other => Err(TaskError::input("\"parameters\"", format!("expected an object, found {}", kind(&other)))),
        }
    }

    /// The fields of an object that is part of the inputs.
    pub(super) fn of_object(object: Object) -> Fields {
        Fields(object)
    }

    /// Whether the value is null, and not absent.
    pub(super) fn is_null(&self, key: &str) -> bool {
        self.0.get(key).is_some_and(Value::is_null)
    }

    fn get<'a, T>(
        &'a self,
        key: &str,
        expected: &str,
        read: impl FnOnce(&'a Value) -> Option<T>,
    ) -> Result<Option<T>, TaskError> {
        let Some(value) = self.0.get(key).filter(|value| !value.is_null()) else { return Ok(None) };
        match read(value) {
            Some(found) => Ok(Some(found)),
            None => Err(TaskError::input(format!("\"{key}\""), format!("expected {expected}, found {}", shown(value)))),
        }
    }

    /// A whole number, 0 or more.
    pub(super) fn count(&self, key: &str) -> Result<Option<usize>, TaskError> {
        let read = |value: &Value| value.as_u64().and_then(|count| usize::try_from(count).ok());
        self.get(key, "a whole number, 0 or more", read)
    }

    /// A whole number, 1 or more.
    pub(super) fn positive(&self, key: &str) -> Result<Option<usize>, TaskError> {
        let read =
            |value: &Value| value.as_u64().and_then(|count| usize::try_from(count).ok()).filter(|count| *count > 0);
        self.get(key, "a whole number, 1 or more", read)
    }

    /// True or false.
    pub(super) fn flag(&self, key: &str) -> Result<Option<bool>, TaskError> {
        self.get(key, "true or false", Value::as_bool)
    }

    /// A string.
    pub(super) fn text(&self, key: &str) -> Result<Option<String>, TaskError> {
        self.get(key, "a string", |value| value.as_str().map(str::to_owned))
    }

    /// A list of strings.
    pub(super) fn texts(&self, key: &str) -> Result<Option<Vec<String>>, TaskError> {
        self.get(key, "a list of strings", strings)
    }

    /// A list of strings, or one string, which `one` turns into a list.
    pub(super) fn text_or_texts(
        &self,
        key: &str,
        one: impl FnOnce(&str) -> Vec<String>,
    ) -> Result<Option<Vec<String>>, TaskError> {
        self.get(key, "a string or a list of strings", |value| match value {
            Value::String(text) => Some(one(text)),
            list => strings(list),
        })
    }

    /// One of some names, in any case.
    pub(super) fn choice<T: Copy>(&self, key: &str, choices: &[(&str, T)]) -> Result<Option<T>, TaskError> {
        let names: Vec<String> = choices.iter().map(|(name, _)| format!("{name:?}")).collect();
        let named = |found: &str| choices.iter().find(|(name, _)| name.eq_ignore_ascii_case(found));
        let read = |value: &Value| value.as_str().and_then(named).map(|(_, choice)| *choice);
        self.get(key, &format!("one of {}", names.join(", ")), read)
    }
}

fn strings(value: &Value) -> Option<Vec<String>> {
    value.as_array()?.iter().map(|item| item.as_str().map(str::to_owned)).collect()
}

/// A short value itself, or its type.
fn shown(value: &Value) -> String {
    /// The longest string that is shown.
    const LONGEST: usize = 40;
    match value {
        Value::String(text) if text.len() <= LONGEST => format!("{text:?}"),
        Value::Number(_) | Value::Bool(_) => value.to_string(),
        other => kind(other).to_owned(),
    }
}
