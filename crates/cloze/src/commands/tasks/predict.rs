//! `cloze predict`: predictions of a fine-tuned model, one JSON object per line.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, sync_channel};

use anyhow::{Context, Result, bail};
use cloze_tasks::datasets::LabelsNeeded;
use cloze_tasks::datasets::format::{Format, display_name};
use cloze_tasks::inference::Precision;
use cloze_tasks::input::object_of_line;
use cloze_tasks::kinds::Kind;
use cloze_tasks::kinds::description::Rows;
use cloze_tasks::lines::Lines;
use cloze_tasks::{Notes, Predictor, Tabs, TaskError};
use serde_json::{Value, json};

use super::files::check_files;
use super::fine_tuned::{HAS_LABELS, check, open, report_long_rows};
use super::per_kind::{PerKind, TaskArguments};
use super::read::DataArguments;
use crate::commands::failures::Failures;
use crate::commands::model::ModelArguments;
use crate::commands::tokenizer::note_special_names;
use crate::failure::usage;
use crate::help;
use crate::terminal::Terminal;

/// Maximum number of rows predicted together.
const CHUNK: usize = 512;

/// `cloze predict [KIND] --model DIR --input FILE|-`
#[derive(Debug, Clone, clap::Args)]
#[command(
    after_help = help::examples(&EXAMPLES[..2]),
    after_long_help = help::details(
        "The kind of task, the columns and the lengths are read from the model; options override them. Options of a single kind, \
         such as --n-best, are in the help of that kind: cloze predict answer --help.\n\n\
         The input format is given by --format, otherwise by the file extension (.tsv, .csv, .jsonl, .parquet, .conll, …), \
         otherwise by the beginning of the file: JSON, tagged words, or a table whose first line names the text column; \
         anything else is plain text, one row per line. Lines from standard input are answered immediately. Output is one JSON \
         object per line.\n\n\
         A text with more than --max-len tokens is truncated, and counted in a warning, unless the model was trained with windows (--stride). \
         With --long mean or max it is read in windows, whose logits are averaged, weighted by their tokens, or maximised before the softmax \
         or sigmoid; its line has the number of \"windows\".\n\n\
         For a row that cannot be read or predicted, the output has {\"row\": N, \"error\": …}, and the exit code is 1; with \
         --strict the command stops there.",
        &EXAMPLES,
    )
)]
pub struct Arguments {
    #[command(flatten)]
    model: ModelArguments,

    /// Input file; - for the lines of standard input
    #[arg(long, value_name = "FILE", default_value = "-")]
    input: PathBuf,

    /// Stop at the first row that cannot be predicted instead of writing an "error" in its place
    #[arg(long)]
    strict: bool,

    /// Number format of the matrix products
    #[arg(long, default_value = "auto", value_parser = crate::values::named(&Precision::ALL))]
    precision: Precision,

    #[command(flatten)]
    read: DataArguments,
}

/// Examples for the help, one per line.
const EXAMPLES: [&str; 3] = [
    "cloze predict --model runs/stars --input reviews.txt",
    "echo 'a gripping film' | cloze predict --model runs/sst2",
    "cloze predict answer --model runs/qa --input questions.jsonl --n-best 3",
];

impl TaskArguments for Arguments {
    const NAME: &'static str = "predict";
    const OVERVIEW: &'static [&'static str] =
        &["named", "revision", "offline", "input", "format", "strict", "precision", "text", "pair", "max_len"];

    fn about(kind: &Kind) -> String {
        format!("Predict {}", kind.description.about)
    }

    fn details(kind: &Kind) -> String {
        format!("Input: {}\n\nOutput, a line for each row: {}", kind.description.input, kind.description.output)
    }

    fn examples(kind: &Kind) -> &'static [&'static str] {
        kind.description.examples.predict
    }

    fn ineffective_options(kind: &Kind) -> Vec<(&'static str, &'static str)> {
        let always = [
            HAS_LABELS,
            ("label", "predict does not use labels; see `cloze evaluate`"),
            ("metric", "predict computes no scores; see `cloze evaluate`"),
            ("skip_bad", "predict writes an \"error\" in place of a bad row; see --strict"),
        ];
        [&always[..], kind.description.rejected_options.predict].concat()
    }
}

pub fn run(parsed: PerKind<Arguments>, terminal: &Terminal) -> Result<()> {
    let PerKind { kind, arguments, given } = parsed;
    let kind = arguments.read.kind(kind)?;
    kind.map_or(Ok(()), |kind| check::<Arguments>(kind, &given, &arguments.read))?;
    let input = arguments.input.as_path();
    check_files([&arguments.input])?;
    let Arguments { model, precision, read, .. } = &arguments;
    let predictor = open::<Arguments>(model, *precision, kind, &given, read, terminal)?;
    let result = predict(&predictor, input, arguments.strict, terminal);
    note_special_names(&predictor.model().tokenizer, terminal);
    report_long_rows(predictor.model().long_rows(), &predictor, terminal);
    result
}

fn predict(predictor: &Predictor, input: &Path, strict: bool, terminal: &Terminal) -> Result<()> {
    let found = predictor.format_of(input)?;
    check_columns(predictor, found.format, input)?;
    found.note(input).iter().for_each(|note| terminal.note(note));
    let is_streamed = matches!(found.format, Format::Lines | Format::Jsonl);
    let key = if is_streamed { "line" } else { "row" };
    let mut failures = Failures::new(display_name(input), key, strict);
    if is_streamed {
        predict_lines(predictor, input, found.format, &mut failures, terminal)?;
    } else {
        predict_rows(predictor, input, found.format, &mut failures, terminal)?;
    }
    if failures.is_empty() {
        bail!("{} has no rows", display_name(input));
    }
    failures.finish("predicted")
}

/// Refuses column options for formats without columns.
fn check_columns(predictor: &Predictor, format: Format, input: &Path) -> Result<()> {
    let given = &predictor.reading().options().settings;
    let options = [("--text", &given.text), ("--pair", &given.pair)];
    let option = options.iter().find(|(_, column)| column.is_some());
    match option.filter(|_| format == Format::Lines || format.is_tagged()) {
        Some((option, _)) => Err(usage(format!(
            "{option}: {} is read as {}, which has no columns of texts; see --format",
            display_name(input),
            format.name()
        ))),
        None => Ok(()),
    }
}

/// Predicts the rows of a file that is read completely.
fn predict_rows(
    predictor: &Predictor,
    input: &Path,
    format: Format,
    failures: &mut Failures,
    terminal: &Terminal,
) -> Result<()> {
    if predictor.kind().description.rows == Rows::Words && matches!(format, Format::Tsv | Format::Csv) {
        let rows = predictor.texts_of_table(input, format)?;
        let mut position = 1;
        let mut rows = rows.into_iter().peekable();
        while rows.peek().is_some() {
            let chunk: Vec<_> = rows.by_ref().take(CHUNK).collect();
            let count = chunk.len();
            write(failures, (position..).zip(predict_each(predictor, chunk)))?;
            position += count;
        }
        return Ok(());
    }
    let mut notes = Notes::default();
    let rows = predictor.read(&[input.to_owned()], LabelsNeeded::Optional, &mut notes)?;
    notes.0.iter().for_each(|note| terminal.warn(note));
    let bar = terminal.progress("predicting", Some(rows.len() as u64));
    let mut done = 0;
    while done < rows.len() {
        let next = rows.len().min(done + CHUNK);
        write(failures, (done + 1..).zip(predictor.predict_rows(&*rows, done..next)))?;
        done = next;
        bar.set(done as u64, "rows");
    }
    bar.finish();
    Ok(())
}

/// Predicts lines in order, together with all further lines that are already available.
fn predict_lines(
    predictor: &Predictor,
    input: &Path,
    format: Format,
    failures: &mut Failures,
    terminal: &Terminal,
) -> Result<()> {
    // Every command skips blank lines in files. In a pipe the writer expects one output line for each input line.
    let skips_blank = format == Format::Jsonl && input.is_file();
    let mut tabs = match (format, predictor.kind().description.rows, predictor.reading().tabs()) {
        (Format::Lines, Rows::Texts, Tabs::Space) => {
            Some("tabs are read as white space, because the model was trained on single texts, not pairs")
        }
        (Format::Lines, Rows::Texts, Tabs::Unsure) => {
            Some("a tab separates the two texts of a pair; the model does not tell whether it was trained on pairs")
        }
        _ => None,
    };
    let mut objects = 0;
    let lines = read_ahead(Lines::open(input)?).context("cannot start the reader thread")?;
    while let Ok(first) = lines.recv() {
        let mut chunk = vec![first];
        while chunk.len() < CHUNK
            && let Ok(line) = lines.try_recv()
        {
            chunk.push(line);
        }
        let (mut rows, mut positions, mut end) = (Vec::new(), Vec::new(), None);
        for (number, line) in chunk {
            match line {
                Ok(line) if skips_blank && line.trim().is_empty() => continue,
                Err(error) if !matches!(error, TaskError::Line { .. }) => {
                    end = Some(error);
                    continue;
                }
                line => rows.push(line.and_then(|line| {
                    if line.contains('\t')
                        && let Some(note) = tabs.take()
                    {
                        terminal.note(note);
                    }
                    let looks_like_json =
                        format == Format::Lines && line.starts_with('{') && line.trim_end().ends_with('}');
                    objects += usize::from(looks_like_json && object_of_line(&line).is_ok());
                    row_of(line, format)
                })),
            }
            positions.push(number);
        }
        write(failures, positions.into_iter().zip(predict_each(predictor, rows)))?;
        if let Some(error) = end {
            return Err(error.into());
        }
    }
    if objects > 0 {
        let (name, are) =
            (display_name(input), if objects == 1 { "line is a JSON object" } else { "lines are JSON objects" });
        terminal.warn(&format!(
            "{objects} {are} but read as plain text, because {name} begins with plain text; see --format jsonl"
        ));
    }
    Ok(())
}

/// Converts a line to a row.
fn row_of(line: String, format: Format) -> Result<Value, TaskError> {
    if line.trim().is_empty() {
        return Err(TaskError::Input {
            what: "line".to_owned(),
            problem: "expected a row, found only white space".to_owned(),
        });
    }
    if format == Format::Jsonl { object_of_line(&line) } else { Ok(Value::String(line)) }
}

/// Predicts the valid rows, and keeps the errors of the others in their positions.
fn predict_each(predictor: &Predictor, rows: Vec<Result<Value, TaskError>>) -> Vec<Result<Value, TaskError>> {
    let good: Vec<Value> = rows.iter().flatten().cloned().collect();
    let mut predicted = predictor.predict(&good).into_iter();
    rows.into_iter().map(|row| row.and_then(|_| predicted.next().unwrap_or(Ok(Value::Null)))).collect()
}

/// Writes predictions and errors in the order of the rows.
fn write(failures: &mut Failures, found: impl IntoIterator<Item = (usize, Result<Value, TaskError>)>) -> Result<()> {
    let mut out = crate::output::stdout();
    for (position, found) in found {
        let mut line = serde_json::Map::new();
        line.insert(failures.key().to_owned(), json!(position));
        match found {
            Ok(prediction) => {
                if let Value::Object(rest) = prediction {
                    line.extend(rest);
                }
                failures.add_success();
            }
            Err(error) => match failures.add_failure(position, error) {
                Ok(text) => drop(line.insert("error".to_owned(), text.into())),
                Err(error) => {
                    out.flush()?;
                    return Err(error);
                }
            },
        }
        writeln!(out, "{}", Value::Object(line))?;
    }
    out.flush()?;
    Ok(())
}

/// Lines with their numbers, read by a thread, so that available lines can be predicted together. The last item may be
/// an error.
fn read_ahead(mut lines: Lines) -> std::io::Result<Receiver<(usize, Result<String, TaskError>)>> {
    let (sender, receiver) = sync_channel(CHUNK);
    std::thread::Builder::new().spawn(move || {
        loop {
            let line = match lines.advance() {
                Ok(false) => return,
                Ok(true) => Ok(lines.text().to_owned()),
                Err(error) => Err(error),
            };
            // After an error in one line, the next line can still be read.
            let is_last = matches!(&line, Err(error) if !matches!(error, TaskError::Line { .. }));
            if sender.send((lines.number(), line)).is_err() || is_last {
                return;
            }
        }
    })?;
    Ok(receiver)
}
