//! Several fine-tunings of one task, of seeds or of a grid of settings: run in turn, summed up, the best model kept.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::{Context, Result};
use cloze_engine::Device;
use cloze_tasks::finetune::{
    Best, Estimate, Evaluation, Figures, FineTuneConfig, FineTuneEvent, Outcome, check_data, device_of_run, dry_run,
    finetune, instruction_set_note, read_settings, restore_compute, settings_file,
};
use cloze_tasks::metrics::mean_std::mean_std;
use cloze_tasks::{AnyRows, AnyTask, Settings, TaskError, TaskSettings};
use cloze_train::run::RunFolder;
use cloze_train::train_loop::{Event, Score, is_better};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::format;
use crate::interrupt::Polling;
use crate::terminal::{Progress, Terminal};

/// A run to be made: its folder's name and its settings.
#[derive(Debug, Clone)]
pub struct Planned {
    pub name: String,
    pub settings: Settings,
}

/// What became of a run.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Done {
    pub name: String,
    pub seed: u64,
    pub batch: usize,
    pub lr: f64,
    pub epochs: u32,
    /// The best evaluation; none for a run that failed.
    pub best: Option<Best>,
    pub train_seconds: f64,
    /// Why it failed, if it did.
    pub failed: Option<String>,
}

impl Done {
    fn new(settings: &Settings, name: &str) -> Done {
        let Settings { seed, batch, lr, epochs, .. } = *settings;
        Done { name: name.to_owned(), seed, batch, lr, epochs, best: None, train_seconds: 0.0, failed: None }
    }

    pub fn score(&self) -> f64 {
        self.decides().value
    }

    /// What decides whether this run is the best.
    fn decides(&self) -> Score {
        self.best.as_ref().map_or(Score { value: f64::NAN, loss: f64::NAN }, Best::decides)
    }
}

/// What all runs have in common.
#[derive(Clone, Copy)]
pub struct Common<'a> {
    pub task: &'a dyn AnyTask,
    pub train: &'a dyn AnyRows,
    pub dev: &'a dyn AnyRows,
    /// The files that the rows come from.
    pub files: [&'a [PathBuf]; 2],
    pub model: &'a Path,
    pub out: &'a Path,
    pub resume: bool,
    pub device: &'a Device,
    /// What the model is to remember of its task.
    pub task_settings: &'a TaskSettings,
}

impl<'a> Common<'a> {
    /// A run of the plan in a folder.
    fn asked(&self, planned: &'a Planned, out: &'a Path, resume: bool) -> FineTuneConfig<'a> {
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
            task_settings: self.task_settings,
        }
    }
}

/// How some runs ended.
pub struct Ended {
    pub done: Vec<Done>,
    /// The folder of the best model; none if the runs were interrupted.
    pub model: Option<PathBuf>,
    pub finished: bool,
}

const RESULTS: &str = "results.json";

/// One run, in the folder itself.
pub fn run_one(common: &Common<'_>, planned: &Planned, stop: &AtomicBool, terminal: &Terminal) -> Result<Ended> {
    let outcome = train(common, common.out, planned, common.resume, stop, terminal)?;
    let mut done = Done::new(&planned.settings, &planned.name);
    done.train_seconds = outcome.train_seconds;
    done.best = outcome.best;
    Ok(Ended { done: vec![done], model: outcome.model, finished: outcome.finished })
}

/// What some runs would take.
#[derive(Debug, Serialize)]
pub struct DryRun {
    pub runs: usize,
    pub steps: u64,
    pub evaluations: u64,
    pub seconds: f64,
}

/// How long the runs would take, by real steps at each batch size; none if interrupted. Nothing stays of them.
pub fn dry_run_all(common: &Common<'_>, plan: &[Planned], stop: &AtomicBool) -> Result<Option<DryRun>> {
    let mut sum = DryRun { runs: plan.len(), steps: 0, evaluations: 0, seconds: 0.0 };
    let add = |sum: &mut DryRun, estimate: &Estimate, times: f64| {
        sum.steps += (estimate.steps as f64 * times).round() as u64;
        sum.evaluations += (estimate.evaluations as f64 * times).round() as u64;
        sum.seconds += estimate.seconds * times;
    };
    if let [only] = plan {
        let device = device_of(common, common.out, common.resume)?;
        let common = &Common { device: &device, ..*common };
        let Some(estimate) = dry_run(&common.asked(only, common.out, common.resume), stop)? else { return Ok(None) };
        add(&mut sum, &estimate, 1.0);
        return Ok(Some(sum));
    }
    let done = if common.resume {
        resumed(common, plan)?
    } else {
        RunFolder::new(common.out).check_new()?;
        Vec::new()
    };
    let Alike { plan, device, .. } = alike(common, plan)?;
    let common = &Common { device: &device, ..*common };
    let ahead: Vec<&Planned> = plan.iter().filter(|planned| !is_done(&done, planned)).collect();
    sum.runs = ahead.len();
    let mut measured: BTreeMap<usize, (u32, Estimate)> = BTreeMap::new();
    for planned in ahead {
        let folder = common.out.join(&planned.name);
        let Settings { batch, epochs, .. } = planned.settings;
        if common.resume && is_begun(&folder) {
            let device = device_of(common, &folder, true)?;
            let common = &Common { device: &device, ..*common };
            let Some(rest) = dry_run(&common.asked(planned, &folder, true), stop)? else { return Ok(None) };
            add(&mut sum, &rest, 1.0);
            continue;
        }
        let (of, estimate) = match measured.entry(batch) {
            Entry::Occupied(known) => *known.get(),
            Entry::Vacant(new) => {
                // None of theirs: what a killed run left would count as a folder in use.
                let out = common.out.join("dry-run");
                let Some(estimate) = dry_run(&common.asked(planned, &out, false), stop)? else { return Ok(None) };
                *new.insert((epochs, estimate))
            }
        };
        // Each epoch takes as long as the others.
        add(&mut sum, &estimate, f64::from(epochs) / f64::from(of.max(1)));
    }
    Ok(Some(sum))
}

fn is_done(done: &[Done], planned: &Planned) -> bool {
    done.iter().any(|run| run.name == planned.name)
}

/// Whether a run can be gone on with.
fn is_begun(folder: &Path) -> bool {
    settings_file(folder).is_file() && folder.join("checkpoints").is_dir()
}

/// The runs that are done of those to resume. They will be compared with those to come: their settings and rows must be alike.
fn resumed(common: &Common<'_>, plan: &[Planned]) -> Result<Vec<Done>> {
    let results = common.out.join(RESULTS);
    if !results.is_file() {
        let out = common.out.display();
        anyhow::bail!("{out}: no runs to resume here (no {RESULTS}); start them without --resume");
    }
    let text = fs::read(&results).with_context(|| format!("cannot read {}", results.display()))?;
    let done: Vec<Done> = serde_json::from_slice(&text).with_context(|| format!("{} is damaged", results.display()))?;
    let of_plan = |run: &Done| plan.iter().find(|planned| planned.name == run.name);
    for run in &done {
        let folder = common.out.join(&run.name);
        let (Some(planned), Ok(began)) = (of_plan(run), read_settings(&folder)) else { continue };
        if !began.same_trajectory(&planned.settings) {
            let place = settings_file(&folder);
            let differ = began.differences(&planned.settings)?.join(", ");
            let what = "give the same again, or choose another --out";
            anyhow::bail!("{}: {} was run with {differ}; {what}", place.display(), run.name);
        }
    }
    if let (Some(run), Some(planned)) = (done.first(), plan.first()) {
        check_data(&common.asked(planned, common.out, true), &common.out.join(&run.name))?;
    }
    Ok(done)
}

/// How runs that are compared with each other compute: all alike.
struct Alike {
    plan: Vec<Planned>,
    device: Device,
    /// What the user must be told about it.
    note: Option<String>,
}

/// Those that are resumed compute as the first of them began: another machine would choose otherwise.
fn alike(common: &Common<'_>, plan: &[Planned]) -> Result<Alike> {
    let mut began = plan.iter().filter_map(|planned| read_settings(&common.out.join(&planned.name)).ok());
    let Some(began) = began.next().filter(|_| common.resume) else {
        return Ok(Alike { plan: plan.to_vec(), device: common.device.clone(), note: None });
    };
    let mut device = common.device.clone();
    let mut settled = Vec::new();
    for planned in plan {
        let (settings, at) = restore_compute(&began, &planned.settings, common.device)?;
        device = at;
        // A run that has begun continues with its own settings.
        let is_begun = is_begun(&common.out.join(&planned.name));
        settled.push(if is_begun { planned.clone() } else { Planned { settings, ..planned.clone() } });
    }
    // A run that is gone on with says it itself.
    let is_said = plan.iter().any(|planned| is_begun(&common.out.join(&planned.name)));
    let note = instruction_set_note(&began, &device).filter(|_| !is_said);
    Ok(Alike { plan: settled, device, note })
}

/// All runs in turn, each in a folder of its own. Those that are done are not made again on resuming. The best model is moved
/// to `model/`; the others' go.
pub fn run_all(common: &Common<'_>, plan: &[Planned], stop: &AtomicBool, terminal: &Terminal) -> Result<Ended> {
    let results = common.out.join(RESULTS);
    let mut done: Vec<Done> = Vec::new();
    if common.resume {
        done = resumed(common, plan)?;
    } else {
        RunFolder::new(common.out).check_new()?;
        fs::create_dir_all(common.out).with_context(|| format!("cannot create {}", common.out.display()))?;
        write_results(&results, &done)?;
    }
    let Alike { plan, device, note } = alike(common, plan)?;
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
            return Ok(Ended { done, model: None, finished: false });
        }
        terminal.note(&format!("run {} of {}: {}", number + 1, plan.len(), planned.name));
        let resume = common.resume && is_begun(&folder);
        if common.resume && !resume && folder.is_dir() {
            // Killed before it began, or between its end and its line in the results: made again.
            fs::remove_dir_all(&folder).with_context(|| format!("cannot remove {}", folder.display()))?;
        }
        let mut entry = Done::new(&planned.settings, &planned.name);
        match train(common, &folder, planned, resume, stop, terminal) {
            Ok(outcome) if !outcome.finished => return Ok(Ended { done, model: None, finished: false }),
            Ok(outcome) => {
                entry.train_seconds = outcome.train_seconds;
                entry.best = outcome.best;
            }
            // A run that diverges says something about its settings; the others go on.
            Err(error) => match error.downcast::<TaskError>() {
                Ok(TaskError::NotFinite { step }) => entry.failed = Some(format!("not finite at step {step}")),
                Ok(TaskError::Logits(_)) => entry.failed = Some("logits not finite".to_owned()),
                other => {
                    if !common.resume && done.is_empty() && !folder.exists() {
                        // Nothing was begun: the folder is not in use. If it cannot be removed, nothing is lost.
                        let _ = fs::remove_file(&results).and_then(|()| fs::remove_dir(common.out));
                    }
                    return Err(other.map_or_else(|error| error, Into::into));
                }
            },
        }
        // Without scores the first is kept.
        let better = |best: Option<Score>, run: &Done| {
            let score = run.decides();
            if is_better(score, best) { Some(score) } else { best }
        };
        let before = done.iter().filter(|run| run.failed.is_none()).fold(None, better);
        let is_best = entry.failed.is_none() && is_better(entry.decides(), before);
        done.push(entry);
        let (model, kept) = (folder.join("model"), common.out.join("model"));
        if model.is_dir() {
            if is_best {
                if kept.exists() {
                    fs::remove_dir_all(&kept).with_context(|| format!("cannot replace {}", kept.display()))?;
                }
                fs::rename(&model, &kept).with_context(|| format!("cannot move {}", model.display()))?;
            } else {
                fs::remove_dir_all(&model).with_context(|| format!("cannot remove {}", model.display()))?;
            }
        }
        write_results(&results, &done)?;
    }
    let kept = common.out.join("model");
    Ok(Ended { done, model: kept.is_dir().then_some(kept), finished: true })
}

fn write_results(path: &Path, done: &[Done]) -> Result<()> {
    let text = serde_json::to_string_pretty(done)? + "\n";
    Ok(cloze_files::write(path, text.as_bytes())?)
}

/// The device of a run: one that is resumed computes as it began.
fn device_of(common: &Common<'_>, out: &Path, resume: bool) -> Result<Device> {
    Ok(if resume { device_of_run(out, common.device)? } else { common.device.clone() })
}

fn train(
    common: &Common<'_>,
    out: &Path,
    planned: &Planned,
    resume: bool,
    stop: &AtomicBool,
    terminal: &Terminal,
) -> Result<Outcome> {
    let device = device_of(common, out, resume)?;
    let common = &Common { device: &device, ..*common };
    let asked = common.asked(planned, out, resume);
    let bar = terminal.progress_timed("training");
    let mut polling = None;
    let outcome = finetune(&asked, stop, &mut |event| {
        if let Event::Start(_) = event {
            polling = Some(Polling::begin());
        }
        show(&bar, event);
    });
    bar.finish();
    Ok(outcome?)
}

fn show(bar: &Progress, event: &FineTuneEvent) {
    match event {
        Event::Start(start) => {
            bar.note(&start.machine);
            let going_on = if start.step > 0 { format!(", going on after step {}", start.step) } else { String::new() };
            bar.note(&format!(
                "{} examples, {} tokens, {} steps{going_on}",
                format::count(start.examples as u64),
                format::count(start.tokens as u64),
                format::count(start.steps),
            ));
            if start.cut_rows > 0 {
                bar.note(&format!("{} rows were too long and were cut", format::count(start.cut_rows as u64)));
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
            bar.set_share_parts(event.progress, &parts);
        }
        Event::Eval { evaluation: Evaluation { epoch, loss, scores, .. }, best } => {
            let values: Vec<String> = scores.values.iter().map(|(name, value)| format!("{name} {value:.4}")).collect();
            let best = if *best { " (best)" } else { "" };
            bar.note(&format!("epoch {epoch:.2}: dev loss {loss:.4}, {}{best}", values.join(", ")));
            if let Some(answer) = &scores.collapsed {
                bar.note(&format!("every row is answered {answer:?}: the model has collapsed (so far)"));
            }
        }
        Event::Message(message) => bar.note(message),
        Event::Estimate(estimate) => bar.note(&expected(estimate)),
        _ => {}
    }
}

/// How long it will take, in one line.
pub fn expected(estimate: &Estimate) -> String {
    format!(
        "about {} to go: {} steps of {}, {} evaluations",
        format::duration(estimate.seconds),
        format::count(estimate.steps),
        format::short_duration(estimate.step_seconds),
        format::count(estimate.evaluations),
    )
}

/// The runs' scores as one JSON object.
pub fn summary(ended: &Ended, out: &Path, train_rows: usize, dev_rows: usize) -> Value {
    let scores: Vec<f64> = ended.done.iter().map(Done::score).filter(|score| !score.is_nan()).collect();
    json!({
        "out": format::path(out),
        "finished": ended.finished,
        "model": ended.model.as_deref().map(format::path),
        "train_rows": train_rows,
        "dev_rows": dev_rows,
        "runs": ended.done,
        "score": mean_std(&scores),
        "peak_rss_bytes": format::peak_memory(),
    })
}

/// The runs as a table: one line each, then mean and standard deviation.
pub fn table(ended: &Ended) -> String {
    // The deciding score first.
    let bests = ended.done.iter().filter_map(|run| run.best.as_ref());
    let mut names: Vec<String> = bests.map(|best| best.metric.clone()).take(1).collect();
    for scores in ended.done.iter().filter_map(|run| run.best.as_ref()).filter_map(|best| best.scores.as_object()) {
        for (name, value) in scores {
            if value.is_number() && name != "rows" && !names.contains(name) {
                names.push(name.clone());
            }
        }
    }
    let mut rows = vec![
        [vec!["run".to_owned(), "epoch".to_owned()], names.clone(), vec!["minutes".to_owned(), String::new()]].concat(),
    ];
    for run in &ended.done {
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
    // Settings with several seeds, each summed up.
    let mut groups: Vec<(usize, f64, u32)> = ended.done.iter().map(|run| (run.batch, run.lr, run.epochs)).collect();
    groups.dedup();
    for (batch, lr, epochs) in groups {
        let runs: Vec<&Done> =
            ended.done.iter().filter(|run| (run.batch, run.lr, run.epochs) == (batch, lr, epochs)).collect();
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
        let label = if runs.len() == ended.done.len() {
            "mean ± sd".to_owned()
        } else {
            format!("mean ± sd of batch{batch}-lr{lr:e}-epochs{epochs}")
        };
        let minutes = runs.iter().map(|run| run.train_seconds).sum::<f64>() / 60.0;
        let last = vec![format!("{minutes:.2} in all"), String::new()];
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
