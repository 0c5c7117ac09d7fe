//! The AMX micro-kernels, bf16 and int8: 32×32, as two by two tiles. Generic over the tiles, so that tests can run it on emulated
//! ones.

use std::cell::Cell;
use std::marker::PhantomData;

use super::amx_tiles::{AHEAD, Tiles};
use super::kernel::{Kernel, Panels};
use super::layout::LINE;
use crate::cpu::level::Avx512BF16;

/// A word is a pair of bf16, or four int8.
pub(super) struct Amx<T: Tiles, const INT8: bool = false>(PhantomData<T>);

/// While a thread has at least one of these guards, its tiles are configured; dropping the last one releases them. (A
/// product within another product's epilogue must not release the tiles of the outer one.)
pub(super) struct Configured<T: Tiles>(PhantomData<(T, *const ())>);

thread_local! {
    static GUARDS: Cell<usize> = const { Cell::new(0) };
}

impl<T: Tiles> Drop for Configured<T> {
    fn drop(&mut self) {
        GUARDS.set(GUARDS.get() - 1);
        if GUARDS.get() == 0 {
            // SAFETY: the caller of `acquire` vouched for the tiles.
            unsafe { T::release() };
        }
    }
}

impl<T: Tiles, const INT8: bool> Kernel for Amx<T, INT8> {
    type Isa = Avx512BF16;
    const MR: usize = 32;
    const NR: usize = 32;
    const PER_WORD: usize = if INT8 { 4 } else { 2 };
    const IN_PLACE: bool = true;
    // 1 KB of each row: a panel of A takes half of L1; B's panels are loaded with a hint to bypass L1. Measured in
    // TFLOP/s of one core (peak 3.3), with each tile stored between sections: 8 blocks 2.2, 12 blocks 2.4, 16 to 20
    // blocks 2.55, 24 blocks 2.3.
    const KC_L1: usize = 16;
    const KC: usize = 128;
    const NC_BYTES: usize = 1200 << 10;
    const AHEAD: usize = AHEAD;
    type Guard = Configured<T>;

    unsafe fn acquire() -> Configured<T> {
        if GUARDS.get() == 0 {
            // SAFETY: the caller vouches for the tiles.
            unsafe { T::configure() };
        }
        GUARDS.set(GUARDS.get() + 1);
        Configured(PhantomData)
    }

    #[inline(always)]
    unsafe fn run(words: usize, panels: Panels, acc: *mut f32, _: usize, _: usize, accumulate: bool) {
        let blocks = words.div_ceil(LINE);
        // SAFETY: a panel of 32 lines takes 2 KB per block; the caller vouches for the rest.
        unsafe {
            match INT8 {
                true => T::multiply_int8(blocks, panels.a, panels.b.cast(), panels.ahead, acc.cast(), accumulate),
                false => T::multiply(blocks, panels.a, panels.b.cast(), panels.ahead, acc, accumulate),
            }
        }
    }
}
