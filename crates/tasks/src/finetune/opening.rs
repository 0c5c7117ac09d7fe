//! The start of a run: a new or a resumed folder, and the first line of its log. All learners share it.

use std::fs::File;
use std::path::{Path, PathBuf};

use cloze_comm::Communicator;
use cloze_engine::{DType, Device};
use cloze_text::Tokenizer;
use cloze_train::agreement::require_same;
use cloze_train::checkpoint;
use cloze_train::recipe::Precision;
use cloze_train::run::RunFolder;
use serde_json::{Value, json};

use super::events::{Estimate, Outcome, Start};
use super::job::{State, StoredScores};
use super::resume::{
    RunSettings, check_settings, instruction_set_note, is_finished, remove_leftovers, restored_precision, settings_file,
};
use crate::TaskError;

/// What identifies the rows of a run, in its data.json.
pub(crate) trait RunData {
    /// Writes it to the run folder.
    fn write(&self, run: &Path) -> Result<(), TaskError>;
    /// The same as bytes.
    fn identity(&self) -> Vec<u8>;
    /// Checks that a run started with the same rows.
    fn check(&self, run: &Path) -> Result<(), TaskError>;
}

/// A run folder that is to be trained in.
pub(crate) struct Opening {
    folder: RunFolder,
    /// Of a resumed run; a new folder is not created yet.
    lock: Option<File>,
    newest: Option<PathBuf>,
    messages: Vec<String>,
    ranks: Communicator,
}

/// A run folder: finished, or to be trained in.
pub(crate) enum Opened {
    Finished(Outcome),
    Unfinished(Opening),
}

/// A folder that exists and is locked, and the messages that follow the run's first event.
pub(crate) struct Created {
    pub(crate) folder: RunFolder,
    /// At rank 0.
    pub(crate) lock: Option<File>,
    pub(crate) messages: Vec<String>,
}

impl Opening {
    /// Checks a new folder, or opens that of a run to be resumed. The settings get the precision and the instruction set of the
    /// run. Nothing is written. Rank 0 opens the folder; the others get its decisions.
    ///
    /// # Errors
    /// A folder that is in use; a run with other settings or rows; ranks with different settings or rows.
    pub(crate) fn of_run<S: RunSettings>(
        (out, resume, ranks): (&Path, bool, &Communicator),
        settings: &mut S,
        data: &impl RunData,
        device: &Device,
        tokenizer: &Tokenizer,
    ) -> Result<Opened, TaskError> {
        let folder = RunFolder::new(out);
        let mut opening = Opening { folder, lock: None, newest: None, messages: Vec::new(), ranks: ranks.clone() };
        opening.messages.extend(tokenizer.special_names_note());
        require_same(ranks, "settings", settings.to_toml()?.as_bytes())?;
        require_same(ranks, "rows", &data.identity())?;
        let (mut newest, mut finished) = (None, None);
        if !ranks.is_root() {
            // Rank 0 has the folder.
        } else if resume {
            let started = check_settings(&opening.folder, settings)?;
            data.check(out)?;
            settings.training_mut().precision = restored_precision(started.training(), settings.training());
            opening.messages.extend(instruction_set_note(started.training(), device));
            if is_finished(&opening.folder) {
                finished = Some(outcome_of(&opening.folder)?);
            } else {
                let (lock, found) = checkpoint::resume(&opening.folder)?;
                (opening.lock, newest) = (Some(lock), found.map(|(step, _)| step));
            }
        } else {
            opening.folder.check_new()?;
        }
        if ranks.any(finished.is_some()) {
            return Ok(Opened::Finished(finished.unwrap_or(Outcome { finished: true, ..Outcome::default() })));
        }
        opening.newest = checkpoint::path_of_newest(&opening.folder, newest, ranks);
        let training = settings.training_mut();
        let is_bf16 = training.precision.resolved(device) == Precision::Bf16;
        training.precision = if ranks.of_root(u8::from(is_bf16)) == 1 { Precision::Bf16 } else { Precision::F32 };
        training.instruction_set = Some(device.instruction_set().to_owned());
        Ok(Opened::Unfinished(opening))
    }

    /// The checkpoint to continue from.
    pub(crate) fn newest(&self) -> Option<&Path> {
        self.newest.as_deref()
    }

    /// Creates the folder of a new run, with its settings and what identifies its rows.
    ///
    /// # Errors
    /// The system's errors with their paths.
    pub(crate) fn create<S: RunSettings>(self, settings: &S, data: &impl RunData) -> Result<Created, TaskError> {
        let Opening { folder, mut lock, messages, ranks, .. } = self;
        if lock.is_none() && ranks.is_root() {
            lock = Some(folder.create()?);
            data.write(folder.root())?;
            cloze_files::write(&settings_file(folder.root()), settings.to_toml()?.as_bytes())?;
        }
        Ok(Created { folder, lock, messages })
    }
}

/// The number of completed steps of a run that would be resumed, after the checks of [`Opening::of_run`]; 0 of a new run, none of
/// a finished one. The settings get the precision of the run.
///
/// # Errors
/// As [`Opening::of_run`].
pub(crate) fn completed_steps<S: RunSettings>(
    out: &Path,
    resume: bool,
    settings: &mut S,
    data: &impl RunData,
) -> Result<Option<u64>, TaskError> {
    let folder = RunFolder::new(out);
    if !resume {
        folder.check_new()?;
        return Ok(Some(0));
    }
    let started = check_settings(&folder, settings)?;
    data.check(out)?;
    settings.training_mut().precision = restored_precision(started.training(), settings.training());
    if is_finished(&folder) {
        return Ok(None);
    }
    match checkpoint::list(&folder)?.pop() {
        Some((_, path)) => Ok(Some(checkpoint::verify::<State>(&path)?.step)),
        None => Ok(Some(0)),
    }
}

/// The estimate for a finished run.
pub(crate) fn nothing_left() -> Estimate {
    Estimate { steps: 0, step_seconds: 0.0, evaluations: 0, seconds: 0.0 }
}

/// The outcome of a finished run. It may have been killed before its checkpoints were removed.
fn outcome_of(folder: &RunFolder) -> Result<Outcome, TaskError> {
    let _lock = folder.lock()?;
    remove_leftovers(folder)?;
    let StoredScores { best, train_seconds, steps } = StoredScores::read(folder)?;
    let model = folder.model();
    Ok(Outcome { finished: true, model: model.is_dir().then_some(model), best, train_seconds, steps })
}

/// What the first line of a run's log says in addition to the [`Start`].
pub(crate) struct StartFacts<'a> {
    /// The numbers of training and dev rows.
    pub(crate) rows: [usize; 2],
    /// Their files.
    pub(crate) files: [&'a [PathBuf]; 2],
    /// The model that the run started with.
    pub(crate) model: &'a Path,
    pub(crate) parameters: usize,
}

/// The machine and the precision of a run, for its [`Start`].
pub(crate) fn machine(device: &Device, precision: DType) -> String {
    format!("{}, {} ({})", device.describe(), precision.name(), device.explain(precision))
}

/// The first line of a run's log.
pub(crate) fn start_line(start: &Start, facts: &StartFacts<'_>, device: &Device, precision: DType) -> Value {
    let [train_rows, dev_rows] = facts.rows;
    let [train_files, dev_files] =
        facts.files.map(|paths| paths.iter().map(|path| path.display().to_string()).collect::<Vec<_>>());
    json!({
        "kind": "start",
        "step": start.step,
        "steps": start.steps,
        "examples": start.examples,
        "tokens": start.tokens,
        "train_rows": train_rows,
        "train_files": train_files,
        "dev_rows": dev_rows,
        "dev_files": dev_files,
        "model": facts.model.display().to_string(),
        "cut_rows": start.cut_rows,
        "parameters": facts.parameters,
        "machine": device.describe(),
        "precision": precision.name(),
        "reason": device.explain(precision),
        "threads": device.threads(),
        "version": env!("CARGO_PKG_VERSION"),
    })
}
