//! `cloze embed`: computes vectors of texts.

use std::collections::BTreeSet;
use std::io::Write;
use std::path::{Path, PathBuf};

use anyhow::{Result, bail};
use clap::builder::{PathBufValueParser, TypedValueParser};
use cloze_tasks::datasets::format::{FORMATS, Format, display_name};
use cloze_tasks::embed::prompts::{Prompt, Purpose};
use cloze_tasks::embed::search::Similarity;
use cloze_tasks::embed::texts::{Progress as ReadProgress, Text, Texts};
use cloze_tasks::embed::vectors::{
    self, Precision as Quantization, QuantizedWriter, Ranges, StoredMatrix, Vectors, Writer, ranges_path,
};
use cloze_tasks::embed::{Embedder, Options, PoolChoice, Source, Summary};
use cloze_tasks::inference::Precision;
use cloze_tasks::{Long, TaskError};
use serde_json::{Value, json};

use super::failures::Failures;
use super::model::ModelArguments;
use super::precision::resolve;
use super::tokenizer::{SpecialTokensArgument, note_special_names, show_notes};
use crate::failure::usage;
use crate::terminal::{Progress, Terminal};
use crate::{format, help};

/// `cloze embed --model DIR --input FILE --out FILE`
#[derive(Debug, clap::Args)]
#[command(
    after_help = help::examples(&EXAMPLES[..2]),
    after_long_help = help::details(
        "A plain file has one text per line; blank lines count, so that row i is line i. In tables and JSON the text is in a column \
         (--column). The input format is given by --format, otherwise by the file extension, otherwise by the file's first lines. \
         A row whose text cannot be read gets a vector of zeros, and the exit code is 1. Row i of the output is the vector of \
         text i.\n\n\
         The vectors equal those of sentence-transformers' encode(). A sentence-transformers folder sets pooling, modules, \
         maximum length and prompts; for other models the vector is the mean of the last layer (--pool, --layers). For the \
         documents of `cloze similar` use the folder's document prompt: --prompt-name document.\n\n\
         Texts with more than --max-len tokens are truncated, as sentence-transformers does. With --long mean or max they are read in windows \
         of --max-len tokens, each with its prompt, [CLS] and [SEP]; the pooled vectors of the windows are averaged, weighted by their numbers \
         of tokens of the text, or maximised, before the folder's modules. Windows do not overlap unless --stride says so.\n\n\
         .npy          a matrix of f32: numpy.load\n\
         .safetensors  one tensor, \"embeddings\", [texts, width], f32\n\
         .jsonl        {\"text\": …, \"embedding\": […]} per line\n\n\
         --dimensions keeps the first numbers of each vector, as truncate_dim does, for models trained with a Matryoshka loss. --quantize \
         stores bytes or bits as quantize_embeddings does, in .npy or .safetensors. Bytes need the range of each dimension: that of the \
         vectors in --calibrate, else of the written vectors, which are then kept in a temporary file until the last is known. The ranges \
         are written too: as the tensor \"ranges\" or, for x.npy, as x.ranges.npy.",
        &EXAMPLES,
    )
)]
pub struct Arguments {
    #[command(flatten)]
    vectors: VectorArguments,

    #[command(flatten)]
    shortening: ShorteningArguments,

    /// Prompt put before each text; "" for none [default: the model's default prompt]
    #[arg(long, value_name = "TEXT")]
    prompt: Option<String>,

    /// Name of the model's prompt to put before each text
    #[arg(long, value_name = "NAME", conflicts_with = "prompt")]
    prompt_name: Option<String>,

    /// Texts: a file with one text per line, .jsonl, .tsv, .csv or .parquet; - for standard input
    #[arg(long, value_name = "FILE")]
    input: PathBuf,

    /// Text column of a .jsonl, .tsv, .csv or .parquet file: a name, or a number such as #2 [default: text]
    #[arg(long, value_name = "NAME")]
    column: Option<String>,

    /// Input format: lines, tsv, csv, jsonl, json, parquet [default: from the extension, else from the first lines]
    #[arg(long, hide_possible_values = true, value_name = "FORMAT", value_parser = crate::values::named(&FORMATS))]
    format: Option<Format>,

    /// Stop at the first row without a text instead of writing a vector of zeros
    #[arg(long)]
    strict: bool,

    /// Output file: .npy, .safetensors or .jsonl; an existing file is replaced
    #[arg(long, value_name = "FILE", value_parser = PathBufValueParser::new().try_map(vector_file))]
    out: PathBuf,

    /// Store each number as a byte or a bit [default: f32]
    #[arg(long, value_name = "TYPE", value_parser = crate::values::named(&Quantization::ALL))]
    quantize: Option<Quantization>,

    /// Vectors in f32 that give the ranges for int8 and uint8: .npy or .safetensors [default: the written vectors]
    #[arg(long, value_name = "FILE", requires = "quantize")]
    calibrate: Option<PathBuf>,

    /// Print the result as one JSON object
    #[arg(long)]
    json: bool,
}

/// Examples for the help, one per line.
const EXAMPLES: [&str; 5] = [
    "cloze embed --model all-MiniLM-L6-v2 --input lines.txt --out lines.npy",
    "cloze embed --model runs/mini --pool last4 --input rows.jsonl --column title --out rows.safetensors",
    "zcat lines.gz | cloze embed --model runs/mini --input - --layers 0,-1 --normalize --out lines.jsonl",
    "cloze embed --model nomic-ai/modernbert-embed-base --input lines.txt --dimensions 256 --normalize --quantize int8 --out lines.npy",
    "cloze embed --model all-MiniLM-L6-v2 --input articles.jsonl --long mean --out articles.npy",
];

/// Options of all commands that compute vectors.
#[derive(Debug, clap::Args)]
pub struct VectorArguments {
    #[command(flatten)]
    model: ModelArguments,

    /// How the token vectors of a text are pooled
    #[arg(long, default_value = "auto", value_parser = crate::values::named(&PoolChoice::ALL))]
    pool: PoolChoice,

    /// Hidden states to concatenate: 0 embeddings, 1 first layer, -1 last layer [default: -1]
    #[arg(long, value_name = "LIST", value_delimiter = ',', allow_hyphen_values = true)]
    layers: Vec<i64>,

    /// Normalize each final vector to length 1
    #[arg(long)]
    normalize: bool,

    /// Maximum number of tokens of a text, with prompt, [CLS] and [SEP]; see --long [default: the model's]
    #[arg(long, value_name = "N", value_parser = crate::values::positive)]
    max_len: Option<usize>,

    /// How longer texts are read
    #[arg(long, value_name = "HOW", default_value = "truncate", value_parser = crate::values::named(&Long::ALL))]
    long: Long,

    /// With --long mean or max, windows start every N tokens of the text [default: they do not overlap]
    #[arg(long, value_name = "N", hide_short_help = true, value_parser = crate::values::positive)]
    stride: Option<usize>,

    #[command(flatten)]
    special_tokens: SpecialTokensArgument,

    /// Number format of the matrix products; bf16 and int8 are faster on most CPUs, and change the third or second digit
    #[arg(long, default_value = "f32", value_parser = crate::values::named(&Precision::ALL))]
    precision: Precision,
}

/// The option that shortens vectors, for commands that write or search them.
#[derive(Debug, Clone, Copy, Default, clap::Args)]
pub struct ShorteningArguments {
    /// Keep only the first N numbers of each vector; --normalize then applies to what is kept
    #[arg(long, value_name = "N", value_parser = crate::values::positive)]
    dimensions: Option<usize>,
}

/// Options of commands that search: prompts and similarity.
#[derive(Debug, clap::Args)]
pub struct SearchArguments {
    /// Prompt put before each query; "" for none [default: the model's prompt "query"]
    #[arg(long, value_name = "TEXT")]
    query_prompt: Option<String>,

    /// Name of the model's prompt to put before each query
    #[arg(long, value_name = "NAME", conflicts_with = "query_prompt")]
    query_prompt_name: Option<String>,

    /// Prompt put before each document; "" for none [default: the model's prompt "document"]
    #[arg(long, value_name = "TEXT")]
    document_prompt: Option<String>,

    /// Name of the model's prompt to put before each document
    #[arg(long, value_name = "NAME", conflicts_with = "document_prompt")]
    document_prompt_name: Option<String>,

    /// Similarity of vectors [default: the model's, else cosine]
    #[arg(long, value_parser = crate::values::named(&Similarity::ALL))]
    similarity: Option<Similarity>,
}

/// The prompt of a pair of options, given as a text or by name.
pub fn prompt(text: Option<&String>, name: Option<&String>) -> Prompt {
    match (text, name) {
        (Some(text), _) => Prompt::Text(text.clone()),
        (None, Some(name)) => Prompt::Named(name.clone()),
        (None, None) => Prompt::Auto,
    }
}

impl VectorArguments {
    /// Opens the model for plain texts (neither queries nor documents).
    fn open_for_texts(&self, text: Prompt, kept: ShorteningArguments, terminal: &Terminal) -> Result<Embedder> {
        let mut options = Options::default();
        options.prompts.text = text;
        self.open(options, &[Purpose::Text], kept, terminal)
    }

    /// Opens the model to compare plain texts.
    pub fn open_to_compare(
        &self,
        text: Prompt,
        similarity: Option<Similarity>,
        terminal: &Terminal,
    ) -> Result<Embedder> {
        let mut options = Options::default();
        options.prompts.text = text;
        options.similarity = similarity;
        self.open(options, &[Purpose::Text], ShorteningArguments::default(), terminal)
    }

    /// Vectors truncated to their first dimensions, normalized again if the option says so.
    pub fn truncated(&self, vectors: &Vectors, dimensions: usize) -> Vectors {
        let truncated = vectors.truncated(dimensions);
        if self.normalize { truncated.normalized() } else { truncated }
    }

    /// Opens the model for search.
    pub fn open_to_search(
        &self,
        search: &SearchArguments,
        kept: ShorteningArguments,
        terminal: &Terminal,
    ) -> Result<Embedder> {
        let query = prompt(search.query_prompt.as_ref(), search.query_prompt_name.as_ref());
        let document = prompt(search.document_prompt.as_ref(), search.document_prompt_name.as_ref());
        let mut options = Options::default();
        options.prompts.query = query;
        options.prompts.document = document;
        options.similarity = search.similarity;
        let embedder = self.open(options, &[Purpose::Query, Purpose::Document], kept, terminal)?;
        let (compared, source) =
            (embedder.similarity, if search.similarity.is_some() { "--similarity" } else { "set by the model" });
        match compared {
            Similarity::Cosine => terminal.detail("vectors are compared by cosine"),
            _ => terminal.note(&format!("vectors are compared by {compared} ({source})")),
        }
        Ok(embedder)
    }

    fn open(
        &self,
        mut options: Options,
        purposes: &[Purpose],
        kept: ShorteningArguments,
        terminal: &Terminal,
    ) -> Result<Embedder> {
        if self.stride.is_some() && !self.long.reads_windows() {
            return Err(usage("--stride: has an effect only with --long mean or --long max, which read windows"));
        }
        options.long = self.long;
        options.stride = self.stride;
        options.pool = self.pool;
        options.layers = self.layers.clone();
        options.dimensions = kept.dimensions;
        options.normalize = self.normalize;
        options.max_len = self.max_len;
        options.special_tokens = self.special_tokens.given();
        let model = self.model.find_with_pooling(terminal)?;
        let device = terminal.open_device()?;
        let precision = resolve(self.precision, &device, terminal);
        let embedder = Embedder::open(&model, device, precision, &options)?;
        let of_prompts = purposes.iter().filter_map(|&purpose| embedder.prompt_note(purpose));
        embedder.notes.iter().map(String::as_str).chain(of_prompts).for_each(|note| terminal.note(note));
        show_notes(&embedder.model.tokenizer, terminal);
        let source = match (self.pool, embedder.source) {
            (PoolChoice::Auto, Source::Folder) => "set by the model's sentence-transformers files",
            (PoolChoice::Auto, Source::Default) => {
                "the default for a model without pooling settings; see --pool and --layers"
            }
            _ => "set by options",
        };
        let lengths: BTreeSet<usize> = purposes.iter().map(|&purpose| embedder.max_len(purpose)).collect();
        let lengths: Vec<String> = lengths.iter().map(usize::to_string).collect();
        let (vectors, lengths) = (embedder.describe(), lengths.join(" or "));
        let longer = if self.long.reads_windows() {
            format!(", longer ones in windows ({})", self.long.name())
        } else {
            String::new()
        };
        terminal.detail(&format!("vectors: {vectors} ({source}); texts of at most {lengths} tokens{longer}"));
        Ok(embedder)
    }

    /// The model's entries in a JSON result.
    fn describe(&self, embedder: &Embedder) -> Value {
        json!({
            "model": format::path(&self.model.named),
            "pooling": embedder.describe(),
            "width": embedder.width(),
            "long": embedder.long().name(),
            "stride": self.stride,
        })
    }

    /// The entries in a JSON result for plain texts.
    pub fn describe_texts(&self, embedder: &Embedder) -> Value {
        let mut value = self.describe(embedder);
        value["max_len"] = json!(embedder.max_len(Purpose::Text));
        value["prompt"] = json!(embedder.prompt(Purpose::Text));
        value
    }

    /// The entries in a JSON result for queries and documents.
    pub fn describe_search(&self, embedder: &Embedder) -> Value {
        let mut value = self.describe(embedder);
        // A second number only if queries and documents have different limits.
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
        None => Err("expected a file name that ends in .npy, .safetensors or .jsonl".to_owned()),
    }
}

/// The output file.
enum Output {
    Plain(Writer),
    Quantized(QuantizedWriter),
}

impl Output {
    fn create(arguments: &Arguments, width: usize) -> Result<Output> {
        let path = &arguments.out;
        let Some(precision) = arguments.quantize else { return Ok(Output::Plain(Writer::create(path, width)?)) };
        let ranges = arguments.calibrate.as_ref().map(|path| calibration(path, width)).transpose()?;
        Ok(Output::Quantized(QuantizedWriter::create(path, width, precision, ranges)?))
    }

    fn push(&mut self, texts: &[Text], vectors: &Vectors) -> Result<(), TaskError> {
        match self {
            Output::Plain(writer) => writer.push(texts, vectors),
            Output::Quantized(writer) => writer.push(vectors),
        }
    }

    fn finish(self) -> Result<(), TaskError> {
        match self {
            Output::Plain(writer) => writer.finish(),
            Output::Quantized(writer) => writer.finish().map(|_| ()),
        }
    }
}

/// The ranges of the vectors in a file.
fn calibration(path: &Path, width: usize) -> Result<Ranges> {
    let matrix = StoredMatrix::open(path)?;
    if matrix.columns() != width {
        let found = matrix.columns();
        bail!("{}: expected vectors of {width} numbers, as those to write, found {found}", path.display());
    }
    Ok(Ranges::of_matrix(&matrix)?)
}

/// Checks the options for quantized vectors.
fn check_quantization(arguments: &Arguments) -> Result<()> {
    let Some(precision) = arguments.quantize else { return Ok(()) };
    if vectors::Format::of(&arguments.out) == Some(vectors::Format::Jsonl) {
        return Err(usage("--out: expected .npy or .safetensors for quantized vectors, found .jsonl"));
    }
    if precision.is_binary() && arguments.calibrate.is_some() {
        return Err(usage("--calibrate: bits need no ranges; use it with --quantize int8 or uint8"));
    }
    Ok(())
}

/// Fewer vectors than this give uncertain ranges, according to sentence-transformers.
const FEW_TO_CALIBRATE: usize = 100;

pub fn run(arguments: &Arguments, terminal: &Terminal) -> Result<()> {
    check_quantization(arguments)?;
    let texts = Texts::open(&arguments.input, arguments.column.as_deref(), arguments.format)?;
    texts.note().iter().for_each(|note| terminal.note(note));
    let given = prompt(arguments.prompt.as_ref(), arguments.prompt_name.as_ref());
    let embedder = arguments.vectors.open_for_texts(given, arguments.shortening, terminal)?;
    let mut writer = Output::create(arguments, embedder.width())?;
    let reading = texts.progress();
    let bar = start_bar(&reading, terminal);
    let mut progress = |done| show_progress(&bar, &reading, done);
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
        let vectors = zero_unreadable(&texts, vectors);
        for text in &texts {
            rows += 1;
            match &text.problem {
                None => failures.add_success(),
                Some(problem) => failures.add_unreadable(rows, problem),
            }
        }
        writer.push(&texts, &vectors)
    })?;
    writer.finish()?;
    let seconds = bar.seconds();
    bar.finish();
    warn_about_texts(&summary, &embedder, Purpose::Text, terminal);
    note_special_names(&embedder.model.tokenizer, terminal);
    let has_ranges = arguments.quantize.is_some_and(|precision| !precision.is_binary());
    if has_ranges && arguments.calibrate.is_none() && summary.texts < FEW_TO_CALIBRATE {
        let texts = summary.texts;
        terminal.note(&format!(
            "the ranges of the dimensions are those of only {texts} vectors; --calibrate takes them from more"
        ));
    }
    let mut out = crate::output::stdout();
    if arguments.json {
        let mut line = arguments.vectors.describe_texts(&embedder);
        line["out"] = json!(format::path(&arguments.out));
        line["texts"] = json!(summary.texts);
        line["cut"] = json!(summary.cut);
        line["windowed"] = json!(summary.windowed);
        line["windows"] = json!(summary.windows);
        line["blank"] = json!(summary.blank);
        line["quantized"] = json!(arguments.quantize.map(Quantization::name));
        if has_ranges && vectors::Format::of(&arguments.out) == Some(vectors::Format::Npy) {
            line["ranges"] = json!(format::path(&ranges_path(&arguments.out)));
        }
        line["seconds"] = json!(seconds);
        line["peak_rss_bytes"] = json!(cloze_files::machine::peak_memory());
        writeln!(out, "{line}")?;
    } else {
        writeln!(
            out,
            "{}: {} vectors of {} numbers ({}{}; {})",
            arguments.out.display(),
            format::count(summary.texts as u64),
            embedder.width(),
            embedder.describe(),
            arguments.quantize.map(|precision| format!(", as {}", precision.name())).unwrap_or_default(),
            format::duration(seconds),
        )?;
    }
    failures.finish("read; their vectors are zeros")
}

/// Sets the vectors of unreadable texts to zero.
fn zero_unreadable(texts: &[Text], vectors: Vectors) -> Vectors {
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

/// A progress bar, with the remaining time if the size of the input is known.
fn start_bar(reading: &ReadProgress, terminal: &Terminal) -> Progress {
    if reading.is_bounded() { terminal.progress_fraction("embedding") } else { terminal.progress("embedding", None) }
}

/// Shows how many of the texts are done.
fn show_progress(bar: &Progress, reading: &ReadProgress, done: usize) {
    let rate = done as f64 / bar.seconds().max(1e-9);
    let parts = [format!("{} texts", format::count(done as u64)), format!("{}/s", format::short(rate))];
    match reading.share(done) {
        Some(share) => bar.set_fraction_parts(share, &parts),
        None => bar.set_parts(done as u64, &parts),
    }
}

/// Warns about truncated and blank texts, and reports those read in windows.
pub fn warn_about_texts(summary: &Summary, embedder: &Embedder, purpose: Purpose, terminal: &Terminal) {
    let total = format::count(summary.texts as u64);
    let (cut, max_len) = (format::count(summary.cut as u64), embedder.max_len(purpose));
    match embedder.long() {
        _ if summary.cut == 0 => {}
        Long::First => terminal.note(&format!(
            "{cut} of {total} texts were longer than {max_len} tokens; only their first window was read (--long first)"
        )),
        _ => terminal.warn(&format!(
            "{cut} of {total} texts were longer than {max_len} tokens and were truncated (see --max-len and --long)"
        )),
    }
    if summary.windowed > 0 {
        let [windowed, windows] = [summary.windowed, summary.windows].map(|number| format::count(number as u64));
        let long = embedder.long().name();
        terminal.note(&format!(
            "{windowed} of {total} texts were longer than {max_len} tokens and were read in {windows} windows (--long {long})"
        ));
    }
    if summary.blank > 0 {
        terminal.warn(&format!(
            "{} of {total} texts are blank; their vectors are meaningless",
            format::count(summary.blank as u64)
        ));
    }
}

/// Reads the documents of a file and computes their vectors, all in memory.
pub fn embed_file(embedder: &Embedder, texts: Texts, terminal: &Terminal) -> Result<(Vec<Text>, Vectors)> {
    let reading = texts.progress();
    let bar = start_bar(&reading, terminal);
    let (mut all, mut vectors) = (Vec::new(), Vectors::new(embedder.width(), Vec::new()));
    let mut progress = |done| show_progress(&bar, &reading, done);
    let summary = embedder.embed_stream(texts, Purpose::Document, &mut progress, |texts, more| {
        all.extend(texts);
        vectors.append(more);
        Ok(())
    })?;
    bar.finish();
    warn_about_texts(&summary, embedder, Purpose::Document, terminal);
    Ok((all, vectors))
}
