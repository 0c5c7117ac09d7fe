//! The end of a run and of its phases: by steps, by time, or by whichever comes first.

/// The plan of a run. "Progress" is the fraction of the run that is done, 0 to 1.
#[derive(Debug, Clone, PartialEq)]
pub struct Plan {
    steps: Option<u64>,
    seconds: Option<f64>,
    /// Cumulative ends of the phases, as fractions of the run and, if the run has a number of steps, in steps.
    ends: Vec<(f64, Option<u64>)>,
}

/// A position in a run.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct RunPosition {
    /// Number of steps done.
    pub step: u64,
    /// Seconds of training.
    pub seconds: f64,
    /// Fraction of the run that is done.
    pub progress: f64,
}

/// What ends a run.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum End {
    /// A number of steps.
    Steps(u64),
    /// A training time in seconds.
    Seconds(f64),
}

impl End {
    /// The number of steps of a run that ends by steps; 0 for one that ends by time.
    pub fn steps(self) -> u64 {
        match self {
            End::Steps(steps) => steps,
            End::Seconds(_) => 0,
        }
    }
}

impl Plan {
    /// A run with a number of steps, a number of seconds, or both: then it ends at whichever comes first. `ends` has
    /// the end of each phase as a fraction of the run and, if the run has a number of steps, in steps.
    pub fn new(steps: Option<u64>, seconds: Option<f64>, ends: Vec<(f64, Option<u64>)>) -> Plan {
        Plan { steps, seconds, ends }
    }

    /// A run of one phase with a number of steps.
    pub fn of_steps(steps: u64) -> Plan {
        Plan::new(Some(steps), None, vec![(1.0, Some(steps))])
    }

    /// The number of phases.
    pub fn phases(&self) -> usize {
        self.ends.len()
    }

    /// The end of each phase as a fraction of the run and, if the run has a number of steps, in steps.
    pub(crate) fn ends(&self) -> &[(f64, Option<u64>)] {
        &self.ends
    }

    /// The number of steps, if the run has one.
    pub fn total_steps(&self) -> Option<u64> {
        self.steps
    }

    /// The training time in seconds, if the run has one.
    pub fn total_seconds(&self) -> Option<f64> {
        self.seconds
    }

    /// The position after `step` steps and `seconds` of training.
    pub fn position(&self, step: u64, seconds: f64) -> RunPosition {
        RunPosition { step, seconds, progress: self.progress(step, seconds) }
    }

    /// What will probably end the run, judged at this position: if it has both limits, the one of which the larger
    /// fraction is used up.
    pub fn end(&self, step: u64, seconds: f64) -> End {
        match (self.steps, self.seconds) {
            (Some(steps), Some(all)) if seconds / all > step as f64 / steps.max(1) as f64 => End::Seconds(all),
            (Some(steps), _) => End::Steps(steps),
            (None, all) => End::Seconds(all.unwrap_or(0.0)),
        }
    }

    /// The steps and seconds that remain in each phase, if a step of phase `i` takes `step_seconds[i]`.
    pub fn remaining(&self, step: u64, seconds: f64, step_seconds: &[f64]) -> Vec<(f64, f64)> {
        let (mut step, mut seconds) = (step as f64, seconds);
        let mut remaining = Vec::new();
        for (&(share, end), &each) in self.ends.iter().zip(step_seconds) {
            let steps_left = end.map_or(f64::INFINITY, |end| (end as f64 - step).max(0.0));
            let seconds_left = self.seconds.map_or(f64::INFINITY, |all| (share * all - seconds).max(0.0));
            let steps = steps_left.min(seconds_left / each.max(f64::MIN_POSITIVE));
            remaining.push((steps, steps * each));
            step += steps;
            seconds += steps * each;
        }
        remaining
    }

    /// The fraction of the run that is done after `step` steps and `seconds` of training.
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

    /// The phase, from 0, of the step that follows `step` finished ones.
    pub fn phase_at(&self, step: u64, seconds: f64) -> usize {
        let last = self.ends.len() - 1;
        let progress = self.progress(step, seconds);
        let inside = |end: &(f64, Option<u64>)| match (self.seconds, end.1) {
            // If the run only has steps, the boundary is a whole number of steps, without rounding errors.
            (None, Some(end)) => step < end,
            _ => progress < end.0,
        };
        self.ends.iter().position(inside).unwrap_or(last)
    }

    /// The remaining seconds, extrapolated from `seconds` of training that advanced progress from `from` to `to`.
    pub fn seconds_left(&self, from: f64, to: f64, seconds: f64) -> Option<f64> {
        (to > from).then(|| (1.0 - to) * seconds / (to - from))
    }
}
