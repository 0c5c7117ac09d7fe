//! Reads run folders.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use cloze_data::report::CorpusReport;
use cloze_tasks::finetune::Best;
use serde::Deserialize;
use serde_json::Value;

use super::model::{Group, Kind, Run, Settings, Subject};

pub(super) const METRICS: &str = "metrics.jsonl";
const RECIPE: &str = "recipe.toml";
pub(super) const FINETUNE: &str = "finetune.toml";
const RESULTS: &str = "results.json";
/// Generic folder names, which are shown with the name of the parent folder.
const GENERIC: [&str; 6] = ["run", "out", "output", "results", "pretrain", "finetune"];

/// Reads the folders of runs. Several runs must be of one kind.
///
/// # Errors
/// A folder is not a run or has no step yet, or the runs are of different kinds.
pub fn open_all(dirs: &[PathBuf]) -> Result<Vec<Subject>> {
    let subjects = dirs.iter().zip(names(dirs)?).map(|(dir, name)| open(dir, name)).collect::<Result<Vec<_>>>()?;
    if let Some(pair) = subjects.windows(2).find(|pair| pair[0].kind() != pair[1].kind()) {
        let describe = |subject: &Subject| format!("{} is a {} run", subject.dir().display(), subject.kind().name());
        bail!(
            "{}, {}: their losses and scores cannot be compared; give runs of one kind",
            describe(&pair[0]),
            describe(&pair[1])
        );
    }
    Ok(subjects)
}

/// Reads one run with at least one record, or a folder with several fine-tunings.
fn open(dir: &Path, name: String) -> Result<Subject> {
    if dir.join(RESULTS).is_file() {
        return Ok(Subject::Group(group(dir, name)?));
    }
    let run = run(dir, name)?;
    if run.records().next().is_none() {
        bail!("{}: {METRICS} has no training step and no evaluation yet", dir.display());
    }
    Ok(Subject::Run(Box::new(run)))
}

/// Reads the folder of one run, which may have no step yet.
///
/// # Errors
/// The folder is not a run's.
pub fn run(dir: &Path, name: String) -> Result<Run> {
    let at = dir.display();
    let metrics = dir.join(METRICS);
    if !metrics.is_file() {
        let is_run = |dir: &Path| dir.join(METRICS).is_file() || dir.join(RESULTS).is_file();
        let nearby = [dir.join("run"), dir.join("..")].into_iter().find(|nearby| is_run(nearby));
        if let Some(nearby) = nearby {
            let nearby = if nearby.ends_with("..") { parent_of(dir) } else { nearby };
            bail!("{at}: not a run (no {METRICS}); did you mean {}?", nearby.display());
        }
        match dir.symlink_metadata() {
            Err(error) => bail!("{at}: {error}; expected the folder of a run"),
            Ok(_) if !dir.is_dir() => bail!("{at}: is a file; expected the folder of a run"),
            Ok(_) => bail!(
                "{at}: not a run (no {METRICS}, no {RESULTS}); expected the --out folder of `cloze pretrain`, `cloze finetune` or \
                 `cloze sweep`"
            ),
        }
    }
    let kind = if dir.join(FINETUNE).is_file() { Kind::FineTuning } else { Kind::PreTraining };
    let mut run = Run::new(name, dir, kind);
    let bytes = fs::read(&metrics).with_context(|| format!("cannot read {}", metrics.display()))?;
    run.read_metrics(&String::from_utf8_lossy(&bytes));
    let text = |name: &str| fs::read_to_string(dir.join(name)).unwrap_or_default();
    match kind {
        Kind::PreTraining => {
            run.settings = Settings::new(text(RECIPE));
            read_shards(&mut run);
        }
        Kind::FineTuning => {
            run.settings = Settings::new(text(FINETUNE));
            // An unfinished run has no scores.json, and an early version wrote no data.json. The page shows what
            // exists.
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

/// The parent of a folder, as a path that can be typed: "." for a bare name.
fn parent_of(dir: &Path) -> PathBuf {
    match dir.parent() {
        Some(parent) if dir.file_name().is_some() && parent.as_os_str().is_empty() => PathBuf::from("."),
        Some(parent) if dir.file_name().is_some() => parent.to_owned(),
        _ if dir == Path::new(".") => PathBuf::from(".."),
        _ => dir.join(".."),
    }
}

/// Reads the corpus report of the shards named in the run's recipe, if they still exist.
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

/// An entry of results.json: the result of one of several fine-tunings.
#[derive(Deserialize)]
struct RunResult {
    name: String,
    best: Option<Best>,
    failed: Option<String>,
}

fn group(dir: &Path, name: String) -> Result<Group> {
    let path = dir.join(RESULTS);
    let text = fs::read(&path).with_context(|| format!("cannot read {}", path.display()))?;
    let results: Vec<RunResult> =
        serde_json::from_slice(&text).with_context(|| format!("{} is damaged", path.display()))?;
    let mut runs = Vec::new();
    for RunResult { name, best, failed } in results {
        let folder = dir.join(&name);
        // The folder may have been removed to save space; results.json still has the result.
        let mut run = run(&folder, name.clone()).unwrap_or_else(|_| Run::new(name, &folder, Kind::FineTuning));
        run.best = best;
        run.failed = failed;
        runs.push(run);
    }
    // Unfinished runs are not in results.json yet.
    let entries = fs::read_dir(dir).with_context(|| format!("cannot read {}", dir.display()))?;
    let mut others: Vec<PathBuf> = entries.flatten().map(|entry| entry.path()).collect();
    others.retain(|path| path.join(METRICS).is_file() && runs.iter().all(|run| run.dir != *path));
    others.sort();
    for path in others {
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        runs.push(Run { unfinished: true, ..run(&path, name)? });
    }
    if runs.iter().all(|run| run.records().next().is_none() && run.best.is_none()) {
        bail!("{}: no run has an evaluation yet", dir.display());
    }
    Ok(Group { name, dir: dir.to_owned(), runs })
}

/// The names of the folders: the last part of each path, with as many parents as needed to make the names unique.
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
        let is_unique =
            |depth: &usize| parts.iter().filter(|other| name(other, *depth) == name(of, *depth)).count() == 1;
        name(of, (first..=of.len()).find(is_unique).unwrap_or(first))
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
    fn parent_folders_are_written_as_paths() {
        let found =
            ["model", "model/", "runs/mini/model", "/model", ".", "..", "a/.."].map(|dir| parent_of(Path::new(dir)));
        assert_eq!(found, [".", ".", "runs/mini", "/", "..", "../..", "a/../.."].map(PathBuf::from));
    }

    #[test]
    fn names_are_unique() {
        assert_eq!(named(&["/none/runs/mini"]), ["mini"]);
        assert_eq!(named(&["/none/cloze-quickstart/run"]), ["cloze-quickstart/run"]);
        assert_eq!(named(&["/none/a/mini", "/none/b/mini", "/none/b/tiny"]), ["a/mini", "b/mini", "tiny"]);
        assert!(names(&["/none/a".into(), "/none/a".into()]).unwrap_err().to_string().contains("twice"));
    }
}
