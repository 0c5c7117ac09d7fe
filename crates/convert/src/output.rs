//! Whether a folder may be written.

use std::path::Path;
use std::{fs, io};

use crate::ConvertError;

/// Refuses an output folder that holds something.
///
/// # Errors
/// [`ConvertError::Output`], [`ConvertError::Io`].
pub(crate) fn check(out: &Path) -> Result<(), ConvertError> {
    let refuse = |reason| Err(ConvertError::Output { path: out.to_owned(), reason });
    if out.file_name().is_none() {
        return refuse("expected the name of a folder to be made");
    }
    match fs::read_dir(out).map(|mut entries| entries.next().is_some()) {
        Ok(true) => refuse("it exists and is not empty; choose another, or remove it first"),
        Ok(false) => Ok(()),
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(e) if e.kind() == io::ErrorKind::NotADirectory => refuse("it is a file; expected a folder"),
        Err(e) => Err(ConvertError::io("read", out)(e)),
    }
}
