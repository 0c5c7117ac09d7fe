//! A tokenizer's files: reading whichever there are, and writing them.

use std::fs;
use std::path::Path;

use serde_json::{Map, Value};
use tokenizers::decoders::wordpiece::WordPiece as WordPieceDecoder;
use tokenizers::models::wordpiece::WordPiece;
use tokenizers::normalizers::BertNormalizer;
use tokenizers::pre_tokenizers::bert::BertPreTokenizer;
use tokenizers::processors::template::TemplateProcessing;
use tokenizers::{AddedToken, ModelWrapper};

use crate::kind::Files;
use crate::special::KEYS;
use crate::vocabulary::{CONTINUATION, MAX_WORD_CHARS, Vocabulary};
use crate::{Special, Template, TextError, Tokenizer};

const JSON: &str = "tokenizer.json";
const LIST: &str = "vocab.txt";
const CONFIG: &str = "tokenizer_config.json";
const SPECIAL_MAP: &str = "special_tokens_map.json";

/// Tokens of a text at most, unless a model says otherwise: BERT's positions.
const POSITIONS: usize = 512;
/// The key of tokens of a text at most, to Transformers.
const LONGEST: &str = "model_max_length";

fn read(path: &Path) -> Result<Vec<u8>, TextError> {
    fs::read(path).map_err(|source| TextError::Io { action: "read", path: path.to_owned(), source })
}

impl Tokenizer {
    /// Opens a folder, a `tokenizer.json` or a `vocab.txt`.
    ///
    /// A folder's `tokenizer.json` is preferred; its model may be WordPiece, BPE, Unigram or WordLevel. With only a
    /// `vocab.txt`, `do_lower_case`, `strip_accents` and `tokenize_chinese_chars` come from the `tokenizer_config.json` beside
    /// it; where that does not say, the vocabulary is taken as cased if any of its ordinary tokens holds a capital.
    ///
    /// # Errors
    /// A missing, empty, malformed or non-UTF-8 file, a repeated token (with its line), a missing special token, a
    /// sequence template that [`Template`] cannot hold.
    pub fn open(path: &Path) -> Result<Tokenizer, TextError> {
        open(path)
    }

    /// A plain BERT tokenizer over `tokens`, whose ids are their positions. Accents are stripped unless `cased`.
    ///
    /// # Errors
    /// An empty list, a blank or repeated token, a missing special token.
    pub fn from_tokens(tokens: Vec<String>, cased: bool) -> Result<Tokenizer, TextError> {
        let path = Path::new("vocabulary");
        let vocabulary = Vocabulary::new(tokens, path)?;
        let special = vocabulary.special(&[], None, path)?;
        build(vocabulary, special, BertNormalizer::new(true, true, None, !cased), Files::default())
    }

    /// Writes the tokenizer into the folder `dir` (made if absent), from which Transformers' `AutoTokenizer` reads the same ids:
    /// a WordPiece tokenizer as `vocab.txt`, `tokenizer.json` and the `tokenizer_config.json` of a `BertTokenizer`, any other as
    /// the files that it was read from.
    ///
    /// # Errors
    /// A folder or file that cannot be written; nothing half-written is left under those names.
    pub fn save(&self, dir: &Path) -> Result<(), TextError> {
        save(self, dir, None)
    }

    /// As [`save`](Self::save), for a model of `longest` positions: Transformers cuts longer texts to it when asked to.
    ///
    /// # Errors
    /// Those of [`save`](Self::save).
    pub fn save_for(&self, dir: &Path, longest: usize) -> Result<(), TextError> {
        save(self, dir, Some(longest))
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
        Some("WordPiece" | "BPE" | "Unigram" | "WordLevel") => {}
        Some(other) => {
            return Err(TextError::Unsupported { path: path.to_owned(), found: format!("its model is {other}") });
        }
        None if value["model"].is_object() => {}
        None => return Err(bad("no \"model\" in it: not a tokenizer.json".into())),
    }
    let reference = tokenizers::Tokenizer::from_bytes(&bytes).map_err(|e| bad(format!("not a tokenizer.json: {e}")))?;
    if let ModelWrapper::BPE(model) = reference.get_model()
        && let Some(dropout) = model.dropout
    {
        return Err(bad(format!("its model has \"dropout\": {dropout}, so that ids would be random; set it to null")));
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
    let vocabulary = match reference.get_model() {
        ModelWrapper::WordPiece(_) => Vocabulary::new(tokens, path)?,
        _ => Vocabulary::of_any(tokens),
    };
    let [config, special_map] = configs(path)?;
    let template = Template::of_post_processor(&value["post_processor"]).map_err(|e| bad(e.to_string()))?;
    let special = vocabulary.special(&[&config, &special_map], template.as_ref(), path)?;
    let template = template.unwrap_or_else(|| Template::bert(special.cls, special.sep));
    let (largest, size) = (template.largest_id(), vocabulary.tokens.len());
    if largest as usize >= size {
        let reason =
            format!("the sequence template adds token {largest}; expected ids below {size}, the vocabulary's size");
        return Err(bad(reason));
    }
    let files = Files { json: bytes, config, special: special_map };
    Tokenizer::assemble(vocabulary, special, template, reference, files)
}

/// The tokenizer_config.json and the special_tokens_map.json beside `path`; null where there is none.
fn configs(path: &Path) -> Result<[Value; 2], TextError> {
    let open = |name: &str| {
        let path = path.with_file_name(name);
        if !path.is_file() {
            return Ok(Value::Null);
        }
        serde_json::from_slice(&read(&path)?).map_err(|e| TextError::BadJson { path, reason: format!("not JSON: {e}") })
    };
    Ok([open(CONFIG)?, open(SPECIAL_MAP)?])
}

fn open_list(path: &Path) -> Result<Tokenizer, TextError> {
    let vocabulary = Vocabulary::parse(&read(path)?, path)?;
    let [config, special_map] = configs(path)?;
    let special = vocabulary.special(&[&config, &special_map], None, path)?;
    let lowercase = config["do_lower_case"].as_bool().unwrap_or_else(|| !vocabulary.has_capitals());
    let normalizer = BertNormalizer::new(
        true,
        config["tokenize_chinese_chars"].as_bool().unwrap_or(true),
        config["strip_accents"].as_bool(),
        lowercase,
    );
    build(vocabulary, special, normalizer, Files { json: Vec::new(), config, special: special_map })
}

/// A plain BERT tokenizer over `vocabulary`.
fn build(
    vocabulary: Vocabulary,
    special: Special,
    normalizer: BertNormalizer,
    files: Files,
) -> Result<Tokenizer, TextError> {
    let engine = |action: &'static str| {
        move |e: Box<dyn std::error::Error + Send + Sync>| TextError::Engine { action, reason: e.to_string() }
    };
    let name = |id: u32| vocabulary.tokens[id as usize].as_str();
    let (cls, sep) = (name(special.cls), name(special.sep));
    let model = WordPiece::builder()
        .vocab(vocabulary.ids.clone())
        .unk_token(name(special.unk).into())
        .continuing_subword_prefix(CONTINUATION.into())
        .max_input_chars_per_word(MAX_WORD_CHARS)
        .build()
        .map_err(engine("build the model"))?;
    let template = TemplateProcessing::builder()
        .try_single(format!("{cls}:0 $A:0 {sep}:0"))
        .and_then(|b| b.try_pair(format!("{cls}:0 $A:0 {sep}:0 $B:1 {sep}:1")))
        .map_err(|e| engine("build the template")(e.into()))?
        .special_tokens(vec![(cls, special.cls), (sep, special.sep)])
        .build()
        .map_err(|e| engine("build the template")(e.into()))?;
    let mut reference = tokenizers::Tokenizer::new(model);
    reference
        .with_normalizer(Some(normalizer))
        .map_err(engine("set the normaliser"))?
        .with_pre_tokenizer(Some(BertPreTokenizer))
        .with_post_processor(Some(template))
        .with_decoder(Some(WordPieceDecoder::new(CONTINUATION.into(), true)))
        .add_special_tokens(special.all().map(|id| AddedToken::from(name(id), true)))
        .map_err(engine("add the special tokens"))?;
    let template = Template::bert(special.cls, special.sep);
    Tokenizer::assemble(vocabulary, special, template, reference, files)
}

/// The files of a WordPiece tokenizer.
fn word_piece_files(tokenizer: &Tokenizer, longest: usize) -> Result<Vec<(&'static str, Vec<u8>)>, TextError> {
    let json = tokenizer
        .reference()
        .to_string(true)
        .map_err(|e| TextError::Engine { action: "write tokenizer.json", reason: e.to_string() })?;
    let list: String = tokenizer.tokens().iter().flat_map(|token| [token.as_str(), "\n"]).collect();
    let normalizer = tokenizer.normalizer();
    let mut config = special_names(tokenizer);
    config.extend([
        ("clean_up_tokenization_spaces".to_owned(), true.into()),
        ("do_lower_case".to_owned(), normalizer.is_none_or(|n| n.lowercase).into()),
        (LONGEST.to_owned(), longest.into()),
        ("strip_accents".to_owned(), normalizer.and_then(|n| n.strip_accents).into()),
        ("tokenize_chinese_chars".to_owned(), normalizer.is_none_or(|n| n.handle_chinese_chars).into()),
        ("tokenizer_class".to_owned(), "BertTokenizer".into()),
    ]);
    Ok(vec![(LIST, list.into_bytes()), (JSON, json.into_bytes()), (CONFIG, pretty(&config.into()))])
}

/// The files of another tokenizer: as they were read, with no text longer than `longest`.
fn other_files(tokenizer: &Tokenizer, files: &Files, longest: Option<usize>) -> Vec<(&'static str, Vec<u8>)> {
    let mut config = match &files.config {
        Value::Object(config) => config.clone(),
        // Without one, Transformers would know no special token.
        _ => {
            let mut config = special_names(tokenizer);
            config.insert("tokenizer_class".to_owned(), "PreTrainedTokenizerFast".into());
            config
        }
    };
    if let Some(longest) = longest
        && config.get(LONGEST).and_then(Value::as_f64).is_none_or(|said| said > longest as f64)
    {
        config.insert(LONGEST.to_owned(), longest.into());
    }
    let mut written = vec![(JSON, files.json.clone()), (CONFIG, pretty(&config.into()))];
    if !files.special.is_null() {
        written.push((SPECIAL_MAP, pretty(&files.special)));
    }
    written
}

/// The names of the special tokens under Transformers' keys.
fn special_names(tokenizer: &Tokenizer) -> Map<String, Value> {
    let names = tokenizer.special().all().map(|id| tokenizer.token(id).into());
    KEYS.map(str::to_owned).into_iter().zip(names).collect()
}

fn pretty(value: &Value) -> Vec<u8> {
    format!("{value:#}\n").into_bytes()
}

/// Writes a tokenizer's files, each whole or not at all.
fn save(tokenizer: &Tokenizer, dir: &Path, longest: Option<usize>) -> Result<(), TextError> {
    let files = match tokenizer.files() {
        Some(files) => other_files(tokenizer, files, longest),
        None => word_piece_files(tokenizer, longest.unwrap_or(POSITIONS))?,
    };
    let create = |source| TextError::Io { action: "create", path: dir.to_owned(), source };
    fs::create_dir_all(dir).map_err(create)?;
    Ok(cloze_files::write_several(dir, &files)?)
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
