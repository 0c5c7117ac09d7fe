//! `cloze vocab extend`: adds words to the vocabulary of a model.

use std::collections::BTreeSet;
use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use cloze_comm::Communicator;
use cloze_data::corpus::CorpusOptions;
use cloze_text::{DomainWord, Tokenizer, WordCounts, WordProblem};
use serde_json::{Value, json};

use super::rewrite::SourceModel;
use super::words::read_words;
use crate::commands::model::ModelArguments;
use crate::commands::tokenizer::show_notes;
use crate::failure::check_out;
use crate::format;
use crate::terminal::Terminal;

/// Maximum number of warnings about skipped words.
const MAX_WARNINGS: usize = 20;

/// `cloze vocab extend --model DIR --words FILE|WORD… --out DIR`
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Example:\n  cloze vocab extend --model bert --words terms.txt --out bert-onco",
    after_long_help = "Each word becomes one token at the end of the vocabulary; the old tokens keep their ids. Its row of the word \
        embeddings (and of the MLM bias) is initialized with the mean of the rows of its current pieces, or, if these are only \
        [UNK], with random values around the mean of all rows (see --seed). All other weights are unchanged. The new rows are \
        only a starting point, so train the model further.\n\n\
        A new token is also used in longer words that begin with it: after adding glioblastoma, glioblastomas becomes \
        glioblastoma ##s. The ids of all other words are unchanged. The vocabulary may be BERT's WordPiece, byte-level BPE \
        (RoBERTa) or Unigram (ALBERT, XLM-R). In the last two, the new token is that of the word after a space. BPE gets new \
        merges after all others, and also tokens for what they merge on the way; Unigram gets a piece with a score just above \
        that of the pieces which it replaces.\n\n\
        With --input the words are chosen from a corpus: those that the vocabulary splits, sorted by the number of tokens that \
        they save, count times (pieces - 1), without numbers.\n\n\
        Words that cannot be a token are listed and skipped: words that are already in the vocabulary or given twice, or that \
        contain white space, punctuation at which they are split (U.S., co-op; not in Unigram), or capitals for an uncased \
        vocabulary. Weights \
        are written as float32, without the optimizer state of a checkpoint. Rows of the model beyond the size of its tokenizer \
        are dropped.\n\nExamples:\n  \
        cloze vocab extend --model bert --words glioblastoma temozolomide --out bert-onco\n  \
        cloze vocab extend --model bert --words terms.txt --out bert-onco\n  \
        cloze vocab extend --model bert --input papers/ --size 2000 --out bert-onco"
)]
#[command(group(clap::ArgGroup::new("source").required(true).args(["words", "input"])))]
pub struct Arguments {
    #[command(flatten)]
    model: ModelArguments,

    /// Words, or files with one word per line
    #[arg(long, num_args = 1.., value_name = "FILE|WORD")]
    words: Vec<String>,

    /// Text to choose the words from: files, folders or globs of .txt, .jsonl or .parquet, plain, .gz or .zst; - for
    /// standard input
    #[arg(long, num_args = 1.., value_name = "PATH", requires = "size")]
    input: Vec<PathBuf>,

    /// Number of words to choose from --input
    #[arg(long, value_name = "N", value_parser = crate::values::positive, requires = "input", conflicts_with = "words")]
    size: Option<usize>,

    /// Minimum number of occurrences of a word in --input
    #[arg(long, default_value_t = 5, value_name = "N", requires = "input")]
    min_count: u64,

    /// Column or key of the text in .parquet and .jsonl
    #[arg(long, default_value = "text", value_name = "NAME", requires = "input")]
    text_column: String,

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
    let model = arguments.model.find_with_pooling(terminal)?;
    let source = SourceModel::open(&model)?;
    let old = &source.tokenizer;
    show_notes(old, terminal);
    old.check_extensible()?;
    let (given, learned) = match arguments.size {
        Some(size) => {
            let learned = learn_words(arguments, old, size, terminal)?;
            let accepted = learned.words.iter().map(|word| word.word.clone()).collect();
            (Given { accepted, skipped: Vec::new() }, Some(learned))
        }
        None => (read_given(&arguments.words, old)?, None),
    };
    given.warn_skipped(terminal);
    if given.accepted.is_empty() {
        match learned {
            Some(_) => bail!(
                "nothing to add: no word that is split occurs at least {} times in the corpus; give more text or a lower --min-count",
                arguments.min_count
            ),
            None => bail!(
                "nothing to add: none of the {} given words can be added (an argument that is not a file is read as a word)",
                given.skipped.len()
            ),
        }
    }
    let new = old.with_words(&given.accepted)?;
    let counts = source.rewrite(&new, arguments.seed, &arguments.out, terminal)?;

    let figures = learned.as_ref().map(|learned| learned.figures(old, &new));
    let mut out = crate::output::stdout();
    if arguments.json {
        let mut result = counts.json();
        result.insert("out".to_owned(), arguments.out.to_string_lossy().into());
        result.insert("added".to_owned(), given.accepted.into());
        let skipped = |s: &Skipped| json!({"place": s.source, "word": s.word, "problem": s.problem.to_string()});
        result.insert("skipped".to_owned(), given.skipped.iter().map(skipped).collect());
        if let (Some(figures), Some(learned)) = (figures, &learned) {
            let word = |w: &DomainWord| json!({"word": w.word, "count": w.count, "pieces": w.pieces.len()});
            result.insert("learned".to_owned(), learned.words.iter().map(word).collect());
            result.insert("words".to_owned(), figures.words.into());
            result.insert("tokens_per_word_before".to_owned(), figures.before.into());
            result.insert("tokens_per_word".to_owned(), figures.after.into());
        }
        writeln!(out, "{}", Value::Object(result))?;
    } else {
        counts.write(&mut out)?;
        let ids = old.vocab_size()..new.vocab_size();
        let (added, skipped) = (format::count(given.accepted.len() as u64), format::count(given.skipped.len() as u64));
        match ids.len() {
            1 => writeln!(out, "{added} word added (id {}), {skipped} skipped", ids.start)?,
            tokens if tokens == given.accepted.len() => {
                writeln!(out, "{added} words added (ids {} to {}), {skipped} skipped", ids.start, ids.end - 1)?;
            }
            tokens => {
                let more = format::count((tokens - given.accepted.len()) as u64);
                let (first, last) = (ids.start, ids.end - 1);
                writeln!(
                    out,
                    "{added} words added, with {more} tokens merged on the way (ids {first} to {last}), {skipped} skipped"
                )?;
            }
        }
        if let (Some(Figures { words, before, after }), Some(learned)) = (figures, &learned) {
            let words = format::count(words);
            let marks = if old.model() == "Unigram" { "" } else { ", including punctuation marks" };
            writeln!(out, "tokens per word {before:.3} → {after:.3} ({words} words{marks})")?;
            let best: Vec<String> =
                learned.words.iter().take(8).map(|w| format!("{} ({})", w.word, format::count(w.count))).collect();
            writeln!(out, "largest savings: {}", best.join(", "))?;
        }
        writeln!(out, "written to {}", arguments.out.display())?;
    }
    if let (Some(size), Some(learned)) = (arguments.size, &learned)
        && learned.words.len() < size
    {
        terminal.warn(&format!(
            "the corpus gave only {} of {size} words; more text or a lower --min-count gives more",
            learned.words.len()
        ));
    }
    Ok(())
}

/// The words of `--words`.
#[derive(Default)]
struct Given {
    accepted: Vec<String>,
    skipped: Vec<Skipped>,
}

/// A word that cannot be added.
struct Skipped {
    /// `FILE:LINE`, or `--words`.
    source: String,
    word: String,
    problem: WordProblem,
}

/// Reads the arguments of `--words`: existing files, or words.
fn read_given(arguments: &[String], tokenizer: &Tokenizer) -> Result<Given> {
    let mut given = Given::default();
    let mut seen = BTreeSet::new();
    let mut take = |source: String, word: &str| {
        let checked = match tokenizer.check_new_word(word) {
            Ok(()) if !seen.insert(word.to_owned()) => Err(WordProblem::Repeated),
            checked => checked,
        };
        match checked {
            Ok(()) => given.accepted.push(word.to_owned()),
            Err(problem) => given.skipped.push(Skipped { source, word: word.to_owned(), problem }),
        }
    };
    for argument in arguments {
        let path = Path::new(argument);
        if path.is_file() {
            for (line, word) in read_lines(path)?.into_iter().enumerate() {
                take(format!("{}:{}", path.display(), line + 1), &word);
            }
        } else {
            take("--words".to_owned(), argument);
        }
    }
    Ok(given)
}

/// The lines of a file, without surrounding white space.
fn read_lines(path: &Path) -> Result<Vec<String>> {
    let bytes = fs::read(path).with_context(|| format!("cannot read {}", path.display()))?;
    let text = std::str::from_utf8(&bytes).map_err(|error| {
        let line = bytes[..error.valid_up_to()].iter().filter(|&&byte| byte == b'\n').count() + 1;
        anyhow::anyhow!("{}:{line}: not UTF-8; convert the file to UTF-8", path.display())
    })?;
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    Ok(text.lines().map(|line| line.trim().to_owned()).collect())
}

impl Given {
    fn warn_skipped(&self, terminal: &Terminal) {
        for Skipped { source, word, problem } in self.skipped.iter().take(MAX_WARNINGS) {
            terminal.warn(&format!("{source}: {word:?} {problem}; skipped"));
        }
        if self.skipped.len() > MAX_WARNINGS {
            terminal
                .warn(&format!("{} more words skipped (--json lists all of them)", self.skipped.len() - MAX_WARNINGS));
        }
    }
}

/// The words of `--input`.
struct Learned {
    words: Vec<DomainWord>,
    counts: WordCounts,
}

/// Tokens per word of the corpus, before and after.
struct Figures {
    words: u64,
    before: f64,
    after: f64,
}

fn learn_words(arguments: &Arguments, tokenizer: &Tokenizer, size: usize, terminal: &Terminal) -> Result<Learned> {
    let mut options = CorpusOptions::default();
    options.text_column = arguments.text_column.clone();
    let threads = terminal.threads.unwrap_or(0);
    let read = read_words(&arguments.input, &options, false, &Communicator::single(), terminal, |texts, progress| {
        WordCounts::count(tokenizer, threads, texts, progress)
    })?;
    let words = read.result.rank_new_words(tokenizer, size, arguments.min_count);
    Ok(Learned { words, counts: read.result })
}

impl Learned {
    fn figures(&self, old: &Tokenizer, new: &Tokenizer) -> Figures {
        let words = self.counts.total_words();
        let ratio = |tokens: u64| tokens as f64 / words.max(1) as f64;
        let [before, after] = [old, new].map(|tokenizer| ratio(self.counts.total_tokens(tokenizer)));
        Figures { words, before, after }
    }
}
