//! Pooling: the hidden states of a text's tokens → one vector.
//!
//! For the T tokens x₁ … x_T of a text, including `[CLS]` and `[SEP]`, as in sentence-transformers' `Pooling`:
//!
//! ```text
//! cls x₁ · last x_T · mean Σ x_t / T · mean-sqrt-len Σ x_t / √T · weighted-mean Σ t x_t / Σ t · max max_t x_t · pooler tanh(W x₁ + b)
//! ```
//!
//! The tokens of a prompt may be excluded (`include_prompt` in the settings of the module). Then x₁ is the first token
//! after the prompt, and T is the number of tokens after it, but the weight t of a token counts all tokens. Vectors are f32
//! for all data types of activations. Training and inference use the same function.

use std::fmt;

use cloze_engine::{Pass, Var, ops};
use cloze_model::{Inputs, ModelGraph};

/// A pooling mode.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Pool {
    /// The first token, `[CLS]`.
    Cls,
    /// The mean of all tokens.
    Mean,
    /// The sum of all tokens over the square root of their number.
    MeanSqrtLen,
    /// The mean of all tokens, the n-th with weight n.
    WeightedMean,
    /// The maximum of each dimension over all tokens.
    Max,
    /// The last token, `[SEP]`.
    LastToken,
    /// The pooler's output, which is computed from the last layer for all values of [`Pooling::layers`].
    Pooler,
}

impl Pool {
    /// The name of the mode, as the value of the option `pool`.
    pub const fn name(self) -> &'static str {
        match self {
            Pool::Cls => "cls",
            Pool::Mean => "mean",
            Pool::MeanSqrtLen => "mean-sqrt-len",
            Pool::WeightedMean => "weighted-mean",
            Pool::Max => "max",
            Pool::LastToken => "last-token",
            Pool::Pooler => "pooler",
        }
    }
}

/// The parts of a vector: for each pooling mode in order, one part for each layer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pooling {
    /// The pooling modes, whose results are concatenated.
    pub pools: Vec<Pool>,
    /// The indices of the hidden states, from 0 (embeddings) to the number of layers; they are concatenated.
    pub layers: Vec<usize>,
    /// Whether the tokens of a prompt are included.
    pub include_prompt: bool,
}

impl Pooling {
    /// The number of dimensions of a vector, for a model with this hidden size.
    pub fn width(&self, hidden: usize) -> usize {
        let parts = |pool: &Pool| if *pool == Pool::Pooler { 1 } else { self.layers.len() };
        self.pools.iter().map(parts).sum::<usize>() * hidden
    }

    /// Whether only the first token of the last layer is used, for a model with this number of layers.
    pub(super) fn needs_only_cls(&self, layers: usize) -> bool {
        self.layers == [layers] && self.pools.iter().all(|pool| matches!(pool, Pool::Cls | Pool::Pooler))
    }
}

impl fmt::Display for Pooling {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let pools: Vec<&str> = self.pools.iter().map(|pool| pool.name()).collect();
        let layers: Vec<String> = self.layers.iter().map(usize::to_string).collect();
        let plural = if layers.len() > 1 { "s" } else { "" };
        write!(f, "{} of layer{plural} {}", pools.join(" and "), layers.join(", "))
    }
}

/// The tokens of a batch of sequences.
#[derive(Clone, Copy)]
pub(crate) struct Tokens<'a> {
    /// The first token of each sequence, then the number of tokens.
    pub(crate) cu_seqlens: &'a [i32],
    /// The number of leading tokens of each sequence that are excluded.
    pub(crate) excluded: usize,
}

/// The pooled vectors of a batch, `[S, W]` of f32. The first `excluded` tokens of each sequence are excluded from the pooling.
pub(crate) fn pooled_states(
    model: &ModelGraph,
    pass: &mut Pass<'_>,
    pooling: &Pooling,
    inputs: &Inputs,
    excluded: usize,
) -> Var {
    let (last, pools) = (model.architecture().layers, pooling.pools.contains(&Pool::Pooler));
    if excluded == 0 && pooling.needs_only_cls(last) {
        let cls = model.cls_states(pass, inputs);
        let pooled = if pools { model.pooler_output(pass, &cls) } else { None };
        let alone: Vec<i32> = (0..=inputs.sequences() as i32).collect();
        return pool(pass, pooling, &[cls], pooled.as_ref(), Tokens { cu_seqlens: &alone, excluded: 0 });
    }
    let mut numbers = pooling.layers.clone();
    numbers.extend(pools.then_some(last));
    let states = model.hidden_states(pass, inputs, &numbers);
    let pooled = pools.then(|| {
        let cls = pass.device().tensor_i32(inputs.cls_tokens(), &[inputs.sequences()]);
        let cls = ops::index_select(pass, &states[states.len() - 1], &cls);
        model.pooler_output(pass, &cls)
    });
    let tokens = Tokens { cu_seqlens: &inputs.cu_seqlens, excluded };
    pool(pass, pooling, &states[..pooling.layers.len()], pooled.flatten().as_ref(), tokens)
}

/// The vectors of all sequences of a batch, `[S, W]` of f32. If no token of a sequence remains, the vector is as in
/// sentence-transformers: sums are zero, the first token is that of the sequence, the last is zero; a maximum is not
/// possible. Panics for that, and if a mode needs a pooler and there is none.
pub(crate) fn pool(
    pass: &mut Pass<'_>,
    pooling: &Pooling,
    states: &[Var],
    pooled: Option<&Var>,
    tokens: Tokens<'_>,
) -> Var {
    let device = pass.device().clone();
    let ends = device.tensor_i32(tokens.cu_seqlens, &[tokens.cu_seqlens.len()]);
    let mut parts = Vec::new();
    for &pool in &pooling.pools {
        if pool == Pool::Pooler {
            let pooled = pooled.expect("a model with a pooler");
            parts.push(as_f32(pass, pooled));
            continue;
        }
        for state in states {
            parts.push(match pool {
                Pool::Max => ops::segment_max(pass, state, &ends, tokens.excluded),
                _ => {
                    let weights = weights(pool, tokens);
                    let weights = device.tensor_f32(&weights, &[weights.len()]);
                    ops::segment_sum(pass, state, &ends, &weights)
                }
            });
        }
    }
    match &parts[..] {
        [only] => only.clone(),
        several => ops::concat(pass, several),
    }
}

/// The rows of an activation as f32.
fn as_f32(pass: &mut Pass<'_>, x: &Var) -> Var {
    let rows = x.value().shape()[0];
    let ends: Vec<i32> = (0..=rows as i32).collect();
    let ends = pass.device().tensor_i32(&ends, &[rows + 1]);
    let weights = pass.device().tensor_f32(&vec![1.0; rows], &[rows]);
    ops::segment_sum(pass, x, &ends, &weights)
}

/// The weight of each token in the vector of its sequence.
fn weights(pool: Pool, tokens: Tokens<'_>) -> Vec<f32> {
    let mut weights = Vec::with_capacity(tokens.cu_seqlens.last().map_or(0, |&count| count as usize));
    for ends in tokens.cu_seqlens.windows(2) {
        let length = (ends[1] - ends[0]) as usize;
        let kept = tokens.excluded..length;
        // The sum of the numbers of the kept tokens, counted from 1 at the start of the sequence.
        let of_numbers = || kept.clone().map(|number| number as f64 + 1.0).sum::<f64>();
        let first = if kept.is_empty() { 0 } else { kept.start };
        weights.extend((0..length).map(|number| {
            let is_kept = f64::from(u8::from(kept.contains(&number)));
            let weight = match pool {
                Pool::Mean => is_kept / kept.len() as f64,
                Pool::MeanSqrtLen => is_kept / (kept.len() as f64).sqrt(),
                Pool::WeightedMean => is_kept * (number as f64 + 1.0) / of_numbers(),
                Pool::LastToken => is_kept * f64::from(u8::from(number + 1 == length)),
                Pool::Cls => f64::from(u8::from(number == first)),
                Pool::Max | Pool::Pooler => panic!("{} is not a weighted sum", pool.name()),
            };
            if weight.is_finite() { weight as f32 } else { 0.0 }
        }));
    }
    weights
}
