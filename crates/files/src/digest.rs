//! Checksums: xxh3 with 128 bits (<https://xxhash.com>), written as 32 hexadecimal digits.

use std::fs::File;
use std::io::{self, Read, Write};
use std::path::Path;

use serde::{Deserialize, Serialize};
use xxhash_rust::xxh3::{Xxh3, xxh3_128};

use crate::FileError;

/// The size of some bytes and their checksum.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Digest {
    /// Number of bytes.
    pub bytes: u64,
    /// The checksum.
    pub xxh3: String,
}

/// The checksum of some bytes.
pub fn of_bytes(bytes: &[u8]) -> String {
    hex(xxh3_128(bytes))
}

/// Size and checksum of a file. The file is read, not memory-mapped: mapped pages would count as memory of this
/// process.
///
/// # Errors
/// [`FileError`] for a file that cannot be read.
pub fn of_file(path: &Path) -> Result<Digest, FileError> {
    let read = || -> io::Result<Digest> {
        let (mut file, mut digest) = (File::open(path)?, DigestWriter::new(io::sink()));
        let mut buffer = vec![0u8; 1 << 20];
        loop {
            match file.read(&mut buffer)? {
                0 => return Ok(digest.finish().1),
                count => digest.write_all(&buffer[..count])?,
            }
        }
    };
    read().map_err(FileError::new("read", path))
}

/// A writer that computes size and checksum of the bytes that pass through it.
pub struct DigestWriter<W> {
    inner: W,
    hash: Xxh3,
    bytes: u64,
}

impl<W: Write> DigestWriter<W> {
    /// Computes the digest of all bytes that are written to `inner`.
    pub fn new(inner: W) -> DigestWriter<W> {
        DigestWriter { inner, hash: Xxh3::new(), bytes: 0 }
    }

    /// The inner writer, and the digest of what was written.
    pub fn finish(self) -> (W, Digest) {
        (self.inner, Digest { bytes: self.bytes, xxh3: hex(self.hash.digest128()) })
    }
}

impl<W: Write> Write for DigestWriter<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let count = self.inner.write(bytes)?;
        self.hash.update(&bytes[..count]);
        self.bytes += count as u64;
        Ok(count)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.inner.flush()
    }
}

fn hex(checksum: u128) -> String {
    format!("{checksum:032x}")
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Test vector of xxHash: XXH3_128bits of the empty input.
    #[test]
    fn a_file_has_the_checksum_of_its_bytes() {
        assert_eq!(of_bytes(b""), "99aa06d3014798d86001c324468d497f");
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a");
        let bytes: Vec<u8> = (0..3_000_000u32).map(|i| (i * 7 + 3) as u8).collect();
        std::fs::write(&path, &bytes).unwrap();
        assert_eq!(of_file(&path).unwrap(), Digest { bytes: 3_000_000, xxh3: of_bytes(&bytes) });
        let mut writer = DigestWriter::new(Vec::new());
        writer.write_all(b"ab").unwrap();
        writer.write_all(b"c").unwrap();
        assert_eq!(writer.finish(), (b"abc".to_vec(), Digest { bytes: 3, xxh3: of_bytes(b"abc") }));
        assert!(of_file(&dir.path().join("absent")).unwrap_err().to_string().starts_with("cannot read "));
    }
}
