//! The device of a run. Nothing else in this crate makes one: callers pass it.

use cloze_engine::{Device, EngineError};

/// A device at the requested instruction set; else at the one that a run began with, where this machine has it; else at the
/// fastest. `CLOZE_CPU` comes first.
///
/// # Errors
/// A requested instruction set that is unknown, or that this machine lacks; a number of threads out of range.
pub fn run_device(threads: Option<usize>, asked: Option<&str>, began: Option<&str>) -> Result<Device, EngineError> {
    match (asked, began) {
        (Some(name), _) => Device::cpu_at(threads, name),
        (None, Some(name)) => match Device::cpu_at(threads, name) {
            Err(EngineError::UnavailableLevel { .. }) => Device::cpu(threads),
            device => device,
        },
        (None, None) => Device::cpu(threads),
    }
}
