//! The memory layout of packed operands: lines of words, and rows of lines.

/// 32-bit words per line, and lines per square block: packed operands consist of 16×16 blocks of 1 KB.
pub(super) const LINE: usize = 16;

/// A cache line of packed words. A word is one f32, or two bf16 or four int8 with consecutive k, the lowest k in the
/// lowest bits.
#[derive(Clone, Copy)]
#[repr(C, align(64))]
pub(super) struct Line(pub [u32; LINE]);

impl Line {
    pub(super) const ZERO: Line = Line([0; LINE]);
}

/// A panel of A: where the words of its rows are, in lines of 16.
#[derive(Clone, Copy)]
pub(crate) struct Rows {
    pub at: *const u8,
    /// Bytes from a row's line to that of the next row.
    pub row_stride: usize,
    /// Bytes from a row's line to the next line of the same row.
    pub block_stride: usize,
}

impl Rows {
    /// A packed panel of `count` rows.
    pub(super) fn packed(panel: *const Line, count: usize) -> Rows {
        Rows { at: panel.cast(), row_stride: size_of::<Line>(), block_stride: count * size_of::<Line>() }
    }

    /// The same rows without their first `count` blocks.
    pub(super) fn skip_blocks(self, count: usize) -> Rows {
        Rows { at: self.at.wrapping_add(count * self.block_stride), ..self }
    }

    /// The part of these `count` rows that call `number` prefetches, if each call prefetches `each` rows of `blocks`
    /// lines. Nothing new after the last row.
    pub(super) fn prefetch_share(self, number: usize, each: usize, blocks: usize, count: usize) -> Rows {
        let first = number * each;
        if first >= count {
            return Rows { row_stride: 0, ..self };
        }
        if self.row_stride == size_of::<Line>() {
            // Packed: the lines of all rows are one contiguous run.
            let run = blocks * size_of::<Line>();
            return Rows { at: self.at.wrapping_add(first * run), row_stride: run, ..self };
        }
        Rows { at: self.at.wrapping_add(first * self.row_stride), ..self }
    }
}
