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
         or JSON objects. From standard input each line is answered as soon as it is there. Output is one JSON object a line.",
        &EXAMPLES,
    )
)]
pub struct Arguments {
    #[command(flatten)]
    model: ModelArguments,

    /// File of rows; `-`: the lines of standard input
    #[arg(long, value_name = "FILE", default_value = "-")]
    input: PathBuf,

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
        &["named", "revision", "offline", "input", "precision", "text", "pair", "max_len"];

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
    let description = &predictor.kind().description;
    let own = &predictor.reading().given().settings.own;
    let says_format = description.format_options.iter().any(|option| own.contains_key(*option));
    let is_table = description.is_table(input) || says_format && input != Path::new("-");
    if !is_table {
        return answer_lines(&predictor, input);
    }
    let mut notes = Notes::default();
    let rows = predictor.read(&[input.to_owned()], Need::Optional, &mut notes)?;
    for note in &notes.0 {
        terminal.warn(note);
    }
    let bar = terminal.progress("predicting", Some(rows.len() as u64));
    let mut done = 0;
    while done < rows.len() {
        let next = rows.len().min(done + CHUNK);
        let mut out = crate::output::results();
        for (row, prediction) in (done + 1..).zip(predictor.predict_rows(&*rows, done..next)) {
            write_line(&mut out, prediction?, "row", row)?;
        }
        out.flush()?;
        done = next;
        bar.set(done as u64, "rows");
    }
    bar.finish();
    Ok(())
}

/// Answers lines in their order, as many together as are there. A line that cannot be answered ends the work, but those before it are
/// answered.
fn answer_lines(predictor: &Predictor, input: &Path) -> Result<()> {
    let lines = Lines::open(input)?;
    let name = lines.path().display().to_string();
    let lines = read_ahead(lines);
    let mut rows = 0;
    while let Ok(first) = lines.recv() {
        let mut chunk = vec![first];
        while chunk.len() < CHUNK
            && let Ok(line) = lines.try_recv()
        {
            chunk.push(line);
        }
        let (mut parsed, mut places) = (Vec::new(), Vec::new());
        let mut wrong = None;
        for line in chunk {
            let row = match line {
                Ok((_, line)) if line.trim().is_empty() => continue,
                Ok((number, line)) => {
                    of_line(&line).map(|row| (number, row)).with_context(|| format!("{name}, line {number}"))
                }
                Err(error) => Err(error.into()),
            };
            match row {
                Ok((number, row)) => {
                    places.push(number);
                    parsed.push(row);
                }
                Err(error) => {
                    wrong = Some(error);
                    break;
                }
            }
        }
        let mut out = crate::output::results();
        for (prediction, line) in predictor.predict(&parsed).into_iter().zip(places) {
            match prediction {
                Ok(prediction) => write_line(&mut out, prediction, "line", line)?,
                Err(error) => {
                    wrong = Some(anyhow::Error::from(error).context(format!("{name}, line {line}")));
                    break;
                }
            }
            rows += 1;
        }
        out.flush()?;
        if let Some(error) = wrong {
            return Err(error);
        }
    }
    if rows == 0 {
        bail!("{name} holds no rows");
    }
    Ok(())
}

/// Lines with their numbers, read ahead by a thread, so that those that are there can be answered together.
fn read_ahead(mut lines: Lines) -> Receiver<Result<(usize, String), TaskError>> {
    let (to, ahead) = sync_channel(CHUNK);
    std::thread::spawn(move || {
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
    });
    ahead
}

/// One prediction with the place of its row.
fn write_line(out: &mut impl Write, prediction: Value, key: &str, place: usize) -> Result<()> {
    let mut line = serde_json::Map::new();
    line.insert(key.to_owned(), json!(place));
    if let Value::Object(rest) = prediction {
        line.extend(rest);
    }
    writeln!(out, "{}", Value::Object(line))?;
    Ok(())
}
