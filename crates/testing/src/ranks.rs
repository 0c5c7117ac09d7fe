//! Ranks without MPI: each is a thread of this process.

use std::any::Any;
use std::collections::BTreeMap;
use std::panic::resume_unwind;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

use cloze_comm::{Collective, Communicator};

/// Runs `rank` on `size` threads, each with the communicator of its number, and returns their results in order. The operations
/// check that all ranks call the same ones, with counts that fit together.
///
/// # Panics
/// That of the rank that failed first, if one did; the others, which wait for it, are ended. Likewise if one calls
/// [`Communicator::abort`], calls another operation than the others, or returns while the others wait for it.
pub fn ranks<T: Send>(size: usize, rank: impl Fn(&Communicator) -> T + Sync) -> Vec<T> {
    let meeting = Arc::new(Meeting { size, state: Mutex::default(), changed: Condvar::new() });
    let mut results: Vec<Result<T, Box<dyn Any + Send>>> = std::thread::scope(|scope| {
        let start = |number| {
            let (meeting, run) = (meeting.clone(), &rank);
            scope.spawn(move || {
                let _leaves = Leaves { meeting: meeting.clone(), rank: number };
                run(&Communicator::new(Rank { rank: number, round: Mutex::new(0), meeting }))
            })
        };
        let threads: Vec<_> = (0..size).map(start).collect();
        threads.into_iter().map(std::thread::ScopedJoinHandle::join).collect()
    });
    if let Some((first, _)) = meeting.lock().failed.take()
        && results[first].is_err()
        && let Err(panic) = results.swap_remove(first)
    {
        resume_unwind(panic);
    }
    results.into_iter().map(|result| result.unwrap_or_else(|panic| resume_unwind(panic))).collect()
}

/// Where the threads exchange bytes.
struct Meeting {
    size: usize,
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    /// The operations that are not complete, by their number. A fast rank may be one ahead of a slow one.
    rounds: BTreeMap<u64, Round>,
    /// The ranks that have returned.
    left: Vec<usize>,
    /// The rank that failed first, and why.
    failed: Option<(usize, String)>,
}

#[derive(Default)]
struct Round {
    /// The operation of the first rank that came, and that rank.
    operation: Option<(String, usize)>,
    /// What each rank sends to each other one, by sender.
    sent: BTreeMap<usize, Arc<Vec<Vec<u8>>>>,
    /// The number of ranks that have received.
    received: usize,
}

impl Meeting {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Ends all ranks because of `rank`.
    fn fail(&self, rank: usize, reason: &str) -> ! {
        self.lock().failed.get_or_insert_with(|| (rank, reason.to_owned()));
        self.changed.notify_all();
        panic!("rank {rank}: {reason}");
    }

    /// Gives `sends` to the others and waits for what they send to `rank`, by sender.
    fn exchange(&self, rank: usize, round: u64, operation: String, sends: Vec<Vec<u8>>) -> Vec<Arc<Vec<Vec<u8>>>> {
        let mut state = self.lock();
        let meeting = state.rounds.entry(round).or_default();
        let (expected, first) = meeting.operation.get_or_insert_with(|| (operation.clone(), rank));
        if *expected != operation {
            let reason = format!("operation {round} is {operation}, but that of rank {first} is {expected}");
            drop(state);
            self.fail(rank, &reason);
        }
        meeting.sent.insert(rank, Arc::new(sends));
        self.changed.notify_all();
        loop {
            if let Some((failed, reason)) = &state.failed {
                let line = format!("rank {rank} ends because of rank {failed}: {reason}");
                drop(state);
                panic!("{line}");
            }
            let meeting = &state.rounds[&round];
            if meeting.sent.len() == self.size {
                break;
            }
            if let Some(missing) = state.left.iter().find(|left| !meeting.sent.contains_key(left)) {
                let reason = format!("returned, but rank {rank} waits for it in {operation}");
                let missing = *missing;
                drop(state);
                self.fail(missing, &reason);
            }
            state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        let meeting = state.rounds.get_mut(&round).expect("a round that is not complete");
        let sent = meeting.sent.values().cloned().collect();
        meeting.received += 1;
        if meeting.received == self.size {
            state.rounds.remove(&round);
        }
        sent
    }
}

/// Tells the others that a thread has returned or panicked.
struct Leaves {
    meeting: Arc<Meeting>,
    rank: usize,
}

impl Drop for Leaves {
    fn drop(&mut self) {
        let mut state = self.meeting.lock();
        state.left.push(self.rank);
        if std::thread::panicking() {
            state.failed.get_or_insert_with(|| (self.rank, "a panic".to_owned()));
        }
        drop(state);
        self.meeting.changed.notify_all();
    }
}

/// The transport of one thread.
struct Rank {
    rank: usize,
    /// The number of the next operation. Locked during an operation: threads of one rank take turns.
    round: Mutex<u64>,
    meeting: Arc<Meeting>,
}

impl Rank {
    fn exchange(&self, operation: String, sends: Vec<Vec<u8>>) -> Vec<Arc<Vec<Vec<u8>>>> {
        let mut round = self.round.lock().unwrap_or_else(PoisonError::into_inner);
        let received = self.meeting.exchange(self.rank, *round, operation, sends);
        *round += 1;
        received
    }

    /// Sends the same bytes to all, or nothing.
    fn publish(&self, operation: String, bytes: Option<&[u8]>) -> Vec<Arc<Vec<Vec<u8>>>> {
        self.exchange(operation, bytes.map(<[u8]>::to_vec).into_iter().collect())
    }
}

impl Collective for Rank {
    fn rank(&self) -> usize {
        self.rank
    }

    fn size(&self) -> usize {
        self.meeting.size
    }

    fn host(&self) -> String {
        "localhost".to_owned()
    }

    fn describe(&self) -> String {
        "threads of one process".to_owned()
    }

    fn all_to_all(&self, send: &[u8], send_counts: &[usize], receive: &mut [u8], receive_counts: &[usize]) {
        let fit =
            |counts: &[usize], bytes: &[u8]| counts.len() == self.size() && counts.iter().sum::<usize>() == bytes.len();
        if !fit(send_counts, send) || !fit(receive_counts, receive) {
            self.meeting.fail(self.rank, "all_to_all: the counts do not fit the bytes");
        }
        let mut rest = send;
        let parts = send_counts.iter().map(|&count| rest.split_off(..count).unwrap_or_default().to_vec()).collect();
        let received = self.exchange("all_to_all".to_owned(), parts);
        let mut rest = receive;
        for (sender, (parts, &count)) in received.iter().zip(receive_counts).enumerate() {
            let part = &parts[self.rank];
            if sender == self.rank && count == 0 {
                continue;
            }
            if part.len() != count {
                let reason = format!("expects {count} bytes from rank {sender}, which sends {}", part.len());
                self.meeting.fail(self.rank, &reason);
            }
            rest.split_off_mut(..count).unwrap_or_default().copy_from_slice(part);
        }
    }

    fn all_gather(&self, all: &mut [u8], counts: &[usize]) {
        if counts.len() != self.size() || counts.iter().sum::<usize>() != all.len() {
            self.meeting.fail(self.rank, "all_gather: the counts do not fit the bytes");
        }
        let start: usize = counts[..self.rank].iter().sum();
        let own = &all[start..start + counts[self.rank]];
        let received = self.publish(format!("all_gather {counts:?}"), Some(own));
        let mut rest = all;
        for (parts, &count) in received.iter().zip(counts) {
            rest.split_off_mut(..count).unwrap_or_default().copy_from_slice(&parts[0]);
        }
    }

    fn broadcast(&self, bytes: &mut [u8], root: usize) {
        let operation = format!("broadcast of {} bytes of rank {root}", bytes.len());
        let received = self.publish(operation, (self.rank == root).then_some(bytes));
        bytes.copy_from_slice(&received[root][0]);
    }

    fn barrier(&self) {
        self.publish("barrier".to_owned(), None);
    }

    fn abort(&self, code: u8) -> ! {
        self.meeting.fail(self.rank, &format!("ends the job with exit code {code}"))
    }

    /// Waits for the others, as MPI does.
    fn finish(&self) {
        self.publish("finish".to_owned(), None);
    }
}

#[cfg(test)]
mod tests {
    use std::panic::{AssertUnwindSafe, catch_unwind};
    use std::time::Duration;

    use cloze_comm::{ReduceBuffers, part};

    use super::*;

    /// The message of the panic.
    fn failure(size: usize, rank: impl Fn(&Communicator) + Sync) -> String {
        let panic = catch_unwind(AssertUnwindSafe(|| ranks(size, rank))).expect_err("a rank fails");
        let text = panic.downcast_ref::<String>().cloned();
        text.or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).to_owned())).expect("a message")
    }

    #[test]
    fn all_operations_give_the_values_of_all_ranks_in_any_order_of_arrival() {
        for size in 1..5 {
            let numbers = ranks(size, |ranks| {
                let rank = ranks.rank();
                for round in 0..20 {
                    // Each rank is the last one in some rounds.
                    if round % size == rank {
                        std::thread::sleep(Duration::from_millis(1));
                    }
                    let all = ranks.all_gather(&vec![rank as u8; rank]);
                    assert!(all.iter().enumerate().all(|(r, bytes)| *bytes == vec![r as u8; r]));
                    let expected: Vec<u64> = (0..size as u64).flat_map(|r| [r, round as u64]).collect();
                    assert_eq!(ranks.all_gather_numbers(&[rank as u64, round as u64]), expected);
                    assert_eq!(ranks.broadcast(if rank == 0 { b"root".to_vec() } else { Vec::new() }), b"root");
                    ranks.barrier();
                }
                // Rank r has the number 10 r + i for slice i: slice i of the sum is 10 (0 + 1 + …) + i × size.
                let send: Vec<f32> = (0..size).map(|i| (10 * rank + i) as f32).collect();
                let mut sums = [0.0];
                ranks.reduce_scatter(size, &send, &vec![1; size], &mut ReduceBuffers::default(), &mut sums);
                assert_eq!(sums, [(5 * size * (size - 1) + rank * size) as f32]);
                let mut numbers: Vec<f32> = (0..7).map(|i| (rank * i) as f32).collect();
                ranks.all_reduce(&mut numbers);
                ranks.finish();
                (rank, ranks.part(10), numbers)
            });
            let total = (size * (size - 1) / 2) as f32;
            for (rank, (number, range, sums)) in numbers.into_iter().enumerate() {
                assert_eq!((number, range), (rank, part(10, rank, size)));
                assert_eq!(sums, (0..7).map(|i| total * i as f32).collect::<Vec<_>>());
            }
        }
    }

    #[test]
    fn a_rank_that_fails_ends_the_others_and_its_panic_is_reported() {
        let line = failure(3, |ranks| {
            assert!(ranks.rank() != 1, "the cause");
            ranks.barrier();
        });
        assert_eq!(line, "the cause");
        let line = failure(3, |ranks| if ranks.rank() == 2 { ranks.abort(1) } else { ranks.barrier() });
        assert_eq!(line, "rank 2: ends the job with exit code 1");
    }

    #[test]
    fn ranks_that_do_not_call_the_same_operations_fail() {
        let line = failure(2, |ranks| {
            if ranks.rank() == 0 {
                ranks.barrier();
            } else {
                ranks.broadcast_numbers(&mut [0u64]);
            }
        });
        assert!(line.contains("barrier") && line.contains("broadcast of 8 bytes of rank 0"), "{line}");
        let line = failure(2, |ranks| {
            if ranks.rank() == 0 {
                ranks.barrier();
            }
        });
        assert!(line.contains("rank 1: returned") || line.contains("because of rank 1"), "{line}");
        let line = failure(2, |ranks| {
            ranks.all_gather_parts(&mut vec![0u8; 2 + ranks.rank()], &[1, 1 + ranks.rank()]);
        });
        assert!(line.contains("all_gather [1, 1]") && line.contains("all_gather [1, 2]"), "{line}");
    }

    #[test]
    fn rank_0_gets_the_bytes_of_all_ranks_in_order_in_windows_of_any_size() {
        for size in 1..5 {
            for window in [1, 3, 7, 100] {
                let found = ranks(size, |ranks| {
                    // Rank 1 has nothing.
                    let mine: Vec<u8> =
                        (0..ranks.rank() * 5 % 10 + usize::from(ranks.is_root())).map(|i| i as u8).collect();
                    let mut found = Vec::new();
                    let gathered = ranks.gather_bytes(&mine, window, |rank, bytes| {
                        found.push((rank, bytes.to_vec()));
                        Ok::<(), ()>(())
                    });
                    assert_eq!(gathered, Ok(()));
                    (mine, found)
                });
                let expected: Vec<_> = found.iter().map(|(mine, _)| mine.clone()).enumerate().collect();
                assert_eq!(found[0].1, expected, "{size} ranks, {window} bytes");
                assert!(found[1..].iter().all(|(_, found)| found.is_empty()));
            }
        }
    }

    #[test]
    fn the_first_rank_that_differs_is_found() {
        let found = ranks(4, |ranks| {
            let equal = ranks.first_difference(7);
            (equal, ranks.first_difference(ranks.rank() as u64 / 2))
        });
        assert!(found.iter().all(|found| *found == (None, Some((2, "localhost".to_owned())))), "{found:?}");
    }

    #[test]
    fn the_others_wait_for_the_work_of_rank_0() {
        let found = ranks(3, |ranks| {
            let done = ranks.at_root(|| {
                // Longer than two signs of life.
                std::thread::sleep(Duration::from_millis(2500));
                Ok::<_, ()>("done")
            });
            (done, ranks.all_gather_numbers(&[ranks.rank() as u64]))
        });
        assert_eq!(found[0], (Ok(Some("done")), vec![0, 1, 2]));
        assert!(found[1..].iter().all(|rank| *rank == (Ok(None), vec![0, 1, 2])));
        assert_eq!(Communicator::single().at_root(|| Ok::<_, ()>(1)), Ok(Some(1)));
    }
}
