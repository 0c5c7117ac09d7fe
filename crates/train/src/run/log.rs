//! Writes the log of a run: metrics.jsonl and a TensorBoard event file.

use std::fs::{File, OpenOptions};
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};

use serde::Serialize;

use super::folder::RunFolder;
use super::lines::Line;
use super::losses::{LossFigure, LossFigures};
use crate::TrainError;
use crate::tensorboard::EventFile;

/// The log of a run: metrics.jsonl and a TensorBoard event file.
#[derive(Debug)]
pub struct RunLog(Option<Files>);

#[derive(Debug)]
struct Files {
    lines: File,
    path: PathBuf,
    events: EventFile,
}

impl RunLog {
    /// Opens the log to continue after `step`. Drops the lines of later steps and a truncated line. If the current
    /// interval between lines is `incomplete`, also drops the line that was written for it when the run stopped.
    ///
    /// # Errors
    /// The system's error with the path.
    pub fn open(folder: &RunFolder, step: u64, incomplete: bool) -> Result<RunLog, TrainError> {
        let path = folder.metrics();
        if path.exists() {
            let kept = lines_up_to(&path, step, incomplete)?;
            cloze_files::write(&path, &kept)?;
        }
        let lines =
            OpenOptions::new().create(true).append(true).open(&path).map_err(|e| TrainError::io("open", &path, e))?;
        Ok(RunLog(Some(Files { lines, path, events: EventFile::create(folder.root(), step + 1)? })))
    }

    /// A log that writes nothing, for the ranks of a job other than rank 0.
    pub fn silent() -> RunLog {
        RunLog(None)
    }

    /// Appends a line: a JSON object with the key `step`.
    ///
    /// # Errors
    /// The system's error with the path.
    pub fn append(&mut self, line: &impl Serialize) -> Result<(), TrainError> {
        let Some(Files { lines, path, .. }) = &mut self.0 else { return Ok(()) };
        let mut text = serde_json::to_string(line).map_err(|e| TrainError::io("write", path, e.into()))?;
        text.push('\n');
        lines.write_all(text.as_bytes()).map_err(|e| TrainError::io("write", path, e))
    }

    /// Writes values of a step for TensorBoard.
    ///
    /// # Errors
    /// The system's error with the path.
    pub fn scalars(&mut self, step: u64, figures: &[(String, f64)]) -> Result<(), TrainError> {
        self.0.as_mut().map_or(Ok(()), |files| files.events.scalars(step, figures))
    }

    /// Appends a line of pre-training, and writes its values for TensorBoard.
    ///
    /// # Errors
    /// The system's error with the path.
    pub fn write(&mut self, line: &Line) -> Result<(), TrainError> {
        self.append(line)?;
        let mut figures: Vec<(String, f64)> = Vec::new();
        match line {
            Line::Train(l) => {
                figures.push(("train/loss".to_owned(), l.loss));
                figures.extend(tagged("train", &l.losses));
                let rest = [
                    ("train/learning_rate", l.lr),
                    ("train/gradient_norm", l.grad_norm),
                    ("speed/tokens_per_s", l.tokens_per_s),
                    ("speed/share_of_peak", l.share_of_peak),
                ];
                figures.extend(rest.map(|(tag, value)| (tag.to_owned(), value)));
            }
            Line::Eval(l) => figures.extend(tagged("eval", &l.losses)),
            Line::Start(_) | Line::Event(_) => return Ok(()),
        }
        self.scalars(line.step(), &figures)
    }

    /// Syncs the log to disk. Called before a checkpoint gets its final name.
    ///
    /// # Errors
    /// The system's error with the path.
    pub fn sync(&self) -> Result<(), TrainError> {
        let Some(Files { lines, path, .. }) = &self.0 else { return Ok(()) };
        lines.sync_data().map_err(|e| TrainError::io("write", path, e))
    }
}

/// The metrics of losses with TensorBoard's tags, such as `eval/mlm_loss`.
fn tagged<'a>(group: &'a str, losses: &'a LossFigures) -> impl Iterator<Item = (String, f64)> + 'a {
    losses.iter().flat_map(LossFigure::figures).map(move |(key, value)| (format!("{group}/{key}"), value))
}

/// The bytes of a log's lines up to a step, without the line of that step's training metrics if its interval is
/// incomplete.
fn lines_up_to(path: &Path, step: u64, incomplete: bool) -> Result<Vec<u8>, TrainError> {
    let failed = |e| TrainError::io("read", path, e);
    let mut reader = BufReader::new(File::open(path).map_err(failed)?);
    let (mut kept, mut line) = (Vec::new(), Vec::new());
    let is_kept = |line: &serde_json::Value| {
        let line_step = line.get("step").and_then(serde_json::Value::as_u64);
        let is_incomplete =
            incomplete && line_step == Some(step) && line.get("kind").is_some_and(|kind| kind == "train");
        line_step.is_some_and(|line_step| line_step <= step) && !is_incomplete
    };
    loop {
        line.clear();
        let n = reader.read_until(b'\n', &mut line).map_err(failed)?;
        if n == 0 {
            return Ok(kept);
        }
        let parsed: Option<serde_json::Value> =
            line.ends_with(b"\n").then(|| serde_json::from_slice(&line).ok()).flatten();
        if parsed.as_ref().is_some_and(is_kept) {
            kept.extend_from_slice(&line);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::run::lines::tests::train;
    use crate::run::{EventLine, read_metrics};

    #[test]
    fn a_resumed_log_drops_later_and_truncated_lines() {
        let dir = tempfile::tempdir().unwrap();
        let folder = RunFolder::new(dir.path());
        let mut log = RunLog::open(&folder, 0, false).unwrap();
        for step in 1..=4 {
            log.write(&train(step)).unwrap();
        }
        log.0.as_mut().unwrap().lines.write_all(b"{\"kind\":\"tra").unwrap();
        drop(log);
        assert_eq!(read_metrics(&folder.metrics()).unwrap().len(), 4);
        let mut log = RunLog::open(&folder, 2, false).unwrap();
        log.write(&train(3)).unwrap();
        let lines = read_metrics(&folder.metrics()).unwrap();
        assert_eq!(lines, [train(1), train(2), train(3)]);
        // The line of an incomplete interval is dropped when the run is resumed; other lines of that step stay.
        let event = Line::Event(EventLine { step: 3, message: "interrupted".into() });
        log.write(&event).unwrap();
        drop(log);
        RunLog::open(&folder, 3, true).unwrap();
        assert_eq!(read_metrics(&folder.metrics()).unwrap(), [train(1), train(2), event]);
    }
}
