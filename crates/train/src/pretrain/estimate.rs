//! Estimates of how long a run, or the rest of it, takes.

use crate::plan::Plan;
use crate::recipe::{Phase, Recipe};

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
    /// Tokens per step: the mean, if the batch grows.
    pub step_tokens: f64,
    /// Seconds per step: the mean, if the batch grows.
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

/// The cost of the steps of a phase.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Cost {
    /// Number of tokens of a micro-batch.
    pub tokens: f64,
    /// Seconds of a step with one micro-batch.
    pub seconds: f64,
    /// Seconds of each further micro-batch.
    pub additional: f64,
    /// The share of its forward pass in a micro-batch, which is the cost of an evaluation batch.
    pub forward_share: f64,
}

impl Cost {
    /// Seconds of a step.
    pub fn of_step(&self, micro_batches: u32) -> f64 {
        self.seconds + f64::from(micro_batches.saturating_sub(1)) * self.additional
    }
}

/// Estimates the rest of a run from the cost of the steps of each phase.
pub(super) fn estimate(recipe: &Recipe, step: u64, seconds: f64, costs: &[Cost]) -> Estimate {
    let (plan, parts) = (recipe.plan(), recipe.parts());
    let ends = parts.iter().map(|part| (part.end, part.end_step)).collect();
    let step_seconds: Vec<f64> = parts.iter().map(|part| costs[part.phase].of_step(part.micro_batches)).collect();
    let remaining = Plan::new(plan.total_steps(), plan.total_seconds(), ends).remaining(step, seconds, &step_seconds);
    let rest_of = |(number, phase): (usize, &Phase)| {
        let of_phase = parts.iter().zip(&remaining).filter(|(part, _)| part.phase == number);
        let (mut steps, mut seconds, mut micro_batches) = (0.0, 0.0, 0.0);
        for (part, (part_steps, part_seconds)) in of_phase {
            steps += part_steps;
            seconds += part_seconds;
            micro_batches += part_steps * f64::from(part.micro_batches);
        }
        let (seq_len, full, cost) = (phase.seq_len, phase.accumulate, costs[number]);
        let (step_tokens, step_seconds) = match steps > 0.0 {
            true => (micro_batches / steps * cost.tokens, seconds / steps),
            false => (f64::from(full) * cost.tokens, cost.of_step(full)),
        };
        PhaseEstimate { seq_len, step_tokens, step_seconds, steps, seconds }
    };
    let phases: Vec<PhaseEstimate> = recipe.phase.iter().enumerate().map(rest_of).collect();
    let mut sum: f64 = phases.iter().map(|phase| phase.seconds).sum();
    if plan.total_seconds().is_none() {
        // With a time limit, evaluations are part of the given time.
        let steps: f64 = phases.iter().map(|phase| phase.steps).sum();
        let count = |step, seconds| recipe.eval.every.count(plan.position(step, seconds));
        let evaluations = count(step + steps as u64, seconds + sum) - count(step, seconds);
        let longest = phases.iter().zip(costs).max_by(|(a, _), (b, _)| a.seconds.total_cmp(&b.seconds));
        let batch = longest.map_or(0.0, |(_, cost)| cost.additional * cost.forward_share);
        sum += evaluations as f64 * recipe.eval.batches as f64 * batch;
    }
    Estimate { phases, seconds: sum }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::recipe::Every;

    /// Regression: the steps of the longest phase were divided by the number of micro-batches of the first.
    #[test]
    fn evaluations_are_estimated_by_the_micro_batches_of_the_longest_phase() {
        let phase = |share, accumulate| Phase { share: Some(share), accumulate, ..Phase::default() };
        let mut recipe = Recipe { steps: Some(100), phase: vec![phase(0.5, 1), phase(0.5, 8)], ..Recipe::default() };
        recipe.eval.every = Every::Steps(10);
        recipe.eval.batches = 6;
        let costs = [Cost { tokens: 100.0, seconds: 1.0, additional: 1.0, forward_share: 1.0 / 3.0 }; 2];
        // A micro-batch takes one second in both phases; 10 evaluations of 6 batches take a third of a second per
        // batch.
        assert!((estimate(&recipe, 0, 0.0, &costs).seconds - (50.0 + 400.0 + 20.0)).abs() < 1e-9);
    }

    #[test]
    fn steps_of_a_growing_batch_are_estimated_one_by_one() {
        let phase = Phase { accumulate: 4, ..Phase::default() };
        let mut recipe = Recipe { steps: Some(100), phase: vec![phase], ..Recipe::default() };
        recipe.eval.every = Every::Steps(0);
        recipe.schedule.batch_warmup_share = Some(0.4);
        let costs = [Cost { tokens: 100.0, seconds: 2.0, additional: 1.0, forward_share: 1.0 / 3.0 }];
        // Ten steps each of 2, 3, 4 seconds, then 70 of 5.
        let all = estimate(&recipe, 0, 0.0, &costs);
        assert!((all.seconds - 440.0).abs() < 1e-9 && (all.tokens() - 34_000.0).abs() < 1e-6, "{all:?}");
        let rest = estimate(&recipe, 25, 70.0, &costs);
        assert!((rest.seconds - (5.0 * 4.0 + 70.0 * 5.0)).abs() < 1e-9 && rest.steps() == 75.0, "{rest:?}");
        // A tenth of the time for each of 1, 2, 3 micro-batches, the rest for 4.
        (recipe.steps, recipe.minutes) = (None, Some(10.0));
        let timed = estimate(&recipe, 0, 0.0, &costs);
        assert!((timed.steps() - (60.0 / 2.0 + 60.0 / 3.0 + 60.0 / 4.0 + 420.0 / 5.0)).abs() < 1e-9, "{timed:?}");
    }
}
