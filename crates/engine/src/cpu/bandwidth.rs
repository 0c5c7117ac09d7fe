//! Measures the read bandwidth of caches and memory, which limits ops with little arithmetic.

use std::time::Instant;

use super::disjoint::DisjointSlice;
use super::lanes::{LANES, Lanes, load};
use super::level::{Isa, Level, Vectorized};
use super::pool::Pool;
use crate::device::Bandwidths;
use crate::{DType, Tensor};

/// Bytes that each thread reads repeatedly: half of a small L2 cache; more than any L2; more than a thread's share of
/// any L3.
const WORKING_SETS: [usize; 3] = [256 << 10, 8 << 20, 192 << 20];
/// Minimum number of bytes that a measurement reads. The best of several counts, since other processes may use the
/// machine.
const MIN_BYTES: usize = 64 << 20;
const REPEATS: usize = 5;

/// The read bandwidth of L2, L3 and memory in bytes per second. Takes about a second.
pub(crate) fn bandwidths(level: Level, pool: &Pool) -> Bandwidths {
    let [l2, l3, dram] = WORKING_SETS.map(|bytes| {
        let count = bytes / size_of::<f32>();
        let mut memory = Tensor::host(&[pool.threads(), count], DType::F32);
        let parts = DisjointSlice::new(memory.slice_mut::<f32>());
        let passes = MIN_BYTES.div_ceil(bytes);
        // One task per thread. A thread that takes two tasks only reads its share twice.
        let read = |task: &(dyn Fn(&mut [f32]) + Sync)| {
            let start = Instant::now();
            pool.run(pool.threads(), &|i| {
                // SAFETY: each task has its own part.
                task(unsafe { parts.part(i * count..(i + 1) * count) })
            });
            start.elapsed().as_secs_f64()
        };
        read(&|part| part.fill(1.0));
        let seconds = (0..REPEATS)
            .map(|_| {
                read(&|part| {
                    for _ in 0..passes {
                        std::hint::black_box(level.run(Sum(std::hint::black_box(&*part))));
                    }
                })
            })
            .fold(f64::MAX, f64::min);
        (pool.threads() * passes * bytes) as f64 / seconds
    });
    Bandwidths { l2, l3, dram }
}

/// Sums with four accumulators, so that no addition waits for the previous one.
struct Sum<'a>(&'a [f32]);

impl Vectorized for Sum<'_> {
    type Output = [Lanes; 4];

    #[inline(always)]
    fn call<I: Isa>(self) -> [Lanes; 4] {
        let mut sums = [[0.0; LANES]; 4];
        for run in self.0.chunks_exact(4 * LANES) {
            for (sum, part) in sums.iter_mut().zip(run.chunks_exact(LANES)) {
                for (sum, x) in sum.iter_mut().zip(load(part)) {
                    *sum += x;
                }
            }
        }
        sums
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_level_of_memory_has_a_bandwidth() {
        let Bandwidths { l2, l3, dram } = bandwidths(Level::Portable, &Pool::new(2));
        assert!([l2, l3, dram].iter().all(|rate| rate.is_finite() && *rate > 0.0), "{l2} {l3} {dram}");
    }
}
