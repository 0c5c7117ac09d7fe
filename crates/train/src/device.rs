//! The device of a run. Nothing else in this crate creates a device: callers pass one.

use cloze_comm::Communicator;
use cloze_engine::{Device, DeviceChoice, EngineError};

/// [`Device::instruction_set`] of a GPU.
pub const CUDA: &str = "cuda";

/// The device of `choice`. A CPU has the instruction set `requested`; otherwise with `previous`, that of a run to resume, if this machine
/// has it; otherwise with the fastest one. `CLOZE_CPU` has precedence over all.
///
/// # Errors
/// A GPU that cannot be used; a requested instruction set that is unknown or not available on this machine; a number of threads out of
/// range.
pub fn run_device(
    choice: DeviceChoice,
    threads: Option<usize>,
    requested: Option<&str>,
    previous: Option<&str>,
) -> Result<Device, EngineError> {
    if let (Some(gpu), _) = choice.gpu()? {
        return Ok(gpu);
    }
    match (requested, previous.filter(|name| *name != CUDA)) {
        (Some(name), _) => Device::cpu_at(threads, name),
        (None, Some(name)) => match Device::cpu_at(threads, name) {
            Err(EngineError::UnavailableLevel { .. }) => Device::cpu(threads),
            device => device,
        },
        (None, None) => Device::cpu(threads),
    }
}

/// The devices of the ranks of a job: rank 0 makes its own with `of_root`, the others use its instruction set, because the last bits of
/// results depend on it.
///
/// # Errors
/// Those of `of_root`; a machine that lacks the instruction set; several ranks on GPUs.
pub fn device_of_ranks<E: From<EngineError>>(
    ranks: &Communicator,
    threads: Option<usize>,
    of_root: impl FnOnce() -> Result<Device, E>,
) -> Result<Device, E> {
    if ranks.is_root() {
        let device = of_root()?;
        if ranks.size() > 1 && device.instruction_set() == CUDA {
            let reason = "several ranks compute on CPUs only; use one rank for a GPU".to_owned();
            return Err(EngineError::CudaUnavailable { reason }.into());
        }
        ranks.broadcast(device.instruction_set().as_bytes().to_vec());
        return Ok(device);
    }
    let name = ranks.broadcast(Vec::new());
    Ok(Device::cpu_at(threads, &String::from_utf8_lossy(&name))?)
}
