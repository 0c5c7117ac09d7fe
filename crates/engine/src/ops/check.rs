//! The common check of all ops: the forward pass is compared with an f64 oracle, and the backward pass with central
//! differences of that oracle. It runs at each level of this machine, with one and two threads, in both precisions.

use crate::ops::LossSum;
use crate::random::{DropoutKey, Mask, mix};
use crate::{DType, Device, Gradients, Init, ParamId, Parameters, Pass, Tensor, Var};

pub(crate) const KEY: DropoutKey = DropoutKey { seed: 11, step: 3, micro: 0 };

/// The mask of dropout number `site` in a checked pass.
pub(crate) fn dropout_mask(site: u32, p: f32) -> Mask {
    Mask::new(KEY.site(site), p)
}

/// erf by a series whose terms all have the same sign (Abramowitz and Stegun 7.1.6): without cancellation, central
/// differences are precise.
pub(crate) fn erf(x: f64) -> f64 {
    let (mut sum, mut term) = (x, x);
    for n in 1..200 {
        term *= 2.0 * x * x / f64::from(2 * n + 1);
        sum += term;
    }
    if x.abs() > 6.0 { x.signum() } else { sum * 2.0 / std::f64::consts::PI.sqrt() * (-x * x).exp() }
}

/// A pseudo-random number in (−1, 1), exact in bf16, so that both precisions start from the same inputs.
fn number(key: u64, index: usize) -> f64 {
    ((mix(key, index as u64) >> 40) % 255) as f64 / 128.0 - 0.9921875
}

/// Every device of the check: the CPU at each level of this machine; CUDA in the emulator, with both orders of its threads; a real GPU, if
/// there is one.
pub(crate) fn devices() -> Vec<Device> {
    let mut devices = Device::all_for_tests();
    // A run on another instruction set of the CPU, which CLOZE_CPU selects, need not repeat the kernels of GPUs.
    #[cfg(target_os = "linux")]
    if Device::forced_instruction_set().is_none() {
        devices.extend(Device::gpus_for_tests().into_iter().chain(Device::emulated_for_tests(true)));
    }
    devices
}

/// The values of an op's inputs and parameters.
pub(crate) struct Numbers {
    pub(crate) inputs: Vec<Vec<f64>>,
    pub(crate) params: Vec<Vec<f64>>,
}

impl Numbers {
    fn new(inputs: &[&[usize]], params: &[(&str, &[usize])]) -> Numbers {
        let fill = |key: u64, shape: &[usize]| (0..shape.iter().product()).map(|i| number(key, i)).collect();
        Numbers {
            inputs: inputs.iter().enumerate().map(|(k, shape)| fill(k as u64, shape)).collect(),
            params: params.iter().enumerate().map(|(k, (_, shape))| fill(100 + k as u64, shape)).collect(),
        }
    }

    fn tensors(&self) -> impl Iterator<Item = &Vec<f64>> {
        self.inputs.iter().chain(&self.params)
    }

    /// The numbers with `step` times `direction` added to tensor number `which`.
    fn moved(&self, which: usize, direction: &dyn Fn(usize) -> f64, step: f64) -> Numbers {
        let mut moved = Numbers { inputs: self.inputs.clone(), params: self.params.clone() };
        let tensor = moved.inputs.iter_mut().chain(&mut moved.params).nth(which).expect("a tensor");
        for (i, x) in tensor.iter_mut().enumerate() {
            *x += step * direction(i);
        }
        moved
    }
}

/// The relative error of rounding to this type once.
fn rounding(dtype: DType) -> f64 {
    match dtype {
        DType::BF16 => 2f64.powi(-8),
        _ => 2f64.powi(-24),
    }
}

/// The allowed error, in units of [`rounding`]. A sum of k rounded terms has an error of about √k roundings of a term, and
/// is itself about √k times as large as a term. So an error is compared with the result, and with the root mean square of
/// the results of the same tensor.
fn roundings(dtype: DType) -> f64 {
    match dtype {
        DType::BF16 => 4.0,
        // Exponentials and similar functions are polynomials with errors of a few roundings.
        _ => 32.0,
    }
}

/// The absolute error of the oracle's central differences.
const NOISE: f64 = 1e-8;

/// A result of the op, the oracle's, and the typical magnitude of results of this tensor.
struct Pair {
    found: f64,
    expected: f64,
    magnitude: f64,
}

/// The first pair whose difference is too large for a rounding error, if expected values are multiplied by `factor`.
fn first_mismatch(pairs: &[Pair], factor: f64, dtype: DType) -> Option<usize> {
    let tolerance = roundings(dtype) * rounding(dtype);
    pairs.iter().position(|pair| {
        let expected = factor * pair.expected;
        // A NaN is a mismatch.
        let is_close = (pair.found - expected).abs() <= tolerance * (pair.magnitude + expected.abs()) + NOISE;
        !is_close
    })
}

/// The op's output (or loss) and the gradients of all tensors, inputs first.
type Outcome = (Vec<f64>, Vec<Vec<f64>>);
pub(crate) type Run<'a> = &'a dyn Fn(&mut Pass<'_>, &[Var], &[ParamId]) -> (Option<Var>, Option<LossSum>);

/// Runs the op's forward and backward pass on these numbers; `seed` is the gradient of its output, if it has one.
pub(crate) fn run(
    device: &Device,
    dtype: DType,
    shapes: &[&[usize]],
    names: &[(&str, &[usize])],
    numbers: &Numbers,
    seed: &[f64],
    op: Run<'_>,
) -> Outcome {
    let to_f32 = |v: &[f64]| v.iter().map(|x| *x as f32).collect::<Vec<f32>>();
    let mut builder = Parameters::builder();
    let ids: Vec<ParamId> = names.iter().map(|(name, shape)| builder.declare(name, shape, Init::Zeros, true)).collect();
    let mut params = builder.build(device, 0);
    for (id, values) in ids.iter().zip(&numbers.params) {
        params.write(*id, &to_f32(values));
    }
    let mut grads = Gradients::zeros_like(&params);
    let cast = |values: &[f64], shape: &[usize], dtype: DType| -> Tensor {
        match dtype {
            DType::BF16 => device.backend().cast(&device.tensor_f32(&to_f32(values), shape), DType::BF16),
            _ => device.tensor_f32(&to_f32(values), shape),
        }
    };
    let mut pass = Pass::recording(device, &params, &mut grads, dtype, Some(KEY));
    let inputs: Vec<Var> =
        numbers.inputs.iter().zip(shapes).map(|(v, shape)| pass.input(cast(v, shape, dtype))).collect();
    let (output, loss) = op(&mut pass, &inputs, &ids);
    let found = match (&output, loss) {
        (Some(y), _) => {
            let values = y.value().to_vec_f32().iter().map(|x| f64::from(*x)).collect();
            let gradient = cast(seed, y.value().shape(), y.value().dtype());
            pass.seed_gradient(y, gradient);
            values
        }
        (None, Some(loss)) => vec![loss.sum],
        (None, None) => unreachable!("an op returns an output or a loss"),
    };
    let gradients = pass.backward_to(&inputs.iter().collect::<Vec<_>>());
    let mut all: Vec<Vec<f64>> = gradients
        .iter()
        .map(|g| g.as_ref().map_or(Vec::new(), |g| g.to_vec_f32().iter().map(|x| f64::from(*x)).collect()))
        .collect();
    all.extend(ids.iter().map(|id| grads.read(*id).iter().map(|g| f64::from(*g)).collect()));
    (found, all)
}

fn norm(v: &[f64]) -> f64 {
    v.iter().map(|x| x * x).sum::<f64>().sqrt()
}

fn root_mean_square(v: &[f64]) -> f64 {
    norm(v) / (v.len().max(1) as f64).sqrt()
}

#[allow(clippy::too_many_arguments)]
fn check(
    name: &str,
    shapes: &[&[usize]],
    names: &[(&str, &[usize])],
    op: Run<'_>,
    oracle: &dyn Fn(&Numbers) -> Vec<f64>,
    seed_scale: Option<f64>,
) {
    const STEP: f64 = 1e-5;
    let numbers = Numbers::new(shapes, names);
    let expected = oracle(&numbers);
    let seed: Vec<f64> = (0..expected.len()).map(|i| seed_scale.unwrap_or_else(|| number(999, i))).collect();
    let objective = |n: &Numbers| oracle(n).iter().zip(&seed).map(|(y, s)| y * s).sum::<f64>();
    // Central differences of the oracle: along every element if there are few, otherwise along random directions.
    let mut directional_derivatives: Vec<(usize, Vec<f64>, f64)> = Vec::new();
    for (which, tensor) in numbers.tensors().enumerate() {
        let directions = if tensor.len() <= 40 { tensor.len() } else { 8 };
        // Also the sum of all directions, each with the sign of its derivative: in a large tensor, the derivative along
        // a single random direction is small, and so is its error.
        let (mut uphill, mut steepest) = (vec![0.0; tensor.len()], 0.0);
        for d in 0..directions {
            let direction: Vec<f64> = (0..tensor.len())
                .map(|i| if tensor.len() <= 40 { f64::from(u8::from(i == d)) } else { number(7000 + d as u64, i) })
                .collect();
            let at = |step| objective(&numbers.moved(which, &|i| direction[i], step));
            let derivative = (at(STEP) - at(-STEP)) / (2.0 * STEP);
            for (sum, d) in uphill.iter_mut().zip(&direction) {
                *sum += derivative.signum() * d;
            }
            steepest += derivative.abs();
            directional_derivatives.push((which, direction, derivative));
        }
        directional_derivatives.push((which, uphill, steepest));
    }
    for device in devices() {
        for dtype in [DType::F32, DType::BF16] {
            let context = format!("{name}, {}, {}", device.describe(), dtype.name());
            let (found, gradients) = run(&device, dtype, shapes, names, &numbers, &seed, op);
            assert_eq!(found.len(), expected.len(), "{context}: outputs");
            let magnitude = root_mean_square(&expected);
            let outputs =
                found.iter().zip(&expected).map(|(&found, &expected)| Pair { found, expected, magnitude }).collect();
            let mut all: Vec<(String, Vec<Pair>)> = vec![("outputs".to_owned(), outputs)];
            for (which, gradient) in gradients.iter().enumerate() {
                let of_tensor = directional_derivatives.iter().filter(|(tensor, ..)| *tensor == which);
                let pairs = of_tensor.map(|(_, direction, derivative)| {
                    assert_eq!(gradient.len(), direction.len(), "{context}: gradient of tensor {which}");
                    let found = gradient.iter().zip(direction).map(|(g, d)| g * d).sum();
                    let magnitude = root_mean_square(gradient) * norm(direction);
                    Pair { found, expected: *derivative, magnitude }
                });
                all.push((format!("directional derivatives of tensor {which}"), pairs.collect()));
            }
            for (kind, pairs) in &all {
                if let Some(index) = first_mismatch(pairs, 1.0, dtype) {
                    let Pair { found, expected, .. } = pairs[index];
                    panic!("{context}: number {index} of the {kind} is {found}, expected {expected}");
                }
                // The check must detect an error of 5 %.
                let all_zero = pairs.iter().all(|pair| pair.expected.abs() < NOISE);
                assert!(
                    all_zero || first_mismatch(pairs, 1.05, dtype).is_some(),
                    "{context}: the check of the {kind} does not detect an error of 5 %"
                );
            }
        }
    }
}

/// Checks an op with an output. `op` gets the inputs as recorded activations, and the parameters; `oracle` gets their
/// values.
pub(crate) fn check_op(
    name: &str,
    inputs: &[&[usize]],
    params: &[(&str, &[usize])],
    op: impl Fn(&mut Pass<'_>, &[Var], &[ParamId]) -> Var,
    oracle: impl Fn(&[Vec<f64>], &[Vec<f64>]) -> Vec<f64>,
) {
    let run: Run<'_> = &|pass, x, p| (Some(op(pass, x, p)), None);
    check(name, inputs, params, run, &|n| oracle(&n.inputs, &n.params), None);
}

/// Checks a loss, as [`check_op`]. `op` also gets the scale by which it must multiply its gradient.
pub(crate) fn check_loss(
    name: &str,
    inputs: &[&[usize]],
    params: &[(&str, &[usize])],
    op: impl Fn(&mut Pass<'_>, &[Var], &[ParamId], f32) -> LossSum,
    oracle: impl Fn(&[Vec<f64>], &[Vec<f64>]) -> f64,
) {
    const SCALE: f32 = 0.375;
    let run: Run<'_> = &|pass, x, p| (None, Some(op(pass, x, p, SCALE)));
    check(name, inputs, params, run, &|n| vec![oracle(&n.inputs, &n.params)], Some(f64::from(SCALE)));
}

/// Every op has a folder with its own check.
#[test]
fn every_op_is_checked() {
    let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("src/ops");
    let list = std::fs::read_to_string(folder.join("mod.rs")).expect("src/ops/mod.rs");
    let is_op = |line: &&str| line.ends_with(';') && line.contains("mod ") && !line.contains(" check;");
    let ops = list.lines().filter(is_op).count();
    let mut folders = 0;
    for entry in std::fs::read_dir(folder).expect("src/ops") {
        let path = entry.expect("an entry").path();
        if path.is_dir() {
            let text = std::fs::read_to_string(path.join("mod.rs")).expect("an op's mod.rs");
            assert!(
                ["check_op(", "check_loss(", "Device::all_for_tests()", "in devices()"]
                    .iter()
                    .any(|check| text.contains(check)),
                "{} has no check",
                path.display()
            );
            folders += 1;
        }
    }
    assert!(folders > 0 && folders == ops, "{folders} folders, {ops} ops");
}
