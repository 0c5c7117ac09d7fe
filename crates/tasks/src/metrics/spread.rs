//! One score of several seeds.

use serde::Serialize;

/// Mean and spread of a score over runs that differ in their seed only.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Spread {
    /// The mean.
    pub mean: f64,
    /// The sample standard deviation (over n − 1, as n seeds stand for all); none of one run.
    pub deviation: Option<f64>,
    /// How many runs.
    pub runs: usize,
}

/// Mean and sample standard deviation of the runs' scores; none of no runs.
pub fn spread(scores: &[f64]) -> Option<Spread> {
    if scores.is_empty() {
        return None;
    }
    let runs = scores.len();
    let mean = scores.iter().sum::<f64>() / runs as f64;
    let squares: f64 = scores.iter().map(|s| (s - mean).powi(2)).sum();
    let deviation = (runs > 1).then(|| (squares / (runs - 1) as f64).sqrt());
    Some(Spread { mean, deviation, runs })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn divides_by_one_less_than_the_runs() {
        let found = spread(&[2.0, 4.0, 4.0, 4.0, 5.0, 5.0, 7.0, 9.0]).unwrap();
        assert_eq!((found.mean, found.runs), (5.0, 8));
        assert!((found.deviation.unwrap() - (32.0f64 / 7.0).sqrt()).abs() < 1e-15);
    }

    #[test]
    fn one_run_has_no_deviation_and_none_has_nothing() {
        assert_eq!(spread(&[0.5]), Some(Spread { mean: 0.5, deviation: None, runs: 1 }));
        assert_eq!(spread(&[]), None);
    }
}
