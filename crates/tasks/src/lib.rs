//! From weights to scores: one fine-tuning loop, and tasks that define examples, losses and metrics.
#![forbid(unsafe_code)]

pub mod answer;
pub mod any_task;
pub mod batch;
pub mod datasets;
pub mod embed;
pub mod embed_evaluation;
pub mod embed_training;
mod error;
pub mod example;
pub mod finetune;
mod forward;
pub mod inference;
pub mod input;
pub mod kinds;
pub mod lines;
pub mod long;
pub mod metrics;
pub mod mining;
mod parallel;
pub mod pipelines;
pub mod reading;
pub mod rerank;
pub mod retrieval;
pub mod sequence;
pub mod settings;
pub mod task;
pub mod task_settings;

pub use any_task::{AnyRows, AnyTask, Rows};
pub use error::TaskError;
pub use example::{Example, Target};
pub use inference::{Executor, Filler, NextSentence, Output, Predictor, Pretrained};
pub use long::Long;
pub use reading::{Notes, Reading, Tabs, TaskOptions};
pub use settings::{ClassWeights, Settings};
pub use task::{Encoded, FileRows, HeadInit, Scores, Task};
pub use task_settings::TaskSettings;
