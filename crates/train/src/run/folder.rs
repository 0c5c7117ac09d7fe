//! The folder of a run: its paths, creating it, locking it against other processes.

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
    /// The run in this folder; does not access the file system.
    pub fn new(root: &Path) -> RunFolder {
        RunFolder { root: root.to_owned() }
    }

    /// The folder.
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

    /// The final model; of an interrupted run, the current model.
    pub fn model(&self) -> PathBuf {
        self.root.join("model")
    }

    /// Fails unless the folder can be used for a new run.
    ///
    /// # Errors
    /// [`TrainError::RunExists`], or the system's error.
    pub fn check_new(&self) -> Result<(), TrainError> {
        let is_new = cloze_files::is_unused(&self.root)? || self.root.is_dir() && self.has_no_settings()?;
        if is_new { Ok(()) } else { Err(TrainError::RunExists(self.root.clone())) }
    }

    /// Whether the folder only contains what a run creates before its settings, which are needed for resuming: the
    /// leftovers of a run that was killed at its very start.
    fn has_no_settings(&self) -> Result<bool, TrainError> {
        let is_of_started_run = |name: &String| match name.as_str() {
            // Text may be prepared in the folder before the run starts.
            ".lock" | "shards" => false,
            "checkpoints" | "data.json" => !self.checkpoints().is_dir(),
            // Earlier versions did not add a dot at the beginning.
            name => !name.ends_with(".partial"),
        };
        let is_unused = entry_names(&self.checkpoints())?.is_empty();
        Ok(is_unused && !entry_names(&self.root)?.iter().any(is_of_started_run))
    }

    /// Creates the folder of a new run, and locks it against other processes as long as the returned file is open.
    ///
    /// # Errors
    /// [`TrainError::RunExists`] for a folder with files of a started run, or with other files;
    /// [`TrainError::RunBusy`]; or the system's error.
    pub fn create(&self) -> Result<File, TrainError> {
        self.check_new()?;
        fs::create_dir_all(self.checkpoints()).map_err(|e| TrainError::io("create", &self.root, e))?;
        let lock = self.lock()?;
        // Another process may have used it before it was locked.
        self.check_new()?;
        Ok(lock)
    }

    /// Locks the folder of an existing run against other processes as long as the returned file is open.
    ///
    /// # Errors
    /// [`TrainError::RunBusy`], or the system's error.
    pub fn lock(&self) -> Result<File, TrainError> {
        let path = self.root.join(".lock");
        let file = OpenOptions::new().create(true).append(true).open(&path);
        let file = file.map_err(|e| TrainError::io("write", &path, e))?;
        match file.try_lock() {
            Ok(()) => Ok(file),
            Err(TryLockError::WouldBlock) => Err(TrainError::RunBusy(self.root.clone())),
            // Some network file systems have no locks: continue without one.
            Err(TryLockError::Error(e)) if e.kind() == std::io::ErrorKind::Unsupported => Ok(file),
            Err(TryLockError::Error(e)) => Err(TrainError::io("lock", &path, e)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Regression: if a run was killed before it had written its settings, its folder could be used neither for a new
    /// run nor for resuming.
    #[test]
    fn a_run_killed_at_its_start_can_be_started_again() {
        let dir = tempfile::tempdir().unwrap();
        let folder = RunFolder::new(&dir.path().join("run"));
        let states: [&[&str]; 7] = [
            &[],
            &["checkpoints"],
            &["checkpoints", ".lock"],
            &["checkpoints", ".lock", ".recipe.toml.7-0.partial"],
            &["checkpoints", ".lock", "data.json", ".finetune.toml.7-1.partial"],
            &[".results.json.7-0.partial"],
            &["shards"],
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
        // Files of a started run, and other files.
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
        let lock = folder.lock().unwrap();
        assert!(matches!(folder.lock(), Err(TrainError::RunBusy(path)) if path == dir.path()));
        drop(lock);
        folder.lock().unwrap();
    }
}
