//! The learning rate over a run, as a share of its peak.
//!
//! With f the share of the run that is done before a step and w the warmup's share:
//! warmup: f⁺/w, f⁺ being the share done *after* the step, so that the first step learns and the last of the warmup is at
//! the peak. After it, with u = (f − w)/(1 − w): linear 1 − u (Devlin et al. 2019, A.2), cosine (1 + cos πu)/2 (Loshchilov
//! & Hutter 2017, eq. 5), constant 1, trapezoid 1 until the last `decay_share`, then straight down. Unlike Google's code,
//! the fall starts at the warmup's end, so that the rate does not jump there.

use serde::{Deserialize, Serialize};

/// Curves of the learning rate.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum ScheduleKind {
    /// Straight down to the end: BERT's.
    #[default]
    Linear,
    /// Half a cosine down to the end.
    Cosine,
    /// Flat after the warmup.
    Constant,
    /// Flat, then straight down over the last `decay_share` (warmup-stable-decay).
    Trapezoid,
}

impl ScheduleKind {
    /// The name that recipes use.
    pub fn name(self) -> &'static str {
        match self {
            ScheduleKind::Linear => "linear",
            ScheduleKind::Cosine => "cosine",
            ScheduleKind::Constant => "constant",
            ScheduleKind::Trapezoid => "trapezoid",
        }
    }
}

/// The curve of one run.
#[derive(Debug, Clone, PartialEq)]
pub struct LrSchedule {
    kind: ScheduleKind,
    warmup: f64,
    decay: f64,
    end: f64,
}

impl LrSchedule {
    /// A curve of this kind whose warmup takes the share `warmup` of the run; `decay` is the share over which a trapezoid falls at
    /// the end, `end` where linear, cosine and trapezoid end, as a share of the peak.
    pub fn new(kind: ScheduleKind, warmup: f64, decay: f64, end: f64) -> LrSchedule {
        LrSchedule { kind, warmup, decay, end }
    }

    /// The curve of a fine-tuning: a warmup over this share of the run, then as `kind` says, down to zero.
    pub fn after_warmup(kind: ScheduleKind, warmup: f64) -> LrSchedule {
        LrSchedule::new(kind, warmup, 0.2, 0.0)
    }

    /// The warmup's share of the run.
    pub fn warmup(&self) -> f64 {
        self.warmup
    }

    /// The share of the peak at a step that takes the run's progress from `before` to `after` (0 to 1).
    pub fn factor(&self, before: f64, after: f64) -> f64 {
        // Rounding must not turn the warmup's last step into the first of the fall.
        if before + 1e-12 < self.warmup {
            return (after / self.warmup).min(1.0);
        }
        let rest = (1.0 - self.warmup).max(f64::MIN_POSITIVE);
        let fall = match self.kind {
            ScheduleKind::Constant => return 1.0,
            ScheduleKind::Linear => 1.0 - (before - self.warmup) / rest,
            ScheduleKind::Cosine => (1.0 + (std::f64::consts::PI * (before - self.warmup) / rest).cos()) / 2.0,
            ScheduleKind::Trapezoid if self.decay == 0.0 => 1.0,
            ScheduleKind::Trapezoid => ((1.0 - before) / self.decay).min(1.0),
        };
        self.end + (1.0 - self.end) * fall.clamp(0.0, 1.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::recipe::{Phase, Recipe, Schedule};

    fn shares(schedule: Schedule, steps: u64) -> Vec<f64> {
        let recipe = Recipe { steps: Some(steps), schedule, phase: vec![Phase::default()], ..Recipe::default() };
        let (plan, curve) = (recipe.plan(), recipe.lr_schedule());
        (0..steps).map(|s| curve.factor(plan.progress(s, 0.0), plan.progress(s + 1, 0.0))).collect()
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
        close(&shares(s, 10), &expected);
    }

    #[test]
    fn cosine_falls_by_half_at_the_middle() {
        let s = Schedule { kind: ScheduleKind::Cosine, warmup_share: Some(0.0), ..Schedule::default() };
        let half = std::f64::consts::FRAC_1_SQRT_2 / 2.0;
        close(&shares(s, 4), &[1.0, 0.5 + half, 0.5, 0.5 - half]);
    }

    #[test]
    fn constant_and_trapezoid() {
        let mut s = Schedule { kind: ScheduleKind::Constant, warmup_share: Some(0.5), ..Schedule::default() };
        close(&shares(s.clone(), 4), &[0.5, 1.0, 1.0, 1.0]);
        s.kind = ScheduleKind::Trapezoid;
        s.warmup_share = Some(0.2);
        s.decay_share = Some(0.4);
        s.final_share = Some(0.5);
        let expected = [0.5, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 0.875, 0.75, 0.625];
        close(&shares(s, 10), &expected);
    }

    #[test]
    fn by_the_clock_only_progress_counts() {
        let recipe = Recipe {
            minutes: Some(1.0),
            phase: vec![Phase::default()],
            schedule: Schedule { warmup_share: Some(0.1), ..Schedule::default() },
            ..Recipe::default()
        };
        let (plan, curve) = (recipe.plan(), recipe.lr_schedule());
        let at = |seconds: f64| curve.factor(plan.progress(7, seconds), plan.progress(8, seconds));
        assert!((at(3.0) - 0.5).abs() < 1e-9);
        assert!((at(33.0) - 0.5).abs() < 1e-9);
    }
}
