//! Memory of the device. Each step allocates the same sizes again, and the driver's own allocation waits for the device: so freed blocks
//! are kept. A block may be used again at once, because all work runs in the order of one stream.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::driver::{DevicePtr, Driver, raise};
use crate::EngineError;

/// The allocator of a device.
pub(crate) struct Allocator {
    driver: Arc<dyn Driver>,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// Freed blocks by size class.
    free: BTreeMap<usize, Vec<DevicePtr>>,
    /// Bytes in use, the maximum of them, and bytes in `free`.
    used: usize,
    peak: usize,
    kept: usize,
}

/// Bytes of memory of a device.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct MemoryUse {
    /// Bytes of all tensors.
    pub used: usize,
    /// The maximum of `used` since the device was opened.
    pub peak: usize,
    /// Bytes of freed blocks that are kept for reuse.
    pub kept: usize,
}

impl Allocator {
    pub(crate) fn new(driver: Arc<dyn Driver>) -> Arc<Allocator> {
        Arc::new(Allocator { driver, state: Mutex::default() })
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A block of at least `bytes`, with arbitrary contents.
    pub(crate) fn allocate(self: &Arc<Self>, bytes: usize) -> Block {
        let class = class_of(bytes);
        let reused = {
            let mut state = self.state();
            let reused = state.free.get_mut(&class).and_then(Vec::pop);
            if let Some(at) = reused {
                state.kept -= class;
                self.driver.reused(at, class);
            }
            reused
        };
        let allocated = reused.or_else(|| self.driver.allocate(class)).or_else(|| {
            self.trim();
            self.driver.allocate(class)
        });
        let Some(at) = allocated else {
            let (free, total) = self.driver.memory();
            raise(EngineError::OutOfDeviceMemory {
                device: self.driver.describe(),
                needed: class,
                used: self.state().used,
                free,
                total,
            });
        };
        let mut state = self.state();
        state.used += class;
        state.peak = state.peak.max(state.used);
        Block { at, class, allocator: Arc::clone(self) }
    }

    /// Returns all freed blocks to the driver.
    pub(crate) fn trim(&self) {
        let (free, _) = {
            let mut state = self.state();
            (std::mem::take(&mut state.free), std::mem::take(&mut state.kept))
        };
        for at in free.into_values().flatten() {
            // SAFETY: the block has no owner.
            unsafe { self.driver.free(at) };
        }
    }

    pub(crate) fn usage(&self) -> MemoryUse {
        let state = self.state();
        MemoryUse { used: state.used, peak: state.peak, kept: state.kept }
    }

    pub(crate) fn driver(&self) -> &dyn Driver {
        &*self.driver
    }
}

impl Drop for Allocator {
    fn drop(&mut self) {
        self.trim();
    }
}

/// Sizes are rounded up to eight classes for each power of two, so that at most an eighth of a block is unused.
fn class_of(bytes: usize) -> usize {
    const MIN: usize = 512;
    let bytes = bytes.max(MIN);
    let step = (bytes.next_power_of_two() / 16).max(MIN);
    bytes.div_ceil(step) * step
}

/// Memory of the device with one owner.
pub(crate) struct Block {
    at: DevicePtr,
    class: usize,
    allocator: Arc<Allocator>,
}

impl Block {
    pub(crate) fn at(&self) -> DevicePtr {
        self.at
    }

    pub(crate) fn allocator(&self) -> &Arc<Allocator> {
        &self.allocator
    }
}

impl Drop for Block {
    fn drop(&mut self) {
        let mut state = self.allocator.state();
        state.used -= self.class;
        state.kept += self.class;
        state.free.entry(self.class).or_default().push(self.at);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What does not fit ends the work with an error that says what was needed; blocks that are free are given back before.
    #[test]
    #[cfg(target_os = "linux")]
    fn a_lack_of_memory_is_an_error() {
        use crate::Device;
        use std::panic::{AssertUnwindSafe, catch_unwind};

        let Some(device) = Device::emulated_with_memory(1 << 20) else { return };
        let zeros = |count: usize| device.zeros(count);
        let kept = zeros(100_000);
        drop(zeros(100_000));
        // More than 800 kB are allocated, half of them free: a larger block fits only without these.
        drop(zeros(140_000));
        let payload = catch_unwind(AssertUnwindSafe(|| zeros(200_000))).expect_err("more than there is");
        let error = payload.downcast::<EngineError>().expect("an error of the engine");
        let EngineError::OutOfDeviceMemory { needed, total, .. } = *error else { panic!("{error}") };
        assert!(needed >= 800_000 && total == 1 << 20, "{error}");
        assert!(error.to_string().contains("out of memory"), "{error}");
        // The device still works.
        assert_eq!(zeros(10).values_f32()[..], [0.0; 10]);
        assert_eq!(kept.values_f32().len(), 100_000);
        let usage = device.memory_use().expect("memory of its own");
        assert!(usage.used < 500_000 && usage.peak >= 900_000, "{usage:?}");
    }

    #[test]
    fn classes_waste_at_most_an_eighth() {
        for bytes in [1, 511, 512, 513, 5000, 100_000, (1 << 20) + 1, 123_456_789] {
            let class = class_of(bytes);
            assert!(class >= bytes && class.is_multiple_of(512), "{bytes} → {class}");
            assert!(class <= bytes + (bytes / 8).max(512), "{bytes} → {class}");
            assert_eq!(class_of(class), class);
        }
    }
}
