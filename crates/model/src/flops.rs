//! Useful FLOPs of a batch, for utilisation figures: those that the computation requires, not those that a program
//! executes.
//!
//! Forward and backward, with h hidden, e embeddings, f feed-forward, L layers, V vocabulary, T tokens, of which the
//! output of the last layer is needed for R, and M are predicted; sums are over sequences with s tokens, r of which are
//! needed:
//!
//! ```text
//! 6·(L−1)·(4h² + 2hf)·T + 6·(2h²·T + (2h² + 2hf)·R) + 12·h·((L−1)·Σs² + Σs·r) + 6·M·(he + eV) + 6·he·T
//! ```
//!
//! The last term is the projection of the embeddings, if there is one. Forward is a third of it. In a causal model a token
//! attends to (s+1)/2 tokens on average instead of s, in a local layer to those of its window. A gated feed-forward block
//! has 3hf instead of 2hf. Padding, recomputation, embeddings, norms and the pooler do not count. Programs that compute the
//! last layer for all tokens (R = T) execute more FLOPs for the same result.

use crate::architecture::Architecture;

/// The passes that are counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FlopsOf {
    /// Only forward.
    Forward,
    /// Forward and backward: a training step without the optimizer.
    ForwardBackward,
}

/// Useful floating-point operations of a batch. Each sequence is given by its number of tokens and the number of tokens
/// for which the output of the last layer is needed. `predicted` is the total number of predicted tokens (0 for an
/// encoder without the MLM head).
pub fn useful_flops(
    architecture: &Architecture,
    sequences: impl IntoIterator<Item = [usize; 2]>,
    predicted: usize,
    of: FlopsOf,
) -> f64 {
    let (mut tokens, mut needed, mut pairs, mut needed_pairs) = (0.0, 0.0, 0.0, 0.0);
    let top = architecture.layers.saturating_sub(1);
    let local_layers = (0..top).filter(|&number| architecture.window(number).is_some()).count() as f64;
    let global_layers = top as f64 - local_layers;
    for sequence in sequences {
        let [s, r] = sequence.map(|count| count as f64);
        tokens += s;
        needed += r;
        let all = if architecture.causal { (s + 1.0) / 2.0 } else { s };
        let near = architecture.local.map_or(all, |local| attended(sequence[0], local.window));
        pairs += s * (global_layers * all + local_layers * near);
        needed_pairs += r * if architecture.window(top).is_some() { near } else { all };
    }
    let Architecture { hidden_size, embedding_size, intermediate_size, layers, vocab_size, .. } = *architecture;
    let [h, e, f, l, v] = [hidden_size, embedding_size, intermediate_size, layers, vocab_size].map(|size| size as f64);
    let lower_layers = l - 1.0;
    let feed_forward = if architecture.gated { 3.0 } else { 2.0 } * h * f;
    let both = 6.0 * lower_layers * (4.0 * h * h + feed_forward) * tokens
        + 6.0 * (2.0 * h * h * tokens + (2.0 * h * h + feed_forward) * needed)
        + 12.0 * h * (pairs + needed_pairs)
        + 6.0 * (h * e + e * v) * predicted as f64
        + if architecture.projects_embeddings { 6.0 * h * e * tokens } else { 0.0 };
    match of {
        FlopsOf::Forward => both / 3.0,
        FlopsOf::ForwardBackward => both,
    }
}

/// The number of tokens within `window` tokens of a token, and this token: the mean over a sequence.
fn attended(length: usize, window: usize) -> f64 {
    let reach = window.min(length.saturating_sub(1));
    // On either side: the first tokens have fewer neighbours than the others.
    let one_side = (reach * (reach + 1) / 2 + (length - reach).saturating_sub(1) * reach) as f64;
    1.0 + 2.0 * one_side / length.max(1) as f64
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
        let full = 6.0 * 12.0 * (4.0 * h * h + 2.0 * h * f) * tokens + 12.0 * 12.0 * h * squares + vocabulary;
        let flops = |needed: [usize; 3], predicted, of| {
            useful_flops(&architecture, [128, 64, 32].into_iter().zip(needed).map(|(s, r)| [s, r]), predicted, of)
        };
        let found = flops([128, 64, 32], 30, FlopsOf::ForwardBackward);
        assert!((found / full - 1.0).abs() < 1e-12, "{found}");
        assert_eq!(flops([128, 64, 32], 30, FlopsOf::Forward), found / 3.0);
        let saved = 6.0 * (2.0 * h * h + 2.0 * h * f) * 180.0 + 12.0 * h * (128.0 * 108.0 + 64.0 * 44.0 + 32.0 * 28.0);
        let found = flops([20, 20, 4], 30, FlopsOf::ForwardBackward);
        assert!((found / (full - saved) - 1.0).abs() < 1e-12, "{found}");
        assert_eq!(useful_flops(&architecture, [], 0, FlopsOf::Forward), 0.0);
    }

    #[test]
    fn windows_and_gated_units_are_counted() {
        for (length, window) in [(1, 0), (5, 0), (5, 1), (5, 4), (5, 9), (128, 64), (65, 64)] {
            let pairs: usize =
                (0..length as i64).map(|i| (0..length as i64).filter(|j| (i - j).abs() <= window as i64).count()).sum();
            assert!((attended(length, window) * length as f64 - pairs as f64).abs() < 1e-6, "{length} {window}");
        }
        let architecture = Config { model_type: "modernbert".to_owned(), ..Config::default() }.architecture();
        let found = useful_flops(&architecture, [[512, 512]], 0, FlopsOf::ForwardBackward);
        // Every third of 12 layers attends to all tokens.
        let pairs = 512.0 * (4.0 * 512.0 + 8.0 * attended(512, 64));
        let (h, f) = (768.0, 3072.0);
        let expected = 6.0 * 12.0 * (4.0 * h * h + 3.0 * h * f) * 512.0 + 12.0 * h * pairs;
        assert!((found / expected - 1.0).abs() < 1e-12, "{found} {expected}");
    }

    #[test]
    fn a_causal_model_needs_half_the_attention_flops() {
        let encoder = Config::default().architecture();
        let causal = Architecture { causal: true, ..encoder };
        let flops = |architecture| useful_flops(architecture, [[128, 100]], 30, FlopsOf::ForwardBackward);
        let (pairs, attended) = (11.0 * 128.0 * 128.0 + 128.0 * 100.0, 11.0 * 128.0 * 64.5 + 64.5 * 100.0);
        let saved = 12.0 * 768.0 * (pairs - attended);
        assert!((flops(&encoder) - flops(&causal) - saved).abs() < 1e-9 * saved);
    }
}
