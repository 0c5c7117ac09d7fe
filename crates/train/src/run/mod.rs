//! A run's folder and its log.
//!
//! ```text
//! RUN/recipe.toml                    the resolved recipe
//! RUN/metrics.jsonl                  one JSON object per line: [`Line`]
//! RUN/events.out.tfevents.*          the same values for TensorBoard
//! RUN/checkpoints/step-00001000/     a Hugging Face folder with the training state
//! RUN/best                           a link to the checkpoint with the lowest held-out loss (the first of the objective)
//! RUN/model/                         the final model; of an interrupted run, the current model
//! RUN/.lock                          locked while a process is training here
//! ```
//!
//! | file | contents |
//! | --- | --- |
//! | `losses.rs` | the metrics of losses in a line |
//! | `lines.rs` | the lines of metrics.jsonl |
//! | `folder.rs` | paths, creating the folder, its lock |
//! | `log.rs` | writing metrics.jsonl and TensorBoard's event file |
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
