//! The files of a command about tasks.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use cloze_tasks::datasets::preset::{DatasetPreset, Split};

/// Files of a split that were given, or those of the known task in its folder.
pub fn files_or_known(
    given: &[PathBuf],
    data: Option<&PathBuf>,
    known: Option<&DatasetPreset>,
    split: Split,
) -> Result<Vec<PathBuf>> {
    match (given, data, known) {
        ([], Some(folder), Some(known)) => Ok(vec![known.find(folder, split)?]),
        _ => Ok(given.to_vec()),
    }
}

/// Finds files that are not there before anything is downloaded or opened.
pub fn check_files<'a>(files: impl IntoIterator<Item = &'a PathBuf>) -> Result<()> {
    files.into_iter().filter(|path| *path != Path::new("-")).try_for_each(|path| {
        std::fs::metadata(path).map(drop).with_context(|| format!("cannot open {}", path.display()))
    })
}
