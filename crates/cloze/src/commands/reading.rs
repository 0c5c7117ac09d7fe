//! Measures the input of a dry run.

use std::path::PathBuf;

use anyhow::{Result, bail};
use cloze_data::corpus::{CorpusOptions, open_corpus};

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
