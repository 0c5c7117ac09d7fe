//! `cloze bench`: measures the speed of training and inference on this machine.

mod defaults;
mod devices;
mod measure;
mod scale;
mod sweep;

use anyhow::Result;

use crate::terminal::Terminal;

/// `cloze bench train|infer|sweep|scale|defaults|devices`
#[derive(Debug, clap::Subcommand)]
#[command(after_help = "Example:\n  cloze bench train --layers 4 --hidden 256 --heads 4 --batch 32 --seq 128 --json")]
pub enum Benchmark {
    /// A pre-training step with the losses of the family: forward, backward with dropout, clipping, the optimizer
    Train(measure::Arguments),
    /// The encoder's forward pass
    Infer(measure::Arguments),
    /// Tokens/s for varying batch, length, width, depth and threads, as a table and a chart
    Sweep(sweep::Arguments),
    /// A training step shared by the ranks of a job, and the exchange between them
    Scale(scale::Arguments),
    /// Check whether the default instruction set and precision are the fastest
    Defaults(defaults::Arguments),
    /// The devices of this machine, and NVIDIA's libraries: where each was found, or why not
    Devices(devices::Arguments),
}

pub fn run(benchmark: &Benchmark, terminal: &Terminal) -> Result<()> {
    match benchmark {
        Benchmark::Train(arguments) => measure::run(arguments, true, terminal),
        Benchmark::Infer(arguments) => measure::run(arguments, false, terminal),
        Benchmark::Sweep(arguments) => sweep::run(arguments, terminal),
        Benchmark::Scale(arguments) => scale::run(arguments, terminal),
        Benchmark::Defaults(arguments) => defaults::run(arguments, terminal),
        Benchmark::Devices(arguments) => devices::run(arguments, terminal),
    }
}
