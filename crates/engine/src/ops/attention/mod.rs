//! Scaled dot-product attention (Vaswani et al. 2017, §3.2), each sequence of a packed batch with itself.
//!
//! For every head: P = softmax(Q Kᵀ/√D), P̃ = dropout(P), O = P̃ V.
//!
//! Backward (Dao et al. 2022, appendix B): dV = P̃ᵀ dO; dP = mask (dO Vᵀ); δ = rowsum(P ∘ dP);
//! dS = P ∘ (dP − δ)/√D; dQ = dS K; dK = dSᵀ Q. P is computed again from the saved log-sum-exp of each row, a block of
//! rows at a time: no S×S matrix is ever kept.

mod cpu;

use crate::profile::Cost;
use crate::random::Mask;
use crate::{Pass, Tensor, Var};

/// What both directions share.
#[doc(hidden)]
pub struct Heads<'a> {
    pub(crate) qkv: &'a Tensor,
    pub(crate) cu_seqlens: &'a Tensor,
    pub(crate) heads: usize,
    pub(crate) mask: Mask,
    pub(crate) causal: bool,
}

/// Both directions.
pub trait Attention {
    /// → O [T, H] and the rows' log-sum-exp [T, N].
    fn attention(&self, heads: &Heads<'_>) -> (Tensor, Tensor);
    /// → the gradient of q | k | v, [T, 3H].
    fn attention_back(&self, heads: &Heads<'_>, log_sums: &Tensor, dy: &Tensor) -> Tensor;
}

/// Attention within each sequence: `qkv` [T, 3H] holds queries, keys and values side by side, `cu_seqlens` [S + 1] the
/// first token of each sequence and T; → [T, H]. `dropout` falls on the attention weights; `causal` hides later tokens.
pub fn attention(pass: &mut Pass<'_>, qkv: &Var, cu_seqlens: &Tensor, heads: usize, dropout: f32, causal: bool) -> Var {
    let mask = pass.dropout_site(dropout);
    let (qkv_value, cu_seqlens, from) = (qkv.value().clone(), cu_seqlens.clone(), qkv.slot());
    let inputs = Heads { qkv: &qkv_value, cu_seqlens: &cu_seqlens, heads, mask, causal };
    let (value, log_sums) = pass.device().backend().attention(&inputs);
    let squares: usize = cu_seqlens.slice::<i32>().windows(2).map(|ends| ((ends[1] - ends[0]) as usize).pow(2)).sum();
    // Two products forward, five backward; a causal mask halves what is seen.
    let product = 2 * squares * value.shape()[1] / if causal { 2 } else { 1 };
    let (qkv_bytes, y_bytes) = (qkv_value.bytes(), value.bytes());
    pass.costs(Cost::new(2 * product, qkv_bytes + y_bytes), Cost::new(5 * product, 2 * qkv_bytes + y_bytes));
    pass.record("attention", value, |slot| {
        Box::new(move |back| {
            let Some(dy) = back.finish(slot) else { return };
            let inputs = Heads { qkv: &qkv_value, cu_seqlens: &cu_seqlens, heads, mask, causal };
            let dqkv = back.device.backend().attention_back(&inputs, &log_sums, &dy);
            back.add(from, dqkv);
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::check::{check_op, masked};

    fn oracle(qkv: &[f64], lengths: &[usize], heads: usize, width: usize, p: f32, causal: bool) -> Vec<f64> {
        let hidden = heads * width;
        let mask = masked(1, p);
        let mut y = vec![0.0; qkv.len() / 3];
        let mut first = 0;
        for length in lengths {
            for head in 0..heads {
                let at =
                    |part: usize, t: usize, d: usize| qkv[(first + t) * 3 * hidden + part * hidden + head * width + d];
                for i in 0..*length {
                    let seen = if causal { i + 1 } else { *length };
                    let score =
                        |j: usize| (0..width).map(|d| at(0, i, d) * at(1, j, d)).sum::<f64>() / (width as f64).sqrt();
                    let weights: Vec<f64> = (0..seen).map(|j| score(j).exp()).collect();
                    let total: f64 = weights.iter().sum();
                    let row = mask.row(((first + i) * heads + head) as u64);
                    for d in 0..width {
                        y[(first + i) * hidden + head * width + d] = (0..seen)
                            .map(|j| {
                                weights[j] / total
                                    * if mask.active() { f64::from(row.factor(j)) } else { 1.0 }
                                    * at(2, j, d)
                            })
                            .sum();
                    }
                }
            }
            first += length;
        }
        y
    }

    #[test]
    fn attention_matches_its_oracle() {
        for (lengths, heads, width, p, causal) in [
            (vec![1], 1, 1, 0.0, false),
            (vec![5, 1, 31, 2], 2, 8, 0.0, false),
            (vec![33, 7], 3, 16, 0.25, false),
            (vec![9, 20], 2, 5, 0.0, true),
            (vec![300, 3], 1, 32, 0.1, false),
        ] {
            let tokens: usize = lengths.iter().sum();
            let mut ends = vec![0i32];
            ends.extend(lengths.iter().scan(0, |end, l| {
                *end += *l as i32;
                Some(*end)
            }));
            check_op(
                &format!("attention {lengths:?} {heads}×{width} p={p} causal={causal}"),
                &[&[tokens, 3 * heads * width]],
                &[],
                |pass, x, _| {
                    let ends = pass.device().tensor_i32(&ends, &[ends.len()]);
                    attention(pass, &x[0], &ends, heads, p, causal)
                },
                |x, _| oracle(&x[0], &lengths, heads, width, p, causal),
            );
        }
    }
}
