//! The commands about tasks, and what they share: which task, how its files are read.

pub mod evaluate;
mod fine_tuned;
pub mod finetune;
mod per_kind;
pub mod predict;
mod read;
mod recipe;
mod runs;
pub mod sweep;

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use cloze_tasks::datasets::known::{Known, Split};

pub use fine_tuned::config_of;
pub use per_kind::{PerKind, option_before};
use read::DataArguments;

/// Files of a split that were given, or those of the known task in its folder.
fn files_or_known(
    given: &[PathBuf],
    data: Option<&PathBuf>,
    known: Option<&Known>,
    split: Split,
) -> Result<Vec<PathBuf>> {
    match (given, data, known) {
        ([], Some(folder), Some(known)) => Ok(vec![known.find(folder, split)?]),
        _ => Ok(given.to_vec()),
    }
}

/// Finds files that are not there before anything is downloaded or opened.
fn check_files<'a>(files: impl IntoIterator<Item = &'a PathBuf>) -> Result<()> {
    files.into_iter().filter(|path| *path != Path::new("-")).try_for_each(|path| {
        std::fs::metadata(path).map(drop).with_context(|| format!("cannot open {}", path.display()))
    })
}
