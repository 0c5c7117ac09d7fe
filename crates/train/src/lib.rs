//! Training: from a recipe to weights.
//!
//! | module | what it does |
//! | --- | --- |
//! | [`recipe`] | a TOML file and overrides → a validated [`Recipe`] |
//! | [`plan`], [`schedule`] | phases and end of a run by steps or time; the learning rate |
//! | [`objective`] | objectives of pre-training: batches, network, losses |
//! | [`step`], [`micro_batch`] | one optimizer step from micro-batches |
//! | [`local_steps`] | steps that each rank does alone, and an outer optimizer |
//! | [`exchange`], [`agreement`] | gradients and weights between the ranks of a job; whether they were started in the same way |
//! | [`train_loop`] | the loop of pre-training and fine-tuning: steps, evaluation, logs, checkpoints, interrupts, resuming |
//! | [`pretrain`](mod@pretrain) | a recipe → a model |
//! | [`window`], [`pace`] | means since the last logged line; the speed of steps |
//! | [`run`] | the folder of a run: paths, lines of the log |
//! | [`checkpoint`] | a Hugging Face folder with the training state, written atomically |
//! | [`network`], [`batch`] | the trained network, and its batches |
//! | [`device`] | the device of a run |
//! | [`tensorboard`] | TensorBoard event files |
//! | [`evaluate`](mod@evaluate) | held-out loss and accuracy |
#![forbid(unsafe_code)]

pub mod agreement;
pub mod batch;
pub mod checkpoint;
pub mod device;
mod error;
pub mod evaluate;
pub mod exchange;
pub mod local_steps;
pub mod micro_batch;
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
