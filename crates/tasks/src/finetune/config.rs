//! What a fine-tuning starts from, what it learns and where it goes.

use std::path::{Path, PathBuf};

use cloze_engine::Device;

use crate::any_task::{AnyRows, AnyTask};
use crate::settings::Settings;
use crate::task_settings::TaskSettings;

/// What a fine-tuning starts from, what it learns and where it goes.
#[derive(Clone, Copy)]
pub struct FineTuneConfig<'a> {
    /// The task.
    pub task: &'a dyn AnyTask,
    /// Rows to learn.
    pub train: &'a dyn AnyRows,
    /// Rows to judge by; none: the last model is kept.
    pub dev: &'a dyn AnyRows,
    /// The files that the rows come from, for the log: those of training, those of dev.
    pub files: [&'a [PathBuf]; 2],
    /// The folder of the model to start from.
    pub model: &'a Path,
    /// How.
    pub settings: &'a Settings,
    /// The run's folder.
    pub out: &'a Path,
    /// Whether to go on with the run that is there.
    pub resume: bool,
    /// Where to run; of a run to resume that of [`device_of_run`](super::device_of_run).
    pub device: &'a Device,
    /// What the model is to remember of how its rows are read and scored: see [`AnyTask::settings`].
    pub task_settings: &'a TaskSettings,
}
