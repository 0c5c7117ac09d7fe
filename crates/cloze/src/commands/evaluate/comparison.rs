//! The common parts of evaluations that compare texts by their vectors.

use std::path::PathBuf;

use anyhow::Result;
use cloze_tasks::Notes;
use cloze_tasks::datasets::format::{FORMATS, Format};
use cloze_tasks::datasets::preset::{DatasetPreset, Split};
use cloze_tasks::datasets::table::Column;
use cloze_tasks::datasets::tuples::PairColumns;
use cloze_tasks::embed::prompts::Purpose;
use cloze_tasks::embed::search::Similarity;
use cloze_tasks::embed::vectors::Vectors;
use cloze_tasks::embed::{Embedder, Summary};
use cloze_tasks::embed_evaluation::embed_columns;

use crate::commands::embed::{VectorArguments, prompt, warn_about_texts};
use crate::commands::tokenizer::note_special_names;
use crate::failure::usage;
use crate::terminal::Terminal;

/// Options of evaluations on plain texts, which are neither queries nor documents.
#[derive(Debug, clap::Args)]
pub struct ComparisonArguments {
    #[command(flatten)]
    pub vectors: VectorArguments,

    /// Prompt put before each text; "" for none [default: the model's default prompt]
    #[arg(long, value_name = "TEXT", hide_short_help = true)]
    prompt: Option<String>,

    /// Name of the model's prompt to put before each text
    #[arg(long, value_name = "NAME", conflicts_with = "prompt", hide_short_help = true)]
    prompt_name: Option<String>,

    /// Similarity of the main score [default: the model's, else cosine]
    #[arg(long, value_parser = crate::values::named(&Similarity::ALL))]
    similarity: Option<Similarity>,
}

impl ComparisonArguments {
    /// Opens the model.
    pub fn open(&self, terminal: &Terminal) -> Result<Embedder> {
        let prompt = prompt(self.prompt.as_ref(), self.prompt_name.as_ref());
        self.vectors.open_to_compare(prompt, self.similarity, terminal)
    }
}

/// Options for reading pairs of texts.
#[derive(Debug, clap::Args)]
pub struct PairArguments {
    /// File of pairs: .tsv, .csv, .jsonl or .parquet; or the folder of a known task's official files
    #[arg(long, value_name = "FILE")]
    pub data: PathBuf,

    /// Known task, which sets the columns: stsb, mrpc, qqp
    #[arg(long, value_name = "NAME")]
    task: Option<String>,

    /// Column of the first text: a name, or a number such as #4 [default: known names such as sentence1, else the order]
    #[arg(long, value_name = "COLUMN")]
    text: Option<String>,

    /// Column of the second text
    #[arg(long, value_name = "COLUMN")]
    pair: Option<String>,

    /// Column of the score or label
    #[arg(long, value_name = "COLUMN")]
    label: Option<String>,

    /// Format of the file: tsv, csv, jsonl, json, parquet [default: from the extension, else from the first lines]
    #[arg(long, hide_short_help = true, hide_possible_values = true, value_name = "FORMAT", value_parser = crate::values::named(&FORMATS))]
    pub format: Option<Format>,
}

impl PairArguments {
    /// The file and its columns. In the folder of a known task, it is the dev file.
    pub fn file(&self) -> Result<(PathBuf, PairColumns)> {
        let mut columns = PairColumns::default();
        columns.text = column(self.text.as_deref())?;
        columns.pair = column(self.pair.as_deref())?;
        columns.label = column(self.label.as_deref())?;
        columns.preset = self.task.as_deref().map(DatasetPreset::named).transpose()?;
        let file = match &columns.preset {
            Some(preset) if self.data.is_dir() => preset.find(&self.data, Split::Dev)?,
            None if self.data.is_dir() => {
                let folder = self.data.display();
                return Err(usage(format!(
                    "{folder} is a folder; give a file, or --task NAME to find it in the folder"
                )));
            }
            _ => self.data.clone(),
        };
        Ok((file, columns))
    }
}

/// Parses a column.
pub fn column(name: Option<&str>) -> Result<Option<Column>> {
    Ok(name.map(Column::parse).transpose()?)
}

/// Prints the notes of a reader.
pub fn show(notes: &Notes, terminal: &Terminal) {
    notes.0.iter().for_each(|note| terminal.note(note));
}

/// The vectors of columns of texts, the counts of distinct texts, and the seconds that they took.
pub fn embed(
    embedder: &Embedder,
    columns: &[&[String]],
    purpose: Purpose,
    terminal: &Terminal,
) -> Result<(Vec<Vectors>, Summary, f64)> {
    let bar = terminal.progress_fraction("embedding");
    let embedded = embed_columns(embedder, columns, purpose, &mut |share| bar.set_fraction(share, "texts"));
    let seconds = bar.seconds();
    bar.finish();
    let (vectors, summary) = embedded?;
    warn_about_texts(&summary, embedder, purpose, terminal);
    note_special_names(&embedder.model.tokenizer, terminal);
    Ok((vectors, summary, seconds))
}

/// The numbers of dimensions to evaluate: that of the model, then the given ones.
pub fn dimensions(given: &[usize], embedder: &Embedder) -> Result<Vec<usize>> {
    let width = embedder.width();
    if let Some(found) = given.iter().find(|given| **given > width) {
        return Err(usage(format!(
            "--dimensions: expected numbers from 1 to {width}, the model's dimensions, found {found}"
        )));
    }
    let mut all = vec![width];
    for number in given {
        if !all.contains(number) {
            all.push(*number);
        }
    }
    Ok(all)
}
