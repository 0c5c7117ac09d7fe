//! Hidden states of a text's tokens → one vector.
//!
//! Of the T real tokens x₁ … x_T of a text, `[CLS]` and `[SEP]` among them as in sentence-transformers' `Pooling`:
//!
//! ```text
//! cls x₁ · last x_T · mean Σ x_t / T · mean-sqrt-len Σ x_t / √T · weighted-mean Σ t x_t / Σ t · max max_t x_t · pooler tanh(W x₁ + b)
//! ```
//!
//! Tokens of a prompt may be left out (`include_prompt` of the module's settings): x₁ is then the first token after it, and T counts
//! those after it; a token's weight t counts all. Sums are f64 whatever the activations' type.

use std::fmt;

use cloze_engine::Var;

/// How tokens become one.
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
    /// The largest of each number over all tokens.
    Max,
    /// The last token, `[SEP]`.
    LastToken,
    /// The pooler's output; of the last layer whatever [`Pooling::layers`] says.
    Pooler,
}

impl Pool {
    /// Its name.
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

/// What a vector is made of: for each pool in turn, each layer's share.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pooling {
    /// Set side by side.
    pub pools: Vec<Pool>,
    /// The hidden states, from 0 (the embeddings') to the number of layers; set side by side.
    pub layers: Vec<usize>,
    /// Whether the tokens of a prompt count.
    pub include_prompt: bool,
}

impl Pooling {
    /// Numbers of a vector for a model so wide.
    pub fn width(&self, hidden: usize) -> usize {
        let parts = |pool: &Pool| if *pool == Pool::Pooler { 1 } else { self.layers.len() };
        self.pools.iter().map(parts).sum::<usize>() * hidden
    }

    /// Whether of a model with so many layers the last one's first tokens are all that is read.
    pub(super) fn reads_firsts_alone(&self, layers: usize) -> bool {
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

/// The vectors of all sequences of a batch, end to end; of each, the first `prompt` tokens are left out. Panics without the pooler that
/// a pool needs.
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

/// One vector of a sequence's tokens without the first `prompt` of them. Where none is left, sums are zeros, the first token is that of
/// the sequence, the last is zeros and the largest is −∞, as in sentence-transformers.
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
            let mut most = vec![f32::NEG_INFINITY; hidden];
            // NaN is kept: `f32::max` would hide damaged weights.
            let keep = |most: &mut f32, x: f32| *most = if x > *most || x.is_nan() { x } else { *most };
            rows().for_each(|(_, row)| most.iter_mut().zip(row).for_each(|(most, &x)| keep(most, x)));
            out.extend(most);
        }
        Pool::Cls | Pool::Pooler => out.extend(rows().next().map_or(&tokens[..hidden], |(_, first)| first)),
        Pool::LastToken => match rows().last() {
            Some((_, last)) => out.extend(last),
            None => out.extend(vec![0.0; hidden]),
        },
    }
}
