//! The commands: each file holds one command's arguments and what it does.

mod bench;
mod completions;
mod convert;
mod embed;
mod evaluate;
mod failures;
mod fill;
mod inspect;
mod man;
mod model;
mod precision;
mod prepare;
mod pretrain;
mod quickstart;
mod reading;
mod recipe;
mod report;
mod similar;
mod tasks;
mod tokenizer;
mod vocab;

use std::process::ExitCode;

use anyhow::Result;
use clap::Subcommand;

use crate::terminal::Terminal;
use tasks::PerKind;

/// What to do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// From nothing to a small pre-trained BERT in minutes: corpus, vocabulary, shards, training, evaluation
    Quickstart(quickstart::Arguments),
    /// Learn a WordPiece vocabulary from text
    Vocab(vocab::Arguments),
    /// Turn text into shards of token ids to train on, with a report on the corpus
    Prepare(prepare::Arguments),
    /// Pre-train a BERT as a recipe says
    Pretrain(pretrain::Arguments),
    /// List the recipes that are built in, or print one
    Recipe(recipe::Arguments),
    /// Judge a model on held-out data
    Evaluate(evaluate::Arguments),
    /// Fine-tune a model on labelled rows: classify, regress, tag, answer, choose
    Finetune(Box<PerKind<tasks::finetune::Arguments>>),
    /// Fine-tune over a grid of settings and seeds
    Sweep(Box<PerKind<tasks::sweep::Arguments>>),
    /// Predict with a fine-tuned model, one JSON object a line
    Predict(Box<PerKind<tasks::predict::Arguments>>),
    /// Fill the [MASK]s of a text with the likeliest tokens
    Fill(fill::Arguments),
    /// Turn another program's checkpoint into a model folder, or a model folder into ONNX
    Convert(convert::Arguments),
    /// Turn texts into vectors, as .npy, .safetensors or .jsonl
    Embed(embed::Arguments),
    /// Find the texts nearest to a query
    Similar(similar::Arguments),
    /// Say what a model, checkpoint, run, vocabulary, shard or recipe holds
    Inspect(inspect::Arguments),
    /// Measure real tokens per second and our share of the machine's matrix peak
    #[command(subcommand)]
    Bench(bench::Benchmark),
    /// Write a run's curves, recipe and corpus report as one HTML file
    Report(report::Arguments),
    /// Write a script for a shell that completes these commands
    Completions(completions::Arguments),
    /// Write the man pages
    Man(man::Arguments),
}

impl Command {
    /// What is lost where a signal ends the command.
    pub fn lost(&self) -> &'static str {
        match self {
            Command::Quickstart(_) => "run the quickstart again to start over",
            Command::Pretrain(_) | Command::Finetune(_) | Command::Sweep(_) => {
                "no step was being taken; what was saved before is whole"
            }
            Command::Predict(_) => "rows after the last line printed have no answer",
            Command::Vocab(_)
            | Command::Prepare(_)
            | Command::Convert(_)
            | Command::Embed(_)
            | Command::Report(_)
            | Command::Man(_) => "nothing was written",
            Command::Recipe(_)
            | Command::Evaluate(_)
            | Command::Fill(_)
            | Command::Similar(_)
            | Command::Inspect(_)
            | Command::Bench(_)
            | Command::Completions(_) => "there is no result",
        }
    }

    /// Runs the command; its results go to standard output. `program`: all commands, for those that describe them.
    pub fn run(self, program: clap::Command, terminal: &Terminal) -> Result<ExitCode> {
        let done = |result: Result<()>| result.map(|()| ExitCode::SUCCESS);
        match self {
            Command::Quickstart(arguments) => quickstart::run(&arguments, terminal),
            Command::Vocab(arguments) => done(vocab::run(&arguments, terminal)),
            Command::Prepare(arguments) => prepare::run(&arguments, terminal),
            Command::Pretrain(arguments) => pretrain::run(&arguments, terminal),
            Command::Recipe(arguments) => done(recipe::run(&arguments, terminal)),
            Command::Evaluate(arguments) => done(evaluate::run(arguments, terminal)),
            Command::Finetune(arguments) => tasks::finetune::run(*arguments, terminal),
            Command::Sweep(arguments) => tasks::sweep::run(*arguments, terminal),
            Command::Predict(arguments) => done(tasks::predict::run(*arguments, terminal)),
            Command::Fill(arguments) => done(fill::run(&arguments, terminal)),
            Command::Convert(arguments) => done(convert::run(&arguments, terminal)),
            Command::Embed(arguments) => done(embed::run(&arguments, terminal)),
            Command::Similar(arguments) => done(similar::run(&arguments, terminal)),
            Command::Inspect(arguments) => done(inspect::run(&arguments, terminal)),
            Command::Bench(work) => done(bench::run(&work, terminal)),
            Command::Report(arguments) => done(report::run(&arguments, terminal)),
            Command::Completions(arguments) => done(completions::run(&arguments, &program)),
            Command::Man(arguments) => done(man::run(&arguments, program, terminal)),
        }
    }
}
