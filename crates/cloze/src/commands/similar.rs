//! `cloze similar`: queries → the texts nearest to them.

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
use super::failures::{Failures, blank, next_line, write_failure};
use super::tokenizer::tell_special_names;
use crate::failure::usage;
use crate::terminal::Terminal;
use crate::{format, help};

/// `cloze similar --model DIR --corpus FILE --query TEXT`
#[derive(Debug, clap::Args)]
#[command(
    after_help = help::examples(&EXAMPLES),
    after_long_help = help::details(
        "Every text of the corpus is compared with the query by their vectors, which are held in memory: four bytes times the \
         vectors' width for each text. Prompts and similarity are those of sentence-transformers' encode_query(), encode_document() \
         and similarity(). Make the vectors once with `cloze embed --out lines.npy` and the same --model, --pool and --layers, and \
         give them as --embeddings; of a model with a prompt for documents make them with --prompt-name document.",
        &EXAMPLES,
    )
)]
pub struct Arguments {
    #[command(flatten)]
    vectors: VectorArguments,

    #[command(flatten)]
    search: SearchArguments,

    /// Texts to search: a file of lines, .jsonl, .tsv, .csv or .parquet
    #[arg(long, value_name = "FILE")]
    corpus: PathBuf,

    /// Column of a .jsonl, .tsv, .csv or .parquet corpus [default: text]
    #[arg(long, value_name = "NAME")]
    column: Option<String>,

    /// How the corpus is written: lines, tsv, csv, jsonl, json, parquet [default: as its ending says, else as it begins]
    #[arg(long, hide_possible_values = true, value_name = "FORMAT", value_parser = crate::values::named(&FORMATS))]
    format: Option<Format>,

    /// The corpus's vectors, as `cloze embed` wrote them [default: they are computed]
    #[arg(long, value_name = "FILE.npy")]
    embeddings: Option<PathBuf>,

    /// Text to search for; may be given several times [default: the lines of standard input]
    #[arg(long = "query", value_name = "TEXT")]
    queries: Vec<String>,

    /// Texts to show for each query
    #[arg(long, default_value_t = 10, value_name = "N", value_parser = crate::values::items)]
    top: usize,

    /// Print one JSON object for each query
    #[arg(long)]
    json: bool,
}

/// Examples of the command, a line each.
const EXAMPLES: [&str; 2] = [
    "cloze similar --model all-MiniLM-L6-v2 --corpus lines.txt --query \"wings in wind\"",
    "cloze similar --model all-MiniLM-L6-v2 --corpus lines.txt --embeddings lines.npy --top 3 --json < queries.txt",
];

pub fn run(arguments: &Arguments, terminal: &Terminal) -> Result<()> {
    if arguments.corpus == Path::new("-") {
        return Err(usage("--corpus: expected a file; standard input is for queries"));
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
                    "{path} is taken as made with the document prompt (cloze embed --prompt {prompt:?})"
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
    tell_special_names(&embedder.model.tokenizer, terminal);
    done
}

fn answer_all(search: &Search<'_>) -> Result<()> {
    let Search { arguments, terminal, .. } = search;
    let mut unreadable = Failures::new(display_name(&arguments.corpus), "row", false);
    for (row, text) in (1..).zip(search.texts) {
        match &text.problem {
            None => unreadable.answered(),
            Some(problem) => unreadable.count(row, problem),
        }
    }
    if !arguments.queries.is_empty() {
        arguments.queries.iter().try_for_each(|query| search.answer(query))?;
        return unreadable.end("read; they are left out of the search");
    }
    if std::io::stdin().is_terminal() {
        terminal.note("reading queries from the terminal, one a line; end with Ctrl-D");
    }
    let mut queries = Failures::new(display_name(Path::new("-")), "line", false);
    let mut lines = Lines::open(Path::new("-"))?;
    while let Some(line) = next_line(&mut lines)? {
        let failed = match line {
            Ok(()) if lines.text().trim().is_empty() && !arguments.json => continue,
            Ok(()) if lines.text().trim().is_empty() => blank(),
            Ok(()) => {
                search.answer(lines.text())?;
                queries.answered();
                continue;
            }
            Err(error) => error,
        };
        write_failure(&mut queries, lines.number(), failed, arguments.json)?;
    }
    if queries.is_empty() {
        bail!("no query: give one with --query, or lines on standard input");
    }
    queries.end("answered")?;
    unreadable.end("read; they are left out of the search")
}

/// Vectors must be those of the corpus and of this model.
fn check(path: &Path, vectors: &Vectors, texts: usize, embedder: &Embedder) -> Result<()> {
    let (found, expected) = ((vectors.len(), vectors.width()), (texts, embedder.width()));
    if found != expected {
        bail!(
            "{}: expected {} vectors of {} numbers (the corpus's texts, the model's width), found {} of {}; make them with \
             `cloze embed` of this corpus and this model",
            path.display(),
            expected.0,
            expected.1,
            found.0,
            found.1
        );
    }
    if vectors.values().iter().any(|value| !value.is_finite()) {
        bail!("{}: its vectors are not finite numbers; make them again with `cloze embed`", path.display());
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
            self.terminal.warn(&format!("the query was longer than {max_len} tokens and was cut (see --max-len)"));
        }
        // A row of the corpus without a text has no vector.
        let is_text = |_, row: usize| self.texts.get(row).is_none_or(|text| text.problem.is_none());
        let hits = self.index.nearest(embedded.vectors, self.arguments.top, 1, is_text).into_iter().flatten();
        let found: Vec<(Hit, &Text)> = hits.filter_map(|hit| Some((hit, self.texts.get(hit.row)?))).collect();
        // Taken anew for each query: whoever reads a pipe gets each answer when it is there.
        let mut out = crate::output::results();
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
