//! The file format: Hugging Face's `config.json` of BERT, presets with the sizes of the papers, and validation. The
//! network only uses the [`Architecture`] that is made from it here.

use std::fs;
use std::path::Path;

use cloze_engine::ops::Activation;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::architecture::Architecture;
use crate::error::ModelError;
use crate::heads::Class;
use crate::schema::{BERT, Schema};

/// A BERT configuration, as Transformers' `BertConfig` writes it to `config.json`.
///
/// Missing keys have `BertConfig`'s defaults. Unknown keys are kept in [`extra`](Config::extra) and written back
/// unchanged.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default)]
#[non_exhaustive]
pub struct Config {
    /// The Transformers class of the model, such as `BertForPreTraining`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub architectures: Option<Vec<String>>,
    /// Always `bert`; other values are rejected.
    pub model_type: String,
    /// V: rows of the word embeddings.
    pub vocab_size: usize,
    /// H: width of the hidden states.
    pub hidden_size: usize,
    /// L: encoder layers.
    pub num_hidden_layers: usize,
    /// N: attention heads of width H/N.
    pub num_attention_heads: usize,
    /// F: inner width of the feed-forward block.
    pub intermediate_size: usize,
    /// Activation of the feed-forward block and of the MLM head's transform.
    pub hidden_act: HiddenAct,
    /// Dropout on the embeddings and on the outputs of both sublayers.
    pub hidden_dropout_prob: f64,
    /// Dropout on the attention weights.
    pub attention_probs_dropout_prob: f64,
    /// Rows of the position embeddings: the maximum sequence length.
    pub max_position_embeddings: usize,
    /// Rows of the segment (token type) embeddings.
    pub type_vocab_size: usize,
    /// Standard deviation of the truncated normal that initialises matrices.
    pub initializer_range: f64,
    /// ε of every LayerNorm.
    pub layer_norm_eps: f64,
    /// The id of `[PAD]`. Packed batches contain none; it is kept for other programs.
    pub pad_token_id: Option<u32>,
    /// Whether the MLM decoder is the transposed word embeddings.
    pub tie_word_embeddings: bool,
    /// Whether a token attends only to itself and earlier tokens: a causal language model, `BertLMHeadModel` in
    /// Transformers.
    pub is_decoder: bool,
    /// Cross-attention of a decoder; only `false` is supported.
    pub add_cross_attention: bool,
    /// All other keys of the file.
    #[serde(flatten)]
    pub extra: Map<String, Value>,
}

/// `hidden_act`: the supported activations.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum HiddenAct {
    /// GELU computed with erf: x·Φ(x), as in the paper's release.
    #[serde(alias = "gelu_python")]
    Gelu,
    /// The tanh approximation of GELU, as in later Google code.
    #[serde(alias = "gelu_fast", alias = "gelu_python_tanh", alias = "gelu_accurate")]
    GeluNew,
    /// The tanh approximation of GELU under PyTorch's name.
    GeluPytorchTanh,
    /// max(x, 0).
    Relu,
    /// x·σ(x); `swish` in older files.
    #[serde(alias = "swish")]
    Silu,
}

impl HiddenAct {
    /// The corresponding activation of the engine.
    pub fn activation(self) -> Activation {
        match self {
            HiddenAct::Gelu => Activation::Gelu,
            HiddenAct::GeluNew | HiddenAct::GeluPytorchTanh => Activation::GeluTanh,
            HiddenAct::Relu => Activation::Relu,
            HiddenAct::Silu => Activation::Silu,
        }
    }
}

impl Default for Config {
    /// BERT base, uncased English: `BertConfig()`.
    fn default() -> Config {
        Config {
            architectures: None,
            model_type: BERT.model_type.to_owned(),
            vocab_size: 30522,
            hidden_size: 768,
            num_hidden_layers: 12,
            num_attention_heads: 12,
            intermediate_size: 3072,
            hidden_act: HiddenAct::Gelu,
            hidden_dropout_prob: 0.1,
            attention_probs_dropout_prob: 0.1,
            max_position_embeddings: 512,
            type_vocab_size: 2,
            initializer_range: 0.02,
            layer_norm_eps: 1e-12,
            pad_token_id: Some(0),
            tie_word_embeddings: true,
            is_decoder: false,
            add_cross_attention: false,
            extra: Map::new(),
        }
    }
}

/// The presets: name, layers, hidden size. Heads are 64 wide; the feed-forward width is 4 times the hidden size. `base`
/// and `large` are from Devlin et al. 2019, section 3; the others from Turc et al. 2019, table 1.
pub const PRESETS: [(&str, usize, usize); 6] =
    [("tiny", 2, 128), ("mini", 4, 256), ("small", 4, 512), ("medium", 8, 512), ("base", 12, 768), ("large", 24, 1024)];

// A config beyond these limits is a mistake or an attack; within them, no product overflows.
const MAX_WIDTH: usize = 1 << 24;
const MAX_LAYERS: usize = 1 << 12;
const MAX_PARAMETERS: u128 = 1 << 37;

impl Config {
    /// The preset with this name (see [`PRESETS`]) and BERT's vocabulary size of 30522.
    ///
    /// # Errors
    /// [`ModelError::Config`] with the known names if the name is unknown.
    pub fn preset(name: &str) -> Result<Config, ModelError> {
        let Some(&(_, layers, hidden)) = PRESETS.iter().find(|(known, ..)| *known == name) else {
            let known: Vec<&str> = PRESETS.iter().map(|(known, ..)| *known).collect();
            let problem = format!("unknown preset {name:?}: expected one of {}", known.join(", "));
            return Err(ModelError::Config { path: None, problem });
        };
        Ok(Config {
            hidden_size: hidden,
            num_hidden_layers: layers,
            num_attention_heads: hidden / 64,
            intermediate_size: 4 * hidden,
            ..Config::default()
        })
    }

    /// Reads and validates `config.json` or another file of this format.
    ///
    /// # Errors
    /// [`ModelError::Read`], [`ModelError::Json`] with line and column, or [`ModelError::Config`].
    pub fn read(path: &Path) -> Result<Config, ModelError> {
        let bytes = fs::read(path).map_err(|source| ModelError::Read { path: path.to_owned(), source })?;
        let json = |source| ModelError::Json { path: path.to_owned(), source };
        let in_file = |problem| ModelError::Config { path: Some(path.to_owned()), problem };
        // Check the model type first: values of another architecture could fail below with a confusing message.
        if bytes.starts_with(b"\xef\xbb\xbf") {
            return Err(in_file(
                "starts with a byte-order mark, which JSON does not allow; save it as UTF-8 without one".to_owned(),
            ));
        }
        let value: Value = serde_json::from_slice(&bytes).map_err(json)?;
        if !value.is_object() {
            return Err(in_file("expected a JSON object such as {\"model_type\": \"bert\", ...}".to_owned()));
        }
        if let Some(problem) = value.get("model_type").and_then(Value::as_str).and_then(unsupported_model_type) {
            return Err(in_file(problem));
        }
        // serde would read an object as a variant of that name.
        if let Some(found) = value.get("hidden_act").filter(|found| !found.is_string()) {
            return Err(in_file(format!("hidden_act is {found}: expected a name such as \"gelu\"")));
        }
        let config: Config = serde_json::from_slice(&bytes).map_err(json)?;
        match config.problems() {
            problems if problems.is_empty() => Ok(config),
            problems => Err(in_file(problems.join("; "))),
        }
    }

    /// The text of `config.json`, as Transformers writes it: two-space indent, sorted keys and a final newline.
    pub fn to_json(&self) -> String {
        let value = serde_json::to_value(self).expect("all keys are strings");
        let mut keys: Vec<(String, Value)> = match value {
            Value::Object(map) => map.into_iter().collect(),
            _ => Vec::new(),
        };
        keys.sort_by(|a, b| a.0.cmp(&b.0));
        format!("{:#}\n", Value::Object(keys.into_iter().collect()))
    }

    /// Checks that a model of this shape can be built.
    ///
    /// # Errors
    /// [`ModelError::Config`] with all problems found.
    pub fn validate(&self) -> Result<(), ModelError> {
        match self.problems() {
            problems if problems.is_empty() => Ok(()),
            problems => Err(ModelError::Config { path: None, problem: problems.join("; ") }),
        }
    }

    fn problems(&self) -> Vec<String> {
        let mut problems: Vec<String> = unsupported_model_type(&self.model_type).into_iter().collect();
        let sizes = [
            ("vocab_size", self.vocab_size, MAX_WIDTH),
            ("hidden_size", self.hidden_size, MAX_WIDTH),
            ("num_hidden_layers", self.num_hidden_layers, MAX_LAYERS),
            ("num_attention_heads", self.num_attention_heads, MAX_WIDTH),
            ("intermediate_size", self.intermediate_size, MAX_WIDTH),
            ("max_position_embeddings", self.max_position_embeddings, MAX_WIDTH),
            ("type_vocab_size", self.type_vocab_size, MAX_WIDTH),
        ];
        for (key, found, max) in sizes {
            if found == 0 || found > max {
                problems.push(format!("{key} is {found}: expected 1 to {max}"));
            }
        }
        let (hidden, heads) = (self.hidden_size, self.num_attention_heads);
        if hidden > 0 && heads > 0 && !hidden.is_multiple_of(heads) {
            problems.push(format!(
                "hidden_size {hidden} is not divisible by num_attention_heads {heads}: all heads have the same width"
            ));
        }
        let probabilities = [
            ("hidden_dropout_prob", self.hidden_dropout_prob),
            ("attention_probs_dropout_prob", self.attention_probs_dropout_prob),
        ];
        let classifier = self.extra.get("classifier_dropout").and_then(Value::as_f64);
        for (key, found) in probabilities.into_iter().chain(classifier.map(|p| ("classifier_dropout", p))) {
            if !(0.0..1.0).contains(&found) {
                problems.push(format!("{key} is {found}: expected 0 or more and less than 1"));
            }
        }
        for (key, found) in [("initializer_range", self.initializer_range), ("layer_norm_eps", self.layer_norm_eps)] {
            if !(found > 0.0 && found < 1e3 && found as f32 > 0.0) {
                problems.push(format!("{key} is {found}: expected a small positive number"));
            }
        }
        if self.add_cross_attention {
            problems.push(
                "add_cross_attention is true: expected false, because there is no second encoder to attend to"
                    .to_owned(),
            );
        }
        let causal_class = self.schema().class_name(Class::CausalLm);
        let other = |name: &&String| !matches!(self.schema().class(name), Some(Class::CausalLm | Class::Encoder));
        if let (true, Some(found)) = (self.is_decoder, self.architectures.iter().flatten().find(other)) {
            problems.push(format!(
                "is_decoder is true with architectures [{found}]: expected [{causal_class}], a causal language model, or is_decoder false"
            ));
        }
        if let Some(Value::Object(quantized)) = self.extra.get("quantization_config") {
            let method = quantized.get("quant_method").and_then(Value::as_str).unwrap_or("an unknown method");
            problems.push(format!(
                "quantization_config: the weights are quantized ({method}), expected floats; dequantize and save the model in the program \
                 that made it"
            ));
        }
        if let Some(kind) = self.extra.get("position_embedding_type")
            && kind.as_str().is_some_and(|kind| kind != "absolute")
        {
            problems.push(format!("position_embedding_type is {kind}: expected \"absolute\""));
        }
        if problems.is_empty() && self.encoder_parameters() > MAX_PARAMETERS {
            problems.push(format!("{} parameters: expected at most {MAX_PARAMETERS}", self.encoder_parameters()));
        }
        problems
    }

    /// The sizes and settings of the network. The configuration must be [valid](Self::validate).
    pub fn architecture(&self) -> Architecture {
        Architecture {
            vocab_size: self.vocab_size,
            embedding_size: self.hidden_size,
            hidden_size: self.hidden_size,
            layers: self.num_hidden_layers,
            attention_heads: self.num_attention_heads,
            intermediate_size: self.intermediate_size,
            positions: self.max_position_embeddings,
            first_position: 0,
            segments: self.type_vocab_size,
            activation: self.hidden_act.activation(),
            hidden_dropout: self.hidden_dropout_prob as f32,
            attention_dropout: self.attention_probs_dropout_prob as f32,
            classifier_dropout: self.classifier_dropout() as f32,
            initializer_range: self.initializer_range as f32,
            layer_norm_eps: self.layer_norm_eps as f32,
            causal: self.is_decoder,
            tied_decoder: self.tie_word_embeddings,
        }
    }

    /// The parameter names in checkpoints of this model family.
    pub fn schema(&self) -> &'static Schema {
        &BERT
    }

    /// Whether `architectures` names this class.
    pub fn is_of_class(&self, class: Class) -> bool {
        self.architectures.iter().flatten().any(|name| self.schema().class(name) == Some(class))
    }

    /// This configuration, changed to that of a causal language model.
    pub fn causal(self) -> Config {
        let class = self.schema().class_name(Class::CausalLm);
        Config { is_decoder: true, architectures: Some(vec![class.to_owned()]), ..self }
    }

    /// Number of parameters of embeddings and encoder, without heads. Cannot overflow if the sizes are in range.
    fn encoder_parameters(&self) -> u128 {
        let [v, h, l, f, p, t] = [
            self.vocab_size,
            self.hidden_size,
            self.num_hidden_layers,
            self.intermediate_size,
            self.max_position_embeddings,
            self.type_vocab_size,
        ]
        .map(|size| size as u128);
        (v + p + t) * h + l * (4 * h * h + 2 * h * f)
    }

    /// Dropout before a task's head: `classifier_dropout`, otherwise the hidden dropout.
    fn classifier_dropout(&self) -> f64 {
        self.extra.get("classifier_dropout").and_then(Value::as_f64).unwrap_or(self.hidden_dropout_prob)
    }

    /// The label names of a task in order of their ids (`id2label`), if the file names all of them.
    pub fn labels(&self) -> Option<Vec<String>> {
        let names = self.extra.get("id2label")?.as_object()?;
        (0..names.len()).map(|id| names.get(&id.to_string())?.as_str().map(str::to_owned)).collect()
    }

    /// Sets `id2label` and `label2id`.
    pub fn set_labels(&mut self, labels: &[String]) {
        let by_id = labels.iter().enumerate().map(|(id, label)| (id.to_string(), Value::from(label.as_str())));
        let by_label = labels.iter().enumerate().map(|(id, label)| (label.clone(), Value::from(id)));
        self.extra.insert("id2label".to_owned(), Value::Object(by_id.collect()));
        self.extra.insert("label2id".to_owned(), Value::Object(by_label.collect()));
    }

    /// `problem_type`: how Transformers interprets a sequence's logits, such as `regression`.
    pub fn problem_type(&self) -> Option<&str> {
        self.extra.get("problem_type")?.as_str()
    }
}

/// The error for a `model_type` other than BERT's.
fn unsupported_model_type(found: &str) -> Option<String> {
    let known = BERT.model_type;
    (found != known).then(|| format!("model_type is {found:?}: expected {known:?}, the only supported architecture"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<Config, ModelError> {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("config.json");
        fs::write(&path, text).unwrap();
        Config::read(&path)
    }

    /// What Transformers 5 writes for a tiny model, plus an unknown key.
    const WRITTEN: &str = r#"{
  "add_cross_attention": false, "architectures": ["BertForPreTraining"], "attention_probs_dropout_prob": 0.1,
  "bos_token_id": null, "classifier_dropout": null, "dtype": "float32", "eos_token_id": null, "hidden_act": "gelu_new",
  "hidden_dropout_prob": 0.25, "hidden_size": 48, "id2label": {"0": "NO", "1": "YES"}, "initializer_range": 0.2,
  "intermediate_size": 64, "is_decoder": false, "layer_norm_eps": 1e-12, "max_position_embeddings": 40,
  "model_type": "bert", "num_attention_heads": 3, "num_hidden_layers": 2, "pad_token_id": 0, "surprise": [1, {"a": 2.5}],
  "tie_word_embeddings": true, "transformers_version": "5.23.0", "type_vocab_size": 2, "use_cache": true, "vocab_size": 99
}"#;

    #[test]
    fn every_key_survives_reading_and_writing() {
        let config = parse(WRITTEN).unwrap();
        assert_eq!((config.hidden_size, config.num_attention_heads, config.architecture().head_size()), (48, 3, 16));
        assert_eq!(config.hidden_act, HiddenAct::GeluNew);
        assert_eq!(config.layer_norm_eps, 1e-12);
        let written: Value = serde_json::from_str(&config.to_json()).unwrap();
        assert_eq!(written, serde_json::from_str::<Value>(WRITTEN).unwrap());
        assert_eq!(parse(&config.to_json()).unwrap(), config);
    }

    #[test]
    fn missing_keys_have_defaults() {
        let config = parse(r#"{"hidden_size": 128, "num_attention_heads": 2, "hidden_act": "swish"}"#).unwrap();
        assert_eq!((config.hidden_act, config.vocab_size, config.pad_token_id), (HiddenAct::Silu, 30522, Some(0)));
    }

    #[test]
    fn presets_have_the_papers_sizes() {
        let size = |name| {
            let config = Config::preset(name).unwrap();
            config.validate().unwrap();
            (config.num_hidden_layers, config.hidden_size, config.num_attention_heads, config.intermediate_size)
        };
        assert_eq!(size("tiny"), (2, 128, 2, 512));
        assert_eq!(size("base"), (12, 768, 12, 3072));
        assert_eq!(size("large"), (24, 1024, 16, 4096));
        let error = Config::preset("huge").unwrap_err().to_string();
        assert!(error.contains("\"huge\"") && error.contains("medium"), "{error}");
    }

    #[test]
    fn invalid_configs_are_explained() {
        let cases = [
            (
                r#"{"hidden_size": 50, "num_attention_heads": 3}"#,
                "hidden_size 50 is not divisible by num_attention_heads 3",
            ),
            (r#"{"hidden_act": "mish"}"#, "unknown variant `mish`, expected one of `gelu`"),
            (r#"{"model_type": "roberta", "hidden_act": 7}"#, "model_type is \"roberta\": expected \"bert\""),
            (r#"{"num_hidden_layers": 0}"#, "num_hidden_layers is 0"),
            (r#"{"vocab_size": 99999999999}"#, "vocab_size is 99999999999"),
            (
                r#"{"vocab_size": 16777216, "hidden_size": 16777216, "num_attention_heads": 1}"#,
                "parameters: expected at most",
            ),
            (r#"{"is_decoder": true, "architectures": ["BertForSequenceClassification"]}"#, "is_decoder"),
            (
                r#"{"is_decoder": true, "architectures": ["BertForMaskedLM"]}"#,
                "is_decoder is true with architectures [BertForMaskedLM]: expected [BertLMHeadModel]",
            ),
            (
                r#"{"is_decoder": true, "architectures": ["BertLMHeadModel"], "add_cross_attention": true}"#,
                "add_cross_attention is true",
            ),
            (r#"{"hidden_act": {"type": "gelu"}}"#, r#"hidden_act is {"type":"gelu"}: expected a name such as "gelu""#),
            (r#"{"quantization_config": {"quant_method": "fp8"}}"#, "the weights are quantized (fp8), expected floats"),
            (r#"{"hidden_dropout_prob": 1.0}"#, "hidden_dropout_prob is 1"),
            (r#"{"position_embedding_type": "relative_key"}"#, "position_embedding_type is \"relative_key\""),
            ("{\n\"hidden_size\": \"wide\"}", "expected usize at line 2"),
            ("[1]", "expected a JSON object"),
            ("{\"hidden_size\": ", "EOF"),
        ];
        for (text, expected) in cases {
            let error = parse(text).unwrap_err().to_string();
            assert!(error.contains(expected) && error.contains("config.json"), "{text}: {error}");
        }
    }
}
