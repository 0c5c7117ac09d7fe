//! The interface of a micro-kernel: the shape of its tile, the layout of its packed operands, and its loop over k.

use super::layout::{Line, Rows};
use crate::cpu::level::Isa;

/// One panel of each operand.
#[derive(Clone, Copy)]
pub(super) struct Panels {
    pub a: Rows,
    pub b: *const Line,
    /// Columns of B's panel: a multiple of 16.
    pub width: usize,
    /// Whether B's panel and the next ones are not in L2 yet.
    #[cfg_attr(not(target_arch = "x86_64"), expect(dead_code))] // as `ahead`
    pub b_is_cold: bool,
    /// Memory that is read soon, for the kernel to prefetch: one line of each of [`Kernel::AHEAD`] rows per block of k.
    /// The address may be outside of any object.
    #[cfg_attr(not(target_arch = "x86_64"), expect(dead_code))] // only x86 kernels prefetch
    pub ahead: Rows,
}

/// A micro-kernel. Its operands are panels, cut along k into blocks of 16 words:
/// - A: for each block, `MR` lines; line i contains the block's 16 words of row i. The lines are consecutive, unless
///   the kernel reads rows in place;
/// - B: for each block, `width/16 ≤ NR/16` squares of 16 lines; line w of square s contains word w of columns
///   `16·s..16·s + 16`.
///
/// Rows, columns and words past the matrix's end are zero.
pub(super) trait Kernel: 'static {
    /// The instruction set for which packing and the epilogue are compiled.
    type Isa: Isa;
    /// Rows of a tile.
    const MR: usize;
    /// Maximum number of columns of a tile: a multiple of 16.
    const NR: usize;
    /// Elements in a word: one f32, two bf16 or four int8.
    const PER_WORD: usize;
    /// What the kernel expects to be added to each int8 of A, modulo 256: 128 if it multiplies unsigned bytes of A by
    /// signed ones of B. The products' sums are then too large by 128 times the sums of B's columns.
    const A_OFFSET: u8 = 0;
    /// Whether A's lines may be anywhere in memory, as described by [`Rows`].
    const IN_PLACE: bool = false;
    /// Maximum number of blocks of k that are summed before the tile is stored, so that a panel of A stays in L1 while
    /// the panels of B pass through.
    const KC_L1: usize = Self::KC;
    /// Maximum number of blocks of k that are packed at a time, so that panels fit in L2.
    const KC: usize;
    /// Bytes of packed panels of B that a task keeps in L2 while A streams through.
    const NC_BYTES: usize;
    /// Number of rows of which `run` prefetches a line per block of k.
    const AHEAD: usize = 0;
    /// A guard that a thread holds while it calls `run`.
    type Guard;

    /// The width of B's panels for a product of `n` columns: all equal, if the kernel supports panels narrower than NR.
    fn width(n: usize) -> usize {
        let _ = n;
        Self::NR
    }

    /// Prepares this thread for `run`, until the guard is dropped.
    ///
    /// # Safety
    /// The machine supports the kernel's instructions.
    unsafe fn acquire() -> Self::Guard;

    /// `acc += A·B` (or `=`, unless `accumulate`) over `words` words of k. `acc` is `MR × NR`, row-major; only its
    /// first `rows × cols` elements are used. With int8, they are i32 in the place of f32.
    ///
    /// # Safety
    /// The machine supports the kernel's instructions; this thread holds the guard; the panels have `⌈words/16⌉`
    /// blocks; `acc` is aligned to 64 bytes; `rows` is in `1..=MR` and `cols` in `1..=` the width of B's panel.
    unsafe fn run(words: usize, panels: Panels, acc: *mut f32, rows: usize, cols: usize, accumulate: bool);
}
