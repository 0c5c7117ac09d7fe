//! A tokenizer's files: writing them.

use std::fs;
use std::path::Path;

use serde_json::{Map, Value, json};
use tokenizers::AddedToken;

use crate::settings::{
    ADDED, ADDITIONAL, CLASS, CONFIG, Class, DECODER, EXTRA, JSON, LIST, LONGEST, OLD_LONGEST, SPECIAL_MAP,
};
use crate::source::IN_TEXT;
use crate::special::KEYS;
use crate::{SpecialTokens, TextError, Tokenizer};

type Files = Vec<(&'static str, Vec<u8>)>;

impl Tokenizer {
    /// Writes the tokenizer into the folder `dir` (made if absent), from which Transformers' `AutoTokenizer` reads the same ids as
    /// from the folder that this one was read from: that of a `BertTokenizer` as `vocab.txt`, `tokenizer.json` and
    /// `tokenizer_config.json`, any other as the files that it was read from.
    ///
    /// # Errors
    /// A folder or file that cannot be written; nothing half-written is left under those names.
    pub fn save(&self, dir: &Path) -> Result<(), TextError> {
        save(self, dir, None)
    }

    /// As [`save`](Self::save), for a model of `longest` positions: Transformers cuts longer texts to it when asked to, or to the
    /// [limit](Self::model_max_length) that the tokenizer has, if that is less.
    ///
    /// # Errors
    /// Those of [`save`](Self::save).
    pub fn save_for(&self, dir: &Path, longest: usize) -> Result<(), TextError> {
        save(self, dir, Some(longest))
    }
}

/// Writes a tokenizer's files, each whole or not at all.
fn save(tokenizer: &Tokenizer, dir: &Path, longest: Option<usize>) -> Result<(), TextError> {
    let mut config = tokenizer.source().settings.config.clone().unwrap_or_default();
    let mut files = Files::new();
    match tokenizer.source().class {
        Class::Bert => {
            let tokens = &tokenizer.tokens()[..tokenizer.model_size()];
            let list: String = tokens.iter().flat_map(|token| [token.as_str(), "\n"]).collect();
            files.push((LIST, list.into_bytes()));
            files.push((JSON, written_json(tokenizer)?));
            bert_config(tokenizer, &mut config);
        }
        Class::AsWritten | Class::Unnamed => {
            let source = tokenizer.source();
            files.push((JSON, source.json.clone().map_or_else(|| written_json(tokenizer), Ok)?));
            let beside = [(SPECIAL_MAP, &source.settings.special_map), (ADDED, &source.settings.added_file)];
            files.extend(beside.into_iter().filter_map(|(name, file)| Some((name, pretty(&json!(file.as_ref()?))))));
            if source.settings.config.is_none() {
                // Without a configuration, Transformers would know no special token.
                config.extend(special_names(tokenizer));
            }
            if source.settings.class_name().is_none() {
                config.insert(CLASS.to_owned(), tokenizer.class_name().into());
            }
        }
    }
    let limits = [tokenizer.model_max_length(), longest];
    if let Some(longest) = limits.into_iter().flatten().min() {
        config.remove(OLD_LONGEST);
        config.insert(LONGEST.to_owned(), longest.into());
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

/// tokenizer.json.
fn written_json(tokenizer: &Tokenizer) -> Result<Vec<u8>, TextError> {
    let engine = |e: Box<dyn std::error::Error + Send + Sync>| TextError::Engine {
        action: "write tokenizer.json",
        reason: e.to_string(),
    };
    let source = tokenizer.source();
    if source.truncation.is_none() && source.padding.is_none() {
        return Ok(tokenizer.exact().to_string(true).map_err(engine)?.into_bytes());
    }
    let mut copy = tokenizer.exact().clone();
    copy.with_truncation(source.truncation.clone()).map_err(engine)?;
    copy.with_padding(source.padding.clone());
    Ok(copy.to_string(true).map_err(engine)?.into_bytes())
}

/// What the tokenizer_config.json of a `BertTokenizer` says beside what it was read with.
fn bert_config(tokenizer: &Tokenizer, config: &mut Map<String, Value>) {
    let added = tokenizer.all_added();
    let special_map = tokenizer.source().settings.special_map.as_ref().filter(|_| !config.contains_key(DECODER));
    let mut extra: Vec<Value> = Vec::new();
    let mut take_list = |value: Option<&Value>| {
        for token in value.and_then(Value::as_array).into_iter().flatten().map(text_of) {
            // Of two lists Transformers may read one alone.
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
    config.remove(ADDITIONAL);
    if !extra.is_empty() {
        // The name that Transformers 4 and 5 both know.
        config.insert(ADDITIONAL.to_owned(), extra.into());
    }
    let own = tokenizer.special().all();
    let is_plain = |(id, token): &(u32, &AddedToken)| {
        own.contains(id) && **token == AddedToken::from(token.content.as_str(), true)
    };
    config.remove(DECODER);
    if !added.iter().all(is_plain) {
        let listed: Map<String, Value> = added.iter().map(|(id, token)| (id.to_string(), json!(token))).collect();
        config.insert(DECODER.to_owned(), listed.into());
    }
    let normalizer = tokenizer.normalizer();
    config.entry("clean_up_tokenization_spaces").or_insert(true.into());
    let lowercase = normalizer.is_none_or(|n| n.lowercase);
    config.insert("do_lower_case".to_owned(), lowercase.into());
    config.insert("strip_accents".to_owned(), normalizer.and_then(|n| n.strip_accents).into());
    let chinese = normalizer.is_none_or(|n| n.handle_chinese_chars);
    config.insert("tokenize_chinese_chars".to_owned(), chinese.into());
    config.insert(CLASS.to_owned(), tokenizer.class_name().into());
}

/// The names of BERT's own special tokens under Transformers' keys.
fn special_names(tokenizer: &Tokenizer) -> Map<String, Value> {
    let names = tokenizer.special().all().map(|id| tokenizer.token(id).into());
    KEYS.map(str::to_owned).into_iter().zip(names).collect()
}

/// A token by its text alone; its flags are in [`DECODER`].
fn text_of(token: &Value) -> Value {
    if token["content"].is_string() { token["content"].clone() } else { token.clone() }
}

fn pretty(value: &Value) -> Vec<u8> {
    format!("{value:#}\n").into_bytes()
}
