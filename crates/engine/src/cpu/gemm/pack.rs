//! Packing: an operand's lines (A's rows, B's columns) copied into the panels that [`Kernel`] describes, converted on the way.
//!
//! All work is on 16×16 blocks of words. Where the operand is contiguous in the direction that the panel wants, a block is
//! sixteen straight copies; where it lies across, the block goes through a transpose in registers. Blocks at the edges of the
//! matrix take the same way, line by line: what a line lacks is zero.

use std::marker::PhantomData;
use std::ops::Range;

use half::bf16;

use super::kernel::Kernel;
use super::layout::{LINE, Line, Rows};
use super::operand::{Mat, Precision, Slice};
use super::transpose::transpose;
use crate::cpu::level::{Isa, Vectorized, prefetch};
use crate::dtype::rounded_to_bf16;

/// Blocks of k ahead of the one being packed whose elements are prefetched. A block is a few short runs, far apart: the hardware
/// does not see what comes next, and without these packing from memory runs at a third of the memory's speed.
const ALONG: usize = 4;
const ACROSS: usize = 1;

/// An operand seen as lines along k.
#[derive(Clone, Copy)]
pub(super) struct Lines<'a> {
    data: Slice<'a>,
    /// The number of lines.
    pub(super) count: usize,
    /// The length of a line in elements.
    pub(super) depth: usize,
    stride: usize,
    /// Whether a line is contiguous (line l, element k at `l·stride + k`), not its neighbours (at `k·stride + l`).
    pub(super) along: bool,
    /// Which operand this is.
    pub(super) is_a: bool,
}

impl<'a> Lines<'a> {
    /// The rows of A.
    pub(super) fn rows(a: Mat<'a>) -> Lines<'a> {
        Lines { data: a.data, count: a.rows, depth: a.cols, stride: a.stride, along: !a.transposed, is_a: true }
    }

    /// The columns of B.
    pub(super) fn columns(b: Mat<'a>) -> Lines<'a> {
        Lines { is_a: false, ..Lines::rows(b.t()) }
    }

    /// The same lines in the other operand's place.
    pub(super) fn turned(self) -> Lines<'a> {
        Lines { is_a: !self.is_a, ..self }
    }

    /// Whether rows of A are words as `K` wants them, but for what is missing at the edges.
    pub(super) fn suits<K: Kernel>(&self, precision: Precision) -> bool {
        let words = match self.data {
            Slice::F32(_) => !K::PAIRS && precision == Precision::F32,
            Slice::BF16(_) => K::PAIRS,
        };
        K::IN_PLACE && self.along && words
    }

    /// Panel `number` of A from a block of k on, if its rows suit, are all there, and whole lines long.
    pub(super) fn in_place<K: Kernel>(&self, precision: Precision, number: usize, block: usize) -> Option<Rows> {
        let element = if K::PAIRS { size_of::<bf16>() } else { size_of::<f32>() };
        let all = (number + 1) * K::MR <= self.count && (self.depth * element).is_multiple_of(size_of::<Line>());
        (all && self.suits::<K>(precision)).then(|| {
            let start = match self.data {
                Slice::F32(data) => data.as_ptr().cast::<u8>(),
                Slice::BF16(data) => data.as_ptr().cast(),
            };
            let row = self.stride * element;
            Rows {
                at: start.wrapping_add(number * K::MR * row + block * size_of::<Line>()),
                row,
                block: size_of::<Line>(),
            }
        })
    }
}

/// Packs `panels` of the operand, each `width` lines, over `blocks` of k, to `to`, one panel after the other.
///
/// # Safety
/// The machine has `K`'s level; there is room for `panels.len() · blocks.len() · width` lines; `width` is what `K` takes.
pub(super) unsafe fn pack<K: Kernel>(
    lines: Lines,
    precision: Precision,
    width: usize,
    panels: Range<usize>,
    blocks: Range<usize>,
    to: *mut Line,
) {
    let body = Pack { lines, panels, blocks, width, to };
    // SAFETY: the caller vouches for level and room.
    unsafe {
        match (lines.data, K::PAIRS, precision) {
            (Slice::F32(data), true, _) => K::Isa::vectorize(body.converting::<F32ToPair>(data)),
            (Slice::BF16(data), true, _) => K::Isa::vectorize(body.converting::<BF16ToPair>(data)),
            (Slice::F32(data), false, Precision::F32) => K::Isa::vectorize(body.converting::<F32ToF32>(data)),
            (Slice::F32(data), false, Precision::BF16) => K::Isa::vectorize(body.converting::<F32ToRounded>(data)),
            (Slice::BF16(data), false, _) => K::Isa::vectorize(body.converting::<BF16ToF32>(data)),
        }
    }
}

/// How elements become words.
trait Convert {
    type Source: Copy;
    /// Elements in a word.
    const PER: usize;
    const ZERO: Self::Source;

    /// One element's bits: a whole word, or the lower half of one.
    fn bits(x: Self::Source) -> u32;

    /// The words of `16·PER` consecutive elements of one line.
    ///
    /// # Safety
    /// They can be read.
    #[inline(always)]
    unsafe fn along<I: Isa>(from: *const Self::Source) -> Line {
        let mut line = Line::ZERO;
        for (i, word) in line.0.iter_mut().enumerate() {
            // SAFETY: elements below 16·PER.
            *word = unsafe {
                match Self::PER {
                    1 => Self::bits(*from.add(i)),
                    _ => Self::bits(*from.add(2 * i)) | Self::bits(*from.add(2 * i + 1)) << 16,
                }
            };
        }
        line
    }

    /// One word of each of 16 neighbouring lines.
    ///
    /// # Safety
    /// Sixteen elements can be read from `from` and, with two in a word, from `from + stride`.
    #[inline(always)]
    unsafe fn across(from: *const Self::Source, stride: usize) -> Line {
        let mut line = Line::ZERO;
        for (i, word) in line.0.iter_mut().enumerate() {
            // SAFETY: elements below 16 of one or two rows.
            *word = unsafe {
                match Self::PER {
                    1 => Self::bits(*from.add(i)),
                    _ => Self::bits(*from.add(i)) | Self::bits(*from.add(stride + i)) << 16,
                }
            };
        }
        line
    }

    /// As [`Convert::along`], of a line's last `there` elements; zeros beyond. Elements end at `end`.
    ///
    /// # Safety
    /// What lies between `from` and `end` can be read, `there` elements at least.
    #[inline(always)]
    unsafe fn along_edge<I: Isa>(from: *const Self::Source, there: usize, end: *const Self::Source) -> Line {
        // SAFETY: not beyond `end`, or from the copy.
        unsafe {
            let mut line = if from.wrapping_add(LINE * Self::PER) <= end {
                Self::along::<I>(from)
            } else {
                let mut copy = [Self::ZERO; 2 * LINE];
                std::ptr::copy_nonoverlapping(from, copy.as_mut_ptr(), there);
                Self::along::<I>(copy.as_ptr())
            };
            for (i, word) in line.0.iter_mut().enumerate() {
                *word &= match there.saturating_sub(i * Self::PER) {
                    0 => 0,
                    1 if Self::PER == 2 => 0xffff,
                    _ => !0,
                };
            }
            line
        }
    }

    /// As [`Convert::across`], of the last `there` lines and of `deep` elements each; zeros beyond. Elements end at `end`.
    ///
    /// # Safety
    /// What lies between `from` and `end` can be read: `there` elements and, of two in a word, as many at `from + stride`.
    #[inline(always)]
    unsafe fn across_edge(
        from: *const Self::Source,
        stride: usize,
        there: usize,
        deep: usize,
        end: *const Self::Source,
    ) -> Line {
        // SAFETY: not beyond `end`, or from the copy.
        unsafe {
            // Where the second element is missing, the first one stands for it, and is taken out again.
            let stride = stride * (deep - 1);
            let mut line = if from.wrapping_add(stride + LINE) <= end {
                Self::across(from, stride)
            } else {
                let mut copy = [[Self::ZERO; LINE]; 2];
                for (k, copy) in copy.iter_mut().enumerate().take(deep) {
                    std::ptr::copy_nonoverlapping(from.add(k * stride), copy.as_mut_ptr(), there.min(LINE));
                }
                Self::across(copy.as_ptr().cast(), LINE)
            };
            let kept = if deep < Self::PER { 0xffff } else { !0 };
            for (i, word) in line.0.iter_mut().enumerate() {
                *word &= if i < there { kept } else { 0 };
            }
            line
        }
    }
}

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
    unsafe fn along<I: Isa>(from: *const f32) -> Line {
        // SAFETY: 32 elements can be read; packing runs at an available level.
        unsafe { Line(I::pairs(from)) }
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
    unsafe fn along<I: Isa>(from: *const bf16) -> Line {
        // SAFETY: 32 bf16 are 64 bytes, and already paired as a little-endian word wants them.
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
    fn converting<C: Convert>(self, data: &'a [C::Source]) -> Converting<'a, C> {
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

    /// Follows the operand's grain: along a panel's lines, or across the panels.
    #[inline(always)]
    fn call<I: Isa>(self) {
        let Pack { lines, ref panels, ref blocks, width, .. } = self.pack;
        // SAFETY: panels and blocks of this call, for which `pack`'s caller vouches.
        unsafe {
            if lines.along && lines.is_a {
                let whole = blocks.start..blocks.end.min(lines.depth / (LINE * C::PER)).max(blocks.start);
                for panel in panels.clone() {
                    self.rows::<I>(panel, whole.clone());
                    (whole.end..blocks.end).for_each(|block| self.block::<I>(panel, block));
                }
            } else if lines.along {
                for panel in panels.clone() {
                    for block in blocks.clone() {
                        self.block::<I>(panel, block);
                    }
                }
            } else {
                for block in blocks.clone() {
                    let mut panel = panels.start;
                    while panel < panels.end {
                        // A square is sixteen lines: two narrow panels at once.
                        if width == LINE / 2 && panel + 1 < panels.end {
                            let to = [self.place(panel, block), self.place(panel + 1, block)];
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
    /// Where a panel's lines of one block go.
    #[inline(always)]
    unsafe fn place(&self, panel: usize, block: usize) -> *mut Line {
        let Pack { ref panels, ref blocks, width, to, .. } = self.pack;
        // SAFETY: the room for which `pack`'s caller vouches.
        unsafe { to.add(((panel - panels.start) * blocks.len() + block - blocks.start) * width) }
    }

    /// One panel of an operand that lies as the panel wants it, over blocks within its depth: straight copies.
    #[inline(always)]
    unsafe fn rows<I: Isa>(&self, panel: usize, whole: Range<usize>) {
        let Pack { lines, width, .. } = self.pack;
        if whole.is_empty() {
            return;
        }
        let first = panel * width;
        for i in 0..width {
            // SAFETY: a line's place in each of the panel's blocks; a line that exists is as deep as the blocks.
            unsafe {
                let to = self.place(panel, whole.start).add(i);
                if first + i < lines.count {
                    let from = self.data.add((first + i) * lines.stride + whole.start * LINE * C::PER);
                    for block in 0..whole.len() {
                        *to.add(block * width) = C::along::<I>(from.add(block * LINE * C::PER));
                    }
                } else {
                    (0..whole.len()).for_each(|block| *to.add(block * width) = Line::ZERO);
                }
            }
        }
    }

    /// One panel's lines of one block.
    #[inline(always)]
    unsafe fn block<I: Isa>(&self, panel: usize, block: usize) {
        let width = self.pack.width;
        for part in (0..width).step_by(LINE) {
            // SAFETY: the panel's own lines.
            unsafe {
                let to = self.place(panel, block).add(part);
                self.span::<I>(panel * width + part, LINE.min(width - part), block, [to, to.wrapping_add(LINE / 2)]);
            }
        }
    }

    /// Up to sixteen lines of one block: eight go to `to[0]`, the others to `to[1]`.
    #[inline(always)]
    unsafe fn span<I: Isa>(&self, first: usize, wanted: usize, block: usize, to: [*mut Line; 2]) {
        let lines = &self.pack.lines;
        let deep = LINE * C::PER;
        let k = block * deep;
        let depth = deep.min(lines.depth - k);
        let there = LINE.min(lines.count.saturating_sub(first));
        let needed = if lines.along { wanted } else { LINE };
        // SAFETY: elements of the matrix: line `first` exists if any is there, and all sixteen lines (or, where lines are
        // contiguous, all wanted) are read only if they do. The caller vouches for the room.
        unsafe {
            if there == 0 {
                (0..wanted).for_each(|i| *to[i / 8].add(i % 8) = Line::ZERO);
            } else if there >= needed && depth == deep {
                let offset = if lines.along { first * lines.stride + k } else { k * lines.stride + first };
                let ahead = if lines.along { ALONG } else { ACROSS } * deep;
                let ahead = if k + ahead + deep <= lines.depth { ahead } else { 0 };
                self.square::<I>(self.data.add(offset), lines.stride, ahead, wanted, to);
            } else {
                I::vectorize(Edge { of: self, first, there, k, depth, wanted, to });
            }
        }
    }

    /// A block with all the elements it needs: `wanted` contiguous lines, or sixteen neighbouring ones. Those `ahead` of them
    /// along k are prefetched.
    #[inline(always)]
    unsafe fn square<I: Isa>(
        &self,
        from: *const C::Source,
        stride: usize,
        ahead: usize,
        wanted: usize,
        to: [*mut Line; 2],
    ) {
        let lines = &self.pack.lines;
        // SAFETY: the caller vouches for the elements and the room.
        unsafe {
            match (lines.along, lines.is_a) {
                (true, true) => {
                    for i in 0..wanted {
                        *to[i / 8].add(i % 8) = C::along::<I>(from.add(i * stride));
                    }
                }
                (false, false) => {
                    for word in 0..LINE {
                        let from = from.add(word * C::PER * stride);
                        Self::foresee_across(from, stride, ahead);
                        *to[word / 8].add(word % 8) = C::across(from, stride);
                    }
                }
                (true, false) => {
                    let mut square = [Line::ZERO; LINE];
                    for (i, line) in square.iter_mut().enumerate() {
                        let from = from.add(i * stride);
                        for at in (0..LINE * C::PER * size_of::<C::Source>()).step_by(64) {
                            prefetch(from.wrapping_add(ahead).wrapping_byte_add(at));
                        }
                        *line = C::along::<I>(from);
                    }
                    transpose::<I>(&square, to, LINE);
                }
                (false, true) => {
                    let mut square = [Line::ZERO; LINE];
                    for (word, line) in square.iter_mut().enumerate() {
                        let from = from.add(word * C::PER * stride);
                        Self::foresee_across(from, stride, ahead);
                        *line = C::across(from, stride);
                    }
                    transpose::<I>(&square, to, wanted);
                }
            }
        }
    }

    /// Prefetches the elements `ahead` along k of those that [`Convert::across`] takes.
    #[inline(always)]
    fn foresee_across(from: *const C::Source, stride: usize, ahead: usize) {
        for i in 0..C::PER {
            prefetch(from.wrapping_add((ahead + i) * stride));
        }
    }
}

/// A block at the matrix's edge, which has `there` lines and `depth` elements of each.
struct Edge<'a, 'b, C: Convert> {
    of: &'a Converting<'b, C>,
    first: usize,
    there: usize,
    k: usize,
    depth: usize,
    wanted: usize,
    to: [*mut Line; 2],
}

impl<C: Convert> Vectorized for Edge<'_, '_, C> {
    type Output = ();

    #[inline(always)]
    fn call<I: Isa>(self) {
        let Edge { of, first, there, k, depth, wanted, to } = self;
        let lines = &of.pack.lines;
        let mut square = [Line::ZERO; LINE];
        // SAFETY: lines and elements that are there; the caller of `span` vouches for the room.
        unsafe {
            if lines.along {
                for (i, line) in square[..there.min(wanted)].iter_mut().enumerate() {
                    *line = C::along_edge::<I>(of.data.add((first + i) * lines.stride + k), depth, of.end);
                }
            } else {
                for (word, line) in square[..depth.div_ceil(C::PER)].iter_mut().enumerate() {
                    let from = of.data.add((k + word * C::PER) * lines.stride + first);
                    *line = C::across_edge(from, lines.stride, there, C::PER.min(depth - word * C::PER), of.end);
                }
            }
            if lines.along == lines.is_a {
                square[..wanted].iter().enumerate().for_each(|(i, line)| *to[i / 8].add(i % 8) = *line);
            } else {
                transpose::<I>(&square, to, wanted);
            }
        }
    }
}
