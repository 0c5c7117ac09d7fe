//! Sums over the steps since the last logged line.

use std::fmt;

use cloze_engine::ops::LossSum;
use serde::de::{MapAccess, Visitor};
use serde::ser::SerializeMap;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::objective::{Term, figures, total};
use crate::run::TrainLine;
use crate::step::StepOutcome;

/// Sums over the steps since the last logged line.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Window {
    steps: u64,
    seconds: f64,
    tokens: u64,
    flops: f64,
    grad_norm: f64,
    /// Sums of the losses; their names are keys on this level.
    #[serde(flatten)]
    losses: LossSums,
    /// Learning rate of the last step. Missing in older checkpoints.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    lr: Option<f64>,
}

/// The sum of each loss, by name.
#[derive(Debug, Clone, Default, PartialEq)]
struct LossSums(Vec<(String, LossSum)>);

/// The sum of a loss in a checkpoint. Its weight equals its count.
#[derive(Serialize, Deserialize)]
struct Sum {
    sum: f64,
    count: u64,
    correct: u64,
}

impl Serialize for LossSums {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        let mut map = to.serialize_map(Some(self.0.len()))?;
        for (name, LossSum { sum, count, correct, .. }) in &self.0 {
            map.serialize_entry(name, &Sum { sum: *sum, count: *count as u64, correct: *correct as u64 })?;
        }
        map.end()
    }
}

impl<'de> Deserialize<'de> for LossSums {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<LossSums, D::Error> {
        struct Names;
        impl<'de> Visitor<'de> for Names {
            type Value = LossSums;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("sums of losses by name")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<LossSums, A::Error> {
                let mut sums = Vec::new();
                while let Some((name, Sum { sum, count, correct })) = map.next_entry()? {
                    let (count, correct) = (count as usize, correct as usize);
                    sums.push((name, LossSum { sum, weight: count as f64, count, correct }));
                }
                Ok(LossSums(sums))
            }
        }
        from.deserialize_map(Names)
    }
}

impl Window {
    /// An empty window for losses in this order.
    pub fn new(terms: &[Term]) -> Window {
        let losses = terms.iter().map(|term| (term.name.to_owned(), LossSum::default())).collect();
        Window { losses: LossSums(losses), ..Window::default() }
    }

    /// A window from the values that a fine-tuning checkpoint keeps: the sum of its only loss and its weight.
    pub fn restored(term: &Term, sum: f64, weight: f64, tokens: u64, seconds: f64) -> Window {
        let loss = LossSum { sum, weight, ..LossSum::default() };
        Window { tokens, seconds, losses: LossSums(vec![(term.name.to_owned(), loss)]), ..Window::default() }
    }

    /// Adds a step with its learning rate. Of a skipped step, only the learning rate counts.
    pub fn add(&mut self, outcome: &StepOutcome, lr: f64) {
        self.lr = Some(lr);
        let StepOutcome { update, tokens, flops } = outcome;
        if !update.updated {
            return;
        }
        self.steps += 1;
        self.seconds += update.seconds;
        self.tokens += tokens;
        self.flops += flops;
        self.grad_norm += update.grad_norm;
        for (name, loss) in update.losses.iter() {
            match self.losses.0.iter_mut().find(|(known, _)| known == name) {
                Some((_, sum)) => *sum += loss,
                None => self.losses.0.push((name.to_owned(), loss)),
            }
        }
    }

    /// Whether no step was added.
    pub fn is_empty(&self) -> bool {
        self.tokens == 0
    }

    /// Tokens of the steps.
    pub fn tokens(&self) -> u64 {
        self.tokens
    }

    /// Seconds of the steps.
    pub fn seconds(&self) -> f64 {
        self.seconds
    }

    /// The sum of a loss.
    pub fn loss(&self, name: &str) -> LossSum {
        self.losses.0.iter().find(|(known, _)| known == name).map(|(_, sum)| *sum).unwrap_or_default()
    }

    /// Tokens per second.
    pub fn tokens_per_s(&self) -> f64 {
        self.tokens as f64 / self.seconds.max(f64::MIN_POSITIVE)
    }

    /// Useful floating-point operations per second.
    pub fn flops_per_s(&self) -> f64 {
        self.flops / self.seconds.max(f64::MIN_POSITIVE)
    }

    /// The means over the window; other fields of the line are zero. `peak` is the matrix peak of the device in FLOP/s.
    pub fn means(&self, terms: &[Term], peak: f64) -> TrainLine {
        TrainLine {
            losses: figures(terms, |name| self.loss(name), None),
            loss: total(terms, |name| self.loss(name)),
            grad_norm: self.grad_norm / self.steps.max(1) as f64,
            tokens_per_s: self.tokens_per_s(),
            share_of_peak: self.flops_per_s() / peak.max(1.0),
            lr: self.lr.unwrap_or_default(),
            ..TrainLine::default()
        }
    }
}

#[cfg(test)]
mod tests {
    use cloze_data::batch::PairTask;
    use cloze_model::Losses;

    use super::*;
    use crate::objective::{MaskedLm, Objective};
    use crate::step::Update;

    #[test]
    fn window_means_are_weighted_by_tokens() {
        let outcome = |sum: f64, count: usize, seconds: f64| {
            let mut losses = Losses::default();
            losses.add("mlm", LossSum { sum, weight: count as f64, count, correct: 1 });
            let update = Update { losses, grad_norm: sum, updated: true, seconds };
            StepOutcome { update, tokens: 100, flops: 50.0 }
        };
        let mut window = Window::new(MaskedLm { pairs: PairTask::Nsp }.terms());
        window.add(&outcome(3.0, 1, 1.0), 2.0);
        window.add(&outcome(1.0, 3, 3.0), 1.0);
        let line = window.means(MaskedLm { pairs: PairTask::Nsp }.terms(), 100.0);
        assert_eq!((line.losses.loss("mlm"), line.losses.accuracy("mlm"), line.loss), (Some(1.0), Some(0.5), 1.0));
        assert_eq!((line.losses.loss("nsp"), line.grad_norm, line.lr), (None, 2.0, 1.0));
        assert_eq!((line.tokens_per_s, line.share_of_peak), (50.0, 0.25));
    }

    /// The window of a checkpoint from before losses were a list. It must be reproduced byte for byte, because the
    /// state's checksum covers these bytes.
    #[test]
    fn windows_of_earlier_checkpoints_are_reproduced_byte_for_byte() {
        let text = r#"{"steps":3,"seconds":0.125,"tokens":96,"flops":1e9,"grad_norm":2.5,"mlm":{"sum":61.25,"count":17,"correct":4},"nsp":{"sum":0.0,"count":0,"correct":0},"lr":0.001}"#;
        let window: Window = serde_json::from_str(text).unwrap();
        assert_eq!(window.loss("mlm"), LossSum { sum: 61.25, weight: 17.0, count: 17, correct: 4 });
        assert_eq!(serde_json::to_string(&window).unwrap(), text.replace("1e9", "1000000000.0"));
        let empty = serde_json::to_string(&Window::new(MaskedLm { pairs: PairTask::Nsp }.terms())).unwrap();
        assert!(
            empty.ends_with(r#""mlm":{"sum":0.0,"count":0,"correct":0},"nsp":{"sum":0.0,"count":0,"correct":0}}"#),
            "{empty}"
        );
    }
}
