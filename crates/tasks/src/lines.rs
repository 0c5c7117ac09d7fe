//! Streaming reader of UTF-8 lines: of a file (plain, gzip or zstd) or of standard input.

use std::io::{BufRead, Read};
use std::path::{Path, PathBuf};

use cloze_data::corpus::ReadProgress;
use cloze_data::corpus::text::{MAX_LINE, TextFormat, clean_line, too_long};

use crate::TaskError;

/// A reader of lines, by the rules of [`cloze_data::corpus::text`]. Line endings are removed.
pub struct Lines {
    path: PathBuf,
    input: Box<dyn BufRead + Send>,
    stored: ReadProgress,
    /// The number of bytes of the lines read so far.
    bytes_of_lines: u64,
    bytes: Vec<u8>,
    number: usize,
    /// The byte that ends a line; not known before the first line is read.
    line_end: Option<u8>,
    /// Whether the last line was put back.
    is_put_back: bool,
}

impl Lines {
    /// Opens a file, or standard input for `-`.
    ///
    /// # Errors
    /// [`TaskError::Io`]; [`TaskError::File`] if the file name says that the file is compressed and the content is not.
    pub fn open(path: &Path) -> Result<Lines, TaskError> {
        let (input, stored) = cloze_data::corpus::open_file(path).map_err(|e| TaskError::data(path, e))?;
        let path = if path == Path::new("-") { PathBuf::from("standard input") } else { path.to_owned() };
        Ok(Lines {
            path,
            input,
            stored,
            bytes_of_lines: 0,
            bytes: Vec::new(),
            number: 0,
            line_end: None,
            is_put_back: false,
        })
    }

    /// Advances to the next line. Returns false at the end of the input.
    ///
    /// # Errors
    /// [`TaskError::Io`]; [`TaskError::File`] if the start of the input is not text; [`TaskError::Line`] for a line
    /// that is not UTF-8: after it, the next line can be read.
    pub fn advance(&mut self) -> Result<bool, TaskError> {
        if std::mem::take(&mut self.is_put_back) {
            return Ok(true);
        }
        self.bytes.clear();
        let line_end = match self.line_end {
            Some(line_end) => line_end,
            None => {
                let start = self.input.fill_buf().map_err(|e| TaskError::io("read", &self.path, e))?;
                TextFormat::detect(start).map_err(|problem| TaskError::file(&self.path, problem))?.line_end
            }
        };
        self.line_end = Some(line_end);
        let read = (&mut self.input).take(MAX_LINE as u64).read_until(line_end, &mut self.bytes);
        let read = read.map_err(|e| TaskError::io("read", &self.path, e))?;
        if read == 0 {
            return Ok(false);
        }
        self.number += 1;
        self.bytes_of_lines += read as u64;
        if read == MAX_LINE && self.bytes.last() != Some(&line_end) {
            return Err(TaskError::file(&self.path, format!("line {}: {}", self.number, too_long("line"))));
        }
        for end in [b'\n', b'\r'] {
            self.bytes.pop_if(|byte| *byte == end);
        }
        // NUL bytes are removed.
        clean_line(&mut self.bytes, 0).map_err(|problem| self.problem(problem))?;
        Ok(true)
    }

    /// Makes the next [`advance`](Self::advance) return the last line again.
    pub fn put_back(&mut self) {
        self.is_put_back = self.number > 0;
    }

    /// The current line.
    pub fn text(&self) -> &str {
        // Checked by `advance`.
        std::str::from_utf8(&self.bytes).unwrap_or_default()
    }

    /// The number of the current line, from 1.
    pub fn number(&self) -> usize {
        self.number
    }

    /// The number of bytes read. For a compressed file it counts compressed bytes. It never exceeds
    /// [`bytes_total`](Self::bytes_total).
    pub fn bytes_read(&self) -> u64 {
        // A plain file is read ahead of the lines; a compressed file has fewer bytes than its lines.
        self.bytes_of_lines.min(self.stored.bytes_read())
    }

    /// The size of the file in bytes; none for standard input and pipes.
    pub fn bytes_total(&self) -> Option<u64> {
        self.stored.bytes_total()
    }

    /// The path of the file, or "standard input".
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// An error about the current line.
    pub fn problem(&self, problem: impl Into<String>) -> TaskError {
        TaskError::line(&self.path, self.number, problem)
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    fn read(name: &str, bytes: &[u8]) -> Result<Vec<(usize, String)>, TaskError> {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join(name);
        std::fs::write(&path, bytes).unwrap();
        let mut lines = Lines::open(&path)?;
        let mut found = Vec::new();
        while lines.advance()? {
            found.push((lines.number(), lines.text().to_owned()));
        }
        Ok(found)
    }

    #[test]
    fn compressed_files_give_the_same_lines() {
        let text = b"\xef\xbb\xbfone\r\n\ntwo";
        let expected: Vec<(usize, String)> = [(1, "one"), (2, ""), (3, "two")].map(|(n, s)| (n, s.to_owned())).into();
        assert_eq!(read("a.txt", text).unwrap(), expected);
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        encoder.write_all(text).unwrap();
        let packed = encoder.finish().unwrap();
        assert_eq!(read("a.txt.gz", &packed).unwrap(), expected);
        assert_eq!(read("a.txt", &packed).unwrap(), expected, "the name does not matter");

        let short = read("a.txt.gz", &packed[..packed.len() - 6]).unwrap_err().to_string();
        assert!(short.contains("cannot read") && short.contains("a.txt.gz"), "{short}");
        let misnamed = read("a.txt.gz", b"plain").unwrap_err().to_string();
        assert!(misnamed.contains("a.txt.gz") && misnamed.contains("gzip"), "{misnamed}");
    }

    #[test]
    fn invalid_utf8_is_reported_with_its_line() {
        let latin = read("a.txt", b"good\nb\xe4d").unwrap_err().to_string();
        assert!(latin.contains("a.txt:2: byte 2 of the line (0xe4)"), "{latin}");
        assert!(Lines::open(Path::new("absent.txt")).err().unwrap().to_string().contains("absent.txt"));
    }
}
