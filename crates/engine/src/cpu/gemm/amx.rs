//! The bf16 tile micro-kernel: 32×32, two by two tiles. Generic over the tiles, so that tests run it on emulated ones.

use std::cell::Cell;
use std::marker::PhantomData;

use super::kernel::{Kernel, LINE, Panels};
use crate::cpu::level::Avx512;
use crate::cpu::tiles::Tiles;

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
    type Isa = Avx512;
    const MR: usize = 32;
    const NR: usize = 32;
    const PAIRS: bool = true;
    // 384 of k: past that two panels no longer share L1, and the rate falls by a third.
    const CHUNK: usize = 12;
    const KEPT: usize = 512 << 10;
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
        unsafe { T::multiply(words.div_ceil(LINE), panels.a.cast(), panels.b.cast(), acc, accumulate) };
    }
}
