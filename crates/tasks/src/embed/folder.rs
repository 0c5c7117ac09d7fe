//! The embedding settings of a folder: sentence-transformers' `modules.json` with the settings of the modules,
//! `sentence_bert_config.json` and `config_sentence_transformers.json`.
//!
//! The settings are interpreted as in sentence-transformers 6.2. Settings that are not supported here are errors.

use std::path::Path;

use cloze_model::Layout;
use serde_json::Value;

use super::modules::Module;
use super::pooling::Pool;
use super::prompts::{FolderPrompts, Purpose};
use super::search::Similarity;
use crate::TaskError;

pub(crate) const SENTENCES: &str = "config_sentence_transformers.json";
/// The files with settings of the Transformer module; the first that exists is used.
pub(crate) const SETTINGS: [&str; 7] = [
    "sentence_bert_config.json",
    "sentence_roberta_config.json",
    "sentence_distilbert_config.json",
    "sentence_camembert_config.json",
    "sentence_albert_config.json",
    "sentence_xlm-roberta_config.json",
    "sentence_xlnet_config.json",
];
/// Transformers treats larger lengths as unlimited.
const UNLIMITED: f64 = 1e20;

/// The pooling modes, by their old names (one flag each) and new names (values of `pooling_mode`), in the order in
/// which several are concatenated.
pub(crate) const MODES: [(&str, &str, Pool); 6] = [
    ("pooling_mode_cls_token", "cls", Pool::Cls),
    ("pooling_mode_max_tokens", "max", Pool::Max),
    ("pooling_mode_mean_tokens", "mean", Pool::Mean),
    ("pooling_mode_mean_sqrt_len_tokens", "mean_sqrt_len_tokens", Pool::MeanSqrtLen),
    ("pooling_mode_weightedmean_tokens", "weightedmean", Pool::WeightedMean),
    ("pooling_mode_lasttoken", "lasttoken", Pool::LastToken),
];

/// The embedding settings of a folder.
pub(crate) struct FolderSettings {
    pub(super) layout: Layout,
    pub(super) prompts: FolderPrompts,
    pub(super) similarity: Similarity,
    /// The number of leading dimensions that are kept.
    pub(super) truncate: Option<usize>,
    pub(super) lowercase: bool,
    /// Maximum number of tokens of a text.
    max_len: Option<usize>,
    /// The same for queries and for documents, if it differs.
    max_len_of: [Option<usize>; 2],
    /// The `model_type` of the folder, if it is not a SentenceTransformer.
    other_model_type: Option<String>,
    /// Notes for the user about settings that are ignored.
    pub(super) notes: Vec<String>,
}

/// The steps after the encoder: pooling and modules.
#[derive(Debug)]
pub(crate) struct Chain {
    pub(crate) pools: Vec<Pool>,
    pub(crate) include_prompt: bool,
    pub(crate) modules: Vec<Module>,
    pub(crate) notes: Vec<String>,
}

impl FolderSettings {
    /// Whether it is a sentence-transformers folder.
    pub(super) fn is_sentence_transformers(&self) -> bool {
        !self.layout.modules.is_empty()
    }

    /// Maximum number of tokens of a text, if the sentence-transformers files set it.
    pub(super) fn max_len(&self, purpose: Purpose) -> Option<usize> {
        let own = match purpose {
            Purpose::Text => None,
            Purpose::Query => self.max_len_of[0],
            Purpose::Document => self.max_len_of[1],
        };
        own.or(self.max_len)
    }

    /// Pooling and modules; mean pooling if there is no modules.json.
    ///
    /// # Errors
    /// [`TaskError::Folder`] for modules that are not supported, [`TaskError::File`] for settings that are not
    /// supported, [`TaskError::Model`] for weights that do not fit.
    pub(crate) fn chain(&self) -> Result<Chain, TaskError> {
        let mut chain = Chain { pools: Vec::new(), include_prompt: true, modules: Vec::new(), notes: Vec::new() };
        if !self.is_sentence_transformers() {
            chain.pools.push(Pool::Mean);
            return Ok(chain);
        }
        let root = &self.layout.root;
        let refuse = |problem: String| TaskError::Folder {
            path: root.clone(),
            problem: format!("{problem}; set `pool` to choose a pooling"),
        };
        if let Some(kind) = &self.other_model_type {
            return Err(refuse(format!(
                "expected the model_type SentenceTransformer in its {SENTENCES}, found {kind}"
            )));
        }
        for (number, module) in self.layout.modules.iter().enumerate() {
            let it = format!("module {number} of its modules.json is");
            let Some(class) = module.class() else {
                return Err(refuse(format!("{it} {}, custom Python code, which is not supported", module.kind)));
            };
            let folder = self.layout.folder_of(module);
            let pooled = !chain.pools.is_empty();
            match class {
                "Transformer" if number == 0 => {}
                _ if number == 0 => return Err(refuse(format!("{it} {class}, expected a Transformer"))),
                "Pooling" if pooled => return Err(refuse(format!("{it} a second Pooling"))),
                "Pooling" => {
                    let path = folder.join("config.json");
                    let missing = || {
                        TaskError::file(&path, "is missing, but modules.json refers to it; download the folder again")
                    };
                    let config = json(&path)?.ok_or_else(missing)?;
                    chain.pools = pools(&config).map_err(|problem| TaskError::file(&path, problem))?;
                    chain.include_prompt = config["include_prompt"] != false;
                }
                // Dropout is active only during training.
                "Dropout" if pooled => {}
                _ => {
                    let config = json(&folder.join("config.json"))?;
                    match Module::read(class, &folder, config.as_ref(), root)? {
                        Some((module, note)) if pooled => {
                            chain.modules.push(module);
                            chain.notes.extend(note);
                        }
                        // Before the pooling there is no vector, and the module has no effect.
                        Some((Module::Normalize, _)) => {}
                        Some(_) => return Err(refuse(format!("{it} {class}, expected a Pooling before it"))),
                        None => {
                            return Err(refuse(format!(
                                "{it} {class}, expected one of Transformer, Pooling, Dense, LayerNorm, Normalize, Dropout"
                            )));
                        }
                    }
                }
            }
        }
        if chain.pools.is_empty() {
            return Err(refuse("expected a Pooling module in its modules.json, found none".to_owned()));
        }
        Ok(chain)
    }
}

/// Reads the embedding settings of a folder.
pub(crate) fn read(dir: &Path) -> Result<FolderSettings, TaskError> {
    let layout = Layout::of(dir)?;
    let mut settings = FolderSettings {
        prompts: FolderPrompts::default(),
        similarity: Similarity::default(),
        truncate: None,
        lowercase: false,
        max_len: None,
        max_len_of: [None; 2],
        other_model_type: None,
        notes: Vec::new(),
        layout,
    };
    if settings.is_sentence_transformers() {
        settings.read_sentences()?;
        settings.read_settings()?;
    } else if let Some(above) = Layout::above(dir) {
        settings.notes.push(format!(
            "{} is the model inside a sentence-transformers folder, whose settings are ignored; to use them pass {}",
            dir.display(),
            above.root.display()
        ));
    }
    Ok(settings)
}

impl FolderSettings {
    /// Reads `config_sentence_transformers.json`.
    fn read_sentences(&mut self) -> Result<(), TaskError> {
        let path = self.layout.root.join(SENTENCES);
        let Some(config) = json(&path)? else { return Ok(()) };
        let bad = |problem: String| TaskError::file(&path, problem);
        // sentence-transformers ignores the other settings of a different model type.
        if let Some(kind) = config["model_type"].as_str().filter(|kind| *kind != "SentenceTransformer") {
            self.other_model_type = Some(kind.to_owned());
            return Ok(());
        }
        self.prompts = FolderPrompts::read(&config).map_err(bad)?;
        if let Some(name) = config["similarity_fn_name"].as_str() {
            match Similarity::named(name) {
                Some(similarity) => self.similarity = similarity,
                None => self.notes.push(format!(
                    "the folder's similarity {name:?} is not supported; cosine is used instead, as in sentence-transformers"
                )),
            }
        }
        self.truncate = length(&config, "truncate_dim").map_err(bad)?;
        Ok(())
    }

    /// Reads the settings of the Transformer module.
    fn read_settings(&mut self) -> Result<(), TaskError> {
        let mut found = None;
        for name in SETTINGS {
            let path = self.layout.model.join(name);
            match json(&path)? {
                Some(Value::Object(empty)) if empty.is_empty() => {}
                Some(config) => {
                    found = Some((path, config));
                    break;
                }
                None => {}
            }
        }
        let Some((path, config)) = found else { return Ok(()) };
        let bad = |problem: String| TaskError::file(&path, problem);
        self.lowercase = config["do_lower_case"].as_bool().unwrap_or(false);
        // New and old names of the same settings.
        let tokenizer = ["processor_kwargs", "tokenizer_args"].map(|key| &config[key]);
        for (key, what) in tokenizer.iter().filter_map(|object| object.as_object()).flatten() {
            if !["model_max_length", "trust_remote_code", "use_fast"].contains(&key.as_str()) {
                return Err(bad(format!("the tokenizer setting {key} = {what} is not supported")));
            }
        }
        for (key, what) in ["config_kwargs", "config_args"].iter().filter_map(|key| config[*key].as_object()).flatten()
        {
            if !["trust_remote_code", "use_cache", "output_hidden_states", "output_attentions"].contains(&key.as_str())
            {
                return Err(bad(format!("the model setting {key} = {what} is not supported; move it to config.json")));
            }
        }
        let required = [("transformer_task", "feature-extraction"), ("module_output_name", "token_embeddings")];
        for (key, expected) in required {
            if !config[key].is_null() && config[key] != expected {
                return Err(bad(format!(
                    "{key} is {}, expected {expected:?}: a model with one vector per token",
                    config[key]
                )));
            }
        }
        let output = &config["modality_config"]["text"]["method_output_name"];
        if !output.is_null() && output != "last_hidden_state" {
            return Err(bad(format!("the output for texts is {output}, expected \"last_hidden_state\"")));
        }
        for key in ["query_expansion", "tokenizer_name_or_path"] {
            if !config[key].is_null() {
                return Err(bad(format!("{key} is {}, expected null: it is not supported", config[key])));
            }
        }
        // The last one that exists takes precedence.
        let mut max_len = |from: &Value, key: &str| -> Result<(), TaskError> {
            self.max_len = length(from, key).map_err(bad)?.or(self.max_len);
            Ok(())
        };
        max_len(&config, "max_seq_length")?;
        for arguments in tokenizer {
            max_len(arguments, "model_max_length")?;
        }
        self.max_len_of =
            [length(&config, "query_length").map_err(bad)?, length(&config, "document_length").map_err(bad)?];
        let processing = &config["processing_kwargs"];
        for (key, settings) in processing.as_object().into_iter().flatten() {
            for (name, what) in settings.as_object().into_iter().flatten() {
                let is_supported = match name.as_str() {
                    "padding" | "pad_to_multiple_of" | "return_tensors" => true,
                    "truncation" => what == true || what == "longest_first" || what == "only_first",
                    "max_length" => key == "text",
                    _ => key != "text" && key != "common",
                };
                if !is_supported {
                    return Err(bad(format!("processing_kwargs: {key}.{name} = {what} is not supported")));
                }
            }
        }
        if let Some(of_all) = length(&processing["text"], "max_length").map_err(bad)? {
            (self.max_len, self.max_len_of) = (Some(of_all), [None; 2]);
        }
        Ok(())
    }
}

/// A number from 1; none if the key is missing or null, or the number means unlimited.
fn length(config: &Value, key: &str) -> Result<Option<usize>, String> {
    match &config[key] {
        Value::Null => Ok(None),
        value => match value.as_f64() {
            Some(found) if found > UNLIMITED => Ok(None),
            Some(found) if found >= 1.0 => Ok(Some(found as usize)),
            _ => Err(format!("{key} is {value}, expected a number from 1")),
        },
    }
}

/// The modes of a Pooling module.
fn pools(config: &Value) -> Result<Vec<Pool>, String> {
    let named: Vec<&str> = match config.get("pooling_mode") {
        Some(Value::String(mode)) => vec![mode],
        Some(Value::Array(modes)) if !modes.is_empty() => {
            modes.iter().map(|mode| mode.as_str().unwrap_or("no name")).collect()
        }
        Some(other) => return Err(format!("pooling_mode: expected a name or a list of names, found {other}")),
        None => {
            let flagged = MODES.iter().filter(|(flag, ..)| is_set(&config[*flag])).map(|(_, mode, _)| *mode).collect();
            if Vec::is_empty(&flagged) { vec!["mean"] } else { flagged }
        }
    };
    let known = |mode: &str| {
        let found = MODES.iter().find(|(_, name, _)| *name == mode).map(|(.., pool)| *pool);
        found.ok_or_else(|| {
            let known: Vec<&str> = MODES.iter().map(|(_, name, _)| *name).collect();
            format!("the pooling {mode:?} is not supported (supported: {}); set `pool` to choose one", known.join(", "))
        })
    };
    named.into_iter().map(known).collect()
}

/// Whether a value is true in Python.
fn is_set(value: &Value) -> bool {
    value.as_bool().unwrap_or_else(|| value.as_f64().is_some_and(|number| number != 0.0))
}

/// Reads a JSON file; none if it does not exist.
pub(crate) fn json(path: &Path) -> Result<Option<Value>, TaskError> {
    let bytes = match std::fs::read(path) {
        Ok(bytes) => bytes,
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(e) => return Err(TaskError::io("read", path, e)),
    };
    serde_json::from_slice(&bytes).map(Some).map_err(|e| TaskError::file(path, format!("not JSON: {e}")))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn folder(files: &[(&str, Value)]) -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        for (name, value) in files {
            let path = dir.path().join(name);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, value.to_string()).unwrap();
        }
        dir
    }

    fn module(kind: &str, path: &str) -> Value {
        json!({"type": format!("sentence_transformers.models.{kind}"), "path": path})
    }

    /// A modules.json with these modules after the Transformer, each in a folder named by its number.
    fn modules(kinds: &[&str]) -> (&'static str, Value) {
        let numbered = kinds.iter().enumerate().map(|(number, kind)| module(kind, &(number + 1).to_string()));
        ("modules.json", Value::Array(std::iter::once(module("Transformer", "")).chain(numbered).collect()))
    }

    #[track_caller]
    fn assert_error(files: &[(&str, Value)], expected: &str) {
        let dir = folder(files);
        let line = match read(dir.path()).map(|settings| settings.chain()) {
            Ok(chain) => chain.unwrap_err().to_string(),
            Err(e) => e.to_string(),
        };
        assert!(line.contains(expected) && line.lines().count() == 1, "{line}: expected {expected}");
    }

    #[test]
    fn r12_errors_of_unsupported_modules_name_the_module() {
        let mean = || ("1/config.json", json!({"pooling_mode": "mean"}));
        assert_error(
            &[modules(&["Pooling"]), ("1/config.json", json!({"pooling_mode": "first"}))],
            "\"first\" is not supported (supported: cls,",
        );
        assert_error(&[modules(&["Pooling"])], "config.json: is missing");
        assert_error(&[modules(&[])], "expected a Pooling module");
        assert_error(&[modules(&["Pooling", "Pooling"]), mean()], "a second Pooling");
        assert_error(&[modules(&["SpladePooling"])], "module 1 of its modules.json is SpladePooling");
        assert_error(&[modules(&["WordWeights", "Pooling"]), mean()], "is WordWeights, expected one of Transformer");
        assert_error(&[modules(&["LSTM"])], "is LSTM");
        assert_error(
            &[("modules.json", json!([module("WordEmbeddings", "")]))],
            "is WordEmbeddings, expected a Transformer",
        );
        assert_error(
            &[("modules.json", json!([{"type": "custom.Transformer", "path": ""}]))],
            "custom.Transformer, custom Python code",
        );
        let sparse = (SENTENCES, json!({"model_type": "SparseEncoder"}));
        assert_error(&[modules(&["Pooling"]), mean(), sparse], "found SparseEncoder");
        let normed = ("2/config.json", json!({"module_input_name": "token_embeddings"}));
        assert_error(
            &[modules(&["Pooling", "Normalize"]), mean(), normed],
            "module_input_name is \"token_embeddings\"",
        );
        assert_error(&[modules(&["Pooling", "Dense"]), mean()], "2/config.json: is missing");
        let dense = |more: Value| {
            let mut config = json!({"in_features": 4, "out_features": 2, "activation_function": "torch.nn.Tanh"});
            config.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
            [modules(&["Pooling", "Dense"]), mean(), ("2/config.json", config)]
        };
        assert_error(
            &dense(json!({"activation_function": "torch.nn.Softmax"})),
            "torch.nn.Softmax is not supported (supported: Identity,",
        );
        assert_error(&dense(json!({"activation_function": null})), "expected the name of a class, found null");
        assert_error(&dense(json!({"out_features": 0})), "out_features: expected a number from 1, found 0");
        assert_error(&dense(json!({"in_features": "4"})), "in_features: expected a number from 1");
        assert_error(&dense(json!({})), "neither model.safetensors");
    }

    #[test]
    fn r13_unsupported_settings_are_errors() {
        let settings = |settings: Value| [modules(&["Pooling"]), ("1/config.json", json!({})), (SETTINGS[0], settings)];
        assert_error(&settings(json!({"query_expansion": {"strategy": "fixed"}})), "query_expansion is ");
        assert_error(&settings(json!({"transformer_task": "fill-mask"})), "transformer_task is \"fill-mask\"");
        assert_error(
            &settings(json!({"tokenizer_args": {"do_lower_case": true}})),
            "do_lower_case = true is not supported",
        );
        assert_error(
            &settings(json!({"processing_kwargs": {"text": {"truncation": false}}})),
            "text.truncation = false",
        );
        assert_error(
            &settings(json!({"modality_config": {"text": {"method_output_name": "pooler_output"}}})),
            "is \"pooler_output\"",
        );
        assert_error(
            &settings(json!({"max_seq_length": "128"})),
            "max_seq_length is \"128\", expected a number from 1",
        );
    }
}
