//! Scaled dot-product attention (Vaswani et al. 2017, §3.2), within each sequence of a packed batch.
//!
//! For every head: P = softmax(Q Kᵀ/√D), P̃ = dropout(P), O = P̃ V.
//!
//! Backward (Dao et al. 2022, appendix B): dV = P̃ᵀ dO; dP = mask (dO Vᵀ); δ = rowsum(P ∘ dP); dS = P ∘ (dP − δ)/√D; dQ
//! = dS K; dK = dSᵀ Q. P is recomputed from the log-sum-exp of each row, a block of rows at a time, so that no complete
//! S×S matrix is stored.

#[allow(unsafe_code)]
mod cpu;

use crate::profile::Cost;
use crate::random::Mask;
use crate::{Pass, Tensor, Var};

/// The inputs of both directions.
pub(crate) struct AttentionInputs {
    /// Keys and values side by side in the last columns; the queries are in the columns before them, unless `queries`
    /// is set.
    pub(crate) tokens: Tensor,
    pub(crate) cu_seqlens: Tensor,
    /// If only some tokens have queries: these queries, and their cumulative numbers at the sequences' ends.
    pub(crate) queries: Option<[Tensor; 2]>,
    pub(crate) heads: usize,
    pub(crate) mask: Mask,
    pub(crate) causal: bool,
}

impl AttentionInputs {
    /// The matrix that has the queries in its first columns.
    fn queries(&self) -> &Tensor {
        self.queries.as_ref().map_or(&self.tokens, |[queries, _]| queries)
    }

    /// The cumulative number of queries at each sequence's end.
    fn query_ends(&self) -> &Tensor {
        self.queries.as_ref().map_or(&self.cu_seqlens, |[_, ends]| ends)
    }

    /// H, the width of the queries, keys and values each.
    fn hidden(&self) -> usize {
        let (_, columns) = self.tokens.matrix("attention");
        columns / if self.queries.is_some() { 2 } else { 3 }
    }
}

/// The kernels of both directions.
pub(crate) trait Attention {
    /// Returns O [R, H] and the log-sum-exp of each row [R, N], where R is the number of queries.
    fn attention(&self, inputs: &AttentionInputs) -> (Tensor, Tensor);
    /// Returns the gradients of `tokens` and, if queries are separate, of the queries.
    fn attention_backward(&self, inputs: &AttentionInputs, log_sums: &Tensor, dy: &Tensor) -> (Tensor, Option<Tensor>);
}

/// Attention within each sequence. `qkv` [T, 3H] contains queries, keys and values side by side; `cu_seqlens` [S + 1]
/// contains the first token of each sequence, then T. Returns [T, H]. `dropout` applies to the attention weights;
/// `causal` masks later tokens.
pub fn attention(pass: &mut Pass<'_>, qkv: &Var, cu_seqlens: &Tensor, heads: usize, dropout: f32, causal: bool) -> Var {
    let mask = pass.dropout_site(dropout);
    let (tokens, cu_seqlens) = (qkv.value().clone(), cu_seqlens.clone());
    record(pass, AttentionInputs { tokens, cu_seqlens, queries: None, heads, mask, causal }, [qkv.slot(), None])
}

/// Attention of which only some tokens have queries: `queries` [R, H], sequence by sequence. `ends` [S + 1] starts with
/// 0 and contains the cumulative number of queries at the end of each sequence. `kv` [T, 2H] contains the keys and
/// values of all tokens. Returns [R, H].
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
    record(pass, AttentionInputs { tokens, cu_seqlens, queries, heads, mask, causal: false }, slots)
}

/// Records the op; the slots are those of the tokens and of the queries.
fn record(pass: &mut Pass<'_>, inputs: AttentionInputs, [tokens_slot, queries_slot]: [Option<usize>; 2]) -> Var {
    let (value, log_sums) = pass.device().backend().attention(&inputs);
    if pass.is_profiled() {
        let (forward, backward) = costs(&inputs, &value);
        pass.costs(forward, backward);
    }
    pass.record("attention", value, |slot| {
        Box::new(move |backward| {
            let Some(dy) = backward.finish(slot) else { return };
            let (dtokens, dqueries) = backward.device.backend().attention_backward(&inputs, &log_sums, &dy);
            backward.add(tokens_slot, dtokens);
            if let Some(dqueries) = dqueries {
                backward.add(queries_slot, dqueries);
            }
        })
    })
}

fn costs(inputs: &AttentionInputs, value: &Tensor) -> (Cost, Cost) {
    let lengths = |ends: &Tensor| -> Vec<usize> {
        ends.to_vec_i32().windows(2).map(|ends| (ends[1] - ends[0]) as usize).collect()
    };
    let pairs = lengths(inputs.query_ends()).into_iter().zip(lengths(&inputs.cu_seqlens));
    let scores: usize = pairs.map(|(queries, keys)| queries * keys).sum();
    // Two products forward, five backward; a causal mask halves their work.
    let product = 2 * scores * value.shape()[1] / if inputs.causal { 2 } else { 1 };
    let bytes = inputs.tokens.bytes() + inputs.queries.as_ref().map_or(0, |[queries, _]| queries.bytes());
    (Cost::new(2 * product, bytes + value.bytes()), Cost::new(5 * product, 2 * bytes + value.bytes()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::check::{check_op, dropout_mask};

    /// Settings of the attention weights.
    #[derive(Clone, Copy)]
    struct Weights {
        p: f32,
        causal: bool,
    }

    /// Attention outputs of the tokens `query_tokens`, in order, from queries, keys and values \[T, H\] of all tokens.
    fn oracle(qkv: [&[f64]; 3], lengths: &[usize], heads: usize, query_tokens: &[usize], weights: Weights) -> Vec<f64> {
        let tokens: usize = lengths.iter().sum();
        let (hidden, mask) = (qkv[0].len() / tokens, dropout_mask(1, weights.p));
        let width = hidden / heads;
        let mut y = vec![0.0; query_tokens.len() * hidden];
        let ends = ends(lengths.iter().copied());
        for (row, &token) in query_tokens.iter().enumerate() {
            let sequence = ends.partition_point(|end| *end <= token as i32);
            let first = ends[sequence - 1] as usize;
            let end = if weights.causal { token + 1 } else { ends[sequence] as usize };
            for head in 0..heads {
                let at = |part: usize, t: usize, d: usize| qkv[part][t * hidden + head * width + d];
                let score =
                    |t: usize| (0..width).map(|d| at(0, token, d) * at(1, t, d)).sum::<f64>() / (width as f64).sqrt();
                let powers: Vec<f64> = (first..end).map(|t| score(t).exp()).collect();
                let total: f64 = powers.iter().sum();
                let dropout = mask.row((row * heads + head) as u64);
                let factor = |t: usize| if mask.is_active() { f64::from(dropout.factor(t - first)) } else { 1.0 };
                for d in 0..width {
                    y[row * hidden + head * width + d] =
                        (first..end).map(|t| powers[t - first] / total * factor(t) * at(2, t, d)).sum();
                }
            }
        }
        y
    }

    /// A range of columns of a matrix with `stride` columns.
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
    fn attention_queries_matches_its_oracle() {
        // Sequences in which all tokens have queries, some, only the last, or none.
        for (lengths, query_tokens, heads, width, p) in [
            (vec![4], vec![2], 1, 4, 0.0),
            (vec![3, 40, 5, 18], vec![0, 1, 2, 3, 20, 42, 65], 2, 8, 0.0),
            (vec![5, 33], vec![0, 5, 9, 10, 37], 3, 16, 0.25),
            (vec![300, 20], (0..320).step_by(2).collect(), 1, 32, 0.1),
        ] {
            let (tokens, hidden): (usize, _) = (lengths.iter().sum(), heads * width);
            let cu_seqlens = ends(lengths.iter().copied());
            let before = |end: &i32| query_tokens.iter().filter(|token| **token < *end as usize).count() as i32;
            let query_ends: Vec<i32> = cu_seqlens.iter().map(before).collect();
            check_op(
                &format!("attention of {query_tokens:?} in {lengths:?} {heads}×{width} p={p}"),
                &[&[query_tokens.len(), hidden], &[tokens, 2 * hidden]],
                &[],
                |pass, x, _| {
                    let ends = [&query_ends, &cu_seqlens].map(|ends| pass.device().tensor_i32(ends, &[ends.len()]));
                    attention_queries(pass, [&x[0], &x[1]], [&ends[0], &ends[1]], heads, p)
                },
                |x, _| {
                    let [k, v] = [0, 1].map(|part| columns(&x[1], 2 * hidden, part * hidden..(part + 1) * hidden));
                    let mut q = vec![0.0; tokens * hidden];
                    for (row, token) in x[0].chunks(hidden).zip(&query_tokens) {
                        q[token * hidden..(token + 1) * hidden].copy_from_slice(row);
                    }
                    oracle([&q, &k, &v], &lengths, heads, &query_tokens, Weights { p, causal: false })
                },
            );
        }
    }
}
