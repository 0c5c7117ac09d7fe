//! Reading complete text files, and their lines.

use std::path::Path;

use crate::TaskError;

/// Reads the text of a file, by the rules of [`cloze_data::corpus::text`].
pub(super) fn read_text(path: &Path) -> Result<String, TaskError> {
    Ok(cloze_data::corpus::read_text(path).map_err(|e| TaskError::data(path, e))?.0)
}

/// The lines of a text, without line endings (`\n` or `\r\n`), with their numbers from 1.
pub(super) fn lines(text: &str) -> impl Iterator<Item = (usize, &str)> + Clone {
    text.lines().enumerate().map(|(index, line)| (index + 1, line))
}

/// The name of a file in lower case, without the extension of a compression: its extension tells the format.
pub fn plain_name(path: &Path) -> String {
    let name = path.file_name().unwrap_or_default().to_string_lossy().to_lowercase();
    let compressions = [".gz", ".gzip", ".zst", ".zstd"];
    compressions.iter().find_map(|ending| name.strip_suffix(ending)).unwrap_or(&name).to_owned()
}
