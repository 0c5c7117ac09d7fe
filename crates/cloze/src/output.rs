//! Standard output and standard error. No other module writes to them: `println!` and similar macros panic when a
//! stream cannot be written, for example a closed pipe or a full disk.
#![expect(clippy::disallowed_methods, reason = "the only module that may use the standard streams")]

use std::fmt::{self, Display};
use std::io::{self, ErrorKind, IsTerminal, StdoutLock, Write};

use terminal_size::{Width, terminal_size_of};

use crate::{flags, ranks};

/// Standard output, for stdout; nothing at the ranks of a job other than rank 0. Its errors name standard output.
pub struct Output(Option<StdoutLock<'static>>);

/// Locks standard output.
pub fn stdout() -> Output {
    Output(ranks::is_root().then(|| io::stdout().lock()))
}

impl Write for Output {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.as_mut().map_or(Ok(bytes.len()), |stdout| stdout.write(bytes).map_err(stdout_error))
    }

    fn flush(&mut self) -> io::Result<()> {
        self.0.as_mut().map_or(Ok(()), |stdout| stdout.flush().map_err(stdout_error))
    }
}

/// Writes a line to standard error, with the options' names replaced by the command's flags. Write errors are ignored:
/// they must not stop the work.
pub fn write_stderr(line: impl Display) {
    let line = format!("{line}\n");
    let _ = io::stderr().lock().write_all(flags::in_message(&line).as_bytes());
}

/// Whether standard output and standard error are terminals.
pub fn are_terminals() -> [bool; 2] {
    [io::stdout().is_terminal(), io::stderr().is_terminal()]
}

/// Width of the terminal in columns, if standard error is a terminal.
pub fn columns() -> Option<usize> {
    terminal_size_of(io::stderr()).map(|(Width(columns), _)| columns.into())
}

/// An I/O error of standard output.
#[derive(Debug)]
struct StdoutError(io::Error);

/// Adds "standard output" to an error.
pub fn stdout_error(error: io::Error) -> io::Error {
    io::Error::new(error.kind(), StdoutError(error))
}

impl Display for StdoutError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "cannot write to standard output: {}", self.0)
    }
}

impl std::error::Error for StdoutError {}

/// Whether the error is that the reader closed standard output, as in `cloze inspect model | head`.
pub fn is_broken_pipe(error: &anyhow::Error) -> bool {
    error.chain().filter_map(|cause| cause.downcast_ref::<io::Error>()).any(|cause| {
        cause.kind() == ErrorKind::BrokenPipe && cause.get_ref().is_some_and(|inner| inner.is::<StdoutError>())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_broken_pipes_of_standard_output_are_recognised() {
        let pipe = || io::Error::from(ErrorKind::BrokenPipe);
        assert!(is_broken_pipe(&anyhow::Error::from(stdout_error(pipe())).context("writing")));
        assert!(
            !is_broken_pipe(&anyhow::Error::from(pipe())),
            "a broken pipe of something else, for example a download"
        );
        let full = anyhow::Error::from(stdout_error(ErrorKind::StorageFull.into()));
        assert!(!is_broken_pipe(&full) && full.to_string().starts_with("cannot write to standard output: "), "{full}");
    }
}
