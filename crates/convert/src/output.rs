//! Whether a folder may be written.

use std::io;
use std::path::Path;

use crate::error::ConvertError;

/// Refuses an output folder that holds something.
///
/// # Errors
/// [`ConvertError::Output`], [`ConvertError::Io`].
pub(crate) fn check(out: &Path) -> Result<(), ConvertError> {
    let refuse = |reason| Err(ConvertError::Output { path: out.to_owned(), reason });
    if out.file_name().is_none() {
        return refuse("expected the name of a folder to be made");
    }
    match cloze_files::is_unused(out) {
        Ok(true) => Ok(()),
        Ok(false) => refuse("it exists and is not empty; choose another, or remove it first"),
        Err(e) if e.source.kind() == io::ErrorKind::NotADirectory => refuse("it is a file; expected a folder"),
        Err(e) => Err(e.into()),
    }
}
