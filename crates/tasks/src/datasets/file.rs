//! A text file read whole: decompressed, without its byte-order mark, and UTF-8.

use std::path::Path;

use crate::TaskError;

/// Reads a file's text.
pub(super) fn read_text(path: &Path) -> Result<String, TaskError> {
    let mut bytes = cloze_data::corpus::read_file(path).map_err(|e| TaskError::data(path, e))?;
    if bytes.starts_with(b"\xef\xbb\xbf") {
        bytes.drain(..3);
    }
    String::from_utf8(bytes).map_err(|e| {
        let at = e.utf8_error().valid_up_to();
        let (before, rest) = e.as_bytes().split_at(at);
        let line = 1 + before.iter().filter(|&&byte| byte == b'\n').count();
        let column = 1 + before.iter().rev().take_while(|&&byte| byte != b'\n').count();
        let byte = rest.first().copied().unwrap_or_default();
        let problem = format!(
            "byte {column} of the line (0x{byte:02x}) is not UTF-8; convert the file first, e.g. iconv -f latin1 -t utf-8"
        );
        TaskError::line(path, line, problem)
    })
}

/// The lines of a text with their numbers from 1, without line ends (`\n` or `\r\n`).
pub(super) fn lines(text: &str) -> impl Iterator<Item = (usize, &str)> + Clone {
    text.lines().enumerate().map(|(index, line)| (index + 1, line))
}

/// A file's name in lower case without a compression's ending: what tells its kind.
pub fn plain_name(path: &Path) -> String {
    let name = path.file_name().unwrap_or_default().to_string_lossy().to_lowercase();
    let compressions = [".gz", ".gzip", ".zst", ".zstd"];
    compressions.iter().find_map(|ending| name.strip_suffix(ending)).unwrap_or(&name).to_owned()
}
