//! The arguments of `cloze inspect`, and the size of a folder.

use std::ops::Range;
use std::path::{Path, PathBuf};

use crate::commands::model::HubArguments;

/// `cloze inspect PATH`
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  cloze inspect runs/mini/model\n  cloze inspect shards --examples 5\n  \
        cloze inspect mini",
    after_long_help = "PATH can be:\n\n\
        - a model folder or checkpoint: sizes and parameters\n\
        - a run folder: progress and checkpoints\n\
        - a vocabulary: a folder, tokenizer.json, vocab.txt, vocab.json or a SentencePiece model (.model)\n\
        - a folder of shards or one .arrow shard: counts, corpus report, and examples of the model's inputs\n\
        - a recipe file or the name of a recipe: model, phases, and examples if its shards exist\n\n\
        In the examples, segments A and B have different colours; `[MASK]→walk` is a masked token to predict, `cat→walk` one \
        replaced by a random token, `walk=` one left unchanged.\n\n\
        Examples:\n  cloze inspect runs/mini/model --json | jq .name\n  cloze inspect shards --examples 5\n  \
        cloze inspect mini --set data=shards\n  \
        cloze inspect mini --set data=shards --write-batches batches.arrow --steps 0..100"
)]
pub struct Arguments {
    /// File or folder, or name of a recipe or of a model on the Hugging Face Hub
    #[arg(value_name = "PATH|NAME")]
    pub path: PathBuf,

    #[command(flatten)]
    pub hub: HubArguments,

    /// Number of decoded examples to show, for shards and recipes
    #[arg(long, default_value_t = 3, value_name = "N", value_parser = crate::values::items_or_none)]
    pub examples: usize,

    /// Override a key of the recipe, as in `cloze pretrain`; can be repeated
    #[arg(long = "set", value_name = "KEY=VALUE")]
    pub overrides: Vec<String>,

    /// Write the batches of a recipe's first phase as an Arrow IPC file, for other training programs
    #[arg(long, value_name = "FILE", requires = "steps")]
    pub write_batches: Option<PathBuf>,

    /// Range of steps to write: A..B, starting at 0, without B
    #[arg(long, value_name = "A..B", value_parser = steps, requires = "write_batches")]
    pub steps: Option<Range<u64>>,

    /// Print JSON, one object per line
    #[arg(long)]
    pub json: bool,
}

fn steps(text: &str) -> Result<Range<u64>, String> {
    let bad = || "must be A..B with A less than B, such as 0..100".to_string();
    let (from, to) = text.split_once("..").ok_or_else(bad)?;
    let range = from.trim().parse().map_err(|_| bad())?..to.trim().parse().map_err(|_| bad())?;
    if range.is_empty() { Err(bad()) } else { Ok(range) }
}

/// The total size in bytes of all files in a folder and its subfolders.
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
    fn invalid_step_ranges_are_refused() {
        assert_eq!(steps("0..100"), Ok(0..100));
        for bad in ["5", "5..5", "9..3", "a..b", "-1..3", ".."] {
            assert!(steps(bad).is_err(), "{bad}");
        }
    }
}
