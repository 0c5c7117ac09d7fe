use super::{
    Complete, Direction, LambBlocks, LambDirection, Moments, OptimizerStep, StepSettings, UpdateMoments, adamw_rate,
};
use crate::cpu::Cpu;
use crate::cpu::disjoint::DisjointSlice;
use crate::cpu::lanes::{self, LANES, each_part, load, store};
use crate::cpu::level::{Isa, Vectorized, mul_add};
use crate::params::UpdateGroup;
use crate::{Gradients, Parameters, Share};
use std::ops::Range;

/// LAMB reads weights and moments twice. Parameters with this number of weights in all are processed together, so that
/// they are still in the caches the second time.
const WEIGHTS_IN_CACHE: usize = 1 << 18;

impl OptimizerStep for Cpu {
    fn square_sums(&self, grads: &Gradients, parts: &[Range<usize>]) -> Vec<f64> {
        let (gradients, share) = (grads.arena().slice::<f32>(), grads.share());
        let mut sums = vec![0f64; parts.len()];
        let places = DisjointSlice::new(&mut sums);
        self.pool.run(parts.len(), &|i| {
            // SAFETY: each part has its own sum.
            let sum = unsafe { places.part(i..i + 1) };
            sum[0] = self.level.run(SquareSum(&gradients[share.place(parts[i].clone())]));
        });
        sums
    }

    fn adamw(
        &self,
        params: &mut Parameters,
        grads: &Gradients,
        moments: &mut Moments,
        settings: &StepSettings,
        factor: f32,
    ) {
        let update = UpdateMoments::new(settings, factor);
        let groups = params.update_groups();
        let share = moments.share;
        let of_group = |(group, UpdateGroup { range, .. }): (usize, &UpdateGroup)| {
            share.ranges(range.clone()).map(move |part| (group, part)).collect::<Vec<_>>()
        };
        let blocks: Vec<(usize, Range<usize>)> = groups.iter().enumerate().flat_map(of_group).collect();
        let rates: Vec<((Direction, f32), f32)> = groups.iter().map(|group| adamw_rate(group, settings)).collect();
        let arenas = Arenas::new(params, grads, moments);
        self.pool.run(blocks.len(), &|i| {
            let (group, part) = blocks[i].clone();
            let ((direction, rate), decay) = rates[group];
            // SAFETY: the parts of blocks are disjoint.
            let block = unsafe { arenas.part(part) };
            self.level.run(AdamWBlock { moments: update, direction, rate, decay, block });
        });
    }

    fn lamb(
        &self,
        params: &mut Parameters,
        grads: &Gradients,
        moments: &mut Moments,
        settings: &StepSettings,
        factor: f32,
        complete: Complete<'_>,
    ) {
        let update = UpdateMoments::new(settings, factor);
        let tensors = params.trained();
        // With other ranks, the norms of all parameters are exchanged at once.
        let at_once = if moments.share == Share::WHOLE { WEIGHTS_IN_CACHE } else { usize::MAX };
        let arenas = Arenas::new(params, grads, moments);
        let mut rest = &tensors[..];
        while !rest.is_empty() {
            let mut weights = 0;
            let fits = |tensor: &&UpdateGroup| {
                weights += tensor.range.len();
                weights <= at_once
            };
            let (now, later) = rest.split_at(rest.iter().take_while(fits).count().max(1));
            self.lamb_tensors(now, &arenas, settings, update, complete);
            rest = later;
        }
    }
}

impl Cpu {
    /// Updates some parameters in two passes: first moments and norms, then weights.
    fn lamb_tensors(
        &self,
        tensors: &[UpdateGroup],
        arenas: &Arenas<'_>,
        settings: &StepSettings,
        moments: UpdateMoments,
        complete: Complete<'_>,
    ) {
        let all = LambBlocks::new(tensors, arenas.share);
        let LambBlocks { of_tensors, blocks, owned, .. } = &all;
        let mut block_sums = vec![[0f64; 2]; blocks.len()];
        let places = DisjointSlice::new(&mut block_sums);
        self.pool.run(owned.len(), &|i| {
            let index = owned[i];
            let direction = LambDirection::new(settings, tensors[of_tensors[index]].decays);
            // SAFETY: blocks are disjoint, and each has its own sums.
            let (block, sums) = unsafe { (arenas.part(blocks[index].clone()), places.part(index..index + 1)) };
            sums[0] = self.level.run(LambNorms { moments, direction, block });
        });
        let rates = all.rates(tensors, &mut block_sums, settings, complete);
        self.pool.run(owned.len(), &|i| {
            let (index, tensor) = (owned[i], of_tensors[owned[i]]);
            let direction = LambDirection::new(settings, tensors[tensor].decays);
            // SAFETY: blocks are disjoint.
            let block = unsafe { arenas.part(blocks[index].clone()) };
            self.level.run(LambUpdate { direction, rate: rates[tensor], block });
        });
    }
}

/// The arenas that a step reads and writes.
struct Arenas<'a> {
    /// Whose moments these are.
    share: Share,
    weights: DisjointSlice<'a, f32>,
    first: DisjointSlice<'a, f32>,
    second: DisjointSlice<'a, f32>,
    gradients: &'a [f32],
    /// Whose gradients these are.
    of_gradients: Share,
}

/// A range of all arenas.
struct Block<'a> {
    w: &'a mut [f32],
    m: &'a mut [f32],
    v: &'a mut [f32],
    g: &'a [f32],
}

impl<'a> Arenas<'a> {
    fn new(params: &'a mut Parameters, grads: &'a Gradients, moments: &'a mut Moments) -> Arenas<'a> {
        Arenas {
            share: moments.share,
            weights: DisjointSlice::new(params.arena_mut().slice_mut()),
            first: DisjointSlice::new(moments.first.slice_mut()),
            second: DisjointSlice::new(moments.second.slice_mut()),
            gradients: grads.arena().slice(),
            of_gradients: grads.share(),
        }
    }

    /// # Safety
    /// Parts that exist at the same time must not overlap.
    unsafe fn part(&self, range: Range<usize>) -> Block<'_> {
        let place = self.share.place(range.clone());
        // SAFETY: by the caller's contract; different parts have different places.
        unsafe {
            Block {
                w: self.weights.part(range.clone()),
                m: self.first.part(place.clone()),
                v: self.second.part(place),
                g: &self.gradients[self.of_gradients.place(range)],
            }
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

impl UpdateMoments {
    #[inline(always)]
    fn first<I: Isa>(self, m: f32, g: f32) -> f32 {
        mul_add::<I>(1.0 - self.beta1, g * self.factor - m, m)
    }

    #[inline(always)]
    fn second<I: Isa>(self, v: f32, g: f32) -> f32 {
        let g = g * self.factor;
        mul_add::<I>(self.beta2, v, (1.0 - self.beta2) * g * g)
    }
}

impl Direction {
    #[inline(always)]
    fn of<I: Isa>(self, m: f32, v: f32) -> f32 {
        m / mul_add::<I>(v.sqrt(), self.root_correction, self.eps)
    }
}

struct AdamWBlock<'a> {
    moments: UpdateMoments,
    direction: Direction,
    rate: f32,
    /// 1 − lr λ
    decay: f32,
    block: Block<'a>,
}

impl Vectorized for AdamWBlock<'_> {
    type Output = ();
    #[inline(always)]
    fn call<I: Isa>(self) {
        let AdamWBlock { moments, direction, rate, decay, block: Block { w, m, v, g } } = self;
        for (((w, m), v), g) in w.iter_mut().zip(m).zip(v).zip(g) {
            *m = moments.first::<I>(*m, *g);
            *v = moments.second::<I>(*v, *g);
            *w = mul_add::<I>(-rate, direction.of::<I>(*m, *v), *w * decay);
        }
    }
}

impl LambDirection {
    #[inline(always)]
    fn of<I: Isa>(self, w: f32, m: f32, v: f32) -> f32 {
        mul_add::<I>(self.decay, w, self.scale * self.adam.of::<I>(m, v))
    }
}

/// Updates the moments and returns Σ w² and Σ u².
struct LambNorms<'a> {
    moments: UpdateMoments,
    direction: LambDirection,
    block: Block<'a>,
}

impl Vectorized for LambNorms<'_> {
    type Output = [f64; 2];
    #[inline(always)]
    fn call<I: Isa>(self) -> [f64; 2] {
        let LambNorms { moments, direction, block: Block { w, m, v, g } } = self;
        let mut sums = [[0f64; LANES]; 2];
        // Lanes beyond the end of a part are zero, and so is their u.
        each_part!(w.len(), part => {
            let (weights, gradients) = (load(&w[part.clone()]), load(&g[part.clone()]));
            let first = lanes::zip(load(&m[part.clone()]), gradients, |m, g| moments.first::<I>(m, g));
            let second = lanes::zip(load(&v[part.clone()]), gradients, |v, g| moments.second::<I>(v, g));
            let update = lanes::zip3(weights, first, second, |w, m, v| direction.of::<I>(w, m, v));
            store::<I, _>(first, &mut m[part.clone()]);
            store::<I, _>(second, &mut v[part]);
            for (sums, x) in sums.iter_mut().zip([weights, update]) {
                for (sum, x) in sums.iter_mut().zip(x) {
                    *sum += f64::from(x) * f64::from(x);
                }
            }
        });
        sums.map(|lanes| lanes.iter().sum())
    }
}

/// w −= rate u
struct LambUpdate<'a> {
    direction: LambDirection,
    rate: f32,
    block: Block<'a>,
}

impl Vectorized for LambUpdate<'_> {
    type Output = ();
    #[inline(always)]
    fn call<I: Isa>(self) {
        let LambUpdate { direction, rate, block: Block { w, m, v, .. } } = self;
        for ((w, m), v) in w.iter_mut().zip(&*m).zip(&*v) {
            *w = mul_add::<I>(-rate, direction.of::<I>(*w, *m, *v), *w);
        }
    }
}
