//! What a conversion leaves aside, and why.

use std::collections::BTreeMap;

/// Names of what was not converted, by the reason for it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct LeftAside {
    groups: BTreeMap<&'static str, Vec<String>>,
}

impl LeftAside {
    pub(crate) fn put(&mut self, reason: &'static str, name: &str) {
        self.groups.entry(reason).or_default().push(name.to_owned());
    }

    /// Whether everything was converted.
    pub fn is_empty(&self) -> bool {
        self.groups.is_empty()
    }

    /// Each reason with the names that it applies to.
    pub fn groups(&self) -> impl Iterator<Item = (&'static str, &[String])> {
        self.groups.iter().map(|(reason, names)| (*reason, names.as_slice()))
    }
}
