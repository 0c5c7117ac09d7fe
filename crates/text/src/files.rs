//! Reads the files of a tokenizer.

use std::fs;
use std::path::Path;

use crate::TextError;

/// The bytes of a file.
pub(crate) fn read(path: &Path) -> Result<Vec<u8>, TextError> {
    fs::read(path).map_err(|source| TextError::Io { action: "read", path: path.to_owned(), source })
}

/// The bytes of a file as text, without a byte-order mark.
pub(crate) fn text<'a>(bytes: &'a [u8], path: &Path) -> Result<&'a str, TextError> {
    let text = std::str::from_utf8(bytes).map_err(|error| {
        let byte = error.valid_up_to();
        let line = bytes[..byte].iter().filter(|&&b| b == b'\n').count() + 1;
        TextError::NotUtf8 { path: path.to_owned(), line, byte }
    })?;
    Ok(text.strip_prefix('\u{feff}').unwrap_or(text))
}
