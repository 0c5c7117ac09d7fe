//! What the scheduler knows about a request, and what it measures of it.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use serde::Deserialize;

/// How urgent a request is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Priority {
    /// By its size: small requests before large ones.
    #[default]
    Auto,
    /// Before large requests, whatever its size.
    High,
    /// After small requests, whatever its size.
    Low,
}

/// A request's entry in the books of the scheduler.
#[derive(Debug, Default)]
pub struct Ticket {
    /// How urgent it is.
    pub priority: Priority,
    cancelled: AtomicBool,
    tokens: AtomicU64,
    queued: AtomicU64,
    computed: AtomicU64,
}

impl Ticket {
    /// A ticket of this priority.
    pub fn new(priority: Priority) -> Ticket {
        Ticket { priority, ..Ticket::default() }
    }

    /// Says that nobody waits for the answer.
    pub fn cancel(&self) {
        self.cancelled.store(true, Ordering::Relaxed);
    }

    /// Whether nobody waits for the answer.
    pub fn is_cancelled(&self) -> bool {
        self.cancelled.load(Ordering::Relaxed)
    }

    /// The number of tokens of all its sequences.
    pub fn tokens(&self) -> u64 {
        self.tokens.load(Ordering::Relaxed)
    }

    /// The time between its arrival in the queue and its first batch.
    pub fn queued(&self) -> Duration {
        Duration::from_nanos(self.queued.load(Ordering::Relaxed))
    }

    /// The time of the batches that contain its sequences.
    pub fn computed(&self) -> Duration {
        Duration::from_nanos(self.computed.load(Ordering::Relaxed))
    }

    pub(super) fn add_tokens(&self, tokens: usize) {
        self.tokens.fetch_add(tokens as u64, Ordering::Relaxed);
    }

    pub(super) fn add_queued(&self, time: Duration) {
        self.queued.fetch_add(time.as_nanos() as u64, Ordering::Relaxed);
    }

    pub(super) fn add_computed(&self, time: Duration) {
        self.computed.fetch_add(time.as_nanos() as u64, Ordering::Relaxed);
    }
}
