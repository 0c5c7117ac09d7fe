//! `cloze bench devices`: what `--device` can choose on this machine.

use std::io::Write;

use anyhow::Result;
use cloze_engine::Device;
use serde_json::json;

use crate::terminal::Terminal;

/// Options of `cloze bench devices`.
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:\n  cloze bench devices")]
pub struct Arguments {
    /// Print one JSON object for each line
    #[arg(long)]
    json: bool,
}

/// Prints the CPU, NVIDIA's libraries and the GPUs.
pub fn run(arguments: &Arguments, terminal: &Terminal) -> Result<()> {
    let mut lines = vec![("cpu".to_owned(), Ok(Device::cpu(terminal.threads)?.describe()))];
    lines.extend(Device::cuda_report());
    let width = lines.iter().map(|(name, _)| name.len()).max().unwrap_or(0);
    let mut out = crate::output::stdout();
    for (name, found) in &lines {
        if arguments.json {
            let line = match found {
                Ok(found) => json!({"name": name, "found": found}),
                Err(problem) => json!({"name": name, "problem": problem}),
            };
            writeln!(out, "{line}")?;
        } else {
            let text = match found {
                Ok(found) => found.clone(),
                Err(problem) => format!("no: {problem}"),
            };
            writeln!(out, "{name:width$}  {text}")?;
        }
    }
    Ok(())
}
