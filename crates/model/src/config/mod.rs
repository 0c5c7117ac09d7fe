//! The file format: Hugging Face's `config.json` of every [family](crate::family), and presets with the sizes of the papers.
//! The network only uses the [`Architecture`](crate::Architecture) that is made from it.
//!
//! | file | what it does |
//! | --- | --- |
//! | `mod.rs` | the keys, read and written with the family's names |
//! | `modern_keys.rs` | ModernBERT's own keys |
//! | `validate.rs` | checks that a model can be built |
//! | `network.rs` | the sizes and settings of the network |

mod modern_keys;
mod network;
#[cfg(test)]
mod tests;
mod validate;

use std::fs;
use std::path::Path;

use cloze_engine::ops::Activation;
use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::{Map, Value};

use self::modern_keys::EMBEDDING_DROPOUT;
use crate::architecture::SharedParts;
use crate::error::ModelError;
use crate::family::{BERT, DefaultValue, FAMILIES, Family};
use crate::heads::Class;
use crate::schema::Schema;
use crate::task_input::TaskInput;

/// A configuration, as the `PreTrainedConfig` of its family in Transformers writes it to `config.json`. The fields have
/// the names of `BertConfig`; serialized, they have those of the family.
///
/// Missing keys have the defaults of the family. Unknown keys are kept in [`extra`](Config::extra) and written back
/// unchanged.
// "Self" makes the derived functions private: the traits, below, translate from and to the family's keys.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(remote = "Self", default)]
#[non_exhaustive]
pub struct Config {
    /// The Transformers class of the model, such as `BertForPreTraining`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub architectures: Option<Vec<String>>,
    /// The [`Family`].
    pub model_type: String,
    /// V: rows of the word embeddings.
    pub vocab_size: usize,
    /// E: width of the embeddings, in families where it can differ from H.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub embedding_size: Option<usize>,
    /// H: width of the hidden states.
    pub hidden_size: usize,
    /// L: encoder layers. ALBERT: passes through a group of layers.
    pub num_hidden_layers: usize,
    /// ALBERT: groups of layers, each of which is used by several passes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub num_hidden_groups: Option<usize>,
    /// ALBERT: layers of a group.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub inner_group_num: Option<usize>,
    /// The parts of a layer that all layers share. Transformers does not know this key: the weights are stored with a
    /// copy for each layer.
    #[serde(rename = "cloze_shared_parts", skip_serializing_if = "SharedParts::is_none")]
    pub shared_parts: SharedParts,
    /// N: attention heads of width H/N.
    pub num_attention_heads: usize,
    /// F: inner width of the feed-forward block.
    pub intermediate_size: usize,
    /// Activation of the feed-forward block and, in most families, of the MLM head's transform.
    pub hidden_act: HiddenAct,
    /// Dropout on the embeddings and on the outputs of both sublayers.
    pub hidden_dropout_prob: f64,
    /// Dropout on the attention weights.
    pub attention_probs_dropout_prob: f64,
    /// Rows of the position embeddings: the maximum sequence length, plus `pad_token_id` + 1 in RoBERTa's family.
    pub max_position_embeddings: usize,
    /// Rows of the segment (token type) embeddings; 0 in families without segments.
    pub type_vocab_size: usize,
    /// Standard deviation of the truncated normal that initialises matrices.
    pub initializer_range: f64,
    /// ε of every LayerNorm.
    pub layer_norm_eps: f64,
    /// The id of `[PAD]`. Packed batches contain none, but in RoBERTa's family positions start after it.
    pub pad_token_id: Option<u32>,
    /// Whether the MLM decoder is the transposed word embeddings.
    pub tie_word_embeddings: bool,
    /// Whether a token attends only to itself and earlier tokens: a causal language model, `BertLMHeadModel` in
    /// Transformers.
    pub is_decoder: bool,
    /// Cross-attention of a decoder; only `false` is supported.
    pub add_cross_attention: bool,
    /// What the head of a task reads, if that is not what it reads in Transformers, which does not know these keys.
    #[serde(flatten)]
    pub task_input: TaskInput,
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
            embedding_size: None,
            hidden_size: 768,
            num_hidden_layers: 12,
            num_hidden_groups: None,
            inner_group_num: None,
            shared_parts: SharedParts::None,
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
            task_input: TaskInput::default(),
            extra: Map::new(),
        }
    }
}

/// The presets: name, layers, hidden size. Heads are 64 wide; the feed-forward width is 4 times the hidden size. `base`
/// and `large` are from Devlin et al. 2019, section 3; the others from Turc et al. 2019, table 1.
pub const PRESETS: [(&str, usize, usize); 6] =
    [("tiny", 2, 128), ("mini", 4, 256), ("small", 4, 512), ("medium", 8, 512), ("base", 12, 768), ("large", 24, 1024)];

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
        Config::read_as(BERT.model_type, path)
    }

    /// As [`read`](Self::read), for a file of the family `model_type` if it does not name its own.
    ///
    /// # Errors
    /// As [`read`](Self::read).
    pub fn read_as(model_type: &str, path: &Path) -> Result<Config, ModelError> {
        let bytes = fs::read(path).map_err(|source| ModelError::Read { path: path.to_owned(), source })?;
        let json = |source| ModelError::Json { path: path.to_owned(), source };
        let in_file = |problem| ModelError::Config { path: Some(path.to_owned()), problem };
        if bytes.starts_with(b"\xef\xbb\xbf") {
            return Err(in_file(
                "starts with a byte-order mark, which JSON does not allow; save it as UTF-8 without one".to_owned(),
            ));
        }
        let mut value: Value = serde_json::from_slice(&bytes).map_err(json)?;
        if let Value::Object(keys) = &mut value {
            keys.entry("model_type").or_insert_with(|| model_type.into());
        }
        let config = Config::from_value(value).map_err(in_file)?;
        match config.problems() {
            problems if problems.is_empty() => Ok(config),
            problems => Err(in_file(problems.join("; "))),
        }
    }

    /// Translates the keys of the family, and fills in its defaults.
    fn from_value(value: Value) -> Result<Config, String> {
        let Value::Object(mut keys) = value else {
            return Err("expected a JSON object such as {\"model_type\": \"bert\", ...}".to_owned());
        };
        let family = match keys.get("model_type") {
            None => &BERT,
            Some(Value::String(name)) => Family::of(name).ok_or_else(|| unsupported_model_type(name))?,
            Some(other) => return Err(format!("model_type is {other}: expected a name such as \"bert\"")),
        };
        let stored_name = |key: &str| family.key(key).to_owned();
        let mut ignored: Vec<(String, Value)> =
            family.config.absent.iter().filter_map(|key| keys.remove_entry(*key)).collect();
        for (ours, theirs) in family.config.renamed {
            let found = keys.remove(*theirs);
            if !family.config.also_berts_names {
                ignored.extend(keys.remove_entry(*ours));
            }
            if let Some(found) = found
                && let Some(other) = keys.insert((*ours).to_owned(), found.clone())
                && other != found
            {
                return Err(format!("{theirs} is {found}, but {ours} is {other}: expected only {theirs}"));
            }
        }
        for (key, default) in family.config.defaults {
            keys.entry(*key).or_insert_with(|| match *default {
                DefaultValue::Count(count) => Value::from(count),
                DefaultValue::Number(number) => Value::from(number),
                DefaultValue::Name(name) => Value::from(name),
            });
        }
        // serde would read an object as a variant of that name.
        if let Some(found) = keys.get("hidden_act").filter(|found| !found.is_string()) {
            return Err(format!("{} is {found}: expected a name such as \"gelu\"", stored_name("hidden_act")));
        }
        let parsed = Config::deserialize(&Value::Object(keys.clone()));
        let mut config = parsed.map_err(|error| {
            let fails = |(key, value): &(String, Value)| {
                Config::deserialize(&Value::Object(Map::from_iter([(key.clone(), value.clone())]))).is_err()
            };
            match keys.into_iter().find(fails) {
                Some((key, _)) => format!("{}: {error}", stored_name(&key)),
                None => error.to_string(),
            }
        })?;
        config.extra.extend(ignored);
        Ok(config)
    }

    /// With the keys of the family.
    fn to_value(&self) -> Value {
        let family = self.family();
        let fields = Config { extra: Map::new(), ..self.clone() };
        let Ok(Value::Object(mut keys)) = Config::serialize(&fields, serde_json::value::Serializer) else {
            return Value::Null;
        };
        for key in family.config.absent {
            keys.remove(*key);
        }
        for (ours, theirs) in family.config.renamed {
            if let Some(value) = keys.remove(*ours) {
                // A key that only Cloze knows is only written if it changes the model.
                if !(theirs.starts_with("cloze_") && value == false) {
                    keys.insert((*theirs).to_owned(), value);
                }
            }
        }
        keys.extend(self.extra.clone());
        Value::Object(keys)
    }

    /// The text of `config.json`, as Transformers writes it: two-space indent, sorted keys and a final newline.
    pub fn to_json(&self) -> String {
        let mut keys: Vec<(String, Value)> = match self.to_value() {
            Value::Object(map) => map.into_iter().collect(),
            _ => Vec::new(),
        };
        keys.sort_by(|a, b| a.0.cmp(&b.0));
        format!("{:#}\n", Value::Object(keys.into_iter().collect()))
    }

    /// The model family. A `model_type` that is not supported is rejected by [`validate`](Self::validate); until then it
    /// counts as BERT.
    pub fn family(&self) -> &'static Family {
        Family::of(&self.model_type).unwrap_or(&BERT)
    }

    /// A line for each key that another family has, and that this family ignores.
    pub fn ignored_keys(&self) -> Vec<String> {
        let (family, own) = (self.family(), self.to_value());
        let title = family.title;
        // A key of BERT next to the family's own with the same value is no contradiction.
        let is_set = |key: &&str| {
            let found = self.extra.get(*key).filter(|value| !value.is_null() && **value != false);
            found.is_some_and(|value| family.key(key) == *key || own[family.key(key)] != *value)
        };
        let berts = family.config.renamed.iter().map(|(ours, _)| *ours);
        let absent = family.config.absent.iter().copied().chain(berts);
        let of_others = FAMILIES.iter().flat_map(|family| family.config.renamed.iter().map(|(_, theirs)| *theirs));
        let mut keys: Vec<&str> = absent.chain(of_others).filter(is_set).collect();
        keys.sort_unstable();
        keys.dedup();
        let line = |key: &&str| format!("config.json: {title} ignores {key} ({})", self.extra[*key]);
        keys.iter().map(line).collect()
    }

    /// Sets the dropout on the embeddings and the outputs of both sublayers, and that on the attention weights, if given. In
    /// ModernBERT, the first is that on the embeddings and within the feed-forward block (`embedding_dropout`,
    /// `mlp_dropout`).
    pub fn set_dropout(&mut self, hidden: Option<f64>, attention: Option<f64>) {
        if let Some(hidden) = hidden {
            self.hidden_dropout_prob = hidden;
            if self.family().is_modern() {
                self.extra.insert(EMBEDDING_DROPOUT.to_owned(), Value::from(hidden));
            }
        }
        self.attention_probs_dropout_prob = attention.unwrap_or(self.attention_probs_dropout_prob);
    }

    /// The parameter names in checkpoints of this model.
    pub fn schema(&self) -> Schema {
        Schema::new(self.family(), self.inner_group_num.unwrap_or(1))
    }

    /// Whether `architectures` names this class.
    pub fn is_of_class(&self, class: Class) -> bool {
        self.architectures.iter().flatten().any(|name| self.schema().class(name) == Some(class))
    }

    /// This configuration, changed to that of a causal language model. The heads are checked when the model is built: not
    /// every family has such a class.
    pub fn causal(self) -> Config {
        let class = self.schema().class_name(Class::CausalLm);
        Config { is_decoder: true, architectures: class.map(|class| vec![class.to_owned()]), ..self }
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

impl Serialize for Config {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        Serialize::serialize(&self.to_value(), serializer)
    }
}

impl<'de> Deserialize<'de> for Config {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Config, D::Error> {
        Config::from_value(<Value as Deserialize>::deserialize(deserializer)?).map_err(D::Error::custom)
    }
}

/// The error for an unknown `model_type`.
fn unsupported_model_type(found: &str) -> String {
    let known: Vec<&str> = FAMILIES.iter().map(|family| family.model_type).collect();
    format!("model_type is {found:?}: expected one of the supported architectures, {}", known.join(", "))
}
