//! The losses of a batch: a short list of named sums, over which logs and reports iterate.

use std::borrow::Cow;

use cloze_engine::ops::LossSum;

use crate::inputs::PretrainLabels;

/// The name of the masked-language-model loss.
pub const MLM: &str = "mlm";
/// The name of the causal language model's loss.
pub const CLM: &str = "clm";
/// The name of the next-sentence loss.
pub const NSP: &str = "nsp";
/// The name of the sentence-order loss, which has the head of the next-sentence loss.
pub const SOP: &str = "sop";

/// The name of the loss of replaced-token detection.
pub const RTD: &str = "rtd";

/// The name of the KL divergence from a teacher's soft targets.
pub const KL: &str = "kl";
/// The name of the cosine distance from a teacher's last hidden states.
pub const COSINE: &str = "cosine";
/// The name of the KL divergence from a teacher's attention relations.
pub const RELATION: &str = "relation";

/// Named losses as sums; divide by their counts to get means. Each name occurs once.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Losses(Vec<(Cow<'static, str>, LossSum)>);

impl Losses {
    /// Adds to the loss with this name, or appends it to the list.
    pub fn add(&mut self, name: impl Into<Cow<'static, str>>, loss: LossSum) {
        let name = name.into();
        match self.0.iter_mut().find(|(known, _)| *known == name) {
            Some((_, sum)) => *sum += loss,
            None => self.0.push((name, loss)),
        }
    }

    /// Changes the name of a loss, if there is one with this name.
    pub fn rename(&mut self, from: &str, to: &'static str) {
        self.0.iter_mut().filter(|(name, _)| *name == from).for_each(|(name, _)| *name = to.into());
    }

    /// Adds the losses of another batch.
    pub fn merge(&mut self, other: &Losses) {
        other.0.iter().for_each(|(name, loss)| self.add(name.clone(), *loss));
    }

    /// The loss with this name; `None` if the batch has no such labels or the model has no such head.
    pub fn get(&self, name: &str) -> Option<LossSum> {
        self.iter().find(|(known, _)| *known == name).map(|(_, loss)| loss)
    }

    /// Names and sums, in the order of their first addition.
    pub fn iter(&self) -> impl Iterator<Item = (&str, LossSum)> + '_ {
        self.0.iter().map(|(name, loss)| (&**name, *loss))
    }

    /// The training objective: the sum of the means. A mean without predictions is zero.
    pub fn total(&self) -> f64 {
        self.iter().map(|(_, loss)| loss.mean()).sum()
    }

    /// Whether every sum is a finite number.
    pub fn is_finite(&self) -> bool {
        self.iter().all(|(_, loss)| loss.sum.is_finite())
    }
}

/// The gradient scale of each loss's sum. With 1 / (the step's predicted tokens) and 1 / (the step's sequences) in all
/// micro-batches, gradient accumulation equals one large batch.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct LossScale {
    /// Scale of the loss of one predicted token.
    pub mlm: f32,
    /// Scale of the next-sentence loss of one sequence.
    pub nsp: f32,
}

impl LossScale {
    /// The paper's loss of one batch: the mean over its predicted tokens plus the mean over its sequences.
    pub fn mean(labels: &PretrainLabels) -> LossScale {
        LossScale::mean_of([labels])
    }

    /// The paper's loss of several micro-batches together.
    pub fn mean_of<'a>(labels: impl IntoIterator<Item = &'a PretrainLabels>) -> LossScale {
        let (mut predicted, mut sequences) = (0usize, 0usize);
        for labels in labels {
            predicted += labels.mlm_rows.len();
            sequences += labels.nsp_labels.len();
        }
        let one_over = |count: usize| 1.0 / count.max(1) as f32;
        LossScale { mlm: one_over(predicted), nsp: one_over(sequences) }
    }
}
