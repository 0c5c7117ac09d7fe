//! A run's folder: how far it came, what it keeps.

use std::io::Write;
use std::path::Path;

use anyhow::Result;
use cloze_train::run::{Line, RunFolder, read_metrics};
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
    let finished = model && !was_interrupted(dir);
    let last = run.as_ref().and_then(|run| run.train.last());
    let evaluation = run.as_ref().and_then(|run| run.evaluations.last());
    let mut out = std::io::stdout().lock();
    if arguments.json {
        let line = json!({
            "kind": "run", "path": dir, "last": last, "evaluation": evaluation, "checkpoints": checkpoints,
            "finished": finished, "bytes": super::folder_bytes(dir),
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
    let shown = match (finished, model) {
        (true, _) => "model/, final",
        (false, true) => "model/, as it was when the run was last interrupted: go on with --resume",
        (false, false) => "not yet: go on with --resume",
    };
    writeln!(out, "  model          {shown}")?;
    writeln!(out, "  on disk        {}", format::bytes(super::folder_bytes(dir)))?;
    Ok(())
}

/// Whether the last session that took a step did not come to the run's end.
fn was_interrupted(dir: &Path) -> bool {
    let lines = read_metrics(&RunFolder::new(dir).metrics()).unwrap_or_default();
    let is_end = |line: &Line| matches!(line, Line::Event(event) if event.message.starts_with("finished after step"));
    let trained = lines.iter().rposition(|line| matches!(line, Line::Train(_)));
    let ended = lines.iter().rposition(is_end);
    // A run that an earlier version finished does not say so.
    let interrupted =
        lines.iter().any(|line| matches!(line, Line::Event(event) if event.message.starts_with("interrupted")));
    match (trained, ended) {
        (Some(trained), Some(ended)) => trained > ended,
        (Some(_), None) => interrupted,
        (None, _) => false,
    }
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
