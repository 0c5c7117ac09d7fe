//! How fast each parameter learns.

use crate::role::{Head, Module};

/// What decides on it. The order in which the parts are set does not matter.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Rates {
    /// The embeddings and so many layers above them do not learn; none: all learn.
    pub(crate) frozen: Option<usize>,
    /// Of the learning rate of a layer, that of the layer below.
    pub(crate) decay: f32,
    /// Heads that do not learn.
    pub(crate) unused: Vec<Head>,
}

impl Default for Rates {
    fn default() -> Rates {
        Rates { frozen: None, decay: 1.0, unused: Vec::new() }
    }
}

impl Rates {
    /// Whether the state `height` layers above the embeddings' is made by parameters that do not learn.
    pub(crate) fn is_frozen(&self, height: usize) -> bool {
        self.frozen.is_some_and(|frozen| height <= frozen)
    }

    /// What the learning rate of a module's parameters is multiplied by, in a model of so many layers.
    pub(crate) fn of(&self, module: Module, layers: usize) -> f32 {
        match module.height() {
            Some(height) if self.is_frozen(height) => 0.0,
            Some(height) => self.decay.powi((layers + 1 - height) as i32),
            None if module.head().is_some_and(|head| self.unused.contains(&head)) => 0.0,
            None => 1.0,
        }
    }
}
