//! `cloze prepare`: text → shards.

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
use super::reading::{SAMPLE_SECONDS, input_bytes};
use super::tokenizer::{SpecialTokensArgument, tell_notes, tell_special_names};
use crate::failure::{INTERRUPTED, check_out};
use crate::format;
use crate::interrupt::Polling;
use crate::pace::Pace;
use crate::terminal::Terminal;

/// `cloze prepare --input PATH… --tokenizer DIR --out DIR`
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Example:\n  cloze prepare --input texts/ --tokenizer vocab --out shards",
    after_long_help = "Reads documents as a stream, splits them into sentences, tokenises them once, and writes Arrow IPC \
        files (one row a document: `tokens` and `sentence_ends`) that pyarrow opens, manifest.json with counts and \
        checksums, and a copy of the tokenizer. The bytes written do not depend on --workers. DIR appears when everything \
        in it is complete.\n\n\
        Which documents are held out depends on their numbers alone. Of two or more, one at least is held out and one at least \
        is not; --valid-fraction 0 holds out none.\n\nExamples:\n  \
        cloze prepare --input texts/ --tokenizer vocab --out shards\n  \
        cloze prepare --input texts/ --tokenizer vocab --out shards --dry-run\n  \
        cloze prepare --input 'wiki/*.parquet' news.jsonl.zst --text-column body --tokenizer vocab --out shards\n  \
        zcat big.txt.gz | cloze prepare --input - --tokenizer vocab --out shards"
)]
pub struct Arguments {
    /// Files, folders or globs of .txt (blank line between documents), .jsonl or .parquet, plain, .gz or .zst; - for
    /// standard input
    #[arg(long, required = true, num_args = 1.., value_name = "PATH")]
    input: Vec<PathBuf>,

    /// Folder of the vocabulary, as `cloze vocab` and Hugging Face write it, or the name of its model on the Hugging Face Hub
    #[arg(long, value_name = "DIR|NAME")]
    tokenizer: PathBuf,

    #[command(flatten)]
    hub: HubArguments,

    #[command(flatten)]
    special_tokens: SpecialTokensArgument,

    /// Keep accents, vowel marks and tone marks even if the vocabulary's settings strip them
    #[arg(long)]
    keep_accents: bool,

    /// The folder to write
    #[arg(long, value_name = "DIR")]
    out: PathBuf,

    /// Share of the documents held out for evaluation; one document at least unless 0
    #[arg(long, default_value_t = 0.01, value_name = "F", value_parser = crate::values::fraction)]
    valid_fraction: f64,

    /// Threads that tokenise [default: --threads, else all cores]
    #[arg(long, value_name = "N", value_parser = crate::values::threads)]
    workers: Option<usize>,

    /// The column or key that holds the text, in .parquet and .jsonl
    #[arg(long, default_value = "text", value_name = "NAME")]
    text_column: String,

    /// Say how long it would take, by the first seconds of it, and write nothing
    #[arg(long)]
    dry_run: bool,

    /// Print the result as one JSON object
    #[arg(long)]
    json: bool,
}

pub fn run(arguments: &Arguments, terminal: &Terminal) -> Result<ExitCode> {
    let mut tokenizer = Tokenizer::open(&arguments.hub.find_tokenizer(&arguments.tokenizer, terminal)?)?;
    tell_notes(&tokenizer, terminal);
    if let Some(how) = arguments.special_tokens.given() {
        tokenizer = tokenizer.with_special_tokens(how);
    }
    if arguments.keep_accents {
        tokenizer = tokenizer.keeping_accents()?;
    }
    let mut options = PrepareOptions::new(arguments.input.clone(), tokenizer, arguments.out.clone());
    options.corpus.text_column = arguments.text_column.clone();
    options.valid_fraction = arguments.valid_fraction;
    options.workers = arguments.workers.or(terminal.threads);
    if arguments.dry_run {
        return dry_run(&options, arguments.json);
    }
    let (report, seconds) = prepare_with_bar(&options, terminal)?;
    tell_special_names(&options.tokenizer, terminal);

    let peak = format::peak_memory();
    let speed = report.text_bytes as f64 / 1e6 / seconds;
    let mut out = crate::output::results();
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

/// Prepares into a temporary folder, for some seconds.
fn dry_run(options: &PrepareOptions, json: bool) -> Result<ExitCode> {
    // The temporary folder is removed where this function ends.
    let (_polling, stop) = (Polling::begin(), crate::interrupt::stop());
    check_out(&options.out)?;
    let total = input_bytes(&options.inputs, &options.corpus)?;
    let aside =
        tempfile::Builder::new().prefix("cloze-dry-run-").tempdir().context("cannot make a temporary folder")?;
    let mut trial = options.clone();
    trial.out = aside.path().join("shards");
    let (began, mut pace) = (Instant::now(), Pace::default());
    let outcome = prepare(&trial, |news| {
        let seconds = began.elapsed().as_secs_f64();
        pace.add(news.bytes_read, seconds);
        if seconds >= SAMPLE_SECONDS || stop.load(Ordering::Relaxed) {
            ControlFlow::Break(())
        } else {
            ControlFlow::Continue(())
        }
    });
    let took = began.elapsed().as_secs_f64();
    let (seconds, whole) = match outcome {
        Ok(_) => (took, true),
        Err(DataError::Interrupted) if stop.load(Ordering::Relaxed) => return Ok(ExitCode::from(INTERRUPTED)),
        Err(DataError::Interrupted) => (pace.estimate(total), false),
        Err(error) => return Err(error.into()),
    };
    let mut out = crate::output::results();
    if json {
        let line = json!({
            "dry_run": true, "out": format::path(&options.out), "input_bytes": total, "seconds": seconds, "all_read": whole,
            "peak_rss_bytes": format::peak_memory(),
        });
        writeln!(out, "{line}")?;
    } else {
        let judged = if whole { "all of it was tried" } else { "judged by its first seconds" };
        writeln!(out, "{} of input: about {} ({judged})", format::bytes(total), format::duration(seconds))?;
        writeln!(out, "nothing was written; without --dry-run the shards go to {}", options.out.display())?;
    }
    Ok(ExitCode::SUCCESS)
}

/// Prepares shards with a progress bar; returns the report and the seconds it took.
pub fn prepare_with_bar(options: &PrepareOptions, terminal: &Terminal) -> Result<(CorpusReport, f64)> {
    let bar = terminal.progress("shards", None);
    let report = prepare(options, |news| {
        if let Some(total) = news.bytes_total {
            bar.set_total(total);
        }
        let message = format!(
            "{} documents, {} tokens, {:.1} MB/s",
            format::short(news.documents as f64),
            format::short(news.tokens as f64),
            news.text_bytes as f64 / 1e6 / bar.seconds().max(1e-3),
        );
        bar.set(news.bytes_read, &message);
        ControlFlow::Continue(())
    })?;
    let seconds = bar.seconds();
    bar.finish();
    Ok((report, seconds))
}

/// The corpus report as people read it; its warnings in colour.
pub fn write_report(out: &mut dyn Write, report: &CorpusReport, terminal: &Terminal) -> Result<()> {
    for line in report.to_string().lines() {
        match line.strip_prefix("warning:") {
            Some(rest) => writeln!(out, "{}{rest}", terminal.paint("1;33", "warning:"))?,
            None => writeln!(out, "{line}")?,
        }
    }
    Ok(())
}
