//! What a recipe holds, section by section.

use std::path::PathBuf;

use cloze_engine::{DType, Device};
use cloze_model::HiddenAct;
use serde::{Deserialize, Serialize};

use super::every::Every;
use crate::schedule::ScheduleKind;

/// A whole recipe. Every key has a default but `data`, the model's sizes, and one of `steps` and `minutes`.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
#[non_exhaustive]
pub struct Recipe {
    /// Seed of the initial weights, the sampling, the masks and the dropout.
    pub seed: u64,
    /// The folder of shards that `cloze prepare` wrote, from the working directory.
    pub data: PathBuf,
    /// Optimizer steps in all. With [`minutes`](Self::minutes) too, the run ends at whichever comes first.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub steps: Option<u64>,
    /// Length of the run on the clock: schedule and phases then follow elapsed time / minutes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub minutes: Option<f64>,
    /// Type of the activations and of the matrices' compute copies; weights and moments are always f32. A run's folder holds the
    /// type that `auto` stood for.
    pub precision: Precision,
    /// The CPU's instruction set, as `CLOZE_CPU` names it; the fastest by measurement if absent. A run's folder holds the one that
    /// it began with: results depend on it in their last bits.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub instruction_set: Option<String>,
    /// CPU threads; all of them if absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub threads: Option<usize>,
    /// Whether the backward pass computes each layer's activations again instead of keeping them: the same numbers in a third
    /// more time and, where activations fill the memory, a fraction of it.
    pub recompute: bool,
    /// Sizes of the model, or the checkpoint to start from.
    pub model: ModelSection,
    /// What is predicted.
    pub objective: ObjectiveSection,
    /// The phases, in order: the paper trains 90 % of its steps at length 128, the rest at 512.
    pub phase: Vec<Phase>,
    /// AdamW and its settings.
    pub optimizer: Optimizer,
    /// The learning rate over the run.
    pub schedule: Schedule,
    /// Evaluation on the held-out shards.
    pub eval: Eval,
    /// What is saved while training.
    pub checkpoint: Saving,
    /// How often a line is logged.
    pub log: Log,
}

/// Type of the activations.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum Precision {
    /// The faster of the two on the device, by measurement.
    #[default]
    Auto,
    /// bfloat16 activations and compute copies, f32 accumulation and master weights.
    Bf16,
    /// f32 everywhere.
    F32,
}

impl Precision {
    /// The engine's type on a device.
    pub fn dtype(self, device: &Device) -> DType {
        match self {
            Precision::Auto => device.fastest_precision(),
            Precision::Bf16 => DType::BF16,
            Precision::F32 => DType::F32,
        }
    }

    /// What it stands for on a device: not `auto`.
    pub fn resolved(self, device: &Device) -> Precision {
        if self.dtype(device) == DType::BF16 { Precision::Bf16 } else { Precision::F32 }
    }

    /// `"auto"`, `"bf16"` or `"f32"`.
    pub fn name(self) -> &'static str {
        match self {
            Precision::Auto => "auto",
            Precision::Bf16 => "bf16",
            Precision::F32 => "f32",
        }
    }
}

/// `[model]`: sizes under the names of Hugging Face's config.json, or `init` alone (with dropouts, if they should differ).
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
#[non_exhaustive]
pub struct ModelSection {
    /// A Hugging Face folder whose weights and sizes the run starts from.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub init: Option<PathBuf>,
    /// Width of the residual stream, H.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hidden_size: Option<usize>,
    /// Encoder layers, L.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub num_hidden_layers: Option<usize>,
    /// Attention heads; divides `hidden_size`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub num_attention_heads: Option<usize>,
    /// Width of the feed-forward, F; 4·H if absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub intermediate_size: Option<usize>,
    /// The feed-forward's activation; `gelu` (erf) if absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hidden_act: Option<HiddenAct>,
    /// Dropout on the embeddings and both sublayers; 0.1 if absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hidden_dropout_prob: Option<f64>,
    /// Dropout on the attention weights; 0.1 if absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub attention_probs_dropout_prob: Option<f64>,
    /// Learned positions; 512 if absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_position_embeddings: Option<usize>,
    /// Segments; 2 if absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub type_vocab_size: Option<usize>,
    /// Standard deviation of the truncated normal that matrices start from; 0.02 if absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub initializer_range: Option<f64>,
    /// LayerNorm's ε; 1e-12 if absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub layer_norm_eps: Option<f64>,
}

impl ModelSection {
    /// Positions of a model built from this section; unknown (None) when it comes from a checkpoint.
    pub fn positions(&self) -> Option<usize> {
        match self.init {
            Some(_) => None,
            None => Some(self.max_position_embeddings.unwrap_or(512)),
        }
    }

    /// The section as config.json's keys, with the defaults filled in.
    pub fn config_json(&self, vocab_size: usize, pad: u32) -> serde_json::Value {
        let hidden = self.hidden_size.unwrap_or(768);
        serde_json::json!({
            "model_type": "bert",
            "vocab_size": vocab_size,
            "pad_token_id": pad,
            "hidden_size": hidden,
            "num_hidden_layers": self.num_hidden_layers.unwrap_or(12),
            "num_attention_heads": self.num_attention_heads.unwrap_or(12),
            "intermediate_size": self.intermediate_size.unwrap_or(4 * hidden),
            "hidden_act": self.hidden_act.unwrap_or(HiddenAct::Gelu),
            "hidden_dropout_prob": self.hidden_dropout_prob.unwrap_or(0.1),
            "attention_probs_dropout_prob": self.attention_probs_dropout_prob.unwrap_or(0.1),
            "max_position_embeddings": self.max_position_embeddings.unwrap_or(512),
            "type_vocab_size": self.type_vocab_size.unwrap_or(2),
            "initializer_range": self.initializer_range.unwrap_or(0.02),
            "layer_norm_eps": self.layer_norm_eps.unwrap_or(1e-12),
        })
    }
}

/// `[objective]`: masked language modelling, and next-sentence prediction unless `nsp = false`; or causal language modelling.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
#[non_exhaustive]
pub struct ObjectiveSection {
    /// What is predicted. With `causal-lm` the keys below have no effect.
    #[serde(skip_serializing_if = "ObjectiveKind::is_default")]
    pub kind: ObjectiveKind,
    /// Share of the tokens chosen for prediction.
    pub rate: f64,
    /// Share of the chosen that become \[MASK\].
    pub mask: f64,
    /// Share of the chosen that become a random token; the rest stay as they are.
    pub random: f64,
    /// Choose whole words rather than pieces.
    pub whole_word: bool,
    /// Predictions per sequence at most, as Google's `max_predictions_per_seq`; no limit if absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_predictions: Option<usize>,
    /// Sentence pairs and their loss; `false`: full sentences of one document.
    pub nsp: bool,
    /// Share of the sequences cut to a random shorter length.
    pub short_seq_prob: f64,
    /// Static masks: each sequence has this many fixed maskings; masks are drawn anew each epoch if absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub duplicates: Option<u32>,
}

impl Default for ObjectiveSection {
    fn default() -> Self {
        ObjectiveSection {
            kind: ObjectiveKind::default(),
            rate: 0.15,
            mask: 0.8,
            random: 0.1,
            whole_word: false,
            max_predictions: None,
            nsp: true,
            short_seq_prob: 0.1,
            duplicates: None,
        }
    }
}

/// What pre-training predicts.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ObjectiveKind {
    /// Tokens that were masked, and next sentences: BERT's.
    #[default]
    MaskedLm,
    /// Every token from those before it.
    CausalLm,
}

impl ObjectiveKind {
    /// Recipes of runs say nothing of the default, so that they stay as they always were.
    fn is_default(&self) -> bool {
        *self == ObjectiveKind::default()
    }
}

/// One `[[phase]]`: a stretch of the run with its own sequence length and batch.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
#[non_exhaustive]
pub struct Phase {
    /// Steps of the phase. Every phase has `steps`, or every phase has `share`; a lone phase needs neither.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub steps: Option<u64>,
    /// Share of the run.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub share: Option<f64>,
    /// Tokens of a sequence at most, \[CLS\] and \[SEP\]s included.
    pub seq_len: usize,
    /// Sequences of one micro-batch.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub batch_sequences: Option<usize>,
    /// Tokens of one micro-batch at most, instead of `batch_sequences`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub batch_tokens: Option<usize>,
    /// Micro-batches added up into one step.
    pub accumulate: u32,
}

impl Default for Phase {
    fn default() -> Self {
        Phase { steps: None, share: None, seq_len: 128, batch_sequences: None, batch_tokens: None, accumulate: 1 }
    }
}

/// `[optimizer]`: AdamW; the defaults are the paper's.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
#[non_exhaustive]
pub struct Optimizer {
    /// With or without bias correction.
    pub kind: OptimizerKind,
    /// Peak learning rate.
    pub lr: f64,
    /// Decay of the first moment.
    pub beta1: f64,
    /// Decay of the second moment.
    pub beta2: f64,
    /// Added to the root of the second moment.
    pub eps: f64,
    /// Decoupled weight decay; on matrices only, not on biases and LayerNorm.
    pub weight_decay: f64,
    /// Largest global norm of the gradient; 0 switches clipping off.
    pub clip_norm: f64,
}

impl Default for Optimizer {
    fn default() -> Self {
        Optimizer {
            kind: OptimizerKind::BertAdamw,
            lr: 1e-4,
            beta1: 0.9,
            beta2: 0.999,
            eps: 1e-6,
            weight_decay: 0.01,
            clip_norm: 1.0,
        }
    }
}

/// The two forms of AdamW.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum OptimizerKind {
    /// As BERT was trained: no bias correction.
    BertAdamw,
    /// Loshchilov & Hutter's, with bias correction, as in PyTorch.
    Adamw,
}

impl OptimizerKind {
    /// The name that recipes use.
    pub fn name(self) -> &'static str {
        match self {
            OptimizerKind::BertAdamw => "bert-adamw",
            OptimizerKind::Adamw => "adamw",
        }
    }
}

/// `[schedule]`: the learning rate as a share of the peak, over the run.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
#[non_exhaustive]
pub struct Schedule {
    /// The curve after the warmup.
    pub kind: ScheduleKind,
    /// Steps of linear warmup; needs `steps`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub warmup_steps: Option<u64>,
    /// Share of the run that is linear warmup; 0.01, the paper's, if neither is given.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub warmup_share: Option<f64>,
    /// Share of the run over which `trapezoid` falls at the end; 0.2 if absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub decay_share: Option<f64>,
    /// Where linear, cosine and trapezoid end, as a share of the peak; 0 if absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub final_share: Option<f64>,
}

/// `[eval]`: how often, and on how much, the held-out shards are scored.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
#[non_exhaustive]
pub struct Eval {
    /// Interval between evaluations; 0 for none. The end of the run is always evaluated unless 0.
    pub every: Every,
    /// Batches of the phase's size per evaluation, always the same ones; one epoch of the held-out shards at most.
    pub batches: u64,
}

impl Default for Eval {
    fn default() -> Self {
        Eval { every: Every::Steps(1000), batches: 32 }
    }
}

/// `[checkpoint]`: what is saved while training; the best by held-out loss is kept beside the last.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
#[non_exhaustive]
pub struct Saving {
    /// Interval between checkpoints; 0 for only the last and the best.
    pub every: Every,
    /// Checkpoints kept, the newest ones; the best is kept beyond them.
    pub keep: usize,
}

impl Default for Saving {
    fn default() -> Self {
        Saving { every: Every::Steps(1000), keep: 2 }
    }
}

/// `[log]`: how often a line is written to metrics.jsonl and TensorBoard.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
#[non_exhaustive]
pub struct Log {
    /// Interval between lines; figures are means over it. The last step is always logged.
    pub every: Every,
}

impl Default for Log {
    fn default() -> Self {
        Log { every: Every::Steps(10) }
    }
}
