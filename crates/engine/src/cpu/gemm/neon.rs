//! The NEON micro-kernels, f32 and int8: 6×16, with 24 vectors of sums, four words of each row of A, and one vector of B
//! in registers.

use std::arch::aarch64::*;
use std::arch::asm;
use std::hint::black_box;

use super::kernel::{Kernel, Panels};
use super::layout::LINE;
use crate::cpu::level::Neon;

const ROWS: usize = 6;
const LANES: usize = 4;
const VECTORS: usize = LINE / LANES;

/// f32 words.
pub(super) struct NeonF32;

/// Fours of int8 as words: `sdot` (the extension dotprod) adds four products to the lane's i32 sum.
pub(super) struct NeonDot;

macro_rules! kernel {
    ($kernel:ty, $per_word:literal, $sum:ident) => {
        impl Kernel for $kernel {
            type Isa = Neon;
            const MR: usize = ROWS;
            const NR: usize = LINE;
            const PER_WORD: usize = $per_word;
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
                        0..3 => $sum::<2>(words, panels, acc, accumulate),
                        3..5 => $sum::<4>(words, panels, acc, accumulate),
                        _ => $sum::<6>(words, panels, acc, accumulate),
                    }
                }
            }
        }
    };
}

kernel!(NeonF32, 1, sum_f32);
kernel!(NeonDot, 4, sum_int8);

/// What a kernel does with a word of each lane.
trait MulAdd {
    /// Adds to `sum` the products of lane `K` of `x` and each lane of `y`.
    ///
    /// # Safety
    /// The machine has the kernel's instructions.
    unsafe fn mul_add<const K: i32>(sum: float32x4_t, y: float32x4_t, x: float32x4_t) -> float32x4_t;
}

impl MulAdd for NeonF32 {
    #[inline(always)]
    unsafe fn mul_add<const K: i32>(sum: float32x4_t, y: float32x4_t, x: float32x4_t) -> float32x4_t {
        // SAFETY: NEON is part of the baseline.
        unsafe { vfmaq_laneq_f32::<K>(sum, y, x) }
    }
}

impl MulAdd for NeonDot {
    #[inline(always)]
    unsafe fn mul_add<const K: i32>(sum: float32x4_t, y: float32x4_t, x: float32x4_t) -> float32x4_t {
        // Rust's intrinsic for it is not stable.
        let mut sum = sum;
        // SAFETY: the caller vouches for the instruction, which uses only registers. The vectors contain integers.
        unsafe {
            asm!(
                ".arch_extension dotprod",
                "sdot {sum:v}.4s, {y:v}.16b, {x:v}.4b[{k}]",
                sum = inout(vreg) sum,
                y = in(vreg) y,
                x = in(vreg) x,
                k = const K,
                options(pure, nomem, nostack, preserves_flags),
            );
        }
        sum
    }
}

/// The tile's first `R` rows, of f32.
///
/// # Safety
/// As [`Kernel::run`].
#[target_feature(enable = "neon")]
#[inline(never)]
unsafe fn sum_f32<const R: usize>(words: usize, panels: Panels, acc: *mut f32, accumulate: bool) {
    // SAFETY: the caller vouches for the level, the panels and `acc`.
    unsafe { sum::<NeonF32, R>(words, panels, acc, accumulate) }
}

/// The tile's first `R` rows, of fours of int8.
///
/// # Safety
/// As [`Kernel::run`].
#[target_feature(enable = "neon,dotprod")]
#[inline(never)]
unsafe fn sum_int8<const R: usize>(words: usize, panels: Panels, acc: *mut f32, accumulate: bool) {
    // SAFETY: as above.
    unsafe { sum::<NeonDot, R>(words, panels, acc, accumulate) }
}

/// The loop over k for the tile's first `R` rows. Inlined into functions that enable its instructions.
///
/// # Safety
/// As [`Kernel::run`].
#[inline(always)]
unsafe fn sum<M: MulAdd, const R: usize>(words: usize, panels: Panels, acc: *mut f32, accumulate: bool) {
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
                step::<M, R>(&mut sums, a, b);
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

/// Four words of k: four words of each row of A times four rows of B.
///
/// # Safety
/// As [`sum`]: `a` and `b` point to the first of these words in their blocks.
#[inline(always)]
unsafe fn step<M: MulAdd, const R: usize>(sums: &mut [[float32x4_t; VECTORS]; R], a: *const f32, b: *const f32) {
    // SAFETY: four words of a line of each row of A's block, and four lines of B's block.
    unsafe {
        let mut x = [vdupq_n_f32(0.0); R];
        for (i, x) in x.iter_mut().enumerate() {
            *x = vld1q_f32(a.add(i * LINE));
        }
        word::<M, R, 0>(sums, &x, b);
        word::<M, R, 1>(sums, &x, b.add(LINE));
        word::<M, R, 2>(sums, &x, b.add(2 * LINE));
        word::<M, R, 3>(sums, &x, b.add(3 * LINE));
    }
}

/// One word of k: lane `K` of `x` times a row of B.
///
/// # Safety
/// `b` points to a line; the machine has the kernel's instructions.
#[inline(always)]
unsafe fn word<M: MulAdd, const R: usize, const K: i32>(
    sums: &mut [[float32x4_t; VECTORS]; R],
    x: &[float32x4_t; R],
    b: *const f32,
) {
    for j in 0..VECTORS {
        // SAFETY: the caller vouches for the line and the instructions.
        unsafe {
            let y = vld1q_f32(b.add(j * LANES));
            for (sums, x) in sums.iter_mut().zip(x) {
                sums[j] = M::mul_add::<K>(sums[j], y, *x);
            }
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

/// As [`spin`], for fours of int8.
///
/// # Safety
/// NEON and dotprod.
#[target_feature(enable = "neon,dotprod")]
pub(super) unsafe fn spin_int8(rounds: u64) -> u64 {
    let (x, y) = (vdupq_n_f32(black_box(0.5)), vdupq_n_f32(black_box(0.25)));
    let mut sums = [x; 16];
    for _ in 0..rounds {
        for sum in &mut sums {
            // SAFETY: the caller vouches for the instructions.
            *sum = unsafe { NeonDot::mul_add::<0>(*sum, y, x) };
        }
    }
    black_box(sums);
    rounds * 16 * 8 * LANES as u64
}
