//! The commands. Each file has one command's arguments and implementation.

mod ablate;
mod bench;
mod completions;
mod convert;
mod embed;
mod evaluate;
mod failures;
mod fill;
mod inspect;
mod man;
mod mine;
mod model;
mod precision;
mod prepare;
pub mod pretrain;
mod quickstart;
mod reading;
mod recipe;
mod report;
mod rerank;
mod serve;
mod similar;
pub mod tasks;
mod tokenizer;
mod vocab;

use std::process::ExitCode;

use anyhow::Result;
use clap::Subcommand;

use crate::terminal::Terminal;
use tasks::{OrOther, PerKind};

/// The subcommands of `cloze`.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Train a small BERT from scratch in minutes: corpus, vocabulary, shards, training, evaluation
    Quickstart(quickstart::Arguments),
    /// Learn a vocabulary from text: WordPiece, byte-level BPE or Unigram
    Vocab(vocab::Arguments),
    /// Tokenize text into training shards, with a report on the corpus
    Prepare(prepare::Arguments),
    /// Pre-train a BERT with a recipe
    Pretrain(pretrain::Arguments),
    /// Pre-train, fine-tune and compare the rows of a table, such as the paper's ablations
    Ablate(ablate::Arguments),
    /// List the built-in recipes, or print one
    Recipe(recipe::Arguments),
    /// Evaluate a model on held-out data
    Evaluate(evaluate::Arguments),
    /// Fine-tune a model on labelled rows: classify, regress, rerank, tag, answer, choose; or to embed texts
    Finetune(OrOther<tasks::finetune::Arguments, FineTuneOther>),
    /// Fine-tune over a grid of settings and seeds
    Sweep(Box<PerKind<tasks::sweep::Arguments>>),
    /// Predict with a fine-tuned model, one JSON object per line
    Predict(Box<PerKind<tasks::predict::Arguments>>),
    /// Predict the tokens for the [MASK]s of a text
    Fill(fill::Arguments),
    /// Convert another program's checkpoint to a model folder, or a model folder to ONNX
    Convert(convert::Arguments),
    /// Compute vectors of texts, as .npy, .safetensors or .jsonl
    Embed(embed::Arguments),
    /// Find the texts nearest to a query
    Similar(similar::Arguments),
    /// Find hard negatives for pairs of texts, to train embedding models and rerankers
    Mine(Box<mine::Arguments>),
    /// Order documents by their relevance to a query, with a cross-encoder
    Rerank(Box<rerank::Arguments>),
    /// Answer requests over HTTP: vectors, labels, entities, answers, masks, rankings
    Serve(Box<serve::Arguments>),
    /// Show the contents of a model, checkpoint, run, vocabulary, shard or recipe
    Inspect(inspect::Arguments),
    /// Measure real tokens per second and the fraction of the machine's peak
    #[command(subcommand)]
    Bench(bench::Benchmark),
    /// Write curves, recipe and corpus report of runs as one HTML file
    Report(report::Arguments),
    /// Write a completion script for a shell
    Completions(completions::Arguments),
    /// Write the man pages
    Man(man::Arguments),
}

/// Fine-tuning other than for a kind of task.
#[derive(Debug, Subcommand)]
pub enum FineTuneOther {
    /// Train a model to embed texts: contrastive, from scored pairs or from a teacher
    Embed(Box<tasks::finetune_embed::Arguments>),
}

impl Command {
    /// The message when a signal exits the command: what is lost.
    pub fn interrupt_message(&self) -> &'static str {
        match self {
            Command::Quickstart(_) => "run the quickstart again to start over",
            Command::Pretrain(_) | Command::Ablate(_) | Command::Finetune(_) | Command::Sweep(_) => {
                "no training step was running; what was saved before is complete"
            }
            Command::Predict(_) | Command::Rerank(_) => "rows after the last line printed have no answer",
            Command::Serve(_) => "the server has stopped",
            Command::Vocab(_)
            | Command::Prepare(_)
            | Command::Convert(_)
            | Command::Embed(_)
            | Command::Mine(_)
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

    /// Whether the command reads its settings again after SIGHUP instead of ending.
    pub fn reloads(&self) -> bool {
        matches!(self, Command::Serve(_))
    }

    /// Whether several processes can run the command together, as the ranks of a job.
    pub fn supports_ranks(&self) -> bool {
        match self {
            Command::Vocab(arguments) => arguments.supports_ranks(),
            Command::Prepare(_)
            | Command::Pretrain(_)
            | Command::Ablate(_)
            | Command::Finetune(_)
            | Command::Bench(bench::Benchmark::Scale(_)) => true,
            _ => false,
        }
    }

    /// Runs the command. Results go to standard output. `program` is the complete parser, for man pages and
    /// completions.
    pub fn run(self, program: clap::Command, terminal: &Terminal) -> Result<ExitCode> {
        let done = |result: Result<()>| result.map(|()| ExitCode::SUCCESS);
        match self {
            Command::Quickstart(arguments) => quickstart::run(&arguments, terminal),
            Command::Vocab(arguments) => done(vocab::run(&arguments, terminal)),
            Command::Prepare(arguments) => prepare::run(&arguments, terminal),
            Command::Pretrain(arguments) => pretrain::run(&arguments, terminal),
            Command::Ablate(arguments) => ablate::run(&arguments, terminal),
            Command::Recipe(arguments) => done(recipe::run(&arguments, terminal)),
            Command::Evaluate(arguments) => done(evaluate::run(arguments, terminal)),
            Command::Finetune(OrOther::Task(arguments)) => tasks::finetune::run(*arguments, terminal),
            Command::Finetune(OrOther::Other(FineTuneOther::Embed(arguments))) => {
                tasks::finetune_embed::run(&arguments, terminal)
            }
            Command::Sweep(arguments) => tasks::sweep::run(*arguments, terminal),
            Command::Predict(arguments) => done(tasks::predict::run(*arguments, terminal)),
            Command::Fill(arguments) => done(fill::run(&arguments, terminal)),
            Command::Convert(arguments) => done(convert::run(&arguments, terminal)),
            Command::Embed(arguments) => done(embed::run(&arguments, terminal)),
            Command::Similar(arguments) => done(similar::run(&arguments, terminal)),
            Command::Mine(arguments) => done(mine::run(&arguments, terminal)),
            Command::Rerank(arguments) => done(rerank::run(&arguments, terminal)),
            Command::Serve(arguments) => done(serve::run(&arguments, terminal)),
            Command::Inspect(arguments) => done(inspect::run(&arguments, terminal)),
            Command::Bench(benchmark) => done(bench::run(&benchmark, terminal)),
            Command::Report(arguments) => done(report::run(&arguments, terminal)),
            Command::Completions(arguments) => done(completions::run(&arguments, &program)),
            Command::Man(arguments) => done(man::run(&arguments, program, terminal)),
        }
    }
}
