//! `cloze bench`: how fast this machine trains and infers.

mod defaults;
mod measure;
mod sweep;

use anyhow::Result;

use crate::terminal::Terminal;

/// `cloze bench train|infer|sweep`
#[derive(Debug, clap::Subcommand)]
#[command(after_help = "Example:\n  cloze bench train --layers 4 --hidden 256 --heads 4 --batch 32 --seq 128 --json")]
pub enum Benchmark {
    /// A pre-training step: MLM + NSP forward and backward with dropout, clipping, AdamW
    Train(measure::Arguments),
    /// The encoder's forward pass
    Infer(measure::Arguments),
    /// Tokens/s over batch, length, width, depth and threads, as a table and a picture
    Sweep(sweep::Arguments),
    /// Whether the default instruction set and precision are the fastest here
    Defaults(defaults::Arguments),
}

pub fn run(work: &Benchmark, terminal: &Terminal) -> Result<()> {
    match work {
        Benchmark::Train(arguments) => measure::run(arguments, true, terminal),
        Benchmark::Infer(arguments) => measure::run(arguments, false, terminal),
        Benchmark::Sweep(arguments) => sweep::run(arguments, terminal),
        Benchmark::Defaults(arguments) => defaults::run(arguments, terminal),
    }
}
