//! Lines of UTF-8 as they come, of a file, plain, gzip or zstd, or of standard input.

use std::io::{BufRead, Read};
use std::path::{Path, PathBuf};

use cloze_data::corpus::ReadProgress;
use cloze_data::corpus::text::{MAX_LINE, TextFormat, clean_line, too_long};

use crate::TaskError;

/// A reader of lines, by the rules of [`cloze_data::corpus::text`]. The lines' ends are taken away.
pub struct Lines {
    path: PathBuf,
    input: Box<dyn BufRead + Send>,
    stored: ReadProgress,
    /// Bytes of the lines so far.
    bytes_of_lines: u64,
    bytes: Vec<u8>,
    number: usize,
    /// What ends a line; not known before the first.
    line_end: Option<u8>,
    nuls: usize,
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
        Ok(Lines {
            path,
            input,
            stored,
            bytes_of_lines: 0,
            bytes: Vec::new(),
            number: 0,
            line_end: None,
            nuls: 0,
            again: false,
        })
    }

    /// Goes to the next line; false at the end.
    ///
    /// # Errors
    /// [`TaskError::Io`]; [`TaskError::File`] for what is not text from its beginning; [`TaskError::Line`] for a line that is not UTF-8,
    /// after which the next line may be read.
    pub fn advance(&mut self) -> Result<bool, TaskError> {
        if std::mem::take(&mut self.again) {
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
        match clean_line(&mut self.bytes, 0) {
            Ok(nuls) => self.nuls += nuls,
            Err(problem) => return Err(self.problem(problem)),
        }
        Ok(true)
    }

    /// NUL bytes that were dropped so far.
    pub fn nuls(&self) -> usize {
        self.nuls
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
