//! Documents and queries as their files have them.

use std::collections::HashMap;

/// A document or a query.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// What judgements call it.
    pub id: String,
    /// What it says.
    pub text: String,
}

impl AsRef<str> for Entry {
    fn as_ref(&self) -> &str {
        &self.text
    }
}

/// Entries as they are read: an id comes once.
#[derive(Default)]
pub(super) struct Entries {
    pub(super) list: Vec<Entry>,
    lines: HashMap<String, usize>,
}

impl Entries {
    /// Adds one that begins at a line; what is wrong otherwise.
    pub(super) fn push(&mut self, line: usize, id: String, text: String) -> Result<(), String> {
        if let Some(before) = self.lines.insert(id.clone(), line) {
            return Err(format!("id {id:?} came in line {before} already"));
        }
        self.list.push(Entry { id, text });
        Ok(())
    }
}
