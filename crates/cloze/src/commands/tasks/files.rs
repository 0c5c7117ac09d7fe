//! Input files of task commands.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use cloze_tasks::datasets::preset::{DatasetPreset, Split};

/// The given files of a split; without any, the file of the known task in the folder `data`.
pub fn files_or_preset(
    given: &[PathBuf],
    data: Option<&PathBuf>,
    preset: Option<&DatasetPreset>,
    split: Split,
) -> Result<Vec<PathBuf>> {
    match (given, data, preset) {
        ([], Some(folder), Some(preset)) => Ok(vec![preset.find(folder, split)?]),
        _ => Ok(given.to_vec()),
    }
}

/// Checks that the files exist, before anything is downloaded or opened.
pub fn check_files<'a>(files: impl IntoIterator<Item = &'a PathBuf>) -> Result<()> {
    files.into_iter().filter(|path| *path != Path::new("-")).try_for_each(|path| {
        std::fs::metadata(path).map(drop).with_context(|| format!("cannot open {}", path.display()))
    })
}
