//! Shows a run folder: progress, scores, checkpoints.

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
    // A run that was stopped before its first record is shown too.
    let run = run_page::run(dir, String::new()).ok();
    let finished = model && run.as_ref().is_none_or(is_finished);
    let is_fine_tuning = run.as_ref().is_some_and(|run| run.kind == Kind::FineTuning);
    let last = run.as_ref().and_then(|run| run.training.last());
    let evaluation = run.as_ref().and_then(|run| run.evaluations.last());
    let mut out = crate::output::stdout();
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
        (false, true) if is_fine_tuning => "model/, the best so far; continue with --resume",
        (false, true) => "model/, from the last interruption; continue with --resume",
        (false, false) => "none yet; continue with --resume",
    };
    writeln!(out, "  model          {shown}")?;
    writeln!(out, "  on disk        {}", format::bytes(super::arguments::folder_bytes(dir)))?;
    Ok(())
}

/// Whether a run is finished.
fn is_finished(run: &Run) -> bool {
    if run.kind == Kind::FineTuning {
        // A finished fine-tuning removes its checkpoints.
        return !run.dir.join("checkpoints").is_dir();
    }
    let last_event = |start: &str| run.events.iter().rev().find(|(_, message)| message.starts_with(start));
    match (run.training.last(), last_event("finished after step")) {
        // A finished run may have been extended afterwards.
        (Some(last), Some((step, _))) => step.is_some_and(|step| step >= last.step),
        // Earlier versions wrote no message at the end.
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
    fn finished_pre_trainings_are_recognised() {
        let [five, nine] = [5, 9].map(|step| format!(r#"{{"kind":"train","step":{step},"mlm_loss":3.5}}"#));
        // NaN is null in JSON.
        let diverged = r#"{"kind":"train","step":5,"mlm_loss":null,"grad_norm":null}"#;
        let interrupted = r#"{"kind":"event","step":5,"message":"interrupted after step 5; go on with --resume"}"#;
        let finished = r#"{"kind":"event","step":5,"message":"finished after step 5"}"#;
        let pretraining = |lines: &[&str]| of(Path::new("none"), Kind::PreTraining, lines);
        assert!(pretraining(&[&five, finished]));
        assert!(pretraining(&[finished, &five]), "finished, then resumed by an earlier version");
        assert!(pretraining(&[&five, interrupted, finished]), "shortened after an interruption");
        assert!(pretraining(&[&five]), "finished by an earlier version");
        assert!(!pretraining(&[&five, interrupted]));
        assert!(!pretraining(&[diverged, interrupted]));
        assert!(!pretraining(&[&five, finished, &nine]), "extended, and not finished afterwards");
    }

    /// Regression: the model of an interrupted fine-tuning was called final.
    #[test]
    fn a_fine_tuning_with_checkpoints_is_unfinished() {
        let dir = tempfile::tempdir().unwrap();
        let lines =
            [r#"{"kind":"train","step":5,"loss":null}"#, r#"{"kind":"event","step":5,"message":"interrupted"}"#];
        assert!(of(dir.path(), Kind::FineTuning, &lines));
        std::fs::create_dir(dir.path().join("checkpoints")).unwrap();
        assert!(!of(dir.path(), Kind::FineTuning, &lines[..1]));
    }
}
