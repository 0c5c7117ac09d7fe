//! `cloze embed`: texts → vectors.

use std::io::Write;
use std::path::PathBuf;

use anyhow::Result;
use clap::builder::{PathBufValueParser, TypedValueParser};
use cloze_engine::Device;
use cloze_tasks::embed::pooling::Pool;
use cloze_tasks::embed::texts::{Reading, Text, Texts};
use cloze_tasks::embed::vectors::{Format, Vectors, Writer};
use cloze_tasks::embed::{Embedder, Options, PoolChoice, Source, Summary};
use serde_json::{Value, json};

use super::model::ModelArguments;
use super::precision::Type;
use crate::terminal::{Progress, Terminal};
use crate::{format, help};

/// `cloze embed --model DIR --input FILE --out FILE`
#[derive(Debug, clap::Args)]
#[command(
    after_help = help::examples(&EXAMPLES[..2]),
    after_long_help = help::details(
        "A plain file holds one text a line, blank lines too, so that row i is line i. Of other files a column is taken. Row i of the \
         output belongs to text i whatever batches are made. How a text becomes a vector follows a sentence-transformers folder; of \
         another model the mean of the last layer's tokens is taken (--pool, --layers).\n\n\
         .npy          a matrix of f32: numpy.load\n\
         .safetensors  one tensor, \"embeddings\", [texts, width], f32\n\
         .jsonl        {\"text\": …, \"embedding\": […]} a line",
        &EXAMPLES,
    )
)]
pub struct Arguments {
    #[command(flatten)]
    vectors: VectorArguments,

    /// Texts: a file of lines, .jsonl, .tsv, .csv or .parquet; - for standard input
    #[arg(long, value_name = "FILE")]
    input: PathBuf,

    /// Column of a .jsonl, .tsv, .csv or .parquet file: a name or a number as #2 [default: text]
    #[arg(long, value_name = "NAME")]
    column: Option<String>,

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
    #[arg(long, value_enum, default_value_t = PoolName::Auto)]
    pool: PoolName,

    /// Hidden states to take, side by side: 0 is the embeddings', 1 the first layer's, -1 the last's [default: -1]
    #[arg(long, value_name = "LIST", value_delimiter = ',', allow_hyphen_values = true)]
    layers: Vec<i64>,

    /// Divide each vector by its length
    #[arg(long)]
    normalize: bool,

    /// Tokens of a text at most, [CLS] and [SEP] included; the rest is cut [default: the model's, else 512]
    #[arg(long, value_name = "N", value_parser = crate::values::positive)]
    max_len: Option<usize>,

    /// Type of the activations; bf16 is faster where the CPU has products for it, and changes the third digit
    #[arg(long, value_enum, default_value_t = Type::F32)]
    precision: Type,
}

/// A pooling as the command line names it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum PoolName {
    /// What a sentence-transformers folder says, else the mean
    Auto,
    /// The first token, [CLS]
    Cls,
    /// The mean of all tokens, [CLS] and [SEP] included
    Mean,
    /// The sum of all tokens over the square root of their number
    MeanSqrtLen,
    /// The largest of each number over all tokens
    Max,
    /// The mean of the last four hidden states side by side: four times as wide
    Last4,
    /// The pooler's output
    Pooler,
}

impl From<PoolName> for PoolChoice {
    fn from(name: PoolName) -> PoolChoice {
        match name {
            PoolName::Auto => PoolChoice::Auto,
            PoolName::Cls => PoolChoice::Of(Pool::Cls),
            PoolName::Mean => PoolChoice::Of(Pool::Mean),
            PoolName::MeanSqrtLen => PoolChoice::Of(Pool::MeanSqrtLen),
            PoolName::Max => PoolChoice::Of(Pool::Max),
            PoolName::Last4 => PoolChoice::Last4,
            PoolName::Pooler => PoolChoice::Of(Pool::Pooler),
        }
    }
}

impl VectorArguments {
    /// Opens the model.
    pub fn open(&self, terminal: &Terminal) -> Result<Embedder> {
        let options = Options {
            pool: self.pool.into(),
            layers: self.layers.clone(),
            normalize: self.normalize,
            max_len: self.max_len,
        };
        let model = self.model.find_with_pooling(terminal)?;
        let device = Device::cpu(terminal.threads)?;
        let precision = self.precision.settle(&device, terminal).dtype(&device);
        let embedder = Embedder::open(&model, device, precision, &options)?;
        embedder.notes.iter().for_each(|note| terminal.note(note));
        let source = match (self.pool, embedder.source) {
            (PoolName::Auto, Source::Folder) => "as the model's sentence-transformers files say",
            (PoolName::Auto, Source::Usual) => "the usual for a model that does not say; see --pool and --layers",
            _ => "as asked",
        };
        let (pooling, max_len) = (&embedder.pooling, embedder.max_len);
        terminal.detail(&format!("vectors: {pooling} ({source}); texts of at most {max_len} tokens"));
        Ok(embedder)
    }

    /// What a result says of the vectors it is from.
    pub fn describe(&self, embedder: &Embedder) -> Value {
        json!({
            "model": format::path(&self.model.named),
            "pooling": embedder.pooling.to_string(),
            "max_len": embedder.max_len,
            "width": embedder.width(),
        })
    }
}

fn vector_file(path: PathBuf) -> Result<PathBuf, String> {
    match Format::of(&path) {
        Some(_) => Ok(path),
        None => Err("expected a name in .npy, .safetensors or .jsonl".to_owned()),
    }
}

pub fn run(arguments: &Arguments, terminal: &Terminal) -> Result<()> {
    let texts = Texts::open(&arguments.input, arguments.column.as_deref())?;
    let embedder = arguments.vectors.open(terminal)?;
    let mut writer = Writer::create(&arguments.out, embedder.width())?;
    let reading = texts.reading();
    let bar = start(&reading, terminal);
    let summary = embedder
        .embed_stream(texts, &mut |done| show(&bar, &reading, done), |texts, vectors| writer.push(&texts, &vectors))?;
    writer.finish()?;
    let seconds = bar.seconds();
    bar.finish();
    warn(&summary, &embedder, terminal);
    let mut out = crate::output::results();
    if arguments.json {
        let mut line = arguments.vectors.describe(&embedder);
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
            embedder.pooling,
            format::duration(seconds),
        )?;
    }
    Ok(())
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
pub fn warn(summary: &Summary, embedder: &Embedder, terminal: &Terminal) {
    let of = format::count(summary.texts as u64);
    if summary.cut > 0 {
        let (cut, max_len) = (format::count(summary.cut as u64), embedder.max_len);
        terminal.warn(&format!("{cut} of {of} texts were longer than {max_len} tokens and were cut (see --max-len)"));
    }
    if summary.blank > 0 {
        terminal.warn(&format!(
            "{} of {of} texts are blank; their vectors say nothing",
            format::count(summary.blank as u64)
        ));
    }
}

/// The texts of a file and their vectors, all in memory.
pub fn embed_file(embedder: &Embedder, texts: Texts, terminal: &Terminal) -> Result<(Vec<Text>, Vectors)> {
    let reading = texts.reading();
    let bar = start(&reading, terminal);
    let (mut all, mut vectors) = (Vec::new(), Vectors::new(embedder.width(), Vec::new()));
    let summary = embedder.embed_stream(texts, &mut |done| show(&bar, &reading, done), |texts, more| {
        all.extend(texts);
        vectors.append(more);
        Ok(())
    })?;
    bar.finish();
    warn(&summary, embedder, terminal);
    Ok((all, vectors))
}
