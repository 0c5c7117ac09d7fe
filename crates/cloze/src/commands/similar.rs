//! `cloze similar`: finds the texts nearest to queries.

use std::io::{IsTerminal, Write};
use std::path::{Path, PathBuf};

use anyhow::{Result, bail};
use cloze_tasks::datasets::format::{FORMATS, Format, display_name};
use cloze_tasks::embed::Embedder;
use cloze_tasks::embed::prompts::Purpose;
use cloze_tasks::embed::search::{Hit, Index};
use cloze_tasks::embed::texts::{Text, Texts};
use cloze_tasks::embed::vectors::{Vectors, read_npy};
use cloze_tasks::lines::Lines;
use serde_json::json;

use super::embed::{SearchArguments, VectorArguments, embed_file};
use super::failures::{Failures, blank_line_error, next_line, write_failure};
use super::tokenizer::note_special_names;
use crate::failure::usage;
use crate::terminal::Terminal;
use crate::{format, help};

/// `cloze similar --model DIR --corpus FILE --query TEXT`
#[derive(Debug, clap::Args)]
#[command(
    after_help = help::examples(&EXAMPLES),
    after_long_help = help::details(
        "Compares the vector of the query with that of every text of the corpus. The vectors are held in memory: four bytes times \
         the width for each text. Prompts and similarity are those of sentence-transformers' encode_query(), encode_document() \
         and similarity(). To compute the vectors only once, use `cloze embed --out lines.npy` with the same --model, --pool and \
         --layers, and give the file as --embeddings. If the model has a document prompt, add --prompt-name document.",
        &EXAMPLES,
    )
)]
pub struct Arguments {
    #[command(flatten)]
    vectors: VectorArguments,

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

    /// Vectors of the corpus from `cloze embed` [default: compute them]
    #[arg(long, value_name = "FILE.npy")]
    embeddings: Option<PathBuf>,

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
const EXAMPLES: [&str; 2] = [
    "cloze similar --model all-MiniLM-L6-v2 --corpus lines.txt --query \"wings in wind\"",
    "cloze similar --model all-MiniLM-L6-v2 --corpus lines.txt --embeddings lines.npy --top 3 --json < queries.txt",
];

pub fn run(arguments: &Arguments, terminal: &Terminal) -> Result<()> {
    if arguments.corpus == Path::new("-") {
        return Err(usage("--corpus: expected a file; standard input is used for queries"));
    }
    let texts = Texts::open(&arguments.corpus, arguments.column.as_deref(), arguments.format)?;
    texts.note().iter().for_each(|note| terminal.note(note));
    let embedder = arguments.vectors.open_to_search(&arguments.search, terminal)?;
    let (texts, vectors) = match &arguments.embeddings {
        None => embed_file(&embedder, texts, terminal)?,
        Some(path) => {
            let texts: Vec<Text> = texts.collect::<Result<_, _>>()?;
            let vectors = read_npy(path)?;
            check(path, &vectors, texts.len(), &embedder)?;
            let prompt = embedder.prompt(Purpose::Document);
            if !prompt.is_empty() {
                let path = path.display();
                terminal.note(&format!(
                    "assuming that {path} was computed with the document prompt (cloze embed --prompt {prompt:?})"
                ));
            }
            (texts, vectors)
        }
    };
    let search = Search {
        arguments,
        texts: &texts,
        index: Index::new(vectors, embedder.similarity),
        embedder: &embedder,
        terminal,
    };
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

/// Checks that the number and the width of the vectors match the corpus and the model.
fn check(path: &Path, vectors: &Vectors, texts: usize, embedder: &Embedder) -> Result<()> {
    let (found, expected) = ((vectors.len(), vectors.width()), (texts, embedder.width()));
    if found != expected {
        bail!(
            "{}: expected {} vectors of {} numbers (the corpus's texts, the model's width), found {} of {}; compute them with \
             `cloze embed` from this corpus with this model",
            path.display(),
            expected.0,
            expected.1,
            found.0,
            found.1
        );
    }
    if vectors.values().iter().any(|value| !value.is_finite()) {
        bail!("{}: contains NaN or infinite values; compute the vectors again with `cloze embed`", path.display());
    }
    Ok(())
}

struct Search<'a> {
    arguments: &'a Arguments,
    texts: &'a [Text],
    index: Index,
    embedder: &'a Embedder,
    terminal: &'a Terminal,
}

impl Search<'_> {
    fn answer(&self, query: &str) -> Result<()> {
        let embedded = self.embedder.embed(&[query], Purpose::Query, &mut |_| ())?;
        if embedded.cut > 0 {
            let max_len = self.embedder.max_len(Purpose::Query);
            self.terminal
                .warn(&format!("the query was longer than {max_len} tokens and was truncated (see --max-len)"));
        }
        // Skip rows of the corpus without a readable text.
        let is_text = |_, row: usize| self.texts.get(row).is_none_or(|text| text.problem.is_none());
        let hits = self.index.nearest(embedded.vectors, self.arguments.top, 1, is_text).into_iter().flatten();
        let found: Vec<(Hit, &Text)> = hits.filter_map(|hit| Some((hit, self.texts.get(hit.row)?))).collect();
        // Locked for each query and flushed, so that the reader of a pipe gets each result at once.
        let mut out = crate::output::stdout();
        if self.arguments.json {
            let one = |(hit, text): &(Hit, &Text)| json!({"score": hit.score, "line": text.line, "text": text.text});
            let results: Vec<_> = found.iter().map(one).collect();
            writeln!(out, "{}", json!({"query": query, "similarity": self.embedder.similarity, "results": results}))?;
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
