//! The learning-rate range test (Smith 2017, "Cyclical learning rates for training neural networks", section 3.3): normal
//! training steps whose learning rate grows exponentially, to see at which rates the loss falls and diverges.
//!
//! - The smoothed loss is the exponential moving average of the steps' losses (each before its update) over about a tenth
//!   of all steps, corrected for its start.
//! - The loss has diverged if it is not finite, or if the smoothed loss is above its minimum by half of what it had
//!   fallen before, and by at least a tenth. The test ends there.
//! - The loss falls fastest where a straight line, fitted to the losses of neighbouring steps (a tenth of all steps before
//!   and after) against the logarithm of the rate, is steepest.
//! - The suggested peak is the rate at which the loss falls fastest, and at most a tenth of the rate at which it diverged.
//!   There is none if no slope is four times its standard error: such a fall may be noise.

use std::sync::atomic::{AtomicBool, Ordering};

use cloze_comm::Communicator;
use cloze_engine::Device;

use super::corpus::Corpus;
use super::job::initial_state;
use crate::TrainError;
use crate::network::Network;
use crate::objective::{PhaseObjectives, total, train_step};
use crate::recipe::Recipe;

/// The number of standard errors by which a slope must differ from zero.
const STANDARD_ERRORS: f64 = 4.0;

/// The settings of a learning-rate range test.
#[derive(Debug, Clone, Copy, PartialEq)]
#[non_exhaustive]
pub struct LrRange {
    /// Learning rate of the first step.
    pub lr_from: f64,
    /// Learning rate of the last step.
    pub lr_to: f64,
    /// Number of steps.
    pub lr_steps: u64,
    /// Maximum duration in minutes. If it is too short for all steps, the rate grows faster with the elapsed time.
    pub lr_minutes: f64,
}

impl Default for LrRange {
    fn default() -> LrRange {
        LrRange { lr_from: 1e-6, lr_to: 1.0, lr_steps: 100, lr_minutes: 5.0 }
    }
}

impl LrRange {
    fn check(&self) -> Result<(), TrainError> {
        let LrRange { lr_from, lr_to, lr_steps, lr_minutes } = *self;
        let is_positive = |x: f64| x > 0.0 && x.is_finite();
        let checks = [
            (is_positive(lr_from), "lr_from", "a number above 0", lr_from),
            (lr_to > lr_from && lr_to.is_finite(), "lr_to", "a number above `lr_from`", lr_to),
            (lr_steps >= 10, "lr_steps", "at least 10", lr_steps as f64),
            (is_positive(lr_minutes), "lr_minutes", "a number above 0", lr_minutes),
        ];
        match checks.into_iter().find(|(fits, ..)| !fits) {
            Some((_, key, expected, found)) => Err(TrainError::Setting { key, expected, found }),
            None => Ok(()),
        }
    }

    /// The learning rate at a fraction of the test.
    fn lr(&self, progress: f64) -> f64 {
        self.lr_from * (self.lr_to / self.lr_from).powf(progress)
    }
}

/// A step of the test.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct LrStep {
    /// Number of the step, from 0.
    pub step: u64,
    /// The fraction of the test that was done before, 0 to 1.
    pub progress: f64,
    /// Learning rate of the step.
    pub lr: f64,
    /// The training loss before the update.
    pub loss: f64,
    /// The smoothed loss.
    pub smoothed: f64,
}

/// The result of the test.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct LrTest {
    /// The steps.
    pub steps: Vec<LrStep>,
    /// The learning rate at which the loss falls fastest, if it falls.
    pub steepest: Option<f64>,
    /// The learning rate at which the loss diverged, if it did.
    pub diverged: Option<f64>,
    /// The suggested peak of the learning rate.
    pub suggestion: Option<f64>,
    /// Whether `stop` was set before the end.
    pub interrupted: bool,
}

/// The range test of the first objective, on the batches of the first phase at their full size. `recipe` must be resolved.
pub(super) fn find_lr<N: Network, B>(
    objectives: &PhaseObjectives<N, B>,
    recipe: &Recipe,
    device: &Device,
    range: &LrRange,
    stop: &AtomicBool,
    on_step: &mut dyn FnMut(&LrStep),
) -> Result<LrTest, TrainError> {
    range.check()?;
    let corpus = Corpus::open(recipe)?;
    let mut trainer = initial_state(objectives, recipe, &corpus, device, None, &Communicator::single())?.trainer;
    let objective = &*objectives[0];
    let source = corpus.phase_source(recipe, objective, 0)?;
    let micro_batches = u64::from(recipe.phase[0].accumulate);
    let mut curve = Curve::new(range);
    let (mut minutes, mut interrupted) = (0.0, false);
    for step in 0.. {
        interrupted = stop.load(Ordering::Relaxed);
        if interrupted {
            break;
        }
        let by_steps = step as f64 / (range.lr_steps - 1) as f64;
        let progress = by_steps.max(minutes / range.lr_minutes).min(1.0);
        let lr = range.lr(progress);
        let first = step * micro_batches;
        let batches: Vec<B> =
            (first..first + micro_batches).map(|index| objective.batch(source.batch(index))).collect();
        let update = train_step(objective, &mut trainer, &batches, batches.len(), step, lr).update;
        minutes += update.seconds / 60.0;
        let loss = total(objective.terms(), |name| update.losses.get(name).unwrap_or_default());
        on_step(curve.add(step, progress, lr, if update.updated { loss } else { f64::NAN }));
        if curve.diverged.is_some() || progress >= 1.0 {
            break;
        }
    }
    Ok(curve.result(interrupted))
}

/// The losses so far.
struct Curve {
    steps: Vec<LrStep>,
    /// The weight of earlier losses in the moving average.
    decay: f64,
    /// The moving average, before the correction.
    average: f64,
    lowest: f64,
    diverged: Option<f64>,
}

impl Curve {
    fn new(range: &LrRange) -> Curve {
        let decay = 1.0 - 10.0 / range.lr_steps as f64;
        Curve { steps: Vec::new(), decay, average: 0.0, lowest: f64::INFINITY, diverged: None }
    }

    /// Adds a step; NaN is the loss of a step that is not finite.
    fn add(&mut self, step: u64, progress: f64, lr: f64, loss: f64) -> &LrStep {
        self.average = self.decay * self.average + (1.0 - self.decay) * loss;
        let smoothed = self.average / (1.0 - self.decay.powf(self.steps.len() as f64 + 1.0));
        let first = self.steps.first().map_or(smoothed, |first| first.smoothed);
        self.lowest = self.lowest.min(smoothed);
        let bound = self.lowest + ((first - self.lowest) / 2.0).max(self.lowest.abs() / 10.0);
        if !smoothed.is_finite() || smoothed > bound {
            self.diverged = Some(lr);
        }
        self.steps.push(LrStep { step, progress, lr, loss, smoothed });
        &self.steps[self.steps.len() - 1]
    }

    fn result(self, interrupted: bool) -> LrTest {
        let Curve { steps, diverged, .. } = self;
        let steepest = steepest(&steps);
        let suggestion = steepest.map(|lr| diverged.map_or(lr, |diverged| lr.min(diverged / 10.0)));
        LrTest { steps, steepest, diverged, suggestion, interrupted }
    }
}

/// The learning rate at which the loss falls fastest.
fn steepest(steps: &[LrStep]) -> Option<f64> {
    let reach = (steps.len() / 10).max(2);
    let slopes = steps.windows(2 * reach + 1).map(|window| (slope(window), window[reach].lr));
    let falls = slopes.filter(|((slope, error), _)| *slope < -STANDARD_ERRORS * error);
    falls.min_by(|((a, _), _), ((b, _), _)| a.total_cmp(b)).map(|(_, lr)| lr)
}

/// The slope of the straight line with the least squared distance from the losses, against the logarithm of the rate, and
/// its standard error.
fn slope(steps: &[LrStep]) -> (f64, f64) {
    let points = || steps.iter().map(|step| (step.lr.ln(), step.loss));
    let count = steps.len() as f64;
    let (x_mean, y_mean) =
        (points().map(|(x, _)| x).sum::<f64>() / count, points().map(|(_, y)| y).sum::<f64>() / count);
    let spread: f64 = points().map(|(x, _)| (x - x_mean).powi(2)).sum();
    let slope = points().map(|(x, y)| (x - x_mean) * (y - y_mean)).sum::<f64>() / spread;
    let residuals: f64 = points().map(|(x, y)| (y - y_mean - slope * (x - x_mean)).powi(2)).sum();
    (slope, (residuals / (count - 2.0) / spread).sqrt())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn test_of(losses: impl Fn(f64) -> f64) -> LrTest {
        let range = LrRange::default();
        let mut curve = Curve::new(&range);
        for step in 0..100 {
            let progress = step as f64 / 99.0;
            let lr = range.lr(progress);
            curve.add(step, progress, lr, losses(lr));
            if curve.diverged.is_some() {
                break;
            }
        }
        curve.result(false)
    }

    /// Falls from 9 to 7 around 1e-3, and rises quickly above `limit`.
    fn falling(lr: f64, limit: f64) -> f64 {
        let fallen = 1.0 / (1.0 + (-3.0 * (lr.log10() + 3.0)).exp());
        9.0 - 2.0 * fallen + (lr / limit).powi(4)
    }

    #[test]
    fn the_steepest_rate_is_suggested_unless_the_loss_diverges_soon() {
        let far = test_of(|lr| falling(lr, 0.1));
        let (steepest, diverged) = (far.steepest.unwrap(), far.diverged.unwrap());
        assert!((-3.1..-2.8).contains(&steepest.log10()) && (0.05..0.3).contains(&diverged), "{far:?}");
        assert_eq!(far.suggestion, far.steepest);
        assert!(far.steps.len() < 100 && far.steps.last().unwrap().lr == diverged);
        let near = test_of(|lr| falling(lr, 3e-3));
        assert_eq!(near.suggestion, near.diverged.map(|lr| lr / 10.0));
        assert!(near.suggestion < near.steepest, "{near:?}");
    }

    #[test]
    fn a_loss_that_is_not_finite_has_diverged() {
        let found = test_of(|lr| if lr > 1e-2 { f64::NAN } else { falling(lr, 1.0) });
        assert!((0.01..0.012).contains(&found.diverged.unwrap()), "{found:?}");
        assert!(found.suggestion.unwrap() <= 1.2e-3);
        let at_once = test_of(|_| f64::NAN);
        assert_eq!((at_once.steps.len(), at_once.diverged, at_once.suggestion), (1, Some(1e-6), None));
    }

    #[test]
    fn a_loss_that_never_falls_gives_no_suggestion() {
        // Noise of 3 %, as with small batches.
        let found = test_of(|lr| 5.0 + 0.15 * (lr.ln() * 1000.0).sin());
        assert_eq!((found.diverged, found.suggestion, found.steps.len()), (None, None, 100));
    }

    #[test]
    fn settings_are_checked() {
        let range = LrRange::default();
        for (bad, expected) in [
            (LrRange { lr_from: 0.0, ..range }, "`lr_from`: expected a number above 0, found 0"),
            (LrRange { lr_to: 1e-7, ..range }, "`lr_to`: expected a number above `lr_from`, found 0.0000001"),
            (LrRange { lr_steps: 9, ..range }, "`lr_steps`: expected at least 10, found 9"),
            (LrRange { lr_minutes: f64::NAN, ..range }, "`lr_minutes`: expected a number above 0, found NaN"),
        ] {
            assert_eq!(bad.check().unwrap_err().to_string(), expected);
        }
    }
}
