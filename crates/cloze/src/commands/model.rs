//! Which folder `--model` means: a model's folder, the model of a run's folder, or a model named on the Hugging Face Hub.

use std::path::{Path, PathBuf};

use anyhow::{Result, bail};
use cloze_train::checkpoint;
use cloze_train::run::RunFolder;

use crate::terminal::Terminal;

/// Entries of a folder that an error names.
const SHOWN: usize = 5;

/// The model of a command that needs one.
#[derive(Debug, Clone, clap::Args)]
pub struct ModelArguments {
    /// Model folder, checkpoint or run folder
    #[arg(long = "model", value_name = "DIR")]
    pub named: PathBuf,
}

impl ModelArguments {
    /// The folder of the model; says on standard error what was chosen where there was a choice.
    pub fn find(&self, terminal: &Terminal) -> Result<PathBuf> {
        find(&self.named, terminal)
    }
}

/// The folder of the model that `named` means.
pub fn find(named: &Path, terminal: &Terminal) -> Result<PathBuf> {
    match named.exists() {
        true => Ok(in_folder(named)?.tell(terminal)),
        false => bail!(
            "{}: no such folder; expected a model's folder (config.json, model.safetensors) or a run's folder",
            named.display()
        ),
    }
}

/// The folder, file or prefix that `cloze convert` is to read: what it reads itself, or the model of a run's folder.
pub fn find_source(named: &Path, terminal: &Terminal) -> Result<PathBuf> {
    match in_folder(named) {
        Ok(found) => Ok(found.tell(terminal)),
        // Other programs' folders are what convert is for, and it knows best what is wrong with one.
        Err(_) => Ok(named.to_owned()),
    }
}

/// A model's folder, and why it was taken where that needs a word.
#[derive(Debug, PartialEq)]
struct Found {
    folder: PathBuf,
    note: Option<String>,
}

impl Found {
    fn tell(self, terminal: &Terminal) -> PathBuf {
        if let Some(note) = &self.note {
            terminal.note(note);
        }
        self.folder
    }
}

/// Whether a folder is taken for a model's as it is. Old sentence-transformers folders keep config.json in a folder of the
/// model's own.
fn is_model(folder: &Path) -> bool {
    ["config.json", "modules.json"].iter().any(|name| folder.join(name).is_file())
}

/// The model of an existing folder: itself, or what a run has.
fn in_folder(folder: &Path) -> Result<Found> {
    if is_model(folder) {
        return Ok(Found { folder: folder.to_owned(), note: None });
    }
    if folder.is_file() {
        bail!("{}: expected a folder, found a file; give the folder that the model's files lie in", folder.display());
    }
    let run = RunFolder::new(folder);
    let chosen = |model: PathBuf, what: &str| {
        let note = format!("model: {} ({what})", model.display());
        Ok(Found { folder: model, note: Some(note) })
    };
    if is_model(&run.model()) {
        return chosen(run.model(), "the run's model");
    }
    if let Some(best) = checkpoint::best(&run).filter(|best| is_model(best)) {
        return chosen(best, "the run's best checkpoint; it has no model/ yet");
    }
    if let Some((_, newest)) = checkpoint::list(&run)?.pop() {
        return chosen(newest, "the run's newest checkpoint; it has no model/ yet");
    }
    let entries = entries(folder)?;
    let is_run = ["recipe.toml", "finetune.toml", "results.json", "metrics.jsonl", "checkpoints"]
        .iter()
        .any(|name| entries.iter().any(|entry| entry == name));
    let found = listed(&entries);
    if is_run {
        bail!(
            "{}: this run has no model yet: no model/, no best, no checkpoint in checkpoints/ (found {found}); go on with it \
             by --resume until it has saved one",
            folder.display()
        );
    }
    bail!(
        "{}: no model folder: expected config.json and model.safetensors, or a run's model/ or checkpoints/; found {found}",
        folder.display()
    )
}

/// Names in a folder, sorted, those that start with a dot left out.
fn entries(folder: &Path) -> Result<Vec<String>> {
    let read = || -> std::io::Result<Vec<String>> {
        std::fs::read_dir(folder)?.map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned())).collect()
    };
    let mut names = match read() {
        Ok(names) => names,
        Err(error) => bail!("cannot read {}: {error}", folder.display()),
    };
    names.retain(|name| !name.starts_with('.'));
    names.sort();
    Ok(names)
}

/// The first of some names, and how many there are beside.
fn listed(names: &[String]) -> String {
    match names {
        [] => "nothing".to_owned(),
        _ if names.len() > SHOWN => format!("{} and {} more", names[..SHOWN].join(", "), names.len() - SHOWN),
        _ => names.join(", "),
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    fn write(path: &Path) {
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, "{}").unwrap();
    }

    #[test]
    fn a_run_gives_its_model_else_its_best_else_its_newest_checkpoint() {
        let dir = tempfile::tempdir().unwrap();
        let run = dir.path();
        let found = || in_folder(run).unwrap();
        write(&run.join("recipe.toml"));
        let error = in_folder(run).unwrap_err().to_string();
        assert!(error.contains("no model yet") && error.contains("recipe.toml"), "{error}");
        fs::create_dir(run.join("checkpoints")).unwrap();
        assert!(in_folder(run).is_err());

        for step in [9, 10] {
            write(&run.join(format!("checkpoints/step-{step:08}/config.json")));
        }
        // Saved only half.
        write(&run.join("checkpoints/.step-00000011.partial/config.json"));
        assert_eq!(found().folder, run.join("checkpoints/step-00000010"));
        assert!(found().note.unwrap().contains("newest checkpoint"));

        checkpoint::mark_best(&RunFolder::new(run), 9).unwrap();
        assert_eq!(
            fs::canonicalize(found().folder).unwrap(),
            fs::canonicalize(run.join("checkpoints/step-00000009")).unwrap()
        );
        fs::remove_dir_all(run.join("checkpoints/step-00000009")).unwrap();
        assert_eq!(found().folder, run.join("checkpoints/step-00000010"), "a best that is gone is none");

        write(&run.join("model/config.json"));
        assert_eq!(found().folder, run.join("model"));
        assert!(found().note.unwrap().contains("the run's model"));
    }

    #[test]
    fn a_model_folder_is_taken_as_it_is_and_nothing_said() {
        let dir = tempfile::tempdir().unwrap();
        write(&dir.path().join("a/config.json"));
        write(&dir.path().join("a/model/config.json"));
        write(&dir.path().join("b/modules.json"));
        for name in ["a", "b"] {
            let folder = dir.path().join(name);
            assert_eq!(in_folder(&folder).unwrap(), Found { folder, note: None });
        }
    }

    #[test]
    fn other_folders_and_files_are_named_with_what_is_in_them() {
        let dir = tempfile::tempdir().unwrap();
        let error = |path: &Path| in_folder(path).unwrap_err().to_string();
        assert!(error(dir.path()).contains("found nothing"));
        (0..8).for_each(|number| write(&dir.path().join(format!("text-{number}.txt"))));
        let line = error(dir.path());
        assert!(line.contains("text-0.txt") && line.contains("and 3 more") && line.contains("config.json"), "{line}");
        assert!(error(&dir.path().join("text-0.txt")).contains("found a file"));
    }
}
