//! `cloze evaluate sts`: correlation of a model's similarities with gold scores.

use std::io::Write;

use anyhow::{Result, bail};
use cloze_tasks::Notes;
use cloze_tasks::datasets::format::DataFile;
use cloze_tasks::datasets::tuples::Pairs;
use cloze_tasks::embed::Embedder;
use cloze_tasks::embed::prompts::Purpose;
use cloze_tasks::embed_evaluation::Correlations;
use cloze_tasks::embed_evaluation::sts::correlations;
use serde_json::{Value, json};

use super::comparison::{ComparisonArguments, PairArguments, dimensions, embed, show};
use crate::terminal::Terminal;
use crate::{format, help};

/// `cloze evaluate sts --model DIR --data FILE`
#[derive(Debug, clap::Args)]
#[command(
    after_help = help::examples(&EXAMPLES[..1]),
    after_long_help = help::details(
        "The rows are pairs of texts with a score of their similarity. The result is Spearman's and Pearson's correlation of the scores \
         with each similarity of the vectors, as sentence-transformers' EmbeddingSimilarityEvaluator computes them; the main one is \
         Spearman's correlation with the model's similarity. Columns without an option are found by known names (sentence1, \
         sentence2, score) or, in a file with three columns, by their order.\n\n\
         With --dimensions, the vectors are also truncated to their first dimensions, as for models trained with a Matryoshka loss.",
        &EXAMPLES,
    )
)]
pub struct Arguments {
    #[command(flatten)]
    comparison: ComparisonArguments,

    #[command(flatten)]
    pairs: PairArguments,

    /// Also evaluate the first N dimensions of the vectors
    #[arg(long, value_name = "N,…", value_delimiter = ',', value_parser = crate::values::positive)]
    dimensions: Vec<usize>,

    /// Print the result as one JSON object
    #[arg(long)]
    json: bool,
}

/// Examples for the help, one per line.
const EXAMPLES: [&str; 2] = [
    "cloze evaluate sts --model all-MiniLM-L6-v2 --task stsb --data glue/STS-B",
    "cloze evaluate sts --model runs/sts --data test.csv --text a --pair b --label score --dimensions 256,128,64 --json",
];

pub fn run(arguments: &Arguments, terminal: &Terminal) -> Result<()> {
    let (path, columns) = arguments.pairs.file()?;
    let mut notes = Notes::default();
    let pairs = Pairs::with_scores(DataFile { path: &path, format: arguments.pairs.format }, &columns, &mut notes)?;
    show(&notes, terminal);
    if let [first, rest @ ..] = &pairs.values[..]
        && rest.iter().all(|score| score == first)
    {
        bail!("{}: all scores are {first}, so that correlations are undefined", path.display());
    }
    let embedder = arguments.comparison.open(terminal)?;
    let dimensions = dimensions(&arguments.dimensions, &embedder)?;
    let (vectors, read, seconds) = embed(&embedder, &[&pairs.first, &pairs.second], Purpose::Text, terminal)?;
    let [first, second] = &vectors[..] else { bail!("expected the vectors of two columns") };
    let vectors = &arguments.comparison.vectors;
    let of = |&number: &usize| {
        let [first, second] = [first, second].map(|column| vectors.truncated(column, number));
        (number, correlations(&first, &second, &pairs.values))
    };
    let found: Vec<(usize, Vec<Correlations>)> = dimensions.iter().map(of).collect();
    let mut out = crate::output::stdout();
    if arguments.json {
        let mut line = vectors.describe_texts(&embedder);
        let [(_, of_all), truncated @ ..] = &found[..] else { bail!("expected scores") };
        add(&mut line, of_all, &embedder);
        if !truncated.is_empty() {
            let one = |(number, found): &(usize, Vec<Correlations>)| {
                let mut object = json!({"dimensions": number});
                add(&mut object, found, &embedder);
                object
            };
            line["dimensions"] = truncated.iter().map(one).collect();
        }
        line["similarity"] = json!(embedder.similarity);
        line["texts_read"] = json!(read);
        line["pairs"] = json!(pairs.len());
        line["data"] = json!(format::path(&path));
        line["seconds"] = json!(seconds);
        line["peak_rss_bytes"] = json!(cloze_files::machine::peak_memory());
        writeln!(out, "{line}")?;
    } else {
        write(&mut out, &found, pairs.len(), &embedder)?;
    }
    if main(&found[0].1, &embedder).spearman.is_none() {
        terminal
            .warn("all pairs have the same similarity, so that the correlation is undefined: the model has collapsed");
    }
    Ok(())
}

/// The correlations of the model's similarity.
fn main(found: &[Correlations], embedder: &Embedder) -> Correlations {
    *found.iter().find(|one| one.similarity == embedder.similarity).unwrap_or(&found[0])
}

/// Adds correlations to a JSON object: the main one as `spearman`, all with the names of sentence-transformers.
fn add(object: &mut Value, found: &[Correlations], embedder: &Embedder) {
    object["spearman"] = json!(main(found, embedder).spearman);
    for Correlations { similarity, pearson, spearman, .. } in found {
        object[format!("spearman_{}", similarity.name())] = json!(spearman);
        object[format!("pearson_{}", similarity.name())] = json!(pearson);
    }
}

fn write(out: &mut dyn Write, found: &[(usize, Vec<Correlations>)], pairs: usize, embedder: &Embedder) -> Result<()> {
    let number = |value: Option<f64>| value.map_or("undefined".to_owned(), |value| format!("{value:.4}"));
    let of_all = &found[0].1;
    writeln!(
        out,
        "Spearman {} ({}), {} pairs",
        number(main(of_all, embedder).spearman),
        embedder.similarity,
        format::count(pairs as u64)
    )?;
    writeln!(out, "{:<12} {:>9} {:>9}", "similarity", "Spearman", "Pearson")?;
    for Correlations { similarity, pearson, spearman, .. } in of_all {
        writeln!(out, "{:<12} {:>9} {:>9}", similarity.name(), number(*spearman), number(*pearson))?;
    }
    if found.len() > 1 {
        writeln!(out, "{:<12} {:>9} {:>9}", "dimensions", "Spearman", "Pearson")?;
        for (dimensions, found) in found {
            let Correlations { pearson, spearman, .. } = main(found, embedder);
            writeln!(out, "{dimensions:<12} {:>9} {:>9}", number(spearman), number(pearson))?;
        }
    }
    Ok(())
}
