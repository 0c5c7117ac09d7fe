//! Shared code of the benches.

use std::marker::PhantomData;

use cloze_engine::Device;
use cloze_engine::cpu::level::Level;
use memmap2::MmapMut;

/// The level that `CLOZE_CPU` names, otherwise the best one; ends the process if it is not available.
pub fn level() -> Level {
    let Some(name) = Device::forced_instruction_set() else { return Level::detect() };
    match Level::from_name(&name, "CLOZE_CPU=", Level::detect()) {
        Ok(level) => level,
        Err(error) => {
            eprintln!("{error}");
            std::process::exit(1);
        }
    }
}

/// Numbers in huge pages, like the tensors of a training step.
pub struct Mapped<T> {
    map: MmapMut,
    of: PhantomData<T>,
}

impl<T: Copy> Mapped<T> {
    pub fn zeroed(count: usize) -> Mapped<T> {
        let map = MmapMut::map_anon((count * size_of::<T>()).max(1)).expect("memory");
        #[cfg(target_os = "linux")]
        let _ = map.advise(memmap2::Advice::HugePage);
        Mapped { map, of: PhantomData }
    }

    pub fn of(values: impl ExactSizeIterator<Item = T>) -> Mapped<T> {
        let mut mapped = Mapped::<T>::zeroed(values.len());
        let to = mapped.pointer();
        // SAFETY: within the map, which is aligned to pages.
        values.enumerate().for_each(|(i, value)| unsafe { to.add(i).write(value) });
        mapped
    }

    pub fn pointer(&mut self) -> *mut T {
        self.map.as_mut_ptr().cast()
    }

    pub fn slice(&self) -> &[T] {
        // SAFETY: the map is aligned to pages, and contains plain numbers.
        unsafe { std::slice::from_raw_parts(self.map.as_ptr().cast(), self.map.len() / size_of::<T>()) }
    }
}
