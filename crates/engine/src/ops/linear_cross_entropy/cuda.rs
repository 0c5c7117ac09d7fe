//! A chunk of rows at a time: the product of the logits, a kernel that overwrites them by their gradients, and at once the products with
//! those.

use super::{Decoder, LinearCrossEntropy};
use crate::cuda::{Cuda, Grid, Vocabulary, args};
use crate::device::Memory;
use crate::ops::LossSum;
use crate::{DType, Gradients, Parameters, Tensor};

/// Maximum number of logits for a chunk of rows: 512 MiB in f32. Tests have several chunks.
const MAX_LOGITS: usize = if cfg!(test) { 1 << 18 } else { 1 << 27 };

impl LinearCrossEntropy for Cuda {
    fn linear_cross_entropy(
        &self,
        x: &Tensor,
        params: &Parameters,
        decoder: Decoder,
        labels: &Tensor,
        mut train: Option<(&mut Gradients, f32)>,
    ) -> (LossSum, Option<Tensor>) {
        let vocabulary = Vocabulary { cuda: self, x, params, decoder };
        let [rows, hidden, words] = vocabulary.sizes("linear_cross_entropy");
        let on_host = labels.to_vec_i32();
        assert_eq!(on_host.len(), rows, "linear_cross_entropy: labels of {rows} rows");
        if let Some(bad) = on_host.iter().find(|l| !(0..words as i32).contains(*l)) {
            panic!("linear_cross_entropy: label {bad} of a vocabulary of {words}");
        }
        let (stride, dtype) = (vocabulary.stride(), x.dtype());
        let mut parts = self.loss_parts(rows);
        let parts_at = parts.device_ptr_mut();
        let mut dx = train.is_some().then(|| self.empty(&[rows, hidden], dtype));
        for range in vocabulary.chunks(MAX_LOGITS) {
            let mut z = vocabulary.logits(&range);
            let z_at = z.device_ptr_mut();
            let (dz_at, separate) = vocabulary.gradients(&mut z, train.is_some());
            let scale = train.as_ref().map_or(0.0, |(_, scale)| *scale);
            let labels_at = labels.device_ptr().element(range.start, DType::I32);
            let parts_at = self.loss_part(parts_at, range.start);
            let mut args = args![z_at, dz_at, labels_at, parts_at, words as i32, stride as i32, scale];
            // SAFETY: z and dz have a row for each label of the range, of `stride` numbers; there is a part for each row, and all
            // labels are words.
            unsafe { self.launch_of("linear_cross_entropy_rows", dtype, Grid::new(range.len(), 768), &mut args) };
            if let (Some((grads, _)), Some(dx)) = (&mut train, &mut dx) {
                vocabulary.backward(&range, separate.as_ref().unwrap_or(&z), grads, dx);
            }
        }
        (self.loss_total(parts), dx)
    }
}
