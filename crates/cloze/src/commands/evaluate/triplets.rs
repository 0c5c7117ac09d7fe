//! `cloze evaluate triplets`: how often an anchor is more similar to its positive than to its negative.

use std::io::Write;
use std::path::PathBuf;

use anyhow::{Result, bail};
use cloze_tasks::Notes;
use cloze_tasks::datasets::format::{DataFile, FORMATS, Format};
use cloze_tasks::datasets::tuples::{TripletColumns, Triplets};
use cloze_tasks::embed::prompts::Purpose;
use cloze_tasks::embed_evaluation::TripletAccuracy;
use cloze_tasks::embed_evaluation::triplets::accuracies;
use serde_json::json;

use super::comparison::{column, embed, show};
use crate::commands::embed::{SearchArguments, ShorteningArguments, VectorArguments};
use crate::terminal::Terminal;
use crate::{format, help};

/// `cloze evaluate triplets --model DIR --data FILE`
#[derive(Debug, clap::Args)]
#[command(
    after_help = help::examples(&EXAMPLES[..1]),
    after_long_help = help::details(
        "The rows are triplets: an anchor, a text that is more similar to it (the positive), and one that is less similar (the \
         negative). The accuracy is the fraction of anchors that are more similar to their positive, as in sentence-transformers' \
         TripletEvaluator: the anchor has the prompt of queries, the others that of documents. Columns without an option are found \
         by known names (anchor, positive, negative) or, in a file with three columns, by their order.",
        &EXAMPLES,
    )
)]
pub struct Arguments {
    #[command(flatten)]
    vectors: VectorArguments,

    #[command(flatten)]
    search: SearchArguments,

    /// File of triplets: .tsv, .csv, .jsonl or .parquet
    #[arg(long, value_name = "FILE")]
    data: PathBuf,

    /// Column of the anchor: a name, or a number such as #1 [default: known names, else the order]
    #[arg(long, value_name = "COLUMN")]
    anchor: Option<String>,

    /// Column of the positive
    #[arg(long, value_name = "COLUMN")]
    positive: Option<String>,

    /// Column of the negative
    #[arg(long, value_name = "COLUMN")]
    negative: Option<String>,

    /// Format of the file: tsv, csv, jsonl, json, parquet [default: from the extension, else from the first lines]
    #[arg(long, hide_short_help = true, hide_possible_values = true, value_name = "FORMAT", value_parser = crate::values::named(&FORMATS))]
    format: Option<Format>,

    /// Print the result as one JSON object
    #[arg(long)]
    json: bool,
}

/// Examples for the help, one per line.
const EXAMPLES: [&str; 2] = [
    "cloze evaluate triplets --model all-MiniLM-L6-v2 --data nli.jsonl",
    "cloze evaluate triplets --model runs/nli --data triplets.tsv --anchor '#1' --positive '#2' --negative '#3' --json",
];

pub fn run(arguments: &Arguments, terminal: &Terminal) -> Result<()> {
    let mut columns = TripletColumns::default();
    columns.anchor = column(arguments.anchor.as_deref())?;
    columns.positive = column(arguments.positive.as_deref())?;
    columns.negative = column(arguments.negative.as_deref())?;
    let mut notes = Notes::default();
    let file = DataFile { path: &arguments.data, format: arguments.format };
    let triplets = Triplets::read(file, &columns, &mut notes)?;
    show(&notes, terminal);
    let embedder = arguments.vectors.open_to_search(&arguments.search, ShorteningArguments::default(), terminal)?;
    let (anchors, mut read, first) = embed(&embedder, &[&triplets.anchors], Purpose::Query, terminal)?;
    let others: [&[String]; 2] = [&triplets.positives, &triplets.negatives];
    let (others, more, second) = embed(&embedder, &others, Purpose::Document, terminal)?;
    read += more;
    let ([anchors], [positives, negatives]) = (&anchors[..], &others[..]) else {
        bail!("expected the vectors of three columns")
    };
    let found = accuracies(anchors, positives, negatives);
    let main = found.iter().find(|one| one.similarity == embedder.similarity).unwrap_or(&found[0]);
    let mut out = crate::output::stdout();
    if arguments.json {
        let mut line = arguments.vectors.describe_search(&embedder);
        line["accuracy"] = json!(main.accuracy);
        for TripletAccuracy { similarity, accuracy, .. } in &found {
            line[format!("{}_accuracy", similarity.name())] = json!(accuracy);
        }
        line["texts_read"] = json!(read);
        line["triplets"] = json!(triplets.len());
        line["data"] = json!(format::path(&arguments.data));
        line["seconds"] = json!(first + second);
        line["peak_rss_bytes"] = json!(cloze_files::machine::peak_memory());
        writeln!(out, "{line}")?;
        return Ok(());
    }
    let count = format::count(triplets.len() as u64);
    writeln!(out, "accuracy {:.2} % ({}), {count} triplets", 100.0 * main.accuracy, embedder.similarity)?;
    for TripletAccuracy { similarity, accuracy, .. } in &found {
        writeln!(out, "{:<12} {:>6.2} %", similarity.name(), 100.0 * accuracy)?;
    }
    Ok(())
}
