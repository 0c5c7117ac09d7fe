//! How long work takes, judged by its first seconds.

/// Seconds before the first of the two points: threads start, files are opened, buffers fill, memory is touched for the first time.
const SETTLED: f64 = 0.5;

/// How far some work was at two points in time. Its pace is what lies between them.
#[derive(Clone, Copy, Debug, Default)]
pub struct Pace {
    first: Option<(u64, f64)>,
    last: (u64, f64),
}

impl Pace {
    /// So many units were done after so many seconds.
    pub fn add(&mut self, done: u64, seconds: f64) {
        self.last = (done, seconds);
        if self.first.is_none() && seconds >= SETTLED {
            self.first = Some(self.last);
        }
    }

    /// Seconds of the whole work of `total` units; none as long as nothing shows it.
    pub fn whole(&self, total: u64) -> Option<f64> {
        let ((from, began), (done, seconds)) = (self.first?, self.last);
        let left = total.saturating_sub(done) as f64;
        (done > from).then(|| seconds + left * (seconds - began) / (done - from) as f64)
    }

    /// As [`whole`](Self::whole); in proportion to the last point where there is no pace yet. Exact where all was done.
    pub fn estimate(&self, total: u64) -> f64 {
        let (done, seconds) = self.last;
        self.whole(total).unwrap_or_else(|| seconds * (total as f64 / done.max(1) as f64).max(1.0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_ahead_at_first_does_not_count() {
        let mut pace = Pace::default();
        assert_eq!(pace.whole(1000), None);
        pace.add(100, 0.1);
        pace.add(200, 0.5);
        assert_eq!(pace.whole(1000), None, "one point");
        pace.add(200, 1.0);
        assert_eq!(pace.whole(1000), None, "nothing was done between the two");
        pace.add(300, 2.5);
        // 100 units in 2 seconds.
        assert_eq!(pace.whole(1000), Some(2.5 + 14.0));
        assert_eq!(pace.whole(0), Some(2.5), "a total that is too small");
        assert_eq!(pace.estimate(1000), 2.5 + 14.0);
    }

    #[test]
    fn one_point_gives_a_proportion() {
        let mut pace = Pace::default();
        pace.add(100, 3.0);
        assert_eq!((pace.estimate(400), pace.estimate(100)), (12.0, 3.0));
    }
}
