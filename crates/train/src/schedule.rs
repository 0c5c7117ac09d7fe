//! The learning rate over a run, as a fraction of its peak.
//!
//! Let f be the fraction of the run that is done before a step, and w the warmup's fraction. During warmup the factor
//! is f⁺/w, where f⁺ is the fraction done *after* the step, so that the first step has a positive rate and the last
//! warmup step has the peak rate. After warmup, with u = (f − w)/(1 − w): linear 1 − u (Devlin et al. 2019, A.2),
//! cosine (1 + cos πu)/2 (Loshchilov & Hutter 2017, eq. 5), constant 1, trapezoid 1 until the last `decay_share`, then
//! linear. Unlike in Google's code, the decay starts at the end of warmup, so that the rate does not jump there.

use serde::{Deserialize, Serialize};

/// Shapes of the learning-rate schedule.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum ScheduleKind {
    /// Linear decay to the end, as for BERT.
    #[default]
    Linear,
    /// Cosine decay to the end.
    Cosine,
    /// Constant after warmup.
    Constant,
    /// Constant, then linear decay over the last `decay_share` (warmup-stable-decay).
    Trapezoid,
}

impl ScheduleKind {
    /// All of them, with the name in recipes and what it means.
    pub const ALL: [(ScheduleKind, &'static str, &'static str); 4] = [
        (ScheduleKind::Linear, "linear", "Straight down to the end"),
        (ScheduleKind::Cosine, "cosine", "Half a cosine down to the end"),
        (ScheduleKind::Constant, "constant", "Flat"),
        (ScheduleKind::Trapezoid, "trapezoid", "Flat, then straight down over the last fifth"),
    ];

    /// The name in recipes.
    pub fn name(self) -> &'static str {
        ScheduleKind::ALL.iter().find(|(kind, ..)| *kind == self).map_or("", |(_, name, _)| name)
    }
}

/// The learning-rate schedule of a run.
#[derive(Debug, Clone, PartialEq)]
pub struct LrSchedule {
    kind: ScheduleKind,
    warmup: f64,
    decay: f64,
    end: f64,
}

impl LrSchedule {
    /// A schedule with a warmup over the fraction `warmup` of the run. `decay` is the fraction over which a trapezoid
    /// decays; `end` is the final factor of linear, cosine and trapezoid.
    pub fn new(kind: ScheduleKind, warmup: f64, decay: f64, end: f64) -> LrSchedule {
        LrSchedule { kind, warmup, decay, end }
    }

    /// The schedule of fine-tuning: warmup over this fraction of the run, then decay to zero as given by `kind`.
    pub fn after_warmup(kind: ScheduleKind, warmup: f64) -> LrSchedule {
        LrSchedule::new(kind, warmup, 0.2, 0.0)
    }

    /// The warmup's fraction of the run.
    pub fn warmup(&self) -> f64 {
        self.warmup
    }

    /// The factor of the peak rate for a step that advances the run's progress from `before` to `after` (0 to 1).
    pub fn factor(&self, before: f64, after: f64) -> f64 {
        // Rounding must not make the last warmup step the first decay step.
        if before + 1e-12 < self.warmup {
            return (after / self.warmup).min(1.0);
        }
        let rest = (1.0 - self.warmup).max(f64::MIN_POSITIVE);
        let decay = match self.kind {
            ScheduleKind::Constant => return 1.0,
            ScheduleKind::Linear => 1.0 - (before - self.warmup) / rest,
            ScheduleKind::Cosine => (1.0 + (std::f64::consts::PI * (before - self.warmup) / rest).cos()) / 2.0,
            ScheduleKind::Trapezoid if self.decay == 0.0 => 1.0,
            ScheduleKind::Trapezoid => ((1.0 - before) / self.decay).min(1.0),
        };
        self.end + (1.0 - self.end) * decay.clamp(0.0, 1.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::recipe::{Phase, Recipe, Schedule};

    fn factors(schedule: Schedule, steps: u64) -> Vec<f64> {
        let recipe = Recipe { steps: Some(steps), schedule, phase: vec![Phase::default()], ..Recipe::default() };
        let (plan, lr_schedule) = (recipe.plan(), recipe.lr_schedule());
        (0..steps).map(|s| lr_schedule.factor(plan.progress(s, 0.0), plan.progress(s + 1, 0.0))).collect()
    }

    fn close(found: &[f64], expected: &[f64]) {
        assert_eq!(found.len(), expected.len());
        for (f, e) in found.iter().zip(expected) {
            assert!((f - e).abs() < 1e-9, "{found:?}, expected {expected:?}");
        }
    }

    #[test]
    fn linear_with_warmup_in_steps() {
        let s = Schedule { warmup_steps: Some(4), ..Schedule::default() };
        let expected = [0.25, 0.5, 0.75, 1.0, 1.0, 5. / 6., 4. / 6., 0.5, 2. / 6., 1. / 6.];
        close(&factors(s, 10), &expected);
    }

    #[test]
    fn cosine_is_half_in_the_middle() {
        let s = Schedule { kind: ScheduleKind::Cosine, warmup_share: Some(0.0), ..Schedule::default() };
        let half = std::f64::consts::FRAC_1_SQRT_2 / 2.0;
        close(&factors(s, 4), &[1.0, 0.5 + half, 0.5, 0.5 - half]);
    }

    #[test]
    fn constant_and_trapezoid() {
        let mut s = Schedule { kind: ScheduleKind::Constant, warmup_share: Some(0.5), ..Schedule::default() };
        close(&factors(s.clone(), 4), &[0.5, 1.0, 1.0, 1.0]);
        s.kind = ScheduleKind::Trapezoid;
        s.warmup_share = Some(0.2);
        s.decay_share = Some(0.4);
        s.final_share = Some(0.5);
        let expected = [0.5, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 0.875, 0.75, 0.625];
        close(&factors(s, 10), &expected);
    }

    #[test]
    fn with_a_time_limit_only_progress_counts() {
        let recipe = Recipe {
            minutes: Some(1.0),
            phase: vec![Phase::default()],
            schedule: Schedule { warmup_share: Some(0.1), ..Schedule::default() },
            ..Recipe::default()
        };
        let (plan, lr_schedule) = (recipe.plan(), recipe.lr_schedule());
        let at = |seconds: f64| lr_schedule.factor(plan.progress(7, seconds), plan.progress(8, seconds));
        assert!((at(3.0) - 0.5).abs() < 1e-9);
        assert!((at(33.0) - 0.5).abs() < 1e-9);
    }
}
