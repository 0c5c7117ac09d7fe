//! The AVX-512 micro-kernels, f32, bf16 and int8: 8×48, with 24 vectors of sums, three of B and one of A in registers.
//!
//! Eleven loads feed 24 multiply-adds. A squarer 14×32 tile needs 16 loads for 28 multiply-adds: measured, its loads
//! limit it to 89 % of the peak, while this tile reaches 99 %.

use std::arch::x86_64::*;
use std::hint::black_box;

use super::kernel::{Kernel, Panels};
use super::layout::{LINE, Line, Rows};
use crate::cpu::level::{Avx512, Avx512BF16};

const ROWS: usize = 8;
const VECTORS: usize = 3;
/// Words of k per iteration of the inner loop.
const UNROLL: usize = 4;
/// Prefetch distance in blocks for B, if it comes from memory beyond L2.
const PREFETCH_BLOCKS: usize = 8;

/// f32 words: one multiply-add per lane.
pub(super) struct Avx512F32;

/// bf16 pairs as words: `vdpbf16ps` adds both products to the lane's f32 sum. (It flushes subnormals to zero.)
pub(super) struct Avx512Pairs;

/// Fours of int8 as words: `vpdpbusd` (VNNI) adds the products of four unsigned bytes of A and four signed ones of B to
/// the lane's i32 sum.
pub(super) struct Avx512Vnni;

/// The same, with packing and epilogue compiled for the level with bf16.
pub(super) struct Avx512BF16Vnni;

macro_rules! kernel {
    ($kernel:ty, $isa:ty, $per_word:literal, $offset:literal, $sum:ident; $($rows:literal)*) => {
        impl Kernel for $kernel {
            type Isa = $isa;
            const MR: usize = ROWS;
            const NR: usize = VECTORS * LINE;
            const PER_WORD: usize = $per_word;
            const A_OFFSET: u8 = $offset;
            const IN_PLACE: bool = true;
            const AHEAD: usize = 1;
            const KC: usize = 64;
            const NC_BYTES: usize = 640 << 10;
            type Guard = ();

            fn width(n: usize) -> usize {
                even_width(n)
            }

            unsafe fn acquire() {}

            /// Partial tiles cost less: there is a loop for each even number of rows and each number of vectors.
            #[inline(always)]
            unsafe fn run(words: usize, panels: Panels, acc: *mut f32, rows: usize, cols: usize, accumulate: bool) {
                // SAFETY: the caller vouches for the level, the panels and `acc`.
                unsafe {
                    match (rows.next_multiple_of(2), cols.div_ceil(LINE)) {
                        $(($rows, 1) => $sum::<$rows, 1>(words, panels, acc, accumulate),
                        ($rows, 2) => $sum::<$rows, 2>(words, panels, acc, accumulate),
                        ($rows, 3) => $sum::<$rows, 3>(words, panels, acc, accumulate),)*
                        _ => unreachable!("a tile of {rows}×{cols}"),
                    }
                }
            }
        }
    };
}

kernel!(Avx512F32, Avx512, 1, 0, sum_f32; 8 6 4 2);
kernel!(Avx512Pairs, Avx512BF16, 2, 0, sum_bf16; 8 6 4 2);
kernel!(Avx512Vnni, Avx512, 4, 128, sum_int8; 8 6 4 2);
kernel!(Avx512BF16Vnni, Avx512BF16, 4, 128, sum_int8; 8 6 4 2);

/// Divides the columns into panels of equal widths: 64 columns become 32 and 32, not 48 and 16.
fn even_width(n: usize) -> usize {
    let vectors = n.div_ceil(LINE).max(1);
    LINE * vectors.div_ceil(vectors.div_ceil(VECTORS))
}

/// The tile's first `R` rows and `V` vectors of 16 columns, of f32.
///
/// # Safety
/// As [`Kernel::run`].
#[target_feature(enable = "avx512f")]
#[inline(never)]
unsafe fn sum_f32<const R: usize, const V: usize>(words: usize, panels: Panels, acc: *mut f32, accumulate: bool) {
    // SAFETY: the caller vouches for the level, the panels and `acc`.
    unsafe { sum::<R, V>(words, panels, acc, accumulate, |x, row, sum| _mm512_fmadd_ps(x, row, sum)) }
}

/// The tile's first `R` rows and `V` vectors of 16 columns, of bf16 pairs.
///
/// # Safety
/// As [`Kernel::run`].
#[target_feature(enable = "avx512f,avx512bf16")]
#[inline(never)]
unsafe fn sum_bf16<const R: usize, const V: usize>(words: usize, panels: Panels, acc: *mut f32, accumulate: bool) {
    // SAFETY: the caller vouches for the level, the panels and `acc`; the vectors contain 32 bf16, despite their type.
    unsafe {
        sum::<R, V>(words, panels, acc, accumulate, |x, row, sum| {
            _mm512_dpbf16_ps(
                sum,
                std::mem::transmute::<__m512, __m512bh>(x),
                std::mem::transmute::<__m512, __m512bh>(row),
            )
        })
    }
}

/// The tile's first `R` rows and `V` vectors of 16 columns, of fours of int8.
///
/// # Safety
/// As [`Kernel::run`].
#[target_feature(enable = "avx512f,avx512vnni")]
#[inline(never)]
unsafe fn sum_int8<const R: usize, const V: usize>(words: usize, panels: Panels, acc: *mut f32, accumulate: bool) {
    // SAFETY: the caller vouches for the level, the panels and `acc`; the vectors contain integers, despite their type.
    unsafe {
        sum::<R, V>(words, panels, acc, accumulate, |x, row, sum| {
            let [x, row, sum] = [x, row, sum].map(|vector| _mm512_castps_si512(vector));
            _mm512_castsi512_ps(_mm512_dpbusd_epi32(sum, x, row))
        })
    }
}

/// The loop over k. `mul_add(x, row, sum)` processes one word of each lane. Inlined into functions that enable its
/// instructions.
///
/// # Safety
/// As [`Kernel::run`].
#[inline(always)]
unsafe fn sum<const R: usize, const V: usize>(
    words: usize,
    panels: Panels,
    acc: *mut f32,
    accumulate: bool,
    mul_add: impl Fn(__m512, __m512, __m512) -> __m512,
) {
    // SAFETY: `acc` is 8×48; a panel has R lines (A) or `width` lines (B) per block. Prefetching beyond them is
    // harmless.
    unsafe {
        let mut sums = [[_mm512_setzero_ps(); V]; R];
        if accumulate {
            for (i, sums) in sums.iter_mut().enumerate() {
                for (v, sum) in sums.iter_mut().enumerate() {
                    *sum = _mm512_load_ps(acc.add((i * VECTORS + v) * LINE));
                }
            }
        }
        let Panels { a: Rows { at: mut a, row_stride, block_stride }, mut ahead, .. } = panels;
        let mut b = panels.b.cast::<f32>();
        let block = panels.width * LINE;
        for _ in 0..words / LINE {
            // The next panel of A, from memory.
            _mm_prefetch::<_MM_HINT_T1>(ahead.at.cast());
            ahead.at = ahead.at.wrapping_add(size_of::<Line>());
            for word in (0..LINE).step_by(UNROLL) {
                for word in word..word + UNROLL {
                    // The next block, from L2. The hardware prefetcher is too late, which cost a quarter of the
                    // performance.
                    if word % (LINE / ROWS) == 0 {
                        _mm_prefetch::<_MM_HINT_T0>(
                            a.wrapping_add(block_stride + word / (LINE / ROWS) * row_stride).cast(),
                        );
                    }
                    for v in 0..V {
                        _mm_prefetch::<_MM_HINT_T0>(b.wrapping_add(block + (v * LINE + word) * LINE).cast());
                        if panels.b_is_cold {
                            _mm_prefetch::<_MM_HINT_T1>(
                                b.wrapping_add(PREFETCH_BLOCKS * block + (v * LINE + word) * LINE).cast(),
                            );
                        }
                    }
                    step(&mut sums, a.cast::<f32>().add(word), row_stride, b.add(word * LINE), &mul_add);
                }
            }
            a = a.wrapping_add(block_stride);
            b = b.add(block);
        }
        for word in 0..words % LINE {
            step(&mut sums, a.cast::<f32>().add(word), row_stride, b.add(word * LINE), &mul_add);
        }
        for (i, sums) in sums.iter().enumerate() {
            for (v, sum) in sums.iter().enumerate() {
                _mm512_store_ps(acc.add((i * VECTORS + v) * LINE), *sum);
            }
        }
    }
}

/// One word of k: that of each row of A, `row_stride` bytes apart, times a row of B.
///
/// # Safety
/// As [`sum`]: `a` and `b` point to this word in their blocks.
#[inline(always)]
unsafe fn step<const R: usize, const V: usize>(
    sums: &mut [[__m512; V]; R],
    a: *const f32,
    row_stride: usize,
    b: *const f32,
    mul_add: &impl Fn(__m512, __m512, __m512) -> __m512,
) {
    // SAFETY: the caller vouches for the blocks.
    unsafe {
        let mut ys = [_mm512_setzero_ps(); V];
        for (v, y) in ys.iter_mut().enumerate() {
            *y = _mm512_load_ps(b.add(v * LINE * LINE));
        }
        for (i, sums) in sums.iter_mut().enumerate() {
            let x = _mm512_set1_ps(a.byte_add(i * row_stride).read_unaligned());
            for (sum, y) in sums.iter_mut().zip(ys) {
                *sum = mul_add(x, y, *sum);
            }
        }
    }
}

/// Runs `rounds` of twelve multiply-adds on registers; returns their FLOPs.
///
/// # Safety
/// AVX-512 F.
#[target_feature(enable = "avx512f")]
pub(super) unsafe fn spin(rounds: u64) -> u64 {
    let (x, y) = (_mm512_set1_ps(black_box(0.5)), _mm512_set1_ps(black_box(0.25)));
    let mut sums = [x; 12];
    for _ in 0..rounds {
        for sum in &mut sums {
            *sum = _mm512_fmadd_ps(*sum, x, y);
        }
    }
    black_box(sums);
    rounds * 12 * 2 * LINE as u64
}

/// As [`spin`], for bf16 pairs.
///
/// # Safety
/// AVX-512 F and BF16.
#[target_feature(enable = "avx512f,avx512bf16")]
pub(super) unsafe fn spin_bf16(rounds: u64) -> u64 {
    let one = _mm512_set1_ps(black_box(1.0));
    let (x, y) = (_mm512_cvtne2ps_pbh(one, one), _mm512_cvtne2ps_pbh(one, one));
    let mut sums = [one; 12];
    for _ in 0..rounds {
        for sum in &mut sums {
            *sum = _mm512_dpbf16_ps(*sum, x, y);
        }
    }
    black_box(sums);
    rounds * 12 * 4 * LINE as u64
}

/// As [`spin`], for fours of int8.
///
/// # Safety
/// AVX-512 F and VNNI.
#[target_feature(enable = "avx512f,avx512vnni")]
pub(super) unsafe fn spin_int8(rounds: u64) -> u64 {
    let (x, y) = (_mm512_set1_epi32(black_box(1)), _mm512_set1_epi32(black_box(1)));
    let mut sums = [x; 12];
    for _ in 0..rounds {
        for sum in &mut sums {
            *sum = _mm512_dpbusd_epi32(*sum, x, y);
        }
    }
    black_box(sums);
    rounds * 12 * 8 * LINE as u64
}
