//! Correlations of predicted and gold numbers: the two metrics of STS-B.
//!
//! Reference: `scipy.stats.pearsonr` and `spearmanr`.

use super::assert_paired;

/// Pearson's correlation coefficient, from −1 to 1.
///
/// None if it is undefined: fewer than two pairs, a constant `x` or `y` (scipy returns nan), or a number that is not
/// finite.
///
/// # Panics
/// If the slices' lengths differ.
pub fn pearson(x: &[f64], y: &[f64]) -> Option<f64> {
    assert_paired(x.len(), y.len());
    let (x, y) = (centred(x)?, centred(y)?);
    let dot = |a: &[f64], b: &[f64]| a.iter().zip(b).map(|(a, b)| a * b).sum::<f64>();
    let r = dot(&x, &y) / (dot(&x, &x).sqrt() * dot(&y, &y).sqrt());
    // Rounding may move it outside of the range.
    r.is_finite().then(|| r.clamp(-1.0, 1.0))
}

/// Spearman's rank correlation coefficient, from −1 to 1: Pearson's coefficient of the ranks. Equal numbers have the
/// mean of their ranks.
///
/// None if it is undefined: fewer than two pairs, a constant `x` or `y` (scipy returns nan), or a number that is not
/// finite.
///
/// # Panics
/// If the slices' lengths differ.
pub fn spearman(x: &[f64], y: &[f64]) -> Option<f64> {
    assert_paired(x.len(), y.len());
    pearson(&ranks(x)?, &ranks(y)?)
}

/// The differences from the mean, divided by the largest, so that their squares neither overflow nor underflow. None
/// for constant numbers, for which the rounding error of the mean would remain.
fn centred(values: &[f64]) -> Option<Vec<f64>> {
    let (first, rest) = values.split_first()?;
    if values.iter().any(|v| !v.is_finite()) || rest.iter().all(|v| v == first) {
        return None;
    }
    let mean = values.iter().sum::<f64>() / values.len() as f64;
    let largest = values.iter().map(|v| (v - mean).abs()).fold(0.0, f64::max);
    (largest > 0.0).then(|| values.iter().map(|v| (v - mean) / largest).collect())
}

/// Ranks from 1, averaged over ties. None if a number is not finite.
fn ranks(values: &[f64]) -> Option<Vec<f64>> {
    if values.iter().any(|v| !v.is_finite()) {
        return None;
    }
    let mut order: Vec<usize> = (0..values.len()).collect();
    // Adding 0 converts −0 to 0, so that they are ties.
    order.sort_by(|&a, &b| (values[a] + 0.0).total_cmp(&(values[b] + 0.0)));
    let mut ranks = vec![0.0; values.len()];
    let mut before = 0;
    for tie in order.chunk_by(|&a, &b| values[a] == values[b]) {
        let after = before + tie.len();
        for &i in tie {
            ranks[i] = (before + 1 + after) as f64 / 2.0;
        }
        before = after;
    }
    Some(ranks)
}

#[cfg(test)]
mod tests {
    use serde::Deserialize;

    use super::super::fixtures::{assert_close, read};
    use super::*;

    #[derive(Deserialize)]
    struct Case {
        name: String,
        x: Vec<f64>,
        y: Vec<f64>,
        pearson: Option<f64>,
        spearman: Option<f64>,
    }

    #[test]
    fn correlations_equal_scipy() {
        let cases: Vec<Case> = read("correlation");
        assert!(cases.iter().filter(|c| c.pearson.is_none()).count() >= 3 && cases.len() > 12);
        for Case { name, x, y, pearson: p, spearman: s } in cases {
            for (found, expected) in [(pearson(&x, &y), p), (spearman(&x, &y), s)] {
                assert_eq!(found.is_some(), expected.is_some(), "{name}: {found:?}, expected {expected:?}");
                assert_close(found.unwrap_or(0.0), expected.unwrap_or(0.0), 1e-11, &name);
            }
        }
    }

    #[test]
    fn undefined_correlations_are_none() {
        for (x, y) in [(&[][..], &[][..]), (&[1.0], &[2.0]), (&[1.0, 2.0], &[f64::NAN, 1.0])] {
            assert_eq!((pearson(x, y), spearman(x, y)), (None, None));
        }
        assert_eq!(pearson(&[1.0, f64::INFINITY], &[1.0, 2.0]), None);
        // A sum that overflows.
        assert_eq!(pearson(&[f64::MAX, f64::MAX, 0.0], &[1.0, 2.0, 3.0]), None);
    }

    #[test]
    fn ties_have_their_mean_rank() {
        assert_eq!(ranks(&[3.0, 1.0, 3.0, 3.0, -0.0, 0.0]), Some(vec![5.0, 3.0, 5.0, 5.0, 1.5, 1.5]));
    }
}
