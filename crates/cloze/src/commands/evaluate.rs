//! `cloze evaluate`: evaluates a model on held-out data.

mod blimp;
mod comparison;
mod mining;
mod pairs;
mod rerank;
mod retrieval;
mod sts;
mod triplets;

use std::io::Write;
use std::path::PathBuf;

use anyhow::Result;
use cloze_data::masking::MaskingUnit;
use cloze_train::evaluate::{EvaluateOptions, Evaluation, evaluate_folder};
use cloze_train::recipe::Precision;
use cloze_train::run::LossFigure;
use serde_json::json;

use super::model::ModelArguments;
use super::precision::resolve;
use super::tasks::{self, OrOther};
use crate::terminal::Terminal;
use crate::{format, help};

/// `cloze evaluate [KIND|pretrain|blimp|sts|pairs|triplets|mining|retrieval|rerank]`
pub type Arguments = OrOther<tasks::evaluate::Arguments, Other>;

/// Evaluations other than those of fine-tuned models.
#[derive(Debug, clap::Subcommand)]
pub enum Other {
    /// Losses, perplexity, bits per character and accuracies on held-out documents
    Pretrain(PretrainArguments),
    /// Accuracy on minimal pairs of sentences, such as BLiMP
    Blimp(Box<blimp::Arguments>),
    /// Correlation of the similarities of a model's vectors with gold scores
    Sts(Box<sts::Arguments>),
    /// Average precision, accuracy and F1 of a model's vectors on similar and other pairs
    Pairs(Box<pairs::Arguments>),
    /// Accuracy of a model's vectors on triplets of anchor, positive and negative
    Triplets(Box<triplets::Arguments>),
    /// Average precision and F1 of a model's vectors at finding duplicates
    Mining(Box<mining::Arguments>),
    /// nDCG@10, MAP, MRR and recall@100 of a model's vectors on a test collection
    Retrieval(Box<retrieval::Arguments>),
    /// MAP, MRR@10 and nDCG@10 of a cross-encoder that orders documents
    Rerank(Box<rerank::Arguments>),
}

/// `cloze evaluate pretrain --model DIR --data SHARDS`
#[derive(Debug, clap::Args)]
#[command(
    after_help = help::examples(&EXAMPLES[..1]),
    after_long_help = help::details(
        "Every document of the held-out split is scored once. Pairs and masks are random with a fixed seed, so that two models \
         with the same vocabulary are scored on the same data.\n\n\
         Bits per character can be compared between vocabularies: the loss per token of the text, divided by ln 2 and by the \
         characters (Unicode scalar values) per token of the held-out documents. A causal model predicts every token, and the ends \
         of sequences count, too: this is its code length of the text. A masked language model predicts the masked tokens from both \
         sides; its value is not a code length, and can be compared only with those of other masked language models at the same \
         rate. Shards of earlier versions do not have the number of characters.",
        &EXAMPLES,
    )
)]
pub struct PretrainArguments {
    #[command(flatten)]
    model: ModelArguments,

    /// Shards made by `cloze prepare` with the model's tokenizer
    #[arg(long, value_name = "SHARDS")]
    data: PathBuf,

    /// Maximum sequence length in tokens
    #[arg(long, default_value_t = 128, value_name = "N", value_parser = crate::values::items)]
    seq_len: usize,

    /// Sequences in a batch; affects only speed and memory
    #[arg(long, default_value_t = 32, value_name = "N", value_parser = crate::values::items)]
    batch: usize,

    /// Stop after N batches [default: the complete split]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    batches: Option<u64>,

    /// Fraction of the tokens to mask and predict
    #[arg(long, default_value_t = 0.15, value_name = "F", value_parser = crate::values::fraction)]
    rate: f64,

    /// Mask whole words
    #[arg(long)]
    whole_word: bool,

    /// Precision of the activations
    #[arg(long, default_value = "auto", value_parser = crate::values::float_precision())]
    precision: Precision,

    /// Print the result as one JSON object
    #[arg(long)]
    json: bool,
}

/// Examples for the help of `cloze evaluate pretrain`, one per line.
const EXAMPLES: [&str; 2] = [
    "cloze evaluate pretrain --model runs/mini --data shards",
    "cloze evaluate pretrain --model runs/mini/best --data shards --seq-len 512 --precision f32 --json",
];

pub fn run(arguments: Arguments, terminal: &Terminal) -> Result<()> {
    match arguments {
        OrOther::Task(arguments) => tasks::evaluate::run(*arguments, terminal),
        OrOther::Other(Other::Pretrain(arguments)) => pretrain(&arguments, terminal),
        OrOther::Other(Other::Blimp(arguments)) => blimp::run(&arguments, terminal),
        OrOther::Other(Other::Sts(arguments)) => sts::run(&arguments, terminal),
        OrOther::Other(Other::Pairs(arguments)) => pairs::run(&arguments, terminal),
        OrOther::Other(Other::Triplets(arguments)) => triplets::run(&arguments, terminal),
        OrOther::Other(Other::Mining(arguments)) => mining::run(&arguments, terminal),
        OrOther::Other(Other::Retrieval(arguments)) => retrieval::run(&arguments, terminal),
        OrOther::Other(Other::Rerank(arguments)) => rerank::run(&arguments, terminal),
    }
}

/// Evaluates a pre-trained model.
fn pretrain(arguments: &PretrainArguments, terminal: &Terminal) -> Result<()> {
    let model = arguments.model.find(terminal)?;
    let device = terminal.open_device()?;
    let mut options = EvaluateOptions::default();
    options.seq_len = arguments.seq_len;
    options.batch_sequences = arguments.batch;
    options.batches = arguments.batches;
    options.masking.rate = arguments.rate;
    if arguments.whole_word {
        options.masking.unit = MaskingUnit::WholeWord;
    }
    resolve(arguments.precision, &device, terminal);
    options.precision = arguments.precision.resolved(&device);
    let bar = terminal.progress_fraction("evaluating");
    let progress = |fraction: f64| bar.set_fraction(fraction, "held-out documents");
    let evaluation = evaluate_folder(&model, &arguments.data, &device, &options, progress)?;
    let seconds = bar.seconds();
    bar.finish();
    let mut out = crate::output::stdout();
    if arguments.json {
        let mut line = json!(evaluation);
        line["model"] = json!(format::path(&arguments.model.named));
        line["data"] = json!(format::path(&arguments.data));
        line["seconds"] = json!(seconds);
        line["peak_rss_bytes"] = json!(cloze_files::machine::peak_memory());
        writeln!(out, "{line}")?;
        return Ok(());
    }
    write_evaluation(&mut out, &evaluation)
}

/// Writes an evaluation in readable form.
pub fn write_evaluation(out: &mut dyn Write, evaluation: &Evaluation) -> Result<()> {
    for (number, figure) in evaluation.losses.iter().enumerate() {
        let LossFigure { name, loss, perplexity, bits_per_character, accuracy, .. } = figure;
        let title = figure.title();
        let (Some(loss), Some(accuracy)) = (loss, accuracy) else {
            let why = match name.as_str() {
                "nsp" | "sop" => ": the model has no next-sentence head, or the documents give no sentence pairs",
                _ => "",
            };
            writeln!(out, "{title} none{why}")?;
            continue;
        };
        let perplexity = perplexity.map_or_else(String::new, |value| format!(", perplexity {value:.2}"));
        let bits = bits_per_character.map_or_else(String::new, |value| format!(", {value:.4} bits per character"));
        let count = match number {
            0 => format!("{} predicted tokens", format::count(evaluation.predicted)),
            _ => format!("{} pairs", format::count(evaluation.sequences)),
        };
        writeln!(out, "{title} loss {loss:.4}{perplexity}{bits}, accuracy {:.2} % ({count})", 100.0 * accuracy)?;
    }
    Ok(())
}
