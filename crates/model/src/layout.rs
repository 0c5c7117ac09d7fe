//! Where the parts of a model folder are: the one place that knows Transformers' layout and sentence-transformers'.
//!
//! Transformers' folders hold the model itself. A sentence-transformers folder has a `modules.json`: a list of modules with a folder
//! each. The first is the model; its folder is the top one since version 2, and `0_Transformer` before.

use std::fs;
use std::path::{Component, Path, PathBuf};

use serde::Deserialize;

use crate::error::ModelError;

/// The list of modules of a sentence-transformers folder.
pub const MODULES_FILE: &str = "modules.json";

/// What the names of sentence-transformers' own classes start with. Others are Python code that comes with the model.
const PACKAGE: &str = "sentence_transformers.";

/// A folder with a model, in either layout.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Layout {
    /// The folder with modules.json; without that file, the model's.
    pub root: PathBuf,
    /// The folder with config.json, weights and tokenizer.
    pub model: PathBuf,
    /// The modules in their order, the model among them; empty without modules.json.
    pub modules: Vec<ModuleEntry>,
}

/// A line of modules.json.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct ModuleEntry {
    /// Its Python class with the package, such as `sentence_transformers.models.Pooling`.
    #[serde(rename = "type")]
    pub kind: String,
    /// Its folder within the root; may be empty.
    pub path: String,
}

impl ModuleEntry {
    /// The name of its class if that is one of sentence-transformers' own. Packages move from version to version, the class keeps its
    /// name.
    pub fn class(&self) -> Option<&str> {
        self.kind.strip_prefix(PACKAGE).map(|rest| rest.rsplit('.').next().unwrap_or(rest))
    }
}

impl Layout {
    /// The layout of the folder `dir`.
    ///
    /// # Errors
    /// [`ModelError::Read`]. [`ModelError::Json`] and [`ModelError::Config`] for a modules.json that is not a list of modules, or whose
    /// paths lead out of the folder.
    pub fn of(dir: &Path) -> Result<Layout, ModelError> {
        let path = dir.join(MODULES_FILE);
        let text = match fs::read(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                return Ok(Layout { root: dir.to_owned(), model: dir.to_owned(), modules: Vec::new() });
            }
            Err(source) => return Err(ModelError::Read { path, source }),
        };
        let wrong = |problem: String| ModelError::Config { path: Some(path.clone()), problem };
        let modules: Vec<ModuleEntry> =
            serde_json::from_slice(&text).map_err(|source| ModelError::Json { path: path.clone(), source })?;
        let Some(first) = modules.first() else {
            return Err(wrong("an empty list: expected a list of modules, the first a Transformer".to_owned()));
        };
        let inside = |path: &str| {
            Path::new(path).components().all(|part| matches!(part, Component::Normal(_) | Component::CurDir))
        };
        if let Some(outside) = modules.iter().find(|module| !inside(&module.path)) {
            return Err(wrong(format!("the module path {:?} leads out of the folder", outside.path)));
        }
        let model = match first.path.as_str() {
            "" => dir.to_owned(),
            path => dir.join(path),
        };
        Ok(Layout { root: dir.to_owned(), model, modules })
    }

    /// The sentence-transformers folder above `dir` whose model is in `dir`; none if there is no such folder.
    pub fn above(dir: &Path) -> Option<Layout> {
        let model = fs::canonicalize(dir).ok()?;
        let layout = Layout::of(model.parent()?).ok()?;
        let is_its_model = !layout.modules.is_empty() && fs::canonicalize(&layout.model).ok()? == model;
        is_its_model.then_some(layout)
    }

    /// The folder of a module.
    pub fn folder_of(&self, module: &ModuleEntry) -> PathBuf {
        self.root.join(&module.path)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn folder(modules: &str) -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join(MODULES_FILE), modules).unwrap();
        dir
    }

    #[test]
    fn r12_the_model_is_found_in_both_layouts_and_from_both_folders() {
        let plain = tempfile::tempdir().unwrap();
        let layout = Layout::of(plain.path()).unwrap();
        assert_eq!((layout.model.as_path(), layout.modules.len()), (plain.path(), 0));
        assert_eq!(Layout::above(plain.path()), None);

        let dir = folder(
            r#"[{"idx": 0, "name": "0", "path": "0_Transformer", "type": "sentence_transformers.models.Transformer"},
                {"path": "1_Pooling", "type": "sentence_transformers.sentence_transformer.modules.pooling.Pooling"},
                {"path": "2", "type": "custom.Pooling"}]"#,
        );
        let model = dir.path().join("0_Transformer");
        fs::create_dir_all(dir.path().join("1_Pooling")).unwrap();
        fs::create_dir(&model).unwrap();
        let layout = Layout::of(dir.path()).unwrap();
        assert_eq!((&layout.model, layout.root.as_path()), (&model, dir.path()));
        let classes: Vec<_> = layout.modules.iter().map(ModuleEntry::class).collect();
        assert_eq!(classes, [Some("Transformer"), Some("Pooling"), None]);
        let above = Layout::above(&model).unwrap();
        assert_eq!((above.modules.len(), above.model), (3, fs::canonicalize(&model).unwrap()));
        assert_eq!(Layout::above(&dir.path().join("1_Pooling")), None, "no model of the folder above");
    }

    #[test]
    fn a_modules_file_that_is_none_says_why() {
        let fails = |text: &str| Layout::of(folder(text).path()).unwrap_err().to_string();
        for path in ["../x", "/etc", "a/../../b"] {
            let line = fails(&format!(r#"[{{"type": "t", "path": {path:?}}}]"#));
            assert!(line.contains("modules.json") && line.contains("leads out of the folder"), "{line}");
        }
        assert!(fails("[]").contains("an empty list"));
        assert!(fails("{}").contains("modules.json: invalid type: map, expected a sequence"));
        assert!(fails(r#"[{"type": 1}]"#).contains("line 1"));
    }
}
