//! The learning-rate factors of parameters.

use crate::role::{Head, Module};

/// Settings that determine the factors. They can be set in any order.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Rates {
    /// The embeddings and this number of layers above them are frozen; `None` freezes nothing.
    pub(crate) frozen: Option<usize>,
    /// Ratio of a layer's learning rate to that of the layer above.
    pub(crate) decay: f32,
    /// Heads that are frozen.
    pub(crate) unused: Vec<Head>,
}

impl Default for Rates {
    fn default() -> Rates {
        Rates { frozen: None, decay: 1.0, unused: Vec::new() }
    }
}

impl Rates {
    /// Whether state `height` is the output of frozen parameters: 0 for the embeddings, n for the n-th layer.
    pub(crate) fn is_frozen(&self, height: usize) -> bool {
        self.frozen.is_some_and(|frozen| height <= frozen)
    }

    /// The learning-rate factor of a module's parameters, in a model with this number of layers.
    pub(crate) fn of(&self, module: Module, layers: usize) -> f32 {
        match module.height() {
            Some(height) if self.is_frozen(height) => 0.0,
            Some(height) => self.decay.powi((layers + 1 - height) as i32),
            None if module.head().is_some_and(|head| self.unused.contains(&head)) => 0.0,
            None => 1.0,
        }
    }
}
