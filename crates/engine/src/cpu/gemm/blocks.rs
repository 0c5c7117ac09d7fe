//! The loops around the micro-kernel: which panels stay in a thread's L2, which stream past them, who does what.
//!
//! C is cut into a grid of tasks. A task *keeps* its panels of B: it packs them for itself, as many as fit its share of L2. The
//! panels of A *stream* past them, each in L1 while all kept panels of B go by. Rows of A that the kernel can take where they lie
//! are not copied at all; where they lie across, A is packed whole, by all threads, before anything else. So memory beyond L2 is
//! read once for each task, ahead of its use, and what the tasks share are only reads.
//!
//! Where k is long it is cut into chunks that are packed one after the other, and each chunk into stretches whose panels share
//! L1; a panel's tiles are put aside between them. The sums' order depends on k alone.

use std::marker::PhantomData;
use std::ops::Range;

use super::epilogue::Epilogue;
use super::kernel::{Kernel, Panels};
use super::layout::{LINE, Line, Rows};
use super::operand::{Mat, Precision};
use super::pack::{Lines, pack};
use super::scratch::Loan;
use super::transpose::transpose;
use crate::cpu::level::{Isa, Vectorized};
use crate::cpu::pool::Pool;

/// Bytes that the tiles put aside between chunks of k may take beside the kept panels.
const ASIDE: usize = 512 << 10;
/// What the grid of tasks weighs: a thread computes so many FLOPs in the time that a byte takes to come from beyond its L2.
const FLOPS_A_BYTE: usize = 64;
/// Packing an element of B costs as much as so many bytes.
const BYTES_A_PACKED: usize = 8;

/// How one product is cut.
struct Plan<'a> {
    precision: Precision,
    a: Lines<'a>,
    b: Lines<'a>,
    /// B's panels, where they are packed already.
    ready: Option<Whole>,
    /// Whether this is the transpose of what was asked for: the tiles are turned on their way to the sink.
    turned: bool,
    /// Whether A is packed whole before anything else.
    whole: bool,
    /// Columns in B's panels.
    width: usize,
    /// Words of k.
    words: usize,
    /// Blocks of 16 words in k, in one chunk of it, and in one stretch of that.
    depth: usize,
    chunk: usize,
    near: usize,
    /// Panels of either operand, and those of one task.
    a_panels: usize,
    a_each: usize,
    b_panels: usize,
    b_each: usize,
}

impl<'a> Plan<'a> {
    fn new<K: Kernel>(threads: usize, precision: Precision, a: Mat<'a>, b: Mat<'a>, ready: Option<Whole>) -> Plan<'a> {
        let (a, b) = (Lines::rows(a), Lines::columns(b));
        // Where both lie across (a weight's gradient), A's elements are transposed and B's need not be: A is the smaller.
        let turned = K::MR == K::NR && !a.along && !b.along && a.count > b.count && ready.is_none();
        let (a, b) = if turned { (b.turned(), a.turned()) } else { (a, b) };
        let words = a.depth.div_ceil(if K::PAIRS { 2 } else { 1 });
        let (depth, chunk) = depth::<K>(a.depth);
        let width = K::width(b.count);
        let (a_panels, b_panels) = (a.count.div_ceil(K::MR), b.count.div_ceil(width));
        let whole_b = b_panels * width * depth.max(1) * size_of::<Line>();
        let Grid { chunk, a_each, b_each } = if threads == 1 && chunk == depth && whole_b <= K::KEPT {
            // A small product, of which there are many: no search for what is plain.
            Grid { chunk, a_each: a_panels, b_each: b_panels }
        } else {
            // A packed B has been cut into its chunks.
            let shares: &[usize] = if ready.is_some() { &[1] } else { &[1, 2, 4] };
            shares
                .iter()
                .map(|share| even(depth, chunk.div_ceil(*share)))
                .flat_map(|chunk| Grid::all::<K>(threads, [a_panels, b_panels], width, depth, chunk))
                .min_by_key(|grid| grid.cost::<K>(threads, [a_panels, b_panels], width, depth, ready.is_some()))
                .unwrap_or(Grid { chunk, a_each: a_panels, b_each: 1 })
        };
        let near = even(chunk, K::NEAR);
        Plan {
            precision,
            a,
            b,
            ready,
            turned,
            whole: !a.suits::<K>(precision),
            width,
            words,
            depth,
            chunk,
            near,
            a_panels,
            a_each,
            b_panels,
            b_each,
        }
    }

    fn chunks(&self) -> usize {
        self.depth.div_ceil(self.chunk).max(1)
    }

    fn blocks_of(&self, chunk: usize) -> Range<usize> {
        chunk * self.chunk..self.depth.min((chunk + 1) * self.chunk)
    }
}

/// How a product is cut into tasks: blocks of k in a chunk, and the panels of either operand that a task multiplies.
struct Grid {
    chunk: usize,
    a_each: usize,
    b_each: usize,
}

impl Grid {
    /// The cuts worth a thought that fit L2: some ranges of B's panels, and for each all of A's or a share for every thread.
    fn all<K: Kernel>(
        threads: usize,
        [a_panels, b_panels]: [usize; 2],
        width: usize,
        depth: usize,
        chunk: usize,
    ) -> impl Iterator<Item = Grid> {
        let panel = width * chunk.max(1) * size_of::<Line>();
        let least = b_panels.div_ceil((K::KEPT / panel).clamp(1, b_panels));
        let (most, stacked) = (b_panels.min(least.next_multiple_of(threads)), chunk < depth);
        (least..=most).flat_map(move |across| {
            let b_each = b_panels.div_ceil(across);
            let across = b_panels.div_ceil(b_each);
            // Tiles that wait for the next chunk lie beside the kept panels.
            let waiting =
                (K::KEPT + ASIDE).saturating_sub(b_each * panel) / (b_each * K::MR * K::NR * size_of::<f32>());
            let most = if stacked { waiting.max(1) } else { a_panels };
            [1, threads.div_ceil(across), threads].map(move |down| Grid {
                chunk,
                a_each: a_panels.div_ceil(down).min(most),
                b_each,
            })
        })
    }

    /// What a thread's tasks take, in the time of a byte from beyond L2, for each element of k.
    fn cost<K: Kernel>(
        &self,
        threads: usize,
        [a_panels, b_panels]: [usize; 2],
        width: usize,
        depth: usize,
        ready: bool,
    ) -> usize {
        let Grid { chunk, a_each, b_each } = *self;
        let (rows, columns) = (a_each * K::MR, b_each * width);
        let turns = (a_panels.div_ceil(a_each) * b_panels.div_ceil(b_each)).div_ceil(threads);
        let products = 2 * rows * columns / FLOPS_A_BYTE;
        // Few kept panels leave no time to prefetch all of A's next one: the rest is waited for.
        let late = if K::AHEAD > 0 { K::MR.saturating_sub(b_each * K::AHEAD) } else { 0 };
        let streamed = 2 * rows + 4 * rows * late / K::MR;
        let packed = if ready { 2 } else { BYTES_A_PACKED } * columns;
        let aside = if chunk < depth { rows * columns / (chunk * LINE) } else { 0 };
        turns * (products + streamed + packed + aside)
    }
}

/// Blocks of 16 words in `k` elements, and those of a chunk.
fn depth<K: Kernel>(k: usize) -> (usize, usize) {
    let depth = k.div_ceil(if K::PAIRS { 2 } else { 1 }).div_ceil(LINE);
    (depth, even(depth, K::CHUNK))
}

/// The size of even shares of `total`, none above `most` (≥ 1).
fn even(total: usize, most: usize) -> usize {
    total.div_ceil(total.div_ceil(most.max(1)).max(1)).max(1)
}

/// Multiplies on the pool's threads, or on this one. `ready` is where B has been packed whole for `K`, if it has.
///
/// # Safety
/// The machine has what `K` needs; at `ready` is what [`pack_b`] packed of this very B.
pub(super) unsafe fn multiply<K: Kernel, S: Epilogue>(
    pool: Option<&Pool>,
    precision: Precision,
    a: Mat,
    b: Mat,
    ready: Option<*mut Line>,
    sink: &S,
) {
    assert_eq!(a.cols, b.rows, "product of {}×{} and {}×{}", a.rows, a.cols, b.rows, b.cols);
    if a.rows == 0 || b.cols == 0 {
        return;
    }
    let ready = ready.map(|start| Whole::of_b::<K>(start, b));
    let plan = Plan::new::<K>(pool.map_or(1, Pool::threads), precision, a, b, ready);
    let mut room = Loan::whole(if plan.whole { plan.a_panels * plan.depth * K::MR } else { 0 });
    let whole = Whole { start: room.as_mut_ptr(), panels: plan.a_panels, width: K::MR };
    if plan.whole {
        // SAFETY: the machine has the level; the loan has the room.
        unsafe { pack_whole::<K>(pool, plan.a, precision, whole, [plan.depth, plan.chunk]) };
    }

    let across = plan.b_panels.div_ceil(plan.b_each);
    let down = plan.a_panels.div_ceil(plan.a_each);
    run(pool, across * down, &|task| {
        let (down, across) = (task / across, task % across);
        let rows = down * plan.a_each..plan.a_panels.min((down + 1) * plan.a_each);
        let kept = across * plan.b_each..plan.b_panels.min((across + 1) * plan.b_each);
        // SAFETY: the machine has the level; A is packed where it is to be.
        unsafe { block::<K, S>(&plan, rows, kept, whole, sink) };
    });
}

/// Runs tasks on the pool's threads, or on this one.
fn run(pool: Option<&Pool>, tasks: usize, task: &(dyn Fn(usize) + Sync)) {
    match pool {
        Some(pool) => pool.run(tasks, task),
        None => (0..tasks).for_each(task),
    }
}

/// An operand packed whole: chunk after chunk, within each panel after panel. Each panel is written by one task and, later, read
/// by all.
#[derive(Clone, Copy)]
struct Whole {
    start: *mut Line,
    panels: usize,
    /// Lines in a panel.
    width: usize,
}

// SAFETY: tasks write to disjoint panels, and read only in a later call of the pool.
unsafe impl Sync for Whole {}

impl Whole {
    /// B from `start` on.
    fn of_b<K: Kernel>(start: *mut Line, b: Mat) -> Whole {
        let width = K::width(b.cols);
        Whole { start, panels: b.cols.div_ceil(width), width }
    }

    /// Where a panel's blocks, those of a chunk, are.
    fn at(&self, blocks: &Range<usize>, panel: usize) -> *mut Line {
        // Within the room for all panels, if the panel is one of them.
        self.start.wrapping_add((blocks.start * self.panels + panel * blocks.len()) * self.width)
    }
}

/// Packs an operand whole; `depth` and `chunk` are in blocks of k.
///
/// # Safety
/// The machine has what `K` needs; there is room for all panels.
unsafe fn pack_whole<K: Kernel>(
    pool: Option<&Pool>,
    lines: Lines,
    precision: Precision,
    to: Whole,
    [depth, chunk]: [usize; 2],
) {
    // Some 64 KB of packed panels to a task; and where they lie across, some 128 neighbours, whose elements make longer runs.
    let least = if lines.along { 1 } else { 128 / to.width };
    let each = even(to.panels, (1024 / (to.width * chunk).max(1)).max(least));
    let shares = to.panels.div_ceil(each);
    run(pool, shares * depth.div_ceil(chunk).max(1), &|task| {
        let (start, first) = (task / shares * chunk, task % shares * each);
        let (blocks, panels) = (start..depth.min(start + chunk), first..to.panels.min(first + each));
        // SAFETY: the machine has the level; these panels' room is this task's alone.
        unsafe { pack::<K>(lines, precision, to.width, panels, blocks.clone(), to.at(&blocks, first)) };
    });
}

/// Lines that B takes when packed whole.
#[cfg(target_arch = "x86_64")]
pub(super) fn lines_of_b<K: Kernel>(b: Mat) -> usize {
    let width = K::width(b.cols);
    b.cols.div_ceil(width) * width * depth::<K>(b.rows).0
}

/// Packs B whole, on the pool's threads.
///
/// # Safety
/// The machine has what `K` needs; `to` has room for [`lines_of_b`].
#[cfg(target_arch = "x86_64")]
pub(super) unsafe fn pack_b<K: Kernel>(pool: &Pool, precision: Precision, b: Mat, to: *mut Line) {
    let to = Whole::of_b::<K>(to, b);
    let (depth, chunk) = depth::<K>(b.rows);
    // SAFETY: as the caller vouches.
    unsafe { pack_whole::<K>(Some(pool), Lines::columns(b), precision, to, [depth, chunk]) };
}

/// One task: a range of A's panels times a range of B's.
///
/// # Safety
/// The machine has what `K` needs; A is packed where it is to be.
unsafe fn block<K: Kernel, S: Epilogue>(plan: &Plan, rows: Range<usize>, kept: Range<usize>, whole: Whole, sink: &S) {
    let stacked = plan.chunks() > 1;
    let aside = match (stacked, plan.near < plan.chunk) {
        (true, _) => rows.len() * kept.len(),
        (false, true) => kept.len(),
        (false, false) => 1,
    };
    // One after the other: the kept panels, room for a panel of A, the tiles.
    let b_lines = if plan.ready.is_some() { 0 } else { kept.len() * plan.chunk * plan.width };
    let a_lines = plan.chunk * K::MR;
    let mut room = Loan::kept(b_lines + a_lines + (aside + 1) * tile_lines::<K>());
    let own = room.as_mut_ptr();
    // SAFETY: within the loan.
    let (panel, tiles) = unsafe { (own.add(b_lines), own.add(b_lines + a_lines)) };
    // SAFETY: the machine has what `K` needs.
    let _hold = unsafe { K::hold() };
    for chunk in 0..plan.chunks() {
        let blocks = plan.blocks_of(chunk);
        let packed = match plan.ready {
            Some(ready) => ready.at(&blocks, kept.start),
            None => {
                // SAFETY: the room is that of these panels, at most a chunk deep.
                unsafe { pack::<K>(plan.b, plan.precision, plan.width, kept.clone(), blocks.clone(), own) };
                own
            }
        };
        // Where a panel's rows are.
        let place = |number: usize| match plan.whole {
            true => Rows::packed(whole.at(&blocks, number), K::MR),
            false => plan.a.in_place::<K>(plan.precision, number, blocks.start).unwrap_or(Rows::packed(panel, K::MR)),
        };
        for number in rows.clone() {
            let here = place(number);
            if here.at == panel.cast() {
                // SAFETY: there is room for one panel.
                unsafe { pack::<K>(plan.a, plan.precision, K::MR, number..number + 1, blocks.clone(), panel) };
            }
            let sweep = Sweep::<K, S> {
                plan,
                row: number,
                rows: here,
                next: if number + 1 < rows.end { place(number + 1) } else { here },
                kept: kept.clone(),
                packed,
                far: plan.ready.is_some() && number == rows.start,
                blocks: blocks.clone(),
                // SAFETY: tiles for each kept panel, for each of A's before this.
                tiles: unsafe {
                    tiles.add(if stacked { (number - rows.start) * kept.len() * tile_lines::<K>() } else { 0 })
                },
                // SAFETY: the last tile.
                spare: unsafe { tiles.add(aside * tile_lines::<K>()) },
                stacked,
                sink,
                kernel: PhantomData,
            };
            // SAFETY: the machine has the level.
            unsafe { K::Isa::vectorize(sweep) };
        }
    }
}

const fn tile_lines<K: Kernel>() -> usize {
    K::MR * K::NR / LINE
}

/// One panel of A times all kept ones of B, over one chunk of k.
struct Sweep<'a, K: Kernel, S: Epilogue> {
    plan: &'a Plan<'a>,
    row: usize,
    rows: Rows,
    /// The panel of A that comes next: it is prefetched.
    next: Rows,
    kept: Range<usize>,
    packed: *const Line,
    /// Whether these are the first products of panels of B that were packed long ago.
    far: bool,
    blocks: Range<usize>,
    tiles: *mut Line,
    /// A tile's room, to turn one.
    spare: *mut Line,
    /// Whether each pair of panels has a tile of its own that waits for the next chunk.
    stacked: bool,
    sink: &'a S,
    kernel: PhantomData<K>,
}

impl<K: Kernel, S: Epilogue> Vectorized for Sweep<'_, K, S> {
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

impl<K: Kernel, S: Epilogue> Sweep<'_, K, S> {
    /// All kept panels over one stretch of k; `apart` says that each one's tile waits for the next stretch or chunk, otherwise
    /// one tile serves all.
    #[inline(always)]
    fn stretch<I: Isa>(&self, blocks: Range<usize>, apart: bool) {
        let plan = self.plan;
        let (depth, skipped) = (self.blocks.len(), blocks.start - self.blocks.start);
        let words = plan.words.min(blocks.end * LINE) - blocks.start * LINE;
        let (begins, ends) = (blocks.start == 0, blocks.end == plan.depth);
        let row = self.row * K::MR;
        let rows = K::MR.min(plan.a.count - row);
        let a = self.rows.from(skipped);
        let next = self.next.from(skipped);
        for j in 0..self.kept.len() {
            let col = (self.kept.start + j) * plan.width;
            let cols = plan.width.min(plan.b.count - col);
            let ahead = next.share(j, K::AHEAD, blocks.len(), K::MR);
            // SAFETY: the panel of A, and the kept panel j, as deep as `words` says, packed for `K`; their tile of those put
            // aside, or the only one. `block` holds what `K` needs held.
            let acc = unsafe {
                let b = self.packed.add((j * depth + skipped) * plan.width);
                let acc = self.tiles.add(if apart { j } else { 0 } * tile_lines::<K>()).cast::<f32>();
                K::run(words, Panels { a, b, width: plan.width, far: self.far, ahead }, acc, rows, cols, !begins);
                std::slice::from_raw_parts_mut(acc, K::MR * K::NR)
            };
            if !ends {
                continue;
            }
            if plan.turned {
                // SAFETY: a tile's room, apart from `acc`.
                let acc = unsafe { self.turn::<I>(acc) };
                self.sink.tile::<I>(col, row, cols, rows, acc, K::MR);
            } else if (rows, cols) == (K::MR, K::NR) {
                // Said again, so that the sink's loops over a whole tile have constant bounds.
                self.sink.tile::<I>(row, col, K::MR, K::NR, acc, K::NR);
            } else {
                self.sink.tile::<I>(row, col, rows, cols, acc, K::NR);
            }
        }
    }

    /// The transpose of a square tile.
    ///
    /// # Safety
    /// The machine has `I`'s level; `spare` is a tile's room.
    #[inline(always)]
    #[allow(clippy::mut_from_ref)] // the room is not this struct's own
    unsafe fn turn<I: Isa>(&self, acc: &[f32]) -> &mut [f32] {
        const { assert!(K::NR.is_multiple_of(LINE)) };
        let across = K::NR / LINE;
        // SAFETY: all lines of one tile and of the other; `acc` and the room are aligned.
        unsafe {
            let from = acc.as_ptr().cast::<Line>();
            for (i, j) in (0..K::MR / LINE).flat_map(|i| (0..across).map(move |j| (i, j))) {
                let mut square = [Line::ZERO; LINE];
                for (l, line) in square.iter_mut().enumerate() {
                    *line = *from.add((i * LINE + l) * across + j);
                }
                let mut turned = [Line::ZERO; LINE];
                let (low, high) = turned.split_at_mut(LINE / 2);
                transpose::<I>(&square, [low.as_mut_ptr(), high.as_mut_ptr()], LINE);
                for (l, line) in turned.iter().enumerate() {
                    *self.spare.add((j * LINE + l) * across + i) = *line;
                }
            }
            std::slice::from_raw_parts_mut(self.spare.cast(), K::MR * K::NR)
        }
    }
}
