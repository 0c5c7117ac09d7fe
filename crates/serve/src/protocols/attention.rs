//! The pipeline `attention`: what the heads of a model attend to, for the viewer of the web page.

use std::sync::Arc;

use axum::response::Response;
use cloze_tasks::TaskError;
use cloze_tasks::inference::{Attention, AttentionOptions, attend};
use serde::{Deserialize, Serialize, Serializer};
use serde_json::{Map, Value};

use super::inputs::characters;
use crate::app::{Answered, App};
use crate::failure::Failure;
use crate::http::headers::{json_of, timed};
use crate::models::Served;
use crate::scheduler::Call;
use crate::scheduler::ticket::Priority;

/// The name of the task.
pub const NAME: &str = "attention";

/// At most this many probabilities are in an answer: about 60 MB of JSON.
const MAX_PROBABILITIES: usize = 16 << 20;

/// The inputs: a text, or a pair of texts.
#[derive(Debug, Clone, Deserialize)]
#[serde(untagged, expecting = "expected a text, or a list of two texts")]
pub enum AttentionInputs {
    /// A text.
    Text(String),
    /// A pair.
    Pair([String; 2]),
}

/// The parameters.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct AttentionParameters {
    /// The layers, from 0; all by default.
    layers: Vec<usize>,
    /// Maximum number of tokens; 512 by default.
    max_tokens: Option<usize>,
}

/// The answer. The lists of `attention`, `entropy` and `distance` have one element for each of `layer_numbers`.
#[derive(Serialize)]
struct AttentionAnswer<'a> {
    tokens: Vec<Token<'a>>,
    layers: usize,
    heads: usize,
    layer_numbers: Vec<usize>,
    /// By layer, head, attending token, attended token.
    attention: Vec<Vec<Vec<Rounded<'a>>>>,
    entropy: Vec<Vec<f64>>,
    distance: Vec<Vec<f64>>,
}

/// A token. `start` and `stop` count characters of its text.
#[derive(Serialize)]
struct Token<'a> {
    id: u32,
    text: &'a str,
    special: bool,
    sequence: Option<usize>,
    start: Option<usize>,
    stop: Option<usize>,
}

/// Probabilities with four decimals.
struct Rounded<'a>(&'a [f32]);

impl Serialize for Rounded<'_> {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.collect_seq(self.0.iter().map(|p| rounded(f64::from(*p))))
    }
}

fn rounded(value: f64) -> f64 {
    (value * 1e4).round() / 1e4
}

/// The response to a request. It is written on the thread that computes, because it may be large.
///
/// # Errors
/// A text that is too long for the model or the answer, a layer that it does not have.
pub async fn respond(
    app: &App,
    model: &Arc<Served>,
    inputs: AttentionInputs,
    parameters: Map<String, Value>,
    priority: Priority,
) -> Result<Response, Failure> {
    let parameters: AttentionParameters = serde_path_to_error::deserialize(Value::Object(parameters))
        .map_err(|error| Failure::validation(format!("parameters.{}: {}", error.path(), error.inner())))?;
    let (text, pair) = match inputs {
        AttentionInputs::Text(text) => (text, None),
        AttentionInputs::Pair([text, pair]) => (text, Some(pair)),
    };
    let size = characters(&[text.as_str(), pair.as_deref().unwrap_or_default()]);
    let work = move |model: &Served, _: &Call| {
        let mut options = AttentionOptions::default();
        options.layers = parameters.layers;
        options.max_tokens = parameters.max_tokens.unwrap_or(options.max_tokens);
        let architecture = model.model.model.architecture();
        let layers = if options.layers.is_empty() { architecture.layers } else { options.layers.len() };
        // The number of tokens that the answer has room for.
        let room = (MAX_PROBABILITIES / (layers * architecture.attention_heads)).isqrt();
        let is_limited = room < options.max_tokens;
        options.max_tokens = options.max_tokens.min(room);
        let found = attend(&model.model, &text, pair.as_deref(), &options).map_err(|error| match error {
            error @ TaskError::Input { .. } if is_limited => {
                Failure::validation(format!("{error}, or ask for fewer of its layers with \"layers\""))
            }
            error => Failure::of(&error),
        })?;
        json_of(&answer(&found, &text, pair.as_deref()))
    };
    let Answered { value, times } = app.compute(model, (priority, size), work).await?;
    Ok(timed(&times, value))
}

fn answer<'a>(found: &'a Attention, text: &str, pair: Option<&str>) -> AttentionAnswer<'a> {
    let texts = [text, pair.unwrap_or_default()];
    let tokens = found.tokens.iter().map(|token| {
        let text = token.sequence.map_or("", |sequence| texts[sequence]);
        let character = |byte: usize| text[..byte].chars().count();
        let range = token.range.as_ref();
        Token {
            id: token.id,
            text: &token.text,
            special: token.special,
            sequence: token.sequence,
            start: range.map(|range| character(range.start)),
            stop: range.map(|range| character(range.end)),
        }
    });
    let (count, layers) = (found.tokens.len(), found.maps.chunks(found.heads.max(1)));
    AttentionAnswer {
        tokens: tokens.collect(),
        layers: found.layers,
        heads: found.heads,
        layer_numbers: layers.clone().map(|maps| maps[0].layer).collect(),
        attention: layers
            .clone()
            .map(|maps| maps.iter().map(|map| map.probabilities.chunks(count).map(Rounded).collect()).collect())
            .collect(),
        entropy: layers.clone().map(|maps| maps.iter().map(|map| rounded(map.entropy)).collect()).collect(),
        distance: layers.map(|maps| maps.iter().map(|map| rounded(map.distance)).collect()).collect(),
    }
}

#[cfg(test)]
mod tests {
    use cloze_engine::{DType, Device};
    use cloze_model::{Heads, Model};
    use cloze_tasks::Pretrained;
    use serde_json::json;

    use super::*;

    #[test]
    fn answers_have_tokens_and_rounded_probabilities() {
        let device = Device::cpu(Some(1)).unwrap();
        let model = Model::new(cloze_testing::config(), Heads::PRETRAINING, &device, 7).unwrap();
        let tokenizer = cloze_testing::tokenizer(&[]);
        let model = Pretrained::new(model, tokenizer, device, DType::F32, std::path::Path::new("here")).unwrap();
        let mut options = AttentionOptions::default();
        options.layers = vec![1];
        let found = attend(&model, "é owl", Some("sees"), &options).unwrap();
        let answer = serde_json::to_value(answer(&found, "é owl", Some("sees"))).unwrap();
        let token = |id: u32, text: &str, special: bool, place: Option<[usize; 3]>| {
            let [sequence, start, stop] = [0, 1, 2].map(|i| place.map_or(Value::Null, |place| json!(place[i])));
            json!({"id": id, "text": text, "special": special, "sequence": sequence, "start": start, "stop": stop})
        };
        let owl = model.tokenizer.id("owl").unwrap();
        // Characters, not bytes.
        assert_eq!(answer["tokens"][1], token(1, "[UNK]", true, Some([0, 0, 1])));
        assert_eq!(answer["tokens"][2], token(owl, "owl", false, Some([0, 2, 5])));
        assert_eq!(answer["tokens"][3], token(3, "[SEP]", true, None));
        assert_eq!(answer["tokens"][4]["sequence"], 1);
        assert_eq!(
            (&answer["layers"], &answer["heads"], &answer["layer_numbers"]),
            (&json!(2), &json!(2), &json!([1]))
        );
        let attention = answer["attention"].as_array().unwrap();
        assert_eq!([attention.len(), attention[0].as_array().unwrap().len()], [1, 2]);
        let row: Vec<f64> = serde_json::from_value(attention[0][1][2].clone()).unwrap();
        assert_eq!(row.len(), 6);
        assert!((row.iter().sum::<f64>() - 1.0).abs() < 1e-3, "{row:?}");
        assert!(row.iter().all(|p| (p * 1e4 - (p * 1e4).round()).abs() < 1e-9), "{row:?}");
        assert_eq!(answer["entropy"][0].as_array().unwrap().len(), 2);
        assert!(answer["distance"][0][1].as_f64().unwrap() > 0.0);
    }

    #[test]
    fn inputs_are_a_text_or_a_pair() {
        let read = |value: Value| serde_json::from_value::<AttentionInputs>(value);
        assert!(matches!(read(json!("a")), Ok(AttentionInputs::Text(_))));
        assert!(matches!(read(json!(["a", "b"])), Ok(AttentionInputs::Pair(_))));
        let error = read(json!(["a"])).unwrap_err().to_string();
        assert!(error.contains("expected a text, or a list of two texts"), "{error}");
    }
}
