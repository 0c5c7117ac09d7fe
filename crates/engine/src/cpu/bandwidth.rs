//! How fast the machine's memory is read, measured: what bounds an op that its arithmetic does not.

use std::time::Instant;

use super::disjoint::DisjointSlice;
use super::lanes::{LANES, Lanes, load};
use super::level::{Isa, Level, Vectorized};
use super::pool::Pool;
use crate::device::Bandwidths;
use crate::{DType, Tensor};

/// Bytes that each thread reads over and over: as much as half of a small L2 holds, as what lies beyond any L2, and as what is
/// beyond a fair share of any L3.
const READ: [usize; 3] = [256 << 10, 8 << 20, 192 << 20];
/// Bytes a measurement reads at least; the best of several counts, since others may use the machine too.
const ENOUGH: usize = 64 << 20;
const REPEATS: usize = 5;

/// Takes about a second.
pub(crate) fn bandwidths(level: Level, pool: &Pool) -> Bandwidths {
    let [l2, l3, dram] = READ.map(|bytes| {
        let count = bytes / size_of::<f32>();
        let mut memory = Tensor::host(&[pool.threads(), count], DType::F32);
        let parts = DisjointSlice::new(memory.slice_mut::<f32>());
        let passes = ENOUGH.div_ceil(bytes);
        // A task for each thread; one that drew two would only read its share twice.
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

/// Four sums, so that no addition waits for another.
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
    fn every_memory_has_a_rate() {
        let Bandwidths { l2, l3, dram } = bandwidths(Level::Portable, &Pool::new(2));
        assert!([l2, l3, dram].iter().all(|rate| rate.is_finite() && *rate > 0.0), "{l2} {l3} {dram}");
    }
}
