//! Fine-tuning for all tasks: epochs over shuffled examples, evaluation on the dev rows, the best model is kept.
//!
//! A step is a pure function of the weights, the optimizer's moments and the step number, which determines the order of
//! the examples and the dropout. Therefore a run that was interrupted or killed continues from its last checkpoint with
//! bitwise identical results.
//!
//! ```text
//! RUN/finetune.toml      the settings
//! RUN/data.json          how rows are read and scored, and the fingerprint of the rows
//! RUN/metrics.jsonl      one JSON object a line: start, train, eval, event
//! RUN/checkpoints/       the last checkpoint of an unfinished run
//! RUN/model/             the best model: a Hugging Face folder
//! RUN/scores.json        its scores on the dev rows
//! ```
//! | file | content |
//! | --- | --- |
//! | `config.rs` | the configuration of a run |
//! | `run.rs` | a run, and a dry run |
//! | `head.rs` | initialization of the task head |
//! | `job.rs` | fine-tuning as a job of the training loop, for any learner |
//! | `task_learner.rs` | the rows of a task as a learner |
//! | `events.rs` | the events of a run, and its outcome |
//! | `rows.rs` | the encoded rows, and data.json, which ensures that a run is resumed with the same rows |
//! | `resume.rs` | finetune.toml: the settings with which a run is resumed |
//! | `class_weights.rs` | the weights of the classes |

mod class_weights;
mod config;
pub(crate) mod events;
mod head;
pub(crate) mod job;
pub(crate) mod opening;
pub(crate) mod resume;
pub(crate) mod rows;
pub(crate) mod run;
pub(crate) mod task_learner;

pub use config::FineTuneConfig;
pub use events::{Best, Estimate, Evaluation, Figures, FineTuneEvent, Outcome, Start};
pub use resume::{device_of_run, instruction_set_note, read_settings, restore_compute, settings_file};
pub use rows::{check_data, read_tokenizer};
pub use run::{dry_run, finetune};
