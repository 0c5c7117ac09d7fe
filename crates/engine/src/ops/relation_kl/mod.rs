//! Attention relations (Wang et al. 2021, "MiniLMv2", section 3.1): for each sequence and each relation head of width D, R =
//! softmax(X Xᵀ/√D) of the student and R' of the teacher, whose heads may have another width;
//! ℓ = Σₜ Σₙ KL(R'\[t, n\] ‖ R\[t, n\]) over tokens and heads.
//!
//! Backward: dS = scale (R − R')/√D; dX = (dS + dSᵀ) X. A block of rows at a time, so that no complete S×S matrix is
//! stored.

#[allow(unsafe_code)]
mod cpu;
#[allow(unsafe_code)]
mod cuda;

use super::LossSum;
use crate::profile::Cost;
use crate::tape::Label;
use crate::{Pass, Tensor, Var};

/// The inputs.
#[derive(Clone, Copy)]
pub(crate) struct RelationInputs<'a> {
    /// X of all heads, side by side: [T, N D].
    pub(crate) x: &'a Tensor,
    /// That of the teacher, with the same number of heads: [T, N D'].
    pub(crate) targets: &'a Tensor,
    pub(crate) cu_seqlens: &'a Tensor,
    pub(crate) heads: usize,
}

/// The loss and, with a scale, its gradient.
pub(crate) trait RelationKl {
    /// The sum over tokens and heads, and scale · dx.
    fn relation_kl(&self, inputs: RelationInputs<'_>, scale: Option<f32>) -> (LossSum, Option<Tensor>);
}

/// Summed KL divergence of the teacher's relations and the student's within each sequence. `x` [T, C] and `targets` [T, C']
/// have `heads` heads side by side; `cu_seqlens` [S + 1] contains the first token of each sequence, then T. The count is
/// that of the tokens. The recorded gradient is multiplied by `scale`.
pub fn relation_kl(
    pass: &mut Pass<'_>,
    x: &Var,
    targets: &Tensor,
    cu_seqlens: &Tensor,
    heads: usize,
    scale: f32,
) -> LossSum {
    let inputs = RelationInputs { x: x.value(), targets, cu_seqlens, heads };
    let scale = pass.is_recording().then_some(scale);
    let (loss, gradient) = pass.device().backend().relation_kl(inputs, scale);
    if pass.is_profiled() {
        let pairs: usize = cu_seqlens.to_vec_i32().windows(2).map(|ends| ((ends[1] - ends[0]) as usize).pow(2)).sum();
        let (columns, target_columns) = (x.value().shape()[1], targets.shape()[1]);
        let products = if scale.is_some() { 3 } else { 1 };
        let cost = Cost::new(2 * pairs * (products * columns + target_columns), x.value().bytes() + targets.bytes());
        pass.lap(Label { op: "relation_kl", width: columns, forward: cost, backward: Cost::default() });
    }
    if let Some(gradient) = gradient {
        pass.seed_gradient(x, gradient);
    }
    loss
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::DType;
    use crate::ops::check::check_loss;

    /// The last case has several blocks of rows.
    #[test]
    fn relation_kl_matches_its_oracle() {
        for (lengths, heads, width, target_width) in [
            (vec![2], 1, 1, 2),
            (vec![5, 1, 31], 2, 8, 3),
            (vec![33, 7], 3, 5, 16),
            (vec![300, 3], 1, 4, 4),
            (vec![70, 9], 1, 160, 40),
        ] {
            let tokens: usize = lengths.iter().sum();
            let ends: Vec<i32> = std::iter::once(0)
                .chain(lengths.iter().scan(0, |end, length| {
                    *end += *length as i32;
                    Some(*end)
                }))
                .collect();
            let columns = [heads * width, heads * target_width];
            // Exact in bf16.
            let targets: Vec<f32> = (0..tokens * columns[1]).map(|i| (i * 13 % 23) as f32 / 8.0 - 1.25).collect();
            check_loss(
                &format!("relation_kl {lengths:?} {heads}×{width}"),
                &[&[tokens, columns[0]]],
                &[],
                |pass, x, _, scale| {
                    let targets = pass.device().tensor_f32(&targets, &[tokens, columns[1]]);
                    let targets = match x[0].value().dtype() {
                        DType::BF16 => pass.device().backend().cast(&targets, DType::BF16),
                        _ => targets,
                    };
                    let ends = pass.device().tensor_i32(&ends, &[ends.len()]);
                    relation_kl(pass, &x[0], &targets, &ends, heads, scale)
                },
                |x, _| {
                    let targets: Vec<f64> = targets.iter().map(|t| f64::from(*t)).collect();
                    let mut sum = 0.0;
                    for range in ends.windows(2).map(|ends| ends[0] as usize..ends[1] as usize) {
                        for (head, row) in (0..heads).flat_map(|head| range.clone().map(move |row| (head, row))) {
                            let log_relations = |x: &[f64], columns: usize, width: usize| -> Vec<f64> {
                                let at = |t: usize, d: usize| x[t * columns + head * width + d];
                                let score = |t| (0..width).map(|d| at(row, d) * at(t, d)).sum::<f64>();
                                let scores: Vec<f64> =
                                    range.clone().map(|t| score(t) / (width as f64).sqrt()).collect();
                                let log_sum = scores.iter().map(|s| s.exp()).sum::<f64>().ln();
                                scores.into_iter().map(|s| s - log_sum).collect()
                            };
                            let p = log_relations(&x[0], columns[0], width);
                            let q = log_relations(&targets, columns[1], target_width);
                            sum += q.iter().zip(p).map(|(q, p)| q.exp() * (q - p)).sum::<f64>();
                        }
                    }
                    sum
                },
            );
        }
    }
}
