//! The loops around the micro-kernel: which panels stay in a thread's L2, which stream past them, who does what.
//!
//! The operand with fewer lines is *streamed*: packed whole, by all threads, before anything else. The other one is *kept*:
//! cut into blocks of as many panels as fit a thread's share of L2, each packed by the thread that multiplies it with all
//! streamed panels (or a range of them, where there are too few blocks for the threads). A kept element is thus read once
//! for each such range, and each streamed panel comes from L3 once for every block.
//!
//! Where k is long it is cut into chunks that are packed one after the other, and each chunk into stretches whose panels share
//! L1; a block's tiles are put aside between them. The sums' order depends on k alone.

use std::marker::PhantomData;
use std::ops::Range;

use super::kernel::{Kernel, LINE, Line, Panels};
use super::pack::{Lines, pack};
use super::scratch::Loan;
use super::{Mat, Precision, TileSink};
use crate::cpu::level::{Isa, Vectorized};
use crate::cpu::pool::Pool;

/// Blocks that each thread should get, for balance on machines that do other work too.
const BLOCKS_A_THREAD: usize = 4;
/// Bytes of tiles put aside between chunks of k.
const ASIDE: usize = 1 << 20;

/// How one product is cut.
struct Plan<'a> {
    precision: Precision,
    kept: Lines<'a>,
    streamed: Lines<'a>,
    /// Lines in their panels, and in those of B.
    kept_width: usize,
    streamed_width: usize,
    b_width: usize,
    /// Words of k.
    words: usize,
    /// Blocks of 16 words in k, in one chunk of it, and in one stretch of that.
    depth: usize,
    chunk: usize,
    near: usize,
    /// Panels of either operand, and those of one task.
    kept_panels: usize,
    kept_each: usize,
    streamed_panels: usize,
    streamed_each: usize,
    /// Streamed panels that meet the kept ones together.
    group: usize,
}

impl<'a> Plan<'a> {
    fn new<K: Kernel>(threads: usize, precision: Precision, a: Mat<'a>, b: Mat<'a>) -> Plan<'a> {
        let (a, b) = (Lines::rows(a), Lines::columns(b));
        let words = a.depth.div_ceil(if K::PAIRS { 2 } else { 1 });
        let depth = words.div_ceil(LINE);
        let chunk = even(depth, K::CHUNK);
        let near = even(chunk, K::NEAR);
        let (kept, streamed) = if a.count >= b.count { (a, b) } else { (b, a) };
        let b_width = K::width(b.count);
        let (kept_width, streamed_width) = if kept.is_a { (K::MR, b_width) } else { (b_width, K::MR) };
        let kept_panels = kept.count.div_ceil(kept_width);
        let streamed_panels = streamed.count.div_ceil(streamed_width);

        let fitting = K::KEPT / (kept_width * chunk * size_of::<Line>());
        // Narrower blocks would stream more than they compute.
        let least = 64usize.div_ceil(kept_width);
        let balanced = if threads == 1 { kept_panels } else { kept_panels.div_ceil(threads * BLOCKS_A_THREAD) };
        let kept_each = even(kept_panels, balanced.min(fitting).max(least));
        let mut streamed_each = streamed_panels;
        let tasks = kept_panels.div_ceil(kept_each);
        if threads > 1 && tasks < 2 * threads {
            streamed_each = streamed_panels.div_ceil((2 * threads).div_ceil(tasks.max(1))).max(1);
        }
        if chunk < depth {
            let most = ASIDE / (kept_each * K::MR * K::NR * size_of::<f32>());
            streamed_each = streamed_each.min(most.max(1));
        }
        let streamed_each = even(streamed_panels, streamed_each);
        // Columns are innermost, so that the sink writes along C's rows. A streamed panel of A stays in L1 while all kept ones of
        // B go past it; past a kept panel of A go as many of B's as a further share of L2 holds.
        let group = match kept.is_a {
            true => (K::KEPT / 2 / (streamed_width * chunk * size_of::<Line>())).max(1),
            false => 1,
        };
        Plan {
            precision,
            kept,
            streamed,
            kept_width,
            streamed_width,
            b_width,
            words,
            depth,
            chunk,
            near,
            kept_panels,
            kept_each,
            streamed_panels,
            streamed_each,
            group,
        }
    }

    fn chunks(&self) -> usize {
        self.depth.div_ceil(self.chunk).max(1)
    }

    fn blocks_of(&self, chunk: usize) -> Range<usize> {
        chunk * self.chunk..self.depth.min((chunk + 1) * self.chunk)
    }
}

/// The size of even shares of `total`, none above `most` (≥ 1).
fn even(total: usize, most: usize) -> usize {
    total.div_ceil(total.div_ceil(most.max(1)).max(1)).max(1)
}

/// Multiplies on the pool's threads, or on this one.
///
/// # Safety
/// The machine has what `K` needs.
pub(super) unsafe fn multiply<K: Kernel, S: TileSink>(
    pool: Option<&Pool>,
    precision: Precision,
    a: Mat,
    b: Mat,
    sink: &S,
) {
    assert_eq!(a.cols, b.rows, "product of {}×{} and {}×{}", a.rows, a.cols, b.rows, b.cols);
    if a.rows == 0 || b.cols == 0 {
        return;
    }
    let plan = Plan::new::<K>(pool.map_or(1, Pool::threads), precision, a, b);
    let width = plan.streamed_width;
    let mut streamed = Loan::streamed(plan.streamed_panels * plan.depth * width);
    let streamed = Shared(streamed.as_mut_ptr());
    let at = |chunk: usize, panel: usize| {
        let blocks = plan.blocks_of(chunk);
        // SAFETY: chunk after chunk, within each panel after panel: below the length just asked for.
        unsafe { streamed.get().add((blocks.start * plan.streamed_panels + panel * blocks.len()) * width) }
    };

    let run = |tasks: usize, task: &(dyn Fn(usize) + Sync)| match pool {
        Some(pool) => pool.run(tasks, task),
        None => (0..tasks).for_each(task),
    };
    // Some 64 KB of packed panels to a task.
    let each = even(plan.streamed_panels, 1024 / (width * plan.chunk).max(1));
    let shares = plan.streamed_panels.div_ceil(each);
    run(shares * plan.chunks(), &|task| {
        let (chunk, share) = (task / shares, task % shares);
        let panels = share * each..plan.streamed_panels.min((share + 1) * each);
        let to = at(chunk, panels.start);
        // SAFETY: the machine has the level; these panels' room is this task's alone.
        unsafe { pack::<K>(plan.streamed, precision, width, panels, plan.blocks_of(chunk), to) };
    });

    let across = plan.streamed_panels.div_ceil(plan.streamed_each);
    let down = plan.kept_panels.div_ceil(plan.kept_each);
    run(across * down, &|task| {
        let (down, across) = (task / across, task % across);
        let kept = down * plan.kept_each..plan.kept_panels.min((down + 1) * plan.kept_each);
        let streamed = across * plan.streamed_each..plan.streamed_panels.min((across + 1) * plan.streamed_each);
        // SAFETY: the machine has the level.
        unsafe { block::<K, S>(&plan, kept, streamed, &at, sink) };
    });
}

/// The address of panels that one task writes and, later, all tasks read.
#[derive(Clone, Copy)]
struct Shared(*mut Line);

// SAFETY: tasks write to disjoint ranges, and read only in a later call of the pool.
unsafe impl Sync for Shared {}

impl Shared {
    fn get(&self) -> *mut Line {
        self.0
    }
}

/// One task: a block of kept panels times a range of streamed ones.
///
/// # Safety
/// The machine has what `K` needs; the streamed panels are packed.
unsafe fn block<K: Kernel, S: TileSink>(
    plan: &Plan,
    kept: Range<usize>,
    streamed: Range<usize>,
    at: &dyn Fn(usize, usize) -> *mut Line,
    sink: &S,
) {
    let width = plan.kept_width;
    let mut room = Loan::kept(kept.len() * plan.chunk * width);
    let room = room.as_mut_ptr();
    let stacked = plan.chunks() > 1;
    let aside = match (stacked, plan.near < plan.chunk) {
        (true, _) => kept.len() * streamed.len(),
        (false, true) => kept.len() * streamed.len().min(plan.group),
        (false, false) => 1,
    };
    let mut tiles = Loan::tiles(aside * K::MR * K::NR / LINE);
    let tiles = tiles.as_mut_ptr();
    // SAFETY: the machine has what `K` needs.
    let _hold = unsafe { K::hold() };
    for chunk in 0..plan.chunks() {
        let blocks = plan.blocks_of(chunk);
        // SAFETY: the room is that of these panels, at most a chunk deep.
        unsafe { pack::<K>(plan.kept, plan.precision, width, kept.clone(), blocks.clone(), room) };
        let mut first = streamed.start;
        while first < streamed.end {
            let group = first..streamed.end.min(first + plan.group);
            let sweep = Sweep::<K, S> {
                plan,
                kept: kept.clone(),
                packed: room,
                group: group.clone(),
                streamed: at(chunk, first),
                blocks: blocks.clone(),
                tiles: match stacked {
                    false => tiles,
                    // SAFETY: tiles for each kept panel, for each streamed one before this.
                    true => unsafe { tiles.add((first - streamed.start) * kept.len() * (K::MR * K::NR / LINE)) },
                },
                stacked,
                sink,
                kernel: PhantomData,
            };
            // SAFETY: the machine has the level.
            unsafe { K::Isa::vectorize(sweep) };
            first = group.end;
        }
    }
}

/// A group of streamed panels times all kept ones, over one chunk of k.
struct Sweep<'a, K: Kernel, S: TileSink> {
    plan: &'a Plan<'a>,
    kept: Range<usize>,
    packed: *const Line,
    group: Range<usize>,
    streamed: *const Line,
    blocks: Range<usize>,
    tiles: *mut Line,
    /// Whether each pair of panels has a tile of its own that waits for the next chunk.
    stacked: bool,
    sink: &'a S,
    kernel: PhantomData<K>,
}

impl<K: Kernel, S: TileSink> Vectorized for Sweep<'_, K, S> {
    type Output = ();

    #[inline(always)]
    fn call<I: Isa>(self) {
        let near = self.plan.near;
        let stretches = self.blocks.len().div_ceil(near).max(1);
        for stretch in 0..stretches {
            let start = self.blocks.start + stretch * near;
            self.stretch::<I>(start..self.blocks.end.min(start + near), self.stacked || stretches > 1);
        }
    }
}

impl<K: Kernel, S: TileSink> Sweep<'_, K, S> {
    /// All pairs of panels over one stretch of k; `apart` says that each pair's tile waits for the next stretch or chunk,
    /// otherwise one tile serves all.
    #[inline(always)]
    fn stretch<I: Isa>(&self, blocks: Range<usize>, apart: bool) {
        let plan = self.plan;
        let a_kept = plan.kept.is_a;
        let (depth, skipped) = (self.blocks.len(), blocks.start - self.blocks.start);
        let words = plan.words.min(blocks.end * LINE) - blocks.start * LINE;
        let (begins, ends) = (blocks.start == 0, blocks.end == plan.depth);
        let (a_lines, b_lines) = match a_kept {
            true => (plan.kept.count, plan.streamed.count),
            false => (plan.streamed.count, plan.kept.count),
        };
        let (kept, group) = (self.kept.len(), self.group.len());
        let inner = if a_kept { group } else { kept };
        // The next group comes from L3: each tile prefetches a share of it.
        let next_group = self.streamed.wrapping_add(group * depth * plan.streamed_width);
        let mut ahead = next_group.wrapping_add(kept * group * skipped * K::AHEAD);
        for number in 0..kept * group {
            let (i, j) = match a_kept {
                true => (number / inner, number % inner),
                false => (number % inner, number / inner),
            };
            let (row, col) = match a_kept {
                true => (self.kept.start + i, self.group.start + j),
                false => (self.group.start + j, self.kept.start + i),
            };
            let (row, col) = (row * K::MR, col * plan.b_width);
            let (rows, cols) = (K::MR.min(a_lines - row), plan.b_width.min(b_lines - col));
            // SAFETY: the kept panel i and the streamed panel j, as deep as `words` says, packed for `K`; their tile of those
            // put aside, or the only one. `block` holds what `K` needs held.
            let acc = unsafe {
                let kept = self.packed.add((i * depth + skipped) * plan.kept_width);
                let streamed = self.streamed.add((j * depth + skipped) * plan.streamed_width);
                let (a, b) = if a_kept { (kept, streamed) } else { (streamed, kept) };
                let tile = if apart { j * self.kept.len() + i } else { 0 };
                let acc = self.tiles.add(tile * (K::MR * K::NR / LINE)).cast::<f32>();
                K::run(words, Panels { a, b, width: plan.b_width, ahead }, acc, rows, cols, !begins);
                std::slice::from_raw_parts_mut(acc, K::MR * K::NR)
            };
            ahead = ahead.wrapping_add(blocks.len() * K::AHEAD);
            // Twice, so that the sink's loops over a whole tile have constant bounds.
            if ends && (rows, cols) == (K::MR, K::NR) {
                self.sink.tile::<I>(row, col, K::MR, K::NR, acc, K::NR);
            } else if ends {
                self.sink.tile::<I>(row, col, rows, cols, acc, K::NR);
            }
        }
    }
}
