//! Documents on their way from a worker to the writer.

use crate::report::Tally;

/// A tokenised chunk.
#[derive(Debug, Default)]
pub(super) struct TokenisedChunk {
    /// Position in the order of this rank's chunks, from 0.
    pub(super) number: u64,
    /// Memory of its text.
    pub(super) bytes: usize,
    /// Compressed bytes of the files read up to its end.
    pub(super) read: u64,
    pub(super) documents: Vec<TokenisedDocument>,
    pub(super) tally: Tally,
}

/// A tokenised document.
#[derive(Debug, Default, PartialEq)]
pub(super) struct TokenisedDocument {
    pub(super) ids: Vec<u32>,
    /// The ends of the sentences.
    pub(super) ends: Vec<u32>,
    pub(super) characters: u64,
    /// Of the text.
    pub(super) hash: u64,
    /// Of the lines that are not blank.
    pub(super) line_hashes: Vec<u64>,
}
