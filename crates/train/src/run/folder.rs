//! A run's folder: what lies where, making it, keeping other processes out.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::path::{Path, PathBuf};

use cloze_files::folder::entry_names;

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
        let is_new = cloze_files::is_unused(&self.root)? || self.root.is_dir() && self.is_unbegun()?;
        if is_new { Ok(()) } else { Err(TrainError::RunExists(self.root.clone())) }
    }

    /// Whether the folder holds nothing but what a run makes before its settings, by which it could be resumed: what is left of one that
    /// was killed in its first moment.
    fn is_unbegun(&self) -> Result<bool, TrainError> {
        let is_begun = |name: &String| match name.as_str() {
            ".lock" => false,
            "checkpoints" | "data.json" => !self.checkpoints().is_dir(),
            // Earlier versions put no dot before it.
            name => !name.ends_with(".partial"),
        };
        let is_unused = entry_names(&self.checkpoints())?.is_empty();
        Ok(is_unused && !entry_names(&self.root)?.iter().any(is_begun))
    }

    /// Makes the folder for a new run, and keeps other processes out of it for as long as the file that is returned lives.
    ///
    /// # Errors
    /// [`TrainError::RunExists`] for a folder that holds anything of a run that has begun, or other files; [`TrainError::RunBusy`]; or the
    /// system's.
    pub fn create(&self) -> Result<File, TrainError> {
        self.check_new()?;
        fs::create_dir_all(self.checkpoints()).map_err(|e| TrainError::io("create", &self.root, e))?;
        let lock = self.lock()?;
        // Another process may have had it meanwhile.
        self.check_new()?;
        Ok(lock)
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

    /// A run killed before it had written its settings: neither a start nor --resume took its folder.
    #[test]
    fn reliability_4_what_a_run_left_in_its_first_moment_can_be_started_anew() {
        let dir = tempfile::tempdir().unwrap();
        let folder = RunFolder::new(&dir.path().join("run"));
        let states: [&[&str]; 6] = [
            &[],
            &["checkpoints"],
            &["checkpoints", ".lock"],
            &["checkpoints", ".lock", ".recipe.toml.7-0.partial"],
            &["checkpoints", ".lock", "data.json", ".finetune.toml.7-1.partial"],
            &[".results.json.7-0.partial"],
        ];
        for state in states {
            fs::create_dir_all(folder.root()).unwrap();
            for name in state {
                let path = folder.root().join(name);
                if *name == "checkpoints" { fs::create_dir(path).unwrap() } else { fs::write(path, "").unwrap() }
            }
            drop(folder.create().unwrap_or_else(|error| panic!("{state:?}: {error}")));
            fs::remove_dir_all(folder.root()).unwrap();
        }
        // What has begun, and what was never a run's.
        for name in ["recipe.toml", "finetune.toml", "results.json", "model", "notes.txt", "data.json"] {
            fs::create_dir_all(folder.root()).unwrap();
            fs::write(folder.root().join(name), "").unwrap();
            assert!(matches!(folder.create(), Err(TrainError::RunExists(_))), "{name}");
            fs::remove_dir_all(folder.root()).unwrap();
        }
        fs::create_dir_all(folder.checkpoints().join("step-00000001")).unwrap();
        assert!(matches!(folder.create(), Err(TrainError::RunExists(_))));
    }

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
