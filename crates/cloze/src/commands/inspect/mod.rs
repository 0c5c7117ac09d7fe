//! `cloze inspect`: shows the contents of files and folders.

mod arguments;
mod examples;
mod model;
mod recipe;
mod run_folder;
mod shards;
mod tokenizer;
mod vocabulary;

use std::path::Path;

use anyhow::{Result, bail};
use cloze_model::layout::MODULES_FILE;
use cloze_text::Tokenizer;
use cloze_train::recipe::shipped;

use crate::terminal::Terminal;
pub use arguments::Arguments;

/// The kind of a path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Model,
    Run,
    Vocabulary,
    Shards,
    Shard,
    Recipe,
}

pub fn run(arguments: &Arguments, terminal: &Terminal) -> Result<()> {
    // A recipe's name is not looked up on the Hub.
    let named = match is_recipe(&arguments.path) {
        true => None,
        false => arguments.hub.find_if_named(&arguments.path, terminal)?,
    };
    let path = named.as_deref().unwrap_or(&arguments.path);
    let kind = detect(path)?;
    if arguments.write_batches.is_some() && kind != Kind::Recipe {
        bail!("--write-batches needs a recipe; {} is not one", path.display());
    }
    if !arguments.overrides.is_empty() && kind != Kind::Recipe {
        bail!("--set needs a recipe; {} is not one", path.display());
    }
    match kind {
        Kind::Model => model::show(path, arguments, terminal),
        Kind::Run => run_folder::show(path, arguments, terminal),
        Kind::Vocabulary => vocabulary::show(path, arguments, terminal),
        Kind::Shards => shards::show_folder(path, arguments, terminal),
        Kind::Shard => shards::show_file(path, arguments, terminal),
        Kind::Recipe => recipe::show(path, arguments, terminal),
    }
}

/// Whether this is the name of a built-in recipe.
fn is_recipe(path: &Path) -> bool {
    !path.exists() && shipped().iter().any(|recipe| path == Path::new(&recipe.name))
}

fn detect(path: &Path) -> Result<Kind> {
    if path.is_dir() {
        let has = |name: &str| path.join(name).exists();
        return Ok(match () {
            () if has("manifest.json") => Kind::Shards,
            () if has("config.json") || has(MODULES_FILE) => Kind::Model,
            () if has("metrics.jsonl") || has("recipe.toml") => Kind::Run,
            () if Tokenizer::is_in(path) => Kind::Vocabulary,
            () => bail!(
                "{}: unknown kind of folder; expected a model (config.json), a run (metrics.jsonl), a vocabulary \
                 (tokenizer.json or the files of its class) or shards (manifest.json)",
                path.display()
            ),
        });
    }
    if !path.exists() {
        if is_recipe(path) {
            return Ok(Kind::Recipe);
        }
        bail!("{}: no such file or folder, and no built-in recipe with this name", path.display());
    }
    let name = path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
    let extension = path.extension().map(|extension| extension.to_string_lossy().into_owned()).unwrap_or_default();
    Ok(match (name.as_str(), extension.as_str()) {
        ("manifest.json", _) => bail!("{}: give the folder of the shards", path.display()),
        ("config.json", _) | (_, "safetensors") => bail!("{}: give the model's folder", path.display()),
        (_, "toml") => Kind::Recipe,
        (_, "arrow") => Kind::Shard,
        ("tokenizer.json" | "vocab.json", _) | (_, "txt" | "model") => Kind::Vocabulary,
        _ => bail!(
            "{}: unknown kind of file; expected a folder, a recipe (.toml), a shard (.arrow) or a tokenizer \
             (tokenizer.json, vocab.txt, vocab.json or .model)",
            path.display()
        ),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kinds_are_detected_from_the_files() {
        let dir = tempfile::tempdir().unwrap();
        let make = |name: &str, files: &[&str]| {
            let folder = dir.path().join(name);
            std::fs::create_dir(&folder).unwrap();
            for file in files {
                std::fs::write(folder.join(file), "{}").unwrap();
            }
            folder
        };
        assert_eq!(detect(&make("a", &["manifest.json", "x.arrow"])).unwrap(), Kind::Shards);
        assert_eq!(detect(&make("b", &["config.json", "vocab.txt"])).unwrap(), Kind::Model);
        assert_eq!(
            detect(&make("old", &["modules.json"])).unwrap(),
            Kind::Model,
            "an old sentence-transformers folder"
        );
        assert_eq!(detect(&make("c", &["recipe.toml"])).unwrap(), Kind::Run);
        assert_eq!(detect(&make("d", &["vocab.txt"])).unwrap(), Kind::Vocabulary);
        assert_eq!(detect(&dir.path().join("a/x.arrow")).unwrap(), Kind::Shard);
        assert_eq!(detect(Path::new("mini-paper")).unwrap(), Kind::Recipe);
        assert_eq!(detect(&dir.path().join("c/recipe.toml")).unwrap(), Kind::Recipe);
        for unknown in
            [make("e", &["x"]), dir.path().join("e/x"), dir.path().join("absent"), dir.path().join("b/config.json")]
        {
            assert!(detect(&unknown).is_err(), "{}", unknown.display());
        }
    }
}
