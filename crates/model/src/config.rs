//! The file format: Hugging Face's `config.json` of every [family](crate::family), presets with the sizes of the papers,
//! and validation. The network only uses the [`Architecture`] that is made from it here.

use std::fs;
use std::path::Path;

use cloze_engine::ops::Activation;
use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::{Map, Value};

use crate::architecture::{Architecture, Biases, DISTANCE_BUCKETS, Dropouts, SharedParts, Sharing};
use crate::error::ModelError;
use crate::family::{BERT, DefaultValue, FAMILIES, Family, HeadDropout, Positions, Projection};
use crate::heads::Class;
use crate::modern_keys::{EMBEDDING_DROPOUT, ModernKeys};
use crate::role::{LayerPart, Module};
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

// A config beyond these limits is a mistake or an attack; within them, no product overflows.
const MAX_WIDTH: usize = 1 << 24;
const MAX_LAYERS: usize = 1 << 12;
const MAX_PARAMETERS: u128 = 1 << 37;

/// The key of the number of rows of the table of distance biases.
const BUCKETS: &str = "relative_attention_num_buckets";

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
                keys.insert((*theirs).to_owned(), value);
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
        let family = self.family();
        let mut problems = Vec::new();
        if family.model_type != self.model_type {
            problems.push(unsupported_model_type(&self.model_type));
        }
        let has = |key: &str| family.has_key(key);
        let stored = |key: &'static str| family.key(key);
        let sizes = [
            ("vocab_size", self.vocab_size, MAX_WIDTH),
            ("hidden_size", self.hidden_size, MAX_WIDTH),
            ("num_hidden_layers", self.num_hidden_layers, MAX_LAYERS),
            ("num_attention_heads", self.num_attention_heads, MAX_WIDTH),
            ("intermediate_size", self.intermediate_size, MAX_WIDTH),
            ("max_position_embeddings", self.max_position_embeddings, MAX_WIDTH),
            ("type_vocab_size", self.type_vocab_size, MAX_WIDTH),
            ("embedding_size", self.embedding_size.unwrap_or(self.hidden_size), MAX_WIDTH),
            ("num_hidden_groups", self.num_hidden_groups.unwrap_or(1), self.num_hidden_layers.max(1)),
            ("inner_group_num", self.inner_group_num.unwrap_or(1), MAX_LAYERS),
        ];
        for (key, found, max) in sizes {
            if has(key) && (found == 0 || found > max) {
                problems.push(format!("{} is {found}: expected 1 to {max}", stored(key)));
            }
        }
        let (hidden, heads) = (self.hidden_size, self.num_attention_heads);
        if hidden > 0 && heads > 0 && !hidden.is_multiple_of(heads) {
            let keys = [stored("hidden_size"), stored("num_attention_heads")];
            problems.push(format!(
                "{} {hidden} is not divisible by {} {heads}: all heads have the same width",
                keys[0], keys[1]
            ));
        }
        let given = [
            ("embedding_size", self.embedding_size),
            ("num_hidden_groups", self.num_hidden_groups),
            ("inner_group_num", self.inner_group_num),
        ];
        for (key, _) in given.into_iter().filter(|(key, value)| value.is_some() && !has(key)) {
            problems.push(format!("{key} is set: {} has no such key", family.title));
        }
        if self.num_hidden_groups.is_some() && !self.shared_parts.is_none() {
            problems.push(format!("cloze_shared_parts is set: {} has groups of layers instead", family.title));
        }
        if family.positions_skip_padding() {
            match family.padding(self.pad_token_id) {
                None => {
                    problems.push(format!("pad_token_id is null: the positions of {} start after it", family.title))
                }
                Some(padding) if padding as usize + 1 >= self.max_position_embeddings => problems.push(format!(
                    "max_position_embeddings is {}: expected more than {} + 1, {}, where positions start",
                    self.max_position_embeddings,
                    if family.network.positions == Positions::AfterPadding {
                        "pad_token_id"
                    } else {
                        "the padding token's id"
                    },
                    u64::from(padding) + 1
                )),
                Some(_) => {}
            }
        }
        if family.is_modern() {
            problems.extend(self.modern_keys().err().into_iter().flatten());
            if heads > 0 && hidden.is_multiple_of(heads) && !(hidden / heads).is_multiple_of(2) {
                problems.push(format!(
                    "hidden_size {hidden} with num_attention_heads {heads}: heads of {}, expected an even width, because positions rotate pairs of numbers",
                    hidden / heads
                ));
            }
            if !self.shared_parts.is_none() {
                problems.push(format!(
                    "cloze_shared_parts is set: the layers of {} differ and cannot share weights",
                    family.title
                ));
            }
        }
        if family.has_module(Module::DistanceBias) && self.distance_buckets() < DISTANCE_BUCKETS {
            problems.push(format!(
                "relative_attention_num_buckets is {}: expected {DISTANCE_BUCKETS} or more, because {} always uses {DISTANCE_BUCKETS}",
                self.extra[BUCKETS], family.title
            ));
        }
        problems.extend(self.summary_problems());
        let probabilities = [
            ("hidden_dropout_prob", self.hidden_dropout_prob),
            ("attention_probs_dropout_prob", self.attention_probs_dropout_prob),
        ];
        let of_heads = self.head_dropout_keys().filter_map(|key| Some((key, self.extra.get(key)?.as_f64()?)));
        for (key, found) in probabilities.into_iter().chain(of_heads) {
            if !(0.0..1.0).contains(&found) {
                problems.push(format!("{} is {found}: expected 0 or more and less than 1", stored(key)));
            }
        }
        for (key, found) in [("initializer_range", self.initializer_range), ("layer_norm_eps", self.layer_norm_eps)] {
            if !(found > 0.0 && found < 1e3 && found as f32 > 0.0) {
                let key = stored(key);
                problems.push(format!("{key} is {found}: expected a small positive number"));
            }
        }
        if self.add_cross_attention {
            problems.push(
                "add_cross_attention is true: expected false, because there is no second encoder to attend to"
                    .to_owned(),
            );
        }
        let causal_class = self.schema().class_name(Class::CausalLm).unwrap_or("no class: this family has none");
        let other = |name: &&String| {
            let class = self.schema().class(name);
            class.is_none_or(|class| !matches!(class, Class::CausalLm | Class::Encoder) && !class.is_task())
        };
        if let (true, Some(found)) = (self.is_decoder, self.architectures.iter().flatten().find(other)) {
            problems.push(format!(
                "is_decoder is true with architectures [{found}]: expected [{causal_class}], a causal language model, or a task's class, or is_decoder false"
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
        if problems.is_empty() {
            let layers = self.num_hidden_layers * self.inner_group_num.unwrap_or(1);
            problems.extend(self.task_input.problem(layers));
        }
        if problems.is_empty() && self.encoder_parameters() > MAX_PARAMETERS {
            problems.push(format!("{} parameters: expected at most {MAX_PARAMETERS}", self.encoder_parameters()));
        }
        problems
    }

    /// What is wrong with ELECTRA's `summary_…` keys, which determine the head of multiple choice.
    fn summary_problems(&self) -> Vec<String> {
        if !self.is_of_class(Class::Choose) || !self.schema().has(Module::ChoiceDense) {
            return Vec::new();
        }
        let expected = [("summary_type", Value::from("first")), ("summary_use_proj", Value::from(true))];
        let wrong = expected.into_iter().filter_map(|(key, expected)| {
            let found = self.extra.get(key).filter(|found| **found != expected)?;
            Some(format!("{key} is {found}: expected {expected}, the only supported value"))
        });
        let mut problems: Vec<String> = wrong.collect();
        if let Err(found) = self.summary_activation() {
            problems.push(format!("summary_activation is {found}: expected gelu, relu, silu, tanh or null"));
        }
        problems
    }

    /// The values of ModernBERT's own keys.
    fn modern_keys(&self) -> Result<ModernKeys, Vec<String>> {
        ModernKeys::read(&self.extra, self.num_hidden_layers)
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

    /// MPNet's `relative_attention_num_buckets`; 0 if it is not a number of rows.
    fn distance_buckets(&self) -> usize {
        match self.extra.get(BUCKETS) {
            None => DISTANCE_BUCKETS,
            Some(found) => found
                .as_u64()
                .and_then(|found| usize::try_from(found).ok())
                .filter(|&found| found <= MAX_WIDTH)
                .unwrap_or(0),
        }
    }

    /// ELECTRA's `summary_activation`.
    fn summary_activation(&self) -> Result<Activation, &Value> {
        match self.extra.get("summary_activation") {
            None => Ok(Activation::Gelu),
            Some(Value::Null) => Ok(Activation::None),
            Some(found) if found == "" => Ok(Activation::None),
            Some(found) if found == "tanh" => Ok(Activation::Tanh),
            Some(found) => HiddenAct::deserialize(found).map(HiddenAct::activation).map_err(|_| found),
        }
    }

    /// The keys of the dropouts of heads.
    fn head_dropout_keys(&self) -> impl Iterator<Item = &'static str> {
        let of = &self.family().network.dropouts;
        let mut keys: Vec<&str> = [of.classify, of.tag, of.choose, of.answer, of.pair]
            .into_iter()
            .filter_map(|dropout| match dropout {
                HeadDropout::Key(key, _) | HeadDropout::KeyOrHidden(key) => Some(key),
                HeadDropout::None | HeadDropout::Hidden => None,
            })
            .collect();
        keys.dedup();
        keys.into_iter()
    }

    fn head_dropout(&self, dropout: HeadDropout) -> f32 {
        let number = |key: &str| self.extra.get(key).and_then(Value::as_f64);
        let probability = match dropout {
            HeadDropout::None => 0.0,
            HeadDropout::Hidden => self.hidden_dropout_prob,
            HeadDropout::Key(key, default) => number(key).unwrap_or(default),
            HeadDropout::KeyOrHidden(key) => number(key).unwrap_or(self.hidden_dropout_prob),
        };
        probability as f32
    }

    /// The sizes and settings of the network. The configuration must be [valid](Self::validate).
    pub fn architecture(&self) -> Architecture {
        let (family, network) = (self.family(), &self.family().network);
        let embedding_size = self.embedding_size.unwrap_or(self.hidden_size);
        let activation = self.hidden_act.activation();
        let mut choose = network.choose;
        if choose.dense == Module::ChoiceDense {
            choose.activation = self.summary_activation().unwrap_or(choose.activation);
        }
        let inner = self.inner_group_num.unwrap_or(1);
        let modern = if family.is_modern() { self.modern_keys().ok() } else { None };
        let hidden = self.hidden_dropout_prob as f32;
        let attention = self.attention_probs_dropout_prob as f32;
        Architecture {
            vocab_size: self.vocab_size,
            embedding_size,
            projects_embeddings: match network.projection {
                Projection::Never => false,
                Projection::IfNeeded => embedding_size != self.hidden_size,
                Projection::Always => true,
            },
            hidden_size: self.hidden_size,
            layers: self.num_hidden_layers * inner,
            sharing: match self.num_hidden_groups {
                Some(groups) => Sharing::Groups { passes: self.num_hidden_layers, groups, inner },
                None => Sharing::Parts(self.shared_parts),
            },
            attention_heads: self.num_attention_heads,
            intermediate_size: self.intermediate_size,
            positions: self.max_position_embeddings,
            rotary: modern.map(|keys| keys.rotary),
            local: modern.and_then(|keys| keys.local),
            pre_norm: family.has_module(Module::FinalNorm),
            fused_projections: family.has_module(Module::layer(0, LayerPart::QueryKeyValue)),
            gated: family.has_module(Module::layer(0, LayerPart::GatedIntermediate)),
            biases: modern.map_or(Biases::ALL, |keys| keys.biases),
            prediction_head: family.has_module(Module::PredictionDense),
            mean_pooling: modern.is_some_and(|keys| keys.mean_pooling),
            word_padding: family.padding(self.pad_token_id),
            position_padding: family.padding(self.pad_token_id).filter(|_| family.positions_skip_padding()),
            segments: if family.has_key("type_vocab_size") { self.type_vocab_size } else { 0 },
            activation,
            mlm_activation: modern.map(|keys| keys.activation).or(network.mlm_activation).unwrap_or(activation),
            classify: network.classify,
            choose,
            dropouts: Dropouts {
                embeddings: modern.map_or(hidden, |keys| keys.embedding_dropout),
                attention,
                attention_output: if family.is_modern() { attention } else { hidden },
                gated: if family.is_modern() { hidden } else { 0.0 },
                output: if family.is_modern() { 0.0 } else { hidden },
                classify: self.head_dropout(network.dropouts.classify),
                tag: self.head_dropout(network.dropouts.tag),
                choose: self.head_dropout(network.dropouts.choose),
                answer: self.head_dropout(network.dropouts.answer),
                pair: self.head_dropout(network.dropouts.pair),
            },
            initializer_range: self.initializer_range as f32,
            layer_norm_eps: self.layer_norm_eps as f32,
            distance_buckets: family.has_module(Module::DistanceBias).then(|| self.distance_buckets()),
            causal: self.is_decoder,
            tied_decoder: self.tie_word_embeddings,
            task_input: self.task_input,
        }
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

    /// Number of parameters of embeddings and encoder, without heads. Cannot overflow if the sizes are in range.
    fn encoder_parameters(&self) -> u128 {
        let [v, e, h, l, f, p, t] = [
            self.vocab_size,
            self.embedding_size.unwrap_or(self.hidden_size),
            self.hidden_size,
            self.num_hidden_layers,
            self.intermediate_size,
            self.max_position_embeddings,
            self.type_vocab_size,
        ]
        .map(|size| size as u128);
        let sets = match self.num_hidden_groups {
            Some(groups) => (groups * self.inner_group_num.unwrap_or(1)) as u128,
            None => l,
        };
        (v + p + t) * e + e * h + sets * (4 * h * h + 3 * h * f)
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

    /// What Transformers 5.24 writes for `DistilBertConfig()`, with two keys of other families.
    #[test]
    fn keys_of_another_family_are_translated_and_written_back() {
        let text = r#"{
  "activation": "relu", "attention_dropout": 0.25, "dim": 48, "dropout": 0.5, "hidden_dim": 64, "initializer_range": 0.02,
  "layer_norm_eps": 0.5, "max_position_embeddings": 40, "model_type": "distilbert", "n_heads": 3, "n_layers": 2,
  "num_hidden_groups": 4, "pad_token_id": 0, "qa_dropout": 0.125, "seq_classif_dropout": 0.75, "sinusoidal_pos_embds": false,
  "tie_word_embeddings": true, "type_vocab_size": 7, "vocab_size": 99
}"#;
        let config = parse(text).unwrap();
        assert_eq!((config.hidden_size, config.num_attention_heads, config.num_hidden_layers), (48, 3, 2));
        assert_eq!((config.intermediate_size, config.hidden_act), (64, HiddenAct::Relu));
        let architecture = config.architecture();
        assert_eq!((architecture.segments, architecture.layer_norm_eps), (0, 1e-12));
        let Dropouts { embeddings, attention, attention_output, gated, output, .. } = architecture.dropouts;
        assert_eq!([embeddings, attention, attention_output, gated, output], [0.5, 0.25, 0.5, 0.0, 0.5]);
        let Dropouts { classify, tag, choose, answer, pair, .. } = architecture.dropouts;
        assert_eq!([classify, tag, choose, answer, pair], [0.75, 0.5, 0.75, 0.125, 0.0]);
        let written: Value = serde_json::from_str(&config.to_json()).unwrap();
        assert_eq!(written, serde_json::from_str::<Value>(text).unwrap());
        assert_eq!(
            config.ignored_keys(),
            [
                "config.json: DistilBERT ignores layer_norm_eps (0.5)",
                "config.json: DistilBERT ignores num_hidden_groups (4)",
                "config.json: DistilBERT ignores type_vocab_size (7)"
            ]
        );
        // Transformers accepts both names.
        let config = parse(r#"{"model_type": "distilbert", "hidden_size": 24, "n_heads": 2}"#).unwrap();
        assert_eq!((config.hidden_size, config.num_hidden_layers), (24, 6));
        let error = parse(r#"{"model_type": "distilbert", "hidden_size": 24, "dim": 48}"#).unwrap_err().to_string();
        assert!(error.contains("dim is 48, but hidden_size is 24: expected only dim"), "{error}");
        let error = parse(r#"{"model_type": "distilbert", "dim": "wide"}"#).unwrap_err().to_string();
        assert!(error.contains("dim: invalid type"), "{error}");
        let config = parse(r#"{"model_type": "roberta", "embedding_size": 64}"#).unwrap();
        assert_eq!(config.ignored_keys(), ["config.json: RoBERTa ignores embedding_size (64)"]);
    }

    #[test]
    fn missing_keys_have_the_defaults_of_the_family() {
        let sizes = |model_type: &str| {
            let config = parse(&format!("{{\"model_type\": \"{model_type}\"}}")).unwrap();
            let Architecture { vocab_size, embedding_size, hidden_size, layers, positions, segments, .. } =
                config.architecture();
            ([vocab_size, embedding_size, hidden_size, layers, positions, segments], config.pad_token_id)
        };
        assert_eq!(sizes("roberta"), ([50265, 768, 768, 12, 512, 2], Some(1)));
        assert_eq!(sizes("xlm-roberta"), ([30522, 768, 768, 12, 512, 2], Some(1)));
        assert_eq!(sizes("camembert"), ([30522, 768, 768, 12, 512, 2], Some(1)));
        assert_eq!(sizes("mpnet"), ([30527, 768, 768, 12, 512, 0], Some(1)));
        assert_eq!(sizes("distilbert"), ([30522, 768, 768, 6, 512, 0], Some(0)));
        assert_eq!(sizes("albert"), ([30000, 128, 4096, 12, 512, 2], Some(0)));
        assert_eq!(sizes("electra"), ([30522, 128, 256, 12, 512, 2], Some(0)));
        let albert = parse(r#"{"model_type": "albert"}"#).unwrap();
        assert_eq!((albert.hidden_act, albert.hidden_dropout_prob), (HiddenAct::GeluNew, 0.0));
        assert_eq!(albert.architecture().dropouts.pair, 0.1);
        let long = parse(r#"{"model_type": "roberta", "max_position_embeddings": 514}"#).unwrap();
        assert_eq!(long.architecture().max_sequence_length(), 512);
        let shorter = parse(r#"{"model_type": "roberta", "max_position_embeddings": 514, "pad_token_id": 3}"#).unwrap();
        assert_eq!(shorter.architecture().max_sequence_length(), 510);
    }

    /// Keys of ModernBERT: those of BERT are ignored, and only reported if they contradict the family's own.
    #[test]
    fn names_of_bert_are_not_read_where_transformers_does_not_read_them() {
        let text = r#"{"model_type": "modernbert", "layer_norm_eps": 1e-05, "norm_eps": 1e-05, "hidden_act": "relu",
            "hidden_activation": "gelu", "mlp_dropout": 0.25, "embedding_dropout": 0.5, "attention_dropout": 0.125,
            "local_attention": 10, "pad_token_id": 0}"#;
        let config = parse(text).unwrap();
        assert_eq!((config.hidden_act, config.layer_norm_eps), (HiddenAct::Gelu, 1e-5));
        assert_eq!(config.ignored_keys(), ["config.json: ModernBERT ignores hidden_act (\"relu\")"]);
        let Dropouts { embeddings, attention, attention_output, gated, output, .. } = config.architecture().dropouts;
        assert_eq!([embeddings, attention, attention_output, gated, output], [0.5, 0.125, 0.125, 0.25, 0.0]);
        let architecture = config.architecture();
        assert_eq!([0, 1, 2, 3].map(|number| architecture.window(number)), [None, Some(5), Some(5), None]);
        assert_eq!((architecture.segments, architecture.layers, architecture.positions), (0, 22, 8192));
        let mut written = parse(&config.to_json()).unwrap();
        assert_eq!(written, config);
        written.set_dropout(Some(0.75), None);
        let dropouts = written.architecture().dropouts;
        assert_eq!([dropouts.embeddings, dropouts.gated, dropouts.attention], [0.75, 0.75, 0.125]);
    }

    /// A configuration that a program makes can have values that no file of the family has.
    #[test]
    fn values_that_the_family_does_not_have_never_reach_the_network() {
        let distilbert = Config { model_type: "distilbert".to_owned(), ..Config::default() };
        assert_eq!((distilbert.type_vocab_size, distilbert.architecture().segments), (2, 0));
        for change in [
            Config { embedding_size: Some(64), ..Config::default() },
            Config { num_hidden_groups: Some(1), ..Config::default() },
        ] {
            let error = change.validate().unwrap_err().to_string();
            assert!(error.contains("is set: BERT has no such key"), "{error}");
        }
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
            (
                r#"{"model_type": "deberta-v2", "hidden_act": 7}"#,
                "model_type is \"deberta-v2\": expected one of the supported architectures, bert, roberta",
            ),
            (r#"{"num_hidden_layers": 0}"#, "num_hidden_layers is 0"),
            (r#"{"vocab_size": 99999999999}"#, "vocab_size is 99999999999"),
            (
                r#"{"vocab_size": 16777216, "hidden_size": 16777216, "num_attention_heads": 1}"#,
                "parameters: expected at most",
            ),
            (r#"{"is_decoder": true, "architectures": ["BertForPreTraining"]}"#, "is_decoder"),
            (r#"{"cloze_bilstm": {"layers": 0, "size": 8}}"#, "a BiLSTM of 0 layers of 8: expected 1 to 16 layers"),
            (r#"{"cloze_bilstm": {"layers": 2}}"#, "cloze_bilstm: missing field `size`"),
            (r#"{"cloze_features": "first"}"#, "cloze_features: \"first\": expected embeddings, second-to-last, last"),
            (r#"{"num_hidden_layers": 18446744073709551615, "cloze_bilstm": null}"#, "num_hidden_layers is"),
            (r#"{"cloze_features": "sum-last-14"}"#, "features from 14 layers: expected 1 to 13"),
            (r#"{"cloze_sequence_token": "second"}"#, "cloze_sequence_token: unknown variant `second`"),
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
            (r#"{"model_type": "distilbert", "seq_classif_dropout": 1.5}"#, "seq_classif_dropout is 1.5"),
            (r#"{"model_type": "distilbert", "n_heads": 5}"#, "dim 768 is not divisible by n_heads 5"),
            (
                r#"{"model_type": "roberta", "pad_token_id": null}"#,
                "pad_token_id is null: the positions of RoBERTa start",
            ),
            (r#"{"model_type": "roberta", "max_position_embeddings": 2}"#, "expected more than pad_token_id + 1, 2"),
            (
                r#"{"model_type": "mpnet", "relative_attention_num_buckets": 31}"#,
                "relative_attention_num_buckets is 31: expected 32 or more",
            ),
            (
                r#"{"model_type": "mpnet", "pad_token_id": 7, "max_position_embeddings": 2}"#,
                "expected more than the padding token's id + 1, 2",
            ),
            (r#"{"model_type": "modernbert", "local_attention": 9}"#, "local_attention is 9: expected an even number"),
            (r#"{"model_type": "modernbert", "num_attention_heads": 256}"#, "heads of 3, expected an even width"),
            (r#"{"model_type": "modernbert", "cloze_shared_parts": "all"}"#, "layers of ModernBERT differ"),
            (r#"{"model_type": "modernbert", "norm_eps": 0}"#, "norm_eps is 0"),
            (r#"{"model_type": "albert", "num_hidden_groups": 13}"#, "num_hidden_groups is 13: expected 1 to 12"),
            (r#"{"model_type": "albert", "cloze_shared_parts": "all"}"#, "ALBERT has groups of layers instead"),
            (
                r#"{"model_type": "electra", "architectures": ["ElectraForMultipleChoice"], "summary_type": "mean"}"#,
                "summary_type is \"mean\": expected \"first\"",
            ),
            (r#"{"position_embedding_type": "relative_key"}"#, "position_embedding_type is \"relative_key\""),
            (r#"{"hidden_size": "wide"}"#, "hidden_size: invalid type: string \"wide\", expected usize"),
            ("[1]", "expected a JSON object"),
            ("{\"hidden_size\": ", "EOF"),
        ];
        for (text, expected) in cases {
            let error = parse(text).unwrap_err().to_string();
            assert!(error.contains(expected) && error.contains("config.json"), "{text}: {error}");
        }
    }
}
