//! Mean and standard deviation of a score over several seeds.

use serde::Serialize;

/// The mean and the standard deviation of a score over runs that differ only in the seed.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct MeanStd {
    /// The mean.
    pub mean: f64,
    /// The sample standard deviation (divided by n − 1); none for a single run.
    pub deviation: Option<f64>,
    /// The number of runs.
    pub runs: usize,
}

/// The mean and the sample standard deviation of scores; none if there are no scores.
pub fn mean_std(scores: &[f64]) -> Option<MeanStd> {
    if scores.is_empty() {
        return None;
    }
    let runs = scores.len();
    let mean = scores.iter().sum::<f64>() / runs as f64;
    let squares: f64 = scores.iter().map(|s| (s - mean).powi(2)).sum();
    let deviation = (runs > 1).then(|| (squares / (runs - 1) as f64).sqrt());
    Some(MeanStd { mean, deviation, runs })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn deviation_is_divided_by_n_minus_1() {
        let found = mean_std(&[2.0, 4.0, 4.0, 4.0, 5.0, 5.0, 7.0, 9.0]).unwrap();
        assert_eq!((found.mean, found.runs), (5.0, 8));
        assert!((found.deviation.unwrap() - (32.0f64 / 7.0).sqrt()).abs() < 1e-15);
    }

    #[test]
    fn one_run_has_no_deviation_and_no_runs_have_no_mean() {
        assert_eq!(mean_std(&[0.5]), Some(MeanStd { mean: 0.5, deviation: None, runs: 1 }));
        assert_eq!(mean_std(&[]), None);
    }
}
