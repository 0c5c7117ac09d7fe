//! The optimizer's step: clipping, both moments, weight decay and the update.
//!
//! m = β₁ m + (1 − β₁) g,  v = β₂ v + (1 − β₂) g²,  u = m̂/(√v̂ + ε) + λ w, where λ applies only to matrices. With bias
//! correction, m̂ = m/(1 − β₁ᵗ), v̂ = v/(1 − β₂ᵗ); without it, m̂ = m, v̂ = v. As in PyTorch, ε is added to the corrected
//! root.
//!
//! - AdamW (Loshchilov and Hutter 2019), and BERT's variant of it without bias correction (google-research/bert,
//!   optimization.py): w −= lr u, in one pass over the arena. As in PyTorch, decay multiplies the weight first.
//! - LAMB (You et al. 2020, algorithm 2): w −= lr r u. The trust ratio r = ‖w‖/‖u‖ of each parameter is 1 if one of the
//!   norms is 0, and for parameters without weight decay. google-research/albert (lamb_optimizer.py) has no bias
//!   correction, the paper has.

#[allow(unsafe_code)]
mod cpu;
#[allow(unsafe_code)]
mod cuda;

use crate::params::UpdateGroup;
use crate::{Device, Gradients, Parameters, Share, Tensor};
use std::borrow::Cow;
use std::ops::Range;

/// How the optimizer changes weights.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum UpdateRule {
    /// By the learning rate times the direction of Adam, with decoupled weight decay.
    AdamW,
    /// As AdamW, but relative to the norm of each parameter.
    Lamb,
}

/// The optimizer and its hyperparameters.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Optimizer {
    /// The rule.
    pub rule: UpdateRule,
    /// β₁
    pub beta1: f32,
    /// β₂
    pub beta2: f32,
    /// ε
    pub eps: f32,
    /// λ
    pub weight_decay: f32,
    /// Whether the moments are corrected for their initialisation with zeros: true for AdamW, false for BERT's variant
    /// of it and for LAMB as ALBERT was trained.
    pub bias_correction: bool,
}

/// Running means of the gradients and of their squares, on the device of the [`Parameters`]: those of the weights of a [`Share`], in their
/// order.
pub struct Moments {
    share: Share,
    first: Tensor,
    second: Tensor,
}

impl Moments {
    /// Zeros for every weight.
    pub fn zeros_like(params: &Parameters) -> Moments {
        Moments::zeros_of(params, Share::WHOLE)
    }

    /// Zeros for the weights of a share.
    pub fn zeros_of(params: &Parameters, share: Share) -> Moments {
        let zeros = || params.device().zeros(share.count(params.count()));
        Moments { share, first: zeros(), second: zeros() }
    }

    /// The weights whose moments these are.
    pub fn share(&self) -> Share {
        self.share
    }

    /// m of a part of the arena, one of [`Share::ranges`]: borrowed if the device uses host memory, otherwise copied.
    pub fn read_first(&self, part: Range<usize>) -> Cow<'_, [f32]> {
        self.first.read(self.share.place(part))
    }

    /// v of a part of the arena, as in [`Moments::read_first`].
    pub fn read_second(&self, part: Range<usize>) -> Cow<'_, [f32]> {
        self.second.read(self.share.place(part))
    }

    /// Lets `edit` change m and v of a part of the arena, in place or in copies that are then written back.
    pub fn edit<T>(&mut self, part: Range<usize>, edit: impl FnOnce(&mut [f32], &mut [f32]) -> T) -> T {
        let place = self.share.place(part);
        let Moments { first, second, .. } = self;
        first.edit(place.clone(), |first| second.edit(place, |second| edit(first, second)))
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
    /// The optimizer.
    pub optimizer: Optimizer,
    /// The learning rate of this step.
    pub lr: f32,
    /// The number of this step, starting from 1, for the bias correction.
    pub step: u64,
    /// The maximum gradient norm; `None` disables clipping.
    pub clip_norm: Option<f32>,
}

/// Sums of each block of the arena, of which a rank computes those of its [`Share`].
pub struct BlockSums<'a> {
    /// The block of each entry.
    pub blocks: &'a [usize],
    /// The sums; those of other ranks' blocks are 0.
    pub sums: &'a mut [f64],
}

/// Gets the sums of other ranks' blocks. Does nothing in a job of one process.
pub type Complete<'a> = &'a mut dyn FnMut(BlockSums<'_>);

/// The kernels of the optimizer's step.
pub(crate) trait OptimizerStep {
    /// Σ g² of each of some parts of the arena.
    fn square_sums(&self, grads: &Gradients, parts: &[Range<usize>]) -> Vec<f64>;
    /// Updates weights and moments of the share by AdamW, with gradients multiplied by `factor`.
    fn adamw(
        &self,
        params: &mut Parameters,
        grads: &Gradients,
        moments: &mut Moments,
        settings: &StepSettings,
        factor: f32,
    );
    /// As `adamw`, by LAMB.
    fn lamb(
        &self,
        params: &mut Parameters,
        grads: &Gradients,
        moments: &mut Moments,
        settings: &StepSettings,
        factor: f32,
        complete: Complete<'_>,
    );
}

/// The parts of ranges of the arena, each in one block.
pub(crate) fn parts(ranges: impl IntoIterator<Item = Range<usize>>) -> Vec<Range<usize>> {
    ranges.into_iter().flat_map(|range| Share::WHOLE.ranges(range)).collect()
}

/// Clips the gradients, then updates all weights that are not frozen (see [`Parameters::set_rate`]). The gradients of
/// frozen weights do not count for the norm. If the norm is not finite, nothing is changed, and the report says so.
pub fn optimizer_step(
    device: &Device,
    params: &mut Parameters,
    grads: &Gradients,
    moments: &mut Moments,
    settings: &StepSettings,
) -> StepReport {
    optimizer_step_of_share(device, params, grads, moments, settings, &mut |_| ())
}

/// As [`optimizer_step`], for the weights of the share of the moments. The gradients are those of all weights or of the same share.
/// `complete` gets sums of the blocks of other shares.
pub fn optimizer_step_of_share(
    device: &Device,
    params: &mut Parameters,
    grads: &Gradients,
    moments: &mut Moments,
    settings: &StepSettings,
    complete: Complete<'_>,
) -> StepReport {
    let backend = device.backend();
    let all = parts(params.trained_ranges());
    let (owned, blocks) = of_share(moments.share, &all);
    let mut sums = vec![0.0; all.len()];
    let own: Vec<Range<usize>> = owned.iter().map(|&index| all[index].clone()).collect();
    owned.iter().zip(backend.square_sums(grads, &own)).for_each(|(&index, sum)| sums[index] = sum);
    complete(BlockSums { blocks: &blocks, sums: &mut sums });
    let grad_norm = sums.iter().sum::<f64>().sqrt();
    if !grad_norm.is_finite() {
        return StepReport { grad_norm: grad_norm as f32, finite: false };
    }
    // PyTorch's clip_grad_norm_ adds 1e-6 to the norm; the factor is at most 1.
    let factor = settings.clip_norm.map_or(1.0, |max| (f64::from(max) / (grad_norm + 1e-6)).min(1.0)) as f32;
    match settings.optimizer.rule {
        UpdateRule::AdamW => backend.adamw(params, grads, moments, settings, factor),
        UpdateRule::Lamb => backend.lamb(params, grads, moments, settings, factor, complete),
    }
    StepReport { grad_norm: grad_norm as f32, finite: true }
}

/// The indices of the parts that a share has, and the block of each part.
pub(crate) fn of_share(share: Share, parts: &[Range<usize>]) -> (Vec<usize>, Vec<usize>) {
    let blocks: Vec<usize> = parts.iter().map(|part| part.start / Share::BLOCK).collect();
    let owned = (0..parts.len()).filter(|&index| share.ranges(parts[index].clone()).next().is_some()).collect();
    (owned, blocks)
}

/// The update of both moments.
#[derive(Clone, Copy)]
struct UpdateMoments {
    /// The factor of gradients.
    factor: f32,
    beta1: f32,
    beta2: f32,
}

impl UpdateMoments {
    fn new(settings: &StepSettings, factor: f32) -> UpdateMoments {
        let Optimizer { beta1, beta2, .. } = settings.optimizer;
        UpdateMoments { factor, beta1, beta2 }
    }
}

/// m̂/(√v̂ + ε), except for the factor 1/(1 − β₁ᵗ).
#[derive(Clone, Copy)]
struct Direction {
    eps: f32,
    /// 1/√(1 − β₂ᵗ)
    root_correction: f32,
}

impl Direction {
    /// The direction, and `lr` times its missing factor.
    fn new(settings: &StepSettings, lr: f64) -> (Direction, f32) {
        let Optimizer { beta1, beta2, eps, bias_correction, .. } = settings.optimizer;
        let correction = |beta: f32| {
            if bias_correction { 1.0 - f64::from(beta).powi(settings.step.min(1 << 30) as i32) } else { 1.0 }
        };
        let root_correction = (1.0 / correction(beta2).sqrt()) as f32;
        (Direction { eps, root_correction }, (lr / correction(beta1)) as f32)
    }
}

/// How AdamW changes the weights of a group: the direction and its factor, and 1 − lr λ.
fn adamw_rate(group: &UpdateGroup, settings: &StepSettings) -> ((Direction, f32), f32) {
    let lr = f64::from(settings.lr) * f64::from(group.rate);
    let weight_decay = f64::from(settings.optimizer.weight_decay);
    let decay = if group.decays { 1.0 - lr * weight_decay } else { 1.0 } as f32;
    (Direction::new(settings, lr), decay)
}

/// LAMB's u = m̂/(√v̂ + ε) + λ w.
#[derive(Clone, Copy)]
struct LambDirection {
    adam: Direction,
    /// 1/(1 − β₁ᵗ)
    scale: f32,
    /// λ
    decay: f32,
}

impl LambDirection {
    fn new(settings: &StepSettings, decays: bool) -> LambDirection {
        let (adam, scale) = Direction::new(settings, 1.0);
        LambDirection { adam, scale, decay: if decays { settings.optimizer.weight_decay } else { 0.0 } }
    }
}

/// The blocks of some parameters, for their norms.
struct LambBlocks {
    /// The parameter of each block.
    of_tensors: Vec<usize>,
    /// The parts of all parameters, each in one block.
    blocks: Vec<Range<usize>>,
    /// The indices of the blocks that the share has.
    owned: Vec<usize>,
    /// The blocks' numbers in the arena.
    numbers: Vec<usize>,
}

impl LambBlocks {
    fn new(tensors: &[UpdateGroup], share: Share) -> LambBlocks {
        let mut of_tensors: Vec<usize> = Vec::new();
        let mut blocks: Vec<Range<usize>> = Vec::new();
        for (index, UpdateGroup { range, .. }) in tensors.iter().enumerate() {
            blocks.extend(parts([range.clone()]));
            of_tensors.resize(blocks.len(), index);
        }
        let (owned, numbers) = of_share(share, &blocks);
        LambBlocks { of_tensors, blocks, owned, numbers }
    }

    /// The factor of u for each parameter, from Σ w² and Σ u² of the share's blocks; other blocks' sums are 0.
    fn rates(
        &self,
        tensors: &[UpdateGroup],
        block_sums: &mut [[f64; 2]],
        settings: &StepSettings,
        complete: Complete<'_>,
    ) -> Vec<f32> {
        // Each block has two sums.
        let numbers: Vec<usize> = self.numbers.iter().flat_map(|&block| [block; 2]).collect();
        complete(BlockSums { blocks: &numbers, sums: block_sums.as_flattened_mut() });
        // Added in the order of the blocks, which depends neither on the number of threads nor on that of ranks.
        let mut square_sums = vec![[0f64; 2]; tensors.len()];
        for (index, sums) in self.of_tensors.iter().zip(block_sums) {
            square_sums[*index].iter_mut().zip(sums).for_each(|(total, sum)| *total += *sum);
        }
        let rate_of = |(tensor, [weights, update]): (&UpdateGroup, [f64; 2])| {
            let is_adapted = tensor.decays && weights > 0.0 && update > 0.0;
            let ratio = if is_adapted { (weights / update).sqrt() } else { 1.0 };
            (f64::from(settings.lr) * f64::from(tensor.rate) * ratio) as f32
        };
        tensors.iter().zip(square_sums).map(rate_of).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::check::devices;
    use crate::ops::linear::{Activation, linear};
    use crate::{DType, Init, ParamId, Pass};

    const RULES: [UpdateRule; 2] = [UpdateRule::AdamW, UpdateRule::Lamb];

    fn optimizer(rule: UpdateRule, bias_correction: bool) -> Optimizer {
        Optimizer { rule, beta1: 0.9, beta2: 0.999, eps: 1e-6, weight_decay: 0.01, bias_correction }
    }

    /// One step of a parameter in f64; `factor` is that of clipping.
    fn step_in_f64(
        w: &mut [f64],
        [m, v]: [&mut [f64]; 2],
        g: &[f64],
        factor: f64,
        lr: f64,
        t: i32,
        of: (Optimizer, bool),
    ) {
        let (optimizer, decays) = of;
        let (c1, c2) = match optimizer.bias_correction {
            true => (1.0 - 0.9f64.powi(t), 1.0 - 0.999f64.powi(t)),
            false => (1.0, 1.0),
        };
        let decay = if decays { 0.01 } else { 0.0 };
        let update: Vec<f64> = (0..w.len())
            .map(|i| {
                let g = g[i] * factor;
                m[i] = 0.9 * m[i] + 0.1 * g;
                v[i] = 0.999 * v[i] + 0.001 * g * g;
                (m[i] / c1) / ((v[i] / c2).sqrt() + 1e-6) + decay * w[i]
            })
            .collect();
        let norm = |x: &[f64]| x.iter().map(|x| x * x).sum::<f64>().sqrt();
        let is_adapted = optimizer.rule == UpdateRule::Lamb && decays && norm(w) > 0.0 && norm(&update) > 0.0;
        let ratio = if is_adapted { norm(w) / norm(&update) } else { 1.0 };
        w.iter_mut().zip(update).for_each(|(w, u)| *w -= lr * ratio * u);
    }

    /// Compares three steps of both rules with the equations in f64, with and without bias correction and clipping, on
    /// all devices. The parameters are smaller and larger than a block.
    #[test]
    fn steps_follow_the_equations() {
        let shapes: [(&str, &[usize], Init, bool); 4] = [
            ("matrix", &[37, 11], Init::TruncatedNormal { std: 0.5 }, true),
            ("bias", &[37], Init::TruncatedNormal { std: 0.5 }, false),
            ("zeros", &[5, 4], Init::Zeros, true),
            ("large", &[200, 90], Init::TruncatedNormal { std: 0.1 }, true),
        ];
        let build = |device: &Device| {
            let mut builder = Parameters::builder();
            let [first, ..] = shapes.map(|(name, shape, init, decay)| builder.declare(name, shape, init, decay));
            let mut params = builder.build(device, 3);
            params.set_rate(first, 0.5);
            params
        };
        let cases = RULES.into_iter().flat_map(|rule| [false, true].map(|correction| optimizer(rule, correction)));
        for (optimizer, clip_norm) in cases.flat_map(|optimizer| [(optimizer, None), (optimizer, Some(0.5))]) {
            let initial = build(&Device::cpu(Some(1)).expect("a CPU device"));
            let gradient = |step: i32| -> Vec<f32> {
                (0..initial.count()).map(|i| ((i as i32 * 37 + step * 11) as f32 * 0.7).sin() * 0.1).collect()
            };
            let mut w: Vec<f64> = initial.read_all().iter().map(|w| f64::from(*w)).collect();
            let (mut m, mut v) = (vec![0f64; w.len()], vec![0f64; w.len()]);
            let mut norms = Vec::new();
            for step in 1..=3 {
                let g: Vec<f64> = gradient(step).into_iter().map(f64::from).collect();
                let norm = g.iter().map(|g| g * g).sum::<f64>().sqrt();
                norms.push(norm);
                let factor = clip_norm.map_or(1.0, |c: f32| (f64::from(c) / (norm + 1e-6)).min(1.0));
                for (id, (name, .., decays)) in initial.ids().zip(shapes) {
                    let range = initial.range(id);
                    let moments = [&mut m[range.clone()], &mut v[range.clone()]];
                    let lr = if name == "matrix" { 0.5e-2 } else { 1e-2 };
                    step_in_f64(&mut w[range.clone()], moments, &g[range], factor, lr, step, (optimizer, decays));
                }
            }
            for device in devices() {
                let mut params = build(&device);
                let mut grads = Gradients::zeros_like(&params);
                let mut moments = Moments::zeros_like(&params);
                for (step, norm) in (1..).zip(&norms) {
                    grads.edit_all(|grads| grads.copy_from_slice(&gradient(step)));
                    let settings = StepSettings { optimizer, lr: 1e-2, step: step as u64, clip_norm };
                    let report = optimizer_step(&device, &mut params, &grads, &mut moments, &settings);
                    assert!(report.finite && (f64::from(report.grad_norm) - norm).abs() < 1e-5 * norm);
                }
                for (index, (found, expected)) in params.read_all().iter().zip(&w).enumerate() {
                    assert!(
                        (f64::from(*found) - expected).abs() < 2e-5,
                        "{optimizer:?}, {device:?}: weight {index} is {found}, expected {expected}"
                    );
                }
            }
        }
    }

    /// Compares LAMB with google-research/albert's optimizer, on all devices. `fixtures/make.py` describes the data.
    #[test]
    fn lamb_follows_the_reference() {
        let text = include_str!("../../../fixtures/lamb.json");
        let record: serde_json::Value = serde_json::from_str(text).expect("JSON");
        let list = |value: &serde_json::Value| -> Vec<serde_json::Value> { value.as_array().expect("a list").clone() };
        let number = |value: &serde_json::Value| value.as_f64().expect("a number");
        let numbers =
            |value: &serde_json::Value| -> Vec<f32> { list(value).iter().map(|x| number(x) as f32).collect() };
        let is_true = |value: &serde_json::Value| value.as_bool().expect("true or false");
        for (device, run) in devices().iter().flat_map(|d| list(&record["runs"]).into_iter().map(move |r| (d, r))) {
            let mut builder = Parameters::builder();
            for (index, parameter) in list(&record["parameters"]).iter().enumerate() {
                let shape: Vec<usize> = numbers(&parameter["shape"]).iter().map(|n| *n as usize).collect();
                builder.declare(&index.to_string(), &shape, Init::Zeros, !is_true(&parameter["excluded"]));
            }
            let mut params = builder.build(device, 0);
            for (id, parameter) in params.ids().zip(list(&record["parameters"])) {
                params.write(id, &numbers(&parameter["weights"]));
            }
            let mut grads = Gradients::zeros_like(&params);
            let mut moments = Moments::zeros_like(&params);
            let mut optimizer = optimizer(UpdateRule::Lamb, is_true(&run["bias_correction"]));
            optimizer.weight_decay = number(&run["weight_decay"]) as f32;
            for (step, values) in (1..).zip(list(&record["steps"])) {
                let gradients: Vec<f32> = list(&values["gradients"]).iter().flat_map(numbers).collect();
                grads.edit_all(|grads| grads.copy_from_slice(&gradients));
                let settings = StepSettings { optimizer, lr: number(&values["lr"]) as f32, step, clip_norm: None };
                assert!(optimizer_step(device, &mut params, &grads, &mut moments, &settings).finite);
            }
            let expected = list(&run["weights"]);
            for (id, expected) in params.ids().zip(&expected) {
                for (found, expected) in params.read(id).iter().zip(list(expected)) {
                    let (found, expected) = (f64::from(*found), number(&expected));
                    // 1 − β₂ has a relative error of 1e-5, because β₂ is rounded to f32.
                    let gap = (found - expected).abs();
                    assert!(gap < 2e-6, "{device:?}, {}: {found}, expected {expected}", params.name(id));
                }
            }
        }
    }

    /// The results of both rules are the same for any number of threads.
    #[test]
    fn steps_do_not_depend_on_threads() {
        for rule in RULES {
            let run = |threads| {
                let device = Device::cpu(Some(threads)).expect("a CPU device");
                let mut builder = Parameters::builder();
                builder.declare("a", &[300, 300], Init::TruncatedNormal { std: 0.5 }, true);
                builder.declare("b", &[7, 3], Init::TruncatedNormal { std: 0.5 }, true);
                let mut params = builder.build(&device, 0);
                let mut grads = Gradients::zeros_like(&params);
                grads.edit_all(|grads| grads.iter_mut().enumerate().for_each(|(i, g)| *g = (i as f32).cos()));
                let mut moments = Moments::zeros_like(&params);
                let settings =
                    StepSettings { optimizer: optimizer(rule, true), lr: 0.1, step: 1, clip_norm: Some(1.0) };
                optimizer_step(&device, &mut params, &grads, &mut moments, &settings);
                params.read_all().to_vec()
            };
            assert!(run(1) == run(3), "{rule:?}");
        }
    }

    /// Half of the rate gives the step of half the learning rate; frozen weights do not change, and their gradients do
    /// not count.
    #[test]
    fn rates_of_parameters_scale_their_steps() {
        for (device, rule) in devices().into_iter().flat_map(|device| RULES.map(|rule| (device.clone(), rule))) {
            let step = |rates: [f32; 3], lr: f32| {
                let mut builder = Parameters::builder();
                let ids = ["a", "b", "c"].map(|name| builder.declare(name, &[40], Init::Ones, true));
                let mut params = builder.build(&device, 0);
                ids.iter().zip(rates).for_each(|(id, rate)| params.set_rate(*id, rate));
                let mut grads = Gradients::zeros_like(&params);
                grads.edit_all(|grads| grads.iter_mut().enumerate().for_each(|(i, g)| *g = (i as f32).cos()));
                let mut moments = Moments::zeros_like(&params);
                let settings = StepSettings { optimizer: optimizer(rule, true), lr, step: 1, clip_norm: None };
                let report = optimizer_step(&device, &mut params, &grads, &mut moments, &settings);
                (params.read_all().to_vec(), moments.read_first(0..120).to_vec(), report.grad_norm)
            };
            let (full, _, norm) = step([1.0; 3], 0.01);
            let (half, _, _) = step([1.0; 3], 0.005);
            let (mixed, moments, smaller_norm) = step([1.0, 0.0, 0.5], 0.01);
            assert_eq!(mixed[..40], full[..40]);
            assert_eq!(mixed[40..80], [1.0; 40]);
            assert_eq!(mixed[80..], half[80..]);
            assert!(moments[40..80].iter().all(|m| *m == 0.0) && smaller_norm < norm);
        }
    }

    #[test]
    fn a_gradient_with_infinite_norm_changes_nothing() {
        for device in devices() {
            let mut builder = Parameters::builder();
            builder.declare("w", &[5], Init::Ones, true);
            let mut params = builder.build(&device, 0);
            let mut grads = Gradients::zeros_like(&params);
            let mut moments = Moments::zeros_like(&params);
            let optimizer = optimizer(UpdateRule::AdamW, true);
            for bad in [f32::NAN, f32::INFINITY, 1e30] {
                grads.edit_all(|grads| {
                    grads.fill(0.1);
                    grads[3] = bad;
                });
                let settings = StepSettings { optimizer, lr: 0.1, step: 1, clip_norm: Some(1.0) };
                let report = optimizer_step(&device, &mut params, &grads, &mut moments, &settings);
                assert_eq!(report.finite, bad == 1e30, "{bad}");
                if !report.finite {
                    assert_eq!(params.read_all()[..], [1.0; 5]);
                    assert_eq!(moments.read_first(0..5)[..], [0.0; 5]);
                }
            }
        }
    }

    #[test]
    fn square_sums_are_those_of_any_parts() {
        for device in devices() {
            let (params, _) = model(&device);
            let mut grads = Gradients::zeros_like(&params);
            grads.edit_all(|grads| fill(grads, 0));
            let parts = [0..1, 1..3, 1..6, 7..50, 3..1028, 16384..32768, 80000..80003];
            let sums = device.backend().square_sums(&grads, &parts);
            for (part, sum) in parts.into_iter().zip(sums) {
                let square = |i: usize| f64::from((i as f32).cos()).powi(2);
                let expected: f64 = part.clone().map(square).sum();
                assert!((sum - expected).abs() < 1e-12 * expected, "{device:?}, {part:?}: {sum}, expected {expected}");
            }
        }
    }

    fn model(device: &Device) -> (Parameters, [ParamId; 2]) {
        let mut builder = Parameters::builder();
        // The second parameter does not start at a multiple of 16 bytes.
        let shapes: [&[usize]; 2] = [&[3], &[250, 320]];
        let ids =
            shapes.map(|shape| builder.declare(&format!("{shape:?}"), shape, Init::TruncatedNormal { std: 0.5 }, true));
        (builder.build(device, 0), ids)
    }

    fn fill(gradients: &mut [f32], first: usize) {
        gradients.iter_mut().enumerate().for_each(|(i, g)| *g = ((first + i) as f32).cos());
    }

    /// A product with a parameter of [`model`] in bf16.
    fn product(params: &Parameters, weight: ParamId) -> Vec<f32> {
        let device = params.device();
        let x: Vec<f32> = (0..320).map(|i| (i % 7) as f32 - 3.0).collect();
        let mut pass = Pass::inference(device, params, DType::BF16);
        let x = pass.input(device.backend().cast(&device.tensor_f32(&x, &[1, 320]), DType::BF16));
        linear(&mut pass, &x, weight, None, Activation::None).value().to_vec_f32()
    }

    /// Ranks that update a share each get the weights of a single process, bit by bit.
    #[test]
    fn shares_make_the_same_step() {
        for (device, rule) in devices().into_iter().flat_map(|device| RULES.map(|rule| (device.clone(), rule))) {
            let settings = StepSettings { optimizer: optimizer(rule, true), lr: 0.1, step: 1, clip_norm: Some(1.0) };
            let (mut whole, _) = model(&device);
            let mut grads = Gradients::zeros_like(&whole);
            grads.edit_all(|grads| fill(grads, 0));
            let mut moments = Moments::zeros_like(&whole);
            // What all ranks together compute.
            let mut complete_sums: Vec<Vec<f64>> = Vec::new();
            let mut keep = |sums: BlockSums<'_>| complete_sums.push(sums.sums.to_vec());
            optimizer_step_of_share(&device, &mut whole, &grads, &mut moments, &settings, &mut keep);
            // With so many ranks, each has two blocks.
            for (rank, has_own_gradients) in [(0, false), (1, false), (1, true), (2, true), (3, true)] {
                let share = Share::new(rank, 70);
                let (mut params, [_, weight]) = model(&device);
                product(&params, weight);
                let own_ranges: Vec<Range<usize>> = share.ranges(0..params.count()).collect();
                let mut own = Gradients::zeros_of(&params, share);
                for range in &own_ranges {
                    own.edit_part(range.clone(), |grads| fill(grads, range.start));
                }
                let mut moments = Moments::zeros_of(&params, share);
                let mut earlier = complete_sums.iter();
                let mut complete = |BlockSums { sums, .. }: BlockSums<'_>| {
                    let all = earlier.next().expect("as many exchanges");
                    assert_eq!(sums.len(), all.len());
                    for (sum, complete) in sums.iter_mut().zip(all) {
                        assert!(*sum == 0.0 || *sum == *complete);
                        *sum = *complete;
                    }
                };
                let grads = if has_own_gradients { &own } else { &grads };
                let before = params.read_all().to_vec();
                optimizer_step_of_share(&device, &mut params, grads, &mut moments, &settings, &mut complete);
                for (index, (found, expected)) in params.read_all().iter().zip(whole.read_all().iter()).enumerate() {
                    let is_own = own_ranges.iter().any(|range| range.contains(&index));
                    let expected = if is_own { *expected } else { before[index] };
                    assert_eq!(*found, expected, "{device:?}, {rule:?}: weight {index}, rank {rank}");
                }
                let (mut same, _) = model(&device);
                same.edit_all(|weights| weights.copy_from_slice(&params.read_all()));
                assert!(product(&params, weight) == product(&same, weight), "{device:?}, {rule:?}: rank {rank}");
            }
        }
    }

    /// What a device has derived from the weights, such as a copy in bf16, follows them.
    #[test]
    fn products_use_the_new_weights() {
        for (device, rule) in devices().into_iter().flat_map(|device| RULES.map(|rule| (device.clone(), rule))) {
            let (mut params, [_, weight]) = model(&device);
            let before = product(&params, weight);
            let mut grads = Gradients::zeros_like(&params);
            grads.edit_all(|grads| fill(grads, 0));
            let mut moments = Moments::zeros_like(&params);
            let settings = StepSettings { optimizer: optimizer(rule, true), lr: 0.1, step: 1, clip_norm: None };
            optimizer_step(&device, &mut params, &grads, &mut moments, &settings);
            let (mut same, _) = model(&device);
            same.edit_all(|weights| weights.copy_from_slice(&params.read_all()));
            let after = product(&params, weight);
            assert!(before != after && after == product(&same, weight), "{device:?}, {rule:?}");
        }
    }
}
