//! From a recipe to weights.
//!
//! | module | what it does |
//! | --- | --- |
//! | [`recipe`] | a TOML file and `--set` arguments → a checked [`Recipe`] |
//! | [`schedule`] | progress → learning rate |
//! | [`step`] | batches → one optimizer step: the heart |
//! | [`pretrain`](mod@pretrain) | the loop: batches, steps, evaluation, logs, checkpoints, interrupts, resuming |
//! | [`run`] | a run's folder: what lies where, the logs' lines |
//! | [`checkpoint`] | a Hugging Face folder with the training state beside it, written whole or not at all |
//! | [`tensorboard`] | event files |
//! | [`progress`] | what a watcher of a run is told |
//! | [`evaluate`] | held-out loss and accuracy |
//! | [`interrupt`] | SIGINT and SIGTERM → a flag |
#![deny(missing_docs)]

pub mod batch;
pub mod checkpoint;
mod error;
pub mod evaluate;
pub mod interrupt;
pub mod pretrain;
pub mod progress;
pub mod recipe;
pub mod run;
pub mod schedule;
pub mod step;
pub mod tensorboard;

pub use error::TrainError;
pub use recipe::Recipe;
