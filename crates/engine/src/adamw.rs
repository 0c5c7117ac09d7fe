//! AdamW (Loshchilov and Hutter 2019) and BERT's form of it, one pass over the arena: clipping, both moments, decay and
//! the update.
//!
//! m = β₁ m + (1 − β₁) g,  v = β₂ v + (1 − β₂) g²,  w −= lr (m̂/(√v̂ + ε) + λ w), where λ applies to matrices only.
//! The corrected form has m̂ = m/(1 − β₁ᵗ), v̂ = v/(1 − β₂ᵗ); BERT's (google-research/bert, optimization.py) has m̂ = m,
//! v̂ = v. As in PyTorch, decay multiplies the weight first and ε is added to the corrected root.

use crate::cpu::Cpu;
use crate::cpu::level::{Isa, Vectorized, madd};
use crate::cpu::rows::Parts;
use crate::params::LearningRun;
use crate::{DType, Device, Gradients, Parameters, Tensor};

/// The optimizer's constants.
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
    /// Whether the moments are corrected for their start at zero: yes in AdamW, no in BERT's.
    pub bias_correction: bool,
}

/// Running means of the gradients and of their squares, laid out as the [`Parameters`].
pub struct Moments {
    first: Tensor,
    second: Tensor,
}

impl Moments {
    /// Zeros for every weight.
    pub fn zeros_like(params: &Parameters) -> Moments {
        let zeros = || {
            let mut tensor = Tensor::host(&[params.count()], DType::F32);
            tensor.slice_mut::<f32>().fill(0.0);
            tensor
        };
        Moments { first: zeros(), second: zeros() }
    }

    /// m of the whole arena.
    pub fn first(&self) -> &[f32] {
        self.first.slice()
    }

    /// v of the whole arena.
    pub fn second(&self) -> &[f32] {
        self.second.slice()
    }

    /// m and v of the whole arena, for writing.
    pub fn both_mut(&mut self) -> (&mut [f32], &mut [f32]) {
        (self.first.slice_mut(), self.second.slice_mut())
    }
}

/// What a step found.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct StepReport {
    /// The gradient's Euclidean norm before clipping.
    pub grad_norm: f32,
    /// Whether the norm is finite; if not, nothing was changed.
    pub finite: bool,
}

/// One optimizer step.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct StepSettings {
    /// The constants.
    pub adamw: AdamW,
    /// The learning rate of this step.
    pub lr: f32,
    /// The number of this step, from 1 (for the bias correction).
    pub step: u64,
    /// The largest gradient norm, if clipped.
    pub clip_norm: Option<f32>,
}

/// The optimizer's step on a device.
pub trait AdamWStep {
    /// Σ g², in a fixed order.
    fn square_sum(&self, gradients: &[f32]) -> f64;
    /// Updates weights and moments with gradients multiplied by `factor`.
    fn adamw(
        &self,
        params: &mut Parameters,
        grads: &Gradients,
        moments: &mut Moments,
        settings: &StepSettings,
        factor: f32,
    );
}

/// Clips, then updates every weight that learns (see [`Parameters::set_rate`]); the others' gradients do not count. A gradient that is not finite changes nothing and is reported.
pub fn adamw_step(
    device: &Device,
    params: &mut Parameters,
    grads: &Gradients,
    moments: &mut Moments,
    settings: &StepSettings,
) -> StepReport {
    let backend = device.backend();
    let parts = params.learning_ranges().into_iter().map(|range| backend.square_sum(&grads.flat()[range]));
    let grad_norm = parts.sum::<f64>().sqrt();
    if !grad_norm.is_finite() {
        return StepReport { grad_norm: grad_norm as f32, finite: false };
    }
    // PyTorch's clip_grad_norm_ adds 1e-6 to the norm; the factor never grows a gradient.
    let factor = settings.clip_norm.map_or(1.0, |most| (f64::from(most) / (grad_norm + 1e-6)).min(1.0));
    backend.adamw(params, grads, moments, settings, factor as f32);
    StepReport { grad_norm: grad_norm as f32, finite: true }
}

/// Weights a task takes.
const BLOCK: usize = 1 << 14;

impl AdamWStep for Cpu {
    fn square_sum(&self, gradients: &[f32]) -> f64 {
        let mut sums = vec![0f64; gradients.len().div_ceil(BLOCK)];
        let parts = Parts::new(&mut sums);
        self.for_blocks(gradients.len(), BLOCK, |range| {
            let block = range.start / BLOCK;
            // SAFETY: each block has its own sum.
            let sum = unsafe { parts.part(block..block + 1) };
            sum[0] = self.level.run(SquareSum(&gradients[range]));
        });
        sums.iter().sum()
    }

    fn adamw(
        &self,
        params: &mut Parameters,
        grads: &Gradients,
        moments: &mut Moments,
        settings: &StepSettings,
        factor: f32,
    ) {
        let AdamW { beta1, beta2, eps, weight_decay, bias_correction } = settings.adamw;
        let correction = |beta: f32| {
            if bias_correction { 1.0 - f64::from(beta).powi(settings.step.min(1 << 30) as i32) } else { 1.0 }
        };
        let (first_correction, root) = (correction(beta1), (1.0 / correction(beta2).sqrt()) as f32);
        let runs = params.learning_runs();
        let (first, second) = moments.both_mut();
        let (weights, first, second) = (Parts::new(params.flat_mut()), Parts::new(first), Parts::new(second));
        for LearningRun { range: run, decays, rate } in runs {
            let lr = f64::from(settings.lr) * f64::from(rate);
            let keep = if decays { 1.0 - lr * f64::from(weight_decay) } else { 1.0 } as f32;
            let update = Update { factor, beta1, beta2, eps, rate: (lr / first_correction) as f32, root, keep };
            self.for_blocks(run.len(), BLOCK, |block| {
                let range = run.start + block.start..run.start + block.end;
                // SAFETY: blocks are disjoint.
                let (w, m, v) =
                    unsafe { (weights.part(range.clone()), first.part(range.clone()), second.part(range.clone())) };
                self.level.run(UpdateBlock { update, w, m, v, g: &grads.flat()[range] });
            });
        }
    }
}

struct SquareSum<'a>(&'a [f32]);

impl Vectorized for SquareSum<'_> {
    type Output = f64;
    #[inline(always)]
    fn call<I: Isa>(self) -> f64 {
        let mut lanes = [0f64; 16];
        let mut chunks = self.0.chunks_exact(16);
        for chunk in &mut chunks {
            for (lane, g) in lanes.iter_mut().zip(chunk) {
                *lane += f64::from(*g) * f64::from(*g);
            }
        }
        lanes.iter().sum::<f64>() + chunks.remainder().iter().map(|g| f64::from(*g) * f64::from(*g)).sum::<f64>()
    }
}

#[derive(Clone, Copy)]
struct Update {
    factor: f32,
    beta1: f32,
    beta2: f32,
    eps: f32,
    /// lr/(1 − β₁ᵗ)
    rate: f32,
    /// 1/√(1 − β₂ᵗ)
    root: f32,
    /// 1 − lr λ
    keep: f32,
}

struct UpdateBlock<'a> {
    update: Update,
    w: &'a mut [f32],
    m: &'a mut [f32],
    v: &'a mut [f32],
    g: &'a [f32],
}

impl Vectorized for UpdateBlock<'_> {
    type Output = ();
    #[inline(always)]
    fn call<I: Isa>(self) {
        let Update { factor, beta1, beta2, eps, rate, root, keep } = self.update;
        for (((w, m), v), g) in self.w.iter_mut().zip(self.m).zip(self.v).zip(self.g) {
            let g = g * factor;
            *m = madd::<I>(1.0 - beta1, g - *m, *m);
            *v = madd::<I>(beta2, *v, (1.0 - beta2) * g * g);
            *w = madd::<I>(-rate, *m / madd::<I>(v.sqrt(), root, eps), *w * keep);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Init, Parameters};

    /// Three steps against the equations in f64, in both forms.
    #[test]
    fn steps_follow_the_equations() {
        for bias_correction in [false, true] {
            for clip_norm in [None, Some(0.5)] {
                let device = Device::cpu(Some(2)).expect("a CPU device");
                let mut builder = Parameters::builder();
                builder.declare("matrix", &[37, 11], Init::TruncatedNormal { std: 0.5 }, true);
                builder.declare("bias", &[37], Init::TruncatedNormal { std: 0.5 }, false);
                let mut params = builder.build(&device, 3);
                let mut grads = Gradients::zeros_like(&params);
                let mut moments = Moments::zeros_like(&params);
                let adamw = AdamW { beta1: 0.9, beta2: 0.999, eps: 1e-6, weight_decay: 0.01, bias_correction };
                let mut w: Vec<f64> = params.flat().iter().map(|w| f64::from(*w)).collect();
                let (mut m, mut v) = (vec![0f64; w.len()], vec![0f64; w.len()]);
                for step in 1..=3 {
                    for (i, g) in grads.flat_mut().iter_mut().enumerate() {
                        *g = ((i * 37 + step * 11) as f32 * 0.7).sin() * 0.1;
                    }
                    let norm = grads.flat().iter().map(|g| f64::from(*g).powi(2)).sum::<f64>().sqrt();
                    let factor = clip_norm.map_or(1.0, |c: f32| (f64::from(c) / (norm + 1e-6)).min(1.0));
                    let settings = StepSettings { adamw, lr: 1e-2, step: step as u64, clip_norm };
                    let report = adamw_step(&device, &mut params, &grads, &mut moments, &settings);
                    assert!(report.finite && (f64::from(report.grad_norm) - norm).abs() < 1e-5 * norm);
                    for i in 0..w.len() {
                        let g = f64::from(grads.flat()[i]) * factor;
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
                for (found, wanted) in params.flat().iter().zip(&w) {
                    assert!((f64::from(*found) - wanted).abs() < 2e-5, "{found} {wanted}");
                }
            }
        }
    }

    /// Layer-wise rates: half of a rate is the step of half the rate, and what does not learn neither moves nor counts.
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
            grads.flat_mut().iter_mut().enumerate().for_each(|(i, g)| *g = (i as f32).cos());
            let mut moments = Moments::zeros_like(&params);
            let settings = StepSettings { adamw, lr, step: 1, clip_norm: None };
            let report = adamw_step(&device, &mut params, &grads, &mut moments, &settings);
            (params.flat().to_vec(), moments.first().to_vec(), report.grad_norm)
        };
        let (whole, _, norm) = step([1.0; 3], 0.01);
        let (half, _, _) = step([1.0; 3], 0.005);
        let (mixed, moments, less) = step([1.0, 0.0, 0.5], 0.01);
        assert_eq!(mixed[..40], whole[..40]);
        assert_eq!(mixed[40..80], [1.0; 40]);
        assert_eq!(mixed[80..], half[80..]);
        assert!(moments[40..80].iter().all(|m| *m == 0.0) && less < norm);
    }

    #[test]
    fn a_gradient_that_is_not_finite_changes_nothing() {
        let device = Device::cpu(Some(1)).expect("a CPU device");
        let mut builder = Parameters::builder();
        builder.declare("w", &[5], Init::Ones, true);
        let mut params = builder.build(&device, 0);
        let mut grads = Gradients::zeros_like(&params);
        let mut moments = Moments::zeros_like(&params);
        let adamw = AdamW { beta1: 0.9, beta2: 0.999, eps: 1e-6, weight_decay: 0.01, bias_correction: true };
        for bad in [f32::NAN, f32::INFINITY, 1e30] {
            grads.flat_mut().fill(0.1);
            grads.flat_mut()[3] = bad;
            let settings = StepSettings { adamw, lr: 0.1, step: 1, clip_norm: Some(1.0) };
            let report = adamw_step(&device, &mut params, &grads, &mut moments, &settings);
            assert_eq!(report.finite, bad == 1e30, "{bad}");
            if !report.finite {
                assert_eq!(params.flat(), [1.0; 5]);
                assert_eq!(moments.first(), [0.0; 5]);
            }
        }
    }
}
