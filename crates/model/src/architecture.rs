//! The sizes and settings of a network, independent of the names in its family's config.json.

use cloze_engine::ops::Activation;

/// Sizes and settings of a network; made by [`Config::architecture`](crate::Config::architecture).
#[derive(Debug, Clone, Copy, PartialEq)]
#[non_exhaustive]
pub struct Architecture {
    /// V: rows of the word embeddings.
    pub vocab_size: usize,
    /// E: width of the embeddings. If it is not H, a dense layer follows them.
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
    /// The position of a sequence's first token.
    pub first_position: usize,
    /// Rows of the segment (token type) embeddings.
    pub segments: usize,
    /// Activation of the feed-forward block and of the MLM head's transform.
    pub activation: Activation,
    /// Dropout on the embeddings and on the outputs of both sublayers.
    pub hidden_dropout: f32,
    /// Dropout on the attention weights.
    pub attention_dropout: f32,
    /// Dropout before a task's head.
    pub classifier_dropout: f32,
    /// Standard deviation of the truncated normal that initialises matrices.
    pub initializer_range: f32,
    /// ε of every LayerNorm.
    pub layer_norm_eps: f32,
    /// Whether a token attends only to itself and earlier tokens.
    pub causal: bool,
    /// Whether the MLM decoder's weight is the word embeddings; otherwise it is a separate matrix.
    pub tied_decoder: bool,
}

impl Architecture {
    /// Maximum number of tokens of a sequence.
    pub fn max_sequence_length(&self) -> usize {
        self.positions - self.first_position
    }

    /// D: the width of one attention head.
    pub fn head_size(&self) -> usize {
        self.hidden_size / self.attention_heads
    }
}
