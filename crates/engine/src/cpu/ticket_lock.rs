//! A fair lock: callers get it in the order of their arrival.
//!
//! Without contention, locking and unlocking take one atomic addition each. A caller that finds the lock taken spins
//! briefly and then parks until its predecessor unlocks, so that it does not occupy a core.

use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering::*};
use std::thread::Thread;

/// Iterations of a spin loop before a caller parks: a few microseconds.
const SPINS: u32 = 100;

/// A ticket lock.
pub(super) struct TicketLock {
    /// The ticket of the next caller.
    next: AtomicU64,
    /// The ticket that holds the lock.
    serving: AtomicU64,
    /// Callers that are parked or about to park, and their tickets.
    parked: AtomicUsize,
    threads: Mutex<Vec<(u64, Thread)>>,
}

/// Holds the lock until dropped.
pub(super) struct TicketGuard<'a>(&'a TicketLock);

impl TicketLock {
    pub(super) fn new() -> TicketLock {
        let (next, serving) = (AtomicU64::new(0), AtomicU64::new(0));
        TicketLock { next, serving, parked: AtomicUsize::new(0), threads: Mutex::new(Vec::new()) }
    }

    /// Waits until this caller holds the lock.
    pub(super) fn lock(&self) -> TicketGuard<'_> {
        let ticket = self.next.fetch_add(1, Relaxed);
        for _ in 0..SPINS {
            if self.serving.load(Acquire) == ticket {
                return TicketGuard(self);
            }
            std::hint::spin_loop();
        }
        // SeqCst here and in `drop`: either this thread sees that it holds the lock, or its predecessor sees it in the
        // list.
        self.waiting().push((ticket, std::thread::current()));
        self.parked.fetch_add(1, SeqCst);
        while self.serving.load(SeqCst) != ticket {
            std::thread::park();
        }
        self.parked.fetch_sub(1, Relaxed);
        self.waiting().retain(|(waiting, _)| *waiting != ticket);
        TicketGuard(self)
    }

    fn waiting(&self) -> std::sync::MutexGuard<'_, Vec<(u64, Thread)>> {
        self.threads.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }
}

impl Drop for TicketGuard<'_> {
    fn drop(&mut self) {
        let ticket = self.0.serving.fetch_add(1, SeqCst) + 1;
        if self.0.parked.load(SeqCst) > 0
            && let Some((_, thread)) = self.0.waiting().iter().find(|(waiting, _)| *waiting == ticket)
        {
            thread.unpark();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn holders_exclude_each_other_and_all_callers_get_the_lock() {
        let (lock, inside, count) = (TicketLock::new(), AtomicUsize::new(0), AtomicUsize::new(0));
        std::thread::scope(|scope| {
            for _ in 0..6 {
                scope.spawn(|| {
                    for round in 0..200 {
                        let _guard = lock.lock();
                        assert_eq!(inside.fetch_add(1, SeqCst), 0);
                        if round % 20 == 0 {
                            std::thread::yield_now();
                        }
                        inside.fetch_sub(1, SeqCst);
                        count.fetch_add(1, Relaxed);
                    }
                });
            }
        });
        assert_eq!(count.load(Relaxed), 1200);
    }

    /// First come, first served: a caller that has just unlocked does not overtake those that wait.
    #[test]
    fn callers_get_the_lock_in_order() {
        let lock = TicketLock::new();
        let order = Mutex::new(Vec::new());
        std::thread::scope(|scope| {
            let guard = lock.lock();
            for caller in 0..4 {
                scope.spawn({
                    let (lock, order) = (&lock, &order);
                    move || {
                        let _guard = lock.lock();
                        order.lock().unwrap().push(caller);
                    }
                });
                // Wait until the caller has its ticket.
                while lock.next.load(SeqCst) < caller + 2 {
                    std::thread::yield_now();
                }
            }
            drop(guard);
            let _again = lock.lock();
            assert_eq!(*order.lock().unwrap(), [0, 1, 2, 3]);
        });
    }
}
