//! Scaled dot-product attention (Vaswani et al. 2017, §3.2), within each sequence of a packed batch.
//!
//! For every head: P = softmax(Q Kᵀ/√D + B), P̃ = dropout(P), O = P̃ V. B is a bias that depends on the distance of the two
//! tokens (Raffel et al. 2020, section 2.1), or absent. A token sees the keys that [`Visible`] says.
//!
//! Backward (Dao et al. 2022, appendix B): dV = P̃ᵀ dO; dP = mask (dO Vᵀ); δ = rowsum(P ∘ dP); dS = P ∘ (dP − δ); dB +=
//! dS; dQ = dS K/√D; dK = dSᵀ Q/√D. P is recomputed from the log-sum-exp of each row, a block of rows at a time, so that
//! no complete S×S matrix is stored, and none of keys that no row of the block sees.

#[allow(unsafe_code)]
mod cpu;
#[allow(unsafe_code)]
mod cuda;

use std::ops::Range;
use std::sync::Arc;

use crate::profile::Cost;
use crate::random::Mask;
use crate::{Gradients, ParamId, Parameters, Pass, Tensor, Var};

/// The keys that a token attends to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Visible {
    /// Only itself and earlier tokens.
    pub causal: bool,
    /// Only tokens at most this far away (Beltagy et al. 2020, section 3.1).
    pub window: Option<usize>,
}

impl Visible {
    /// Earlier tokens and the token itself.
    pub const CAUSAL: Visible = Visible { causal: true, window: None };
    /// All tokens.
    pub const ALL: Visible = Visible { causal: false, window: None };

    /// The visible keys of token `row` of a sequence of `length` tokens.
    pub fn keys(self, row: usize, length: usize) -> Range<usize> {
        let (mut first, mut end) = (0, if self.causal { row + 1 } else { length });
        if let Some(window) = self.window {
            (first, end) = (row.saturating_sub(window), end.min(row.saturating_add(window + 1)));
        }
        first..end
    }
}

/// A bias of the scores for each head and bucket of distances.
#[derive(Clone, Debug)]
pub struct DistanceBias {
    /// [buckets, N].
    pub table: ParamId,
    /// The bucket of each distance (key minus query) from −(L − 1) to L − 1, where L is the maximum length: 2L − 1.
    pub buckets: Arc<[u32]>,
}

impl DistanceBias {
    /// The buckets of the distances in a sequence of `length` tokens, from the smallest.
    pub(crate) fn of_length(&self, length: usize) -> &[u32] {
        let middle = self.buckets.len() / 2;
        assert!(length <= middle + 1, "attention: a sequence of {length} tokens has no distance bias");
        let reach = length.saturating_sub(1);
        &self.buckets[middle - reach..=middle + reach]
    }
}

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
    /// Of tokens that all have queries; all keys if queries are separate.
    pub(crate) visible: Visible,
    /// Not with separate queries.
    pub(crate) bias: Option<DistanceBias>,
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
    fn attention(&self, inputs: &AttentionInputs, params: &Parameters) -> (Tensor, Tensor);
    /// Returns the gradients of `tokens` and, if queries are separate, of the queries. Adds to the gradient of the bias. `y` and
    /// `log_sums` are what [`attention`](Attention::attention) returned.
    fn attention_backward(
        &self,
        inputs: &AttentionInputs,
        y: &Tensor,
        log_sums: &Tensor,
        dy: &Tensor,
        params: &Parameters,
        grads: &mut Gradients,
    ) -> (Tensor, Option<Tensor>);
}

/// Attention within each sequence. `qkv` [T, 3H] contains queries, keys and values side by side; `cu_seqlens` [S + 1]
/// contains the first token of each sequence, then T. Returns [T, H]. `dropout` applies to the attention weights.
pub fn attention(
    pass: &mut Pass<'_>,
    qkv: &Var,
    cu_seqlens: &Tensor,
    heads: usize,
    dropout: f32,
    visible: Visible,
    bias: Option<&DistanceBias>,
) -> Var {
    let mask = pass.dropout_site(dropout);
    let (tokens, cu_seqlens, bias) = (qkv.value().clone(), cu_seqlens.clone(), bias.cloned());
    record(pass, AttentionInputs { tokens, cu_seqlens, queries: None, heads, mask, visible, bias }, [qkv.slot(), None])
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
    let (visible, bias) = (Visible::ALL, None);
    record(pass, AttentionInputs { tokens, cu_seqlens, queries, heads, mask, visible, bias }, slots)
}

/// Records the op; the slots are those of the tokens and of the queries.
fn record(pass: &mut Pass<'_>, inputs: AttentionInputs, [tokens_slot, queries_slot]: [Option<usize>; 2]) -> Var {
    let (value, log_sums) = pass.device().backend().attention(&inputs, pass.parameters());
    if pass.is_profiled() {
        let (forward, backward) = costs(&inputs, &value);
        pass.costs(forward, backward);
    }
    if let Some(bias) = &inputs.bias {
        pass.uses(&[bias.table]);
    }
    let y = value.clone();
    pass.record("attention", value, |slot| {
        Box::new(move |backward| {
            let Some(dy) = backward.finish(slot) else { return };
            let backend = backward.device.backend();
            let (dtokens, dqueries) =
                backend.attention_backward(&inputs, &y, &log_sums, &dy, backward.params, backward.grads);
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
    let scores: usize = match inputs.visible {
        Visible::ALL => pairs.map(|(queries, keys)| queries * keys).sum(),
        visible => pairs.map(|(_, keys)| (0..keys).map(|row| visible.keys(row, keys).len()).sum::<usize>()).sum(),
    };
    // Two products forward, five backward.
    let product = 2 * scores * value.shape()[1];
    let bytes = inputs.tokens.bytes() + inputs.queries.as_ref().map_or(0, |[queries, _]| queries.bytes());
    (Cost::new(2 * product, bytes + value.bytes()), Cost::new(5 * product, 2 * bytes + value.bytes()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::check::{Numbers, check_op, dropout_mask, run};
    use crate::{DType, Device};

    /// Settings of the attention weights.
    #[derive(Clone, Copy, Default)]
    struct Weights<'a> {
        p: f32,
        visible: Visible,
        /// The table [buckets, N] and the buckets of a bias.
        bias: Option<(&'a [f64], &'a DistanceBias)>,
    }

    /// Attention outputs of the tokens `query_tokens`, in order, from queries, keys and values \[T, H\] of all tokens.
    fn oracle(
        qkv: [&[f64]; 3],
        lengths: &[usize],
        heads: usize,
        query_tokens: &[usize],
        weights: Weights<'_>,
    ) -> Vec<f64> {
        let tokens: usize = lengths.iter().sum();
        let (hidden, mask) = (qkv[0].len() / tokens, dropout_mask(1, weights.p));
        let width = hidden / heads;
        let mut y = vec![0.0; query_tokens.len() * hidden];
        let ends = ends(lengths.iter().copied());
        for (row, &token) in query_tokens.iter().enumerate() {
            let sequence = ends.partition_point(|end| *end <= token as i32);
            let first = ends[sequence - 1] as usize;
            let keys = weights.visible.keys(token - first, ends[sequence] as usize - first);
            let keys = first + keys.start..first + keys.end;
            for head in 0..heads {
                let at = |part: usize, t: usize, d: usize| qkv[part][t * hidden + head * width + d];
                let bias = |t: usize| {
                    let Some((table, bias)) = weights.bias else { return 0.0 };
                    table[bias.buckets[t + bias.buckets.len() / 2 - token] as usize * heads + head]
                };
                let product = |t: usize| (0..width).map(|d| at(0, token, d) * at(1, t, d)).sum::<f64>();
                let score = |t: usize| product(t) / (width as f64).sqrt() + bias(t);
                let exps: Vec<f64> = keys.clone().map(|t| score(t).exp()).collect();
                let total: f64 = exps.iter().sum();
                let dropout = mask.row((row * heads + head) as u64);
                let factor = |t: usize| if mask.is_active() { f64::from(dropout.factor(t - first)) } else { 1.0 };
                for (t, exp) in keys.clone().zip(exps) {
                    let weight = exp / total * factor(t);
                    for d in 0..width {
                        y[row * hidden + head * width + d] += weight * at(2, t, d);
                    }
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
        let window = |window: usize, causal: bool| Visible { causal, window: Some(window) };
        for (lengths, heads, width, p, visible) in [
            (vec![1], 1, 1, 0.0, Visible::ALL),
            (vec![5, 1, 31, 2], 2, 8, 0.0, Visible::ALL),
            (vec![33, 7], 3, 16, 0.25, Visible::ALL),
            (vec![9, 20], 2, 5, 0.0, Visible::CAUSAL),
            (vec![300, 3], 1, 32, 0.1, Visible::ALL),
            // Several blocks of a long sequence.
            (vec![1030, 3], 1, 4, 0.1, Visible::ALL),
            (vec![1030], 1, 4, 0.0, Visible::CAUSAL),
            // Windows: of one token, across vectors and blocks, with dropout, causal.
            (vec![5, 40], 2, 8, 0.0, window(0, false)),
            (vec![1, 150, 33], 2, 8, 0.0, window(17, false)),
            (vec![90, 7], 1, 16, 0.25, window(20, false)),
            (vec![100], 1, 8, 0.0, window(33, true)),
            // Tiles of 64 rows, in steps of 64 or 32 columns.
            (vec![1, 63, 64, 65, 130], 2, 64, 0.1, Visible::ALL),
            (vec![130, 40], 1, 64, 0.0, Visible::CAUSAL),
            (vec![5, 200], 2, 32, 0.1, window(40, false)),
            // Windows in which a row sees one key of a step.
            (vec![130], 2, 32, 0.0, window(1, false)),
            (vec![70, 3], 1, 128, 0.25, window(1, false)),
            (vec![70], 1, 64, 0.0, window(20, true)),
            (vec![100], 2, 128, 0.1, Visible::ALL),
            // More columns than four for each lane of a warp.
            (vec![7, 40], 1, 136, 0.1, Visible::ALL),
        ] {
            let (tokens, hidden) = (lengths.iter().sum(), heads * width);
            let ends = ends(lengths.iter().copied());
            check_op(
                &format!("attention {lengths:?} {heads}×{width} p={p} {visible:?}"),
                &[&[tokens, 3 * hidden]],
                &[],
                |pass, x, _| {
                    let ends = pass.device().tensor_i32(&ends, &[ends.len()]);
                    attention(pass, &x[0], &ends, heads, p, visible, None)
                },
                |x, _| {
                    let [q, k, v] =
                        [0, 1, 2].map(|part| columns(&x[0], 3 * hidden, part * hidden..(part + 1) * hidden));
                    let all: Vec<usize> = (0..tokens).collect();
                    oracle([&q, &k, &v], &lengths, heads, &all, Weights { p, visible, bias: None })
                },
            );
        }
    }

    #[test]
    fn attention_with_a_distance_bias_matches_its_oracle() {
        let buckets: Arc<[u32]> = (0..261u32).map(|at| (at * 7 + at * at) % 5).collect();
        for (lengths, heads, width, p, visible) in [
            (vec![1, 2], 1, 4, 0.0, Visible::ALL),
            (vec![33, 1, 60], 2, 8, 0.25, Visible::ALL),
            (vec![40, 21], 3, 5, 0.0, Visible { causal: false, window: Some(9) }),
            (vec![131, 1, 65], 2, 64, 0.25, Visible::ALL),
            (vec![20, 100], 1, 32, 0.0, Visible { causal: true, window: Some(29) }),
            (vec![70], 1, 128, 0.0, Visible::CAUSAL),
        ] {
            let (tokens, hidden) = (lengths.iter().sum(), heads * width);
            let ends = ends(lengths.iter().copied());
            let bias = |table: ParamId| DistanceBias { table, buckets: buckets.clone() };
            check_op(
                &format!("attention with a bias {lengths:?} {heads}×{width} p={p} {visible:?}"),
                &[&[tokens, 3 * hidden]],
                &[("table", &[5, heads])],
                |pass, x, params| {
                    let ends = pass.device().tensor_i32(&ends, &[ends.len()]);
                    attention(pass, &x[0], &ends, heads, p, visible, Some(&bias(params[0])))
                },
                |x, params| {
                    let [q, k, v] =
                        [0, 1, 2].map(|part| columns(&x[0], 3 * hidden, part * hidden..(part + 1) * hidden));
                    let all: Vec<usize> = (0..tokens).collect();
                    let mut builder = Parameters::builder();
                    let any = builder.declare("any", &[1], crate::Init::Zeros, false);
                    let weights = Weights { p, visible, bias: Some((&params[0], &bias(any))) };
                    oracle([&q, &k, &v], &lengths, heads, &all, weights)
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
            (vec![70, 5, 130], (0..70).chain([80, 90, 204]).collect(), 2, 64, 0.1),
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
                    oracle([&q, &k, &v], &lengths, heads, &query_tokens, Weights { p, ..Weights::default() })
                },
            );
        }
    }

    #[test]
    fn results_do_not_depend_on_the_order_of_threads() {
        let (lengths, heads, width) = ([130, 1, 65], 2, 64);
        let (tokens, hidden): (usize, _) = (lengths.iter().sum(), heads * width);
        let ends = ends(lengths.into_iter());
        let bias = |table| DistanceBias { table, buckets: (0..261u32).map(|at| at * at % 7).collect() };
        let fill = |count: usize| (0..count).map(|i| (i as f64 * 0.7).sin()).collect::<Vec<f64>>();
        let numbers = Numbers { inputs: vec![fill(tokens * 3 * hidden)], params: vec![fill(7 * heads)] };
        let outcome = |device: &Device, dtype| {
            let shapes: [&[usize]; 1] = [&[tokens, 3 * hidden]];
            run(
                device,
                dtype,
                &shapes,
                &[("table", &[7, heads])],
                &numbers,
                &fill(tokens * hidden),
                &|pass, x, params| {
                    let ends = pass.device().tensor_i32(&ends, &[ends.len()]);
                    (Some(attention(pass, &x[0], &ends, heads, 0.1, Visible::ALL, Some(&bias(params[0])))), None)
                },
            )
        };
        let Some(devices) = [false, true].map(Device::emulated_for_tests).into_iter().collect::<Option<Vec<_>>>()
        else {
            return;
        };
        for dtype in [DType::F32, DType::BF16] {
            assert!(outcome(&devices[0], dtype) == outcome(&devices[1], dtype), "{}", dtype.name());
        }
    }
}
