//! The order of computation: two lanes of jobs, and the choice of the next batch. No threads and no models: only the rules.
//!
//! - The *fast lane* has requests that take less than a batch's time or have a few sequences, the *bulk lane* larger ones. The fast lane goes first, but after
//!   four of its batches the bulk lane gets one, so that it always advances.
//! - Within a lane, first come, first served. A batch is filled up with sequences of other jobs that need the same computation, of the same
//!   lane and then of the other.
//! - A batch has a time: while small requests arrive, that of bulk batches is short, because an arriving request waits for the end of
//!   the batch.

use std::collections::VecDeque;
use std::ops::Range;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::cost::Cost;
use super::ticket::{Priority, Ticket};

/// The number of batches of the fast lane after which a waiting bulk job gets one.
const FAST_IN_A_ROW: usize = 4;
/// A request with at most this many sequences is small, whatever their lengths.
const FEW: usize = 4;
/// How long a small request counts as recent.
const RECENT: Duration = Duration::from_secs(1);

/// Limits of a batch.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Maximum number of tokens of a batch; a longer sequence is a batch of its own.
    pub batch_tokens: usize,
    /// Maximum time of a batch.
    pub batch_time: Duration,
    /// The same for bulk batches while small requests arrive.
    pub shared_time: Duration,
}

/// What can be computed in one batch. Equal keys can share batches.
pub trait Key: PartialEq {
    /// How long its model takes.
    fn cost(&self) -> &Cost;
}

/// The sequences of a request that need the same computation.
pub struct Job<K, W> {
    /// The computation.
    pub key: K,
    /// The number of tokens of each unit. A unit (a sequence, or the choices of a question) is not divided.
    pub lengths: Vec<usize>,
    /// The units themselves, and where their results go.
    pub work: W,
    /// The request.
    pub ticket: Arc<Ticket>,
    /// When the job arrived.
    pub arrived: Instant,
}

/// Some units of a job.
pub struct Part<K, W> {
    /// The job.
    pub job: Arc<Job<K, W>>,
    /// The units.
    pub units: Range<usize>,
}

struct Waiting<K, W> {
    job: Arc<Job<K, W>>,
    /// The first unit that was not computed.
    next: usize,
    /// The number of tokens from there.
    tokens: usize,
}

/// The jobs that wait.
pub struct Queue<K, W> {
    lanes: [VecDeque<Waiting<K, W>>; 2],
    /// Batches of the fast lane in a row while the bulk lane waited.
    in_a_row: usize,
    last_small: Option<Instant>,
}

const FAST: usize = 0;
const BULK: usize = 1;

impl<K, W> Default for Queue<K, W> {
    fn default() -> Queue<K, W> {
        Queue { lanes: [VecDeque::new(), VecDeque::new()], in_a_row: 0, last_small: None }
    }
}

impl<K: Key, W> Queue<K, W> {
    /// The lane of a request with this number of sequences, which take so many seconds.
    fn lane(priority: Priority, (units, seconds): (usize, f64), limits: &Limits) -> usize {
        match priority {
            Priority::High => FAST,
            Priority::Low => BULK,
            Priority::Auto if units <= FEW || seconds <= limits.batch_time.as_secs_f64() => FAST,
            Priority::Auto => BULK,
        }
    }

    /// Seconds of computation that are ahead of a new request of so many sequences and tokens.
    pub fn wait(&self, cost: &Cost, (units, tokens): (usize, usize), priority: Priority, limits: &Limits) -> f64 {
        let seconds = |lane: usize| -> f64 {
            self.lanes[lane].iter().map(|waiting| waiting.job.key.cost().seconds(waiting.tokens)).sum()
        };
        let fast = seconds(FAST);
        match Self::lane(priority, (units, cost.seconds(tokens)), limits) {
            // While the fast lane is computed, some bulk batches are, too.
            FAST => fast + (fast / FAST_IN_A_ROW as f64).min(seconds(BULK)),
            _ => fast + seconds(BULK),
        }
    }

    /// Adds a job. A job without units is not added.
    pub fn push(&mut self, job: Job<K, W>, limits: &Limits) {
        if job.lengths.is_empty() {
            return;
        }
        let tokens = job.lengths.iter().sum();
        let seconds = job.key.cost().seconds(tokens);
        let lane = Self::lane(job.ticket.priority, (job.lengths.len(), seconds), limits);
        if lane == FAST {
            self.last_small = Some(job.arrived);
        }
        self.lanes[lane].push_back(Waiting { job: Arc::new(job), next: 0, tokens });
    }

    /// Removes the jobs for which nobody waits.
    pub fn remove_cancelled(&mut self) {
        for lane in &mut self.lanes {
            lane.retain(|waiting| !waiting.job.ticket.is_cancelled());
        }
    }

    /// The number of jobs that wait.
    pub fn jobs(&self) -> usize {
        self.lanes.iter().map(VecDeque::len).sum()
    }

    /// The number of tokens that wait.
    pub fn tokens(&self) -> usize {
        self.lanes.iter().flatten().map(|waiting| waiting.tokens).sum()
    }

    /// The next batch; none if no job waits. Adds the time in the queue to the tickets of jobs that begin.
    pub fn next(&mut self, now: Instant, limits: &Limits) -> Option<Vec<Part<K, W>>> {
        self.remove_cancelled();
        let lane = match (self.lanes[FAST].is_empty(), self.lanes[BULK].is_empty()) {
            (true, true) => return None,
            (false, true) => FAST,
            (true, false) => BULK,
            (false, false) if self.in_a_row >= FAST_IN_A_ROW => BULK,
            (false, false) => FAST,
        };
        self.in_a_row = if lane == FAST && !self.lanes[BULK].is_empty() { self.in_a_row + 1 } else { 0 };
        let is_shared = self.last_small.is_some_and(|last| now.saturating_duration_since(last) < RECENT);
        let time = if lane == BULK && is_shared { limits.shared_time } else { limits.batch_time };
        let first = Arc::clone(&self.lanes[lane].front()?.job);
        let most = limits.batch_tokens.min(first.key.cost().tokens(time));
        // Small requests do not wait for what large ones add to their batch.
        let added = match lane {
            FAST => most.min(first.key.cost().tokens(limits.shared_time)),
            _ => most,
        };
        let (mut parts, mut tokens) = (Vec::new(), 0);
        for (lane, most) in [(lane, most), (FAST, most), (BULK, added)] {
            for waiting in &mut self.lanes[lane] {
                if waiting.job.key != first.key {
                    continue;
                }
                let begin = waiting.next;
                while let Some(length) = waiting.job.lengths.get(waiting.next) {
                    if tokens > 0 && tokens + length > most {
                        break;
                    }
                    tokens += length;
                    waiting.tokens -= length;
                    waiting.next += 1;
                }
                if waiting.next > begin {
                    if begin == 0 {
                        waiting.job.ticket.add_queued(now.saturating_duration_since(waiting.job.arrived));
                    }
                    parts.push(Part { job: Arc::clone(&waiting.job), units: begin..waiting.next });
                }
                if tokens >= most {
                    break;
                }
            }
        }
        for lane in &mut self.lanes {
            lane.retain(|waiting| waiting.next < waiting.job.lengths.len());
        }
        Some(parts)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Computation {
        number: u32,
        cost: Arc<Cost>,
    }

    impl PartialEq for Computation {
        fn eq(&self, other: &Computation) -> bool {
            self.number == other.number
        }
    }

    impl Key for Computation {
        fn cost(&self) -> &Cost {
            &self.cost
        }
    }

    const LIMITS: Limits =
        Limits { batch_tokens: 100, batch_time: Duration::from_millis(50), shared_time: Duration::from_millis(10) };

    /// Each token takes a millisecond.
    fn job(number: u32, lengths: &[usize], priority: Priority, arrived: Instant) -> Job<Computation, u32> {
        let cost = Arc::new(Cost::measured(1, Duration::from_millis(1)));
        let ticket = Arc::new(Ticket::new(priority));
        Job { key: Computation { number, cost }, lengths: lengths.to_vec(), work: number, ticket, arrived }
    }

    fn batch(queue: &mut Queue<Computation, u32>, now: Instant) -> Vec<(u32, Range<usize>)> {
        let parts = queue.next(now, &LIMITS).unwrap_or_default();
        parts.into_iter().map(|part| (part.job.work, part.units)).collect()
    }

    #[test]
    fn jobs_of_one_computation_share_batches() {
        let (mut queue, now) = (Queue::default(), Instant::now());
        for (number, lengths) in [(1, &[10, 10][..]), (2, &[5]), (1, &[20, 20]), (1, &[])] {
            queue.push(job(number, lengths, Priority::Auto, now), &LIMITS);
        }
        assert_eq!((queue.jobs(), queue.tokens()), (3, 65));
        // 50 ms are 50 tokens.
        assert_eq!(batch(&mut queue, now), [(1, 0..2), (1, 0..1)]);
        assert_eq!(batch(&mut queue, now), [(2, 0..1)]);
        assert_eq!(batch(&mut queue, now), [(1, 1..2)]);
        assert_eq!(batch(&mut queue, now), []);
    }

    #[test]
    fn small_jobs_overtake_at_batch_boundaries_and_bulk_jobs_advance() {
        let (mut queue, now) = (Queue::default(), Instant::now());
        queue.push(job(1, &[8; 20], Priority::Auto, now), &LIMITS);
        // Nothing small has arrived: a long batch.
        assert_eq!(batch(&mut queue, now), [(1, 0..6)]);
        for _ in 0..6 {
            queue.push(job(2, &[40], Priority::Auto, now), &LIMITS);
        }
        let order: Vec<u32> = (0..7).map(|_| batch(&mut queue, now)[0].0).collect();
        assert_eq!(order, [2, 2, 2, 2, 1, 2, 2]);
        // Small ones have arrived within the last second: 10 ms are 10 tokens, one unit of 8.
        assert_eq!(batch(&mut queue, now), [(1, 7..8)]);
        assert_eq!(batch(&mut queue, now + RECENT), [(1, 8..14)]);
    }

    #[test]
    fn a_batch_of_small_jobs_is_filled_up_only_a_little() {
        let (mut queue, now) = (Queue::default(), Instant::now());
        queue.push(job(1, &[4; 30], Priority::Auto, now), &LIMITS);
        queue.push(job(1, &[3], Priority::Auto, now), &LIMITS);
        assert_eq!(batch(&mut queue, now), [(1, 0..1), (1, 0..1)]);
        assert_eq!(batch(&mut queue, now), [(1, 1..3)]);
    }

    #[test]
    fn a_long_sequence_is_a_batch_of_its_own() {
        let (mut queue, now) = (Queue::default(), Instant::now());
        queue.push(job(1, &[500, 3], Priority::Auto, now), &LIMITS);
        assert_eq!(batch(&mut queue, now), [(1, 0..1)]);
        assert_eq!(batch(&mut queue, now), [(1, 1..2)]);
    }

    #[test]
    fn priorities_decide_the_lane_and_cancelled_jobs_leave() {
        let (mut queue, now) = (Queue::default(), Instant::now());
        queue.push(job(1, &[10], Priority::Low, now), &LIMITS);
        let large = job(2, &[60, 60], Priority::High, now);
        let ticket = Arc::clone(&large.ticket);
        queue.push(large, &LIMITS);
        assert_eq!(batch(&mut queue, now), [(2, 0..1)]);
        ticket.cancel();
        assert_eq!(batch(&mut queue, now + Duration::from_millis(5)), [(1, 0..1)]);
        assert_eq!(queue.jobs(), 0);
        assert_eq!(ticket.queued(), Duration::ZERO);
    }

    #[test]
    fn the_wait_is_what_is_ahead_of_a_request() {
        let (mut queue, now) = (Queue::default(), Instant::now());
        let cost = Cost::measured(1, Duration::from_millis(1));
        queue.push(job(1, &[200; 5], Priority::Auto, now), &LIMITS);
        queue.push(job(1, &[40], Priority::Auto, now), &LIMITS);
        let wait = |units, tokens, priority| (queue.wait(&cost, (units, tokens), priority, &LIMITS) * 1000.0).round();
        assert_eq!([wait(1, 5, Priority::Auto), wait(1, 500, Priority::Auto)], [50.0, 50.0]);
        assert_eq!([wait(5, 500, Priority::Auto), wait(1, 5, Priority::Low)], [1040.0, 1040.0]);
    }
}
