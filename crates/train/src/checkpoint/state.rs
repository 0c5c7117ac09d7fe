//! training_state.json: the training state, and the checksums of all other files of the checkpoint.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use cloze_files::folder::entry_names;
use cloze_files::{Digest, digest};
use cloze_model::verify_weights;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::moments::OPTIMIZER;
use crate::TrainError;

const STATE: &str = "training_state.json";

/// The format version of training_state.json; incremented when the meaning of a state changes.
const VERSION: u32 = 2;

/// The part that can be read in all format versions.
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
    /// XXH3 of the state and the files.
    xxh3: String,
}

/// Compares every file of a checkpoint with its checksum and returns the training state.
///
/// # Errors
/// [`TrainError::Damaged`] with the file.
pub fn verify<S: Serialize + DeserializeOwned>(dir: &Path) -> Result<S, TrainError> {
    let path = dir.join(STATE);
    let damaged = |path: &Path, reason: String| TrainError::Damaged { path: path.to_owned(), reason };
    let text = fs::read(&path).map_err(|e| TrainError::io("read", &path, e))?;
    let Version { version } = serde_json::from_slice(&text).map_err(|e| damaged(&path, e.to_string()))?;
    if version != VERSION {
        return Err(TrainError::OtherVersion { path, expected: VERSION, found: version });
    }
    let file: StateFile<S> = serde_json::from_slice(&text).map_err(|e| damaged(&path, e.to_string()))?;
    if file.xxh3 != digest_of(&path, &file.state, &file.files)? {
        return Err(damaged(&path, "does not match its own checksum".into()));
    }
    verify_files(dir, &file.files)?;
    Ok(file.state)
}

/// Compares the files of a model with their checksums: those of a checkpoint with its training state, except for the
/// moments; the weights of other models with the checksum in their file. Returns whether there are checksums.
///
/// # Errors
/// [`TrainError::Damaged`] or [`TrainError::Model`] with the file.
pub fn verify_model(dir: &Path) -> Result<bool, TrainError> {
    #[derive(Deserialize)]
    struct Files {
        files: BTreeMap<String, Digest>,
    }
    let path = dir.join(STATE);
    if !path.is_file() {
        return Ok(verify_weights(dir)?);
    }
    let text = fs::read(&path).map_err(|e| TrainError::io("read", &path, e))?;
    let Files { mut files } =
        serde_json::from_slice(&text).map_err(|e| TrainError::Damaged { path, reason: e.to_string() })?;
    files.remove(OPTIMIZER);
    verify_files(dir, &files)?;
    Ok(true)
}

/// Compares files with their checksums.
fn verify_files(dir: &Path, files: &BTreeMap<String, Digest>) -> Result<(), TrainError> {
    for (name, expected) in files {
        let path = dir.join(name);
        let damaged = |reason: String| TrainError::Damaged { path: path.clone(), reason };
        let found = digest::of_file(&path).map_err(|e| damaged(e.source.to_string()))?;
        if found.bytes != expected.bytes {
            return Err(damaged(format!("{} bytes, expected {}", found.bytes, expected.bytes)));
        }
        if found != *expected {
            return Err(damaged(format!("checksum {}, expected {}", found.xxh3, expected.xxh3)));
        }
    }
    Ok(())
}

/// Writes the state and the checksums of the files in the folder and in the model folders in it.
pub(super) fn write_state(dir: &Path, state: &impl Serialize) -> Result<(), TrainError> {
    let mut files = BTreeMap::new();
    for name in entry_names(dir)? {
        if dir.join(&name).is_dir() {
            for file in entry_names(&dir.join(&name))? {
                let name = format!("{name}/{file}");
                files.insert(name.clone(), digest::of_file(&dir.join(name))?);
            }
        } else {
            files.insert(name.clone(), digest::of_file(&dir.join(name))?);
        }
    }
    let path = dir.join(STATE);
    let file = StateFile { version: VERSION, xxh3: digest_of(&path, state, &files)?, state, files };
    let text = serde_json::to_string_pretty(&file).map_err(|e| TrainError::io("write", &path, e.into()))? + "\n";
    fs::write(&path, text).map_err(|e| TrainError::io("write", &path, e))
}

fn digest_of(path: &Path, state: &impl Serialize, files: &BTreeMap<String, Digest>) -> Result<String, TrainError> {
    let bytes = serde_json::to_vec(&(state, files)).map_err(|e| TrainError::io("write", path, e.into()))?;
    Ok(digest::of_bytes(&bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Regression: a checkpoint with a flipped byte gave an MLM loss of 158118522729353945729035535938224128 and exit
    /// code 0.
    #[test]
    fn a_checkpoints_files_are_verified_before_its_model_is_used() {
        let dir = tempfile::tempdir().unwrap();
        let file = |name: &str| dir.path().join(name);
        for name in ["config.json", "model.safetensors", OPTIMIZER] {
            fs::write(file(name), format!("the bytes of {name}")).unwrap();
        }
        write_state(dir.path(), &7).unwrap();
        assert!(verify_model(dir.path()).unwrap());
        fs::write(file(OPTIMIZER), "other moments").unwrap();
        assert!(verify_model(dir.path()).unwrap(), "moments are not part of the model");
        assert!(verify::<u32>(dir.path()).unwrap_err().to_string().contains(OPTIMIZER));
        for (name, text) in [("model.safetensors", "the bytes of model.safetensorS"), ("config.json", "short")] {
            let before = fs::read(file(name)).unwrap();
            fs::write(file(name), text).unwrap();
            let error = verify_model(dir.path()).unwrap_err().to_string();
            assert!(error.contains(name) && error.contains("expected"), "{error}");
            fs::write(file(name), before).unwrap();
        }
        fs::write(file(STATE), "{").unwrap();
        assert!(verify_model(dir.path()).unwrap_err().to_string().contains(STATE));
    }
}
