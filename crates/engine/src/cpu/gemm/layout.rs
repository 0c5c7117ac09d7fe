//! The layout of packed operands in memory: lines of words, and rows of lines.

/// Words (32-bit) in a line, and lines in a square block: packed operands consist of 16×16 blocks, 1 KB each.
pub(super) const LINE: usize = 16;

/// A cache line of packed words: each an f32, or a pair of bf16 with consecutive k, the lower k in the lower half.
#[derive(Clone, Copy)]
#[repr(C, align(64))]
pub(super) struct Line(pub [u32; LINE]);

impl Line {
    pub(super) const ZERO: Line = Line([0; LINE]);
}

/// Where a panel of A lies: its rows' words, in lines of 16.
#[derive(Clone, Copy)]
pub(crate) struct Rows {
    pub at: *const u8,
    /// Bytes from one row's line to the next row's, and to the same row's next one.
    pub row: usize,
    pub block: usize,
}

impl Rows {
    /// A packed panel of `count` rows.
    pub(super) fn packed(panel: *const Line, count: usize) -> Rows {
        Rows { at: panel.cast(), row: size_of::<Line>(), block: count * size_of::<Line>() }
    }

    /// The same rows from a later block on.
    pub(super) fn from(self, block: usize) -> Rows {
        Rows { at: self.at.wrapping_add(block * self.block), ..self }
    }

    /// What call `number` is to prefetch of these `count` rows, if each takes `each` runs of `blocks` lines: runs as far apart
    /// as `row` says. Nothing new, once all have had their turn.
    pub(super) fn share(self, number: usize, each: usize, blocks: usize, count: usize) -> Rows {
        let first = number * each;
        if first >= count {
            return Rows { row: 0, ..self };
        }
        if self.row == size_of::<Line>() {
            // Packed: one long run.
            let run = blocks * size_of::<Line>();
            return Rows { at: self.at.wrapping_add(first * run), row: run, ..self };
        }
        Rows { at: self.at.wrapping_add(first * self.row), ..self }
    }
}
