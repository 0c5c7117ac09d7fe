//! A run's folder: how far it came, what it keeps.

use std::io::Write;
use std::path::Path;

use anyhow::Result;
use cloze_train::run::{Line, RunFolder, read_metrics};
use serde_json::json;

use super::Arguments;
use crate::format;
use crate::run_page::{self, Measure, Record};
use crate::terminal::Terminal;

pub(super) fn show(dir: &Path, arguments: &Arguments, terminal: &Terminal) -> Result<()> {
    let checkpoints = folder_names(&dir.join("checkpoints"));
    let model = dir.join("model").join("config.json").is_file();
    // A run that was stopped before its first line is worth showing too.
    let run = run_page::run(dir, String::new()).ok();
    let finished = model && !was_interrupted(dir);
    let last = run.as_ref().and_then(|run| run.training.last());
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
    let figures = |record: &Record, measures: &[Measure]| -> String {
        let known = measures.iter().filter_map(|measure| Some((measure, record.value(measure.key)?)));
        known.map(|(measure, value)| format!(", {} {}", measure.title, measure.unit.text(value))).collect()
    };
    match (&run, last) {
        (Some(run), Some(last)) => {
            let tokens = run.tokens().map_or_else(String::new, |n| format!(", {} tokens", format::short(n as f64)));
            writeln!(
                out,
                "  trained        {} steps{tokens}, {}{}",
                format::count(run.step()),
                format::duration(run.seconds().unwrap_or(0.0)),
                figures(last, &run.kind.losses()),
            )?;
        }
        _ => writeln!(out, "  trained        no step logged yet")?,
    }
    if let (Some(run), Some(evaluation)) = (&run, evaluation) {
        let (name, step) = (run.kind.held_out(), format::count(evaluation.step));
        writeln!(out, "  {name:<13}  step {step}{}", figures(evaluation, &run.scores()))?;
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
