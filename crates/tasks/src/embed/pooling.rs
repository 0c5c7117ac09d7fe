//! Pooling: the hidden states of a text's tokens → one vector.
//!
//! For the T tokens x₁ … x_T of a text, including `[CLS]` and `[SEP]`, as in sentence-transformers' `Pooling`:
//!
//! ```text
//! cls x₁ · last x_T · mean Σ x_t / T · mean-sqrt-len Σ x_t / √T · weighted-mean Σ t x_t / Σ t · max max_t x_t · pooler tanh(W x₁ + b)
//! ```
//!
//! The tokens of a prompt may be excluded (`include_prompt` in the settings of the module). Then x₁ is the first token
//! after the prompt, and T is the number of tokens after it, but the weight t of a token counts all tokens. Sums are
//! computed in f64 for all data types of activations.

use std::fmt;

use cloze_engine::Var;

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

/// The vectors of all sequences of a batch, row by row. The first `prompt` tokens of each are excluded. Panics if a
/// mode needs a pooler and there is none.
pub(super) fn pool(
    pooling: &Pooling,
    states: &[&Var],
    pooled: Option<&Var>,
    cu_seqlens: &[i32],
    prompt: usize,
) -> Vec<f32> {
    let hidden = states[0].value().shape()[1];
    let states: Vec<Vec<f32>> = states.iter().map(|state| state.value().to_vec_f32()).collect();
    let pooled =
        pooling.pools.contains(&Pool::Pooler).then(|| pooled.expect("a model with a pooler").value().to_vec_f32());
    let mut vectors = Vec::with_capacity((cu_seqlens.len() - 1) * pooling.width(hidden));
    for (number, ends) in cu_seqlens.windows(2).enumerate() {
        let tokens = ends[0] as usize * hidden..ends[1] as usize * hidden;
        for &pool in &pooling.pools {
            match &pooled {
                Some(pooled) if pool == Pool::Pooler => {
                    vectors.extend_from_slice(&pooled[number * hidden..(number + 1) * hidden]);
                }
                _ => {
                    states.iter().for_each(|state| combine(pool, &state[tokens.clone()], hidden, prompt, &mut vectors))
                }
            }
        }
    }
    vectors
}

/// Pools the tokens of a sequence, without the first `prompt` tokens. If no tokens remain, the result is as in
/// sentence-transformers: sums are zero, the first token is that of the sequence, the last is zero and the maximum is
/// −∞.
fn combine(pool: Pool, tokens: &[f32], hidden: usize, prompt: usize, out: &mut Vec<f32>) {
    let rows = || tokens.chunks_exact(hidden).enumerate().skip(prompt);
    let mut mean = |weight: fn(usize) -> f64, divisor: fn(f64) -> f64| {
        let (mut sum, mut weights) = (vec![0f64; hidden], 0.0);
        for (number, row) in rows() {
            sum.iter_mut().zip(row).for_each(|(sum, &x)| *sum += weight(number) * f64::from(x));
            weights += weight(number);
        }
        let divisor = divisor(weights).max(1e-9);
        out.extend(sum.into_iter().map(|sum| (sum / divisor) as f32));
    };
    match pool {
        Pool::Mean => mean(|_| 1.0, |count| count),
        Pool::MeanSqrtLen => mean(|_| 1.0, f64::sqrt),
        Pool::WeightedMean => mean(|number| number as f64 + 1.0, |weights| weights),
        Pool::Max => {
            let mut max = vec![f32::NEG_INFINITY; hidden];
            // NaN is propagated, because `f32::max` would hide damaged weights.
            let update = |max: &mut f32, x: f32| *max = if x > *max || x.is_nan() { x } else { *max };
            rows().for_each(|(_, row)| max.iter_mut().zip(row).for_each(|(max, &x)| update(max, x)));
            out.extend(max);
        }
        Pool::Cls | Pool::Pooler => out.extend(rows().next().map_or(&tokens[..hidden], |(_, first)| first)),
        Pool::LastToken => match rows().last() {
            Some((_, last)) => out.extend(last),
            None => out.extend(vec![0.0; hidden]),
        },
    }
}
