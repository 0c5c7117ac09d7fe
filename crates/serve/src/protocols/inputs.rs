//! What payloads of several protocols contain.

use serde::{Deserialize, Deserializer, de};
use serde_json::Value;

use crate::failure::Failure;

/// Texts to embed, or their token ids.
#[derive(Debug, Clone, PartialEq)]
pub enum Inputs {
    /// Texts.
    Texts(Vec<String>),
    /// The ids of the model's vocabulary, of each text.
    Ids(Vec<Vec<u32>>),
}

impl Inputs {
    /// The number of texts.
    pub fn count(&self) -> usize {
        match self {
            Inputs::Texts(texts) => texts.len(),
            Inputs::Ids(texts) => texts.len(),
        }
    }

    /// The number of characters; of ids, about as many as they have.
    pub fn characters(&self) -> usize {
        match self {
            Inputs::Texts(texts) => characters(texts),
            Inputs::Ids(texts) => 4 * texts.iter().map(Vec::len).sum::<usize>(),
        }
    }
}

/// The number of characters of texts.
pub fn characters<S: AsRef<str>>(texts: &[S]) -> usize {
    texts.iter().map(|text| text.as_ref().chars().count()).sum()
}

/// A name of the type of a JSON value, for messages.
pub fn kind(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "a boolean",
        Value::Number(_) => "a number",
        Value::String(_) => "a string",
        Value::Array(_) => "a list",
        Value::Object(_) => "an object",
    }
}

fn id(value: &Value) -> Result<u32, String> {
    let found = value.as_u64().and_then(|id| u32::try_from(id).ok());
    found.ok_or_else(|| match value {
        Value::Number(number) => format!("expected a token id from 0 to 4294967295, found {number}"),
        other => format!("expected a token id, found {}", kind(other)),
    })
}

fn text(value: Value) -> Result<String, String> {
    match value {
        Value::String(text) => Ok(text),
        other => Err(format!("expected a string, found {}", kind(&other))),
    }
}

/// Says which element of a list a message is about.
fn at<T>(number: usize, result: Result<T, String>) -> Result<T, String> {
    result.map_err(|problem| format!("[{number}]: {problem}"))
}

fn all<T>(list: Vec<Value>, each: impl Fn(Value) -> Result<T, String>) -> Result<Vec<T>, String> {
    list.into_iter().enumerate().map(|(number, value)| at(number, each(value))).collect()
}

impl<'de> Deserialize<'de> for Inputs {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Inputs, D::Error> {
        let ids = |list: Vec<Value>| all(list, |value| id(&value));
        let found = match Value::deserialize(from)? {
            Value::String(text) => Ok(Inputs::Texts(vec![text])),
            Value::Array(list) => match list.first() {
                None => Ok(Inputs::Texts(Vec::new())),
                Some(Value::Number(_)) => ids(list).map(|ids| Inputs::Ids(vec![ids])),
                Some(Value::Array(_)) => all(list, |value| match value {
                    Value::Array(list) => ids(list),
                    other => Err(format!("expected a list of token ids, found {}", kind(&other))),
                })
                .map(Inputs::Ids),
                Some(_) => all(list, text).map(Inputs::Texts),
            },
            other => Err(format!("expected a string, a list of strings, or token ids, found {}", kind(&other))),
        };
        found.map_err(de::Error::custom)
    }
}

/// One text or a list of them.
#[derive(Debug, Clone, PartialEq)]
pub struct Texts {
    /// The texts.
    pub texts: Vec<String>,
    /// Whether they came as a list.
    pub is_list: bool,
}

impl<'de> Deserialize<'de> for Texts {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Texts, D::Error> {
        match Value::deserialize(from)? {
            Value::String(text) => Ok(Texts { texts: vec![text], is_list: false }),
            Value::Array(list) => {
                all(list, text).map(|texts| Texts { texts, is_list: true }).map_err(de::Error::custom)
            }
            other => Err(de::Error::custom(format!("expected a string or a list of strings, found {}", kind(&other)))),
        }
    }
}

/// A text or a pair of texts.
pub type TextOrPair = (String, Option<String>);

/// Texts or pairs to classify, by text-embeddings-inference's rule: a list of two strings is a pair, and a list of lists a batch.
#[derive(Debug, Clone, PartialEq)]
pub struct Pairs {
    /// The texts and pairs.
    pub rows: Vec<TextOrPair>,
    /// Whether they came as a batch.
    pub is_batch: bool,
}

impl<'de> Deserialize<'de> for Pairs {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Pairs, D::Error> {
        let pair = |list: Vec<Value>| {
            let mut texts = all(list, text)?.into_iter();
            match (texts.next(), texts.next(), texts.count()) {
                (Some(first), second, 0) => Ok((first, second)),
                _ => Err("expected a text, or a pair of texts [a, b]; several texts are a list of lists".to_owned()),
            }
        };
        let found = match Value::deserialize(from)? {
            Value::String(text) => Ok(Pairs { rows: vec![(text, None)], is_batch: false }),
            Value::Array(list) => match list.first() {
                None => Ok(Pairs { rows: Vec::new(), is_batch: true }),
                Some(Value::Array(_)) => all(list, |value| match value {
                    Value::Array(list) => pair(list),
                    other => text(other).map(|text| (text, None)),
                })
                .map(|rows| Pairs { rows, is_batch: true }),
                Some(_) => pair(list).map(|row| Pairs { rows: vec![row], is_batch: false }),
            },
            other => Err(format!("expected a string, a pair of strings, or a list of lists, found {}", kind(&other))),
        };
        found.map_err(de::Error::custom)
    }
}

/// The documents of a reranking: strings, or objects with a text.
#[derive(Debug, Clone, PartialEq)]
pub struct Documents(pub Vec<String>);

impl<'de> Deserialize<'de> for Documents {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Documents, D::Error> {
        let document = |value: Value| match value {
            Value::Object(mut object) => match object.remove("text") {
                Some(found) => text(found),
                None => Err("expected a string, or an object with \"text\"".to_owned()),
            },
            other => text(other),
        };
        match Value::deserialize(from)? {
            Value::Array(list) => all(list, document).map(Documents).map_err(de::Error::custom),
            other => Err(de::Error::custom(format!("expected a list of strings, found {}", kind(&other)))),
        }
    }
}

/// Whether a direction of truncation is to the left, by TEI's names.
///
/// # Errors
/// Another name.
pub fn is_left(direction: Option<&str>) -> Result<Option<bool>, Failure> {
    match direction {
        None => Ok(None),
        Some("Right" | "right") => Ok(Some(false)),
        Some("Left" | "left") => Ok(Some(true)),
        Some(other) => {
            Err(Failure::validation(format!("truncation_direction: expected Left or Right, found {other:?}")))
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn inputs(value: Value) -> Result<Inputs, String> {
        serde_json::from_value(value).map_err(|error| error.to_string())
    }

    #[test]
    fn inputs_are_texts_or_ids() {
        let texts = |texts: &[&str]| Ok(Inputs::Texts(texts.iter().map(ToString::to_string).collect()));
        assert_eq!(inputs(json!("a")), texts(&["a"]));
        assert_eq!(inputs(json!(["a", "b"])), texts(&["a", "b"]));
        assert_eq!(inputs(json!([])), texts(&[]));
        assert_eq!(inputs(json!([1, 2])), Ok(Inputs::Ids(vec![vec![1, 2]])));
        assert_eq!(inputs(json!([[1], []])), Ok(Inputs::Ids(vec![vec![1], vec![]])));
        assert_eq!(inputs(json!(["a", 1])), Err("[1]: expected a string, found a number".to_owned()));
        assert_eq!(inputs(json!([1, -1])), Err("[1]: expected a token id from 0 to 4294967295, found -1".to_owned()));
        assert_eq!(inputs(json!([[1], 2])), Err("[1]: expected a list of token ids, found a number".to_owned()));
        assert!(inputs(json!(null)).unwrap_err().contains("found null"));
    }

    #[test]
    fn two_strings_are_a_pair_and_not_a_batch() {
        let pairs = |value: Value| serde_json::from_value::<Pairs>(value).map_err(|error| error.to_string());
        let row = |a: &str, b: Option<&str>| (a.to_owned(), b.map(str::to_owned));
        assert_eq!(pairs(json!("a")), Ok(Pairs { rows: vec![row("a", None)], is_batch: false }));
        assert_eq!(pairs(json!(["a", "b"])), Ok(Pairs { rows: vec![row("a", Some("b"))], is_batch: false }));
        let batch = Pairs { rows: vec![row("a", None), row("b", Some("c"))], is_batch: true };
        assert_eq!(pairs(json!([["a"], ["b", "c"]])), Ok(batch));
        assert!(pairs(json!(["a", "b", "c"])).unwrap_err().contains("a list of lists"));
    }

    #[test]
    fn documents_are_strings_or_objects() {
        let documents = |value: Value| serde_json::from_value::<Documents>(value).map_err(|error| error.to_string());
        assert_eq!(
            documents(json!(["a", {"text": "b", "id": 1}])),
            Ok(Documents(vec!["a".to_owned(), "b".to_owned()]))
        );
        assert!(documents(json!(["a", {"id": 1}])).unwrap_err().starts_with("[1]: "));
    }
}
