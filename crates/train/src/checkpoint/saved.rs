//! Checkpoints and final models, written and read.

use std::path::{Path, PathBuf};

use cloze_engine::{Device, Moments};
use cloze_files::write_folder;
use cloze_text::Tokenizer;
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::listing::{list, path_of};
use super::moments::{OPTIMIZER, load_moments, save_moments};
use super::state::{verify, write_state};
use crate::TrainError;
use crate::network::Network;
use crate::run::RunFolder;

/// Saves the checkpoint of a step, `state` being all that resuming needs beside weights and moments, and makes it whole on disk
/// before naming it.
///
/// # Errors
/// [`TrainError::Save`]; earlier checkpoints are untouched and nothing half-written stays.
pub fn save(
    folder: &RunFolder,
    step: u64,
    network: &impl Network,
    moments: &Moments,
    tokenizer: &Tokenizer,
    state: &impl Serialize,
) -> Result<PathBuf, TrainError> {
    let path = path_of(folder, step);
    let written = write_folder(&path, |aside| {
        network.save(aside)?;
        tokenizer.save_for(aside, network.positions())?;
        save_moments(&aside.join(OPTIMIZER), network.params(), moments)?;
        write_state(aside, state)
    });
    written.map_err(|e| save_error(folder, &path, &e))?;
    Ok(path)
}

/// Saves the final model and its tokenizer, without training state.
///
/// # Errors
/// [`TrainError::Save`].
pub fn save_model(folder: &RunFolder, network: &impl Network, tokenizer: &Tokenizer) -> Result<PathBuf, TrainError> {
    let path = folder.model();
    let written = write_folder(&path, |aside| {
        network.save(aside)?;
        Ok(tokenizer.save_for(aside, network.positions())?)
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
            reason = format!("the disk is full: free some space ({reason})");
        }
        source = e.source();
    }
    TrainError::Save {
        path: path.to_owned(),
        reason,
        previous: list(folder).ok().and_then(|mut all| all.pop()).map(|(_, path)| path),
    }
}

/// A checkpoint, loaded and verified.
pub struct Loaded<N, S> {
    /// What was trained.
    pub network: N,
    /// Adam's moments.
    pub moments: Moments,
    /// Where the run stood.
    pub state: S,
}

/// Loads a checkpoint, comparing every file with its checksum first.
///
/// # Errors
/// [`TrainError::Damaged`] naming the first file that is missing, cut short or altered.
pub fn load<N: Network, S: Serialize + DeserializeOwned>(
    dir: &Path,
    device: &Device,
) -> Result<Loaded<N, S>, TrainError> {
    let state = verify(dir)?;
    let network = N::load(dir, device)?;
    let mut moments = Moments::zeros_like(network.params());
    load_moments(&dir.join(OPTIMIZER), network.params(), &mut moments)?;
    Ok(Loaded { network, moments, state })
}

#[cfg(test)]
mod tests {
    use std::fs;

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
        assert!(
            said.contains("the disk is full: free some space") && said.contains("step-00000007 is intact"),
            "{said}"
        );
        let denied = TrainError::io("write", Path::new("x"), std::io::ErrorKind::PermissionDenied.into());
        let said = save_error(&folder, &path_of(&folder, 9), &denied).to_string();
        assert!(!said.contains("space") && said.contains("step-00000007 is intact"), "{said}");
    }
}
