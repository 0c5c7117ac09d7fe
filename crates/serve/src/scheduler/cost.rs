//! How long a model takes for a token, learned from its batches.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// Weight of a new measurement in the moving average.
const NEW: f64 = 0.1;

/// Seconds for each token of a model, a moving average over its batches.
#[derive(Debug)]
pub struct Cost(AtomicU64);

impl Cost {
    /// A model whose first batch of `tokens` tokens took this time.
    pub fn measured(tokens: usize, time: Duration) -> Cost {
        Cost(AtomicU64::new((time.as_secs_f64() / tokens.max(1) as f64).to_bits()))
    }

    /// Seconds for this number of tokens.
    pub fn seconds(&self, tokens: usize) -> f64 {
        tokens as f64 * f64::from_bits(self.0.load(Ordering::Relaxed))
    }

    /// The number of tokens that take this time, at least 1.
    pub fn tokens(&self, time: Duration) -> usize {
        (time.as_secs_f64() / self.seconds(1).max(1e-12)).max(1.0) as usize
    }

    /// Learns from a batch. Small batches, whose time is mostly the fixed part, count less.
    pub(super) fn learn(&self, tokens: usize, time: Duration) {
        let before = self.seconds(1);
        let weight = NEW * (tokens as f64 / 256.0).min(1.0);
        let now = before + weight * (time.as_secs_f64() / tokens.max(1) as f64 - before);
        self.0.store(now.to_bits(), Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn costs_follow_the_measurements() {
        let cost = Cost::measured(100, Duration::from_millis(100));
        assert!((cost.seconds(50) - 0.05).abs() < 1e-9);
        assert_eq!(cost.tokens(Duration::from_millis(10)), 10);
        for _ in 0..200 {
            cost.learn(1000, Duration::from_millis(100));
        }
        assert!((cost.seconds(1000) - 0.1).abs() < 1e-3);
        assert_eq!(cost.tokens(Duration::ZERO), 1);
    }
}
