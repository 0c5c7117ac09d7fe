//! Turns: callers have something to themselves one after the other, in the order in which they came.
//!
//! Without competition a turn takes one atomic addition and gives back another. A caller that finds others before it spins for a
//! moment and then parks until the one before it is done, so that it takes no core from the threads at work.

use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering::*};
use std::thread::Thread;

/// Rounds of a spin loop before a caller parks: some microseconds.
const SPINS: u32 = 100;

pub(super) struct Turns {
    /// The number that the next caller draws.
    next: AtomicU64,
    /// The number whose turn it is.
    serving: AtomicU64,
    /// Callers that park, or are about to, and their numbers.
    parked: AtomicUsize,
    threads: Mutex<Vec<(u64, Thread)>>,
}

/// A turn, until it is dropped.
pub(super) struct Turn<'a>(&'a Turns);

impl Turns {
    pub(super) fn new() -> Turns {
        let (next, serving) = (AtomicU64::new(0), AtomicU64::new(0));
        Turns { next, serving, parked: AtomicUsize::new(0), threads: Mutex::new(Vec::new()) }
    }

    /// Waits for this caller's turn.
    pub(super) fn take(&self) -> Turn<'_> {
        let number = self.next.fetch_add(1, Relaxed);
        for _ in 0..SPINS {
            if self.serving.load(Acquire) == number {
                return Turn(self);
            }
            std::hint::spin_loop();
        }
        // SeqCst here and in `drop`: either this thread sees that its turn has come or the one before sees it in the list.
        self.lock().push((number, std::thread::current()));
        self.parked.fetch_add(1, SeqCst);
        while self.serving.load(SeqCst) != number {
            std::thread::park();
        }
        self.parked.fetch_sub(1, Relaxed);
        self.lock().retain(|(parked, _)| *parked != number);
        Turn(self)
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Vec<(u64, Thread)>> {
        self.threads.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        let number = self.0.serving.fetch_add(1, SeqCst) + 1;
        if self.0.parked.load(SeqCst) > 0
            && let Some((_, thread)) = self.0.lock().iter().find(|(parked, _)| *parked == number)
        {
            thread.unpark();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Each caller has it alone, and none is forgotten.
    #[test]
    fn turns_exclude_each_other_and_all_come() {
        let (turns, inside, count) = (Turns::new(), AtomicUsize::new(0), AtomicUsize::new(0));
        std::thread::scope(|scope| {
            for _ in 0..6 {
                scope.spawn(|| {
                    for round in 0..200 {
                        let _turn = turns.take();
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

    /// First come, first served: who has just had a turn does not overtake those who wait.
    #[test]
    fn turns_come_in_order() {
        let turns = Turns::new();
        let order = Mutex::new(Vec::new());
        std::thread::scope(|scope| {
            let turn = turns.take();
            for caller in 0..4 {
                scope.spawn({
                    let (turns, order) = (&turns, &order);
                    move || {
                        let _turn = turns.take();
                        order.lock().unwrap().push(caller);
                    }
                });
                // The caller has drawn its number before the next one comes.
                while turns.next.load(SeqCst) < caller + 2 {
                    std::thread::yield_now();
                }
            }
            drop(turn);
            let _again = turns.take();
            assert_eq!(*order.lock().unwrap(), [0, 1, 2, 3]);
        });
    }
}
