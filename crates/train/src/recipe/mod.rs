//! A pre-training recipe: one TOML file that says everything about a run.
//!
//! [`Recipe::open`] reads a file, lays `--set key=value` over it and checks the result: what an unknown or ill-typed
//! key, an impossible value or two values at odds give is one line with the file, the line and what would be valid.
//!
//! | file | what it does |
//! | --- | --- |
//! | `sections.rs` | the keys of a recipe and their defaults |
//! | `every.rs` | intervals: steps, shares of the run or minutes |
//! | `reading.rs` | TOML and `--set` arguments to a recipe, with errors that name line and key |
//! | `checks.rs` | what values must satisfy together |
//! | `course.rs` | the plan of a run, its learning rate, its batches |
//! | `shipped.rs` | the recipes that are built in |

mod checks;
mod course;
mod every;
mod reading;
mod sections;
mod shipped;

pub use crate::schedule::ScheduleKind;
pub use every::Every;
pub use sections::{
    Eval, Log, ModelSection, ObjectiveKind, ObjectiveSection, Optimizer, OptimizerKind, Phase, Precision, Recipe,
    Saving, Schedule,
};
pub use shipped::{Shipped, shipped};
