use super::BinaryCrossEntropy;
use crate::Tensor;
use crate::cpu::Cpu;
use crate::dtype::{Real, with_real};
use crate::ops::LossSum;

impl BinaryCrossEntropy for Cpu {
    fn binary_cross_entropy(&self, z: &Tensor, targets: &Tensor, scale: f32) -> (LossSum, Tensor) {
        assert_eq!(z.shape(), targets.shape(), "binary_cross_entropy: targets must have the shape of the logits");
        let mut gradient = Tensor::host(z.shape(), z.dtype());
        let mut loss = LossSum::default();
        with_real!(z.dtype(), E => {
            let z = z.slice::<E>().iter().zip(targets.slice::<f32>());
            for (dz, (z, target)) in gradient.slice_mut::<E>().iter_mut().zip(z) {
                if target.is_nan() {
                    *dz = E::from_f32(0.0);
                    continue;
                }
                let (z, target) = (f64::from(z.to_f32()), f64::from(*target));
                let sum = z.max(0.0) - z * target + (-z.abs()).exp().ln_1p();
                let correct = usize::from((z > 0.0) == (target >= 0.5));
                loss += LossSum { sum, weight: 1.0, count: 1, correct };
                *dz = E::from_f32(scale * (1.0 / (1.0 + (-z).exp()) - target) as f32);
            }
        });
        (loss, gradient)
    }
}
