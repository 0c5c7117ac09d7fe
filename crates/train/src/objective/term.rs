//! The losses of an objective: names, weights, figures.

use cloze_engine::ops::LossSum;

use crate::run::{LossFigure, LossFigures};

/// One of the losses that an objective minimises the weighted sum of.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Term {
    /// Its name in logs, such as `mlm`.
    pub name: &'static str,
    /// What its mean weighs in the sum.
    pub weight: f64,
    /// Whether it is the loss of a token out of the vocabulary, so that e to its power is a perplexity.
    pub has_perplexity: bool,
}

/// The figures of an objective's losses, given their sums. The first loss has figures even where nothing was counted.
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

/// What an objective minimises: the weighted sum of the mean losses. A mean over nothing is zero.
pub fn total(terms: &[Term], sum: impl Fn(&str) -> LossSum) -> f64 {
    terms.iter().map(|term| term.weight * sum(term.name).mean()).sum()
}
