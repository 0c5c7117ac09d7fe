//! The configuration files next to a vocabulary, interpreted as by `AutoTokenizer` of Transformers 5.
//!
//! tokenizer_config.json defines the tokenizer's class, the normaliser's settings and special tokens. Its
//! `added_tokens_decoder` lists the added tokens. Only if it has none, special_tokens_map.json (which then overrides
//! tokenizer_config.json), added_tokens.json and the `added_tokens` of tokenizer.json are read
//! (`PreTrainedTokenizerBase._from_pretrained`).

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use ahash::AHashSet;
use serde_json::{Map, Value};
use tokenizers::AddedToken;

use crate::TextError;

pub(crate) const JSON: &str = "tokenizer.json";
pub(crate) const LIST: &str = "vocab.txt";
pub(crate) const BPE_VOCABULARY: &str = "vocab.json";
pub(crate) const MERGES: &str = "merges.txt";
pub(crate) const CONFIG: &str = "tokenizer_config.json";
pub(crate) const SPECIAL_MAP: &str = "special_tokens_map.json";
pub(crate) const ADDED: &str = "added_tokens.json";
pub(crate) const MODEL_CONFIG: &str = "config.json";

/// Keys of tokenizer_config.json.
pub(crate) const CLASS: &str = "tokenizer_class";
pub(crate) const DECODER: &str = "added_tokens_decoder";
pub(crate) const EXTRA: &str = "extra_special_tokens";
/// The name of [`EXTRA`] in Transformers 4.
pub(crate) const ADDITIONAL: &str = "additional_special_tokens";
pub(crate) const MAX_LENGTH: &str = "model_max_length";
pub(crate) const OLD_MAX_LENGTH: &str = "max_len";

/// The named special tokens that every tokenizer can have, in the order in which Transformers adds them.
const NAMED: [&str; 7] = ["bos_token", "eos_token", "unk_token", "sep_token", "pad_token", "cls_token", "mask_token"];

/// Tokenizer classes of Transformers that are its `BertTokenizer` (without the suffix `Fast` of old files).
const BERT_CLASSES: [&str; 11] = [
    "BertTokenizer",
    "ConvBertTokenizer",
    "DPRContextEncoderTokenizer",
    "DPRQuestionEncoderTokenizer",
    "DPRReaderTokenizer",
    "DistilBertTokenizer",
    "ElectraTokenizer",
    "LayoutLMTokenizer",
    "LxmertTokenizer",
    "MobileBertTokenizer",
    "SqueezeBertTokenizer",
];

/// Values of config.json's `model_type` whose tokenizer is one of [`BERT_CLASSES`] if no class is named.
const BERT_MODELS: [&str; 16] = [
    "bert",
    "convbert",
    "distilbert",
    "dpr",
    "electra",
    "ernie",
    "layoutlm",
    "lxmert",
    "megatron-bert",
    "mobilebert",
    "nezha",
    "nomic_bert",
    "qdqbert",
    "realm",
    "retribert",
    "squeezebert",
];

/// A class of Transformers other than `BertTokenizer` that builds its tokenizer from the vocabulary and tokenizer_config.json.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Family {
    /// Byte-level BPE.
    Roberta,
    /// Unigram, with the first ids of fairseq.
    XlmRoberta,
    /// Unigram, with other first ids of fairseq.
    Camembert,
    /// Unigram with the ids of its SentencePiece model.
    Albert,
    /// WordPiece as in BERT, with RoBERTa's special tokens and template.
    MpNet,
}

/// Where a [`Family`] is named, and its files.
struct FamilyNames {
    family: Family,
    /// Names of the class (without the suffix `Fast` of old files), the usual one first.
    classes: &'static [&'static str],
    /// Values of config.json's `model_type` that have this class if no class is named.
    models: &'static [&'static str],
    /// The files in addition to tokenizer.json, of which one form is enough.
    files: &'static [&'static str],
}

/// From `TOKENIZER_MAPPING_NAMES` of Transformers.
const FAMILIES: [FamilyNames; 5] = [
    FamilyNames {
        family: Family::Roberta,
        classes: &["RobertaTokenizer", "BartTokenizer", "LEDTokenizer", "LongformerTokenizer"],
        models: &[
            "bart",
            "bridgetower",
            "clap",
            "data2vec-text",
            "ibert",
            "lilt",
            "longformer",
            "mega",
            "mra",
            "roberta",
            "roberta-prelayernorm",
        ],
        files: &[BPE_VOCABULARY, MERGES],
    },
    FamilyNames {
        family: Family::XlmRoberta,
        classes: &["XLMRobertaTokenizer"],
        models: &["gte", "jina_embeddings_v3", "xlm-roberta", "xmod"],
        files: &["sentencepiece.bpe.model"],
    },
    FamilyNames {
        family: Family::Camembert,
        classes: &["CamembertTokenizer"],
        models: &["camembert"],
        files: &["sentencepiece.bpe.model"],
    },
    FamilyNames {
        family: Family::Albert,
        classes: &["AlbertTokenizer"],
        models: &["albert", "yoso"],
        files: &["spiece.model"],
    },
    FamilyNames { family: Family::MpNet, classes: &["MPNetTokenizer"], models: &["mpnet"], files: &[LIST] },
];

impl Family {
    fn names(self) -> &'static FamilyNames {
        // Each family has an entry.
        FAMILIES.iter().find(|names| names.family == self).unwrap_or(&FAMILIES[0])
    }

    /// The class's usual name.
    pub(crate) fn class_name(self) -> &'static str {
        self.names().classes[0]
    }

    /// The files that give the vocabulary if there is no tokenizer.json.
    pub(crate) fn files(self) -> &'static [&'static str] {
        self.names().files
    }
}

/// The kind of tokenizer class in the configuration, which decides which files are used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Class {
    /// `BertTokenizer`: the file gives only the vocabulary; tokenizer_config.json determines everything else.
    Bert,
    /// The same for another class.
    Family(Family),
    /// Another class: tokenizer.json is used unchanged.
    AsWritten,
    /// No class in the configuration: tokenizer.json is used unchanged.
    Unnamed,
}

/// The configuration files next to a vocabulary.
#[derive(Clone, Debug, Default)]
pub(crate) struct Settings {
    /// tokenizer_config.json; `None` if it does not exist.
    pub(crate) config: Option<Map<String, Value>>,
    /// special_tokens_map.json.
    pub(crate) special_map: Option<Map<String, Value>>,
    /// added_tokens.json.
    pub(crate) added_file: Option<Map<String, Value>>,
    /// `tokenizer_class` and `model_type` of config.json.
    model: [Option<String>; 2],
}

/// Special tokens without a name that a class or a model adds if tokenizer_config.json does not list such tokens.
#[derive(Debug, Default)]
pub(crate) struct ExtraTokens {
    /// Those of a SentencePiece model, which replace the list of special_tokens_map.json.
    pub(crate) of_model: Option<Vec<AddedToken>>,
    /// Those of the class, if there is no other list.
    pub(crate) of_class: Vec<AddedToken>,
}

/// All special and added tokens that the configuration files define.
#[derive(Debug, Default)]
pub(crate) struct AddedTokens {
    /// Tokens that are listed with an id, sorted by id. Transformers does not use the ids themselves.
    listed: Vec<AddedToken>,
    /// Named special tokens with their keys.
    named: Vec<(String, AddedToken)>,
    /// Special tokens without a name.
    extra: Vec<AddedToken>,
}

/// The JSON object in a file; `None` if the file does not exist.
fn read_object(path: &Path) -> Result<Option<Map<String, Value>>, TextError> {
    if !path.is_file() {
        return Ok(None);
    }
    let bytes = fs::read(path).map_err(|source| TextError::Io { action: "read", path: path.to_owned(), source })?;
    let bad = |reason| TextError::BadFile { path: path.to_owned(), reason };
    match serde_json::from_slice(&bytes) {
        Ok(Value::Object(object)) => Ok(Some(object)),
        Ok(other) => Err(bad(format!("expected a JSON object, found {}", short(&other)))),
        Err(_) if bytes.starts_with(b"\xef\xbb\xbf") => {
            Err(bad("the file begins with a byte-order mark, which JSON does not allow; save it as UTF-8 without one"
                .to_owned()))
        }
        Err(error) => Err(bad(format!("not JSON: {error}"))),
    }
}

/// A value for a message, at most 60 characters long.
fn short(value: &Value) -> String {
    let text = value.to_string();
    if text.chars().count() > 60 { text.chars().take(60).chain(['…']).collect() } else { text }
}

impl Settings {
    /// Reads the files of `folder`.
    pub(crate) fn read(folder: &Path) -> Result<Settings, TextError> {
        let open = |name: &str| read_object(&folder.join(name));
        // Errors in it are reported by the code that reads the model.
        let model = open(MODEL_CONFIG).ok().flatten().unwrap_or_default();
        Ok(Settings {
            config: open(CONFIG)?,
            special_map: open(SPECIAL_MAP)?,
            added_file: open(ADDED)?,
            model: [CLASS, "model_type"].map(|key| model.get(key).and_then(Value::as_str).map(str::to_owned)),
        })
    }

    /// The value of a key of tokenizer_config.json; null if it is missing.
    pub(crate) fn get(&self, key: &str) -> &Value {
        self.config.as_ref().and_then(|config| config.get(key)).unwrap_or(&Value::Null)
    }

    /// The class that tokenizer_config.json or config.json names.
    pub(crate) fn class_name(&self) -> Option<&str> {
        self.get(CLASS).as_str().or(self.model[0].as_deref())
    }

    pub(crate) fn class(&self) -> Class {
        let family = |is_named: &dyn Fn(&FamilyNames) -> bool| {
            FAMILIES.iter().find(|names| is_named(names)).map_or(Class::AsWritten, |names| Class::Family(names.family))
        };
        match (self.class_name().map(|name| name.strip_suffix("Fast").unwrap_or(name)), self.model[1].as_deref()) {
            (Some(name), _) if BERT_CLASSES.contains(&name) => Class::Bert,
            (Some(name), _) => family(&|names| names.classes.contains(&name)),
            (None, Some(model)) if BERT_MODELS.contains(&model) => Class::Bert,
            (None, Some(model)) => family(&|names| names.models.contains(&model)),
            (None, None) => Class::Unnamed,
        }
    }

    /// Where the class is defined, for messages, such as "tokenizer_class is BartTokenizer". `None` if it is not defined, or a
    /// generic one that any tokenizer.json may have.
    pub(crate) fn class_origin(&self) -> Option<String> {
        match (self.class_name(), self.model[1].as_deref()) {
            (Some("PreTrainedTokenizerFast" | "PreTrainedTokenizer" | "TokenizersBackend"), _) | (None, None) => None,
            (Some(name), _) => Some(format!("tokenizer_class is {name}")),
            (None, Some(model)) => Some(format!("model_type in {MODEL_CONFIG} is {model}")),
        }
    }

    /// Whether the configuration gives the flags of a token with a named role.
    pub(crate) fn describes(&self, key: &str) -> bool {
        [&self.config, &self.special_map].into_iter().flatten().any(|file| file.get(key).is_some_and(Value::is_object))
    }

    /// A yes-or-no setting of tokenizer_config.json.
    pub(crate) fn flag(&self, key: &str) -> Option<bool> {
        self.get(key).as_bool()
    }

    /// Whether special tokens in texts are always read as text (`split_special_tokens`).
    pub(crate) fn splits_special(&self) -> bool {
        self.get("split_special_tokens").as_bool().unwrap_or_default()
    }

    /// Whether texts are truncated at the beginning (`truncation_side`).
    pub(crate) fn truncates_left(&self) -> bool {
        self.get("truncation_side") == "left"
    }

    /// Whether `model_input_names` omits `token_type_ids`: then the network gets no segments.
    pub(crate) fn omits_segments(&self) -> bool {
        let names = self.get("model_input_names").as_array();
        names.is_some_and(|names| names.iter().all(|name| name != "token_type_ids"))
    }

    /// The maximal number of tokens in a sequence (`model_max_length`); `None` if there is no limit.
    pub(crate) fn max_length(&self) -> Option<usize> {
        /// Transformers writes 10³⁰ for "no limit".
        const UNLIMITED: f64 = 1e9;
        let is_present = self.config.as_ref().is_some_and(|config| config.contains_key(MAX_LENGTH));
        let key = if is_present { MAX_LENGTH } else { OLD_MAX_LENGTH };
        let max_length = self.get(key).as_f64().filter(|length| (1.0..UNLIMITED).contains(length))?;
        Some(max_length as usize)
    }

    /// The special and added tokens. `in_json` are those of tokenizer.json with their ids; empty if there is no such file.
    pub(crate) fn added_tokens(
        &self,
        path: &Path,
        in_json: &[(u64, AddedToken)],
        default: ExtraTokens,
    ) -> Result<AddedTokens, TextError> {
        let mut keys = self.config.clone().unwrap_or_default();
        let is_empty = |value: Option<&Value>| match value {
            None | Some(Value::Null | Value::Bool(false)) => true,
            Some(Value::Array(list)) => list.is_empty(),
            Some(Value::Object(map)) => map.is_empty(),
            Some(_) => false,
        };
        if is_empty(keys.get(EXTRA))
            && let Some(additional) = keys.remove(ADDITIONAL)
        {
            keys.insert(EXTRA.to_owned(), additional);
        }
        // Model-specific tokens such as `image_token` are named like the usual ones.
        let mut own: Vec<(String, Value)> = keys
            .iter()
            .filter(|(key, value)| key.ends_with("_token") && !NAMED.contains(&key.as_str()) && value.is_string())
            .map(|(key, value)| (key.clone(), value.clone()))
            .collect();
        own.iter().for_each(|(key, _)| drop(keys.remove(key)));
        let mut take_names = |keys: &mut Map<String, Value>| {
            if let Some(Value::Object(names)) = keys.get(EXTRA).cloned() {
                keys.remove(EXTRA);
                own.extend(names);
            }
        };
        take_names(&mut keys);
        let bad = |file: &str, reason: String| TextError::BadFile { path: path.with_file_name(file), reason };
        let token = |file: &str, value: &Value| {
            added_token(value).ok_or_else(|| bad(file, format!("expected a token, found {}", short(value))))
        };
        let mut listed: BTreeMap<u64, AddedToken> = BTreeMap::new();
        if let Some(decoder) = keys.remove(DECODER) {
            for (id, value) in decoder.as_object().into_iter().flatten() {
                let id = id.parse().map_err(|_| bad(CONFIG, format!("{DECODER}: expected an id, found {id:?}")))?;
                listed.insert(id, token(CONFIG, value)?);
            }
        } else {
            for (key, value) in self.special_map.iter().flatten() {
                match (value, keys.get_mut(EXTRA)) {
                    (Value::Array(more), Some(Value::Array(list))) if key == EXTRA => {
                        let new: Vec<Value> = more.iter().filter(|token| !list.contains(token)).cloned().collect();
                        list.extend(new);
                    }
                    _ => drop(keys.insert(key.clone(), special_object(value))),
                }
            }
            take_names(&mut keys);
            self.list_tokens_of_other_files(&keys, in_json, &mut listed, &bad)?;
        }
        let mut added = AddedTokens { listed: listed.into_values().collect(), ..AddedTokens::default() };
        if !keys.contains_key(EXTRA) {
            match (default.of_model, keys.remove(ADDITIONAL)) {
                (Some(tokens), _) => added.extra = tokens,
                (None, Some(additional)) => drop(keys.insert(EXTRA.to_owned(), additional)),
                (None, None) => added.extra = default.of_class,
            }
        }
        let named = NAMED.iter().filter_map(|&key| Some((key.to_owned(), keys.get(key)?.clone())));
        // Names whose values are objects come before the other model-specific names.
        let objects = keys.iter().filter(|(key, value)| {
            key.ends_with("_token") && !NAMED.contains(&key.as_str()) && (value.is_object() || value.is_string())
        });
        let objects: Vec<(String, Value)> = objects.map(|(key, value)| (key.clone(), value.clone())).collect();
        for (key, value) in named.chain(objects).chain(own).filter(|(_, value)| !value.is_null()) {
            let token = AddedToken { special: true, ..token(CONFIG, &value)? };
            added.named.push((key, token));
        }
        for value in keys.get(EXTRA).and_then(Value::as_array).into_iter().flatten() {
            added.extra.push(token(CONFIG, value)?);
        }
        Ok(added)
    }

    /// Adds the tokens of added_tokens.json and tokenizer.json.
    fn list_tokens_of_other_files(
        &self,
        keys: &Map<String, Value>,
        in_json: &[(u64, AddedToken)],
        listed: &mut BTreeMap<u64, AddedToken>,
        bad: &dyn Fn(&str, String) -> TextError,
    ) -> Result<(), TextError> {
        // At this point, Transformers does not yet know the text of tokens that are objects with a `__type`.
        let name = |value: &Value| match value {
            Value::Object(token) if token.contains_key("__type") => None,
            _ => value.as_str().or(value["content"].as_str()).map(str::to_owned),
        };
        let mut special: AHashSet<String> = NAMED.iter().filter_map(|&key| name(keys.get(key)?)).collect();
        // Without `additional_special_tokens` of special_tokens_map.json: Transformers reads it later.
        special.extend(keys.get(EXTRA).and_then(Value::as_array).into_iter().flatten().filter_map(name));
        for (content, id) in self.added_file.iter().flatten() {
            let id =
                id.as_u64().ok_or_else(|| bad(ADDED, format!("{content:?}: expected an id, found {}", short(id))))?;
            listed.insert(id, AddedToken::from(content.as_str(), special.contains(content)));
        }
        listed.extend(in_json.iter().map(|(id, token)| (*id, token.clone())));
        Ok(())
    }
}

/// Parses a token: its text, or an object with its text and its flags.
pub(crate) fn added_token(value: &Value) -> Option<AddedToken> {
    if let Some(text) = value.as_str() {
        return Some(AddedToken::from(text, true));
    }
    let flag = |name: &str| value[name].as_bool();
    let special = flag("special").unwrap_or_default();
    Some(AddedToken {
        content: value["content"].as_str()?.to_owned(),
        single_word: flag("single_word").unwrap_or_default(),
        lstrip: flag("lstrip").unwrap_or_default(),
        rstrip: flag("rstrip").unwrap_or_default(),
        normalized: flag("normalized").unwrap_or(!special),
        special,
    })
}

/// A value of special_tokens_map.json, where every token is special.
fn special_object(value: &Value) -> Value {
    match value {
        Value::Object(token) if token.contains_key("content") => {
            let mut token = token.clone();
            token.insert("special".to_owned(), true.into());
            Value::Object(token)
        }
        Value::Array(list) => list.iter().map(special_object).collect(),
        other => other.clone(),
    }
}

impl AddedTokens {
    /// The token with a named role, such as `mask_token`.
    pub(crate) fn named(&self, key: &str) -> Option<&str> {
        self.named.iter().find(|(name, _)| name == key).map(|(_, token)| token.content.as_str())
    }

    /// Assigns a token to a role that has none.
    pub(crate) fn set_named(&mut self, key: &str, token: AddedToken) {
        if self.named(key).is_none() {
            let rank = |name: &str| NAMED.iter().position(|&other| other == name).unwrap_or(NAMED.len());
            let at = self.named.iter().position(|(name, _)| rank(name) > rank(key)).unwrap_or(self.named.len());
            self.named.insert(at, (key.to_owned(), token));
        }
    }

    /// Whether a token with a named role has an entry with flags in one of the lists.
    pub(crate) fn is_listed(&self, key: &str) -> bool {
        self.named(key).is_some_and(|name| self.listed.iter().any(|token| token.content == name))
    }

    /// Makes the token with a named role take the white space before it.
    pub(crate) fn strip_before(&mut self, key: &str) {
        self.named.iter_mut().filter(|(name, _)| name == key).for_each(|(_, token)| token.lstrip = true);
    }

    /// Whether one of the tokens has this text.
    pub(crate) fn has(&self, content: &str) -> bool {
        let named = self.named.iter().map(|(_, token)| token);
        self.listed.iter().chain(named).chain(&self.extra).any(|token| token.content == content)
    }

    /// All tokens in the order in which Transformers adds them to a tokenizer that already has the added tokens `present`.
    pub(crate) fn in_order(&self, present: impl Iterator<Item = String>) -> Vec<AddedToken> {
        let names: AHashSet<&str> = self.named.iter().map(|(_, token)| token.content.as_str()).collect();
        let mut known: AHashSet<String> = present.collect();
        known.extend(self.listed.iter().map(|token| token.content.clone()));
        let later = self.named.iter().map(|(_, token)| token).chain(&self.extra);
        let later = later.filter(|token| !known.contains(&token.content));
        let special = |token: &AddedToken| token.special || names.contains(token.content.as_str());
        self.listed.iter().chain(later).map(|token| AddedToken { special: special(token), ..token.clone() }).collect()
    }
}
