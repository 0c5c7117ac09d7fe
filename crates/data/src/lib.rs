//! From text to batches.
//!
//! In the order in which data flows:
//!
//! | module | in → out |
//! | --- | --- |
//! | [`corpus`] | files (txt, jsonl, parquet; plain, gzip, zstd) → a stream of documents |
//! | [`sentences`] | a document's text → its sentences |
//! | [`prepare`] | a corpus and a tokenizer → a folder of shards, with a [`report`] on the corpus |
//! | [`shards`] | a folder of shards → memory-mapped [`Documents`](shards::Documents) |
//! | [`manifest`] | what a folder of shards holds |
//! | [`plan`] | sentence lengths → one epoch's sentence pairs |
//! | [`masking`] | a sequence → the same with tokens hidden, and their labels |
//! | [`batch`] | documents → packed batches, each a pure function of (seed, index) |
//! | [`export`] | batches → an Arrow file for other trainers |
//! | [`prefetch`] | batches made ready in a background thread |

pub mod batch;
pub mod corpus;
pub mod error;
pub mod export;
pub mod manifest;
pub mod masking;
pub mod plan;
pub mod prefetch;
pub mod prepare;
mod random;
pub mod report;
pub mod sentences;
mod shard_writer;
pub mod shards;
pub mod tokens;

pub use error::DataError;
pub use random::{Purpose, Random, example_order};
pub use tokens::TokenTable;
