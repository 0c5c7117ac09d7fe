//! A pre-training recipe: one TOML file with all settings of a run.
//!
//! [`Recipe::open`] reads a file, applies overrides (`key=value`) and validates the result. Errors (unknown keys, wrong
//! types, invalid or contradictory values) are one line with the file, the line number and what would be valid.
//!
//! | file | what it does |
//! | --- | --- |
//! | `sections.rs` | the keys of a recipe and their defaults |
//! | `every.rs` | intervals: steps, percentages of the run or minutes |
//! | `reading.rs` | parses TOML and overrides, with errors that name line and key |
//! | `checks.rs` | validation of values |
//! | `derived.rs` | the plan of a run, its learning-rate schedule, its batches |
//! | `shipped.rs` | the built-in recipes |
//! | `chosen.rs` | sizes for a text, a machine and a time |

mod checks;
mod chosen;
mod derived;
mod every;
mod reading;
mod sections;
mod shipped;

pub use crate::schedule::ScheduleKind;
pub use chosen::{Budget, Chosen};
pub use every::Every;
pub use sections::{
    CheckpointSection, Eval, Log, MaskingKind, ModelSection, ObjectiveKind, ObjectiveSection, Optimizer, OptimizerKind,
    Phase, Precision, Recipe, Schedule,
};
pub use shipped::{Shipped, shipped};
