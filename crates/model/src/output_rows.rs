//! The tokens whose last hidden state a head reads. In its last layer a token that nobody reads is there for its key and its value
//! alone: all else of it, five sixths of the layer's arithmetic, is left out, forward and backward, and no number changes.

use cloze_engine::{Device, Pass, Tensor, Var, ops};

/// Some tokens of a packed batch, in order, each once.
pub(crate) struct OutputRows {
    tokens: Vec<i32>,
    ends: Vec<i32>,
}

/// [`OutputRows`] on the device.
#[derive(Clone)]
pub(crate) struct OutputRowsTensors {
    /// `[R]` the tokens' places in the batch.
    pub(crate) tokens: Tensor,
    /// `[S+1]` how many of them there are before the end of each sequence, from 0.
    pub(crate) ends: Tensor,
}

impl OutputRows {
    /// These tokens, in any order, of sequences that end at `cu_seqlens`.
    pub(crate) fn new(mut tokens: Vec<i32>, cu_seqlens: &[i32]) -> OutputRows {
        tokens.sort_unstable();
        tokens.dedup();
        let ends = cu_seqlens.iter().map(|end| tokens.partition_point(|token| token < end) as i32).collect();
        OutputRows { tokens, ends }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.tokens.is_empty()
    }

    /// How many of them each sequence has, `[S]`.
    pub(crate) fn counts(&self) -> impl Iterator<Item = usize> + '_ {
        self.ends.windows(2).map(|pair| (pair[1] - pair[0]) as usize)
    }

    /// Of the states `[R, H]` at these tokens those of `tokens`, which are among them, in their order.
    pub(crate) fn select(&self, pass: &mut Pass, states: &Var, tokens: &[i32]) -> Var {
        if tokens == self.tokens {
            return states.clone();
        }
        let place = |token: &i32| self.tokens.binary_search(token).expect("a token that is read") as i32;
        let places = indices(pass.device(), &tokens.iter().map(place).collect::<Vec<i32>>());
        ops::index_select(pass, states, &places)
    }

    pub(crate) fn upload(&self, device: &Device) -> OutputRowsTensors {
        OutputRowsTensors { tokens: indices(device, &self.tokens), ends: indices(device, &self.ends) }
    }
}

/// Indices or labels on the device, one dimension.
pub(crate) fn indices(device: &Device, values: &[i32]) -> Tensor {
    device.tensor_i32(values, &[values.len()])
}
