//! The bf16 tile micro-kernel: 32×32, two by two tiles. Generic over the tiles, so that tests run it on emulated ones.

use std::cell::Cell;
use std::marker::PhantomData;

use super::amx_tiles::{AHEAD, Tiles};
use super::kernel::{Kernel, Panels};
use super::layout::LINE;
use crate::cpu::level::Avx512BF16;

pub(super) struct Amx<T: Tiles>(PhantomData<T>);

/// While a thread has any of these, its tiles are configured; they are released with the last. (A product within another
/// product's sink must not release the outer one's.)
pub(super) struct Configured<T: Tiles>(PhantomData<(T, *const ())>);

thread_local! {
    static HOLDS: Cell<usize> = const { Cell::new(0) };
}

impl<T: Tiles> Drop for Configured<T> {
    fn drop(&mut self) {
        HOLDS.set(HOLDS.get() - 1);
        if HOLDS.get() == 0 {
            // SAFETY: `hold`'s caller vouched for the tiles.
            unsafe { T::release() };
        }
    }
}

impl<T: Tiles> Kernel for Amx<T> {
    type Isa = Avx512BF16;
    const MR: usize = 32;
    const NR: usize = 32;
    const PAIRS: bool = true;
    const IN_PLACE: bool = true;
    // 512 of k: half of L1 for a panel of A; B's pass it by, with a hint not to stay. Measured, in TFLOP/s of one core (3.3 at
    // most), with each tile put aside between stretches: 8 blocks 2.2, 12 blocks 2.4, 16 to 20 blocks 2.55, 24 blocks 2.3.
    const NEAR: usize = 16;
    const CHUNK: usize = 128;
    const KEPT: usize = 1200 << 10;
    const AHEAD: usize = AHEAD;
    type Hold = Configured<T>;

    unsafe fn hold() -> Configured<T> {
        if HOLDS.get() == 0 {
            // SAFETY: the caller vouches for the tiles.
            unsafe { T::configure() };
        }
        HOLDS.set(HOLDS.get() + 1);
        Configured(PhantomData)
    }

    #[inline(always)]
    unsafe fn run(words: usize, panels: Panels, acc: *mut f32, _: usize, _: usize, accumulate: bool) {
        // SAFETY: a panel of 32 lines a block is 2 KB a block; the caller vouches for the rest.
        unsafe { T::multiply(words.div_ceil(LINE), panels.a, panels.b.cast(), panels.ahead, acc, accumulate) };
    }
}
