//! What the world can cause: an instruction set that the machine lacks, a thread count out of range.

use thiserror::Error;

/// An engine error that a user can cause and mend. Shape mismatches are bugs and panic instead.
#[derive(Debug, Error)]
pub enum EngineError {
    /// `CLOZE_CPU` holds a word that names no level.
    #[error("CLOZE_CPU={found}: expected one of amx, avx512bf16, avx512, avx2, neon, portable")]
    UnknownLevel {
        /// The word found.
        found: String,
    },
    /// `CLOZE_CPU` asks for an instruction set that this machine lacks.
    #[error("CLOZE_CPU={wanted}: this CPU offers {available} at most; unset CLOZE_CPU or choose that")]
    UnavailableLevel {
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
