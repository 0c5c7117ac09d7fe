use super::{Decoder, LinearKl, TargetLogits};
use crate::cuda::{Cuda, Grid, Vocabulary, args};
use crate::device::Memory;
use crate::ops::LossSum;
use crate::{DType, Gradients, Parameters, Tensor};

/// Maximum number of the student's logits for a chunk of rows. Tests have several chunks.
const MAX_LOGITS: usize = if cfg!(test) { 1 << 12 } else { 1 << 26 };

impl LinearKl for Cuda {
    fn linear_kl(
        &self,
        x: &Tensor,
        params: &Parameters,
        decoder: Decoder,
        targets: TargetLogits<'_>,
        temperature: f32,
        mut train: Option<(&mut Gradients, f32)>,
    ) -> (LossSum, Option<Tensor>) {
        let vocabulary = Vocabulary { cuda: self, x, params, decoder };
        let [rows, hidden, words] = vocabulary.sizes("linear_kl");
        let (stride, dtype) = (vocabulary.stride(), x.dtype());
        let mut parts = self.loss_parts(rows);
        let parts_at = parts.device_ptr_mut();
        let mut dx = train.is_some().then(|| self.empty(&[rows, hidden], dtype));
        let kernel = if dtype == DType::BF16 { "linear_kl_to_bf16" } else { "linear_kl_to_f32" };
        for range in vocabulary.chunks(MAX_LOGITS) {
            let u = targets(range.clone());
            assert_eq!(u.shape(), [range.len(), words], "linear_kl: the teacher's logits of {range:?}");
            let mut z = vocabulary.logits(&range);
            let z_at = z.device_ptr_mut();
            let (dz_at, separate) = vocabulary.gradients(&mut z, train.is_some());
            // dz = scale T (p − q)
            let scale = train.as_ref().map_or(0.0, |(_, scale)| scale * temperature);
            let parts_at = self.loss_part(parts_at, range.start);
            let mut args =
                args![z_at, u.device_ptr(), dz_at, parts_at, words as i32, stride as i32, 1.0 / temperature, scale];
            // SAFETY: z and dz have `stride` numbers for each row of the range, u has `words`, and there is a part for each row.
            unsafe { self.launch_of(kernel, u.dtype(), Grid::new(range.len(), 512), &mut args) };
            if let (Some((grads, _)), Some(dx)) = (&mut train, &mut dx) {
                vocabulary.backward(&range, separate.as_ref().unwrap_or(&z), grads, dx);
            }
        }
        let mut loss = self.loss_total(parts);
        loss.sum *= f64::from(temperature).powi(2);
        (loss, dx)
    }
}
