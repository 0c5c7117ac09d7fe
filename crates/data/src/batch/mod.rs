//! Documents → packed batches. Each batch is a pure function of (seed, index); with a schedule of the masking rate, of (seed,
//! index, progress of the run).
//!
//! An *epoch* is one pass over the documents: a plan of sequences (see [`crate::plan`]) in random order. Epochs follow each
//! other endlessly, and batches are taken from this single stream: a fixed number of sequences, or the number of sequences
//! that fit into a budget of tokens. **The last batch of an epoch is completed with sequences of the next epoch**, so every
//! step has the same size and no text is dropped.
//!
//! Without `duplicates`, every epoch has its own pairs and masks (dynamic masking, Liu et al. 2019). With `duplicates = N`,
//! epoch e has the pairs and masks of epoch e mod N (static masking, like Google's `dupe_factor`), in another order.
//!
//! Finding the epoch of a batch requires the sizes of all earlier epochs, which differ slightly because chunks are split at
//! random. They are planned when they are first needed, and their sizes are cached: planning an epoch of fifty million words
//! takes a few tenths of a second, once. The plans of the last two epochs are kept.

mod display;
mod epochs;
mod options;
mod packed;
mod source;

pub use crate::plan::PairTask;
pub use display::{Example, ExamplePiece, describe};
pub use options::{BatchOptions, BatchSize};
pub use packed::Batch;
pub use source::{BatchSource, UnmaskedBatch};

#[cfg(test)]
pub(crate) mod tests;
