//! Reading a run's metrics.jsonl.

use std::fs;
use std::path::Path;

use super::lines::Line;
use crate::TrainError;

/// Reads a run's metrics.jsonl, for reports. A truncated last line is skipped.
///
/// # Errors
/// The system's error with the path; [`TrainError::Log`] for a line that is not a [`Line`].
pub fn read_metrics(path: &Path) -> Result<Vec<Line>, TrainError> {
    let text = fs::read_to_string(path).map_err(|e| TrainError::io("read", path, e))?;
    let complete = text.rfind('\n').map_or("", |end| &text[..end]);
    let parse = |(i, line): (usize, &str)| {
        serde_json::from_str(line).map_err(|e| TrainError::Log {
            path: path.to_owned(),
            line: i + 1,
            reason: e.to_string(),
        })
    };
    complete.lines().enumerate().map(parse).collect()
}
