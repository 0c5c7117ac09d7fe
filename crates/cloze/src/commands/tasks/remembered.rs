//! What a fine-tuned model remembers, in its config.json, of how its rows were read and scored.

use std::path::Path;

use anyhow::{Context, Result};
use cloze_model::Config;
use cloze_tasks::files::Options;
use cloze_tasks::finetune::REMEMBERED;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::Kind;

/// Settings of a fine-tuning that are the defaults of predicting and evaluating. Each has the name of its option.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Remembered {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub kind: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub task: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub text: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pair: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub label: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub metric: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_len: Option<usize>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stride: Option<usize>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_question: Option<usize>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_answer: Option<usize>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub null_threshold: Option<f32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tag_format: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tag_column: Option<usize>,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub context: bool,
}

impl Remembered {
    /// What the options say.
    pub fn of(kind: Kind, options: &Options) -> Remembered {
        let answers = kind == Kind::Answer;
        Remembered {
            kind: Some(kind.name().to_owned()),
            task: options.known.as_ref().map(|known| known.name.to_owned()),
            metric: options.metric.map(|metric| metric.name().to_owned()),
            max_len: Some(options.max_len),
            stride: options.stride,
            max_question: answers.then_some(options.max_question),
            max_answer: answers.then_some(options.extract.max_answer),
            null_threshold: options.extract.null_threshold.filter(|_| answers),
            context: options.context,
            ..Remembered::default()
        }
    }

    /// What the model in a folder remembers; nothing if it was not fine-tuned here.
    pub fn in_config(config: &Config, dir: &Path) -> Result<Remembered> {
        let Some(value) = config.extra.get(REMEMBERED) else { return Ok(Remembered::default()) };
        serde_json::from_value(value.clone()).with_context(|| {
            format!("{}: \"{REMEMBERED}\" is not what `cloze finetune` writes", dir.join("config.json").display())
        })
    }

    /// The kind of task.
    pub fn kind(&self) -> Option<Kind> {
        self.kind.as_deref().and_then(Kind::named)
    }

    pub fn to_json(&self) -> Result<Value> {
        Ok(serde_json::to_value(self)?)
    }
}
