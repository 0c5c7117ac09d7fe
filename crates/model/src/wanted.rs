//! The tokens whose last hidden state a head reads. In its last layer a token that nobody reads is there for its key and its value
//! alone: all else of it, five sixths of the layer's arithmetic, is left out, forward and backward, and no number changes.

use cloze_engine::{Device, Tensor};

/// Some tokens of a packed batch, in order, each once.
pub(crate) struct Wanted {
    tokens: Vec<i32>,
    ends: Vec<i32>,
}

/// [`Wanted`] on the device.
#[derive(Clone)]
pub(crate) struct Asking {
    /// `[R]` the tokens' places in the batch.
    pub(crate) tokens: Tensor,
    /// `[S+1]` how many of them there are before the end of each sequence, from 0.
    pub(crate) ends: Tensor,
}

impl Wanted {
    /// These tokens, in any order, of sequences that end at `cu_seqlens`.
    pub(crate) fn new(mut tokens: Vec<i32>, cu_seqlens: &[i32]) -> Wanted {
        tokens.sort_unstable();
        tokens.dedup();
        let ends = cu_seqlens.iter().map(|end| tokens.partition_point(|token| token < end) as i32).collect();
        Wanted { tokens, ends }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.tokens.is_empty()
    }

    /// How many of them there are before the end of each sequence, from 0.
    pub(crate) fn ends(&self) -> &[i32] {
        &self.ends
    }

    /// Where some of them are among all of them, `[R]`: the rows of the last layer's output to read.
    pub(crate) fn rows(&self, device: &Device, tokens: &[i32]) -> Tensor {
        let place = |token: &i32| self.tokens.binary_search(token).expect("a token that is wanted") as i32;
        indices(device, &tokens.iter().map(place).collect::<Vec<i32>>())
    }

    pub(crate) fn upload(&self, device: &Device) -> Asking {
        Asking { tokens: indices(device, &self.tokens), ends: indices(device, &self.ends) }
    }
}

/// Places or labels on the device, one dimension.
pub(crate) fn indices(device: &Device, values: &[i32]) -> Tensor {
    device.tensor_i32(values, &[values.len()])
}
