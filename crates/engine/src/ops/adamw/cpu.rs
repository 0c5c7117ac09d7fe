use super::{AdamW, AdamWStep, Moments, StepSettings};
use crate::cpu::Cpu;
use crate::cpu::disjoint::DisjointSlice;
use crate::cpu::level::{Isa, Vectorized, mul_add};
use crate::params::UpdateGroup;
use crate::{Gradients, Parameters};
use std::ops::Range;

/// Weights per task.
const BLOCK: usize = 1 << 14;

impl AdamWStep for Cpu {
    fn square_sum(&self, grads: &Gradients, range: Range<usize>) -> f64 {
        let gradients = &grads.arena().slice::<f32>()[range];
        let mut sums = vec![0f64; gradients.len().div_ceil(BLOCK)];
        let parts = DisjointSlice::new(&mut sums);
        self.for_blocks(gradients.len(), BLOCK, |range| {
            let block = range.start / BLOCK;
            // SAFETY: each block has its own sum.
            let sum = unsafe { parts.part(block..block + 1) };
            sum[0] = self.level.run(SquareSum(&gradients[range]));
        });
        sums.iter().sum()
    }

    fn adamw(
        &self,
        params: &mut Parameters,
        grads: &Gradients,
        moments: &mut Moments,
        settings: &StepSettings,
        factor: f32,
    ) {
        let AdamW { beta1, beta2, eps, weight_decay, bias_correction } = settings.adamw;
        let correction = |beta: f32| {
            if bias_correction { 1.0 - f64::from(beta).powi(settings.step.min(1 << 30) as i32) } else { 1.0 }
        };
        let (first_correction, root_correction) = (correction(beta1), (1.0 / correction(beta2).sqrt()) as f32);
        let groups = params.update_groups();
        let gradients = grads.arena().slice::<f32>();
        let weights = DisjointSlice::new(params.arena_mut().slice_mut());
        let (first, second) =
            (DisjointSlice::new(moments.first.slice_mut()), DisjointSlice::new(moments.second.slice_mut()));
        for UpdateGroup { range: group, decays, rate } in groups {
            let lr = f64::from(settings.lr) * f64::from(rate);
            let decay = if decays { 1.0 - lr * f64::from(weight_decay) } else { 1.0 } as f32;
            let update =
                Update { factor, beta1, beta2, eps, rate: (lr / first_correction) as f32, root_correction, decay };
            self.for_blocks(group.len(), BLOCK, |block| {
                let range = group.start + block.start..group.start + block.end;
                // SAFETY: blocks are disjoint.
                let (w, m, v) =
                    unsafe { (weights.part(range.clone()), first.part(range.clone()), second.part(range.clone())) };
                self.level.run(UpdateBlock { update, w, m, v, g: &gradients[range] });
            });
        }
    }
}

struct SquareSum<'a>(&'a [f32]);

impl Vectorized for SquareSum<'_> {
    type Output = f64;
    #[inline(always)]
    fn call<I: Isa>(self) -> f64 {
        let mut lanes = [0f64; 16];
        let mut chunks = self.0.chunks_exact(16);
        for chunk in &mut chunks {
            for (lane, g) in lanes.iter_mut().zip(chunk) {
                *lane += f64::from(*g) * f64::from(*g);
            }
        }
        lanes.iter().sum::<f64>() + chunks.remainder().iter().map(|g| f64::from(*g) * f64::from(*g)).sum::<f64>()
    }
}

#[derive(Clone, Copy)]
struct Update {
    factor: f32,
    beta1: f32,
    beta2: f32,
    eps: f32,
    /// lr/(1 − β₁ᵗ)
    rate: f32,
    /// 1/√(1 − β₂ᵗ)
    root_correction: f32,
    /// 1 − lr λ
    decay: f32,
}

struct UpdateBlock<'a> {
    update: Update,
    w: &'a mut [f32],
    m: &'a mut [f32],
    v: &'a mut [f32],
    g: &'a [f32],
}

impl Vectorized for UpdateBlock<'_> {
    type Output = ();
    #[inline(always)]
    fn call<I: Isa>(self) {
        let Update { factor, beta1, beta2, eps, rate, root_correction, decay } = self.update;
        for (((w, m), v), g) in self.w.iter_mut().zip(self.m).zip(self.v).zip(self.g) {
            let g = g * factor;
            *m = mul_add::<I>(1.0 - beta1, g - *m, *m);
            *v = mul_add::<I>(beta2, *v, (1.0 - beta2) * g * g);
            *w = mul_add::<I>(-rate, *m / mul_add::<I>(v.sqrt(), root_correction, eps), *w * decay);
        }
    }
}
