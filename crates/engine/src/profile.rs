//! Where a step's time goes, by operation.

use std::time::Instant;

/// Seconds and calls by operation, in the order in which they first ran.
#[derive(Clone, Debug, Default)]
pub struct Profile {
    entries: Vec<Entry>,
}

/// One operation's part, in one direction.
#[derive(Clone, PartialEq, Debug)]
pub struct Entry {
    /// The op, its output's width, and "back" for the backward direction.
    pub name: String,
    /// Wall-clock seconds.
    pub seconds: f64,
    /// Number of calls.
    pub calls: u64,
}

impl Profile {
    /// Adds one call.
    pub fn add(&mut self, name: String, seconds: f64) {
        match self.entries.iter_mut().find(|entry| entry.name == name) {
            Some(entry) => {
                entry.seconds += seconds;
                entry.calls += 1;
            }
            None => self.entries.push(Entry { name, seconds, calls: 1 }),
        }
    }

    /// Runs `work` as one call.
    pub fn time<T>(&mut self, name: &str, work: impl FnOnce() -> T) -> T {
        let start = Instant::now();
        let result = work();
        self.add(name.to_owned(), start.elapsed().as_secs_f64());
        result
    }

    /// The operations, in the order in which they first ran.
    pub fn entries(&self) -> &[Entry] {
        &self.entries
    }
}

/// Splits a pass's time into laps: ops run one after the other, so that the time between two ends is the later one's.
pub(crate) struct Laps<'a> {
    profile: &'a mut Profile,
    last: Instant,
}

impl<'a> Laps<'a> {
    pub(crate) fn start(profile: &'a mut Profile) -> Laps<'a> {
        Laps { profile, last: Instant::now() }
    }

    pub(crate) fn end(&mut self, name: String) {
        let now = Instant::now();
        self.profile.add(name, (now - self.last).as_secs_f64());
        self.last = now;
    }
}
