//! What a folder says of how its texts become vectors: sentence-transformers' `modules.json` with the modules' settings,
//! `sentence_bert_config.json` and `config_sentence_transformers.json`.
//!
//! All of it is read as sentence-transformers 6.2 reads it. What it would read and is not done here is refused.

use std::path::Path;

use cloze_model::Layout;
use serde_json::Value;

use super::modules::Module;
use super::pooling::Pool;
use super::prompts::{Prompts, Purpose};
use super::search::Similarity;
use crate::TaskError;

const SENTENCES: &str = "config_sentence_transformers.json";
/// The settings of the Transformer module; the first that is there counts.
const SETTINGS: [&str; 7] = [
    "sentence_bert_config.json",
    "sentence_roberta_config.json",
    "sentence_distilbert_config.json",
    "sentence_camembert_config.json",
    "sentence_albert_config.json",
    "sentence_xlm-roberta_config.json",
    "sentence_xlnet_config.json",
];
/// A longer length than this is none, to Transformers.
const ENDLESS: f64 = 1e20;

/// Pooling modes under both generations' names: a flag each, or one key `pooling_mode`. In the order in which several are set
/// side by side.
const MODES: [(&str, &str, Pool); 6] = [
    ("pooling_mode_cls_token", "cls", Pool::Cls),
    ("pooling_mode_max_tokens", "max", Pool::Max),
    ("pooling_mode_mean_tokens", "mean", Pool::Mean),
    ("pooling_mode_mean_sqrt_len_tokens", "mean_sqrt_len_tokens", Pool::MeanSqrtLen),
    ("pooling_mode_weightedmean_tokens", "weightedmean", Pool::WeightedMean),
    ("pooling_mode_lasttoken", "lasttoken", Pool::LastToken),
];

/// What a folder says.
pub(super) struct FolderSettings {
    pub(super) layout: Layout,
    pub(super) prompts: Prompts,
    pub(super) similarity: Similarity,
    /// Numbers of a vector that are kept.
    pub(super) truncate: Option<usize>,
    pub(super) lowercase: bool,
    /// Tokens of any text at most.
    longest: Option<usize>,
    /// Of a query and a document where that differs.
    longest_of: [Option<usize>; 2],
    /// What kind of model it says that it is, if not one of sentences.
    foreign: Option<String>,
    /// What is passed over: for people.
    pub(super) notes: Vec<String>,
}

/// What follows the model.
#[derive(Debug)]
pub(super) struct Chain {
    pub(super) pools: Vec<Pool>,
    pub(super) include_prompt: bool,
    pub(super) modules: Vec<Module>,
    pub(super) notes: Vec<String>,
}

impl FolderSettings {
    /// Whether it is a sentence-transformers folder.
    pub(super) fn is_of_sentences(&self) -> bool {
        !self.layout.modules.is_empty()
    }

    /// Tokens of a text at most, as far as the sentence-transformers files say.
    pub(super) fn longest(&self, purpose: Purpose) -> Option<usize> {
        let own = match purpose {
            Purpose::Text => None,
            Purpose::Query => self.longest_of[0],
            Purpose::Document => self.longest_of[1],
        };
        own.or(self.longest)
    }

    /// Pooling and modules; the mean of the tokens where there is no modules.json.
    ///
    /// # Errors
    /// [`TaskError::Folder`] for modules that are not known here, [`TaskError::File`] for settings that cannot be followed,
    /// [`TaskError::Model`] for weights that do not fit.
    pub(super) fn chain(&self) -> Result<Chain, TaskError> {
        let mut chain = Chain { pools: Vec::new(), include_prompt: true, modules: Vec::new(), notes: Vec::new() };
        if !self.is_of_sentences() {
            chain.pools.push(Pool::Mean);
            return Ok(chain);
        }
        let root = &self.layout.root;
        let refuse = |problem: String| TaskError::Folder {
            path: root.clone(),
            problem: format!("{problem}; choose a pooling of your own with --pool"),
        };
        if let Some(kind) = &self.foreign {
            return Err(refuse(format!("its {SENTENCES} says that it is a {kind}, expected a SentenceTransformer")));
        }
        for (number, module) in self.layout.modules.iter().enumerate() {
            let it = format!("module {number} of its modules.json is");
            let Some(class) = module.class() else {
                return Err(refuse(format!("{it} {}, Python code of its own, which is not run here", module.kind)));
            };
            let folder = self.layout.folder_of(module);
            let pooled = !chain.pools.is_empty();
            match class {
                "Transformer" if number == 0 => {}
                _ if number == 0 => return Err(refuse(format!("{it} {class}, expected a Transformer"))),
                "Pooling" if pooled => return Err(refuse(format!("{it} a second Pooling"))),
                "Pooling" => {
                    let path = folder.join("config.json");
                    let missing =
                        || TaskError::file(&path, "is missing, and modules.json names it; download the folder again");
                    let config = json(&path)?.ok_or_else(missing)?;
                    chain.pools = pools(&config).map_err(|problem| TaskError::file(&path, problem))?;
                    chain.include_prompt = config["include_prompt"] != false;
                }
                // Random only while a model learns.
                "Dropout" if pooled => {}
                _ => {
                    let config = json(&folder.join("config.json"))?;
                    match Module::read(class, &folder, config.as_ref(), root)? {
                        Some((module, note)) if pooled => {
                            chain.modules.push(module);
                            chain.notes.extend(note);
                        }
                        // There is no vector yet, and it then does nothing.
                        Some((Module::Normalize, _)) => {}
                        Some(_) => return Err(refuse(format!("{it} {class}, expected a Pooling before it"))),
                        None => {
                            return Err(refuse(format!(
                                "{it} {class}, which is not known here (known: Transformer, Pooling, Dense, LayerNorm, Normalize, Dropout)"
                            )));
                        }
                    }
                }
            }
        }
        if chain.pools.is_empty() {
            return Err(refuse("its modules.json has no Pooling module".to_owned()));
        }
        Ok(chain)
    }
}

/// Reads what a folder says.
pub(super) fn read(dir: &Path) -> Result<FolderSettings, TaskError> {
    let layout = Layout::of(dir)?;
    let mut said = FolderSettings {
        prompts: Prompts::default(),
        similarity: Similarity::default(),
        truncate: None,
        lowercase: false,
        longest: None,
        longest_of: [None; 2],
        foreign: None,
        notes: Vec::new(),
        layout,
    };
    if said.is_of_sentences() {
        said.read_sentences()?;
        said.read_settings()?;
    } else if let Some(above) = Layout::above(dir) {
        said.notes.push(format!(
            "{} is the model of a sentence-transformers folder, whose settings are not read; to use them give {}",
            dir.display(),
            above.root.display()
        ));
    }
    Ok(said)
}

impl FolderSettings {
    /// `config_sentence_transformers.json`.
    fn read_sentences(&mut self) -> Result<(), TaskError> {
        let path = self.layout.root.join(SENTENCES);
        let Some(config) = json(&path)? else { return Ok(()) };
        let bad = |problem: String| TaskError::file(&path, problem);
        // sentence-transformers reads no more of another kind's.
        if let Some(kind) = config["model_type"].as_str().filter(|kind| *kind != "SentenceTransformer") {
            self.foreign = Some(kind.to_owned());
            return Ok(());
        }
        self.prompts = Prompts::read(&config).map_err(bad)?;
        if let Some(name) = config["similarity_fn_name"].as_str() {
            match Similarity::named(name) {
                Some(similarity) => self.similarity = similarity,
                None => self.notes.push(format!(
                    "the folder's similarity {name:?} is not known; cosine is in its place, as in sentence-transformers"
                )),
            }
        }
        self.truncate = length(&config, "truncate_dim").map_err(bad)?;
        Ok(())
    }

    /// The settings of the Transformer module.
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
        // Old names and new ones of the same settings.
        let tokenizer = ["processor_kwargs", "tokenizer_args"].map(|key| &config[key]);
        for (key, what) in tokenizer.iter().filter_map(|object| object.as_object()).flatten() {
            if !["model_max_length", "trust_remote_code", "use_fast"].contains(&key.as_str()) {
                return Err(bad(format!("the tokenizer's setting {key} = {what} is not followed here")));
            }
        }
        for (key, what) in ["config_kwargs", "config_args"].iter().filter_map(|key| config[*key].as_object()).flatten()
        {
            if !["trust_remote_code", "use_cache", "output_hidden_states", "output_attentions"].contains(&key.as_str())
            {
                return Err(bad(format!(
                    "the model's setting {key} = {what} is not followed here; put it into config.json"
                )));
            }
        }
        let usual = [("transformer_task", "feature-extraction"), ("module_output_name", "token_embeddings")];
        for (key, expected) in usual {
            if !config[key].is_null() && config[key] != expected {
                return Err(bad(format!(
                    "{key} is {}, expected {expected:?}: a model that gives a vector a token",
                    config[key]
                )));
            }
        }
        let output = &config["modality_config"]["text"]["method_output_name"];
        if !output.is_null() && output != "last_hidden_state" {
            return Err(bad(format!("its texts become {output}, expected \"last_hidden_state\"")));
        }
        for key in ["query_expansion", "tokenizer_name_or_path"] {
            if !config[key].is_null() {
                return Err(bad(format!("{key} is {}, expected null: it is not done here", config[key])));
            }
        }
        // The last one that is there counts.
        let mut longest = |from: &Value, key: &str| -> Result<(), TaskError> {
            self.longest = length(from, key).map_err(bad)?.or(self.longest);
            Ok(())
        };
        longest(&config, "max_seq_length")?;
        for arguments in tokenizer {
            longest(arguments, "model_max_length")?;
        }
        self.longest_of =
            [length(&config, "query_length").map_err(bad)?, length(&config, "document_length").map_err(bad)?];
        let processing = &config["processing_kwargs"];
        for (key, settings) in processing.as_object().into_iter().flatten() {
            for (name, what) in settings.as_object().into_iter().flatten() {
                let usual = match name.as_str() {
                    "padding" | "pad_to_multiple_of" | "return_tensors" => true,
                    "truncation" => what == true || what == "longest_first" || what == "only_first",
                    "max_length" => key == "text",
                    _ => key != "text" && key != "common",
                };
                if !usual {
                    return Err(bad(format!("processing_kwargs: {key}.{name} = {what} is not followed here")));
                }
            }
        }
        if let Some(of_all) = length(&processing["text"], "max_length").map_err(bad)? {
            (self.longest, self.longest_of) = (Some(of_all), [None; 2]);
        }
        Ok(())
    }
}

/// A number from 1; none where the key is missing or null, or the number has no end.
fn length(config: &Value, key: &str) -> Result<Option<usize>, String> {
    match &config[key] {
        Value::Null => Ok(None),
        value => match value.as_f64() {
            Some(found) if found > ENDLESS => Ok(None),
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
            format!("the pooling {mode:?} is not known (known: {}); choose one with --pool", known.join(", "))
        })
    };
    named.into_iter().map(known).collect()
}

/// Whether Python takes a value for true.
fn is_set(value: &Value) -> bool {
    value.as_bool().unwrap_or_else(|| value.as_f64().is_some_and(|number| number != 0.0))
}

/// A file of JSON; none if there is no such file.
fn json(path: &Path) -> Result<Option<Value>, TaskError> {
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

    /// modules.json with modules after the Transformer, each in a folder of its number.
    fn modules(kinds: &[&str]) -> (&'static str, Value) {
        let numbered = kinds.iter().enumerate().map(|(number, kind)| module(kind, &(number + 1).to_string()));
        ("modules.json", Value::Array(std::iter::once(module("Transformer", "")).chain(numbered).collect()))
    }

    #[track_caller]
    fn refused(files: &[(&str, Value)], expected: &str) {
        let dir = folder(files);
        let line = match read(dir.path()).map(|said| said.chain()) {
            Ok(chain) => chain.unwrap_err().to_string(),
            Err(e) => e.to_string(),
        };
        assert!(line.contains(expected) && line.lines().count() == 1, "{line}: expected {expected}");
    }

    #[test]
    fn r12_modules_that_are_not_known_are_refused_by_name() {
        let mean = || ("1/config.json", json!({"pooling_mode": "mean"}));
        refused(
            &[modules(&["Pooling"]), ("1/config.json", json!({"pooling_mode": "first"}))],
            "\"first\" is not known (known: cls,",
        );
        refused(&[modules(&["Pooling"])], "config.json: is missing");
        refused(&[modules(&[])], "no Pooling module");
        refused(&[modules(&["Pooling", "Pooling"]), mean()], "a second Pooling");
        refused(&[modules(&["SpladePooling"])], "module 1 of its modules.json is SpladePooling");
        refused(&[modules(&["WordWeights", "Pooling"]), mean()], "is WordWeights, which is not known");
        refused(&[modules(&["LSTM"])], "is LSTM");
        refused(
            &[("modules.json", json!([module("WordEmbeddings", "")]))],
            "is WordEmbeddings, expected a Transformer",
        );
        refused(
            &[("modules.json", json!([{"type": "custom.Transformer", "path": ""}]))],
            "custom.Transformer, Python code of its own",
        );
        let sparse = (SENTENCES, json!({"model_type": "SparseEncoder"}));
        refused(&[modules(&["Pooling"]), mean(), sparse], "says that it is a SparseEncoder");
        let normed = ("2/config.json", json!({"module_input_name": "token_embeddings"}));
        refused(&[modules(&["Pooling", "Normalize"]), mean(), normed], "module_input_name is \"token_embeddings\"");
        refused(&[modules(&["Pooling", "Dense"]), mean()], "2/config.json: is missing");
        let dense = |more: Value| {
            let mut config = json!({"in_features": 4, "out_features": 2, "activation_function": "torch.nn.Tanh"});
            config.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
            [modules(&["Pooling", "Dense"]), mean(), ("2/config.json", config)]
        };
        refused(
            &dense(json!({"activation_function": "torch.nn.Softmax"})),
            "torch.nn.Softmax is not known here (known: Identity,",
        );
        refused(&dense(json!({"activation_function": null})), "expected the name of a class, found null");
        refused(&dense(json!({"out_features": 0})), "out_features: expected a number from 1, found 0");
        refused(&dense(json!({"in_features": "4"})), "in_features: expected a number from 1");
        refused(&dense(json!({})), "neither model.safetensors");
    }

    #[test]
    fn r13_settings_that_are_not_followed_are_refused() {
        let settings = |settings: Value| [modules(&["Pooling"]), ("1/config.json", json!({})), (SETTINGS[0], settings)];
        refused(&settings(json!({"query_expansion": {"strategy": "fixed"}})), "query_expansion is ");
        refused(&settings(json!({"transformer_task": "fill-mask"})), "transformer_task is \"fill-mask\"");
        refused(&settings(json!({"tokenizer_args": {"do_lower_case": true}})), "do_lower_case = true is not followed");
        refused(&settings(json!({"processing_kwargs": {"text": {"truncation": false}}})), "text.truncation = false");
        refused(
            &settings(json!({"modality_config": {"text": {"method_output_name": "pooler_output"}}})),
            "become \"pooler_output\"",
        );
        refused(&settings(json!({"max_seq_length": "128"})), "max_seq_length is \"128\", expected a number from 1");
    }
}
