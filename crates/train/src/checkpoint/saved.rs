//! Writes and reads checkpoints and final models.

use std::path::{Path, PathBuf};

use cloze_engine::{Device, Moments, Share};
use cloze_files::write_folder;
use cloze_text::Tokenizer;
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::listing::{list, path_of};
use super::moments::{OPTIMIZER, Stored, load_moments, save_moments, send_moments};
use super::state::{verify, write_state};
use crate::TrainError;
use crate::network::Network;
use crate::run::RunFolder;
use crate::step::Trainer;

/// Saves the checkpoint of a step, atomically. `state` contains everything that resuming needs in addition to weights
/// and moments. Rank 0 writes; the others give it their moments. The files do not depend on the number of ranks.
///
/// # Errors
/// [`TrainError::Save`]; earlier checkpoints are unchanged, and no partial files remain.
pub fn save<N: Network>(
    folder: &RunFolder,
    step: u64,
    trainer: &Trainer<N>,
    tokenizer: &Tokenizer,
    state: &impl Serialize,
) -> Result<PathBuf, TrainError> {
    let path = path_of(folder, step);
    let network = &trainer.network;
    if !trainer.ranks().is_root() {
        send_moments(&Stored::of(trainer));
        return Ok(path);
    }
    let written = write_folder(&path, |partial| {
        network.save(partial)?;
        save_tokenizer::<N>(partial, network, tokenizer)?;
        save_moments(&partial.join(OPTIMIZER), &Stored::of(trainer))?;
        write_state(partial, state)
    });
    written.map_err(|e| save_error(folder, &path, &e))?;
    Ok(path)
}

/// Saves the final model and its tokenizer, without training state.
///
/// # Errors
/// [`TrainError::Save`].
pub fn save_model<N: Network>(folder: &RunFolder, network: &N, tokenizer: &Tokenizer) -> Result<PathBuf, TrainError> {
    let path = folder.model();
    let written = write_folder(&path, |partial| {
        network.save_final(partial)?;
        save_tokenizer::<N>(partial, network, tokenizer)
    });
    written.map_err(|e| save_error(folder, &path, &e))?;
    Ok(path)
}

/// Writes the tokenizer to each of the network's model folders.
fn save_tokenizer<N: Network>(dir: &Path, network: &N, tokenizer: &Tokenizer) -> Result<(), TrainError> {
    for model in N::MODELS {
        tokenizer.save_for(&dir.join(model), network.positions())?;
    }
    Ok(())
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

/// A checkpoint that was loaded and verified.
pub struct Loaded<N, S> {
    /// The trained network.
    pub network: N,
    /// Adam's moments.
    pub moments: Moments,
    /// The velocity of the outer optimizer of local steps.
    pub velocity: Option<Vec<f32>>,
    /// The training state.
    pub state: S,
}

/// Loads a checkpoint, after comparing every file with its checksum. The moments are those of a share.
///
/// # Errors
/// [`TrainError::Damaged`] with the first file that is missing, truncated or altered.
pub fn load<N: Network, S: Serialize + DeserializeOwned>(
    dir: &Path,
    device: &Device,
    share: Share,
) -> Result<Loaded<N, S>, TrainError> {
    let state = verify(dir)?;
    let network = N::load(dir, device)?;
    let mut moments = Moments::zeros_of(network.params(), share);
    let velocity = load_moments(&dir.join(OPTIMIZER), network.params(), &mut moments)?;
    Ok(Loaded { network, moments, velocity, state })
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    fn full_disk(path: &Path) -> TrainError {
        TrainError::io("write", path, std::io::ErrorKind::StorageFull.into())
    }

    #[test]
    fn a_full_disk_is_reported() {
        let dir = tempfile::tempdir().unwrap();
        let folder = RunFolder::new(dir.path());
        fs::create_dir_all(path_of(&folder, 7)).unwrap();
        let message = save_error(&folder, &path_of(&folder, 9), &full_disk(Path::new("x"))).to_string();
        assert!(
            message.contains("the disk is full: free some space") && message.contains("step-00000007 is intact"),
            "{message}"
        );
        let denied = TrainError::io("write", Path::new("x"), std::io::ErrorKind::PermissionDenied.into());
        let message = save_error(&folder, &path_of(&folder, 9), &denied).to_string();
        assert!(!message.contains("space") && message.contains("step-00000007 is intact"), "{message}");
    }
}
