//! Scratch buffers for packed panels, which each thread reuses: no allocation and no page faults in the steady state.

use std::cell::Cell;
use std::thread::LocalKey;

use super::layout::Line;
use crate::host::{Buffer, MAPPED};

thread_local! {
    /// A completely packed operand of a product, for all threads.
    static OPERAND: Cell<Option<Buffer>> = const { Cell::new(None) };
    /// The panels that a thread packs for its task, and its accumulator tiles.
    static PANELS: Cell<Option<Buffer>> = const { Cell::new(None) };
}

/// A scratch buffer; it returns to its thread when dropped. If a thread needs a second one of the same kind (for a
/// product within another product's epilogue), it gets a new buffer.
pub(super) struct Scratch {
    lines: Option<Buffer>,
    slot: &'static LocalKey<Cell<Option<Buffer>>>,
}

impl Scratch {
    pub(super) fn operand(lines: usize) -> Scratch {
        Scratch::take(&OPERAND, lines)
    }

    pub(super) fn panels(lines: usize) -> Scratch {
        Scratch::take(&PANELS, lines)
    }

    fn take(slot: &'static LocalKey<Cell<Option<Buffer>>>, lines: usize) -> Scratch {
        let bytes = lines * size_of::<Line>();
        let buffer = slot.take();
        let capacity = buffer.as_ref().map_or(0, Buffer::len);
        if capacity >= bytes {
            return Scratch { lines: buffer, slot };
        }
        drop(buffer);
        // Grow by half, so that slowly growing sizes seldom allocate; and use huge pages, so that packed panels and tiles
        // cause fewer TLB misses.
        Scratch { lines: Some(Buffer::new(bytes.max(capacity * 3 / 2).max(MAPPED))), slot }
    }

    pub(super) fn as_mut_ptr(&mut self) -> *mut Line {
        self.lines.as_mut().map_or(std::ptr::dangling_mut(), |buffer| buffer.as_mut_ptr().cast())
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        // Fails only while the thread is being destroyed; the buffer is freed then.
        let _ = self.slot.try_with(|slot| slot.set(self.lines.take()));
    }
}
