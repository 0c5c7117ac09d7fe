//! What sentence-transformers says beside a model of how a text's vector is made.

use std::fs;
use std::path::{Component, Path};

use serde_json::Value;

use crate::error::ConvertError;

const MODULES: &str = "modules.json";

/// Copies sentence-transformers' files beside the model in `from`, if there are any, to the folder `to`: the model's new form pools,
/// normalises and cuts texts as the old one. Modules that lie in folders of their own are copied with their files.
///
/// # Errors
/// [`ConvertError::Io`]; [`ConvertError::Source`] for a modules.json that is none.
pub fn carry_pooling(from: &Path, to: &Path) -> Result<(), ConvertError> {
    let list = from.join(MODULES);
    if !list.is_file() {
        return Ok(());
    }
    let text = fs::read(&list).map_err(ConvertError::io("read", &list))?;
    let modules: Vec<Value> = serde_json::from_slice(&text)
        .map_err(|e| ConvertError::source(&list, format!("expected a list of modules: {e}")))?;
    for name in [MODULES, "sentence_bert_config.json", "config_sentence_transformers.json"] {
        if from.join(name).is_file() {
            copy(&from.join(name), &to.join(name))?;
        }
    }
    // The model itself has no folder of its own: its path is empty.
    for path in modules.iter().filter_map(|module| module["path"].as_str()).filter(|path| !path.is_empty()) {
        if !Path::new(path).components().all(|part| matches!(part, Component::Normal(_))) {
            return Err(ConvertError::source(&list, format!("the module path {path:?} leads out of the folder")));
        }
        let (from, to) = (from.join(path), to.join(path));
        if !from.is_dir() {
            continue; // Normalize has no file.
        }
        fs::create_dir_all(&to).map_err(ConvertError::io("create", &to))?;
        for entry in fs::read_dir(&from).map_err(ConvertError::io("read", &from))? {
            let entry = entry.map_err(ConvertError::io("read", &from))?;
            if entry.path().is_file() {
                copy(&entry.path(), &to.join(entry.file_name()))?;
            }
        }
    }
    Ok(())
}

/// Copies a file and waits until it is on the disk.
fn copy(from: &Path, to: &Path) -> Result<(), ConvertError> {
    fs::copy(from, to).map_err(ConvertError::io("copy", from))?;
    let synced = fs::File::open(to).and_then(|file| file.sync_all());
    synced.map_err(ConvertError::io("write", to))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pooling_goes_with_the_model_and_nothing_leaves_the_folder() {
        let dir = tempfile::tempdir().unwrap();
        let (from, to) = (dir.path().join("from"), dir.path().join("to"));
        fs::create_dir_all(from.join("1_Pooling")).unwrap();
        fs::create_dir(&to).unwrap();
        carry_pooling(&from, &to).unwrap();
        assert_eq!(fs::read_dir(&to).unwrap().count(), 0, "a plain model has none");

        let modules = |path: &str| {
            format!(
                "[{{\"path\": \"\", \"type\": \"Transformer\"}}, {{\"path\": \"{path}\", \"type\": \"Pooling\"}}, \
                     {{\"path\": \"2_Normalize\", \"type\": \"Normalize\"}}]"
            )
        };
        fs::write(from.join(MODULES), modules("1_Pooling")).unwrap();
        fs::write(from.join("1_Pooling/config.json"), "{\"pooling_mode_cls_token\": true}").unwrap();
        fs::write(from.join("sentence_bert_config.json"), "{\"max_seq_length\": 64}").unwrap();
        carry_pooling(&from, &to).unwrap();
        for name in [MODULES, "1_Pooling/config.json", "sentence_bert_config.json"] {
            assert_eq!(fs::read(to.join(name)).unwrap(), fs::read(from.join(name)).unwrap(), "{name}");
        }
        fs::write(from.join(MODULES), modules("../elsewhere")).unwrap();
        let error = carry_pooling(&from, &to).unwrap_err().to_string();
        assert!(error.contains("leads out of the folder"), "{error}");
        fs::write(from.join(MODULES), "{}").unwrap();
        assert!(carry_pooling(&from, &to).unwrap_err().to_string().contains("modules.json"));
    }
}
