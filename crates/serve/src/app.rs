//! What all handlers share: the models, the scheduler, the limits; and how a request is computed.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant, SystemTime};

use arc_swap::ArcSwapOption;
use metrics_exporter_prometheus::PrometheusHandle;
use subtle::ConstantTimeEq;
use tokio::sync::Semaphore;

use crate::failure::{Failure, Reason};
use crate::models::{Registry, Served};
use crate::scheduler::ticket::{Priority, Ticket};
use crate::scheduler::{Call, Refusal, Scheduler};
use crate::settings::Settings;

/// An average token has about this many characters: for the estimate of a request's tokens before it is tokenized.
const CHARACTERS_PER_TOKEN: usize = 4;

/// What all handlers share.
pub struct App {
    /// The models.
    pub registry: Registry,
    /// The queue.
    pub scheduler: Arc<Scheduler>,
    /// The settings.
    pub settings: Settings,
    /// The metrics.
    pub metrics: PrometheusHandle,
    /// The program's version.
    pub version: &'static str,
    /// When the server started.
    pub started: SystemTime,
    keys: ArcSwapOption<Keys>,
    permits: Arc<Semaphore>,
    is_ready: AtomicBool,
}

/// The keys of which a request needs one.
struct Keys(Vec<String>);

impl Keys {
    fn read(path: &Path) -> Result<Keys, String> {
        let text = std::fs::read_to_string(path)
            .map_err(|error| format!("cannot read the file of keys {}: {error}", path.display()))?;
        let lines = text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#'));
        let keys: Vec<String> = lines.map(str::to_owned).collect();
        match keys.is_empty() {
            true => Err(format!("{}: expected one key a line, found none", path.display())),
            false => Ok(Keys(keys)),
        }
    }

    /// Whether a key is one of them. The time does not depend on how many of its characters are right.
    fn contains(&self, key: &str) -> bool {
        let mut found = subtle::Choice::from(0);
        for known in &self.0 {
            found |= known.as_bytes().ct_eq(key.as_bytes());
        }
        found.into()
    }
}

/// An answer, and what it took.
pub struct Answered<T> {
    /// The answer.
    pub value: T,
    /// What it took.
    pub times: Times,
}

/// What a request took.
#[derive(Debug, Clone, Copy, Default)]
pub struct Times {
    /// From the arrival of its body to the answer.
    pub total: Duration,
    /// In the queue.
    pub queued: Duration,
    /// In the batches that contain its sequences.
    pub computed: Duration,
    /// The number of tokens of its sequences.
    pub tokens: u64,
    /// The number of characters of its texts.
    pub characters: u64,
}

impl Times {
    /// Adds those of another request that ran at the same time.
    pub fn add(&mut self, other: &Times) {
        self.total = self.total.max(other.total);
        self.queued = self.queued.max(other.queued);
        self.computed = self.computed.max(other.computed);
        self.tokens += other.tokens;
        self.characters += other.characters;
    }
}

/// Cancels a request if its future is dropped, because the client has gone.
struct Guard {
    ticket: Arc<Ticket>,
    scheduler: Arc<Scheduler>,
    is_done: bool,
}

impl Drop for Guard {
    fn drop(&mut self) {
        if !self.is_done {
            self.ticket.cancel();
            self.scheduler.remove_cancelled();
            metrics::counter!("cloze_requests_cancelled_total").increment(1);
        }
    }
}

impl App {
    /// The state of a server.
    ///
    /// # Errors
    /// A file of keys that cannot be read.
    pub fn new(
        registry: Registry,
        scheduler: Scheduler,
        settings: Settings,
        metrics: PrometheusHandle,
        version: &'static str,
    ) -> Result<App, String> {
        let app = App {
            registry,
            scheduler: Arc::new(scheduler),
            permits: Arc::new(Semaphore::new(settings.max_requests)),
            settings,
            metrics,
            version,
            started: SystemTime::now(),
            keys: ArcSwapOption::empty(),
            is_ready: AtomicBool::new(true),
        };
        app.read_keys()?;
        Ok(app)
    }

    /// Reads the file of keys again.
    ///
    /// # Errors
    /// A file that cannot be read: the keys before it stay valid.
    pub fn read_keys(&self) -> Result<(), String> {
        if let Some(path) = &self.settings.keys {
            self.keys.store(Some(Arc::new(Keys::read(path)?)));
        }
        Ok(())
    }

    /// Whether a request with this key may be answered.
    pub fn allows(&self, key: Option<&str>) -> bool {
        match &*self.keys.load() {
            Some(keys) => key.is_some_and(|key| keys.contains(key)),
            None => true,
        }
    }

    /// Whether new requests should be sent to this server.
    pub fn is_ready(&self) -> bool {
        self.is_ready.load(Ordering::Relaxed) && (self.registry.has_repository() || !self.registry.all().is_empty())
    }

    /// Says that no new requests should be sent: the server stops soon.
    pub fn set_draining(&self) {
        self.is_ready.store(false, Ordering::Relaxed);
    }

    /// Checks the number of inputs of a request.
    ///
    /// # Errors
    /// [`Reason::Empty`] for none, [`Reason::TooLarge`] for too many.
    pub fn check_inputs(&self, found: usize) -> Result<(), Failure> {
        let most = self.settings.max_inputs;
        match found {
            0 => Err(Failure::new(Reason::Empty, "the request has no inputs; expected at least one")),
            found if found > most => Err(Failure::new(
                Reason::TooLarge,
                format!("the request has {found} inputs, the limit of this server is {most} (--max-inputs)"),
            )),
            _ => Ok(()),
        }
    }

    /// Computes the answer to a request on a thread that may wait: `work` tokenizes, runs forward passes with the
    /// call, and decodes. `size` is the number of characters of its texts.
    ///
    /// # Errors
    /// [`Reason::Overloaded`] before any work, and the failures of `work`. A panic in it is a [`Reason::Backend`].
    pub async fn compute<T: Send + 'static>(
        &self,
        model: &Arc<Served>,
        (priority, size): (Priority, usize),
        work: impl FnOnce(&Served, &Call) -> Result<T, Failure> + Send + 'static,
    ) -> Result<Answered<T>, Failure> {
        let begin = Instant::now();
        let name = model.name.clone();
        let ticket = Arc::new(Ticket::new(priority));
        let mut guard = Guard { ticket: Arc::clone(&ticket), scheduler: Arc::clone(&self.scheduler), is_done: false };
        let found = self.compute_on(model, size, &ticket, work).await;
        guard.is_done = true;
        let times = Times {
            total: begin.elapsed(),
            queued: ticket.queued(),
            computed: ticket.computed(),
            tokens: ticket.tokens(),
            characters: size as u64,
        };
        crate::notes::add(&name, times.tokens, times.queued, times.computed);
        if found.is_ok() {
            metrics::histogram!("cloze_queue_seconds", "model" => name.clone()).record(times.queued.as_secs_f64());
            metrics::histogram!("cloze_inference_seconds", "model" => name.clone())
                .record(times.computed.as_secs_f64());
            metrics::counter!("cloze_request_tokens_total", "model" => name).increment(times.tokens);
        }
        Ok(Answered { value: found?, times })
    }

    async fn compute_on<T: Send + 'static>(
        &self,
        model: &Arc<Served>,
        size: usize,
        ticket: &Arc<Ticket>,
        work: impl FnOnce(&Served, &Call) -> Result<T, Failure> + Send + 'static,
    ) -> Result<T, Failure> {
        // Refused before it costs anything.
        self.scheduler.admit(&model.cost, size / CHARACTERS_PER_TOKEN, ticket.priority)?;
        let Ok(permit) = Arc::clone(&self.permits).try_acquire_owned() else {
            let message = format!(
                "the server is overloaded: {} requests are worked on or wait, which is its limit (--max-requests)",
                self.settings.max_requests
            );
            return Err(Failure { retry_after: Some(1), ..Failure::new(Reason::Overloaded, message) });
        };
        let (own, ticket) = (Arc::clone(model), Arc::clone(ticket));
        let scheduler = Arc::clone(&self.scheduler);
        let done = tokio::task::spawn_blocking(move || {
            let _permit = permit;
            if ticket.is_cancelled() {
                return Err(Failure::from(Refusal::Cancelled));
            }
            let call = Call::new(scheduler, Arc::clone(&own.model), Arc::clone(&own.cost), ticket);
            work(&own, &call)
        });
        done.await.unwrap_or_else(|panic| {
            tracing::error!(model = model.name, %panic, "a request panicked");
            Err(Failure::new(
                Reason::Backend,
                "the request could not be processed: internal error, see the server's log",
            ))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_of_keys_have_one_key_a_line() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("keys");
        std::fs::write(&path, "# the team\nabc\n\n  def \n").unwrap();
        let keys = Keys::read(&path).unwrap();
        assert_eq!(
            ["abc", "def", "ab", "abcd", "", "# the team"].map(|key| keys.contains(key)),
            [true, true, false, false, false, false]
        );
        std::fs::write(&path, "# none\n").unwrap();
        assert!(Keys::read(&path).is_err_and(|error| error.contains("expected one key a line")));
    }
}
