//! Errors caused by the environment or a setting: an unavailable instruction set, a thread count out of range.

use thiserror::Error;

/// An engine error that the user can correct. Shape mismatches are bugs and panic instead.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum EngineError {
    /// A name that is not an instruction set.
    #[error("{origin}{found}: expected one of amx, avx512bf16, avx512, avx2, neon, portable")]
    UnknownLevel {
        /// Where the name came from, as the start of the message: `CLOZE_CPU=`, for example.
        origin: &'static str,
        /// The name found.
        found: String,
    },
    /// An instruction set that this machine does not have.
    #[error(
        "{origin}{requested}: the best instruction set of this CPU is {available}; choose that, or choose none to use the fastest"
    )]
    UnavailableLevel {
        /// Where the name came from, as in [`EngineError::UnknownLevel`].
        origin: &'static str,
        /// The requested level.
        requested: &'static str,
        /// The best level of this machine.
        available: &'static str,
    },
    /// A thread count of zero, or above the limit.
    #[error("`threads` must be between 1 and {max}, found {found}")]
    Threads {
        /// The count found.
        found: usize,
        /// The largest count accepted.
        max: usize,
    },
    /// The memory of a GPU does not suffice.
    #[error(
        "{device}: out of memory: a block of {} MB was needed, {} MB are in use, {} of {} MB are free; use smaller micro-batches, `recompute`, or a smaller model",
        needed >> 20, used >> 20, free >> 20, total >> 20
    )]
    OutOfDeviceMemory {
        /// The device.
        device: String,
        /// Bytes of the block.
        needed: usize,
        /// Bytes that this process uses.
        used: usize,
        /// Free bytes of the device.
        free: usize,
        /// All bytes of the device.
        total: usize,
    },
    /// One of NVIDIA's libraries is missing or cannot be opened.
    #[error("{name} {found}: {remedy}")]
    CudaLibrary {
        /// The start of the library's file name.
        name: &'static str,
        /// What was found instead.
        found: String,
        /// What helps.
        remedy: &'static str,
    },
    /// There is no GPU that can be used.
    #[error("{reason}")]
    CudaUnavailable {
        /// Why not, and what helps.
        reason: String,
    },
    /// NVRTC did not compile the kernels.
    #[error("the kernels cannot be compiled for {architecture}: {reason}")]
    CudaCompiler {
        /// The architecture of the GPU, or what NVRTC was asked.
        architecture: String,
        /// What NVRTC says.
        reason: String,
    },
    /// A GPU failed while it was working.
    #[error(
        "{device} failed: {reason}; results since the last checkpoint are lost, and the same command with `resume` continues from it"
    )]
    CudaFailed {
        /// The device.
        device: String,
        /// What the driver says.
        reason: String,
    },
    /// A name that is not a device.
    #[error("device {found}: expected auto, cpu, cuda, or cuda:1 for the second GPU")]
    UnknownDevice {
        /// The name found.
        found: String,
    },
}
