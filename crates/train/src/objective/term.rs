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
    /// Whether it is a loss over the vocabulary, so that its exponential is a perplexity.
    pub has_perplexity: bool,
}

/// The metrics of an objective's losses, from their sums. The first loss has metrics even without predictions.
pub fn figures(terms: &[Term], sum: impl Fn(&str) -> LossSum, with_perplexity: bool) -> LossFigures {
    let figure = |(number, term): (usize, &Term)| {
        let sum = sum(term.name);
        let is_shown = number == 0 || sum.count > 0;
        let mean = is_shown.then(|| sum.mean());
        LossFigure {
            name: term.name.to_owned(),
            loss: mean,
            perplexity: mean.filter(|_| with_perplexity && term.has_perplexity).map(f64::exp),
            accuracy: is_shown.then(|| sum.accuracy()),
        }
    };
    terms.iter().enumerate().map(figure).collect()
}

/// The training objective: the weighted sum of the mean losses. A mean without predictions is zero.
pub fn total(terms: &[Term], sum: impl Fn(&str) -> LossSum) -> f64 {
    terms.iter().map(|term| term.weight * sum(term.name).mean()).sum()
}
