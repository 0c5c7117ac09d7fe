//! A file that is written under another name, made durable and renamed: readers see the old file or the new one, never a part.

use std::ffi::{OsStr, OsString};
use std::fs::{self, File};
use std::io::{self, BufWriter, IntoInnerError, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use crate::folder::{parent_of, sync};
use crate::unfinished::Unfinished;
use crate::{FileError, digest};

/// Writes a whole file, or replaces it.
///
/// # Errors
/// [`FileError`]; an older file of this name is then as it was.
pub fn write(path: &Path, bytes: &[u8]) -> Result<(), FileError> {
    write_with(path, |file| file.write_all(bytes))
}

/// Writes a whole file, or replaces it, with what `fill` writes.
///
/// # Errors
/// [`FileError`]; an older file of this name is then as it was.
pub fn write_with(path: &Path, fill: impl FnOnce(&mut BufWriter<File>) -> io::Result<()>) -> Result<(), FileError> {
    let mut file = AtomicFile::create(path)?;
    file.write_with(fill)?;
    file.commit()
}

/// Writes or replaces several files of one folder, each whole. Their names are made durable together, which takes less time than one by
/// one.
///
/// # Errors
/// [`FileError`]; files before the one that failed are new, the others as they were.
pub fn write_several(dir: &Path, files: &[(&str, Vec<u8>)]) -> Result<(), FileError> {
    for (name, bytes) in files {
        let mut file = AtomicFile::create(&dir.join(name))?;
        file.write_with(|file| file.write_all(bytes))?;
        file.rename()?;
    }
    sync(dir)
}

/// A file that is being written under a name of its own, `.NAME.PROCESS-NUMBER.partial`, so that two writers of one file do not meet:
/// each replaces it by a whole one. Dropped before [`commit`](Self::commit), it is removed.
#[derive(Debug)]
pub struct AtomicFile {
    path: PathBuf,
    partial: Unfinished,
    /// None once it is whole on the disk.
    file: Option<BufWriter<File>>,
    /// The same file, open and locked until it has its name: otherwise another process would take it for what a killed one left.
    _locked: File,
}

/// Counts the files of this process.
static NUMBER: AtomicU64 = AtomicU64::new(0);

impl AtomicFile {
    /// Begins a file that is to become `path`. What a killed process left of it is removed.
    ///
    /// # Errors
    /// [`FileError`]: no such folder, no permission.
    pub fn create(path: &Path) -> Result<AtomicFile, FileError> {
        let failed = || FileError::new("write", path);
        let name = path.file_name().unwrap_or_default();
        remove_left(parent_of(path), name);
        loop {
            let number = NUMBER.fetch_add(1, Ordering::Relaxed);
            let mut partial = before(name);
            partial.push(format!("{}-{number}{PARTIAL}", std::process::id()));
            let partial = path.with_file_name(partial);
            let (partial, file) = match Unfinished::begin(&partial, |partial| File::create_new(partial)) {
                // Of a killed process of the same number, on a disk without locks.
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => continue,
                begun => begun.map_err(failed())?,
            };
            // Some network file systems have no locks. There nothing is removed either.
            let _ = file.try_lock();
            // Another process may have removed it before it was locked.
            if partial.path().exists() {
                let _locked = file.try_clone().map_err(failed())?;
                return Ok(AtomicFile { path: path.to_owned(), partial, file: Some(BufWriter::new(file)), _locked });
            }
        }
    }

    /// Writes a part of it.
    ///
    /// # Errors
    /// [`FileError`] with the final name. Panics after [`sync`](Self::sync).
    pub fn write_with(&mut self, fill: impl FnOnce(&mut BufWriter<File>) -> io::Result<()>) -> Result<(), FileError> {
        let file = self.file.as_mut().expect("a file that is still being written");
        fill(file).map_err(FileError::new("write", &self.path))
    }

    /// Replaces the first bytes, after all others were written: a header that counts them.
    ///
    /// # Errors
    /// [`FileError`] with the final name.
    pub fn write_start(&mut self, bytes: &[u8]) -> Result<(), FileError> {
        self.write_with(|file| {
            file.seek(SeekFrom::Start(0))?;
            file.write_all(bytes)
        })
    }

    /// Makes what was written durable, still under the other name, and closes it. Nothing can be written after it.
    ///
    /// # Errors
    /// [`FileError`] with the final name.
    pub fn sync(&mut self) -> Result<(), FileError> {
        let Some(file) = self.file.take() else { return Ok(()) };
        let synced = file.into_inner().map_err(IntoInnerError::into_error).and_then(|file| file.sync_all());
        synced.map_err(FileError::new("write", &self.path))
    }

    /// Gives the file its name, durably.
    ///
    /// # Errors
    /// [`FileError`]; an older file of this name is then as it was.
    pub fn commit(mut self) -> Result<(), FileError> {
        self.rename()?;
        sync(parent_of(&self.path))
    }

    /// Gives the file, whole on the disk, its name.
    fn rename(&mut self) -> Result<(), FileError> {
        self.sync()?;
        let path = &self.path;
        self.partial.finish(|partial| fs::rename(partial, path)).map_err(FileError::new("write", path))
    }
}

impl Drop for AtomicFile {
    fn drop(&mut self) {
        if let Some(file) = self.file.take() {
            // What is still in the buffer is not wanted.
            drop(file.into_parts());
        }
    }
}

/// How the name of a file that is being written ends.
const PARTIAL: &str = ".partial";
/// Bytes of a name that its temporary names hold: file systems take 255 at most.
const LONGEST: usize = 200;

/// How temporary names of a file begin.
fn before(name: &OsStr) -> OsString {
    let mut begin = OsString::from(".");
    if name.len() <= LONGEST {
        begin.push(name);
    } else {
        begin.push(digest::of_bytes(name.as_encoded_bytes()));
    }
    begin.push(".");
    begin
}

/// Removes what killed processes left of a file: what nobody holds a lock on. Whatever cannot be looked at stays.
fn remove_left(dir: &Path, name: &OsStr) {
    let begin = before(name);
    let is_left = |found: &OsStr| {
        let rest = found.as_encoded_bytes().strip_prefix(begin.as_encoded_bytes());
        // Earlier versions had no number.
        let rest = rest.and_then(|rest| {
            rest.strip_suffix(PARTIAL.as_bytes()).or((rest == &PARTIAL.as_bytes()[1..]).then_some(b""))
        });
        rest.is_some_and(|number| number.iter().all(|byte| byte.is_ascii_digit() || *byte == b'-'))
    };
    for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
        let is_file = entry.file_type().is_ok_and(|kind| kind.is_file());
        if is_file && is_left(&entry.file_name()) && File::open(entry.path()).is_ok_and(|file| file.try_lock().is_ok())
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
    fn a_file_that_fails_leaves_the_older_one_and_no_part() {
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

    /// Two writers of one file shared the name of its temporary one: the first to finish published the other's rows.
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
        first.write_with(|file| file.write_all(b"whole")).unwrap();
        first.sync().unwrap();
        // Another one begins while the first is whole and has not its name yet.
        drop(AtomicFile::create(&path).unwrap());
        first.commit().unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"first, whole");
        assert_eq!(names(dir.path()), ["vectors.npy"]);
    }

    #[test]
    fn what_killed_writers_left_is_removed_by_the_next() {
        let dir = tempfile::tempdir().unwrap();
        let (left, others) = ([".a.partial", ".a.77-0.partial"], [".a.b.partial", ".b.77-0.partial", "a.77-0.partial"]);
        for name in left.iter().chain(&others) {
            fs::write(dir.path().join(name), "half").unwrap();
        }
        write(&dir.path().join("a"), b"whole").unwrap();
        assert_eq!(names(dir.path()), [&others[..2], &["a"], &others[2..]].concat());
    }

    #[test]
    fn the_longest_names_can_be_written() {
        let dir = tempfile::tempdir().unwrap();
        let name = "n".repeat(255);
        write(&dir.path().join(&name), b"whole").unwrap();
        assert_eq!(names(dir.path()), [name]);
    }
}
