//! The commands about tasks, and their common parts: the kind of task, and the options for reading its files.

pub mod evaluate;
mod files;
mod fine_tuned;
pub mod finetune;
pub mod finetune_embed;
mod per_kind;
pub mod predict;
mod read;
pub mod recipe;
pub mod runs;
pub mod sweep;

pub use fine_tuned::config_of;
pub use per_kind::{OrOther, PerKind};
