//! finetune.toml: with which settings, and computing how, a run is resumed.

use std::fs;
use std::path::{Path, PathBuf};

use cloze_engine::Device;
use cloze_files::folder::remove_dir_if_exists;
use cloze_train::device::run_device;
use cloze_train::recipe::Precision;
use cloze_train::run::RunFolder;
use cloze_train::train_loop;

use crate::TaskError;
use crate::settings::Settings;

/// Where a run's settings lie.
pub fn settings_file(run: &Path) -> PathBuf {
    run.join("finetune.toml")
}

/// The settings that a run began with.
///
/// # Errors
/// A file that is not there, or none of settings.
pub fn read_settings(run: &Path) -> Result<Settings, TaskError> {
    let path = settings_file(run);
    let text = fs::read_to_string(&path).map_err(|source| TaskError::io("read", &path, source))?;
    toml::from_str(&text).map_err(|e| TaskError::File { path, problem: e.to_string() })
}

/// How a run that is gone on with computes: as it began, where this machine can. The same of runs that will be compared with it.
///
/// # Errors
/// An instruction set in the settings that is unknown.
pub fn as_it_began(began: &Settings, settings: &Settings, device: &Device) -> Result<(Settings, Device), TaskError> {
    let precision = precision_as_it_began(began, settings);
    let device = match began.instruction_set.as_deref() {
        Some(name) if name != device.instruction_set() => run_device(Some(device.threads()), None, Some(name))?,
        _ => device.clone(),
    };
    Ok((Settings { precision, ..settings.clone() }, device))
}

/// The device of a run to resume, given one at the fastest instruction set: the caller hands it to [`finetune`](super::finetune()).
///
/// # Errors
/// As [`as_it_began`].
pub fn device_of_run(run: &Path, device: &Device) -> Result<Device, TaskError> {
    if !settings_file(run).is_file() {
        return Ok(device.clone());
    }
    let began = read_settings(run)?;
    Ok(as_it_began(&began, &began, device)?.1)
}

pub(super) fn precision_as_it_began(began: &Settings, settings: &Settings) -> Precision {
    match settings.precision {
        Precision::Auto => began.precision,
        given => given,
    }
}

/// That this machine lacks the instruction set that a run began with, if it does.
pub fn computes_otherwise(began: &Settings, device: &Device) -> Option<String> {
    let (before, now) = (began.instruction_set.as_deref()?, device.instruction_set());
    let message =
        || format!("the run began with {before}, this computes with {now}: results differ in their last bits");
    (before != now).then(message)
}

/// Whether a run has come to its end: then there is nothing left to resume it from.
pub(super) fn is_over(folder: &RunFolder) -> bool {
    settings_file(folder.root()).is_file() && !folder.checkpoints().is_dir()
}

/// Where a run that is over moves its checkpoints to remove them.
pub(super) fn remove_rest(folder: &RunFolder) -> Result<(), TaskError> {
    Ok(remove_dir_if_exists(&folder.root().join(train_loop::REMOVED_CHECKPOINTS))?)
}

/// A run is resumed with the settings that it began with; returns them.
pub(super) fn check_settings(folder: &RunFolder, settings: &Settings) -> Result<Settings, TaskError> {
    let path = settings_file(folder.root());
    if !path.is_file() {
        let problem = "no fine-tuning to resume here (no finetune.toml); start it without --resume".to_owned();
        return Err(TaskError::Folder { path: folder.root().to_owned(), problem });
    }
    let began = read_settings(folder.root())?;
    if !began.same_trajectory(settings) {
        let differ = began.differences(settings)?.join(", ");
        let problem = format!("the run began with {differ}; give the same again, or choose another --out");
        return Err(TaskError::File { path, problem });
    }
    Ok(began)
}
