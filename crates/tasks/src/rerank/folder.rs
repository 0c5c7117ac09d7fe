//! The settings of a cross-encoder's folder, in config.json (`sentence_transformers`, before version 4
//! `sbert_ce_default_activation_function`) and, in folders of version 6 with modules.json,
//! `config_sentence_transformers.json` and `sentence_bert_config.json`.

use std::borrow::Cow;
use std::path::Path;

use cloze_model::{Config, Layout};
use serde_json::{Value, json};

use crate::TaskError;
use crate::embed::modules::Activation;
use crate::embed::prompts::{FolderPrompts, Prompt, Purpose};

/// The settings of a model in sentence-transformers.
const SENTENCES: &str = "config_sentence_transformers.json";
/// The settings of its Transformer module.
const SETTINGS: &str = "sentence_bert_config.json";
/// The key of config.json since version 4, and the one before.
const KEYS: [&str; 2] = ["sentence_transformers", "sbert_ce_default_activation_function"];
/// Lengths above this mean that there is no limit.
const UNLIMITED: f64 = 1e9;

/// The settings of a folder.
#[derive(Debug)]
pub(super) struct FolderSettings {
    pub(super) layout: Layout,
    pub(super) prompts: FolderPrompts,
    pub(super) max_len: Option<usize>,
    pub(super) lowercase: bool,
    pub(super) notes: Vec<String>,
    /// Whether its files say that it is a cross-encoder.
    is_cross_encoder: bool,
    /// The activation of [`SENTENCES`].
    activation: Value,
}

/// The activation that a folder stores.
#[derive(Debug, Default, PartialEq)]
pub(super) struct StoredActivation {
    pub(super) activation: Option<Activation>,
    /// A note for the user, if the activation is custom code.
    pub(super) note: Option<String>,
}

/// Whether a configuration says that the model is a cross-encoder of sentence-transformers.
pub(crate) fn is_cross_encoder(config: &Config) -> bool {
    let [now, before] = KEYS.map(|key| config.extra.get(key));
    now.is_some_and(|settings| settings.get("activation_fn").is_some()) || before.is_some_and(|path| !path.is_null())
}

/// Whether the files of a folder say that its model is a cross-encoder of sentence-transformers.
///
/// # Errors
/// Those of [`read`].
pub(crate) fn is_cross_encoder_folder(config: &Config, dir: &Path) -> Result<bool, TaskError> {
    Ok(is_cross_encoder(config) || read(dir)?.is_cross_encoder)
}

/// The activation that a configuration names; none for custom code.
///
/// # Errors
/// [`TaskError::File`] for an activation of PyTorch that is not supported, and for a value that is not a name.
pub(crate) fn activation_of_config(config: &Config) -> Result<Option<Activation>, TaskError> {
    let [now, before] = KEYS.map(|key| config.extra.get(key).unwrap_or(&Value::Null));
    let named = now.get("activation_fn").unwrap_or(before);
    Ok(activation(named, Path::new("config.json"))?.activation)
}

/// The configuration of a model with the activation of its folder: cross-encoders of version 6 do not have it in
/// config.json.
///
/// # Errors
/// [`TaskError::Folder`] for a prompt and for a conversion to lower case, which only [`CrossEncoder`](super::CrossEncoder)
/// applies; those of [`read`].
pub(crate) fn complete<'a>(config: &'a Config, dir: &Path) -> Result<Cow<'a, Config>, TaskError> {
    let settings = read(dir)?;
    let unsupported = [
        ("a default prompt", !settings.prompts.resolve(&Prompt::Auto, Purpose::Text)?.is_empty()),
        ("a conversion to lower case", settings.lowercase),
    ];
    if let Some((what, _)) = unsupported.into_iter().find(|(_, has)| *has) {
        let problem =
            format!("this cross-encoder has {what}, which predictions of pairs do not support; rerank with it instead");
        return Err(TaskError::Folder { path: dir.to_owned(), problem });
    }
    if settings.activation.is_null() {
        return Ok(Cow::Borrowed(config));
    }
    let mut config = config.clone();
    config.extra.insert(KEYS[0].to_owned(), json!({"activation_fn": settings.activation}));
    Ok(Cow::Owned(config))
}

/// Reads the settings of a folder, other than those of config.json.
///
/// # Errors
/// [`TaskError::Model`] for a modules.json that is not valid. For a cross-encoder with modules.json,
/// [`TaskError::Folder`] for modules and [`TaskError::File`] for settings that are not supported.
pub(super) fn read(dir: &Path) -> Result<FolderSettings, TaskError> {
    let layout = Layout::of(dir)?;
    let mut settings = FolderSettings {
        prompts: FolderPrompts::default(),
        max_len: None,
        lowercase: false,
        notes: Vec::new(),
        is_cross_encoder: false,
        activation: Value::Null,
        layout,
    };
    // As in sentence-transformers, the files of another type of model are not read.
    let path = settings.layout.root.join(SENTENCES);
    if settings.layout.modules.is_empty() {
        return Ok(settings);
    }
    match json(&path)?.filter(|config| config["model_type"] == "CrossEncoder") {
        Some(config) => {
            settings.prompts = FolderPrompts::read(&config).map_err(|problem| TaskError::file(&path, problem))?;
            settings.is_cross_encoder = true;
            settings.activation = config["activation_fn"].clone();
            settings.check_modules()?;
            settings.read_transformer()?;
        }
        None => settings.notes.push(format!(
            "{}: its sentence-transformers files are those of an embedding model and are ignored",
            dir.display()
        )),
    }
    Ok(settings)
}

impl FolderSettings {
    /// The activation, from the first of the folder's files that names one.
    ///
    /// # Errors
    /// [`TaskError::File`] for an activation of PyTorch that is not supported, and for a value that is not a name.
    pub(super) fn activation(&self, config: &Config) -> Result<StoredActivation, TaskError> {
        let first = activation(&self.activation, &self.layout.root.join(SENTENCES))?;
        if first.activation.is_some() {
            return Ok(first);
        }
        let [now, before] = KEYS.map(|key| config.extra.get(key).unwrap_or(&Value::Null));
        let named = now.get("activation_fn").unwrap_or(before);
        let second = activation(named, &self.layout.model.join("config.json"))?;
        Ok(StoredActivation { note: first.note.or(second.note), ..second })
    }

    /// Checks that the folder has only a Transformer.
    fn check_modules(&self) -> Result<(), TaskError> {
        for (number, module) in self.layout.modules.iter().enumerate() {
            if number > 0 || module.class() != Some("Transformer") {
                let problem = format!(
                    "module {number} of its modules.json is {}, expected only a Transformer with a classification head",
                    module.class().unwrap_or(&module.kind)
                );
                return Err(TaskError::Folder { path: self.layout.root.clone(), problem });
            }
        }
        Ok(())
    }

    /// Reads the settings of the Transformer module.
    fn read_transformer(&mut self) -> Result<(), TaskError> {
        let path = self.layout.model.join(SETTINGS);
        let Some(config) = json(&path)? else { return Ok(()) };
        let bad = |problem: String| TaskError::file(&path, problem);
        let required = [("transformer_task", "sequence-classification"), ("module_output_name", "scores")];
        for (key, expected) in required {
            if !config[key].is_null() && config[key] != expected {
                return Err(bad(format!("{key} is {}, expected {expected:?}", config[key])));
            }
        }
        self.lowercase = config["do_lower_case"].as_bool().unwrap_or(false);
        let lengths = [
            &config["max_seq_length"],
            &config["processor_kwargs"]["model_max_length"],
            &config["processing_kwargs"]["text"]["max_length"],
        ];
        for length in lengths {
            self.max_len = match length.as_f64() {
                _ if length.is_null() => self.max_len,
                Some(found) if found > UNLIMITED => None,
                Some(found) if found >= 1.0 => Some(found as usize),
                _ => return Err(bad(format!("the maximum length is {length}, expected a number from 1"))),
            };
        }
        let truncation = &config["processing_kwargs"]["text"]["truncation"];
        if !(truncation.is_null() || *truncation == true || *truncation == "longest_first") {
            return Err(bad(format!("processing_kwargs: truncation = {truncation} is not supported")));
        }
        Ok(())
    }
}

/// The activation with this Python path. sentence-transformers uses only PyTorch's own, unless the user trusts the
/// folder's code.
fn activation(named: &Value, path: &Path) -> Result<StoredActivation, TaskError> {
    match named {
        Value::Null => Ok(StoredActivation::default()),
        Value::String(class) if class.starts_with("torch.") => {
            let activation = Activation::named(class).map_err(|problem| TaskError::file(path, problem))?;
            Ok(StoredActivation { activation: Some(activation), note: None })
        }
        Value::String(class) => {
            let note = format!(
                "{}: its activation {class} is custom Python code; the default is used instead, as in sentence-transformers",
                path.display()
            );
            Ok(StoredActivation { activation: None, note: Some(note) })
        }
        other => Err(TaskError::file(path, format!("the activation is {other}, expected the name of a class"))),
    }
}

/// Reads a JSON file; none if it does not exist.
fn json(path: &Path) -> Result<Option<Value>, TaskError> {
    let bytes = match std::fs::read(path) {
        Ok(bytes) => bytes,
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(e) => return Err(TaskError::io("read", path, e)),
    };
    let parsed = serde_json::from_slice(&bytes);
    parsed.map(Some).map_err(|e| TaskError::file(path, format!("expected JSON: {e}; download the folder again")))
}
