//! Bodies of requests.

use std::sync::Arc;
use std::time::Duration;

use axum::extract::{FromRequest, Request};
use axum::http::header::{CONTENT_LENGTH, CONTENT_TYPE};
use bytes::Bytes;
use http_body_util::BodyExt;
use serde::de::DeserializeOwned;
use tokio::time::{Instant, timeout_at};

use crate::app::App;
use crate::failure::{Failure, Reason};

/// Bytes per second that a client has to send on average, after a first pause.
const MIN_RATE: usize = 1024;

/// The value of a JSON body.
pub struct Body<T>(pub T);

impl<T: DeserializeOwned> FromRequest<Arc<App>> for Body<T> {
    type Rejection = Failure;

    async fn from_request(request: Request, app: &Arc<App>) -> Result<Body<T>, Failure> {
        check_type(&request)?;
        parse(&read(request, app.settings.max_body, app.settings.body_timeout).await?).map(Body)
    }
}

/// Refuses a body that says to be something else than JSON.
fn check_type(request: &Request) -> Result<(), Failure> {
    let kind = request.headers().get(CONTENT_TYPE).map(|kind| String::from_utf8_lossy(kind.as_bytes()).into_owned());
    match kind {
        // Not text/plain, which any web page may send to a server on the user's machine.
        Some(kind) if !kind.to_ascii_lowercase().contains("json") => {
            Err(Failure::validation(format!("expected the content type application/json, found {kind}")))
        }
        _ => Ok(()),
    }
}

/// The value of a JSON body, or the default value if there is none.
pub struct OptionalBody<T>(pub T);

impl<T: DeserializeOwned + Default> FromRequest<Arc<App>> for OptionalBody<T> {
    type Rejection = Failure;

    async fn from_request(request: Request, app: &Arc<App>) -> Result<OptionalBody<T>, Failure> {
        check_type(&request)?;
        let text = read(request, app.settings.max_body, app.settings.body_timeout).await?;
        if text.is_empty() { Ok(OptionalBody(T::default())) } else { parse(&text).map(OptionalBody) }
    }
}

/// The bytes of a body of at most `most` bytes. It may pause for the time `pause`, and be slower than `MIN_RATE` for as long.
pub async fn read(request: Request, most: usize, pause: Duration) -> Result<Bytes, Failure> {
    let too_large = |found: &str| {
        let limit = most as f64 / f64::from(1 << 20);
        Failure::new(
            Reason::TooLarge,
            format!("the body of the request has {found}; the limit of this server is {limit:.0} MiB (--max-body)"),
        )
    };
    let length = request.headers().get(CONTENT_LENGTH).and_then(|length| length.to_str().ok()?.parse::<u64>().ok());
    if let Some(length) = length.filter(|length| *length > most as u64) {
        return Err(too_large(&format!("{:.1} MiB", length as f64 / f64::from(1 << 20))));
    }
    let (mut body, begin) = (request.into_body(), Instant::now());
    let (mut parts, mut received): (Vec<Bytes>, usize) = (Vec::new(), 0);
    loop {
        // Otherwise a client that sends a byte now and then would hold its connection for ever.
        let slowest = begin + pause + Duration::from_secs((received / MIN_RATE) as u64);
        let frame = match timeout_at(slowest.min(Instant::now() + pause), body.frame()).await {
            Ok(None) => break,
            Ok(Some(Ok(frame))) => frame,
            Ok(Some(Err(_))) => {
                return Err(Failure::new(Reason::TimedOut, "the body of the request did not arrive completely"));
            }
            Err(_) => {
                let message = format!(
                    "the body of the request did not arrive in time; a pause of {} s is too long (--body-timeout)",
                    pause.as_secs_f64()
                );
                return Err(Failure::new(Reason::TimedOut, message));
            }
        };
        let Ok(data) = frame.into_data() else { continue };
        received += data.len();
        if received > most {
            return Err(too_large("more bytes"));
        }
        parts.push(data);
    }
    // Small bodies arrive in one part.
    Ok(if parts.len() == 1 { parts.swap_remove(0) } else { parts.concat().into() })
}

/// The value of a JSON text.
pub fn parse<T: DeserializeOwned>(text: &[u8]) -> Result<T, Failure> {
    if text.is_empty() {
        return Err(Failure::validation("expected a JSON object as the body of the request, found nothing"));
    }
    if let Err(error) = std::str::from_utf8(text) {
        let message = format!("expected UTF-8, found an invalid byte at {} of the body", error.valid_up_to());
        return Err(Failure::validation(message));
    }
    let from = &mut serde_json::Deserializer::from_slice(text);
    let value = serde_path_to_error::deserialize(&mut *from).map_err(|error| {
        let path = error.path().to_string();
        let inner = error.into_inner();
        let what = if inner.is_data() { "" } else { "the body is not JSON: " };
        let place = if path == "." || !inner.is_data() { String::new() } else { format!("\"{path}\": ") };
        Failure::validation(format!("{what}{place}{inner}"))
    })?;
    from.end().map_err(|error| Failure::validation(format!("the body is not JSON: {error}")))?;
    Ok(value)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, serde::Deserialize)]
    struct Example {
        #[allow(dead_code)]
        inputs: Vec<String>,
    }

    fn message(text: &[u8]) -> String {
        parse::<Example>(text).unwrap_err().message
    }

    #[test]
    fn mistakes_are_one_line_with_their_place() {
        assert!(parse::<Example>(br#"{"inputs": ["a"]}"#).is_ok());
        assert_eq!(message(b""), "expected a JSON object as the body of the request, found nothing");
        assert!(
            message(br#"{"inputs": ["a", 3]}"#)
                .starts_with("\"inputs[1]\": invalid type: integer `3`, expected a string")
        );
        assert!(message(br#"{"inputs": ["#).starts_with("the body is not JSON: EOF while parsing"));
        assert!(message(b"{\"inputs\": []} x").starts_with("the body is not JSON: trailing characters"));
        assert_eq!(message(b"{\"a\xff\": 1}"), "expected UTF-8, found an invalid byte at 3 of the body");
        assert!(message(br#"{}"#).contains("missing field `inputs`"));
        let deep = format!("{{\"inputs\": {}", "[".repeat(100_000));
        assert!(!message(deep.as_bytes()).contains('\n'));
    }
}
