//! A file that is written under another name, made durable and renamed: readers see the old file or the new one, never a part.

use std::ffi::OsString;
use std::fs::{self, File};
use std::io::{self, BufWriter, IntoInnerError, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use crate::FileError;
use crate::folder::{parent_of, sync};

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

/// A file that is being written under the name `.NAME.partial`. Dropped before [`commit`](Self::commit), it is removed.
#[derive(Debug)]
pub struct AtomicFile {
    path: PathBuf,
    partial: PathBuf,
    /// None once it is whole on the disk.
    file: Option<BufWriter<File>>,
}

impl AtomicFile {
    /// Begins a file that is to become `path`.
    ///
    /// # Errors
    /// [`FileError`]: no such folder, no permission.
    pub fn create(path: &Path) -> Result<AtomicFile, FileError> {
        let mut name = OsString::from(".");
        name.push(path.file_name().unwrap_or_default());
        name.push(".partial");
        let partial = path.with_file_name(name);
        let file = File::create(&partial).map_err(FileError::new("write", path))?;
        Ok(AtomicFile { path: path.to_owned(), partial, file: Some(BufWriter::new(file)) })
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
        fs::rename(&self.partial, &self.path).map_err(FileError::new("write", &self.path))?;
        self.partial = PathBuf::new();
        Ok(())
    }
}

impl Drop for AtomicFile {
    fn drop(&mut self) {
        if let Some(file) = self.file.take() {
            // What is still in the buffer is not wanted.
            drop(file.into_parts());
        }
        if self.partial != Path::new("") {
            // The error that led here matters more than a failure to clean up.
            let _ = fs::remove_file(&self.partial);
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
        assert_eq!(names(dir.path()), [".rows.partial"]);
        file.commit().unwrap();
        assert_eq!((fs::read(&path).unwrap(), names(dir.path())), (b"2 rows|a|b".to_vec(), vec!["rows".to_owned()]));
        write_several(dir.path(), &[("a", b"1".to_vec()), ("rows", b"2".to_vec())]).unwrap();
        assert_eq!(["a", "rows"].map(|name| fs::read(dir.path().join(name)).unwrap()), [b"1", b"2"]);
        assert_eq!(names(dir.path()), ["a", "rows"]);
    }
}
