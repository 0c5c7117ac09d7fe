//! Element-wise work, sixteen numbers at a time: the widest vector.
//!
//! A loop over several slices vectorises only where the compiler can show, or test at run time, that they do not overlap; once
//! a constant length has made it unroll the loop, it does neither. Numbers loaded into an array of their own overlap nothing.
//! And sums in sixteen lanes have the same order at every level.

use super::level::{Isa, Vectorized};
pub(crate) use super::level::{LANES, Lanes};
use crate::dtype::{Real, bf16};
use crate::random::Mask;

/// An element type whose vectors kernels write.
pub(crate) trait VectorElement: Real {
    /// [`Real::from_f32`] of sixteen numbers, at a level that the caller runs at.
    fn narrow<I: Isa>(lanes: Lanes) -> [Self; LANES];
    /// A cache line of elements from as many numbers, of which there are enough.
    fn line<I: Isa>(from: &[f32]) -> [u32; LANES];
}

impl VectorElement for f32 {
    #[inline(always)]
    fn narrow<I: Isa>(lanes: Lanes) -> [f32; LANES] {
        lanes
    }
    #[inline(always)]
    fn line<I: Isa>(from: &[f32]) -> [u32; LANES] {
        let mut line = [0; LANES];
        for (word, x) in line.iter_mut().zip(from) {
            *word = x.to_bits();
        }
        line
    }
}

impl VectorElement for bf16 {
    #[inline(always)]
    fn narrow<I: Isa>(lanes: Lanes) -> [bf16; LANES] {
        // SAFETY: code that is generic over a level runs at that level only (`Isa::vectorize`).
        unsafe { I::narrow(&lanes) }
    }
    #[inline(always)]
    fn line<I: Isa>(from: &[f32]) -> [u32; LANES] {
        let from = &from[..2 * LANES];
        // SAFETY: as above; 32 numbers can be read. A word's lower half comes first in memory (`u32::to_le`).
        unsafe { I::pairs(from.as_ptr()).map(u32::to_le) }
    }
}

/// Runs `$body` with `$part` bound to the ranges of sixteen that make up `0..$len`; the last may be shorter.
///
/// A macro, as are the two below: a closure that is called in two places is not inlined, and is then compiled for the baseline.
macro_rules! each_part {
    ($len:expr, $part:ident => $body:expr) => {{
        let len: usize = $len;
        let whole = len - len % $crate::cpu::lanes::LANES;
        let mut at = 0;
        while at < whole {
            let $part = at..at + $crate::cpu::lanes::LANES;
            $body;
            at += $crate::cpu::lanes::LANES;
        }
        if whole < len {
            let $part = whole..len;
            $body;
        }
    }};
}
pub(crate) use each_part;

/// Σ of the numbers that `$lanes` gives for the ranges of `0..$len`, in sixteen interleaved partial sums.
macro_rules! lane_sum {
    ($isa:ident, $len:expr, $part:ident => $lanes:expr) => {{
        let mut sums = [0.0; $crate::cpu::lanes::LANES];
        $crate::cpu::lanes::each_part!($len, $part => {
            let count = $part.len();
            for (sum, x) in sums.iter_mut().zip($lanes).take(count) {
                *sum += x;
            }
        });
        // SAFETY: code that is generic over a level runs at that level only.
        unsafe { $isa::sum(&sums) }
    }};
}
pub(crate) use lane_sum;

/// The greatest of the numbers that `$lanes` gives for the ranges of `0..$len`, NaN aside; −∞ for none.
macro_rules! lane_max {
    ($isa:ident, $len:expr, $part:ident => $lanes:expr) => {{
        let mut greatest = [f32::NEG_INFINITY; $crate::cpu::lanes::LANES];
        $crate::cpu::lanes::each_part!($len, $part => {
            let count = $part.len();
            let mut lanes: $crate::cpu::lanes::Lanes = $lanes;
            lanes[count..].fill(f32::NEG_INFINITY);
            // SAFETY: code that is generic over a level runs at that level only.
            greatest = unsafe { $isa::greater(&lanes, &greatest) };
        });
        // SAFETY: as above.
        unsafe { $isa::greatest(&greatest) }
    }};
}
pub(crate) use lane_max;

/// A slice of at most sixteen, and zeros beyond it.
#[inline(always)]
pub(crate) fn load<E: Real>(from: &[E]) -> Lanes {
    let mut lanes = [0.0; LANES];
    if let Ok(whole) = <&[E; LANES]>::try_from(from) {
        for (lane, x) in lanes.iter_mut().zip(whole) {
            *lane = x.to_f32();
        }
    } else {
        for (lane, x) in lanes.iter_mut().zip(from) {
            *lane = x.to_f32();
        }
    }
    lanes
}

/// Fills a slice of at most sixteen.
#[inline(always)]
pub(crate) fn store<I: Isa, E: VectorElement>(lanes: Lanes, to: &mut [E]) {
    put(E::narrow::<I>(lanes), to);
}

/// Fills a slice with numbers that are read only much later: whole cache lines go past the caches.
#[inline(always)]
pub(crate) fn stream<I: Isa, E: VectorElement>(from: &[f32], to: &mut [E]) {
    let per = 64 / size_of::<E>();
    if to.as_ptr().addr().is_multiple_of(64) && to.len().is_multiple_of(per) {
        for (from, to) in from.chunks_exact(per).zip(to.chunks_exact_mut(per)) {
            // SAFETY: code that is generic over a level runs at that level only; `to` is an aligned cache line.
            unsafe { I::stream(E::line::<I>(from), to.as_mut_ptr().cast()) };
        }
    } else {
        each_part!(to.len(), part => store::<I, _>(load(&from[part.clone()]), &mut to[part]));
    }
}

#[inline(always)]
fn put<T: Copy>(values: [T; LANES], to: &mut [T]) {
    match <&mut [T; LANES]>::try_from(&mut *to) {
        Ok(whole) => *whole = values,
        Err(_) => to.copy_from_slice(&values[..to.len()]),
    }
}

/// f(x), lane by lane.
#[inline(always)]
pub(crate) fn map(mut x: Lanes, f: impl Fn(f32) -> f32) -> Lanes {
    for x in &mut x {
        *x = f(*x);
    }
    x
}

/// f(x, y), lane by lane.
#[inline(always)]
pub(crate) fn zip(mut x: Lanes, y: Lanes, f: impl Fn(f32, f32) -> f32) -> Lanes {
    for (x, y) in x.iter_mut().zip(y) {
        *x = f(*x, y);
    }
    x
}

/// f(x, y, z), lane by lane.
#[inline(always)]
pub(crate) fn zip3(mut x: Lanes, y: Lanes, z: Lanes, f: impl Fn(f32, f32, f32) -> f32) -> Lanes {
    for ((x, y), z) in x.iter_mut().zip(y).zip(z) {
        *x = f(*x, y, z);
    }
    x
}

/// The first `count` lanes of x, and `rest` in the others.
#[inline(always)]
pub(crate) fn first(mut x: Lanes, count: usize, rest: f32) -> Lanes {
    if count < LANES {
        for (i, x) in x.iter_mut().enumerate() {
            *x = if i < count { *x } else { rest };
        }
    }
    x
}

/// Adds `x` to what `sums` holds.
#[inline(always)]
pub(crate) fn add_to(sums: &mut [f32], x: Lanes) {
    put(zip(load(sums), x, |sum, x| sum + x), sums);
}

/// The factors of sixteen elements from `first` on: 0 or 1/(1 − p) each.
#[inline(always)]
pub(crate) fn factors(mask: Mask, first: usize) -> Lanes {
    let mut lanes = [0.0; LANES];
    for (i, lane) in lanes.iter_mut().enumerate() {
        *lane = mask.factor(first.wrapping_add(i));
    }
    lanes
}

/// Rounds sums to the activations' type.
pub(crate) struct Narrow<'a, E> {
    pub(crate) from: &'a [f32],
    pub(crate) to: &'a mut [E],
}

impl<E: VectorElement> Vectorized for Narrow<'_, E> {
    type Output = ();
    #[inline(always)]
    fn call<I: Isa>(self) {
        stream::<I, _>(self.from, self.to);
    }
}

#[cfg(test)]
mod tests {
    use std::ops::Range;

    use super::*;
    use crate::cpu::level::Portable;

    #[test]
    fn folds_look_at_what_is_there_alone() {
        for n in [0, 1, 15, 16, 17, 50] {
            let x: Vec<f32> = (0..n).map(|i| -1.0 - i as f32).collect();
            // What lies beyond the end of a part is 7: neither sum nor maximum may see it.
            let part = |part: Range<usize>| {
                let mut lanes = [7.0; LANES];
                lanes[..part.len()].copy_from_slice(&x[part]);
                lanes
            };
            assert_eq!(lane_sum!(Portable, n, p => part(p)), x.iter().sum::<f32>());
            assert_eq!(lane_max!(Portable, n, p => part(p)), if n == 0 { f32::NEG_INFINITY } else { -1.0 });
        }
    }

    #[test]
    fn parts_are_loaded_and_stored_whole() {
        for n in [1, 16, 35] {
            let x: Vec<bf16> = (0..n).map(|i| Real::from_f32(i as f32)).collect();
            let mut y = vec![<bf16 as Real>::from_f32(-1.0); n + 1];
            each_part!(n, part => store::<Portable, _>(map(load(&x[part.clone()]), |x| 2.0 * x), &mut y[part]));
            assert!((0..n).all(|i| Real::to_f32(y[i]) == 2.0 * i as f32));
            assert_eq!(Real::to_f32(y[n]), -1.0);
        }
    }
}
