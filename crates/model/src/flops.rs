//! Useful work of a batch, for a utilisation figure: what the arithmetic needs, not what a program spends.
//!
//! Per real token, forward and backward, with h hidden, f feed-forward, L layers, V vocabulary, s = Σs²/Σs over the
//! batch's sequence lengths and p the share of tokens predicted:
//!
//! ```text
//! 6·L·(4h² + 2hf) + 12·L·h·s + 6·p·(h² + hV)
//! ```
//!
//! Forward alone is a third. Padding, recomputation, embeddings, norms and the pooler do not count.

use crate::config::Config;

/// Which passes to count.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Work {
    /// Forward only: inference, evaluation.
    Forward,
    /// Forward and backward: a training step, optimizer aside.
    ForwardBackward,
}

/// Useful floating-point operations of one batch of sequences with these lengths (tokens each), of whose tokens
/// `predicted` pass through the vocabulary (0 for an encoder alone).
pub fn useful_flops(config: &Config, lengths: impl IntoIterator<Item = usize>, predicted: usize, work: Work) -> f64 {
    let (mut tokens, mut squares) = (0.0, 0.0);
    for length in lengths {
        let length = length as f64;
        tokens += length;
        squares += length * length;
    }
    let [h, f, l, v] = [config.hidden_size, config.intermediate_size, config.num_hidden_layers, config.vocab_size]
        .map(|size| size as f64);
    let both = 6.0 * l * (4.0 * h * h + 2.0 * h * f) * tokens
        + 12.0 * l * h * squares
        + 6.0 * (h * h + h * v) * predicted as f64;
    match work {
        Work::Forward => both / 3.0,
        Work::ForwardBackward => both,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn base_matches_the_formula_per_token() {
        let config = Config::default();
        let (lengths, predicted) = ([128, 64, 32], 30);
        let s = (128.0 * 128.0 + 64.0 * 64.0 + 32.0 * 32.0) / 224.0;
        let (h, f) = (768.0, 3072.0);
        let per_token = 6.0 * 12.0 * (4.0 * h * h + 2.0 * h * f)
            + 12.0 * 12.0 * h * s
            + 6.0 * (30.0 / 224.0) * (h * h + h * 30522.0);
        let found = useful_flops(&config, lengths, predicted, Work::ForwardBackward);
        assert!((found / (per_token * 224.0) - 1.0).abs() < 1e-12, "{found}");
        let forward = useful_flops(&config, lengths, predicted, Work::Forward);
        assert_eq!(forward, found / 3.0);
        assert_eq!(useful_flops(&config, [], 0, Work::Forward), 0.0);
    }
}
