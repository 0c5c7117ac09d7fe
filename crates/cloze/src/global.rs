//! The global options.

use cloze_engine::DeviceChoice;

use crate::terminal::ColorChoice;

/// Heading of these options in the help.
const GLOBAL: &str = "Global options";

/// Options of every command.
#[derive(Debug, clap::Args)]
pub struct GlobalOptions {
    /// Compute threads [default: all cores this process may use]
    #[arg(long, global = true, value_name = "N", value_parser = crate::values::threads, help_heading = GLOBAL)]
    pub threads: Option<usize>,

    /// What computes: cpu, cuda (a GPU), cuda:1, or auto [default: cpu]
    #[arg(long, global = true, value_name = "DEVICE", help_heading = GLOBAL)]
    pub device: Option<DeviceChoice>,

    /// When to use colours
    #[arg(long, global = true, value_name = "WHEN", value_enum, default_value_t, help_heading = GLOBAL)]
    pub color: ColorChoice,

    /// Print more on standard error: settings, paths, the device, times
    #[arg(long, short, global = true, conflicts_with = "quiet", help_heading = GLOBAL)]
    pub verbose: bool,

    /// Print only results, warnings and errors, no progress
    #[arg(long, short, global = true, help_heading = GLOBAL)]
    pub quiet: bool,
}
