//! Confidence intervals of scores by the percentile bootstrap: the uncertainty because the examples are a sample.
//!
//! Efron and Tibshirani, "An Introduction to the Bootstrap" (1993), chapter 13. All n examples are resampled n times
//! with replacement, many times. The ends of the interval are quantiles of the statistic over the resamples (with
//! linear interpolation, as in `scipy.stats.bootstrap(method="percentile")`).

use cloze_data::{Purpose, Random};
use serde::Serialize;

/// The random stream of the resamples.
const RESAMPLES: Purpose = Purpose::Other(5);

/// A confidence interval of a statistic.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Interval {
    /// The lower end.
    pub low: f64,
    /// The upper end.
    pub high: f64,
    /// The confidence level, from 0 to 1.
    pub level: f64,
    /// The number of resamples whose statistic was defined, from which the interval is computed.
    pub resamples: usize,
    /// The number of resamples whose statistic was undefined, such as a correlation of constant numbers. If there are
    /// many, the interval is not reliable.
    pub undefined: usize,
}

/// The confidence interval of any statistic of `n` examples. `statistic` receives the indices of one resample: `n`
/// indices with repetitions. It returns none if it is undefined; values that are not finite also count as undefined.
///
/// The result is deterministic: resample i depends only on the seed and on i.
///
/// None if there are no examples, no resamples, if the level is not between 0 and 1, or if the statistic of all
/// resamples is undefined.
pub fn bootstrap(
    n: usize,
    resamples: usize,
    level: f64,
    seed: u64,
    mut statistic: impl FnMut(&[usize]) -> Option<f64>,
) -> Option<Interval> {
    bootstrap_all(n, resamples, level, seed, |indices| vec![statistic(indices)]).pop().flatten()
}

/// As [`bootstrap`], for several statistics that are computed together. Returns an interval for each, in order.
pub fn bootstrap_all(
    n: usize,
    resamples: usize,
    level: f64,
    seed: u64,
    mut statistics: impl FnMut(&[usize]) -> Vec<Option<f64>>,
) -> Vec<Option<Interval>> {
    if n == 0 || !(level > 0.0 && level < 1.0) {
        return Vec::new();
    }
    let mut indices = vec![0; n];
    let mut values: Vec<Vec<f64>> = Vec::new();
    for resample in 0..resamples {
        let mut random = Random::keyed(seed, RESAMPLES, &[resample as u64]);
        indices.fill_with(|| random.below(n));
        let found = statistics(&indices);
        values.resize(values.len().max(found.len()), Vec::new());
        for (values, found) in values.iter_mut().zip(found) {
            values.extend(found.filter(|v| v.is_finite()));
        }
    }
    values.into_iter().map(|values| interval(values, resamples, level)).collect()
}

/// The interval between the tails of the values of a statistic.
fn interval(mut values: Vec<f64>, resamples: usize, level: f64) -> Option<Interval> {
    values.sort_by(f64::total_cmp);
    let tail = (1.0 - level) / 2.0;
    Some(Interval {
        low: quantile(&values, tail)?,
        high: quantile(&values, 1.0 - tail)?,
        level,
        resamples: values.len(),
        undefined: resamples - values.len(),
    })
}

/// A quantile of sorted values, with linear interpolation between the two nearest; none if there are no values.
fn quantile(sorted: &[f64], share: f64) -> Option<f64> {
    let place = share * sorted.len().checked_sub(1)? as f64;
    let below = *sorted.get(place.floor() as usize)?;
    let above = *sorted.get(place.ceil() as usize)?;
    Some(below + (above - below) * place.fract())
}

#[cfg(test)]
mod tests {
    use serde::Deserialize;

    use super::super::correlation::pearson;
    use super::super::fixtures::{assert_close, read};
    use super::*;

    #[derive(Deserialize)]
    struct Fixture {
        right: Vec<f64>,
        share: (f64, f64),
        x: Vec<f64>,
        y: Vec<f64>,
        pearson: (f64, f64),
    }

    fn mean_of(values: &[f64]) -> impl Fn(&[usize]) -> Option<f64> {
        |indices| Some(indices.iter().map(|&i| values[i]).sum::<f64>() / indices.len() as f64)
    }

    #[test]
    fn agrees_with_scipy_within_the_error_of_sampling() {
        let fixture: Fixture = read("bootstrap");
        let share = bootstrap(fixture.right.len(), 20_000, 0.95, 1, mean_of(&fixture.right)).unwrap();
        // A step of this statistic is 1/200.
        assert_close(share.low, fixture.share.0, 0.0051, "share, low");
        assert_close(share.high, fixture.share.1, 0.0051, "share, high");
        let paired = bootstrap(fixture.x.len(), 20_000, 0.9, 2, |indices| {
            let pick = |of: &[f64]| indices.iter().map(|&i| of[i]).collect::<Vec<_>>();
            pearson(&pick(&fixture.x), &pick(&fixture.y))
        })
        .unwrap();
        let width = fixture.pearson.1 - fixture.pearson.0;
        assert_close(paired.low, fixture.pearson.0, 0.02 * width, "Pearson, low");
        assert_close(paired.high, fixture.pearson.1, 0.02 * width, "Pearson, high");
        assert_eq!((paired.resamples, paired.undefined), (20_000, 0));
    }

    #[test]
    fn covers_the_true_value_as_often_as_the_level_says() {
        // The fraction of heads in 100 tosses of a coin with probability 0.3.
        let (trials, mut covered) = (600, 0);
        for trial in 0..trials {
            let mut random = Random::keyed(77, Purpose::Examples, &[trial]);
            let tosses: Vec<f64> = (0..100).map(|_| f64::from(random.below(10) < 3)).collect();
            let found = bootstrap(100, 400, 0.9, trial, mean_of(&tosses)).unwrap();
            covered += u64::from(found.low <= 0.3 && 0.3 <= found.high);
        }
        // The standard deviation over 600 trials is 0.012; discreteness and n = 100 add about the same.
        let share = covered as f64 / trials as f64;
        assert!((0.86..=0.94).contains(&share), "{share}");
    }

    #[test]
    fn intervals_are_deterministic_and_depend_on_the_seed() {
        let values: Vec<f64> = (0..50).map(|i| f64::from(i).sin()).collect();
        let draw = |seed| bootstrap(50, 200, 0.95, seed, mean_of(&values)).unwrap();
        assert_eq!(draw(3), draw(3));
        assert_ne!(draw(3), draw(4));
        // These indices are the same on every machine.
        let mut first = Vec::new();
        bootstrap(10, 2, 0.5, 3, |indices| {
            first.push(indices.to_vec());
            Some(0.0)
        });
        assert_eq!(first, [[3, 3, 6, 4, 2, 8, 0, 9, 3, 5], [9, 9, 3, 9, 2, 0, 4, 9, 6, 8]]);
    }

    #[test]
    fn all_examples_are_equally_likely() {
        let mut counts = [0u32; 7];
        bootstrap(7, 10_000, 0.5, 5, |indices| {
            indices.iter().for_each(|&i| counts[i] += 1);
            Some(0.0)
        });
        // The expected count is 10,000, with standard deviation 93; five standard deviations are allowed.
        assert!(counts.iter().all(|c| c.abs_diff(10_000) < 465), "{counts:?}");
    }

    #[test]
    fn quantiles_are_interpolated() {
        let mut next = 0.0;
        let found = bootstrap(1, 101, 0.9, 0, |_| {
            next += 1.0;
            Some(101.0 - next)
        })
        .unwrap();
        assert_close(found.low, 5.0, 1e-12, "low");
        assert_close(found.high, 95.0, 1e-12, "high");
        assert_eq!(quantile(&[1.0, 2.0], 0.25), Some(1.25));
        assert_eq!(quantile(&[4.0], 0.9), Some(4.0));
    }

    #[test]
    fn undefined_statistics_are_counted() {
        let mut turn = 0;
        let found = bootstrap(2, 9, 0.5, 0, |_| {
            turn += 1;
            match turn % 3 {
                0 => None,
                1 => Some(f64::NAN),
                _ => Some(1.0),
            }
        });
        assert_eq!(found, Some(Interval { low: 1.0, high: 1.0, level: 0.5, resamples: 3, undefined: 6 }));
        assert_eq!(bootstrap(2, 9, 0.5, 0, |_| None), None);
        for (n, resamples, level) in [(0, 9, 0.5), (2, 0, 0.5), (2, 9, 0.0), (2, 9, 1.0), (2, 9, f64::NAN)] {
            assert_eq!(bootstrap(n, resamples, level, 0, |_| Some(1.0)), None);
        }
    }
}
