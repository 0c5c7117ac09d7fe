//! AdamW (Loshchilov and Hutter 2019) and BERT's variant of it, in one pass over the arena: clipping, both moments,
//! weight decay and the update.
//!
//! m = β₁ m + (1 − β₁) g,  v = β₂ v + (1 − β₂) g²,  w −= lr (m̂/(√v̂ + ε) + λ w), where λ applies only to matrices.
//! With bias correction, m̂ = m/(1 − β₁ᵗ), v̂ = v/(1 − β₂ᵗ); in BERT (google-research/bert, optimization.py) m̂ = m, v̂
//! = v. As in PyTorch, decay multiplies the weight first, and ε is added to the corrected root.

#[allow(unsafe_code)]
mod cpu;

use crate::{Device, Gradients, Parameters, Tensor};
use std::borrow::Cow;
use std::ops::Range;

/// Hyperparameters of the optimizer.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct AdamW {
    /// β₁
    pub beta1: f32,
    /// β₂
    pub beta2: f32,
    /// ε
    pub eps: f32,
    /// λ
    pub weight_decay: f32,
    /// Whether the moments are corrected for their initialisation with zeros: true for AdamW, false for BERT's variant.
    pub bias_correction: bool,
}

/// Running means of the gradients and of their squares, with the layout of the [`Parameters`], on their device.
pub struct Moments {
    first: Tensor,
    second: Tensor,
}

impl Moments {
    /// Zeros for every weight.
    pub fn zeros_like(params: &Parameters) -> Moments {
        let zeros = || params.device().zeros(params.count());
        Moments { first: zeros(), second: zeros() }
    }

    /// m of all parameters, in the order of [`Parameters::ids`]: borrowed if the device uses host memory, otherwise
    /// copied.
    pub fn read_first(&self) -> Cow<'_, [f32]> {
        self.first.read(0..self.first.count())
    }

    /// v of all parameters, borrowed or copied as in [`Moments::read_first`].
    pub fn read_second(&self) -> Cow<'_, [f32]> {
        self.second.read(0..self.second.count())
    }

    /// Lets `edit` change m and v of all parameters, in place or in copies that are then written back.
    pub fn edit<T>(&mut self, edit: impl FnOnce(&mut [f32], &mut [f32]) -> T) -> T {
        let all = 0..self.first.count();
        let Moments { first, second } = self;
        first.edit(all.clone(), |first| second.edit(all, |second| edit(first, second)))
    }
}

/// The result of an optimizer step.
#[derive(Clone, Copy, PartialEq, Debug)]
#[non_exhaustive]
pub struct StepReport {
    /// The gradient's Euclidean norm before clipping.
    pub grad_norm: f32,
    /// Whether the norm is finite; if not, the step changed nothing.
    pub finite: bool,
}

/// Settings of one optimizer step.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct StepSettings {
    /// Hyperparameters.
    pub adamw: AdamW,
    /// The learning rate of this step.
    pub lr: f32,
    /// The number of this step, starting from 1, for the bias correction.
    pub step: u64,
    /// The maximum gradient norm; `None` disables clipping.
    pub clip_norm: Option<f32>,
}

/// The kernels of the optimizer step.
pub(crate) trait AdamWStep {
    /// Σ g² over a range of the arena, summed in a fixed order.
    fn square_sum(&self, grads: &Gradients, range: Range<usize>) -> f64;
    /// Updates weights and moments, with gradients multiplied by `factor`.
    fn adamw(
        &self,
        params: &mut Parameters,
        grads: &Gradients,
        moments: &mut Moments,
        settings: &StepSettings,
        factor: f32,
    );
}

/// Clips the gradients, then updates all weights that are not frozen (see [`Parameters::set_rate`]). The gradients of
/// frozen weights do not count for the norm. If the norm is not finite, nothing is changed, and the report says so.
pub fn adamw_step(
    device: &Device,
    params: &mut Parameters,
    grads: &Gradients,
    moments: &mut Moments,
    settings: &StepSettings,
) -> StepReport {
    let backend = device.backend();
    let parts = params.trained_ranges().into_iter().map(|range| backend.square_sum(grads, range));
    let grad_norm = parts.sum::<f64>().sqrt();
    if !grad_norm.is_finite() {
        return StepReport { grad_norm: grad_norm as f32, finite: false };
    }
    // PyTorch's clip_grad_norm_ adds 1e-6 to the norm; the factor is at most 1.
    let factor = settings.clip_norm.map_or(1.0, |max| (f64::from(max) / (grad_norm + 1e-6)).min(1.0));
    backend.adamw(params, grads, moments, settings, factor as f32);
    StepReport { grad_norm: grad_norm as f32, finite: true }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Init;

    /// Compares three steps with the equations in f64, in both variants, on all devices.
    #[test]
    fn steps_follow_the_equations() {
        for device in Device::all_for_tests() {
            for (bias_correction, clip_norm) in [(false, None), (false, Some(0.5)), (true, None), (true, Some(0.5))] {
                let mut builder = Parameters::builder();
                builder.declare("matrix", &[37, 11], Init::TruncatedNormal { std: 0.5 }, true);
                builder.declare("bias", &[37], Init::TruncatedNormal { std: 0.5 }, false);
                let mut params = builder.build(&device, 3);
                let mut grads = Gradients::zeros_like(&params);
                let mut moments = Moments::zeros_like(&params);
                let adamw = AdamW { beta1: 0.9, beta2: 0.999, eps: 1e-6, weight_decay: 0.01, bias_correction };
                let mut w: Vec<f64> = params.read_all().iter().map(|w| f64::from(*w)).collect();
                let (mut m, mut v) = (vec![0f64; w.len()], vec![0f64; w.len()]);
                for step in 1..=3 {
                    grads.edit_all(|grads| {
                        for (i, g) in grads.iter_mut().enumerate() {
                            *g = ((i * 37 + step * 11) as f32 * 0.7).sin() * 0.1;
                        }
                    });
                    let norm = grads.read_all().iter().map(|g| f64::from(*g).powi(2)).sum::<f64>().sqrt();
                    let factor = clip_norm.map_or(1.0, |c: f32| (f64::from(c) / (norm + 1e-6)).min(1.0));
                    let settings = StepSettings { adamw, lr: 1e-2, step: step as u64, clip_norm };
                    let report = adamw_step(&device, &mut params, &grads, &mut moments, &settings);
                    assert!(report.finite && (f64::from(report.grad_norm) - norm).abs() < 1e-5 * norm);
                    for i in 0..w.len() {
                        let g = f64::from(grads.read_all()[i]) * factor;
                        m[i] = 0.9 * m[i] + 0.1 * g;
                        v[i] = 0.999 * v[i] + 0.001 * g * g;
                        let (c1, c2) = if bias_correction {
                            (1.0 - 0.9f64.powi(step as i32), 1.0 - 0.999f64.powi(step as i32))
                        } else {
                            (1.0, 1.0)
                        };
                        let decay = if i < 37 * 11 { 0.01 } else { 0.0 };
                        w[i] = w[i] * (1.0 - 1e-2 * decay) - 1e-2 * (m[i] / c1) / ((v[i] / c2).sqrt() + 1e-6);
                    }
                }
                for (found, expected) in params.read_all().iter().zip(&w) {
                    assert!((f64::from(*found) - expected).abs() < 2e-5, "found {found}, expected {expected}");
                }
            }
        }
    }

    /// Half of the rate gives the step of half the learning rate; frozen weights do not change, and their gradients do
    /// not count.
    #[test]
    fn rates_of_parameters_scale_their_steps() {
        let device = Device::cpu(Some(1)).expect("a CPU device");
        let adamw = AdamW { beta1: 0.9, beta2: 0.999, eps: 1e-6, weight_decay: 0.1, bias_correction: true };
        let step = |rates: [f32; 3], lr: f32| {
            let mut builder = Parameters::builder();
            let ids = ["a", "b", "c"].map(|name| builder.declare(name, &[40], Init::Ones, true));
            let mut params = builder.build(&device, 0);
            ids.iter().zip(rates).for_each(|(id, rate)| params.set_rate(*id, rate));
            let mut grads = Gradients::zeros_like(&params);
            grads.edit_all(|grads| grads.iter_mut().enumerate().for_each(|(i, g)| *g = (i as f32).cos()));
            let mut moments = Moments::zeros_like(&params);
            let settings = StepSettings { adamw, lr, step: 1, clip_norm: None };
            let report = adamw_step(&device, &mut params, &grads, &mut moments, &settings);
            (params.read_all().to_vec(), moments.read_first().to_vec(), report.grad_norm)
        };
        let (full, _, norm) = step([1.0; 3], 0.01);
        let (half, _, _) = step([1.0; 3], 0.005);
        let (mixed, moments, smaller_norm) = step([1.0, 0.0, 0.5], 0.01);
        assert_eq!(mixed[..40], full[..40]);
        assert_eq!(mixed[40..80], [1.0; 40]);
        assert_eq!(mixed[80..], half[80..]);
        assert!(moments[40..80].iter().all(|m| *m == 0.0) && smaller_norm < norm);
    }

    #[test]
    fn a_gradient_with_infinite_norm_changes_nothing() {
        let device = Device::cpu(Some(1)).expect("a CPU device");
        let mut builder = Parameters::builder();
        builder.declare("w", &[5], Init::Ones, true);
        let mut params = builder.build(&device, 0);
        let mut grads = Gradients::zeros_like(&params);
        let mut moments = Moments::zeros_like(&params);
        let adamw = AdamW { beta1: 0.9, beta2: 0.999, eps: 1e-6, weight_decay: 0.01, bias_correction: true };
        for bad in [f32::NAN, f32::INFINITY, 1e30] {
            grads.edit_all(|grads| {
                grads.fill(0.1);
                grads[3] = bad;
            });
            let settings = StepSettings { adamw, lr: 0.1, step: 1, clip_norm: Some(1.0) };
            let report = adamw_step(&device, &mut params, &grads, &mut moments, &settings);
            assert_eq!(report.finite, bad == 1e30, "{bad}");
            if !report.finite {
                assert_eq!(params.read_all()[..], [1.0; 5]);
                assert_eq!(moments.read_first()[..], [0.0; 5]);
            }
        }
    }
}
