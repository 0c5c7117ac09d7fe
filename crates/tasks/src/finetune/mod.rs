//! Fine-tuning, one way for all tasks: epochs over shuffled examples, evaluation on the dev rows, the best model kept.
//!
//! A step is a pure function of the weights, the moments and the step's number: the order of the examples and the dropout are
//! keyed by it. So a run that was stopped or killed goes on, bit by bit, from its last checkpoint.
//!
//! ```text
//! RUN/finetune.toml      the settings
//! RUN/data.json          how rows are read and scored, and what tells them from others
//! RUN/metrics.jsonl      one JSON object a line: start, train, eval, event
//! RUN/checkpoints/       the last checkpoint of an unfinished run
//! RUN/model/             the best model: a Hugging Face folder
//! RUN/scores.json        its scores on the dev rows
//! ```
//!
//! | file | what it holds |
//! | --- | --- |
//! | `config.rs` | what a fine-tuning starts from |
//! | `run.rs` | a run, and its dry run |
//! | `head.rs` | how the head of a new model starts |
//! | `job.rs` | fine-tuning as a job of the training loop |
//! | `events.rs` | what happens in a run, and how it ends |
//! | `rows.rs` | the encoded rows, and data.json, by which a run is resumed on the same rows |
//! | `resume.rs` | finetune.toml: with which settings a run is resumed |
//! | `class_weights.rs` | how much each class counts |

mod class_weights;
mod config;
mod events;
mod head;
mod job;
mod resume;
mod rows;
mod run;

pub use config::FineTuneConfig;
pub use events::{Best, Estimate, Evaluation, Figures, FineTuneEvent, Outcome, Start};
pub use resume::{as_it_began, computes_otherwise, device_of_run, read_settings, settings_file};
pub use rows::{check_data, read_tokenizer};
pub use run::{dry_run, finetune};
