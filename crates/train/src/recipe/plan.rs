//! When a run's phases and the run itself end: by steps, by the clock, or by whichever comes first.

use super::Recipe;

/// The course of a run. "Progress" is the share of the run that is done, 0 to 1.
#[derive(Debug, Clone, PartialEq)]
pub struct Plan {
    steps: Option<u64>,
    seconds: Option<f64>,
    /// Cumulative ends of the phases, as shares of the run and, if the run has steps, in steps.
    ends: Vec<(f64, Option<u64>)>,
}

impl Recipe {
    /// The course of the run.
    pub fn plan(&self) -> Plan {
        let of_phases: Option<u64> = self.phase.iter().map(|p| p.steps).sum();
        let steps = self.steps.or(of_phases.filter(|_| !self.phase.is_empty()));
        let mut done = 0.0;
        let mut ends = Vec::new();
        for p in &self.phase {
            done += match (p.share, p.steps, steps) {
                (Some(share), ..) => share,
                (None, Some(own), Some(all)) => own as f64 / all.max(1) as f64,
                _ => 1.0,
            };
            ends.push((done, steps.map(|all| (done * all as f64).round() as u64)));
        }
        Plan { steps, seconds: self.minutes.map(|m| m * 60.0), ends }
    }
}

impl Plan {
    /// Steps of the run, if it is counted in steps.
    pub fn total_steps(&self) -> Option<u64> {
        self.steps
    }

    /// Share of the run that is done after `step` steps and `seconds` of training.
    pub fn progress(&self, step: u64, seconds: f64) -> f64 {
        let by_steps = match self.steps {
            Some(0) => 1.0,
            Some(all) => step as f64 / all as f64,
            None => 0.0,
        };
        let by_clock = self.seconds.map_or(0.0, |all| seconds / all);
        by_steps.max(by_clock).min(1.0)
    }

    /// Whether the run is over.
    pub fn is_over(&self, step: u64, seconds: f64) -> bool {
        self.steps.is_some_and(|all| step >= all) || self.seconds.is_some_and(|all| seconds >= all)
    }

    /// The phase, from 0, that the step after `step` done ones belongs to.
    pub fn phase_at(&self, step: u64, seconds: f64) -> usize {
        let last = self.ends.len() - 1;
        let progress = self.progress(step, seconds);
        let inside = |end: &(f64, Option<u64>)| match (self.seconds, end.1) {
            // By steps alone the boundary is a whole number of steps, free of rounding.
            (None, Some(end)) => step < end,
            _ => progress < end.0,
        };
        self.ends.iter().position(inside).unwrap_or(last)
    }

    /// Seconds left, judged by a stretch of training that took `seconds` and advanced progress from `from` to `to`.
    pub fn seconds_left(&self, from: f64, to: f64, seconds: f64) -> Option<f64> {
        (to > from).then(|| (1.0 - to) * seconds / (to - from))
    }
}

#[cfg(test)]
mod tests {
    use crate::recipe::{Phase, Recipe};

    fn two(first: Phase, second: Phase) -> Recipe {
        Recipe { phase: vec![first, second], ..Recipe::default() }
    }

    fn share(share: f64) -> Phase {
        Phase { share: Some(share), ..Phase::default() }
    }

    #[test]
    fn shares_of_steps() {
        let mut r = two(share(0.9), share(0.1));
        r.steps = Some(10);
        let plan = r.plan();
        let phases: Vec<usize> = (0..10).map(|s| plan.phase_at(s, 1e9)).collect();
        assert_eq!(phases, [0, 0, 0, 0, 0, 0, 0, 0, 0, 1]);
        assert!(plan.is_over(10, 0.0) && !plan.is_over(9, 1e9));
    }

    #[test]
    fn phases_in_steps_sum_up() {
        let steps = |n| Phase { steps: Some(n), ..Phase::default() };
        let plan = two(steps(3), steps(4)).plan();
        assert_eq!(plan.total_steps(), Some(7));
        assert_eq!((plan.phase_at(2, 0.0), plan.phase_at(3, 0.0)), (0, 1));
    }

    #[test]
    fn by_the_clock_and_whichever_first() {
        let mut r = two(share(0.5), share(0.5));
        r.minutes = Some(1.0);
        let plan = r.plan();
        assert_eq!(plan.phase_at(5000, 29.9), 0);
        assert_eq!(plan.phase_at(5000, 30.0), 1);
        assert!(plan.is_over(1, 60.0) && !plan.is_over(1_000_000, 59.0));
        r.steps = Some(100);
        let both = r.plan();
        assert!(both.is_over(100, 0.0) && both.is_over(0, 60.0));
        assert_eq!(both.progress(50, 6.0), 0.5);
        assert_eq!(both.progress(5, 30.0), 0.5);
        assert_eq!(both.seconds_left(0.0, 0.5, 30.0), Some(30.0));
    }

    #[test]
    fn zero_steps_is_over_at_once() {
        let mut r = two(share(0.5), share(0.5));
        r.steps = Some(0);
        assert!(r.plan().is_over(0, 0.0));
        assert_eq!(r.plan().progress(0, 0.0), 1.0);
    }
}
