//! The settings of a run that trains embeddings.

use serde::{Deserialize, Serialize};

use super::losses::{Candidates, Compare, Distance, Hardness, InfoNce, Loss, Matryoshka};
use crate::TaskError;
use crate::finetune::resume::RunSettings;
use crate::settings::Settings;

/// The part of the words that denoising deletes: the best of Wang et al. 2021, table 5.
const DELETION_RATIO: f64 = 0.6;

/// The default number of mined negatives, and their margin: that of NV-Retriever (Moreira et al. 2024).
const MINE_NEGATIVES: usize = 1;
const MINE_MARGIN: f32 = 0.05;

/// A loss by name; the other settings complete it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum LossKind {
    /// [`Loss::InfoNce`].
    #[default]
    InfoNce,
    /// [`Loss::CoSent`].
    Cosent,
    /// [`Loss::Triplet`].
    Triplet,
    /// [`Loss::MarginMse`].
    MarginMse,
    /// [`Loss::Kl`].
    Kl,
    /// [`Loss::Mse`].
    Mse,
    /// Denoising (Wang et al. 2021, "TSDAE"): a decoder predicts each text from the vector of a copy with deleted words.
    Denoising,
}

impl LossKind {
    /// All losses, with their names and descriptions.
    pub const ALL: [(LossKind, &'static str, &'static str); 7] = [
        (LossKind::InfoNce, "info-nce", "Each positive among all texts of the batch (MultipleNegativesRankingLoss)"),
        (LossKind::Cosent, "cosent", "The order of scored pairs (CoSENTLoss)"),
        (LossKind::Triplet, "triplet", "The distance to a positive and to a negative (TripletLoss)"),
        (LossKind::MarginMse, "margin-mse", "A teacher's differences of scores (MarginMSELoss)"),
        (LossKind::Kl, "kl", "A teacher's distribution over the candidates (DistillKLDivLoss)"),
        (LossKind::Mse, "mse", "A teacher's vectors (MSELoss)"),
        (
            LossKind::Denoising,
            "denoising",
            "Each text from the vector of a damaged copy (DenoisingAutoEncoderLoss, TSDAE)",
        ),
    ];

    /// The name.
    pub fn name(self) -> &'static str {
        LossKind::ALL.iter().find(|(kind, ..)| *kind == self).map_or("", |(_, name, _)| name)
    }

    /// Whether the two texts of a pair have the same role, rather than those of a query and a document.
    pub fn is_of_equals(self) -> bool {
        matches!(self, LossKind::Cosent | LossKind::Mse | LossKind::Denoising)
    }

    /// The default temperature: that of sentence-transformers.
    pub fn temperature(self) -> f64 {
        match self {
            LossKind::Kl => 1.0,
            _ => 0.05,
        }
    }
}

/// The settings of a run. Stored in `finetune.toml` of the run folder.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default, rename_all = "kebab-case")]
#[non_exhaustive]
pub struct EmbedSettings {
    /// The loss.
    pub loss: LossKind,
    /// The temperature: of InfoNCE and CoSENT the inverse of the similarities' factor, of KL that of both distributions.
    /// None: that of [`LossKind::temperature`].
    #[serde(skip_serializing_if = "Option::is_none")]
    pub temperature: Option<f64>,
    /// Whether InfoNCE's temperature is learned, starting with this one (Radford et al. 2021, "CLIP").
    pub learn_temperature: bool,
    /// How embeddings are compared: InfoNCE, margin-MSE and KL. None: by the cosine for InfoNCE, by the dot product for the
    /// others, as in sentence-transformers.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub compare: Option<Compare>,
    /// What InfoNCE compares an anchor with.
    pub candidates: Candidates,
    /// Whether InfoNCE has both directions.
    pub symmetric: bool,
    /// Which negatives of InfoNCE weigh more if they are similar to the anchor.
    pub hardness: Hardness,
    /// By how much; 0: all negatives are equal.
    pub hardness_strength: f64,
    /// The distance of the triplet loss.
    pub distance: Distance,
    /// The margin of the triplet loss. None: 5 for Euclidean distances, 0.5 for cosine distances.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub margin: Option<f64>,
    /// The probability that a word is deleted from the damaged copy, for denoising.
    pub deletion_ratio: f64,
    /// Numbers of leading dimensions that are trained to be useful alone, in addition to all dimensions.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub dimensions: Vec<usize>,
    /// Mine hard negatives among all texts of the training rows, with the current model: before the first step, and again
    /// after this number of steps. None: only the rows' own negatives.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mine_every: Option<u64>,
    /// The number of mined negatives of each row.
    pub mine_negatives: usize,
    /// How much less similar than the positive a mined negative must be, as a part of the positive's similarity.
    pub mine_margin: f32,
    /// The width of a new dense layer after the pooling. None: no new layer.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub dense: Option<usize>,
    /// Maximum number of tokens of a forward pass. The texts of a step beyond it are computed in several passes; the
    /// gradient is the same.
    pub micro_tokens: usize,
    /// The settings that all fine-tuning has.
    pub training: Settings,
}

impl Default for EmbedSettings {
    fn default() -> EmbedSettings {
        let training = Settings { epochs: 1, batch: 256, ..Settings::default() };
        EmbedSettings {
            loss: LossKind::InfoNce,
            temperature: None,
            learn_temperature: false,
            compare: None,
            candidates: Candidates::InBatch,
            symmetric: false,
            hardness: Hardness::InBatch,
            hardness_strength: 0.0,
            distance: Distance::Euclidean,
            margin: None,
            deletion_ratio: DELETION_RATIO,
            dimensions: Vec::new(),
            mine_every: None,
            mine_negatives: MINE_NEGATIVES,
            mine_margin: MINE_MARGIN,
            dense: None,
            micro_tokens: 8192,
            training,
        }
    }
}

impl EmbedSettings {
    /// Checks every value.
    ///
    /// # Errors
    /// [`TaskError::Setting`] for the first that is out of range, or that has no effect with this loss.
    pub fn validate(&self) -> Result<(), TaskError> {
        let require = |fine: bool, key: &'static str, problem: String| {
            if fine { Ok(()) } else { Err(TaskError::setting(key, problem)) }
        };
        self.training.validate()?;
        let loss = self.loss;
        let has = |kinds: &[LossKind]| kinds.contains(&loss);
        let of_loss = |default: bool, kinds: &[LossKind], key: &'static str| {
            let names: Vec<&str> = kinds.iter().map(|kind| kind.name()).collect();
            require(
                default || has(kinds),
                key,
                format!("has no effect with the loss {}; it is for {}", loss.name(), names.join(", ")),
            )
        };
        let nce = &[LossKind::InfoNce][..];
        of_loss(self.temperature.is_none(), &[LossKind::InfoNce, LossKind::Cosent, LossKind::Kl], "temperature")?;
        of_loss(!self.learn_temperature, nce, "learn_temperature")?;
        of_loss(self.compare.is_none(), &[LossKind::InfoNce, LossKind::MarginMse, LossKind::Kl], "compare")?;
        of_loss(self.candidates == Candidates::InBatch, nce, "candidates")?;
        of_loss(!self.symmetric, nce, "symmetric")?;
        of_loss(self.hardness_strength == 0.0, nce, "hardness_strength")?;
        of_loss(self.distance == Distance::default(), &[LossKind::Triplet], "distance")?;
        of_loss(self.margin.is_none(), &[LossKind::Triplet], "margin")?;
        of_loss(self.mine_every.is_none(), nce, "mine_every")?;
        require(self.mine_every != Some(0), "mine_every", "expected at least 1 step, found 0".to_owned())?;
        let mines = |is_default: bool, key: &'static str| {
            require(is_default || self.mine_every.is_some(), key, "has no effect without `mine_every`".to_owned())
        };
        mines(self.mine_negatives == MINE_NEGATIVES, "mine_negatives")?;
        mines(self.mine_margin == MINE_MARGIN, "mine_margin")?;
        require(self.mine_negatives > 0, "mine_negatives", "expected at least 1, found 0".to_owned())?;
        let margin = self.mine_margin;
        require(
            (0.0..1.0).contains(&margin),
            "mine_margin",
            format!("expected at least 0 and less than 1, found {margin}"),
        )?;
        of_loss(self.deletion_ratio == DELETION_RATIO, &[LossKind::Denoising], "deletion_ratio")?;
        let ratio = self.deletion_ratio;
        require(
            (0.0..1.0).contains(&ratio),
            "deletion_ratio",
            format!("expected at least 0 and less than 1, found {ratio}"),
        )?;
        if loss == LossKind::Denoising {
            let reason = "has no effect on denoising, whose loss is that of a decoder";
            require(self.dimensions.is_empty(), "dimensions", reason.to_owned())?;
            require(
                self.training.freeze.is_none(),
                "freeze",
                "expected no frozen layers: the decoder of denoising has the encoder's weights".to_owned(),
            )?;
        }
        let temperature = self.temperature();
        require(
            temperature > 0.0 && temperature.is_finite(),
            "temperature",
            format!("expected a number above 0, such as 0.05, found {temperature}"),
        )?;
        let strength = self.hardness_strength;
        require(
            strength >= 0.0 && strength.is_finite(),
            "hardness_strength",
            format!("expected 0 or more, found {strength}"),
        )?;
        let margin = self.margin();
        require(margin > 0.0 && margin.is_finite(), "margin", format!("expected a number above 0, found {margin}"))?;
        require(
            !(self.symmetric && self.candidates == Candidates::Own),
            "symmetric",
            "expected candidates in the batch: a row's own negatives have only one direction".to_owned(),
        )?;
        require(self.dense != Some(0), "dense", "expected at least 1 dimension, found 0".to_owned())?;
        require(self.micro_tokens > 0, "micro_tokens", "expected at least 1, found 0".to_owned())?;
        let mut seen = Vec::new();
        for kept in &self.dimensions {
            require(
                *kept > 0 && !seen.contains(kept),
                "dimensions",
                format!("expected different numbers from 1, found {kept}"),
            )?;
            seen.push(*kept);
        }
        let is_alone = self.training.batch < 2 && loss == LossKind::InfoNce && self.candidates == Candidates::InBatch;
        require(
            !is_alone,
            "batch",
            "expected at least 2 rows, because the texts of other rows are the negatives; found 1".to_owned(),
        )?;
        let accumulates = self.training.accumulate > 1;
        require(
            !accumulates,
            "accumulate",
            "set `micro_tokens` instead: passes of at most this size have the gradient of the complete batch"
                .to_owned(),
        )?;
        for (is_set, key) in [
            (self.training.features.is_some(), "features"),
            (self.training.bilstm > 0, "bilstm"),
            (self.training.class_weights != crate::settings::ClassWeights::None, "class_weights"),
        ] {
            require(!is_set, key, "has no effect on embeddings".to_owned())?;
        }
        Ok(())
    }

    /// The temperature in use.
    pub fn temperature(&self) -> f64 {
        self.temperature.unwrap_or(self.loss.temperature())
    }

    fn margin(&self) -> f64 {
        self.margin.unwrap_or(match self.distance {
            Distance::Cosine => 0.5,
            Distance::Euclidean => 5.0,
        })
    }

    /// The loss of embeddings of `width` dimensions. None for denoising, whose loss is not one of embeddings.
    ///
    /// # Errors
    /// [`TaskError::Setting`] for more dimensions than there are.
    pub fn loss(&self, width: usize) -> Result<Option<Matryoshka>, TaskError> {
        if let Some(found) = self.dimensions.iter().find(|kept| **kept > width) {
            let problem = format!("expected at most {width}, the width of the vectors, found {found}");
            return Err(TaskError::setting("dimensions", problem));
        }
        let loss = match self.loss {
            LossKind::InfoNce => {
                let settings = InfoNce {
                    scale: 1.0 / self.temperature(),
                    compare: self.compare.unwrap_or(Compare::Cosine),
                    candidates: self.candidates,
                    symmetric: self.symmetric,
                    hardness: (self.hardness_strength > 0.0).then_some((self.hardness, self.hardness_strength)),
                };
                Loss::InfoNce(settings)
            }
            LossKind::Cosent => Loss::CoSent { scale: 1.0 / self.temperature() },
            LossKind::Triplet => Loss::Triplet { distance: self.distance, margin: self.margin() },
            LossKind::MarginMse => Loss::MarginMse { compare: self.compare.unwrap_or(Compare::Dot) },
            LossKind::Kl => Loss::Kl { compare: self.compare.unwrap_or(Compare::Dot), temperature: self.temperature() },
            LossKind::Mse => Loss::Mse,
            LossKind::Denoising => return Ok(None),
        };
        let mut dimensions: Vec<(usize, f64)> = Vec::new();
        if !self.dimensions.is_empty() {
            dimensions.push((width, 1.0));
            dimensions.extend(self.dimensions.iter().filter(|kept| **kept != width).map(|kept| (*kept, 1.0)));
        }
        Ok(Some(Matryoshka { loss, dimensions }))
    }

    /// Whether runs with the two settings produce the same weights; see [`Settings::same_trajectory`].
    pub fn same_trajectory(&self, other: &EmbedSettings) -> bool {
        let own = |settings: &EmbedSettings| EmbedSettings { training: Settings::default(), ..settings.clone() };
        own(self) == own(other) && self.training.same_trajectory(&other.training)
    }

    /// The content of `finetune.toml`.
    ///
    /// # Errors
    /// A value that TOML cannot represent.
    pub fn to_toml(&self) -> Result<String, TaskError> {
        toml::to_string(self).map_err(|e| TaskError::setting("settings", format!("cannot be written as TOML: {e}")))
    }

    /// What differs from the settings `self` that a run started with, each as a phrase: "lr = 5e-5, now 1e-5".
    ///
    /// # Errors
    /// As [`to_toml`](Self::to_toml).
    pub fn differences(&self, other: &EmbedSettings) -> Result<Vec<String>, TaskError> {
        let table = |settings: &EmbedSettings| -> Result<toml::Table, TaskError> {
            let problem = |e: toml::de::Error| TaskError::setting("settings", e.to_string());
            let mut table: toml::Table = toml::from_str(&settings.to_toml()?).map_err(problem)?;
            table.remove("training");
            Ok(table)
        };
        let (began, now) = (table(self)?, table(other)?);
        let mut keys: Vec<&String> = began.keys().chain(now.keys()).collect();
        keys.sort();
        keys.dedup();
        let shown = |of: &toml::Table, key: &str| of.get(key).map_or("not given".to_owned(), ToString::to_string);
        let differ = keys.into_iter().filter(|key| began.get(*key) != now.get(*key));
        let mut all: Vec<String> =
            differ.map(|key| format!("{key} = {}, now {}", shown(&began, key), shown(&now, key))).collect();
        all.extend(self.training.differences(&other.training)?);
        Ok(all)
    }
}

impl RunSettings for EmbedSettings {
    fn same_trajectory(&self, other: &EmbedSettings) -> bool {
        EmbedSettings::same_trajectory(self, other)
    }
    fn differences(&self, other: &EmbedSettings) -> Result<Vec<String>, TaskError> {
        EmbedSettings::differences(self, other)
    }
    fn to_toml(&self) -> Result<String, TaskError> {
        EmbedSettings::to_toml(self)
    }
    fn training(&self) -> &Settings {
        &self.training
    }
    fn training_mut(&mut self) -> &mut Settings {
        &mut self.training
    }
}
