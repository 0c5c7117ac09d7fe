//! Scaled dot-product attention (Vaswani et al. 2017, §3.2), each sequence of a packed batch with itself.
//!
//! For every head: P = softmax(Q Kᵀ/√D), P̃ = dropout(P), O = P̃ V.
//!
//! Backward (Dao et al. 2022, appendix B): dV = P̃ᵀ dO; dP = mask (dO Vᵀ); δ = rowsum(P ∘ dP);
//! dS = P ∘ (dP − δ)/√D; dQ = dS K; dK = dSᵀ Q. P is computed again from the saved log-sum-exp of each row, a block of
//! rows at a time: no S×S matrix is ever kept.

#[allow(unsafe_code)]
mod cpu;

use crate::profile::Cost;
use crate::random::Mask;
use crate::{Pass, Tensor, Var};

/// What both directions share.
#[doc(hidden)]
pub struct Heads {
    /// Keys and values side by side in the last columns; before them the queries, unless `queries` has them.
    pub(crate) tokens: Tensor,
    pub(crate) cu_seqlens: Tensor,
    /// The queries of some tokens alone, and how many there are before each sequence's end.
    pub(crate) queries: Option<[Tensor; 2]>,
    pub(crate) heads: usize,
    pub(crate) mask: Mask,
    pub(crate) causal: bool,
}

impl Heads {
    /// The matrix whose first columns are the queries.
    fn queries(&self) -> &Tensor {
        self.queries.as_ref().map_or(&self.tokens, |[queries, _]| queries)
    }

    /// How many queries there are before each sequence's end.
    fn query_ends(&self) -> &Tensor {
        self.queries.as_ref().map_or(&self.cu_seqlens, |[_, ends]| ends)
    }

    /// H: keys and values, and the queries beside them if they are there, are as wide.
    fn hidden(&self) -> usize {
        let (_, columns) = self.tokens.matrix("attention");
        columns / if self.queries.is_some() { 2 } else { 3 }
    }
}

/// Both directions.
pub trait Attention {
    /// → O [R, H] and the rows' log-sum-exp [R, N], R being the number of queries.
    fn attention(&self, heads: &Heads) -> (Tensor, Tensor);
    /// → the gradients of `tokens` and, where they are apart, of the queries.
    fn attention_backward(&self, heads: &Heads, log_sums: &Tensor, dy: &Tensor) -> (Tensor, Option<Tensor>);
}

/// Attention within each sequence: `qkv` [T, 3H] holds queries, keys and values side by side, `cu_seqlens` [S + 1] the
/// first token of each sequence and T; → [T, H]. `dropout` falls on the attention weights; `causal` hides later tokens.
pub fn attention(pass: &mut Pass<'_>, qkv: &Var, cu_seqlens: &Tensor, heads: usize, dropout: f32, causal: bool) -> Var {
    let mask = pass.dropout_site(dropout);
    let (tokens, cu_seqlens) = (qkv.value().clone(), cu_seqlens.clone());
    record(pass, Heads { tokens, cu_seqlens, queries: None, heads, mask, causal }, [qkv.slot(), None])
}

/// Attention of some tokens alone: `queries` [R, H] are theirs, sequence by sequence, and `ends` [S + 1] says how many there are
/// before the end of each sequence, from 0; `kv` [T, 2H] holds the keys and values of all; → [R, H].
pub fn attention_queries(
    pass: &mut Pass<'_>,
    [queries, kv]: [&Var; 2],
    [ends, cu_seqlens]: [&Tensor; 2],
    heads: usize,
    dropout: f32,
) -> Var {
    let mask = pass.dropout_site(dropout);
    let slots = [kv.slot(), queries.slot()];
    let (tokens, cu_seqlens) = (kv.value().clone(), cu_seqlens.clone());
    let queries = Some([queries.value().clone(), ends.clone()]);
    record(pass, Heads { tokens, cu_seqlens, queries, heads, mask, causal: false }, slots)
}

/// The op on the tape; the slots are those of tokens and queries.
fn record(pass: &mut Pass<'_>, inputs: Heads, [from, queries_from]: [Option<usize>; 2]) -> Var {
    let (value, log_sums) = pass.device().backend().attention(&inputs);
    if pass.is_profiled() {
        let (forward, backward) = costs(&inputs, &value);
        pass.costs(forward, backward);
    }
    pass.record("attention", value, |slot| {
        Box::new(move |back| {
            let Some(dy) = back.finish(slot) else { return };
            let (dtokens, dqueries) = back.device.backend().attention_backward(&inputs, &log_sums, &dy);
            back.add(from, dtokens);
            if let Some(dqueries) = dqueries {
                back.add(queries_from, dqueries);
            }
        })
    })
}

fn costs(inputs: &Heads, value: &Tensor) -> (Cost, Cost) {
    let lengths = |ends: &Tensor| -> Vec<usize> {
        ends.to_vec_i32().windows(2).map(|ends| (ends[1] - ends[0]) as usize).collect()
    };
    let pairs = lengths(inputs.query_ends()).into_iter().zip(lengths(&inputs.cu_seqlens));
    let scores: usize = pairs.map(|(queries, keys)| queries * keys).sum();
    // Two products forward, five backward; a causal mask halves what is seen.
    let product = 2 * scores * value.shape()[1] / if inputs.causal { 2 } else { 1 };
    let bytes = inputs.tokens.bytes() + inputs.queries.as_ref().map_or(0, |[queries, _]| queries.bytes());
    (Cost::new(2 * product, bytes + value.bytes()), Cost::new(5 * product, 2 * bytes + value.bytes()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::check::{check_op, masked};

    /// What falls on the weights, and what they see.
    #[derive(Clone, Copy)]
    struct Weights {
        p: f32,
        causal: bool,
    }

    /// The rows of tokens `asking`, in order, from queries, keys and values \[T, H\] of all tokens.
    fn oracle(qkv: [&[f64]; 3], lengths: &[usize], heads: usize, asking: &[usize], weights: Weights) -> Vec<f64> {
        let tokens: usize = lengths.iter().sum();
        let (hidden, mask) = (qkv[0].len() / tokens, masked(1, weights.p));
        let width = hidden / heads;
        let mut y = vec![0.0; asking.len() * hidden];
        let ends = ends(lengths.iter().copied());
        for (row, &token) in asking.iter().enumerate() {
            let of = ends.partition_point(|end| *end <= token as i32);
            let first = ends[of - 1] as usize;
            let end = if weights.causal { token + 1 } else { ends[of] as usize };
            for head in 0..heads {
                let at = |part: usize, t: usize, d: usize| qkv[part][t * hidden + head * width + d];
                let score =
                    |t: usize| (0..width).map(|d| at(0, token, d) * at(1, t, d)).sum::<f64>() / (width as f64).sqrt();
                let powers: Vec<f64> = (first..end).map(|t| score(t).exp()).collect();
                let total: f64 = powers.iter().sum();
                let dropout = mask.row((row * heads + head) as u64);
                let kept = |t: usize| if mask.active() { f64::from(dropout.factor(t - first)) } else { 1.0 };
                for d in 0..width {
                    y[row * hidden + head * width + d] =
                        (first..end).map(|t| powers[t - first] / total * kept(t) * at(2, t, d)).sum();
                }
            }
        }
        y
    }

    /// Columns of a matrix with `stride` of them.
    fn columns(x: &[f64], stride: usize, range: std::ops::Range<usize>) -> Vec<f64> {
        x.chunks(stride).flat_map(|row| row[range.clone()].to_vec()).collect()
    }

    fn ends(lengths: impl Iterator<Item = usize>) -> Vec<i32> {
        let mut ends = vec![0];
        ends.extend(lengths.scan(0, |end, length| {
            *end += length as i32;
            Some(*end)
        }));
        ends
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
            let (tokens, hidden) = (lengths.iter().sum(), heads * width);
            let ends = ends(lengths.iter().copied());
            check_op(
                &format!("attention {lengths:?} {heads}×{width} p={p} causal={causal}"),
                &[&[tokens, 3 * hidden]],
                &[],
                |pass, x, _| {
                    let ends = pass.device().tensor_i32(&ends, &[ends.len()]);
                    attention(pass, &x[0], &ends, heads, p, causal)
                },
                |x, _| {
                    let [q, k, v] =
                        [0, 1, 2].map(|part| columns(&x[0], 3 * hidden, part * hidden..(part + 1) * hidden));
                    let all: Vec<usize> = (0..tokens).collect();
                    oracle([&q, &k, &v], &lengths, heads, &all, Weights { p, causal })
                },
            );
        }
    }

    #[test]
    fn attention_queries_some_tokens_matches_its_oracle() {
        // Sequences of which all tokens ask, some, the last alone, or none.
        for (lengths, asking, heads, width, p) in [
            (vec![4], vec![2], 1, 4, 0.0),
            (vec![3, 40, 5, 18], vec![0, 1, 2, 3, 20, 42, 65], 2, 8, 0.0),
            (vec![5, 33], vec![0, 5, 9, 10, 37], 3, 16, 0.25),
            (vec![300, 20], (0..320).step_by(2).collect(), 1, 32, 0.1),
        ] {
            let (tokens, hidden): (usize, _) = (lengths.iter().sum(), heads * width);
            let cu_seqlens = ends(lengths.iter().copied());
            let before = |end: &i32| asking.iter().filter(|token| **token < *end as usize).count() as i32;
            let asking_ends: Vec<i32> = cu_seqlens.iter().map(before).collect();
            check_op(
                &format!("attention of {asking:?} in {lengths:?} {heads}×{width} p={p}"),
                &[&[asking.len(), hidden], &[tokens, 2 * hidden]],
                &[],
                |pass, x, _| {
                    let ends = [&asking_ends, &cu_seqlens].map(|ends| pass.device().tensor_i32(ends, &[ends.len()]));
                    attention_queries(pass, [&x[0], &x[1]], [&ends[0], &ends[1]], heads, p)
                },
                |x, _| {
                    let [k, v] = [0, 1].map(|part| columns(&x[1], 2 * hidden, part * hidden..(part + 1) * hidden));
                    let mut q = vec![0.0; tokens * hidden];
                    for (row, token) in x[0].chunks(hidden).zip(&asking) {
                        q[token * hidden..(token + 1) * hidden].copy_from_slice(row);
                    }
                    oracle([&q, &k, &v], &lengths, heads, &asking, Weights { p, causal: false })
                },
            );
        }
    }
}
