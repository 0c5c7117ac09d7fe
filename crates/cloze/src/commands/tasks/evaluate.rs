//! `cloze evaluate [KIND]`: scores a fine-tuned model on labelled rows.

use std::io::Write;
use std::path::PathBuf;

use anyhow::{Result, bail};
use cloze_tasks::datasets::LabelsNeeded;
use cloze_tasks::datasets::preset::Split;
use cloze_tasks::inference::Precision;
use cloze_tasks::kinds::Kind;
use cloze_tasks::kinds::rerank::KIND as RERANK;
use cloze_tasks::metrics::bootstrap::{Interval, bootstrap_all};
use cloze_tasks::{Long, Notes};
use serde_json::{Value, json};

use super::files::{check_files, files_or_preset};
use super::fine_tuned::{HAS_LABELS, check, open, report_long_rows};
use super::per_kind::{PerKind, TaskArguments};
use super::read::DataArguments;
use crate::commands::model::ModelArguments;
use crate::commands::tokenizer::note_special_names;
use crate::terminal::Terminal;
use crate::{format, help};

/// `cloze evaluate [KIND] --model DIR --data FILE`
#[derive(Debug, Clone, clap::Args)]
#[command(
    after_help = help::examples(&EXAMPLES[..2]),
    after_long_help = help::details(
        "The kind of task, the columns and the lengths are read from the model; options override them. Options of a single kind, \
         such as --null-threshold, are in the help of that kind: cloze evaluate answer --help.",
        &EXAMPLES,
    )
)]
pub struct Arguments {
    #[command(flatten)]
    model: ModelArguments,

    /// Labelled files, or the folder of a known task's official files
    #[arg(long, value_name = "FILE", required = true, num_args = 1..)]
    data: Vec<PathBuf>,

    /// Compute 95 % confidence intervals from N resamples
    #[arg(long, value_name = "N", default_value_t = 0, value_parser = crate::values::items_or_none)]
    bootstrap: usize,

    /// Write the prediction and gold label of each row as JSON lines
    #[arg(long, value_name = "FILE.jsonl")]
    predictions: Option<PathBuf>,

    /// Number format of the matrix products
    #[arg(long, default_value = "auto", value_parser = crate::values::named(&Precision::ALL))]
    precision: Precision,

    /// Print the result as one JSON object
    #[arg(long)]
    json: bool,

    #[command(flatten)]
    read: DataArguments,
}

/// Examples for the help, one per line.
const EXAMPLES: [&str; 4] = [
    "cloze evaluate --model runs/stars --data test.tsv",
    "cloze evaluate pretrain --model runs/mini --data shards",
    "cloze evaluate --model runs/mrpc --data glue/MRPC --bootstrap 1000 --json",
    "cloze evaluate answer --model runs/qa --data dev-v1.1.json --predictions answers.jsonl",
];

impl TaskArguments for Arguments {
    const NAME: &'static str = "evaluate";
    const SUBCOMMANDS: &'static str =
        "What to evaluate, if not a fine-tuned model of a known kind of task; each has a --help";
    const OVERVIEW: &'static [&'static str] = &[
        "named",
        "revision",
        "offline",
        "data",
        "bootstrap",
        "predictions",
        "precision",
        "json",
        "format",
        "task",
        "text",
        "pair",
        "label",
        "max_len",
    ];

    fn about(kind: &Kind) -> String {
        kind.description.scores.to_owned()
    }

    fn details(_: &Kind) -> String {
        "The columns and the lengths are read from the model; options override them. --data can be the folder with the official \
         files of a known task; its dev file is used."
            .to_owned()
    }

    fn examples(kind: &Kind) -> &'static [&'static str] {
        kind.description.examples.evaluate
    }

    /// `cloze evaluate rerank` is the evaluation of a cross-encoder on lists of documents.
    fn has_subcommand(kind: &Kind) -> bool {
        *kind != RERANK
    }

    fn ineffective_options(kind: &Kind) -> Vec<(&'static str, &'static str)> {
        [&[HAS_LABELS][..], kind.description.rejected_options.evaluate].concat()
    }
}

pub fn run(parsed: PerKind<Arguments>, terminal: &Terminal) -> Result<()> {
    let PerKind { kind, arguments, given } = parsed;
    let kind = arguments.read.kind(kind)?;
    kind.map_or(Ok(()), |kind| check::<Arguments>(kind, &given, &arguments.read))?;
    check_files(&arguments.data)?;
    let Arguments { model, precision, read, .. } = &arguments;
    let predictor = open::<Arguments>(model, *precision, kind, &given, read, terminal)?;
    let files = match &arguments.data[..] {
        [folder] if folder.is_dir() => files_or_preset(&[], Some(folder), predictor.reading().preset(), Split::Dev)?,
        files => files.to_vec(),
    };
    if files.is_empty() {
        bail!("{} is a folder; give files, or --task NAME to find them in it", arguments.data[0].display());
    }
    let mut notes = Notes::default();
    let rows = predictor.read(&files, LabelsNeeded::Required, &mut notes)?;
    for note in &notes.0 {
        terminal.warn(note);
    }
    rows.summary().iter().for_each(|line| terminal.note(line));
    let bar = terminal.progress_fraction("evaluating");
    let evaluation = predictor.evaluate(&*rows, &mut |fraction| bar.set_fraction(fraction, "rows"))?;
    let seconds = bar.seconds();
    bar.finish();
    note_special_names(&predictor.model().tokenizer, terminal);
    report_long_rows(evaluation.long, &predictor, terminal);
    if let Some(path) = &arguments.predictions {
        let mut text = String::new();
        for prediction in evaluation.predictions.to_json()? {
            text += &format!("{prediction}\n");
        }
        cloze_files::write(path, text.as_bytes())?;
    }
    let scores_of = |indices: &[usize]| {
        evaluation.predictions.scores_of(indices).values.iter().map(|(_, value)| Some(*value)).collect()
    };
    let intervals = bootstrap_all(rows.len(), arguments.bootstrap, 0.95, 0, scores_of);
    let ends = |interval: Option<Interval>| interval.map_or(Value::Null, |found| json!([found.low, found.high]));
    let intervals: Vec<Value> = intervals.into_iter().map(ends).collect();
    let mut out = crate::output::stdout();
    if arguments.json {
        let mut line = evaluation.scores.to_json();
        line["loss"] = json!(evaluation.loss);
        if predictor.kind().description.has_option("long") {
            line["max_len"] = json!(predictor.reading().max_len());
            line["long"] = json!(predictor.reading().options().long.map(Long::name));
            line["rows_read"] = json!(evaluation.long);
        }
        line["model"] = json!(format::path(&arguments.model.named));
        line["data"] = json!(format::paths(&arguments.data));
        line["seconds"] = json!(seconds);
        line["rows_per_s"] = json!(rows.len() as f64 / seconds.max(f64::MIN_POSITIVE));
        if arguments.bootstrap > 0 {
            let names = evaluation.scores.values.iter().map(|(name, _)| name.clone());
            line["interval_95"] = names.zip(intervals).collect::<serde_json::Map<_, _>>().into();
        }
        line["peak_rss_bytes"] = json!(cloze_files::machine::peak_memory());
        writeln!(out, "{line}")?;
        return Ok(());
    }
    writeln!(out, "{} rows, loss {:.4}", format::count(evaluation.scores.rows as u64), evaluation.loss)?;
    for (place, (name, value)) in evaluation.scores.values.iter().enumerate() {
        let interval = match intervals.get(place).and_then(|pair| Some((pair[0].as_f64()?, pair[1].as_f64()?))) {
            Some((low, high)) => format!("  95 % {low:.4} to {high:.4}"),
            None => String::new(),
        };
        writeln!(out, "{name:<22} {value:.4}{interval}")?;
    }
    for (name, value) in &evaluation.scores.details {
        write_detail(&mut out, name, value)?;
    }
    if let Some(answer) = &evaluation.scores.collapsed {
        terminal.warn(&format!("every prediction is {answer:?}: the model has collapsed"));
    }
    Ok(())
}

/// Writes a detail of the scores: a table by type or label, a confusion matrix, or a number.
fn write_detail(out: &mut dyn Write, name: &str, value: &Value) -> Result<()> {
    let Some(object) = value.as_object() else {
        writeln!(out, "{name:<22} {value}")?;
        return Ok(());
    };
    if let (Some(labels), Some(counts)) = (object.get("labels").and_then(Value::as_array), object.get("counts")) {
        let labels: Vec<&str> = labels.iter().filter_map(Value::as_str).collect();
        if labels.len() <= 20 {
            let counts: Vec<Vec<usize>> = serde_json::from_value(counts.clone())?;
            let labels = labels.into_iter().map(str::to_owned).collect();
            writeln!(out, "{}", cloze_tasks::metrics::classes::ConfusionMatrix { labels, counts })?;
        }
        return Ok(());
    }
    let rows: Vec<(&String, &serde_json::Map<String, Value>)> =
        object.iter().filter_map(|(key, value)| Some((key, value.as_object()?))).collect();
    let number = |value: &Value| match value.as_f64() {
        Some(x) if x.fract() == 0.0 && value.is_u64() => format!("{x}"),
        Some(x) => format!("{x:.4}"),
        None => value.to_string(),
    };
    if rows.is_empty() {
        let cells: Vec<String> = object.iter().map(|(key, value)| format!("{key} {}", number(value))).collect();
        writeln!(out, "{name:<22} {}", cells.join(", "))?;
    }
    for (key, row) in rows {
        let cells: Vec<String> = row.iter().map(|(key, value)| format!("{key} {}", number(value))).collect();
        writeln!(out, "  {key:<20} {}", cells.join(", "))?;
    }
    Ok(())
}
