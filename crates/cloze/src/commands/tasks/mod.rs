//! The commands about tasks, and what they share: which task, how its files are read.

pub mod evaluate;
mod files;
mod fine_tuned;
pub mod finetune;
mod per_kind;
pub mod predict;
mod read;
mod recipe;
mod runs;
pub mod sweep;

pub use fine_tuned::config_of;
pub use per_kind::{PerKind, option_before};
