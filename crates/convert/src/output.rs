//! A folder that is either whole or not there.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

use crate::ConvertError;

/// Refuses an output folder that holds something.
///
/// # Errors
/// [`ConvertError::Output`], [`ConvertError::Io`].
pub(crate) fn check(out: &Path) -> Result<(), ConvertError> {
    let refuse = |reason| Err(ConvertError::Output { path: out.to_owned(), reason });
    if out.file_name().is_none() {
        return refuse("expected the name of a folder to be made");
    }
    match fs::read_dir(out).map(|mut entries| entries.next().is_some()) {
        Ok(true) => refuse("it exists and is not empty; choose another, or remove it first"),
        Ok(false) => Ok(()),
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(e) if e.kind() == io::ErrorKind::NotADirectory => refuse("it is a file; expected a folder"),
        Err(e) => Err(ConvertError::io("read", out)(e)),
    }
}

/// Fills a folder beside `out`, makes it durable and renames it. On failure nothing stays of it.
///
/// # Errors
/// Those of `fill`, [`ConvertError::Io`].
pub(crate) fn write<T>(out: &Path, fill: impl FnOnce(&Path) -> Result<T, ConvertError>) -> Result<T, ConvertError> {
    let parent = match out.parent() {
        Some(parent) if parent != Path::new("") => parent,
        _ => Path::new("."),
    };
    let name = out.file_name().unwrap_or_default().to_string_lossy();
    let aside = parent.join(format!(".{name}.partial"));
    let done = fill_and_rename(parent, &aside, out, fill);
    if done.is_err() {
        // The error is what matters; that this fails too would add nothing.
        let _ = fs::remove_dir_all(&aside);
    }
    done
}

fn fill_and_rename<T>(
    parent: &Path,
    aside: &Path,
    out: &Path,
    fill: impl FnOnce(&Path) -> Result<T, ConvertError>,
) -> Result<T, ConvertError> {
    // What a killed conversion left.
    remove(aside, |path| fs::remove_dir_all(path))?;
    fs::create_dir_all(aside).map_err(ConvertError::io("create", aside))?;
    let filled = fill(aside)?;
    let mut files: Vec<PathBuf> = Vec::new();
    for entry in fs::read_dir(aside).map_err(ConvertError::io("read", aside))? {
        files.push(entry.map_err(ConvertError::io("read", aside))?.path());
    }
    for path in files.iter().map(PathBuf::as_path).chain([aside]) {
        sync(path)?;
    }
    // Empty, by `check`; some systems rename onto no folder at all.
    remove(out, |path| fs::remove_dir(path))?;
    fs::rename(aside, out).map_err(ConvertError::io("rename into place", out))?;
    sync(parent)?;
    Ok(filled)
}

fn remove(path: &Path, how: impl FnOnce(&Path) -> io::Result<()>) -> Result<(), ConvertError> {
    match how(path) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => Err(ConvertError::io("remove", path)(e)),
        _ => Ok(()),
    }
}

fn sync(path: &Path) -> Result<(), ConvertError> {
    // Windows cannot open folders; there a rename is as lasting as it gets.
    if cfg!(windows) && path.is_dir() {
        return Ok(());
    }
    File::open(path).and_then(|file| file.sync_all()).map_err(ConvertError::io("sync", path))
}
