//! A folder that is filled under another name, made durable and renamed; folders that must be empty.

use std::ffi::OsString;
use std::fs::{self, File, TryLockError};
use std::io;
use std::path::Path;

use crate::FileError;
use crate::unfinished::Unfinished;

/// Fills a folder under the name `.NAME.partial`, syncs it and renames it to `path`; an older folder of that name is replaced. Files
/// in it are synced; those of folders in it `fill` must sync. Folders above it are made where they are missing.
///
/// # Errors
/// The system's, with the path, or `fill`'s. What was written is then removed, and `path` is as before. Another process that is
/// filling the same folder.
pub fn write_folder<E: From<FileError>>(path: &Path, fill: impl FnOnce(&Path) -> Result<(), E>) -> Result<(), E> {
    let moved = || FileError::new("rename into place", path);
    let Some(name) = path.file_name() else {
        return Err(moved()(io::ErrorKind::InvalidFilename.into()).into());
    };
    let aside = |end: &str| {
        let mut aside = OsString::from(".");
        aside.push(name);
        aside.push(end);
        aside
    };
    if path.exists() && !path.is_dir() {
        return Err(moved()(io::ErrorKind::NotADirectory.into()).into());
    }
    let parent = parent_of(path);
    let mut partial = Partial::create(&parent.join(aside(".partial")), path)?;
    let filled = partial.unfinished.path();
    fill(filled)?;
    for entry in fs::read_dir(filled).map_err(FileError::new("read", filled))? {
        sync(&entry.map_err(FileError::new("read", filled))?.path())?;
    }
    sync(filled)?;
    let replaced = parent.join(aside(".replaced"));
    if path.exists() {
        remove_if_there(&replaced)?;
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
    Ok(remove_if_there(&replaced)?)
}

/// A folder that is being filled. Dropped before it has its name, it is removed.
struct Partial {
    unfinished: Unfinished,
    /// Held so that another process does not take the folder for one that a killed process left.
    _lock: Option<File>,
}

impl Partial {
    /// Makes the folder anew. What a killed process left of it is removed.
    fn create(path: &Path, target: &Path) -> Result<Partial, FileError> {
        if path.exists() {
            lock(path, target)?;
            remove_if_there(path)?;
        }
        let (unfinished, _lock) = Unfinished::begin(path, |path| {
            fs::create_dir_all(path).map_err(FileError::new("create", path))?;
            lock(path, target)
        })?;
        Ok(Partial { unfinished, _lock })
    }
}

/// Locks a folder, where the system can: some network file systems have no locks, and Windows does not open folders.
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

/// Whether a folder can be filled by something new: it does not exist, or it is empty.
///
/// # Errors
/// [`FileError`] for a file, or a folder that cannot be read.
pub fn is_unused(dir: &Path) -> Result<bool, FileError> {
    match fs::read_dir(dir) {
        Ok(mut entries) => Ok(entries.next().is_none()),
        // A link that leads nowhere is there, too.
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(dir.symlink_metadata().is_err()),
        Err(e) => Err(FileError::new("open", dir)(e)),
    }
}

/// The names in a folder; none if it does not exist.
///
/// # Errors
/// [`FileError`] for a folder that cannot be read.
pub fn entry_names(dir: &Path) -> Result<Vec<String>, FileError> {
    let failed = || FileError::new("read", dir);
    let entries = match fs::read_dir(dir) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries.map_err(failed())?,
    };
    entries.map(|entry| Ok(entry.map_err(failed())?.file_name().to_string_lossy().into_owned())).collect()
}

/// Makes a file or the names in a folder durable.
///
/// # Errors
/// [`FileError`].
pub fn sync(path: &Path) -> Result<(), FileError> {
    // Windows cannot open folders; there a rename is as durable as it gets.
    if cfg!(windows) && path.is_dir() {
        return Ok(());
    }
    File::open(path).and_then(|file| file.sync_all()).map_err(FileError::new("sync", path))
}

/// Removes a folder and all in it, if it exists.
///
/// # Errors
/// [`FileError`].
pub fn remove_if_there(path: &Path) -> Result<(), FileError> {
    match fs::remove_dir_all(path) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => Err(FileError::new("remove", path)(e)),
        _ => Ok(()),
    }
}

/// The folder that holds `path`. The parent of a plain name is "", which cannot be opened.
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
    fn a_folder_that_fails_leaves_the_older_one_whole() {
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
    fn what_a_killed_process_left_is_replaced() {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join(".model.partial")).unwrap();
        fs::write(dir.path().join(".model.partial/half"), "").unwrap();
        write_folder(&dir.path().join("model"), fill("whole")).unwrap();
        assert_eq!(entry_names(dir.path()).unwrap(), ["model"]);
        assert_eq!(entry_names(&dir.path().join("model")).unwrap(), ["a"]);
    }

    #[cfg(unix)]
    #[test]
    fn two_processes_do_not_fill_the_same_folder() {
        let dir = tempfile::tempdir().unwrap();
        let target = dir.path().join("model");
        // Locks belong to open files: a second one in this process counts as another process's.
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
            assert!(!is_unused(&link).unwrap(), "a link that leads nowhere");
        }
    }
}
