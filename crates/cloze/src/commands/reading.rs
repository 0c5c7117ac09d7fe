//! How long reading a corpus takes, measured on a sample for a dry run.

use std::path::PathBuf;

use anyhow::{Result, bail};
use cloze_data::corpus::{CorpusOptions, open_corpus};

/// Seconds of work by which a dry run judges.
pub const SAMPLE_SECONDS: f64 = 2.0;

/// The bytes of all input, as stored. A dry run must not swallow what can be read but once.
pub fn input_bytes(input: &[PathBuf], options: &CorpusOptions) -> Result<u64> {
    match open_corpus(input, options)?.progress().bytes_total() {
        Some(bytes) => Ok(bytes),
        None => bail!("--dry-run cannot measure standard input, which can be read only once; name files"),
    }
}
