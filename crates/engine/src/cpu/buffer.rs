//! Aligned host memory, reused: a step allocates the same sizes again and again, and fresh pages are the dearest
//! memory there is (the kernel zeroes each on first touch).

use std::alloc::{Layout, alloc_zeroed, dealloc, handle_alloc_error};
use std::ptr::NonNull;
use std::sync::Mutex;

/// Cache line, and the widest vector.
const ALIGNMENT: usize = 64;
/// Freed buffers kept for reuse, process-wide; all CPU devices share the one host memory.
static FREE: Mutex<FreeList> = Mutex::new(FreeList { buffers: Vec::new(), bytes: 0 });
/// Bytes kept at most: past it a freed buffer goes back to the system.
const KEPT_BYTES: usize = 8 << 30;

struct FreeList {
    /// Sorted by class, then by age.
    buffers: Vec<(usize, Block)>,
    bytes: usize,
}

/// A raw allocation of a class's size.
struct Block(NonNull<u8>);
// SAFETY: a block is plain memory with one owner; it carries no thread affinity.
unsafe impl Send for Block {}

/// Uninitialised-on-creation bytes, 64-byte aligned; goes back to the free list when dropped.
pub(crate) struct Buffer {
    start: NonNull<u8>,
    class: usize,
    len: usize,
}
// SAFETY: a buffer owns its bytes; shared access is read-only, mutable access needs `&mut`.
unsafe impl Send for Buffer {}
// SAFETY: as above.
unsafe impl Sync for Buffer {}

/// Sizes are rounded up to three significant bits (12–25 % steps), so that ragged batches meet again in one class.
fn size_class(len: usize) -> usize {
    let len = len.max(ALIGNMENT);
    let step = (len.next_power_of_two() / 8).max(ALIGNMENT);
    len.div_ceil(step) * step
}

impl Buffer {
    /// Memory for `len` bytes; the contents are arbitrary but initialised (zeros, or what a former owner left).
    pub(crate) fn new(len: usize) -> Buffer {
        let class = size_class(len);
        let mut free = FREE.lock().unwrap_or_else(|e| e.into_inner());
        let end = free.buffers.partition_point(|(c, _)| *c <= class);
        let reused = (end > 0 && free.buffers[end - 1].0 == class).then(|| free.buffers.remove(end - 1).1.0);
        if let Some(start) = reused {
            free.bytes -= class;
            return Buffer { start, class, len };
        }
        drop(free);
        let layout = Self::layout(class);
        // SAFETY: the layout's size is at least ALIGNMENT, never zero.
        let start = unsafe { alloc_zeroed(layout) };
        let Some(start) = NonNull::new(start) else { handle_alloc_error(layout) };
        Buffer { start, class, len }
    }

    fn layout(class: usize) -> Layout {
        Layout::from_size_align(class, ALIGNMENT).expect("a size class fits the address space")
    }

    pub(crate) fn len(&self) -> usize {
        self.len
    }

    pub(crate) fn as_ptr(&self) -> *const u8 {
        self.start.as_ptr()
    }

    pub(crate) fn as_mut_ptr(&mut self) -> *mut u8 {
        self.start.as_ptr()
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        let mut free = FREE.lock().unwrap_or_else(|e| e.into_inner());
        if free.bytes + self.class <= KEPT_BYTES {
            free.bytes += self.class;
            let at = free.buffers.partition_point(|(c, _)| *c <= self.class);
            free.buffers.insert(at, (self.class, Block(self.start)));
        } else {
            drop(free);
            // SAFETY: `start` came from `alloc_zeroed` with this very layout and is not used again.
            unsafe { dealloc(self.start.as_ptr(), Self::layout(self.class)) };
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn classes_cover_their_lengths_tightly() {
        for len in (1..5000).chain([1 << 20, (1 << 20) + 1, 123_456_789]) {
            let class = size_class(len);
            assert!(class >= len && class.is_multiple_of(ALIGNMENT));
            assert!(class <= len + (len / 4).max(ALIGNMENT), "{len} -> {class}");
        }
    }

    #[test]
    fn a_freed_buffer_is_reused() {
        let odd_class = 7 * 12_345_678;
        let first = Buffer::new(odd_class);
        let start = first.as_ptr() as usize;
        drop(first);
        assert_eq!(Buffer::new(odd_class - 1).as_ptr() as usize, start);
    }
}
