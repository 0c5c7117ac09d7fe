//! The layout of model folders: the only place that knows those of Transformers and of sentence-transformers.
//!
//! A Transformers folder contains the model itself. A sentence-transformers folder has a `modules.json`: a list of
//! modules with one folder each. The first is the model. Its folder is the top-level one since version 2, and
//! `0_Transformer` before.

use std::fs;
use std::path::{Component, Path, PathBuf};

use serde::Deserialize;

use crate::error::ModelError;

/// The list of modules of a sentence-transformers folder.
pub const MODULES_FILE: &str = "modules.json";

/// Prefix of the names of sentence-transformers' own classes. Other classes are Python code that comes with the model.
const PACKAGE: &str = "sentence_transformers.";

/// A folder with a model, in either layout.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Layout {
    /// The folder with modules.json; without that file, the model's folder.
    pub root: PathBuf,
    /// The folder with config, weights and tokenizer.
    pub model: PathBuf,
    /// The modules in order, including the model; empty without modules.json.
    pub modules: Vec<ModuleEntry>,
}

/// An entry of modules.json.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct ModuleEntry {
    /// The Python class with its package, such as `sentence_transformers.models.Pooling`.
    #[serde(rename = "type")]
    pub kind: String,
    /// The module's folder, relative to the root; may be empty.
    pub path: String,
}

impl ModuleEntry {
    /// The class name, if the class is one of sentence-transformers' own. Packages differ between versions, but class
    /// names do not.
    pub fn class(&self) -> Option<&str> {
        self.kind.strip_prefix(PACKAGE).map(|rest| rest.rsplit('.').next().unwrap_or(rest))
    }
}

impl Layout {
    /// Detects the layout of the folder `dir`.
    ///
    /// # Errors
    /// [`ModelError::Read`]. [`ModelError::Json`] and [`ModelError::Config`] for a modules.json that is not a list of
    /// modules, or whose paths are outside of the folder.
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
            return Err(wrong(
                "expected a list of modules that starts with a Transformer, found an empty list".to_owned(),
            ));
        };
        let inside = |path: &str| {
            Path::new(path).components().all(|part| matches!(part, Component::Normal(_) | Component::CurDir))
        };
        if let Some(outside) = modules.iter().find(|module| !inside(&module.path)) {
            return Err(wrong(format!("the module path {:?} is outside of the folder", outside.path)));
        }
        let model = match first.path.as_str() {
            "" => dir.to_owned(),
            path => dir.join(path),
        };
        Ok(Layout { root: dir.to_owned(), model, modules })
    }

    /// The sentence-transformers folder above `dir` that has its model in `dir`; `None` if there is none.
    pub fn above(dir: &Path) -> Option<Layout> {
        let model = fs::canonicalize(dir).ok()?;
        let layout = Layout::of(model.parent()?).ok()?;
        let has_this_model = !layout.modules.is_empty() && fs::canonicalize(&layout.model).ok()? == model;
        has_this_model.then_some(layout)
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
    fn the_model_is_found_in_both_layouts_and_from_either_folder() {
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
        assert_eq!(Layout::above(&dir.path().join("1_Pooling")), None, "not the model's folder");
    }

    #[test]
    fn an_invalid_modules_file_is_explained() {
        let fails = |text: &str| Layout::of(folder(text).path()).unwrap_err().to_string();
        for path in ["../x", "/etc", "a/../../b"] {
            let line = fails(&format!(r#"[{{"type": "t", "path": {path:?}}}]"#));
            assert!(line.contains("modules.json") && line.contains("is outside of the folder"), "{line}");
        }
        assert!(fails("[]").contains("found an empty list"));
        assert!(fails("{}").contains("modules.json: invalid type: map, expected a sequence"));
        assert!(fails(r#"[{"type": 1}]"#).contains("line 1"));
    }
}
