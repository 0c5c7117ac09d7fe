//! Colours, progress bars, notes and errors, depending on whether standard output and standard error are terminals.

use std::cell::Cell;
use std::ffi::OsString;
use std::time::{Duration, Instant};

use cloze_engine::{Device, DeviceChoice, EngineError};
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use crate::format;
use crate::output::{self, write_stderr};
use crate::pace::Pace;

/// Interval between plain progress lines when standard error is not a terminal.
const PLAIN_LINE_INTERVAL: Duration = Duration::from_secs(10);

/// When to use colours.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum ColorChoice {
    /// On a terminal, unless NO_COLOR or CLICOLOR=0 is set; elsewhere if CLICOLOR_FORCE is set
    #[default]
    Auto,
    /// Also in files and pipes
    Always,
    /// Nowhere
    Never,
}

impl ColorChoice {
    /// Finds `--color` in the raw command line, for the parser's own help and errors.
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

    /// Whether to write colours to a stream. See no-color.org and bixense.com/clicolors.
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

/// How much is printed on standard error.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Verbosity {
    /// Only warnings and errors.
    Quiet,
    /// Also progress and notes.
    #[default]
    Normal,
    /// Also settings, paths and times.
    Verbose,
}

/// The settings for output, and the options that every command shares.
#[derive(Clone, Debug)]
pub struct Terminal {
    /// Whether results are coloured.
    pub colour: bool,
    /// `--threads`.
    pub threads: Option<usize>,
    /// `--device`, if it was given.
    pub device: Option<DeviceChoice>,
    verbosity: Verbosity,
    bars: bool,
    error_colour: bool,
}

impl Terminal {
    /// Detects the settings from the standard streams and the environment.
    pub fn detect(color: ColorChoice, verbosity: Verbosity, threads: Option<usize>) -> Terminal {
        let [output_is_terminal, is_terminal] = output::are_terminals();
        let variable = |name: &str| std::env::var_os(name);
        Terminal {
            colour: color.applies(output_is_terminal, variable),
            threads,
            device: None,
            verbosity,
            bars: is_terminal && verbosity > Verbosity::Quiet,
            error_colour: color.applies(is_terminal, variable),
        }
    }

    /// The device of `--device`: the CPU by default. If `auto` finds no GPU, says why.
    pub fn open_device(&self) -> Result<Device, EngineError> {
        match self.gpu_of(self.device.unwrap_or_default())? {
            Some(gpu) => {
                self.note(&gpu.describe());
                Ok(gpu)
            }
            None => Device::cpu(self.threads),
        }
    }

    /// The GPU of a choice, if it is one. If `auto` finds none, says why.
    pub fn gpu_of(&self, choice: DeviceChoice) -> Result<Option<Device>, EngineError> {
        let (gpu, reason) = choice.gpu()?;
        if let Some(reason) = reason {
            self.note(&format!("no GPU is used: {reason}"));
        }
        Ok(gpu)
    }

    /// The options of the device as they were given, for a command that continues this one.
    pub fn as_typed(&self) -> String {
        let threads = self.threads.map_or_else(String::new, |threads| format!(" --threads {threads}"));
        let device = self.device.map_or_else(String::new, |device| format!(" --device {device}"));
        threads + &device
    }

    /// The same terminal without progress and notes.
    pub fn quiet(&self) -> Terminal {
        Terminal { verbosity: Verbosity::Quiet, bars: false, ..self.clone() }
    }

    /// Prints the error line of a failed command.
    pub fn error(&self, line: &str) {
        if self.error_colour {
            write_stderr(format_args!("\x1b[1;31merror:\x1b[0m {line}"));
        } else {
            write_stderr(format_args!("error: {line}"));
        }
    }

    /// Prints a line on standard error, unless `--quiet`.
    pub fn note(&self, line: &str) {
        if self.verbosity > Verbosity::Quiet {
            write_stderr(line);
        }
    }

    /// Whether [`detail`](Self::detail) prints, for details that are expensive to compute.
    pub fn is_verbose(&self) -> bool {
        self.verbosity == Verbosity::Verbose
    }

    /// Whether only results, warnings and errors are printed.
    pub fn is_quiet(&self) -> bool {
        self.verbosity == Verbosity::Quiet
    }

    /// Prints a line on standard error with `--verbose` only.
    pub fn detail(&self, line: &str) {
        if self.is_verbose() {
            write_stderr(line);
        }
    }

    /// Prints a warning on standard error, also with `--quiet`, because it concerns the result.
    pub fn warn(&self, line: &str) {
        if self.error_colour {
            write_stderr(format_args!("\x1b[1;33mwarning:\x1b[0m {line}"));
        } else {
            write_stderr(format_args!("warning: {line}"));
        }
    }

    /// Starts a stage of known (`Some`) or unknown length.
    pub fn progress(&self, label: &str, total: Option<u64>) -> Progress {
        self.start_stage(label, total, if total.is_some() { &BOUNDED } else { &UNBOUNDED })
    }

    /// Starts a stage whose progress is given as a fraction from 0 to 1.
    pub fn progress_fraction(&self, label: &str) -> Progress {
        self.start_stage(label, Some(FRACTION_STEPS), &BOUNDED)
    }

    /// Like [`progress_fraction`](Self::progress_fraction), for messages that contain the remaining time themselves.
    pub fn progress_timed(&self, label: &str) -> Progress {
        self.start_stage(label, Some(FRACTION_STEPS), &TIMED)
    }

    fn start_stage(&self, label: &str, total: Option<u64>, layout: &'static Layout) -> Progress {
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
            start_time: Instant::now(),
            last_line: Cell::new(Instant::now()),
            pace: Cell::default(),
            announced: Cell::new(false),
        }
    }

    /// `text` in bold, if results are coloured.
    pub fn bold(&self, text: &str) -> String {
        self.paint("1", text)
    }

    /// `text` in the SGR style `code`, if results are coloured.
    pub fn paint(&self, code: &str, text: &str) -> String {
        if self.colour { format!("\x1b[{code}m{text}\x1b[0m") } else { text.to_string() }
    }
}

/// The layout of a progress bar's line.
#[derive(Debug)]
struct Layout {
    /// Template of the part between the label and the message.
    before_message: &'static str,
    /// Width of that part and of the space after it, in columns.
    width: usize,
    /// Whether the line shows the remaining time.
    shows_remaining: bool,
}

// The widest times look like "59m" and "(59m left)".
const BOUNDED: Layout =
    Layout { before_message: "{bar:16} {percent:>3}% {elapsed} ({eta} left)", width: 37, shows_remaining: true };
const UNBOUNDED: Layout = Layout { before_message: "{spinner} {elapsed}", width: 6, shows_remaining: false };
const TIMED: Layout = Layout { before_message: "{bar:16} {percent:>3}% {elapsed}", width: 26, shows_remaining: false };
/// Minimum width of a label in columns.
const MIN_LABEL_WIDTH: usize = 10;
/// Seconds of a stage before its total time is estimated.
const MIN_MEASURED_SECONDS: f64 = 2.0;
/// Stages estimated shorter than this, in seconds, are not announced.
const MIN_ANNOUNCED_SECONDS: f64 = 10.0;
/// Length of a bar whose progress is given as a fraction.
const FRACTION_STEPS: u64 = 1000;
/// Width in columns if the terminal does not report it.
const DEFAULT_WIDTH: usize = 80;

impl Layout {
    fn style(&self, colour: bool) -> ProgressStyle {
        let middle = if colour {
            self.before_message.replace("{bar:16}", "{bar:16.cyan/blue}")
        } else {
            self.before_message.to_owned()
        };
        let template = format!("{{prefix:<{MIN_LABEL_WIDTH}}} {middle} {{wide_msg}}");
        let style = ProgressStyle::with_template(&template);
        debug_assert!(style.is_ok(), "{template}");
        style.unwrap_or_else(|_| ProgressStyle::default_bar()).progress_chars("━━─")
    }

    /// Width left for the message in a terminal with `columns` columns.
    fn message_width(&self, label: &str, columns: usize) -> usize {
        columns.saturating_sub(label.chars().count().max(MIN_LABEL_WIDTH) + 1 + self.width)
    }
}

/// Joins the first parts that fit into `width` columns. The parts are sorted by importance. If the first part itself is
/// too long, returns its first words.
fn join_fitting<S: AsRef<str>>(parts: &[S], width: usize) -> String {
    let mut line = String::new();
    let mut left = width;
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
        Some(first) if line.is_empty() => first_words(first.as_ref(), width),
        _ => line,
    }
}

const SEPARATOR: &str = " · ";

/// The first words of `text` that fit into `width` columns, and an ellipsis.
fn first_words(text: &str, width: usize) -> String {
    let mut line = String::new();
    for word in text.split(' ') {
        let gap = usize::from(!line.is_empty());
        if line.chars().count() + gap + word.chars().count() + 2 > width {
            break;
        }
        if gap == 1 {
            line.push(' ');
        }
        line += word;
    }
    if line.is_empty() { line } else { line + " …" }
}

/// The progress of one stage: a bar on a terminal, otherwise a plain line every ten seconds.
#[derive(Debug)]
pub struct Progress {
    bar: Option<ProgressBar>,
    layout: Cell<&'static Layout>,
    colour: bool,
    quiet: bool,
    label: String,
    total: Cell<Option<u64>>,
    start_time: Instant,
    last_line: Cell<Instant>,
    pace: Cell<Pace>,
    /// Whether the estimated total time was considered for an announce_estimate.
    announced: Cell<bool>,
}

impl Progress {
    /// Sets the progress to `done` units and shows `message`.
    pub fn set(&self, done: u64, message: &str) {
        self.set_parts(done, &[message]);
    }

    /// Sets the progress to `done` units and shows the parts, the most important first. Parts that do not fit into the
    /// line are left out.
    pub fn set_parts<S: AsRef<str>>(&self, done: u64, parts: &[S]) {
        if let Some(line) = self.announce_estimate(done, self.seconds()) {
            self.note(&line);
        }
        if let Some(bar) = &self.bar {
            let columns = output::columns().unwrap_or(DEFAULT_WIDTH);
            bar.set_position(done);
            bar.set_message(join_fitting(parts, self.layout.get().message_width(&self.label, columns)));
        } else if !self.quiet && self.last_line.get().elapsed() >= PLAIN_LINE_INTERVAL {
            self.last_line.set(Instant::now());
            let share = match self.total.get() {
                Some(total) if total > 0 => format!(" {:.0} %", 100.0 * done as f64 / total as f64),
                _ => String::new(),
            };
            // A line in a file has no maximum width.
            let message = join_fitting(parts, usize::MAX);
            let elapsed = format::duration(self.start_time.elapsed().as_secs_f64());
            write_stderr(format_args!("{}:{share} {message} ({elapsed})", self.label));
        }
    }

    /// A line with the estimated total time, at most once per stage: after its first seconds, if the stage takes long
    /// enough and its messages do not contain the time.
    fn announce_estimate(&self, done: u64, seconds: f64) -> Option<String> {
        let mut pace = self.pace.get();
        pace.add(done, seconds);
        self.pace.set(pace);
        if self.announced.get() || seconds < MIN_MEASURED_SECONDS || !self.layout.get().shows_remaining {
            return None;
        }
        let total = pace.total_seconds(self.total.get()?)?;
        self.announced.set(true);
        (total >= MIN_ANNOUNCED_SECONDS).then(|| format!("{}: about {}", self.label, format::duration(total)))
    }

    /// Sets the progress of a stage started by [`Terminal::progress_fraction`] or [`Terminal::progress_timed`], from 0
    /// to 1, and shows `message`.
    pub fn set_fraction(&self, share: f64, message: &str) {
        self.set_fraction_parts(share, &[message]);
    }

    /// Like [`set_fraction`](Self::set_fraction), with parts as in [`set_parts`](Self::set_parts).
    pub fn set_fraction_parts<S: AsRef<str>>(&self, share: f64, parts: &[S]) {
        self.set_parts((share * FRACTION_STEPS as f64) as u64, parts);
    }

    /// Sets the total, once it is known.
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

    /// Prints a line above the bar, unless `--quiet`.
    pub fn note(&self, line: &str) {
        match &self.bar {
            Some(bar) => bar.suspend(|| write_stderr(line)),
            None if !self.quiet => write_stderr(line),
            None => {}
        }
    }

    /// Shows `message` for a stage without progress reports; only the elapsed time is updated.
    pub fn busy(&self, message: &str) {
        match &self.bar {
            Some(bar) => {
                bar.set_message(message.to_string());
                let bar = bar.downgrade();
                // Without a thread the time is not updated, which does no harm.
                let _ = std::thread::Builder::new().spawn(move || {
                    while let Some(bar) = bar.upgrade().filter(|bar| !bar.is_finished()) {
                        bar.tick();
                        std::thread::sleep(Duration::from_millis(125));
                    }
                });
            }
            None if !self.quiet => write_stderr(format_args!("{}: {message}", self.label)),
            None => {}
        }
    }

    /// Seconds since the start of the stage.
    pub fn seconds(&self) -> f64 {
        self.start_time.elapsed().as_secs_f64()
    }

    /// Ends the stage and removes the bar.
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
    fn environment_controls_colours_unless_the_option_is_given() {
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
    fn colour_choice_is_found_in_the_raw_command_line() {
        let found = |words: &[&str]| ColorChoice::on_command_line(words.iter().map(OsString::from));
        assert_eq!(found(&["cloze", "--color", "never", "--help"]), ColorChoice::Never);
        assert_eq!(found(&["cloze", "fill", "--color=always"]), ColorChoice::Always);
        assert_eq!(found(&["cloze", "--color"]), ColorChoice::Auto);
        assert_eq!(found(&["cloze", "fill", "--", "--color=never"]), ColorChoice::Auto);
    }

    /// Regression: progress lines were cut at the terminal's edge in the middle of a word: "of 47.3k distin".
    #[test]
    fn parts_that_do_not_fit_are_left_out() {
        let parts = ["1:15 left", "step 1,200/5,000", "loss 0.4321", "12.3k tokens/s"];
        assert_eq!(join_fitting(&parts, 200), "1:15 left · step 1,200/5,000 · loss 0.4321 · 12.3k tokens/s");
        assert_eq!(join_fitting(&parts, 42), "1:15 left · step 1,200/5,000 · loss 0.4321");
        assert_eq!(join_fitting(&parts, 41), "1:15 left · step 1,200/5,000");
        assert_eq!(join_fitting(&parts, 9), "1:15 left");
        assert_eq!(join_fitting(&["words counted: 47.3k distinct"], 20), "words counted: …");
        assert_eq!(join_fitting(&["words"], 4), "");
        assert_eq!(join_fitting::<&str>(&[], 4), "");
        assert_eq!(join_fitting(&["", "rows"], 10), "rows");
        // The important parts fit into a terminal of 80 columns.
        assert_eq!(
            join_fitting(&parts, TIMED.message_width("training", 80)),
            "1:15 left · step 1,200/5,000 · loss 0.4321"
        );
    }

    #[test]
    fn a_long_stage_announces_its_estimated_time_once() {
        let terminal = Terminal::detect(ColorChoice::Never, Verbosity::Quiet, None);
        let stage = terminal.progress_fraction("evaluating");
        assert_eq!(stage.announce_estimate(50, 0.5), None, "too early for an estimate");
        assert_eq!(stage.announce_estimate(50, 2.0), None, "no progress");
        assert_eq!(stage.announce_estimate(110, 2.5), Some("evaluating: about 32 s".to_owned()));
        assert_eq!(stage.announce_estimate(200, 4.0), None, "announced already");
        let announced_after = |stage: &Progress, done: u64| {
            stage.announce_estimate(done / 4, 0.5);
            stage.announce_estimate(done, 2.0)
        };
        assert_eq!(
            announced_after(&terminal.progress_fraction("evaluating"), 500),
            None,
            "too short for an announce_estimate"
        );
        assert_eq!(announced_after(&terminal.progress_timed("training"), 100), None);
        let reading = terminal.progress("shards", None);
        assert_eq!(announced_after(&reading, 100), None, "unknown length");
        reading.set_total(1000);
        assert_eq!(reading.announce_estimate(100, 2.0), Some("shards: about 20 s".to_owned()));
    }

    #[test]
    fn layout_widths_match_their_templates() {
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
