//! Copies the modules of sentence-transformers, which define how a text's vector is made.

use std::fs;
use std::path::Path;

use cloze_model::Layout;
use cloze_model::layout::MODULES_FILE;
use serde_json::{Value, json};

use crate::error::ConvertError;
use crate::skipped::Skipped;
use crate::{WEIGHTS_FILE, pickle, tensors};

const PYTORCH_FILE: &str = "pytorch_model.bin";

/// Copies the module files of sentence-transformers, if there are any, to the folder `to`, so that the new model pools, normalises
/// and truncates like the old one. The model is then in the top folder, as in current versions, and the other modules in their own
/// folders. Weights of modules in `pytorch_model.bin` are converted to safetensors. Returns the classes of the modules.
///
/// # Errors
/// [`ConvertError::Io`]; errors of reading a PyTorch file; [`ConvertError::Source`] for an invalid modules.json.
pub fn copy_modules(layout: &Layout, to: &Path) -> Result<Vec<String>, ConvertError> {
    let Some((model, others)) = layout.modules.split_first() else { return Ok(Vec::new()) };
    let list = layout.root.join(MODULES_FILE);
    let text = fs::read(&list).map_err(ConvertError::io("read", &list))?;
    if model.path.is_empty() {
        cloze_files::write(&to.join(MODULES_FILE), &text)?;
    } else {
        let wrong = |problem: String| ConvertError::source(&list, format!("expected a list of modules: {problem}"));
        let mut modules: Value = serde_json::from_slice(&text).map_err(|e| wrong(e.to_string()))?;
        let Some(first) = modules.get_mut(0).and_then(Value::as_object_mut) else {
            return Err(wrong("the first entry is not an object".to_owned()));
        };
        first.insert("path".to_owned(), json!(""));
        cloze_files::write(&to.join(MODULES_FILE), format!("{modules:#}\n").as_bytes())?;
    }
    let is_settings = |name: &str| name.starts_with("sentence_") && name.ends_with("_config.json");
    copy_files(&layout.model, to, is_settings)?;
    copy_files(&layout.root, to, |name| name == "config_sentence_transformers.json")?;
    // A module without files has no folder.
    let has_files = |path: &str| !path.is_empty() && path != model.path && layout.root.join(path).is_dir();
    for module in others.iter().filter(|module| has_files(&module.path)) {
        let (from, to) = (layout.folder_of(module), to.join(&module.path));
        fs::create_dir_all(&to).map_err(ConvertError::io("create", &to))?;
        let weights = from.join(PYTORCH_FILE);
        let is_pickled = weights.is_file() && !from.join(WEIGHTS_FILE).is_file();
        if is_pickled {
            let read = pickle::open(&weights, &mut Skipped::default())?;
            tensors::write(&to.join(WEIGHTS_FILE), &read.tensors, &mut |_| ())?;
        }
        copy_files(&from, &to, |name| name != PYTORCH_FILE)?;
    }
    Ok(layout.modules.iter().map(|module| module.class().unwrap_or(&module.kind).to_owned()).collect())
}

/// Copies the files of a folder for whose names `is_selected` is true, and syncs them.
fn copy_files(from: &Path, to: &Path, is_selected: impl Fn(&str) -> bool) -> Result<(), ConvertError> {
    for entry in fs::read_dir(from).map_err(ConvertError::io("read", from))? {
        let entry = entry.map_err(ConvertError::io("read", from))?;
        if !entry.path().is_file() || !entry.file_name().to_str().is_some_and(&is_selected) {
            continue;
        }
        let (from, to) = (entry.path(), to.join(entry.file_name()));
        fs::copy(&from, &to).map_err(ConvertError::io("copy", &from))?;
        let synced = fs::File::open(&to).and_then(|file| file.sync_all());
        synced.map_err(ConvertError::io("write", &to))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn modules_are_copied_from_both_layouts() {
        let plain = tempfile::tempdir().unwrap();
        let to = tempfile::tempdir().unwrap();
        assert!(copy_modules(&Layout::of(plain.path()).unwrap(), to.path()).unwrap().is_empty());
        assert_eq!(fs::read_dir(to.path()).unwrap().count(), 0, "a plain model has no modules");

        for path in ["", "0_Transformer"] {
            let (from, to) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
            let (from, to) = (from.path(), to.path());
            let modules = json!([
                {"path": path, "type": "sentence_transformers.models.Transformer"},
                {"path": "1_Pooling", "type": "sentence_transformers.models.Pooling"},
                {"path": "2_Normalize", "type": "sentence_transformers.models.Normalize"},
            ]);
            fs::create_dir_all(from.join(path)).unwrap();
            fs::create_dir(from.join("1_Pooling")).unwrap();
            fs::write(from.join(MODULES_FILE), modules.to_string()).unwrap();
            fs::write(from.join("1_Pooling/config.json"), "{\"pooling_mode_cls_token\": true}").unwrap();
            fs::write(from.join(path).join("sentence_bert_config.json"), "{\"max_seq_length\": 64}").unwrap();
            fs::write(from.join("config_sentence_transformers.json"), "{\"prompts\": {}}").unwrap();
            let copied = copy_modules(&Layout::of(from).unwrap(), to).unwrap();
            assert_eq!(copied, ["Transformer", "Pooling", "Normalize"]);
            let layout = Layout::of(to).unwrap();
            assert_eq!((layout.model.as_path(), layout.modules.len()), (to, 3), "the model is in the top folder");
            assert_eq!(layout.modules[1..], Layout::of(from).unwrap().modules[1..]);
            for (name, text) in [
                ("1_Pooling/config.json", "{\"pooling_mode_cls_token\": true}"),
                ("sentence_bert_config.json", "{\"max_seq_length\": 64}"),
                ("config_sentence_transformers.json", "{\"prompts\": {}}"),
            ] {
                assert_eq!(fs::read_to_string(to.join(name)).unwrap(), text, "{name}");
            }
        }
    }

    /// Modules may be written as lists; the path was set by index, which panics there.
    #[test]
    fn modules_json_of_lists_is_rejected() {
        let (from, to) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        fs::write(from.path().join(MODULES_FILE), r#"[["sentence_transformers.models.Transformer", "0"]]"#).unwrap();
        let error = copy_modules(&Layout::of(from.path()).unwrap(), to.path()).unwrap_err().to_string();
        assert!(error.contains(MODULES_FILE) && error.contains("the first entry is not an object"), "{error}");
    }
}
