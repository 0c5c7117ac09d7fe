//! The hyperparameters of fine-tuning; the defaults are those of the paper.

use cloze_model::{Features, TaskInput};
use cloze_text::SpecialTokens;
use cloze_train::recipe::{OptimizerKind, Precision, ScheduleKind};
use serde::{Deserialize, Serialize};

use crate::TaskError;

/// The hyperparameters of a fine-tuning run (Devlin et al. 2019, appendix A.3). Stored in `finetune.toml` of the run
/// folder.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default, rename_all = "kebab-case")]
#[non_exhaustive]
pub struct Settings {
    /// Epochs: passes over the training rows.
    pub epochs: u32,
    /// Examples per step.
    pub batch: usize,
    /// Micro-batches per step (gradient accumulation). They save memory; the gradient is the same.
    pub accumulate: usize,
    /// Peak learning rate.
    pub lr: f64,
    /// Fraction of the steps over which the learning rate rises linearly from zero, from 0 to 1.
    pub warmup: f64,
    /// The schedule of the learning rate after the warm-up.
    pub schedule: ScheduleKind,
    /// AdamW with bias correction, the paper's variant without it, or LAMB. Bias correction makes fine-tuning on small
    /// data sets more stable (Mosbach et al. 2021).
    pub optimizer: OptimizerKind,
    /// The optimizer's ε.
    pub eps: f64,
    /// Weight decay, applied to matrices only.
    pub weight_decay: f64,
    /// Maximum global norm of the gradient; 0 disables clipping.
    pub clip_norm: f64,
    /// Layer-wise learning rate decay, d: each layer's rate divided by that of the layer above it. 1: all layers have the
    /// same rate. Of L layers, numbered from 1, layer n has the factor dᴸ⁺¹⁻ⁿ and the embeddings dᴸ⁺¹; heads, with the
    /// pooler, have the full rate. ELECTRA (Clark et al. 2020) uses 0.8, and 0.9 for its large model. Its code has one
    /// factor d more in all layers and in the embeddings (dᴸ⁺²⁻ⁿ and dᴸ⁺²; the top layer has d²), because it counts a
    /// depth between the top layer and the heads at which there are no parameters. The paper does not mention that
    /// factor, so it is left out here.
    pub layer_decay: f64,
    /// Frozen layers: 0 freezes the embeddings, n the embeddings and the n lowest layers. None: nothing is frozen.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub freeze: Option<usize>,
    /// The feature-based approach (section 5.3): the encoder is frozen, and the head reads these hidden states. None: the
    /// encoder is fine-tuned.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub features: Option<Features>,
    /// Layers of a new BiLSTM between the encoder, or its features, and the head (sections 5.1 and 5.3); 0: none.
    #[serde(skip_serializing_if = "is_zero")]
    pub bilstm: usize,
    /// Units of the BiLSTM in each direction. None: the hidden size.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bilstm_size: Option<usize>,
    /// Dropout of the hidden states and attention weights. None: the checkpoint's.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub dropout: Option<f64>,
    /// How much each class counts in the loss.
    pub class_weights: ClassWeights,
    /// Evaluations per epoch.
    pub evals_per_epoch: u32,
    /// Early stopping: training stops after this number of consecutive evaluations without a better score.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub patience: Option<u32>,
    /// Seed of the head's initial weights, of the order of the rows and of dropout.
    pub seed: u64,
    /// Data type of the activations. The run folder stores the type that `auto` was resolved to.
    pub precision: Precision,
    /// The instruction set that the run started with, by its name in `CLOZE_CPU`. Results with different instruction
    /// sets differ in their last bits.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub instruction_set: Option<String>,
    /// Activation checkpointing: the layers' activations are recomputed in the backward pass instead of being stored.
    pub recompute: bool,
    /// How the names of special tokens in texts are tokenized. None: as the model folder says.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub special_tokens: Option<SpecialTokens>,
    /// Steps between checkpoints. Checkpoints are also saved at evaluations.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub checkpoint_every: Option<u64>,
}

fn is_zero(number: &usize) -> bool {
    *number == 0
}

/// How much each class counts in the loss.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum ClassWeights {
    /// All classes have weight 1.
    #[default]
    None,
    /// Inversely proportional to the class frequency: n / (classes · n_c), as scikit-learn's `balanced`.
    Balanced,
    /// These weights, in the order of the labels.
    Given(Vec<f32>),
}

impl Default for Settings {
    fn default() -> Settings {
        Settings {
            epochs: 3,
            batch: 32,
            accumulate: 1,
            lr: 5e-5,
            warmup: 0.1,
            schedule: ScheduleKind::Linear,
            optimizer: OptimizerKind::Adamw,
            eps: 1e-8,
            weight_decay: 0.01,
            clip_norm: 1.0,
            layer_decay: 1.0,
            freeze: None,
            features: None,
            bilstm: 0,
            bilstm_size: None,
            dropout: None,
            class_weights: ClassWeights::None,
            evals_per_epoch: 1,
            patience: None,
            seed: 1,
            precision: Precision::Auto,
            instruction_set: None,
            recompute: false,
            special_tokens: None,
            checkpoint_every: None,
        }
    }
}

impl Settings {
    /// Checks every value.
    ///
    /// # Errors
    /// [`TaskError::Setting`] for the first value that is out of range.
    pub fn validate(&self) -> Result<(), TaskError> {
        let require = |fine: bool, key: &'static str, found: String, expected: &str| {
            if fine { Ok(()) } else { Err(TaskError::setting(key, format!("expected {expected}, found {found}"))) }
        };
        let share = |x: f64| (0.0..=1.0).contains(&x);
        let positive = |x: f64| x > 0.0 && x.is_finite();
        require(self.epochs > 0, "epochs", self.epochs.to_string(), "at least 1")?;
        require(self.batch > 0, "batch", self.batch.to_string(), "at least 1")?;
        let pieces = 1..=self.batch;
        require(pieces.contains(&self.accumulate), "accumulate", self.accumulate.to_string(), "from 1 to `batch`")?;
        require(positive(self.lr), "lr", self.lr.to_string(), "a number above 0, such as 5e-5")?;
        require(share(self.warmup), "warmup", self.warmup.to_string(), "from 0 to 1")?;
        require(positive(self.eps), "eps", self.eps.to_string(), "a number above 0")?;
        require(share(self.weight_decay), "weight_decay", self.weight_decay.to_string(), "from 0 to 1")?;
        let clip = self.clip_norm >= 0.0 && self.clip_norm.is_finite();
        require(clip, "clip_norm", self.clip_norm.to_string(), "0 (no clipping) or more")?;
        let decay = self.layer_decay > 0.0 && self.layer_decay <= 1.0;
        require(decay, "layer_decay", self.layer_decay.to_string(), "above 0 and at most 1 (no decay)")?;
        let is_frozen_once = self.features.is_none() || self.freeze.is_none();
        require(is_frozen_once, "freeze", "both".to_owned(), "`features`, which freezes all layers, or `freeze`")?;
        let most = TaskInput::MAX_BILSTM_LAYERS;
        require(self.bilstm <= most, "bilstm", self.bilstm.to_string(), &format!("at most {most} layers"))?;
        let (size, most) = (self.bilstm_size.unwrap_or(1), TaskInput::MAX_BILSTM_SIZE);
        require((1..=most).contains(&size), "bilstm_size", size.to_string(), &format!("from 1 to {most}"))?;
        let has_use = self.bilstm > 0 || self.bilstm_size.is_none();
        require(has_use, "bilstm_size", "a size without `bilstm`".to_owned(), "a number of layers, `bilstm`, as well")?;
        let dropout = self.dropout.unwrap_or(0.0);
        require((0.0..1.0).contains(&dropout), "dropout", dropout.to_string(), "at least 0 and less than 1")?;
        // Integers of TOML are signed.
        require(self.seed <= i64::MAX as u64, "seed", self.seed.to_string(), "at most 9223372036854775807")?;
        let most = 1000;
        let evals = self.evals_per_epoch.to_string();
        require((1..=most).contains(&self.evals_per_epoch), "evals_per_epoch", evals, "from 1 to 1000")?;
        require(self.patience != Some(0), "patience", "0".to_owned(), "at least 1")?;
        require(self.checkpoint_every != Some(0), "checkpoint_every", "0".to_owned(), "at least 1")?;
        if let ClassWeights::Given(weights) = &self.class_weights {
            let fine = weights.iter().all(|w| *w >= 0.0 && w.is_finite()) && weights.iter().any(|w| *w > 0.0);
            require(fine, "class_weights", format!("{weights:?}"), "numbers of at least 0, not all of them 0")?;
        }
        Ok(())
    }

    /// Whether runs with the two settings produce the same weights. The intervals of checkpoints, activation
    /// checkpointing and what the machine chooses (`auto` precision, instruction set) may differ.
    pub fn same_trajectory(&self, other: &Settings) -> bool {
        let free = |settings: &Settings| Settings {
            checkpoint_every: None,
            recompute: false,
            precision: Precision::Auto,
            instruction_set: None,
            ..settings.clone()
        };
        let types = [self.precision, other.precision];
        let same_type = types[0] == types[1] || types.contains(&Precision::Auto);
        same_type && free(self) == free(other)
    }

    /// The settings that [`same_trajectory`](Self::same_trajectory) requires to be equal and that are not, each as a
    /// phrase: "lr = 5e-5, now 1e-5". `self` holds the settings that the run started with.
    ///
    /// # Errors
    /// As [`to_toml`](Self::to_toml).
    pub fn differences(&self, other: &Settings) -> Result<Vec<String>, TaskError> {
        let table = |settings: &Settings| -> Result<toml::Table, TaskError> {
            let problem = |e: toml::de::Error| TaskError::setting("settings", e.to_string());
            toml::from_str(&settings.to_toml()?).map_err(problem)
        };
        let (began, now) = (table(self)?, table(other)?);
        let mut keys: Vec<&String> = began.keys().chain(now.keys()).collect();
        keys.sort();
        keys.dedup();
        let any_type = [self.precision, other.precision].contains(&Precision::Auto);
        let is_free = |key: &str| {
            ["checkpoint-every", "recompute", "instruction-set"].contains(&key) || key == "precision" && any_type
        };
        let shown = |of: &toml::Table, key: &str| of.get(key).map_or("not given".to_owned(), ToString::to_string);
        let differ = keys.into_iter().filter(|key| !is_free(key.as_str()) && began.get(*key) != now.get(*key));
        Ok(differ.map(|key| format!("{key} = {}, now {}", shown(&began, key), shown(&now, key))).collect())
    }

    /// The content of `finetune.toml`.
    ///
    /// # Errors
    /// A value that TOML cannot represent.
    pub fn to_toml(&self) -> Result<String, TaskError> {
        toml::to_string(self).map_err(|e| TaskError::setting("settings", format!("cannot be written as TOML: {e}")))
    }
}
