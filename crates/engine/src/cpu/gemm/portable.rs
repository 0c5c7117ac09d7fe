//! The micro-kernels that the compiler vectorises for its target. f32: 4×16 (NEON has enough registers) or twice 4×8 (SSE2
//! does not). int8: 4×16; this one is also the reference of all others, which must give the same bits.

use std::hint::black_box;

use super::kernel::{Kernel, Panels};
use super::layout::LINE;
use crate::cpu::level::{Isa, Portable, mul_add};

const ROWS: usize = 4;
const WIDTH: usize = if cfg!(target_arch = "x86_64") { 8 } else { 16 };

/// f32 words.
pub(super) struct PortableF32;

/// Fours of int8 as words.
pub(super) struct PortableInt8;

impl Kernel for PortableF32 {
    type Isa = Portable;
    const MR: usize = ROWS;
    const NR: usize = LINE;
    const PER_WORD: usize = 1;
    const KC: usize = 16;
    const NC_BYTES: usize = 128 << 10;
    type Guard = ();

    unsafe fn acquire() {}

    unsafe fn run(words: usize, panels: Panels, acc: *mut f32, _: usize, cols: usize, accumulate: bool) {
        debug_assert_eq!(panels.width, LINE);
        let blocks = words.div_ceil(LINE);
        // SAFETY: the caller vouches for the panels' sizes and for `acc`.
        let (a, b, acc) = unsafe {
            (
                std::slice::from_raw_parts(panels.a.at.cast::<[[f32; LINE]; ROWS]>(), blocks),
                std::slice::from_raw_parts(panels.b.cast::<[[f32; LINE]; LINE]>(), blocks),
                &mut *acc.cast::<[[f32; LINE]; ROWS]>(),
            )
        };
        for first in (0..cols).step_by(WIDTH) {
            sum::<Portable>(words, a, b, acc, first, accumulate);
        }
    }
}

impl Kernel for PortableInt8 {
    type Isa = Portable;
    const MR: usize = ROWS;
    const NR: usize = LINE;
    const PER_WORD: usize = 4;
    const KC: usize = 16;
    const NC_BYTES: usize = 128 << 10;
    type Guard = ();

    unsafe fn acquire() {}

    unsafe fn run(words: usize, panels: Panels, acc: *mut f32, _: usize, _: usize, accumulate: bool) {
        debug_assert_eq!(panels.width, LINE);
        let blocks = words.div_ceil(LINE);
        // SAFETY: the caller vouches for the panels' sizes and for `acc`, whose bits are i32.
        let (a, b, acc) = unsafe {
            (
                std::slice::from_raw_parts(panels.a.at.cast::<[[[i8; 4]; LINE]; ROWS]>(), blocks),
                std::slice::from_raw_parts(panels.b.cast::<[[[i8; 4]; LINE]; LINE]>(), blocks),
                &mut *acc.cast::<[[i32; LINE]; ROWS]>(),
            )
        };
        if !accumulate {
            *acc = [[0; LINE]; ROWS];
        }
        for (block, (a, b)) in a.iter().zip(b).enumerate() {
            for word in 0..LINE.min(words - block * LINE) {
                for (sums, a) in acc.iter_mut().zip(a) {
                    let x = a[word].map(i32::from);
                    for (sum, y) in sums.iter_mut().zip(&b[word]) {
                        let products = x.iter().zip(y).map(|(x, y)| x * i32::from(*y));
                        *sum = sum.wrapping_add(products.sum());
                    }
                }
            }
        }
    }
}

/// The tile's columns `first..first + WIDTH`.
#[inline(always)]
fn sum<I: Isa>(
    words: usize,
    a: &[[[f32; LINE]; ROWS]],
    b: &[[[f32; LINE]; LINE]],
    acc: &mut [[f32; LINE]; ROWS],
    first: usize,
    accumulate: bool,
) {
    let mut sums = [[0.0; WIDTH]; ROWS];
    if accumulate {
        for (sums, acc) in sums.iter_mut().zip(&*acc) {
            sums.copy_from_slice(&acc[first..first + WIDTH]);
        }
    }
    for (block, (a, b)) in a.iter().zip(b).enumerate() {
        for word in 0..LINE.min(words - block * LINE) {
            let mut row = [0.0; WIDTH];
            row.copy_from_slice(&b[word][first..first + WIDTH]);
            for (sums, a) in sums.iter_mut().zip(a) {
                for (sum, b) in sums.iter_mut().zip(row) {
                    *sum = mul_add::<I>(a[word], b, *sum);
                }
            }
        }
    }
    for (acc, sums) in acc.iter_mut().zip(&sums) {
        acc[first..first + WIDTH].copy_from_slice(sums);
    }
}

/// Runs `rounds` of ten multiply-adds of four numbers, in registers if the compiler manages it; returns their FLOPs.
///
/// # Safety
/// Always safe; unsafe only for a common signature.
pub(super) unsafe fn spin(rounds: u64) -> u64 {
    let (x, y) = (black_box([0.5; 4]), black_box([0.25; 4]));
    let mut sums = [x; 10];
    for _ in 0..rounds {
        for sums in &mut sums {
            for lane in 0..4 {
                sums[lane] = mul_add::<Portable>(sums[lane], x[lane], y[lane]);
            }
        }
    }
    black_box(sums);
    rounds * 10 * 2 * 4
}

/// As [`spin`], for fours of int8.
///
/// # Safety
/// As for [`spin`].
pub(super) unsafe fn spin_int8(rounds: u64) -> u64 {
    let (x, y) = (black_box([1i8; 64]), black_box([1i8; 64]));
    let mut sums = [0i32; LINE];
    for _ in 0..rounds {
        for (lane, sum) in sums.iter_mut().enumerate() {
            for i in 4 * lane..4 * lane + 4 {
                *sum = sum.wrapping_add(i32::from(x[i]) * i32::from(y[i]));
            }
        }
        sums = black_box(sums);
    }
    rounds * 8 * LINE as u64
}
