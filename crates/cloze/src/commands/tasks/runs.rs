//! Several fine-tunings of one task, with different seeds or a grid of settings: runs them one after another,
//! summarises the results and keeps the best model.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::{Context, Result};
use cloze_comm::Communicator;
use cloze_engine::Device;
use cloze_tasks::finetune::{
    Best, Estimate, Evaluation, Figures, FineTuneConfig, FineTuneEvent, Outcome, check_data, device_of_run, dry_run,
    finetune, instruction_set_note, read_settings, restore_compute, settings_file,
};
use cloze_tasks::metrics::mean_std::mean_std;
use cloze_tasks::{AnyRows, AnyTask, Settings, TaskError, TaskSettings};
use cloze_train::device::device_of_ranks;
use cloze_train::run::RunFolder;
use cloze_train::train_loop::{Event, Score, is_better};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::format;
use crate::interrupt::GracefulStop;
use crate::terminal::{Progress, Terminal};

/// A planned run: the name of its folder, and its settings.
#[derive(Debug, Clone)]
pub struct PlannedRun {
    pub name: String,
    pub settings: Settings,
}

/// The result of a run; an entry of results.json.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct RunResult {
    pub name: String,
    pub seed: u64,
    pub batch: usize,
    pub lr: f64,
    pub epochs: u32,
    /// The best evaluation; `None` for a failed run.
    pub best: Option<Best>,
    pub train_seconds: f64,
    /// The reason of a failure.
    pub failed: Option<String>,
}

impl RunResult {
    fn new(settings: &Settings, name: &str) -> RunResult {
        let Settings { seed, batch, lr, epochs, .. } = *settings;
        RunResult { name: name.to_owned(), seed, batch, lr, epochs, best: None, train_seconds: 0.0, failed: None }
    }

    pub fn score(&self) -> f64 {
        self.selection_score().value
    }

    /// The score that selects the best run.
    fn selection_score(&self) -> Score {
        self.best.as_ref().map_or(Score { value: f64::NAN, loss: f64::NAN }, Best::decides)
    }
}

/// What all runs share.
#[derive(Clone, Copy)]
pub struct Common<'a> {
    pub task: &'a dyn AnyTask,
    pub train: &'a dyn AnyRows,
    pub dev: &'a dyn AnyRows,
    /// The training and dev files.
    pub files: [&'a [PathBuf]; 2],
    pub model: &'a Path,
    pub out: &'a Path,
    pub resume: bool,
    pub device: &'a Device,
    pub ranks: &'a Communicator,
    /// The task settings to store in the model.
    pub task_settings: &'a TaskSettings,
}

impl<'a> Common<'a> {
    /// The configuration of a planned run in a folder.
    fn config(&self, planned: &'a PlannedRun, out: &'a Path, resume: bool) -> FineTuneConfig<'a> {
        FineTuneConfig {
            task: self.task,
            train: self.train,
            dev: self.dev,
            files: self.files,
            model: self.model,
            settings: &planned.settings,
            out,
            resume,
            device: self.device,
            ranks: self.ranks,
            task_settings: self.task_settings,
        }
    }
}

/// The outcome of one or several runs.
pub struct RunsOutcome {
    pub done: Vec<RunResult>,
    /// The folder of the best model; `None` if the runs were interrupted or all failed.
    pub model: Option<PathBuf>,
    pub finished: bool,
}

const RESULTS: &str = "results.json";

/// Does a single run, directly in the output folder.
pub fn run_one(
    common: &Common<'_>,
    planned: &PlannedRun,
    stop: &AtomicBool,
    terminal: &Terminal,
) -> Result<RunsOutcome> {
    let outcome = train(common, common.out, planned, common.resume, stop, terminal)?;
    let mut done = RunResult::new(&planned.settings, &planned.name);
    done.train_seconds = outcome.train_seconds;
    done.best = outcome.best;
    Ok(RunsOutcome { done: vec![done], model: outcome.model, finished: outcome.finished })
}

/// The estimate for one or several runs.
#[derive(Debug, Serialize)]
pub struct DryRun {
    pub runs: usize,
    pub steps: u64,
    pub evaluations: u64,
    pub seconds: f64,
}

/// Estimates the time of the runs with real steps at each batch size, and writes nothing. `None` if interrupted.
pub fn dry_run_all(common: &Common<'_>, plan: &[PlannedRun], stop: &AtomicBool) -> Result<Option<DryRun>> {
    let mut sum = DryRun { runs: plan.len(), steps: 0, evaluations: 0, seconds: 0.0 };
    let add = |sum: &mut DryRun, estimate: &Estimate, times: f64| {
        sum.steps += (estimate.steps as f64 * times).round() as u64;
        sum.evaluations += (estimate.evaluations as f64 * times).round() as u64;
        sum.seconds += estimate.seconds * times;
    };
    if let [only] = plan {
        let device = device_of(common, common.out, common.resume)?;
        let common = &Common { device: &device, ..*common };
        let Some(estimate) = dry_run(&common.config(only, common.out, common.resume), stop)? else { return Ok(None) };
        add(&mut sum, &estimate, 1.0);
        return Ok(Some(sum));
    }
    let done = if common.resume {
        finished_runs(common, plan)?
    } else {
        RunFolder::new(common.out).check_new()?;
        Vec::new()
    };
    let ComparablePlan { plan, device, .. } = comparable_plan(common, plan)?;
    let common = &Common { device: &device, ..*common };
    let remaining: Vec<&PlannedRun> = plan.iter().filter(|planned| !is_done(&done, planned)).collect();
    sum.runs = remaining.len();
    let mut measured: BTreeMap<usize, (u32, Estimate)> = BTreeMap::new();
    for planned in remaining {
        let folder = common.out.join(&planned.name);
        let Settings { batch, epochs, .. } = planned.settings;
        if common.resume && is_resumable(&folder) {
            let device = device_of(common, &folder, true)?;
            let common = &Common { device: &device, ..*common };
            let Some(rest) = dry_run(&common.config(planned, &folder, true), stop)? else { return Ok(None) };
            add(&mut sum, &rest, 1.0);
            continue;
        }
        let (measured_epochs, estimate) = match measured.entry(batch) {
            Entry::Occupied(entry) => *entry.get(),
            Entry::Vacant(entry) => {
                // A separate folder name: the rest of a killed run would count as a folder in use.
                let out = common.out.join("dry-run");
                let Some(estimate) = dry_run(&common.config(planned, &out, false), stop)? else { return Ok(None) };
                *entry.insert((epochs, estimate))
            }
        };
        // All epochs take the same time.
        add(&mut sum, &estimate, f64::from(epochs) / f64::from(measured_epochs.max(1)));
    }
    Ok(Some(sum))
}

fn is_done(done: &[RunResult], planned: &PlannedRun) -> bool {
    done.iter().any(|run| run.name == planned.name)
}

/// Whether a run has started and can be resumed.
fn is_resumable(folder: &Path) -> bool {
    settings_file(folder).is_file() && folder.join("checkpoints").is_dir()
}

/// The results of the finished runs. They will be compared with the remaining ones, so their settings and rows must be
/// the same.
fn finished_runs(common: &Common<'_>, plan: &[PlannedRun]) -> Result<Vec<RunResult>> {
    let results = common.out.join(RESULTS);
    if !results.is_file() {
        let out = common.out.display();
        anyhow::bail!("{out}: no runs to resume (no {RESULTS}); start them without --resume");
    }
    let text = fs::read(&results).with_context(|| format!("cannot read {}", results.display()))?;
    let done: Vec<RunResult> =
        serde_json::from_slice(&text).with_context(|| format!("{} is damaged", results.display()))?;
    let of_plan = |run: &RunResult| plan.iter().find(|planned| planned.name == run.name);
    for run in &done {
        let folder = common.out.join(&run.name);
        let (Some(planned), Ok(settings)) = (of_plan(run), read_settings(&folder)) else { continue };
        if !settings.same_trajectory(&planned.settings) {
            let path = settings_file(&folder);
            let differ = settings.differences(&planned.settings)?.join(", ");
            let hint = "give the same settings, or choose another --out";
            anyhow::bail!("{}: {} was run with {differ}; {hint}", path.display(), run.name);
        }
    }
    if let (Some(run), Some(planned)) = (done.first(), plan.first()) {
        check_data(&common.config(planned, common.out, true), &common.out.join(&run.name))?;
    }
    Ok(done)
}

/// A plan whose runs all use the same device settings, so that they can be compared.
struct ComparablePlan {
    plan: Vec<PlannedRun>,
    device: Device,
    /// A note for the user.
    note: Option<String>,
}

/// When runs are resumed, all of them use the instruction set and precision of the first run, which another machine
/// might choose differently.
fn comparable_plan(common: &Common<'_>, plan: &[PlannedRun]) -> Result<ComparablePlan> {
    let mut original = plan.iter().filter_map(|planned| read_settings(&common.out.join(&planned.name)).ok());
    let Some(original) = original.next().filter(|_| common.resume) else {
        return Ok(ComparablePlan { plan: plan.to_vec(), device: common.device.clone(), note: None });
    };
    let mut device = common.device.clone();
    let mut adapted = Vec::new();
    for planned in plan {
        let (settings, run_device) = restore_compute(&original, &planned.settings, common.device)?;
        device = run_device;
        // A run that has started continues with its own settings.
        let has_started = is_resumable(&common.out.join(&planned.name));
        adapted.push(if has_started { planned.clone() } else { PlannedRun { settings, ..planned.clone() } });
    }
    // A resumed run prints the note itself.
    let is_noted = plan.iter().any(|planned| is_resumable(&common.out.join(&planned.name)));
    let note = instruction_set_note(&original, &device).filter(|_| !is_noted);
    Ok(ComparablePlan { plan: adapted, device, note })
}

/// Does all runs one after another, each in its own folder. Finished runs are not repeated when resuming. The best
/// model is moved to `model/`; the other models are removed.
pub fn run_all(
    common: &Common<'_>,
    plan: &[PlannedRun],
    stop: &AtomicBool,
    terminal: &Terminal,
) -> Result<RunsOutcome> {
    let results = common.out.join(RESULTS);
    let mut done: Vec<RunResult> = Vec::new();
    if common.resume {
        done = finished_runs(common, plan)?;
    } else {
        RunFolder::new(common.out).check_new()?;
        fs::create_dir_all(common.out).with_context(|| format!("cannot create {}", common.out.display()))?;
        write_results(&results, &done)?;
    }
    let ComparablePlan { plan, device, note } = comparable_plan(common, plan)?;
    let common = &Common { device: &device, ..*common };
    if let Some(note) = note {
        terminal.note(&note);
    }
    for (number, planned) in plan.iter().enumerate() {
        let folder = common.out.join(&planned.name);
        if is_done(&done, planned) {
            continue;
        }
        if stop.load(Ordering::Relaxed) {
            return Ok(RunsOutcome { done, model: None, finished: false });
        }
        terminal.note(&format!("run {} of {}: {}", number + 1, plan.len(), planned.name));
        let resume = common.resume && is_resumable(&folder);
        if common.resume && !resume && folder.is_dir() {
            // Killed before its first checkpoint, or between its end and its entry in the results: start again.
            fs::remove_dir_all(&folder).with_context(|| format!("cannot remove {}", folder.display()))?;
        }
        let mut result = RunResult::new(&planned.settings, &planned.name);
        match train(common, &folder, planned, resume, stop, terminal) {
            Ok(outcome) if !outcome.finished => return Ok(RunsOutcome { done, model: None, finished: false }),
            Ok(outcome) => {
                result.train_seconds = outcome.train_seconds;
                result.best = outcome.best;
            }
            // A diverged run is a result too; continue with the others.
            Err(error) => match error.downcast::<TaskError>() {
                Ok(TaskError::NotFinite { step }) => result.failed = Some(format!("not finite at step {step}")),
                Ok(TaskError::Logits(_)) => result.failed = Some("logits not finite".to_owned()),
                other => {
                    if !common.resume && done.is_empty() && !folder.exists() {
                        // Nothing was started, so the folder is removed again. An error in doing so is harmless.
                        let _ = fs::remove_file(&results).and_then(|()| fs::remove_dir(common.out));
                    }
                    return Err(other.map_or_else(|error| error, Into::into));
                }
            },
        }
        // Without scores the first model is kept.
        let best_of = |best: Option<Score>, run: &RunResult| {
            let score = run.selection_score();
            if is_better(score, best) { Some(score) } else { best }
        };
        let best_so_far = done.iter().filter(|run| run.failed.is_none()).fold(None, best_of);
        let is_best = result.failed.is_none() && is_better(result.selection_score(), best_so_far);
        done.push(result);
        let (model, best_model) = (folder.join("model"), common.out.join("model"));
        if model.is_dir() {
            if is_best {
                if best_model.exists() {
                    fs::remove_dir_all(&best_model)
                        .with_context(|| format!("cannot replace {}", best_model.display()))?;
                }
                fs::rename(&model, &best_model).with_context(|| format!("cannot move {}", model.display()))?;
            } else {
                fs::remove_dir_all(&model).with_context(|| format!("cannot remove {}", model.display()))?;
            }
        }
        write_results(&results, &done)?;
    }
    let model = common.out.join("model");
    Ok(RunsOutcome { done, model: model.is_dir().then_some(model), finished: true })
}

fn write_results(path: &Path, done: &[RunResult]) -> Result<()> {
    let text = serde_json::to_string_pretty(done)? + "\n";
    Ok(cloze_files::write(path, text.as_bytes())?)
}

/// The device of a run: a resumed run uses its original instruction set.
fn device_of(common: &Common<'_>, out: &Path, resume: bool) -> Result<Device> {
    device_of_ranks(common.ranks, Some(common.device.threads()), || {
        Ok(if resume { device_of_run(out, common.device)? } else { common.device.clone() })
    })
}

fn train(
    common: &Common<'_>,
    out: &Path,
    planned: &PlannedRun,
    resume: bool,
    stop: &AtomicBool,
    terminal: &Terminal,
) -> Result<Outcome> {
    let device = device_of(common, out, resume)?;
    let common = &Common { device: &device, ..*common };
    let config = common.config(planned, out, resume);
    let bar = terminal.progress_timed("training");
    let mut graceful_stop = None;
    let outcome = finetune(&config, stop, &mut |event| {
        if let Event::Start(_) = event {
            graceful_stop = Some(GracefulStop::begin());
        }
        show_event(&bar, event);
    });
    bar.finish();
    Ok(outcome?)
}

pub fn show_event(bar: &Progress, event: &FineTuneEvent) {
    match event {
        Event::Start(start) => {
            bar.note(&start.machine);
            let continuing =
                if start.step > 0 { format!(", continuing after step {}", start.step) } else { String::new() };
            bar.note(&format!(
                "{} examples, {} tokens, {} steps{continuing}",
                format::count(start.examples as u64),
                format::count(start.tokens as u64),
                format::count(start.steps),
            ));
            if start.cut_rows > 0 {
                bar.note(&format!(
                    "{} rows were longer than the maximum length and were truncated",
                    format::count(start.cut_rows as u64)
                ));
            }
            start.notes.iter().for_each(|note| bar.note(note));
        }
        Event::Step(event) => {
            let Figures { step, loss, tokens_per_s, .. } = event.figures;
            let mut parts = Vec::new();
            parts.extend(event.seconds_left.map(|left| format!("{} left", format::duration(left))));
            parts.push(format!("step {}/{}", format::count(step), format::count(event.end.steps())));
            parts.push(format!("loss {loss:.4}"));
            parts.push(format!("{} tokens/s", format::short(tokens_per_s)));
            bar.set_fraction_parts(event.progress, &parts);
        }
        Event::Eval { evaluation: Evaluation { epoch, loss, scores, .. }, best } => {
            let values: Vec<String> = scores.values.iter().map(|(name, value)| format!("{name} {value:.4}")).collect();
            let best = if *best { " (best)" } else { "" };
            bar.note(&format!("epoch {epoch:.2}: dev loss {loss:.4}, {}{best}", values.join(", ")));
            if let Some(answer) = &scores.collapsed {
                bar.note(&format!("every prediction is {answer:?}: the model has collapsed (so far)"));
            }
        }
        Event::Message(message) => bar.note(message),
        Event::Estimate(estimate) => bar.note(&describe_estimate(estimate)),
        _ => {}
    }
}

/// The estimated time in one line.
pub fn describe_estimate(estimate: &Estimate) -> String {
    format!(
        "about {} remaining: {} steps of {}, {} evaluations",
        format::duration(estimate.seconds),
        format::count(estimate.steps),
        format::short_duration(estimate.step_seconds),
        format::count(estimate.evaluations),
    )
}

/// The results as one JSON object.
pub fn summary(outcome: &RunsOutcome, out: &Path, train_rows: usize, dev_rows: usize) -> Value {
    let scores: Vec<f64> = outcome.done.iter().map(RunResult::score).filter(|score| !score.is_nan()).collect();
    json!({
        "out": format::path(out),
        "finished": outcome.finished,
        "model": outcome.model.as_deref().map(format::path),
        "train_rows": train_rows,
        "dev_rows": dev_rows,
        "runs": outcome.done,
        "score": mean_std(&scores),
        "peak_rss_bytes": cloze_files::machine::peak_memory(),
    })
}

/// The results as a table: one line for each run, then mean and standard deviation.
pub fn table(outcome: &RunsOutcome) -> String {
    // The score that selects the best model comes first.
    let bests = outcome.done.iter().filter_map(|run| run.best.as_ref());
    let mut names: Vec<String> = bests.map(|best| best.metric.clone()).take(1).collect();
    for scores in outcome.done.iter().filter_map(|run| run.best.as_ref()).filter_map(|best| best.scores.as_object()) {
        for (name, value) in scores {
            if value.is_number() && name != "rows" && !names.contains(name) {
                names.push(name.clone());
            }
        }
    }
    let mut rows = vec![
        [vec!["run".to_owned(), "epoch".to_owned()], names.clone(), vec!["minutes".to_owned(), String::new()]].concat(),
    ];
    for run in &outcome.done {
        let value = |name: &String| {
            let found = run.best.as_ref().and_then(|best| best.scores.get(name)?.as_f64());
            found.map_or("-".to_owned(), |value| format!("{value:.4}"))
        };
        let epoch = run.best.as_ref().map_or("-".to_owned(), |best| format!("{:.2}", best.epoch));
        let collapsed = run.best.as_ref().and_then(|best| best.collapsed.as_ref());
        let remark = match (&run.failed, collapsed) {
            (Some(why), _) => format!("FAILED: {why}"),
            (None, Some(answer)) => format!("COLLAPSED: always {answer:?}"),
            (None, None) => String::new(),
        };
        let minutes = format!("{:.2}", run.train_seconds / 60.0);
        rows.push([vec![run.name.clone(), epoch], names.iter().map(value).collect(), vec![minutes, remark]].concat());
    }
    // Mean and standard deviation of each setting with several seeds.
    let mut groups: Vec<(usize, f64, u32)> = outcome.done.iter().map(|run| (run.batch, run.lr, run.epochs)).collect();
    groups.dedup();
    for (batch, lr, epochs) in groups {
        let runs: Vec<&RunResult> =
            outcome.done.iter().filter(|run| (run.batch, run.lr, run.epochs) == (batch, lr, epochs)).collect();
        if runs.len() < 2 {
            continue;
        }
        let cell = |name: &String| {
            let values: Vec<f64> =
                runs.iter().filter_map(|run| run.best.as_ref()?.scores.get(name)?.as_f64()).collect();
            match mean_std(&values) {
                Some(spread) => match spread.deviation {
                    Some(deviation) => format!("{:.4} ± {deviation:.4}", spread.mean),
                    None => format!("{:.4}", spread.mean),
                },
                None => "-".to_owned(),
            }
        };
        let label = if runs.len() == outcome.done.len() {
            "mean ± sd".to_owned()
        } else {
            format!("mean ± sd of batch{batch}-lr{lr:e}-epochs{epochs}")
        };
        let minutes = runs.iter().map(|run| run.train_seconds).sum::<f64>() / 60.0;
        let last = vec![format!("{minutes:.2} total"), String::new()];
        rows.push([vec![label, String::new()], names.iter().map(cell).collect(), last].concat());
    }
    let widths: Vec<usize> = (0..rows[0].len())
        .map(|column| rows.iter().map(|row| row[column].chars().count()).max().unwrap_or(0))
        .collect();
    let mut text = String::new();
    for row in rows {
        let cells: Vec<String> = row.iter().zip(&widths).map(|(cell, width)| format!("{cell:<width$}")).collect();
        text += cells.join("  ").trim_end();
        text.push('\n');
    }
    text
}
