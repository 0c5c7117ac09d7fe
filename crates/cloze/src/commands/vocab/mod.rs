//! `cloze vocab`: learns a vocabulary from text, or changes the vocabulary of a model.

mod extend;
mod resize;
mod rewrite;
mod words;

use std::io::Write;
use std::path::PathBuf;
use std::time::Instant;

use anyhow::{Result, bail};
use cloze_data::corpus::{CorpusOptions, open_corpus};
use cloze_text::{ScriptMarks, Tokenizer, VocabularyKind, VocabularyOptions, count_words, learn};
use serde_json::json;

use self::words::{ReadCorpus, read_words};
use super::reading::{SAMPLE_SECONDS, check_shared_input, input_bytes};
use crate::failure::usage;
use crate::format;
use crate::pace::Pace;
use crate::ranks;
use crate::terminal::Terminal;

/// `cloze vocab --input PATH… --size N --out DIR`, or a subcommand.
#[derive(Debug, clap::Args)]
#[command(
    args_conflicts_with_subcommands = true,
    subcommand_negates_reqs = true,
    after_help = "Example:\n  cloze vocab --input texts/ 'more/*.jsonl.gz' --size 30522 --out vocab",
    after_long_help = "Kinds of vocabularies (--kind):\n\n\
        - wordpiece: BERT's, with [PAD] [UNK] [CLS] [SEP] [MASK]. It is learned with the trainer of the `tokenizers` crate, which \
        merges the most frequent pairs (byte-pair encoding with ## continuations); Google's trainer used the likelihood.\n\
        - bpe: RoBERTa's byte-level BPE, with <s> <pad> </s> <unk> <mask>, by the same trainer. It keeps case and accents.\n\
        - unigram: ALBERT's, with <pad> <unk> [CLS] [SEP] [MASK], by expectation maximization as in SentencePiece. Text is \
        normalized by NFKC (NFKD if accents are stripped).\n\n\
        Words are counted in bounded memory: if a corpus has very many distinct words, the rarest are dropped from the counts.\n\n\
        Several processes can share the counting and write the same bytes: start the command with mpirun or srun. All of them read \
        the input.\n\n\
        The output is tokenizer.json and tokenizer_config.json (for wordpiece also vocab.txt), which Transformers' AutoTokenizer \
        opens.\n\n\
        Examples:\n  cloze vocab --input texts/ --size 30522 --out vocab\n  \
        cloze vocab --input 'wiki/*.parquet' --text-column body --size 8000 --cased --out vocab\n  \
        cloze vocab --kind bpe --input texts/ --size 50265 --out vocab\n  \
        zcat big.txt.gz | cloze vocab --input - --size 30522 --out vocab\n  \
        mpirun -np 4 cloze vocab --input texts/ --size 30522 --out vocab\n  \
        cloze vocab extend --model bert --words glioblastoma temozolomide --out bert-onco"
)]
pub struct Arguments {
    #[command(subcommand)]
    rewrite: Option<Rewrite>,

    #[command(flatten)]
    learn: Option<LearnArguments>,
}

impl Arguments {
    /// Whether several ranks can run the command: those that rewrite a model run in one process.
    pub fn supports_ranks(&self) -> bool {
        self.rewrite.is_none()
    }
}

/// Commands that change the vocabulary of a model.
#[derive(Debug, clap::Subcommand)]
enum Rewrite {
    /// Add words to a model's vocabulary, one token each
    Extend(extend::Arguments),
    /// Give a model another vocabulary
    Resize(resize::Arguments),
}

/// The options for learning a vocabulary.
#[derive(Debug, clap::Args)]
struct LearnArguments {
    /// Files, folders or globs of .txt (a blank line between documents), .jsonl or .parquet, plain, .gz or .zst; - for
    /// standard input
    #[arg(long, required = true, num_args = 1.., value_name = "PATH")]
    input: Vec<PathBuf>,

    /// Kind of vocabulary
    #[arg(long, default_value = "wordpiece", value_name = "KIND", value_parser = crate::values::named(&VocabularyKind::ALL))]
    kind: VocabularyKind,

    /// Number of tokens, including the special tokens
    #[arg(long, default_value_t = 30522, value_name = "N")]
    size: usize,

    /// Keep case and accents, as bpe always does [default: lower-case and strip accents]
    #[arg(long)]
    cased: bool,

    /// Lower-case, but keep accents, vowel signs and tone marks (Hindi, Thai, Vietnamese)
    #[arg(long, conflicts_with = "cased")]
    keep_accents: bool,

    /// Minimum number of occurrences of a pair to be merged, or of a unigram piece
    #[arg(long, default_value_t = 2, value_name = "N")]
    min_frequency: u64,

    /// Column or key of the text in .parquet and .jsonl
    #[arg(long, default_value = "text", value_name = "NAME")]
    text_column: String,

    /// Output folder
    #[arg(long, value_name = "DIR")]
    out: PathBuf,

    /// Estimate the time from the first seconds, and write nothing
    #[arg(long)]
    dry_run: bool,

    /// Print the result as one JSON object
    #[arg(long)]
    json: bool,
}

pub fn run(arguments: &Arguments, terminal: &Terminal) -> Result<()> {
    match (&arguments.rewrite, &arguments.learn) {
        (Some(Rewrite::Extend(arguments)), _) => extend::run(arguments, terminal),
        (Some(Rewrite::Resize(arguments)), _) => resize::run(arguments, terminal),
        (None, Some(arguments)) => run_learn(arguments, terminal),
        // Not reached: the parser requires --input and --out.
        (None, None) => bail!("no input; give --input and --out"),
    }
}

fn run_learn(arguments: &LearnArguments, terminal: &Terminal) -> Result<()> {
    for file in ["vocab.txt", "tokenizer.json"] {
        if arguments.out.join(file).exists() {
            bail!("{} already contains {file}; choose another --out, or remove it first", arguments.out.display());
        }
    }
    if arguments.kind == VocabularyKind::Bpe && arguments.keep_accents {
        return Err(usage("--keep-accents cannot be used with --kind bpe, which keeps case and accents"));
    }
    let mut options = VocabularyOptions::default();
    options.kind = arguments.kind;
    options.size = arguments.size;
    options.cased = arguments.cased;
    options.keep_accents = arguments.keep_accents;
    options.min_frequency = arguments.min_frequency;
    options.threads = terminal.threads.unwrap_or(0);
    let mut corpus_options = CorpusOptions::default();
    corpus_options.text_column = arguments.text_column.clone();
    options.ranks = ranks::current().clone();
    check_shared_input(&arguments.input, &corpus_options, &options.ranks)?;
    if arguments.dry_run {
        return dry_run(arguments, &corpus_options, &options);
    }
    let learned = learn_from(&arguments.input, &corpus_options, &options, terminal)?;
    if !options.ranks.is_root() {
        return Ok(());
    }
    if cloze_files::is_unused(&arguments.out)? {
        cloze_files::write_folder(&arguments.out, |dir| learned.tokenizer.save(dir))?;
    } else {
        // The folder has other files, which are kept.
        learned.tokenizer.save(&arguments.out)?;
    }

    let peak = cloze_files::machine::peak_memory();
    let size = learned.tokenizer.vocab_size();
    let mut out = crate::output::stdout();
    if arguments.json {
        let result = json!({
            "out": format::path(&arguments.out),
            "vocab_size": size,
            "asked_size": arguments.size,
            "kind": arguments.kind.name(),
            "cased": learned.tokenizer.is_cased(),
            "keep_accents": arguments.keep_accents,
            "dropped_marks": learned.dropped_marks,
            "long_words": learned.long_words,
            "forgotten_words": learned.forgotten,
            "fingerprint": learned.tokenizer.fingerprint(),
            "documents": learned.documents,
            "text_bytes": learned.text_bytes,
            "seconds": learned.seconds,
            "mb_per_s": learned.text_bytes as f64 / 1e6 / learned.seconds,
            "peak_rss_bytes": peak,
        });
        writeln!(out, "{result}")?;
    } else {
        writeln!(
            out,
            "{} tokens ({}, {}) from {} documents, {} of text, in {} ({:.1} MB/s){}",
            format::count(size as u64),
            arguments.kind.name(),
            if learned.tokenizer.is_cased() { "cased" } else { "uncased" },
            format::count(learned.documents),
            format::bytes(learned.text_bytes),
            format::duration(learned.seconds),
            learned.text_bytes as f64 / 1e6 / learned.seconds,
            peak.map_or_else(String::new, |peak| format!(", peak memory {}", format::bytes(peak))),
        )?;
        writeln!(out, "written to {}", arguments.out.display())?;
    }
    learned.show_notes(terminal);
    if size < arguments.size {
        terminal.warn(&format!(
            "the corpus gave only {size} of {} tokens; more text or a lower --min-frequency gives more",
            arguments.size
        ));
    }
    Ok(())
}

/// Counts words for some seconds and prints an estimate.
fn dry_run(arguments: &LearnArguments, corpus: &CorpusOptions, options: &VocabularyOptions) -> Result<()> {
    let total = input_bytes(&arguments.input, corpus)?;
    let texts = open_corpus(&arguments.input, corpus)?;
    let reading = texts.progress();
    let start = Instant::now();
    let mut complete = true;
    let sample = texts
        .take_while(|_| {
            complete = start.elapsed().as_secs_f64() < SAMPLE_SECONDS;
            complete
        })
        .map(|document| document.map(|document| document.text));
    let distinct = count_words(options, sample)?;
    let mut pace = Pace::default();
    pace.add(reading.bytes_read(), start.elapsed().as_secs_f64());
    let seconds = pace.estimate(total);
    if !options.ranks.is_root() {
        return Ok(());
    }
    let mut out = crate::output::stdout();
    if arguments.json {
        let line = json!({
            "dry_run": true, "out": format::path(&arguments.out), "input_bytes": total, "counting_seconds": seconds, "all_read": complete,
            "distinct_words": distinct, "peak_rss_bytes": cloze_files::machine::peak_memory(),
        });
        writeln!(out, "{line}")?;
    } else {
        let basis = if complete { "measured completely" } else { "estimated from the first seconds" };
        writeln!(
            out,
            "{} of input: about {} to count words ({basis}), then up to a minute to merge pieces",
            format::bytes(total),
            format::duration(seconds)
        )?;
        writeln!(
            out,
            "nothing was written; without --dry-run the vocabulary is written to {}",
            arguments.out.display()
        )?;
    }
    Ok(())
}

/// A learned vocabulary with statistics of its corpus.
pub struct Learned {
    pub tokenizer: Tokenizer,
    pub documents: u64,
    pub text_bytes: u64,
    pub seconds: f64,
    /// The marks that normalization removes from the text, by script.
    dropped_marks: Vec<ScriptMarks>,
    long_words: u64,
    forgotten: u64,
}

impl Learned {
    /// Prints notes about text that the vocabulary does not represent.
    fn show_notes(&self, terminal: &Terminal) {
        match ScriptMarks::warning(&self.dropped_marks) {
            Some(warning) => terminal.warn(&warning),
            None if self.dropped_marks.is_empty() => {}
            None => {
                let marks: Vec<String> = self.dropped_marks.iter().map(ScriptMarks::describe).collect();
                terminal.note(&format!(
                    "normalization removes marks: {} (use --keep-accents to keep them)",
                    marks.join(", ")
                ));
            }
        }
        if self.long_words > 0 {
            let words = format::count(self.long_words);
            terminal
                .note(&format!("{words} words longer than 100 characters were skipped (encoded data such as base64?)"));
        }
        if self.forgotten > 0 {
            let words = format::count(self.forgotten);
            terminal.note(&format!("the {words} rarest distinct words were dropped from the counts to limit memory"));
        }
    }
}

/// Learns a vocabulary with a progress bar.
pub fn learn_from(
    input: &[PathBuf],
    corpus_options: &CorpusOptions,
    options: &VocabularyOptions,
    terminal: &Terminal,
) -> Result<Learned> {
    let strips_accents = options.strips_accents();
    let learn = |texts: &mut dyn Iterator<Item = _>, progress: &dyn Fn(_)| learn(options, texts, progress);
    let read = read_words(input, corpus_options, strips_accents, &options.ranks, terminal, learn)?;
    let ReadCorpus { result, documents, text_bytes, seconds, marks, progress } = read;
    let (long_words, forgotten) = progress.map_or((0, 0), |progress| (progress.long_words, progress.dropped));
    let dropped_marks = marks.scripts();
    Ok(Learned { tokenizer: result, documents, text_bytes, seconds, dropped_marks, long_words, forgotten })
}
