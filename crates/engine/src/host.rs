//! Host memory, aligned and reused. Each step allocates the same sizes again, and fresh pages are expensive (the kernel
//! zeroes each on first touch).

use std::alloc::{Layout, alloc_zeroed, dealloc, handle_alloc_error};
use std::cell::RefCell;
use std::ptr::NonNull;
use std::sync::Mutex;

use memmap2::MmapMut;

use crate::dtype::Plain;

/// Size of a cache line and of the widest vector, in bytes.
const ALIGNMENT: usize = 64;
/// Buffers of at least this many bytes are memory-mapped, with huge pages if the system provides them: with 4 KB pages,
/// a linear scan misses the TLB and interrupts hardware prefetching at each page.
pub(crate) const MAPPED: usize = 1 << 21;
/// Freed buffers for reuse, shared by the process.
static FREE: Mutex<FreeList> = Mutex::new(FreeList { blocks: Vec::new(), bytes: 0 });
/// Maximum number of bytes in the free list. Beyond it, freed buffers are returned to the system.
const FREE_BYTES_MAX: usize = 8 << 30;

/// The largest size class that a thread caches, and the maximum number of cached blocks.
const LOCAL_BYTES_MAX: usize = 512 << 10;
const LOCAL_BLOCKS_MAX: usize = 16;

thread_local! {
    /// Small buffers that this thread freed last. A task allocates and frees them for each head of each sequence:
    /// reusing them needs no lock, and they are still in the thread's caches.
    static LOCAL: RefCell<Vec<Block>> = const { RefCell::new(Vec::new()) };
}

struct FreeList {
    /// Sorted by class, then by age.
    blocks: Vec<Block>,
    bytes: usize,
}

/// Memory of a size class, with one owner.
struct Block {
    start: NonNull<u8>,
    class: usize,
    /// The mapping that owns `start`; `None` if it came from the allocator.
    map: Option<MmapMut>,
}
// SAFETY: a block is plain memory with one owner; it is not tied to a thread.
unsafe impl Send for Block {}
// SAFETY: shared access is read-only, mutable access needs `&mut`.
unsafe impl Sync for Block {}

impl Block {
    fn new(class: usize) -> Block {
        if class >= MAPPED
            && let Ok(mut map) = MmapMut::map_anon(class)
        {
            // Only a hint: without huge pages, the mapping still works.
            #[cfg(target_os = "linux")]
            let _ = map.advise(memmap2::Advice::HugePage);
            if let Some(start) = NonNull::new(map.as_mut_ptr()) {
                return Block { start, class, map: Some(map) };
            }
        }
        let layout = Block::layout(class);
        // SAFETY: the layout's size is at least ALIGNMENT, never zero.
        let start = unsafe { alloc_zeroed(layout) };
        let Some(start) = NonNull::new(start) else { handle_alloc_error(layout) };
        Block { start, class, map: None }
    }

    fn layout(class: usize) -> Layout {
        Layout::from_size_align(class, ALIGNMENT).expect("a size class fits the address space")
    }
}

impl Drop for Block {
    fn drop(&mut self) {
        if self.map.is_none() {
            // SAFETY: `start` came from `alloc_zeroed` with the same layout and is not used again.
            unsafe { dealloc(self.start.as_ptr(), Block::layout(self.class)) };
        }
    }
}

/// The bytes of numbers.
pub(crate) fn bytes<E: Plain>(values: &[E]) -> &[u8] {
    // SAFETY: the bytes of plain numbers are initialised, and any address is aligned for bytes.
    unsafe { std::slice::from_raw_parts(values.as_ptr().cast(), size_of_val(values)) }
}

/// The bytes of numbers, to be overwritten.
pub(crate) fn bytes_mut<E: Plain>(values: &mut [E]) -> &mut [u8] {
    // SAFETY: as in `bytes`; all bit patterns are numbers.
    unsafe { std::slice::from_raw_parts_mut(values.as_mut_ptr().cast(), size_of_val(values)) }
}

/// Takes this thread's most recently freed block of a class.
fn take_local(class: usize) -> Option<Block> {
    let take = |local: &RefCell<Vec<Block>>| {
        let mut local = local.borrow_mut();
        let at = local.iter().rposition(|block| block.class == class)?;
        Some(local.remove(at))
    };
    if class > LOCAL_BYTES_MAX { None } else { LOCAL.try_with(take).ok().flatten() }
}

/// Caches a free block for this thread. Returns the block that no longer fits: the oldest, or `block` if it is too
/// large.
fn cache_local(block: Block) -> Option<Block> {
    if block.class > LOCAL_BYTES_MAX {
        return Some(block);
    }
    let mut evicted = Some(block);
    // Fails only while the thread is being destroyed.
    let _ = LOCAL.try_with(|local| {
        let mut local = local.borrow_mut();
        local.extend(evicted.take());
        if local.len() > LOCAL_BLOCKS_MAX {
            evicted = Some(local.remove(0));
        }
    });
    evicted
}

/// Initialised bytes, 64-byte aligned; returned to the free list when dropped.
pub(crate) struct Buffer {
    /// `None` only while it is being dropped.
    block: Option<Block>,
    start: NonNull<u8>,
    len: usize,
}
// SAFETY: a buffer owns its bytes; shared access is read-only, mutable access needs `&mut`.
unsafe impl Send for Buffer {}
// SAFETY: as above.
unsafe impl Sync for Buffer {}

/// Rounds sizes up to three significant bits (steps of 12–25 %), so that batches of similar length use the same class.
fn size_class(len: usize) -> usize {
    let len = len.max(ALIGNMENT);
    let step = (len.next_power_of_two() / 8).max(ALIGNMENT);
    len.div_ceil(step) * step
}

impl Buffer {
    /// Memory for `len` bytes. The contents are arbitrary but initialised (zeros, or data of a previous owner).
    pub(crate) fn new(len: usize) -> Buffer {
        let class = size_class(len);
        if let Some(block) = take_local(class) {
            return Buffer { start: block.start, block: Some(block), len };
        }
        let mut free = FREE.lock().unwrap_or_else(|e| e.into_inner());
        let end = free.blocks.partition_point(|block| block.class <= class);
        let reused = (end > 0 && free.blocks[end - 1].class == class).then(|| free.blocks.remove(end - 1));
        if reused.is_some() {
            free.bytes -= class;
        }
        drop(free);
        let block = reused.unwrap_or_else(|| Block::new(class));
        Buffer { start: block.start, block: Some(block), len }
    }

    pub(crate) fn len(&self) -> usize {
        self.len
    }

    /// The first `count` elements.
    pub(crate) fn slice<E: Plain>(&self, count: usize) -> &[E] {
        assert!(count * size_of::<E>() <= self.len, "{count} elements in {} bytes", self.len);
        // SAFETY: in bounds by the assertion, aligned to 64 bytes, initialised; any bits are a number.
        unsafe { std::slice::from_raw_parts(self.start.as_ptr().cast(), count) }
    }

    /// The first `count` elements, mutable.
    pub(crate) fn slice_mut<E: Plain>(&mut self, count: usize) -> &mut [E] {
        assert!(count * size_of::<E>() <= self.len, "{count} elements in {} bytes", self.len);
        // SAFETY: as in `slice`; `&mut self` makes the access exclusive.
        unsafe { std::slice::from_raw_parts_mut(self.start.as_ptr().cast(), count) }
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
        let Some(block) = self.block.take().and_then(cache_local) else { return };
        let mut free = FREE.lock().unwrap_or_else(|e| e.into_inner());
        if free.bytes + block.class <= FREE_BYTES_MAX {
            free.bytes += block.class;
            let at = free.blocks.partition_point(|other| other.class <= block.class);
            free.blocks.insert(at, block);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn size_classes_are_tight() {
        for len in (1..5000).chain([1 << 20, (1 << 20) + 1, 123_456_789]) {
            let class = size_class(len);
            assert!(class >= len && class.is_multiple_of(ALIGNMENT));
            assert!(class <= len + (len / 4).max(ALIGNMENT), "{len} -> {class}");
        }
    }

    #[test]
    fn a_thread_reuses_the_small_buffers_it_freed_last() {
        let small: Vec<Buffer> = (0..LOCAL_BLOCKS_MAX + 4).map(|_| Buffer::new(1000)).collect();
        let starts: Vec<_> = small.iter().map(|buffer| buffer.start).collect();
        small.into_iter().for_each(drop);
        // The latest first, up to the maximum.
        let again: Vec<Buffer> = (0..LOCAL_BLOCKS_MAX).map(|_| Buffer::new(1001)).collect();
        assert!(again.iter().map(|buffer| buffer.start).eq(starts.iter().rev().take(LOCAL_BLOCKS_MAX).copied()));
        assert_eq!(
            LOCAL.with(|local| local.borrow().iter().filter(|block| block.class == size_class(1000)).count()),
            0
        );
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
