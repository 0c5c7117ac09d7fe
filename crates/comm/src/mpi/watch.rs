//! Which ranks wait for which operation.
//!
//! A rank that waits for more than a second says so to ranks 0 and 1, with the number of the operation. When their patience is over, they
//! know who has not come. (Both, because one of them may be the one that is missing.)

use std::time::Duration;

use super::library::Library;

/// After this time a rank reports that it waits.
const REPORT_AFTER: Duration = Duration::from_secs(1);
/// The ranks that receive reports.
const WATCHERS: usize = 2;
/// Additional patience of rank 1, and of ranks that know nothing: the first rank that gives up ends all.
const MORE: Duration = Duration::from_secs(5);

pub(super) struct Watch {
    rank: usize,
    patience: Duration,
    /// The number of the current operation.
    operation: u64,
    reported: bool,
    /// The last operation for which each rank is known to wait.
    waiting: Vec<u64>,
    /// The number of reports sent to each watcher, and received.
    sent: u64,
    received: u64,
    /// No more reports: the job ends.
    ends: bool,
}

impl Watch {
    pub(super) fn new(rank: usize, size: usize, patience: Duration) -> Watch {
        Watch {
            rank,
            patience,
            operation: 0,
            reported: false,
            waiting: vec![0; size],
            sent: 0,
            received: 0,
            ends: false,
        }
    }

    /// An operation begins.
    pub(super) fn begin(&mut self) {
        self.operation += 1;
        self.reported = false;
    }

    /// Reports that this rank waits, if it has waited long; receives reports. When the patience is over, returns the ranks that do
    /// not wait; none if this rank receives no reports.
    pub(super) fn poll(&mut self, library: &Library, waited: Duration) -> Option<Vec<usize>> {
        if self.ends || waited < REPORT_AFTER {
            return None;
        }
        if !self.reported {
            self.reported = true;
            self.sent += 1;
            for watcher in (0..WATCHERS.min(self.waiting.len())).filter(|watcher| *watcher != self.rank) {
                library.send(watcher, [self.rank as u64, self.operation]);
            }
        }
        while let Some([rank, operation]) = library.receive() {
            self.received += 1;
            if let Some(known) = self.waiting.get_mut(rank as usize) {
                *known = operation;
            }
        }
        let more = MORE * self.rank.min(WATCHERS) as u32;
        (waited > self.patience + more).then(|| self.missing())
    }

    /// This rank sends no more reports. Returns how many it has sent.
    pub(super) fn end(&mut self) -> u64 {
        self.ends = true;
        self.sent
    }

    /// Receives the reports that are still on their way, of those that each rank `sent`: MPICH does not end before.
    pub(super) fn drain(&mut self, library: &Library, sent: &[u64]) {
        while self.received < self.expected(sent) {
            match library.receive() {
                Some(_) => self.received += 1,
                None => std::thread::yield_now(),
            }
        }
    }

    fn expected(&self, sent: &[u64]) -> u64 {
        if self.rank >= WATCHERS {
            return 0;
        }
        sent.iter().sum::<u64>() - sent[self.rank]
    }

    fn missing(&self) -> Vec<usize> {
        if self.rank >= WATCHERS {
            return Vec::new();
        }
        (0..self.waiting.len()).filter(|&rank| rank != self.rank && self.waiting[rank] != self.operation).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranks_that_did_not_report_are_missing() {
        let mut watch = Watch::new(0, 4, Duration::from_secs(60));
        watch.begin();
        watch.begin();
        watch.waiting = vec![0, 2, 1, 2];
        assert_eq!(watch.missing(), [2], "rank 2 waited for the operation before");
        assert!(Watch::new(2, 4, Duration::ZERO).missing().is_empty());
        assert_eq!(watch.expected(&[1, 2, 0, 3]), 5);
        assert_eq!(Watch::new(2, 4, Duration::ZERO).expected(&[1, 2, 0, 3]), 0);
    }
}
