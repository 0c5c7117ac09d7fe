//! Errors at the start of communication. Later failures end the job.

/// Why a job of several ranks cannot start.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CommError {
    /// No MPI library was found.
    #[error(
        "{launcher} started {size} processes, but no MPI library can be loaded (tried {tried}): install Open MPI or MPICH on every \
         machine, or set CLOZE_MPI to the path of libmpi.so"
    )]
    NoLibrary {
        /// The launcher.
        launcher: String,
        /// The number of processes that it started.
        size: usize,
        /// The names that were tried.
        tried: String,
    },
    /// The library is not usable.
    #[error("the MPI library {library} cannot be used: {reason}")]
    Unusable {
        /// Its path.
        library: String,
        /// The reason.
        reason: String,
    },
    /// The library does not belong to the launcher.
    #[error(
        "{launcher} started {expected} processes, but the MPI library {library} knows {found}: it is not the library of this launcher; set \
         CLOZE_MPI to the path of the right libmpi.so"
    )]
    OtherLauncher {
        /// The launcher.
        launcher: String,
        /// Its number of processes.
        expected: usize,
        /// The path of the library.
        library: String,
        /// The number of processes that the library knows.
        found: usize,
    },
}
