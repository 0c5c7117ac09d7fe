//! `cloze fill`: predicts the masked tokens of texts.

use std::io::{IsTerminal, Write};
use std::path::Path;
use std::sync::Arc;

use anyhow::{Result, bail};
use cloze_tasks::datasets::format::display_name;
use cloze_tasks::inference::Precision;
use cloze_tasks::inference::fill::{Candidate, Filler};
use cloze_tasks::lines::Lines;
use cloze_tasks::{Pretrained, TaskError};
use serde_json::json;

use super::failures::{Failures, blank_line_error, next_line, write_failure};
use super::model::ModelArguments;
use super::precision::resolve;
use super::tokenizer::{SpecialTokensArgument, note_special_names, show_notes};
use crate::help;
use crate::terminal::Terminal;

/// `cloze fill --model DIR TEXT…`
#[derive(Debug, clap::Args)]
#[command(after_help = help::examples(&[
    "cloze fill --model runs/mini \"The capital of France is [MASK].\"",
    "cloze fill --model runs/mini --top 10 --json < lines.txt",
]))]
pub struct Arguments {
    #[command(flatten)]
    model: ModelArguments,

    /// Texts, each with at least one [MASK] [default: the lines of standard input]
    #[arg(value_name = "TEXT")]
    texts: Vec<String>,

    /// Tokens to show for each mask
    #[arg(long, default_value_t = 5, value_name = "N", value_parser = crate::values::items)]
    top: usize,

    #[command(flatten)]
    special_tokens: SpecialTokensArgument,

    /// Number format of the matrix products
    #[arg(long, default_value = "f32", value_parser = crate::values::named(&Precision::ALL))]
    precision: Precision,

    /// Print one JSON object for each text
    #[arg(long)]
    json: bool,

    /// Stop at the first line that cannot be filled instead of writing an error in its place
    #[arg(long)]
    strict: bool,
}

pub fn run(arguments: &Arguments, terminal: &Terminal) -> Result<()> {
    let model = arguments.model.find(terminal)?;
    let device = terminal.open_device()?;
    let precision = resolve(arguments.precision, &device, terminal);
    let mut pretrained = Pretrained::open(&model, device, precision)?;
    if let Some(reading) = arguments.special_tokens.given() {
        pretrained.tokenizer = pretrained.tokenizer.with_special_tokens(reading);
    }
    let tokenizer = pretrained.tokenizer.clone();
    show_notes(&tokenizer, terminal);
    let filler = Filler::new(Arc::new(pretrained))?;
    let done = fill_all(&filler, arguments, terminal);
    note_special_names(&tokenizer, terminal);
    done
}

fn fill_all(filler: &Filler, arguments: &Arguments, terminal: &Terminal) -> Result<()> {
    if !arguments.texts.is_empty() {
        for text in &arguments.texts {
            fill_and_write(filler, text, arguments, terminal)??;
        }
        return Ok(());
    }
    if std::io::stdin().is_terminal() {
        terminal.note("reading lines with [MASK] from the terminal; end with Ctrl-D");
    }
    let mut failures = Failures::new(display_name(Path::new("-")), "line", arguments.strict);
    let mut lines = Lines::open(Path::new("-"))?;
    while let Some(line) = next_line(&mut lines)? {
        let failed = match line {
            Ok(()) if lines.text().trim().is_empty() && !arguments.json => continue,
            Ok(()) if lines.text().trim().is_empty() => blank_line_error(),
            Ok(()) => match fill_and_write(filler, lines.text(), arguments, terminal)? {
                Ok(()) => {
                    failures.add_success();
                    continue;
                }
                Err(error) => error,
            },
            Err(error) => error,
        };
        write_failure(&mut failures, lines.number(), failed, arguments.json)?;
    }
    if failures.is_empty() {
        bail!("no text; give one as an argument, or lines on standard input");
    }
    failures.finish("filled")
}

/// Fills the masks of a text and writes the result. The inner error concerns this text only.
fn fill_and_write(
    filler: &Filler,
    text: &str,
    arguments: &Arguments,
    terminal: &Terminal,
) -> Result<Result<(), TaskError>> {
    let masks = match filler.fill(text, arguments.top) {
        Ok(masks) => masks,
        Err(error) => return Ok(Err(error)),
    };
    // Locked for each line and flushed, so that the reader of a pipe gets each result at once.
    let mut out = crate::output::stdout();
    if arguments.json {
        writeln!(out, "{}", json!({"text": text, "masks": masks}))?;
    } else {
        write_masks(&mut out, text, &masks, terminal)?;
    }
    out.flush()?;
    Ok(Ok(()))
}

/// Writes the candidates for each mask of a text, one per line.
pub fn write_masks(out: &mut dyn Write, text: &str, masks: &[Vec<Candidate>], terminal: &Terminal) -> Result<()> {
    writeln!(out, "{}", terminal.bold(text))?;
    for (number, candidates) in masks.iter().enumerate() {
        if masks.len() > 1 {
            writeln!(out, "  mask {}", number + 1)?;
        }
        for candidate in candidates {
            writeln!(out, "  {:>5.1} %  {:<14} {}", 100.0 * candidate.probability, candidate.token, candidate.text)?;
        }
    }
    Ok(())
}
