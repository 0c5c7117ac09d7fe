//! BEIR's `corpus.jsonl` and `queries.jsonl`.

use cloze_data::corpus::text::parse_json;
use serde_json::{Map, Value};

use super::entries::{Entries, Entry};
use crate::TaskError;
use crate::lines::Lines;

/// Reads documents: the title, a space and the text.
pub(super) fn documents(lines: Lines) -> Result<Vec<Entry>, TaskError> {
    read(lines, |object| {
        let title = object.contains_key("title").then(|| string(object, "title")).transpose()?;
        let text = match title {
            Some(_) if !object.contains_key("text") => String::new(),
            _ => string(object, "text")?,
        };
        Ok(format!("{} {text}", title.unwrap_or_default()).trim().to_owned())
    })
}

pub(super) fn queries(lines: Lines) -> Result<Vec<Entry>, TaskError> {
    read(lines, |object| string(object, "text"))
}

fn read(
    mut lines: Lines,
    text: impl Fn(&Map<String, Value>) -> Result<String, String>,
) -> Result<Vec<Entry>, TaskError> {
    let mut entries = Entries::default();
    while lines.advance()? {
        let line = lines.text();
        if line.trim().is_empty() {
            continue;
        }
        let object = parse_json::<Map<String, Value>>(line, &mut 0);
        let object = object.map_err(|e| lines.problem(format!("expected a JSON object: {e}")))?;
        let entry = id(&object).and_then(|id| Ok((id, text(&object)?)));
        let (id, text) = entry.map_err(|problem| lines.problem(problem))?;
        entries.push(lines.number(), id, text).map_err(|problem| lines.problem(problem))?;
    }
    Ok(entries.list)
}

fn id(object: &Map<String, Value>) -> Result<String, String> {
    match object.get("_id") {
        Some(Value::Null) => Err("\"_id\" is null; expected a string or a number".to_owned()),
        _ => string(object, "_id"),
    }
}

/// The text of a key. Null is the empty text, and numbers are converted to text: a title may be a year.
fn string(object: &Map<String, Value>, key: &str) -> Result<String, String> {
    match object.get(key) {
        Some(Value::String(text)) => Ok(text.clone()),
        Some(Value::Null) => Ok(String::new()),
        Some(Value::Number(number)) => Ok(number.to_string()),
        Some(other) => Err(format!("expected a string in \"{key}\", found {other}")),
        None => {
            let keys: Vec<&str> = object.keys().map(String::as_str).collect();
            Err(format!("no key \"{key}\", only {}; expected BEIR's _id, title and text", keys.join(", ")))
        }
    }
}
