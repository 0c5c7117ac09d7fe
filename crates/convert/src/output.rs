//! Checks the output folder.

use std::io;
use std::path::Path;

use crate::error::ConvertError;

/// Rejects an output folder that is not empty.
///
/// # Errors
/// [`ConvertError::Output`], [`ConvertError::Io`].
pub(crate) fn check(out: &Path) -> Result<(), ConvertError> {
    let refuse = |reason| Err(ConvertError::Output { path: out.to_owned(), reason });
    if out.file_name().is_none() {
        return refuse("expected the path of a new folder");
    }
    match cloze_files::is_unused(out) {
        Ok(true) => Ok(()),
        Ok(false) => refuse("the folder exists and is not empty; choose another, or remove it first"),
        Err(e) if e.source.kind() == io::ErrorKind::NotADirectory => refuse("expected a folder, found a file"),
        Err(e) => Err(e.into()),
    }
}
