//! The commands about tasks, and what they share: which task, how its files are read.

pub mod evaluate;
mod fine_tuned;
pub mod finetune;
mod kind;
mod per_kind;
pub mod predict;
mod read;
mod recipe;
mod remembered;
mod runs;
pub mod sweep;

use std::path::PathBuf;

use anyhow::Result;
use cloze_tasks::datasets::known::{Known, Split};

use fine_tuned::FineTuned;
pub use fine_tuned::config_of;
pub use kind::Kind;
use kind::{ForTask, for_kind};
pub use per_kind::PerKind;
use read::DataArguments;
pub use remembered::Remembered;

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
