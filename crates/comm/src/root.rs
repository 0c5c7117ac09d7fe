//! What ranks do for rank 0, which writes: they send it bytes, agree with it on what they read, and wait for it.

use std::ops::Range;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread::{Builder, JoinHandle};
use std::time::Duration;

use crate::Communicator;

/// How often rank 0 tells the others that it is working.
const SIGN_OF_LIFE: Duration = Duration::from_secs(1);
/// What rank 0 sends to those that wait for it.
const WORKING: u8 = 0;
const DONE: u8 = 1;

impl Communicator {
    /// Gives the bytes of each rank to `take` at rank 0, rank by rank; nothing at other ranks. Rank 0 receives `window` bytes at once,
    /// and has those of one rank in memory.
    ///
    /// # Errors
    /// The first error of `take`. The other ranks do not see it.
    pub fn gather_bytes<E>(
        &self,
        mine: &[u8],
        window: usize,
        mut take: impl FnMut(usize, &[u8]) -> Result<(), E>,
    ) -> Result<(), E> {
        if self.is_single() {
            return take(0, mine);
        }
        let mut total = 0;
        let lengths = self.all_gather_numbers(&[mine.len() as u64]);
        let places: Vec<Range<usize>> = lengths.iter().map(|&length| append(&mut total, length as usize)).collect();
        let own = &places[self.rank()];
        let (mut bytes, mut next) = (Vec::new(), 0);
        for start in (0..total.max(1)).step_by(window) {
            let end = start + window;
            // The part of a rank that is in this window of the bytes of all ranks.
            let part = |place: &Range<usize>| start.clamp(place.start, place.end)..end.clamp(place.start, place.end);
            let counts: Vec<usize> = places.iter().map(|place| part(place).len()).collect();
            let sent = part(own);
            let mut received = self.gather_parts(&mine[sent.start - own.start..sent.end - own.start], &counts);
            if !self.is_root() {
                continue;
            }
            bytes.append(&mut received);
            let mut taken = 0;
            while let Some(place) = places.get(next).filter(|place| place.end <= end) {
                take(next, &bytes[taken..][..place.len()])?;
                taken += place.len();
                next += 1;
            }
            bytes.drain(..taken);
        }
        Ok(())
    }

    /// Compares a digest of what each rank has read. Returns the first rank whose digest is not that of rank 0, and its machine.
    pub fn first_difference(&self, digest: u64) -> Option<(usize, String)> {
        if self.is_single() {
            return None;
        }
        let digests = self.all_gather_numbers(&[digest]);
        let rank = digests.iter().position(|other| *other != digests[0])?;
        let hosts = self.all_gather(self.host().as_bytes());
        Some((rank, String::from_utf8_lossy(&hosts[rank]).into_owned()))
    }

    /// Runs `work` at rank 0, however long it takes, while the others wait. Returns its result at rank 0, and nothing at other ranks.
    ///
    /// # Errors
    /// That of `work`, at rank 0. The others wait for ever then: the process must end, and with it the job.
    pub fn at_root<T, E>(&self, work: impl FnOnce() -> Result<T, E>) -> Result<Option<T>, E> {
        if !self.is_root() {
            self.wait_for_root();
            return Ok(None);
        }
        let working = self.work_at_root();
        let result = work()?;
        working.done();
        Ok(Some(result))
    }

    /// Each rank does work of its own, without other operations, however long it takes; returns when all have done theirs.
    ///
    /// # Errors
    /// That of `work`, at this rank. The others wait for ever then: the process must end, and with it the job.
    pub fn each<T, E>(&self, work: impl FnOnce() -> Result<T, E>) -> Result<T, E> {
        if self.is_single() {
            return work();
        }
        let is_working = Arc::new(AtomicBool::new(true));
        let (ranks, working) = (self.clone(), is_working.clone());
        let wait_for_all = move || {
            while ranks.any(working.load(Ordering::Acquire)) {
                std::thread::sleep(SIGN_OF_LIFE);
            }
        };
        // Without a thread, the others wait as long as they have patience.
        let thread = Builder::new().spawn(wait_for_all.clone());
        // After an error the thread goes on until the process ends.
        let result = work()?;
        is_working.store(false, Ordering::Release);
        match thread {
            Ok(thread) => thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)),
            Err(_) => wait_for_all(),
        }
        Ok(result)
    }

    /// Rank 0 begins work that may take long: until it is [done](RootWork::done), the others are in
    /// [`wait_for_root`](Self::wait_for_root). No other operation may be used until then.
    pub fn work_at_root(&self) -> RootWork {
        let state = Arc::new((Mutex::new(false), Condvar::new()));
        let (ranks, ending) = (self.clone(), state.clone());
        let signs = move || {
            let (is_over, changed) = &*ending;
            let mut over = is_over.lock().unwrap_or_else(PoisonError::into_inner);
            loop {
                let waited = changed.wait_timeout(over, SIGN_OF_LIFE).unwrap_or_else(PoisonError::into_inner);
                over = waited.0;
                if *over {
                    return;
                }
                if waited.1.timed_out() {
                    ranks.broadcast_numbers(&mut [WORKING]);
                }
            }
        };
        // Without a thread, the others wait as long as they have patience.
        let thread = if self.is_single() { None } else { Builder::new().spawn(signs).ok() };
        RootWork { ranks: self.clone(), state, thread }
    }

    /// Waits until rank 0 has done its [work](Self::work_at_root).
    pub fn wait_for_root(&self) {
        let mut sign = [WORKING];
        while sign == [WORKING] {
            self.broadcast_numbers(&mut sign);
        }
    }
}

/// The next `length` places after `total`.
fn append(total: &mut usize, length: usize) -> Range<usize> {
    let start = *total;
    *total += length;
    start..*total
}

/// Work of rank 0 for which the others wait. A thread tells them each second that rank 0 is alive, so that they do not lose patience.
#[must_use]
pub struct RootWork {
    ranks: Communicator,
    /// Whether the work is over.
    state: Arc<(Mutex<bool>, Condvar)>,
    thread: Option<JoinHandle<()>>,
}

impl RootWork {
    /// The others may go on.
    pub fn done(mut self) {
        self.end();
        if !self.ranks.is_single() {
            self.ranks.broadcast_numbers(&mut [DONE]);
        }
    }

    fn end(&mut self) {
        *self.state.0.lock().unwrap_or_else(PoisonError::into_inner) = true;
        self.state.1.notify_all();
        if let Some(thread) = self.thread.take() {
            let _ = thread.join(); // It does not panic.
        }
    }
}

/// Work that failed: the others wait until the job ends.
impl Drop for RootWork {
    fn drop(&mut self) {
        self.end();
    }
}
