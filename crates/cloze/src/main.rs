//! The `cloze` binary: BERT from a folder of text to a pre-trained model, with no Python.
//!
//! Exit codes: 0 done, 1 failure (one line on standard error gives the reason), 2 wrong command line, 130 interrupted
//! (training is saved).
#![forbid(unsafe_code)]

mod ablate;
mod commands;
mod failure;
mod flags;
mod format;
mod global;
mod help;
mod interrupt;
mod output;
mod pace;
mod program;
mod ranks;
mod run_page;
mod terminal;
mod values;

use std::io::Write;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::process::ExitCode;
use std::sync::atomic::Ordering;
use std::time::Instant;

use clap::{CommandFactory, FromArgMatches, Parser};
use cloze_engine::{Device, EngineError};

use commands::Command;
use failure::{INTERRUPTED, UsageError, is_interrupt};
use global::GlobalOptions;
use terminal::{ColorChoice, Terminal, Verbosity};

/// The version, with the git commit if the build knows it.
const VERSION: &str = env!("CLOZE_VERSION");

/// BERT end to end: vocabulary, pre-training, fine-tuning, evaluation, in one binary.
#[derive(Debug, Parser)]
#[command(
    name = "cloze",
    version = VERSION,
    max_term_width = 110,
    after_help = format!("{}\n\nMore, with exit codes and environment variables: cloze --help", help::examples(&START)),
    after_long_help = help_text()
)]
struct Arguments {
    #[command(subcommand)]
    command: Command,

    #[command(flatten)]
    global: GlobalOptions,
}

/// Where to start.
const START: [&str; 2] =
    ["cloze quickstart", "cloze finetune classify --train train.tsv --dev dev.tsv --model bert-base --out runs/stars"];

/// The text after the options in `cloze --help`.
fn help_text() -> String {
    let from_text = [
        "cloze vocab    --input texts/ --size 30522 --out vocab",
        "cloze prepare  --input texts/ --tokenizer vocab --out shards",
        "cloze pretrain mini --set data=shards --out runs/mini",
        "cloze evaluate pretrain --model runs/mini --data shards",
        "cloze fill     --model runs/mini \"The capital of France is [MASK].\"",
    ];
    let to_a_task = [
        "cloze finetune classify --train train.tsv --dev dev.tsv --model runs/mini --out runs/stars",
        "cloze evaluate --model runs/stars --data test.tsv",
        "cloze predict  --model runs/stars --input new.txt",
        "cloze embed    --model runs/mini --input lines.txt --out lines.npy",
    ];
    let section = |heading: &str, commands: &[&str]| {
        let text = help::examples(commands);
        format!("{heading}\n{}", text.split_once('\n').map_or("", |(_, commands)| commands))
    };
    [
        section("Start here:", &START[..1]),
        section("From your own text to a model:", &from_text),
        section("From a model to a task, and to vectors:", &to_a_task),
        EXIT_CODES.to_owned(),
        ENVIRONMENT.to_owned(),
    ]
    .join("\n\n")
}

const EXIT_CODES: &str = "\
Exit codes:
  0    done
  1    failure; one line on standard error gives the reason
  2    wrong command line
  130  interrupted (Ctrl-C, SIGTERM, SIGHUP); training is saved, continue it
       with --resume";

const ENVIRONMENT: &str = "\
Environment:
  CLOZE_CPU        instruction set: amx, avx512bf16, avx512, avx2, neon or
                   portable [default: the fastest on this machine]
  CLOZE_CUDA       folder of NVIDIA's libraries, if they are in none of the
                   usual places
  CLOZE_MPI        path of the MPI library, if several are installed
  CLOZE_PATIENCE   seconds that a rank of a job waits for the others
                   [default: 600]
  NO_COLOR         disable colours, like --color never
  CLICOLOR_FORCE   colours also in files and pipes, like --color always
  HF_HOME          Hugging Face cache [default: ~/.cache/huggingface]
  HF_HUB_CACHE     cached models [default: $HF_HOME/hub]
  HF_TOKEN         access token for private or gated models
  HF_HUB_OFFLINE   1: never download, like --offline
  HF_ENDPOINT      address of the hub [default: https://huggingface.co]";

/// The complete command-line parser.
fn command() -> clap::Command {
    help::wrap_examples(Arguments::command())
}

fn main() -> ExitCode {
    let start = Instant::now();
    // The parser prints help and errors itself, before it has read --color.
    let color = ColorChoice::on_command_line(std::env::args_os());
    let mut program = command().color(color.into());
    let parsed = program.try_get_matches_from_mut(std::env::args_os());
    let arguments = match parsed.and_then(|matches| {
        flags::set(&program, &matches);
        Arguments::from_arg_matches(&matches)
    }) {
        Ok(arguments) => arguments,
        Err(error) => return show(&error, &Terminal::detect(color, Verbosity::Normal, None)),
    };
    let GlobalOptions { threads, device, color, verbose, quiet } = arguments.global;
    let verbosity = match (quiet || !ranks::is_root(), verbose) {
        (true, _) => Verbosity::Quiet,
        (false, true) => Verbosity::Verbose,
        (false, false) => Verbosity::Normal,
    };
    let mut terminal = Terminal::detect(color, verbosity, threads);
    terminal.device = device;
    if let Err(error) =
        ranks::start(arguments.command.supports_ranks(), |line| output::write_stderr(format_args!("error: {line}")))
    {
        return fail(&error, &terminal);
    }
    terminal.threads = terminal.threads.or_else(ranks::threads);
    terminal.detail(&format!("cloze {VERSION}"));
    if let Some(level) = Device::forced_instruction_set() {
        terminal.detail(&format!("CLOZE_CPU selects {level}"));
    }
    let handlers = interrupt::watch(arguments.command.interrupt_message(), arguments.command.reloads())
        .map_err(anyhow::Error::from);
    let outcome = handlers.and_then(|()| run(arguments.command, &terminal)).and_then(|code| {
        // Writes what is still buffered.
        output::stdout().flush()?;
        ranks::finish();
        Ok(code)
    });
    let memory = cloze_files::machine::peak_memory()
        .map_or_else(String::new, |peak| format!(", peak memory {}", format::bytes(peak)));
    terminal.detail(&format!("{}{memory}", format::duration(start.elapsed().as_secs_f64())));
    outcome.unwrap_or_else(|error| fail(&error, &terminal))
}

/// Runs a command. A GPU that fails ends the work by unwinding: here it becomes an error.
fn run(selected: Command, terminal: &Terminal) -> anyhow::Result<ExitCode> {
    catch_unwind(AssertUnwindSafe(|| selected.run(command(), terminal))).unwrap_or_else(|payload| {
        match payload.downcast::<EngineError>() {
            Ok(error) => Err((*error).into()),
            Err(payload) => resume_unwind(payload),
        }
    })
}

/// Prints the help text or the parser's error.
fn show(error: &clap::Error, terminal: &Terminal) -> ExitCode {
    if !ranks::is_root() {
        // Rank 0 prints the same; the launcher may end it when another rank fails.
        ranks::before_error();
        return ExitCode::from(error.exit_code() as u8);
    }
    let shown = error.print().and_then(|()| output::stdout().flush());
    match shown {
        Err(write_error) if !error.use_stderr() => fail(&output::stdout_error(write_error).into(), terminal),
        _ => ExitCode::from(error.exit_code() as u8),
    }
}

/// Prints the error and returns the exit code.
fn fail(error: &anyhow::Error, terminal: &Terminal) -> ExitCode {
    // The reader closed the pipe: `cloze inspect model | head` is not a failure.
    if output::is_broken_pipe(error) {
        return ExitCode::from(if interrupt::stop().load(Ordering::Relaxed) { INTERRUPTED } else { 0 });
    }
    let line = ranks::before_error() + &one_line(error);
    // A wrong command line is wrong at all ranks.
    if !error.is::<UsageError>() || ranks::is_root() {
        terminal.error(&line);
    }
    ranks::abort(exit_code(error))
}

/// Exit code when a command fails.
const FAILURE: u8 = 1;
/// Exit code for a wrong command line, the same as clap's.
const USAGE: u8 = 2;

fn exit_code(error: &anyhow::Error) -> u8 {
    if error.is::<UsageError>() {
        USAGE
    } else if is_interrupt(error) {
        INTERRUPTED
    } else {
        FAILURE
    }
}

/// The chain of causes in one line. A cause whose text is already in the line is left out.
fn one_line(error: &anyhow::Error) -> String {
    let mut line = String::new();
    for cause in error.chain() {
        let text = cause.to_string();
        let text = text.split_whitespace().collect::<Vec<_>>().join(" ");
        if line.contains(&text) {
            continue;
        }
        if !line.is_empty() {
            line.push_str(": ");
        }
        line.push_str(&text);
    }
    line
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn command_line_definition_is_consistent() {
        command().debug_assert();
    }

    #[test]
    fn errors_are_one_line_without_repetition() {
        let error = anyhow::anyhow!("no such\nfile").context("cannot open x: no such file").context("vocab");
        assert_eq!(one_line(&error), "vocab: cannot open x: no such file");
    }

    /// Regression: `cloze prepare` and `cloze quickstart` exited with 1 after Ctrl-C.
    #[test]
    fn interrupts_exit_with_130_from_every_crate() {
        assert_eq!(exit_code(&anyhow::Error::from(cloze_data::DataError::Interrupted)), 130);
        assert_eq!(exit_code(&anyhow::Error::from(cloze_data::DataError::Interrupted).context("shards")), 130);
        assert_eq!(exit_code(&failure::usage("no")), 2);
        assert_eq!(exit_code(&anyhow::anyhow!("interrupted")), 1);
    }
}
