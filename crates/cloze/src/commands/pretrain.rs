//! `cloze pretrain`: a recipe → a model.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::atomic::AtomicBool;

use anyhow::{Context, Result};
use cloze_hub::Wanted;
use cloze_train::Recipe;
use cloze_train::pretrain::{Outcome, pretrain};
use cloze_train::progress::{News, StepNews};
use serde_json::json;

use super::INTERRUPTED;
use super::model::HubArguments;
use crate::format;
use crate::terminal::{Progress, Terminal};

/// `cloze pretrain RECIPE.toml`
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Example:\n  cloze pretrain recipes/mini.toml --set data=shards --out runs/mini",
    after_long_help = "The run's folder receives recipe.toml, metrics.jsonl, TensorBoard events, checkpoints/ and, at the \
        end, model/ in Hugging Face's layout. Ctrl-C (SIGINT) or SIGTERM finishes the step and saves, with exit code 130; \
        the same command with --resume goes on bit-exactly. A second Ctrl-C stops at once.\n\nExamples:\n  \
        cloze pretrain recipes/mini.toml --set data=shards --out runs/mini\n  \
        cloze pretrain recipes/mini.toml --set data=shards --set minutes=30 --set optimizer.lr=5e-4\n  \
        cloze pretrain recipes/mini.toml --set data=shards --out runs/mini --resume\n  \
        cloze report runs/mini"
)]
pub struct Arguments {
    /// The recipe: see recipes/ for commented ones of every size
    #[arg(value_name = "RECIPE.toml")]
    recipe: PathBuf,

    /// Override a key of the recipe, such as optimizer.lr=1e-3 or phase.0.seq_len=64; may be repeated
    #[arg(long = "set", value_name = "KEY=VALUE")]
    overrides: Vec<String>,

    /// The run's folder [default: runs/ and the recipe's name]
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,

    // For a recipe's model.init, which may be a run's folder or a name.
    #[command(flatten)]
    hub: HubArguments,

    /// Go on with the run in the folder from its last checkpoint
    #[arg(long)]
    resume: bool,

    /// Print the outcome as one JSON object
    #[arg(long)]
    json: bool,
}

pub fn run(arguments: &Arguments, terminal: &Terminal) -> Result<ExitCode> {
    let mut recipe = Recipe::open(&arguments.recipe, &arguments.overrides)?;
    if terminal.threads.is_some() {
        recipe.threads = terminal.threads;
    }
    if let Some(init) = &mut recipe.model.init {
        match arguments.hub.find(init, Wanted::Model, terminal) {
            Ok(folder) => *init = folder,
            // A run that goes on has weights of its own: what it began with may be gone.
            Err(_) if arguments.resume => {}
            Err(error) => return Err(error),
        }
    }
    let out = match &arguments.out {
        Some(out) => out.clone(),
        None => {
            let stem =
                arguments.recipe.file_stem().context("the recipe has no file name to call the run by: give --out")?;
            Path::new("runs").join(stem)
        }
    };
    let stop = cloze_train::interrupt::watch()?;
    let outcome = pretrain_with_bar(&recipe, &out, arguments.resume, &stop, terminal)?;

    let mut stdout = std::io::stdout().lock();
    if arguments.json {
        let line = json!({
            "out": out,
            "step": outcome.step,
            "finished": outcome.finished,
            "checkpoint": outcome.checkpoint,
            "model": outcome.model,
            "evaluation": outcome.evaluation,
            "peak_rss_bytes": format::peak_memory(),
        });
        writeln!(stdout, "{line}")?;
    } else if let Some(model) = &outcome.model {
        writeln!(stdout, "{} steps, model in {}", format::count(outcome.step), model.display())?;
        writeln!(stdout, "curves: cloze report {}", out.display())?;
    } else {
        writeln!(
            stdout,
            "interrupted after step {}, saved in {}; go on with --resume",
            format::count(outcome.step),
            outcome.checkpoint.display()
        )?;
    }
    Ok(if outcome.finished { ExitCode::SUCCESS } else { ExitCode::from(INTERRUPTED) })
}

/// Pre-trains with a progress bar.
pub fn pretrain_with_bar(
    recipe: &Recipe,
    out: &Path,
    resume: bool,
    stop: &AtomicBool,
    terminal: &Terminal,
) -> Result<Outcome> {
    let bar = terminal.progress_timed("training");
    let outcome = pretrain(recipe, out, resume, stop, &mut |news| tell(&bar, news))?;
    bar.finish();
    Ok(outcome)
}

fn tell(bar: &Progress, news: &News) {
    match news {
        News::Start(start) => bar.note(&format!(
            "{}, {} ({}): {} parameters, {} tokens of text{}",
            start.machine,
            start.precision,
            start.reason,
            format::count(start.parameters as u64),
            format::short(start.corpus_tokens as f64),
            if start.step > 0 { format!(", going on after step {}", format::count(start.step)) } else { String::new() },
        )),
        News::Step(step) => bar.set_share(step.progress, &figures(step)),
        News::Eval(line) => bar.note(&format!(
            "step {}: held-out MLM loss {:.3} (perplexity {:.1}), accuracy {:.1} %{}",
            format::count(line.step),
            line.mlm_loss,
            line.mlm_perplexity,
            100.0 * line.mlm_accuracy,
            line.nsp_accuracy.map_or_else(String::new, |share| format!("; NSP accuracy {:.1} %", 100.0 * share)),
        )),
        News::Saved { step, path } => {
            bar.note(&format!("step {}: saved {}", format::count(*step), path.display()));
        }
        News::Message(message) => bar.note(message),
    }
}

/// A step in one line.
fn figures(news: &StepNews) -> String {
    let line = &news.figures;
    let mut text = format!("step {}", format::count(line.step));
    if let Some(total) = news.total_steps {
        text += &format!("/{}", format::count(total));
    }
    if let Some(left) = news.seconds_left {
        text += &format!(" · {} left", format::duration(left));
    }
    text += &format!(" · MLM {:.3} {:.1} %", line.mlm_loss, 100.0 * line.mlm_accuracy);
    if let (Some(loss), Some(accuracy)) = (line.nsp_loss, line.nsp_accuracy) {
        text += &format!(" · NSP {loss:.3} {:.1} %", 100.0 * accuracy);
    }
    text + &format!(
        " · {} tokens/s · {:.0} % of peak · rate {:.1e} · gradient {:.2}",
        format::short(line.tokens_per_s),
        100.0 * line.share_of_peak,
        line.lr,
        line.grad_norm,
    )
}

#[cfg(test)]
mod tests {
    use cloze_train::run::TrainLine;

    use super::*;

    #[test]
    fn a_step_fits_a_line() {
        let figures = TrainLine { step: 1200, mlm_loss: 6.5, mlm_accuracy: 0.051, ..TrainLine::default() };
        let mut news = StepNews { figures, total_steps: Some(5000), progress: 0.24, seconds_left: Some(75.0) };
        let line = super::figures(&news);
        assert!(line.starts_with("step 1,200/5,000 · 1:15 left · MLM 6.500 5.1 % · 0 tokens/s"), "{line}");
        news.figures.nsp_loss = Some(0.6);
        news.figures.nsp_accuracy = Some(0.7);
        assert!(super::figures(&news).contains("NSP 0.600 70.0 %"));
    }
}
