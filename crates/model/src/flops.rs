//! Useful work of a batch, for a utilisation figure: what the arithmetic needs, not what a program spends.
//!
//! Forward and backward, with h hidden, e embeddings, f feed-forward, L layers, V vocabulary, T tokens of which the last layer is
//! read at R and M are predicted, and a sum over sequences of s tokens, r of them read:
//!
//! ```text
//! 6·(L−1)·(4h² + 2hf)·T + 6·(2h²·T + (2h² + 2hf)·R) + 12·h·((L−1)·Σs² + Σs·r) + 6·M·(he + eV)
//! ```
//!
//! Forward alone is a third. In a causal model a token attends to (s+1)/2 tokens on average instead of s. Padding, recomputation,
//! embeddings, norms and the pooler do not count. Programs that work out all of the last layer (R = T) do more for the same result.

use crate::architecture::Architecture;

/// Which passes to count.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FlopsOf {
    /// Forward only.
    Forward,
    /// Forward and backward: a training step, optimizer aside.
    ForwardBackward,
}

/// Useful floating-point operations of one batch of sequences, each given by its tokens and how many of them the last layer is
/// read at; `predicted` of all tokens pass through the vocabulary (0 for an encoder alone).
pub fn useful_flops(
    architecture: &Architecture,
    sequences: impl IntoIterator<Item = [usize; 2]>,
    predicted: usize,
    of: FlopsOf,
) -> f64 {
    let (mut tokens, mut read, mut pairs, mut read_pairs) = (0.0, 0.0, 0.0, 0.0);
    for sequence in sequences {
        let [s, r] = sequence.map(|count| count as f64);
        tokens += s;
        read += r;
        let seen = if architecture.causal { (s + 1.0) / 2.0 } else { s };
        pairs += s * seen;
        read_pairs += r * seen;
    }
    let Architecture { hidden_size, embedding_size, intermediate_size, layers, vocab_size, .. } = *architecture;
    let [h, e, f, l, v] = [hidden_size, embedding_size, intermediate_size, layers, vocab_size].map(|size| size as f64);
    let below = l - 1.0;
    let both = 6.0 * below * (4.0 * h * h + 2.0 * h * f) * tokens
        + 6.0 * (2.0 * h * h * tokens + (2.0 * h * h + 2.0 * h * f) * read)
        + 12.0 * h * (below * pairs + read_pairs)
        + 6.0 * (h * e + e * v) * predicted as f64;
    match of {
        FlopsOf::Forward => both / 3.0,
        FlopsOf::ForwardBackward => both,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Config;

    #[test]
    fn base_matches_the_formula() {
        let architecture = Config::default().architecture();
        let (h, f) = (768.0, 3072.0);
        let (tokens, squares) = (224.0, 128.0 * 128.0 + 64.0 * 64.0 + 32.0 * 32.0);
        let vocabulary = 6.0 * 30.0 * (h * h + h * 30522.0);
        let whole = 6.0 * 12.0 * (4.0 * h * h + 2.0 * h * f) * tokens + 12.0 * 12.0 * h * squares + vocabulary;
        let flops = |wanted: [usize; 3], predicted, work| {
            useful_flops(&architecture, [128, 64, 32].into_iter().zip(wanted).map(|(s, r)| [s, r]), predicted, work)
        };
        let found = flops([128, 64, 32], 30, FlopsOf::ForwardBackward);
        assert!((found / whole - 1.0).abs() < 1e-12, "{found}");
        assert_eq!(flops([128, 64, 32], 30, FlopsOf::Forward), found / 3.0);
        let saved = 6.0 * (2.0 * h * h + 2.0 * h * f) * 180.0 + 12.0 * h * (128.0 * 108.0 + 64.0 * 44.0 + 32.0 * 28.0);
        let found = flops([20, 20, 4], 30, FlopsOf::ForwardBackward);
        assert!((found / (whole - saved) - 1.0).abs() < 1e-12, "{found}");
        assert_eq!(useful_flops(&architecture, [], 0, FlopsOf::Forward), 0.0);
    }

    #[test]
    fn a_causal_model_attends_to_half() {
        let encoder = Config::default().architecture();
        let causal = Architecture { causal: true, ..encoder };
        let flops = |architecture| useful_flops(architecture, [[128, 100]], 30, FlopsOf::ForwardBackward);
        let (pairs, seen) = (11.0 * 128.0 * 128.0 + 128.0 * 100.0, 11.0 * 128.0 * 64.5 + 64.5 * 100.0);
        let saved = 12.0 * 768.0 * (pairs - seen);
        assert!((flops(&encoder) - flops(&causal) - saved).abs() < 1e-9 * saved);
    }
}
