//! `cloze evaluate`: a model → its figures on held-out data.

mod retrieval;

use std::io::Write;
use std::path::PathBuf;

use anyhow::Result;
use cloze_data::masking::Masking;
use cloze_engine::Device;
use cloze_train::evaluate::{EvaluateOptions, Evaluation, evaluate_folder};
use serde_json::json;

use super::model::ModelArguments;
use super::precision::Type;
use super::tasks::{self, Kind};
use crate::format;
use crate::terminal::Terminal;

/// `cloze evaluate SUBJECT`
#[derive(Debug, clap::Subcommand)]
pub enum Subject {
    /// Held-out MLM loss, perplexity and accuracy, and NSP accuracy
    Pretrain(Arguments),
    /// Scores of a classifier: accuracy, F1, Matthews correlation, confusion matrix
    Classify(Box<tasks::evaluate::Arguments>),
    /// Scores of a regression: Pearson and Spearman correlation
    Regress(Box<tasks::evaluate::Arguments>),
    /// Scores of a tagger: entities' F1, precision, recall by type; accuracy
    Tag(Box<tasks::evaluate::Arguments>),
    /// Exact match and F1 of answers by SQuAD's rules
    Answer(Box<tasks::evaluate::Arguments>),
    /// Accuracy of choices
    Choose(Box<tasks::evaluate::Arguments>),
    /// nDCG@10, MAP, MRR and recall@100 of a model's vectors on a collection of documents, queries and judgements
    Retrieval(retrieval::Arguments),
}

/// `cloze evaluate pretrain --model DIR --data SHARDS`
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Example:\n  cloze evaluate pretrain --model runs/mini/model --data shards",
    after_long_help = "Every document of the held-out split is scored once. Pairs and masks are drawn with a fixed seed, so \
        that two models of the same vocabulary are asked the same questions.\n\nExamples:\n  \
        cloze evaluate pretrain --model runs/mini/model --data shards\n  \
        cloze evaluate pretrain --model runs/mini/best --data shards --seq-len 512 --precision f32 --json"
)]
pub struct Arguments {
    #[command(flatten)]
    model: ModelArguments,

    /// Shards made by `cloze prepare` with the model's tokenizer
    #[arg(long, value_name = "SHARDS")]
    data: PathBuf,

    /// Tokens of a sequence at most
    #[arg(long, default_value_t = 128, value_name = "N", value_parser = crate::positive)]
    seq_len: usize,

    /// Sequences of a batch: changes speed and memory only
    #[arg(long, default_value_t = 32, value_name = "N", value_parser = crate::positive)]
    batch: usize,

    /// Stop after this many batches [default: the whole split]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    batches: Option<u64>,

    /// Share of the tokens to be predicted
    #[arg(long, default_value_t = 0.15, value_name = "F", value_parser = crate::fraction)]
    rate: f64,

    /// Choose whole words
    #[arg(long)]
    whole_word: bool,

    /// Type of the activations
    #[arg(long, value_enum, default_value_t = Type::Auto)]
    precision: Type,

    /// Print the result as one JSON object
    #[arg(long)]
    json: bool,
}

pub fn run(subject: &Subject, terminal: &Terminal) -> Result<()> {
    let arguments = match subject {
        Subject::Pretrain(arguments) => arguments,
        Subject::Classify(arguments) => return tasks::evaluate::run(Kind::Classify, arguments, terminal),
        Subject::Regress(arguments) => return tasks::evaluate::run(Kind::Regress, arguments, terminal),
        Subject::Tag(arguments) => return tasks::evaluate::run(Kind::Tag, arguments, terminal),
        Subject::Answer(arguments) => return tasks::evaluate::run(Kind::Answer, arguments, terminal),
        Subject::Choose(arguments) => return tasks::evaluate::run(Kind::Choose, arguments, terminal),
        Subject::Retrieval(arguments) => return retrieval::run(arguments, terminal),
    };
    let model = arguments.model.find(terminal)?;
    let options = EvaluateOptions {
        seq_len: arguments.seq_len,
        batch_sequences: arguments.batch,
        batches: arguments.batches,
        masking: Masking { rate: arguments.rate, whole_word: arguments.whole_word, ..Masking::default() },
        precision: arguments.precision.settle(&Device::cpu(terminal.threads)?, terminal),
        threads: terminal.threads,
    };
    let bar = terminal.progress_timed("evaluating");
    let evaluation =
        evaluate_folder(&model, &arguments.data, &options, |share| bar.set_share(share, "held-out documents"))?;
    let seconds = bar.seconds();
    bar.finish();
    let mut out = std::io::stdout().lock();
    if arguments.json {
        let mut line = json!(evaluation);
        line["model"] = json!(arguments.model.named);
        line["data"] = json!(arguments.data);
        line["seconds"] = json!(seconds);
        line["peak_rss_bytes"] = json!(format::peak_memory());
        writeln!(out, "{line}")?;
        return Ok(());
    }
    write_evaluation(&mut out, &evaluation)
}

/// An evaluation as people read it.
pub fn write_evaluation(out: &mut dyn Write, evaluation: &Evaluation) -> Result<()> {
    writeln!(
        out,
        "MLM loss {:.4}, perplexity {:.2}, accuracy {:.2} % ({} predicted tokens)",
        evaluation.mlm_loss,
        evaluation.mlm_perplexity,
        100.0 * evaluation.mlm_accuracy,
        format::count(evaluation.predicted),
    )?;
    match (evaluation.nsp_loss, evaluation.nsp_accuracy) {
        (Some(loss), Some(accuracy)) => writeln!(
            out,
            "NSP loss {loss:.4}, accuracy {:.2} % ({} pairs)",
            100.0 * accuracy,
            format::count(evaluation.sequences),
        )?,
        _ => writeln!(out, "NSP none: the model has no next-sentence head, or the documents give no sentence pairs")?,
    }
    Ok(())
}
