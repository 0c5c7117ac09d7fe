//! `cloze vocab resize`: gives a model the vocabulary of another tokenizer.

use std::io::Write;
use std::path::PathBuf;

use anyhow::Result;
use cloze_text::Tokenizer;
use serde_json::Value;

use super::rewrite::SourceModel;
use crate::commands::model::ModelArguments;
use crate::commands::tokenizer::show_notes;
use crate::failure::check_out;
use crate::terminal::Terminal;

/// `cloze vocab resize --model DIR --tokenizer DIR --out DIR`
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Example:\n  cloze vocab resize --model bert --tokenizer tokenizer-law --out bert-law",
    after_long_help = "Rows of the word embeddings (and of the MLM bias) are copied to the tokens with the same text, and those of \
        special tokens to the tokens with the same role. A token that is not in the old vocabulary gets the mean of the rows of \
        its pieces in the old vocabulary (for a ## token, of pieces that continue a word). If its pieces are only [UNK], it gets \
        random values around the mean of all rows (see --seed). All other weights are unchanged. The new rows are only a \
        starting point, so train the model further.\n\n\
        Weights are written as float32, without the optimizer state of a checkpoint. The result has exactly one row for each \
        token.\n\nExamples:\n  \
        cloze vocab --input law/ --size 30522 --out tokenizer-law\n  \
        cloze vocab resize --model bert --tokenizer tokenizer-law --out bert-law"
)]
pub struct Arguments {
    #[command(flatten)]
    model: ModelArguments,

    /// The new tokenizer, from `cloze vocab` or Hugging Face
    #[arg(long, value_name = "DIR")]
    tokenizer: PathBuf,

    /// Seed of random rows
    #[arg(long, default_value_t = 42, value_name = "N")]
    seed: u64,

    /// Output folder
    #[arg(long, value_name = "DIR")]
    out: PathBuf,

    /// Print the result as one JSON object
    #[arg(long)]
    json: bool,
}

pub fn run(arguments: &Arguments, terminal: &Terminal) -> Result<()> {
    check_out(&arguments.out)?;
    let source = SourceModel::open(&arguments.model.find_with_pooling(terminal)?)?;
    let tokenizer = Tokenizer::open(&arguments.tokenizer)?;
    [&source.tokenizer, &tokenizer].into_iter().for_each(|tokenizer| show_notes(tokenizer, terminal));
    if tokenizer.is_cased() != source.tokenizer.is_cased() {
        let cased = |tokenizer: &Tokenizer| if tokenizer.is_cased() { "cased" } else { "uncased" };
        terminal.warn(&format!(
            "the model's tokenizer is {}, the new one {}; the model was not trained on such text",
            cased(&source.tokenizer),
            cased(&tokenizer)
        ));
    }
    let counts = source.rewrite(&tokenizer, arguments.seed, &arguments.out, terminal)?;
    let mut out = crate::output::stdout();
    if arguments.json {
        let mut result = counts.json();
        result.insert("out".to_owned(), arguments.out.to_string_lossy().into());
        writeln!(out, "{}", Value::Object(result))?;
    } else {
        counts.write(&mut out)?;
        writeln!(out, "written to {}", arguments.out.display())?;
    }
    Ok(())
}
