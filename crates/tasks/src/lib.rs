//! From weights to scores: one fine-tuning loop, and tasks that say what an example, a loss and a metric are.
#![deny(missing_docs)]

pub mod batch;
mod error;
pub mod example;
pub mod finetune;
pub mod metrics;
pub mod network;
pub mod settings;
pub mod task;

pub use error::TaskError;
pub use example::{Example, Sequence, Target};
pub use network::Network;
pub use settings::{ClassWeights, Settings};
pub use task::{Encoded, Scores, Task};
