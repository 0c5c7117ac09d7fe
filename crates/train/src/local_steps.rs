//! Local steps, for slow networks (Douillard et al. 2023, "DiLoCo").
//!
//! Each rank trains alone for some steps, with its part of the micro-batches. Then the mean change of the weights over the ranks is the
//! gradient of an outer optimizer, SGD with Nesterov momentum: with Δ = w₀ − mean(w), v = μ v + Δ, w₀ −= η (Δ + μ v). The moments of the
//! inner optimizer are replaced by their means, so that the state of all ranks is the same after each exchange, and a checkpoint of that
//! moment does not depend on their number. (Unlike other runs, the weights do.)

use cloze_comm::Communicator;
use cloze_engine::{Moments, Parameters};

/// Numbers that are exchanged at once.
const CHUNK: usize = 1 << 22;

/// The outer optimizer.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct OuterOptimizer {
    /// The number of steps between exchanges.
    pub every: u64,
    /// η
    pub lr: f64,
    /// μ
    pub momentum: f64,
}

/// A run with local steps.
pub(crate) struct LocalSteps {
    outer: OuterOptimizer,
    /// The weights after the last exchange, w₀.
    anchor: Vec<f32>,
    /// v
    velocity: Vec<f32>,
    /// Steps since then.
    since: u64,
}

impl LocalSteps {
    /// Begins with these weights. `velocity` is that of a checkpoint.
    pub(crate) fn new(outer: OuterOptimizer, params: &Parameters, velocity: Option<Vec<f32>>) -> LocalSteps {
        let anchor = params.read_all().into_owned();
        let velocity = velocity.unwrap_or_else(|| vec![0.0; anchor.len()]);
        LocalSteps { outer, anchor, velocity, since: 0 }
    }

    /// v, for a checkpoint.
    pub(crate) fn velocity(&self) -> &[f32] {
        &self.velocity
    }

    /// Whether all ranks have the same weights.
    pub(crate) fn is_synchronised(&self) -> bool {
        self.since == 0
    }

    /// A step was done: exchanges the changes, if it is time.
    pub(crate) fn after_step(&mut self, ranks: &Communicator, params: &mut Parameters, moments: &mut Moments) {
        self.since += 1;
        if self.since == self.outer.every {
            self.synchronise(ranks, params, moments);
        }
    }

    /// Exchanges the changes since the last exchange, if there are any.
    pub(crate) fn synchronise(&mut self, ranks: &Communicator, params: &mut Parameters, moments: &mut Moments) {
        if std::mem::take(&mut self.since) == 0 {
            return;
        }
        let (lr, momentum) = (self.outer.lr as f32, self.outer.momentum as f32);
        let share = 1.0 / ranks.size() as f32;
        let mut change = Vec::new();
        params.edit_all(|weights| {
            let parts = weights.chunks_mut(CHUNK).zip(self.anchor.chunks_mut(CHUNK));
            for ((weights, anchor), velocity) in parts.zip(self.velocity.chunks_mut(CHUNK)) {
                change.clear();
                change.extend(anchor.iter().zip(&*weights).map(|(before, now)| before - now));
                ranks.all_reduce(&mut change);
                let of_weight = weights.iter_mut().zip(anchor).zip(velocity).zip(&change);
                for (((weight, anchor), velocity), change) in of_weight {
                    let change = change * share;
                    *velocity = momentum * *velocity + change;
                    *anchor -= lr * (change + momentum * *velocity);
                    *weight = *anchor;
                }
            }
        });
        let mean = |values: &mut [f32]| {
            for part in values.chunks_mut(CHUNK) {
                ranks.all_reduce(part);
                part.iter_mut().for_each(|value| *value *= share);
            }
        };
        moments.edit(0..params.count(), |first, second| {
            mean(first);
            mean(second);
        });
    }
}

#[cfg(test)]
mod tests {
    use cloze_engine::{Device, Init};

    use super::*;

    /// Three exchanges of two ranks, beside the equations in f64.
    #[test]
    fn exchanges_follow_the_equations() {
        let outer = OuterOptimizer { every: 2, lr: 0.7, momentum: 0.9 };
        // The change that rank r makes in step s.
        let change = |rank: usize, step: usize| 0.1 * (rank as f64 + 1.0) - 0.03 * step as f64;
        let found = cloze_testing::ranks(2, |ranks| {
            let device = Device::cpu(Some(1)).unwrap();
            let mut builder = Parameters::builder();
            let id = builder.declare("w", &[3], Init::Ones, true);
            let mut params = builder.build(&device, 0);
            let mut moments = Moments::zeros_like(&params);
            let mut local = LocalSteps::new(outer, &params, None);
            for step in 0..6 {
                params.edit(id, |w| w.iter_mut().for_each(|w| *w += change(ranks.rank(), step) as f32));
                moments.edit(0..3, |first, _| first.fill(ranks.rank() as f32));
                local.after_step(ranks, &mut params, &mut moments);
                assert_eq!(local.is_synchronised(), step % 2 == 1);
            }
            assert_eq!(moments.read_first(0..3)[..], [0.5; 3], "the mean of both ranks");
            params.read(id).to_vec()
        });
        let (mut anchor, mut velocity) = (1.0, 0.0);
        for pair in 0..3 {
            let of_rank = |rank| change(rank, 2 * pair) + change(rank, 2 * pair + 1);
            let mean = -(of_rank(0) + of_rank(1)) / 2.0;
            velocity = 0.9 * velocity + mean;
            anchor -= 0.7 * (mean + 0.9 * velocity);
        }
        assert!(found[0] == found[1]);
        assert!(found[0].iter().all(|w| (f64::from(*w) - anchor).abs() < 1e-5), "{found:?}, expected {anchor}");
    }

    /// With η = 1 and μ = 0, the weights become the mean of those of the ranks.
    #[test]
    fn without_momentum_the_weights_are_averaged() {
        let outer = OuterOptimizer { every: 5, lr: 1.0, momentum: 0.0 };
        let found = cloze_testing::ranks(3, |ranks| {
            let device = Device::cpu(Some(1)).unwrap();
            let mut builder = Parameters::builder();
            let id = builder.declare("w", &[2], Init::Zeros, true);
            let mut params = builder.build(&device, 0);
            let mut moments = Moments::zeros_like(&params);
            let mut local = LocalSteps::new(outer, &params, None);
            params.write(id, &[ranks.rank() as f32, 2.0]);
            local.after_step(ranks, &mut params, &mut moments);
            // Before its time, because the run is interrupted; nothing changes when it is repeated.
            local.synchronise(ranks, &mut params, &mut moments);
            local.synchronise(ranks, &mut params, &mut moments);
            params.read(id).to_vec()
        });
        assert!(found.iter().all(|w| w[..] == [1.0, 2.0]), "{found:?}");
    }
}
