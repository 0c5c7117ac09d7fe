//! Chooses vocabulary, model and batch for a corpus, a machine and a time, when a user names none of them.
//!
//! - The vocabulary follows the size of the text: a token that occurs rarely is learned badly, and its row costs time.
//! - The model follows the operations that fit into the time: a model of N weights sees at least k N tokens, which need 6 N · k N
//!   operations. Hoffmann et al. 2022 ("Training Compute-Optimal Large Language Models", table 3) found k = 20 for large causal models;
//!   for minutes on few cores, wider models than that were better (docs/ablations/hour.md), so k is 7 here. Text that is repeated
//!   more than 16 times does not count (Muennighoff et al. 2023, "Scaling Data-Constrained Language Models").
//! - The batch follows from the steps: small ones, as long as the optimizer's share of the time is low (docs/ablations/hour.md).

/// What a run has.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Budget {
    /// Its duration in seconds.
    pub seconds: f64,
    /// The measured peak of the machine's matrix products in FLOP/s, as returned by
    /// [`Device::matrix_peak`](cloze_engine::Device::matrix_peak).
    pub matrix_peak: f64,
    /// The size of the text in bytes, without compression.
    pub text_bytes: u64,
}

/// Sizes for a budget.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct Chosen {
    /// Number of tokens of the vocabulary to learn.
    pub vocab_size: usize,
    /// Encoder layers.
    pub layers: usize,
    /// Hidden size; each head is 64 wide.
    pub hidden_size: usize,
    /// Sequences of 64 tokens per step.
    pub batch_sequences: usize,
    /// Peak learning rate.
    pub lr: f64,
}

/// The share of the matrix peak that training reaches, measured on several machines (docs/measurements.md).
const SHARE_OF_PEAK: f64 = 0.45;
/// k: minimum number of tokens per weight of the encoder.
const TOKENS_PER_WEIGHT: f64 = 7.0;
/// How often text can be repeated with use.
const MAX_EPOCHS: f64 = 16.0;
/// Bytes of text per token; less for small vocabularies and some scripts.
const BYTES_PER_TOKEN: f64 = 4.0;
/// Layers and hidden sizes, from small to large; the largest is BERT-base.
const SIZES: [(usize, usize); 8] = [(3, 128), (4, 192), (4, 256), (6, 256), (6, 384), (8, 512), (12, 512), (12, 768)];
/// Smallest sizes of a text in bytes, and the vocabularies for them.
const VOCABULARIES: [(u64, usize); 4] = [(0, 2048), (2 << 20, 4096), (16 << 20, 8192), (4 << 30, 16_384)];
/// Steps of a run in which the batch has its smallest size.
const STEPS: f64 = 40_000.0;
/// Bounds of the number of sequences of 64 tokens in a step.
const SEQUENCES: (usize, usize) = (16, 1024);
/// Length of these sequences, and of those of the last phase.
const SEQ_LEN: [usize; 2] = [64, 512];
/// The learning rate of a narrow model; that of a wider one is inversely proportional to its width (Yang et al. 2022, "Tensor
/// Programs V", table 3).
const LR: (f64, usize) = (2e-3, 192);

impl Budget {
    /// Sizes for this budget.
    pub fn choose(&self) -> Chosen {
        let operations = self.seconds * self.matrix_peak * SHARE_OF_PEAK;
        let useful = MAX_EPOCHS * self.text_bytes as f64 / BYTES_PER_TOKEN;
        let tokens = |size| operations / (6.0 * weights(size));
        let fits = |size: &(usize, usize)| TOKENS_PER_WEIGHT * weights(*size) <= tokens(*size).min(useful);
        let (layers, hidden_size) = SIZES.into_iter().rev().find(fits).unwrap_or(SIZES[0]);
        let tokens = tokens((layers, hidden_size));
        let sequences = (tokens / (STEPS * SEQ_LEN[0] as f64)) as usize;
        let fits = |(bytes, _): &&(u64, usize)| *bytes <= self.text_bytes;
        let vocab_size = VOCABULARIES.iter().rev().find(fits).map_or(VOCABULARIES[0].1, |(_, size)| *size);
        let batch_sequences = sequences.checked_ilog2().map_or(0, |power| 1 << power).clamp(SEQUENCES.0, SEQUENCES.1);
        let lr = LR.0 * (LR.1 as f64 / hidden_size as f64).min(1.0);
        Chosen { vocab_size, layers, hidden_size, batch_sequences, lr }
    }
}

/// Weights of the encoder's matrices: four of attention, and three of the gated block with the same sum as 8 H².
fn weights((layers, hidden): (usize, usize)) -> f64 {
    (layers * 12 * hidden * hidden) as f64
}

impl Chosen {
    /// The keys of a recipe that have these values, as overrides for [`Recipe::open`](super::Recipe::open).
    pub fn overrides(&self) -> Vec<String> {
        let Chosen { layers, hidden_size, batch_sequences, lr, .. } = self;
        let intermediate = (8 * hidden_size / 3).next_multiple_of(32);
        vec![
            format!("model.num_hidden_layers={layers}"),
            format!("model.hidden_size={hidden_size}"),
            format!("model.num_attention_heads={}", hidden_size / 64),
            format!("model.intermediate_size={intermediate}"),
            format!("phase.0.batch_sequences={batch_sequences}"),
            format!("phase.1.batch_sequences={}", batch_sequences * SEQ_LEN[0] / SEQ_LEN[1]),
            format!("optimizer.lr={lr:.1e}"),
        ]
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::Recipe;

    fn chosen(minutes: f64, matrix_peak: f64, text_bytes: u64) -> Chosen {
        Budget { seconds: 60.0 * minutes, matrix_peak, text_bytes }.choose()
    }

    /// More time, a faster machine or more text never gives a smaller model, batch or vocabulary.
    #[test]
    fn sizes_grow_with_the_budget() {
        let (laptop, text) = (200e9, 300 << 20);
        let size = |chosen: &Chosen| (weights((chosen.layers, chosen.hidden_size)), chosen.vocab_size);
        for (small, large) in [
            ((3.0, laptop, text), (60.0, laptop, text)),
            ((60.0, laptop, text), (600.0, laptop, text)),
            ((60.0, laptop, text), (60.0, 100.0 * laptop, text)),
            ((60.0, laptop, 1 << 10), (60.0, laptop, text)),
            ((60.0, 100.0 * laptop, 1 << 20), (60.0, 100.0 * laptop, text)),
        ] {
            let [(m, v), (larger_m, larger_v)] =
                [small, large].map(|(minutes, peak, text)| size(&chosen(minutes, peak, text)));
            assert!(larger_m > m && larger_v >= v || larger_m >= m && larger_v > v, "{small:?}, {large:?}");
        }
        assert_eq!(chosen(f64::MAX, f64::MAX, u64::MAX).hidden_size, 768);
        assert_eq!(chosen(1e-9, 1.0, 0).hidden_size, 128);
    }

    /// The recipe of `cloze pretrain --text` accepts all of them.
    #[test]
    fn the_recipe_accepts_the_sizes() {
        for minutes in [0.01, 3.0, 60.0, 1e3, 1e5, 1e7] {
            let chosen = chosen(minutes, 1e12, 1 << 40);
            let recipe = Recipe::open(Path::new("modern"), &chosen.overrides()).expect("a valid recipe");
            assert_eq!(recipe.model.hidden_size, Some(chosen.hidden_size));
            assert_eq!(recipe.phase[0].batch_sequences, Some(chosen.batch_sequences));
            assert_eq!([recipe.phase[0].seq_len, recipe.phase[1].seq_len], SEQ_LEN);
            let tokens = recipe.phase.iter().map(|phase| phase.seq_len * phase.batch_sequences.unwrap_or_default());
            assert_eq!(tokens.collect::<Vec<_>>(), [64 * chosen.batch_sequences; 2]);
        }
    }
}
