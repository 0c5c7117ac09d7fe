//! The AVX2 f32 micro-kernel: 6×16, twelve sums in registers, two of B and one of A beside them.

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
    const CHUNK: usize = 24;
    const KEPT: usize = 160 << 10;
    type Hold = ();

    unsafe fn hold() {}

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
    // SAFETY: `acc` is 6×16; a panel of A has 6 lines a block, of B 16.
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

/// One k: a word of each row times the row of B.
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

/// `rounds` times ten multiply-adds on registers; returns their FLOPs.
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
