//! Atomic files: a file is written under a temporary name, synced and renamed. Readers see the old or the new file,
//! never a part of it.

use std::ffi::{OsStr, OsString};
use std::fs::{self, File};
use std::io::{self, BufWriter, IntoInnerError, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use crate::folder::{parent_of, sync};
use crate::unfinished::Unfinished;
use crate::{FileError, digest};

/// Writes or replaces a file with `bytes`.
///
/// # Errors
/// [`FileError`]; an existing file of this name is then unchanged.
pub fn write(path: &Path, bytes: &[u8]) -> Result<(), FileError> {
    write_with(path, |file| file.write_all(bytes))
}

/// Writes or replaces a file with what `fill` writes.
///
/// # Errors
/// [`FileError`]; an existing file of this name is then unchanged.
pub fn write_with(path: &Path, fill: impl FnOnce(&mut BufWriter<File>) -> io::Result<()>) -> Result<(), FileError> {
    let mut file = AtomicFile::create(path)?;
    file.write_with(fill)?;
    file.commit()
}

/// Writes or replaces several files of one folder, each atomically. The folder is synced once, which is faster than
/// once per file.
///
/// # Errors
/// [`FileError`]; files before the one that failed are new, the others are unchanged.
pub fn write_several(dir: &Path, files: &[(&str, Vec<u8>)]) -> Result<(), FileError> {
    for (name, bytes) in files {
        let mut file = AtomicFile::create(&dir.join(name))?;
        file.write_with(|file| file.write_all(bytes))?;
        file.rename()?;
    }
    sync(dir)
}

/// A file that is being written under a unique temporary name, `.NAME.PROCESS-NUMBER.partial`. So two writers of one
/// file do not collide: each replaces it by a complete file. If dropped before [`commit`](Self::commit), the temporary
/// file is removed.
#[derive(Debug)]
pub struct AtomicFile {
    path: PathBuf,
    partial: Unfinished,
    /// `None` once all bytes are synced.
    file: Option<BufWriter<File>>,
    /// A second handle of the same file. It holds the lock until the file has its final name, so that other processes
    /// do not take the temporary file for a leftover of a killed process.
    _locked: File,
}

/// Number of the next temporary file of this process.
static NUMBER: AtomicU64 = AtomicU64::new(0);

impl AtomicFile {
    /// Starts a file that will become `path`. Removes leftovers of killed processes that were writing it.
    ///
    /// # Errors
    /// [`FileError`]: no such folder, no permission.
    pub fn create(path: &Path) -> Result<AtomicFile, FileError> {
        let failed = || FileError::new("write", path);
        let name = path.file_name().unwrap_or_default();
        remove_leftovers(parent_of(path), name);
        loop {
            let number = NUMBER.fetch_add(1, Ordering::Relaxed);
            let mut partial = temporary_prefix(name);
            partial.push(format!("{}-{number}{PARTIAL}", std::process::id()));
            let partial = path.with_file_name(partial);
            let (partial, file) = match Unfinished::create(&partial, |partial| File::create_new(partial)) {
                // Left by a killed process with the same id, on a file system without locks.
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => continue,
                created => created.map_err(failed())?,
            };
            // Some network file systems have no locks. Leftovers are not removed there either.
            let _ = file.try_lock();
            // Another process may have removed it before it was locked.
            if partial.path().exists() {
                let _locked = file.try_clone().map_err(failed())?;
                return Ok(AtomicFile { path: path.to_owned(), partial, file: Some(BufWriter::new(file)), _locked });
            }
        }
    }

    /// Writes the next part of the file.
    ///
    /// # Errors
    /// [`FileError`] with the final name. Panics after [`sync`](Self::sync).
    pub fn write_with(&mut self, fill: impl FnOnce(&mut BufWriter<File>) -> io::Result<()>) -> Result<(), FileError> {
        let file = self.file.as_mut().expect("a file that is still being written");
        fill(file).map_err(FileError::new("write", &self.path))
    }

    /// Replaces the first bytes after the rest was written, for example a header with a count.
    ///
    /// # Errors
    /// [`FileError`] with the final name.
    pub fn write_start(&mut self, bytes: &[u8]) -> Result<(), FileError> {
        self.write_with(|file| {
            file.seek(SeekFrom::Start(0))?;
            file.write_all(bytes)
        })
    }

    /// Syncs what was written, still under the temporary name, and closes the file. Nothing can be written afterwards.
    ///
    /// # Errors
    /// [`FileError`] with the final name.
    pub fn sync(&mut self) -> Result<(), FileError> {
        let Some(file) = self.file.take() else { return Ok(()) };
        let synced = file.into_inner().map_err(IntoInnerError::into_error).and_then(|file| file.sync_all());
        synced.map_err(FileError::new("write", &self.path))
    }

    /// Renames the file to its final name and syncs the folder.
    ///
    /// # Errors
    /// [`FileError`]; an existing file of this name is then unchanged.
    pub fn commit(mut self) -> Result<(), FileError> {
        self.rename()?;
        sync(parent_of(&self.path))
    }

    /// Syncs the file and renames it to its final name.
    fn rename(&mut self) -> Result<(), FileError> {
        self.sync()?;
        let path = &self.path;
        self.partial.finish(|partial| fs::rename(partial, path)).map_err(FileError::new("write", path))
    }
}

impl Drop for AtomicFile {
    fn drop(&mut self) {
        if let Some(file) = self.file.take() {
            // The file is removed, so the rest of the buffer need not be written.
            drop(file.into_parts());
        }
    }
}

/// Suffix of temporary names.
const PARTIAL: &str = ".partial";
/// Longest name in bytes that its temporary name contains unchanged; file systems allow 255 bytes for the temporary
/// name.
const LONGEST: usize = 200;

/// The prefix of a file's temporary names.
fn temporary_prefix(name: &OsStr) -> OsString {
    let mut prefix = OsString::from(".");
    if name.len() <= LONGEST {
        prefix.push(name);
    } else {
        prefix.push(digest::of_bytes(name.as_encoded_bytes()));
    }
    prefix.push(".");
    prefix
}

/// Removes temporary files that killed processes left: those that are not locked. Files that cannot be opened stay.
fn remove_leftovers(dir: &Path, name: &OsStr) {
    let prefix = temporary_prefix(name);
    let is_leftover = |found: &OsStr| {
        let rest = found.as_encoded_bytes().strip_prefix(prefix.as_encoded_bytes());
        // Earlier versions did not add a number.
        let rest = rest.and_then(|rest| {
            rest.strip_suffix(PARTIAL.as_bytes()).or((rest == &PARTIAL.as_bytes()[1..]).then_some(b""))
        });
        rest.is_some_and(|number| number.iter().all(|byte| byte.is_ascii_digit() || *byte == b'-'))
    };
    for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
        let is_file = entry.file_type().is_ok_and(|kind| kind.is_file());
        if is_file
            && is_leftover(&entry.file_name())
            && File::open(entry.path()).is_ok_and(|file| file.try_lock().is_ok())
        {
            let _ = fs::remove_file(entry.path());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(dir: &Path) -> Vec<String> {
        let mut names = crate::folder::entry_names(dir).unwrap();
        names.sort();
        names
    }

    #[test]
    fn a_failed_write_keeps_the_old_file_and_leaves_no_part() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a");
        write(&path, b"first").unwrap();
        let full = || io::Error::from(io::ErrorKind::StorageFull);
        let error = write_with(&path, |file| file.write_all(b"half").and_then(|()| Err(full()))).unwrap_err();
        assert!(error.to_string().starts_with("cannot write ") && error.path == path, "{error}");
        assert_eq!((fs::read(&path).unwrap(), names(dir.path())), (b"first".to_vec(), vec!["a".to_owned()]));
        write(&path, b"second").unwrap();
        assert_eq!((fs::read(&path).unwrap(), names(dir.path())), (b"second".to_vec(), vec!["a".to_owned()]));
        assert!(write(&dir.path().join("absent/a"), b"").is_err());
        assert!(write(dir.path(), b"").is_err(), "a folder cannot be replaced by a file");
        assert_eq!(names(dir.path().parent().unwrap()).iter().filter(|name| name.ends_with(".partial")).count(), 0);
    }

    #[test]
    fn a_file_has_its_name_only_after_commit() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("rows");
        let mut file = AtomicFile::create(&path).unwrap();
        file.write_with(|file| file.write_all(b"0 rows|a|b")).unwrap();
        file.write_start(b"2").unwrap();
        file.sync().unwrap();
        let partial = names(dir.path());
        assert!(partial.len() == 1 && partial[0].starts_with(&format!(".rows.{}-", std::process::id())), "{partial:?}");
        file.commit().unwrap();
        assert_eq!((fs::read(&path).unwrap(), names(dir.path())), (b"2 rows|a|b".to_vec(), vec!["rows".to_owned()]));
        write_several(dir.path(), &[("a", b"1".to_vec()), ("rows", b"2".to_vec())]).unwrap();
        assert_eq!(["a", "rows"].map(|name| fs::read(dir.path().join(name)).unwrap()), [b"1", b"2"]);
        assert_eq!(names(dir.path()), ["a", "rows"]);
    }

    /// Regression: both writers used the same temporary name, so the first to finish published the other's bytes.
    #[test]
    fn two_writers_of_one_file_each_publish_their_own() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("vectors.npy");
        let mut first = AtomicFile::create(&path).unwrap();
        first.write_with(|file| file.write_all(b"first, ")).unwrap();
        let mut second = AtomicFile::create(&path).unwrap();
        second.write_with(|file| file.write_all(b"second")).unwrap();
        second.commit().unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"second");
        first.write_with(|file| file.write_all(b"complete")).unwrap();
        first.sync().unwrap();
        // Another writer starts when the first file is complete but not yet renamed.
        drop(AtomicFile::create(&path).unwrap());
        first.commit().unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"first, complete");
        assert_eq!(names(dir.path()), ["vectors.npy"]);
    }

    #[test]
    fn leftovers_of_killed_writers_are_removed_by_the_next() {
        let dir = tempfile::tempdir().unwrap();
        let (leftovers, others) =
            ([".a.partial", ".a.77-0.partial"], [".a.b.partial", ".b.77-0.partial", "a.77-0.partial"]);
        for name in leftovers.iter().chain(&others) {
            fs::write(dir.path().join(name), "half").unwrap();
        }
        write(&dir.path().join("a"), b"complete").unwrap();
        assert_eq!(names(dir.path()), [&others[..2], &["a"], &others[2..]].concat());
    }

    #[test]
    fn the_longest_names_can_be_written() {
        let dir = tempfile::tempdir().unwrap();
        let name = "n".repeat(255);
        write(&dir.path().join(&name), b"complete").unwrap();
        assert_eq!(names(dir.path()), [name]);
    }
}
