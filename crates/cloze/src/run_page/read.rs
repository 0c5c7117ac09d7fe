//! From folders to what they say.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use cloze_data::report::CorpusReport;
use cloze_tasks::finetune::Best;
use serde::Deserialize;
use serde_json::Value;

use super::model::{Group, Kind, Run, Settings, Subject};

const METRICS: &str = "metrics.jsonl";
const RECIPE: &str = "recipe.toml";
const FINETUNE: &str = "finetune.toml";
const RESULTS: &str = "results.json";
/// Folder names that say nothing without the folder that they are in.
const GENERIC: [&str; 6] = ["run", "out", "output", "results", "pretrain", "finetune"];

/// Reads the folders of runs, of one kind if there are several.
///
/// # Errors
/// A folder that holds no run, or none with a step; runs of different kinds.
pub fn open_all(dirs: &[PathBuf]) -> Result<Vec<Subject>> {
    let subjects = dirs.iter().zip(names(dirs)?).map(|(dir, name)| open(dir, name)).collect::<Result<Vec<_>>>()?;
    if let Some(pair) = subjects.windows(2).find(|pair| pair[0].kind() != pair[1].kind()) {
        let said = |subject: &Subject| format!("{} is a {} run", subject.dir().display(), subject.kind().name());
        bail!(
            "{}, {}: their losses and scores have nothing in common; compare runs of one kind",
            said(&pair[0]),
            said(&pair[1])
        );
    }
    Ok(subjects)
}

/// Reads a run that trains, or several fine-tunings in one folder.
fn open(dir: &Path, name: String) -> Result<Subject> {
    if dir.join(RESULTS).is_file() {
        return Ok(Subject::Group(group(dir, name)?));
    }
    let run = run(dir, name)?;
    if run.records().next().is_none() {
        bail!("{}: {METRICS} holds no training step and no evaluation yet", dir.display());
    }
    Ok(Subject::Run(Box::new(run)))
}

/// Reads one run's folder, whether or not it has made a step.
///
/// # Errors
/// A folder that is none.
pub fn run(dir: &Path, name: String) -> Result<Run> {
    let at = dir.display();
    let metrics = dir.join(METRICS);
    if !metrics.is_file() {
        let is_run = |dir: &Path| dir.join(METRICS).is_file() || dir.join(RESULTS).is_file();
        let near = [dir.join("run"), dir.join("..")].into_iter().find(|near| is_run(near));
        if let Some(near) = near {
            let near = if near.ends_with("..") { above(dir) } else { near };
            bail!("{at}: no run (no {METRICS}); did you mean {}?", near.display());
        }
        match dir.symlink_metadata() {
            Err(error) => bail!("{at}: {error}; expected the folder of a run"),
            Ok(_) if !dir.is_dir() => bail!("{at}: is a file; expected the folder of a run"),
            Ok(_) => bail!(
                "{at}: no run (no {METRICS}, no {RESULTS}); expected the --out of `cloze pretrain`, `cloze finetune` or \
                 `cloze sweep`"
            ),
        }
    }
    let kind = if dir.join(FINETUNE).is_file() { Kind::FineTuneConfig } else { Kind::PreTraining };
    let mut run = Run::new(name, dir, kind);
    let bytes = fs::read(&metrics).with_context(|| format!("cannot read {}", metrics.display()))?;
    run.read_metrics(&String::from_utf8_lossy(&bytes));
    let text = |name: &str| fs::read_to_string(dir.join(name)).unwrap_or_default();
    match kind {
        Kind::PreTraining => {
            run.settings = Settings::new(text(RECIPE));
            read_shards(&mut run);
        }
        Kind::FineTuneConfig => {
            run.settings = Settings::new(text(FINETUNE));
            // A run that has not ended has no scores, one of an early version no data.json: the page shows what there is.
            if let Ok(data) = serde_json::from_str::<Value>(&text("data.json")) {
                run.reading = data["remember"].as_object().cloned().unwrap_or_default();
                run.rows = data["rows"].as_str().map(str::to_owned);
            }
            if let Ok(scores) = serde_json::from_str::<Value>(&text("scores.json")) {
                run.best = serde_json::from_value(scores["best"].clone()).ok();
            }
        }
    }
    Ok(run)
}

/// The folder that a folder is in, as people write it: "." is the one that a bare name is in.
fn above(dir: &Path) -> PathBuf {
    match dir.parent() {
        Some(parent) if dir.file_name().is_some() && parent.as_os_str().is_empty() => PathBuf::from("."),
        Some(parent) if dir.file_name().is_some() => parent.to_owned(),
        _ if dir == Path::new(".") => PathBuf::from(".."),
        _ => dir.join(".."),
    }
}

/// The corpus report of the shards that a run's recipe names, if they are still there.
fn read_shards(run: &mut Run) {
    let Some(named) = run.settings.get("data") else { return };
    let places = [PathBuf::from(named), run.dir.join(named)];
    let Some(text) = places.iter().find_map(|place| fs::read_to_string(place.join("manifest.json")).ok()) else {
        return;
    };
    let Ok(manifest) = serde_json::from_str::<Value>(&text) else { return };
    run.corpus = serde_json::from_value::<CorpusReport>(manifest["report"].clone()).ok();
    run.tokenizer = manifest["tokenizer"]["fingerprint"].as_str().map(str::to_owned);
}

/// What became of one of several fine-tunings.
#[derive(Deserialize)]
struct Done {
    name: String,
    best: Option<Best>,
    failed: Option<String>,
}

fn group(dir: &Path, name: String) -> Result<Group> {
    let path = dir.join(RESULTS);
    let text = fs::read(&path).with_context(|| format!("cannot read {}", path.display()))?;
    let done: Vec<Done> = serde_json::from_slice(&text).with_context(|| format!("{} is damaged", path.display()))?;
    let mut runs = Vec::new();
    for Done { name, best, failed } in done {
        let folder = dir.join(&name);
        // Its folder may have been removed to save room: the results stay.
        let mut run = run(&folder, name.clone()).unwrap_or_else(|_| Run::new(name, &folder, Kind::FineTuneConfig));
        run.best = best;
        run.failed = failed;
        runs.push(run);
    }
    // Runs that are not over are not in the results yet.
    let entries = fs::read_dir(dir).with_context(|| format!("cannot read {}", dir.display()))?;
    let mut others: Vec<PathBuf> = entries.flatten().map(|entry| entry.path()).collect();
    others.retain(|path| path.join(METRICS).is_file() && runs.iter().all(|run| run.dir != *path));
    others.sort();
    for path in others {
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        runs.push(Run { unfinished: true, ..run(&path, name)? });
    }
    if runs.iter().all(|run| run.records().next().is_none() && run.best.is_none()) {
        bail!("{}: no run has come to an evaluation yet", dir.display());
    }
    Ok(Group { name, dir: dir.to_owned(), runs })
}

/// What folders are called: by their own name, with as many of the folders that they are in as tells them apart.
fn names(dirs: &[PathBuf]) -> Result<Vec<String>> {
    let parts: Vec<Vec<String>> = dirs
        .iter()
        .map(|dir| {
            let full = fs::canonicalize(dir).or_else(|_| std::path::absolute(dir)).unwrap_or_else(|_| dir.clone());
            let parts = full.components().filter_map(|part| match part {
                std::path::Component::Normal(name) => Some(name.to_string_lossy().into_owned()),
                _ => None,
            });
            parts.collect()
        })
        .collect();
    for (number, dir) in dirs.iter().enumerate() {
        if parts[..number].contains(&parts[number]) {
            bail!("{} is given twice", dir.display());
        }
    }
    let name = |of: &[String], depth: usize| of[of.len().saturating_sub(depth)..].join("/");
    let shortest = |of: &Vec<String>| {
        let generic = of.last().is_some_and(|last| GENERIC.contains(&last.as_str()));
        let first = if generic { 2 } else { 1 };
        let tells = |depth: &usize| parts.iter().filter(|other| name(other, *depth) == name(of, *depth)).count() == 1;
        name(of, (first..=of.len()).find(tells).unwrap_or(first))
    };
    Ok(parts.iter().map(shortest).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn named(dirs: &[&str]) -> Vec<String> {
        names(&dirs.iter().map(PathBuf::from).collect::<Vec<_>>()).unwrap()
    }

    #[test]
    fn the_folder_above_always_has_a_name() {
        let found =
            ["model", "model/", "runs/mini/model", "/model", ".", "..", "a/.."].map(|dir| above(Path::new(dir)));
        assert_eq!(found, [".", ".", "runs/mini", "/", "..", "../..", "a/../.."].map(PathBuf::from));
    }

    #[test]
    fn names_tell_folders_apart() {
        assert_eq!(named(&["/none/runs/mini"]), ["mini"]);
        assert_eq!(named(&["/none/cloze-quickstart/run"]), ["cloze-quickstart/run"]);
        assert_eq!(named(&["/none/a/mini", "/none/b/mini", "/none/b/tiny"]), ["a/mini", "b/mini", "tiny"]);
        assert!(names(&["/none/a".into(), "/none/a".into()]).unwrap_err().to_string().contains("twice"));
    }
}
