//! Checks of products with weights in int8.

use super::{Activation, linear};
use crate::ops::check::erf;
use crate::{DType, Device, Init, ParamId, Parameters, Pass, Tensor, ops};

/// A layer in int8 and its input, of numbers that bf16 can represent.
struct Case {
    tokens: usize,
    inner: usize,
    outer: usize,
    x: Vec<f32>,
    weight: Vec<f32>,
    bias: Vec<f32>,
}

/// Sizes that are not multiples of a word, a cache line or a tile; one token; none.
const SIZES: [(usize, usize, usize); 8] =
    [(1, 1, 1), (1, 64, 48), (0, 30, 7), (7, 3, 17), (33, 130, 65), (64, 192, 50), (5, 500, 33), (70, 65, 100)];

impl Case {
    fn new((tokens, inner, outer): (usize, usize, usize)) -> Case {
        // Roughly normal: sums of three numbers.
        let number = |key: u64, i: usize| {
            let one = |j| ((crate::random::mix(key, 3 * i as u64 + j) >> 40) % 255) as f32 / 128.0 - 0.9921875;
            half::bf16::from_f32(one(0) + one(1) + one(2)).to_f32()
        };
        let fill = |key, count: usize| (0..count).map(|i| number(key, i)).collect();
        let (x, weight) = (fill(1, tokens * inner), fill(2, outer * inner));
        Case { tokens, inner, outer, x, weight, bias: fill(3, outer) }
    }

    fn row(&self, token: usize) -> &[f32] {
        &self.x[token * self.inner..][..self.inner]
    }

    fn weights(&self, feature: usize) -> &[f32] {
        &self.weight[feature * self.inner..][..self.inner]
    }

    fn parameters(&self, device: &Device, quantize: bool) -> (Parameters, ParamId, ParamId) {
        let mut builder = Parameters::builder();
        let weight = builder.declare("weight", &[self.outer, self.inner], Init::Zeros, true);
        let bias = builder.declare("bias", &[self.outer], Init::Zeros, false);
        let mut params = builder.build(device, 0);
        params.write(weight, &self.weight);
        params.write(bias, &self.bias);
        if quantize {
            params.quantize_weights(&[weight]);
        }
        (params, weight, bias)
    }

    fn input(&self, pass: &mut Pass<'_>, device: &Device, dtype: DType) -> crate::Var {
        let x = pass.input(device.tensor_f32(&self.x, &[self.tokens, self.inner]));
        ops::cast(pass, &x, dtype)
    }

    fn run(&self, device: &Device, dtype: DType, activation: Activation) -> Tensor {
        let (params, weight, bias) = self.parameters(device, true);
        let mut pass = Pass::inference(device, &params, dtype);
        let x = self.input(&mut pass, device, dtype);
        linear(&mut pass, &x, weight, Some(bias), activation).value().clone()
    }

    /// The product and the bias in f64, with rows quantized as the definition says.
    fn twin(&self) -> Vec<f64> {
        let rows: Vec<(Vec<f32>, f32)> = (0..self.tokens).map(|t| quantize(self.row(t))).collect();
        let features: Vec<(Vec<f32>, f32)> = (0..self.outer).map(|o| quantize(self.weights(o))).collect();
        let all = rows.iter().flat_map(|(x, x_scale)| {
            features.iter().zip(&self.bias).map(move |((w, w_scale), bias)| {
                let sum: f64 = x.iter().zip(w).map(|(x, w)| f64::from(*x) * f64::from(*w)).sum();
                sum * f64::from(*x_scale) * f64::from(*w_scale) + f64::from(*bias)
            })
        });
        all.collect()
    }

    /// The same in f32, in the order of operations of the definition.
    fn twin_f32(&self) -> Vec<f32> {
        let rows: Vec<(Vec<f32>, f32)> = (0..self.tokens).map(|t| quantize(self.row(t))).collect();
        let features: Vec<(Vec<f32>, f32)> = (0..self.outer).map(|o| quantize(self.weights(o))).collect();
        let all = rows.iter().flat_map(|(x, x_scale)| {
            features.iter().zip(&self.bias).map(move |((w, w_scale), bias)| {
                let sum: i32 = x.iter().zip(w).map(|(x, w)| *x as i32 * *w as i32).sum();
                sum as f32 * (x_scale * w_scale) + bias
            })
        });
        all.collect()
    }
}

/// The integers of a row and its scale.
fn quantize(row: &[f32]) -> (Vec<f32>, f32) {
    let largest = row.iter().fold(0f32, |largest, x| if x.is_nan() { *x } else { largest.max(x.abs()) });
    match largest {
        0.0 => (vec![0.0; row.len()], 0.0),
        largest if !largest.is_finite() || row.iter().any(|x| x.is_nan()) => (vec![0.0; row.len()], f32::NAN),
        largest => (row.iter().map(|x| (x * (127.0 / largest)).round_ties_even()).collect(), largest / 127.0),
    }
}

fn assert_equal_bits(found: &[f32], expected: &[f32], what: &str) {
    assert_eq!(found.len(), expected.len(), "{what}");
    for (i, (found, expected)) in found.iter().zip(expected).enumerate() {
        let equal = found.to_bits() == expected.to_bits() || found.is_nan() && expected.is_nan();
        assert!(equal, "{what}: output {i} is {found}, expected {expected}");
    }
}

/// All instruction sets, with one and two threads, give the bits of the plain code.
#[test]
fn int8_products_equal_their_definition_at_every_level() {
    for size in SIZES {
        let case = Case::new(size);
        let expected = case.twin_f32();
        let positive: Vec<f32> = expected.iter().map(|x| x.max(0.0)).collect();
        let rounded: Vec<f32> = expected.iter().map(|x| half::bf16::from_f32(*x).to_f32()).collect();
        for device in Device::all_for_tests() {
            let what = format!("{size:?}, {}", device.describe());
            let found = |dtype, activation| case.run(&device, dtype, activation).to_vec_f32();
            assert_equal_bits(&found(DType::F32, Activation::None), &expected, &what);
            assert_equal_bits(&found(DType::F32, Activation::Relu), &positive, &what);
            assert_equal_bits(&found(DType::BF16, Activation::None), &rounded, &what);
        }
    }
}

/// With an activation, the results equal those of the f64 twin to rounding.
#[test]
fn int8_products_with_activations_match_f64() {
    let case = Case::new((33, 130, 65));
    for (activation, f) in [
        (Activation::Gelu, (|u| u * 0.5 * (1.0 + erf(u / 2f64.sqrt()))) as fn(f64) -> f64),
        (Activation::Tanh, f64::tanh),
        (Activation::Silu, |u| u / (1.0 + (-u).exp())),
    ] {
        let expected: Vec<f64> = case.twin().into_iter().map(f).collect();
        for device in Device::all_for_tests() {
            for (dtype, rounding) in [(DType::F32, 2f64.powi(-20)), (DType::BF16, 2f64.powi(-8))] {
                let found = case.run(&device, dtype, activation).to_vec_f32();
                for (i, (found, expected)) in found.iter().zip(&expected).enumerate() {
                    let error = (f64::from(*found) - expected).abs();
                    assert!(
                        error <= rounding * (1.0 + expected.abs()),
                        "{activation:?}, {}, {}: output {i} is {found}, expected {expected}",
                        device.describe(),
                        dtype.name()
                    );
                }
            }
        }
    }
}

/// An element differs from its int8 by at most half a scale, so a product of x and w by at most |x| s_w/2 + |w| s_x/2 + s_x
/// s_w/4; and on average by far less than that.
#[test]
fn the_error_of_quantization_is_bounded() {
    for size in SIZES {
        let case = Case::new(size);
        let found = case.run(&Device::cpu(Some(1)).unwrap(), DType::F32, Activation::None).to_vec_f32();
        let (mut errors, mut squares) = (0.0, 0.0);
        for (i, found) in found.iter().enumerate() {
            let (x, w) = (case.row(i / case.outer), case.weights(i % case.outer));
            let half = |row: &[f32]| row.iter().fold(0f64, |m, x| m.max(f64::from(x.abs()))) / 254.0;
            let (half_x, half_w) = (half(x), half(w));
            let (mut exact, mut bound) = (f64::from(case.bias[i % case.outer]), 0.0);
            for (x, w) in x.iter().zip(w).map(|(x, w)| (f64::from(*x), f64::from(*w))) {
                exact += x * w;
                bound += x.abs() * half_w + w.abs() * half_x + half_x * half_w;
            }
            let error = (f64::from(*found) - exact).abs();
            assert!(
                error <= bound * 1.001 + 1e-6 * exact.abs(),
                "{size:?}: output {i} is {found}, exactly {exact}; {bound}"
            );
            errors += error * error;
            squares += exact * exact;
        }
        assert!(errors.sqrt() <= 0.02 * squares.sqrt(), "{size:?}: {} of {}", errors.sqrt(), squares.sqrt());
    }
}

/// Rows of zeros give the bias; one huge number in a row costs the row its other numbers, but no other row; a number that
/// is not finite makes all outputs of its row NaN, in x and in the weight.
#[test]
fn special_rows_affect_only_their_own_outputs() {
    let mut case = Case::new((6, 70, 20));
    let inner = case.inner;
    case.x[..inner].fill(0.0);
    case.x[inner + 3] = 1e30;
    case.x[2 * inner + 69] = f32::NAN;
    case.x[3 * inner] = f32::INFINITY;
    case.x[4 * inner..5 * inner].fill(1e-40);
    for (feature, value) in [(17, f32::NAN), (18, f32::NEG_INFINITY)] {
        case.weight[feature * inner + 12] = value;
    }
    case.weight[19 * inner..].fill(0.0);
    let plain = Case::new((6, 70, 20)).twin_f32();
    for device in Device::all_for_tests() {
        for dtype in [DType::F32, DType::BF16] {
            let found = case.run(&device, dtype, Activation::None).to_vec_f32();
            for (i, found) in found.iter().enumerate() {
                let (token, feature) = (i / case.outer, i % case.outer);
                let (bias, context) = (case.bias[feature], format!("{} {}: {i}", device.describe(), dtype.name()));
                match (token, feature) {
                    (2 | 3, _) | (_, 17 | 18) => assert!(found.is_nan(), "{context}: {found}"),
                    (0 | 4, _) | (_, 19) => assert_eq!(*found, bias, "{context}"),
                    // Only the huge number is left of its row.
                    (1, _) => {
                        let (w, scale) = quantize(case.weights(feature));
                        let expected = 127.0 * w[3] * (1e30 / 127.0 * scale) + bias;
                        assert!((found - expected).abs() <= 0.01 * expected.abs(), "{context}: {found}, {expected}");
                    }
                    _ => assert!((found - plain[i]).abs() <= 2f32.powi(-8) * (1.0 + plain[i].abs()), "{context}"),
                }
            }
        }
    }
}

/// Recording passes multiply in f32; weights that are written are quantized again.
#[test]
fn only_inference_is_quantized_and_writes_are_seen() {
    let mut case = Case::new((9, 40, 30));
    let device = Device::cpu(Some(2)).unwrap();
    let (mut params, weight, bias) = case.parameters(&device, true);
    let infer = |params: &Parameters| {
        let mut pass = Pass::inference(&device, params, DType::F32);
        let x = case.input(&mut pass, &device, DType::F32);
        linear(&mut pass, &x, weight, Some(bias), Activation::None).value().to_vec_f32()
    };
    assert_equal_bits(&infer(&params), &case.twin_f32(), "before");
    let record = |params: &Parameters| {
        let mut gradients = crate::Gradients::zeros_like(params);
        let mut pass = Pass::recording(&device, params, &mut gradients, DType::F32, None);
        let x = case.input(&mut pass, &device, DType::F32);
        linear(&mut pass, &x, weight, Some(bias), Activation::None).value().to_vec_f32()
    };
    let (plain, ..) = case.parameters(&device, false);
    assert_equal_bits(&record(&params), &record(&plain), "recording");
    assert_equal_bits(&infer(&plain), &record(&plain), "without quantization");
    assert_ne!(infer(&params), record(&params));
    let doubled: Vec<f32> = case.weight.iter().map(|w| w * 2.0).collect();
    params.write(weight, &doubled);
    let found = infer(&params);
    case.weight = doubled;
    assert_equal_bits(&found, &case.twin_f32(), "after");
}

#[test]
#[should_panic(expected = "bias: only matrices are quantized")]
fn a_bias_is_not_quantized() {
    let device = Device::cpu(Some(1)).unwrap();
    let (mut params, _, bias) = Case::new((1, 2, 3)).parameters(&device, false);
    params.quantize_weights(&[bias]);
}
