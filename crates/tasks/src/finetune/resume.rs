//! finetune.toml: the settings, precision and instruction set with which a run is resumed.

use std::fs;
use std::path::{Path, PathBuf};

use cloze_engine::{Device, DeviceChoice};
use cloze_files::folder::remove_dir_if_exists;
use cloze_train::device::{CUDA, run_device};
use cloze_train::recipe::Precision;
use cloze_train::run::RunFolder;
use cloze_train::train_loop;
use serde::de::DeserializeOwned;

use crate::TaskError;
use crate::settings::Settings;

/// The path of a run's settings.
pub fn settings_file(run: &Path) -> PathBuf {
    run.join("finetune.toml")
}

/// The settings that a run started with.
///
/// # Errors
/// [`TaskError::Io`] for a missing file; [`TaskError::File`] for a file that is not valid.
pub fn read_settings(run: &Path) -> Result<Settings, TaskError> {
    let path = settings_file(run);
    let text = fs::read_to_string(&path).map_err(|source| TaskError::io("read", &path, source))?;
    let problem = |e: toml::de::Error| TaskError::File { path: path.clone(), problem: e.to_string() };
    let mut table: toml::Table = toml::from_str(&text).map_err(problem)?;
    // A run that trains embeddings has these settings in a part of its own.
    match table.remove("training") {
        Some(part) => part.try_into().map_err(problem),
        None => toml::from_str(&text).map_err(problem),
    }
}

/// The settings and the device for resuming a run that started with the settings `started`: precision and instruction
/// set are those of the start, if this machine supports them. Runs that will be compared with it use them too.
///
/// # Errors
/// An unknown instruction set in the settings.
pub fn restore_compute(
    started: &Settings,
    settings: &Settings,
    device: &Device,
) -> Result<(Settings, Device), TaskError> {
    let precision = restored_precision(started, settings);
    let device = match started.instruction_set.as_deref() {
        // A GPU has no choice of instruction sets.
        Some(name) if ![name, device.instruction_set()].contains(&CUDA) && name != device.instruction_set() => {
            run_device(DeviceChoice::Cpu, Some(device.threads()), None, Some(name))?
        }
        _ => device.clone(),
    };
    Ok((Settings { precision, ..settings.clone() }, device))
}

/// The device for resuming a run, which the caller passes to [`finetune`](super::finetune()). `device` is the default
/// device, with the fastest instruction set.
///
/// # Errors
/// As [`restore_compute`].
pub fn device_of_run(run: &Path, device: &Device) -> Result<Device, TaskError> {
    if !settings_file(run).is_file() {
        return Ok(device.clone());
    }
    let started = read_settings(run)?;
    Ok(restore_compute(&started, &started, device)?.1)
}

pub(crate) fn restored_precision(started: &Settings, settings: &Settings) -> Precision {
    match settings.precision {
        Precision::Auto => started.precision,
        given => given,
    }
}

/// A note for the user if this machine does not support the instruction set that a run started with.
pub fn instruction_set_note(started: &Settings, device: &Device) -> Option<String> {
    let (before, now) = (started.instruction_set.as_deref()?, device.instruction_set());
    let message = || {
        format!(
            "the run started with the instruction set {before}, this machine uses {now}: results differ in their last bits"
        )
    };
    (before != now).then(message)
}

/// Whether a run is finished. Then it has no checkpoints.
pub(crate) fn is_finished(folder: &RunFolder) -> bool {
    settings_file(folder.root()).is_file() && !folder.checkpoints().is_dir()
}

/// Removes what is left of a finished run's checkpoints.
pub(crate) fn remove_leftovers(folder: &RunFolder) -> Result<(), TaskError> {
    Ok(remove_dir_if_exists(&folder.root().join(train_loop::REMOVED_CHECKPOINTS))?)
}

/// The settings of a run, as finetune.toml stores them.
pub(crate) trait RunSettings: DeserializeOwned {
    /// Whether runs with the two settings produce the same weights.
    fn same_trajectory(&self, other: &Self) -> bool;
    /// What differs, each as a phrase.
    fn differences(&self, other: &Self) -> Result<Vec<String>, TaskError>;
    /// The content of finetune.toml.
    fn to_toml(&self) -> Result<String, TaskError>;
    /// The settings that all runs have.
    fn training(&self) -> &Settings;
    /// The same, to be changed.
    fn training_mut(&mut self) -> &mut Settings;
}

impl RunSettings for Settings {
    fn same_trajectory(&self, other: &Settings) -> bool {
        Settings::same_trajectory(self, other)
    }
    fn differences(&self, other: &Settings) -> Result<Vec<String>, TaskError> {
        Settings::differences(self, other)
    }
    fn to_toml(&self) -> Result<String, TaskError> {
        Settings::to_toml(self)
    }
    fn training(&self) -> &Settings {
        self
    }
    fn training_mut(&mut self) -> &mut Settings {
        self
    }
}

/// Checks that a run is resumed with the settings that it started with, and returns those.
pub(crate) fn check_settings<S: RunSettings>(folder: &RunFolder, settings: &S) -> Result<S, TaskError> {
    let path = settings_file(folder.root());
    if !path.is_file() {
        let problem = "no fine-tuning run to resume (no finetune.toml); start a new run without `resume`".to_owned();
        return Err(TaskError::Folder { path: folder.root().to_owned(), problem });
    }
    let text = fs::read_to_string(&path).map_err(|source| TaskError::io("read", &path, source))?;
    let started: S =
        toml::from_str(&text).map_err(|e| TaskError::File { path: path.clone(), problem: e.to_string() })?;
    if !started.same_trajectory(settings) {
        let differ = started.differences(settings)?.join(", ");
        let problem = format!("the run started with {differ}; use the same values, or choose a different `out`");
        return Err(TaskError::File { path, problem });
    }
    Ok(started)
}
