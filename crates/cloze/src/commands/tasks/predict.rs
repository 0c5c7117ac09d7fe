//! `cloze predict`: a fine-tuned model and rows → predictions, one JSON object a line.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, sync_channel};

use anyhow::{Context, Result, bail};
use cloze_tasks::datasets::Need;
use cloze_tasks::input::of_line;
use cloze_tasks::kinds::Kind;
use cloze_tasks::lines::Lines;
use cloze_tasks::{Notes, Predictor, TaskError};
use serde_json::{Value, json};

use super::files::check_files;
use super::fine_tuned::{HAS_LABELS, check, open};
use super::per_kind::{OfTask, PerKind};
use super::read::DataArguments;
use crate::commands::model::ModelArguments;
use crate::commands::precision::Type;
use crate::commands::tokenizer::tell_special_names;
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
         Input is a table (TSV, CSV, Parquet), a file of tagged words or SQuAD's JSON, as its ending says; else lines, plain text \
         or JSON objects. From standard input each line is answered as soon as it is there. Output is one JSON object a line.\n\n\
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
    #[arg(long, value_enum, default_value_t = Type::Auto)]
    precision: Type,

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
        &["named", "revision", "offline", "input", "strict", "precision", "text", "pair", "max_len"];

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
        [&always[..], kind.description.refused.predict].concat()
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
    let description = &predictor.kind().description;
    let own = &predictor.reading().given().settings.own;
    let says_format = description.format_options.iter().any(|option| own.contains_key(*option));
    let is_table = description.is_table(input) || says_format && input != Path::new("-");
    let name = if input == Path::new("-") { "standard input".to_owned() } else { input.display().to_string() };
    let key = if is_table { "row" } else { "line" };
    let mut answers = Answers { name, key, strict, rows: 0, failed: 0, first: None };
    if is_table {
        let mut notes = Notes::default();
        let rows = predictor.read(&[input.to_owned()], Need::Optional, &mut notes)?;
        notes.0.iter().for_each(|note| terminal.warn(note));
        let bar = terminal.progress("predicting", Some(rows.len() as u64));
        let mut done = 0;
        while done < rows.len() {
            let next = rows.len().min(done + CHUNK);
            answers.write((done + 1..).zip(predictor.predict_rows(&*rows, done..next)))?;
            done = next;
            bar.set(done as u64, "rows");
        }
        bar.finish();
    } else {
        answer_lines(predictor, input, &mut answers)?;
    }
    answers.end()
}

/// Answers lines in their order, as many together as are there.
fn answer_lines(predictor: &Predictor, input: &Path, answers: &mut Answers) -> Result<()> {
    let lines = read_ahead(Lines::open(input)?).context("cannot start a thread that reads ahead")?;
    while let Ok(first) = lines.recv() {
        let mut chunk = vec![first];
        while chunk.len() < CHUNK
            && let Ok(line) = lines.try_recv()
        {
            chunk.push(line);
        }
        let (mut parsed, mut places, mut end) = (Vec::new(), Vec::new(), None);
        for line in chunk {
            match line {
                Ok((number, line)) => {
                    parsed.push(row_of(&line));
                    places.push(number);
                }
                Err(error) => end = Some(error),
            }
        }
        let good: Vec<Value> = parsed.iter().flatten().cloned().collect();
        let mut predicted = predictor.predict(&good).into_iter();
        let found = parsed.into_iter().map(|row| row.and_then(|_| predicted.next().unwrap_or(Ok(Value::Null))));
        answers.write(places.into_iter().zip(found))?;
        if let Some(error) = end {
            return Err(error.into());
        }
    }
    Ok(())
}

/// A line's row.
fn row_of(line: &str) -> Result<Value, TaskError> {
    match line.trim() {
        "" => Err(TaskError::Input { what: "line".to_owned(), problem: "is blank, expected a text".to_owned() }),
        _ => of_line(line),
    }
}

/// Predictions and errors, written in the order of their rows.
struct Answers {
    /// The input.
    name: String,
    /// What a row's place is called: "row" or "line".
    key: &'static str,
    /// Whether the first error ends the work.
    strict: bool,
    /// How many are written.
    rows: usize,
    /// How many of them are errors, and the first.
    failed: usize,
    first: Option<String>,
}

impl Answers {
    fn write(&mut self, found: impl Iterator<Item = (usize, Result<Value, TaskError>)>) -> Result<()> {
        let mut out = crate::output::results();
        for (place, found) in found {
            let mut line = serde_json::Map::new();
            line.insert(self.key.to_owned(), json!(place));
            match found {
                Ok(Value::Object(rest)) => line.extend(rest),
                Ok(_) => {}
                // Every row would fail alike.
                Err(error @ TaskError::Setting { .. }) => {
                    out.flush()?;
                    return Err(error.into());
                }
                Err(error) => {
                    let text = error.to_string();
                    let says_where = text.starts_with(&format!("{}:", self.name));
                    let full =
                        if says_where { text.clone() } else { format!("{}, {} {place}: {text}", self.name, self.key) };
                    if self.strict {
                        out.flush()?;
                        bail!(full);
                    }
                    line.insert("error".to_owned(), text.into());
                    self.failed += 1;
                    self.first.get_or_insert(full);
                }
            }
            writeln!(out, "{}", Value::Object(line))?;
            self.rows += 1;
        }
        out.flush()?;
        Ok(())
    }

    /// Fails if a row did, or if there was none.
    fn end(self) -> Result<()> {
        let Answers { name, key, rows, failed, .. } = self;
        match self.first {
            None if rows == 0 => bail!("{name} holds no rows"),
            None => Ok(()),
            Some(first) => bail!("{failed} of {rows} {key}s could not be predicted; the first: {first}"),
        }
    }
}

/// Lines with their numbers, read ahead by a thread, so that those that are there can be answered together.
fn read_ahead(mut lines: Lines) -> std::io::Result<Receiver<Result<(usize, String), TaskError>>> {
    let (to, ahead) = sync_channel(CHUNK);
    std::thread::Builder::new().spawn(move || {
        loop {
            let line = match lines.advance() {
                Ok(false) => return,
                Ok(true) => Ok((lines.number(), lines.text().to_owned())),
                Err(error) => Err(error),
            };
            let failed = line.is_err();
            if to.send(line).is_err() || failed {
                return;
            }
        }
    })?;
    Ok(ahead)
}
