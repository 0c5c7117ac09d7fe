//! `cloze pretrain --find-lr`: the learning-rate range test.

use std::fmt::Write as _;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::atomic::AtomicBool;

use anyhow::Result;
use cloze_comm::Communicator;
use cloze_train::Recipe;
use cloze_train::pretrain::{LrRange, LrStep, LrTest, device_of_run, find_lr};
use serde_json::json;

use crate::failure::INTERRUPTED;
use crate::interrupt::GracefulStop;
use crate::terminal::Terminal;

/// The options of the range test.
#[derive(Debug, clap::Args)]
pub struct FindLrArguments {
    /// Find a learning rate: train with growing rates, print the losses and a suggestion, and write nothing
    #[arg(long, conflicts_with_all = ["resume", "dry_run"])]
    pub find_lr: bool,

    /// First rate of --find-lr [default: 1e-6]
    #[arg(long, hide_short_help = true, value_name = "RATE", requires = "find_lr")]
    lr_from: Option<f64>,

    /// Last rate of --find-lr [default: 1]
    #[arg(long, hide_short_help = true, value_name = "RATE", requires = "find_lr")]
    lr_to: Option<f64>,

    /// Steps of --find-lr [default: 100]
    #[arg(long, hide_short_help = true, value_name = "N", requires = "find_lr")]
    lr_steps: Option<u64>,

    /// Maximum minutes of --find-lr; with slow steps, the rate grows faster [default: 5]
    #[arg(long, hide_short_help = true, value_name = "MINUTES", requires = "find_lr")]
    lr_minutes: Option<f64>,

    /// Write the steps of --find-lr to a CSV file
    #[arg(long, hide_short_help = true, value_name = "FILE", requires = "find_lr")]
    lr_csv: Option<PathBuf>,
}

impl FindLrArguments {
    fn range(&self) -> LrRange {
        let mut range = LrRange::default();
        range.lr_from = self.lr_from.unwrap_or(range.lr_from);
        range.lr_to = self.lr_to.unwrap_or(range.lr_to);
        range.lr_steps = self.lr_steps.unwrap_or(range.lr_steps);
        range.lr_minutes = self.lr_minutes.unwrap_or(range.lr_minutes);
        range
    }
}

/// Runs the test and prints its result. `out` is the folder of the run that the recipe is for; nothing is written there.
pub fn run(
    arguments: &FindLrArguments,
    recipe: &Recipe,
    out: &Path,
    as_json: bool,
    stop: &AtomicBool,
    terminal: &Terminal,
) -> Result<ExitCode> {
    let device = device_of_run(recipe, out, false, &Communicator::single())?;
    let bar = terminal.progress_timed("learning rates");
    let graceful_stop = GracefulStop::begin();
    let test = find_lr(recipe, &device, &arguments.range(), stop, &mut |step| {
        bar.set_fraction(step.progress, &format!("rate {:.1e}, loss {:.2}", step.lr, step.smoothed));
    })?;
    drop(graceful_stop);
    bar.finish();
    if let Some(file) = &arguments.lr_csv {
        cloze_files::write(file, csv(&test.steps).as_bytes())?;
    }
    let mut stdout = crate::output::stdout();
    if as_json {
        writeln!(stdout, "{}", to_json(&test))?;
    } else {
        write_table(&mut stdout, &test)?;
    }
    Ok(if test.interrupted { ExitCode::from(INTERRUPTED) } else { ExitCode::SUCCESS })
}

fn csv(steps: &[LrStep]) -> String {
    let mut text = String::from("step,lr,loss,smoothed\n");
    for LrStep { step, lr, loss, smoothed, .. } in steps {
        let _ = writeln!(text, "{step},{lr:e},{loss},{smoothed}");
    }
    text
}

fn to_json(test: &LrTest) -> serde_json::Value {
    let step = |step: &LrStep| json!({"step": step.step, "lr": step.lr, "loss": step.loss, "smoothed": step.smoothed});
    json!({
        "find_lr": true,
        "interrupted": test.interrupted,
        "steps": test.steps.iter().map(step).collect::<Vec<_>>(),
        "steepest": test.steepest,
        "diverged": test.diverged,
        "suggestion": test.suggestion,
    })
}

/// Number of rows of the table, at most.
const ROWS: usize = 25;

fn write_table(out: &mut dyn Write, test: &LrTest) -> Result<()> {
    writeln!(out, "{:>5}  {:>8}  {:>8}  {:>8}", "step", "rate", "loss", "smoothed")?;
    let stride = test.steps.len().div_ceil(ROWS).max(1);
    // The last row is always shown: it is the step at which the loss diverged.
    let last = test.steps.len().saturating_sub(1);
    for (_, step) in test.steps.iter().enumerate().filter(|(row, _)| row % stride == 0 || *row == last) {
        writeln!(out, "{:>5}  {:>8.1e}  {:>8.3}  {:>8.3}", step.step, step.lr, step.loss, step.smoothed)?;
    }
    let fastest = test.steepest.map(|lr| format!("the loss falls fastest at a rate of {lr:.1e}"));
    let diverged = match test.diverged {
        Some(lr) => format!("it diverges at {lr:.1e}"),
        None => "it does not diverge in this range".to_owned(),
    };
    writeln!(out, "\n{}; {diverged}", fastest.as_deref().unwrap_or("the loss does not fall in this range"))?;
    match test.suggestion {
        Some(lr) => writeln!(out, "suggested peak: --set optimizer.lr={lr:.1e}")?,
        None if test.interrupted => writeln!(out, "interrupted: no suggestion")?,
        None => writeln!(out, "no suggestion: try lower rates (--lr-from), more steps (--lr-steps) or larger batches")?,
    }
    Ok(())
}
