//! The `cloze` binary: BERT from a folder of text to a pre-trained model, with no Python.
//!
//! Exit codes: 0 done, 1 the work failed (one line on standard error says why), 2 the command line is wrong.

mod commands;
mod format;
mod run_page;
mod terminal;

use std::process::ExitCode;

use clap::Parser;

use commands::Command;
use terminal::Terminal;

/// BERT end to end: vocabulary, shards, pre-training, evaluation, in one binary.
#[derive(Debug, Parser)]
#[command(name = "cloze", version, about, max_term_width = 110)]
#[command(after_help = "Start here:\n  cloze quickstart\n\nFrom your own text:\n  \
    cloze vocab    --input texts/ --size 30522 --out tokenizer\n  \
    cloze prepare  --input texts/ --tokenizer tokenizer --out shards --valid-fraction 0.01\n  \
    cloze pretrain recipes/mini.toml --set data=shards --out runs/mini\n  \
    cloze evaluate pretrain --model runs/mini/model --data shards\n  \
    cloze fill     --model runs/mini/model \"The capital of France is [MASK].\"")]
struct Arguments {
    #[command(subcommand)]
    command: Command,

    /// Compute threads [default: all cores this process may use]
    #[arg(long, global = true, value_name = "N", value_parser = positive)]
    threads: Option<usize>,

    /// No progress on standard error, only results and errors
    #[arg(long, short, global = true)]
    quiet: bool,
}

/// Parses a count of at least one.
fn positive(text: &str) -> Result<usize, String> {
    match text.parse::<usize>() {
        Ok(0) => Err("must be at least 1".into()),
        Ok(value) => Ok(value),
        Err(_) => Err("must be a whole number of at least 1".into()),
    }
}

/// Parses a share from 0 to below 1.
fn fraction(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(value) if (0.0..1.0).contains(&value) => Ok(value),
        _ => Err("must be a number of at least 0 and below 1".into()),
    }
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let terminal = Terminal::detect(arguments.quiet, arguments.threads);
    match arguments.command.run(&terminal) {
        Ok(code) => code,
        // Whoever read our output has heard enough: `cloze inspect model | head` is no failure.
        Err(error) if is_broken_pipe(&error) => ExitCode::SUCCESS,
        Err(error) => {
            terminal.error(&one_line(&error));
            ExitCode::FAILURE
        }
    }
}

fn is_broken_pipe(error: &anyhow::Error) -> bool {
    error
        .chain()
        .filter_map(|cause| cause.downcast_ref::<std::io::Error>())
        .any(|cause| cause.kind() == std::io::ErrorKind::BrokenPipe)
}

/// The chain of causes in one line; a cause that its parent already quotes is not repeated.
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
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn arguments_are_consistent() {
        Arguments::command().debug_assert();
    }

    #[test]
    fn errors_fit_one_line_and_repeat_nothing() {
        let error = anyhow::anyhow!("no such\nfile").context("cannot open x: no such file").context("vocab");
        assert_eq!(one_line(&error), "vocab: cannot open x: no such file");
    }

    #[test]
    fn broken_pipe_is_found_below_context() {
        let pipe = std::io::Error::from(std::io::ErrorKind::BrokenPipe);
        assert!(is_broken_pipe(&anyhow::Error::from(pipe).context("writing")));
        assert!(!is_broken_pipe(&anyhow::anyhow!("other")));
    }

    #[test]
    fn counts_and_shares_are_checked() {
        assert_eq!(positive("3"), Ok(3));
        assert!(positive("0").is_err() && positive("-1").is_err() && positive("x").is_err());
        assert_eq!(fraction("0.05"), Ok(0.05));
        assert!(fraction("1").is_err() && fraction("-0.1").is_err() && fraction("NaN").is_err());
    }
}
