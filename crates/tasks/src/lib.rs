//! From weights to scores: one fine-tuning loop, and tasks that say what an example, a loss and a metric are.
#![deny(missing_docs)]

pub mod answer;
pub mod batch;
pub mod datasets;
pub mod embed;
mod error;
pub mod example;
pub mod files;
pub mod finetune;
pub mod lines;
pub mod metrics;
pub mod network;
mod parallel;
pub mod retrieval;
pub mod sequence;
pub mod settings;
pub mod task;
pub mod tasks;

pub use error::TaskError;
pub use example::{Example, Target};
pub use network::Network;
pub use settings::{ClassWeights, Settings};
pub use task::{Encoded, Scores, Task};
