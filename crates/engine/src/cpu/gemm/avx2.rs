//! The AVX2 micro-kernels, f32 and int8: 6×16, with twelve vectors of sums, two of B and one of A in registers; without
//! VNNI, int8 needs more registers for each product: 4×16.

use std::arch::x86_64::*;
use std::hint::black_box;

use super::kernel::{Kernel, Panels};
use super::layout::LINE;
use crate::cpu::level::Avx2;

const LANES: usize = 8;

/// f32 words.
pub(super) struct Avx2F32;

/// Fours of int8 as words, with AVX-VNNI: `vpdpbusd` adds the products of four unsigned bytes of A and four signed ones of
/// B to the lane's i32 sum.
pub(super) struct AvxVnni;

/// Fours of int8 as words, without VNNI. `vpmaddubsw` adds two products of unsigned and signed bytes in 16 bits: |a|·(b with
/// the sign of a) is at most 128·127, so that the sum of two is exact. B must not be −128.
pub(super) struct Avx2Int8;

macro_rules! kernel {
    ($kernel:ty, $rows:literal, $per_word:literal, $offset:literal, $sum:ident; $($part:pat => $count:literal)*) => {
        impl Kernel for $kernel {
            type Isa = Avx2;
            const MR: usize = $rows;
            const NR: usize = LINE;
            const PER_WORD: usize = $per_word;
            const A_OFFSET: u8 = $offset;
            const KC: usize = 24;
            const NC_BYTES: usize = 160 << 10;
            type Guard = ();

            unsafe fn acquire() {}

            #[inline(always)]
            unsafe fn run(words: usize, panels: Panels, acc: *mut f32, rows: usize, _: usize, accumulate: bool) {
                // SAFETY: the caller vouches for the level, the panels and `acc`.
                unsafe {
                    match rows {
                        $($part => $sum::<$count>(words, panels, acc, accumulate),)*
                    }
                }
            }
        }
    };
}

kernel!(Avx2F32, 6, 1, 0, sum_f32; 0..3 => 2 3..5 => 4 _ => 6);
kernel!(AvxVnni, 6, 4, 128, sum_vnni; 0..3 => 2 3..5 => 4 _ => 6);
kernel!(Avx2Int8, 4, 4, 0, sum_int8; 0..3 => 2 _ => 4);

/// The tile's first `R` rows, of f32.
///
/// # Safety
/// As [`Kernel::run`].
#[target_feature(enable = "avx2,fma")]
#[inline(never)]
unsafe fn sum_f32<const R: usize>(words: usize, panels: Panels, acc: *mut f32, accumulate: bool) {
    // SAFETY: the caller vouches for the level, the panels and `acc`.
    unsafe {
        sum::<R, { Avx2F32::MR }>(words, panels, acc, accumulate, |x, row, sum| _mm256_fmadd_ps(x, row, sum));
    }
}

/// The tile's first `R` rows, of int8 with AVX-VNNI.
///
/// # Safety
/// As [`Kernel::run`].
#[target_feature(enable = "avx2,fma,avxvnni")]
#[inline(never)]
unsafe fn sum_vnni<const R: usize>(words: usize, panels: Panels, acc: *mut f32, accumulate: bool) {
    // SAFETY: as above; the vectors contain integers, despite their type.
    unsafe {
        sum::<R, { AvxVnni::MR }>(words, panels, acc, accumulate, |x, row, sum| {
            let [x, row, sum] = [x, row, sum].map(|vector| _mm256_castps_si256(vector));
            _mm256_castsi256_ps(_mm256_dpbusd_avx_epi32(sum, x, row))
        });
    }
}

/// The tile's first `R` rows, of int8 without VNNI.
///
/// # Safety
/// As [`Kernel::run`].
#[target_feature(enable = "avx2,fma")]
#[inline(never)]
unsafe fn sum_int8<const R: usize>(words: usize, panels: Panels, acc: *mut f32, accumulate: bool) {
    // SAFETY: as above.
    unsafe {
        sum::<R, { Avx2Int8::MR }>(words, panels, acc, accumulate, |x, row, sum| {
            let [x, row, sum] = [x, row, sum].map(|vector| _mm256_castps_si256(vector));
            _mm256_castsi256_ps(add_products(x, row, sum))
        });
    }
}

/// Adds four products of signed bytes to each i32 of `sum`.
#[target_feature(enable = "avx2")]
#[inline]
fn add_products(x: __m256i, row: __m256i, sum: __m256i) -> __m256i {
    let pairs = _mm256_maddubs_epi16(_mm256_abs_epi8(x), _mm256_sign_epi8(row, x));
    _mm256_add_epi32(sum, _mm256_madd_epi16(pairs, _mm256_set1_epi16(1)))
}

/// The loop over k for the tile's first `R` rows; A's panels have `ROWS` rows. `mul_add(x, row, sum)` processes one word
/// of each lane. Inlined into functions that enable its instructions.
///
/// # Safety
/// As [`Kernel::run`].
#[inline(always)]
unsafe fn sum<const R: usize, const ROWS: usize>(
    words: usize,
    panels: Panels,
    acc: *mut f32,
    accumulate: bool,
    mul_add: impl Fn(__m256, __m256, __m256) -> __m256,
) {
    // SAFETY: `acc` has 16 columns; a panel has `ROWS` lines (A) or 16 lines (B) per block.
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
                step(&mut sums, a.add(word), b.add(word * LINE), &mul_add);
            }
            a = a.add(ROWS * LINE);
            b = b.add(LINE * LINE);
        }
        for word in 0..words % LINE {
            step(&mut sums, a.add(word), b.add(word * LINE), &mul_add);
        }
        for (i, [left, right]) in sums.into_iter().enumerate() {
            _mm256_store_ps(acc.add(i * LINE), left);
            _mm256_store_ps(acc.add(i * LINE + LANES), right);
        }
    }
}

/// One word of k: that of each row of A times a row of B.
///
/// # Safety
/// As [`sum`]: `a` and `b` point to this word in their blocks.
#[inline(always)]
unsafe fn step<const R: usize>(
    sums: &mut [[__m256; 2]; R],
    a: *const f32,
    b: *const f32,
    mul_add: &impl Fn(__m256, __m256, __m256) -> __m256,
) {
    // SAFETY: the caller vouches for the blocks.
    unsafe {
        let (left, right) = (_mm256_load_ps(b), _mm256_load_ps(b.add(LANES)));
        for (i, sums) in sums.iter_mut().enumerate() {
            let x = _mm256_set1_ps(*a.add(i * LINE));
            sums[0] = mul_add(x, left, sums[0]);
            sums[1] = mul_add(x, right, sums[1]);
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

/// As [`spin`], for int8 with AVX-VNNI.
///
/// # Safety
/// AVX2 and AVX-VNNI.
#[target_feature(enable = "avx2,avxvnni")]
pub(super) unsafe fn spin_vnni(rounds: u64) -> u64 {
    let (x, y) = (_mm256_set1_epi32(black_box(1)), _mm256_set1_epi32(black_box(1)));
    let mut sums = [x; 10];
    for _ in 0..rounds {
        for sum in &mut sums {
            *sum = _mm256_dpbusd_avx_epi32(*sum, x, y);
        }
    }
    black_box(sums);
    rounds * 10 * 8 * LANES as u64
}

/// As [`spin`], for int8 without VNNI.
///
/// # Safety
/// AVX2.
#[target_feature(enable = "avx2")]
pub(super) unsafe fn spin_int8(rounds: u64) -> u64 {
    let (x, y) = (_mm256_set1_epi32(black_box(1)), _mm256_set1_epi32(black_box(1)));
    let mut sums = [x; 8];
    for _ in 0..rounds {
        for sum in &mut sums {
            *sum = add_products(x, y, *sum);
        }
    }
    black_box(sums);
    rounds * 8 * 8 * LANES as u64
}
