//! The speed of steps, for estimates of the remaining time.

/// The speed of a session's steps in units of the caller's choice, such as steps or tokens. The first step is slower
/// because its memory is not mapped yet; it only counts if steps are long.
#[derive(Debug, Clone, Copy, Default)]
pub struct Pace {
    first: Option<(u64, f64)>,
    /// Units and seconds of the steps after the first.
    units: u64,
    seconds: f64,
}

impl Pace {
    /// Adds a step.
    pub fn add(&mut self, units: u64, seconds: f64) {
        if self.first.is_none() {
            self.first = Some((units, seconds));
        } else {
            self.units += units;
            self.seconds += seconds;
        }
    }

    /// Units per second, or `None` if too few steps were measured. With `at_end`, a single step is enough.
    pub fn per_second(&self, at_end: bool) -> Option<f64> {
        let rate = |units: u64, seconds: f64| units as f64 / seconds.max(f64::MIN_POSITIVE);
        let (units, seconds) = self.first?;
        if self.units > 0 && (self.seconds > 1.0 || at_end) {
            return Some(rate(self.units, self.seconds));
        }
        (seconds > 5.0 || at_end).then(|| rate(units, seconds))
    }
}

/// Measures the units per second of a dry run. `step` runs the step with the given number and returns its units and
/// seconds. Uses at most `max_steps` steps. Returns `None` if `stopped` returns true before that.
///
/// # Errors
/// The errors of `step`.
pub fn measure<E>(
    max_steps: u64,
    stopped: impl Fn() -> bool,
    mut step: impl FnMut(u64) -> Result<(u64, f64), E>,
) -> Result<Option<f64>, E> {
    let mut pace = Pace::default();
    for number in 0.. {
        if stopped() {
            break;
        }
        let (units, seconds) = step(number)?;
        pace.add(units, seconds);
        if let Some(rate) = pace.per_second(number + 1 >= max_steps) {
            return Ok(Some(rate));
        }
    }
    Ok(None)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_step_only_counts_if_steps_are_long() {
        let mut pace = Pace::default();
        assert_eq!(pace.per_second(true), None, "no step yet");
        pace.add(100, 2.0);
        assert_eq!((pace.per_second(false), pace.per_second(true)), (None, Some(50.0)));
        pace.add(100, 0.5);
        assert_eq!((pace.per_second(false), pace.per_second(true)), (None, Some(200.0)));
        pace.add(200, 1.0);
        assert_eq!(pace.per_second(false), Some(200.0));
        let mut long = Pace::default();
        long.add(60, 6.0);
        assert_eq!(long.per_second(false), Some(10.0));
    }

    #[test]
    fn a_measurement_stops_when_it_is_long_enough() {
        let steps_of = |seconds: f64, max_steps: u64, stop_after: u64| {
            let taken = std::cell::Cell::new(0);
            let rate = measure::<()>(
                max_steps,
                || taken.get() >= stop_after,
                |number| {
                    taken.set(number + 1);
                    Ok((10, seconds))
                },
            );
            (taken.get(), rate.unwrap())
        };
        assert_eq!(steps_of(0.5, u64::MAX, 99), (4, Some(20.0)), "the first, then more than a second");
        assert_eq!(steps_of(6.0, u64::MAX, 99), (1, Some(10.0 / 6.0)), "the first is long enough");
        assert_eq!(steps_of(0.5, 2, 99), (2, Some(20.0)), "the maximum");
        assert_eq!(steps_of(0.5, u64::MAX, 2), (2, None), "stopped");
    }
}
