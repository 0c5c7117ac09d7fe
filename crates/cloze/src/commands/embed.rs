//! `cloze embed`: texts → vectors.

use std::collections::BTreeSet;
use std::io::Write;
use std::path::PathBuf;

use anyhow::Result;
use clap::builder::{PathBufValueParser, TypedValueParser};
use cloze_engine::Device;
use cloze_tasks::TaskError;
use cloze_tasks::datasets::format::{FORMATS, Format, display_name};
use cloze_tasks::embed::prompts::{Prompt, Purpose};
use cloze_tasks::embed::search::Similarity;
use cloze_tasks::embed::texts::{Reading, Text, Texts};
use cloze_tasks::embed::vectors::{self, Vectors, Writer};
use cloze_tasks::embed::{Embedder, Options, PoolChoice, Source, Summary};
use cloze_train::recipe::Precision;
use serde_json::{Value, json};

use super::failures::Failures;
use super::model::ModelArguments;
use super::precision::settle;
use super::tokenizer::{SpecialTokensArgument, tell_notes, tell_special_names};
use crate::terminal::{Progress, Terminal};
use crate::{format, help};

/// `cloze embed --model DIR --input FILE --out FILE`
#[derive(Debug, clap::Args)]
#[command(
    after_help = help::examples(&EXAMPLES[..2]),
    after_long_help = help::details(
        "A plain file holds one text a line, blank lines too, so that row i is line i. Of tables and JSON a column is taken (--column). \
         --format says how the input is written, else its ending, else its beginning. A row whose text cannot be read has a vector of \
         zeros, and the command ends with exit code 1. Row i of the \
         output belongs to text i whatever batches are made. Vectors are those of sentence-transformers' encode(): a sentence-transformers \
         folder says how texts are pooled, changed by modules, cut, and put after a prompt; of another model the mean of the last \
         layer's tokens is taken (--pool, --layers). The vectors that `cloze similar` takes for documents have the folder's document \
         prompt: --prompt-name document.\n\n\
         .npy          a matrix of f32: numpy.load\n\
         .safetensors  one tensor, \"embeddings\", [texts, width], f32\n\
         .jsonl        {\"text\": …, \"embedding\": […]} a line",
        &EXAMPLES,
    )
)]
pub struct Arguments {
    #[command(flatten)]
    vectors: VectorArguments,

    /// Put this before each text; "" for nothing [default: the model's default prompt]
    #[arg(long, value_name = "TEXT")]
    prompt: Option<String>,

    /// Put the model's prompt of this name before each text
    #[arg(long, value_name = "NAME", conflicts_with = "prompt")]
    prompt_name: Option<String>,

    /// Texts: a file of lines, .jsonl, .tsv, .csv or .parquet; - for standard input
    #[arg(long, value_name = "FILE")]
    input: PathBuf,

    /// Column of a .jsonl, .tsv, .csv or .parquet file: a name or a number as #2 [default: text]
    #[arg(long, value_name = "NAME")]
    column: Option<String>,

    /// How the input is written: lines, tsv, csv, jsonl, json, parquet [default: as its ending says, else as it begins]
    #[arg(long, hide_possible_values = true, value_name = "FORMAT", value_parser = crate::values::named(&FORMATS))]
    format: Option<Format>,

    /// Stop at the first row without a text, instead of giving it a vector of zeros
    #[arg(long)]
    strict: bool,

    /// Where to: .npy, .safetensors or .jsonl; replaced if it is there
    #[arg(long, value_name = "FILE", value_parser = PathBufValueParser::new().try_map(vector_file))]
    out: PathBuf,

    /// Print what was done as one JSON object
    #[arg(long)]
    json: bool,
}

/// Examples of the command, a line each.
const EXAMPLES: [&str; 3] = [
    "cloze embed --model all-MiniLM-L6-v2 --input lines.txt --out lines.npy",
    "cloze embed --model runs/mini --pool last4 --input rows.jsonl --column title --out rows.safetensors",
    "zcat lines.gz | cloze embed --model runs/mini --input - --layers 0,-1 --normalize --out lines.jsonl",
];

/// How a model turns texts into vectors: the options of all commands that do.
#[derive(Debug, clap::Args)]
pub struct VectorArguments {
    #[command(flatten)]
    model: ModelArguments,

    /// How a text's tokens become one vector
    #[arg(long, default_value = "auto", value_parser = crate::values::named(&PoolChoice::ALL))]
    pool: PoolChoice,

    /// Hidden states to take, side by side: 0 is the embeddings', 1 the first layer's, -1 the last's [default: -1]
    #[arg(long, value_name = "LIST", value_delimiter = ',', allow_hyphen_values = true)]
    layers: Vec<i64>,

    /// Divide each vector by its length, after everything else
    #[arg(long)]
    normalize: bool,

    /// Tokens of a text at most, prompt, [CLS] and [SEP] included; the rest is cut [default: the model's]
    #[arg(long, value_name = "N", value_parser = crate::values::positive)]
    max_len: Option<usize>,

    #[command(flatten)]
    special_tokens: SpecialTokensArgument,

    /// Type of the activations; bf16 is faster where the CPU has products for it, and changes the third digit
    #[arg(long, default_value = "f32", value_parser = crate::values::named(&Precision::ALL))]
    precision: Precision,
}

/// What is put before queries and documents, and how their vectors are compared: the options of commands that search.
#[derive(Debug, clap::Args)]
pub struct SearchArguments {
    /// Put this before each query; "" for nothing [default: the model's prompt "query"]
    #[arg(long, value_name = "TEXT")]
    query_prompt: Option<String>,

    /// Put the model's prompt of this name before each query
    #[arg(long, value_name = "NAME", conflicts_with = "query_prompt")]
    query_prompt_name: Option<String>,

    /// Put this before each document; "" for nothing [default: the model's prompt "document"]
    #[arg(long, value_name = "TEXT")]
    document_prompt: Option<String>,

    /// Put the model's prompt of this name before each document
    #[arg(long, value_name = "NAME", conflicts_with = "document_prompt")]
    document_prompt_name: Option<String>,

    /// How vectors are compared [default: as the model says, else cosine]
    #[arg(long, value_parser = crate::values::named(&Similarity::ALL))]
    similarity: Option<Similarity>,
}

/// A prompt as it was given, as a text or by name.
fn prompt(text: Option<&String>, name: Option<&String>) -> Prompt {
    match (text, name) {
        (Some(text), _) => Prompt::Text(text.clone()),
        (None, Some(name)) => Prompt::Named(name.clone()),
        (None, None) => Prompt::Auto,
    }
}

impl VectorArguments {
    /// Opens the model for texts that are neither queries nor documents.
    fn open_for_texts(&self, text: Prompt, terminal: &Terminal) -> Result<Embedder> {
        let mut options = Options::default();
        options.prompts.text = text;
        self.open(options, &[Purpose::Text], terminal)
    }

    /// Opens the model to search.
    pub fn open_to_search(&self, search: &SearchArguments, terminal: &Terminal) -> Result<Embedder> {
        let query = prompt(search.query_prompt.as_ref(), search.query_prompt_name.as_ref());
        let document = prompt(search.document_prompt.as_ref(), search.document_prompt_name.as_ref());
        let mut options = Options::default();
        options.prompts.query = query;
        options.prompts.document = document;
        options.similarity = search.similarity;
        let embedder = self.open(options, &[Purpose::Query, Purpose::Document], terminal)?;
        let (compared, source) =
            (embedder.similarity, if search.similarity.is_some() { "as asked" } else { "as the model says" });
        match compared {
            Similarity::Cosine => terminal.detail("vectors are compared by cosine"),
            _ => terminal.note(&format!("vectors are compared by {compared} ({source})")),
        }
        Ok(embedder)
    }

    fn open(&self, mut options: Options, purposes: &[Purpose], terminal: &Terminal) -> Result<Embedder> {
        options.pool = self.pool;
        options.layers = self.layers.clone();
        options.normalize = self.normalize;
        options.max_len = self.max_len;
        options.special_tokens = self.special_tokens.given();
        let model = self.model.find_with_pooling(terminal)?;
        let device = Device::cpu(terminal.threads)?;
        let precision = settle(self.precision, &device, terminal).dtype(&device);
        let embedder = Embedder::open(&model, device, precision, &options)?;
        let of_prompts = purposes.iter().filter_map(|&purpose| embedder.prompt_note(purpose));
        embedder.notes.iter().map(String::as_str).chain(of_prompts).for_each(|note| terminal.note(note));
        tell_notes(&embedder.model.tokenizer, terminal);
        let source = match (self.pool, embedder.source) {
            (PoolChoice::Auto, Source::Folder) => "as the model's sentence-transformers files say",
            (PoolChoice::Auto, Source::Default) => "the usual for a model that does not say; see --pool and --layers",
            _ => "as asked",
        };
        let lengths: BTreeSet<usize> = purposes.iter().map(|&purpose| embedder.max_len(purpose)).collect();
        let lengths: Vec<String> = lengths.iter().map(usize::to_string).collect();
        let (vectors, lengths) = (embedder.describe(), lengths.join(" or "));
        terminal.detail(&format!("vectors: {vectors} ({source}); texts of at most {lengths} tokens"));
        Ok(embedder)
    }

    /// What a result says of the vectors it is from.
    fn describe(&self, embedder: &Embedder) -> Value {
        json!({
            "model": format::path(&self.model.named),
            "pooling": embedder.describe(),
            "width": embedder.width(),
        })
    }

    /// What a result says of the vectors of texts that are neither queries nor documents.
    fn describe_texts(&self, embedder: &Embedder) -> Value {
        let mut value = self.describe(embedder);
        value["max_len"] = json!(embedder.max_len(Purpose::Text));
        value["prompt"] = json!(embedder.prompt(Purpose::Text));
        value
    }

    /// What a result says of the vectors of queries and documents.
    pub fn describe_search(&self, embedder: &Embedder) -> Value {
        let mut value = self.describe(embedder);
        // One number as long as queries and documents have the same.
        value["max_len"] = json!(embedder.max_len(Purpose::Document));
        if embedder.max_len(Purpose::Query) != embedder.max_len(Purpose::Document) {
            value["query_max_len"] = json!(embedder.max_len(Purpose::Query));
        }
        value["query_prompt"] = json!(embedder.prompt(Purpose::Query));
        value["document_prompt"] = json!(embedder.prompt(Purpose::Document));
        value["similarity"] = json!(embedder.similarity);
        value
    }
}

fn vector_file(path: PathBuf) -> Result<PathBuf, String> {
    match vectors::Format::of(&path) {
        Some(_) => Ok(path),
        None => Err("expected a name in .npy, .safetensors or .jsonl".to_owned()),
    }
}

pub fn run(arguments: &Arguments, terminal: &Terminal) -> Result<()> {
    let texts = Texts::open(&arguments.input, arguments.column.as_deref(), arguments.format)?;
    texts.note().iter().for_each(|note| terminal.note(note));
    let given = prompt(arguments.prompt.as_ref(), arguments.prompt_name.as_ref());
    let embedder = arguments.vectors.open_for_texts(given, terminal)?;
    let mut writer = Writer::create(&arguments.out, embedder.width())?;
    let reading = texts.progress();
    let bar = start(&reading, terminal);
    let mut progress = |done| show(&bar, &reading, done);
    let mut failures = Failures::new(display_name(&arguments.input), "row", arguments.strict);
    let mut rows = 0;
    let texts = texts.map(|text| match text? {
        Text { line, problem: Some(problem), .. } if arguments.strict => {
            let name = display_name(&arguments.input);
            let problem = problem.strip_prefix(&format!("{name}:{line}: ")).unwrap_or(&problem).to_owned();
            Err(TaskError::Line { path: name.into(), line, problem })
        }
        text => Ok(text),
    });
    let summary = embedder.embed_stream(texts, Purpose::Text, &mut progress, |texts, vectors| {
        let vectors = without_unreadable(&texts, vectors);
        for text in &texts {
            rows += 1;
            match &text.problem {
                None => failures.answered(),
                Some(problem) => failures.count(rows, problem),
            }
        }
        writer.push(&texts, &vectors)
    })?;
    writer.finish()?;
    let seconds = bar.seconds();
    bar.finish();
    warn(&summary, &embedder, Purpose::Text, terminal);
    tell_special_names(&embedder.model.tokenizer, terminal);
    let mut out = crate::output::results();
    if arguments.json {
        let mut line = arguments.vectors.describe_texts(&embedder);
        line["out"] = json!(format::path(&arguments.out));
        line["texts"] = json!(summary.texts);
        line["cut"] = json!(summary.cut);
        line["blank"] = json!(summary.blank);
        line["seconds"] = json!(seconds);
        line["peak_rss_bytes"] = json!(format::peak_memory());
        writeln!(out, "{line}")?;
    } else {
        writeln!(
            out,
            "{}: {} vectors of {} numbers ({}; {})",
            arguments.out.display(),
            format::count(summary.texts as u64),
            embedder.width(),
            embedder.describe(),
            format::duration(seconds),
        )?;
    }
    failures.end("read; their vectors are zeros")
}

/// Vectors, those of texts that cannot be read as zeros.
fn without_unreadable(texts: &[Text], vectors: Vectors) -> Vectors {
    if texts.iter().all(|text| text.problem.is_none()) {
        return vectors;
    }
    let width = vectors.width();
    let mut values = vectors.values().to_vec();
    for (text, row) in texts.iter().zip(values.chunks_exact_mut(width)) {
        if text.problem.is_some() {
            row.fill(0.0);
        }
    }
    Vectors::new(width, values)
}

/// A bar with the time left where it is known how much there is to read.
fn start(reading: &Reading, terminal: &Terminal) -> Progress {
    if reading.is_bounded() { terminal.progress_share("embedding") } else { terminal.progress("embedding", None) }
}

/// Tells a bar how many of the texts that are being read are done.
fn show(bar: &Progress, reading: &Reading, done: usize) {
    let rate = done as f64 / bar.seconds().max(1e-9);
    let parts = [format!("{} texts", format::count(done as u64)), format!("{}/s", format::short(rate))];
    match reading.share(done) {
        Some(share) => bar.set_share_parts(share, &parts),
        None => bar.set_parts(done as u64, &parts),
    }
}

/// Says which texts lost something, if any.
pub fn warn(summary: &Summary, embedder: &Embedder, purpose: Purpose, terminal: &Terminal) {
    let of = format::count(summary.texts as u64);
    if summary.cut > 0 {
        let (cut, max_len) = (format::count(summary.cut as u64), embedder.max_len(purpose));
        terminal.warn(&format!("{cut} of {of} texts were longer than {max_len} tokens and were cut (see --max-len)"));
    }
    if summary.blank > 0 {
        terminal.warn(&format!(
            "{} of {of} texts are blank; their vectors say nothing",
            format::count(summary.blank as u64)
        ));
    }
}

/// The documents of a file and their vectors, all in memory.
pub fn embed_file(embedder: &Embedder, texts: Texts, terminal: &Terminal) -> Result<(Vec<Text>, Vectors)> {
    let reading = texts.progress();
    let bar = start(&reading, terminal);
    let (mut all, mut vectors) = (Vec::new(), Vectors::new(embedder.width(), Vec::new()));
    let mut progress = |done| show(&bar, &reading, done);
    let summary = embedder.embed_stream(texts, Purpose::Document, &mut progress, |texts, more| {
        all.extend(texts);
        vectors.append(more);
        Ok(())
    })?;
    bar.finish();
    warn(&summary, embedder, Purpose::Document, terminal);
    Ok((all, vectors))
}
