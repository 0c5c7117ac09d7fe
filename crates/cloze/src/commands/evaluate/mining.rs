//! `cloze evaluate mining`: how well the most similar pairs of a set of texts are its known duplicates.

use std::io::Write;
use std::path::PathBuf;

use anyhow::{Result, bail};
use cloze_tasks::Notes;
use cloze_tasks::datasets::format::{DataFile, FORMATS, Format};
use cloze_tasks::datasets::tuples::{DuplicateColumns, DuplicateTexts};
use cloze_tasks::embed::prompts::Purpose;
use cloze_tasks::embed_evaluation::mining::{mine, scores};
use cloze_tasks::embed_evaluation::{Duplicates, MiningOptions};
use serde_json::json;

use super::comparison::{ComparisonArguments, column, embed, show};
use crate::failure::usage;
use crate::terminal::Terminal;
use crate::{format, help};

/// `cloze evaluate mining --model DIR --data FILE --duplicates FILE`
#[derive(Debug, clap::Args)]
#[command(
    after_help = help::examples(&EXAMPLES[..1]),
    after_long_help = help::details(
        "The nearest texts of each text (--top) by the cosine of their vectors are candidates. The scores compare the candidates, the \
         most similar first, with the known duplicates: average precision, and the F1 of the best threshold, as \
         sentence-transformers' ParaphraseMiningEvaluator computes them. Duplicates with an unknown id are ignored and counted.",
        &EXAMPLES,
    )
)]
pub struct Arguments {
    #[command(flatten)]
    comparison: ComparisonArguments,

    /// Texts with ids: .tsv, .csv, .jsonl or .parquet
    #[arg(long, value_name = "FILE")]
    data: PathBuf,

    /// Pairs of ids of duplicates: .tsv, .csv, .jsonl or .parquet
    #[arg(long, value_name = "FILE")]
    duplicates: PathBuf,

    /// Column of the id: a name, or a number such as #1 [default: known names such as id, else the first of two]
    #[arg(long, value_name = "COLUMN")]
    id: Option<String>,

    /// Column of the text
    #[arg(long, value_name = "COLUMN")]
    text: Option<String>,

    /// Columns of the two ids of duplicates [default: known names such as qid1,qid2, else the order]
    #[arg(long, value_name = "A,B", value_delimiter = ',')]
    duplicate_ids: Vec<String>,

    /// Format of the texts: tsv, csv, jsonl, json, parquet [default: from the extension, else from the first lines]
    #[arg(long, hide_short_help = true, hide_possible_values = true, value_name = "FORMAT", value_parser = crate::values::named(&FORMATS))]
    format: Option<Format>,

    /// Add the duplicates that follow from the given ones: if a and b are duplicates, and b and c, then a and c are
    #[arg(long)]
    transitive: bool,

    /// Nearest texts of each text that are candidates
    #[arg(long, default_value_t = 100, value_name = "N", value_parser = crate::values::items)]
    top: usize,

    /// Maximum number of candidates
    #[arg(long, default_value_t = 500_000, value_name = "N", value_parser = crate::values::positive)]
    max_pairs: usize,

    /// Print the result as one JSON object
    #[arg(long)]
    json: bool,
}

/// Examples for the help, one per line.
const EXAMPLES: [&str; 2] = [
    "cloze evaluate mining --model all-MiniLM-L6-v2 --data questions.tsv --duplicates duplicates.tsv",
    "cloze evaluate mining --model runs/quora --data questions.jsonl --id qid --text question --duplicates d.tsv --transitive",
];

pub fn run(arguments: &Arguments, terminal: &Terminal) -> Result<()> {
    let mut columns = DuplicateColumns::default();
    columns.id = column(arguments.id.as_deref())?;
    columns.text = column(arguments.text.as_deref())?;
    columns.duplicates = match &arguments.duplicate_ids[..] {
        [] => [None, None],
        [first, second] => [column(Some(first))?, column(Some(second))?],
        more => return Err(usage(format!("--duplicate-ids: expected two columns, found {}", more.len()))),
    };
    let mut notes = Notes::default();
    let file = DataFile { path: &arguments.data, format: arguments.format };
    let data = DuplicateTexts::read(file, &arguments.duplicates, &columns, &mut notes)?;
    show(&notes, terminal);
    if data.unknown > 0 {
        let unknown = format::count(data.unknown as u64);
        terminal.warn(&format!("{}: pairs with an unknown id, ignored: {unknown}", arguments.duplicates.display()));
    }
    let duplicates = match arguments.transitive {
        true => Duplicates::transitive(&data.pairs),
        false => Duplicates::of_pairs(&data.pairs),
    };
    let embedder = arguments.comparison.open(terminal)?;
    let (vectors, read, seconds) = embed(&embedder, &[&data.texts], Purpose::Text, terminal)?;
    let Some(vectors) = vectors.into_iter().next() else { bail!("expected the vectors of a column") };
    let mut options = MiningOptions::default();
    options.top_k = arguments.top;
    options.max_pairs = arguments.max_pairs;
    let bar = terminal.progress_fraction("comparing");
    let all = data.texts.len() as f64;
    let pairs =
        mine(&embedder.model.device, vectors, &options, &mut |done| bar.set_fraction(done as f64 / all, "texts"));
    let seconds = seconds + bar.seconds();
    bar.finish();
    let found = scores(&pairs, &duplicates);
    let mut out = crate::output::stdout();
    if arguments.json {
        let mut line = arguments.comparison.vectors.describe_texts(&embedder);
        for (key, value) in [
            ("average_precision", json!(found.average_precision)),
            ("f1", json!(found.f1)),
            ("precision", json!(found.precision)),
            ("recall", json!(found.recall)),
            ("threshold", json!(found.threshold)),
            ("texts_read", json!(read)),
            ("texts", json!(data.texts.len())),
            ("duplicates", json!(duplicates.len())),
            ("duplicates_unknown", json!(data.unknown)),
            ("candidates", json!(pairs.len())),
            ("data", json!(format::path(&arguments.data))),
            ("seconds", json!(seconds)),
            ("peak_rss_bytes", json!(cloze_files::machine::peak_memory())),
        ] {
            line[key] = value;
        }
        writeln!(out, "{line}")?;
        return Ok(());
    }
    writeln!(
        out,
        "average precision {:.4}, F1 {:.4} (precision {:.4}, recall {:.4}, threshold {:.4}); {} texts, {} duplicates, {} candidates",
        found.average_precision,
        found.f1,
        found.precision,
        found.recall,
        found.threshold,
        format::count(data.texts.len() as u64),
        format::count(duplicates.len() as u64),
        format::count(pairs.len() as u64),
    )?;
    Ok(())
}
