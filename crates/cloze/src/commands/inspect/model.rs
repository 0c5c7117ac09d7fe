//! Shows a model folder or checkpoint: sizes, labels, tokenizer, parameters.

use std::io::Write;
use std::path::Path;

use anyhow::Result;
use cloze_model::{Config, Layout, stored_tensors};
use cloze_text::{TextError, Tokenizer};
use serde_json::{Value, json};

use super::arguments::Arguments;
use super::tokenizer::{as_json, casing, details};
use crate::commands::tokenizer::show_notes;
use crate::format;
use crate::terminal::Terminal;

pub(super) fn show(dir: &Path, arguments: &Arguments, terminal: &Terminal) -> Result<()> {
    let layout = Layout::of(dir)?;
    let modules: Vec<&str> = layout.modules.iter().map(|module| module.class().unwrap_or(&module.kind)).collect();
    let dir = layout.model.as_path();
    let config = Config::read(&dir.join("config.json"))?;
    let tensors = stored_tensors(dir)?;
    let parameters: usize = tensors.iter().map(|tensor| tensor.shape.iter().product::<usize>()).sum();
    let tokenizer = Tokenizer::open(dir);
    let kind = if dir.join("training_state.json").exists() { "checkpoint" } else { "model" };
    let class = config.architectures.as_deref().unwrap_or_default().join(", ");
    let bytes = super::arguments::folder_bytes(dir);

    let mut out = crate::output::stdout();
    if arguments.json {
        let head = json!({
            "kind": kind,
            "path": format::path(dir),
            "architectures": config.architectures,
            "parameters": parameters,
            "bytes": bytes,
            "modules": modules,
            "config": config,
            "tokenizer": match &tokenizer {
                Ok(tokenizer) => as_json(tokenizer),
                Err(TextError::NoTokenizer { .. }) => Value::Null,
                Err(error) => json!({"error": error.to_string()}),
            },
        });
        writeln!(out, "{head}")?;
        for tensor in &tensors {
            let count: usize = tensor.shape.iter().product();
            let line = json!({
                "kind": "tensor", "name": tensor.name, "shape": tensor.shape, "dtype": tensor.dtype, "parameters": count,
            });
            writeln!(out, "{line}")?;
        }
        return Ok(());
    }
    writeln!(out, "{} {}", terminal.bold(kind), dir.display())?;
    writeln!(out, "  class          {}", if class.is_empty() { "unknown" } else { &class })?;
    if let Some(labels) = config.labels() {
        /// Maximum number of labels to show.
        const MAX_SHOWN: usize = 12;
        let more = labels.len().saturating_sub(MAX_SHOWN);
        let more = if more > 0 { format!(" and {more} more") } else { String::new() };
        let shown = &labels[..labels.len().min(MAX_SHOWN)];
        writeln!(out, "  labels         {}, in order: {}{more}", labels.len(), shown.join(", "))?;
    }
    if let Some(problem) = config.problem_type() {
        writeln!(out, "  problem type   {problem}")?;
    }
    writeln!(
        out,
        "  encoder        {} layers, hidden {}, {} heads of {}, feed-forward {}",
        config.num_hidden_layers,
        config.hidden_size,
        config.num_attention_heads,
        config.hidden_size / config.num_attention_heads,
        config.intermediate_size,
    )?;
    writeln!(
        out,
        "  vocabulary     {}, {} positions, {} segments",
        format::count(config.vocab_size as u64),
        config.max_position_embeddings,
        config.type_vocab_size,
    )?;
    writeln!(
        out,
        "  dropout        {} hidden, {} attention",
        config.hidden_dropout_prob, config.attention_probs_dropout_prob
    )?;
    if !modules.is_empty() {
        writeln!(out, "  modules        {}", modules.join(", "))?;
    }
    match &tokenizer {
        Ok(tokenizer) => {
            writeln!(
                out,
                "  tokenizer      {} tokens, {}, fingerprint {}",
                format::count(tokenizer.vocab_size() as u64),
                casing(tokenizer),
                tokenizer.fingerprint()
            )?;
            for (name, line) in details(tokenizer) {
                writeln!(out, "    {name:<13}{line}")?;
            }
        }
        Err(TextError::NoTokenizer { .. }) => writeln!(out, "  tokenizer      none in this folder")?,
        Err(error) => writeln!(out, "  tokenizer      cannot be opened: {error}")?,
    }
    writeln!(out, "  parameters     {}", format::count(parameters as u64))?;
    writeln!(out, "  on disk        {}", format::bytes(bytes))?;

    let width = tensors.iter().map(|tensor| tensor.name.len()).max().unwrap_or(0);
    writeln!(out, "\n{}", terminal.bold(&format!("{:width$}  {:>14}  {:>12}  type", "tensor", "shape", "parameters")))?;
    for tensor in &tensors {
        let shape: Vec<String> = tensor.shape.iter().map(usize::to_string).collect();
        let count: usize = tensor.shape.iter().product();
        writeln!(
            out,
            "{:width$}  {:>14}  {:>12}  {}",
            tensor.name,
            shape.join(" × "),
            format::count(count as u64),
            tensor.dtype.to_lowercase()
        )?;
    }
    let Ok(tokenizer) = tokenizer else { return Ok(()) };
    show_notes(&tokenizer, terminal);
    if tokenizer.vocab_size() != config.vocab_size {
        terminal.warn(&format!(
            "the tokenizer has {} tokens, but the model has {} embedding rows",
            tokenizer.vocab_size(),
            config.vocab_size
        ));
    }
    Ok(())
}
