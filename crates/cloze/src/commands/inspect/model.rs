//! Shows a model folder or checkpoint: sizes, labels, tokenizer, parameters.

use std::io::Write;
use std::path::Path;

use anyhow::Result;
use cloze_model::{Config, Layout, SharedParts, stored_tensors};
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
    let architecture = config.architecture();
    writeln!(
        out,
        "  encoder        {}, {} layers{}, hidden {}, {} heads of {}, feed-forward {}",
        config.family().title,
        architecture.layers,
        shared(&config),
        config.hidden_size,
        config.num_attention_heads,
        architecture.head_size(),
        config.intermediate_size,
    )?;
    if let Some(local) = architecture.local {
        let count = (0..architecture.layers).filter(|&number| local.contains(number)).count();
        writeln!(out, "  windows        {} tokens on each side in {count} layers", local.window)?;
    }
    let width = match architecture.embedding_size {
        same if same == config.hidden_size => String::new(),
        other => format!(" of width {other}"),
    };
    writeln!(
        out,
        "  vocabulary     {}{width}, {} positions, {} segments",
        format::count(config.vocab_size as u64),
        architecture.max_sequence_length(),
        architecture.segments,
    )?;
    writeln!(
        out,
        "  dropout        {} hidden, {} attention",
        config.hidden_dropout_prob, config.attention_probs_dropout_prob
    )?;
    let head = config.task_input.to_string();
    if !head.is_empty() {
        writeln!(out, "  head           {head}: only Cloze computes its outputs")?;
    }
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
    config.ignored_keys().iter().for_each(|line| terminal.warn(line));
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

/// How layers share weights, in parentheses; empty if they do not.
fn shared(config: &Config) -> String {
    match (config.num_hidden_groups, config.shared_parts) {
        (Some(groups), _) => {
            format!(" ({} sets of weights)", groups * config.inner_group_num.unwrap_or(1))
        }
        (None, SharedParts::None) => String::new(),
        (None, SharedParts::Attention) => " (one attention)".to_owned(),
        (None, SharedParts::FeedForward) => " (one feed-forward block)".to_owned(),
        (None, SharedParts::All) => " (one set of weights)".to_owned(),
    }
}
