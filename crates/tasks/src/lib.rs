//! From weights to scores: one fine-tuning loop, and tasks that say what an example, a loss and a metric are.
#![deny(missing_docs)]

mod error;

pub use error::TaskError;
