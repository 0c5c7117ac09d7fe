//! What the process talks to: colours, progress and errors, by what standard output and error are.

use std::cell::Cell;
use std::ffi::OsString;
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use crate::format;
use crate::output::{self, say};
use crate::pace::Pace;

/// How long a plain progress line stays the last one when standard error is no terminal.
const PLAIN_INTERVAL: Duration = Duration::from_secs(10);

/// When to use colours.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum ColorChoice {
    /// On a terminal, unless NO_COLOR or CLICOLOR=0 says no; elsewhere if CLICOLOR_FORCE says so
    #[default]
    Auto,
    /// Also in files and pipes
    Always,
    /// Nowhere
    Never,
}

impl ColorChoice {
    /// The choice on a command line that has not been parsed, for the help and the errors of the parser itself.
    pub fn on_command_line(words: impl Iterator<Item = OsString>) -> ColorChoice {
        let words: Vec<String> = words.map(|word| word.to_string_lossy().into_owned()).collect();
        let words = &words[..words.iter().position(|word| word == "--").unwrap_or(words.len())];
        let value = words.iter().enumerate().rev().find_map(|(place, word)| match word.strip_prefix("--color") {
            Some("") => words.get(place + 1).map(String::as_str),
            Some(rest) => rest.strip_prefix('='),
            None => None,
        });
        match value {
            Some("always") => ColorChoice::Always,
            Some("never") => ColorChoice::Never,
            _ => ColorChoice::Auto,
        }
    }

    /// Whether a stream takes colours. See no-color.org and bixense.com/clicolors.
    fn applies(self, is_terminal: bool, variable: impl Fn(&str) -> Option<OsString>) -> bool {
        let is_set = |name: &str| variable(name).is_some_and(|value| !value.is_empty());
        let is = |name: &str, value: &str| variable(name).is_some_and(|found| found == value);
        match self {
            ColorChoice::Always => true,
            ColorChoice::Never => false,
            ColorChoice::Auto if is_set("NO_COLOR") => false,
            ColorChoice::Auto if is_set("CLICOLOR_FORCE") && !is("CLICOLOR_FORCE", "0") => true,
            ColorChoice::Auto => is_terminal && !is("CLICOLOR", "0") && !is("TERM", "dumb"),
        }
    }
}

impl From<ColorChoice> for clap::ColorChoice {
    fn from(choice: ColorChoice) -> clap::ColorChoice {
        match choice {
            ColorChoice::Auto => clap::ColorChoice::Auto,
            ColorChoice::Always => clap::ColorChoice::Always,
            ColorChoice::Never => clap::ColorChoice::Never,
        }
    }
}

/// How much is said on standard error.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Verbosity {
    /// Warnings and errors.
    Quiet,
    /// Progress and what a user must know too.
    #[default]
    Usual,
    /// Settings, paths and times too.
    Verbose,
}

/// How this process may talk, and the options every command shares.
#[derive(Clone, Debug)]
pub struct Terminal {
    /// Standard output takes colours.
    pub colour: bool,
    /// `--threads`.
    pub threads: Option<usize>,
    verbosity: Verbosity,
    bars: bool,
    error_colour: bool,
}

impl Terminal {
    /// Looks at the standard streams and at the environment.
    pub fn detect(color: ColorChoice, verbosity: Verbosity, threads: Option<usize>) -> Terminal {
        let [output_is_terminal, is_terminal] = output::are_terminals();
        let variable = |name: &str| std::env::var_os(name);
        Terminal {
            colour: color.applies(output_is_terminal, variable),
            threads,
            verbosity,
            bars: is_terminal && verbosity > Verbosity::Quiet,
            error_colour: color.applies(is_terminal, variable),
        }
    }

    /// The one line with which a failed command ends.
    pub fn error(&self, line: &str) {
        if self.error_colour {
            say(format_args!("\x1b[1;31merror:\x1b[0m {line}"));
        } else {
            say(format_args!("error: {line}"));
        }
    }

    /// A line for people on standard error, unless `--quiet`.
    pub fn note(&self, line: &str) {
        if self.verbosity > Verbosity::Quiet {
            say(line);
        }
    }

    /// Whether details are shown, where making them costs something.
    pub fn is_verbose(&self) -> bool {
        self.verbosity == Verbosity::Verbose
    }

    /// A line on standard error that only `--verbose` shows.
    pub fn detail(&self, line: &str) {
        if self.is_verbose() {
            say(line);
        }
    }

    /// A warning on standard error; shown also under `--quiet`, since it is about the result.
    pub fn warn(&self, line: &str) {
        if self.error_colour {
            say(format_args!("\x1b[1;33mwarning:\x1b[0m {line}"));
        } else {
            say(format_args!("warning: {line}"));
        }
    }

    /// Starts a stage of known (`Some`) or unknown length.
    pub fn progress(&self, label: &str, total: Option<u64>) -> Progress {
        self.start(label, total, if total.is_some() { &BOUNDED } else { &UNBOUNDED })
    }

    /// Starts a stage whose progress is a share of it.
    pub fn progress_share(&self, label: &str) -> Progress {
        self.start(label, Some(SHARES), &BOUNDED)
    }

    /// Starts a stage whose progress is a share of it, and whose messages tell the time left.
    pub fn progress_timed(&self, label: &str) -> Progress {
        self.start(label, Some(SHARES), &TIMED)
    }

    fn start(&self, label: &str, total: Option<u64>, layout: &'static Layout) -> Progress {
        let bar = self.bars.then(|| {
            let bar = match total {
                Some(total) => ProgressBar::new(total),
                None => ProgressBar::new_spinner(),
            };
            bar.set_draw_target(ProgressDrawTarget::stderr_with_hz(8));
            bar.set_style(layout.style(self.error_colour));
            bar.set_prefix(label.to_string());
            bar
        });
        Progress {
            bar,
            layout: Cell::new(layout),
            colour: self.error_colour,
            quiet: self.verbosity == Verbosity::Quiet,
            label: label.to_string(),
            total: Cell::new(total),
            start: Instant::now(),
            last: Cell::new(Instant::now()),
            pace: Cell::default(),
            announced: Cell::new(false),
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

/// How the line of a bar is laid out.
#[derive(Debug)]
struct Layout {
    /// What stands between the label and the message.
    before_message: &'static str,
    /// Columns of that and of the space after it.
    width: usize,
    /// Whether the time left follows from what is done.
    tells_time: bool,
}

// The widest times are as "59m" and "(59m left)".
const BOUNDED: Layout =
    Layout { before_message: "{bar:16} {percent:>3}% {elapsed} ({eta} left)", width: 37, tells_time: true };
const UNBOUNDED: Layout = Layout { before_message: "{spinner} {elapsed}", width: 6, tells_time: false };
const TIMED: Layout = Layout { before_message: "{bar:16} {percent:>3}% {elapsed}", width: 26, tells_time: false };
/// Columns of a label at least.
const LABEL: usize = 10;
/// Seconds of a stage by which it is judged how long it takes.
const JUDGED_BY: f64 = 2.0;
/// Shorter stages are over before it is read how long they take.
const WORTH_ANNOUNCING: f64 = 10.0;
/// Steps of a bar that is told shares.
const SHARES: u64 = 1000;
/// Columns of a terminal that does not tell its width.
const USUAL_WIDTH: usize = 80;

impl Layout {
    fn style(&self, colour: bool) -> ProgressStyle {
        let middle = if colour {
            self.before_message.replace("{bar:16}", "{bar:16.cyan/blue}")
        } else {
            self.before_message.to_owned()
        };
        let template = format!("{{prefix:<{LABEL}}} {middle} {{wide_msg}}");
        let style = ProgressStyle::with_template(&template);
        debug_assert!(style.is_ok(), "{template}");
        style.unwrap_or_else(|_| ProgressStyle::default_bar()).progress_chars("━━─")
    }

    /// Columns left for the message in a terminal of so many.
    fn room(&self, label: &str, columns: usize) -> usize {
        columns.saturating_sub(label.chars().count().max(LABEL) + 1 + self.width)
    }
}

/// As many of the parts as fit, which come in the order of their importance. Of a first part that is too long itself, its first
/// words.
fn fitting<S: AsRef<str>>(parts: &[S], room: usize) -> String {
    let mut line = String::new();
    let mut left = room;
    for part in parts.iter().map(AsRef::as_ref).filter(|part| !part.is_empty()) {
        let separator = if line.is_empty() { "" } else { SEPARATOR };
        let width = separator.chars().count() + part.chars().count();
        if width > left {
            break;
        }
        left -= width;
        line += separator;
        line += part;
    }
    match parts.first() {
        Some(first) if line.is_empty() => first_words(first.as_ref(), room),
        _ => line,
    }
}

const SEPARATOR: &str = " · ";

/// The words that fit, and an ellipsis.
fn first_words(text: &str, room: usize) -> String {
    let mut line = String::new();
    for word in text.split(' ') {
        let gap = usize::from(!line.is_empty());
        if line.chars().count() + gap + word.chars().count() + 2 > room {
            break;
        }
        if gap == 1 {
            line.push(' ');
        }
        line += word;
    }
    if line.is_empty() { line } else { line + " …" }
}

/// The progress of one stage: a bar on a terminal, else a plain line every ten seconds.
#[derive(Debug)]
pub struct Progress {
    bar: Option<ProgressBar>,
    layout: Cell<&'static Layout>,
    colour: bool,
    quiet: bool,
    label: String,
    total: Cell<Option<u64>>,
    start: Instant,
    last: Cell<Instant>,
    pace: Cell<Pace>,
    /// Whether it was said how long the stage takes.
    announced: Cell<bool>,
}

impl Progress {
    /// `done` units of the total are done; `message` says more.
    pub fn set(&self, done: u64, message: &str) {
        self.set_parts(done, &[message]);
    }

    /// `done` units of the total are done; the parts say more, the most important first. Those for which a line has no room
    /// are left out.
    pub fn set_parts<S: AsRef<str>>(&self, done: u64, parts: &[S]) {
        if let Some(line) = self.announcement(done, self.seconds()) {
            self.note(&line);
        }
        if let Some(bar) = &self.bar {
            let columns = output::columns().unwrap_or(USUAL_WIDTH);
            bar.set_position(done);
            bar.set_message(fitting(parts, self.layout.get().room(&self.label, columns)));
        } else if !self.quiet && self.last.get().elapsed() >= PLAIN_INTERVAL {
            self.last.set(Instant::now());
            let share = match self.total.get() {
                Some(total) if total > 0 => format!(" {:.0} %", 100.0 * done as f64 / total as f64),
                _ => String::new(),
            };
            // Nothing cuts a line of a file.
            let message = fitting(parts, usize::MAX);
            let elapsed = format::duration(self.start.elapsed().as_secs_f64());
            say(format_args!("{}:{share} {message} ({elapsed})", self.label));
        }
    }

    /// How long the stage takes, once its first seconds show it: said once, but not if that is over before the line is read, nor
    /// of a stage whose messages tell the time.
    fn announcement(&self, done: u64, seconds: f64) -> Option<String> {
        let mut pace = self.pace.get();
        pace.add(done, seconds);
        self.pace.set(pace);
        if self.announced.get() || seconds < JUDGED_BY || !self.layout.get().tells_time {
            return None;
        }
        let all = pace.whole(self.total.get()?)?;
        self.announced.set(true);
        (all >= WORTH_ANNOUNCING).then(|| format!("{}: about {}", self.label, format::duration(all)))
    }

    /// `share` of a stage begun by [`Terminal::progress_share`] or [`Terminal::progress_timed`] is done; `message` says more.
    pub fn set_share(&self, share: f64, message: &str) {
        self.set_share_parts(share, &[message]);
    }

    /// As [`set_share`](Self::set_share), with parts as [`set_parts`](Self::set_parts) takes them.
    pub fn set_share_parts<S: AsRef<str>>(&self, share: f64, parts: &[S]) {
        self.set_parts((share * SHARES as f64) as u64, parts);
    }

    /// Tells the total once it is known.
    pub fn set_total(&self, total: u64) {
        let is_new = self.total.replace(Some(total)).is_none();
        if is_new {
            self.layout.set(&BOUNDED);
        }
        if let Some(bar) = &self.bar {
            if is_new {
                bar.set_style(BOUNDED.style(self.colour));
            }
            bar.set_length(total);
        }
    }

    /// A line above the bar.
    pub fn note(&self, line: &str) {
        match &self.bar {
            Some(bar) => bar.suspend(|| say(line)),
            None if !self.quiet => say(line),
            None => {}
        }
    }

    /// A stage of unknown length without progress reports: only the elapsed time changes.
    pub fn busy(&self, message: &str) {
        match &self.bar {
            Some(bar) => {
                bar.set_message(message.to_string());
                let bar = bar.downgrade();
                // Where the system gives no thread, the time stays as it is.
                let _ = std::thread::Builder::new().spawn(move || {
                    while let Some(bar) = bar.upgrade().filter(|bar| !bar.is_finished()) {
                        bar.tick();
                        std::thread::sleep(Duration::from_millis(125));
                    }
                });
            }
            None if !self.quiet => say(format_args!("{}: {message}", self.label)),
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_environment_decides_about_colours_unless_the_option_does() {
        let with = |choice: ColorChoice, is_terminal: bool, set: &[(&str, &str)]| {
            choice.applies(is_terminal, |name| {
                set.iter().find(|(known, _)| *known == name).map(|(_, value)| OsString::from(*value))
            })
        };
        let auto = |is_terminal: bool, set: &[(&str, &str)]| with(ColorChoice::Auto, is_terminal, set);
        assert!(auto(true, &[]) && !auto(false, &[]));
        assert!(!auto(true, &[("NO_COLOR", "1")]) && auto(true, &[("NO_COLOR", "")]));
        assert!(auto(false, &[("CLICOLOR_FORCE", "1")]) && !auto(false, &[("CLICOLOR_FORCE", "0")]));
        assert!(!auto(true, &[("CLICOLOR_FORCE", "1"), ("NO_COLOR", "1")]));
        assert!(!auto(true, &[("CLICOLOR", "0")]) && !auto(true, &[("TERM", "dumb")]));
        assert!(with(ColorChoice::Always, false, &[("NO_COLOR", "1")]));
        assert!(!with(ColorChoice::Never, true, &[("CLICOLOR_FORCE", "1")]));
    }

    #[test]
    fn the_colour_of_help_is_found_before_the_command_line_is_parsed() {
        let found = |words: &[&str]| ColorChoice::on_command_line(words.iter().map(OsString::from));
        assert_eq!(found(&["cloze", "--color", "never", "--help"]), ColorChoice::Never);
        assert_eq!(found(&["cloze", "fill", "--color=always"]), ColorChoice::Always);
        assert_eq!(found(&["cloze", "--color"]), ColorChoice::Auto);
        assert_eq!(found(&["cloze", "fill", "--", "--color=never"]), ColorChoice::Auto);
    }

    /// Lines of progress were cut at the terminal's edge, in the middle of a word: "of 47.3k distin".
    #[test]
    fn parts_of_a_line_that_do_not_fit_are_left_out_whole() {
        let parts = ["1:15 left", "step 1,200/5,000", "loss 0.4321", "12.3k tokens/s"];
        assert_eq!(fitting(&parts, 200), "1:15 left · step 1,200/5,000 · loss 0.4321 · 12.3k tokens/s");
        assert_eq!(fitting(&parts, 42), "1:15 left · step 1,200/5,000 · loss 0.4321");
        assert_eq!(fitting(&parts, 41), "1:15 left · step 1,200/5,000");
        assert_eq!(fitting(&parts, 9), "1:15 left");
        assert_eq!(fitting(&["words counted: 47.3k distinct"], 20), "words counted: …");
        assert_eq!(fitting(&["words"], 4), "");
        assert_eq!(fitting::<&str>(&[], 4), "");
        assert_eq!(fitting(&["", "rows"], 10), "rows");
        // A terminal of 80 columns has room for what matters.
        assert_eq!(fitting(&parts, TIMED.room("training", 80)), "1:15 left · step 1,200/5,000 · loss 0.4321");
    }

    #[test]
    fn a_long_stage_says_once_how_long_it_takes() {
        let terminal = Terminal::detect(ColorChoice::Never, Verbosity::Quiet, None);
        let stage = terminal.progress_share("evaluating");
        assert_eq!(stage.announcement(50, 0.5), None, "too early to tell");
        assert_eq!(stage.announcement(50, 2.0), None, "nothing was done meanwhile");
        assert_eq!(stage.announcement(110, 2.5), Some("evaluating: about 32 s".to_owned()));
        assert_eq!(stage.announcement(200, 4.0), None, "said already");
        let judged = |stage: &Progress, done: u64| {
            stage.announcement(done / 4, 0.5);
            stage.announcement(done, 2.0)
        };
        assert_eq!(judged(&terminal.progress_share("evaluating"), 500), None, "over before it is read");
        assert_eq!(judged(&terminal.progress_timed("training"), 100), None);
        let reading = terminal.progress("shards", None);
        assert_eq!(judged(&reading, 100), None, "of unknown length");
        reading.set_total(1000);
        assert_eq!(reading.announcement(100, 2.0), Some("shards: about 20 s".to_owned()));
    }

    #[test]
    fn the_room_of_a_message_is_what_the_bar_leaves() {
        for layout in [&BOUNDED, &TIMED, &UNBOUNDED] {
            let shown = layout
                .before_message
                .replace("{bar:16}", &"━".repeat(16))
                .replace("{percent:>3}", "100")
                .replace("{elapsed}", "59m")
                .replace("{eta}", "59m")
                .replace("{spinner}", "⠁");
            assert_eq!(shown.chars().count() + 1, layout.width, "{shown}");
            layout.style(true);
        }
    }
}
