//! `cloze convert`: another program's checkpoint → a model folder; a model folder → ONNX.

use std::io::Write;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use cloze_convert::onnx::{self, OnnxOptions};
use cloze_engine::Device;
use cloze_hub::Contents;
use cloze_model::Model;
use cloze_text::Tokenizer;
use serde_json::json;

use super::model::{HubArguments, model_in};
use crate::failure::check_out;
use crate::format;
use crate::terminal::Terminal;

/// `cloze convert SOURCE --out DIR`
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Example:\n  cloze convert uncased_L-12_H-768_A-12/bert_model.ckpt --out bert-base",
    after_long_help = "SOURCE is a Transformers folder (model.safetensors or pytorch_model.bin, sharded too, of any age), one of its \
        files, an original TensorFlow checkpoint (its folder, its .index file or its prefix), or a model's name on the Hugging Face Hub \
        (see `cloze fill --help`). A sentence-transformers folder of any age, or the model in it, keeps its modules. Nothing in a file is run: a pickle \
        that asks for more than tensors is refused. Nothing is written under --out unless all of it could be read.\n\nWith --to onnx \
        SOURCE is a model folder, and --out receives model.onnx with config.json and the tokenizer's files, as Optimum lays them \
        out; what the model computes follows from its heads.\n\nExamples:\n  \
        cloze convert downloads/bert-base-uncased --out bert-base\n  \
        cloze convert uncased_L-12_H-768_A-12 --out bert-base\n  \
        cloze convert runs/sst2 --to onnx --out sst2-onnx"
)]
pub struct Arguments {
    /// What to convert: a folder, a file, a run's folder, or a name on the Hugging Face Hub
    #[arg(value_name = "SOURCE")]
    source: PathBuf,

    #[command(flatten)]
    hub: HubArguments,

    /// What to write
    #[arg(long, value_enum, default_value_t = To::Folder)]
    to: To,

    /// The folder to write
    #[arg(long, value_name = "DIR")]
    out: PathBuf,

    /// Print what was done as one JSON object
    #[arg(long)]
    json: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum To {
    /// A model folder as Transformers and cloze open it
    Folder,
    /// A model for onnxruntime
    Onnx,
}

pub fn run(arguments: &Arguments, terminal: &Terminal) -> Result<()> {
    let wanted = match arguments.to {
        To::Folder => Contents::Source,
        To::Onnx => Contents::Model,
    };
    let source = arguments.hub.find_source(&arguments.source, wanted, terminal)?;
    match arguments.to {
        To::Folder => to_folder(&source, arguments, terminal),
        To::Onnx => to_onnx(&model_in(&source)?, arguments, terminal),
    }
}

fn to_folder(source: &Path, arguments: &Arguments, terminal: &Terminal) -> Result<()> {
    let device = Device::cpu(terminal.threads)?;
    let bar = terminal.progress("converting", None);
    let done = cloze_convert::convert(source, &arguments.out, &device, &mut |stage| bar.set(0, stage))?;
    bar.finish();
    done.tokenizer_notes.iter().for_each(|note| terminal.note(note));
    let mut out = crate::output::results();
    if arguments.json {
        let aside: serde_json::Map<_, _> =
            done.skipped.groups().map(|(reason, names)| (reason.to_owned(), json!(names))).collect();
        let line = json!({
            "source": format::path(&arguments.source), "format": done.format.to_string(), "out": format::path(&arguments.out), "tensors": done.tensors,
            "parameters": done.parameters, "bytes": done.bytes, "architectures": done.architectures,
            "opened": done.opened, "tokenizer": done.tokenizer, "modules": done.modules, "left_aside": aside,
        });
        writeln!(out, "{line}")?;
        return Ok(());
    }
    let architecture =
        if done.architectures.is_empty() { "no architecture named".to_owned() } else { done.architectures.join(", ") };
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
        writeln!(out, "left aside, {reason}: {}{more}", shown.join(", "))?;
    }
    if !done.tokenizer {
        terminal.warn("no vocabulary lies beside the source: put vocab.txt or tokenizer.json into the folder");
    }
    Ok(())
}

fn to_onnx(source: &Path, arguments: &Arguments, terminal: &Terminal) -> Result<()> {
    let out = &arguments.out;
    if !["model.safetensors", "model.safetensors.index.json"].iter().any(|file| source.join(file).is_file()) {
        bail!(
            "{}: expected a model folder with model.safetensors; convert it to one first: cloze convert {} --out DIR",
            source.display(),
            source.display()
        );
    }
    check_out(out)?;
    let model = Model::load(source, &Device::cpu(terminal.threads)?)?;
    let mut written = None;
    cloze_files::write_folder(out, |aside| {
        written = Some(onnx::write(&model, &aside.join("model.onnx"), &OnnxOptions::new(model.class()))?);
        cloze_files::write(&aside.join("config.json"), model.config().to_json().as_bytes())?;
        save_tokenizer(source, aside, terminal)
    })?;
    let report = written.context("nothing was written")?;
    let mut to = crate::output::results();
    if arguments.json {
        let data = report.data.as_ref().map(|(path, bytes)| json!({"path": format::path(path), "bytes": bytes}));
        let line = json!({"source": format::path(source), "out": format::path(out), "outputs": report.outputs, "bytes": report.bytes, "data": data});
        writeln!(to, "{line}")?;
        return Ok(());
    }
    let data = report
        .data
        .as_ref()
        .map_or_else(String::new, |(path, bytes)| format!(" and {} in {}", format::bytes(*bytes), path.display()));
    writeln!(
        to,
        "{} in {}{data}; inputs input_ids, attention_mask, token_type_ids; outputs {}",
        format::bytes(report.bytes),
        out.join("model.onnx").display(),
        report.outputs.join(", ")
    )?;
    Ok(())
}

/// The tokenizer's files beside the model, if the source has any.
fn save_tokenizer(source: &Path, out: &Path, terminal: &Terminal) -> Result<()> {
    match Tokenizer::open(source) {
        Ok(tokenizer) => Ok(tokenizer.save(out)?),
        Err(error) => {
            terminal.warn(&format!("no tokenizer written: {error}"));
            Ok(())
        }
    }
}
