//! `cloze rerank`: orders documents by their relevance to queries, with a cross-encoder.

use std::io::{IsTerminal, Write};
use std::path::{Path, PathBuf};

use anyhow::{Result, bail};
use cloze_tasks::TaskError;
use cloze_tasks::datasets::format::{FORMATS, Format, display_name};
use cloze_tasks::embed::modules::Activation;
use cloze_tasks::embed::texts::{Text, Texts};
use cloze_tasks::inference::Precision;
use cloze_tasks::input::{Object, object_of_line};
use cloze_tasks::lines::Lines;
use cloze_tasks::rerank::{CrossEncoder, Options, Scored, order};
use serde_json::{Value, json};

use super::embed::prompt;
use super::failures::{Failures, blank_line_error, next_line, write_failure};
use super::model::ModelArguments;
use super::precision::resolve;
use super::tokenizer::{SpecialTokensArgument, note_special_names, show_notes};
use crate::failure::usage;
use crate::terminal::Terminal;
use crate::{format, help};

/// `cloze rerank --model DIR --query TEXT --documents FILE`
#[derive(Debug, clap::Args)]
#[command(
    after_help = help::examples(&EXAMPLES[..2]),
    after_long_help = help::details(
        "A cross-encoder reads a query together with a document. It is slower than comparing vectors, and more accurate: use it for \
         the first documents of a search. Scores and order are those of sentence-transformers' CrossEncoder: the folder's activation \
         function is applied to the model's output, and the sigmoid if it names none. A pair that is too long is truncated at the \
         end of the longer text, and counted in a warning.\n\n\
         With --input, each line has the documents of its own query: the output of `cloze similar --json`, or\n\n\
         {\"query\": \"…\", \"documents\": [\"…\", \"…\"]}\n\n\
         A document can also be an object with the key text; its other keys are kept.",
        &EXAMPLES,
    )
)]
pub struct Arguments {
    #[command(flatten)]
    encoder: CrossEncoderArguments,

    /// Query; can be repeated [default: the lines of standard input]
    #[arg(long = "query", value_name = "TEXT", conflicts_with_all = ["queries", "input"])]
    query: Vec<String>,

    /// Queries: a file with one text per line, .jsonl, .tsv, .csv or .parquet
    #[arg(long, value_name = "FILE", conflicts_with = "input")]
    queries: Option<PathBuf>,

    /// Documents to order for each query: files with one text per line, .jsonl, .tsv, .csv or .parquet
    #[arg(long, value_name = "FILE", num_args = 1.., conflicts_with = "input")]
    documents: Vec<PathBuf>,

    /// Text column of .jsonl, .tsv, .csv or .parquet documents: a name, or a number such as #2 [default: text]
    #[arg(long, value_name = "NAME", conflicts_with = "input")]
    column: Option<String>,

    /// Text column of the file of queries [default: text]
    #[arg(long, value_name = "NAME", requires = "queries")]
    query_column: Option<String>,

    /// Format of the documents: lines, tsv, csv, jsonl, json, parquet [default: from the extension, else from the first
    /// lines]
    #[arg(long, hide_possible_values = true, value_name = "FORMAT", value_parser = crate::values::named(&FORMATS), conflicts_with = "input")]
    format: Option<Format>,

    /// JSON lines of queries, each with its own documents; - for standard input
    #[arg(long, value_name = "FILE.jsonl")]
    input: Option<PathBuf>,

    /// Documents to show for each query [default: all]
    #[arg(long, value_name = "N", value_parser = crate::values::items)]
    top: Option<usize>,

    /// Print one JSON object for each query
    #[arg(long)]
    json: bool,
}

/// Examples for the help, one per line.
const EXAMPLES: [&str; 3] = [
    "cloze rerank --model cross-encoder/ms-marco-MiniLM-L6-v2 --query \"wings in wind\" --documents lines.txt",
    "cloze similar --model all-MiniLM-L6-v2 --corpus lines.txt --top 100 --json < queries.txt \
     | cloze rerank --model runs/reranker --input - --top 10 --json",
    "cloze rerank --model runs/reranker --queries queries.tsv --documents a.jsonl b.jsonl --column body --json",
];

/// Options of all commands that use a cross-encoder.
#[derive(Debug, clap::Args)]
pub struct CrossEncoderArguments {
    #[command(flatten)]
    pub model: ModelArguments,

    /// Maximum number of tokens of a query and a document, with special tokens; longer ones are truncated [default: the
    /// model's]
    #[arg(long, value_name = "N", value_parser = crate::values::positive)]
    max_len: Option<usize>,

    /// Prompt put before each query; "" for none [default: the model's default prompt]
    #[arg(long, value_name = "TEXT", hide_short_help = true)]
    prompt: Option<String>,

    /// Name of the model's prompt to put before each query
    #[arg(long, value_name = "NAME", conflicts_with = "prompt", hide_short_help = true)]
    prompt_name: Option<String>,

    /// Give the model's outputs as scores, without the activation function
    #[arg(long)]
    logits: bool,

    #[command(flatten)]
    special_tokens: SpecialTokensArgument,

    /// Number format of the matrix products; bf16 and int8 are faster on most CPUs, and change the third or second digit
    #[arg(long, default_value = "f32", value_parser = crate::values::named(&Precision::ALL))]
    precision: Precision,
}

impl CrossEncoderArguments {
    /// Opens the model, which must have one output.
    pub fn open(&self, terminal: &Terminal) -> Result<CrossEncoder> {
        let model = self.model.find_with_pooling(terminal)?;
        let device = terminal.open_device()?;
        let precision = resolve(self.precision, &device, terminal);
        let mut options = Options::default();
        options.max_len = self.max_len;
        options.prompt = prompt(self.prompt.as_ref(), self.prompt_name.as_ref());
        options.activation = self.logits.then_some(Activation::Identity);
        options.special_tokens = self.special_tokens.given();
        let encoder = CrossEncoder::open(&model, device, precision, &options)?;
        encoder.check_scores()?;
        encoder.notes.iter().for_each(|note| terminal.note(note));
        show_notes(&encoder.model.tokenizer, terminal);
        let (activation, max_len) = (encoder.activation.name(), encoder.max_len());
        terminal.detail(&format!("scores: {activation} of the output; pairs of at most {max_len} tokens"));
        Ok(encoder)
    }

    /// The model's entries in a JSON result.
    pub fn describe(&self, encoder: &CrossEncoder) -> Value {
        json!({
            "model": format::path(&self.model.named),
            "activation": encoder.activation.name(),
            "max_len": encoder.max_len(),
            "prompt": encoder.prompt(),
        })
    }
}

/// Warns about truncated pairs.
pub fn warn_about_pairs(cut: usize, pairs: usize, encoder: &CrossEncoder, terminal: &Terminal) {
    if cut > 0 {
        let (cut, pairs) = (format::count(cut as u64), format::count(pairs as u64));
        terminal.warn(&format!(
            "{cut} of {pairs} pairs were longer than {} tokens and were truncated (see --max-len)",
            encoder.max_len()
        ));
    }
}

/// A document to rank.
struct Candidate {
    text: String,
    /// The line or the place in the list, as it is shown.
    place: String,
    /// The entries in a JSON result besides score and text.
    entries: Object,
}

pub fn run(arguments: &Arguments, terminal: &Terminal) -> Result<()> {
    if arguments.documents.is_empty() && arguments.input.is_none() {
        return Err(usage("give the documents with --documents, or lines with queries and documents with --input"));
    }
    let stdin = Path::new("-");
    if arguments.documents.iter().any(|path| path == stdin) || arguments.queries.as_deref() == Some(stdin) {
        return Err(usage(
            "--documents, --queries: expected files; standard input is for lines of queries or for --input -",
        ));
    }
    let mut ranker = Ranker { arguments, terminal, encoder: None, cut: 0, pairs: 0 };
    let done = match &arguments.input {
        Some(input) => ranker.rank_lines(input),
        None => ranker.rank_documents(),
    };
    if let Some(encoder) = &ranker.encoder {
        warn_about_pairs(ranker.cut, ranker.pairs, encoder, terminal);
        note_special_names(&encoder.model.tokenizer, terminal);
    }
    done
}

struct Ranker<'a> {
    arguments: &'a Arguments,
    terminal: &'a Terminal,
    /// Opened after the files, whose errors are found sooner.
    encoder: Option<CrossEncoder>,
    /// The number of truncated pairs.
    cut: usize,
    /// The number of pairs.
    pairs: usize,
}

impl Ranker<'_> {
    /// Ranks the same documents for each query.
    fn rank_documents(&mut self) -> Result<()> {
        let Arguments { query, queries, documents, column, format, query_column, .. } = self.arguments;
        let mut unreadable = Vec::new();
        let mut candidates = Vec::new();
        for path in documents {
            let texts = Texts::open(path, column.as_deref(), *format)?;
            texts.note().iter().for_each(|note| self.terminal.note(note));
            let (own, failures) = self.read(path, texts, documents.len() > 1)?;
            candidates.extend(own);
            unreadable.push(failures);
        }
        if candidates.is_empty() {
            bail!("{}: expected at least one document, found only blank lines", display_name(&documents[0]));
        }
        let given: Vec<String> = match queries {
            Some(path) => {
                let texts = Texts::open(path, query_column.as_deref(), None)?;
                texts.note().iter().for_each(|note| self.terminal.note(note));
                let (queries, failures) = self.read(path, texts, false)?;
                unreadable.push(failures);
                if queries.is_empty() {
                    bail!("{}: expected at least one query, found only blank lines", display_name(path));
                }
                queries.into_iter().map(|query| query.text).collect()
            }
            None => query.clone(),
        };
        if given.iter().any(|query| query.trim().is_empty()) {
            return Err(usage("--query: expected a text, found only white space"));
        }
        self.encoder = Some(self.arguments.encoder.open(self.terminal)?);
        if given.is_empty() && queries.is_none() {
            self.rank_for_stdin(&candidates)?;
        } else {
            given.iter().try_for_each(|query| self.answer(query, &candidates))?;
        }
        unreadable.into_iter().try_for_each(|failures| failures.finish("read; they are left out"))
    }

    /// The texts of a file that are not blank, and the rows that cannot be read.
    fn read(&self, path: &Path, texts: Texts, names_file: bool) -> Result<(Vec<Candidate>, Failures)> {
        let mut failures = Failures::new(display_name(path), "row", false);
        let (mut candidates, mut blank) = (Vec::new(), 0u64);
        for (row, text) in (1..).zip(texts) {
            let Text { line, text, problem } = text?;
            match problem {
                Some(problem) => failures.add_unreadable(row, &problem),
                None if text.trim().is_empty() => blank += 1,
                None => {
                    failures.add_success();
                    let mut entries = Object::new();
                    let mut place = format::count(line as u64);
                    if names_file {
                        entries.insert("file".to_owned(), json!(format::path(path)));
                        place = format!("{}:{line}", path.display());
                    }
                    entries.insert("line".to_owned(), json!(line));
                    candidates.push(Candidate { text, place, entries });
                }
            }
        }
        if blank > 0 && !candidates.is_empty() {
            self.terminal.warn(&format!("{}: blank texts, left out: {}", display_name(path), format::count(blank)));
        }
        Ok((candidates, failures))
    }

    /// Ranks the documents for each line of standard input.
    fn rank_for_stdin(&mut self, candidates: &[Candidate]) -> Result<()> {
        if std::io::stdin().is_terminal() {
            self.terminal.note("reading queries from the terminal, one per line; end with Ctrl-D");
        }
        self.rank_each_line(
            Path::new("-"),
            "no query; give one with --query, or lines on standard input",
            |ranker, line| {
                if line.trim().is_empty() {
                    return if ranker.arguments.json { Ok(Some(blank_line_error())) } else { Ok(None) };
                }
                ranker.answer(line, candidates)?;
                Ok(None)
            },
        )
    }

    /// Ranks the documents of each line of JSON.
    fn rank_lines(&mut self, input: &Path) -> Result<()> {
        // The model is opened only if the input can be.
        if input != Path::new("-") {
            Lines::open(input)?;
        }
        self.encoder = Some(self.arguments.encoder.open(self.terminal)?);
        let none = format!("{}: expected lines with a query and its documents, found none", display_name(input));
        self.rank_each_line(input, &none, |ranker, line| {
            if line.trim().is_empty() {
                return Ok(None);
            }
            match query_and_documents(line) {
                Ok((query, candidates)) => ranker.answer(&query, &candidates).map(|()| None),
                Err(error) => Ok(Some(error)),
            }
        })
    }

    /// Handles each line of a file. `answer` returns the error of a line that cannot be used; an error that it fails
    /// with ends the command.
    fn rank_each_line(
        &mut self,
        input: &Path,
        none: &str,
        mut answer: impl FnMut(&mut Self, &str) -> Result<Option<TaskError>>,
    ) -> Result<()> {
        let mut failures = Failures::new(display_name(input), "line", false);
        let mut lines = Lines::open(input)?;
        while let Some(line) = next_line(&mut lines)? {
            let failed = match line {
                Ok(()) => answer(self, lines.text())?,
                Err(error) => Some(error),
            };
            match failed {
                Some(error) => write_failure(&mut failures, lines.number(), error, self.arguments.json)?,
                None if lines.text().trim().is_empty() => {}
                None => failures.add_success(),
            }
        }
        if failures.is_empty() {
            bail!("{none}");
        }
        failures.finish("answered")
    }

    fn answer(&mut self, query: &str, candidates: &[Candidate]) -> Result<()> {
        let Some(encoder) = &self.encoder else { bail!("the model is not open") };
        let pairs: Vec<(&str, &str)> = candidates.iter().map(|candidate| (query, candidate.text.as_str())).collect();
        let bar = self.terminal.progress_fraction("reranking");
        let scored = encoder.scores(&pairs, &mut |fraction| bar.set_fraction(fraction, "documents"));
        bar.finish();
        let Scored { scores, cut, .. } = scored?;
        self.cut += cut;
        self.pairs += pairs.len();
        let best = order(&scores).into_iter().take(self.arguments.top.unwrap_or(usize::MAX));
        // Locked for each query and flushed, so that the reader of a pipe gets each result at once.
        let mut out = crate::output::stdout();
        if self.arguments.json {
            let one = |row: usize| {
                let Candidate { text, entries, .. } = &candidates[row];
                let mut object = entries.clone();
                object.insert("score".to_owned(), json!(scores[row]));
                object.insert("text".to_owned(), json!(text));
                Value::Object(object)
            };
            let results: Vec<Value> = best.map(one).collect();
            writeln!(out, "{}", json!({"query": query, "results": results}))?;
        } else {
            writeln!(out, "{}", self.terminal.bold(query))?;
            for row in best {
                let Candidate { text, place, .. } = &candidates[row];
                writeln!(out, "  {:>8.4}  {place:>8}  {text}", scores[row])?;
            }
        }
        out.flush()?;
        Ok(())
    }
}

/// The query and the documents of a line: `documents`, or the `results` of `cloze similar`.
fn query_and_documents(line: &str) -> Result<(String, Vec<Candidate>), TaskError> {
    let wrong = |what: &str, problem: String| TaskError::Input { what: what.to_owned(), problem };
    let Value::Object(mut object) = object_of_line(line)? else {
        return Err(wrong("line", "expected a JSON object".to_owned()));
    };
    let query = match object.remove("query") {
        Some(Value::String(query)) if !query.trim().is_empty() => query,
        Some(Value::String(_)) => return Err(wrong("\"query\"", "expected a text, found only white space".to_owned())),
        Some(other) => return Err(wrong("\"query\"", format!("expected a string, found {other}"))),
        None => return Err(wrong("\"query\"", "missing".to_owned())),
    };
    let found = ["documents", "results"].into_iter().find_map(|key| Some((key, object.remove(key)?)));
    let (key, documents) = match found {
        Some((key, Value::Array(documents))) => (key, documents),
        Some((key, other)) => return Err(wrong(&format!("\"{key}\""), format!("expected a list, found {other}"))),
        None => return Err(wrong("\"documents\"", "missing; expected a list of documents".to_owned())),
    };
    let candidate = |(index, document): (usize, Value)| {
        let (text, mut entries) = match document {
            Value::String(text) => (Some(Value::String(text)), Object::new()),
            Value::Object(mut entries) => (entries.remove("text"), entries),
            other => (Some(other), Object::new()),
        };
        match text {
            Some(Value::String(text)) if !text.trim().is_empty() => {
                let place = entries.get("line").unwrap_or(&json!(index)).to_string();
                // The place in the list, as `corpus_id` in sentence-transformers.
                entries.insert("index".to_owned(), json!(index));
                Ok(Candidate { text, place, entries })
            }
            other => {
                let found = other.map_or("none".to_owned(), |other| other.to_string());
                Err(wrong(&format!("\"{key}\""), format!("expected a text in document {index}, found {found}")))
            }
        }
    };
    let candidates: Vec<Candidate> = documents.into_iter().enumerate().map(candidate).collect::<Result<_, _>>()?;
    if candidates.is_empty() {
        return Err(wrong(&format!("\"{key}\""), "expected at least one document, found none".to_owned()));
    }
    Ok((query, candidates))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_have_documents_or_results() {
        let read = |line: &str| {
            query_and_documents(line).map(|(query, candidates)| {
                let shown = |one: Candidate| format!("{} {} {}", one.text, one.place, Value::Object(one.entries));
                (query, candidates.into_iter().map(shown).collect::<Vec<_>>())
            })
        };
        let found = read(r#"{"query": "q", "documents": ["a", {"text": "b", "id": 7}]}"#).unwrap();
        let expected = [r#"a 0 {"index":0}"#, r#"b 1 {"id":7,"index":1}"#].map(str::to_owned);
        assert_eq!(found, ("q".to_owned(), expected.to_vec()));
        let similar = r#"{"query": "q", "similarity": "cosine", "results": [{"score": 0.5, "line": 3, "text": "a"}]}"#;
        assert_eq!(read(similar).unwrap().1, [r#"a 3 {"index":0,"line":3,"score":0.5}"#]);
        for (line, part) in [
            ("q", "not JSON"),
            (r#"{"documents": ["a"]}"#, "\"query\": missing"),
            (r#"{"query": " ", "documents": ["a"]}"#, "only white space"),
            (r#"{"query": "q"}"#, "\"documents\": missing"),
            (r#"{"query": "q", "documents": []}"#, "at least one document"),
            (r#"{"query": "q", "documents": "a"}"#, "expected a list"),
            (r#"{"query": "q", "documents": ["a", ""]}"#, "a text in document 1"),
            (r#"{"query": "q", "results": [{"line": 1}]}"#, "found none"),
        ] {
            let error = read(line).unwrap_err().to_string();
            assert!(error.contains(part), "{line}: {error}");
        }
    }
}
