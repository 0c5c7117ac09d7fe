//! `cloze pretrain`: trains a model with a recipe.

mod find_lr;
mod text;

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::atomic::AtomicBool;

use anyhow::{Context, Result};
use cloze_comm::Communicator;
use cloze_engine::DeviceChoice;
use cloze_hub::Contents;
use cloze_model::rtd_pair::{DISCRIMINATOR, GENERATOR};
use cloze_train::plan::End;
use cloze_train::pretrain::{DryRun, Estimate, Outcome, PretrainEvent, device_of_run, dry_run, pretrain};
use cloze_train::recipe::ObjectiveKind;
use cloze_train::run::{EvalLine, LossFigure, RunFolder, TrainLine};
use cloze_train::train_loop::{Event, StepEvent};
use cloze_train::{Recipe, TrainError};
use serde_json::json;

use self::find_lr::FindLrArguments;
use self::text::TextArguments;
use super::model::HubArguments;
use crate::failure::{INTERRUPTED, usage};
use crate::interrupt::GracefulStop;
use crate::terminal::{Progress, Terminal};
use crate::{format, program, ranks};

/// `cloze pretrain RECIPE`
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  cloze pretrain --text texts/ --minutes 60 --out runs/first\n  \
        cloze pretrain mini --set data=shards --out runs/mini",
    after_long_help = "RECIPE is a name listed by `cloze recipe`, or a TOML file. Recipes such as `mini` train for half an hour \
        (--set minutes=3 for a first test), those such as `mini-paper` for the million steps of the paper.\n\n\
        The run folder contains recipe.toml, metrics.jsonl, TensorBoard events, checkpoints/, and model/ in the layout of \
        Hugging Face. Ctrl-C (SIGINT) or SIGTERM finishes the step and saves, with exit code 130; model/ is then the current \
        model, and the same command with --resume continues bit-exactly. A second Ctrl-C exits at once.\n\n\
        With --text, the command learns a vocabulary, writes shards to OUT/shards and trains. Without RECIPE, the model is a \
        ModernBERT whose vocabulary, size and batch follow from the size of the text, the measured speed of the machine and the \
        minutes; the run prints what it chose, and its recipe.toml has all values. --set and RECIPE have precedence.\n\n\
        --from continues a model on other text, with its own vocabulary (`cloze vocab extend` adds words first).\n\n\
        --find-lr is a range test (Smith 2017): training steps with exponentially growing rates. It suggests the rate at which \
        the loss falls fastest, but at most a tenth of the rate at which it diverges.\n\nExamples:\n  \
        cloze pretrain --text texts/ --minutes 60 --out runs/first\n  \
        cloze pretrain --from bert-base-uncased --text clinical/ --minutes 60 --out runs/clinical\n  \
        cloze pretrain mini --set data=shards --out runs/mini\n  \
        cloze pretrain mini --set data=shards --set minutes=3 --out runs/first\n  \
        cloze pretrain mini-paper --set data=shards --dry-run\n  \
        cloze pretrain mini --set data=shards --find-lr\n  \
        cloze pretrain my.toml --set data=shards --set optimizer.lr=5e-4\n  \
        cloze pretrain mini --set data=shards --out runs/mini --resume\n  \
        cloze report runs/mini"
)]
pub struct Arguments {
    /// Recipe: a name such as mini (see `cloze recipe`), or a TOML file [default with --text: modern, with sizes for the
    /// text, the machine and the time; with --from: continued]
    #[arg(value_name = "RECIPE", required_unless_present_any = ["text", "from"])]
    recipe: Option<PathBuf>,

    #[command(flatten)]
    text: TextArguments,

    /// Continue with the weights of a model: a folder, a run, or a name on the Hugging Face Hub
    #[arg(long, value_name = "DIR|NAME")]
    from: Option<PathBuf>,

    /// Duration of the run, as --set minutes=N
    #[arg(long, value_name = "N", value_parser = crate::values::above_zero)]
    minutes: Option<f64>,

    /// Override a key of the recipe, such as optimizer.lr=1e-3 or phase.0.seq_len=64; KEY= removes a key; can be
    /// repeated
    #[arg(long = "set", value_name = "KEY=VALUE")]
    overrides: Vec<String>,

    /// Run folder [default: runs/ and the recipe's name]
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,

    // For the recipe's model.init and objective.teacher, which may be run folders or names on the Hub.
    #[command(flatten)]
    hub: HubArguments,

    /// Continue the run in the folder from its last checkpoint
    #[arg(long)]
    resume: bool,

    /// Check everything, measure some steps, estimate the time, and write nothing
    #[arg(long)]
    dry_run: bool,

    #[command(flatten)]
    find_lr: FindLrArguments,

    /// Print the result as one JSON object
    #[arg(long)]
    json: bool,
}

/// The recipe of `--text`, and that of `--from`.
const OF_TEXT: &str = "modern";
const OF_MODEL: &str = "continued";

impl Arguments {
    fn named_recipe(&self) -> PathBuf {
        let default = if self.from.is_some() { OF_MODEL } else { OF_TEXT };
        self.recipe.clone().unwrap_or_else(|| PathBuf::from(default))
    }

    /// Overrides of the recipe: those of the options, then what was chosen, then those of `--set`, which have precedence.
    fn overrides(&self, chosen: Vec<String>) -> Vec<String> {
        let from = self.from.iter().map(|from| format!("model.init={}", from.display()));
        let minutes = self.minutes.iter().map(|minutes| format!("minutes={minutes}"));
        from.chain(minutes).chain(chosen).chain(self.overrides.iter().cloned()).collect()
    }

    /// The recipe with all overrides. Prepares the text, if it is given.
    fn open_recipe(&self, named: &Path, out: &Path, terminal: &Terminal) -> Result<Recipe> {
        let overrides = self.overrides(Vec::new());
        if !self.text.is_given() {
            return Ok(Recipe::open(named, &overrides)?);
        }
        if overrides.iter().any(|set| set.split('=').next().is_some_and(|key| key.trim() == "data")) {
            return Err(usage("--text prepares the data itself: give --text, or --set data=SHARDS"));
        }
        let folder = RunFolder::new(out);
        if self.resume {
            if !folder.recipe().is_file() {
                return Err(TrainError::NoRun(out.to_owned()).into());
            }
            // What was chosen for the run does not change, even if the machine is now faster or slower.
            let mut recipe = Recipe::open(&folder.recipe(), &overrides)?;
            recipe.instruction_set = None;
            return Ok(recipe);
        }
        folder.check_new()?;
        // Errors of the recipe appear before the long work.
        let recipe = Recipe::open(named, &overrides)?;
        let minutes = recipe.minutes.ok_or_else(|| usage("--text needs the duration of the run: give --minutes"))?;
        let init = recipe.model.init.as_ref().map(|init| self.hub.find(init, Contents::Model, terminal)).transpose()?;
        let prepared = self.text.prepare(out, minutes, init.as_deref(), terminal)?;
        let mut chosen = vec![format!("data={}", prepared.shards.display())];
        if self.recipe.is_none() && self.from.is_none() {
            chosen.extend(prepared.sizes);
        }
        let recipe = Recipe::open(named, &self.overrides(chosen))?;
        terminal.note(&format!("recipe      {}: {}", named.display(), text::describe(&recipe)));
        Ok(recipe)
    }
}

pub fn run(arguments: &Arguments, terminal: &Terminal) -> Result<ExitCode> {
    if arguments.text.is_given() && !ranks::current().is_single() {
        return Err(usage(
            "--text prepares the data in one process: run cloze vocab and cloze prepare first, and give --set data=SHARDS",
        ));
    }
    let named = arguments.named_recipe();
    let out = match &arguments.out {
        Some(out) => out.clone(),
        None => {
            let stem = named.file_stem();
            Path::new("runs")
                .join(stem.context("the recipe has no file name to derive the run folder from; give --out")?)
        }
    };
    let mut recipe = arguments.open_recipe(&named, &out, terminal)?;
    apply_global_options(&mut recipe, terminal)?;
    if let Some(init) = &mut recipe.model.init {
        *init = match arguments.hub.find(init, Contents::Model, terminal) {
            Ok(folder) => folder,
            // A resumed run has its own weights, so its initial model may have been removed.
            Err(error) => match stored_init(&out)?.filter(|_| arguments.resume) {
                Some(init) => {
                    terminal.note(&format!("{error:#}; model.init is read from the run's recipe.toml instead"));
                    init
                }
                None => return Err(error),
            },
        };
    }
    if let Some(teacher) = &mut recipe.objective.teacher {
        *teacher = arguments.hub.find(teacher, Contents::Model, terminal)?;
    }
    let stop = crate::interrupt::stop();
    let mut stdout = crate::output::stdout();
    if !ranks::current().is_single() && (arguments.dry_run || arguments.find_lr.find_lr) {
        return Err(usage("--dry-run and --find-lr run in one process"));
    }
    if arguments.dry_run {
        let device = device_of_run(&recipe, &out, arguments.resume, &Communicator::single())?;
        let Some(report) = dry_run(&recipe, &device, &out, arguments.resume, stop)? else {
            return Ok(ExitCode::from(INTERRUPTED));
        };
        write_dry_run(&mut stdout, &report, &recipe, &out, arguments.json)?;
        return Ok(ExitCode::SUCCESS);
    }
    if arguments.find_lr.find_lr {
        return find_lr::run(&arguments.find_lr, &recipe, &out, arguments.json, stop, terminal);
    }
    let outcome = pretrain_with_bar(&recipe, &out, arguments.resume, ranks::current(), stop, terminal)?;
    if arguments.json {
        let line = json!({
            "out": format::path(&out),
            "step": outcome.step,
            "finished": outcome.finished,
            "checkpoint": format::path(&outcome.checkpoint),
            "model": outcome.model.as_deref().map(format::path),
            "evaluation": outcome.evaluation,
            "peak_rss_bytes": cloze_files::machine::peak_memory(),
        });
        writeln!(stdout, "{line}")?;
    } else if let Some(model) = &outcome.model {
        writeln!(stdout, "{}, model in {}", describe_end(&outcome, &recipe), model.display())?;
        writeln!(stdout, "\nNext commands:")?;
        for command in next_commands(model, &recipe, &out, outcome.evaluation.is_some()) {
            writeln!(stdout, "  {command}")?;
        }
    } else {
        writeln!(
            stdout,
            "interrupted after step {} and saved; the current model is in {}. To continue:\n  {}",
            format::count(outcome.step),
            RunFolder::new(&out).model().display(),
            resume_command(arguments, &out, terminal),
        )?;
    }
    Ok(if outcome.finished { ExitCode::SUCCESS } else { ExitCode::from(INTERRUPTED) })
}

/// The `model.init` of the run in a folder, if there is such a run.
fn stored_init(out: &Path) -> Result<Option<PathBuf>> {
    let path = RunFolder::new(out).recipe();
    Ok(if path.is_file() { Recipe::open_unchecked(&path)?.model.init } else { None })
}

/// Commands to try with a new model.
fn next_commands(model: &Path, recipe: &Recipe, out: &Path, evaluates: bool) -> Vec<String> {
    let cloze = program::name();
    let [model, data, out] = [model, &recipe.data, out].map(|path| program::quoted(path.display()));
    let mut commands = Vec::new();
    let is_rtd = recipe.objective.kind == ObjectiveKind::Rtd;
    let predicts_tokens = recipe.objective.predicts_tokens();
    if evaluates && predicts_tokens && !is_rtd {
        commands.push(format!("{cloze} evaluate pretrain --model {model} --data {data}"));
    }
    if predicts_tokens && [ObjectiveKind::MaskedLm, ObjectiveKind::Distill].contains(&recipe.objective.kind) {
        commands.push(format!("{cloze} fill --model {model} \"The capital of France is [MASK].\""));
    }
    if is_rtd {
        commands.push(format!("{cloze} fill --model {model}/{GENERATOR} \"The capital of France is [MASK].\""));
        commands.push(format!("{cloze} finetune classify --model {model}/{DISCRIMINATOR} --train FILE --out FOLDER"));
    }
    commands.push(format!("{cloze} report {out}"));
    commands
}

/// The command that resumes the run.
fn resume_command(arguments: &Arguments, out: &Path, terminal: &Terminal) -> String {
    let overrides = arguments.overrides.iter().map(|argument| format!(" --set {}", program::quoted(argument)));
    let recipe = arguments.recipe.as_ref().map(|recipe| format!(" {}", program::quoted(recipe.display())));
    let from = arguments.from.as_ref().map(|from| format!(" --from {}", program::quoted(from.display())));
    let minutes = arguments.minutes.map(|minutes| format!(" --minutes {minutes}"));
    format!(
        "{} pretrain{}{}{}{}{}{}{} --out {} --resume",
        program::name(),
        recipe.unwrap_or_default(),
        arguments.text.as_typed(),
        from.unwrap_or_default(),
        minutes.unwrap_or_default(),
        overrides.collect::<String>(),
        arguments.hub.as_typed(),
        terminal.as_typed(),
        program::quoted(out.display()),
    )
}

/// Describes the end of a run: its steps, and its time if the time limit ended it.
pub fn describe_end(outcome: &Outcome, recipe: &Recipe) -> String {
    let steps = format::count(outcome.step);
    match (outcome.end, recipe.plan().total_steps()) {
        (End::Seconds(all), Some(total)) => {
            format!("{steps} of {} steps, stopped by the time limit ({})", format::count(total), format::duration(all))
        }
        (End::Seconds(all), None) => format!("{steps} steps in {}", format::duration(all)),
        (End::Steps(_), _) => format!("{steps} steps"),
    }
}

fn write_dry_run(out: &mut dyn Write, report: &DryRun, recipe: &Recipe, run: &Path, json: bool) -> Result<()> {
    let DryRun { estimate, .. } = report;
    let memory = cloze_files::machine::peak_memory();
    let epochs = estimate.tokens() / report.corpus_tokens.max(1) as f64;
    if json {
        let phases: Vec<_> = estimate
            .phases
            .iter()
            .map(|phase| {
                json!({
                    "seq_len": phase.seq_len, "steps": phase.steps.round(), "step_tokens": phase.step_tokens,
                    "step_seconds": phase.step_seconds, "seconds": phase.seconds,
                })
            })
            .collect();
        let line = json!({
            "dry_run": true, "out": format::path(run), "machine": report.machine, "precision": report.precision, "parameters": report.parameters,
            "corpus_tokens": report.corpus_tokens, "steps_done": report.step, "phases": phases, "seconds": estimate.seconds,
            "steps": estimate.steps().round(), "tokens": estimate.tokens(), "epochs": epochs,
            "tokens_per_s": estimate.tokens_per_s(), "peak_rss_bytes": memory,
        });
        writeln!(out, "{line}")?;
        return Ok(());
    }
    let row = |out: &mut dyn Write, name: &str, value: String| writeln!(out, "{name:<12}{value}");
    row(out, "machine", format!("{}, {} ({})", report.machine, report.precision, report.reason))?;
    row(out, "model", format!("{} parameters", format::count(report.parameters as u64)))?;
    row(out, "text", format!("{} tokens", format::count(report.corpus_tokens)))?;
    if report.step > 0 {
        row(out, "done", format!("{} steps", format::count(report.step)))?;
    }
    for (number, phase) in estimate.phases.iter().enumerate() {
        row(
            out,
            &format!("phase {}", number + 1),
            format!(
                "{} steps of {} at length {}, {} tokens each: {}",
                format::count(phase.steps.round() as u64),
                format::short_duration(phase.step_seconds),
                phase.seq_len,
                format::count(phase.step_tokens.round() as u64),
                format::duration(phase.seconds),
            ),
        )?;
    }
    let limit = match (report.end, recipe.minutes) {
        (End::Seconds(_), Some(minutes)) => format!(" (minutes = {minutes})"),
        (End::Steps(steps), _) => format!(" (steps = {steps})"),
        (End::Seconds(_), None) => String::new(),
    };
    // For a resumed run the estimate is for the remaining steps.
    row(
        out,
        if report.step > 0 { "remaining" } else { "total" },
        format!("about {}{limit}", format::duration(estimate.seconds)),
    )?;
    row(
        out,
        "",
        format!(
            "{} tokens ({epochs:.1} epochs), at {} tokens/s",
            format::short(estimate.tokens()),
            format::short(estimate.tokens_per_s()),
        ),
    )?;
    if let Some(memory) = memory {
        row(out, "memory", format!("peak {} so far", format::bytes(memory)))?;
    }
    for message in &report.messages {
        row(out, "note", message.clone())?;
    }
    writeln!(out, "nothing was written; without --dry-run the run folder is {}", run.display())?;
    Ok(())
}

/// Gives a recipe the threads and the device of the command line, and says why, if `auto` finds no GPU.
pub fn apply_global_options(recipe: &mut Recipe, terminal: &Terminal) -> Result<()> {
    recipe.threads = terminal.threads.or(recipe.threads);
    recipe.device = terminal.device.unwrap_or(recipe.device);
    if recipe.device == DeviceChoice::Auto {
        let gpu = terminal.gpu_of(recipe.device)?;
        recipe.device = if gpu.is_some() { DeviceChoice::Cuda(0) } else { DeviceChoice::Cpu };
    }
    Ok(())
}

/// Pre-trains a model with a progress bar.
pub fn pretrain_with_bar(
    recipe: &Recipe,
    out: &Path,
    resume: bool,
    ranks: &Communicator,
    stop: &AtomicBool,
    terminal: &Terminal,
) -> Result<Outcome> {
    let bar = terminal.progress_timed("training");
    let device = device_of_run(recipe, out, resume, ranks)?;
    let mut graceful_stop = None;
    let outcome = pretrain(recipe, &device, out, resume, ranks, stop, &mut |event| {
        if let Event::Start(_) = event {
            graceful_stop = Some(GracefulStop::begin());
        }
        show_event(&bar, event);
    })?;
    bar.finish();
    Ok(outcome)
}

fn show_event(bar: &Progress, event: &PretrainEvent) {
    match event {
        Event::Start(start) => bar.note(&format!(
            "{}{}, {} ({}): {} parameters, {} tokens of text{}",
            if start.ranks > 1 { format!("{} ranks, each: ", start.ranks) } else { String::new() },
            start.machine,
            start.precision,
            start.reason,
            format::count(start.parameters as u64),
            format::short(start.corpus_tokens as f64),
            if start.step > 0 {
                format!(", continuing after step {}", format::count(start.step))
            } else {
                String::new()
            },
        )),
        Event::Estimate(estimate) => bar.note(&describe_estimate(estimate)),
        Event::Step(step) => bar.set_fraction_parts(step.progress, &progress_parts(step)),
        Event::Eval { evaluation, .. } => bar.note(&describe_evaluation(evaluation)),
        Event::Saved { step, path } => {
            bar.note(&format!("step {}: saved {}", format::count(*step), path.display()));
        }
        Event::Message(message) => bar.note(message),
        _ => {}
    }
}

/// An evaluation in one line: the first loss, which selects the best checkpoint, then the accuracy of the others.
fn describe_evaluation(line: &EvalLine) -> String {
    let mut text = format!("step {}: held-out", format::count(line.step));
    for (number, figure) in line.losses.iter().enumerate() {
        let (title, accuracy) =
            (figure.title(), figure.accuracy.map(|share| format!("accuracy {:.1} %", 100.0 * share)));
        if number == 0 {
            let loss = figure.loss.map_or_else(|| "none".to_owned(), |loss| format!("{loss:.3}"));
            let perplexity = figure.perplexity.map(|value| format!("perplexity {value:.1}"));
            let bits = figure.bits_per_character.map(|value| format!("{value:.3} bits per character"));
            let details: Vec<String> = perplexity.into_iter().chain(bits).collect();
            text += &format!(" {title} loss {loss}");
            if !details.is_empty() {
                text += &format!(" ({})", details.join(", "));
            }
            text.extend(accuracy.map(|accuracy| format!(", {accuracy}")));
        } else {
            let loss = || figure.loss.map(|loss| format!("loss {loss:.3}"));
            text.extend(accuracy.or_else(loss).map(|figure| format!("; {title} {figure}")));
        }
    }
    text
}

/// The estimated time in one line.
fn describe_estimate(estimate: &Estimate) -> String {
    let phases = estimate.phases.iter().filter(|phase| phase.steps >= 0.5).map(|phase| {
        format!(
            "{} steps of {} at length {}",
            format::count(phase.steps.round() as u64),
            format::short_duration(phase.step_seconds),
            phase.seq_len
        )
    });
    format!(
        "about {} remaining: {}; {} tokens at {} per second",
        format::duration(estimate.seconds),
        phases.collect::<Vec<_>>().join(", "),
        format::short(estimate.tokens()),
        format::short(estimate.tokens_per_s()),
    )
}

/// The parts of a step's progress message, the most important first. Those that do not fit into the line are left out.
fn progress_parts(event: &StepEvent<TrainLine>) -> Vec<String> {
    let line = &event.figures;
    let mut parts = Vec::new();
    parts.extend(line.losses.deciding().map(|figure| {
        let accuracy = figure.accuracy.map_or_else(String::new, |accuracy| format!(" {:.1} %", 100.0 * accuracy));
        format!("{} {:.2}{accuracy}", figure.title(), figure.loss.unwrap_or(f64::NAN))
    }));
    let others = || line.losses.iter().skip(1);
    let short = |figure: &LossFigure| match figure.accuracy {
        Some(accuracy) => Some(format!("{} {:.0} %", figure.title(), 100.0 * accuracy)),
        None => Some(format!("{} {:.3}", figure.title(), figure.loss?)),
    };
    parts.extend(others().filter_map(short));
    let left = event.seconds_left.map(|left| format!("{} left", format::duration(left)));
    // Show only the limit that ends the run: a step limit that is never reached has no information.
    match event.end {
        End::Steps(total) => {
            parts.extend(left);
            parts.push(format!("step {}/{}", format::count(line.step), format::count(total)));
        }
        End::Seconds(all) => {
            parts.extend(left.map(|left| format!("{left} of {}", format::duration(all))));
            parts.push(format!("step {}", format::count(line.step)));
        }
    }
    parts.push(format!("{} tokens/s", format::short(line.tokens_per_s)));
    parts.push(format!("{:.0} % of peak", 100.0 * line.share_of_peak));
    parts.extend(others().filter_map(|figure| Some(format!("{} loss {:.3}", figure.title(), figure.loss?))));
    parts.push(format!("rate {:.1e}", line.lr));
    parts.push(format!("gradient {:.2}", line.grad_norm));
    parts
}

#[cfg(test)]
mod tests {
    use cloze_train::pretrain::PhaseEstimate;

    use super::*;
    use crate::terminal::{ColorChoice, Verbosity};

    fn step(step: u64, nsp: Option<(f64, f64)>, end: End, progress: f64, left: f64) -> StepEvent<TrainLine> {
        let figure = |name, loss, accuracy| {
            let mut figure = LossFigure::named(name);
            (figure.loss, figure.accuracy) = (loss, accuracy);
            figure
        };
        let (loss, accuracy) = nsp.unzip();
        let mut figures = TrainLine::default();
        figures.step = step;
        figures.losses = [figure("mlm", Some(6.5), Some(0.051)), figure("nsp", loss, accuracy)].into_iter().collect();
        StepEvent { figures, end, progress, seconds_left: Some(left) }
    }

    #[test]
    fn progress_shows_the_most_important_parts_first() {
        let line = super::progress_parts(&step(1200, None, End::Steps(5000), 0.24, 75.0)).join(" · ");
        assert!(line.starts_with("MLM 6.50 5.1 % · 1:15 left · step 1,200/5,000 · 0 tokens/s"), "{line}");
        let line = super::progress_parts(&step(1200, Some((0.6, 0.7)), End::Steps(5000), 0.24, 75.0)).join(" · ");
        assert!(line.starts_with("MLM 6.50 5.1 % · NSP 70 % · 1:15 left · "), "{line}");
        assert!(line.contains(" · NSP loss 0.600 · "), "{line}");
    }

    #[test]
    fn evaluations_show_every_loss() {
        let text = r#"{"step":1500,"seconds":2.5,"mlm_loss":7.5,"mlm_perplexity":1808.04,"mlm_accuracy":0.125,"nsp_loss":0.75,"nsp_accuracy":0.5}"#;
        let line = describe_evaluation(&serde_json::from_str(text).unwrap());
        assert_eq!(
            line,
            "step 1,500: held-out MLM loss 7.500 (perplexity 1808.0), accuracy 12.5 %; NSP accuracy 50.0 %"
        );
        let without_nsp = text.replace("0.75", "null").replace(":0.5}", ":null}").replace("mlm", "clm");
        let line = describe_evaluation(&serde_json::from_str(&without_nsp).unwrap());
        assert_eq!(line, "step 1,500: held-out CLM loss 7.500 (perplexity 1808.0), accuracy 12.5 %");
    }

    /// Regression: "step 20/1,000,000" was shown next to a bar that followed the elapsed time.
    #[test]
    fn a_run_with_a_time_limit_shows_no_step_limit() {
        let line = super::progress_parts(&step(20, None, End::Seconds(1800.0), 0.1, 1620.0)).join(" · ");
        assert!(line.contains(" · 27:00 left of 30:00 · step 20 · "), "{line}");
    }

    /// Regression: the resume command lacked --revision and --offline, so that model.init could be another revision or
    /// was downloaded.
    #[test]
    fn the_resume_command_has_every_option() {
        #[derive(clap::Parser)]
        struct Line {
            #[command(flatten)]
            arguments: Arguments,
        }
        let resumed = |line: &str| {
            let Line { arguments } = clap::Parser::parse_from(line.split(' '));
            let mut terminal = Terminal::detect(ColorChoice::Never, Verbosity::Quiet, Some(2));
            terminal.device = Some(DeviceChoice::Cuda(1));
            resume_command(&arguments, Path::new("runs/my run"), &terminal)
        };
        let command = resumed("pretrain my.toml --set steps=9 --revision v1;2 --offline");
        let expected = "pretrain my.toml --set steps=9 --revision 'v1;2' --offline --threads 2 --device cuda:1 --out 'runs/my run' --resume";
        assert!(command.ends_with(expected), "{command}");
        assert!(
            resumed("pretrain mini")
                .ends_with("pretrain mini --threads 2 --device cuda:1 --out 'runs/my run' --resume")
        );
    }

    #[test]
    fn estimates_leave_out_finished_phases() {
        let phase = |seq_len, steps: f64, step_seconds| PhaseEstimate {
            seq_len,
            step_tokens: 4000.0,
            step_seconds,
            steps,
            seconds: steps * step_seconds,
        };
        let estimate = Estimate { phases: vec![phase(128, 0.0, 0.5), phase(512, 100.0, 1.0)], seconds: 100.0 };
        assert_eq!(
            describe_estimate(&estimate),
            "about 1:40 remaining: 100 steps of 1.0 s at length 512; 400.0k tokens at 4.0k per second"
        );
    }
}
