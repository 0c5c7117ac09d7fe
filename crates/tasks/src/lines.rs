//! Lines of UTF-8 as they come, of a file, plain, gzip or zstd, or of standard input.

use std::io::{BufRead, Read};
use std::path::{Path, PathBuf};

use cloze_data::corpus::ReadProgress;

use crate::TaskError;

/// The longest line in bytes: longer ones are no text.
const MAX_LINE: u64 = 64 << 20;

/// A reader of lines. A byte-order mark and the lines' ends are taken away.
pub struct Lines {
    path: PathBuf,
    input: Box<dyn BufRead + Send>,
    stored: ReadProgress,
    /// Bytes of the lines so far.
    bytes_of_lines: u64,
    bytes: Vec<u8>,
    number: usize,
    /// Whether the line last read comes once more.
    again: bool,
}

impl Lines {
    /// Opens a file, or standard input for `-`.
    ///
    /// # Errors
    /// [`TaskError::Io`]; [`TaskError::File`] when its name promises a compression that it does not have.
    pub fn open(path: &Path) -> Result<Lines, TaskError> {
        let (input, stored) = cloze_data::corpus::open_file(path).map_err(|e| TaskError::data(path, e))?;
        let path = if path == Path::new("-") { PathBuf::from("standard input") } else { path.to_owned() };
        Ok(Lines { path, input, stored, bytes_of_lines: 0, bytes: Vec::new(), number: 0, again: false })
    }

    /// Goes to the next line; false at the end.
    ///
    /// # Errors
    /// [`TaskError::Io`]; [`TaskError::Line`] for what is not UTF-8 or far too long to be text.
    pub fn advance(&mut self) -> Result<bool, TaskError> {
        if std::mem::take(&mut self.again) {
            return Ok(true);
        }
        self.bytes.clear();
        let read = (&mut self.input).take(MAX_LINE).read_until(b'\n', &mut self.bytes);
        let read = read.map_err(|e| TaskError::io("read", &self.path, e))?;
        if read == 0 {
            return Ok(false);
        }
        self.number += 1;
        self.bytes_of_lines += read as u64;
        if read as u64 == MAX_LINE && self.bytes.last() != Some(&b'\n') {
            return Err(self.problem(format!("a line of more than {} MiB; expected text", MAX_LINE >> 20)));
        }
        if self.number == 1 && self.bytes.starts_with(b"\xef\xbb\xbf") {
            self.bytes.drain(..3);
        }
        for end in [b'\n', b'\r'] {
            self.bytes.pop_if(|byte| *byte == end);
        }
        if let Err(e) = std::str::from_utf8(&self.bytes) {
            let (column, byte) = (e.valid_up_to() + 1, self.bytes.get(e.valid_up_to()).copied().unwrap_or_default());
            return Err(self.problem(format!(
                "byte {column} of the line (0x{byte:02x}) is not UTF-8; convert the file first, e.g. iconv -f latin1 -t utf-8"
            )));
        }
        Ok(true)
    }

    /// Lets the line last read come once more.
    pub fn put_back(&mut self) {
        self.again = self.number > 0;
    }

    /// The line.
    pub fn text(&self) -> &str {
        // Checked by `advance`.
        std::str::from_utf8(&self.bytes).unwrap_or_default()
    }

    /// Its number, from 1.
    pub fn number(&self) -> usize {
        self.number
    }

    /// Bytes of the file that are read, of the compressed one as it is stored: never more than [`bytes_total`](Self::bytes_total).
    pub fn bytes_read(&self) -> u64 {
        // A plain file is read ahead; of a compressed one there are more bytes of lines.
        self.bytes_of_lines.min(self.stored.bytes_read())
    }

    /// Bytes of the file; unknown of standard input and of pipes.
    pub fn bytes_total(&self) -> Option<u64> {
        self.stored.bytes_total()
    }

    /// The file, or "standard input".
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// An error of the line last read.
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
    fn compressed_lines_are_read_as_plain_ones() {
        let text = b"\xef\xbb\xbfone\r\n\ntwo";
        let expected: Vec<(usize, String)> = [(1, "one"), (2, ""), (3, "two")].map(|(n, s)| (n, s.to_owned())).into();
        assert_eq!(read("a.txt", text).unwrap(), expected);
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        encoder.write_all(text).unwrap();
        let packed = encoder.finish().unwrap();
        assert_eq!(read("a.txt.gz", &packed).unwrap(), expected);
        assert_eq!(read("a.txt", &packed).unwrap(), expected, "whatever it is called");

        let short = read("a.txt.gz", &packed[..packed.len() - 6]).unwrap_err().to_string();
        assert!(short.contains("cannot read") && short.contains("a.txt.gz"), "{short}");
        let lies = read("a.txt.gz", b"plain").unwrap_err().to_string();
        assert!(lies.contains("a.txt.gz") && lies.contains("gzip"), "{lies}");
    }

    #[test]
    fn what_is_no_text_is_named_by_its_line() {
        let latin = read("a.txt", b"good\nb\xe4d").unwrap_err().to_string();
        assert!(latin.contains("a.txt:2: byte 2 of the line (0xe4)"), "{latin}");
        assert!(Lines::open(Path::new("absent.txt")).err().unwrap().to_string().contains("absent.txt"));
    }
}
