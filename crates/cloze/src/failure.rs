//! How commands fail beyond an error of their work: an interrupt, a command line that is wrong.

use std::path::Path;

use anyhow::{Result, bail};
use cloze_data::DataError;

/// What a command that was interrupted ends with, as shells mark an interrupt.
pub const INTERRUPTED: u8 = 130;

/// An interrupt of a command that cannot be resumed; it says what to do instead.
#[derive(Debug)]
pub struct Interrupted(pub &'static str);

impl std::fmt::Display for Interrupted {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "interrupted; {}", self.0)
    }
}

impl std::error::Error for Interrupted {}

/// Whether a command failed because it was interrupted.
pub fn is_interrupt(error: &anyhow::Error) -> bool {
    error.is::<Interrupted>() || matches!(error.downcast_ref(), Some(DataError::Interrupted))
}

/// A command line that is wrong in a way that its parser does not see: the program ends with exit code 2, as for what it does see.
#[derive(Debug)]
pub struct UsageError(String);

impl std::fmt::Display for UsageError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for UsageError {}

/// Refuses a command line.
pub fn usage(message: impl Into<String>) -> anyhow::Error {
    UsageError(message.into()).into()
}

/// A folder that is to be written must not be in use.
pub fn check_out(out: &Path) -> Result<()> {
    if !cloze_files::is_unused(out).unwrap_or(false) {
        bail!("{} exists and is no empty folder; choose another --out, or remove it first", out.display());
    }
    Ok(())
}
