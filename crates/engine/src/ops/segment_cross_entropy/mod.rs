//! Cross-entropy over the rows of a segment: in column c of segment g, ℓ = log Σᵣ exp z\[r,c\] − z\[label,c\]. For
//! start and end of a span among a sequence's tokens (Devlin et al. 2019, 4.2), or the correct one of several choices
//! (4.4).
//!
//! Backward: dz = scale (softmax over the segment's rows − onehot(label)).

mod cpu;
#[allow(unsafe_code)]
mod cuda;

use super::LossSum;
use crate::profile::Cost;
use crate::tape::Label;
use crate::{Pass, Tensor, Var};

/// The loss and its gradient.
pub(crate) trait SegmentCrossEntropy {
    /// z [R, C], ends \[G+1\], labels [G, C] (row indices within their segment; −100 does not count) → the summed loss
    /// and scale · dz.
    fn segment_cross_entropy(&self, z: &Tensor, ends: &Tensor, labels: &Tensor, scale: f32) -> (LossSum, Tensor);
}

/// Summed cross-entropy of the rows `labels` [G, C] (−100 does not count) among each segment's rows of `z` [R, C],
/// independently for each column. The recorded gradient is multiplied by `scale`. `ends` \[G+1\] increases from 0 to R.
/// Panics on a label outside its segment.
pub fn segment_cross_entropy(pass: &mut Pass<'_>, z: &Var, ends: &Tensor, labels: &Tensor, scale: f32) -> LossSum {
    let (loss, gradient) = pass.device().backend().segment_cross_entropy(z.value(), ends, labels, scale);
    let none = Cost::default();
    pass.lap(Label { op: "segment_cross_entropy", width: z.value().shape()[1], forward: none, backward: none });
    pass.seed_gradient(z, gradient);
    loss
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::check::check_loss;

    #[test]
    fn segment_cross_entropy_matches_its_oracle() {
        let cases: [(usize, Vec<usize>, Vec<i32>); 4] = [
            (2, vec![0, 5, 6, 39], vec![4, 0, 0, 0, 31, -100]),
            (1, vec![0, 4, 8], vec![3, 1]),
            (2, vec![0, 1], vec![0, 0]),
            (3, vec![0, 70, 75], vec![69, 3, 40, 4, 0, 2]),
        ];
        for (columns, ends, labels) in cases {
            let indices: Vec<i32> = ends.iter().map(|e| *e as i32).collect();
            let (rows, groups) = (ends[ends.len() - 1], ends.len() - 1);
            check_loss(
                "segment_cross_entropy",
                &[&[rows, columns]],
                &[],
                |pass, z, _, scale| {
                    let ends = pass.device().tensor_i32(&indices, &[indices.len()]);
                    let labels = pass.device().tensor_i32(&labels, &[groups, columns]);
                    segment_cross_entropy(pass, &z[0], &ends, &labels, scale)
                },
                |z, _| {
                    let one = |i: usize| {
                        let (g, c) = (i / columns, i % columns);
                        let at = |r: usize| z[0][r * columns + c];
                        let all: f64 = (ends[g]..ends[g + 1]).map(|r| at(r).exp()).sum();
                        if labels[i] < 0 { 0.0 } else { all.ln() - at(ends[g] + labels[i] as usize) }
                    };
                    (0..groups * columns).map(one).sum()
                },
            );
        }
    }
}
