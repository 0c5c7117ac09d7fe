//! The bf16 tile micro-kernel: 32×32, two by two tiles. Generic over the tiles, so that tests run it on emulated ones.

use std::cell::Cell;
use std::marker::PhantomData;

use super::kernel::{Kernel, LINE, Panels};
use crate::cpu::level::Avx512BF16;
use crate::cpu::tiles::{AHEAD, Tiles};

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
    // 256 of k: two panels and a tile share L1. Measured, in TFLOP/s of one core at k = 768, with each tile put aside between
    // stretches: 4 blocks 1.4, 6 blocks 1.65, 8 blocks 1.8, 12 blocks 1.7, all 24 blocks 1.3.
    const NEAR: usize = 8;
    const CHUNK: usize = 32;
    const KEPT: usize = 576 << 10;
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
        unsafe {
            T::multiply(words.div_ceil(LINE), panels.a.cast(), panels.b.cast(), panels.ahead.cast(), acc, accumulate)
        };
    }
}
