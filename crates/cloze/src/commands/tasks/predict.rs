//! `cloze predict`: a fine-tuned model and rows → predictions, one JSON object a line.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, sync_channel};

use anyhow::{Context, Result, bail};
use cloze_tasks::datasets::LabelsNeeded;
use cloze_tasks::datasets::format::{Format, display_name};
use cloze_tasks::input::object_of_line;
use cloze_tasks::kinds::Kind;
use cloze_tasks::kinds::description::Rows;
use cloze_tasks::lines::Lines;
use cloze_tasks::{Notes, Predictor, Tabs, TaskError};
use cloze_train::recipe::Precision;
use serde_json::{Value, json};

use super::files::check_files;
use super::fine_tuned::{HAS_LABELS, check, open};
use super::per_kind::{OfTask, PerKind};
use super::read::DataArguments;
use crate::commands::failures::Failures;
use crate::commands::model::ModelArguments;
use crate::commands::tokenizer::tell_special_names;
use crate::failure::usage;
use crate::help;
use crate::terminal::Terminal;

/// Lines that are answered together at most, and rows of a file.
const CHUNK: usize = 512;

/// `cloze predict [KIND] --model DIR --input FILE|-`
#[derive(Debug, Clone, clap::Args)]
#[command(
    after_help = help::examples(&EXAMPLES[..2]),
    after_long_help = help::details(
        "The kind of task, the columns and the lengths are the model's; options override them. Options for one kind alone, such \
         as --n-best, are in its help: cloze predict answer --help.\n\n\
         Input is read as evaluate reads it: --format says how it is written, else its ending (.tsv, .csv, .jsonl, .parquet, .conll, \
         …), else its beginning, for the whole file: JSON, tagged words, or a table whose first line names the column of the texts; \
         all else is plain text, a row a line. From standard input each line is answered as soon as it is there. Output is one JSON object a line.\n\n\
         A row that cannot be read or predicted gets {\"row\": N, \"error\": …} in its place, and the command ends with exit code 1; \
         with --strict it stops there.",
        &EXAMPLES,
    )
)]
pub struct Arguments {
    #[command(flatten)]
    model: ModelArguments,

    /// File of rows; `-`: the lines of standard input
    #[arg(long, value_name = "FILE", default_value = "-")]
    input: PathBuf,

    /// Stop at the first row that cannot be predicted, instead of writing an "error" in its place
    #[arg(long)]
    strict: bool,

    /// Type of the activations
    #[arg(long, default_value = "auto", value_parser = crate::values::named(&Precision::ALL))]
    precision: Precision,

    #[command(flatten)]
    read: DataArguments,
}

/// Examples of the command, a line each.
const EXAMPLES: [&str; 3] = [
    "cloze predict --model runs/stars --input reviews.txt",
    "echo 'a gripping film' | cloze predict --model runs/sst2",
    "cloze predict answer --model runs/qa --input questions.jsonl --n-best 3",
];

impl OfTask for Arguments {
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

    fn without_effect(kind: &Kind) -> Vec<(&'static str, &'static str)> {
        let always = [
            HAS_LABELS,
            ("label", "predicting does not look at labels; `cloze evaluate` does"),
            ("metric", "predicting gives no scores; `cloze evaluate` does"),
            ("skip_bad", "a row that cannot be predicted gets an \"error\" in its place; see --strict"),
        ];
        [&always[..], kind.description.rejected_options.predict].concat()
    }
}

pub fn run(asked: PerKind<Arguments>, terminal: &Terminal) -> Result<()> {
    let PerKind { kind, arguments, given } = asked;
    let kind = arguments.read.kind(kind)?;
    kind.map_or(Ok(()), |kind| check::<Arguments>(kind, &given, &arguments.read))?;
    let input = arguments.input.as_path();
    check_files([&arguments.input])?;
    let Arguments { model, precision, read, .. } = &arguments;
    let predictor = open::<Arguments>(model, *precision, kind, &given, read, terminal)?;
    let done = answer(&predictor, input, arguments.strict, terminal);
    tell_special_names(&predictor.model().tokenizer, terminal);
    done
}

fn answer(predictor: &Predictor, input: &Path, strict: bool, terminal: &Terminal) -> Result<()> {
    let found = predictor.format_of(input)?;
    check_columns(predictor, found.format, input)?;
    found.note(input).iter().for_each(|note| terminal.note(note));
    let is_streamed = matches!(found.format, Format::Lines | Format::Jsonl);
    let key = if is_streamed { "line" } else { "row" };
    let mut answers = Failures::new(display_name(input), key, strict);
    if is_streamed {
        answer_lines(predictor, input, found.format, &mut answers, terminal)?;
    } else {
        answer_rows(predictor, input, found.format, &mut answers, terminal)?;
    }
    if answers.is_empty() {
        bail!("{} holds no rows", display_name(input));
    }
    answers.end("predicted")
}

/// Refuses columns where a file has none.
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

/// Answers the rows of a file that is read whole.
fn answer_rows(
    predictor: &Predictor,
    input: &Path,
    format: Format,
    answers: &mut Failures,
    terminal: &Terminal,
) -> Result<()> {
    if predictor.kind().description.rows == Rows::Words && matches!(format, Format::Tsv | Format::Csv) {
        let rows = predictor.texts_of_table(input, format)?;
        let mut place = 1;
        let mut rows = rows.into_iter().peekable();
        while rows.peek().is_some() {
            let chunk: Vec<_> = rows.by_ref().take(CHUNK).collect();
            let count = chunk.len();
            write(answers, (place..).zip(predict_each(predictor, chunk)))?;
            place += count;
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
        write(answers, (done + 1..).zip(predictor.predict_rows(&*rows, done..next)))?;
        done = next;
        bar.set(done as u64, "rows");
    }
    bar.finish();
    Ok(())
}

/// Answers lines in their order, as many together as are there.
fn answer_lines(
    predictor: &Predictor,
    input: &Path,
    format: Format,
    answers: &mut Failures,
    terminal: &Terminal,
) -> Result<()> {
    // Rows of a file are the same for all commands, so that its blank lines are none; who writes into a pipe waits for an answer.
    let passes_blank = format == Format::Jsonl && input.is_file();
    let mut tabs = match (format, predictor.kind().description.rows, predictor.reading().tabs()) {
        (Format::Lines, Rows::Texts, Tabs::Space) => {
            Some("tabs are read as white space: the model learned single texts, not pairs")
        }
        (Format::Lines, Rows::Texts, Tabs::Unsure) => {
            Some("a tab separates the two texts of a pair: the model does not say whether it learned pairs")
        }
        _ => None,
    };
    let mut objects = 0;
    let lines = read_ahead(Lines::open(input)?).context("cannot start a thread that reads ahead")?;
    while let Ok(first) = lines.recv() {
        let mut chunk = vec![first];
        while chunk.len() < CHUNK
            && let Ok(line) = lines.try_recv()
        {
            chunk.push(line);
        }
        let (mut rows, mut places, mut end) = (Vec::new(), Vec::new(), None);
        for (number, line) in chunk {
            match line {
                Ok(line) if passes_blank && line.trim().is_empty() => continue,
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
            places.push(number);
        }
        write(answers, places.into_iter().zip(predict_each(predictor, rows)))?;
        if let Some(error) = end {
            return Err(error.into());
        }
    }
    if objects > 0 {
        let (name, are) =
            (display_name(input), if objects == 1 { "line is a JSON object" } else { "lines are JSON objects" });
        terminal.warn(&format!(
            "{objects} {are} and read as plain text, as {name} begins with plain text; see --format jsonl"
        ));
    }
    Ok(())
}

/// A line's row.
fn row_of(line: String, format: Format) -> Result<Value, TaskError> {
    if line.trim().is_empty() {
        return Err(TaskError::Input {
            what: "line".to_owned(),
            problem: "expected a row, found only white space".to_owned(),
        });
    }
    if format == Format::Jsonl { object_of_line(&line) } else { Ok(Value::String(line)) }
}

/// The predictions of those that are rows, in their places.
fn predict_each(predictor: &Predictor, rows: Vec<Result<Value, TaskError>>) -> Vec<Result<Value, TaskError>> {
    let good: Vec<Value> = rows.iter().flatten().cloned().collect();
    let mut predicted = predictor.predict(&good).into_iter();
    rows.into_iter().map(|row| row.and_then(|_| predicted.next().unwrap_or(Ok(Value::Null)))).collect()
}

/// Writes predictions and errors in the order of their rows.
fn write(answers: &mut Failures, found: impl IntoIterator<Item = (usize, Result<Value, TaskError>)>) -> Result<()> {
    let mut out = crate::output::results();
    for (place, found) in found {
        let mut line = serde_json::Map::new();
        line.insert(answers.key().to_owned(), json!(place));
        match found {
            Ok(prediction) => {
                if let Value::Object(rest) = prediction {
                    line.extend(rest);
                }
                answers.answered();
            }
            Err(error) => match answers.add(place, error) {
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

/// Lines with their numbers, read ahead by a thread, so that those that are there can be answered together. The last may be an error.
fn read_ahead(mut lines: Lines) -> std::io::Result<Receiver<(usize, Result<String, TaskError>)>> {
    let (to, ahead) = sync_channel(CHUNK);
    std::thread::Builder::new().spawn(move || {
        loop {
            let line = match lines.advance() {
                Ok(false) => return,
                Ok(true) => Ok(lines.text().to_owned()),
                Err(error) => Err(error),
            };
            // After a line that cannot be read the next one can.
            let is_last = matches!(&line, Err(error) if !matches!(error, TaskError::Line { .. }));
            if to.send((lines.number(), line)).is_err() || is_last {
                return;
            }
        }
    })?;
    Ok(ahead)
}
