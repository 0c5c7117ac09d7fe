//! What the world can cause: an instruction set that the machine lacks, a thread count out of range.

use thiserror::Error;

/// An engine error that a user can cause and mend. Shape mismatches are bugs and panic instead.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum EngineError {
    /// A word that names no level.
    #[error("{place}{found}: expected one of amx, avx512bf16, avx512, avx2, neon, portable")]
    UnknownLevel {
        /// What stands before the word in the message: `CLOZE_CPU=`, or what else asked for the level.
        place: &'static str,
        /// The word found.
        found: String,
    },
    /// An instruction set that this machine lacks.
    #[error("{place}{wanted}: this CPU offers {available} at most; choose that, or leave it out to take the fastest")]
    UnavailableLevel {
        /// As above.
        place: &'static str,
        /// The level asked for.
        wanted: &'static str,
        /// The best level present.
        available: &'static str,
    },
    /// A thread count of zero, or beyond any machine.
    #[error("{found} threads asked for: expected 1 to {most}")]
    Threads {
        /// The count found.
        found: usize,
        /// The largest count accepted.
        most: usize,
    },
}
