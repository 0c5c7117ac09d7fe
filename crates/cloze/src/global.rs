//! The options that every command has.

use crate::terminal::ColorChoice;

/// The heading of these options.
const GLOBAL: &str = "Global options";

/// The options that every command has.
#[derive(Debug, clap::Args)]
pub struct GlobalOptions {
    /// Compute threads [default: all cores this process may use]
    #[arg(long, global = true, value_name = "N", value_parser = crate::values::threads, help_heading = GLOBAL)]
    pub threads: Option<usize>,

    /// When to use colours
    #[arg(long, global = true, value_name = "WHEN", value_enum, default_value_t, help_heading = GLOBAL)]
    pub color: ColorChoice,

    /// Say more on standard error: settings, paths, the device, times
    #[arg(long, short, global = true, conflicts_with = "quiet", help_heading = GLOBAL)]
    pub verbose: bool,

    /// No progress on standard error, only results, warnings and errors
    #[arg(long, short, global = true, help_heading = GLOBAL)]
    pub quiet: bool,
}
