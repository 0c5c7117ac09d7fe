//! A run's folder and its log.
//!
//! ```text
//! RUN/recipe.toml                    the recipe as it was resolved
//! RUN/metrics.jsonl                  one JSON object a line: [`Line`]
//! RUN/events.out.tfevents.*          the same figures for TensorBoard
//! RUN/checkpoints/step-00001000/     a Hugging Face folder with its training state
//! RUN/best                           a link to the checkpoint with the lowest held-out loss (the first of the objective)
//! RUN/model/                         the final model; of an interrupted run, the model so far
//! RUN/.lock                          locked while a process trains here
//! ```
//!
//! | file | what it holds |
//! | --- | --- |
//! | `losses.rs` | the figures of a list of losses, as lines hold them |
//! | `lines.rs` | the lines of metrics.jsonl |
//! | `folder.rs` | the paths, making the folder, its lock |
//! | `log.rs` | writing metrics.jsonl and TensorBoard's file |
//! | `reader.rs` | reading metrics.jsonl |

mod folder;
mod lines;
mod log;
mod losses;
mod reader;

pub use folder::RunFolder;
pub use lines::{EvalLine, EventLine, Line, StartLine, TrainLine};
pub use log::RunLog;
pub use losses::{LossFigure, LossFigures};
pub use reader::read_metrics;
