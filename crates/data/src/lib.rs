//! Turns text into training batches.
//!
//! The modules, in the order of the data flow:
//!
//! | module | in → out |
//! | --- | --- |
//! | [`corpus`] | files (txt, jsonl, parquet; plain, gzip, zstd) → a stream of documents |
//! | [`sentences`] | the text of a document → its sentences |
//! | [`prepare`] | a corpus and a tokenizer → a folder of shards, with a [`report`] on the corpus |
//! | [`mapped`] | a file → its bytes, memory-mapped |
//! | [`shards`] | a folder of shards → memory-mapped [`Documents`](shards::Documents) |
//! | [`manifest`] | the contents of a folder of shards |
//! | [`plan`] | sentence lengths → one epoch's sentence pairs |
//! | [`masking`] | a sequence → a masked sequence and its labels |
//! | [`batch`] | documents → packed batches, each a pure function of (seed, index) |
//! | [`export`] | batches → an Arrow file for other trainers |
//! | [`prefetch`] | batches prepared by a background thread |

mod arrow;
pub mod batch;
pub mod corpus;
pub mod error;
pub mod export;
pub mod manifest;
pub mod mapped;
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
