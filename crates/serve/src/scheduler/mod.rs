//! One scheduler for all models: requests bring their sequences, one thread computes batches.
//!
//! | module | in → out |
//! | --- | --- |
//! | [`queue`] | jobs → the next batch: lanes, order, sizes |
//! | [`cost`] | the times of batches → seconds for each token |
//! | [`ticket`] | a request: its priority, whether it is cancelled, its times |
//!
//! A request runs on a blocking thread: it tokenizes, waits for its numbers, and decodes them. [`Call`] is the
//! [`Executor`] of a request: it puts sequences into the queue and waits. The scheduler's thread takes the next batch, runs the forward
//! pass on the device's threads, and sends each request its rows. A batch has the sequences of one model end to end, without
//! padding, so that a batch of texts with different lengths costs its number of tokens.

pub mod cost;
pub mod queue;
pub mod ticket;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use cloze_engine::EngineError;
use cloze_tasks::example::Example;
use cloze_tasks::{Executor, Output, Pretrained, TaskError};

use cost::Cost;
use queue::{Job, Key, Limits, Part, Queue};
use ticket::{Priority, Ticket};

/// Why the scheduler did not compute the sequences of a request.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum Refusal {
    /// The requests ahead take longer than the maximum wait.
    #[error(
        "the server is overloaded: the requests ahead take about {wait:.1} s, the limit is {limit:.1} s; try again in {} s",
        retry_after(*wait, *limit)
    )]
    Overloaded {
        /// The estimated wait in seconds.
        wait: f64,
        /// The maximum wait in seconds.
        limit: f64,
    },
    /// The client has closed the connection.
    #[error("the request was cancelled")]
    Cancelled,
    /// The forward pass panicked.
    #[error("the model failed: {0}")]
    Panicked(String),
    /// The model's numbers are not numbers.
    #[error(
        "the model computed NaN or infinity for this input: its weights are damaged, or too large for its precision"
    )]
    NotFinite,
    /// The server has stopped.
    #[error("the server is shutting down")]
    Stopped,
}

/// After how many seconds a refused client may try again.
pub fn retry_after(wait: f64, limit: f64) -> u64 {
    (wait - limit).ceil().max(1.0) as u64
}

/// A computation of a model.
struct Computation {
    model: Arc<Pretrained>,
    cost: Arc<Cost>,
    output: Output,
}

impl PartialEq for Computation {
    fn eq(&self, other: &Computation) -> bool {
        Arc::ptr_eq(&self.model, &other.model) && self.output == other.output
    }
}

impl Key for Computation {
    fn cost(&self) -> &Cost {
        &self.cost
    }
}

/// The examples of a request, and where their numbers go.
struct Work {
    examples: Vec<Example>,
    reply: Sender<Reply>,
}

/// The numbers of the examples from `first`; or why there are none.
type Reply = Result<(usize, Vec<Vec<f32>>), Refusal>;

struct Shared {
    state: Mutex<State>,
    wake: Condvar,
    limits: Limits,
    max_wait: Duration,
}

struct State {
    queue: Queue<Computation, Work>,
    is_stopped: bool,
    /// When the running batch ends, by its cost.
    busy_until: Option<Instant>,
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        // Nothing that could panic runs while the lock is held.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The queue of all models, and the thread that computes.
pub struct Scheduler {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

impl Scheduler {
    /// Starts the thread that computes.
    ///
    /// # Errors
    /// The operating system starts no thread.
    pub fn start(limits: Limits, max_wait: Duration) -> std::io::Result<Scheduler> {
        let state = State { queue: Queue::default(), is_stopped: false, busy_until: None };
        let shared = Arc::new(Shared { state: Mutex::new(state), wake: Condvar::new(), limits, max_wait });
        let own = Arc::clone(&shared);
        let thread = std::thread::Builder::new().name("scheduler".to_owned()).spawn(move || compute(&own))?;
        Ok(Scheduler { shared, thread: Some(thread) })
    }

    /// Checks that a request need not wait too long. `tokens` may be an estimate.
    ///
    /// # Errors
    /// [`Refusal::Overloaded`].
    pub fn admit(&self, cost: &Cost, tokens: usize, priority: Priority) -> Result<(), Refusal> {
        // The number of sequences is not known yet: as if it were small.
        self.shared.admit(&self.shared.lock(), cost, (1, tokens), priority)
    }

    /// Removes the jobs for which nobody waits.
    pub fn remove_cancelled(&self) {
        self.shared.lock().queue.remove_cancelled();
    }

    /// The numbers of jobs and of tokens that wait.
    pub fn waiting(&self) -> (usize, usize) {
        let state = self.shared.lock();
        (state.queue.jobs(), state.queue.tokens())
    }

    /// The limits of batches.
    pub fn limits(&self) -> &Limits {
        &self.shared.limits
    }
}

impl Drop for Scheduler {
    fn drop(&mut self) {
        self.shared.lock().is_stopped = true;
        self.shared.wake.notify_all();
        if let Some(thread) = self.thread.take() {
            // A panic of the thread was already reported.
            let _ = thread.join();
        }
    }
}

impl Shared {
    fn admit(&self, state: &State, cost: &Cost, size: (usize, usize), priority: Priority) -> Result<(), Refusal> {
        let running = state.busy_until.map_or(0.0, |end| end.saturating_duration_since(Instant::now()).as_secs_f64());
        let wait = running + state.queue.wait(cost, size, priority, &self.limits);
        let limit = self.max_wait.as_secs_f64();
        if wait > limit { Err(Refusal::Overloaded { wait, limit }) } else { Ok(()) }
    }

    fn push(&self, call: &Call, output: &Output, examples: &[&Example]) -> Result<Receiver<Reply>, Refusal> {
        let lengths: Vec<usize> = examples.iter().map(|example| example.length()).collect();
        let tokens = lengths.iter().sum();
        let (reply, answers) = channel();
        let mut state = self.lock();
        if state.is_stopped {
            return Err(Refusal::Stopped);
        }
        if call.ticket.is_cancelled() {
            return Err(Refusal::Cancelled);
        }
        // A request whose first sequences were accepted is completed.
        if call.ticket.tokens() == 0 {
            self.admit(&state, &call.cost, (lengths.len(), tokens), call.ticket.priority)?;
        }
        call.ticket.add_tokens(tokens);
        let key = Computation { model: Arc::clone(&call.model), cost: Arc::clone(&call.cost), output: output.clone() };
        let work = Work { examples: examples.iter().map(|example| (*example).clone()).collect(), reply };
        let ticket = Arc::clone(&call.ticket);
        state.queue.push(Job { key, lengths, work, ticket, arrived: Instant::now() }, &self.limits);
        drop(state);
        self.wake.notify_one();
        Ok(answers)
    }
}

/// The executor of one request.
pub struct Call {
    scheduler: Arc<Scheduler>,
    model: Arc<Pretrained>,
    cost: Arc<Cost>,
    ticket: Arc<Ticket>,
}

impl Call {
    /// The executor of a request to this model.
    pub fn new(scheduler: Arc<Scheduler>, model: Arc<Pretrained>, cost: Arc<Cost>, ticket: Arc<Ticket>) -> Call {
        Call { scheduler, model, cost, ticket }
    }

    /// The request's ticket.
    pub fn ticket(&self) -> &Ticket {
        &self.ticket
    }
}

impl Executor for Call {
    fn run(
        &self,
        output: &Output,
        examples: &[&Example],
        done: &mut dyn FnMut(usize, Vec<f32>),
    ) -> Result<(), TaskError> {
        let refused = |refusal: Refusal| TaskError::Executor(Box::new(refusal));
        let answers = self.scheduler.shared.push(self, output, examples).map_err(refused)?;
        let mut left = examples.len();
        while left > 0 {
            // The sender is dropped with the job if the request is cancelled.
            let (first, rows) = answers.recv().unwrap_or(Err(Refusal::Cancelled)).map_err(|refusal| {
                // What is left of the request need not be computed.
                self.ticket.cancel();
                refused(refusal)
            })?;
            left -= rows.len();
            if !rows.iter().flatten().all(|number| number.is_finite()) {
                self.ticket.cancel();
                return Err(refused(Refusal::NotFinite));
            }
            rows.into_iter().enumerate().for_each(|(i, row)| done(first + i, row));
        }
        Ok(())
    }
}

/// Computes batches until the scheduler stops.
fn compute(shared: &Shared) {
    loop {
        let mut state = shared.lock();
        let parts = loop {
            if state.is_stopped {
                return;
            }
            let now = Instant::now();
            if let Some(parts) = state.queue.next(now, &shared.limits).filter(|parts| !parts.is_empty()) {
                let seconds = parts.iter().map(|part| part.job.key.cost.seconds(tokens_of(part))).sum();
                state.busy_until = Some(now + Duration::from_secs_f64(seconds));
                break parts;
            }
            state.busy_until = None;
            state = shared.wake.wait(state).unwrap_or_else(PoisonError::into_inner);
        };
        drop(state);
        run_batch(&parts);
    }
}

fn tokens_of(part: &Part<Computation, Work>) -> usize {
    part.job.lengths[part.units.clone()].iter().sum()
}

/// Computes a batch and sends its results.
fn run_batch(parts: &[Part<Computation, Work>]) {
    let Some(first) = parts.first() else { return };
    let (key, begin) = (&first.job.key, Instant::now());
    let examples: Vec<&Example> = parts.iter().flat_map(|part| &part.job.work.examples[part.units.clone()]).collect();
    let found = catch_unwind(AssertUnwindSafe(|| key.model.compute(&key.output, &examples)));
    let (time, tokens) = (begin.elapsed(), parts.iter().map(tokens_of).sum());
    match found {
        Ok(rows) => {
            key.cost.learn(tokens, time);
            metrics::histogram!("cloze_batch_tokens").record(tokens as f64);
            metrics::histogram!("cloze_batch_seconds").record(time.as_secs_f64());
            metrics::counter!("cloze_tokens_total").increment(tokens as u64);
            let mut rows = rows.into_iter();
            for part in parts {
                let own: Vec<Vec<f32>> = rows.by_ref().take(part.units.len()).collect();
                part.job.ticket.add_computed(time);
                // The receiver is gone if the request was cancelled.
                let _ = part.job.work.reply.send(Ok((part.units.start, own)));
            }
        }
        // One request made the batch fail: the others are computed again, each alone.
        Err(_) if parts.len() > 1 => parts.iter().for_each(|part| {
            let part = Part { job: Arc::clone(&part.job), units: part.units.clone() };
            run_batch(&[part]);
        }),
        Err(panic) => {
            metrics::counter!("cloze_batches_failed_total").increment(1);
            let text = panic.downcast_ref::<String>().cloned();
            let text = text.or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).to_owned()));
            // A GPU that fails ends a pass so.
            let text = text.or_else(|| panic.downcast_ref::<EngineError>().map(ToString::to_string));
            let message = text.as_deref().unwrap_or("unknown reason");
            let _ = first.job.work.reply.send(Err(Refusal::Panicked(message.to_owned())));
        }
    }
}

#[cfg(test)]
mod tests {
    use cloze_engine::{DType, Device};
    use cloze_model::Heads;
    use cloze_tasks::example::Target;
    use cloze_text::Sequence;

    use super::*;

    const LIMITS: Limits =
        Limits { batch_tokens: 4096, batch_time: Duration::from_millis(50), shared_time: Duration::from_millis(10) };

    fn model() -> Arc<Pretrained> {
        let dir = tempfile::tempdir().unwrap();
        cloze_testing::save_letter_model(Heads::ENCODER, dir.path());
        Arc::new(Pretrained::open(dir.path(), Device::cpu(Some(1)).unwrap(), DType::F32).unwrap())
    }

    fn example(ids: &[u32]) -> Example {
        let sequence = Sequence { ids: ids.to_vec(), segments: vec![0; ids.len()] };
        Example::new(vec![sequence], Target::value(None))
    }

    fn run(call: &Call, output: &Output, examples: &[Example]) -> Result<Vec<Vec<f32>>, Refusal> {
        let mut found = vec![Vec::new(); examples.len()];
        let examples: Vec<&Example> = examples.iter().collect();
        call.run(output, &examples, &mut |i, row| found[i] = row).map(|()| found).map_err(|error| match error {
            TaskError::Executor(inner) => inner.downcast_ref::<Refusal>().unwrap().clone(),
            other => panic!("{other}"),
        })
    }

    /// Regression test of servers: a batch that failed took the requests of others with it (infinity #242).
    #[test]
    fn a_request_that_fails_does_not_affect_those_of_its_batch() {
        let (model, cost) = (model(), Arc::new(Cost::measured(1000, Duration::from_millis(1))));
        let scheduler = Arc::new(Scheduler::start(LIMITS, Duration::from_secs(60)).unwrap());
        let call = || Call::new(Arc::clone(&scheduler), Arc::clone(&model), Arc::clone(&cost), Arc::default());
        let output = Output::HiddenStates { layer: 2 };
        let good = [example(&[2, 5, 6, 3]), example(&[2, 7, 3])];
        let expected = model.compute(&output, &[&good[0], &good[1]]);
        std::thread::scope(|scope| {
            let running: Vec<_> = (0..24)
                .map(|number| {
                    let (call, good, output) = (call(), &good, &output);
                    scope.spawn(move || match number % 4 {
                        // An id that the model does not have.
                        0 => (true, run(&call, output, &[example(&[2, 9_999_999, 3])])),
                        _ => (false, run(&call, output, good)),
                    })
                })
                .collect();
            for request in running {
                match request.join().unwrap() {
                    (true, found) => assert!(matches!(found, Err(Refusal::Panicked(_))), "{found:?}"),
                    (false, found) => {
                        let (found, expected) = (found.unwrap().concat(), expected.concat());
                        assert!(found.iter().zip(&expected).all(|(a, b)| (a - b).abs() < 1e-4));
                    }
                }
            }
        });
    }

    #[test]
    fn cancelled_and_late_requests_are_refused() {
        let (model, cost) = (model(), Arc::new(Cost::measured(1, Duration::from_secs(1))));
        let scheduler = Arc::new(Scheduler::start(LIMITS, Duration::from_millis(1)).unwrap());
        let ticket = Arc::new(Ticket::default());
        let call = Call::new(Arc::clone(&scheduler), Arc::clone(&model), Arc::clone(&cost), Arc::clone(&ticket));
        ticket.cancel();
        let output = Output::HiddenStates { layer: 2 };
        assert!(matches!(run(&call, &output, &[example(&[2, 3])]), Err(Refusal::Cancelled)));
        assert_eq!(scheduler.waiting(), (0, 0));
        assert!(scheduler.admit(&cost, 1, Priority::Auto).is_ok());
        assert_eq!([retry_after(12.5, 10.0), retry_after(0.1, 10.0)], [3, 1]);
    }
}
