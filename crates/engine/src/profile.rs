//! Profiling: where a step spends its time, by operation.

use std::time::Instant;

/// Seconds and calls by operation, in the order of the first calls.
#[derive(Clone, Debug, Default)]
pub struct Profile {
    entries: Vec<Entry>,
}

/// The minimum work of a call.
#[derive(Clone, Copy, PartialEq, Debug, Default)]
pub struct Cost {
    /// Floating-point operations of its matrix products.
    pub flops: f64,
    /// Bytes of operands and results, each counted once.
    pub bytes: f64,
}

impl Cost {
    /// Converts integer counts.
    pub fn new(flops: usize, bytes: usize) -> Cost {
        Cost { flops: flops as f64, bytes: bytes as f64 }
    }
}

/// One operation in one direction.
#[derive(Clone, PartialEq, Debug)]
pub struct Entry {
    /// The op, the width of its output, and "back" for the backward direction.
    pub name: String,
    /// Wall-clock seconds.
    pub seconds: f64,
    /// Number of calls.
    pub calls: u64,
    /// The minimum work of all calls together.
    pub cost: Cost,
}

impl Profile {
    /// Adds one call.
    pub fn add(&mut self, name: String, seconds: f64, cost: Cost) {
        match self.entries.iter_mut().find(|entry| entry.name == name) {
            Some(entry) => {
                entry.seconds += seconds;
                entry.calls += 1;
                entry.cost.flops += cost.flops;
                entry.cost.bytes += cost.bytes;
            }
            None => self.entries.push(Entry { name, seconds, calls: 1, cost }),
        }
    }

    /// Runs `work` and counts it as one call.
    pub fn time<T>(&mut self, name: &str, cost: Cost, work: impl FnOnce() -> T) -> T {
        let start = Instant::now();
        let result = work();
        self.add(name.to_owned(), start.elapsed().as_secs_f64(), cost);
        result
    }

    /// The operations, in the order of their first calls.
    pub fn entries(&self) -> &[Entry] {
        &self.entries
    }
}

/// Splits the time of a pass into laps. Ops run one after the other, so the time between the ends of two ops belongs to
/// the later one.
pub(crate) struct Stopwatch<'a> {
    profile: &'a mut Profile,
    last: Instant,
}

impl<'a> Stopwatch<'a> {
    pub(crate) fn start(profile: &'a mut Profile) -> Stopwatch<'a> {
        Stopwatch { profile, last: Instant::now() }
    }

    /// The stopwatch of an inner pass within an op.
    pub(crate) fn share(&mut self) -> Stopwatch<'_> {
        Stopwatch { profile: self.profile, last: self.last }
    }

    /// Restarts the current lap: the time until now was already counted.
    pub(crate) fn restart(&mut self) {
        self.last = Instant::now();
    }

    pub(crate) fn end(&mut self, name: String, cost: Cost) {
        let now = Instant::now();
        self.profile.add(name, (now - self.last).as_secs_f64(), cost);
        self.last = now;
    }
}
