//! Standard output and standard error. Nothing else writes to them: `println!` and its like panic where a stream cannot be written, as
//! with a closed pipe or a full disk.
#![expect(clippy::disallowed_methods, reason = "the one place")]

use std::fmt::{self, Display};
use std::io::{self, ErrorKind, IsTerminal, StdoutLock, Write};

use terminal_size::{Width, terminal_size_of};

use crate::flags;

/// Standard output, for results. Its errors say what cannot be written.
pub struct Output(StdoutLock<'static>);

/// Locks standard output.
pub fn results() -> Output {
    Output(io::stdout().lock())
}

impl Write for Output {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.write(bytes).map_err(unwritable)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.0.flush().map_err(unwritable)
    }
}

/// Writes a line to standard error, in which options are named as the command's flags. A line that cannot be written is lost: no
/// work ends for that.
pub fn say(line: impl Display) {
    let line = format!("{line}\n");
    let _ = io::stderr().lock().write_all(flags::in_message(&line).as_bytes());
}

/// Whether standard output and standard error are terminals.
pub fn are_terminals() -> [bool; 2] {
    [io::stdout().is_terminal(), io::stderr().is_terminal()]
}

/// Columns of the terminal that standard error is.
pub fn columns() -> Option<usize> {
    terminal_size_of(io::stderr()).map(|(Width(columns), _)| columns.into())
}

/// Why standard output cannot be written.
#[derive(Debug)]
struct Unwritable(io::Error);

/// Names standard output in an error of it.
pub fn unwritable(error: io::Error) -> io::Error {
    io::Error::new(error.kind(), Unwritable(error))
}

impl Display for Unwritable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "cannot write to standard output: {}", self.0)
    }
}

impl std::error::Error for Unwritable {}

/// Whether an error says that whoever read standard output has closed it: `cloze inspect model | head`.
pub fn is_closed(error: &anyhow::Error) -> bool {
    error.chain().filter_map(|cause| cause.downcast_ref::<io::Error>()).any(|cause| {
        cause.kind() == ErrorKind::BrokenPipe && cause.get_ref().is_some_and(|inner| inner.is::<Unwritable>())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_closed_standard_output_ends_quietly() {
        let pipe = || io::Error::from(ErrorKind::BrokenPipe);
        assert!(is_closed(&anyhow::Error::from(unwritable(pipe())).context("writing")));
        assert!(!is_closed(&anyhow::Error::from(pipe())), "of a download, for example");
        let full = anyhow::Error::from(unwritable(ErrorKind::StorageFull.into()));
        assert!(!is_closed(&full) && full.to_string().starts_with("cannot write to standard output: "), "{full}");
    }
}
