use super::{ClassLabels, CrossEntropy, IGNORED};
use crate::Tensor;
use crate::cuda::{Cuda, DevicePtr, Grid, args};
use crate::device::Memory;
use crate::ops::LossSum;

impl CrossEntropy for Cuda {
    fn cross_entropy(&self, logits: &Tensor, labels: ClassLabels<'_>, scale: f32) -> (LossSum, Tensor) {
        let (rows, classes) = logits.matrix("cross_entropy");
        let ClassLabels { labels, weights } = labels;
        assert!(
            weights.is_none_or(|w| w.len() == classes),
            "cross_entropy: number of class weights, expected {classes}"
        );
        let on_host = labels.to_vec_i32();
        assert_eq!(on_host.len(), rows, "cross_entropy: labels of {rows} rows");
        for label in on_host.iter().filter(|label| **label != IGNORED) {
            assert!((0..classes as i32).contains(label), "cross_entropy: label {label} of {classes} classes");
        }
        let weights = weights.map(|weights| self.tensor_f32(weights, &[classes]));
        let weights_at = weights.as_ref().map_or(DevicePtr::NULL, Tensor::device_ptr);
        let mut gradient = self.empty(&[rows, classes], logits.dtype());
        let mut parts = self.loss_parts(rows);
        let (z, labels, dz, parts_at) =
            (logits.device_ptr(), labels.device_ptr(), gradient.device_ptr_mut(), parts.device_ptr_mut());
        let mut args = args![z, dz, labels, weights_at, parts_at, rows as i32, classes as i32, scale];
        // SAFETY: z and dz are [rows, classes], there is a label and a part for each row, and a weight for each class; labels that
        // are not ignored are classes.
        unsafe { self.launch_of("cross_entropy_rows", logits.dtype(), Grid::warp_for_each(rows), &mut args) };
        (self.loss_total(parts), gradient)
    }
}
