//! How a model is fine-tuned: a handful of numbers, the paper's by default.

use cloze_text::SpecialTokens;
use cloze_train::recipe::{OptimizerKind, Precision, ScheduleKind};
use serde::{Deserialize, Serialize};

use crate::TaskError;

/// The settings of a fine-tuning (Devlin et al. 2019, appendix A.3). Written to `finetune.toml` of the run's folder.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default, rename_all = "kebab-case")]
#[non_exhaustive]
pub struct Settings {
    /// Passes over the training rows.
    pub epochs: u32,
    /// Examples of a step.
    pub batch: usize,
    /// Micro-batches that a step's examples are cut into, to save memory; the gradient is the same.
    pub accumulate: usize,
    /// Peak learning rate.
    pub lr: f64,
    /// Share of the steps over which the rate rises from zero.
    pub warmup: f64,
    /// What the rate does afterwards.
    pub schedule: ScheduleKind,
    /// AdamW with bias correction, or the paper's without: small sets are learned more reliably with it (Mosbach et al. 2021).
    pub optimizer: OptimizerKind,
    /// AdamW's ε.
    pub eps: f64,
    /// Decay of the matrices.
    pub weight_decay: f64,
    /// Largest norm of the gradient; 0 switches clipping off.
    pub clip_norm: f64,
    /// Each layer's rate as a share of that of the layer above it; 1: all the same.
    pub layer_decay: f64,
    /// The layers that do not learn, if any: the embeddings (0) and so many above them.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub freeze: Option<usize>,
    /// Dropout of the hidden states and attention weights, if another than the checkpoint's.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub dropout: Option<f64>,
    /// How much each class counts in the loss.
    pub class_weights: ClassWeights,
    /// Evaluations of an epoch.
    pub evals_per_epoch: u32,
    /// Evaluations without a better score after which training stops.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub patience: Option<u32>,
    /// Seed of the head's first weights, the order of the rows and the dropout.
    pub seed: u64,
    /// Type of the activations. A run's folder holds the type that `auto` stood for.
    pub precision: Precision,
    /// The instruction set that the run began with, as `CLOZE_CPU` names it: results depend on it in their last bits.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub instruction_set: Option<String>,
    /// Whether layers' activations are computed again in the backward pass instead of being kept.
    pub recompute: bool,
    /// How names of special tokens in texts are read, if not as the model's folder says.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub special_tokens: Option<SpecialTokens>,
    /// Steps between checkpoints to resume from, beside those at evaluations.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub checkpoint_every: Option<u64>,
}

/// How much each class counts in the loss.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum ClassWeights {
    /// Every row alike.
    #[default]
    None,
    /// Inversely to its number of rows: n / (classes · n_c), as scikit-learn's `balanced`.
    Balanced,
    /// By these numbers, in the order of the labels.
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
    /// Checks every number.
    ///
    /// # Errors
    /// [`TaskError::Setting`] with the first that cannot be used.
    pub fn validate(&self) -> Result<(), TaskError> {
        let require = |fine: bool, key: &'static str, found: String, expected: &str| {
            if fine { Ok(()) } else { Err(TaskError::setting(key, format!("is {found}: expected {expected}"))) }
        };
        let share = |x: f64| (0.0..=1.0).contains(&x);
        let positive = |x: f64| x > 0.0 && x.is_finite();
        require(self.epochs > 0, "epochs", self.epochs.to_string(), "at least 1")?;
        require(self.batch > 0, "batch", self.batch.to_string(), "at least 1")?;
        let pieces = 1..=self.batch;
        require(pieces.contains(&self.accumulate), "accumulate", self.accumulate.to_string(), "from 1 to the batch")?;
        require(positive(self.lr), "lr", self.lr.to_string(), "a number above 0, such as 5e-5")?;
        require(share(self.warmup), "warmup", self.warmup.to_string(), "a share from 0 to 1")?;
        require(positive(self.eps), "eps", self.eps.to_string(), "a number above 0")?;
        require(share(self.weight_decay), "weight-decay", self.weight_decay.to_string(), "from 0 to 1")?;
        let clip = self.clip_norm >= 0.0 && self.clip_norm.is_finite();
        require(clip, "clip-norm", self.clip_norm.to_string(), "0 (no clipping) or more")?;
        let decay = self.layer_decay > 0.0 && self.layer_decay <= 1.0;
        require(decay, "layer-decay", self.layer_decay.to_string(), "above 0, at most 1 (no decay)")?;
        let dropout = self.dropout.unwrap_or(0.0);
        require((0.0..1.0).contains(&dropout), "dropout", dropout.to_string(), "from 0 up to, not including, 1")?;
        // TOML's integers are signed.
        require(self.seed <= i64::MAX as u64, "seed", self.seed.to_string(), "9223372036854775807 at most")?;
        let most = 1000;
        let evals = self.evals_per_epoch.to_string();
        require((1..=most).contains(&self.evals_per_epoch), "evals-per-epoch", evals, "from 1 to 1000")?;
        require(self.patience != Some(0), "patience", "0".to_owned(), "at least 1")?;
        require(self.checkpoint_every != Some(0), "checkpoint-every", "0".to_owned(), "at least 1")?;
        if let ClassWeights::Given(weights) = &self.class_weights {
            let fine = weights.iter().all(|w| *w >= 0.0 && w.is_finite()) && weights.iter().any(|w| *w > 0.0);
            require(fine, "class-weights", format!("{weights:?}"), "numbers of 0 or more, not all 0")?;
        }
        Ok(())
    }

    /// Whether a run with these settings ends with the weights of one with the others: all but the checkpoints, what is computed
    /// again and what is left to the machine are the same.
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

    /// What keeps a run that began with these settings from ending as one with the others, a phrase each: "lr = 5e-5, now 1e-5".
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

    /// The text of `finetune.toml`.
    ///
    /// # Errors
    /// A value that TOML cannot hold.
    pub fn to_toml(&self) -> Result<String, TaskError> {
        toml::to_string(self).map_err(|e| TaskError::setting("settings", format!("cannot be written as TOML: {e}")))
    }
}
