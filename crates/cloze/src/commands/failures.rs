//! Rows that cannot be answered: each has an error in its place, and the command fails at its end.

use std::io::Write;

use anyhow::{Result, bail};
use cloze_tasks::TaskError;
use cloze_tasks::lines::Lines;
use serde_json::json;

use crate::flags;

/// The rows of an input that were answered, and those that could not be.
#[derive(Debug)]
pub struct Failures {
    /// The input.
    name: String,
    /// What a row's place is called: "row" or "line".
    key: &'static str,
    /// Whether the first error ends the work.
    strict: bool,
    rows: usize,
    failed: usize,
    first: Option<String>,
}

impl Failures {
    pub fn new(name: String, key: &'static str, strict: bool) -> Failures {
        Failures { name, key, strict, rows: 0, failed: 0, first: None }
    }

    /// What a row's place is called.
    pub fn key(&self) -> &'static str {
        self.key
    }

    /// Counts a row that was answered.
    pub fn answered(&mut self) {
        self.rows += 1;
    }

    /// Counts a row that could not be answered.
    ///
    /// # Errors
    /// The row's own, if the work is to end with it: by `--strict`, or because every row would fail alike.
    pub fn add(&mut self, place: usize, error: TaskError) -> Result<String> {
        if matches!(error, TaskError::Setting { .. }) {
            return Err(error.into());
        }
        let text = flags::in_message(&error.to_string()).into_owned();
        if self.strict {
            bail!(self.placed(place, &text));
        }
        self.count(place, &text);
        Ok(text)
    }

    /// An error with its place, unless it names it.
    fn placed(&self, place: usize, problem: &str) -> String {
        let (name, key) = (&self.name, self.key);
        if problem.starts_with(&format!("{name}:")) {
            problem.to_owned()
        } else {
            format!("{name}, {key} {place}: {problem}")
        }
    }

    /// Counts a row that could not be answered, of which nothing more is to be said in its place.
    pub fn count(&mut self, place: usize, problem: &str) {
        self.rows += 1;
        self.failed += 1;
        if self.first.is_none() {
            self.first = Some(self.placed(place, problem));
        }
    }

    /// Fails if a row did; `what` says what became of them.
    ///
    /// # Errors
    /// How many rows failed, and the first.
    pub fn end(self, what: &str) -> Result<()> {
        let Failures { key, rows, failed, .. } = self;
        match self.first {
            None => Ok(()),
            Some(first) => bail!("{failed} of {rows} {key}s could not be {what}; the first: {first}"),
        }
    }

    /// Whether there was no row at all.
    pub fn is_empty(&self) -> bool {
        self.rows == 0
    }
}

/// The next line, or what is wrong with it alone; none at the end.
///
/// # Errors
/// Input of which no further line can be read.
pub fn next_line(lines: &mut Lines) -> Result<Option<Result<(), TaskError>>> {
    match lines.advance() {
        Ok(more) => Ok(more.then_some(Ok(()))),
        Err(error @ TaskError::Line { .. }) => Ok(Some(Err(error))),
        Err(error) => Err(error.into()),
    }
}

/// The error of a blank line.
pub fn blank() -> TaskError {
    TaskError::Input { what: "line".to_owned(), problem: "expected a text, found only white space".to_owned() }
}

/// Writes the error of a line in its place.
///
/// # Errors
/// Those of [`Failures::add`].
pub fn write_failure(failures: &mut Failures, line: usize, error: TaskError, as_json: bool) -> Result<()> {
    let text = failures.add(line, error)?;
    let mut out = crate::output::results();
    if as_json {
        writeln!(out, "{}", json!({"line": line, "error": text}))?;
    } else {
        writeln!(out, "line {line}: error: {text}")?;
    }
    out.flush()?;
    Ok(())
}
