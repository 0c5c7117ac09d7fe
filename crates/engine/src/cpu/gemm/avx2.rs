//! The AVX2 f32 micro-kernel: 6×16, with twelve vectors of sums, two of B and one of A in registers.

use std::arch::x86_64::*;
use std::hint::black_box;

use super::kernel::{Kernel, Panels};
use super::layout::LINE;
use crate::cpu::level::Avx2;

const ROWS: usize = 6;
const LANES: usize = 8;

pub(super) struct Avx2F32;

impl Kernel for Avx2F32 {
    type Isa = Avx2;
    const MR: usize = ROWS;
    const NR: usize = LINE;
    const PAIRS: bool = false;
    const KC: usize = 24;
    const NC_BYTES: usize = 160 << 10;
    type Guard = ();

    unsafe fn acquire() {}

    #[inline(always)]
    unsafe fn run(words: usize, panels: Panels, acc: *mut f32, rows: usize, _: usize, accumulate: bool) {
        // SAFETY: the caller vouches for the level, the panels and `acc`.
        unsafe {
            match rows {
                0..3 => sum::<2>(words, panels, acc, accumulate),
                3..5 => sum::<4>(words, panels, acc, accumulate),
                _ => sum::<6>(words, panels, acc, accumulate),
            }
        }
    }
}

/// The tile's first `R` rows.
///
/// # Safety
/// As [`Kernel::run`].
#[target_feature(enable = "avx2,fma")]
#[inline(never)]
unsafe fn sum<const R: usize>(words: usize, panels: Panels, acc: *mut f32, accumulate: bool) {
    // SAFETY: `acc` is 6×16; a panel has 6 lines (A) or 16 lines (B) per block.
    unsafe {
        let mut sums = [[_mm256_setzero_ps(); 2]; R];
        if accumulate {
            for (i, sums) in sums.iter_mut().enumerate() {
                *sums = [_mm256_load_ps(acc.add(i * LINE)), _mm256_load_ps(acc.add(i * LINE + LANES))];
            }
        }
        let (mut a, mut b) = (panels.a.at.cast::<f32>(), panels.b.cast::<f32>());
        for _ in 0..words / LINE {
            for word in 0..LINE {
                step(&mut sums, a.add(word), b.add(word * LINE));
            }
            a = a.add(ROWS * LINE);
            b = b.add(LINE * LINE);
        }
        for word in 0..words % LINE {
            step(&mut sums, a.add(word), b.add(word * LINE));
        }
        for (i, [left, right]) in sums.into_iter().enumerate() {
            _mm256_store_ps(acc.add(i * LINE), left);
            _mm256_store_ps(acc.add(i * LINE + LANES), right);
        }
    }
}

/// One element of k: a word of each row of A times a row of B.
///
/// # Safety
/// As [`sum`]: `a` and `b` point to this word in their blocks.
#[target_feature(enable = "avx2,fma")]
#[inline]
unsafe fn step<const R: usize>(sums: &mut [[__m256; 2]; R], a: *const f32, b: *const f32) {
    // SAFETY: the caller vouches for the blocks.
    unsafe {
        let (left, right) = (_mm256_load_ps(b), _mm256_load_ps(b.add(LANES)));
        for (i, sums) in sums.iter_mut().enumerate() {
            let x = _mm256_set1_ps(*a.add(i * LINE));
            sums[0] = _mm256_fmadd_ps(x, left, sums[0]);
            sums[1] = _mm256_fmadd_ps(x, right, sums[1]);
        }
    }
}

/// Runs `rounds` of ten multiply-adds on registers; returns their FLOPs.
///
/// # Safety
/// AVX2 and FMA.
#[target_feature(enable = "avx2,fma")]
pub(super) unsafe fn spin(rounds: u64) -> u64 {
    let (x, y) = (_mm256_set1_ps(black_box(0.5)), _mm256_set1_ps(black_box(0.25)));
    let mut sums = [x; 10];
    for _ in 0..rounds {
        for sum in &mut sums {
            *sum = _mm256_fmadd_ps(*sum, x, y);
        }
    }
    black_box(sums);
    rounds * 10 * 2 * LANES as u64
}
