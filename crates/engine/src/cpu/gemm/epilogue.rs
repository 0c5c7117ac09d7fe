//! The epilogue of a product: what happens to finished tiles.

use crate::cpu::level::Isa;

/// Receives each tile of C exactly once, from several threads, in no fixed order.
pub trait Epilogue: Sync {
    /// Takes the finished `rows × cols` tile whose first element is C's (`row`, `col`). Element (i, j) is `acc[i·stride
    /// + j]`; `stride` is a multiple of sixteen, and elements beyond a row's `cols` are arbitrary. `acc` may be
    /// overwritten. Implementations must be `#[inline(always)]`, so that they are compiled for the level `I`.
    fn tile<I: Isa>(&self, row: usize, col: usize, rows: usize, cols: usize, acc: &mut [f32], stride: usize);
}
