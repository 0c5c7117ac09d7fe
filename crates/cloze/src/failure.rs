//! Errors with their own exit codes: interrupts and wrong command lines.

use std::path::Path;

use anyhow::{Result, bail};
use cloze_data::DataError;

/// Exit code of an interrupted command: 128 + SIGINT, as in shells.
pub const INTERRUPTED: u8 = 130;

/// A command that cannot be resumed was interrupted. The text says what to do instead.
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

/// An error in the command line that clap does not find. The exit code is 2, as for clap's errors.
#[derive(Debug)]
pub struct UsageError(String);

impl std::fmt::Display for UsageError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for UsageError {}

/// An error in the command line.
pub fn usage(message: impl Into<String>) -> anyhow::Error {
    UsageError(message.into()).into()
}

/// Checks that the output folder does not exist or is empty.
///
/// # Errors
/// The folder is in use.
pub fn check_out(out: &Path) -> Result<()> {
    if !cloze_files::is_unused(out).unwrap_or(false) {
        bail!("{} exists and is not empty; choose another --out, or remove it first", out.display());
    }
    Ok(())
}
