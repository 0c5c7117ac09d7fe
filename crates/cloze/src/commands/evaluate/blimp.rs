//! `cloze evaluate blimp`: accuracy on minimal pairs.

use std::io::Write;
use std::path::PathBuf;
use std::sync::Arc;

use anyhow::Result;
use cloze_hub::Contents;
use cloze_tasks::Pretrained;
use cloze_tasks::inference::Precision;
use cloze_tasks::inference::likelihood::{PseudoLikelihood, Scorer};
use cloze_tasks::inference::minimal_pairs::{GroupAccuracy, MinimalPair, PairReport, PairScores, report, score_pairs};
use serde_json::json;

use crate::commands::model::HubArguments;
use crate::commands::precision::resolve;
use crate::commands::tokenizer::{note_special_names, show_notes};
use crate::terminal::Terminal;
use crate::{format, help};

/// `cloze evaluate blimp MODEL FILE`
#[derive(Debug, clap::Args)]
#[command(
    after_help = help::examples(&EXAMPLES[..1]),
    after_long_help = help::details(
        "Each line of FILE is a pair of sentences with the keys of BLiMP (Warstadt et al. 2020): sentence_good, sentence_bad, UID (the \
         paradigm), linguistics_term (its phenomenon) and field. The model is right about a pair if it gives the good sentence the \
         higher score; equal scores count half. The accuracies of a phenomenon, a field and of all pairs are means over paradigms, as \
         in the paper.\n\n\
         A masked language model scores a sentence by its pseudo-log-likelihood: the sum of the log-probabilities of its tokens, each \
         predicted with this token masked. With word-l2r, the later tokens of the same word are masked, too; otherwise words of \
         several tokens get too high scores. A causal language model scores by the log-likelihood, with the first token predicted \
         from [CLS].",
        &EXAMPLES,
    )
)]
pub struct Arguments {
    /// Model folder, checkpoint, run folder, or a name on the Hugging Face Hub
    #[arg(value_name = "MODEL")]
    model: PathBuf,

    /// File of JSON lines, plain or compressed
    #[arg(value_name = "FILE")]
    file: PathBuf,

    #[command(flatten)]
    hub: HubArguments,

    /// Score of a masked language model [default: word-l2r]
    #[arg(long, value_name = "SCORE", value_parser = crate::values::named(&PseudoLikelihood::ALL))]
    score: Option<PseudoLikelihood>,

    /// Write the scores of each pair as JSON lines
    #[arg(long, value_name = "FILE.jsonl")]
    pairs: Option<PathBuf>,

    /// Number format of the matrix products
    #[arg(long, default_value = "f32", value_parser = crate::values::named(&Precision::ALL))]
    precision: Precision,

    /// Print the result as one JSON object
    #[arg(long)]
    json: bool,
}

/// Examples for the help, one per line.
const EXAMPLES: [&str; 2] = [
    "cloze evaluate blimp runs/mini blimp.jsonl.gz",
    "cloze evaluate blimp bert-base-uncased blimp.jsonl --score pll --pairs scores.jsonl --json",
];

pub fn run(arguments: &Arguments, terminal: &Terminal) -> Result<()> {
    let pairs = MinimalPair::read(&arguments.file)?;
    let model = arguments.hub.find(&arguments.model, Contents::Model, terminal)?;
    let device = terminal.open_device()?;
    let precision = resolve(arguments.precision, &device, terminal);
    let model = Arc::new(Pretrained::open(&model, device, precision)?);
    show_notes(&model.tokenizer, terminal);
    let scorer = Scorer::new(Arc::clone(&model), arguments.score)?;
    let bar = terminal.progress_fraction("scoring");
    let scores = score_pairs(&scorer, &arguments.file, &pairs, &mut |fraction| bar.set_fraction(fraction, "pairs"))?;
    let seconds = bar.seconds();
    bar.finish();
    note_special_names(&model.tokenizer, terminal);
    if let Some(path) = &arguments.pairs {
        cloze_files::write(path, lines_of(&pairs, &scores).as_bytes())?;
    }
    let report = report(&pairs, &scores);
    let mut out = crate::output::stdout();
    if arguments.json {
        let mut line = json!(report);
        line["score"] = json!(scorer.method().name());
        line["model"] = json!(format::path(&arguments.model));
        line["data"] = json!(format::path(&arguments.file));
        line["seconds"] = json!(seconds);
        line["peak_rss_bytes"] = json!(cloze_files::machine::peak_memory());
        writeln!(out, "{line}")?;
        return Ok(());
    }
    write_report(&mut out, &report, scorer.method().name())
}

/// The pairs with their scores as JSON lines.
fn lines_of(pairs: &[MinimalPair], scores: &[PairScores]) -> String {
    let line = |(pair, scores): (&MinimalPair, &PairScores)| {
        let line = json!({
            "line": pair.line, "UID": pair.paradigm, "sentence_good": pair.good, "sentence_bad": pair.bad,
            "score_good": scores.good, "score_bad": scores.bad, "correct": scores.correct(),
        });
        format!("{line}\n")
    };
    pairs.iter().zip(scores).map(line).collect()
}

fn write_report(out: &mut dyn Write, report: &PairReport, score: &str) -> Result<()> {
    let width = report.paradigms.iter().chain(&report.terms).map(|group| group.name.chars().count()).max();
    let width = width.unwrap_or_default().max("phenomenon".len());
    let mut table = |title: &str, groups: &[GroupAccuracy]| -> Result<()> {
        writeln!(out, "{title:<width$}  {:>7}  accuracy", "pairs")?;
        for GroupAccuracy { name, pairs, accuracy, .. } in groups {
            writeln!(out, "{name:<width$}  {:>7}  {:>6.1} %", format::count(*pairs as u64), 100.0 * accuracy)?;
        }
        Ok(writeln!(out)?)
    };
    table("paradigm", &report.paradigms)?;
    table("phenomenon", &report.terms)?;
    table("field", &report.fields)?;
    writeln!(
        out,
        "accuracy {:.1} %: mean over {} paradigms, {} pairs, {} with equal scores ({score})",
        100.0 * report.accuracy,
        report.paradigms.len(),
        format::count(report.pairs as u64),
        format::count(report.ties as u64),
    )?;
    Ok(())
}
