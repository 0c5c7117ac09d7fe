//! The NEON f32 micro-kernel: 6×16, with 24 vectors of sums, four words of each row of A, and one vector of B in
//! registers.

use std::arch::aarch64::*;
use std::hint::black_box;

use super::kernel::{Kernel, Panels};
use super::layout::LINE;
use crate::cpu::level::Neon;

const ROWS: usize = 6;
const LANES: usize = 4;
const VECTORS: usize = LINE / LANES;

pub(super) struct NeonF32;

impl Kernel for NeonF32 {
    type Isa = Neon;
    const MR: usize = ROWS;
    const NR: usize = LINE;
    const PAIRS: bool = false;
    // As for AVX2; not measured.
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
#[target_feature(enable = "neon")]
#[inline(never)]
unsafe fn sum<const R: usize>(words: usize, panels: Panels, acc: *mut f32, accumulate: bool) {
    // SAFETY: `acc` is 6×16; a panel has 6 lines (A) or 16 lines (B) per block, with zeros where the last four words
    // are incomplete.
    unsafe {
        let mut sums = [[vdupq_n_f32(0.0); VECTORS]; R];
        if accumulate {
            for (i, sums) in sums.iter_mut().enumerate() {
                for (j, sum) in sums.iter_mut().enumerate() {
                    *sum = vld1q_f32(acc.add(i * LINE + j * LANES));
                }
            }
        }
        let (mut a, mut b) = (panels.a.at.cast::<f32>(), panels.b.cast::<f32>());
        for block in 0..words.div_ceil(LINE) {
            for _ in 0..(words - block * LINE).min(LINE).div_ceil(LANES) {
                step(&mut sums, a, b);
                a = a.add(LANES);
                b = b.add(LANES * LINE);
            }
            a = a.add((ROWS - 1) * LINE);
        }
        for (i, sums) in sums.into_iter().enumerate() {
            for (j, sum) in sums.into_iter().enumerate() {
                vst1q_f32(acc.add(i * LINE + j * LANES), sum);
            }
        }
    }
}

/// Four elements of k: four words of each row of A times four rows of B.
///
/// # Safety
/// As [`sum`]: `a` and `b` point to the first of these words in their blocks.
#[target_feature(enable = "neon")]
#[inline]
unsafe fn step<const R: usize>(sums: &mut [[float32x4_t; VECTORS]; R], a: *const f32, b: *const f32) {
    let mut x = [vdupq_n_f32(0.0); R];
    for (i, x) in x.iter_mut().enumerate() {
        // SAFETY: the caller vouches for the block.
        *x = unsafe { vld1q_f32(a.add(i * LINE)) };
    }
    // SAFETY: four lines of B's block.
    unsafe {
        word::<R, 0>(sums, &x, b);
        word::<R, 1>(sums, &x, b.add(LINE));
        word::<R, 2>(sums, &x, b.add(2 * LINE));
        word::<R, 3>(sums, &x, b.add(3 * LINE));
    }
}

/// One element of k: lane `K` of `x` times a row of B.
///
/// # Safety
/// `b` points to a line.
#[target_feature(enable = "neon")]
#[inline]
unsafe fn word<const R: usize, const K: i32>(
    sums: &mut [[float32x4_t; VECTORS]; R],
    x: &[float32x4_t; R],
    b: *const f32,
) {
    for j in 0..VECTORS {
        // SAFETY: the caller vouches for the line.
        let y = unsafe { vld1q_f32(b.add(j * LANES)) };
        for (sums, x) in sums.iter_mut().zip(x) {
            sums[j] = vfmaq_laneq_f32::<K>(sums[j], y, *x);
        }
    }
}

/// Runs `rounds` of sixteen multiply-adds on registers; returns their FLOPs.
///
/// # Safety
/// NEON.
#[target_feature(enable = "neon")]
pub(super) unsafe fn spin(rounds: u64) -> u64 {
    let (x, y) = (vdupq_n_f32(black_box(0.5)), vdupq_n_f32(black_box(0.25)));
    // Four units with a latency of four cycles need sixteen independent sums.
    let mut sums = [x; 16];
    for _ in 0..rounds {
        for sum in &mut sums {
            *sum = vfmaq_f32(*sum, x, y);
        }
    }
    black_box(sums);
    rounds * 16 * 2 * LANES as u64
}
