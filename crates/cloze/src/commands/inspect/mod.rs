//! `cloze inspect`: what a path holds.

mod examples;
mod model;
mod recipe;
mod run_folder;
mod shards;
mod vocabulary;

use std::ops::Range;
use std::path::{Path, PathBuf};

use anyhow::{Result, bail};
use cloze_train::recipe::shipped;

use super::model::HubArguments;
use crate::terminal::Terminal;

/// `cloze inspect PATH`
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  cloze inspect runs/mini/model\n  cloze inspect shards --examples 5\n  \
        cloze inspect mini",
    after_long_help = "PATH may be a model folder or checkpoint (its sizes and parameter table), a run's folder, a \
        vocabulary (folder, vocab.txt or tokenizer.json), a folder of shards or one .arrow shard (its counts, its corpus \
        report and examples as a model would see them), or a recipe, by its file or by its name (its model, its phases, and \
        examples where its shards lie).\n\nIn the examples, segment A and segment B have a colour each; `[MASK]→walk` is a token to be predicted, \
        `cat→walk` one replaced by a random token, `walk=` one kept as it is.\n\n\
        Examples:\n  cloze inspect runs/mini/model --json | jq .name\n  cloze inspect shards --examples 5\n  \
        cloze inspect mini --set data=shards\n  \
        cloze inspect mini --set data=shards --write-batches batches.arrow --steps 0..100"
)]
pub struct Arguments {
    /// What to look at: a file, a folder, or a model's name on the Hugging Face Hub
    #[arg(value_name = "PATH|NAME")]
    path: PathBuf,

    #[command(flatten)]
    hub: HubArguments,

    /// Decoded examples to show, from shards and recipes
    #[arg(long, default_value_t = 3, value_name = "N")]
    examples: usize,

    /// Override a recipe's key, as in `cloze pretrain`; may be repeated
    #[arg(long = "set", value_name = "KEY=VALUE")]
    overrides: Vec<String>,

    /// Write the batches of a recipe's first phase as an Arrow IPC file, so that another trainer can train on the same
    #[arg(long, value_name = "FILE", requires = "steps")]
    write_batches: Option<PathBuf>,

    /// Which steps to write: A..B, from 0, B excluded
    #[arg(long, value_name = "A..B", value_parser = steps, requires = "write_batches")]
    steps: Option<Range<u64>>,

    /// Print JSON, one object a line
    #[arg(long)]
    json: bool,
}

fn steps(text: &str) -> Result<Range<u64>, String> {
    let bad = || "must be A..B with A below B, such as 0..100".to_string();
    let (from, to) = text.split_once("..").ok_or_else(bad)?;
    let range = from.trim().parse().map_err(|_| bad())?..to.trim().parse().map_err(|_| bad())?;
    if range.is_empty() { Err(bad()) } else { Ok(range) }
}

/// What a path turned out to be.
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
    // The name of a recipe is not the name of a model.
    let named = match is_recipe(&arguments.path) {
        true => None,
        false => arguments.hub.find_if_named(&arguments.path, terminal)?,
    };
    let path = named.as_deref().unwrap_or(&arguments.path);
    let kind = detect(path)?;
    if arguments.write_batches.is_some() && kind != Kind::Recipe {
        bail!("--write-batches needs a recipe; {} is none", path.display());
    }
    if !arguments.overrides.is_empty() && kind != Kind::Recipe {
        bail!("--set needs a recipe; {} is none", path.display());
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

/// Whether this names a recipe that is built in.
fn is_recipe(path: &Path) -> bool {
    !path.exists() && shipped().iter().any(|recipe| path == Path::new(&recipe.name))
}

fn detect(path: &Path) -> Result<Kind> {
    if path.is_dir() {
        let has = |name: &str| path.join(name).exists();
        return Ok(match () {
            () if has("manifest.json") => Kind::Shards,
            () if has("config.json") => Kind::Model,
            () if has("metrics.jsonl") || has("recipe.toml") => Kind::Run,
            () if has("tokenizer.json") || has("vocab.txt") => Kind::Vocabulary,
            () => bail!(
                "{}: nothing known in this folder; expected a model (config.json), a run (metrics.jsonl), a vocabulary \
                 (tokenizer.json or vocab.txt) or shards (manifest.json)",
                path.display()
            ),
        });
    }
    if !path.exists() {
        if is_recipe(path) {
            return Ok(Kind::Recipe);
        }
        bail!("{}: no such file or folder, and no recipe of this name is built in", path.display());
    }
    let name = path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
    let extension = path.extension().map(|extension| extension.to_string_lossy().into_owned()).unwrap_or_default();
    Ok(match (name.as_str(), extension.as_str()) {
        ("manifest.json", _) => bail!("{}: give its folder", path.display()),
        ("config.json", _) | (_, "safetensors") => bail!("{}: give the model's folder", path.display()),
        (_, "toml") => Kind::Recipe,
        (_, "arrow") => Kind::Shard,
        ("tokenizer.json", _) | (_, "txt") => Kind::Vocabulary,
        _ => bail!(
            "{}: nothing known; expected a folder, a recipe (.toml), a shard (.arrow), vocab.txt or tokenizer.json",
            path.display()
        ),
    })
}

/// The bytes of all files below a folder.
fn folder_bytes(dir: &Path) -> u64 {
    let Ok(entries) = std::fs::read_dir(dir) else { return 0 };
    entries
        .flatten()
        .map(|entry| match entry.metadata() {
            Ok(meta) if meta.is_dir() => folder_bytes(&entry.path()),
            Ok(meta) => meta.len(),
            Err(_) => 0,
        })
        .sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn step_ranges_are_checked() {
        assert_eq!(steps("0..100"), Ok(0..100));
        for bad in ["5", "5..5", "9..3", "a..b", "-1..3", ".."] {
            assert!(steps(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn kinds_are_told_apart_by_what_lies_in_the_folder() {
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
