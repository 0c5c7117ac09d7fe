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

/// A point of a run.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Reached {
    /// Steps done.
    pub step: u64,
    /// Seconds of training.
    pub seconds: f64,
    /// Share of the run that is done.
    pub progress: f64,
}

/// What ends a run.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum End {
    /// So many steps.
    Steps(u64),
    /// So many seconds of training.
    Seconds(f64),
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

    /// Seconds of the run, if it is limited by time.
    pub fn total_seconds(&self) -> Option<f64> {
        self.seconds
    }

    /// The point of the run after `step` steps and `seconds` of training.
    pub fn reached(&self, step: u64, seconds: f64) -> Reached {
        Reached { step, seconds, progress: self.progress(step, seconds) }
    }

    /// What will end the run, judged by where it stands: where it has both, whichever of steps and time is further along.
    pub fn end(&self, step: u64, seconds: f64) -> End {
        match (self.steps, self.seconds) {
            (Some(steps), Some(all)) if seconds / all > step as f64 / steps.max(1) as f64 => End::Seconds(all),
            (Some(steps), _) => End::Steps(steps),
            (None, all) => End::Seconds(all.unwrap_or(0.0)),
        }
    }

    /// Steps and seconds that each phase has still to go, where a step of phase `i` takes `step_seconds[i]`.
    pub fn ahead(&self, step: u64, seconds: f64, step_seconds: &[f64]) -> Vec<(f64, f64)> {
        let (mut step, mut seconds) = (step as f64, seconds);
        let mut ahead = Vec::new();
        for (&(share, end), &each) in self.ends.iter().zip(step_seconds) {
            let steps_left = end.map_or(f64::INFINITY, |end| (end as f64 - step).max(0.0));
            let seconds_left = self.seconds.map_or(f64::INFINITY, |all| (share * all - seconds).max(0.0));
            let steps = steps_left.min(seconds_left / each.max(f64::MIN_POSITIVE));
            ahead.push((steps, steps * each));
            step += steps;
            seconds += steps * each;
        }
        ahead
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
    use super::End;
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
    fn what_ends_a_run_is_what_is_further_along() {
        let mut r = two(share(0.9), share(0.1));
        r.steps = Some(100);
        assert_eq!(r.plan().end(0, 0.0), End::Steps(100));
        r.minutes = Some(1.0);
        assert_eq!(r.plan().end(20, 30.0), End::Seconds(60.0));
        assert_eq!(r.plan().end(80, 30.0), End::Steps(100));
        r.steps = None;
        assert_eq!(r.plan().end(80, 0.0), End::Seconds(60.0));
    }

    #[test]
    fn what_is_ahead_follows_from_the_steps_times() {
        let mut r = two(share(0.9), share(0.1));
        r.steps = Some(1000);
        assert_eq!(r.plan().ahead(0, 0.0, &[0.1, 0.5]), [(900.0, 90.0), (100.0, 50.0)]);
        assert_eq!(r.plan().ahead(950, 7.0, &[0.1, 0.5]), [(0.0, 0.0), (50.0, 25.0)]);
        r.minutes = Some(1.0);
        assert_eq!(r.plan().ahead(0, 0.0, &[0.1, 0.5]), [(540.0, 54.0), (12.0, 6.0)]);
        r.steps = None;
        assert_eq!(r.plan().ahead(0, 30.0, &[0.1, 0.5]), [(240.0, 24.0), (12.0, 6.0)]);
        // A phase that is shorter than one of its steps has a fraction of one.
        assert_eq!(r.plan().ahead(0, 0.0, &[0.1, 12.0])[1].0, 0.5);
    }

    #[test]
    fn zero_steps_is_over_at_once() {
        let mut r = two(share(0.5), share(0.5));
        r.steps = Some(0);
        assert!(r.plan().is_over(0, 0.0));
        assert_eq!(r.plan().progress(0, 0.0), 1.0);
    }
}
