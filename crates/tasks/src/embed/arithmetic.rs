//! Dot products and normalization of vectors.

/// The lower bound of the divisor, as in PyTorch's `normalize`.
const MIN_NORM: f64 = 1e-12;

/// The dot product, in sixteen partial sums, which fit into a vector register.
pub(super) fn dot(a: &[f32], b: &[f32]) -> f32 {
    sum_of_pairs(a, b, |a, b| a * b)
}

/// The sum of a function of pairs, in sixteen partial sums.
pub(super) fn sum_of_pairs(a: &[f32], b: &[f32], of: impl Fn(f32, f32) -> f32) -> f32 {
    const LANES: usize = 16;
    let mut sums = [0f32; LANES];
    let ((a, a_rest), (b, b_rest)) = (a.as_chunks::<LANES>(), b.as_chunks::<LANES>());
    for (a, b) in a.iter().zip(b) {
        for lane in 0..LANES {
            sums[lane] += of(a[lane], b[lane]);
        }
    }
    sums.iter().sum::<f32>() + a_rest.iter().zip(b_rest).map(|(a, b)| of(*a, *b)).sum::<f32>()
}

/// Divides a vector by its Euclidean norm; zero vectors stay zero.
pub(crate) fn normalize(vector: &mut [f32]) {
    let length = vector.iter().map(|&x| f64::from(x) * f64::from(x)).sum::<f64>().sqrt().max(MIN_NORM);
    vector.iter_mut().for_each(|x| *x = (f64::from(*x) / length) as f32);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sums_of_any_width_are_correct() {
        for width in [1, 15, 16, 17, 384, 385] {
            let a: Vec<f32> = (0..width).map(|i| ((i * 37 % 101) as f32 - 50.0) / 50.0).collect();
            let b: Vec<f32> = (0..width).map(|i| ((i * 53 % 97) as f32 - 48.0) / 48.0).collect();
            let expected: f64 = a.iter().zip(&b).map(|(a, b)| f64::from(*a) * f64::from(*b)).sum();
            assert!((f64::from(dot(&a, &b)) - expected).abs() < 1e-4, "{width}");
        }
    }
}
