//! The losses of an objective: names, weights, metrics.

use cloze_engine::ops::LossSum;

use crate::run::{LossFigure, LossFigures};

/// One of the losses of an objective, which minimises their weighted sum.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Term {
    /// The name in logs, such as `mlm`.
    pub name: &'static str,
    /// The weight of its mean in the sum.
    pub weight: f64,
    /// Its metrics.
    pub metrics: Metrics,
}

/// The metrics of a loss in addition to its mean.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Metrics {
    /// A loss over the vocabulary: accuracy, the exponential, which is a perplexity, and bits per character.
    Tokens,
    /// A loss over classes or soft targets: accuracy.
    Classes,
    /// A distance: none.
    Distance,
}

/// Text whose tokens were predicted.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct ScoredText {
    /// Number of tokens, without special tokens.
    pub tokens: u64,
    /// Characters per token; `None` if unknown.
    pub characters_per_token: Option<f64>,
}

impl ScoredText {
    /// Bits per character, from the sum of a loss over tokens in nats: the loss per token of the text, divided by ln 2 and by
    /// the characters per token.
    ///
    /// A causal model predicts every token, and also the end of each sequence, whose loss is part of the sum: the result is
    /// the model's code length of the text. A masked language model predicts only some tokens, from both sides: its loss per
    /// token is the mean over these, and the result is comparable only between models of this kind.
    fn bits_per_character(self, sum: LossSum) -> Option<f64> {
        let tokens = (sum.count as u64).min(self.tokens);
        let bits = sum.sum / tokens.max(1) as f64 / std::f64::consts::LN_2;
        Some(bits / self.characters_per_token.filter(|characters| *characters > 0.0)?)
    }
}

/// The metrics of an objective's losses, from their sums. The first loss has metrics even without predictions. Losses over
/// tokens have a perplexity, and bits per character, if `text` is given: the text that was scored.
pub fn figures(terms: &[Term], sum: impl Fn(&str) -> LossSum, text: Option<ScoredText>) -> LossFigures {
    let figure = |(number, term): (usize, &Term)| {
        let sum = sum(term.name);
        let is_shown = number == 0 || sum.count > 0;
        let has_perplexity = text.is_some() && term.metrics == Metrics::Tokens;
        let mean = is_shown.then(|| sum.mean());
        LossFigure {
            name: term.name.to_owned(),
            loss: mean,
            perplexity: mean.filter(|_| has_perplexity).map(f64::exp),
            bits_per_character: text.filter(|_| is_shown && has_perplexity).and_then(|t| t.bits_per_character(sum)),
            accuracy: (is_shown && term.metrics != Metrics::Distance).then(|| sum.accuracy()),
        }
    };
    terms.iter().enumerate().map(figure).collect()
}

/// The training objective: the weighted sum of the mean losses. A mean without predictions is zero.
pub fn total(terms: &[Term], sum: impl Fn(&str) -> LossSum) -> f64 {
    terms.iter().map(|term| term.weight * sum(term.name).mean()).sum()
}
