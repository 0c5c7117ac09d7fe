//! Training of embedding models: contrastive learning, scored pairs and distillation, as in sentence-transformers (Reimers
//! and Gurevych 2019), with any number of rows in a step.
//!
//! | file | in → out |
//! | --- | --- |
//! | `rows.rs` | a file → rows of anchors, positives, negatives and scores |
//! | `settings.rs` | the settings of a run |
//! | `encoded.rs` | rows → token ids of texts, and the texts of a step |
//! | `denoising.rs` | a text → a copy with deleted words |
//! | `mined.rs` | the vectors of all texts → hard negatives |
//! | `network.rs` | token ids → vectors, with gradients |
//! | [`losses`] | the vectors of a step → the loss and its derivatives |
//! | `learner.rs` | steps in micro-batches, and evaluations, for the training loop |
//! | `scores.rs` | vectors of dev rows → scores |
//! | `folder.rs` | the files of a sentence-transformers folder |
//! | `card.rs` | its model card |
//! | `run.rs` | a run, and a dry run |
//!
//! **Steps of any size** (GradCache; Gao et al. 2021). If the texts of a step fit in one forward pass, it is recorded, and the
//! loss's derivatives start its backward pass. Otherwise all texts are embedded without recording, the loss of all
//! embeddings gives the derivative of each of them, and a second forward pass of each micro-batch, with the same dropout,
//! starts its backward pass with these derivatives. So the gradient is that of one large pass, in the memory of a micro-batch.
//!
//! The run folder is that of any fine-tuning; see [`finetune`](crate::finetune). `model/` is a sentence-transformers folder.

mod card;
mod denoising;
mod encoded;
mod folder;
mod learner;
pub mod losses;
mod mined;
mod network;
pub mod rows;
mod run;
mod scores;
mod settings;
#[cfg(test)]
mod tests;

pub use network::EmbeddingNetwork;
pub use run::{EmbedRun, dry_run, train};
pub use settings::{EmbedSettings, LossKind};
