//! The parts of a source that a conversion skips, with the reasons.

use std::collections::BTreeMap;

/// Names of the tensors and files that were not converted, grouped by reason.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Skipped {
    groups: BTreeMap<&'static str, Vec<String>>,
}

impl Skipped {
    pub(crate) fn add(&mut self, reason: &'static str, name: &str) {
        self.groups.entry(reason).or_default().push(name.to_owned());
    }

    /// Whether everything was converted.
    pub fn is_empty(&self) -> bool {
        self.groups.is_empty()
    }

    /// Each reason with the names to which it applies.
    pub fn groups(&self) -> impl Iterator<Item = (&'static str, &[String])> {
        self.groups.iter().map(|(reason, names)| (*reason, names.as_slice()))
    }
}
