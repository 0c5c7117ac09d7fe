//! A fine-tuning run, and its dry run.

use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};

use cloze_train::checkpoint;
use cloze_train::pace::measure;
use cloze_train::run::RunFolder;
use cloze_train::train_loop::TrainLoop;
use serde_json::json;

use super::config::FineTuneConfig;
use super::events::{Estimate, FineTuneEvent, Outcome, Start};
use super::job::{Prepared, Scores, State, prepare};
use super::resume::{check_settings, computes_otherwise, is_over, precision_as_it_began, remove_rest, settings_file};
use super::rows::EncodedRows;
use crate::TaskError;
use crate::example::Example;

/// Paths as JSON has them, whose strings are Unicode.
fn shown(paths: &[PathBuf]) -> Vec<String> {
    paths.iter().map(|path| path.display().to_string()).collect()
}

/// Fine-tunes a model. When `stop` is raised the step is finished and saved; `on_event` is called for what happens.
///
/// # Errors
/// Settings, rows or a checkpoint that cannot be used; a loss that is not finite; a disk that is full. What was saved stays whole.
pub fn finetune(
    asked: &FineTuneConfig<'_>,
    stop: &AtomicBool,
    on_event: &mut dyn FnMut(&FineTuneEvent),
) -> Result<Outcome, TaskError> {
    // What can be found wrong is found before the run's folder is touched.
    let rows = EncodedRows::new(asked)?;
    let (folder, device) = (RunFolder::new(asked.out), asked.device);
    let mut settings = asked.settings.clone();
    let (mut lock, mut newest, mut messages) = (None, None, Vec::new());
    messages.extend(rows.tokenizer.special_names_note());
    if asked.resume {
        let began = check_settings(&folder, &settings)?;
        rows.data.check(asked.out)?;
        if is_over(&folder) {
            return outcome_of(&folder);
        }
        let (held, found) = checkpoint::resume(&folder)?;
        (lock, newest) = (Some(held), found);
        settings.precision = precision_as_it_began(&began, &settings);
        messages.extend(computes_otherwise(&began, device));
    } else {
        folder.check_new()?;
    }
    settings.precision = settings.precision.resolved(device);
    settings.instruction_set = Some(device.instruction_set().to_owned());
    let newest = newest.as_ref().map(|(_, path)| path.as_path());
    let Prepared { job, trainer, at, adopted, notes } = prepare(asked, &rows, &settings, newest)?;

    let lock = match lock {
        Some(lock) => lock,
        None => {
            let lock = folder.create()?;
            rows.data.write(asked.out)?;
            cloze_files::write(&settings_file(asked.out), settings.to_toml()?.as_bytes())?;
            lock
        }
    };
    let precision = trainer.precision();
    let start = Start {
        machine: format!("{}, {} ({})", device.describe(), precision.name(), device.explain(precision)),
        step: at.step,
        steps: job.steps(),
        examples: rows.examples.len(),
        tokens: rows.examples.iter().map(Example::length).sum(),
        cut_rows: rows.cut_rows,
        adopted,
        notes,
    };
    let line = json!({
        "kind": "start",
        "step": start.step,
        "steps": start.steps,
        "examples": start.examples,
        "tokens": start.tokens,
        "train_rows": asked.train.len(),
        "train_files": shown(asked.files[0]),
        "dev_rows": asked.dev.len(),
        "dev_files": shown(asked.files[1]),
        "model": asked.model.display().to_string(),
        "cut_rows": start.cut_rows,
        "parameters": trainer.network.parameter_count(),
        "machine": device.describe(),
        "precision": precision.name(),
        "reason": device.explain(precision),
        "threads": device.threads(),
        "version": env!("CARGO_PKG_VERSION"),
    });
    let mut run = TrainLoop::open(job, trainer, &rows.tokenizer, (folder.clone(), lock), at, on_event)?;
    run.log_start(&line, start, messages)?;
    let ended = run.run(stop)?;
    let model = folder.model();
    Ok(Outcome {
        finished: ended.finished,
        model: model.is_dir().then_some(model),
        best: ended.job.best,
        train_seconds: ended.job.train_seconds,
        steps: ended.at.step,
    })
}

/// How a run that is over has ended. It may have been killed before its checkpoints were removed.
fn outcome_of(folder: &RunFolder) -> Result<Outcome, TaskError> {
    let _lock = folder.lock()?;
    remove_rest(folder)?;
    let Scores { best, train_seconds, steps } = Scores::read(folder)?;
    let model = folder.model();
    Ok(Outcome { finished: true, model: model.is_dir().then_some(model), best, train_seconds, steps })
}

/// Checks everything that [`finetune`] checks, takes some steps and says how long the run would take, or the rest of the run
/// that is to go on. Nothing is written. None if `stop` was raised before that shows.
///
/// # Errors
/// Those of `finetune` before its first evaluation.
pub fn dry_run(asked: &FineTuneConfig<'_>, stop: &AtomicBool) -> Result<Option<Estimate>, TaskError> {
    let folder = RunFolder::new(asked.out);
    let rows = EncodedRows::new(asked)?;
    let (mut settings, mut done) = (asked.settings.clone(), 0);
    if asked.resume {
        let began = check_settings(&folder, &settings)?;
        rows.data.check(asked.out)?;
        settings.precision = precision_as_it_began(&began, &settings);
        if is_over(&folder) {
            let nothing = Estimate { steps: 0, step_seconds: 0.0, evaluations: 0, seconds: 0.0 };
            return Ok(Some(nothing));
        }
        if let Some((_, path)) = checkpoint::list(&folder)?.pop() {
            done = checkpoint::verify::<State>(&path)?.step;
        }
    } else {
        folder.check_new()?;
    }
    let Prepared { job, mut trainer, .. } = prepare(asked, &rows, &settings, None)?;
    let (batch, count) = (settings.batch, rows.examples.len());
    let rate = measure(
        job.steps(),
        || stop.load(Ordering::Relaxed),
        |number| {
            let chosen: Vec<usize> = (0..batch.min(count)).map(|i| (number as usize * batch + i) % count).collect();
            let outcome = job.learn(&mut trainer, &chosen, number, job.lr_of(number));
            if outcome.update.losses.is_finite() {
                Ok((outcome.tokens, outcome.update.seconds))
            } else {
                Err(TaskError::NotFinite { step: number + 1 })
            }
        },
    )?;
    Ok(rate.map(|rate| job.ahead(done, rate)))
}
