//! The configuration of a fine-tuning run: the model to start from, the data, the hyperparameters and the run folder.

use std::path::{Path, PathBuf};

use cloze_comm::Communicator;
use cloze_engine::Device;

use crate::any_task::{AnyRows, AnyTask};
use crate::settings::Settings;
use crate::task_settings::TaskSettings;

/// The configuration of a fine-tuning run: the model to start from, the data, the hyperparameters and the run folder.
#[derive(Clone, Copy)]
pub struct FineTuneConfig<'a> {
    /// The task.
    pub task: &'a dyn AnyTask,
    /// The training rows.
    pub train: &'a dyn AnyRows,
    /// The dev rows, which select the best model. Empty: the last model is kept.
    pub dev: &'a dyn AnyRows,
    /// The files that the training rows and the dev rows come from, for the log.
    pub files: [&'a [PathBuf]; 2],
    /// The folder of the model to fine-tune.
    pub model: &'a Path,
    /// The hyperparameters.
    pub settings: &'a Settings,
    /// The run folder, which is created.
    pub out: &'a Path,
    /// Whether to resume the run in `out`.
    pub resume: bool,
    /// The device. To resume a run, use [`device_of_run`](super::device_of_run).
    pub device: &'a Device,
    /// The processes that train together; rank 0 writes the run folder.
    pub ranks: &'a Communicator,
    /// The task settings to store in the model: see [`AnyTask::settings`].
    pub task_settings: &'a TaskSettings,
}
