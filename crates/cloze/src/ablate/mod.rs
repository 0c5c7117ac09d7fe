//! Ablations: the rows of a table are pre-trained under one budget, evaluated, fine-tuned on the same tasks and compared.
//!
//! | file | what it does |
//! | --- | --- |
//! | `study.rs` | a TOML file, or a built-in one → the rows and columns of a table |
//! | `plan.rs` | a study, a budget, shards and tasks → the runs, each with its settings' fingerprint |
//! | `records.rs` | records.csv: the measured values, which are never measured again |
//! | `run.rs` | pre-trains, evaluates and fine-tunes what has no record |
//! | `cost.rs` | the time that it will take |
//! | `table.rs` | records → a table of means and standard deviations, as Markdown |
//! | `chart.rs` | the same as an SVG chart |

mod chart;
mod cost;
mod plan;
mod records;
mod run;
mod study;
mod table;

pub use chart::chart;
pub use cost::{Cost, estimate};
pub use plan::{Budget, Options, Plan, TaskSource};
pub use records::Records;
pub use run::{Context, Ended, Pairs, run};
pub use study::{BUILT_IN, Study};
pub use table::Results;
