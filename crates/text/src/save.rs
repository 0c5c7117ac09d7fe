//! Writes a tokenizer's files.

use std::fs;
use std::path::Path;

use serde_json::{Map, Value, json};
use tokenizers::AddedToken;

use crate::settings::{
    ADDED, ADDITIONAL, CLASS, CONFIG, Class, DECODER, EXTRA, Family, JSON, LIST, MAX_LENGTH, OLD_MAX_LENGTH,
    SPECIAL_MAP,
};
use crate::source::IN_TEXT;
use crate::special::KEYS;
use crate::{SpecialTokens, TextError, Tokenizer};

type Files = Vec<(&'static str, Vec<u8>)>;

impl Tokenizer {
    /// Writes the tokenizer into the folder `dir` (created if it does not exist). Transformers' `AutoTokenizer` reads the same
    /// ids from it as from the folder that this tokenizer was read from. A `BertTokenizer` is written as `vocab.txt`,
    /// `tokenizer.json` and `tokenizer_config.json`; the tokenizers of RoBERTa, XLM-RoBERTa, CamemBERT, ALBERT and MPNet without
    /// the first; any other tokenizer as the files that it was read from.
    ///
    /// # Errors
    /// A folder or file that cannot be written. No incomplete file remains under these names.
    pub fn save(&self, dir: &Path) -> Result<(), TextError> {
        save(self, dir, None)
    }

    /// As [`save`](Self::save), for a model with `max_positions` positions. The lower of this and the tokenizer's
    /// [limit](Self::model_max_length) is written as `model_max_length`, to which Transformers truncates on request.
    ///
    /// # Errors
    /// Those of [`save`](Self::save).
    pub fn save_for(&self, dir: &Path, max_positions: usize) -> Result<(), TextError> {
        save(self, dir, Some(max_positions))
    }
}

/// Writes a tokenizer's files; each is written completely or not at all.
fn save(tokenizer: &Tokenizer, dir: &Path, max_positions: Option<usize>) -> Result<(), TextError> {
    let mut config = tokenizer.source().settings.config.clone().unwrap_or_default();
    let mut files = Files::new();
    match tokenizer.source().class {
        Class::Bert => {
            let tokens = &tokenizer.tokens()[..tokenizer.model_size()];
            let list: String = tokens.iter().flat_map(|token| [token.as_str(), "\n"]).collect();
            files.push((LIST, list.into_bytes()));
            files.push((JSON, to_json(tokenizer)?));
            bert_config(tokenizer, &mut config);
        }
        Class::Family(family) => {
            files.push((JSON, to_json(tokenizer)?));
            family_config(tokenizer, family, &mut config);
        }
        Class::AsWritten | Class::Unnamed => {
            let source = tokenizer.source();
            files.push((JSON, source.json.clone().map_or_else(|| to_json(tokenizer), Ok)?));
            let others = [(SPECIAL_MAP, &source.settings.special_map), (ADDED, &source.settings.added_file)];
            files.extend(others.into_iter().filter_map(|(name, file)| Some((name, pretty(&json!(file.as_ref()?))))));
            if source.settings.config.is_none() {
                // Without a configuration, Transformers would not know any special token. A name makes a token special, so only
                // tokens that already are special get theirs: ids and flags do not change.
                let added = tokenizer.all_added();
                let is_special = |name: &Value| added.iter().any(|(_, token)| token.special && *name == *token.content);
                config.extend(special_names(tokenizer).into_iter().filter(|(_, name)| is_special(name)));
            }
            if source.settings.class_name().is_none() {
                config.insert(CLASS.to_owned(), tokenizer.class_name().into());
            }
        }
    }
    let limits = [tokenizer.model_max_length(), max_positions];
    if let Some(max_length) = limits.into_iter().flatten().min() {
        config.remove(OLD_MAX_LENGTH);
        config.insert(MAX_LENGTH.to_owned(), max_length.into());
    }
    match tokenizer.special_tokens() {
        SpecialTokens::Text => config.remove(IN_TEXT),
        other => config.insert(IN_TEXT.to_owned(), other.name().into()),
    };
    files.push((CONFIG, pretty(&config.into())));
    let create = |source| TextError::Io { action: "create", path: dir.to_owned(), source };
    fs::create_dir_all(dir).map_err(create)?;
    Ok(cloze_files::write_several(dir, &files)?)
}

/// The bytes of tokenizer.json.
fn to_json(tokenizer: &Tokenizer) -> Result<Vec<u8>, TextError> {
    let engine = |e: Box<dyn std::error::Error + Send + Sync>| TextError::Engine {
        action: "write tokenizer.json",
        reason: e.to_string(),
    };
    let source = tokenizer.source();
    if source.truncation.is_none() && source.padding.is_none() {
        return Ok(tokenizer.hf().to_string(true).map_err(engine)?.into_bytes());
    }
    let mut copy = tokenizer.hf().clone();
    copy.with_truncation(source.truncation.clone()).map_err(engine)?;
    copy.with_padding(source.padding.clone());
    Ok(copy.to_string(true).map_err(engine)?.into_bytes())
}

/// Sets the special tokens of a tokenizer_config.json whose class reads all else from other keys. Its special_tokens_map.json
/// becomes a part of it. Returns the special tokens without a name.
fn special_config(tokenizer: &Tokenizer, config: &mut Map<String, Value>) -> Vec<Value> {
    let added = tokenizer.all_added();
    let special_map = tokenizer.source().settings.special_map.as_ref().filter(|_| !config.contains_key(DECODER));
    let mut extra: Vec<Value> = Vec::new();
    let mut take_list = |value: Option<&Value>| {
        for token in value.and_then(Value::as_array).into_iter().flatten().map(text_of) {
            // Of two lists, Transformers may read only one.
            let is_added = added.iter().any(|(_, known)| Some(known.content.as_str()) == token.as_str());
            if is_added && !extra.contains(&token) {
                extra.push(token);
            }
        }
    };
    for list in [EXTRA, ADDITIONAL] {
        take_list(config.get(list));
        take_list(special_map.and_then(|map| map.get(list)));
    }
    for (key, value) in special_map.into_iter().flatten().filter(|(_, value)| !value.is_array()) {
        config.insert(key.clone(), text_of(value));
    }
    config.extend(special_names(tokenizer));
    if !config.get(EXTRA).is_some_and(Value::is_object) {
        config.remove(EXTRA);
    }
    for list in [ADDITIONAL, DECODER] {
        config.remove(list);
    }
    config.insert(CLASS.to_owned(), tokenizer.class_name().into());
    extra
}

/// Sets what the tokenizer_config.json of a `BertTokenizer` contains in addition to the keys that were read.
fn bert_config(tokenizer: &Tokenizer, config: &mut Map<String, Value>) {
    let extra = special_config(tokenizer, config);
    if !extra.is_empty() {
        // Transformers 4 and 5 both know this name.
        config.insert(ADDITIONAL.to_owned(), extra.into());
    }
    let (added, own) = (tokenizer.all_added(), tokenizer.special().all());
    let is_plain = |(id, token): &(u32, &AddedToken)| {
        own.contains(id) && **token == AddedToken::from(token.content.as_str(), true)
    };
    if !added.iter().all(is_plain) {
        let listed: Map<String, Value> = added.iter().map(|(id, token)| (id.to_string(), json!(token))).collect();
        config.insert(DECODER.to_owned(), listed.into());
    }
    config.entry("clean_up_tokenization_spaces").or_insert(true.into());
    normalizer_config(tokenizer, config);
}

/// Sets the keys of BERT's normaliser.
fn normalizer_config(tokenizer: &Tokenizer, config: &mut Map<String, Value>) {
    let normalizer = tokenizer.normalizer();
    let lowercase = normalizer.is_none_or(|n| n.lowercase);
    config.insert("do_lower_case".to_owned(), lowercase.into());
    config.insert("strip_accents".to_owned(), normalizer.and_then(|n| n.strip_accents).into());
    let chinese = normalizer.is_none_or(|n| n.handle_chinese_chars);
    config.insert("tokenize_chinese_chars".to_owned(), chinese.into());
}

/// The same for the class of a [`Family`]. Its added tokens are in tokenizer.json.
fn family_config(tokenizer: &Tokenizer, family: Family, config: &mut Map<String, Value>) {
    let extra = special_config(tokenizer, config);
    // CamemBERT's class would add its own list if there were none.
    if !extra.is_empty() || family == Family::Camembert {
        config.insert(ADDITIONAL.to_owned(), extra.into());
    }
    let defaults: &[(&str, bool)] = match family {
        Family::Roberta => &[("add_prefix_space", false), ("trim_offsets", true)],
        Family::XlmRoberta | Family::Camembert => &[("add_prefix_space", true)],
        Family::MpNet => &[],
        Family::Albert => &[("add_prefix_space", true), ("do_lower_case", true), ("keep_accents", false)],
    };
    for (key, default) in defaults {
        let value = config.get(*key).and_then(Value::as_bool).unwrap_or(*default);
        config.insert((*key).to_owned(), value.into());
    }
    if family == Family::MpNet {
        normalizer_config(tokenizer, config);
    }
    if tokenizer.template().segments(true) > 1 {
        // Transformers' AlbertTokenizer would give no segments.
        let names = ["input_ids", "token_type_ids", "attention_mask"];
        config.entry("model_input_names").or_insert(names.into_iter().collect());
    }
}

/// The names of BERT's own special tokens under Transformers' keys.
fn special_names(tokenizer: &Tokenizer) -> Map<String, Value> {
    let names = tokenizer.special().all().map(|id| tokenizer.token(id).into());
    KEYS.map(str::to_owned).into_iter().zip(names).collect()
}

/// A token as its text; its flags are in [`DECODER`].
fn text_of(token: &Value) -> Value {
    if token["content"].is_string() { token["content"].clone() } else { token.clone() }
}

fn pretty(value: &Value) -> Vec<u8> {
    format!("{value:#}\n").into_bytes()
}
