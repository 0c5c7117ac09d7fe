//! The AVX-512 micro-kernels, f32 and bf16: 8×48, 24 sums in registers, three of B and one of A beside them.
//!
//! Eleven loads feed 24 multiply-adds. A squarer 14×32 tile needs 16 for 28: measured, its loads hold it to 89 % of the peak,
//! where this one reaches 99 %.

use std::arch::x86_64::*;
use std::hint::black_box;

use super::kernel::{Kernel, Panels};
use super::layout::{LINE, Line, Rows};
use crate::cpu::level::{Avx512, Avx512BF16};

const ROWS: usize = 8;
const VECTORS: usize = 3;
/// Words of k in one turn of the inner loop.
const UNROLL: usize = 4;
/// Blocks ahead of the one in hand that B is prefetched to L2 where it comes from memory.
const BLOCKS: usize = 8;

/// f32 words, one multiply-add a lane.
pub(super) struct Avx512F32;

/// Words that are pairs of bf16: `vdpbf16ps` adds both products to the lane's f32 sum. (It flushes subnormals to zero.)
pub(super) struct Avx512Pairs;

macro_rules! kernel {
    ($kernel:ty, $isa:ty, $pairs:literal, $sum:ident; $($rows:literal)*) => {
        impl Kernel for $kernel {
            type Isa = $isa;
            const MR: usize = ROWS;
            const NR: usize = VECTORS * LINE;
            const PAIRS: bool = $pairs;
            const IN_PLACE: bool = true;
            const AHEAD: usize = 1;
            const CHUNK: usize = 64;
            const KEPT: usize = 640 << 10;
            type Hold = ();

            fn width(n: usize) -> usize {
                even_width(n)
            }

            unsafe fn hold() {}

            /// Fewer rows or columns than a tile's cost less: a loop for each even number of rows and number of vectors.
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

kernel!(Avx512F32, Avx512, false, sum_f32; 8 6 4 2);
kernel!(Avx512Pairs, Avx512BF16, true, sum_bf16; 8 6 4 2);

/// Panels of even widths: those of 64 columns are 32 and 32, not 48 and 16.
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
    // SAFETY: the caller vouches for the level, the panels and `acc`; the vectors are 32 bf16, whatever their type says.
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

/// The loop over k; `mul_add(x, row, sum)` is one word of each lane. Inlined into functions that have its instructions.
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
    // SAFETY: `acc` is 8×48; a panel of A has R lines a block, of B `width`. Prefetching is harmless beyond them.
    unsafe {
        let mut sums = [[_mm512_setzero_ps(); V]; R];
        if accumulate {
            for (i, sums) in sums.iter_mut().enumerate() {
                for (v, sum) in sums.iter_mut().enumerate() {
                    *sum = _mm512_load_ps(acc.add((i * VECTORS + v) * LINE));
                }
            }
        }
        let Panels { a: Rows { at: mut a, row, block: next }, mut ahead, .. } = panels;
        let mut b = panels.b.cast::<f32>();
        let block = panels.width * LINE;
        for _ in 0..words / LINE {
            // The panel of A that comes next, from memory.
            _mm_prefetch::<_MM_HINT_T1>(ahead.at.cast());
            ahead.at = ahead.at.wrapping_add(size_of::<Line>());
            for word in (0..LINE).step_by(UNROLL) {
                for word in word..word + UNROLL {
                    // The next block, from L2: the CPU's own prefetcher comes too late, which cost a quarter of the rate.
                    if word % (LINE / ROWS) == 0 {
                        _mm_prefetch::<_MM_HINT_T0>(a.wrapping_add(next + word / (LINE / ROWS) * row).cast());
                    }
                    for v in 0..V {
                        _mm_prefetch::<_MM_HINT_T0>(b.wrapping_add(block + (v * LINE + word) * LINE).cast());
                        if panels.far {
                            _mm_prefetch::<_MM_HINT_T1>(
                                b.wrapping_add(BLOCKS * block + (v * LINE + word) * LINE).cast(),
                            );
                        }
                    }
                    step(&mut sums, a.cast::<f32>().add(word), row, b.add(word * LINE), &mul_add);
                }
            }
            a = a.wrapping_add(next);
            b = b.add(block);
        }
        for word in 0..words % LINE {
            step(&mut sums, a.cast::<f32>().add(word), row, b.add(word * LINE), &mul_add);
        }
        for (i, sums) in sums.iter().enumerate() {
            for (v, sum) in sums.iter().enumerate() {
                _mm512_store_ps(acc.add((i * VECTORS + v) * LINE), *sum);
            }
        }
    }
}

/// One word of k: that of each row, `row` bytes apart, times the row of B.
///
/// # Safety
/// As [`sum`]: `a` and `b` point to this word in their blocks.
#[inline(always)]
unsafe fn step<const R: usize, const V: usize>(
    sums: &mut [[__m512; V]; R],
    a: *const f32,
    row: usize,
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
            let x = _mm512_set1_ps(a.byte_add(i * row).read_unaligned());
            for (sum, y) in sums.iter_mut().zip(ys) {
                *sum = mul_add(x, y, *sum);
            }
        }
    }
}

/// `rounds` times twelve multiply-adds on registers; returns their FLOPs.
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

/// As [`spin`], of bf16 pairs.
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
