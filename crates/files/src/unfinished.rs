//! Files and folders that this process is writing under temporary names. They are removed if writing fails, and when a
//! signal ends the process.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

/// All temporary files and folders of this process.
static UNFINISHED: Mutex<BTreeSet<PathBuf>> = Mutex::new(BTreeSet::new());

fn unfinished() -> MutexGuard<'static, BTreeSet<PathBuf>> {
    UNFINISHED.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Removes all files and folders that are not finished. Call it directly before the process ends, from the thread that
/// handles signals: afterwards, every other thread that starts, finishes or removes a file of this crate blocks until
/// the process has ended.
pub fn remove_unfinished() {
    let mut paths = unfinished();
    for path in std::mem::take(&mut *paths) {
        remove(&path);
    }
    std::mem::forget(paths);
}

/// A file or folder under a temporary name. If dropped before [`finish`](Self::finish), it is removed.
#[derive(Debug)]
pub(crate) struct Unfinished {
    path: PathBuf,
    is_finished: bool,
}

impl Unfinished {
    /// Creates it with `create` and registers it.
    pub(crate) fn create<T, E>(path: &Path, create: impl FnOnce(&Path) -> Result<T, E>) -> Result<(Unfinished, T), E> {
        let mut paths = unfinished();
        let created = create(path)?;
        paths.insert(path.to_owned());
        Ok((Unfinished { path: path.to_owned(), is_finished: false }, created))
    }

    /// The temporary path.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Gives it its final name with `rename`. [`remove_unfinished`] cannot run in between.
    pub(crate) fn finish<E>(&mut self, rename: impl FnOnce(&Path) -> Result<(), E>) -> Result<(), E> {
        let mut paths = unfinished();
        rename(&self.path)?;
        self.is_finished = paths.remove(&self.path);
        Ok(())
    }
}

impl Drop for Unfinished {
    fn drop(&mut self) {
        if !self.is_finished {
            let mut paths = unfinished();
            paths.remove(&self.path);
            remove(&self.path);
        }
    }
}

/// Removes a file or a folder. Errors are ignored: the caller reports the error that led here.
fn remove(path: &Path) {
    let _ = if path.is_dir() { fs::remove_dir_all(path) } else { fs::remove_file(path) };
}
