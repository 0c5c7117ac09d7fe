//! Documents and queries.

use std::collections::HashMap;

/// A document or a query.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// The id, which judgements refer to.
    pub id: String,
    /// The text.
    pub text: String,
}

impl AsRef<str> for Entry {
    fn as_ref(&self) -> &str {
        &self.text
    }
}

/// A list of entries with unique ids.
#[derive(Default)]
pub(super) struct Entries {
    pub(super) list: Vec<Entry>,
    lines: HashMap<String, usize>,
}

impl Entries {
    /// Adds the entry that starts at a line; an error for a duplicate id.
    pub(super) fn push(&mut self, line: usize, id: String, text: String) -> Result<(), String> {
        if let Some(before) = self.lines.insert(id.clone(), line) {
            return Err(format!("expected unique ids, found {id:?} again, which is also in line {before}"));
        }
        self.list.push(Entry { id, text });
        Ok(())
    }
}
