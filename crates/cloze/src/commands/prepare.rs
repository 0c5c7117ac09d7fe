//! `cloze prepare`: tokenizes text into shards.

use std::io::Write;
use std::ops::ControlFlow;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::atomic::Ordering;
use std::time::Instant;

use anyhow::{Context, Result};
use cloze_data::DataError;
use cloze_data::prepare::{PrepareOptions, prepare};
use cloze_data::report::CorpusReport;
use cloze_text::Tokenizer;
use serde_json::json;

use super::model::HubArguments;
use super::reading::{SAMPLE_SECONDS, check_shared_input, input_bytes};
use super::tokenizer::{SpecialTokensArgument, note_special_names, show_notes};
use crate::failure::{INTERRUPTED, check_out};
use crate::flags;
use crate::format;
use crate::interrupt::GracefulStop;
use crate::pace::Pace;
use crate::ranks;
use crate::terminal::Terminal;

/// `cloze prepare --input PATH… --tokenizer DIR --out DIR`
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Example:\n  cloze prepare --input texts/ --tokenizer vocab --out shards",
    after_long_help = "Reads documents as a stream, splits them into sentences and tokenizes them once. Writes Arrow IPC files (one row \
        per document: `tokens` and `sentence_ends`) that pyarrow can open, manifest.json with counts and checksums, and a copy \
        of the tokenizer. The bytes written do not depend on --workers. DIR is created when everything in it is complete.\n\n\
        The choice of the held-out documents depends only on their positions. With two or more documents, at least one is \
        held out and at least one is not; --valid-fraction 0 holds out none.\n\n\
        Several processes can share the work and write the same bytes: start the command with mpirun or srun. All of them read \
        the input.\n\nExamples:\n  \
        cloze prepare --input texts/ --tokenizer vocab --out shards\n  \
        cloze prepare --input texts/ --tokenizer vocab --out shards --dry-run\n  \
        cloze prepare --input 'wiki/*.parquet' news.jsonl.zst --text-column body --tokenizer vocab --out shards\n  \
        zcat big.txt.gz | cloze prepare --input - --tokenizer vocab --out shards\n  \
        mpirun -np 4 cloze prepare --input texts/ --tokenizer vocab --out shards"
)]
pub struct Arguments {
    /// Files, folders or globs of .txt (a blank line between documents), .jsonl or .parquet, plain, .gz or .zst; - for
    /// standard input
    #[arg(long, required = true, num_args = 1.., value_name = "PATH")]
    input: Vec<PathBuf>,

    /// Tokenizer folder, from `cloze vocab` or Hugging Face, or the name of a model on the Hugging Face Hub
    #[arg(long, value_name = "DIR|NAME")]
    tokenizer: PathBuf,

    #[command(flatten)]
    hub: HubArguments,

    #[command(flatten)]
    special_tokens: SpecialTokensArgument,

    /// Keep accents, vowel marks and tone marks, even if the tokenizer's settings strip them
    #[arg(long)]
    keep_accents: bool,

    /// Output folder
    #[arg(long, value_name = "DIR")]
    out: PathBuf,

    /// Fraction of the documents held out for evaluation; at least one document, unless 0
    #[arg(long, default_value_t = 0.01, value_name = "F", value_parser = crate::values::fraction)]
    valid_fraction: f64,

    /// Threads for tokenizing [default: --threads, else all cores]
    #[arg(long, value_name = "N", value_parser = crate::values::threads)]
    workers: Option<usize>,

    /// Column or key of the text in .parquet and .jsonl
    #[arg(long, default_value = "text", value_name = "NAME")]
    text_column: String,

    /// Leave out documents with fewer words
    #[arg(long, value_name = "N", default_value_t = 0, hide_default_value = true)]
    min_words: usize,

    /// Leave out documents with the text of an earlier one
    #[arg(long)]
    drop_duplicates: bool,

    /// Leave out lines with the text of an earlier line of any document
    #[arg(long)]
    drop_duplicate_lines: bool,

    /// Estimate the time from the first seconds, and write nothing
    #[arg(long)]
    dry_run: bool,

    /// Print the result as one JSON object
    #[arg(long)]
    json: bool,
}

pub fn run(arguments: &Arguments, terminal: &Terminal) -> Result<ExitCode> {
    let mut tokenizer = Tokenizer::open(&arguments.hub.find_tokenizer(&arguments.tokenizer, terminal)?)?;
    show_notes(&tokenizer, terminal);
    if let Some(reading) = arguments.special_tokens.given() {
        tokenizer = tokenizer.with_special_tokens(reading);
    }
    if arguments.keep_accents {
        tokenizer = tokenizer.keeping_accents()?;
    }
    let mut options = PrepareOptions::new(arguments.input.clone(), tokenizer, arguments.out.clone());
    options.corpus.text_column = arguments.text_column.clone();
    options.filters.min_words = arguments.min_words;
    options.filters.drop_duplicates = arguments.drop_duplicates;
    options.filters.drop_duplicate_lines = arguments.drop_duplicate_lines;
    options.valid_fraction = arguments.valid_fraction;
    options.workers = arguments.workers.or(terminal.threads);
    options.ranks = ranks::current().clone();
    check_shared_input(&options.inputs, &options.corpus, &options.ranks)?;
    if arguments.dry_run {
        return dry_run(&options, arguments.json);
    }
    let (report, seconds) = prepare_with_bar(&options, terminal)?;
    note_special_names(&options.tokenizer, terminal);
    if !options.ranks.is_root() {
        return Ok(ExitCode::SUCCESS);
    }

    let peak = cloze_files::machine::peak_memory();
    let speed = report.text_bytes as f64 / 1e6 / seconds;
    let mut out = crate::output::stdout();
    if arguments.json {
        let line = json!({
            "out": format::path(&arguments.out),
            "seconds": seconds,
            "mb_per_s": speed,
            "peak_rss_bytes": peak,
            "report": report,
        });
        writeln!(out, "{line}")?;
        return Ok(ExitCode::SUCCESS);
    }
    write_report(&mut out, &report, terminal)?;
    writeln!(
        out,
        "\nwritten to {} in {} ({speed:.1} MB/s of text{})",
        arguments.out.display(),
        format::duration(seconds),
        peak.map_or_else(String::new, |peak| format!(", peak memory {}", format::bytes(peak))),
    )?;
    Ok(ExitCode::SUCCESS)
}

/// Prepares shards in a temporary folder for some seconds and prints an estimate.
fn dry_run(options: &PrepareOptions, json: bool) -> Result<ExitCode> {
    // With a graceful stop this function returns, which removes the temporary folder.
    let (_graceful_stop, stop) = (GracefulStop::begin(), crate::interrupt::stop());
    check_out(&options.out)?;
    let total = input_bytes(&options.inputs, &options.corpus)?;
    let temporary =
        tempfile::Builder::new().prefix("cloze-dry-run-").tempdir().context("cannot create a temporary folder")?;
    let mut trial = options.clone();
    trial.out = temporary.path().join("shards");
    let (start, mut pace) = (Instant::now(), Pace::default());
    let outcome = prepare(&trial, |progress| {
        let seconds = start.elapsed().as_secs_f64();
        pace.add(progress.bytes_read, seconds);
        if seconds >= SAMPLE_SECONDS || stop.load(Ordering::Relaxed) {
            ControlFlow::Break(())
        } else {
            ControlFlow::Continue(())
        }
    });
    let elapsed = start.elapsed().as_secs_f64();
    let (seconds, complete) = match outcome {
        Ok(_) => (elapsed, true),
        Err(DataError::Interrupted) if stop.load(Ordering::Relaxed) => return Ok(ExitCode::from(INTERRUPTED)),
        Err(DataError::Interrupted) => (pace.estimate(total), false),
        Err(error) => return Err(error.into()),
    };
    if !options.ranks.is_root() {
        return Ok(ExitCode::SUCCESS);
    }
    let mut out = crate::output::stdout();
    if json {
        let line = json!({
            "dry_run": true, "out": format::path(&options.out), "input_bytes": total, "seconds": seconds, "all_read": complete,
            "peak_rss_bytes": cloze_files::machine::peak_memory(),
        });
        writeln!(out, "{line}")?;
    } else {
        let basis = if complete { "measured completely" } else { "estimated from the first seconds" };
        writeln!(out, "{} of input: about {} ({basis})", format::bytes(total), format::duration(seconds))?;
        writeln!(out, "nothing was written; without --dry-run the shards are written to {}", options.out.display())?;
    }
    Ok(ExitCode::SUCCESS)
}

/// Prepares shards with a progress bar. Returns the report and the seconds.
pub fn prepare_with_bar(options: &PrepareOptions, terminal: &Terminal) -> Result<(CorpusReport, f64)> {
    let bar = terminal.progress("shards", None);
    let report = prepare(options, |progress| {
        if let Some(total) = progress.bytes_total {
            bar.set_total(total);
        }
        let message = format!(
            "{} documents, {} tokens, {:.1} MB/s",
            format::short(progress.documents as f64),
            format::short(progress.tokens as f64),
            progress.text_bytes as f64 / 1e6 / bar.seconds().max(1e-3),
        );
        bar.set(progress.bytes_read, &message);
        ControlFlow::Continue(())
    })?;
    let seconds = bar.seconds();
    bar.finish();
    Ok((report, seconds))
}

/// Writes the corpus report in readable form, with warnings in colour.
pub fn write_report(out: &mut dyn Write, report: &CorpusReport, terminal: &Terminal) -> Result<()> {
    for line in report.to_string().lines() {
        match line.strip_prefix("warning:") {
            Some(rest) => {
                writeln!(out, "{}{}", terminal.paint("1;33", "warning:"), flags::in_message(rest))?;
            }
            None => writeln!(out, "{line}")?,
        }
    }
    Ok(())
}
