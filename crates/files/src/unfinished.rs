//! What this process is writing under another name. It is removed when the writing fails, and when a signal ends the process.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

/// Every file and folder that has its temporary name now.
static UNFINISHED: Mutex<BTreeSet<PathBuf>> = Mutex::new(BTreeSet::new());

fn all() -> MutexGuard<'static, BTreeSet<PathBuf>> {
    UNFINISHED.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Removes everything that this process is still writing. Call it right before the process ends, from a thread that handles signals:
/// from now on no file of this crate is begun, finished or removed, so other threads wait until the process has ended.
pub fn remove_unfinished() {
    let mut paths = all();
    for path in std::mem::take(&mut *paths) {
        remove(&path);
    }
    std::mem::forget(paths);
}

/// A file or folder that this process writes under a temporary name. Dropped before [`finish`](Self::finish), it is removed.
#[derive(Debug)]
pub(crate) struct Unfinished {
    path: PathBuf,
    is_finished: bool,
}

impl Unfinished {
    /// Creates it by `create`.
    pub(crate) fn begin<T, E>(path: &Path, create: impl FnOnce(&Path) -> Result<T, E>) -> Result<(Unfinished, T), E> {
        let mut paths = all();
        let created = create(path)?;
        paths.insert(path.to_owned());
        Ok((Unfinished { path: path.to_owned(), is_finished: false }, created))
    }

    /// The temporary name.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Gives it its name by `rename`, which no signal interrupts halfway.
    pub(crate) fn finish<E>(&mut self, rename: impl FnOnce(&Path) -> Result<(), E>) -> Result<(), E> {
        let mut paths = all();
        rename(&self.path)?;
        self.is_finished = paths.remove(&self.path);
        Ok(())
    }
}

impl Drop for Unfinished {
    fn drop(&mut self) {
        if !self.is_finished {
            let mut paths = all();
            paths.remove(&self.path);
            remove(&self.path);
        }
    }
}

/// Removes a file or a folder. If that fails, what led here matters more.
fn remove(path: &Path) {
    let _ = if path.is_dir() { fs::remove_dir_all(path) } else { fs::remove_file(path) };
}
