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

/// One over the Euclidean norm, with which the vector is divided by its norm; NaN for numbers that are not finite.
pub(super) fn inverse_norm(vector: &[f32]) -> f32 {
    const LANES: usize = 8;
    let mut sums = [0f64; LANES];
    let (chunks, rest) = vector.as_chunks::<LANES>();
    for chunk in chunks {
        for lane in 0..LANES {
            sums[lane] += f64::from(chunk[lane]) * f64::from(chunk[lane]);
        }
    }
    let length = (sums.iter().sum::<f64>() + rest.iter().map(|&x| f64::from(x) * f64::from(x)).sum::<f64>()).sqrt();
    if length.is_finite() { (1.0 / length.max(MIN_NORM)) as f32 } else { f32::NAN }
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
    fn inverse_norms_match_normalized_vectors() {
        for width in [1, 7, 8, 100] {
            let vector: Vec<f32> = (0..width).map(|i| (i * 37 % 101) as f32 - 40.0).collect();
            let mut unit = vector.clone();
            normalize(&mut unit);
            let scale = inverse_norm(&vector);
            assert!(vector.iter().zip(unit).all(|(x, unit)| (x * scale - unit).abs() < 1e-6), "{width}");
        }
        assert_eq!(inverse_norm(&[0.0; 3]) * 0.0, 0.0);
        assert!([f32::NAN, f32::INFINITY].iter().all(|bad| inverse_norm(&[1.0, *bad]).is_nan()));
    }

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
