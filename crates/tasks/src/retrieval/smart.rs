//! Files of the SMART system: `.I` number, then fields that each start with a line of a dot and a letter.

use super::entries::{Entries, Entry};
use crate::TaskError;
use crate::lines::Lines;

/// The fields of an entry. If a field occurs twice, its parts are joined.
#[derive(Default)]
struct Fields {
    title: String,
    words: String,
}

impl Fields {
    /// The title and the words; only the words if they start with the title.
    fn text(self) -> String {
        let Fields { title, words } = self;
        if words.starts_with(&title) {
            words
        } else if words.is_empty() {
            title
        } else {
            format!("{title} {words}")
        }
    }
}

/// A number without leading zeros.
pub(super) fn number(text: &str) -> &str {
    match text.trim_start_matches('0') {
        "" => "0",
        digits => digits,
    }
}

/// Reads documents, whose ids are their `.I` numbers.
pub(super) fn documents(lines: Lines) -> Result<Vec<Entry>, TaskError> {
    read(lines, |id, _| number(&id).to_owned())
}

/// Reads queries, whose ids are their positions in the file, from 1.
pub(super) fn queries(lines: Lines) -> Result<Vec<Entry>, TaskError> {
    read(lines, |_, place| place.to_string())
}

fn read(mut lines: Lines, id: impl Fn(String, usize) -> String) -> Result<Vec<Entry>, TaskError> {
    let mut entries = Entries::default();
    let mut current: Option<(usize, String, Fields)> = None;
    let mut letter = None;
    loop {
        let line = if lines.advance()? { Some(lines.text()) } else { None };
        let begins = line.and_then(|line| line.strip_prefix(".I"));
        let begins = begins.filter(|rest| rest.is_empty() || rest.starts_with(char::is_whitespace));
        if (line.is_none() || begins.is_some())
            && let Some((start, number, fields)) = current.take()
        {
            let id = id(number, entries.list.len() + 1);
            let pushed = entries.push(start, id, fields.text());
            pushed.map_err(|problem| TaskError::line(lines.path(), start, problem))?;
        }
        let Some(line) = line else { return Ok(entries.list) };
        if let Some(number) = begins {
            let number = number.trim();
            if number.is_empty() {
                return Err(lines.problem("expected a number after .I"));
            }
            current = Some((lines.number(), number.to_owned(), Fields::default()));
            letter = None;
            continue;
        }
        let words = line.trim();
        if let [b'.', field @ b'A'..=b'Z'] = line.trim_end().as_bytes() {
            letter = Some(*field);
        } else if let Some((.., fields)) = &mut current {
            match letter {
                Some(b'T') => append(&mut fields.title, words),
                Some(b'W') => append(&mut fields.words, words),
                Some(_) => {}
                None if words.is_empty() => {}
                None => return Err(lines.problem("expected a field (.T, .A, .B, .W …) after .I")),
            }
        } else if !words.is_empty() {
            return Err(lines.problem("expected .I and a number"));
        }
    }
}

/// Appends words, each separated by one space.
fn append(text: &mut String, more: &str) {
    for word in more.split_whitespace() {
        if !text.is_empty() {
            text.push(' ');
        }
        text.push_str(word);
    }
}
