//! One sample from the distribution of each row of logits: P(c) = exp z\[c\] / Σ exp z (`torch.multinomial` of the
//! softmax). It has no gradient. For the generator of replaced-token detection (Clark et al. 2020, section 2).
//!
//! The sample of row r is the first class at which the cumulative sum of exp(z − max z) exceeds u·Σ exp(z − max z), where
//! u in [0, 1) is a pure function of the key and r.

#[allow(unsafe_code)]
mod cpu;
#[allow(unsafe_code)]
mod cuda;

use crate::random::DropoutKey;
use crate::{Device, Tensor};

/// Set in the number of a dropout of a pass, so that samples never use its random numbers.
const SITE: u32 = 1 << 31;

/// Samples classes.
pub(crate) trait Multinomial {
    /// logits [R, C] and a number in [0, 1) for each row → \[R\] classes.
    fn multinomial(&self, logits: &Tensor, uniform: &[f64]) -> Vec<i32>;
}

/// A class of 0..C for each row of `logits` [R, C], sampled with the probabilities of its softmax.
pub fn multinomial(device: &Device, logits: &Tensor, key: DropoutKey) -> Vec<i32> {
    let key = key.site(SITE);
    let rows = logits.shape()[0] as u32;
    // 48 random bits.
    let bits = |row: u32| u64::from(key.word(2 * row)) << 16 | u64::from(key.word(2 * row + 1) >> 16);
    let uniform: Vec<f64> = (0..rows).map(|row| bits(row) as f64 / (1u64 << 48) as f64).collect();
    device.backend().multinomial(logits, &uniform)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::DType;
    use crate::ops::check::devices;

    /// Every class that an exact computation could return; two if the number is within rounding errors of a boundary.
    fn expected(z: &[f64], u: f64) -> Vec<i32> {
        let max = z.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        let sums: Vec<f64> = z
            .iter()
            .scan(0.0, |sum, z| {
                *sum += (z - max).exp();
                Some(*sum)
            })
            .collect();
        let total = sums.last().copied().unwrap_or_default();
        let class = |u: f64| sums.iter().position(|sum| *sum > u * total).unwrap_or(z.len() - 1) as i32;
        vec![class((u - 1e-5).max(0.0)), class(u), class(u + 1e-5)]
    }

    #[test]
    fn samples_are_those_of_the_inverse_cumulative_distribution() {
        for device in devices() {
            for (rows, classes) in [(1, 1), (5, 3), (9, 16), (33, 700), (3, 1024), (2, 5003)] {
                let z: Vec<f32> = (0..rows * classes).map(|i| ((i * 7919) % 1009) as f32 * 0.02 - 10.0).collect();
                let uniform: Vec<f64> = (0..rows).map(|row| (row as f64 * 0.618) % 1.0).collect();
                let logits = device.tensor_f32(&z, &[rows, classes]);
                let found = device.backend().multinomial(&logits, &uniform);
                for (row, (z, u)) in z.chunks(classes).zip(&uniform).enumerate() {
                    let z: Vec<f64> = z.iter().map(|z| f64::from(*z)).collect();
                    assert!(expected(&z, *u).contains(&found[row]), "row {row} of {rows} x {classes}: {}", found[row]);
                }
            }
        }
    }

    /// The largest number below 1 must not select a class without probability, even if the sums round.
    #[test]
    fn impossible_classes_are_never_sampled() {
        for device in devices() {
            for (classes, second) in [(40, 7), (1100, 600)] {
                let mut z = vec![f32::MIN; classes];
                (z[3], z[second]) = (5.0, 5.0);
                let logits = device.tensor_f32(&z, &[1, classes]);
                let logits = device.backend().cast(&logits, DType::BF16);
                let second = second as i32;
                // 1 stands for a number that reaches the sum by rounding.
                let cases = [(0.0, 3), (0.49, 3), (0.51, second), (1.0 - f64::EPSILON, second), (1.0, second)];
                for (u, expected) in cases {
                    assert_eq!(device.backend().multinomial(&logits, &[u]), [expected], "{}", device.describe());
                }
            }
        }
    }

    #[test]
    fn frequencies_are_those_of_the_softmax_and_depend_on_the_key() {
        let device = Device::cpu(Some(1)).expect("a CPU device");
        let rows = 20_000;
        let logits = device.tensor_f32(&[0.0, 1.0, 2.0].repeat(rows), &[rows, 3]);
        let sample = |step: u64| multinomial(&device, &logits, DropoutKey { seed: 1, step, micro: 0 });
        let samples = sample(1);
        let share = |class: i32| samples.iter().filter(|found| **found == class).count() as f64 / rows as f64;
        for (class, expected) in [(0, 0.0900), (1, 0.2447), (2, 0.6652)] {
            assert!((share(class) - expected).abs() < 0.01, "class {class}: {}", share(class));
        }
        assert_eq!(samples, sample(1));
        assert_ne!(samples, sample(2));
    }
}
