//! A run's folder: what lies where, making it, keeping other processes out.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::path::{Path, PathBuf};

use crate::TrainError;

/// The paths of a run.
#[derive(Debug, Clone)]
pub struct RunFolder {
    root: PathBuf,
}

impl RunFolder {
    /// Names a folder; touches nothing.
    pub fn new(root: &Path) -> RunFolder {
        RunFolder { root: root.to_owned() }
    }

    /// The folder itself.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// recipe.toml
    pub fn recipe(&self) -> PathBuf {
        self.root.join("recipe.toml")
    }

    /// metrics.jsonl
    pub fn metrics(&self) -> PathBuf {
        self.root.join("metrics.jsonl")
    }

    /// checkpoints/
    pub fn checkpoints(&self) -> PathBuf {
        self.root.join("checkpoints")
    }

    /// The link to the best checkpoint.
    pub fn best(&self) -> PathBuf {
        self.root.join("best")
    }

    /// The final model, or the model so far of a run that was interrupted.
    pub fn model(&self) -> PathBuf {
        self.root.join("model")
    }

    /// Fails unless the folder can be made for a new run.
    ///
    /// # Errors
    /// [`TrainError::RunExists`], or the system's.
    pub fn check_new(&self) -> Result<(), TrainError> {
        if cloze_files::is_unused(&self.root)? { Ok(()) } else { Err(TrainError::RunExists(self.root.clone())) }
    }

    /// Makes the folder for a new run.
    ///
    /// # Errors
    /// [`TrainError::RunExists`] for a folder that holds anything, or the system's.
    pub fn create(&self) -> Result<(), TrainError> {
        self.check_new()?;
        fs::create_dir_all(self.checkpoints()).map_err(|e| TrainError::io("create", &self.root, e))
    }

    /// Keeps other processes out of an existing run's folder for as long as the file that is returned lives.
    ///
    /// # Errors
    /// [`TrainError::RunBusy`], or the system's.
    pub fn lock(&self) -> Result<File, TrainError> {
        let path = self.root.join(".lock");
        let file = OpenOptions::new().create(true).append(true).open(&path);
        let file = file.map_err(|e| TrainError::io("write", &path, e))?;
        match file.try_lock() {
            Ok(()) => Ok(file),
            Err(TryLockError::WouldBlock) => Err(TrainError::RunBusy(self.root.clone())),
            // Some network file systems have no locks: the user has been careful so far without.
            Err(TryLockError::Error(e)) if e.kind() == std::io::ErrorKind::Unsupported => Ok(file),
            Err(TryLockError::Error(e)) => Err(TrainError::io("lock", &path, e)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_processes_cannot_train_in_one_folder() {
        let dir = tempfile::tempdir().unwrap();
        let folder = RunFolder::new(dir.path());
        let held = folder.lock().unwrap();
        assert!(matches!(folder.lock(), Err(TrainError::RunBusy(path)) if path == dir.path()));
        drop(held);
        folder.lock().unwrap();
    }
}
