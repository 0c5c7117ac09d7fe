//! Checks and measures the input of commands that read a corpus.

use std::path::PathBuf;

use anyhow::{Result, bail};
use cloze_comm::Communicator;
use cloze_data::corpus::{CorpusOptions, open_corpus};

use crate::failure::usage;

/// Seconds of work that a dry run measures.
pub const SAMPLE_SECONDS: f64 = 2.0;

/// The total size of the input in bytes, as stored.
///
/// # Errors
/// Standard input is refused, because a dry run would consume it.
pub fn input_bytes(input: &[PathBuf], options: &CorpusOptions) -> Result<u64> {
    match open_corpus(input, options)?.progress().bytes_total() {
        Some(bytes) => Ok(bytes),
        None => bail!("--dry-run cannot use standard input, which can be read only once; give files"),
    }
}

/// Checks that all ranks of a job can read the input.
///
/// # Errors
/// Standard input and pipes, which only one process can read; what [`open_corpus`] finds.
pub fn check_shared_input(input: &[PathBuf], options: &CorpusOptions, ranks: &Communicator) -> Result<()> {
    if ranks.is_single() || open_corpus(input, options)?.progress().bytes_total().is_some() {
        return Ok(());
    }
    Err(usage(format!(
        "standard input and pipes can be read by one process only, and this job has {}: give files, or start the command without \
         the launcher",
        ranks.size()
    )))
}
