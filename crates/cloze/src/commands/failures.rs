//! Rows that fail: the output has an error in place of each result, and the command fails at its end.

use std::io::Write;

use anyhow::{Result, bail};
use cloze_tasks::TaskError;
use cloze_tasks::lines::Lines;
use serde_json::json;

use crate::flags;

/// Counts the rows of an input that succeeded and those that failed.
#[derive(Debug)]
pub struct Failures {
    /// The input's name.
    name: String,
    /// The unit of positions: "row" or "line".
    key: &'static str,
    /// Whether the first error stops the command.
    strict: bool,
    rows: usize,
    failed: usize,
    first: Option<String>,
}

impl Failures {
    pub fn new(name: String, key: &'static str, strict: bool) -> Failures {
        Failures { name, key, strict, rows: 0, failed: 0, first: None }
    }

    /// The unit of positions: "row" or "line".
    pub fn key(&self) -> &'static str {
        self.key
    }

    /// Counts a row that succeeded.
    pub fn add_success(&mut self) {
        self.rows += 1;
    }

    /// Counts a row that failed. Returns the error text for the output.
    ///
    /// # Errors
    /// The row's error, if it must stop the command: with `--strict`, or if a wrong setting would make every row fail.
    pub fn add_failure(&mut self, position: usize, error: TaskError) -> Result<String> {
        if matches!(error, TaskError::Setting { .. }) {
            return Err(error.into());
        }
        let text = flags::in_message(&error.to_string()).into_owned();
        if self.strict {
            bail!(self.with_position(position, &text));
        }
        self.add_unreadable(position, &text);
        Ok(text)
    }

    /// The error text with its position, unless it already contains one.
    fn with_position(&self, position: usize, problem: &str) -> String {
        let (name, key) = (&self.name, self.key);
        if problem.starts_with(&format!("{name}:")) {
            problem.to_owned()
        } else {
            format!("{name}, {key} {position}: {problem}")
        }
    }

    /// Counts a row that could not be read, without an error text for the output.
    pub fn add_unreadable(&mut self, position: usize, problem: &str) {
        self.rows += 1;
        self.failed += 1;
        if self.first.is_none() {
            self.first = Some(self.with_position(position, problem));
        }
    }

    /// Ends the command. `what` completes the message "N of M rows could not be …".
    ///
    /// # Errors
    /// At least one row failed. The message has their number and the first error.
    pub fn finish(self, what: &str) -> Result<()> {
        let Failures { key, rows, failed, .. } = self;
        match self.first {
            None => Ok(()),
            Some(first) => bail!("{failed} of {rows} {key}s could not be {what}; the first: {first}"),
        }
    }

    /// Whether no row was counted.
    pub fn is_empty(&self) -> bool {
        self.rows == 0
    }
}

/// Reads the next line. The inner error concerns this line only; `None` at the end of the input.
///
/// # Errors
/// No further line can be read.
pub fn next_line(lines: &mut Lines) -> Result<Option<Result<(), TaskError>>> {
    match lines.advance() {
        Ok(more) => Ok(more.then_some(Ok(()))),
        Err(error @ TaskError::Line { .. }) => Ok(Some(Err(error))),
        Err(error) => Err(error.into()),
    }
}

/// The error for a blank line.
pub fn blank_line_error() -> TaskError {
    TaskError::Input { what: "line".to_owned(), problem: "expected a text, found only white space".to_owned() }
}

/// Writes a line's error in place of its result.
///
/// # Errors
/// Those of [`Failures::add_failure`], and write errors.
pub fn write_failure(failures: &mut Failures, line: usize, error: TaskError, as_json: bool) -> Result<()> {
    let text = failures.add_failure(line, error)?;
    let mut out = crate::output::stdout();
    if as_json {
        writeln!(out, "{}", json!({"line": line, "error": text}))?;
    } else {
        writeln!(out, "line {line}: error: {text}")?;
    }
    out.flush()?;
    Ok(())
}
