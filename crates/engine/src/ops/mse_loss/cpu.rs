use super::MseLoss;
use crate::Tensor;
use crate::cpu::Cpu;
use crate::dtype::{Real, with_real};
use crate::ops::LossSum;

impl MseLoss for Cpu {
    fn mse_loss(&self, z: &Tensor, targets: &Tensor, scale: f32) -> (LossSum, Tensor) {
        assert_eq!(z.shape(), targets.shape(), "mse_loss: targets must have the shape of the predictions");
        let mut gradient = Tensor::host(z.shape(), z.dtype());
        let mut loss = LossSum::default();
        with_real!(z.dtype(), E => {
            let z = z.slice::<E>().iter().zip(targets.slice::<f32>());
            for (dz, (z, target)) in gradient.slice_mut::<E>().iter_mut().zip(z) {
                if target.is_nan() {
                    *dz = E::from_f32(0.0);
                    continue;
                }
                let error = z.to_f32() - target;
                loss += LossSum { sum: f64::from(error).powi(2), weight: 1.0, count: 1, correct: 0 };
                *dz = E::from_f32(2.0 * scale * error);
            }
        });
        (loss, gradient)
    }
}
