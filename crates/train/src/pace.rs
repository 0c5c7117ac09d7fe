//! How fast steps are, to say how long the rest takes.

/// How fast the steps of a session are, in units of the caller's choice: steps, tokens. The first step touches its memory for the
/// first time, and counts only where steps are long.
#[derive(Debug, Clone, Copy, Default)]
pub struct Pace {
    first: Option<(u64, f64)>,
    /// Units of the steps after the first, and their seconds.
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

    /// Units a second, once some steps have shown them; with `at_end`, by the steps there are.
    pub fn per_second(&self, at_end: bool) -> Option<f64> {
        let rate = |units: u64, seconds: f64| units as f64 / seconds.max(f64::MIN_POSITIVE);
        let (units, seconds) = self.first?;
        if self.units > 0 && (self.seconds > 1.0 || at_end) {
            return Some(rate(self.units, self.seconds));
        }
        (seconds > 5.0 || at_end).then(|| rate(units, seconds))
    }
}

/// Units a second of the steps of a dry run: `step`, given its number, takes one and returns its units and seconds. After `most`
/// steps, those there are decide. None if `stopped` before that.
///
/// # Errors
/// Those of `step`.
pub fn measure<E>(
    most: u64,
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
        if let Some(rate) = pace.per_second(number + 1 >= most) {
            return Ok(Some(rate));
        }
    }
    Ok(None)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_step_is_no_part_of_the_pace_unless_steps_are_long() {
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
    fn a_measurement_takes_as_many_steps_as_it_needs() {
        let steps_of = |seconds: f64, most: u64, stop_after: u64| {
            let taken = std::cell::Cell::new(0);
            let rate = measure::<()>(
                most,
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
        assert_eq!(steps_of(0.5, 2, 99), (2, Some(20.0)), "there are no more");
        assert_eq!(steps_of(0.5, u64::MAX, 2), (2, None), "stopped");
    }
}
