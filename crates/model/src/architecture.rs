//! The sizes and settings of a network, independent of the names in its family's config.json.

use cloze_engine::ops::Activation;
use serde::{Deserialize, Serialize};

use crate::role::{LayerPart, Module};
use crate::task_input::TaskInput;

/// Sizes and settings of a network; made by [`Config::architecture`](crate::Config::architecture).
#[derive(Debug, Clone, Copy, PartialEq)]
#[non_exhaustive]
pub struct Architecture {
    /// V: rows of the word embeddings.
    pub vocab_size: usize,
    /// E: width of the embeddings.
    pub embedding_size: usize,
    /// Whether a dense layer from E to H follows the embeddings. There is one if they differ.
    pub projects_embeddings: bool,
    /// H: width of the hidden states.
    pub hidden_size: usize,
    /// L: encoder layers.
    pub layers: usize,
    /// Which layers share weights.
    pub sharing: Sharing,
    /// N: attention heads of width H/N.
    pub attention_heads: usize,
    /// F: inner width of the feed-forward block.
    pub intermediate_size: usize,
    /// Rows of the position embeddings; with [rotations](Self::rotary), the number of positions.
    pub positions: usize,
    /// If set, a position is encoded as a rotation of queries and keys, and there are no position embeddings.
    pub rotary: Option<Rotary>,
    /// The layers whose tokens attend only to near tokens; in all others, to all tokens.
    pub local: Option<LocalLayers>,
    /// The row of the word embeddings whose lookups have no gradient: the padding token's.
    pub word_padding: Option<u32>,
    /// If set, positions count only tokens other than this one, from its id + 1, and this token's position is its id
    /// (RoBERTa's `create_position_ids_from_input_ids`), a row without gradient. Otherwise they count all tokens from 0.
    pub position_padding: Option<u32>,
    /// Rows of the segment (token type) embeddings; 0 if there are none.
    pub segments: usize,
    /// Whether the LayerNorms of a layer are before its blocks instead of after the residual connections. Then the last
    /// states have one more, and the first layer has none before its attention.
    pub pre_norm: bool,
    /// Whether queries, keys and values have one matrix.
    pub fused_projections: bool,
    /// Whether the feed-forward block is a gated linear unit.
    pub gated: bool,
    /// Which layers have biases.
    pub biases: Biases,
    /// Whether the MLM head and the heads of tasks share a dense layer with a LayerNorm ([`Module::PredictionDense`]).
    pub prediction_head: bool,
    /// Whether the mean of all states represents a sequence; otherwise, that of the first token.
    pub mean_pooling: bool,
    /// Activation of the feed-forward block and of the replaced-token head.
    pub activation: Activation,
    /// Activation of the MLM head's transform.
    pub mlm_activation: Activation,
    /// The part of the network that computes the labels of a sequence.
    pub classify: SequenceHead,
    /// The part of the network that computes the score of a choice.
    pub choose: SequenceHead,
    /// Probabilities of dropout.
    pub dropouts: Dropouts,
    /// Standard deviation of the truncated normal that initialises matrices.
    pub initializer_range: f32,
    /// ε of every LayerNorm.
    pub layer_norm_eps: f32,
    /// Rows of the table of distance biases ([`distance_bucket`]), if there is one. All layers add them to their attention
    /// scores.
    pub distance_buckets: Option<usize>,
    /// Whether a token attends only to itself and earlier tokens.
    pub causal: bool,
    /// Whether the MLM decoder's weight is the word embeddings; otherwise it is a separate matrix.
    pub tied_decoder: bool,
    /// What the head of a task reads.
    pub task_input: TaskInput,
}

/// Probabilities of dropout.
#[derive(Debug, Clone, Copy, PartialEq)]
#[non_exhaustive]
pub struct Dropouts {
    /// On the embeddings.
    pub embeddings: f32,
    /// On the attention weights.
    pub attention: f32,
    /// On the outputs of the attention.
    pub attention_output: f32,
    /// On the inner activations of a gated feed-forward block.
    pub gated: f32,
    /// On the outputs of the feed-forward block.
    pub output: f32,
    /// Before the labels of a sequence.
    pub classify: f32,
    /// Before the labels of tokens.
    pub tag: f32,
    /// Before the score of a choice.
    pub choose: f32,
    /// Before the start and end of an answer.
    pub answer: f32,
    /// Before the next-sentence or sentence-order head.
    pub pair: f32,
}

/// From the last state x of the token that represents a sequence to its logits: `dropout(act(d(x)·Wᵀ + b))·W_oᵀ + b_o`,
/// where d is dropout or nothing. If the head reads something other than the last states ([`TaskInput`]), it has no dense
/// layer: `dropout(x)·W_oᵀ + b_o`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct SequenceHead {
    /// The dense layer W, b.
    pub dense: Module,
    /// Its activation.
    pub activation: Activation,
    /// Whether there is dropout before the dense layer, too.
    pub drops_input: bool,
    /// The output layer W_o, b_o.
    pub output: Module,
}

/// Rotary positions (Su et al. 2021, section 3.2.2).
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Rotary {
    /// θ of the layers whose tokens attend to all tokens.
    pub global_theta: f64,
    /// θ of the [local](LocalLayers) layers.
    pub local_theta: f64,
}

/// Layers whose tokens attend only to near tokens (Beltagy et al. 2020, section 3.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LocalLayers {
    /// The largest distance of a token that is attended to.
    pub window: usize,
    /// Bit n is 1 for layer n.
    pub layers: u128,
}

impl LocalLayers {
    /// Maximum number of layers of a model with local layers.
    pub const MAX_LAYERS: usize = 128;

    /// Whether layer `number` is one of them.
    pub fn contains(self, number: usize) -> bool {
        number < LocalLayers::MAX_LAYERS && self.layers >> number & 1 == 1
    }
}

/// Which layers have biases. In most families, all do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Biases {
    /// LayerNorms.
    pub norms: bool,
    /// The projections of the attention.
    pub attention: bool,
    /// The feed-forward block.
    pub feed_forward: bool,
    /// [`Module::PredictionDense`].
    pub prediction: bool,
}

impl Biases {
    /// All layers have biases.
    pub const ALL: Biases = Biases { norms: true, attention: true, feed_forward: true, prediction: true };
}

/// Which layers share weights. Layers with the same *set* of weights share it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sharing {
    /// ALBERT's groups (Lan et al. 2020, section 3.1): `groups` of `inner` sets each. Pass i of `passes` runs the layers
    /// of one group, in order; consecutive passes use the same group.
    Groups {
        /// Passes through a group, `num_hidden_layers`.
        passes: usize,
        /// Groups, `num_hidden_groups`.
        groups: usize,
        /// Sets of weights per group, `inner_group_num`.
        inner: usize,
    },
    /// Each layer has its own weights, except for the parts that all layers share.
    Parts(SharedParts),
}

/// The parts of a layer that all layers share: the ablation of Lan et al. 2020, table 4. Transformers has no
/// configuration for it, so such a model is saved with a copy for each layer.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum SharedParts {
    /// None.
    #[default]
    None,
    /// The attention with its LayerNorm.
    Attention,
    /// The feed-forward block with its LayerNorm.
    FeedForward,
    /// Both.
    All,
}

impl Sharing {
    /// The set of weights that layer `number` (from 0) uses for this part.
    pub fn set(self, number: usize, part: LayerPart) -> usize {
        match self {
            Sharing::Groups { passes, groups, inner } => {
                // In floating point, as in Transformers: it rounds some quotients to the group below.
                let group = ((number / inner) as f64 / (passes as f64 / groups as f64)) as usize;
                group * inner + number % inner
            }
            Sharing::Parts(parts) if parts.contains(part) => 0,
            Sharing::Parts(_) => number,
        }
    }
}

impl SharedParts {
    /// Whether all layers share this part.
    pub fn contains(self, part: LayerPart) -> bool {
        match self {
            SharedParts::None => false,
            SharedParts::All => true,
            SharedParts::Attention => part.is_of_attention(),
            SharedParts::FeedForward => !part.is_of_attention(),
        }
    }

    /// Whether no part is shared.
    pub fn is_none(&self) -> bool {
        *self == SharedParts::None
    }
}

/// Number of buckets of distances.
pub const DISTANCE_BUCKETS: usize = 32;

/// The bucket of a distance (key minus query), from 0 to 31 (Raffel et al. 2020, section 2.1; `relative_position_bucket` of
/// Transformers' `modeling_mpnet.py`). One half of the buckets is for later keys. Of either half, 8 are for one distance
/// each, and 8 for ranges that grow up to distance 128; the last contains all larger distances.
pub fn distance_bucket(distance: i64) -> usize {
    const HALF: usize = DISTANCE_BUCKETS / 2;
    const EXACT: usize = HALF / 2;
    const FARTHEST: f64 = 128.0;
    let apart = distance.unsigned_abs() as usize;
    let of_later = if distance > 0 { HALF } else { 0 };
    if apart < EXACT {
        return of_later + apart;
    }
    // In f32, as in Transformers.
    let octaves = (apart as f32 / EXACT as f32).ln() / ((FARTHEST / EXACT as f64).ln() as f32);
    let range = (octaves * (HALF - EXACT) as f32) as usize;
    of_later + (EXACT + range).min(HALF - 1)
}

impl Architecture {
    /// The largest distance of tokens that attend to each other in layer `number`; `None` without a limit.
    pub fn window(&self, number: usize) -> Option<usize> {
        self.local.filter(|local| local.contains(number)).map(|local| local.window)
    }

    /// Whether a module has a bias, if modules of its kind have one.
    pub fn has_bias(&self, module: Module) -> bool {
        match module {
            Module::EmbeddingNorm
            | Module::FinalNorm
            | Module::PredictionNorm
            | Module::Layer { part: LayerPart::AttentionNorm | LayerPart::OutputNorm, .. } => self.biases.norms,
            Module::Layer { part, .. } if part.is_of_attention() => self.biases.attention,
            Module::Layer { .. } => self.biases.feed_forward,
            Module::PredictionDense => self.biases.prediction,
            _ => true,
        }
    }

    /// Standard deviation of the normal distribution that initialises a matrix, before its truncation at two standard
    /// deviations. In pre-norm models, it is smaller for the matrices whose outputs add up over the layers (`_init_weights` of
    /// Transformers' `modeling_modernbert.py`, with `initializer_cutoff_factor` 2).
    pub(crate) fn initial_deviation(&self, module: Module) -> f32 {
        match module {
            _ if !self.pre_norm => self.initializer_range,
            Module::Layer { part: LayerPart::AttentionOutput | LayerPart::Output, .. }
            | Module::PredictionDense
            | Module::MlmDecoder => self.initializer_range / (2.0 * self.layers as f32).sqrt(),
            Module::Classifier => (self.hidden_size as f32).sqrt().recip(),
            _ => self.initializer_range,
        }
    }

    /// Maximum number of tokens of a sequence.
    pub fn max_sequence_length(&self) -> usize {
        self.positions - self.first_position()
    }

    /// The position of a sequence's first token, unless that is padding.
    pub fn first_position(&self) -> usize {
        self.position_padding.map_or(0, |padding| padding as usize + 1)
    }

    /// D: the width of one attention head.
    pub fn head_size(&self) -> usize {
        self.hidden_size / self.attention_heads
    }

    /// The module of layer `number` (from 0), with the number of its set of weights.
    pub fn layer_module(&self, number: usize, part: LayerPart) -> Module {
        Module::layer(self.sharing.set(number, part), part)
    }

    /// The indices of the hidden states that a module's parameters first and last contribute to: 0 for the embeddings,
    /// n + 1 for layer n; `None` for a head. They differ only for shared weights.
    pub(crate) fn heights(&self, module: Module) -> Option<[usize; 2]> {
        match module {
            Module::Layer { part, .. } => {
                let mut uses = (0..self.layers).filter(|&number| self.layer_module(number, part) == module);
                let first = uses.next()?;
                Some([first + 1, uses.next_back().unwrap_or(first) + 1])
            }
            Module::FinalNorm => Some([self.layers, self.layers]),
            _ if module.head().is_none() => Some([0, 0]),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `MPNetEncoder.relative_position_bucket` of Transformers 5.24, where it changes.
    #[test]
    fn distances_have_the_buckets_of_mpnet() {
        let first = [0, 1, 2, 3, 4, 5, 6, 7, 8, 12, 16, 23, 32, 46, 64, 91];
        for (bucket, &start) in first.iter().enumerate() {
            let end = first.get(bucket + 1).map_or(10_000, |next| next - 1);
            for apart in [start, end] {
                assert_eq!(distance_bucket(-apart), bucket, "{apart} tokens before");
                if apart > 0 {
                    assert_eq!(distance_bucket(apart), bucket + 16, "{apart} tokens after");
                }
            }
        }
    }

    /// `int(i / (num_hidden_layers / num_hidden_groups))` of `modeling_albert.py`, evaluated by Python.
    #[test]
    fn groups_are_those_of_albert() {
        for (passes, groups, number, expected) in
            [(12, 1, 11, 0), (12, 5, 11, 4), (18, 14, 9, 6), (36, 28, 18, 13), (48, 48, 47, 47)]
        {
            let found = Sharing::Groups { passes, groups, inner: 1 }.set(number, LayerPart::Key);
            assert_eq!(found, expected, "layer {number} of {passes} in {groups} groups");
        }
        let sets = |sharing: Sharing, part| (0..4).map(|number| sharing.set(number, part)).collect::<Vec<_>>();
        assert_eq!(sets(Sharing::Groups { passes: 2, groups: 2, inner: 2 }, LayerPart::Output), [0, 1, 2, 3]);
        assert_eq!(sets(Sharing::Groups { passes: 2, groups: 1, inner: 2 }, LayerPart::Output), [0, 1, 0, 1]);
        assert_eq!(sets(Sharing::Parts(SharedParts::Attention), LayerPart::AttentionNorm), [0, 0, 0, 0]);
        assert_eq!(sets(Sharing::Parts(SharedParts::Attention), LayerPart::OutputNorm), [0, 1, 2, 3]);
        assert_eq!(sets(Sharing::Parts(SharedParts::FeedForward), LayerPart::Intermediate), [0, 0, 0, 0]);
    }
}
