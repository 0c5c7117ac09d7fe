//! Checkpoints: a Hugging Face folder (config.json, model.safetensors, the tokenizer's files) with optimizer.safetensors
//! and training_state.json beside.
//!
//! A checkpoint is written into a sibling folder whose name starts with a dot, every file and the folder are synced, and
//! it is renamed: a folder named `step-…` is whole. training_state.json holds the size and XXH3 of every other file and of
//! itself, compared at load.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fs;
use std::ops::Range;
use std::path::{Path, PathBuf};

use cloze_engine::{Device, Moments, Parameters};
use cloze_files::folder::{entry_names, remove_if_there};
use cloze_files::{Digest, digest, write_folder};
use cloze_model::Model;
use cloze_text::Tokenizer;
use safetensors::{Dtype, SafeTensors, View};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::TrainError;
use crate::run::RunFolder;

const STATE: &str = "training_state.json";
const OPTIMIZER: &str = "optimizer.safetensors";

/// The form of training_state.json, counted up where a state means something else.
const VERSION: u32 = 2;

/// What can be read of any form.
#[derive(Deserialize)]
struct Version {
    version: u32,
}

/// training_state.json.
#[derive(Serialize, Deserialize)]
struct StateFile<S> {
    version: u32,
    state: S,
    files: BTreeMap<String, Digest>,
    /// XXH3 of everything above.
    xxh3: String,
}

/// The folder of a step's checkpoint.
pub fn path_of(folder: &RunFolder, step: u64) -> PathBuf {
    folder.checkpoints().join(format!("step-{step:08}"))
}

/// Whole checkpoints of a run, oldest first.
///
/// # Errors
/// The system's, if the folder cannot be read.
pub fn list(folder: &RunFolder) -> Result<Vec<(u64, PathBuf)>, TrainError> {
    let root = folder.checkpoints();
    let mut found = Vec::new();
    for name in entry_names(&root)? {
        let step = name.strip_prefix("step-").and_then(|s| s.parse().ok());
        if let Some(step) = step {
            found.push((step, root.join(name)));
        }
    }
    found.sort();
    Ok(found)
}

/// Saves the checkpoint of a step, `state` being all that resuming needs beside weights and moments, and makes it whole on disk
/// before naming it.
///
/// # Errors
/// [`TrainError::Save`]; earlier checkpoints are untouched and nothing half-written stays.
pub fn save(
    folder: &RunFolder,
    step: u64,
    model: &Model,
    moments: &Moments,
    tokenizer: &Tokenizer,
    state: &impl Serialize,
) -> Result<PathBuf, TrainError> {
    let path = path_of(folder, step);
    let written = write_folder(&path, |aside| {
        model.save(aside)?;
        tokenizer.save_for(aside, model.architecture().longest_sequence())?;
        save_moments(&aside.join(OPTIMIZER), &model.params, moments)?;
        write_state(aside, state)
    });
    written.map_err(|e| save_error(folder, &path, &e))?;
    Ok(path)
}

/// Saves the final model and its tokenizer, without training state.
///
/// # Errors
/// [`TrainError::Save`].
pub fn save_model(folder: &RunFolder, model: &Model, tokenizer: &Tokenizer) -> Result<PathBuf, TrainError> {
    let path = folder.model();
    let written = write_folder(&path, |aside| {
        model.save(aside)?;
        Ok(tokenizer.save_for(aside, model.architecture().longest_sequence())?)
    });
    written.map_err(|e| save_error(folder, &path, &e))?;
    Ok(path)
}

fn save_error(folder: &RunFolder, path: &Path, error: &TrainError) -> TrainError {
    let mut reason = error.to_string();
    let mut source: Option<&dyn std::error::Error> = Some(error);
    while let Some(e) = source {
        let io = e.downcast_ref::<std::io::Error>();
        if io.is_some_and(|e| e.kind() == std::io::ErrorKind::StorageFull) {
            reason = format!("the disk is full ({reason})");
        }
        source = e.source();
    }
    TrainError::Save {
        path: path.to_owned(),
        reason,
        previous: list(folder).ok().and_then(|mut all| all.pop()).map(|(_, path)| path),
    }
}

/// Removes what a killed run left half-written or half-removed; call it before anything is saved.
///
/// # Errors
/// The system's, with the path.
pub fn remove_stale(folder: &RunFolder) -> Result<(), TrainError> {
    for parent in [folder.checkpoints(), folder.root().to_owned()] {
        for name in entry_names(&parent)? {
            let Some(inner) = name.strip_prefix('.') else {
                continue;
            };
            let path = parent.join(&name);
            if let Some(original) = inner.strip_suffix(".replaced") {
                let original = parent.join(original);
                // Killed between the two renames: the older of the two is the only whole one.
                if !original.exists() {
                    fs::rename(&path, &original).map_err(|e| TrainError::io("restore", &original, e))?;
                    continue;
                }
            }
            if [".partial", ".replaced", ".removed"].iter().any(|s| inner.ends_with(s)) {
                match path.symlink_metadata() {
                    Ok(m) if m.is_dir() => remove_if_there(&path)?,
                    _ => fs::remove_file(&path).map_err(|e| TrainError::io("remove", &path, e))?,
                }
            }
        }
    }
    Ok(())
}

/// Removes all checkpoints but the newest `keep`, the best one and that of `last`.
///
/// # Errors
/// The system's, with the path.
pub fn prune(folder: &RunFolder, keep: usize, best: Option<u64>) -> Result<(), TrainError> {
    let all = list(folder)?;
    let old = all.len().saturating_sub(keep);
    for (step, path) in &all[..old] {
        if Some(*step) == best {
            continue;
        }
        // Renamed first: a checkpoint that is half removed must not look like one.
        let gone = folder.checkpoints().join(format!(".step-{step:08}.removed"));
        fs::rename(path, &gone).map_err(|e| TrainError::io("remove", path, e))?;
        remove_if_there(&gone)?;
    }
    Ok(())
}

/// Points `best` at a step's checkpoint.
///
/// # Errors
/// The system's, with the path.
pub fn mark_best(folder: &RunFolder, step: u64) -> Result<(), TrainError> {
    let target = format!("checkpoints/step-{step:08}");
    let aside = folder.root().join(".best.partial");
    let _ = fs::remove_file(&aside);
    #[cfg(unix)]
    let made = std::os::unix::fs::symlink(&target, &aside);
    // Links need a privilege there: a file that holds the path.
    #[cfg(not(unix))]
    let made = fs::write(&aside, &target);
    made.and_then(|()| fs::rename(&aside, folder.best())).map_err(|e| TrainError::io("write", &folder.best(), e))
}

/// The checkpoint that `best` points at; none if nothing is marked or the checkpoint is gone.
pub fn best(folder: &RunFolder) -> Option<PathBuf> {
    let link = folder.best();
    if link.is_dir() {
        return Some(link);
    }
    // Where links need a privilege, a file that holds the path.
    let target = fs::read_to_string(&link).ok()?;
    Some(folder.root().join(target.trim())).filter(|path| path.is_dir())
}

/// A checkpoint, loaded and verified.
pub struct Loaded<S> {
    /// The model.
    pub model: Model,
    /// Adam's moments.
    pub moments: Moments,
    /// Where the run stood.
    pub state: S,
}

/// Loads a checkpoint, comparing every file with its checksum first.
///
/// # Errors
/// [`TrainError::Damaged`] naming the first file that is missing, cut short or altered.
pub fn load<S: Serialize + DeserializeOwned>(dir: &Path, device: &Device) -> Result<Loaded<S>, TrainError> {
    let state = verify(dir)?;
    let model = Model::load(dir, device)?;
    let mut moments = Moments::zeros_like(&model.params);
    load_moments(&dir.join(OPTIMIZER), &model.params, &mut moments)?;
    Ok(Loaded { model, moments, state })
}

/// Compares every file of a checkpoint with its checksum and returns the training state.
///
/// # Errors
/// [`TrainError::Damaged`] naming the file.
pub fn verify<S: Serialize + DeserializeOwned>(dir: &Path) -> Result<S, TrainError> {
    let path = dir.join(STATE);
    let damaged = |path: &Path, reason: String| TrainError::Damaged { path: path.to_owned(), reason };
    let text = fs::read(&path).map_err(|e| TrainError::io("read", &path, e))?;
    let Version { version } = serde_json::from_slice(&text).map_err(|e| damaged(&path, e.to_string()))?;
    if version != VERSION {
        return Err(TrainError::OtherVersion { path, expected: VERSION, found: version });
    }
    let file: StateFile<S> = serde_json::from_slice(&text).map_err(|e| damaged(&path, e.to_string()))?;
    if file.xxh3 != digest_of(&file.state, &file.files) {
        return Err(damaged(&path, "does not match its own checksum".into()));
    }
    for (name, expected) in &file.files {
        let path = dir.join(name);
        let found = digest::of_file(&path).map_err(|e| damaged(&path, e.source.to_string()))?;
        if found.bytes != expected.bytes {
            let reason = format!("{} bytes, expected {}", found.bytes, expected.bytes);
            return Err(damaged(&path, reason));
        }
        if found != *expected {
            let reason = format!("checksum {}, expected {}", found.xxh3, expected.xxh3);
            return Err(damaged(&path, reason));
        }
    }
    Ok(file.state)
}

fn write_state(dir: &Path, state: &impl Serialize) -> Result<(), TrainError> {
    let mut files = BTreeMap::new();
    for name in entry_names(dir)? {
        let path = dir.join(&name);
        let sum = digest::of_file(&path)?;
        files.insert(name, sum);
    }
    let file = StateFile { version: VERSION, xxh3: digest_of(state, &files), state, files };
    let path = dir.join(STATE);
    let text = serde_json::to_string_pretty(&file).unwrap_or_default() + "\n";
    fs::write(&path, text).map_err(|e| TrainError::io("write", &path, e))
}

fn digest_of(state: &impl Serialize, files: &BTreeMap<String, Digest>) -> String {
    let bytes = serde_json::to_vec(&(state, files)).unwrap_or_default();
    digest::of_bytes(&bytes)
}

/// A parameter's moment on its way to a file: turned into bytes only when its turn comes.
struct Moment<'a> {
    shape: &'a [usize],
    values: &'a [f32],
}

impl View for &Moment<'_> {
    fn dtype(&self) -> Dtype {
        Dtype::F32
    }
    fn shape(&self) -> &[usize] {
        self.shape
    }
    fn data(&self) -> Cow<'_, [u8]> {
        self.values.iter().flat_map(|v| v.to_le_bytes()).collect()
    }
    fn data_len(&self) -> usize {
        4 * self.values.len()
    }
}

/// Name, shape and place in the arena of every parameter.
fn layout(params: &Parameters) -> impl Iterator<Item = (&str, &[usize], Range<usize>)> {
    params.ids().map(|id| (params.name(id), params.shape(id), params.range(id)))
}

fn save_moments(path: &Path, params: &Parameters, moments: &Moments) -> Result<(), TrainError> {
    let (first, second) = (moments.read_first(), moments.read_second());
    let mut tensors = Vec::new();
    for (name, shape, range) in layout(params) {
        for (what, flat) in [("exp_avg", &first), ("exp_avg_sq", &second)] {
            let values = &flat[range.clone()];
            tensors.push((format!("{name}.{what}"), Moment { shape, values }));
        }
    }
    let views = tensors.iter().map(|(name, moment)| (name.as_str(), moment));
    safetensors::serialize_to_file(views, None, path).map_err(|e| match e {
        safetensors::SafeTensorError::IoError(e) => TrainError::io("write", path, e),
        other => TrainError::io("write", path, std::io::Error::other(other.to_string())),
    })
}

fn load_moments(path: &Path, params: &Parameters, moments: &mut Moments) -> Result<(), TrainError> {
    let damaged = |reason: String| TrainError::Damaged { path: path.to_owned(), reason };
    let bytes = fs::read(path).map_err(|e| TrainError::io("read", path, e))?;
    let file = SafeTensors::deserialize(&bytes).map_err(|e| damaged(e.to_string()))?;
    moments.edit(|first, second| {
        for (name, shape, range) in layout(params) {
            for (what, flat) in [("exp_avg", &mut *first), ("exp_avg_sq", &mut *second)] {
                let name = format!("{name}.{what}");
                let stored = file.tensor(&name).map_err(|e| damaged(e.to_string()))?;
                if stored.dtype() != Dtype::F32 || stored.shape() != shape {
                    return Err(damaged(format!(
                        "{name} is {:?} {:?}, expected F32 {shape:?}",
                        stored.dtype(),
                        stored.shape(),
                    )));
                }
                let (words, _) = stored.data().as_chunks::<4>();
                for (value, word) in flat[range.clone()].iter_mut().zip(words) {
                    *value = f32::from_le_bytes(*word);
                }
            }
        }
        Ok(())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn full_disk(path: &Path) -> TrainError {
        TrainError::io("write", path, std::io::ErrorKind::StorageFull.into())
    }

    #[test]
    fn a_full_disk_is_called_so() {
        let dir = tempfile::tempdir().unwrap();
        let folder = RunFolder::new(dir.path());
        fs::create_dir_all(path_of(&folder, 7)).unwrap();
        let said = save_error(&folder, &path_of(&folder, 9), &full_disk(Path::new("x"))).to_string();
        assert!(said.contains("the disk is full") && said.contains("step-00000007 is intact"), "{said}");
    }

    #[test]
    fn what_a_kill_left_is_cleared_or_restored() {
        let dir = tempfile::tempdir().unwrap();
        let folder = RunFolder::new(dir.path());
        let make = |name: &str| {
            let path = dir.path().join(name);
            fs::create_dir_all(&path).unwrap();
            fs::write(path.join("file"), name).unwrap();
        };
        make("checkpoints/step-00000001");
        make("checkpoints/.step-00000002.partial");
        make("checkpoints/.step-00000000.removed");
        make(".model.replaced"); // killed between the renames: model itself is missing
        make("checkpoints/.step-00000001.replaced"); // killed after them
        fs::write(dir.path().join(".best.partial"), "").unwrap();
        remove_stale(&folder).unwrap();
        assert_eq!(entry_names(&folder.checkpoints()).unwrap(), ["step-00000001"]);
        let mut names = entry_names(dir.path()).unwrap();
        names.sort();
        assert_eq!(names, ["checkpoints", "model"]);
        let kept = fs::read_to_string(folder.model().join("file")).unwrap();
        assert_eq!(kept, ".model.replaced");
    }

    #[test]
    fn the_newest_and_the_best_are_kept() {
        let dir = tempfile::tempdir().unwrap();
        let folder = RunFolder::new(dir.path());
        for step in [1, 2, 3, 4, 5] {
            fs::create_dir_all(path_of(&folder, step)).unwrap();
        }
        prune(&folder, 2, Some(2)).unwrap();
        let kept: Vec<u64> = list(&folder).unwrap().into_iter().map(|(s, _)| s).collect();
        assert_eq!(kept, [2, 4, 5]);
        mark_best(&folder, 4).unwrap();
        mark_best(&folder, 2).unwrap();
        #[cfg(unix)]
        assert_eq!(fs::canonicalize(folder.best()).unwrap(), fs::canonicalize(path_of(&folder, 2)).unwrap());
    }
}
