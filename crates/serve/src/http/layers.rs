//! What happens to every request around its handler.

use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::Router;
use axum::extract::{MatchedPath, Request, State};
use axum::http::header::{AUTHORIZATION, CONTENT_TYPE, WWW_AUTHENTICATE};
use axum::http::{HeaderName, HeaderValue, Method, Uri};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use tower::ServiceExt;
use tower_http::cors::{AllowOrigin, CorsLayer};
use tracing::Instrument;

use super::error::Protocol;
use crate::app::App;
use crate::failure::{Failure, Reason};
use crate::{notes, traces, web};

/// The header with a request's id.
pub const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
/// The target of a request's line in the log.
pub const REQUEST_TARGET: &str = "cloze_serve::request";

/// Paths that need no key: the probes of orchestrators, and the page that asks for the key.
const OPEN: [&str; 12] = [
    "/",
    "/health",
    "/healthz",
    "/livez",
    "/readyz",
    "/ping",
    "/v2",
    "/v2/health/live",
    "/v2/health/ready",
    "/ready",
    "/favicon.ico",
    "/docs",
];

/// What is before the names of models in paths.
const NAMED: [&str; 4] = ["/models/", "/v1/models/", "/v2/models/", "/v2/repository/models/"];

/// Gives failures the status and form of the path's protocol.
pub async fn give_form(request: Request, next: Next) -> Response {
    let protocol = Protocol::of(request.uri().path());
    let mut response = next.run(request).await;
    match response.extensions_mut().remove::<Failure>() {
        Some(failure) => {
            let mut formed = protocol.response(&failure);
            if failure.reason == Reason::Unauthorized {
                formed.headers_mut().insert(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
            }
            formed.extensions_mut().insert(failure.reason);
            formed
        }
        None => response,
    }
}

/// Refuses requests without a valid key, if there are keys.
pub async fn authorize(State(app): State<Arc<App>>, request: Request, next: Next) -> Response {
    let path = request.uri().path();
    let is_open = OPEN.contains(&path) || web::is_public(path) || path.starts_with("/docs/");
    let given = request.headers().get(AUTHORIZATION).and_then(|given| given.to_str().ok());
    // The scheme's name is not case-sensitive (RFC 7235).
    let key = given.and_then(|given| {
        let (scheme, key) = given.split_once(' ')?;
        scheme.eq_ignore_ascii_case("bearer").then_some(key.trim())
    });
    if is_open || request.method() == Method::OPTIONS || app.allows(key) {
        return next.run(request).await;
    }
    let message = match given {
        Some(_) => "the key is not valid; send \"Authorization: Bearer KEY\" with a key of this server",
        None => "a key is needed; send \"Authorization: Bearer KEY\"",
    };
    Failure::new(Reason::Unauthorized, message).into_response()
}

/// Counts and times requests by route and status, and writes a line of the log and a span for each.
pub async fn observe(request: Request, next: Next) -> Response {
    let begin = Instant::now();
    let method = request.method().clone();
    let path = request.uri().path().to_owned();
    let route = request.extensions().get::<MatchedPath>().map(|path| path.as_str().to_owned());
    let id = header(&request, &REQUEST_ID);
    let span = traces::span(&method, route.as_deref(), &path, &id, request.headers());
    let trace = traces::trace_of(&span).unwrap_or_else(|| {
        // 00-TRACE-SPAN-FLAGS, as in W3C's Trace Context.
        let parent = header(&request, &HeaderName::from_static("traceparent"));
        parent.split('-').nth(1).unwrap_or_default().to_owned()
    });
    metrics::gauge!("cloze_requests_in_flight").increment(1.0);
    let in_flight = InFlight;
    let (response, notes) = notes::collect(next.run(request).instrument(span.clone())).await;
    drop(in_flight);
    let (time, status) = (begin.elapsed().as_secs_f64(), response.status().as_u16());
    let route = route.or_else(|| {
        let found = response.extensions().get::<Option<MatchedPath>>();
        found.and_then(Option::as_ref).map(|path| path.as_str().to_owned())
    });
    let reason = response.extensions().get::<Reason>().map(|reason| format!("{reason:?}"));
    traces::finish(&span, status, reason.as_deref(), &notes);
    drop(span);
    let route = route.unwrap_or_else(|| "none".to_owned());
    let labels = [("route", route.clone()), ("status", status.to_string())];
    metrics::counter!("cloze_requests_total", &labels).increment(1);
    metrics::histogram!("cloze_request_seconds", "route" => route).record(time);
    let notes::Notes { models, tokens, queued, computed } = notes;
    let (queue, compute) = (queued.as_secs_f64(), computed.as_secs_f64());
    if status >= 500 {
        tracing::warn!(target: REQUEST_TARGET, %method, path, status, seconds = time, models, tokens, queue, compute, id, trace, "request failed");
    } else {
        tracing::info!(target: REQUEST_TARGET, %method, path, status, seconds = time, models, tokens, queue, compute, id, trace, "request");
    }
    response
}

fn header(request: &Request, name: &HeaderName) -> String {
    request.headers().get(name).and_then(|value| value.to_str().ok()).map(str::to_owned).unwrap_or_default()
}

/// A request that is counted as running until this is dropped, also if its client has gone.
struct InFlight;

impl Drop for InFlight {
    fn drop(&mut self) {
        metrics::gauge!("cloze_requests_in_flight").decrement(1.0);
    }
}

/// Which web pages may use the server.
///
/// # Errors
/// An origin that is not one: one line.
pub fn cors(origins: &[String]) -> Result<CorsLayer, String> {
    let origin = match origins {
        [only] if only == "*" => AllowOrigin::any(),
        list => AllowOrigin::list(
            list.iter()
                .map(|origin| {
                    let value = HeaderValue::from_str(origin);
                    value.map_err(|_| format!("expected an origin such as https://example.org, found {origin:?}"))
                })
                .collect::<Result<Vec<_>, _>>()?,
        ),
    };
    Ok(CorsLayer::new()
        .allow_origin(origin)
        .allow_methods([Method::GET, Method::POST])
        .allow_headers([AUTHORIZATION, CONTENT_TYPE, REQUEST_ID])
        .max_age(Duration::from_secs(3600)))
}

/// The routes once more, for [`unknown_path`].
#[derive(Clone)]
pub struct Again {
    /// What all handlers share.
    pub app: Arc<App>,
    /// The routes without this fallback.
    pub routes: Router,
}

/// Answers paths that do not exist: either a model's name has a slash, as those on the hub, and clients did not write it as `%2F`, as
/// huggingface_hub in `/models/organization/name`; or it is a failure.
pub async fn unknown_path(State(Again { app, routes }): State<Again>, mut request: Request) -> Response {
    match with_escaped_name(request.uri(), |name| app.registry.knows(name)) {
        Some(uri) => {
            *request.uri_mut() = uri;
            // The router has put what it matched there.
            request.extensions_mut().remove::<MatchedPath>();
            routes.oneshot(request).await.into_response()
        }
        None => {
            let path = request.uri().path();
            let message = format!("there is no {path} on this server; /docs lists what there is");
            Failure::new(Reason::UnknownPath, message).into_response()
        }
    }
}

/// Remembers which route answered within [`unknown_path`].
pub async fn remember_route(request: Request, next: Next) -> Response {
    let route = request.extensions().get::<MatchedPath>().cloned();
    let mut response = next.run(request).await;
    response.extensions_mut().insert(route);
    response
}

/// The address with the slash of a known model's name as `%2F`.
fn with_escaped_name(uri: &Uri, knows: impl Fn(&str) -> bool) -> Option<Uri> {
    let prefix = NAMED.iter().find(|prefix| uri.path().starts_with(**prefix))?;
    let mut parts = uri.path()[prefix.len()..].splitn(3, '/');
    let (organization, name, rest) = (parts.next()?, parts.next()?, parts.next());
    if !knows(&format!("{organization}/{name}")) {
        return None;
    }
    let rest = rest.map(|rest| format!("/{rest}")).unwrap_or_default();
    let query = uri.query().map(|query| format!("?{query}")).unwrap_or_default();
    format!("{prefix}{organization}%2F{name}{rest}{query}").parse().ok()
}

/// The failure of a method that a path does not have.
pub async fn wrong_method(request: Request) -> Failure {
    let message =
        format!("{} does not have the method {}; /docs lists what it has", request.uri().path(), request.method());
    Failure::new(Reason::WrongMethod, message)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slashes_in_known_names_are_escaped() {
        let knows = |name: &str| name == "org/name";
        for (given, expected) in [
            ("/models/org/name", Some("/models/org%2Fname")),
            ("/models/org/name/pipeline/tokenize?x=1", Some("/models/org%2Fname/pipeline/tokenize?x=1")),
            ("/v1/models/org/name", Some("/v1/models/org%2Fname")),
            ("/v2/models/org/name/versions/1/infer", Some("/v2/models/org%2Fname/versions/1/infer")),
            ("/v2/repository/models/org/name/load", Some("/v2/repository/models/org%2Fname/load")),
            ("/models/org/other", None),
            ("/models/org", None),
            ("/other/org/name", None),
        ] {
            let found = with_escaped_name(&given.parse().unwrap(), knows).map(|uri| uri.to_string());
            assert_eq!(found.as_deref(), expected, "{given}");
        }
    }
}
