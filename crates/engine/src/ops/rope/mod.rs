//! Rotary position embeddings (Su et al. 2021, section 3.2.2, in the layout of Transformers' `rotate_half`): in each head,
//! the numbers i and i + D/2 of queries and keys are a pair, which is rotated by position · θ^(−2i/D):
//!
//! y\[i\] = x\[i\] cos − x\[i + D/2\] sin, y\[i + D/2\] = x\[i + D/2\] cos + x\[i\] sin.
//!
//! Backward: the rotation by the opposite angle.

#[allow(unsafe_code)]
mod cpu;
#[allow(unsafe_code)]
mod cuda;

use crate::profile::Cost;
use crate::{Device, Pass, Tensor, Var};

/// The cosines and sines of all positions.
#[derive(Clone, Debug)]
pub struct Rotation {
    /// [P, D]: D/2 cosines, then D/2 sines.
    pub(crate) table: Tensor,
}

impl Rotation {
    /// The rotations of positions 0 to `positions` − 1 in heads of `width`, which is even, with base `theta`.
    pub fn new(device: &Device, positions: usize, width: usize, theta: f64) -> Rotation {
        assert!(width.is_multiple_of(2), "rope: a head of odd width {width}");
        let half = width / 2;
        let row = |position: usize| {
            let angle = move |i: usize| angle(position, i, width, theta);
            (0..width).map(move |i| if i < half { angle(i).cos() } else { angle(i - half).sin() })
        };
        let table: Vec<f32> = (0..positions).flat_map(row).collect();
        Rotation { table: device.tensor_f32(&table, &[positions, width]) }
    }

    /// θ^(−2i/D), the angle of pair `i` from one position to the next in heads of `width` D, rounded to f32 at the same
    /// places as in Transformers: at position 8,192 a rounding is visible.
    pub fn frequency(i: usize, width: usize, theta: f64) -> f32 {
        let exponent = (2 * i) as f32 / width as f32;
        1.0 / (theta.powf(f64::from(exponent)) as f32)
    }
}

/// position · θ^(−2i/D).
fn angle(position: usize, i: usize, width: usize, theta: f64) -> f32 {
    position as f32 * Rotation::frequency(i, width, theta)
}

/// The inputs of both directions.
pub(crate) struct RopeInputs {
    pub(crate) positions: Tensor,
    pub(crate) rotation: Rotation,
    pub(crate) heads: usize,
}

/// The kernel of both directions.
pub(crate) trait Rope {
    /// Rotates queries and keys of x [T, 3H], backwards if `inverse`; the values are copied.
    fn rope(&self, x: &Tensor, inputs: &RopeInputs, inverse: bool) -> Tensor;
}

/// Rotates the queries and keys of `qkv` [T, 3H], which contains queries, keys and values side by side, by their
/// positions \[T\]. Returns [T, 3H]. Panics on a position outside the rotations.
pub fn rope(pass: &mut Pass<'_>, qkv: &Var, positions: &Tensor, rotation: &Rotation, heads: usize) -> Var {
    let inputs = RopeInputs { positions: positions.clone(), rotation: rotation.clone(), heads };
    let value = pass.device().backend().rope(qkv.value(), &inputs, false);
    let cost = Cost::new(0, 2 * value.bytes());
    pass.costs(cost, cost);
    let qkv_slot = qkv.slot();
    pass.record("rope", value, |slot| {
        Box::new(move |backward| {
            let Some(dy) = backward.finish(slot) else { return };
            let dx = backward.device.backend().rope(&dy, &inputs, true);
            backward.add(qkv_slot, dx);
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::check::check_op;

    #[test]
    fn angles_follow_the_equation() {
        for (position, i, width, theta) in
            [(0, 3, 64, 1e4), (49, 0, 2, 1e4), (8191, 5, 64, 1.6e5), (100, 31, 64, 1e4f64)]
        {
            let expected = position as f64 * theta.powf(-2.0 * i as f64 / width as f64);
            let found = f64::from(angle(position, i, width, theta));
            assert!((found - expected).abs() <= 3e-7 * expected, "{found} {expected}");
        }
    }

    #[test]
    fn rope_matches_its_oracle() {
        for (tokens, heads, width, theta) in
            [(1, 1, 2, 10_000.0), (40, 2, 6, 160_000.0), (70, 3, 64, 10_000.0), (9, 5, 64, 10_000.0)]
        {
            let positions: Vec<i32> = (0..tokens as i32).map(|t| t * 7 % 50).collect();
            let hidden = heads * width;
            check_op(
                "rope",
                &[&[tokens, 3 * hidden]],
                &[],
                |pass, x, _| {
                    let device = pass.device().clone();
                    let at = device.tensor_i32(&positions, &[tokens]);
                    rope(pass, &x[0], &at, &Rotation::new(&device, 50, width, theta), heads)
                },
                |x, _| {
                    let mut y = x[0].clone();
                    for (t, row) in y.chunks_mut(3 * hidden).enumerate() {
                        for head in row[..2 * hidden].chunks_mut(width) {
                            for i in 0..width / 2 {
                                let (sin, cos) = f64::from(angle(positions[t] as usize, i, width, theta)).sin_cos();
                                let (a, b) = (head[i], head[i + width / 2]);
                                (head[i], head[i + width / 2]) = (a * cos - b * sin, b * cos + a * sin);
                            }
                        }
                    }
                    y
                },
            );
        }
    }
}
