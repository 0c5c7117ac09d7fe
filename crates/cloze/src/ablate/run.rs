//! Runs what has no record yet: pre-training, held-out text, minimal pairs, fine-tuning.

use std::collections::HashMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::{Context as _, Result, bail};
use cloze_comm::Communicator;
use cloze_engine::{DType, Device};
use cloze_model::rtd_pair::{DISCRIMINATOR, GENERATOR};
use cloze_tasks::inference::likelihood::Scorer;
use cloze_tasks::inference::minimal_pairs::{MinimalPair, report, score_pairs};
use cloze_tasks::{Pretrained, Reading, TaskError};
use cloze_train::evaluate::{EvaluateOptions, evaluate_folder};
use cloze_train::run::{Line, RunFolder, read_metrics};
use cloze_train::{Recipe, TrainError};
use toml::{Table, Value};

use super::plan::{Plan, Run, TaskSource, fingerprint};
use super::records::{BLIMP, FAILED, HELD_OUT, Key, PRETRAINING, Record, Records, is_reserved};
use super::study::Column;
use crate::VERSION;
use crate::commands::pretrain::pretrain_with_bar;
use crate::commands::tasks::finetune::{self, Executing, execute};
use crate::commands::tasks::recipe::of_table;
use crate::commands::tasks::runs::{PlannedRun, RunResult};
use crate::terminal::Terminal;

/// Batches of 32 sequences of 128 tokens of held-out text, or fewer if there is less.
const HELD_OUT_BATCHES: u64 = 64;

/// Minimal pairs of sentences.
#[derive(Debug)]
pub struct Pairs {
    file: PathBuf,
    pairs: Vec<MinimalPair>,
    /// Of their texts.
    fingerprint: String,
}

impl Pairs {
    /// Reads the pairs of a file, at most `most` of each paradigm.
    pub fn read(file: &Path, most: Option<usize>) -> Result<Pairs> {
        let mut pairs = MinimalPair::read(file)?;
        if let Some(most) = most {
            let mut counts = HashMap::new();
            pairs.retain(|pair| {
                let count = counts.entry(pair.paradigm.clone()).or_insert(0);
                *count += 1;
                *count <= most
            });
        }
        let texts: String = pairs.iter().map(|pair| format!("{}\n{}\n", pair.good, pair.bad)).collect();
        Ok(Pairs { file: file.to_owned(), pairs, fingerprint: fingerprint(&texts) })
    }

    /// The fingerprint of a run's accuracy on these pairs.
    fn settings(&self, run: &Run) -> String {
        fingerprint(&format!("{}{}", run.settings, self.fingerprint))
    }
}

/// What all runs of an ablation share.
pub struct Context<'a> {
    pub plan: &'a Plan,
    pub out: &'a Path,
    pub pairs: Option<&'a Pairs>,
    /// Learning rates of fine-tuning, of which the best on the dev rows is kept; none: that of the task's options.
    pub lrs: &'a [f64],
    /// Options of every fine-tuning.
    pub finetune: &'a Table,
    pub device: &'a Device,
    /// The processes that share the runs.
    pub ranks: &'a Communicator,
    pub stop: &'a AtomicBool,
    pub terminal: &'a Terminal,
}

/// How an ablation ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ended {
    Finished,
    Interrupted,
}

/// Runs what has no record. After an interruption, the same call continues. `on_run` is called after each run. Each rank of a job does
/// some of the runs, those with the same pre-training together.
pub fn run(
    context: &Context<'_>,
    records: &mut Records,
    on_run: &mut dyn FnMut(&Records) -> Result<()>,
) -> Result<Ended> {
    let (runs, ranks) = (&context.plan.runs, context.ranks);
    let mut trainings: Vec<&str> = Vec::new();
    for (number, run) in runs.iter().enumerate() {
        let training = trainings.iter().position(|known| *known == run.settings).unwrap_or_else(|| {
            trainings.push(&run.settings);
            trainings.len() - 1
        });
        if training % ranks.size() != ranks.rank() {
            continue;
        }
        copy_shared(context, run, records)?;
        if context.missing(run, records)?.is_empty() {
            continue;
        }
        context.terminal.note(&format!("run {} of {}: {}, seed {}", number + 1, runs.len(), run.row.title, run.seed()));
        if complete(context, run, records)? == Ended::Interrupted {
            return Ok(Ended::Interrupted);
        }
        on_run(records)?;
    }
    Ok(Ended::Finished)
}

/// What a run still needs.
#[derive(Debug)]
pub enum Missing<'a> {
    Pretraining,
    HeldOut,
    Pairs(&'a Pairs),
    Task { column: &'a Column, task: &'a TaskSource },
}

impl Context<'_> {
    /// What a run still needs, in the order in which it is done.
    pub fn missing<'c>(&'c self, run: &Run, records: &Records) -> Result<Vec<Missing<'c>>> {
        let lacks = |measure: &str, settings: &str| -> Result<bool> {
            Ok(records.value(&self.key(run, measure), settings)?.is_none())
        };
        if !lacks(FAILED, &run.settings)? {
            return Ok(Vec::new());
        }
        let mut missing = Vec::new();
        if lacks(PRETRAINING[0], &run.settings)? {
            missing.push(Missing::Pretraining);
        }
        if lacks(HELD_OUT[0], &run.settings)? {
            missing.push(Missing::HeldOut);
        }
        if let Some(pairs) = self.pairs
            && lacks(BLIMP, &pairs.settings(run))?
        {
            missing.push(Missing::Pairs(pairs));
        }
        for (column, task) in &self.plan.tasks {
            if lacks(&column.name, &self.finetune_settings(run, column, task))? {
                missing.push(Missing::Task { column, task });
            }
        }
        Ok(missing)
    }

    fn key<'k>(&'k self, run: &'k Run, measure: &'k str) -> Key<'k> {
        Key { study: &self.plan.study.name, row: &run.row.name, seed: run.seed(), measure }
    }

    fn finetune_settings(&self, run: &Run, column: &Column, task: &TaskSource) -> String {
        let mut options = run.finetune_options(column, task, self.finetune);
        if !self.lrs.is_empty() {
            options.insert("lr".to_owned(), Value::Array(self.lrs.iter().map(|lr| Value::Float(*lr)).collect()));
        }
        run.finetune_settings(&options)
    }

    fn record(&self, run: &Run, measure: &str, value: impl ToString, settings: &str) -> Record {
        Record {
            study: self.plan.study.name.clone(),
            row: run.row.name.clone(),
            seed: run.seed(),
            measure: measure.to_owned(),
            value: value.to_string(),
            settings: settings.to_owned(),
            machine: self.device.describe(),
            version: VERSION.to_owned(),
        }
    }

    /// A folder that does not exist, for estimates.
    pub fn dry_run(&self) -> PathBuf {
        self.out.join("dry-run")
    }

    /// The run folder of a pre-training.
    fn pretraining(&self, run: &Run) -> RunFolder {
        RunFolder::new(&self.out.join("pretrain").join(&run.folder))
    }

    /// The folder of a fine-tuning.
    fn finetuning(&self, run: &Run, column: &Column) -> PathBuf {
        let name: String = column.name.chars().map(|c| if c.is_alphanumeric() { c } else { '-' }).collect();
        self.out.join("finetune").join(format!("{}-seed{}", run.row.name, run.seed())).join(name)
    }
}

/// Copies the records of another row with the same pre-training.
fn copy_shared(context: &Context<'_>, run: &Run, records: &mut Records) -> Result<()> {
    let of_pairs = context.pairs.map_or_else(String::new, |pairs| pairs.settings(run));
    let shared = records.with_settings(&run.settings).chain(records.with_settings(&of_pairs));
    let shared: Vec<Record> = shared.filter(|record| is_reserved(&record.measure)).cloned().collect();
    let of_row = |record: Record| Record { row: run.row.name.clone(), seed: run.seed(), ..record };
    records.add(shared.into_iter().map(of_row))
}

/// Does what a run still needs.
fn complete(context: &Context<'_>, run: &Run, records: &mut Records) -> Result<Ended> {
    let folder = context.pretraining(run);
    let missing = context.missing(run, records)?;
    let is_trained = !matches!(missing.first(), Some(Missing::Pretraining));
    if is_trained && !folder.model().is_dir() {
        // The records came from elsewhere, or the model was deleted.
        context.terminal.note("there are records of the pre-training, but its model is missing: it is trained again");
        remove_dir(folder.root())?;
    }
    if !(is_trained && folder.model().is_dir()) {
        match pretrain(context, run, &folder) {
            Ok(None) => return Ok(Ended::Interrupted),
            Ok(Some(new)) => records.add(new)?,
            Err(error) => match error.downcast_ref() {
                Some(TrainError::NotFinite { .. }) => {
                    context.terminal.warn(&format!("{error:#}"));
                    records.add([context.record(run, FAILED, format!("{error:#}"), &run.settings)])?;
                    return Ok(Ended::Finished);
                }
                _ => return Err(error),
            },
        }
        // They are many times as large as the model, and only needed to resume.
        remove_dir(&folder.checkpoints())?;
        let _ = fs::remove_file(folder.best());
    }
    let model = folder.model();
    let [predicts, encodes] = match run.is_rtd() {
        true => [model.join(GENERATOR), model.join(DISCRIMINATOR)],
        false => [model.clone(), model],
    };
    for what in missing {
        if context.stop.load(Ordering::Relaxed) {
            return Ok(Ended::Interrupted);
        }
        match what {
            Missing::Pretraining => {}
            Missing::HeldOut => records.add(held_out(context, run, &predicts)?)?,
            Missing::Pairs(pairs) => records.add([minimal_pairs(context, run, pairs, &predicts)?])?,
            Missing::Task { column, task } => match fine_tune(context, run, column, task, &encodes)? {
                Some(new) => records.add(new)?,
                None => return Ok(Ended::Interrupted),
            },
        }
    }
    Ok(Ended::Finished)
}

fn remove_dir(folder: &Path) -> Result<()> {
    if folder.exists() {
        fs::remove_dir_all(folder).with_context(|| format!("cannot remove {}", folder.display()))?;
    }
    Ok(())
}

/// Pre-trains; `None` if interrupted.
fn pretrain(context: &Context<'_>, run: &Run, folder: &RunFolder) -> Result<Option<Vec<Record>>> {
    let resume = folder.recipe().is_file();
    if resume {
        // A run can be resumed with another number of steps, but then it would be another row.
        let differences = run.differences(&Recipe::open_unchecked(&folder.recipe())?)?;
        if !differences.is_empty() {
            bail!(
                "{}: the run was started with other values of {}; give the same ones, or choose another `out`",
                folder.recipe().display(),
                differences.join(", ")
            );
        }
    }
    let alone = Communicator::single();
    let outcome = pretrain_with_bar(&run.recipe, folder.root(), resume, &alone, context.stop, context.terminal)?;
    if !outcome.finished {
        return Ok(None);
    }
    let lines = read_metrics(&folder.metrics())?;
    let start = lines.iter().rev().find_map(|line| if let Line::Start(start) = line { Some(start) } else { None });
    let last = lines.iter().rev().find_map(|line| if let Line::Train(train) = line { Some(train) } else { None });
    let (Some(start), Some(last)) = (start, last) else {
        bail!("{}: expected lines of the training, found none", folder.metrics().display());
    };
    let values = [
        start.parameters.to_string(),
        outcome.step.to_string(),
        last.tokens.to_string(),
        format!("{:.2}", last.seconds / 60.0),
    ];
    let record = |(measure, value)| context.record(run, measure, value, &run.settings);
    Ok(Some(PRETRAINING.into_iter().zip(values).map(record).collect()))
}

/// The loss on held-out text: of the masked tokens at the default masking, or of all tokens for a causal model; no values
/// for an objective that does not predict tokens.
fn held_out(context: &Context<'_>, run: &Run, model: &Path) -> Result<Vec<Record>> {
    let record = |(measure, value)| context.record(run, measure, value, &run.settings);
    if !run.recipe.objective.predicts_tokens() {
        let values = ["none", "", "", "", ""].map(str::to_owned);
        return Ok(HELD_OUT.into_iter().zip(values).map(record).collect());
    }
    let mut options = EvaluateOptions::default();
    options.batches = Some(HELD_OUT_BATCHES);
    options.seq_len = run.recipe.phase.iter().map(|phase| phase.seq_len).max().unwrap_or_default().min(options.seq_len);
    let bar = context.terminal.progress_fraction("evaluating");
    let progress = |fraction: f64| bar.set_fraction(fraction, "held-out documents");
    let found = evaluate_folder(model, &run.recipe.data, context.device, &options, progress);
    bar.finish();
    let found = found?;
    let figure = found.losses.deciding().context("the evaluation has no loss")?;
    let number = |value: Option<f64>| value.map_or_else(String::new, |value| value.to_string());
    let [loss, perplexity, bits, accuracy] =
        [figure.loss, figure.perplexity, figure.bits_per_character, figure.accuracy].map(number);
    let values = [figure.name.clone(), loss, perplexity, bits, accuracy];
    Ok(HELD_OUT.into_iter().zip(values).map(record).collect())
}

/// The accuracy on minimal pairs; no value for an objective that does not predict tokens.
fn minimal_pairs(context: &Context<'_>, run: &Run, pairs: &Pairs, model: &Path) -> Result<Record> {
    let settings = pairs.settings(run);
    if !run.recipe.objective.predicts_tokens() {
        return Ok(context.record(run, BLIMP, "", &settings));
    }
    let Pairs { file, pairs, .. } = pairs;
    let model = Arc::new(Pretrained::open(model, context.device.clone(), DType::F32)?);
    let scorer = Scorer::new(model, None)?;
    let bar = context.terminal.progress_fraction("scoring");
    let scores = score_pairs(&scorer, file, pairs, &mut |fraction| bar.set_fraction(fraction, "pairs"));
    bar.finish();
    let found = report(pairs, &scores?);
    Ok(context.record(run, BLIMP, found.accuracy, &settings))
}

/// Fine-tunes on a task; `None` if interrupted. The records are the score and the minutes.
fn fine_tune(
    context: &Context<'_>,
    run: &Run,
    column: &Column,
    task: &TaskSource,
    model: &Path,
) -> Result<Option<Vec<Record>>> {
    let (folder, terminal) = (context.finetuning(run, column), context.terminal);
    terminal.note(&format!("fine-tuning {} on {}", run.row.title, column.name));
    let settings = context.finetune_settings(run, column, task);
    let options = run.finetune_options(column, task, context.finetune);
    let diverged = |problem: String| Ok(Some(vec![context.record(run, &column.name, problem, &settings)]));
    let done = match fine_tuning(context, column, options, model, &folder, false) {
        Ok(Executing::Runs(outcome)) if outcome.finished => outcome.done,
        Ok(_) => return Ok(None),
        Err(error) => match error.downcast_ref() {
            Some(TaskError::NotFinite { step }) => return diverged(format!("not finite at step {step}")),
            _ => return Err(error),
        },
    };
    let minutes: f64 = done.iter().map(|run| run.train_seconds / 60.0).sum();
    let best = |a: &&RunResult, b: &&RunResult| a.score().total_cmp(&b.score());
    let Some(best) = done.iter().filter(|run| !run.score().is_nan()).max_by(best).and_then(|run| run.best.as_ref())
    else {
        return diverged(done.iter().find_map(|run| run.failed.clone()).unwrap_or_else(|| "no score".to_owned()));
    };
    let score = match &column.score {
        None => best.score,
        Some(name) => best.scores.get(name).and_then(|score| score.as_f64()).with_context(|| {
            let names: Vec<String> =
                best.scores.as_object().into_iter().flatten().map(|(name, _)| name.clone()).collect();
            format!("column {}: there is no score {name:?}; there are {}", column.name, names.join(", "))
        })?,
    };
    remove_dir(&folder)?;
    // The folder of the run is removed with its last task.
    let _ = folder.parent().map(fs::remove_dir);
    let time = format!("{minutes:.2}");
    Ok(Some(vec![
        context.record(run, &column.name, score, &settings),
        context.record(run, &format!("{} minutes", column.name), time, &settings),
    ]))
}

/// Runs a fine-tuning in a folder, or continues it there.
pub fn fine_tuning(
    context: &Context<'_>,
    column: &Column,
    mut options: Table,
    model: &Path,
    folder: &Path,
    dry_run: bool,
) -> Result<Executing> {
    for (key, path) in [("model", model), ("out", folder)] {
        let path = path.to_str().with_context(|| format!("{}: expected a path in UTF-8", path.display()))?;
        options.insert(key.to_owned(), Value::String(path.to_owned()));
    }
    let named = || format!("column {}", column.name);
    let (kind, mut arguments) = of_table::<finetune::Arguments>(options).with_context(named)?;
    let kind = arguments.read.kind(kind).with_context(named)?;
    let selects = |score: &&String| kind.is_some_and(|kind| kind.description.metrics.contains(&score.as_str()));
    if let Some(score) = column.score.as_ref().filter(selects) {
        arguments.read.common.metric = Some(score.clone());
    }
    arguments.dry_run = dry_run;
    arguments.resume = !dry_run && (folder.join("finetune.toml").is_file() || folder.join("results.json").is_file());
    let plan = |reading: &Reading, arguments: &finetune::Arguments| {
        let base = arguments.training.settings(reading);
        let lrs = if context.lrs.is_empty() { vec![base.lr] } else { context.lrs.to_vec() };
        let planned = |lr: f64| {
            let mut settings = base.clone();
            settings.lr = lr;
            PlannedRun { name: format!("lr{lr:e}"), settings }
        };
        lrs.into_iter().map(planned).collect()
    };
    let quiet = context.terminal.quiet();
    let terminal = if dry_run { &quiet } else { context.terminal };
    Ok(execute(kind, &arguments, "", &plan, &Communicator::single(), terminal).with_context(named)?.result)
}
