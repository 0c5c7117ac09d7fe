//! The arguments of `cloze inspect`, and the size of a folder.

use std::ops::Range;
use std::path::{Path, PathBuf};

use crate::commands::model::HubArguments;

/// `cloze inspect PATH`
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  cloze inspect runs/mini/model\n  cloze inspect shards --examples 5\n  \
        cloze inspect mini",
    after_long_help = "PATH may be a model folder or checkpoint (its sizes and parameter table), a run's folder, a \
        vocabulary (folder, vocab.txt or tokenizer.json), a folder of shards or one .arrow shard (its counts, its corpus \
        report and examples as a model would see them), or a recipe, by its file or by its name (its model, its phases, and \
        examples where its shards lie).\n\nIn the examples, segment A and segment B have a colour each; `[MASK]→walk` is a token to be predicted, \
        `cat→walk` one replaced by a random token, `walk=` one kept as it is.\n\n\
        Examples:\n  cloze inspect runs/mini/model --json | jq .name\n  cloze inspect shards --examples 5\n  \
        cloze inspect mini --set data=shards\n  \
        cloze inspect mini --set data=shards --write-batches batches.arrow --steps 0..100"
)]
pub struct Arguments {
    /// What to look at: a file, a folder, or a model's name on the Hugging Face Hub
    #[arg(value_name = "PATH|NAME")]
    pub path: PathBuf,

    #[command(flatten)]
    pub hub: HubArguments,

    /// Decoded examples to show, from shards and recipes
    #[arg(long, default_value_t = 3, value_name = "N", value_parser = crate::values::items_or_none)]
    pub examples: usize,

    /// Override a recipe's key, as in `cloze pretrain`; may be repeated
    #[arg(long = "set", value_name = "KEY=VALUE")]
    pub overrides: Vec<String>,

    /// Write the batches of a recipe's first phase as an Arrow IPC file, so that another trainer can train on the same
    #[arg(long, value_name = "FILE", requires = "steps")]
    pub write_batches: Option<PathBuf>,

    /// Which steps to write: A..B, from 0, B excluded
    #[arg(long, value_name = "A..B", value_parser = steps, requires = "write_batches")]
    pub steps: Option<Range<u64>>,

    /// Print JSON, one object a line
    #[arg(long)]
    pub json: bool,
}

fn steps(text: &str) -> Result<Range<u64>, String> {
    let bad = || "must be A..B with A below B, such as 0..100".to_string();
    let (from, to) = text.split_once("..").ok_or_else(bad)?;
    let range = from.trim().parse().map_err(|_| bad())?..to.trim().parse().map_err(|_| bad())?;
    if range.is_empty() { Err(bad()) } else { Ok(range) }
}

/// The bytes of all files below a folder.
pub fn folder_bytes(dir: &Path) -> u64 {
    let Ok(entries) = std::fs::read_dir(dir) else { return 0 };
    entries
        .flatten()
        .map(|entry| match entry.metadata() {
            Ok(meta) if meta.is_dir() => folder_bytes(&entry.path()),
            Ok(meta) => meta.len(),
            Err(_) => 0,
        })
        .sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn step_ranges_are_checked() {
        assert_eq!(steps("0..100"), Ok(0..100));
        for bad in ["5", "5..5", "9..3", "a..b", "-1..3", ".."] {
            assert!(steps(bad).is_err(), "{bad}");
        }
    }
}
