//! The tokens for which the output of the last layer is needed. For other tokens, the last layer only computes keys and
//! values. The rest, five sixths of the layer's arithmetic, is skipped, forward and backward, without changing any
//! result.

use cloze_engine::{Device, Pass, Tensor, Var, ops};

/// Some tokens of a packed batch, sorted and without duplicates.
pub(crate) struct OutputRows {
    tokens: Vec<i32>,
    ends: Vec<i32>,
}

/// [`OutputRows`] on the device.
#[derive(Clone)]
pub(crate) struct OutputRowsTensors {
    /// `[R]` indices of the tokens in the batch.
    pub(crate) tokens: Tensor,
    /// `[S+1]` cumulative number of these tokens at the end of each sequence, starting with 0.
    pub(crate) ends: Tensor,
}

impl OutputRows {
    /// Selects these tokens, in any order, from sequences that end at `cu_seqlens`.
    pub(crate) fn new(mut tokens: Vec<i32>, cu_seqlens: &[i32]) -> OutputRows {
        tokens.sort_unstable();
        tokens.dedup();
        let ends = cu_seqlens.iter().map(|end| tokens.partition_point(|token| token < end) as i32).collect();
        OutputRows { tokens, ends }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.tokens.is_empty()
    }

    /// The number of these tokens in each sequence, `[S]`.
    pub(crate) fn counts(&self) -> impl Iterator<Item = usize> + '_ {
        self.ends.windows(2).map(|pair| (pair[1] - pair[0]) as usize)
    }

    /// Selects from the states `[R, H]` of all of these tokens those of `tokens`, in the given order. `tokens` must be
    /// a subset.
    pub(crate) fn select(&self, pass: &mut Pass, states: &Var, tokens: &[i32]) -> Var {
        if tokens == self.tokens {
            return states.clone();
        }
        let index = |token: &i32| self.tokens.binary_search(token).expect("a selected token") as i32;
        let rows = indices(pass.device(), &tokens.iter().map(index).collect::<Vec<i32>>());
        ops::index_select(pass, states, &rows)
    }

    pub(crate) fn upload(&self, device: &Device) -> OutputRowsTensors {
        OutputRowsTensors { tokens: indices(device, &self.tokens), ends: indices(device, &self.ends) }
    }
}

/// A one-dimensional tensor of indices or labels on the device.
pub(crate) fn indices(device: &Device, values: &[i32]) -> Tensor {
    device.tensor_i32(values, &[values.len()])
}
