//! `cloze predict`: a fine-tuned model and rows → predictions, one JSON object a line.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, sync_channel};

use anyhow::{Context, Result, bail};
use cloze_tasks::datasets::{Need, plain_name};
use cloze_tasks::files::{FromFiles, Notes, Options};
use cloze_tasks::lines::Lines;
use cloze_tasks::{Network, TaskError};
use serde_json::{Value, json};

use super::fine_tuned::HAS_LABELS;
use super::per_kind::{OfTask, PerKind};
use super::{DataArguments, FineTuned, ForTask, Kind, check_effect, check_files, for_kind};
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

    fn about(kind: Kind) -> String {
        format!("Predict {}", kind.about())
    }

    fn details(kind: Kind) -> &'static str {
        match kind {
            Kind::Classify => {
                "Input: a table (TSV, CSV, Parquet) by its ending; else lines, each plain text, with a tab before the second text of a \
                 pair, or a JSON object: {\"text\": …, \"pair\": …}, or with the keys of the training files.\n\n\
                 Output, a line for each row: label and probabilities."
            }
            Kind::Regress => {
                "Input: a table (TSV, CSV, Parquet) by its ending; else lines, each plain text, with a tab before the second text of a \
                 pair, or a JSON object: {\"text\": …, \"pair\": …}, or with the keys of the training files.\n\n\
                 Output, a line for each row: value."
            }
            Kind::Tag => {
                "Input: a file of tagged words by its ending (.conll, .conllu, .bio, .iob) or with --tag-format; else lines, each plain \
                 text or a JSON object: {\"text\": …} or {\"words\": […]}.\n\n\
                 Output, a line for each row: tags, and entities with their characters in the text."
            }
            Kind::Answer => {
                "Input: SQuAD's .json; else lines of JSON: {\"question\": …, \"context\": …, \"id\": …}.\n\n\
                 Output, a line for each row: the best answer with its characters and its score, and the n best."
            }
            Kind::Choose => {
                "Input: a table (CSV, Parquet) by its ending; else lines of JSON: {\"context\": …, \"choices\": […]}.\n\n\
                 Output, a line for each row: the choice, its ending and all probabilities."
            }
        }
    }

    fn examples(kind: Kind) -> &'static [&'static str] {
        match kind {
            Kind::Classify => &[
                "echo 'a gripping film' | cloze predict classify --model runs/sst2 --input -",
                "cloze predict classify --model runs/stars --input new.csv --text body",
            ],
            Kind::Regress => &["cloze predict regress --model runs/stsb --input pairs.tsv --text a --pair b"],
            Kind::Tag => &["cloze predict tag --model runs/ner --input articles.txt > entities.jsonl"],
            Kind::Answer => &[EXAMPLES[2]],
            Kind::Choose => &["cloze predict choose --model runs/swag --input endings.jsonl"],
        }
    }

    fn without_effect(kind: Kind) -> &'static [(&'static str, &'static str)] {
        const ALWAYS: [(&str, &str); 3] = [
            HAS_LABELS,
            ("label", "predicting does not look at labels; `cloze evaluate` does"),
            ("metric", "predicting gives no scores; `cloze evaluate` does"),
        ];
        const ANSWER: [(&str, &str); 4] =
            [ALWAYS[0], ALWAYS[1], ALWAYS[2], ("skip_bad", "predicting does not look at answers, so none is bad")];
        if kind == Kind::Answer { &ANSWER } else { &ALWAYS }
    }
}

pub fn run(asked: PerKind<Arguments>, terminal: &Terminal) -> Result<()> {
    let PerKind { kind, arguments, given } = asked;
    let check = |kind| check_effect::<Arguments>(&given, kind).and_then(|()| arguments.read.check(kind));
    let kind = arguments.read.kind(kind)?;
    kind.map_or(Ok(()), check)?;
    check_files([&arguments.input])?;
    let named = &arguments.model.named;
    let model = FineTuned::open(&arguments.model.find(terminal)?, arguments.precision, terminal)?;
    let kind = model.kind(kind, named, Arguments::NAME)?;
    check(kind)?;
    for_kind(kind, Predict { kind, arguments: &arguments, model, terminal })
}

struct Predict<'a> {
    kind: Kind,
    arguments: &'a Arguments,
    model: FineTuned,
    terminal: &'a Terminal,
}

impl ForTask for Predict<'_> {
    type Outcome = ();

    fn run<T: FromFiles>(self) -> Result<()> {
        let Predict { kind, arguments, model, terminal } = self;
        let (task, options): (T, Options) = model.task(kind, &arguments.read, terminal)?;
        let network = model.network;
        let input = arguments.input.as_path();
        let says_format = kind == Kind::Tag && options.tag_format.is_some() && input != Path::new("-");
        if says_format || is_structured(input, kind) {
            let mut notes = Notes::default();
            let rows = task.read(&options, &[input.to_owned()], Need::Optional, &network.tokenizer, &mut notes)?;
            for note in &notes.0 {
                terminal.warn(note);
            }
            let bar = terminal.progress("predicting", Some(rows.len() as u64));
            let mut done = 0;
            for part in rows.chunks(CHUNK) {
                print(&network.predict(&task, part, &mut |_| ())?, done)?;
                done += part.len();
                bar.set(done as u64, "rows");
            }
            bar.finish();
            return Ok(());
        }
        answer_lines(&network, &task, &options, input)
    }
}

/// Whether a file's rows are found without being told how they are written: more than lines, or lines of JSON.
pub fn reads_rows_of(path: &Path, kind: Kind) -> bool {
    let name = plain_name(path);
    is_structured(path, kind) || [".jsonl", ".ndjson"].iter().any(|ending| name.ends_with(ending))
}

/// Whether a file is more than lines: a table, a file of tagged words, SQuAD's JSON.
fn is_structured(path: &Path, kind: Kind) -> bool {
    let name = plain_name(path);
    let ending = name.rsplit_once('.').map_or("", |(_, ending)| ending);
    match kind {
        Kind::Tag => matches!(ending, "conll" | "conllu" | "bio" | "iob"),
        Kind::Answer => ending == "json",
        Kind::Classify | Kind::Regress | Kind::Choose => matches!(ending, "tsv" | "csv" | "parquet" | "pq"),
    }
}

/// Answers lines in their order, as many together as are there.
fn answer_lines<T: FromFiles>(network: &Network, task: &T, options: &Options, input: &Path) -> Result<()> {
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
        let mut parsed = Vec::new();
        let mut places = Vec::new();
        // A line that cannot be read ends the work, but those before it are answered.
        let mut wrong = None;
        for line in chunk {
            let row = match line {
                Ok((_, line)) if line.trim().is_empty() => continue,
                Ok((number, line)) => {
                    let row = task.parse_line(options, &line, &network.tokenizer);
                    row.map(|row| (number, row)).with_context(|| format!("{name}, line {number}"))
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
        let found = network.predict(task, &parsed, &mut |_| ());
        // A row that cannot be answered is one of these lines.
        let found = found.with_context(|| match (places.first(), places.last()) {
            (Some(first), Some(last)) if first != last => format!("{name}, lines {first} to {last}"),
            (place, _) => format!("{name}, line {}", place.copied().unwrap_or_default()),
        })?;
        rows += found.len();
        let mut out = std::io::stdout().lock();
        for (prediction, line) in found.iter().zip(places) {
            write_line(&mut out, prediction, "line", line)?;
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

fn print<P: serde::Serialize>(predictions: &[P], before: usize) -> Result<()> {
    let mut out = std::io::stdout().lock();
    for (number, prediction) in predictions.iter().enumerate() {
        write_line(&mut out, prediction, "row", before + number + 1)?;
    }
    Ok(out.flush()?)
}

/// One prediction with the place of its row.
fn write_line<P: serde::Serialize>(out: &mut impl Write, prediction: &P, key: &str, place: usize) -> Result<()> {
    let mut line = serde_json::Map::new();
    line.insert(key.to_owned(), json!(place));
    if let Value::Object(rest) = serde_json::to_value(prediction)? {
        line.extend(rest);
    }
    writeln!(out, "{}", Value::Object(line))?;
    Ok(())
}
