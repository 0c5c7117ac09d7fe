//! How well predicted numbers follow gold ones: STS-B's two scores.
//!
//! Reference: `scipy.stats.pearsonr` and `spearmanr`.

use super::assert_paired;

/// Pearson's correlation coefficient, from −1 to 1.
///
/// None where it is undefined: fewer than two pairs, `x` or `y` constant (scipy gives nan there), or a number that is not
/// finite.
///
/// # Panics
/// If the slices' lengths differ.
pub fn pearson(x: &[f64], y: &[f64]) -> Option<f64> {
    assert_paired(x.len(), y.len());
    let (x, y) = (centred(x)?, centred(y)?);
    let dot = |a: &[f64], b: &[f64]| a.iter().zip(b).map(|(a, b)| a * b).sum::<f64>();
    let r = dot(&x, &y) / (dot(&x, &x).sqrt() * dot(&y, &y).sqrt());
    // Rounding can carry it past the ends.
    r.is_finite().then(|| r.clamp(-1.0, 1.0))
}

/// Spearman's rank correlation coefficient, from −1 to 1: Pearson's of the ranks, where equal numbers share the average of
/// the ranks that they take up.
///
/// None where it is undefined: fewer than two pairs, `x` or `y` constant (scipy gives nan there), or a number that is not
/// finite.
///
/// # Panics
/// If the slices' lengths differ.
pub fn spearman(x: &[f64], y: &[f64]) -> Option<f64> {
    assert_paired(x.len(), y.len());
    pearson(&ranks(x)?, &ranks(y)?)
}

/// The distances from the mean, in units of the largest, so that their squares neither overflow nor vanish. None for
/// constant numbers: rounding of the mean would leave a distance that means nothing.
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
    // Adding 0 makes of −0 a 0, with which it ties.
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
    fn equal_to_scipy() {
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
    fn undefined_is_none() {
        for (x, y) in [(&[][..], &[][..]), (&[1.0], &[2.0]), (&[1.0, 2.0], &[f64::NAN, 1.0])] {
            assert_eq!((pearson(x, y), spearman(x, y)), (None, None));
        }
        assert_eq!(pearson(&[1.0, f64::INFINITY], &[1.0, 2.0]), None);
        // A sum that overflows.
        assert_eq!(pearson(&[f64::MAX, f64::MAX, 0.0], &[1.0, 2.0, 3.0]), None);
    }

    #[test]
    fn ties_share_their_ranks() {
        assert_eq!(ranks(&[3.0, 1.0, 3.0, 3.0, -0.0, 0.0]), Some(vec![5.0, 3.0, 5.0, 5.0, 1.5, 1.5]));
    }
}
