//! A run's folder: how far it came, what it keeps.

use std::io::Write;
use std::path::Path;

use anyhow::Result;
use serde_json::json;

use super::Arguments;
use crate::commands::report::read_run;
use crate::format;
use crate::terminal::Terminal;

pub(super) fn show(dir: &Path, arguments: &Arguments, terminal: &Terminal) -> Result<()> {
    let checkpoints = folder_names(&dir.join("checkpoints"));
    let model = dir.join("model").join("config.json").is_file();
    // A run that was stopped before its first line is worth showing too.
    let run = read_run(dir).ok();
    let last = run.as_ref().and_then(|run| run.train.last());
    let evaluation = run.as_ref().and_then(|run| run.evaluations.last());
    let mut out = std::io::stdout().lock();
    if arguments.json {
        let line = json!({
            "kind": "run", "path": dir, "last": last, "evaluation": evaluation, "checkpoints": checkpoints,
            "finished": model, "bytes": super::folder_bytes(dir),
        });
        writeln!(out, "{line}")?;
        return Ok(());
    }
    writeln!(out, "{} {}", terminal.bold("run"), dir.display())?;
    let field = |record: &serde_json::Value, key: &str| {
        record[key].as_f64().map_or_else(|| "–".into(), |value| format!("{value:.4}"))
    };
    match last {
        Some(last) => writeln!(
            out,
            "  trained        {} steps, {} tokens, {}; MLM loss {}, NSP loss {}",
            format::count(last["step"].as_u64().unwrap_or(0)),
            format::short(last["tokens"].as_f64().unwrap_or(0.0)),
            format::duration(last["seconds"].as_f64().unwrap_or(0.0)),
            field(last, "mlm_loss"),
            field(last, "nsp_loss"),
        )?,
        None => writeln!(out, "  trained        no step logged yet")?,
    }
    if let Some(evaluation) = evaluation {
        writeln!(
            out,
            "  held-out       step {}: MLM loss {}, MLM accuracy {}, NSP accuracy {}",
            format::count(evaluation["step"].as_u64().unwrap_or(0)),
            field(evaluation, "mlm_loss"),
            field(evaluation, "mlm_accuracy"),
            field(evaluation, "nsp_accuracy"),
        )?;
    }
    let kept = if checkpoints.is_empty() { "none".into() } else { checkpoints.join(", ") };
    writeln!(out, "  checkpoints    {kept}")?;
    writeln!(out, "  final model    {}", if model { "model/" } else { "not yet: go on with --resume" })?;
    writeln!(out, "  on disk        {}", format::bytes(super::folder_bytes(dir)))?;
    Ok(())
}

fn folder_names(dir: &Path) -> Vec<String> {
    let Ok(entries) = std::fs::read_dir(dir) else { return Vec::new() };
    let mut names: Vec<String> = entries
        .flatten()
        .filter(|entry| entry.path().is_dir())
        .map(|entry| entry.file_name().to_string_lossy().into_owned())
        .collect();
    names.sort();
    names
}
