//! The learning-rate factors of parameters.

use crate::architecture::Architecture;
use crate::role::{Head, LayerPart, Module};

/// Settings that determine the factors. They can be set in any order.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Rates {
    /// The embeddings and this number of layers above them are frozen; `None` freezes nothing.
    pub(crate) frozen: Option<usize>,
    /// Ratio of a layer's learning rate to that of the layer above.
    pub(crate) decay: f32,
    /// Heads that are frozen.
    pub(crate) unused: Vec<Head>,
    /// Whether what the last layer computes from queries, keys and values is frozen.
    pub(crate) unused_output: bool,
}

impl Default for Rates {
    fn default() -> Rates {
        Rates { frozen: None, decay: 1.0, unused: Vec::new(), unused_output: false }
    }
}

/// Whether a module computes queries, keys or values.
fn projects_inputs(module: Module, architecture: &Architecture) -> bool {
    match module {
        Module::Layer {
            part: LayerPart::Query | LayerPart::Key | LayerPart::Value | LayerPart::QueryKeyValue, ..
        } => true,
        Module::Layer { part: LayerPart::AttentionNorm, .. } => architecture.pre_norm,
        _ => false,
    }
}

impl Rates {
    /// Whether state `height` is the output of frozen parameters: 0 for the embeddings, n for the n-th layer.
    pub(crate) fn is_frozen(&self, height: usize) -> bool {
        self.frozen.is_some_and(|frozen| height <= frozen)
    }

    /// The learning-rate factor of a module's parameters. Shared weights have the factor of the highest layer that uses
    /// them.
    pub(crate) fn of(&self, module: Module, architecture: &Architecture) -> f32 {
        match architecture.heights(module) {
            Some([_, last]) if self.is_frozen(last) => 0.0,
            Some([first, _])
                if self.unused_output && first == architecture.layers && !projects_inputs(module, architecture) =>
            {
                0.0
            }
            Some([_, last]) => self.decay.powi((architecture.layers + 1 - last) as i32),
            None if module.head().is_some_and(|head| self.unused.contains(&head)) => 0.0,
            None => 1.0,
        }
    }

    /// Freezes the embeddings and the lowest `layers` layers, except for layers with weights that a higher layer uses,
    /// and the layers above them.
    pub(crate) fn freeze(&mut self, layers: Option<usize>, architecture: &Architecture) {
        let trained = |number: usize, layers: usize| {
            LayerPart::ALL.into_iter().any(|part| {
                let heights = architecture.heights(architecture.layer_module(number, part));
                heights.is_some_and(|[_, last]| last > layers)
            })
        };
        self.frozen = layers.map(|layers| (0..layers).find(|&number| trained(number, layers)).unwrap_or(layers));
    }
}
