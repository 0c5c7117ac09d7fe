//! The device of a run. Nothing else in this crate creates a device: callers pass one.

use cloze_engine::{Device, EngineError};

/// A device with the instruction set `requested`; otherwise with `previous`, that of a run to resume, if this machine
/// has it; otherwise with the fastest one. `CLOZE_CPU` has precedence over all.
///
/// # Errors
/// A requested instruction set that is unknown or not available on this machine; a number of threads out of range.
pub fn run_device(
    threads: Option<usize>,
    requested: Option<&str>,
    previous: Option<&str>,
) -> Result<Device, EngineError> {
    match (requested, previous) {
        (Some(name), _) => Device::cpu_at(threads, name),
        (None, Some(name)) => match Device::cpu_at(threads, name) {
            Err(EngineError::UnavailableLevel { .. }) => Device::cpu(threads),
            device => device,
        },
        (None, None) => Device::cpu(threads),
    }
}
