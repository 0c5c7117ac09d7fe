//! What a micro-kernel is: the shape of its tile, how it wants its operands packed, and the loop over k.

use super::layout::{Line, Rows};
use crate::cpu::level::Isa;

/// One panel of each operand.
#[derive(Clone, Copy)]
pub(super) struct Panels {
    pub a: Rows,
    pub b: *const Line,
    /// Columns of B's panel: a multiple of 16.
    pub width: usize,
    /// Whether B's panel, and what follows it, is still beyond L2.
    #[cfg_attr(not(target_arch = "x86_64"), expect(dead_code))] // as `ahead`
    pub far: bool,
    /// Memory that is read soon, for the kernel to prefetch: a line of [`Kernel::AHEAD`] rows for each block of k. It may lie
    /// outside any object.
    #[cfg_attr(not(target_arch = "x86_64"), expect(dead_code))] // only x86's kernels look ahead
    pub ahead: Rows,
}

/// A micro-kernel. Its operands are panels, cut along k into blocks of 16 words:
/// - A: for each block, `MR` lines; line i holds the block's 16 words of row i. They follow each other, unless the kernel
///   reads rows in place;
/// - B: for each block, `width/16 ≤ NR/16` squares of 16 lines; line w of square s holds word w of columns
///   `16·s..16·s + 16`.
///
/// Rows, columns and words past the matrix's end are zero.
pub(super) trait Kernel: 'static {
    /// What packing and the sink are compiled for.
    type Isa: Isa;
    /// Rows of a tile.
    const MR: usize;
    /// The most columns of a tile: a multiple of 16.
    const NR: usize;
    /// Whether a word is a pair of bf16, not an f32.
    const PAIRS: bool;
    /// Whether A's lines may lie anywhere, as [`Rows`] says.
    const IN_PLACE: bool = false;
    /// Blocks of k that are summed in registers before the tile is put aside: what keeps a panel in L1 while others pass it.
    const NEAR: usize = Self::CHUNK;
    /// Blocks of k that are packed at a time: what keeps panels in L2.
    const CHUNK: usize;
    /// Bytes of packed panels of B that one thread keeps in L2 while A streams past them.
    const KEPT: usize;
    /// Rows of which `run` prefetches a line for each block of k.
    const AHEAD: usize = 0;
    /// Held by a thread while it calls `run`.
    type Hold;

    /// The width of B's panels for a product of `n` columns: even ones, where the kernel takes narrower ones than NR.
    fn width(n: usize) -> usize {
        let _ = n;
        Self::NR
    }

    /// Prepares this thread for `run`.
    ///
    /// # Safety
    /// The machine has what the kernel needs.
    unsafe fn hold() -> Self::Hold;

    /// `acc += A·B` (or `=`, unless `accumulate`) over `words` words of k. `acc` is `MR × NR`, row-major; only its first
    /// `rows × cols` matter.
    ///
    /// # Safety
    /// The machine has what the kernel needs; `hold`'s value lives; the panels have `⌈words/16⌉` blocks; `acc` is aligned to
    /// 64 bytes; `rows` in `1..=MR` and `cols` in `1..=` the width of B's panel.
    unsafe fn run(words: usize, panels: Panels, acc: *mut f32, rows: usize, cols: usize, accumulate: bool);
}
