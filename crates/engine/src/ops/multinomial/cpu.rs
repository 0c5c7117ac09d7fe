use super::Multinomial;
use crate::Tensor;
use crate::cpu::Cpu;
use crate::cpu::disjoint::DisjointSlice;
use crate::cpu::lanes::{self, lane_max, lane_sum, load};
use crate::cpu::level::{Isa, Vectorized};
use crate::cpu::math::exp_nonpositive;
use crate::dtype::{Real, with_real};

/// Differences from the largest logit below this have no probability (e⁻⁸⁰ is 2e-35): the vectorized exponential is never
/// 0.
const LOWEST: f32 = -80.0;
/// Classes whose exponentials are summed together: only one block is searched class by class.
const BLOCK: usize = 256;

impl Multinomial for Cpu {
    fn multinomial(&self, logits: &Tensor, uniform: &[f64]) -> Vec<i32> {
        let (rows, classes) = logits.matrix("multinomial");
        assert_eq!(uniform.len(), rows, "multinomial: numbers of {rows} rows");
        let mut samples = vec![0; rows];
        let parts = DisjointSlice::new(&mut samples);
        with_real!(logits.dtype(), E => {
            let logits = logits.slice::<E>();
            self.for_blocks(rows, 1, |range| {
                for row in range.clone() {
                    let z = &logits[row * classes..(row + 1) * classes];
                    // SAFETY: each row belongs to one task.
                    let sample = unsafe { parts.part(row..row + 1) };
                    sample[0] = self.level.run(SampleRow { z, u: uniform[row] });
                }
            });
        });
        samples
    }
}

struct SampleRow<'a, E> {
    z: &'a [E],
    u: f64,
}

impl<E: Real> Vectorized for SampleRow<'_, E> {
    type Output = i32;
    #[inline(always)]
    fn call<I: Isa>(self) -> i32 {
        let max = lane_max!(I, self.z.len(), part => load(&self.z[part]));
        let weight = |z: f32| {
            // A selection, not a branch, so that the exponential is vectorized.
            let (difference, exponential) = (z - max, exp_nonpositive::<I>(z - max));
            if difference < LOWEST { 0.0 } else { exponential }
        };
        // Sums of a block in f32 have as many correct digits as the exponentials; the sum of all blocks is in f64. A loop,
        // because a closure that `collect` calls is not compiled for the level.
        let mut sums = Vec::with_capacity(self.z.len().div_ceil(BLOCK));
        for block in self.z.chunks(BLOCK) {
            sums.push(f64::from(lane_sum!(I, block.len(), part => lanes::map(load(&block[part]), weight))));
        }
        let last_block = sums.iter().rposition(|sum| *sum > 0.0).unwrap_or_default();
        let mut rest = self.u * sums.iter().sum::<f64>();
        let mut last = 0;
        for (number, (block, sum)) in self.z.chunks(BLOCK).zip(&sums).enumerate() {
            if rest >= *sum && number < last_block {
                rest -= sum;
                continue;
            }
            for (index, z) in block.iter().enumerate() {
                let e = f64::from(weight(z.to_f32()));
                if e > 0.0 {
                    last = number * BLOCK + index;
                    if rest < e {
                        break;
                    }
                }
                rest -= e;
            }
            break;
        }
        last as i32
    }
}
