//! Hidden states of a text's tokens → one vector.
//!
//! Of the T real tokens x₁ … x_T of a text, `[CLS]` and `[SEP]` among them as in sentence-transformers' `Pooling`:
//!
//! ```text
//! cls x₁ · mean Σ x_t / T · mean-sqrt-len Σ x_t / √T · max max_t x_t · pooler tanh(W x₁ + b)
//! ```
//!
//! Sums are f64 whatever the activations' type.

use std::fmt;

use cloze_engine::Var;

/// How tokens become one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pool {
    /// The first token, `[CLS]`.
    Cls,
    /// The mean of all tokens.
    Mean,
    /// The sum of all tokens over the square root of their number.
    MeanSqrtLen,
    /// The largest of each number over all tokens.
    Max,
    /// The pooler's output; of the last layer whatever [`Pooling::layers`] says.
    Pooler,
}

impl Pool {
    /// Its name on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Pool::Cls => "cls",
            Pool::Mean => "mean",
            Pool::MeanSqrtLen => "mean-sqrt-len",
            Pool::Max => "max",
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
    /// Whether vectors are divided by their length. A vector of zeros stays one.
    pub normalize: bool,
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
        let (plural, normalised) = (if layers.len() > 1 { "s" } else { "" }, if self.normalize { "" } else { "not " });
        write!(f, "{} of layer{plural} {}, {normalised}normalised", pools.join(" and "), layers.join(", "))
    }
}

/// The vectors of all sequences of a batch, end to end. Panics where a pooler is asked for that the model lacks.
pub(super) fn pool(pooling: &Pooling, states: &[&Var], pooled: Option<&Var>, cu_seqlens: &[i32]) -> Vec<f32> {
    let hidden = states[0].value().shape()[1];
    let states: Vec<Vec<f32>> = states.iter().map(|state| state.value().to_vec_f32()).collect();
    let pooled =
        pooling.pools.contains(&Pool::Pooler).then(|| pooled.expect("a model with a pooler").value().to_vec_f32());
    let mut vectors = Vec::with_capacity((cu_seqlens.len() - 1) * pooling.width(hidden));
    for (number, ends) in cu_seqlens.windows(2).enumerate() {
        let start = vectors.len();
        let tokens = ends[0] as usize * hidden..ends[1] as usize * hidden;
        for &pool in &pooling.pools {
            match &pooled {
                Some(pooled) if pool == Pool::Pooler => {
                    vectors.extend_from_slice(&pooled[number * hidden..(number + 1) * hidden]);
                }
                _ => states.iter().for_each(|state| combine(pool, &state[tokens.clone()], hidden, &mut vectors)),
            }
        }
        if pooling.normalize {
            normalize(&mut vectors[start..]);
        }
    }
    vectors
}

/// One vector of a sequence's tokens.
fn combine(pool: Pool, tokens: &[f32], hidden: usize, out: &mut Vec<f32>) {
    let rows = tokens.chunks_exact(hidden);
    let count = rows.len() as f64;
    let divisor = match pool {
        Pool::Mean => count,
        Pool::MeanSqrtLen => count.sqrt(),
        Pool::Max => {
            let mut most = vec![f32::NEG_INFINITY; hidden];
            // NaN is kept: `f32::max` would hide damaged weights.
            let keep = |most: &mut f32, x: f32| *most = if x > *most || x.is_nan() { x } else { *most };
            rows.for_each(|row| most.iter_mut().zip(row).for_each(|(most, &x)| keep(most, x)));
            out.extend(most);
            return;
        }
        Pool::Cls | Pool::Pooler => {
            out.extend_from_slice(&tokens[..hidden]);
            return;
        }
    };
    let mut sum = vec![0f64; hidden];
    rows.for_each(|row| sum.iter_mut().zip(row).for_each(|(sum, &x)| *sum += f64::from(x)));
    out.extend(sum.into_iter().map(|sum| (sum / divisor) as f32));
}

/// Divides a vector by its length; zeros stay.
pub(super) fn normalize(vector: &mut [f32]) {
    let length = vector.iter().map(|&x| f64::from(x) * f64::from(x)).sum::<f64>().sqrt();
    if length > 0.0 {
        vector.iter_mut().for_each(|x| *x = (f64::from(*x) / length) as f32);
    }
}
