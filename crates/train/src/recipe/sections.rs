//! The sections and keys of a recipe.

use std::path::PathBuf;

use cloze_data::masking::MaskingUnit;
use cloze_engine::{DType, Device, DeviceChoice};
use cloze_model::family::BERT;
use cloze_model::{Config, Family, HiddenAct, ModelError, SharedParts};
use cloze_text::Special;
use serde::{Deserialize, Serialize};
use serde_json::json;

use super::every::Every;
use crate::exchange::Wire;
use crate::local_steps::OuterOptimizer;
use crate::schedule::ScheduleKind;

/// A recipe. Every key has a default, except for `data`, the model's sizes, and one of `steps` and `minutes`.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
#[non_exhaustive]
pub struct Recipe {
    /// Seed of the initial weights, sampling, masks and dropout.
    pub seed: u64,
    /// The folder of prepared shards, relative to the working directory.
    pub data: PathBuf,
    /// Total number of optimizer steps. With both this and [`minutes`](Self::minutes), the run ends at whichever comes
    /// first.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub steps: Option<u64>,
    /// Duration of the run: schedule and phases then follow the elapsed time.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub minutes: Option<f64>,
    /// Type of the activations and of the operands of matrix products; weights and moments are always f32. A run's
    /// folder stores the type that `auto` resolved to.
    pub precision: Precision,
    /// The device: `auto`, `cpu`, `cuda`, or `cuda:1` for the second GPU.
    #[serde(with = "device", skip_serializing_if = "is_cpu")]
    pub device: DeviceChoice,
    /// The CPU's instruction set, as in `CLOZE_CPU`; by default the fastest by measurement. A run's folder stores the
    /// one with which it was started: the last bits of results depend on it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub instruction_set: Option<String>,
    /// Number of CPU threads; by default all.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub threads: Option<usize>,
    /// Activation checkpointing: the backward pass recomputes the activations of each layer instead of storing them.
    /// The results are identical; it takes a third more time, and a fraction of the memory if activations dominate.
    pub recompute: bool,
    /// Sizes of the model, or the checkpoint to start from.
    pub model: ModelSection,
    /// The objective.
    pub objective: ObjectiveSection,
    /// The phases, in order: the paper trains 90 % of its steps at length 128, the rest at 512.
    pub phase: Vec<Phase>,
    /// The optimizer and its settings.
    pub optimizer: Optimizer,
    /// The learning-rate schedule.
    pub schedule: Schedule,
    /// Evaluation on the held-out shards.
    pub eval: Eval,
    /// Saving of checkpoints.
    pub checkpoint: CheckpointSection,
    /// Logging.
    pub log: Log,
    /// Training in several processes.
    #[serde(skip_serializing_if = "RanksSection::is_default")]
    pub ranks: RanksSection,
}

/// `[ranks]`: how the ranks of a job, started by mpirun or srun, train together.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
#[non_exhaustive]
pub struct RanksSection {
    /// Type of the gradients on the way between ranks: `f32`, with which the result has the same bits for any number of ranks, or
    /// `bf16`, half of the bytes. Sums are always f32.
    #[serde(skip_serializing_if = "Wire::is_default")]
    pub gradients: Wire,
    /// Each rank trains alone for this number of steps; then all exchange the changes of their weights (DiLoCo). For slow networks. The
    /// result depends on the number of ranks.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub local_steps: Option<u64>,
    /// `local_steps`: the learning rate of the outer optimizer; 0.7 by default.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub outer_lr: Option<f64>,
    /// `local_steps`: the Nesterov momentum of the outer optimizer; 0.9 by default.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub outer_momentum: Option<f64>,
}

impl RanksSection {
    /// The outer optimizer of local steps.
    pub fn outer(&self) -> Option<OuterOptimizer> {
        Some(OuterOptimizer {
            every: self.local_steps?,
            lr: self.outer_lr.unwrap_or(0.7),
            momentum: self.outer_momentum.unwrap_or(0.9),
        })
    }

    /// Whether all values are the defaults.
    pub fn is_default(&self) -> bool {
        *self == RanksSection::default()
    }
}

/// Type of the activations.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum Precision {
    /// The faster of the two on the device, by measurement.
    #[default]
    Auto,
    /// bfloat16 activations and operands, f32 accumulation and weights.
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

    /// All of them, with the name in recipes and what it means.
    pub const ALL: [(Precision, &'static str, &'static str); 3] = [
        (Precision::Auto, "auto", "The faster of the two on this machine, by measurement"),
        (Precision::F32, "f32", "Single precision"),
        (Precision::Bf16, "bf16", "bfloat16, with sums in f32; computed in f32 where the CPU is faster so"),
    ];

    /// The precision on a device, with `auto` resolved.
    pub fn resolved(self, device: &Device) -> Precision {
        if self.dtype(device) == DType::BF16 { Precision::Bf16 } else { Precision::F32 }
    }

    /// `"auto"`, `"bf16"` or `"f32"`.
    pub fn name(self) -> &'static str {
        Precision::ALL.iter().find(|(precision, ..)| *precision == self).map_or("", |(_, name, _)| name)
    }
}

/// `[model]`: sizes with the names of Hugging Face's config.json, or only `init` (and dropouts, if they should differ).
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
#[non_exhaustive]
pub struct ModelSection {
    /// A Hugging Face folder from which the run takes initial weights and sizes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub init: Option<PathBuf>,
    /// `model_type` of the [`Family`]: `bert` by default, `roberta`, `xlm-roberta`, `camembert`, `mpnet`,
    /// `modernbert`, `distilbert`, `albert`, `electra`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub family: Option<String>,
    /// Width of the embeddings, E, in ALBERT and ELECTRA; 128 by default.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub embedding_size: Option<usize>,
    /// ALBERT: the number of groups of layers; 1 by default.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub num_hidden_groups: Option<usize>,
    /// ALBERT: the number of layers in a group; 1 by default.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub inner_group_num: Option<usize>,
    /// Families without groups: the parts of a layer that all layers share; none by default.
    #[serde(skip_serializing_if = "SharedParts::is_none")]
    pub shared_parts: SharedParts,
    /// Hidden size, H.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hidden_size: Option<usize>,
    /// Encoder layers, L.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub num_hidden_layers: Option<usize>,
    /// Number of attention heads; must divide `hidden_size`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub num_attention_heads: Option<usize>,
    /// Width of the feed-forward block, F; 4·H by default, and in ModernBERT, whose block has three matrices, 8/3·H rounded up
    /// to a multiple of 32.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub intermediate_size: Option<usize>,
    /// Activation of the feed-forward block; `gelu` (erf) by default.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hidden_act: Option<HiddenAct>,
    /// Dropout on the embeddings and both sublayers; 0.1 by default, 0 in ModernBERT.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hidden_dropout_prob: Option<f64>,
    /// Dropout on the attention weights; 0.1 by default, 0 in ModernBERT.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub attention_probs_dropout_prob: Option<f64>,
    /// ModernBERT: every n-th layer attends to all tokens, the others only to near ones; 3 by default.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub global_attn_every_n_layers: Option<usize>,
    /// ModernBERT: tokens of the window of the other layers, of which one half is on each side; 128 by default.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub local_attention: Option<usize>,
    /// Number of positions; 512 by default, 8,192 in ModernBERT, which learns no table of them.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_position_embeddings: Option<usize>,
    /// Number of segments (token types); 2 by default.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub type_vocab_size: Option<usize>,
    /// Standard deviation of the truncated normal that initialises matrices; 0.02 by default.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub initializer_range: Option<f64>,
    /// LayerNorm's ε; 1e-12 by default, 1e-5 in RoBERTa's family, MPNet and ModernBERT.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub layer_norm_eps: Option<f64>,
}

impl ModelSection {
    /// The family of a new model; BERT for an unknown name, which the check of a recipe rejects.
    pub fn family(&self) -> &'static Family {
        self.family.as_deref().map_or(&BERT, |name| Family::of(name).unwrap_or(&BERT))
    }

    /// Maximum number of tokens of a sequence of a model with these sizes; `None` if it comes from a checkpoint. In
    /// RoBERTa's family, positions start after the padding token; its id is assumed to be 1.
    pub fn positions(&self) -> Option<usize> {
        match self.init {
            Some(_) => None,
            None => {
                let first = if self.family().positions_skip_padding() { 2 } else { 0 };
                Some(self.max_position_embeddings.map_or(self.default_length(), |rows| rows.saturating_sub(first)))
            }
        }
    }

    /// Length of a sequence by default.
    fn default_length(&self) -> usize {
        if self.family().is_modern() { 8192 } else { 512 }
    }

    /// Number of segments of a model with these sizes: by default 2, and 1 in RoBERTa's family; 0 in families without segments.
    pub fn segments(&self) -> usize {
        let family = self.family();
        match family.has_key("type_vocab_size") {
            false => 0,
            true => self.type_vocab_size.unwrap_or(if family.positions_skip_padding() { 1 } else { 2 }),
        }
    }

    /// The configuration of a new model with these sizes, for a vocabulary.
    ///
    /// # Errors
    /// [`ModelError::Config`] for sizes that do not fit together or the family.
    pub fn config(&self, vocab_size: usize, special: Special) -> Result<Config, ModelError> {
        let family = self.family();
        let hidden = self.hidden_size.unwrap_or(768);
        let padding = family.padding(Some(special.pad)).filter(|_| family.positions_skip_padding());
        let first = padding.map_or(0, |padding| padding as usize + 1);
        let dropout = if family.is_modern() { 0.0 } else { 0.1 };
        // The default has as many weights: a gated block has three matrices.
        let inner = if family.is_modern() { (8 * hidden / 3).next_multiple_of(32) } else { 4 * hidden };
        let mut keys = json!({
            "model_type": family.model_type,
            "vocab_size": vocab_size,
            "pad_token_id": special.pad,
            "hidden_size": hidden,
            "num_hidden_layers": self.num_hidden_layers.unwrap_or(12),
            "num_attention_heads": self.num_attention_heads.unwrap_or(12),
            "intermediate_size": self.intermediate_size.unwrap_or(inner),
            "max_position_embeddings": self.max_position_embeddings.unwrap_or(self.default_length() + first),
            "initializer_range": self.initializer_range.unwrap_or(0.02),
        });
        let mut set = |key: &str, value: serde_json::Value| keys[family.key(key)] = value;
        // Absent keys have the defaults of the family.
        self.hidden_act.into_iter().for_each(|act| set("hidden_act", json!(act)));
        let sizes = [
            ("embedding_size", self.embedding_size),
            ("num_hidden_groups", self.num_hidden_groups),
            ("inner_group_num", self.inner_group_num),
        ];
        sizes.into_iter().filter_map(|(key, size)| Some((key, size?))).for_each(|(key, size)| set(key, json!(size)));
        if family.has_key("type_vocab_size") {
            set("type_vocab_size", json!(self.segments()));
        }
        if family.has_key("layer_norm_eps") {
            // 1e-5 is the value of the published models of RoBERTa's family.
            let default = if family.positions_skip_padding() || family.is_modern() { 1e-5 } else { 1e-12 };
            set("layer_norm_eps", json!(self.layer_norm_eps.unwrap_or(default)));
        }
        if !self.shared_parts.is_none() {
            set("cloze_shared_parts", json!(self.shared_parts));
        }
        if family.model_type != BERT.model_type {
            set("bos_token_id", json!(special.cls));
            set("eos_token_id", json!(special.sep));
        }
        if family.is_modern() {
            set("cls_token_id", json!(special.cls));
            set("sep_token_id", json!(special.sep));
            // Transformers derives the kinds of all layers from these keys.
            set("global_attn_every_n_layers", json!(self.global_attn_every_n_layers.unwrap_or(3)));
            set("local_attention", json!(self.local_attention.unwrap_or(128)));
        }
        let problem = |problem: String| ModelError::Config { path: None, problem };
        let mut config: Config = serde_json::from_value(keys).map_err(|e| problem(e.to_string()))?;
        let [hidden, attention] = [self.hidden_dropout_prob, self.attention_probs_dropout_prob];
        config.set_dropout(Some(hidden.unwrap_or(dropout)), Some(attention.unwrap_or(dropout)));
        config.validate()?;
        Ok(config)
    }
}

/// `[objective]`: masked language modelling, with next-sentence prediction unless `nsp = false` or with sentence-order
/// prediction (`sop = true`); causal language modelling; replaced tokens; or distillation.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
#[non_exhaustive]
pub struct ObjectiveSection {
    /// The kind of objective. With `causal-lm` the other keys have no effect; with `rtd`, the keys of masking are those
    /// of the generator's text.
    #[serde(skip_serializing_if = "ObjectiveKind::is_default")]
    pub kind: ObjectiveKind,
    /// Fraction of the tokens chosen for prediction; with `final_rate`, at the start of the run.
    pub rate: f64,
    /// This fraction at the end of the run. In between, it is linear in the run's progress, like the learning rate: by steps,
    /// or by elapsed time if the run has a time limit. Held-out text is always masked at this rate.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub final_rate: Option<f64>,
    /// Fraction of the chosen tokens that become \[MASK\].
    pub mask: f64,
    /// Fraction of the chosen tokens that become a random token; the rest are unchanged.
    pub random: f64,
    /// What is chosen together.
    pub masking: MaskingKind,
    /// The former name of `masking = "whole-word"`. It is read as that, and not written.
    #[serde(skip_serializing)]
    pub(super) whole_word: bool,
    /// Maximum number of words of an n-gram, for `masking = "ngram"`; 3 by default.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ngram: Option<usize>,
    /// Maximum number of predictions per sequence, as Google's `max_predictions_per_seq`; no limit by default.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_predictions: Option<usize>,
    /// Next-sentence prediction: whether to use sentence pairs and their loss; otherwise full sentences of one document.
    /// The default is true, unless `sop = true` or `kind = "distill"`.
    pub nsp: bool,
    /// Sentence-order prediction, instead of next-sentence prediction: the pairs are consecutive segments, half of them
    /// swapped.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub sop: bool,
    /// Fraction of the sequences that are cut to a random shorter length.
    pub short_seq_prob: f64,
    /// Static masks: each sequence has this number of fixed maskings. By default, masks are sampled in each epoch.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub duplicates: Option<u32>,
    /// `rtd`: the generator's width as a fraction of the discriminator's; 0.25 by default.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub generator_size: Option<f64>,
    /// `distill`: a Hugging Face folder with the teacher. Its tokenizer is that of the shards.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub teacher: Option<PathBuf>,
    /// `distill`: whether the student starts from the teacher's embeddings, MLM head and evenly spaced layers. Its sizes are
    /// those of the teacher, except for the number of layers. Otherwise its weights are random.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub init_from_teacher: bool,
    /// `distill`: the temperature of the soft targets; 2 by default.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub temperature: Option<f64>,
    /// `distill`: the weight of the loss of masked tokens; 2 by default. 0 disables a loss.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mlm_weight: Option<f64>,
    /// `distill`: the weight of the KL divergence from the teacher's soft targets of masked tokens; 5 by default.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub kl_weight: Option<f64>,
    /// `distill`: the weight of the cosine distance of the last hidden states of all tokens; 1 by default. It needs a
    /// student that is as wide as the teacher.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cosine_weight: Option<f64>,
    /// `distill`: the weight of the KL divergence of attention relations; 0 by default. MiniLM has only this loss.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub relation_weight: Option<f64>,
    /// `distill`: the number of relation heads, which divides the widths of teacher and student; 48 by default.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub relation_heads: Option<usize>,
    /// `distill`: the layer of the teacher whose relations the student's last layer learns, from 1; the last by default.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub relation_layer: Option<usize>,
}

impl Default for ObjectiveSection {
    fn default() -> Self {
        ObjectiveSection {
            kind: ObjectiveKind::default(),
            rate: 0.15,
            final_rate: None,
            mask: 0.8,
            random: 0.1,
            masking: MaskingKind::default(),
            whole_word: false,
            ngram: None,
            max_predictions: None,
            nsp: true,
            sop: false,
            short_seq_prob: 0.1,
            duplicates: None,
            generator_size: None,
            teacher: None,
            init_from_teacher: false,
            temperature: None,
            mlm_weight: None,
            kl_weight: None,
            cosine_weight: None,
            relation_weight: None,
            relation_heads: None,
            relation_layer: None,
        }
    }
}

/// What is chosen together for prediction; see [`MaskingUnit`].
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum MaskingKind {
    /// Single tokens.
    #[default]
    Token,
    /// Whole words.
    WholeWord,
    /// One to three words (ALBERT).
    Ngram,
    /// One to ten words, replaced as a unit (SpanBERT).
    Span,
}

impl MaskingKind {
    /// The unit for the data crate, with n-grams of at most `ngram` words.
    pub(super) fn unit(self, ngram: Option<usize>) -> MaskingUnit {
        match self {
            MaskingKind::Token => MaskingUnit::Token,
            MaskingKind::WholeWord => MaskingUnit::WholeWord,
            MaskingKind::Ngram => MaskingUnit::Ngram { max: ngram.unwrap_or(3) },
            MaskingKind::Span => MaskingUnit::Span,
        }
    }
}

/// The kinds of objectives.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ObjectiveKind {
    /// Masked tokens and next sentences, as in BERT.
    #[default]
    MaskedLm,
    /// Each token from those before it.
    CausalLm,
    /// Which tokens were replaced by a generator, as in ELECTRA.
    Rtd,
    /// Masked tokens and the states of a teacher, as in DistilBERT and MiniLM.
    Distill,
}

impl ObjectiveKind {
    /// The default is not written, so that recipes of earlier runs stay the same.
    fn is_default(&self) -> bool {
        *self == ObjectiveKind::default()
    }
}

/// A `[[phase]]`: a part of the run with its own sequence length and batch size.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
#[non_exhaustive]
pub struct Phase {
    /// Number of steps. Either every phase has `steps`, or every phase has `share`; a single phase needs neither.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub steps: Option<u64>,
    /// Fraction of the run.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub share: Option<f64>,
    /// The objective of this phase, if it is not that of the run: `causal-lm` in phases before the last one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub objective: Option<ObjectiveKind>,
    /// Maximum number of tokens of a sequence, including \[CLS\] and \[SEP\].
    pub seq_len: usize,
    /// Sequences per micro-batch.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub batch_sequences: Option<usize>,
    /// Maximum number of tokens per micro-batch, instead of `batch_sequences`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub batch_tokens: Option<usize>,
    /// Micro-batches per step, whose gradients are summed; fewer during the warmup of the batch.
    pub accumulate: u32,
}

impl Default for Phase {
    fn default() -> Self {
        Phase {
            steps: None,
            share: None,
            objective: None,
            seq_len: 128,
            batch_sequences: None,
            batch_tokens: None,
            accumulate: 1,
        }
    }
}

/// `[optimizer]`: AdamW or LAMB; the defaults are those of the paper.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
#[non_exhaustive]
pub struct Optimizer {
    /// The optimizer.
    pub kind: OptimizerKind,
    /// Peak learning rate.
    pub lr: f64,
    /// Decay rate of the first moment.
    pub beta1: f64,
    /// Decay rate of the second moment.
    pub beta2: f64,
    /// Added to the square root of the second moment.
    pub eps: f64,
    /// Decoupled weight decay; only on matrices, not on biases and LayerNorm.
    pub weight_decay: f64,
    /// Maximum global norm of the gradient; 0 disables clipping.
    pub clip_norm: f64,
    /// Only for `lamb`: whether to correct the moments for their initialisation with zeros, as in the paper; false by
    /// default, as ALBERT was trained. The kind of AdamW determines it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bias_correction: Option<bool>,
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
            bias_correction: None,
        }
    }
}

/// The optimizers: two variants of AdamW, and LAMB.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum OptimizerKind {
    /// BERT's variant: without bias correction.
    BertAdamw,
    /// That of Loshchilov & Hutter and PyTorch: with bias correction.
    Adamw,
    /// You et al. 2020: steps relative to the norm of each parameter, for large batches.
    Lamb,
}

impl OptimizerKind {
    /// All of them, with the name in recipes and what it means.
    pub const ALL: [(OptimizerKind, &'static str, &'static str); 3] = [
        (OptimizerKind::Adamw, "adamw", "AdamW with bias correction, as in PyTorch"),
        (OptimizerKind::BertAdamw, "bert-adamw", "AdamW without bias correction, as BERT was trained"),
        (OptimizerKind::Lamb, "lamb", "LAMB, as ALBERT was trained: for large batches"),
    ];

    /// The name in recipes.
    pub fn name(self) -> &'static str {
        OptimizerKind::ALL.iter().find(|(kind, ..)| *kind == self).map_or("", |(_, name, _)| name)
    }
}

/// `[schedule]`: the learning rate as a fraction of the peak, and the size of the batch, over the run.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
#[non_exhaustive]
pub struct Schedule {
    /// The schedule after warmup.
    pub kind: ScheduleKind,
    /// Number of linear warmup steps; needs `steps`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub warmup_steps: Option<u64>,
    /// Fraction of the run for linear warmup; 0.01, as in the paper, if neither is given.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub warmup_share: Option<f64>,
    /// Fraction of the run over which the batch grows to its full size. A phase's number of micro-batches per step is 1 at
    /// first and its `accumulate` at the end of this fraction; in between it grows by one after equal parts of it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub batch_warmup_share: Option<f64>,
    /// Fraction of the run over which `trapezoid` decays at the end; 0.2 by default.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub decay_share: Option<f64>,
    /// Final learning rate of linear, cosine and trapezoid as a fraction of the peak; 0 by default.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub final_share: Option<f64>,
}

/// `[eval]`: evaluation on the held-out shards.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
#[non_exhaustive]
pub struct Eval {
    /// Interval between evaluations; 0 disables them. Otherwise the end of the run is always evaluated, too.
    pub every: Every,
    /// Batches of the phase's size per evaluation, always the same ones; at most one epoch of the held-out shards.
    pub batches: u64,
}

impl Default for Eval {
    fn default() -> Self {
        Eval { every: Every::Steps(1000), batches: 32 }
    }
}

/// `[checkpoint]`: checkpoints while training. The one with the lowest held-out loss is kept in addition to the newest.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
#[non_exhaustive]
pub struct CheckpointSection {
    /// Interval between checkpoints; 0 saves only the last and the best.
    pub every: Every,
    /// Number of newest checkpoints to keep; the best is kept in addition.
    pub keep: usize,
}

impl Default for CheckpointSection {
    fn default() -> Self {
        CheckpointSection { every: Every::Steps(1000), keep: 2 }
    }
}

/// `[log]`: logging to metrics.jsonl and TensorBoard.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
#[non_exhaustive]
pub struct Log {
    /// Interval between lines; their values are means over the interval. The last step is always logged.
    pub every: Every,
}

impl Default for Log {
    fn default() -> Self {
        Log { every: Every::Steps(10) }
    }
}

/// A device as text.
mod device {
    use cloze_engine::DeviceChoice;
    use serde::{Deserialize, Deserializer, Serializer, de::Error};

    pub(super) fn serialize<S: Serializer>(choice: &DeviceChoice, to: S) -> Result<S::Ok, S::Error> {
        to.collect_str(choice)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<DeviceChoice, D::Error> {
        String::deserialize(from)?.parse().map_err(D::Error::custom)
    }
}

fn is_cpu(choice: &DeviceChoice) -> bool {
    *choice == DeviceChoice::Cpu
}
