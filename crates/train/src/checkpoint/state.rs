//! training_state.json: where a run stood, with the checksums of every file beside it.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use cloze_files::folder::entry_names;
use cloze_files::{Digest, digest};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::TrainError;

const STATE: &str = "training_state.json";

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
    if file.xxh3 != digest_of(&path, &file.state, &file.files)? {
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

/// Writes the state beside the files that it holds the checksums of.
pub(super) fn write_state(dir: &Path, state: &impl Serialize) -> Result<(), TrainError> {
    let mut files = BTreeMap::new();
    for name in entry_names(dir)? {
        let path = dir.join(&name);
        let sum = digest::of_file(&path)?;
        files.insert(name, sum);
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
