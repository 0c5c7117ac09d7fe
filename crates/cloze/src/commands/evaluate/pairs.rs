//! `cloze evaluate pairs`: how well a threshold of the similarity tells similar pairs of texts from others.

use std::io::Write;

use anyhow::{Result, bail};
use cloze_tasks::Notes;
use cloze_tasks::datasets::format::DataFile;
use cloze_tasks::datasets::tuples::Pairs;
use cloze_tasks::embed::prompts::Purpose;
use cloze_tasks::embed_evaluation::PairScores;
use cloze_tasks::embed_evaluation::pairs::scores;
use serde_json::json;

use super::comparison::{ComparisonArguments, PairArguments, embed, show};
use crate::terminal::Terminal;
use crate::{format, help};

/// `cloze evaluate pairs --model DIR --data FILE`
#[derive(Debug, clap::Args)]
#[command(
    after_help = help::examples(&EXAMPLES[..1]),
    after_long_help = help::details(
        "The rows are pairs of texts with the label 1 for similar texts and 0 for others. The scores are average precision, the \
         accuracy of the best threshold, and the F1 of the best threshold, as sentence-transformers' BinaryClassificationEvaluator \
         computes them. Columns without an option are found by known names (sentence1, sentence2, label) or, in a file with three \
         columns, by their order.",
        &EXAMPLES,
    )
)]
pub struct Arguments {
    #[command(flatten)]
    comparison: ComparisonArguments,

    #[command(flatten)]
    pairs: PairArguments,

    /// Print the result as one JSON object
    #[arg(long)]
    json: bool,
}

/// Examples for the help, one per line.
const EXAMPLES: [&str; 2] = [
    "cloze evaluate pairs --model all-MiniLM-L6-v2 --task mrpc --data glue/MRPC",
    "cloze evaluate pairs --model runs/pairs --data quora.tsv --text question1 --pair question2 --label is_duplicate --json",
];

pub fn run(arguments: &Arguments, terminal: &Terminal) -> Result<()> {
    let (path, columns) = arguments.pairs.file()?;
    let mut notes = Notes::default();
    let pairs = Pairs::with_labels(DataFile { path: &path, format: arguments.pairs.format }, &columns, &mut notes)?;
    show(&notes, terminal);
    let similar = pairs.values.iter().filter(|label| **label).count();
    if similar == 0 || similar == pairs.len() {
        let label = u8::from(similar > 0);
        bail!("{}: expected similar and other pairs, all labels are {label}", path.display());
    }
    let embedder = arguments.comparison.open(terminal)?;
    let (vectors, read, seconds) = embed(&embedder, &[&pairs.first, &pairs.second], Purpose::Text, terminal)?;
    let [first, second] = &vectors[..] else { bail!("expected the vectors of two columns") };
    let Some(found) = scores(first, second, &pairs.values) else { bail!("expected similar pairs") };
    let main = found.iter().find(|one| one.similarity == embedder.similarity).unwrap_or(&found[0]);
    let mut out = crate::output::stdout();
    if arguments.json {
        let mut line = arguments.comparison.vectors.describe_texts(&embedder);
        line["ap"] = json!(main.ap);
        for scores in &found {
            let name = scores.similarity.name();
            let PairScores { ap, accuracy, accuracy_threshold, f1, f1_threshold, precision, recall, mcc, .. } = *scores;
            for (key, value) in [
                ("ap", json!(ap)),
                ("accuracy", json!(accuracy)),
                ("accuracy_threshold", json!(accuracy_threshold)),
                ("f1", json!(f1)),
                ("f1_threshold", json!(f1_threshold)),
                ("precision", json!(precision)),
                ("recall", json!(recall)),
                ("mcc", json!(mcc)),
            ] {
                line[format!("{name}_{key}")] = value;
            }
        }
        line["similarity"] = json!(embedder.similarity);
        line["texts_read"] = json!(read);
        line["pairs"] = json!(pairs.len());
        line["similar"] = json!(similar);
        line["data"] = json!(format::path(&path));
        line["seconds"] = json!(seconds);
        line["peak_rss_bytes"] = json!(cloze_files::machine::peak_memory());
        writeln!(out, "{line}")?;
        return Ok(());
    }
    let (all, similar) = (format::count(pairs.len() as u64), format::count(similar as u64));
    writeln!(out, "average precision {:.4} ({}), {all} pairs, {similar} similar", main.ap, embedder.similarity)?;
    writeln!(
        out,
        "{:<12} {:>7} {:>9} {:>9} {:>7} {:>9} {:>9} {:>7} {:>7}",
        "similarity", "AP", "accuracy", "threshold", "F1", "threshold", "precision", "recall", "MCC"
    )?;
    for one in &found {
        writeln!(
            out,
            "{:<12} {:>7.4} {:>9.4} {:>9.4} {:>7.4} {:>9.4} {:>9.4} {:>7.4} {:>7.4}",
            one.similarity.name(),
            one.ap,
            one.accuracy,
            one.accuracy_threshold,
            one.f1,
            one.f1_threshold,
            one.precision,
            one.recall,
            one.mcc
        )?;
    }
    Ok(())
}
