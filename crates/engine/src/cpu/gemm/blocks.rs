//! The loops around the micro-kernel: which panels stay in a thread's L2, which stream through, and which thread does
//! what.
//!
//! C is cut into a grid of tasks. A task packs a range of B's panels, as many as fit in its share of L2, and keeps
//! them. A's panels stream through: each stays in L1 while it is multiplied by all packed panels of B. If the kernel can
//! read rows of A in place, they are not copied. Otherwise, if A is not contiguous along k, all threads pack all of A
//! first. So each task reads memory beyond L2 once, prefetched, and tasks share only data that is read.
//!
//! If k is long, it is cut into chunks of at most `KC` blocks that are packed one after the other, and each chunk into
//! sections of at most `KC_L1` blocks, whose panels share L1. Between them, accumulator tiles are stored. The order of
//! the sums depends only on k.

use std::marker::PhantomData;
use std::ops::Range;

use super::epilogue::Epilogue;
use super::kernel::{Kernel, Panels};
use super::layout::{LINE, Line, Rows};
use super::operand::{Mat, Precision};
use super::pack::{Lines, pack};
use super::scratch::Scratch;
use super::transpose::transpose;
use crate::cpu::level::{Isa, Vectorized};
use crate::cpu::pool::Pool;

/// Bytes that accumulator tiles, stored between chunks of k, may take in addition to the packed panels of B.
const ACC_BYTES: usize = 512 << 10;
/// Cost model of the grid: FLOPs that a thread computes in the time in which one byte arrives from beyond its L2.
const FLOPS_PER_BYTE: usize = 64;
/// Cost model: packing an element of B costs as much as loading this many bytes.
const BYTES_PER_PACKED_ELEMENT: usize = 8;

/// How a product is cut into tasks.
struct Plan<'a> {
    precision: Precision,
    a: Lines<'a>,
    b: Lines<'a>,
    /// B's panels, if they are packed already.
    packed_b: Option<PackedOperand>,
    /// Whether to compute Cᵀ = Bᵀ·Aᵀ; each tile is transposed before it goes to the epilogue.
    transposes_c: bool,
    /// Whether all of A is packed before the tasks start.
    packs_a: bool,
    /// Columns in B's panels.
    width: usize,
    /// Words of k.
    words: usize,
    /// Blocks of 16 words: in k, in a chunk (≤ KC) and in a section of a chunk (≤ KC_L1).
    k_blocks: usize,
    kc: usize,
    kc_l1: usize,
    /// Panels of A and B: all, and those of one task.
    a_panels: usize,
    a_per_task: usize,
    b_panels: usize,
    b_per_task: usize,
}

impl<'a> Plan<'a> {
    fn new<K: Kernel>(
        threads: usize,
        precision: Precision,
        a: Mat<'a>,
        b: Mat<'a>,
        packed_b: Option<PackedOperand>,
    ) -> Plan<'a> {
        let (a, b) = (Lines::rows(a), Lines::columns(b));
        // If neither is contiguous along k (a weight's gradient), A's elements are transposed while packing but B's are
        // not. So let A be the smaller one.
        let transposes_c =
            K::MR == K::NR && !a.k_contiguous && !b.k_contiguous && a.count > b.count && packed_b.is_none();
        let (a, b) = if transposes_c { (b.as_other_operand(), a.as_other_operand()) } else { (a, b) };
        let words = a.depth.div_ceil(K::PER_WORD);
        let (k_blocks, kc) = k_blocks::<K>(a.depth);
        let width = K::width(b.count);
        let (a_panels, b_panels) = (a.count.div_ceil(K::MR), b.count.div_ceil(width));
        let b_bytes = b_panels * width * k_blocks.max(1) * size_of::<Line>();
        let Grid { kc, a_per_task, b_per_task } = if threads == 1 && kc == k_blocks && b_bytes <= K::NC_BYTES {
            // A small product, as many products are: skip the search.
            Grid { kc, a_per_task: a_panels, b_per_task: b_panels }
        } else {
            // The chunks of a packed B are fixed.
            let divisors: &[usize] = if packed_b.is_some() { &[1] } else { &[1, 2, 4] };
            divisors
                .iter()
                .map(|divisor| even_share(k_blocks, kc.div_ceil(*divisor)))
                .flat_map(|kc| Grid::candidates::<K>(threads, [a_panels, b_panels], width, k_blocks, kc))
                .min_by_key(|grid| grid.cost::<K>(threads, [a_panels, b_panels], width, k_blocks, packed_b.is_some()))
                .unwrap_or(Grid { kc, a_per_task: a_panels, b_per_task: 1 })
        };
        let kc_l1 = even_share(kc, K::KC_L1);
        Plan {
            precision,
            a,
            b,
            packed_b,
            transposes_c,
            packs_a: !a.has_packed_words::<K>(precision),
            width,
            words,
            k_blocks,
            kc,
            kc_l1,
            a_panels,
            a_per_task,
            b_panels,
            b_per_task,
        }
    }

    fn chunks(&self) -> usize {
        self.k_blocks.div_ceil(self.kc).max(1)
    }

    fn blocks_in(&self, chunk: usize) -> Range<usize> {
        chunk * self.kc..self.k_blocks.min((chunk + 1) * self.kc)
    }
}

/// A way to cut a product into tasks: blocks of k per chunk, and panels of A and B per task.
struct Grid {
    kc: usize,
    a_per_task: usize,
    b_per_task: usize,
}

impl Grid {
    /// The grids that fit in L2 and are worth comparing: several ranges of B's panels; for each, all of A's panels or a
    /// share per thread.
    fn candidates<K: Kernel>(
        threads: usize,
        [a_panels, b_panels]: [usize; 2],
        width: usize,
        k_blocks: usize,
        kc: usize,
    ) -> impl Iterator<Item = Grid> {
        let panel = width * kc.max(1) * size_of::<Line>();
        let min_b_tasks = b_panels.div_ceil((K::NC_BYTES / panel).clamp(1, b_panels));
        let (max_b_tasks, has_chunks) = (b_panels.min(min_b_tasks.next_multiple_of(threads)), kc < k_blocks);
        (min_b_tasks..=max_b_tasks).flat_map(move |b_tasks| {
            let b_per_task = b_panels.div_ceil(b_tasks);
            let b_tasks = b_panels.div_ceil(b_per_task);
            // Accumulator tiles that wait for the next chunk are next to the packed panels.
            let max_tiles = (K::NC_BYTES + ACC_BYTES).saturating_sub(b_per_task * panel)
                / (b_per_task * K::MR * K::NR * size_of::<f32>());
            let max_a = if has_chunks { max_tiles.max(1) } else { a_panels };
            [1, threads.div_ceil(b_tasks), threads].map(move |a_tasks| Grid {
                kc,
                a_per_task: a_panels.div_ceil(a_tasks).min(max_a),
                b_per_task,
            })
        })
    }

    /// Estimated cost of a thread's tasks per element of k, in units of the time in which one byte arrives from beyond
    /// L2.
    fn cost<K: Kernel>(
        &self,
        threads: usize,
        [a_panels, b_panels]: [usize; 2],
        width: usize,
        k_blocks: usize,
        b_is_packed: bool,
    ) -> usize {
        let Grid { kc, a_per_task, b_per_task } = *self;
        let (rows, columns) = (a_per_task * K::MR, b_per_task * width);
        let rounds = (a_panels.div_ceil(a_per_task) * b_panels.div_ceil(b_per_task)).div_ceil(threads);
        let products = 2 * rows * columns / FLOPS_PER_BYTE;
        // With few packed panels, there is no time to prefetch all of A's next panel: the rest is waited for.
        let unprefetched = if K::AHEAD > 0 { K::MR.saturating_sub(b_per_task * K::AHEAD) } else { 0 };
        let streamed = 2 * rows + 4 * rows * unprefetched / K::MR;
        let packed = if b_is_packed { 2 } else { BYTES_PER_PACKED_ELEMENT } * columns;
        let stored = if kc < k_blocks { rows * columns / (kc * LINE) } else { 0 };
        rounds * (products + streamed + packed + stored)
    }
}

/// The number of blocks of 16 words in `k` elements, and in a chunk of them.
fn k_blocks<K: Kernel>(k: usize) -> (usize, usize) {
    let blocks = k.div_ceil(K::PER_WORD).div_ceil(LINE);
    (blocks, even_share(blocks, K::KC))
}

/// The size of the largest share when `total` is divided evenly into shares of at most `max` (≥ 1).
fn even_share(total: usize, max: usize) -> usize {
    total.div_ceil(total.div_ceil(max.max(1)).max(1)).max(1)
}

/// Multiplies on the pool's threads, or on this one. `packed_b` is B packed for `K`, if it has been packed.
///
/// # Safety
/// The machine supports `K`; `packed_b` was written by [`pack_b`] from this B.
pub(super) unsafe fn multiply<K: Kernel, S: Epilogue>(
    pool: Option<&Pool>,
    precision: Precision,
    a: Mat,
    b: Mat,
    packed_b: Option<*mut Line>,
    epilogue: &S,
) {
    assert_eq!(a.cols, b.rows, "product of {}×{} and {}×{}", a.rows, a.cols, b.rows, b.cols);
    if a.rows == 0 || b.cols == 0 {
        return;
    }
    let packed_b = packed_b.map(|start| PackedOperand::for_b::<K>(start, b));
    let plan = Plan::new::<K>(pool.map_or(1, Pool::threads), precision, a, b, packed_b);
    let mut scratch = Scratch::operand(if plan.packs_a { plan.a_panels * plan.k_blocks * K::MR } else { 0 });
    let packed_a = PackedOperand { start: scratch.as_mut_ptr(), panels: plan.a_panels, width: K::MR };
    if plan.packs_a {
        // SAFETY: the machine has the level; the scratch buffer is large enough.
        unsafe { pack_operand::<K>(pool, plan.a, precision, packed_a, [plan.k_blocks, plan.kc]) };
    }

    let b_tasks = plan.b_panels.div_ceil(plan.b_per_task);
    let a_tasks = plan.a_panels.div_ceil(plan.a_per_task);
    run_tasks(pool, b_tasks * a_tasks, &|task| {
        let (i, j) = (task / b_tasks, task % b_tasks);
        let a_panels = i * plan.a_per_task..plan.a_panels.min((i + 1) * plan.a_per_task);
        let b_panels = j * plan.b_per_task..plan.b_panels.min((j + 1) * plan.b_per_task);
        // SAFETY: the machine has the level; A is packed if the plan requires it.
        unsafe { multiply_block::<K, S>(&plan, a_panels, b_panels, packed_a, epilogue) };
    });
}

/// Runs tasks on the pool's threads, or on this one.
fn run_tasks(pool: Option<&Pool>, tasks: usize, task: &(dyn Fn(usize) + Sync)) {
    match pool {
        Some(pool) => pool.run(tasks, task),
        None => (0..tasks).for_each(task),
    }
}

/// A completely packed operand: chunk after chunk, and in each chunk panel after panel. Each panel is written by one
/// task; tasks of a later call read it.
#[derive(Clone, Copy)]
struct PackedOperand {
    start: *mut Line,
    panels: usize,
    /// Lines per block of a panel: its rows or columns.
    width: usize,
}

// SAFETY: tasks write disjoint panels, and read only in a later call of the pool.
unsafe impl Sync for PackedOperand {}

impl PackedOperand {
    /// B, packed at `start`.
    fn for_b<K: Kernel>(start: *mut Line, b: Mat) -> PackedOperand {
        let width = K::width(b.cols);
        PackedOperand { start, panels: b.cols.div_ceil(width), width }
    }

    /// The blocks of a panel in a chunk.
    fn at(&self, blocks: &Range<usize>, panel: usize) -> *mut Line {
        // In bounds if the panel is one of the operand's.
        self.start.wrapping_add((blocks.start * self.panels + panel * blocks.len()) * self.width)
    }
}

/// Packs an operand completely; `k_blocks` and `kc` are in blocks of k.
///
/// # Safety
/// The machine supports `K`; `to` has memory for all panels.
unsafe fn pack_operand<K: Kernel>(
    pool: Option<&Pool>,
    lines: Lines,
    precision: Precision,
    to: PackedOperand,
    [k_blocks, kc]: [usize; 2],
) {
    // About 64 KB of packed panels per task; if the operand is not contiguous along k, at least about 128 neighbouring
    // lines, so that contiguous runs are longer.
    let min = if lines.k_contiguous { 1 } else { 128 / to.width };
    let each = even_share(to.panels, (1024 / (to.width * kc).max(1)).max(min));
    let shares = to.panels.div_ceil(each);
    run_tasks(pool, shares * k_blocks.div_ceil(kc).max(1), &|task| {
        let (start, first) = (task / shares * kc, task % shares * each);
        let (blocks, panels) = (start..k_blocks.min(start + kc), first..to.panels.min(first + each));
        // SAFETY: the machine has the level; only this task writes the memory of these panels.
        unsafe { pack::<K>(lines, precision, to.width, panels, blocks.clone(), to.at(&blocks, first)) };
    });
}

/// Number of lines of a packed B.
pub(super) fn packed_b_lines<K: Kernel>(b: Mat) -> usize {
    let width = K::width(b.cols);
    b.cols.div_ceil(width) * width * k_blocks::<K>(b.rows).0
}

/// Packs B completely, on the pool's threads.
///
/// # Safety
/// The machine supports `K`; `to` has memory for [`packed_b_lines`].
pub(super) unsafe fn pack_b<K: Kernel>(pool: &Pool, precision: Precision, b: Mat, to: *mut Line) {
    let to = PackedOperand::for_b::<K>(to, b);
    let (k_blocks, kc) = k_blocks::<K>(b.rows);
    // SAFETY: by the caller's contract.
    unsafe { pack_operand::<K>(Some(pool), Lines::columns(b), precision, to, [k_blocks, kc]) };
}

/// One task: multiplies a range of A's panels by a range of B's.
///
/// # Safety
/// The machine supports `K`; A is packed if the plan requires it.
unsafe fn multiply_block<K: Kernel, S: Epilogue>(
    plan: &Plan,
    a_panels: Range<usize>,
    b_panels: Range<usize>,
    packed_a: PackedOperand,
    epilogue: &S,
) {
    let has_chunks = plan.chunks() > 1;
    let tile_count = match (has_chunks, plan.kc_l1 < plan.kc) {
        (true, _) => a_panels.len() * b_panels.len(),
        (false, true) => b_panels.len(),
        (false, false) => 1,
    };
    // The scratch buffer consists of: the packed panels of B, one panel of A, the accumulator tiles, and one tile for
    // transposing.
    let b_lines = if plan.packed_b.is_some() { 0 } else { b_panels.len() * plan.kc * plan.width };
    let a_lines = plan.kc * K::MR;
    let mut scratch = Scratch::panels(b_lines + a_lines + (tile_count + 1) * tile_lines::<K>());
    let own_b = scratch.as_mut_ptr();
    // SAFETY: within the scratch buffer.
    let (panel, tiles) = unsafe { (own_b.add(b_lines), own_b.add(b_lines + a_lines)) };
    // SAFETY: the machine supports `K`.
    let _guard = unsafe { K::acquire() };
    for chunk in 0..plan.chunks() {
        let blocks = plan.blocks_in(chunk);
        let b = match plan.packed_b {
            Some(packed_b) => packed_b.at(&blocks, b_panels.start),
            None => {
                // SAFETY: the buffer has memory for these panels, at most a chunk deep.
                unsafe { pack::<K>(plan.b, plan.precision, plan.width, b_panels.clone(), blocks.clone(), own_b) };
                own_b
            }
        };
        // The rows of a panel of A: packed, in place, or to be packed into `panel`.
        let rows_of = |number: usize| match plan.packs_a {
            true => Rows::packed(packed_a.at(&blocks, number), K::MR),
            false => plan.a.in_place::<K>(plan.precision, number, blocks.start).unwrap_or(Rows::packed(panel, K::MR)),
        };
        for number in a_panels.clone() {
            let rows = rows_of(number);
            if rows.at == panel.cast() {
                // SAFETY: there is memory for one panel.
                unsafe { pack::<K>(plan.a, plan.precision, K::MR, number..number + 1, blocks.clone(), panel) };
            }
            let macro_kernel = MacroKernel::<K, S> {
                plan,
                panel: number,
                rows,
                next_rows: if number + 1 < a_panels.end { rows_of(number + 1) } else { rows },
                b_panels: b_panels.clone(),
                b,
                b_is_cold: plan.packed_b.is_some() && number == a_panels.start,
                blocks: blocks.clone(),
                // SAFETY: within the tiles: one for each pair of panels if there are several chunks.
                tiles: unsafe {
                    tiles.add(if has_chunks {
                        (number - a_panels.start) * b_panels.len() * tile_lines::<K>()
                    } else {
                        0
                    })
                },
                // SAFETY: the last tile.
                transposed: unsafe { tiles.add(tile_count * tile_lines::<K>()) },
                has_chunks,
                epilogue,
                kernel: PhantomData,
            };
            // SAFETY: the machine has the level.
            unsafe { K::Isa::vectorize(macro_kernel) };
        }
    }
}

const fn tile_lines<K: Kernel>() -> usize {
    K::MR * K::NR / LINE
}

/// The macro-kernel: one panel of A times all packed panels of B, over one chunk of k.
struct MacroKernel<'a, K: Kernel, S: Epilogue> {
    plan: &'a Plan<'a>,
    panel: usize,
    rows: Rows,
    /// The next panel of A, which is prefetched.
    next_rows: Rows,
    b_panels: Range<usize>,
    b: *const Line,
    /// Whether these are the first products with panels of B that were packed long ago.
    b_is_cold: bool,
    blocks: Range<usize>,
    tiles: *mut Line,
    /// Memory for the transpose of a tile.
    transposed: *mut Line,
    /// Whether each pair of panels has its own accumulator tile, which is kept until the next chunk.
    has_chunks: bool,
    epilogue: &'a S,
    kernel: PhantomData<K>,
}

impl<K: Kernel, S: Epilogue> Vectorized for MacroKernel<'_, K, S> {
    type Output = ();

    #[inline(always)]
    fn call<I: Isa>(self) {
        let kc_l1 = self.plan.kc_l1;
        let sections = self.blocks.len().div_ceil(kc_l1).max(1);
        for section in 0..sections {
            let start = self.blocks.start + section * kc_l1;
            self.multiply_section::<I>(start..self.blocks.end.min(start + kc_l1), self.has_chunks || sections > 1);
        }
    }
}

impl<K: Kernel, S: Epilogue> MacroKernel<'_, K, S> {
    /// Multiplies over one section of k. `separate_tiles`: each panel of B has its own accumulator tile, which is kept
    /// until the next section or chunk; otherwise all panels use one tile.
    #[inline(always)]
    fn multiply_section<I: Isa>(&self, blocks: Range<usize>, separate_tiles: bool) {
        let plan = self.plan;
        let (chunk_blocks, skipped) = (self.blocks.len(), blocks.start - self.blocks.start);
        let words = plan.words.min(blocks.end * LINE) - blocks.start * LINE;
        let (is_first, is_last) = (blocks.start == 0, blocks.end == plan.k_blocks);
        let row = self.panel * K::MR;
        let rows = K::MR.min(plan.a.count - row);
        let a = self.rows.skip_blocks(skipped);
        let next = self.next_rows.skip_blocks(skipped);
        for j in 0..self.b_panels.len() {
            let col = (self.b_panels.start + j) * plan.width;
            let cols = plan.width.min(plan.b.count - col);
            let ahead = next.prefetch_share(j, K::AHEAD, blocks.len(), K::MR);
            // SAFETY: the panel of A, and the kept panel j of B, are at least `words` deep and packed for `K`; the tile
            // is the pair's own or the common one. The caller of this macro-kernel holds the guard of `K`.
            let acc = unsafe {
                let b = self.b.add((j * chunk_blocks + skipped) * plan.width);
                let acc = self.tiles.add(if separate_tiles { j } else { 0 } * tile_lines::<K>()).cast::<f32>();
                K::run(
                    words,
                    Panels { a, b, width: plan.width, b_is_cold: self.b_is_cold, ahead },
                    acc,
                    rows,
                    cols,
                    !is_first,
                );
                std::slice::from_raw_parts_mut(acc, K::MR * K::NR)
            };
            if !is_last {
                continue;
            }
            if plan.transposes_c {
                // SAFETY: `transposed` has memory for a tile, separate from `acc`.
                let acc = unsafe { self.transpose_tile::<I>(acc) };
                self.epilogue.tile::<I>(col, row, cols, rows, acc, K::MR);
            } else if (rows, cols) == (K::MR, K::NR) {
                // A separate call, so that the epilogue's loops over a full tile have constant bounds.
                self.epilogue.tile::<I>(row, col, K::MR, K::NR, acc, K::NR);
            } else {
                self.epilogue.tile::<I>(row, col, rows, cols, acc, K::NR);
            }
        }
    }

    /// Transposes a square tile.
    ///
    /// # Safety
    /// The machine has level `I`; `transposed` has memory for a tile.
    #[inline(always)]
    #[allow(clippy::mut_from_ref)] // the struct does not own this memory
    unsafe fn transpose_tile<I: Isa>(&self, acc: &[f32]) -> &mut [f32] {
        const { assert!(K::NR.is_multiple_of(LINE)) };
        let lines = K::NR / LINE;
        // SAFETY: all lines of both tiles; both are aligned.
        unsafe {
            let from = acc.as_ptr().cast::<Line>();
            for (i, j) in (0..K::MR / LINE).flat_map(|i| (0..lines).map(move |j| (i, j))) {
                let mut square = [Line::ZERO; LINE];
                for (l, line) in square.iter_mut().enumerate() {
                    *line = *from.add((i * LINE + l) * lines + j);
                }
                let mut to = [Line::ZERO; LINE];
                let (low, high) = to.split_at_mut(LINE / 2);
                transpose::<I>(&square, [low.as_mut_ptr(), high.as_mut_ptr()], LINE);
                for (l, line) in to.iter().enumerate() {
                    *self.transposed.add((j * LINE + l) * lines + i) = *line;
                }
            }
            std::slice::from_raw_parts_mut(self.transposed.cast(), K::MR * K::NR)
        }
    }
}
