//! What the network needs to know of a model, whatever its family's config.json calls it.

use cloze_engine::ops::Activation;

/// Sizes and settings of a network; [`Config::architecture`](crate::Config::architecture) makes it of a configuration.
#[derive(Debug, Clone, Copy, PartialEq)]
#[non_exhaustive]
pub struct Architecture {
    /// V: rows of the word embeddings.
    pub vocab_size: usize,
    /// E: width of the embeddings. Where it is not H, a dense layer follows them.
    pub embedding_size: usize,
    /// H: width of the hidden states.
    pub hidden_size: usize,
    /// L: encoder layers.
    pub layers: usize,
    /// N: attention heads of width H/N.
    pub attention_heads: usize,
    /// F: inner width of the feed-forward block.
    pub intermediate_size: usize,
    /// Rows of the position embeddings.
    pub positions: usize,
    /// The row of a sequence's first token.
    pub first_position: usize,
    /// Rows of the segment (token type) embeddings.
    pub segments: usize,
    /// Activation of the feed-forward block and of the MLM head's transform.
    pub activation: Activation,
    /// Dropout on the embeddings and on both sublayers' outputs.
    pub hidden_dropout: f32,
    /// Dropout on the attention weights.
    pub attention_dropout: f32,
    /// Dropout before a task's head.
    pub classifier_dropout: f32,
    /// Standard deviation of the truncated normal that initialises matrices.
    pub initializer_range: f32,
    /// ε of every LayerNorm.
    pub layer_norm_eps: f32,
    /// Whether a token sees only itself and those before it.
    pub causal: bool,
    /// Whether the MLM decoder is the word embeddings; else it has a matrix of its own.
    pub tied_decoder: bool,
}

impl Architecture {
    /// Tokens of a sequence at most.
    pub fn longest_sequence(&self) -> usize {
        self.positions - self.first_position
    }

    /// D: the width of one attention head.
    pub fn head_size(&self) -> usize {
        self.hidden_size / self.attention_heads
    }
}
