//! Where the tiles of a product go.

use crate::cpu::level::Isa;

/// Receives the tiles of C, each exactly once, from several threads, in no fixed order.
pub trait Epilogue: Sync {
    /// Takes the finished `rows × cols` tile whose first element is C's (`row`, `col`): element (i, j) is
    /// `acc[i·stride + j]`; `stride` is a multiple of sixteen, and what follows a row's `cols` may be anything. `acc` may be
    /// overwritten. Implementations must be `#[inline(always)]`, so as to be compiled for the level `I`.
    fn tile<I: Isa>(&self, row: usize, col: usize, rows: usize, cols: usize, acc: &mut [f32], stride: usize);
}
