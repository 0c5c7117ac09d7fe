//! A folder of models that a running server may load by their names, as Triton's model repository.

use std::path::{Component, Path, PathBuf};

use cloze_model::Layout;

use super::served::Opening;
use crate::failure::{Failure, Reason};

/// A folder whose sub-folders are models, or folders of an organization with its models.
#[derive(Debug, Clone, PartialEq)]
pub struct Repository {
    /// The folder.
    pub dir: PathBuf,
    /// How its models are opened.
    pub opening: Opening,
}

impl Repository {
    /// The folder of a model: a sub-folder, or one below it, as in `organization/name`. Nothing outside of the repository is found.
    ///
    /// # Errors
    /// [`Reason::Validation`] for a name that is not a path below the repository; [`Reason::UnknownModel`] if there is no model.
    pub fn find(&self, name: &str) -> Result<PathBuf, Failure> {
        let path = Path::new(name);
        let is_below = path.components().all(|part| matches!(part, Component::Normal(_)));
        if !is_below || !(1..=2).contains(&path.components().count()) || name.contains(['\\', '\0']) {
            let message = format!(
                "expected the name of a folder in the repository, as in name or organization/name, found {name:?}"
            );
            return Err(Failure::validation(message));
        }
        model_of(&self.dir.join(path)).ok_or_else(|| {
            let names = self.names();
            let found = if names.is_empty() { "no model".to_owned() } else { names.join(", ") };
            Failure::new(
                Reason::UnknownModel,
                format!("the model {name:?} is not in the repository, which has {found}"),
            )
        })
    }

    /// The names of all models in it, sorted.
    pub fn names(&self) -> Vec<String> {
        let mut found = Vec::new();
        for (name, dir) in folders(&self.dir) {
            if model_of(&dir).is_some() {
                found.push(name);
                continue;
            }
            let below = folders(&dir).into_iter().filter(|(_, dir)| model_of(dir).is_some());
            found.extend(below.map(|(model, _)| format!("{name}/{model}")));
        }
        found.sort();
        found
    }
}

/// The sub-folders of a folder with their names; hidden ones and names that are not Unicode are left out.
fn folders(dir: &Path) -> Vec<(String, PathBuf)> {
    let entries = std::fs::read_dir(dir).into_iter().flatten().flatten();
    let named = entries.filter_map(|entry| Some((entry.file_name().into_string().ok()?, entry.path())));
    named.filter(|(name, path)| !name.starts_with('.') && path.is_dir()).collect()
}

/// The folder of the model in a folder: a model, a sentence-transformers folder, or a run with a model.
fn model_of(dir: &Path) -> Option<PathBuf> {
    let has_model = |dir: &PathBuf| {
        dir.join("config.json").is_file()
            || Layout::of(dir).is_ok_and(|layout| layout.model.join("config.json").is_file())
    };
    [dir.to_owned(), dir.join("model")].into_iter().find(has_model)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn models_are_found_below_the_repository_only() {
        let dir = tempfile::tempdir().unwrap();
        let add = |path: &str| {
            std::fs::create_dir_all(dir.path().join("r").join(path)).unwrap();
            std::fs::write(dir.path().join("r").join(path).join("config.json"), "{}").unwrap();
        };
        ["plain", "run/model", "org/name", ".hidden", "../outside"].into_iter().for_each(add);
        std::fs::create_dir(dir.path().join("r/empty")).unwrap();
        let repository = Repository { dir: dir.path().join("r"), opening: Opening::default() };
        assert_eq!(repository.names(), ["org/name", "plain", "run"]);
        assert_eq!(repository.find("run").unwrap(), dir.path().join("r/run/model"));
        assert_eq!(repository.find("org/name").unwrap(), dir.path().join("r/org/name"));
        for name in ["none", "empty", "org"] {
            let failure = repository.find(name).unwrap_err();
            assert!(failure.reason == Reason::UnknownModel && failure.message.contains("org/name, plain, run"));
        }
        let outside = dir.path().join("outside").display().to_string();
        for name in ["../outside", "plain/../../outside", &outside, "", ".", "a/b/c", "a\\b"] {
            assert_eq!(repository.find(name).unwrap_err().reason, Reason::Validation, "{name}");
        }
    }
}
