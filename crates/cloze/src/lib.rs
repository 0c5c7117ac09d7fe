//! Cloze: BERT end to end in Rust. This crate is the library's face and the home of the `cloze` binary.
//!
//! The parts, in the order in which data flows: [`text`] (vocabularies, text to ids), [`data`] (corpora, shards,
//! masked sentence pairs), [`engine`] (tensors that learn), [`model`] (BERT itself), [`train`] (the loop, its optimizer,
//! checkpoints), [`tasks`] (fine-tuning, predictions, scores), [`convert`] (other programs' formats) and [`hub`] (models named on
//! the Hugging Face Hub).
//!
//! The likeliest tokens for a mask:
//!
//! ```no_run
//! use std::sync::Arc;
//!
//! use cloze::engine::{DType, Device};
//! use cloze::tasks::{Filler, Pretrained};
//!
//! let model = Pretrained::open("runs/mini/model".as_ref(), Device::cpu(None)?, DType::F32)?;
//! let filler = Filler::new(Arc::new(model))?;
//! for candidate in &filler.fill("The capital of France is [MASK].", 3)?[0] {
//!     println!("{:.3} {}", candidate.probability, candidate.token);
//! }
//! # Ok::<(), cloze::tasks::TaskError>(())
//! ```
#![deny(clippy::print_stdout, clippy::print_stderr)]
#![deny(missing_docs)]

pub use cloze_convert as convert;
pub use cloze_data as data;
pub use cloze_engine as engine;
pub use cloze_hub as hub;
pub use cloze_model as model;
pub use cloze_tasks as tasks;
pub use cloze_text as text;
pub use cloze_train as train;
