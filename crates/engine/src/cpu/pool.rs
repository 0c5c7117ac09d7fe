//! A fork-join pool: `run` distributes the indices of a task over all threads and returns when all are done.
//!
//! Several threads may call `run`: the calls run one after the other, each on all threads. A call that finds the pool
//! idle allocates nothing and takes no mutex: the task's address is published with one atomic word, and threads take
//! indices from one counter. Idle workers spin for some tens of microseconds, because the operations of a training step
//! follow each other closely, and then park.
//!
//! The word `state` contains the number of workers in the current call (low bits), the OPEN bit, and the number of the
//! call. A worker enters a call with a compare-and-swap that succeeds only while the call is open, so a call does not
//! wait for workers that wake up late.

use std::any::Any;
use std::cell::{Cell, UnsafeCell};
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering::*};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;

use super::ticket_lock::TicketLock;

/// Iterations of a spin loop (about 40 to 140 cycles each) before a worker parks.
const SPINS: u32 = 1500;
const INSIDE: u64 = (1 << 16) - 1;
const OPEN: u64 = 1 << 16;
const CALL: u64 = 1 << 17;

type Task<'a> = dyn Fn(usize) + Sync + 'a;

#[derive(Clone, Copy)]
struct Job {
    task: *const Task<'static>,
    tasks: usize,
}

/// Separates data that one side writes often from the cache line that the other side polls.
#[repr(align(128))]
struct CachePadded<T>(T);

thread_local! {
    /// Whether this thread is running a task of any pool.
    static IN_TASK: Cell<bool> = const { Cell::new(false) };
}

struct Shared {
    lock: TicketLock,
    state: CachePadded<AtomicU64>,
    next: CachePadded<AtomicUsize>,
    job: UnsafeCell<Option<Job>>,
    closing: AtomicBool,
    parked: Vec<CachePadded<AtomicBool>>,
    panic: Mutex<Option<Box<dyn Any + Send>>>,
}

// SAFETY: `job` is written only by the thread that holds the lock, while the state is closed and no worker is inside;
// workers read it only after entering. The pointer in it refers to a `Sync` task that outlives the call.
unsafe impl Send for Shared {}
// SAFETY: as above.
unsafe impl Sync for Shared {}

/// A fork-join pool of a fixed number of threads, including the caller's.
pub struct Pool {
    shared: Arc<Shared>,
    workers: Vec<JoinHandle<()>>,
}

impl Pool {
    /// A pool of `threads` threads: the caller's and `threads − 1` workers. It has fewer if the system cannot start
    /// them.
    pub fn new(threads: usize) -> Pool {
        let workers = threads.clamp(1, INSIDE as usize) - 1;
        let shared = Arc::new(Shared {
            lock: TicketLock::new(),
            state: CachePadded(AtomicU64::new(0)),
            next: CachePadded(AtomicUsize::new(0)),
            job: UnsafeCell::new(None),
            closing: AtomicBool::new(false),
            parked: (0..workers).map(|_| CachePadded(AtomicBool::new(false))).collect(),
            panic: Mutex::new(None),
        });
        let workers = (0..workers)
            .map_while(|index| {
                let shared = Arc::clone(&shared);
                let body = move || shared.worker_loop(index);
                std::thread::Builder::new().name(format!("cloze-{}", index + 1)).spawn(body).ok()
            })
            .collect();
        Pool { shared, workers }
    }

    /// The number of threads, including the caller's.
    pub fn threads(&self) -> usize {
        self.workers.len() + 1
    }

    /// Runs `task(i)` for each `i` in `0..tasks` on all threads, in no fixed order, and returns when all are done. If
    /// another thread's call is running, it waits; waiting calls run in the order of their arrival.
    ///
    /// A call from within a task, of this or another pool, runs only on the calling thread: the other threads are
    /// already busy, and two pools whose tasks wait for each other would deadlock.
    ///
    /// # Panics
    /// Propagates the first panic of a task after all threads have left the task; remaining indices are skipped.
    pub fn run(&self, tasks: usize, task: &(dyn Fn(usize) + Sync)) {
        let shared = &*self.shared;
        if tasks <= 1 || self.workers.is_empty() || IN_TASK.get() {
            return (0..tasks).for_each(task);
        }
        let guard = shared.lock.lock();
        // SAFETY: only the lifetime changes. When this call returns, no worker is inside, so none uses the task
        // afterwards.
        let task = unsafe { std::mem::transmute::<*const Task<'_>, *const Task<'static>>(task) };
        // SAFETY: this thread holds the lock, the state is closed and no worker is inside: no other thread reads the
        // job.
        unsafe { *shared.job.get() = Some(Job { task, tasks }) };
        shared.next.0.store(0, Relaxed);
        // SeqCst here and around `parked`: either the worker sees the new call, or this thread sees that the worker has
        // parked.
        shared.state.0.fetch_add(CALL | OPEN, SeqCst);
        for (parked, worker) in shared.parked.iter().zip(&self.workers) {
            if parked.0.load(SeqCst) && parked.0.swap(false, SeqCst) {
                worker.thread().unpark();
            }
        }
        shared.run_tasks(Job { task, tasks });
        let mut inside = shared.state.0.fetch_and(!OPEN, AcqRel) & INSIDE;
        let mut spins = 0;
        while inside > 0 {
            spins += 1;
            // After so many spins, a worker has probably lost its core to another process: yield this one to it.
            if spins > SPINS {
                std::thread::yield_now()
            } else {
                std::hint::spin_loop()
            }
            inside = shared.state.0.load(Acquire) & INSIDE;
        }
        let panic = match shared.panic.lock() {
            Ok(mut slot) => slot.take(),
            Err(poisoned) => poisoned.into_inner().take(),
        };
        drop(guard);
        if let Some(panic) = panic {
            resume_unwind(panic);
        }
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        self.shared.closing.store(true, SeqCst);
        for worker in self.workers.drain(..) {
            worker.thread().unpark();
            // A worker never panics: panics of tasks are caught.
            let _ = worker.join();
        }
    }
}

impl Shared {
    /// Takes indices and runs the task with them until none are left.
    fn run_tasks(&self, job: Job) {
        IN_TASK.set(true);
        let result = catch_unwind(AssertUnwindSafe(|| {
            // SAFETY: the task lives until `run` returns, which waits for all threads inside.
            let task = unsafe { &*job.task };
            loop {
                let index = self.next.0.fetch_add(1, Relaxed);
                if index >= job.tasks {
                    break;
                }
                task(index);
            }
        }));
        IN_TASK.set(false);
        if let Err(panic) = result {
            self.next.0.store(job.tasks, Relaxed);
            if let Ok(mut slot) = self.panic.lock() {
                slot.get_or_insert(panic);
            }
        }
    }

    /// The main loop of a worker.
    fn worker_loop(&self, index: usize) {
        let mut spins = 0;
        let mut done = 0; // number of the last call that this worker joined
        loop {
            let state = self.state.0.load(SeqCst);
            let call = state & !(OPEN | INSIDE);
            if state & OPEN != 0 && call != done {
                if self.state.0.compare_exchange_weak(state, state + 1, Acquire, Relaxed).is_ok() {
                    // SAFETY: this worker is inside: the job was written before the call opened and is unchanged until
                    // the worker leaves.
                    if let Some(job) = unsafe { *self.job.get() } {
                        self.run_tasks(job);
                    }
                    self.state.0.fetch_sub(1, Release);
                    done = call;
                    spins = 0;
                }
                continue;
            }
            if self.closing.load(SeqCst) {
                return;
            }
            spins += 1;
            if spins < SPINS {
                std::hint::spin_loop();
                continue;
            }
            let parked = &self.parked[index].0;
            parked.store(true, SeqCst);
            let state = self.state.0.load(SeqCst);
            let has_new_call = state & OPEN != 0 && state & !(OPEN | INSIDE) != done;
            if !has_new_call && !self.closing.load(SeqCst) {
                std::thread::park();
            }
            parked.store(false, SeqCst);
            spins = 0;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;
    use std::time::{Duration, Instant};

    use super::*;

    #[test]
    fn every_index_runs_once() {
        for threads in [1, 2, 3, 5] {
            let pool = Pool::new(threads);
            assert_eq!(pool.threads(), threads);
            for tasks in [0, 1, 2, 7, 100] {
                for _ in 0..200 {
                    let counts: Vec<AtomicUsize> = (0..tasks).map(|_| AtomicUsize::new(0)).collect();
                    pool.run(tasks, &|i| {
                        counts[i].fetch_add(1, Relaxed);
                    });
                    assert!(counts.iter().all(|count| count.load(Relaxed) == 1));
                }
            }
        }
    }

    /// Waits, within a task, until all threads of the pool are in tasks of this call. Fails if they do not run at the
    /// same time.
    fn wait_for_all(threads: usize, arrived: &AtomicUsize) {
        let start = Instant::now();
        arrived.fetch_add(1, SeqCst);
        while arrived.load(SeqCst) < threads {
            assert!(start.elapsed() < Duration::from_secs(20), "fewer than {threads} threads are running");
            std::thread::yield_now();
        }
    }

    #[test]
    fn parked_workers_wake_up() {
        let pool = Pool::new(3);
        for _ in 0..5 {
            // Long enough for the workers to park.
            std::thread::sleep(Duration::from_millis(5));
            let (arrived, ran_on) = (AtomicUsize::new(0), Mutex::new(HashSet::new()));
            pool.run(3, &|_| {
                wait_for_all(3, &arrived);
                ran_on.lock().unwrap().insert(std::thread::current().id());
            });
            assert_eq!(ran_on.lock().unwrap().len(), 3);
        }
    }

    /// Concurrent calls wait for each other; none runs on fewer threads or starves.
    #[test]
    fn every_caller_gets_all_threads() {
        let pool = Pool::new(2);
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    for _ in 0..50 {
                        let arrived = AtomicUsize::new(0);
                        pool.run(2, &|_| wait_for_all(2, &arrived));
                    }
                });
            }
        });
    }

    #[test]
    fn a_call_within_a_task_runs_on_its_thread() {
        let (pool, other) = (Pool::new(2), Pool::new(2));
        pool.run(2, &|_| {
            let thread = std::thread::current().id();
            for pool in [&pool, &other] {
                pool.run(8, &|_| assert_eq!(std::thread::current().id(), thread));
            }
        });
        // Outside of a task, all threads are used again.
        let arrived = AtomicUsize::new(0);
        other.run(2, &|_| wait_for_all(2, &arrived));
    }

    #[test]
    fn a_panic_is_passed_on_and_the_pool_survives_it() {
        let pool = Pool::new(3);
        for _ in 0..20 {
            let outcome = catch_unwind(AssertUnwindSafe(|| pool.run(64, &|i| assert!(i != 20, "task twenty"))));
            let message = *outcome.unwrap_err().downcast::<&str>().unwrap();
            assert_eq!(message, "task twenty");
        }
        let sum = AtomicUsize::new(0);
        pool.run(10, &|i| {
            sum.fetch_add(i, Relaxed);
        });
        assert_eq!(sum.load(Relaxed), 45);
    }

    #[test]
    fn nested_and_concurrent_calls_finish() {
        let pool = Pool::new(2);
        let sum = AtomicUsize::new(0);
        std::thread::scope(|scope| {
            for _ in 0..3 {
                scope.spawn(|| {
                    for _ in 0..50 {
                        pool.run(4, &|_| {
                            pool.run(4, &|i| {
                                sum.fetch_add(i, Relaxed);
                            })
                        });
                    }
                });
            }
        });
        assert_eq!(sum.load(Relaxed), 3 * 50 * 4 * 6);
    }
}
