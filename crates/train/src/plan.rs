//! When a run's phases and the run itself end: by steps, by the clock, or by whichever comes first.

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

impl End {
    /// Steps in all, of a run that ends by them; 0 of one that time ends.
    pub fn steps(self) -> u64 {
        match self {
            End::Steps(steps) => steps,
            End::Seconds(_) => 0,
        }
    }
}

impl Plan {
    /// A run of so many steps, so many seconds, or whichever comes first. `ends` has for each phase its end as a share of the run
    /// and, if the run has steps, in steps.
    pub fn new(steps: Option<u64>, seconds: Option<f64>, ends: Vec<(f64, Option<u64>)>) -> Plan {
        Plan { steps, seconds, ends }
    }

    /// A run of one phase that ends after so many steps.
    pub fn of_steps(steps: u64) -> Plan {
        Plan::new(Some(steps), None, vec![(1.0, Some(steps))])
    }

    /// Phases of the run.
    pub fn phases(&self) -> usize {
        self.ends.len()
    }

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
