//! `cloze pretrain --text`: vocabulary and shards from text, and a recipe's sizes for the text, the machine and the time.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use cloze_data::corpus::{CorpusOptions, open_corpus};
use cloze_data::prepare::PrepareOptions;
use cloze_data::shards::Shards;
use cloze_text::{Tokenizer, VocabularyOptions};
use cloze_train::Recipe;
use cloze_train::recipe::{Budget, Chosen, Precision};

use crate::commands::{prepare, vocab};
use crate::failure::usage;
use crate::terminal::Terminal;
use crate::{format, program};

/// The folder of the shards in a run's folder.
const SHARDS: &str = "shards";
/// Bytes of text from which the size of all text is estimated.
const SAMPLE_BYTES: u64 = 8 << 20;

/// The options for text that has not been prepared.
#[derive(Debug, clap::Args)]
pub struct TextArguments {
    /// Text to pre-train on: files, folders or globs as for `cloze vocab`. Learns a vocabulary (with --from, uses that of
    /// the model) and writes shards to OUT/shards
    #[arg(long, num_args = 1.., value_name = "PATH", conflicts_with_all = ["dry_run", "find_lr"])]
    text: Vec<PathBuf>,

    /// Column or key of the text in .parquet and .jsonl
    #[arg(long, hide_short_help = true, default_value = "text", value_name = "NAME", requires = "text")]
    text_column: String,

    /// The vocabulary keeps case and accents [default: lower-case and strip accents]
    #[arg(long, hide_short_help = true, requires = "text")]
    cased: bool,

    /// The vocabulary is lower-case, but keeps accents, vowel signs and tone marks (Hindi, Thai, Vietnamese)
    #[arg(long, hide_short_help = true, requires = "text", conflicts_with = "cased")]
    keep_accents: bool,
}

/// Prepared text.
pub struct Prepared {
    /// The shards.
    pub shards: PathBuf,
    /// Sizes for a new model, as overrides of a recipe.
    pub sizes: Vec<String>,
}

impl TextArguments {
    /// Whether text is given.
    pub fn is_given(&self) -> bool {
        !self.text.is_empty()
    }

    /// The options as command-line text, each after a space.
    pub fn as_typed(&self) -> String {
        let mut typed = String::new();
        if self.is_given() {
            typed += " --text";
            self.text.iter().for_each(|path| typed += &format!(" {}", program::quoted(path.display())));
            if self.text_column != "text" {
                typed += &format!(" --text-column {}", program::quoted(&self.text_column));
            }
            typed += if self.cased { " --cased" } else { "" };
            typed += if self.keep_accents { " --keep-accents" } else { "" };
        }
        typed
    }

    /// Learns a vocabulary, unless the run starts from a model with this `tokenizer`, and writes shards to the run's folder
    /// `out`. Chooses the sizes of a run of `minutes`.
    pub fn prepare(&self, out: &Path, minutes: f64, tokenizer: Option<&Path>, terminal: &Terminal) -> Result<Prepared> {
        let mut corpus = CorpusOptions::default();
        corpus.text_column = self.text_column.clone();
        let chosen = self.choose(&corpus, minutes, terminal)?;
        let shards = out.join(SHARDS);
        if shards.join("manifest.json").is_file() {
            Shards::open(&shards)?;
            terminal.note(&format!(
                "text        {} is complete and is used; remove it to prepare the text again",
                shards.display()
            ));
        } else {
            let tokenizer = match tokenizer {
                Some(folder) => Tokenizer::open(folder)?,
                None => self.learn(&chosen, &corpus, terminal)?,
            };
            let mut options = PrepareOptions::new(self.text.clone(), tokenizer, shards.clone());
            options.corpus = corpus;
            options.workers = terminal.threads;
            let (report, seconds) = prepare::prepare_with_bar(&options, terminal)?;
            terminal.note(&format!(
                "shards      {} tokens, {} of {} documents held out, in {}: {}",
                format::short(report.tokens as f64),
                format::count(report.valid_documents),
                format::count(report.documents),
                format::duration(seconds),
                shards.display()
            ));
            // Those of the vocabulary are among them.
            for warning in &report.warnings {
                terminal.warn(warning);
            }
        }
        Ok(Prepared { shards, sizes: chosen.overrides() })
    }

    /// The sizes for this text.
    fn choose(&self, corpus: &CorpusOptions, minutes: f64, terminal: &Terminal) -> Result<Chosen> {
        let device = terminal.open_device()?;
        let matrix_peak = device.matrix_peak(Precision::Auto.dtype(&device));
        let text_bytes = self.text_bytes(corpus)?;
        terminal.note(&format!(
            "budget      {} of text, {} on {} with {:.0} GFLOP/s",
            format::bytes(text_bytes),
            format::duration(60.0 * minutes),
            device.describe(),
            matrix_peak / 1e9
        ));
        Ok(Budget { seconds: 60.0 * minutes, matrix_peak, text_bytes }.choose())
    }

    /// The size of the text without compression, estimated from its beginning.
    fn text_bytes(&self, options: &CorpusOptions) -> Result<u64> {
        let mut corpus = open_corpus(&self.text, options)?;
        let reading = corpus.progress();
        let total = reading.bytes_total().ok_or_else(|| {
            usage("--text cannot use standard input, because the text is read several times; give files")
        })?;
        let mut text = 0;
        for document in corpus.by_ref() {
            text += document?.text.len() as u64;
            if text >= SAMPLE_BYTES {
                break;
            }
        }
        let read = reading.bytes_read();
        Ok(if read == 0 { text } else { (text as f64 * (total as f64 / read as f64).max(1.0)) as u64 })
    }

    fn learn(&self, chosen: &Chosen, corpus: &CorpusOptions, terminal: &Terminal) -> Result<Tokenizer> {
        let mut options = VocabularyOptions::default();
        options.size = chosen.vocab_size;
        options.cased = self.cased;
        options.keep_accents = self.keep_accents;
        options.threads = terminal.threads.unwrap_or(0);
        let learned = vocab::learn_from(&self.text, corpus, &options, terminal).context("cannot learn a vocabulary")?;
        terminal.note(&format!(
            "vocabulary  {} tokens in {}",
            format::count(learned.tokenizer.vocab_size() as u64),
            format::duration(learned.seconds)
        ));
        Ok(learned.tokenizer)
    }
}

/// The model and the steps of a recipe, in one line.
pub fn describe(recipe: &Recipe) -> String {
    let model = match (&recipe.model.init, recipe.model.num_hidden_layers, recipe.model.hidden_size) {
        (Some(init), ..) => format!("from {}", init.display()),
        (None, Some(layers), Some(hidden)) => format!("{layers} layers, hidden size {hidden}"),
        (None, ..) => "default sizes".to_owned(),
    };
    let phases = recipe.phase.iter().map(|phase| match phase.batch_sequences {
        Some(sequences) => format!("{} × {}", sequences * phase.accumulate as usize, phase.seq_len),
        None => format!("length {}", phase.seq_len),
    });
    let phases: Vec<String> = phases.collect();
    format!("{model}, steps of {} tokens, learning rate {:.1e}", phases.join(", then "), recipe.optimizer.lr)
}
