//! `cloze convert`: converts another program's checkpoint to a model folder, or a model folder to ONNX.

use std::io::Write;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, anyhow, bail};
use cloze::onnx_embedding;
use cloze_convert::copy_modules;
use cloze_convert::onnx::{self, OnnxOptions, Quantization};
use cloze_engine::{DType, Device};
use cloze_hub::Contents;
use cloze_model::{Class, Layout, Model, PositionFill};
use cloze_tasks::embed::{Embedder, Options};
use cloze_text::Tokenizer;
use serde_json::json;

use super::model::{HubArguments, model_in};
use crate::failure::{check_out, usage};
use crate::format;
use crate::terminal::Terminal;

/// `cloze convert SOURCE --out DIR`
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Example:\n  cloze convert uncased_L-12_H-768_A-12/bert_model.ckpt --out bert-base",
    after_long_help = "SOURCE is one of:\n\n\
        - a Transformers folder of any version (model.safetensors or pytorch_model.bin, also sharded), or one of its files\n\
        - an original TensorFlow checkpoint: its folder, its .index file or its prefix\n\
        - the name of a model on the Hugging Face Hub (see `cloze fill --help`)\n\n\
        A sentence-transformers folder of any version, or the model folder in it, keeps its modules. Nothing in a file is \
        executed: a pickle that contains more than tensors is refused. --out is written only if the complete source can be \
        read.\n\nWith --positions, SOURCE is a model folder, and --out has a longer table of positions.\n\nWith --to onnx, SOURCE is a model folder, and --out receives model.onnx with config.json and the tokenizer's \
        files, in the layout of Optimum. The outputs depend on the model's heads. Those of a sentence-transformers folder are \
        last_hidden_state, the same as token_embeddings, and sentence_embedding: the vector of each text after pooling, modules and \
        truncation. The folder's modules are copied, so that SentenceTransformer(DIR, backend=\"onnx\") opens --out. Prompts and the \
        maximum length are the tokenizer's task.\n\n\
        --quantize int8 is dynamic: matrices are bytes with a scale for each output, tables of words and positions with a scale for each \
        row, and activations become bytes with one scale for the batch when the model runs. All operators are standard ONNX.\n\nExamples:\n  \
        cloze convert downloads/bert-base-uncased --out bert-base\n  \
        cloze convert uncased_L-12_H-768_A-12 --out bert-base\n  \
        cloze convert runs/sst2 --to onnx --out sst2-onnx\n  \
        cloze convert all-MiniLM-L6-v2 --to onnx --quantize int8 --out minilm-onnx"
)]
pub struct Arguments {
    /// What to convert: a folder, a file, a run's folder, or a name on the Hugging Face Hub
    #[arg(value_name = "SOURCE")]
    source: PathBuf,

    #[command(flatten)]
    hub: HubArguments,

    /// Output format
    #[arg(long, value_enum, default_value_t = To::Folder)]
    to: To,

    /// With --to onnx: store and multiply weights as bytes [default: f32]
    #[arg(long, value_name = "TYPE", value_parser = crate::values::named(&Quantization::ALL))]
    quantize: Option<Quantization>,

    /// Extend the model to texts of N tokens, for further training at this length
    #[arg(long, value_name = "N", value_parser = crate::values::positive)]
    positions: Option<usize>,

    /// How the rows of new positions are made
    #[arg(long, hide_short_help = true, requires = "positions", default_value = "copy", value_parser = crate::values::named(&PositionFill::ALL))]
    position_fill: PositionFill,

    /// The folder to write
    #[arg(long, value_name = "DIR")]
    out: PathBuf,

    /// Print the result as one JSON object
    #[arg(long)]
    json: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum To {
    /// A model folder for Transformers and cloze
    Folder,
    /// A model for onnxruntime
    Onnx,
}

pub fn run(arguments: &Arguments, terminal: &Terminal) -> Result<()> {
    if let Some(positions) = arguments.positions {
        if arguments.to != To::Folder {
            return Err(usage("--positions writes a model folder; omit --to, and convert that folder to ONNX"));
        }
        return extend(positions, arguments, terminal);
    }
    if arguments.quantize.is_some() && arguments.to != To::Onnx {
        return Err(usage("--quantize stores bytes in a graph; use it with --to onnx"));
    }
    let contents = match arguments.to {
        To::Folder => Contents::Source,
        To::Onnx => Contents::Vectors,
    };
    let source = arguments.hub.find_source(&arguments.source, contents, terminal)?;
    match arguments.to {
        To::Folder => to_folder(&source, arguments, terminal),
        To::Onnx => to_onnx(&source, arguments, terminal),
    }
}

/// Writes a model folder with more positions.
fn extend(positions: usize, arguments: &Arguments, terminal: &Terminal) -> Result<()> {
    let out = &arguments.out;
    let layout = Layout::of(&arguments.hub.find(&arguments.source, Contents::Vectors, terminal)?)?;
    check_out(out)?;
    let device = Device::cpu(terminal.threads)?;
    let model = Model::load(&layout.model, &device)?;
    let before = model.architecture().max_sequence_length();
    let model = model.with_positions(positions, arguments.position_fill, &device)?;
    let tokenizer = Tokenizer::open(&layout.model)?;
    cloze_files::write_folder(out, |dir| {
        model.save(dir)?;
        tokenizer.save_for(dir, model.architecture().max_sequence_length())?;
        copy_modules(&layout, dir)?;
        Ok::<(), anyhow::Error>(())
    })?;
    if !layout.modules.is_empty() {
        terminal.note("the folder's max_seq_length is unchanged; give --max-len to read longer texts");
    }
    let mut to = crate::output::stdout();
    if arguments.json {
        let line = json!({
            "source": format::path(&arguments.source), "out": format::path(out), "positions_before": before, "positions": positions,
            "parameters": model.parameter_count(),
        });
        writeln!(to, "{line}")?;
    } else {
        writeln!(to, "{}: {before} positions → {positions}, to be trained at this length", out.display())?;
    }
    Ok(())
}

fn to_folder(source: &Path, arguments: &Arguments, terminal: &Terminal) -> Result<()> {
    let device = Device::cpu(terminal.threads)?;
    let bar = terminal.progress("converting", None);
    let done = cloze_convert::convert(source, &arguments.out, &device, &mut |stage| bar.set(0, stage))?;
    bar.finish();
    done.tokenizer_notes.iter().for_each(|note| terminal.note(note));
    let mut out = crate::output::stdout();
    if arguments.json {
        let skipped: serde_json::Map<_, _> =
            done.skipped.groups().map(|(reason, names)| (reason.to_owned(), json!(names))).collect();
        let line = json!({
            "source": format::path(&arguments.source), "format": done.format.to_string(), "out": format::path(&arguments.out), "tensors": done.tensors,
            "parameters": done.parameters, "bytes": done.bytes, "architectures": done.architectures,
            "opened": done.opened, "tokenizer": done.tokenizer, "modules": done.modules, "left_aside": skipped,
        });
        writeln!(out, "{line}")?;
        return Ok(());
    }
    let architecture =
        if done.architectures.is_empty() { "unknown architecture".to_owned() } else { done.architectures.join(", ") };
    writeln!(
        out,
        "{}: {} parameters in {} tensors, {architecture}, in {}",
        done.format,
        format::count(done.parameters),
        done.tensors,
        arguments.out.display()
    )?;
    if !done.modules.is_empty() {
        writeln!(out, "with sentence-transformers' modules: {}", done.modules.join(", "))?;
    }
    for (reason, names) in done.skipped.groups() {
        let shown: Vec<&str> = names.iter().take(3).map(String::as_str).collect();
        let more = if names.len() > 3 { format!(" and {} more", names.len() - 3) } else { String::new() };
        writeln!(out, "not converted, {reason}: {}{more}", shown.join(", "))?;
    }
    if !done.tokenizer {
        terminal.warn("the source has no vocabulary; copy vocab.txt or tokenizer.json into the output folder");
    }
    Ok(())
}

fn to_onnx(source: &Path, arguments: &Arguments, terminal: &Terminal) -> Result<()> {
    let out = &arguments.out;
    let layout = Layout::of(source)?;
    // Other folders with modules.json are those of rerankers and of sparse models, whose outputs are those of their heads.
    let is_embedder = layout.modules.iter().any(|module| module.class() == Some("Pooling"));
    let folder = if is_embedder { layout.model.clone() } else { model_in(source)? };
    if !["model.safetensors", "model.safetensors.index.json"].iter().any(|file| folder.join(file).is_file()) {
        bail!(
            "{}: expected a model folder with model.safetensors; first convert it to one: cloze convert {} --out DIR",
            folder.display(),
            folder.display()
        );
    }
    check_out(out)?;
    if layout.modules.is_empty()
        && let Some(above) = Layout::above(source)
    {
        terminal.note(&format!(
            "{} is the model inside a sentence-transformers folder, whose pooling is not exported; to export it convert {}",
            source.display(),
            above.root.display()
        ));
    }
    let device = Device::cpu(terminal.threads)?;
    let source = match is_embedder {
        true => Exported::Embedder(Box::new(open_embedder(source, device, terminal)?)),
        false => Exported::Model(Box::new(Model::load(&folder, &device)?)),
    };
    let mut written = None;
    cloze_files::write_folder(out, |dir| {
        let path = dir.join("model.onnx");
        written = Some(match &source {
            Exported::Embedder(embedder) => {
                let mut options = OnnxOptions::new(Class::Encoder);
                options.quantization = arguments.quantize;
                onnx::write_embedding(&embedder.model.model, &onnx_embedding(embedder)?, &path, &options)?
            }
            Exported::Model(model) => {
                let mut options = OnnxOptions::new(model.class());
                options.quantization = arguments.quantize;
                onnx::write(model, &path, &options)?
            }
        });
        cloze_files::write(&dir.join("config.json"), source.model().config().to_json().as_bytes())?;
        copy_modules(&layout, dir)?;
        save_tokenizer(&folder, dir, terminal)
    })?;
    let report = written.context("nothing was written")?;
    let vector = match &source {
        Exported::Embedder(embedder) => Some((embedder.describe(), embedder.width())),
        Exported::Model(_) => None,
    };
    let mut to = crate::output::stdout();
    if arguments.json {
        let data = report.data.as_ref().map(|(path, bytes)| json!({"path": format::path(path), "bytes": bytes}));
        let mut line = json!({
            "source": format::path(&folder), "out": format::path(out), "inputs": report.inputs, "outputs": report.outputs,
            "bytes": report.bytes, "data": data, "quantized": arguments.quantize.map(quantization_name),
        });
        if let Some((pooling, width)) = vector {
            line["pooling"] = json!(pooling);
            line["width"] = json!(width);
        }
        writeln!(to, "{line}")?;
        return Ok(());
    }
    let data = report
        .data
        .as_ref()
        .map_or_else(String::new, |(path, bytes)| format!(" and {} in {}", format::bytes(*bytes), path.display()));
    let quantized = arguments.quantize.map_or_else(String::new, |how| format!(", as {}", quantization_name(how)));
    writeln!(
        to,
        "{} in {}{data}{quantized}; inputs {}; outputs {}",
        format::bytes(report.bytes),
        out.join("model.onnx").display(),
        report.inputs.join(", "),
        report.outputs.join(", ")
    )?;
    if let Some((pooling, width)) = vector {
        writeln!(to, "sentence_embedding: {width} numbers ({pooling})")?;
    }
    Ok(())
}

/// What is exported: an embedding model with its pooling, or a model with its heads.
enum Exported {
    Embedder(Box<Embedder>),
    Model(Box<Model>),
}

impl Exported {
    fn model(&self) -> &Model {
        match self {
            Exported::Embedder(embedder) => &embedder.model.model,
            Exported::Model(model) => model,
        }
    }
}

/// Opens a sentence-transformers folder, and shows its notes. Prompts are no part of the graph, so there is no note about them.
fn open_embedder(folder: &Path, device: Device, terminal: &Terminal) -> Result<Embedder> {
    let embedder = Embedder::open(folder, device, DType::F32, &Options::default()).map_err(|error| {
        // The libraries' advice is an option that this command does not have.
        let advice = "to export only the encoder, convert a copy of the folder without modules.json";
        let message = error.to_string();
        let replaced = ["set `pool` to choose a pooling", "set `pool` to choose one"]
            .iter()
            .fold(message.clone(), |message, option| message.replace(option, advice));
        if replaced == message { error.into() } else { anyhow!(replaced) }
    })?;
    embedder.notes.iter().for_each(|note| terminal.note(note));
    // Checked before anything is written.
    onnx_embedding(&embedder)?;
    Ok(embedder)
}

fn quantization_name(how: Quantization) -> &'static str {
    Quantization::ALL.iter().find(|(known, ..)| *known == how).map_or("", |(_, name, _)| name)
}

/// Saves the source's tokenizer into `out`, with a warning if it has none.
fn save_tokenizer(source: &Path, out: &Path, terminal: &Terminal) -> Result<()> {
    match Tokenizer::open(source) {
        Ok(tokenizer) => Ok(tokenizer.save(out)?),
        Err(error) => {
            terminal.warn(&format!("no tokenizer written: {error}"));
            Ok(())
        }
    }
}
