//! Estimates of how long a run, or the rest of it, takes.

use crate::recipe::Recipe;

/// The estimated duration of a run, or of the rest of it.
#[derive(Debug, Clone, PartialEq)]
pub struct Estimate {
    /// The phases.
    pub phases: Vec<PhaseEstimate>,
    /// Total seconds, including evaluations.
    pub seconds: f64,
}

/// The rest of a phase.
#[derive(Debug, Clone, PartialEq)]
pub struct PhaseEstimate {
    /// Maximum number of tokens of a sequence.
    pub seq_len: usize,
    /// Tokens per step.
    pub step_tokens: f64,
    /// Seconds per step.
    pub step_seconds: f64,
    /// Number of steps.
    pub steps: f64,
    /// Seconds of all steps.
    pub seconds: f64,
}

impl Estimate {
    /// Total number of steps.
    pub fn steps(&self) -> f64 {
        self.phases.iter().map(|phase| phase.steps).sum()
    }

    /// Total number of tokens.
    pub fn tokens(&self) -> f64 {
        self.phases.iter().map(|phase| phase.steps * phase.step_tokens).sum()
    }

    /// Tokens per second of training.
    pub fn tokens_per_s(&self) -> f64 {
        let seconds: f64 = self.phases.iter().map(|phase| phase.seconds).sum();
        self.tokens() / seconds.max(f64::MIN_POSITIVE)
    }
}

/// The cost of a step in a phase.
#[derive(Debug, Clone, Copy)]
pub(super) struct Cost {
    /// Number of tokens.
    pub tokens: f64,
    pub seconds: f64,
}

/// Estimates the rest of a run from the cost of a step in each phase.
pub(super) fn estimate(recipe: &Recipe, step: u64, seconds: f64, costs: &[Cost]) -> Estimate {
    let plan = recipe.plan();
    let step_seconds: Vec<f64> = costs.iter().map(|cost| cost.seconds).collect();
    let remaining = plan.remaining(step, seconds, &step_seconds);
    let phases: Vec<PhaseEstimate> = remaining
        .iter()
        .zip(costs)
        .zip(&recipe.phase)
        .map(|((&(steps, seconds), cost), phase)| PhaseEstimate {
            seq_len: phase.seq_len,
            step_tokens: cost.tokens,
            step_seconds: cost.seconds,
            steps,
            seconds,
        })
        .collect();
    let mut sum: f64 = phases.iter().map(|phase| phase.seconds).sum();
    if plan.total_seconds().is_none() {
        // An evaluation batch is only the forward pass of a micro-batch: a third of the work. With a time limit,
        // evaluations are part of the given time.
        let steps: f64 = phases.iter().map(|phase| phase.steps).sum();
        let count = |step, seconds| recipe.eval.every.count(plan.position(step, seconds));
        let evaluations = count(step + steps as u64, seconds + sum) - count(step, seconds);
        let longest = phases.iter().zip(&recipe.phase).max_by(|(a, _), (b, _)| a.seconds.total_cmp(&b.seconds));
        let batch = longest.map_or(0.0, |(cost, phase)| cost.step_seconds / f64::from(phase.accumulate) / 3.0);
        sum += evaluations as f64 * recipe.eval.batches as f64 * batch;
    }
    Estimate { phases, seconds: sum }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::recipe::{Every, Phase};

    /// Regression: the steps of the longest phase were divided by the number of micro-batches of the first.
    #[test]
    fn evaluations_are_estimated_by_the_micro_batches_of_the_longest_phase() {
        let phase = |share, accumulate| Phase { share: Some(share), accumulate, ..Phase::default() };
        let mut recipe = Recipe { steps: Some(100), phase: vec![phase(0.5, 1), phase(0.5, 8)], ..Recipe::default() };
        recipe.eval.every = Every::Steps(10);
        recipe.eval.batches = 6;
        let costs = [Cost { tokens: 100.0, seconds: 1.0 }, Cost { tokens: 800.0, seconds: 8.0 }];
        // A micro-batch takes one second in both phases; 10 evaluations of 6 batches take a third of a second per
        // batch.
        assert!((estimate(&recipe, 0, 0.0, &costs).seconds - (50.0 + 400.0 + 20.0)).abs() < 1e-9);
    }
}
