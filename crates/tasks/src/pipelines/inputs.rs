//! The inputs of a request: one, or a list.

use serde::Deserialize;
use serde_json::Value;

use super::fields::Fields;
use crate::TaskError;
use crate::datasets::table::kind;

/// One input or a list of inputs. From JSON: the input itself, or a list.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(try_from = "Value", bound = "T: Input")]
#[non_exhaustive]
pub struct Inputs<T> {
    /// The inputs.
    pub rows: Vec<T>,
    /// Whether they were a list, so that the answers are a list too.
    pub is_list: bool,
}

impl<T> Inputs<T> {
    /// One input.
    pub fn one(row: impl Into<T>) -> Inputs<T> {
        Inputs { rows: vec![row.into()], is_list: false }
    }

    /// A list of inputs.
    pub fn list(rows: impl IntoIterator<Item = impl Into<T>>) -> Inputs<T> {
        Inputs { rows: rows.into_iter().map(Into::into).collect(), is_list: true }
    }
}

/// An input that can be read from JSON.
pub trait Input: Sized {
    /// What it is, for messages: "a string".
    const EXPECTED: &'static str;

    /// Reads it; none if the value has another type.
    ///
    /// # Errors
    /// A value of the right type with wrong content.
    fn read(value: Value) -> Result<Option<Self>, TaskError>;
}

impl<T: Input> TryFrom<Value> for Inputs<T> {
    type Error = TaskError;

    fn try_from(value: Value) -> Result<Inputs<T>, TaskError> {
        let read = |value: Value, expected: String| {
            let found = kind(&value);
            T::read(value)?.ok_or_else(|| TaskError::input("\"inputs\"", format!("expected {expected}, found {found}")))
        };
        match value {
            Value::Array(rows) => {
                let row = |(number, value): (usize, Value)| {
                    read(value, format!("{} as item {} of the list", T::EXPECTED, number + 1))
                };
                Ok(Inputs { rows: rows.into_iter().enumerate().map(row).collect::<Result<_, _>>()?, is_list: true })
            }
            value => Ok(Inputs { rows: vec![read(value, format!("{} or a list", T::EXPECTED))?], is_list: false }),
        }
    }
}

impl Input for String {
    const EXPECTED: &'static str = "a string";

    fn read(value: Value) -> Result<Option<String>, TaskError> {
        Ok(if let Value::String(text) = value { Some(text) } else { None })
    }
}

/// A text, or a pair of texts.
#[derive(Clone, Debug, PartialEq)]
pub enum TextOrPair {
    /// A text; in JSON a string.
    Text(String),
    /// In JSON an object with `text` and, for a pair, `text_pair`.
    Object {
        /// The first text.
        text: String,
        /// The second one.
        text_pair: Option<String>,
    },
}

impl TextOrPair {
    /// The text, or the first of the pair.
    pub fn text(&self) -> &str {
        let (TextOrPair::Text(text) | TextOrPair::Object { text, .. }) = self;
        text
    }

    /// The second text of a pair.
    pub fn pair(&self) -> Option<&str> {
        match self {
            TextOrPair::Text(_) => None,
            TextOrPair::Object { text_pair, .. } => text_pair.as_deref(),
        }
    }
}

impl From<&str> for TextOrPair {
    fn from(text: &str) -> TextOrPair {
        TextOrPair::Text(text.to_owned())
    }
}

impl From<String> for TextOrPair {
    fn from(text: String) -> TextOrPair {
        TextOrPair::Text(text)
    }
}

impl From<(&str, &str)> for TextOrPair {
    fn from((text, pair): (&str, &str)) -> TextOrPair {
        TextOrPair::Object { text: text.to_owned(), text_pair: Some(pair.to_owned()) }
    }
}

impl Input for TextOrPair {
    const EXPECTED: &'static str = "a string or an object {\"text\": …, \"text_pair\": …}";

    fn read(value: Value) -> Result<Option<TextOrPair>, TaskError> {
        match value {
            Value::String(text) => Ok(Some(TextOrPair::Text(text))),
            Value::Object(object) => {
                let fields = Fields::of_object(object);
                let text = fields.text("text")?;
                let text = text.ok_or_else(|| TaskError::input("\"text\"", "missing from the object in \"inputs\""))?;
                Ok(Some(TextOrPair::Object { text, text_pair: fields.text("text_pair")? }))
            }
            _ => Ok(None),
        }
    }
}

/// A question and the text in which the answer is searched.
#[derive(Clone, Debug, PartialEq)]
pub struct Question {
    /// The question.
    pub question: String,
    /// The text.
    pub context: String,
}

impl Question {
    /// A question about a text.
    pub fn new(question: impl Into<String>, context: impl Into<String>) -> Question {
        Question { question: question.into(), context: context.into() }
    }
}

impl Input for Question {
    const EXPECTED: &'static str = "an object {\"question\": …, \"context\": …}";

    fn read(value: Value) -> Result<Option<Question>, TaskError> {
        let Value::Object(object) = value else { return Ok(None) };
        let fields = Fields::of_object(object);
        let text = |key: &str| {
            let missing = || TaskError::input(format!("\"{key}\""), "missing from the object in \"inputs\"");
            fields.text(key)?.ok_or_else(missing)
        };
        Ok(Some(Question { question: text("question")?, context: text("context")? }))
    }
}
