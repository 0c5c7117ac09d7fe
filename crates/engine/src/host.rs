//! Host memory, aligned and reused: a step allocates the same sizes again and again, and fresh pages are the dearest
//! memory there is (the kernel zeroes each on first touch).

use std::alloc::{Layout, alloc_zeroed, dealloc, handle_alloc_error};
use std::cell::RefCell;
use std::ptr::NonNull;
use std::sync::Mutex;

use memmap2::MmapMut;

use crate::dtype::Element;

/// Cache line, and the widest vector.
const ALIGNMENT: usize = 64;
/// Buffers of at least this many bytes are mapped, in huge pages where the system has them to give: a walk through 4 KB pages
/// misses the TLB and stops the hardware's prefetching at each one.
pub(crate) const MAPPED: usize = 1 << 21;
/// Freed buffers kept for reuse, process-wide: the host has one memory.
static FREE: Mutex<FreeList> = Mutex::new(FreeList { blocks: Vec::new(), bytes: 0 });
/// Bytes kept at most: past it a freed buffer goes back to the system.
const KEPT_BYTES: usize = 8 << 30;

/// The largest class kept by a thread, and how many of all.
const NEAR_BYTES: usize = 512 << 10;
const NEAR_BLOCKS: usize = 16;

thread_local! {
    /// Small buffers that this thread freed last, for its next ones: what a task takes and gives back for each head of each sequence
    /// needs no lock, and is still in its caches.
    static NEAR: RefCell<Vec<Block>> = const { RefCell::new(Vec::new()) };
}

struct FreeList {
    /// Sorted by class, then by age.
    blocks: Vec<Block>,
    bytes: usize,
}

/// Memory of a class's size, with one owner.
struct Block {
    start: NonNull<u8>,
    class: usize,
    /// What keeps `start` alive, unless it came from the allocator.
    map: Option<MmapMut>,
}
// SAFETY: a block is plain memory with one owner; it carries no thread affinity.
unsafe impl Send for Block {}
// SAFETY: shared access is read-only, mutable access needs `&mut`.
unsafe impl Sync for Block {}

impl Block {
    fn new(class: usize) -> Block {
        if class >= MAPPED
            && let Ok(mut map) = MmapMut::map_anon(class)
        {
            // A wish: it is no failure if the system has no huge pages.
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
            // SAFETY: `start` came from `alloc_zeroed` with this very layout and is not used again.
            unsafe { dealloc(self.start.as_ptr(), Block::layout(self.class)) };
        }
    }
}

/// The thread's latest free block of a class.
fn take_near(class: usize) -> Option<Block> {
    let take = |near: &RefCell<Vec<Block>>| {
        let mut near = near.borrow_mut();
        let at = near.iter().rposition(|block| block.class == class)?;
        Some(near.remove(at))
    };
    if class > NEAR_BYTES { None } else { NEAR.try_with(take).ok().flatten() }
}

/// Keeps a free block for this thread; returns the one that has to go for it, or itself if it is too large.
fn keep_near(block: Block) -> Option<Block> {
    if block.class > NEAR_BYTES {
        return Some(block);
    }
    let mut going = Some(block);
    // Fails only while the thread is being torn down.
    let _ = NEAR.try_with(|near| {
        let mut near = near.borrow_mut();
        near.extend(going.take());
        if near.len() > NEAR_BLOCKS {
            going = Some(near.remove(0));
        }
    });
    going
}

/// Uninitialised-on-creation bytes, 64-byte aligned; goes back to the free list when dropped.
pub(crate) struct Buffer {
    /// None only while it is being dropped.
    block: Option<Block>,
    start: NonNull<u8>,
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
        if let Some(block) = take_near(class) {
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
    pub(crate) fn slice<E: Element>(&self, count: usize) -> &[E] {
        assert!(count * size_of::<E>() <= self.len, "{count} elements in {} bytes", self.len);
        // SAFETY: in bounds by the assertion, aligned to 64 bytes, initialised; any bits are a number.
        unsafe { std::slice::from_raw_parts(self.start.as_ptr().cast(), count) }
    }

    /// The first `count` elements, for writing.
    pub(crate) fn slice_mut<E: Element>(&mut self, count: usize) -> &mut [E] {
        assert!(count * size_of::<E>() <= self.len, "{count} elements in {} bytes", self.len);
        // SAFETY: as in `slice`; nobody else sees the buffer.
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
        let Some(block) = self.block.take().and_then(keep_near) else { return };
        let mut free = FREE.lock().unwrap_or_else(|e| e.into_inner());
        if free.bytes + block.class <= KEPT_BYTES {
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
    fn classes_cover_their_lengths_tightly() {
        for len in (1..5000).chain([1 << 20, (1 << 20) + 1, 123_456_789]) {
            let class = size_class(len);
            assert!(class >= len && class.is_multiple_of(ALIGNMENT));
            assert!(class <= len + (len / 4).max(ALIGNMENT), "{len} -> {class}");
        }
    }

    #[test]
    fn a_thread_keeps_the_last_small_buffers_it_freed() {
        let small: Vec<Buffer> = (0..NEAR_BLOCKS + 4).map(|_| Buffer::new(1000)).collect();
        let starts: Vec<_> = small.iter().map(|buffer| buffer.start).collect();
        small.into_iter().for_each(drop);
        // The latest first, and no more than it may keep.
        let again: Vec<Buffer> = (0..NEAR_BLOCKS).map(|_| Buffer::new(1001)).collect();
        assert!(again.iter().map(|buffer| buffer.start).eq(starts.iter().rev().take(NEAR_BLOCKS).copied()));
        assert_eq!(NEAR.with(|near| near.borrow().iter().filter(|block| block.class == size_class(1000)).count()), 0);
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
