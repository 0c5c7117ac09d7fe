//! The one check of every op: its forward pass against an f64 oracle, its backward pass against central differences of
//! that oracle, for each level this machine has, on one and on two threads, in both precisions.

use crate::ops::LossSum;
use crate::random::{DropoutKey, Mask, mix};
use crate::{DType, Device, Gradients, Init, ParamId, Parameters, Pass, Tensor, Var};

pub(crate) const KEY: DropoutKey = DropoutKey { seed: 11, step: 3, micro: 0 };

/// The mask of the `site`-th dropout of a checked pass.
pub(crate) fn masked(site: u32, p: f32) -> Mask {
    Mask::new(KEY.site(site), p)
}

/// erf by a series whose terms have one sign (Abramowitz and Stegun 7.1.6): nothing cancels, so that differences are exact.
pub(crate) fn erf(x: f64) -> f64 {
    let (mut sum, mut term) = (x, x);
    for n in 1..200 {
        term *= 2.0 * x * x / f64::from(2 * n + 1);
        sum += term;
    }
    if x.abs() > 6.0 { x.signum() } else { sum * 2.0 / std::f64::consts::PI.sqrt() * (-x * x).exp() }
}

/// A number in (−1, 1), exact in bf16, so that both precisions start from the same inputs.
fn number(key: u64, index: usize) -> f64 {
    ((mix(key, index as u64) >> 40) % 255) as f64 / 128.0 - 0.9921875
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

    /// The numbers moved by `step` times a direction in the `which`-th tensor.
    fn moved(&self, which: usize, direction: &dyn Fn(usize) -> f64, step: f64) -> Numbers {
        let mut moved = Numbers { inputs: self.inputs.clone(), params: self.params.clone() };
        let tensor = moved.inputs.iter_mut().chain(&mut moved.params).nth(which).expect("a tensor");
        for (i, x) in tensor.iter_mut().enumerate() {
            *x += step * direction(i);
        }
        moved
    }
}

/// The relative error of one rounding to a type.
fn rounding(dtype: DType) -> f64 {
    match dtype {
        DType::BF16 => 2f64.powi(-8),
        _ => 2f64.powi(-24),
    }
}

/// The error that is allowed, in roundings. A sum of k terms, each rounded, errs by about √k roundings of a term; the sum itself is about √k
/// terms. So an error is compared with the result and with the root mean square of the results of its kind.
fn roundings(dtype: DType) -> f64 {
    match dtype {
        DType::BF16 => 4.0,
        // Exponentials and the like are polynomials, good to a few roundings.
        _ => 32.0,
    }
}

/// What differences of an oracle err by.
const NOISE: f64 = 1e-8;

/// A number of the op beside the oracle's, and the usual size of such numbers.
struct Pair {
    found: f64,
    wanted: f64,
    size: f64,
}

/// The first pair whose numbers differ by more than rounding explains, if what is wanted is multiplied by `factor`.
fn misfit(pairs: &[Pair], factor: f64, dtype: DType) -> Option<usize> {
    let tolerance = roundings(dtype) * rounding(dtype);
    pairs.iter().position(|pair| {
        let wanted = factor * pair.wanted;
        // Written so that a NaN does not fit.
        !((pair.found - wanted).abs() <= tolerance * (pair.size + wanted.abs()) + NOISE)
    })
}

/// The op's output (or loss) and the gradients of all tensors, inputs first.
type Outcome = (Vec<f64>, Vec<Vec<f64>>);
pub(crate) type Run<'a> = &'a dyn Fn(&mut Pass<'_>, &[Var], &[ParamId]) -> (Option<Var>, Option<LossSum>);

/// One forward and backward pass of an op from these numbers; `seed` is its output's gradient, if it has one.
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
    let cast = |values: &[f64], shape: &[usize]| -> Tensor {
        match dtype {
            DType::BF16 => {
                let halves: Vec<crate::dtype::bf16> =
                    to_f32(values).iter().map(|x| crate::dtype::Real::from_f32(*x)).collect();
                Tensor::host_from(&halves, shape)
            }
            _ => device.tensor_f32(&to_f32(values), shape),
        }
    };
    let mut pass = Pass::recording(device, &params, &mut grads, dtype, Some(KEY));
    let inputs: Vec<Var> = numbers.inputs.iter().zip(shapes).map(|(v, shape)| pass.input(cast(v, shape))).collect();
    let (output, loss) = op(&mut pass, &inputs, &ids);
    let found = match (&output, loss) {
        (Some(y), _) => {
            let values = y.value().to_vec_f32().iter().map(|x| f64::from(*x)).collect();
            let gradient = cast(seed, y.value().shape());
            pass.seed_gradient(y, gradient);
            values
        }
        (None, Some(loss)) => vec![loss.sum],
        (None, None) => unreachable!("an op gives an output or a loss"),
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
    let wanted = oracle(&numbers);
    let seed: Vec<f64> = (0..wanted.len()).map(|i| seed_scale.unwrap_or_else(|| number(999, i))).collect();
    let pull = |n: &Numbers| oracle(n).iter().zip(&seed).map(|(y, s)| y * s).sum::<f64>();
    // Central differences of the oracle: along every element when few, along random directions when many.
    let mut slopes: Vec<(usize, Vec<f64>, f64)> = Vec::new();
    for (which, tensor) in numbers.tensors().enumerate() {
        let directions = if tensor.len() <= 40 { tensor.len() } else { 5 };
        // All of them together, each uphill: along most single directions of many elements the slope is small, and so would be its error.
        let (mut uphill, mut steepest) = (vec![0.0; tensor.len()], 0.0);
        for d in 0..directions {
            let direction: Vec<f64> = (0..tensor.len())
                .map(|i| if tensor.len() <= 40 { f64::from(u8::from(i == d)) } else { number(7000 + d as u64, i) })
                .collect();
            let at = |step| pull(&numbers.moved(which, &|i| direction[i], step));
            let slope = (at(STEP) - at(-STEP)) / (2.0 * STEP);
            for (sum, d) in uphill.iter_mut().zip(&direction) {
                *sum += slope.signum() * d;
            }
            steepest += slope.abs();
            slopes.push((which, direction, slope));
        }
        slopes.push((which, uphill, steepest));
    }
    for device in Device::every_kind() {
        for dtype in [DType::F32, DType::BF16] {
            let context = format!("{name}, {}, {}", device.describe(), dtype.name());
            let (found, gradients) = run(&device, dtype, shapes, names, &numbers, &seed, op);
            assert_eq!(found.len(), wanted.len(), "{context}: outputs");
            let size = root_mean_square(&wanted);
            let outputs = found.iter().zip(&wanted).map(|(&found, &wanted)| Pair { found, wanted, size }).collect();
            let mut all: Vec<(String, Vec<Pair>)> = vec![("outputs".to_owned(), outputs)];
            for (which, gradient) in gradients.iter().enumerate() {
                let of_tensor = slopes.iter().filter(|(of, ..)| *of == which);
                let pairs = of_tensor.map(|(_, direction, slope)| {
                    assert_eq!(gradient.len(), direction.len(), "{context}: gradient of tensor {which}");
                    let found = gradient.iter().zip(direction).map(|(g, d)| g * d).sum();
                    Pair { found, wanted: *slope, size: root_mean_square(gradient) * norm(direction) }
                });
                all.push((format!("slopes of tensor {which}"), pairs.collect()));
            }
            for (kind, pairs) in &all {
                if let Some(place) = misfit(pairs, 1.0, dtype) {
                    let Pair { found, wanted, .. } = pairs[place];
                    panic!("{context}: number {place} of the {kind} is {found}, expected {wanted}");
                }
                // The check would see an error of 5 %.
                let is_zero = pairs.iter().all(|pair| pair.wanted.abs() < NOISE);
                assert!(is_zero || misfit(pairs, 1.05, dtype).is_some(), "{context}: any {kind} would do");
            }
        }
    }
}

/// Checks an op with an output. `op` gets the inputs on the tape and the parameters, `oracle` their values.
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

/// Checks a loss: as [`check_op`], with the scale that `op` must pass on.
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

/// Every op has a folder, which holds a check of its own.
#[test]
fn every_op_is_checked() {
    let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("src/ops");
    let list = std::fs::read_to_string(folder.join("mod.rs")).expect("src/ops/mod.rs");
    let ops = list.lines().filter(|line| line.starts_with("pub mod ")).count();
    let mut seen = 0;
    for entry in std::fs::read_dir(folder).expect("src/ops") {
        let path = entry.expect("an entry").path();
        if path.is_dir() {
            let text = std::fs::read_to_string(path.join("mod.rs")).expect("an op's mod.rs");
            assert!(
                ["check_op(", "check_loss(", "Device::every_kind()"].iter().any(|check| text.contains(check)),
                "{} has no check",
                path.display()
            );
            seen += 1;
        }
    }
    assert!(seen > 0 && seen == ops, "{seen} folders of {ops} ops");
}
