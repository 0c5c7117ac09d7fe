//! Element-wise operations on sixteen numbers at a time, the size of the widest vector.
//!
//! The compiler vectorises a loop over several slices only if it can prove, or check at run time, that they do not
//! overlap. It does neither once it has unrolled a loop of constant length. Numbers loaded into a local array overlap
//! nothing. In addition, sums in sixteen lanes have the same order at every level.

use super::level::{Isa, Vectorized};
pub(crate) use super::level::{LANES, Lanes};
use crate::dtype::{Real, bf16};
use crate::random::Mask;

/// An element type that kernels store in vectors.
pub(crate) trait VectorElement: Real {
    /// [`Real::from_f32`] of sixteen numbers. The caller must run at level `I`.
    fn from_lanes<I: Isa>(lanes: Lanes) -> [Self; LANES];
    /// A cache line of elements, converted from the first numbers of `from`.
    fn cache_line<I: Isa>(from: &[f32]) -> [u32; LANES];
}

impl VectorElement for f32 {
    #[inline(always)]
    fn from_lanes<I: Isa>(lanes: Lanes) -> [f32; LANES] {
        lanes
    }
    #[inline(always)]
    fn cache_line<I: Isa>(from: &[f32]) -> [u32; LANES] {
        let mut line = [0; LANES];
        for (word, x) in line.iter_mut().zip(from) {
            *word = x.to_bits();
        }
        line
    }
}

impl VectorElement for bf16 {
    #[inline(always)]
    fn from_lanes<I: Isa>(lanes: Lanes) -> [bf16; LANES] {
        // SAFETY: code that is generic over a level only runs at that level (`Isa::vectorize`).
        unsafe { I::to_bf16(&lanes) }
    }
    #[inline(always)]
    fn cache_line<I: Isa>(from: &[f32]) -> [u32; LANES] {
        let from = &from[..2 * LANES];
        // SAFETY: as above; 32 numbers can be read. A word's lower half comes first in memory (`u32::to_le`).
        unsafe { I::to_bf16_pairs(from.as_ptr()).map(u32::to_le) }
    }
}

/// Runs `$body` with `$part` bound to the consecutive ranges of sixteen in `0..$len`; the last one may be shorter.
///
/// This and the next two are macros because a closure that is called in two places is not inlined, and is then compiled
/// for the baseline.
macro_rules! each_part {
    ($len:expr, $part:ident => $body:expr) => {{
        let len: usize = $len;
        let full = len - len % $crate::cpu::lanes::LANES;
        let mut at = 0;
        while at < full {
            let $part = at..at + $crate::cpu::lanes::LANES;
            $body;
            at += $crate::cpu::lanes::LANES;
        }
        if full < len {
            let $part = full..len;
            $body;
        }
    }};
}
pub(crate) use each_part;

/// The sum of the numbers that `$lanes` returns for the parts of `0..$len`, in sixteen interleaved partial sums.
macro_rules! lane_sum {
    ($isa:ident, $len:expr, $part:ident => $lanes:expr) => {{
        let mut sums = [0.0; $crate::cpu::lanes::LANES];
        $crate::cpu::lanes::each_part!($len, $part => {
            let count = $part.len();
            for (sum, x) in sums.iter_mut().zip($lanes).take(count) {
                *sum += x;
            }
        });
        // SAFETY: code that is generic over a level only runs at that level.
        unsafe { $isa::reduce_sum(&sums) }
    }};
}
pub(crate) use lane_sum;

/// The maximum of the numbers that `$lanes` returns for the parts of `0..$len`, ignoring NaN; −∞ if there are none.
macro_rules! lane_max {
    ($isa:ident, $len:expr, $part:ident => $lanes:expr) => {{
        let mut max = [f32::NEG_INFINITY; $crate::cpu::lanes::LANES];
        $crate::cpu::lanes::each_part!($len, $part => {
            let count = $part.len();
            let mut lanes: $crate::cpu::lanes::Lanes = $lanes;
            lanes[count..].fill(f32::NEG_INFINITY);
            // SAFETY: code that is generic over a level only runs at that level.
            max = unsafe { $isa::max(&lanes, &max) };
        });
        // SAFETY: as above.
        unsafe { $isa::reduce_max(&max) }
    }};
}
pub(crate) use lane_max;

/// Loads up to sixteen elements; the remaining lanes are zero.
#[inline(always)]
pub(crate) fn load<E: Real>(from: &[E]) -> Lanes {
    let mut lanes = [0.0; LANES];
    if let Ok(full) = <&[E; LANES]>::try_from(from) {
        for (lane, x) in lanes.iter_mut().zip(full) {
            *lane = x.to_f32();
        }
    } else {
        for (lane, x) in lanes.iter_mut().zip(from) {
            *lane = x.to_f32();
        }
    }
    lanes
}

/// Stores the first lanes in a slice of up to sixteen elements.
#[inline(always)]
pub(crate) fn store<I: Isa, E: VectorElement>(lanes: Lanes, to: &mut [E]) {
    write(E::from_lanes::<I>(lanes), to);
}

/// Fills a slice with numbers that are not read soon: complete cache lines bypass the caches.
#[inline(always)]
pub(crate) fn stream<I: Isa, E: VectorElement>(from: &[f32], to: &mut [E]) {
    let per = 64 / size_of::<E>();
    if to.as_ptr().addr().is_multiple_of(64) && to.len().is_multiple_of(per) {
        for (from, to) in from.chunks_exact(per).zip(to.chunks_exact_mut(per)) {
            // SAFETY: code that is generic over a level only runs at that level; `to` is an aligned cache line.
            unsafe { I::stream_line(E::cache_line::<I>(from), to.as_mut_ptr().cast()) };
        }
    } else {
        each_part!(to.len(), part => store::<I, _>(load(&from[part.clone()]), &mut to[part]));
    }
}

#[inline(always)]
fn write<T: Copy>(values: [T; LANES], to: &mut [T]) {
    match <&mut [T; LANES]>::try_from(&mut *to) {
        Ok(full) => *full = values,
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

/// Lanes `first..end` of `x`, and `rest` in the others. `end` may be larger than the number of lanes.
///
/// One comparison for each lane, without branches, so that the lanes stay in a vector register: a loop from or to a variable lane
/// takes them through memory in pieces, for which each load then waits.
#[inline(always)]
pub(crate) fn take(mut x: Lanes, first: usize, end: usize, rest: f32) -> Lanes {
    let (first, count) = (first.min(LANES) as u32, end.min(LANES).saturating_sub(first) as u32);
    for (i, x) in x.iter_mut().enumerate() {
        *x = if (i as u32).wrapping_sub(first) < count { *x } else { rest };
    }
    x
}

/// Adds `x` to `sums`, lane by lane.
#[inline(always)]
pub(crate) fn add_to(sums: &mut [f32], x: Lanes) {
    write(zip(load(sums), x, |sum, x| sum + x), sums);
}

/// The dropout factors of sixteen elements starting at `first`: 0 or 1/(1 − p) each.
#[inline(always)]
pub(crate) fn dropout_factors(mask: Mask, first: usize) -> Lanes {
    let mut lanes = [0.0; LANES];
    for (i, lane) in lanes.iter_mut().enumerate() {
        *lane = mask.factor(first.wrapping_add(i));
    }
    lanes
}

/// Converts f32 numbers to the type of activations.
pub(crate) struct Convert<'a, E> {
    pub(crate) from: &'a [f32],
    pub(crate) to: &'a mut [E],
}

impl<E: VectorElement> Vectorized for Convert<'_, E> {
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
    fn lanes_outside_of_a_range_are_replaced() {
        let x: Lanes = std::array::from_fn(|i| i as f32);
        for (first, end) in (0..20).flat_map(|first| (0..20).map(move |end| (first, end))) {
            let expected: Lanes = std::array::from_fn(|i| if (first..end).contains(&i) { x[i] } else { -1.0 });
            assert_eq!(take(x, first, end, -1.0), expected, "{first}..{end}");
        }
    }

    #[test]
    fn reductions_ignore_lanes_beyond_the_end() {
        for n in [0, 1, 15, 16, 17, 50] {
            let x: Vec<f32> = (0..n).map(|i| -1.0 - i as f32).collect();
            // Lanes beyond the end of a part are 7; neither sum nor maximum may include them.
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
    fn parts_are_loaded_and_stored_completely() {
        for n in [1, 16, 35] {
            let x: Vec<bf16> = (0..n).map(|i| Real::from_f32(i as f32)).collect();
            let mut y = vec![<bf16 as Real>::from_f32(-1.0); n + 1];
            each_part!(n, part => store::<Portable, _>(map(load(&x[part.clone()]), |x| 2.0 * x), &mut y[part]));
            assert!((0..n).all(|i| Real::to_f32(y[i]) == 2.0 * i as f32));
            assert_eq!(Real::to_f32(y[n]), -1.0);
        }
    }
}
