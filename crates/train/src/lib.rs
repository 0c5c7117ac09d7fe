//! From a recipe to weights.
//!
//! | module | what it does |
//! | --- | --- |
//! | [`recipe`] | a TOML file and `--set` arguments → a checked [`Recipe`] |
//! | [`plan`], [`schedule`] | steps and time → phase and end; progress → learning rate |
//! | [`objective`] | what pre-training learns: batches, network, losses |
//! | [`step`] | micro-batches → one optimizer step: the heart |
//! | [`train_loop`] | the loop of pre-training and fine-tuning: steps, evaluation, logs, checkpoints, interrupts, resuming |
//! | [`pretrain`](mod@pretrain) | a recipe → a model |
//! | [`window`], [`pace`] | means since the last logged line; how fast steps are |
//! | [`run`] | a run's folder: what lies where, the logs' lines |
//! | [`checkpoint`] | a Hugging Face folder with the training state beside it, written whole or not at all |
//! | [`network`], [`batch`] | what is trained, and what it is trained on |
//! | [`device`] | the device of a run |
//! | [`tensorboard`] | event files |
//! | [`evaluate`](mod@evaluate) | held-out loss and accuracy |
#![forbid(unsafe_code)]

pub mod batch;
pub mod checkpoint;
pub mod device;
mod error;
pub mod evaluate;
pub mod network;
pub mod objective;
pub mod pace;
pub mod plan;
pub mod pretrain;
pub mod recipe;
pub mod run;
pub mod schedule;
pub mod step;
pub mod tensorboard;
pub mod train_loop;
mod vocabulary;
pub mod window;

pub use error::TrainError;
pub use recipe::Recipe;
