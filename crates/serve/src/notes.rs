//! What a request's line of the log and its span say of its work: the models and what they took. It is collected while the request is
//! answered, also if the answer is a failure.

use std::future::Future;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

/// What a request did.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Notes {
    /// The names of its models, separated by commas.
    pub models: String,
    /// Tokens of its sequences.
    pub tokens: u64,
    /// The longest time of its parts in the queue.
    pub queued: Duration,
    /// The longest time of its parts in batches.
    pub computed: Duration,
}

tokio::task_local! {
    static NOTES: Arc<Mutex<Notes>>;
}

/// Runs the work of a request, and says what it did.
pub async fn collect<T>(work: impl Future<Output = T>) -> (T, Notes) {
    let notes = Arc::new(Mutex::new(Notes::default()));
    let done = NOTES.scope(Arc::clone(&notes), work).await;
    let found = notes.lock().unwrap_or_else(PoisonError::into_inner).clone();
    (done, found)
}

/// A part of the request that runs as a task of its own, and whose notes belong to the request.
pub fn inherit<F: Future>(work: F) -> impl Future<Output = F::Output> {
    let notes = NOTES.try_with(Arc::clone).unwrap_or_default();
    NOTES.scope(notes, work)
}

/// Adds what one computation of a request did. Parts run at the same time: their tokens are added, the times are the longest.
pub fn add(model: &str, tokens: u64, queued: Duration, computed: Duration) {
    // Outside of a request, as in tests, nobody reads it.
    let _ = NOTES.try_with(|notes| {
        let mut notes = notes.lock().unwrap_or_else(PoisonError::into_inner);
        if !notes.models.split(',').any(|known| known == model) {
            let separator = if notes.models.is_empty() { "" } else { "," };
            notes.models = format!("{}{separator}{model}", notes.models);
        }
        notes.tokens += tokens;
        notes.queued = notes.queued.max(queued);
        notes.computed = notes.computed.max(computed);
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_of_a_request_add_to_its_notes() {
        fn milliseconds(number: u64) -> Duration {
            Duration::from_millis(number)
        }
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let (done, notes) = runtime.block_on(collect(async {
            add("a", 3, milliseconds(5), milliseconds(1));
            let part = tokio::spawn(inherit(async { add("b", 4, milliseconds(2), milliseconds(9)) }));
            part.await.unwrap();
            add("a", 1, milliseconds(1), milliseconds(1));
            7
        }));
        let expected = Notes { models: "a,b".into(), tokens: 8, queued: milliseconds(5), computed: milliseconds(9) };
        assert_eq!((done, notes), (7, expected));
        // Without a request.
        add("a", 1, milliseconds(1), milliseconds(1));
    }
}
