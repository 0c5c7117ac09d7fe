//! The lines of metrics.jsonl in pre-training.

use serde::{Deserialize, Serialize};

use super::losses::LossFigures;

/// A line of metrics.jsonl.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "lowercase")]
#[non_exhaustive]
pub enum Line {
    /// A run is started or resumed.
    Start(StartLine),
    /// Means over training steps.
    Train(TrainLine),
    /// Results on the held-out shards.
    Eval(EvalLine),
    /// A message.
    Event(EventLine),
}

/// How a run is started or resumed.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct StartLine {
    /// Number of steps done before.
    pub step: u64,
    /// The device: kind, instruction set, threads.
    pub machine: String,
    /// `bf16` or `f32`.
    pub precision: String,
    /// Why this instruction set and this type are used.
    #[serde(default)]
    pub reason: String,
    /// Number of compute threads.
    pub threads: usize,
    /// Number of ranks of the job, each with these threads.
    #[serde(default = "one")]
    pub ranks: usize,
    /// The measured matrix peak of the devices of all ranks at this precision, in GFLOP/s.
    pub peak_gflops: f64,
    /// Number of weights of the model.
    pub parameters: usize,
    /// Number of tokens of the training shards.
    pub corpus_tokens: u64,
    /// Version of Cloze.
    pub version: String,
}

/// The number of ranks in the log of an earlier version.
fn one() -> usize {
    1
}

/// Means over the steps since the previous line.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct TrainLine {
    /// Number of steps done.
    pub step: u64,
    /// Number of tokens processed by the run.
    pub tokens: u64,
    /// Seconds of the run, without pauses between sessions.
    pub seconds: f64,
    /// The losses of the objective: `mlm_loss`, `mlm_accuracy`, `nsp_loss` and so on.
    #[serde(flatten)]
    pub losses: LossFigures,
    /// The training objective: the weighted sum of the losses.
    pub loss: f64,
    /// Learning rate of the last step.
    pub lr: f64,
    /// Mean global gradient norm before clipping.
    pub grad_norm: f64,
    /// Tokens per second of training, without evaluation and saving.
    pub tokens_per_s: f64,
    /// Useful FLOP/s as a fraction of the matrix peak.
    pub share_of_peak: f64,
    /// Phase, from 0.
    pub phase: usize,
}

/// Results on the held-out shards.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct EvalLine {
    /// Number of steps done.
    pub step: u64,
    /// Seconds of the run.
    pub seconds: f64,
    /// The losses of the objective, with perplexities for those of tokens: `mlm_loss`, `mlm_perplexity`, `mlm_accuracy`
    /// and so on.
    #[serde(flatten)]
    pub losses: LossFigures,
}

/// A message.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct EventLine {
    /// Number of steps done.
    pub step: u64,
    /// The message.
    pub message: String,
}

impl Line {
    /// The number of steps done when the line was written.
    pub fn step(&self) -> u64 {
        match self {
            Line::Start(l) => l.step,
            Line::Train(l) => l.step,
            Line::Eval(l) => l.step,
            Line::Event(l) => l.step,
        }
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::run::LossFigure;

    pub(crate) fn train(step: u64) -> Line {
        let mlm = LossFigure { loss: Some(1.0 / 3.0), accuracy: Some(0.0), ..LossFigure::named("mlm") };
        let nsp = (step > 1).then_some(0.5);
        let nsp = LossFigure { loss: nsp, accuracy: nsp, ..LossFigure::named("nsp") };
        Line::Train(TrainLine { step, losses: [mlm, nsp].into_iter().collect(), ..TrainLine::default() })
    }

    #[test]
    fn lines_have_the_documented_format() {
        let text = serde_json::to_string(&train(1)).unwrap();
        assert!(text.starts_with(r#"{"kind":"train","step":1,"tokens":0,"seconds":0.0,"mlm_loss":0.333"#), "{text}");
        assert!(text.contains(r#""nsp_loss":null"#));
        assert_eq!(serde_json::from_str::<Line>(&text).unwrap(), train(1));
        let event = Line::Event(EventLine { step: 3, message: "m".into() });
        assert_eq!(serde_json::to_string(&event).unwrap(), r#"{"kind":"event","step":3,"message":"m"}"#);
    }

    /// Lines of runs from before losses were a list.
    #[test]
    fn lines_of_earlier_runs_are_read() {
        let text = r#"{"kind":"eval","step":4,"seconds":2.5,"mlm_loss":7.5,"mlm_perplexity":1808.04,"mlm_accuracy":0.125,"nsp_loss":0.75,"nsp_accuracy":0.5}"#;
        let Line::Eval(line) = serde_json::from_str(text).unwrap() else { panic!("a line of an evaluation") };
        assert_eq!((line.losses.loss("mlm"), line.losses.accuracy("mlm")), (Some(7.5), Some(0.125)));
        assert_eq!((line.losses.loss("nsp"), line.losses.accuracy("nsp")), (Some(0.75), Some(0.5)));
        assert_eq!(serde_json::to_string(&Line::Eval(line)).unwrap(), text);
    }
}
