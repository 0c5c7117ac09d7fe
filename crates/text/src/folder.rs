//! A tokenizer's files: reading whichever there are, writing all three.

use std::fs;
use std::path::Path;

use serde_json::{Map, Value, json};
use tokenizers::decoders::wordpiece::WordPiece as WordPieceDecoder;
use tokenizers::models::wordpiece::WordPiece;
use tokenizers::normalizers::BertNormalizer;
use tokenizers::pre_tokenizers::bert::BertPreTokenizer;
use tokenizers::processors::template::TemplateProcessing;
use tokenizers::{AddedToken, ModelWrapper};

use crate::vocabulary::{CONTINUATION, SPECIAL_TOKENS, Special, Vocabulary};
use crate::{Template, TextError, Tokenizer};

const JSON: &str = "tokenizer.json";
const LIST: &str = "vocab.txt";
const CONFIG: &str = "tokenizer_config.json";

/// Longest word in characters, as in Transformers.
const MAX_WORD_CHARS: usize = 100;
/// The key of tokens of a text at most, to Transformers.
const LONGEST: &str = "model_max_length";

fn read(path: &Path) -> Result<Vec<u8>, TextError> {
    fs::read(path).map_err(|source| TextError::Io { action: "read", path: path.to_owned(), source })
}

impl Tokenizer {
    /// Opens a folder, a `tokenizer.json` or a `vocab.txt`.
    ///
    /// A folder's `tokenizer.json` is preferred. With only a `vocab.txt`, `do_lower_case`, `strip_accents` and
    /// `tokenize_chinese_chars` come from the `tokenizer_config.json` beside it; where that does not say, the vocabulary
    /// is taken as cased if any of its ordinary tokens holds a capital.
    ///
    /// # Errors
    /// A missing, empty, malformed or non-UTF-8 file, a repeated token (with its line), a missing special token, a
    /// model other than WordPiece.
    pub fn open(path: &Path) -> Result<Tokenizer, TextError> {
        open(path)
    }

    /// A plain BERT tokenizer over `tokens`, whose ids are their positions. Accents are stripped unless `cased`.
    ///
    /// # Errors
    /// An empty list, a blank or repeated token, a missing special token.
    pub fn from_tokens(tokens: Vec<String>, cased: bool) -> Result<Tokenizer, TextError> {
        let vocabulary = Vocabulary::new(tokens, Path::new("vocabulary"))?;
        build(vocabulary, BertNormalizer::new(true, true, None, !cased))
    }

    /// Writes `vocab.txt`, `tokenizer.json` and `tokenizer_config.json` into `dir` (made if absent), which
    /// Transformers' `BertTokenizerFast.from_pretrained` reads with the same ids.
    ///
    /// # Errors
    /// A folder or file that cannot be written; nothing half-written is left under the three names.
    pub fn save(&self, dir: &Path) -> Result<(), TextError> {
        self.save_for(dir, 512)
    }

    /// As [`save`](Self::save), for a model of `longest` positions: Transformers cuts longer texts to it when asked to.
    ///
    /// # Errors
    /// Those of [`save`](Self::save).
    pub fn save_for(&self, dir: &Path, longest: usize) -> Result<(), TextError> {
        save(self, dir, longest)
    }
}

fn open(path: &Path) -> Result<Tokenizer, TextError> {
    if path.is_dir() {
        let (json, list) = (path.join(JSON), path.join(LIST));
        if json.is_file() {
            open_json(&json)
        } else if list.is_file() {
            open_list(&list)
        } else {
            Err(TextError::NoTokenizer(path.to_owned()))
        }
    } else if path.extension().is_some_and(|e| e == "json") {
        open_json(path)
    } else {
        open_list(path)
    }
}

fn open_json(path: &Path) -> Result<Tokenizer, TextError> {
    let bytes = read(path)?;
    let bad = |reason: String| TextError::BadJson { path: path.to_owned(), reason };
    // Parsed twice, because the crate's errors for a wrong shape name neither field nor line.
    let value: Value = serde_json::from_slice(&bytes).map_err(|e| bad(format!("not JSON: {e}")))?;
    match value["model"]["type"].as_str() {
        Some("WordPiece") => {}
        Some(other) => {
            return Err(TextError::Unsupported { path: path.to_owned(), found: format!("its model is {other}") });
        }
        None if value["model"].is_object() => {}
        None => return Err(bad("no \"model\" in it: not a tokenizer.json".into())),
    }
    let reference = tokenizers::Tokenizer::from_bytes(&bytes).map_err(|e| bad(format!("not a tokenizer.json: {e}")))?;
    if !matches!(reference.get_model(), ModelWrapper::WordPiece(_)) {
        return Err(TextError::Unsupported { path: path.to_owned(), found: "its model is not WordPiece".into() });
    }
    let mut entries: Vec<(u32, String)> =
        reference.get_vocab(true).into_iter().map(|(token, id)| (id, token)).collect();
    entries.sort_unstable();
    for (expected, (id, token)) in entries.iter().enumerate() {
        if *id as usize != expected {
            return Err(bad(format!(
                "token {token:?} has id {id}, expected {expected}: ids must run from 0 without holes or repeats"
            )));
        }
    }
    let tokens = entries.into_iter().map(|(_, token)| token).collect();
    let vocabulary = Vocabulary::new(tokens, path)?;
    let template = template(&value["post_processor"], &vocabulary).map_err(|e| bad(e.to_string()))?;
    Tokenizer::assemble(vocabulary, template, reference)
}

/// The template of a tokenizer.json: its post_processor's, else BERT's.
fn template(processor: &Value, vocabulary: &Vocabulary) -> Result<Template, TextError> {
    let Special { cls, sep, .. } = vocabulary.special;
    let template = Template::of_post_processor(processor)?.unwrap_or_else(|| Template::bert(cls, sep));
    let (largest, size) = (template.largest_id(), vocabulary.tokens.len());
    if largest as usize >= size {
        return Err(TextError::Template(format!(
            "adds token {largest}; expected ids below {size}, the vocabulary's size"
        )));
    }
    Ok(template)
}

fn open_list(path: &Path) -> Result<Tokenizer, TextError> {
    let vocabulary = Vocabulary::parse(&read(path)?, path)?;
    let config_path = path.with_file_name(CONFIG);
    let config: Value = if config_path.is_file() {
        serde_json::from_slice(&read(&config_path)?)
            .map_err(|e| TextError::BadJson { path: config_path, reason: format!("not JSON: {e}") })?
    } else {
        Value::Null
    };
    let lowercase = config["do_lower_case"].as_bool().unwrap_or_else(|| !vocabulary.has_capitals());
    let normalizer = BertNormalizer::new(
        true,
        config["tokenize_chinese_chars"].as_bool().unwrap_or(true),
        config["strip_accents"].as_bool(),
        lowercase,
    );
    build(vocabulary, normalizer)
}

/// A plain BERT tokenizer over `vocabulary`.
fn build(vocabulary: Vocabulary, normalizer: BertNormalizer) -> Result<Tokenizer, TextError> {
    let engine = |action: &'static str| {
        move |e: Box<dyn std::error::Error + Send + Sync>| TextError::Engine { action, reason: e.to_string() }
    };
    let model = WordPiece::builder()
        .vocab(vocabulary.ids.clone())
        .unk_token("[UNK]".into())
        .continuing_subword_prefix(CONTINUATION.into())
        .max_input_chars_per_word(MAX_WORD_CHARS)
        .build()
        .map_err(engine("build the model"))?;
    let special = vocabulary.special;
    let template = TemplateProcessing::builder()
        .try_single("[CLS]:0 $A:0 [SEP]:0")
        .and_then(|b| b.try_pair("[CLS]:0 $A:0 [SEP]:0 $B:1 [SEP]:1"))
        .map_err(|e| engine("build the template")(e.into()))?
        .special_tokens(vec![("[CLS]", special.cls), ("[SEP]", special.sep)])
        .build()
        .map_err(|e| engine("build the template")(e.into()))?;
    let mut reference = tokenizers::Tokenizer::new(model);
    reference
        .with_normalizer(Some(normalizer))
        .map_err(engine("set the normaliser"))?
        .with_pre_tokenizer(Some(BertPreTokenizer))
        .with_post_processor(Some(template))
        .with_decoder(Some(WordPieceDecoder::new(CONTINUATION.into(), true)))
        .add_special_tokens(SPECIAL_TOKENS.map(|token| AddedToken::from(token, true)))
        .map_err(engine("add the special tokens"))?;
    let template = Template::bert(special.cls, special.sep);
    Tokenizer::assemble(vocabulary, template, reference)
}

/// Writes `vocab.txt`, `tokenizer.json` and `tokenizer_config.json`, each whole or not at all.
fn save(tokenizer: &Tokenizer, dir: &Path, longest: usize) -> Result<(), TextError> {
    let io = |action: &'static str, path: &Path| {
        let path = path.to_owned();
        move |source| TextError::Io { action, path, source }
    };
    fs::create_dir_all(dir).map_err(io("create", dir))?;
    let json = tokenizer
        .reference()
        .to_string(true)
        .map_err(|e| TextError::Engine { action: "write tokenizer.json", reason: e.to_string() })?;
    let list: String = tokenizer.tokens().iter().flat_map(|token| [token.as_str(), "\n"]).collect();
    let normalizer = tokenizer.normalizer();
    let config = json!({
        "clean_up_tokenization_spaces": true,
        "cls_token": "[CLS]",
        "do_lower_case": normalizer.is_none_or(|n| n.lowercase),
        "mask_token": "[MASK]",
        LONGEST: longest,
        "pad_token": "[PAD]",
        "sep_token": "[SEP]",
        "strip_accents": normalizer.and_then(|n| n.strip_accents),
        "tokenize_chinese_chars": normalizer.is_none_or(|n| n.handle_chinese_chars),
        "tokenizer_class": "BertTokenizer",
        "unk_token": "[UNK]",
    });
    let config = format!("{config:#}\n");
    for (name, text) in [(LIST, list), (JSON, json), (CONFIG, config)] {
        cloze_files::write(&dir.join(name), text.as_bytes())?;
    }
    Ok(())
}

/// Takes over the keys of the tokenizer_config.json in or beside `from` into that of the folder `to`, which was just written: all but
/// those that say what the normaliser does, where the other may leave to defaults what this one says. Of both lengths the shorter stays.
///
/// # Errors
/// [`TextError::Io`], [`TextError::BadJson`].
pub fn carry_settings(from: &Path, to: &Path) -> Result<(), TextError> {
    let from = if from.is_dir() { from.join(CONFIG) } else { from.with_file_name(CONFIG) };
    if !from.is_file() {
        return Ok(());
    }
    let read = |path: &Path| -> Result<Map<String, Value>, TextError> {
        let text = fs::read(path).map_err(|source| TextError::Io { action: "read", path: path.to_owned(), source })?;
        let bad = |e| TextError::BadJson { path: path.to_owned(), reason: format!("expected a JSON object: {e}") };
        serde_json::from_slice(&text).map_err(bad)
    };
    let to = to.join(CONFIG);
    let mut written = read(&to)?;
    let of_normaliser = ["do_lower_case", "strip_accents", "tokenize_chinese_chars"];
    let longest = written.get(LONGEST).and_then(Value::as_f64).unwrap_or(f64::INFINITY);
    let is_longer = |key: &str, value: &Value| key == LONGEST && value.as_f64().is_none_or(|length| length > longest);
    written.extend(
        read(&from)?
            .into_iter()
            .filter(|(key, value)| !of_normaliser.contains(&key.as_str()) && !is_longer(key, value)),
    );
    let text = format!("{:#}\n", Value::Object(written));
    Ok(cloze_files::write(&to, text.as_bytes())?)
}
