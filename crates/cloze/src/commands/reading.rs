//! How long reading a corpus takes: said once when it shows, and measured on a sample for a dry run.

use std::cell::Cell;
use std::path::PathBuf;

use anyhow::{Result, bail};
use cloze_data::corpus::{CorpusOptions, open_corpus};

use crate::format;
use crate::terminal::Progress;

/// Seconds of work by which a dry run judges.
pub const SAMPLE_SECONDS: f64 = 2.0;
/// Shorter stages are over before the line is read.
const WORTH_SAYING: f64 = 10.0;

/// Says how long a stage takes, once its first second shows it.
#[derive(Default)]
pub struct Announcement {
    said: Cell<bool>,
}

impl Announcement {
    /// `read` bytes of `total` are done; `after` is what follows the reading.
    pub fn consider(&self, bar: &Progress, read: u64, total: Option<u64>, after: &str) {
        let seconds = bar.seconds();
        if self.said.get() || seconds < 1.0 || read == 0 {
            return;
        }
        self.said.set(true);
        let Some(total) = total else { return };
        let all = seconds * total as f64 / read as f64;
        if all >= WORTH_SAYING {
            bar.note(&format!("about {} for {}{after}", format::duration(all), format::bytes(total)));
        }
    }
}

/// The bytes of all input, as stored. A dry run must not swallow what can be read but once.
pub fn input_bytes(input: &[PathBuf], options: &CorpusOptions) -> Result<u64> {
    match open_corpus(input, options)?.progress().bytes_total() {
        Some(bytes) => Ok(bytes),
        None => bail!("--dry-run cannot measure standard input, which can be read only once; name files"),
    }
}

/// Seconds for `total` bytes where `read` of them took `seconds`; exact where all were read.
pub fn expected_seconds(total: u64, read: u64, seconds: f64) -> f64 {
    seconds * (total as f64 / read.max(1) as f64).max(1.0)
}
