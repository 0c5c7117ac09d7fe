//! The transpose of a 16×16 block of 32-bit words, the core of packing operands that are not contiguous along k.

use super::layout::{LINE, Line};
use crate::cpu::level::Isa;
#[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
use crate::cpu::level::Level;

/// Writes the first `lines` rows of the transpose of `from`: eight to `to[0]`, the others to `to[1]`.
///
/// # Safety
/// The machine has level `I`; `lines ≤ 16` lines can be written.
#[inline(always)]
pub(super) unsafe fn transpose<I: Isa>(from: &[Line; LINE], to: [*mut Line; 2], lines: usize) {
    // SAFETY: by the caller's contract.
    unsafe {
        match I::LEVEL {
            #[cfg(target_arch = "x86_64")]
            Level::Avx512 | Level::Avx512BF16 | Level::Amx => x86::transpose_512(from, to, lines),
            #[cfg(target_arch = "x86_64")]
            Level::Avx2 => x86::transpose_256(from, to, lines),
            #[cfg(target_arch = "aarch64")]
            Level::Neon => transpose_128(from, to, lines),
            _ => transpose_words(from, to, lines),
        }
    }
}

/// # Safety
/// `lines ≤ 16` lines can be written.
#[inline(always)]
unsafe fn transpose_words(from: &[Line; LINE], to: [*mut Line; 2], lines: usize) {
    for line in 0..lines {
        let mut column = Line::ZERO;
        for (word, from) in column.0.iter_mut().zip(from) {
            *word = from.0[line];
        }
        // SAFETY: line < lines, for which the caller vouches.
        unsafe { *to[line / 8].add(line % 8) = column };
    }
}

/// Sixteen transposes of 4×4 words.
///
/// # Safety
/// NEON; `lines ≤ 16` lines can be written.
#[cfg(target_arch = "aarch64")]
#[target_feature(enable = "neon")]
#[inline]
unsafe fn transpose_128(from: &[Line; LINE], to: [*mut Line; 2], lines: usize) {
    use std::arch::aarch64::*;
    for (top, left) in (0..LINE).step_by(4).flat_map(|top| (0..LINE).step_by(4).map(move |left| (top, left))) {
        let mut x = [vdupq_n_u32(0); 4];
        for (x, from) in x.iter_mut().zip(&from[top..]) {
            // SAFETY: words left..left + 4 of a line.
            *x = unsafe { vld1q_u32(from.0.as_ptr().add(left)) };
        }
        // Pairs of words of two rows: the even ones and the odd ones.
        let pairs = |p, q| (vreinterpretq_u64_u32(vtrn1q_u32(p, q)), vreinterpretq_u64_u32(vtrn2q_u32(p, q)));
        let ((even, odd), (even2, odd2)) = (pairs(x[0], x[1]), pairs(x[2], x[3]));
        let y = [vtrn1q_u64(even, even2), vtrn1q_u64(odd, odd2), vtrn2q_u64(even, even2), vtrn2q_u64(odd, odd2)];
        for (line, y) in (left..lines).zip(y) {
            // SAFETY: line < lines, for which the caller vouches; words top..top + 4 of that line.
            unsafe { vst1q_u32(to[line / 8].add(line % 8).cast::<u32>().add(top), vreinterpretq_u32_u64(y)) };
        }
    }
}

#[cfg(target_arch = "x86_64")]
mod x86 {
    use super::{LINE, Line};
    use std::arch::x86_64::*;

    /// Four rounds of a butterfly: over pairs of words, of double words, of quarters and of halves.
    ///
    /// # Safety
    /// AVX-512 F; `lines ≤ 16` lines can be written.
    #[target_feature(enable = "avx512f")]
    #[inline]
    pub(super) unsafe fn transpose_512(from: &[Line; LINE], to: [*mut Line; 2], lines: usize) {
        let mut x = [_mm512_setzero_si512(); 16];
        for (x, from) in x.iter_mut().zip(from) {
            // SAFETY: a line is 64 bytes, aligned.
            *x = unsafe { _mm512_load_si512((&raw const *from).cast()) };
        }
        let mut y = x;
        for i in 0..8 {
            y[2 * i] = _mm512_unpacklo_epi32(x[2 * i], x[2 * i + 1]);
            y[2 * i + 1] = _mm512_unpackhi_epi32(x[2 * i], x[2 * i + 1]);
        }
        for i in 0..4 {
            for j in 0..2 {
                x[4 * i + 2 * j] = _mm512_unpacklo_epi64(y[4 * i + j], y[4 * i + j + 2]);
                x[4 * i + 2 * j + 1] = _mm512_unpackhi_epi64(y[4 * i + j], y[4 * i + j + 2]);
            }
        }
        // x[4i + c] now contains, in quarter q, word 4q + c of rows 4i..4i + 4.
        for c in 0..4 {
            let (low, high) = (
                _mm512_shuffle_i32x4::<0b10_00_10_00>(x[c], x[4 + c]),
                _mm512_shuffle_i32x4::<0b11_01_11_01>(x[c], x[4 + c]),
            );
            let (low2, high2) = (
                _mm512_shuffle_i32x4::<0b10_00_10_00>(x[8 + c], x[12 + c]),
                _mm512_shuffle_i32x4::<0b11_01_11_01>(x[8 + c], x[12 + c]),
            );
            y[c] = _mm512_shuffle_i32x4::<0b10_00_10_00>(low, low2);
            y[8 + c] = _mm512_shuffle_i32x4::<0b11_01_11_01>(low, low2);
            y[4 + c] = _mm512_shuffle_i32x4::<0b10_00_10_00>(high, high2);
            y[12 + c] = _mm512_shuffle_i32x4::<0b11_01_11_01>(high, high2);
        }
        for (i, y) in y.into_iter().enumerate() {
            if i < lines {
                // SAFETY: i < lines, for which the caller vouches.
                unsafe { _mm512_store_si512(to[i / 8].add(i % 8).cast(), y) };
            }
        }
    }

    /// Four transposes of 8×8 words.
    ///
    /// # Safety
    /// AVX2; `lines ≤ 16` lines can be written.
    #[target_feature(enable = "avx2")]
    #[inline]
    pub(super) unsafe fn transpose_256(from: &[Line; LINE], to: [*mut Line; 2], lines: usize) {
        for (top, left) in [(0, 0), (0, 8), (8, 0), (8, 8)] {
            let mut x = [_mm256_setzero_ps(); 8];
            for (x, from) in x.iter_mut().zip(&from[top..]) {
                // SAFETY: words left..left + 8 of a line, 32 bytes, aligned.
                *x = unsafe { _mm256_load_ps(from.0.as_ptr().add(left).cast()) };
            }
            let mut y = x;
            for i in 0..4 {
                y[2 * i] = _mm256_unpacklo_ps(x[2 * i], x[2 * i + 1]);
                y[2 * i + 1] = _mm256_unpackhi_ps(x[2 * i], x[2 * i + 1]);
            }
            for i in 0..2 {
                for j in 0..2 {
                    let (p, q) = (y[4 * i + j], y[4 * i + j + 2]);
                    x[4 * i + 2 * j] = _mm256_shuffle_ps::<0b01_00_01_00>(p, q);
                    x[4 * i + 2 * j + 1] = _mm256_shuffle_ps::<0b11_10_11_10>(p, q);
                }
            }
            for c in 0..4 {
                y[c] = _mm256_permute2f128_ps::<0x20>(x[c], x[4 + c]);
                y[4 + c] = _mm256_permute2f128_ps::<0x31>(x[c], x[4 + c]);
            }
            for (i, y) in y.into_iter().enumerate() {
                if left + i < lines {
                    // SAFETY: left + i < lines, for which the caller vouches; words top..top + 8 of that line.
                    unsafe { _mm256_store_ps(to[left / 8].add(i).cast::<f32>().add(top), y) };
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cpu::level::{Level, Vectorized};

    struct Job<'a>(&'a [Line; LINE], &'a mut [Line; LINE], usize);
    impl Vectorized for Job<'_> {
        type Output = ();
        #[inline(always)]
        fn call<I: Isa>(self) {
            // SAFETY: runs at an available level; sixteen lines can be written.
            unsafe {
                let to = self.1.as_mut_ptr();
                transpose::<I>(self.0, [to, to.add(8)], self.2)
            }
        }
    }

    #[test]
    fn every_level_transposes() {
        let mut from = [Line::ZERO; LINE];
        (0..256).for_each(|i| from[i / 16].0[i % 16] = i as u32 + 1);
        let levels = [Level::Portable, Level::Neon, Level::Avx2, Level::Avx512];
        for level in levels.into_iter().filter(|&level| level <= Level::detect()) {
            for lines in [0, 1, 9, 14, 16] {
                let mut to = [Line::ZERO; LINE];
                level.run(Job(&from, &mut to, lines));
                for i in 0..256 {
                    let expected = if i / 16 < lines { from[i % 16].0[i / 16] } else { 0 };
                    assert_eq!(to[i / 16].0[i % 16], expected, "{level:?}, {lines} lines, element {i}");
                }
            }
        }
    }
}
