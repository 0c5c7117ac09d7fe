//! `cloze similar`: finds the texts nearest to queries.

use std::io::{IsTerminal, Write};
use std::path::{Path, PathBuf};

use anyhow::{Result, bail};
use cloze_tasks::Long;
use cloze_tasks::datasets::format::{FORMATS, Format, display_name};
use cloze_tasks::embed::Embedder;
use cloze_tasks::embed::prompts::Purpose;
use cloze_tasks::embed::search::{BinaryIndex, Hit, Index, Similarity};
use cloze_tasks::embed::texts::{Text, Texts};
use cloze_tasks::embed::vectors::{Element, StoredMatrix, Vectors};
use cloze_tasks::lines::Lines;
use serde_json::json;

use super::embed::{SearchArguments, ShorteningArguments, VectorArguments, embed_file};
use super::failures::{Failures, blank_line_error, next_line, write_failure};
use super::tokenizer::note_special_names;
use crate::failure::usage;
use crate::terminal::Terminal;
use crate::{format, help};

/// `cloze similar --model DIR --corpus FILE --query TEXT`
#[derive(Debug, clap::Args)]
#[command(
    after_help = help::examples(&EXAMPLES[..2]),
    after_long_help = help::details(
        "Compares the vector of the query with that of every text of the corpus. Prompts and similarity are those of \
         sentence-transformers' encode_query(), encode_document() and similarity(). To compute the vectors only once, use \
         `cloze embed --out lines.npy` with the same --model, --pool, --layers, --long and --dimensions, and give the file as --embeddings. If the \
         model has a document prompt, add --prompt-name document. The file is memory-mapped: it can be larger than the memory.\n\n\
         Quantized vectors (cloze embed --quantize) are found in the same way. Bytes are compared as the numbers that they stand for. For \
         bits, the candidates are the --top times --rescore-multiplier vectors with the fewest different bits, and their score is the dot \
         product of the query with their bits, as in semantic_search_faiss(). With --rescore-embeddings the candidates get the scores of \
         the vectors in f32.",
        &EXAMPLES,
    )
)]
pub struct Arguments {
    #[command(flatten)]
    vectors: VectorArguments,

    #[command(flatten)]
    shortening: ShorteningArguments,

    #[command(flatten)]
    search: SearchArguments,

    /// Texts to search: a file with one text per line, .jsonl, .tsv, .csv or .parquet
    #[arg(long, value_name = "FILE")]
    corpus: PathBuf,

    /// Text column of a .jsonl, .tsv, .csv or .parquet corpus [default: text]
    #[arg(long, value_name = "NAME")]
    column: Option<String>,

    /// Corpus format: lines, tsv, csv, jsonl, json, parquet [default: from the extension, else from the first lines]
    #[arg(long, hide_possible_values = true, value_name = "FORMAT", value_parser = crate::values::named(&FORMATS))]
    format: Option<Format>,

    /// Vectors of the corpus from `cloze embed`: .npy or .safetensors [default: compute them]
    #[arg(long, value_name = "FILE")]
    embeddings: Option<PathBuf>,

    /// The same vectors in f32, for the final scores if --embeddings are quantized
    #[arg(long, value_name = "FILE", requires = "embeddings", hide_short_help = true)]
    rescore_embeddings: Option<PathBuf>,

    /// Candidates for each text to show, if they are scored again
    #[arg(long, default_value_t = 4, value_name = "N", value_parser = crate::values::items, hide_short_help = true)]
    rescore_multiplier: usize,

    /// Text to search for; can be repeated [default: the lines of standard input]
    #[arg(long = "query", value_name = "TEXT")]
    queries: Vec<String>,

    /// Texts to show for each query
    #[arg(long, default_value_t = 10, value_name = "N", value_parser = crate::values::items)]
    top: usize,

    /// Print one JSON object for each query
    #[arg(long)]
    json: bool,
}

/// Examples for the help, one per line.
const EXAMPLES: [&str; 3] = [
    "cloze similar --model all-MiniLM-L6-v2 --corpus lines.txt --query \"wings in wind\"",
    "cloze similar --model all-MiniLM-L6-v2 --corpus lines.txt --embeddings lines.npy --top 3 --json < queries.txt",
    "cloze similar --model all-MiniLM-L6-v2 --corpus lines.txt --embeddings bits.npy --rescore-embeddings lines.npy --query wings",
];

pub fn run(arguments: &Arguments, terminal: &Terminal) -> Result<()> {
    if arguments.corpus == Path::new("-") {
        return Err(usage("--corpus: expected a file; standard input is used for queries"));
    }
    let texts = Texts::open(&arguments.corpus, arguments.column.as_deref(), arguments.format)?;
    texts.note().iter().for_each(|note| terminal.note(note));
    let embedder = arguments.vectors.open_to_search(&arguments.search, arguments.shortening, terminal)?;
    let (texts, corpus) = match &arguments.embeddings {
        None => {
            let (texts, vectors) = embed_file(&embedder, texts, terminal)?;
            (texts, Corpus { first: First::Index(Index::new(vectors, embedder.similarity)), exact: None })
        }
        Some(path) => {
            let texts: Vec<Text> = texts.collect::<Result<_, _>>()?;
            let corpus = Corpus::open(arguments, path, texts.len(), &embedder)?;
            let prompt = embedder.prompt(Purpose::Document);
            if !prompt.is_empty() {
                let path = path.display();
                terminal.note(&format!(
                    "assuming that {path} was computed with the document prompt (cloze embed --prompt {prompt:?})"
                ));
            }
            if corpus.scores_bits() {
                terminal.note(
                    "scores are dot products of the query with bits; for those of the model's similarity give the vectors in f32 as \
                     --rescore-embeddings",
                );
            }
            (texts, corpus)
        }
    };
    let search = Search { arguments, texts: &texts, corpus, embedder: &embedder, terminal };
    let done = answer_all(&search);
    note_special_names(&embedder.model.tokenizer, terminal);
    done
}

fn answer_all(search: &Search<'_>) -> Result<()> {
    let Search { arguments, terminal, .. } = search;
    let mut unreadable = Failures::new(display_name(&arguments.corpus), "row", false);
    for (row, text) in (1..).zip(search.texts) {
        match &text.problem {
            None => unreadable.add_success(),
            Some(problem) => unreadable.add_unreadable(row, problem),
        }
    }
    if !arguments.queries.is_empty() {
        arguments.queries.iter().try_for_each(|query| search.answer(query))?;
        return unreadable.finish("read; they are left out of the search");
    }
    if std::io::stdin().is_terminal() {
        terminal.note("reading queries from the terminal, one per line; end with Ctrl-D");
    }
    let mut queries = Failures::new(display_name(Path::new("-")), "line", false);
    let mut lines = Lines::open(Path::new("-"))?;
    while let Some(line) = next_line(&mut lines)? {
        let failed = match line {
            Ok(()) if lines.text().trim().is_empty() && !arguments.json => continue,
            Ok(()) if lines.text().trim().is_empty() => blank_line_error(),
            Ok(()) => {
                search.answer(lines.text())?;
                queries.add_success();
                continue;
            }
            Err(error) => error,
        };
        write_failure(&mut queries, lines.number(), failed, arguments.json)?;
    }
    if queries.is_empty() {
        bail!("no query; give one with --query, or lines on standard input");
    }
    queries.finish("answered")?;
    unreadable.finish("read; they are left out of the search")
}

/// The vectors of the corpus.
struct Corpus {
    first: First,
    /// The vectors in f32 that the candidates are scored with again.
    exact: Option<Index>,
}

/// The vectors among which candidates are found.
enum First {
    Index(Index),
    Binary(BinaryIndex),
}

impl Corpus {
    fn open(arguments: &Arguments, path: &Path, texts: usize, embedder: &Embedder) -> Result<Corpus> {
        let (width, threads) = (embedder.width(), embedder.model.device.threads());
        let matrix = open_matrix(path, texts, embedder)?;
        if matrix.element() == Element::F32 && arguments.rescore_embeddings.is_some() {
            return Err(usage("--rescore-embeddings: expected quantized --embeddings, found vectors in f32"));
        }
        let first = match is_binary(&matrix, width) {
            true => First::Binary(BinaryIndex::new(matrix, width)?),
            false => First::Index(Index::of_stored(matrix, embedder.similarity, threads)?),
        };
        let mut exact = None;
        if let Some(path) = &arguments.rescore_embeddings {
            let matrix = open_matrix(path, texts, embedder)?;
            if matrix.element() != Element::F32 {
                bail!("{}: expected vectors in f32, found quantized ones", path.display());
            }
            exact = Some(Index::of_stored(matrix, embedder.similarity, threads)?);
        }
        Ok(Corpus { first, exact })
    }

    /// Whether the scores are those of bits.
    fn scores_bits(&self) -> bool {
        matches!((&self.first, &self.exact), (First::Binary(_), None))
    }

    /// The `top` nearest vectors. Rows for which `keep` is false are excluded.
    fn nearest(
        &self,
        query: Vectors,
        top: usize,
        multiplier: usize,
        embedder: &Embedder,
        keep: impl Fn(usize) -> bool + Sync,
    ) -> Vec<Hit> {
        let device = &embedder.model.device;
        let candidates = top.saturating_mul(multiplier);
        let numbers = query.values().to_vec();
        let find = |index: &Index, top: usize| -> Vec<Hit> {
            index.nearest(device, query, top, |_, row| keep(row)).into_iter().flatten().collect()
        };
        match (&self.first, &self.exact) {
            (First::Index(index), None) => find(index, top),
            (First::Index(index), Some(exact)) => exact.rescored(&numbers, &find(index, candidates), top),
            (First::Binary(index), None) => index.nearest(&numbers, top, candidates, device.threads(), keep),
            (First::Binary(index), Some(exact)) => {
                let hits = index.nearest(&numbers, candidates, candidates, device.threads(), keep);
                exact.rescored(&numbers, &hits, top)
            }
        }
    }
}

/// Whether the numbers of a matrix are the bits of vectors of this width.
fn is_binary(matrix: &StoredMatrix, width: usize) -> bool {
    matrix.element() != Element::F32 && matrix.columns() == width.div_ceil(8) && matrix.columns() != width
}

/// Maps the vectors of a file, and checks that their number and width match the corpus and the model.
fn open_matrix(path: &Path, texts: usize, embedder: &Embedder) -> Result<StoredMatrix> {
    let matrix = StoredMatrix::open(path)?;
    let (found, expected) = ((matrix.rows(), matrix.columns()), (texts, embedder.width()));
    if found != expected && !(found.0 == texts && is_binary(&matrix, expected.1)) {
        let shorter = if found.0 == texts && found.1 < expected.1 && matrix.element() == Element::F32 {
            format!(", or use --dimensions {} if they were shortened", found.1)
        } else {
            String::new()
        };
        bail!(
            "{}: expected {} vectors of {} numbers (the corpus's texts, the model's width), found {} of {}; compute them with \
             `cloze embed` from this corpus with this model{shorter}",
            path.display(),
            expected.0,
            expected.1,
            found.0,
            found.1
        );
    }
    Ok(matrix)
}

struct Search<'a> {
    arguments: &'a Arguments,
    texts: &'a [Text],
    corpus: Corpus,
    embedder: &'a Embedder,
    terminal: &'a Terminal,
}

impl Search<'_> {
    fn answer(&self, query: &str) -> Result<()> {
        let embedded = self.embedder.embed(&[query], Purpose::Query, &mut |_| ())?;
        let max_len = self.embedder.max_len(Purpose::Query);
        match self.embedder.long() {
            _ if embedded.cut == 0 => {}
            Long::First => self.terminal.note(&format!(
                "the query was longer than {max_len} tokens; only its first window was read (--long first)"
            )),
            _ => self.terminal.warn(&format!(
                "the query was longer than {max_len} tokens and was truncated (see --max-len and --long)"
            )),
        }
        if embedded.windowed > 0 {
            let windows = format::count(embedded.windows as u64);
            self.terminal
                .note(&format!("the query was longer than {max_len} tokens and was read in {windows} windows"));
        }
        // Skip rows of the corpus without a readable text.
        let is_text = |row: usize| self.texts.get(row).is_none_or(|text| text.problem.is_none());
        let Arguments { top, rescore_multiplier, .. } = *self.arguments;
        let hits = self.corpus.nearest(embedded.vectors, top, rescore_multiplier, self.embedder, is_text);
        let found: Vec<(Hit, &Text)> =
            hits.into_iter().filter_map(|hit| Some((hit, self.texts.get(hit.row)?))).collect();
        // Locked for each query and flushed, so that the reader of a pipe gets each result at once.
        let mut out = crate::output::stdout();
        if self.arguments.json {
            let one = |(hit, text): &(Hit, &Text)| json!({"score": hit.score, "line": text.line, "text": text.text});
            let results: Vec<_> = found.iter().map(one).collect();
            let similarity = if self.corpus.scores_bits() { Similarity::Dot } else { self.embedder.similarity };
            writeln!(out, "{}", json!({"query": query, "similarity": similarity, "results": results}))?;
        } else {
            writeln!(out, "{}", self.terminal.bold(query))?;
            for (hit, text) in &found {
                writeln!(out, "  {:.4}  {:>8}  {}", hit.score, format::count(text.line as u64), text.text)?;
            }
        }
        out.flush()?;
        Ok(())
    }
}
