//! Vectors of texts, for all protocols.

use std::sync::Arc;

use cloze_tasks::TaskError;
use cloze_tasks::embed::Embedder;
use cloze_tasks::embed::prompts::Purpose;
use cloze_tasks::embed::vectors::Vectors;
use cloze_tasks::pipelines::SentenceSimilarity;
use cloze_tasks::pipelines::sentence_similarity::Sentences;
use serde::{Serialize, Serializer};
use utoipa::ToSchema;

use super::inputs::{Inputs, characters, is_left};
use crate::app::{Answered, App};
use crate::failure::Failure;
use crate::models::Served;
use crate::scheduler::Call;
use crate::scheduler::ticket::Priority;

/// How texts are embedded.
#[derive(Debug, Clone, Default)]
pub struct Wanted {
    /// The name of a prompt of the folder.
    pub prompt_name: Option<String>,
    /// Whether too long texts are truncated; none: as the server is set.
    pub truncate: Option<bool>,
    /// `Left` or `Right`.
    pub truncation_direction: Option<String>,
    /// Whether vectors are divided by their norm.
    pub normalize: bool,
    /// The number of leading dimensions that are kept; the vectors are then divided by their norm.
    pub dimensions: Option<usize>,
    /// How urgent the request is.
    pub priority: Priority,
}

/// Numbers of a vector as JSON with the digits of f32.
pub struct Numbers<'a>(pub &'a [f32]);

impl Serialize for Numbers<'_> {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.collect_seq(self.0)
    }
}

/// A type of the numbers of encoded vectors.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, serde::Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum NumberType {
    /// 32 bits.
    #[default]
    #[serde(alias = "f32", alias = "float")]
    Float32,
    /// 16 bits.
    #[serde(alias = "f16")]
    Float16,
    /// bfloat16.
    #[serde(alias = "bf16")]
    Bfloat16,
}

impl NumberType {
    /// Little-endian bytes, base64.
    pub fn base64(self, vector: &[f32]) -> String {
        let bytes: Vec<u8> = match self {
            NumberType::Float32 => vector.iter().flat_map(|value| value.to_le_bytes()).collect(),
            NumberType::Float16 => vector.iter().flat_map(|value| half::f16::from_f32(*value).to_le_bytes()).collect(),
            NumberType::Bfloat16 => {
                vector.iter().flat_map(|value| half::bf16::from_f32(*value).to_le_bytes()).collect()
            }
        };
        base64::encode(bytes)
    }
}

/// Computes the vectors of inputs, and converts them on the request's thread with `finish`.
///
/// # Errors
/// No inputs or too many; texts that are too long and not to be truncated; more dimensions than the model has; the
/// failures of the model.
pub async fn embed<T: Send + 'static>(
    app: &App,
    model: &Arc<Served>,
    inputs: Inputs,
    wanted: Wanted,
    finish: impl FnOnce(&Vectors, &Call) -> Result<T, Failure> + Send + 'static,
) -> Result<Answered<T>, Failure> {
    app.check_inputs(inputs.count())?;
    let truncate = wanted.truncate.unwrap_or(app.settings.truncate);
    let size = inputs.characters();
    app.compute(model, (wanted.priority, size), move |model, call| {
        let direction = is_left(wanted.truncation_direction.as_deref())?;
        let embedder = model.embedder(wanted.prompt_name.as_deref(), direction)?;
        let width = embedder.width();
        if let Some(kept) = wanted.dimensions.filter(|kept| !(1..=width).contains(kept)) {
            let message = format!("dimensions: expected 1 to {width}, which the model's vectors have, found {kept}");
            return Err(Failure::validation(message));
        }
        if !truncate {
            check_lengths(&embedder, &inputs)?;
        }
        let mut found = match &inputs {
            Inputs::Texts(texts) => embedder.embed_on(call, texts, Purpose::Text, &mut |_| ())?,
            Inputs::Ids(ids) => embedder.embed_ids_on(call, ids)?,
        }
        .vectors;
        let kept = wanted.dimensions.filter(|kept| *kept < width);
        if kept.is_some() || wanted.normalize {
            found = found.truncated(kept.unwrap_or(width)).normalized();
        }
        finish(&found, call)
    })
    .await
}

/// Checks that no text is longer than the model's maximum length.
fn check_lengths(embedder: &Embedder, inputs: &Inputs) -> Result<(), Failure> {
    let most = embedder.max_len(Purpose::Text);
    let check = |(number, found): (usize, usize)| match found > most {
        true => Err(Failure::validation(format!(
            "inputs[{number}] has {found} tokens with the special ones, the model reads {most}; shorten it, or set \"truncate\": true"
        ))),
        false => Ok(()),
    };
    match inputs {
        Inputs::Texts(texts) => {
            texts.iter().map(|text| embedder.token_count(text, Purpose::Text)).enumerate().try_for_each(check)
        }
        Inputs::Ids(ids) => ids.iter().map(Vec::len).enumerate().try_for_each(check),
    }
}

/// The hidden states of the tokens of texts, `[T, H]` for each text.
///
/// # Errors
/// As [`embed`].
pub async fn token_embeddings<T: Send + 'static>(
    app: &App,
    model: &Arc<Served>,
    texts: Vec<String>,
    wanted: Wanted,
    finish: impl FnOnce(&[Vectors]) -> Result<T, Failure> + Send + 'static,
) -> Result<Answered<T>, Failure> {
    app.check_inputs(texts.len())?;
    let truncate = wanted.truncate.unwrap_or(app.settings.truncate);
    let size = characters(&texts);
    app.compute(model, (wanted.priority, size), move |model, call| {
        let direction = is_left(wanted.truncation_direction.as_deref())?;
        let embedder = model.embedder(wanted.prompt_name.as_deref(), direction)?;
        if !truncate {
            check_lengths(&embedder, &Inputs::Texts(texts.clone()))?;
        }
        let found: Result<_, TaskError> = embedder.token_embeddings_on(call, &texts, Purpose::Text);
        finish(&found?)
    })
    .await
}

/// The cosine similarities of a text and others.
///
/// # Errors
/// As [`embed`].
pub async fn similarities(
    app: &App,
    model: &Arc<Served>,
    sentences: Sentences,
    wanted: Wanted,
) -> Result<Answered<Vec<f32>>, Failure> {
    app.check_inputs(sentences.sentences.len())?;
    let truncate = wanted.truncate.unwrap_or(app.settings.truncate);
    let size = characters(&sentences.sentences) + characters(&[&sentences.source_sentence]);
    app.compute(model, (wanted.priority, size), move |model, call| {
        let direction = is_left(wanted.truncation_direction.as_deref())?;
        let embedder = model.embedder(wanted.prompt_name.as_deref(), direction)?;
        if !truncate {
            let source = std::iter::once(&sentences.source_sentence);
            let texts = source.chain(&sentences.sentences).cloned().collect();
            check_lengths(&embedder, &Inputs::Texts(texts))?;
        }
        Ok(SentenceSimilarity::new(&embedder).run_on(call, &sentences)?)
    })
    .await
}
