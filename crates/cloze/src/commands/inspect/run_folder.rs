//! A run's folder: how far it came, what it keeps.

use std::io::Write;
use std::path::Path;

use anyhow::Result;
use serde_json::json;

use super::arguments::Arguments;
use crate::format;
use crate::run_page::{self, Kind, Measure, Record, Run};
use crate::terminal::Terminal;

pub(super) fn show(dir: &Path, arguments: &Arguments, terminal: &Terminal) -> Result<()> {
    let checkpoints = folder_names(&dir.join("checkpoints"));
    let model = dir.join("model").join("config.json").is_file();
    // A run that was stopped before its first line is worth showing too.
    let run = run_page::run(dir, String::new()).ok();
    let finished = model && run.as_ref().is_none_or(is_finished);
    let is_fine_tuning = run.as_ref().is_some_and(|run| run.kind == Kind::FineTuneConfig);
    let last = run.as_ref().and_then(|run| run.training.last());
    let evaluation = run.as_ref().and_then(|run| run.evaluations.last());
    let mut out = crate::output::results();
    if arguments.json {
        let line = json!({
            "kind": "run", "path": format::path(dir), "last": last, "evaluation": evaluation, "checkpoints": checkpoints,
            "finished": finished, "bytes": super::arguments::folder_bytes(dir),
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
                figures(last, &run.losses()),
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
        (false, true) if is_fine_tuning => "model/, the best so far: go on with --resume",
        (false, true) => "model/, as it was when the run was last interrupted: go on with --resume",
        (false, false) => "not yet: go on with --resume",
    };
    writeln!(out, "  model          {shown}")?;
    writeln!(out, "  on disk        {}", format::bytes(super::arguments::folder_bytes(dir)))?;
    Ok(())
}

/// Whether a run has come to its end.
fn is_finished(run: &Run) -> bool {
    if run.kind == Kind::FineTuneConfig {
        // At its end it removes what it could be resumed from.
        return !run.dir.join("checkpoints").is_dir();
    }
    let last_event = |start: &str| run.events.iter().rev().find(|(_, message)| message.starts_with(start));
    match (run.training.last(), last_event("finished after step")) {
        // A finished run may have been made longer since.
        (Some(last), Some((step, _))) => step.is_some_and(|step| step >= last.step),
        // A run that an earlier version finished does not say so.
        (Some(_), None) => last_event("interrupted").is_none(),
        (None, _) => true,
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

#[cfg(test)]
mod tests {
    use super::*;

    fn of(dir: &Path, kind: Kind, lines: &[&str]) -> bool {
        let mut run = Run::new("run".into(), dir, kind);
        lines.iter().for_each(|line| run.read_metrics(line));
        assert_eq!(run.unreadable, 0);
        is_finished(&run)
    }

    #[test]
    fn a_run_has_come_to_its_end_or_not() {
        let [five, nine] = [5, 9].map(|step| format!(r#"{{"kind":"train","step":{step},"mlm_loss":3.5}}"#));
        // A loss that is not a number is null in JSON.
        let diverged = r#"{"kind":"train","step":5,"mlm_loss":null,"grad_norm":null}"#;
        let interrupted = r#"{"kind":"event","step":5,"message":"interrupted after step 5; go on with --resume"}"#;
        let finished = r#"{"kind":"event","step":5,"message":"finished after step 5"}"#;
        let pretraining = |lines: &[&str]| of(Path::new("none"), Kind::PreTraining, lines);
        assert!(pretraining(&[&five, finished]));
        assert!(pretraining(&[finished, &five]), "resumed when it was finished, by an earlier version");
        assert!(pretraining(&[&five, interrupted, finished]), "made so short that it was over");
        assert!(pretraining(&[&five]), "finished by an earlier version");
        assert!(!pretraining(&[&five, interrupted]));
        assert!(!pretraining(&[diverged, interrupted]));
        assert!(!pretraining(&[&five, finished, &nine]), "made longer, and not finished since");
    }

    /// The model of a fine-tuning that was interrupted was called final.
    #[test]
    fn a_fine_tuning_has_checkpoints_until_its_end() {
        let dir = tempfile::tempdir().unwrap();
        let lines =
            [r#"{"kind":"train","step":5,"loss":null}"#, r#"{"kind":"event","step":5,"message":"interrupted"}"#];
        assert!(of(dir.path(), Kind::FineTuneConfig, &lines));
        std::fs::create_dir(dir.path().join("checkpoints")).unwrap();
        assert!(!of(dir.path(), Kind::FineTuneConfig, &lines[..1]));
    }
}
