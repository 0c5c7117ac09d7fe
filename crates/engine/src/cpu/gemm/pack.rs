//! Packing: copies an operand's lines (A's rows, B's columns) into the panels that [`Kernel`] describes, and converts
//! them.
//!
//! The unit of work is a block of 16×16 words. If the operand is contiguous in the direction of the panel's lines, a
//! block is sixteen plain copies; otherwise it is transposed in registers. Blocks at the edges of the matrix are
//! handled line by line, and missing words are zero.

use std::marker::PhantomData;
use std::ops::Range;

use half::bf16;

use super::kernel::Kernel;
use super::layout::{LINE, Line, Rows};
use super::operand::{Mat, Precision, Slice};
use super::transpose::transpose;
use crate::cpu::level::{Isa, Vectorized, prefetch};
use crate::dtype::rounded_to_bf16;

/// Prefetch distance in blocks of k. A block consists of a few short runs that are far apart, which the hardware
/// prefetcher does not detect. Without software prefetching, packing from memory runs at a third of the memory's
/// bandwidth.
const PREFETCH_CONTIGUOUS: usize = 4;
const PREFETCH_STRIDED: usize = 1;

/// An operand as lines along k.
#[derive(Clone, Copy)]
pub(super) struct Lines<'a> {
    data: Slice<'a>,
    /// Number of lines.
    pub(super) count: usize,
    /// Length of a line in elements: k.
    pub(super) depth: usize,
    stride: usize,
    /// Whether lines are contiguous (line l, element k at `l·stride + k`). Otherwise neighbouring lines are (at
    /// `k·stride + l`).
    pub(super) k_contiguous: bool,
    /// Whether this is operand A.
    pub(super) is_a: bool,
}

impl<'a> Lines<'a> {
    /// The rows of A.
    pub(super) fn rows(a: Mat<'a>) -> Lines<'a> {
        Lines { data: a.data, count: a.rows, depth: a.cols, stride: a.stride, k_contiguous: !a.transposed, is_a: true }
    }

    /// The columns of B.
    pub(super) fn columns(b: Mat<'a>) -> Lines<'a> {
        Lines { is_a: false, ..Lines::rows(b.t()) }
    }

    /// The same lines as the other operand.
    pub(super) fn as_other_operand(self) -> Lines<'a> {
        Lines { is_a: !self.is_a, ..self }
    }

    /// Whether the rows of A already consist of the words that `K` needs (except at the edges), so that they can be
    /// read in place.
    pub(super) fn has_packed_words<K: Kernel>(&self, precision: Precision) -> bool {
        let words = match self.data {
            Slice::F32(_) => K::PER_WORD == 1 && precision == Precision::F32,
            Slice::BF16(_) => K::PER_WORD == 2,
            Slice::Int8(_) => K::PER_WORD == 4,
        };
        K::IN_PLACE && self.k_contiguous && words
    }

    /// Panel `number` of A starting at a block of k, if it can be read in place: it has all rows, and they are complete
    /// lines.
    pub(super) fn in_place<K: Kernel>(&self, precision: Precision, number: usize, block: usize) -> Option<Rows> {
        let element = size_of::<u32>() / K::PER_WORD;
        let complete = (number + 1) * K::MR <= self.count && (self.depth * element).is_multiple_of(size_of::<Line>());
        (complete && self.has_packed_words::<K>(precision)).then(|| {
            let start = match self.data {
                Slice::F32(data) => data.as_ptr().cast::<u8>(),
                Slice::BF16(data) => data.as_ptr().cast(),
                Slice::Int8(data) => data.as_ptr().cast(),
            };
            let row_stride = self.stride * element;
            Rows {
                at: start.wrapping_add(number * K::MR * row_stride + block * size_of::<Line>()),
                row_stride,
                block_stride: size_of::<Line>(),
            }
        })
    }
}

/// Packs `panels` of the operand, each of `width` lines, over `blocks` of k, to consecutive memory at `to`.
///
/// # Safety
/// The machine supports `K`; `to` has memory for `panels.len() · blocks.len() · width` lines; `K` supports `width`.
pub(super) unsafe fn pack<K: Kernel>(
    lines: Lines,
    precision: Precision,
    width: usize,
    panels: Range<usize>,
    blocks: Range<usize>,
    to: *mut Line,
) {
    let body = Pack { lines, panels, blocks, width, to };
    // SAFETY: the caller vouches for level and memory.
    unsafe {
        match (lines.data, K::PER_WORD, precision) {
            (Slice::F32(data), 2, _) => K::Isa::vectorize(body.with_conversion::<F32ToPair>(data)),
            (Slice::BF16(data), 2, _) => K::Isa::vectorize(body.with_conversion::<BF16ToPair>(data)),
            (Slice::F32(data), 1, Precision::F32) => K::Isa::vectorize(body.with_conversion::<F32ToF32>(data)),
            (Slice::F32(data), 1, Precision::BF16) => K::Isa::vectorize(body.with_conversion::<F32ToRounded>(data)),
            (Slice::BF16(data), 1, _) => K::Isa::vectorize(body.with_conversion::<BF16ToF32>(data)),
            (Slice::Int8(data), 4, _) => K::Isa::vectorize(body.with_conversion::<Int8ToFour>(data)),
            (Slice::Int8(_), ..) | (_, 4, _) => panic!("a product of int8 and another type"),
            _ => unreachable!("a word of {} elements", K::PER_WORD),
        }
    }
}

/// How elements are converted to words.
trait Convert {
    type Source: Copy;
    /// Elements per word.
    const PER: usize;
    /// Bits of an element in a word.
    const BITS: usize = 32 / Self::PER;
    const ZERO: Self::Source;

    /// The bits of the first `count` elements of a word.
    #[inline(always)]
    fn mask(count: usize) -> u32 {
        ((1u64 << (count.min(Self::PER) * Self::BITS)) - 1) as u32
    }

    /// The bits of one element: a complete word, or the lowest bits of one.
    fn bits(x: Self::Source) -> u32;

    /// The words of `16·PER` consecutive elements of one line, when lines are contiguous.
    ///
    /// # Safety
    /// They can be read.
    #[inline(always)]
    unsafe fn load_contiguous<I: Isa>(from: *const Self::Source) -> Line {
        let mut line = Line::ZERO;
        for (i, word) in line.0.iter_mut().enumerate() {
            for p in 0..Self::PER {
                // SAFETY: elements below 16·PER.
                *word |= unsafe { Self::bits(*from.add(Self::PER * i + p)) } << (p * Self::BITS);
            }
        }
        line
    }

    /// One word of each of 16 neighbouring lines, when lines are not contiguous.
    ///
    /// # Safety
    /// Sixteen elements can be read at `from` and, with several elements per word, at the first `depth − 1` multiples of
    /// `stride` after it. The last of them is read in the place of those that do not exist.
    #[inline(always)]
    unsafe fn load_strided(from: *const Self::Source, stride: usize, depth: usize) -> Line {
        let mut line = Line::ZERO;
        for (i, word) in line.0.iter_mut().enumerate() {
            for p in 0..Self::PER {
                // SAFETY: elements below 16 of `depth` rows.
                *word |= unsafe { Self::bits(*from.add(p.min(depth - 1) * stride + i)) } << (p * Self::BITS);
            }
        }
        line
    }

    /// As [`Convert::load_contiguous`], for the last `count` elements of a line; zeros beyond. The operand ends at
    /// `end`.
    ///
    /// # Safety
    /// Memory between `from` and `end` can be read; it has at least `count` elements.
    #[inline(always)]
    unsafe fn load_contiguous_edge<I: Isa>(from: *const Self::Source, count: usize, end: *const Self::Source) -> Line {
        // SAFETY: the reads are not beyond `end`, or from the copy.
        unsafe {
            let mut line = if from.wrapping_add(LINE * Self::PER) <= end {
                Self::load_contiguous::<I>(from)
            } else {
                let mut copy = [Self::ZERO; MAX_PER * LINE];
                std::ptr::copy_nonoverlapping(from, copy.as_mut_ptr(), count);
                Self::load_contiguous::<I>(copy.as_ptr())
            };
            for (i, word) in line.0.iter_mut().enumerate() {
                *word &= Self::mask(count.saturating_sub(i * Self::PER));
            }
            line
        }
    }

    /// As [`Convert::load_strided`], for the last `count` lines and `depth` elements of each; zeros beyond. The operand
    /// ends at `end`.
    ///
    /// # Safety
    /// Memory between `from` and `end` can be read: `count` elements there and, with several elements per word, at the
    /// first `depth − 1` multiples of `stride` after it.
    #[inline(always)]
    unsafe fn load_strided_edge(
        from: *const Self::Source,
        stride: usize,
        count: usize,
        depth: usize,
        end: *const Self::Source,
    ) -> Line {
        // SAFETY: the reads are not beyond `end`, or from the copy.
        unsafe {
            let mut line = if from.wrapping_add((depth - 1) * stride + LINE) <= end {
                Self::load_strided(from, stride, depth)
            } else {
                let mut copy = [[Self::ZERO; LINE]; MAX_PER];
                for (k, copy) in copy.iter_mut().enumerate().take(depth) {
                    std::ptr::copy_nonoverlapping(from.add(k * stride), copy.as_mut_ptr(), count.min(LINE));
                }
                Self::load_strided(copy.as_ptr().cast(), LINE, depth)
            };
            let mask = Self::mask(depth);
            for (i, word) in line.0.iter_mut().enumerate() {
                *word &= if i < count { mask } else { 0 };
            }
            line
        }
    }
}

/// The largest number of elements in a word.
const MAX_PER: usize = 4;

struct F32ToF32;
impl Convert for F32ToF32 {
    type Source = f32;
    const PER: usize = 1;
    const ZERO: f32 = 0.0;
    #[inline(always)]
    fn bits(x: f32) -> u32 {
        x.to_bits()
    }
}

struct F32ToRounded;
impl Convert for F32ToRounded {
    type Source = f32;
    const PER: usize = 1;
    const ZERO: f32 = 0.0;
    #[inline(always)]
    fn bits(x: f32) -> u32 {
        rounded_to_bf16(x) & 0xffff_0000
    }
}

struct BF16ToF32;
impl Convert for BF16ToF32 {
    type Source = bf16;
    const PER: usize = 1;
    const ZERO: bf16 = bf16::ZERO;
    #[inline(always)]
    fn bits(x: bf16) -> u32 {
        u32::from(x.to_bits()) << 16
    }
}

struct F32ToPair;
impl Convert for F32ToPair {
    type Source = f32;
    const PER: usize = 2;
    const ZERO: f32 = 0.0;
    #[inline(always)]
    fn bits(x: f32) -> u32 {
        rounded_to_bf16(x) >> 16
    }
    #[inline(always)]
    unsafe fn load_contiguous<I: Isa>(from: *const f32) -> Line {
        // SAFETY: 32 elements can be read; packing runs at an available level.
        unsafe { Line(I::to_bf16_pairs(from)) }
    }
}

struct BF16ToPair;
impl Convert for BF16ToPair {
    type Source = bf16;
    const PER: usize = 2;
    const ZERO: bf16 = bf16::ZERO;
    #[inline(always)]
    fn bits(x: bf16) -> u32 {
        u32::from(x.to_bits())
    }
    #[inline(always)]
    unsafe fn load_contiguous<I: Isa>(from: *const bf16) -> Line {
        // SAFETY: 32 bf16 are 64 bytes, and already the pairs of a little-endian word.
        unsafe { Line(from.cast::<[u32; LINE]>().read_unaligned().map(u32::from_le)) }
    }
}

struct Int8ToFour;
impl Convert for Int8ToFour {
    type Source = i8;
    const PER: usize = 4;
    const ZERO: i8 = 0;
    #[inline(always)]
    fn bits(x: i8) -> u32 {
        u32::from(x as u8)
    }
    #[inline(always)]
    unsafe fn load_contiguous<I: Isa>(from: *const i8) -> Line {
        // SAFETY: 64 int8 are 64 bytes, and already the bytes of little-endian words.
        unsafe { Line(from.cast::<[u32; LINE]>().read_unaligned().map(u32::from_le)) }
    }
}

struct Pack<'a> {
    lines: Lines<'a>,
    panels: Range<usize>,
    blocks: Range<usize>,
    width: usize,
    to: *mut Line,
}

impl<'a> Pack<'a> {
    fn with_conversion<C: Convert>(self, data: &'a [C::Source]) -> Converting<'a, C> {
        let ends = data.as_ptr_range();
        Converting { pack: self, data: ends.start, end: ends.end, conversion: PhantomData }
    }
}

struct Converting<'a, C: Convert> {
    pack: Pack<'a>,
    data: *const C::Source,
    end: *const C::Source,
    conversion: PhantomData<C>,
}

impl<C: Convert> Vectorized for Converting<'_, C> {
    type Output = ();

    /// Reads the operand in memory order: along the lines of a panel, or over the panels of a block.
    #[inline(always)]
    fn call<I: Isa>(self) {
        let Pack { lines, ref panels, ref blocks, width, .. } = self.pack;
        // SAFETY: panels and blocks of this call, for which `pack`'s caller vouches.
        unsafe {
            if lines.k_contiguous && lines.is_a {
                let complete = blocks.start..blocks.end.min(lines.depth / (LINE * C::PER)).max(blocks.start);
                for panel in panels.clone() {
                    self.copy_rows::<I>(panel, complete.clone());
                    (complete.end..blocks.end).for_each(|block| self.block::<I>(panel, block));
                }
            } else if lines.k_contiguous {
                for panel in panels.clone() {
                    for block in blocks.clone() {
                        self.block::<I>(panel, block);
                    }
                }
            } else {
                for block in blocks.clone() {
                    let mut panel = panels.start;
                    while panel < panels.end {
                        // A square has sixteen lines: two narrow panels at once.
                        if width == LINE / 2 && panel + 1 < panels.end {
                            let to = [self.block_start(panel, block), self.block_start(panel + 1, block)];
                            self.span::<I>(panel * width, LINE, block, to);
                            panel += 2;
                        } else {
                            self.block::<I>(panel, block);
                            panel += 1;
                        }
                    }
                }
            }
        }
    }
}

impl<C: Convert> Converting<'_, C> {
    /// The start of a panel's block in the packed memory.
    #[inline(always)]
    unsafe fn block_start(&self, panel: usize, block: usize) -> *mut Line {
        let Pack { ref panels, ref blocks, width, to, .. } = self.pack;
        // SAFETY: within the memory for which `pack`'s caller vouches.
        unsafe { to.add(((panel - panels.start) * blocks.len() + block - blocks.start) * width) }
    }

    /// Packs one panel of a contiguous operand A, over blocks that are complete: plain copies.
    #[inline(always)]
    unsafe fn copy_rows<I: Isa>(&self, panel: usize, complete: Range<usize>) {
        let Pack { lines, width, .. } = self.pack;
        if complete.is_empty() {
            return;
        }
        let first = panel * width;
        for i in 0..width {
            // SAFETY: the line's place in each of the panel's blocks; a line that exists is as deep as the blocks.
            unsafe {
                let to = self.block_start(panel, complete.start).add(i);
                if first + i < lines.count {
                    let from = self.data.add((first + i) * lines.stride + complete.start * LINE * C::PER);
                    for block in 0..complete.len() {
                        *to.add(block * width) = C::load_contiguous::<I>(from.add(block * LINE * C::PER));
                    }
                } else {
                    (0..complete.len()).for_each(|block| *to.add(block * width) = Line::ZERO);
                }
            }
        }
    }

    /// Packs one block of a panel.
    #[inline(always)]
    unsafe fn block<I: Isa>(&self, panel: usize, block: usize) {
        let width = self.pack.width;
        for part in (0..width).step_by(LINE) {
            // SAFETY: the panel's own lines.
            unsafe {
                let to = self.block_start(panel, block).add(part);
                self.span::<I>(panel * width + part, LINE.min(width - part), block, [to, to.wrapping_add(LINE / 2)]);
            }
        }
    }

    /// Packs up to sixteen lines of one block: eight go to `to[0]`, the others to `to[1]`.
    #[inline(always)]
    unsafe fn span<I: Isa>(&self, first: usize, count: usize, block: usize, to: [*mut Line; 2]) {
        let lines = &self.pack.lines;
        let block_depth = LINE * C::PER;
        let k = block * block_depth;
        let depth = block_depth.min(lines.depth - k);
        let available = LINE.min(lines.count.saturating_sub(first));
        let needed = if lines.k_contiguous { count } else { LINE };
        // SAFETY: only elements of the matrix are read: line `first` exists if `available` is not 0; the other lines
        // (`count`, or all sixteen if lines are not contiguous) are read only if they exist. The caller vouches for
        // `to`.
        unsafe {
            if available == 0 {
                (0..count).for_each(|i| *to[i / 8].add(i % 8) = Line::ZERO);
            } else if available >= needed && depth == block_depth {
                let offset = if lines.k_contiguous { first * lines.stride + k } else { k * lines.stride + first };
                let ahead = if lines.k_contiguous { PREFETCH_CONTIGUOUS } else { PREFETCH_STRIDED } * block_depth;
                let ahead = if k + ahead + block_depth <= lines.depth { ahead } else { 0 };
                self.square::<I>(self.data.add(offset), lines.stride, ahead, count, to);
            } else {
                I::vectorize(Edge { operand: self, first, available, k, depth, count, to });
            }
        }
    }

    /// Packs a complete block: `count` contiguous lines, or sixteen neighbouring ones. Prefetches the elements `ahead`
    /// of them along k.
    #[inline(always)]
    unsafe fn square<I: Isa>(
        &self,
        from: *const C::Source,
        stride: usize,
        ahead: usize,
        count: usize,
        to: [*mut Line; 2],
    ) {
        let lines = &self.pack.lines;
        // SAFETY: the caller vouches for the elements and for `to`.
        unsafe {
            match (lines.k_contiguous, lines.is_a) {
                (true, true) => {
                    for i in 0..count {
                        *to[i / 8].add(i % 8) = C::load_contiguous::<I>(from.add(i * stride));
                    }
                }
                (false, false) => {
                    for word in 0..LINE {
                        let from = from.add(word * C::PER * stride);
                        Self::prefetch_strided(from, stride, ahead);
                        *to[word / 8].add(word % 8) = C::load_strided(from, stride, C::PER);
                    }
                }
                (true, false) => {
                    let mut square = [Line::ZERO; LINE];
                    for (i, line) in square.iter_mut().enumerate() {
                        let from = from.add(i * stride);
                        for at in (0..LINE * C::PER * size_of::<C::Source>()).step_by(64) {
                            prefetch(from.wrapping_add(ahead).wrapping_byte_add(at));
                        }
                        *line = C::load_contiguous::<I>(from);
                    }
                    transpose::<I>(&square, to, LINE);
                }
                (false, true) => {
                    let mut square = [Line::ZERO; LINE];
                    for (word, line) in square.iter_mut().enumerate() {
                        let from = from.add(word * C::PER * stride);
                        Self::prefetch_strided(from, stride, ahead);
                        *line = C::load_strided(from, stride, C::PER);
                    }
                    transpose::<I>(&square, to, count);
                }
            }
        }
    }

    /// Prefetches the elements that are `ahead` along k of those that [`Convert::load_strided`] reads.
    #[inline(always)]
    fn prefetch_strided(from: *const C::Source, stride: usize, ahead: usize) {
        for i in 0..C::PER {
            prefetch(from.wrapping_add((ahead + i) * stride));
        }
    }
}

/// A block at the edge of the matrix, with `available` lines of `depth` elements.
struct Edge<'a, 'b, C: Convert> {
    operand: &'a Converting<'b, C>,
    first: usize,
    available: usize,
    k: usize,
    depth: usize,
    count: usize,
    to: [*mut Line; 2],
}

impl<C: Convert> Vectorized for Edge<'_, '_, C> {
    type Output = ();

    #[inline(always)]
    fn call<I: Isa>(self) {
        let Edge { operand, first, available, k, depth, count, to } = self;
        let lines = &operand.pack.lines;
        let mut square = [Line::ZERO; LINE];
        // SAFETY: lines and elements that exist; the caller of `span` vouches for `to`.
        unsafe {
            if lines.k_contiguous {
                for (i, line) in square[..available.min(count)].iter_mut().enumerate() {
                    *line = C::load_contiguous_edge::<I>(
                        operand.data.add((first + i) * lines.stride + k),
                        depth,
                        operand.end,
                    );
                }
            } else {
                for (word, line) in square[..depth.div_ceil(C::PER)].iter_mut().enumerate() {
                    let from = operand.data.add((k + word * C::PER) * lines.stride + first);
                    *line = C::load_strided_edge(
                        from,
                        lines.stride,
                        available,
                        C::PER.min(depth - word * C::PER),
                        operand.end,
                    );
                }
            }
            if lines.k_contiguous == lines.is_a {
                square[..count].iter().enumerate().for_each(|(i, line)| *to[i / 8].add(i % 8) = *line);
            } else {
                transpose::<I>(&square, to, count);
            }
        }
    }
}
