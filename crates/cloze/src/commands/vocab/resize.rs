//! `cloze vocab resize`: a model and another tokenizer → the model with its vocabulary.

use std::io::Write;
use std::path::PathBuf;

use anyhow::Result;
use cloze_text::Tokenizer;
use serde_json::Value;

use super::rewrite::Subject;
use crate::commands::model::ModelArguments;
use crate::commands::tokenizer::tell_notes;
use crate::failure::check_out;
use crate::terminal::Terminal;

/// `cloze vocab resize --model DIR --tokenizer DIR --out DIR`
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Example:\n  cloze vocab resize --model bert --tokenizer tokenizer-law --out bert-law",
    after_long_help = "Rows of the word embeddings (and of the MLM bias) go to the tokens of the same text, special tokens to \
        those of the same role. A token that the model's vocabulary lacks gets the mean of the rows of its pieces under it, a ## \
        token's taken as what continues a word; a token that it cannot spell at all is drawn around the mean of all rows, by \
        --seed. Every other weight stays as it is, and training should go on: the new rows are only a start.\n\n\
        Weights are written as float32; a checkpoint's optimizer state is not taken along. The model has exactly as many rows as \
        the tokenizer has tokens.\n\nExamples:\n  \
        cloze vocab --input law/ --size 30522 --out tokenizer-law\n  \
        cloze vocab resize --model bert --tokenizer tokenizer-law --out bert-law"
)]
pub struct Arguments {
    #[command(flatten)]
    model: ModelArguments,

    /// The tokenizer that the model is to have, as `cloze vocab` and Hugging Face write it
    #[arg(long, value_name = "DIR")]
    tokenizer: PathBuf,

    /// Seed of the rows that are drawn
    #[arg(long, default_value_t = 42, value_name = "N")]
    seed: u64,

    /// The folder to write
    #[arg(long, value_name = "DIR")]
    out: PathBuf,

    /// Print the result as one JSON object
    #[arg(long)]
    json: bool,
}

pub fn run(arguments: &Arguments, terminal: &Terminal) -> Result<()> {
    check_out(&arguments.out)?;
    let subject = Subject::open(&arguments.model.find_with_pooling(terminal)?)?;
    let tokenizer = Tokenizer::open(&arguments.tokenizer)?;
    [&subject.tokenizer, &tokenizer].into_iter().for_each(|tokenizer| tell_notes(tokenizer, terminal));
    if tokenizer.is_cased() != subject.tokenizer.is_cased() {
        let cased = |tokenizer: &Tokenizer| if tokenizer.is_cased() { "cased" } else { "uncased" };
        terminal.warn(&format!(
            "the model's tokenizer is {}, the new one {}: the model has never seen text of that kind",
            cased(&subject.tokenizer),
            cased(&tokenizer)
        ));
    }
    let tally = subject.rewrite(&tokenizer, arguments.seed, &arguments.out, terminal)?;
    let mut out = crate::output::results();
    if arguments.json {
        let mut result = tally.json();
        result.insert("out".to_owned(), arguments.out.to_string_lossy().into());
        writeln!(out, "{}", Value::Object(result))?;
    } else {
        tally.write(&mut out)?;
        writeln!(out, "written to {}", arguments.out.display())?;
    }
    Ok(())
}
