//! What an answer took, as headers.

use axum::http::header::CONTENT_TYPE;
use axum::http::{HeaderMap, HeaderName, HeaderValue};
use axum::response::{IntoResponse, Response};
use serde::Serialize;

use crate::app::Times;
use crate::failure::{Failure, Reason};

/// The headers of text-embeddings-inference: whole milliseconds.
pub fn of_tei(times: &Times) -> HeaderMap {
    let milliseconds = |time: std::time::Duration| time.as_millis() as u64;
    // What is neither the queue nor the network's batches: tokenizing and decoding.
    let rest = times.total.saturating_sub(times.queued).saturating_sub(times.computed);
    let values = [
        ("x-compute-time", milliseconds(times.total)),
        ("x-compute-characters", times.characters),
        ("x-compute-tokens", times.tokens),
        ("x-total-time", milliseconds(times.total)),
        ("x-tokenization-time", milliseconds(rest)),
        ("x-queue-time", milliseconds(times.queued)),
        ("x-inference-time", milliseconds(times.computed)),
    ];
    let mut headers = HeaderMap::with_capacity(values.len() + 1);
    headers.insert(HeaderName::from_static("x-compute-type"), HeaderValue::from_static("cpu"));
    for (name, value) in values {
        headers.insert(HeaderName::from_static(name), HeaderValue::from(value));
    }
    headers
}

/// A JSON response with the headers of what it took.
pub fn timed(times: &Times, body: Vec<u8>) -> Response {
    let mut headers = of_tei(times);
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    (headers, body).into_response()
}

/// A value as JSON.
///
/// # Errors
/// [`Reason::Backend`] for a value that JSON cannot represent.
pub fn json_of(value: &impl Serialize) -> Result<Vec<u8>, Failure> {
    serde_json::to_vec(value).map_err(|error| Failure::new(Reason::Backend, format!("the answer is not JSON: {error}")))
}

/// The time of an answer, in seconds since 1970.
pub fn seconds_since_1970() -> u64 {
    since_1970(std::time::SystemTime::now())
}

/// A time in seconds since 1970.
pub fn since_1970(time: std::time::SystemTime) -> u64 {
    time.duration_since(std::time::UNIX_EPOCH).map(|time| time.as_secs()).unwrap_or_default()
}
