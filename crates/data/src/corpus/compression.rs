//! Streaming decompression: gzip with `flate2` on zlib-rs, zstd with `ruzstd`. No C code.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use flate2::bufread::MultiGzDecoder;
use ruzstd::decoding::errors::{FrameDecoderError, ReadFrameHeaderError};
use ruzstd::decoding::{BlockDecodingStrategy, FrameDecoder};

use crate::DataError;

const BUFFER: usize = 256 << 10;

/// The compression format of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Compression {
    None,
    Gzip,
    Zstd,
}

impl Compression {
    /// Detects the format by the first four bytes.
    pub fn from_magic(start: &[u8]) -> Compression {
        match start {
            [0x1f, 0x8b, ..] => Compression::Gzip,
            // A frame or a skippable frame.
            [0x28, 0xb5, 0x2f, 0xfd, ..] | [0x50..=0x5f, 0x2a, 0x4d, 0x18, ..] => Compression::Zstd,
            _ => Compression::None,
        }
    }

    /// Detects the format by the file name.
    fn from_name(path: &Path) -> Compression {
        let ending = path.extension().unwrap_or_default().to_ascii_lowercase();
        match ending.to_str() {
            Some("gz" | "gzip") => Compression::Gzip,
            Some("zst" | "zstd") => Compression::Zstd,
            _ => Compression::None,
        }
    }

    fn name(self) -> &'static str {
        match self {
            Compression::None => "plain text",
            Compression::Gzip => "gzip",
            Compression::Zstd => "zstd",
        }
    }
}

/// Adds the number of bytes read to a counter.
pub(super) struct CountingReader<R> {
    inner: R,
    read: Arc<AtomicU64>,
}

impl<R: Read> CountingReader<R> {
    pub fn new(inner: R, read: Arc<AtomicU64>) -> CountingReader<R> {
        CountingReader { inner, read }
    }
}

impl<R: Read> Read for CountingReader<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let n = self.inner.read(buffer)?;
        self.read.fetch_add(n as u64, Ordering::Relaxed);
        Ok(n)
    }
}

/// The ratio to the stored size is not limited for data of up to this size after decompression or decoding.
const UNLIMITED_BYTES: u64 = 64 << 20;
/// The maximum ratio above that size. Text has a compression ratio of about 5, very regular log files perhaps 50.
const MAX_RATIO: u64 = 200;

/// Whether `stored` bytes that become `total` bytes are too compressible for text.
pub(super) fn is_bomb(total: u64, stored: u64) -> bool {
    total > UNLIMITED_BYTES && total / MAX_RATIO > stored
}

/// The error message for such data. `how` is the operation: "decompressed" or "decoded".
pub(super) fn bomb_reason(how: &str) -> String {
    format!("is more than {MAX_RATIO} times larger when {how}; expected text")
}

/// The decompressed bytes of a file. It has the file's path for errors.
pub(super) struct Stream {
    reader: Box<dyn BufRead + Send>,
    path: Arc<Path>,
    compression: Compression,
}

impl Stream {
    /// Opens a stream and detects the compression by its first bytes.
    pub fn open(raw: impl Read + Send + 'static, path: &Arc<Path>) -> Result<Stream, DataError> {
        let mut raw = BufReader::with_capacity(BUFFER, raw);
        let start = raw.fill_buf().map_err(|e| DataError::io("read", &**path, e))?;
        let compression = Compression::from_magic(start);
        let named = Compression::from_name(path);
        if compression == Compression::None && named != Compression::None {
            return Err(DataError::Format {
                path: path.to_path_buf(),
                format: named.name(),
                reason: "its first bytes are not those of this format".into(),
            });
        }
        let reader: Box<dyn BufRead + Send> = match compression {
            Compression::None => Box::new(raw),
            Compression::Gzip => Box::new(BufReader::with_capacity(BUFFER, MultiGzDecoder::new(raw))),
            Compression::Zstd => Box::new(BufReader::with_capacity(BUFFER, ZstdReader::new(raw))),
        };
        Ok(Stream { reader, path: path.clone(), compression })
    }

    /// The available bytes; empty at the end.
    pub fn fill(&mut self) -> Result<&[u8], DataError> {
        // Called twice because a borrow that is returned from a match would last too long.
        if let Err(e) = self.reader.fill_buf() {
            return Err(self.error(e));
        }
        match self.reader.fill_buf() {
            Ok(bytes) => Ok(bytes),
            Err(e) => Err(DataError::io("read", &*self.path, e)),
        }
    }

    pub fn consume(&mut self, n: usize) {
        self.reader.consume(n);
    }

    /// The stream with `bytes`, which were read from it, in front of the remaining bytes.
    pub fn put_back(self, bytes: Vec<u8>) -> Stream {
        let reader = Box::new(io::Cursor::new(bytes).chain(self.reader));
        Stream { reader, ..self }
    }

    /// The bytes as a reader. Data that cannot be decompressed gives an I/O error.
    pub fn into_reader(self) -> Box<dyn BufRead + Send> {
        self.reader
    }

    /// Writes the remaining bytes to `out`.
    pub fn copy_to(&mut self, out: &mut impl Write) -> Result<(), DataError> {
        loop {
            let bytes = self.fill()?;
            if bytes.is_empty() {
                return Ok(());
            }
            let n = bytes.len();
            let written = out.write_all(bytes);
            written.map_err(|e| DataError::io("write a temporary copy of", &*self.path, e))?;
            self.consume(n);
        }
    }

    pub fn path(&self) -> &Arc<Path> {
        &self.path
    }

    fn error(&self, e: io::Error) -> DataError {
        // A system error has an error code; the errors of the decoders have none.
        if self.compression == Compression::None || e.raw_os_error().is_some() {
            return DataError::io("read", &*self.path, e);
        }
        DataError::Format { path: self.path.to_path_buf(), format: self.compression.name(), reason: e.to_string() }
    }
}

/// Reads all frames of a zstd file and compares their checksums. (`ruzstd`'s own reader stops after one frame.)
struct ZstdReader<R: BufRead> {
    source: R,
    decoder: FrameDecoder,
    within_frame: bool,
}

impl<R: BufRead> ZstdReader<R> {
    fn new(source: R) -> ZstdReader<R> {
        ZstdReader { source, decoder: FrameDecoder::new(), within_frame: false }
    }

    /// Begins the next frame; false at the end of the file.
    fn begin_frame(&mut self) -> io::Result<bool> {
        loop {
            if self.source.fill_buf()?.is_empty() {
                return Ok(false);
            }
            match self.decoder.init(&mut self.source) {
                Ok(()) => return Ok(true),
                Err(FrameDecoderError::ReadFrameHeaderError(ReadFrameHeaderError::SkipFrame { length, .. })) => {
                    let length = u64::from(length);
                    let mut skipped = self.source.by_ref().take(length);
                    if io::copy(&mut skipped, &mut io::sink())? < length {
                        return Err(io::Error::other("truncated in a skippable frame"));
                    }
                }
                Err(e) => return Err(io::Error::other(innermost(&e))),
            }
        }
    }
}

impl<R: BufRead> Read for ZstdReader<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if buffer.is_empty() {
            return Ok(0);
        }
        loop {
            if !self.within_frame {
                if !self.begin_frame()? {
                    return Ok(0);
                }
                self.within_frame = true;
            }
            while self.decoder.can_collect() == 0 && !self.decoder.is_finished() {
                self.decoder
                    .decode_blocks(&mut self.source, BlockDecodingStrategy::UptoBlocks(1))
                    .map_err(|e| io::Error::other(innermost(&e)))?;
            }
            let n = self.decoder.read(buffer)?;
            if n > 0 {
                return Ok(n);
            }
            let stored = self.decoder.get_checksum_from_data();
            if stored.is_some() && stored != self.decoder.get_calculated_checksum() {
                return Err(io::Error::other("a frame's checksum is wrong"));
            }
            self.within_frame = false;
        }
    }
}

fn innermost(error: &dyn std::error::Error) -> String {
    let mut error = error;
    while let Some(source) = error.source() {
        error = source;
    }
    error.to_string()
}

#[cfg(test)]
mod tests {
    use super::*;
    use ruzstd::encoding::{CompressionLevel, compress_to_vec};

    fn read_all(bytes: Vec<u8>) -> Result<Vec<u8>, DataError> {
        let path: Arc<Path> = Arc::from(Path::new("x.txt"));
        let mut stream = Stream::open(io::Cursor::new(bytes), &path)?;
        let mut out = Vec::new();
        stream.copy_to(&mut out).map(|()| out)
    }

    #[test]
    fn all_zstd_frames_are_read() {
        let text = vec![b'x'; 300_000];
        let frame = compress_to_vec(&text[..], CompressionLevel::Fastest);
        let mut bytes = frame.clone();
        // A skippable frame of three bytes in the middle.
        bytes.extend([0x50, 0x2a, 0x4d, 0x18, 3, 0, 0, 0, 1, 2, 3]);
        bytes.extend(&frame);
        assert_eq!(read_all(bytes.clone()).unwrap().len(), 600_000);
        bytes.pop();
        let error = read_all(bytes).unwrap_err().to_string();
        assert!(error.contains("x.txt: not readable as zstd"), "{error}");
    }

    #[test]
    fn truncated_gzip_is_an_error() {
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        encoder.write_all(&[b'y'; 1000]).unwrap();
        let bytes = encoder.finish().unwrap();
        assert_eq!(read_all(bytes.clone()).unwrap(), [b'y'; 1000]);
        let error = read_all(bytes[..bytes.len() - 4].to_vec()).unwrap_err();
        assert!(error.to_string().contains("gzip"), "{error}");
    }

    #[test]
    fn plain_file_named_gz_is_an_error() {
        let path: Arc<Path> = Arc::from(Path::new("x.txt.gz"));
        assert!(Stream::open(&b"plain"[..], &path).is_err());
    }
}
