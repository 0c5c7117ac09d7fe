//! What the process talks to: colours, progress and errors, by what standard output and error are.

use std::cell::Cell;
use std::io::IsTerminal;
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use crate::format;

/// How long a plain progress line stays the last one when standard error is no terminal.
const PLAIN_INTERVAL: Duration = Duration::from_secs(10);

/// How this process may talk, and the options every command shares.
#[derive(Clone, Debug)]
pub struct Terminal {
    /// Standard output takes colours.
    pub colour: bool,
    /// `--threads`.
    pub threads: Option<usize>,
    quiet: bool,
    bars: bool,
    error_colour: bool,
}

impl Terminal {
    /// Looks at the standard streams and at `NO_COLOR` (see no-color.org) and `TERM`.
    pub fn detect(quiet: bool, threads: Option<usize>) -> Terminal {
        let plain = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty())
            || std::env::var_os("TERM").is_some_and(|value| value == "dumb");
        let bars = std::io::stderr().is_terminal();
        Terminal {
            colour: std::io::stdout().is_terminal() && !plain,
            threads,
            quiet,
            bars: bars && !quiet,
            error_colour: bars && !plain,
        }
    }

    /// The one line with which a failed command ends.
    pub fn error(&self, line: &str) {
        if self.error_colour {
            eprintln!("\x1b[1;31merror:\x1b[0m {line}");
        } else {
            eprintln!("error: {line}");
        }
    }

    /// A line for people on standard error, unless `--quiet`.
    pub fn note(&self, line: &str) {
        if !self.quiet {
            eprintln!("{line}");
        }
    }

    /// A warning on standard error; shown also under `--quiet`, since it is about the result.
    pub fn warn(&self, line: &str) {
        if self.error_colour {
            eprintln!("\x1b[1;33mwarning:\x1b[0m {line}");
        } else {
            eprintln!("warning: {line}");
        }
    }

    /// Starts a stage of known (`Some`) or unknown length.
    pub fn progress(&self, label: &str, total: Option<u64>) -> Progress {
        self.start(label, total, if total.is_some() { BOUNDED } else { UNBOUNDED })
    }

    /// Starts a stage whose progress is a share of it, and whose messages tell the time left.
    pub fn progress_timed(&self, label: &str) -> Progress {
        self.start(label, Some(SHARES), TIMED)
    }

    fn start(&self, label: &str, total: Option<u64>, template: &str) -> Progress {
        let bar = self.bars.then(|| {
            let bar = match total {
                Some(total) => ProgressBar::new(total),
                None => ProgressBar::new_spinner(),
            };
            bar.set_draw_target(ProgressDrawTarget::stderr_with_hz(8));
            bar.set_style(style(template));
            bar.set_prefix(label.to_string());
            bar
        });
        Progress {
            bar,
            quiet: self.quiet,
            label: label.to_string(),
            total: Cell::new(total),
            start: Instant::now(),
            last: Cell::new(Instant::now()),
        }
    }

    /// `text` in bold where standard output takes colours.
    pub fn bold(&self, text: &str) -> String {
        self.paint("1", text)
    }

    /// `text` in the SGR style `code` where standard output takes colours.
    pub fn paint(&self, code: &str, text: &str) -> String {
        if self.colour { format!("\x1b[{code}m{text}\x1b[0m") } else { text.to_string() }
    }
}

const BOUNDED: &str = "{prefix:<10} {bar:20.cyan/blue} {percent:>3}% {elapsed} ({eta} left) {wide_msg}";
const UNBOUNDED: &str = "{prefix:<10} {spinner} {elapsed} {wide_msg}";
const TIMED: &str = "{prefix:<10} {bar:20.cyan/blue} {percent:>3}% {elapsed} {wide_msg}";
/// Steps of a bar that is told shares.
const SHARES: u64 = 1000;

fn style(template: &str) -> ProgressStyle {
    ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar()).progress_chars("━━─")
}

/// The progress of one stage: a bar on a terminal, else a plain line every ten seconds.
#[derive(Debug)]
pub struct Progress {
    bar: Option<ProgressBar>,
    quiet: bool,
    label: String,
    total: Cell<Option<u64>>,
    start: Instant,
    last: Cell<Instant>,
}

impl Progress {
    /// `done` units of the total are done; `message` says more.
    pub fn set(&self, done: u64, message: &str) {
        if let Some(bar) = &self.bar {
            bar.set_position(done);
            bar.set_message(message.to_string());
        } else if !self.quiet && self.last.get().elapsed() >= PLAIN_INTERVAL {
            self.last.set(Instant::now());
            let share = match self.total.get() {
                Some(total) if total > 0 => format!(" {:.0} %", 100.0 * done as f64 / total as f64),
                _ => String::new(),
            };
            eprintln!("{}:{share} {message} ({})", self.label, format::duration(self.start.elapsed().as_secs_f64()));
        }
    }

    /// `share` of a stage begun by [`Terminal::progress_timed`] is done; `message` says more.
    pub fn set_share(&self, share: f64, message: &str) {
        self.set((share * SHARES as f64) as u64, message);
    }

    /// Tells the total once it is known.
    pub fn set_total(&self, total: u64) {
        if self.total.replace(Some(total)).is_none()
            && let Some(bar) = &self.bar
        {
            bar.set_style(style(BOUNDED));
        }
        if let Some(bar) = &self.bar {
            bar.set_length(total);
        }
    }

    /// A line above the bar.
    pub fn note(&self, line: &str) {
        match &self.bar {
            Some(bar) => bar.suspend(|| eprintln!("{line}")),
            None if !self.quiet => eprintln!("{line}"),
            None => {}
        }
    }

    /// Seconds since the stage began.
    pub fn seconds(&self) -> f64 {
        self.start.elapsed().as_secs_f64()
    }

    /// Ends the stage and takes the bar away.
    pub fn finish(self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}
