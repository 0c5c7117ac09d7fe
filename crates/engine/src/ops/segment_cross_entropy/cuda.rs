use super::SegmentCrossEntropy;
use crate::Tensor;
use crate::cuda::{Cuda, Grid, args};
use crate::device::Memory;
use crate::ops::cross_entropy::IGNORED;
use crate::ops::{LossSum, assert_segments};

impl SegmentCrossEntropy for Cuda {
    fn segment_cross_entropy(&self, z: &Tensor, ends: &Tensor, labels: &Tensor, scale: f32) -> (LossSum, Tensor) {
        let (rows, columns) = z.matrix("segment_cross_entropy");
        let (ends_on_host, labels_on_host) = (ends.to_vec_i32(), labels.to_vec_i32());
        assert_segments("segment_cross_entropy", &ends_on_host, rows);
        let count = (ends_on_host.len() - 1) * columns;
        assert_eq!(labels_on_host.len(), count, "segment_cross_entropy: labels of {} segments", ends_on_host.len() - 1);
        for (segment, labels) in ends_on_host.windows(2).zip(labels_on_host.chunks_exact(columns)) {
            let length = segment[1] - segment[0];
            for label in labels.iter().filter(|label| **label != IGNORED) {
                assert!((0..length).contains(label), "segment_cross_entropy: label {label} of {length} rows");
            }
        }
        let mut gradient = self.empty(&[rows, columns], z.dtype());
        let mut parts = self.loss_parts(count);
        let (dz, parts_at) = (gradient.device_ptr_mut(), parts.device_ptr_mut());
        let (ends, labels) = (ends.device_ptr(), labels.device_ptr());
        let mut args = args![z.device_ptr(), dz, ends, labels, parts_at, count, columns as i32, scale];
        // SAFETY: the segments cover all rows of z and dz; there is a label and a part for each column of each segment, and labels
        // that are not ignored are rows of the segment.
        unsafe { self.launch_of("segment_cross_entropy_columns", z.dtype(), Grid::warp_for_each(count), &mut args) };
        (self.loss_total(parts), gradient)
    }
}
