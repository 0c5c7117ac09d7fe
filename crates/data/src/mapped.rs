//! Memory-mapped files: bytes that are read from the disk when they are used, and do not count as memory of their own.
//!
//! Files must not be changed in place while they are mapped. This program writes files under another name and renames them. If
//! another process truncates a mapped file, this process ends with SIGBUS, as with any map.

use std::fs::File;
use std::io;
use std::ops::Deref;
use std::path::Path;

use memmap2::Mmap;
use zerocopy::{FromBytes, Immutable};

use crate::DataError;

/// A file that is mapped for reading. It derefs to its bytes.
#[derive(Debug)]
pub struct MappedFile {
    /// None for an empty file, which cannot be mapped.
    map: Option<Mmap>,
}

impl MappedFile {
    /// Maps a file.
    ///
    /// # Errors
    /// [`DataError::Io`], also for a pipe or a folder.
    pub fn open(path: &Path) -> Result<MappedFile, DataError> {
        let file = File::open(path).map_err(|e| DataError::io("open", path, e))?;
        let length = file.metadata().map_err(|e| DataError::io("read", path, e))?.len();
        let map = (length > 0).then(|| map(&file)).transpose().map_err(|e| DataError::io("map", path, e))?;
        Ok(MappedFile { map })
    }

    /// The bytes of a range as numbers of the machine's byte order. None if the range is not in the file, does not start at
    /// a multiple of the numbers' alignment, or does not contain whole numbers.
    pub fn numbers<T: FromBytes + Immutable>(&self, bytes: std::ops::Range<usize>) -> Option<&[T]> {
        <[T]>::ref_from_bytes(self.get(bytes)?).ok()
    }
}

impl Deref for MappedFile {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        self.map.as_deref().unwrap_or_default()
    }
}

/// Maps an open file that is not empty.
#[allow(unsafe_code)]
pub(crate) fn map(file: &File) -> io::Result<Mmap> {
    // SAFETY: the map is read-only, and its bytes are checked before they are interpreted. Files are never changed in place: see the
    // module's docs, also for the case that another process truncates the file.
    unsafe { Mmap::map(file) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_and_numbers_of_a_file_are_mapped() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("x");
        std::fs::write(&path, [1u32, 2, 3].map(u32::to_ne_bytes).concat()).unwrap();
        let file = MappedFile::open(&path).unwrap();
        assert_eq!(file.len(), 12);
        assert_eq!(file.numbers::<u32>(4..12), Some(&[2, 3][..]));
        for outside in [1..5, 0..6, 8..16] {
            assert_eq!(file.numbers::<u32>(outside), None);
        }
        std::fs::write(dir.path().join("empty"), "").unwrap();
        assert!(MappedFile::open(&dir.path().join("empty")).unwrap().is_empty());
        let message = MappedFile::open(&dir.path().join("absent")).unwrap_err().to_string();
        assert!(message.contains("absent"), "{message}");
    }
}
