//! Lists the checkpoints of a run, finds the newest and the best, and removes old ones.

use std::fs::{self, File};
use std::path::PathBuf;

use cloze_comm::Communicator;
use cloze_files::folder::{entry_names, remove_dir_if_exists};

use crate::TrainError;
use crate::run::RunFolder;

/// The folder of a step's checkpoint.
pub fn path_of(folder: &RunFolder, step: u64) -> PathBuf {
    folder.checkpoints().join(format!("step-{step:08}"))
}

/// The complete checkpoints of a run, oldest first.
///
/// # Errors
/// The system's error if the folder cannot be read.
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

/// Prepares a run's folder for resuming: locks it against other processes as long as the returned file is open, removes
/// leftovers of a killed run, and returns the newest checkpoint if there is one.
///
/// # Errors
/// [`TrainError::RunBusy`], or the system's error.
pub fn resume(folder: &RunFolder) -> Result<(File, Option<(u64, PathBuf)>), TrainError> {
    let lock = folder.lock()?;
    remove_stale(folder)?;
    Ok((lock, list(folder)?.pop()))
}

/// The folder of the newest checkpoint, whose step rank 0 has found.
pub fn path_of_newest(folder: &RunFolder, found: Option<u64>, ranks: &Communicator) -> Option<PathBuf> {
    let step = ranks.of_root(found.unwrap_or(u64::MAX));
    (step != u64::MAX).then(|| path_of(folder, step))
}

/// Removes files that a killed run had not completely written or removed. Call it before anything is saved.
///
/// # Errors
/// The system's error with the path.
pub fn remove_stale(folder: &RunFolder) -> Result<(), TrainError> {
    for parent in [folder.checkpoints(), folder.root().to_owned()] {
        for name in entry_names(&parent)? {
            let Some(inner) = name.strip_prefix('.') else {
                continue;
            };
            let path = parent.join(&name);
            if let Some(original) = inner.strip_suffix(".replaced") {
                let original = parent.join(original);
                // Killed between the two renames: only the older one of the two is complete.
                if !original.exists() {
                    fs::rename(&path, &original).map_err(|e| TrainError::io("restore", &original, e))?;
                    continue;
                }
            }
            if [".partial", ".replaced", ".removed"].iter().any(|s| inner.ends_with(s)) {
                match path.symlink_metadata() {
                    Ok(m) if m.is_dir() => remove_dir_if_exists(&path)?,
                    _ => fs::remove_file(&path).map_err(|e| TrainError::io("remove", &path, e))?,
                }
            }
        }
    }
    Ok(())
}

/// Removes all checkpoints except for the newest `keep` and the best one.
///
/// # Errors
/// The system's error with the path.
pub fn prune(folder: &RunFolder, keep: usize, best: Option<u64>) -> Result<(), TrainError> {
    let all = list(folder)?;
    let old = all.len().saturating_sub(keep);
    for (step, path) in &all[..old] {
        if Some(*step) == best {
            continue;
        }
        // Renamed first: a partly removed checkpoint must not look like a checkpoint.
        let removed = folder.checkpoints().join(format!(".step-{step:08}.removed"));
        fs::rename(path, &removed).map_err(|e| TrainError::io("remove", path, e))?;
        remove_dir_if_exists(&removed)?;
    }
    Ok(())
}

/// Links `best` to a step's checkpoint.
///
/// # Errors
/// The system's error with the path.
pub fn mark_best(folder: &RunFolder, step: u64) -> Result<(), TrainError> {
    let target = format!("checkpoints/step-{step:08}");
    let temporary = folder.root().join(".best.partial");
    let _ = fs::remove_file(&temporary);
    #[cfg(unix)]
    let created = std::os::unix::fs::symlink(&target, &temporary);
    // On other systems, links need a privilege: write a file with the path instead.
    #[cfg(not(unix))]
    let created = fs::write(&temporary, &target);
    created.and_then(|()| fs::rename(&temporary, folder.best())).map_err(|e| TrainError::io("write", &folder.best(), e))
}

/// The checkpoint to which `best` is linked; `None` if there is no link or the checkpoint does not exist any more.
pub fn best(folder: &RunFolder) -> Option<PathBuf> {
    let link = folder.best();
    if link.is_dir() {
        return Some(link);
    }
    // On systems where links need a privilege, a file with the path.
    let target = fs::read_to_string(&link).ok()?;
    Some(folder.root().join(target.trim())).filter(|path| path.is_dir())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn leftovers_of_a_killed_run_are_removed_or_restored() {
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
        let restored = fs::read_to_string(folder.model().join("file")).unwrap();
        assert_eq!(restored, ".model.replaced");
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
