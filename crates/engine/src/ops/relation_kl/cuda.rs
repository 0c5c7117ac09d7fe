use super::{RelationInputs, RelationKl};
use crate::cuda::{Cuda, DevicePtr, Grid, args};
use crate::device::Memory;
use crate::ops::{LossSum, assert_segments};
use crate::{DType, Tensor};

/// Rows of a block of the kernels.
const TILE: usize = 64;

impl RelationKl for Cuda {
    fn relation_kl(&self, inputs: RelationInputs<'_>, scale: Option<f32>) -> (LossSum, Option<Tensor>) {
        let RelationInputs { x, targets, cu_seqlens, heads } = inputs;
        let (tokens, columns) = x.matrix("relation_kl");
        let (target_tokens, target_columns) = targets.matrix("relation_kl");
        assert_eq!(
            (target_tokens, targets.dtype()),
            (tokens, x.dtype()),
            "relation_kl: tokens and type of the targets"
        );
        assert_eq!((columns % heads, target_columns % heads), (0, 0), "relation_kl: columns of {heads} heads");
        let (width, target_width) = (columns / heads, target_columns / heads);
        let ends = cu_seqlens.to_vec_i32();
        assert_segments("relation_kl", &ends, tokens);
        // The first and the end of a sequence, and the first row of a tile of it.
        let tiles: Vec<i32> = ends
            .windows(2)
            .flat_map(|ends| (ends[0]..ends[1]).step_by(TILE).flat_map(|row| [ends[0], ends[1], row]))
            .collect();
        let count = tiles.len() / 3;
        let tiles = self.tensor_i32(&tiles, &[count, 3]);
        let mut stats = self.empty(&[tokens, heads, 4], DType::F32);
        let mut gradient = scale.map(|_| self.empty(x.shape(), x.dtype()));
        let mut parts = self.loss_parts(count * heads);
        let grid = Grid::of([count, heads, 1], 256);
        let (x_at, targets_at, tiles_at) = (x.device_ptr(), targets.device_ptr(), tiles.device_ptr());
        let (stats_at, parts_at) = (stats.device_ptr_mut(), parts.device_ptr_mut());
        let dx = gradient.as_mut().map_or(DevicePtr::NULL, Tensor::device_ptr_mut);
        let [heads, width, target_width] = [heads, width, target_width].map(|n| n as i32);
        let mut of_rows = args![x_at, targets_at, tiles_at, stats_at, heads, width, target_width];
        let scale = scale.unwrap_or_default();
        let mut args = args![x_at, targets_at, tiles_at, stats_at, dx, parts_at, heads, width, target_width, scale];
        // SAFETY: x, the targets, dx and the statistics have a row for each token; the tiles are rows of sequences, which cover the
        // tokens; and there is a part for each block.
        unsafe {
            self.launch_of("relation_kl_statistics", x.dtype(), grid, &mut of_rows);
            self.launch_of("relation_kl_rows", x.dtype(), grid, &mut args);
        }
        let LossSum { sum, .. } = self.loss_total(parts);
        (LossSum { sum, weight: tokens as f64, count: tokens, correct: 0 }, gradient)
    }
}
