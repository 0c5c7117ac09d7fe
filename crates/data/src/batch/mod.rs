//! Documents → packed batches. Each batch is a pure function of (seed, index).
//!
//! An *epoch* is one pass over the documents: a plan of sequences (see [`crate::plan`]) in a random order. Epochs follow
//! each other without end and batches are cut from that one long row: by a number of sequences, or as many sequences as
//! fit a budget of tokens. **The last batch of an epoch is carried over**: it is filled up from the next epoch, so that
//! every step has the same size, and no text is dropped.
//!
//! Without `duplicates` every epoch has its own pairs and masks (dynamic masking, Liu et al. 2019). With `duplicates = N`
//! epoch e has those of epoch e mod N (static masking, as Google's `dupe_factor`), in an order of its own.
//!
//! Index → epoch needs the sizes of the epochs before it, which differ a little as chunks are cut at random. They are
//! planned on the first call that needs them and remembered: an epoch of fifty million words takes some tenths of
//! a second, once. The plans of the last two epochs are kept.

mod display;
mod epochs;
mod options;
mod packed;
mod source;

pub use display::{Example, ExamplePiece, describe};
pub use options::{BatchOptions, BatchSize};
pub use packed::Batch;
pub use source::BatchSource;

#[cfg(test)]
pub(crate) mod tests;
