//! Estimates how long work takes from its first seconds.

/// Seconds before the first measured point. Until then threads start, files are opened, buffers fill and memory is
/// touched for the first time.
const WARM_UP_SECONDS: f64 = 0.5;

/// The progress at two points in time. The speed between them gives the estimate.
#[derive(Clone, Copy, Debug, Default)]
pub struct Pace {
    first: Option<(u64, f64)>,
    last: (u64, f64),
}

impl Pace {
    /// Records that `done` units were done after `seconds` seconds.
    pub fn add(&mut self, done: u64, seconds: f64) {
        self.last = (done, seconds);
        if self.first.is_none() && seconds >= WARM_UP_SECONDS {
            self.first = Some(self.last);
        }
    }

    /// Total seconds for `total` units, including those already spent; `None` until there are two points with progress
    /// between them.
    pub fn total_seconds(&self, total: u64) -> Option<f64> {
        let ((from, began), (done, seconds)) = (self.first?, self.last);
        let left = total.saturating_sub(done) as f64;
        (done > from).then(|| seconds + left * (seconds - began) / (done - from) as f64)
    }

    /// Like [`total_seconds`](Self::total_seconds). Before there are two points, the estimate is proportional to the
    /// last point; if everything is done, it is the elapsed time.
    pub fn estimate(&self, total: u64) -> f64 {
        let (done, seconds) = self.last;
        self.total_seconds(total).unwrap_or_else(|| seconds * (total as f64 / done.max(1) as f64).max(1.0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn estimates_use_the_speed_between_two_points() {
        let mut pace = Pace::default();
        assert_eq!(pace.total_seconds(1000), None);
        pace.add(100, 0.1);
        pace.add(200, 0.5);
        assert_eq!(pace.total_seconds(1000), None, "one point");
        pace.add(200, 1.0);
        assert_eq!(pace.total_seconds(1000), None, "no progress between the two points");
        pace.add(300, 2.5);
        // 100 units in 2 seconds.
        assert_eq!(pace.total_seconds(1000), Some(2.5 + 14.0));
        assert_eq!(pace.total_seconds(0), Some(2.5), "a total below what was done");
        assert_eq!(pace.estimate(1000), 2.5 + 14.0);
    }

    #[test]
    fn one_point_gives_a_proportional_estimate() {
        let mut pace = Pace::default();
        pace.add(100, 3.0);
        assert_eq!((pace.estimate(400), pace.estimate(100)), (12.0, 3.0));
    }
}
