//! Atomic folders: a folder is filled under a temporary name, synced and renamed. Also checks for empty folders.

use std::ffi::OsString;
use std::fs::{self, File, TryLockError};
use std::io;
use std::path::Path;

use crate::FileError;
use crate::unfinished::Unfinished;

/// Fills a folder under the temporary name `.NAME.partial`, syncs it and renames it to `path`. An existing folder of
/// that name is replaced. Files directly in the folder are synced; `fill` must sync files in its subfolders. Missing
/// parent folders are created.
///
/// # Errors
/// The system's error with the path, `fill`'s error, or an error if another process is filling the same folder. What
/// was written is then removed, and `path` is unchanged.
pub fn write_folder<E: From<FileError>>(path: &Path, fill: impl FnOnce(&Path) -> Result<(), E>) -> Result<(), E> {
    let moved = || FileError::new("rename into place", path);
    let Some(name) = path.file_name() else {
        return Err(moved()(io::ErrorKind::InvalidFilename.into()).into());
    };
    let temporary_name = |suffix: &str| {
        let mut temporary = OsString::from(".");
        temporary.push(name);
        temporary.push(suffix);
        temporary
    };
    if path.exists() && !path.is_dir() {
        return Err(moved()(io::ErrorKind::NotADirectory.into()).into());
    }
    let parent = parent_of(path);
    let mut partial = Partial::create(&parent.join(temporary_name(".partial")), path)?;
    let filled = partial.unfinished.path();
    fill(filled)?;
    for entry in fs::read_dir(filled).map_err(FileError::new("read", filled))? {
        sync(&entry.map_err(FileError::new("read", filled))?.path())?;
    }
    sync(filled)?;
    let replaced = parent.join(temporary_name(".replaced"));
    if path.exists() {
        remove_dir_if_exists(&replaced)?;
    }
    partial.unfinished.finish(|partial| {
        if path.exists() {
            fs::rename(path, &replaced).map_err(moved())?;
        }
        fs::rename(partial, path).map_err(|error| {
            if replaced.exists() {
                let _ = fs::rename(&replaced, path); // the first error matters more
            }
            moved()(error)
        })
    })?;
    sync(parent)?;
    Ok(remove_dir_if_exists(&replaced)?)
}

/// A folder that is being filled. It is removed if dropped before it is renamed.
struct Partial {
    unfinished: Unfinished,
    /// Held so that other processes do not take the folder for a leftover of a killed process.
    _lock: Option<File>,
}

impl Partial {
    /// Creates the folder. Removes what a killed process left under this name.
    fn create(path: &Path, target: &Path) -> Result<Partial, FileError> {
        if path.exists() {
            lock(path, target)?;
            remove_dir_if_exists(path)?;
        }
        let (unfinished, _lock) = Unfinished::create(path, |path| {
            fs::create_dir_all(path).map_err(FileError::new("create", path))?;
            lock(path, target)
        })?;
        Ok(Partial { unfinished, _lock })
    }
}

/// Locks a folder where the system supports it: some network file systems have no locks, and Windows cannot open
/// folders.
fn lock(path: &Path, target: &Path) -> Result<Option<File>, FileError> {
    if cfg!(windows) {
        return Ok(None);
    }
    let folder = File::open(path).map_err(FileError::new("open", path))?;
    match folder.try_lock() {
        Err(TryLockError::WouldBlock) => {
            let busy = io::Error::new(io::ErrorKind::ResourceBusy, "another process is writing this folder");
            Err(FileError::new("write", target)(busy))
        }
        Ok(()) | Err(TryLockError::Error(_)) => Ok(Some(folder)),
    }
}

/// Whether a new folder can be written here: the path does not exist, or it is an empty folder.
///
/// # Errors
/// [`FileError`] if the path is a file, or a folder that cannot be read.
pub fn is_unused(dir: &Path) -> Result<bool, FileError> {
    match fs::read_dir(dir) {
        Ok(mut entries) => Ok(entries.next().is_none()),
        // A broken symbolic link exists, too.
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(dir.symlink_metadata().is_err()),
        Err(e) => Err(FileError::new("open", dir)(e)),
    }
}

/// The names of the entries of a folder; empty if the folder does not exist.
///
/// # Errors
/// [`FileError`] if the folder cannot be read.
pub fn entry_names(dir: &Path) -> Result<Vec<String>, FileError> {
    let failed = || FileError::new("read", dir);
    let entries = match fs::read_dir(dir) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries.map_err(failed())?,
    };
    entries.map(|entry| Ok(entry.map_err(failed())?.file_name().to_string_lossy().into_owned())).collect()
}

/// Syncs a file, or the entries of a folder, to disk.
///
/// # Errors
/// [`FileError`].
pub fn sync(path: &Path) -> Result<(), FileError> {
    // Windows cannot open folders. There, a rename cannot be made more durable.
    if cfg!(windows) && path.is_dir() {
        return Ok(());
    }
    File::open(path).and_then(|file| file.sync_all()).map_err(FileError::new("sync", path))
}

/// Removes a folder and its contents, if it exists.
///
/// # Errors
/// [`FileError`].
pub fn remove_dir_if_exists(path: &Path) -> Result<(), FileError> {
    match fs::remove_dir_all(path) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => Err(FileError::new("remove", path)(e)),
        _ => Ok(()),
    }
}

/// The folder that contains `path`. `Path::parent` of a plain file name is "", which cannot be opened; this function
/// returns ".".
pub(crate) fn parent_of(path: &Path) -> &Path {
    path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fill(text: &'static str) -> impl FnOnce(&Path) -> Result<(), FileError> {
        move |partial| fs::write(partial.join("a"), text).map_err(FileError::new("write", partial))
    }

    #[test]
    fn a_failed_write_keeps_the_old_folder() {
        let dir = tempfile::tempdir().unwrap();
        let target = dir.path().join("model");
        write_folder(&target, fill("first")).unwrap();
        let failed = write_folder(&target, |partial| {
            fs::write(partial.join("a"), "second").unwrap();
            Err(FileError::new("write", partial)(io::ErrorKind::StorageFull.into()))
        });
        assert_eq!(failed.unwrap_err().source.kind(), io::ErrorKind::StorageFull);
        assert_eq!(fs::read_to_string(target.join("a")).unwrap(), "first");
        assert_eq!(entry_names(dir.path()).unwrap(), ["model"]);
        write_folder(&target, fill("third")).unwrap();
        assert_eq!(fs::read_to_string(target.join("a")).unwrap(), "third");
        assert_eq!(entry_names(dir.path()).unwrap(), ["model"]);
    }

    #[test]
    fn leftovers_of_a_killed_process_are_replaced() {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join(".model.partial")).unwrap();
        fs::write(dir.path().join(".model.partial/half"), "").unwrap();
        write_folder(&dir.path().join("model"), fill("complete")).unwrap();
        assert_eq!(entry_names(dir.path()).unwrap(), ["model"]);
        assert_eq!(entry_names(&dir.path().join("model")).unwrap(), ["a"]);
    }

    #[cfg(unix)]
    #[test]
    fn two_processes_do_not_fill_the_same_folder() {
        let dir = tempfile::tempdir().unwrap();
        let target = dir.path().join("model");
        // Locks belong to open files: a second handle in this process behaves like one of another process.
        let result = write_folder(&target, |partial| {
            let second = write_folder(&target, fill("second")).unwrap_err().to_string();
            assert!(second.contains("another process is writing this folder"), "{second}");
            fill("first")(partial)
        });
        result.unwrap();
        assert_eq!(fs::read_to_string(target.join("a")).unwrap(), "first");
    }

    #[test]
    fn a_file_is_not_replaced_by_a_folder() {
        let dir = tempfile::tempdir().unwrap();
        let target = dir.path().join("model");
        fs::write(&target, "").unwrap();
        assert!(write_folder(&target, fill("x")).unwrap_err().to_string().contains("rename into place"));
        assert!(is_unused(&target).is_err());
        assert!(is_unused(&dir.path().join("absent")).unwrap() && !is_unused(dir.path()).unwrap());
        #[cfg(unix)]
        {
            let link = dir.path().join("link");
            std::os::unix::fs::symlink(dir.path().join("absent"), &link).unwrap();
            assert!(!is_unused(&link).unwrap(), "a broken link");
        }
    }
}
