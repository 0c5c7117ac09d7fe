//! What a sentence-transformers folder says beside its model: `modules.json`, `1_Pooling/config.json`, `sentence_bert_config.json`,
//! `config_sentence_transformers.json`.
//!
//! Modules are told by the last part of their type, which stays the same where their packages move
//! (`sentence_transformers.models.Pooling`, `sentence_transformers.sentence_transformer.modules.pooling.Pooling`).

use std::path::{Component, Path, PathBuf};

use serde_json::Value;

use super::pooling::Pool;
use crate::TaskError;

const MODULES: &str = "modules.json";

/// Pooling modes under both generations' names: a flag each, or one key `pooling_mode`. In the order in which several are set
/// side by side.
const MODES: [(&str, &str, Option<Pool>); 6] = [
    ("pooling_mode_cls_token", "cls", Some(Pool::Cls)),
    ("pooling_mode_max_tokens", "max", Some(Pool::Max)),
    ("pooling_mode_mean_tokens", "mean", Some(Pool::Mean)),
    ("pooling_mode_mean_sqrt_len_tokens", "mean_sqrt_len_tokens", Some(Pool::MeanSqrtLen)),
    ("pooling_mode_weightedmean_tokens", "weightedmean", None),
    ("pooling_mode_lasttoken", "lasttoken", None),
];

/// What a folder says.
pub(super) struct Said {
    /// Where the model lies within it.
    pub(super) model: PathBuf,
    /// Its pooling, or why it cannot be done here.
    pools: Result<Vec<Pool>, String>,
    pub(super) normalize: bool,
    /// Tokens of a text at most.
    pub(super) max_len: Option<usize>,
    pub(super) lowercase: bool,
    /// Texts that it would put before a text, by their names.
    prompts: Vec<(String, String)>,
}

impl Said {
    /// The pooling; an error if it cannot be done here.
    pub(super) fn pools(&self, dir: &Path) -> Result<Vec<Pool>, TaskError> {
        self.pools.clone().map_err(|problem| TaskError::Folder { path: dir.to_owned(), problem })
    }

    /// That the folder asks for words before a text, which nobody adds.
    pub(super) fn prompts_note(&self) -> Option<String> {
        let named: Vec<String> = self.prompts.iter().map(|(name, prompt)| format!("{name} {prompt:?}")).collect();
        (!named.is_empty()).then(|| {
            format!("the folder has prompts, which are not added: put them before your texts ({})", named.join(", "))
        })
    }
}

/// Reads what a folder says; none if it is no sentence-transformers folder.
pub(super) fn read(dir: &Path) -> Result<Option<Said>, TaskError> {
    let Some(modules) = json(&dir.join(MODULES))? else { return Ok(None) };
    let bad = |problem: String| TaskError::file(&dir.join(MODULES), problem);
    let listed = modules.as_array().filter(|modules| !modules.is_empty());
    let listed = listed.ok_or_else(|| bad("expected a list of modules".into()))?;
    let mut said = Said {
        model: PathBuf::new(),
        pools: Err("its modules.json has no Pooling module; choose one with --pool".into()),
        normalize: false,
        max_len: None,
        lowercase: false,
        prompts: Vec::new(),
    };
    for (number, module) in listed.iter().enumerate() {
        let (Some(kind), Some(path)) = (module["type"].as_str(), module["path"].as_str()) else {
            return Err(bad(format!("module {number}: expected \"type\" and \"path\", both strings")));
        };
        let inside = Path::new(path).components().all(|part| matches!(part, Component::Normal(_) | Component::CurDir));
        if !inside {
            return Err(bad(format!("module {number}: path {path:?} leads out of the folder")));
        }
        match (number, kind.rsplit('.').next().unwrap_or(kind)) {
            (0, "Transformer") => {
                said.model = PathBuf::from(path);
                if let Some(config) = json(&dir.join(path).join("sentence_bert_config.json"))? {
                    said.max_len = config["max_seq_length"].as_u64().and_then(|len| usize::try_from(len).ok());
                    said.lowercase = config["do_lower_case"].as_bool().unwrap_or(false);
                }
            }
            (1.., "Pooling") => {
                let path = dir.join(path).join("config.json");
                let missing =
                    || TaskError::file(&path, "is missing, and modules.json names it; download the folder again");
                let config = json(&path)?.ok_or_else(missing)?;
                said.pools = pools(&config);
            }
            (1.., "Normalize") => said.normalize = true,
            (_, other) => {
                said.pools = Err(format!(
                    "module {number} of its modules.json is {other}, which is not known here (known: Transformer, Pooling, \
                     Normalize); choose a pooling without it with --pool"
                ));
                break;
            }
        }
    }
    if let Some(config) = json(&dir.join("config_sentence_transformers.json"))?
        && let Some(prompts) = config["prompts"].as_object()
    {
        let prompts = prompts.iter().filter_map(|(name, prompt)| Some((name.clone(), prompt.as_str()?.to_owned())));
        said.prompts = prompts.filter(|(_, prompt)| !prompt.is_empty()).collect();
    }
    Ok(Some(said))
}

/// The modes of a Pooling module.
fn pools(config: &Value) -> Result<Vec<Pool>, String> {
    let named: Vec<&str> = match &config["pooling_mode"] {
        Value::String(mode) => vec![mode],
        Value::Array(modes) => modes.iter().map(|mode| mode.as_str().unwrap_or("no name")).collect(),
        _ => MODES.iter().filter(|(flag, ..)| config[*flag] == true).map(|(_, mode, _)| *mode).collect(),
    };
    if named.is_empty() {
        return Ok(vec![Pool::Mean]);
    }
    let known = |mode: &str| {
        let found = MODES.iter().find(|(_, name, _)| *name == mode).and_then(|(.., pool)| *pool);
        found.ok_or_else(|| {
            format!(
                "its pooling is {mode:?}; known are cls, max, mean and mean_sqrt_len_tokens: choose one with --pool"
            )
        })
    };
    named.into_iter().map(known).collect()
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

    #[test]
    fn both_generations_are_understood() {
        assert!(read(tempfile::tempdir().unwrap().path()).unwrap().is_none());
        let dir = folder(&[
            (MODULES, json!([module("Transformer", ""), module("Pooling", "1_Pooling"), module("Normalize", "2")])),
            ("1_Pooling/config.json", json!({"pooling_mode_mean_tokens": true, "pooling_mode_cls_token": true})),
            ("sentence_bert_config.json", json!({"max_seq_length": 256, "do_lower_case": true})),
            ("config_sentence_transformers.json", json!({"prompts": {"query": "query: ", "document": ""}})),
        ]);
        let said = read(dir.path()).unwrap().unwrap();
        assert_eq!(said.pools(dir.path()).unwrap(), [Pool::Cls, Pool::Mean]);
        assert_eq!((said.normalize, said.max_len, said.lowercase), (true, Some(256), true));
        assert!(said.prompts_note().unwrap().contains("(query \"query: \")"));
        let dir = folder(&[
            (MODULES, json!([module("x.Transformer", "0_Transformer"), module("y.pooling.Pooling", "1_Pooling")])),
            ("1_Pooling/config.json", json!({"pooling_mode": ["max", "mean_sqrt_len_tokens"]})),
        ]);
        let said = read(dir.path()).unwrap().unwrap();
        assert_eq!(said.pools(dir.path()).unwrap(), [Pool::Max, Pool::MeanSqrtLen]);
        assert_eq!((said.normalize, said.max_len, said.lowercase), (false, None, false));
        assert_eq!(said.model, Path::new("0_Transformer"));
        assert_eq!(said.prompts_note(), None);
        assert_eq!(pools(&json!({})), Ok(vec![Pool::Mean]));
    }

    #[test]
    fn what_cannot_be_done_is_said() {
        let fails = |files: &[(&str, Value)]| {
            let dir = folder(files);
            match read(dir.path()) {
                Ok(said) => said.unwrap().pools(dir.path()).unwrap_err().to_string(),
                Err(e) => e.to_string(),
            }
        };
        let modules = |kind: &str| (MODULES, json!([module("Transformer", ""), module(kind, "1_Pooling")]));
        let config = |mode: &str| ("1_Pooling/config.json", json!({"pooling_mode": mode}));
        assert!(fails(&[modules("Pooling"), config("lasttoken")]).contains("\"lasttoken\""));
        assert!(fails(&[modules("Pooling")]).contains("config.json: is missing"));
        assert!(fails(&[modules("Dense")]).contains("module 1 of its modules.json is Dense"));
        assert!(fails(&[(MODULES, json!([module("Transformer", "")]))]).contains("no Pooling module"));
        assert!(fails(&[(MODULES, json!({}))]).contains("expected a list"));
        assert!(fails(&[(MODULES, json!([{"type": 1}]))]).contains("module 0"));
        assert!(fails(&[(MODULES, json!([module("Transformer", "../x")]))]).contains("leads out"));
        // A module after the pooling changes the vectors too.
        let three = (MODULES, json!([module("Transformer", ""), module("Pooling", "1_Pooling"), module("Dense", "2")]));
        assert!(fails(&[three, config("mean")]).contains("module 2"));
    }
}
