//! Traces: a span for each request, sent to a collector by OTLP over HTTP. Their parents are those of the requests' `traceparent`.
//!
//! Spans wait in a queue of fixed size for a thread of their own, so that a collector that is slow or unreachable neither slows requests
//! nor takes memory: what does not fit is dropped.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use axum::http::{HeaderMap, Method, Uri};
use opentelemetry::propagation::TextMapPropagator;
use opentelemetry::trace::{TraceContextExt, TracerProvider};
use opentelemetry::{KeyValue, Value};
use opentelemetry_http::{Bytes, HeaderExtractor, HttpClient, HttpError, Request, Response};
use opentelemetry_otlp::{SpanExporter, WithExportConfig, WithHttpConfig};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::propagation::TraceContextPropagator;
use opentelemetry_sdk::trace::SdkTracerProvider;
use tracing::field::Empty;
use tracing::{Level, Span, Subscriber};
use tracing_opentelemetry::OpenTelemetrySpanExt;
use tracing_subscriber::Layer;
use tracing_subscriber::filter::filter_fn;
use tracing_subscriber::registry::LookupSpan;

use crate::notes::Notes;

/// The target of the spans of requests: not that of the events of this module.
pub const TARGET: &str = "cloze_serve::span";
/// The variables that name a collector, as in the specification of OpenTelemetry: the address of traces, and that of everything.
const ENDPOINTS: [&str; 2] = ["OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT"];
/// The path of traces at a collector.
const PATH: &str = "/v1/traces";
/// The name of this program among services, unless `OTEL_SERVICE_NAME` has another.
const SERVICE: &str = "cloze";
/// How long a collector may take.
const TIMEOUT: Duration = Duration::from_secs(10);
/// How long the end of the program waits for the last spans.
const LAST: Duration = Duration::from_secs(3);

/// The export of traces, which sends what is left when it is [stopped](Self::stop).
#[derive(Debug)]
pub struct Traces(SdkTracerProvider);

impl Traces {
    /// Starts the export to a collector, such as `http://localhost:4318`; without an address to that of the environment; none if the
    /// environment names none or `OTEL_SDK_DISABLED` is `true`. The other variables of OpenTelemetry for the service's name, samplers, headers and batches are
    /// respected.
    ///
    /// # Errors
    /// An address that is not one: one line.
    pub fn start(endpoint: Option<&str>, version: &'static str) -> Result<Option<Traces>, String> {
        let variable = |name: &str| std::env::var(name).ok().filter(|value| !value.trim().is_empty());
        let is_disabled = variable("OTEL_SDK_DISABLED").is_some_and(|value| value.eq_ignore_ascii_case("true"));
        let named = ENDPOINTS.iter().find_map(|name| variable(name).map(|value| (*name, value)));
        let (origin, address) = match (endpoint, named) {
            _ if is_disabled => return Ok(None),
            (Some(endpoint), _) => ("--otlp-endpoint", with_path(endpoint)),
            (None, Some((name, value))) if name == ENDPOINTS[0] => (name, value),
            (None, Some((name, value))) => (name, with_path(&value)),
            (None, None) => return Ok(None),
        };
        check(&address).map_err(|problem| format!("{origin}: {problem}"))?;
        let agent = ureq::Agent::config_builder().timeout_global(Some(TIMEOUT)).http_status_as_error(false).build();
        let client = Client { agent: agent.into(), address: address.clone(), is_failing: AtomicBool::new(false) };
        let exporter = SpanExporter::builder().with_http().with_http_client(client).with_endpoint(address).build();
        let exporter = exporter.map_err(|error| format!("{origin}: {error}"))?;
        let mut resource = Resource::builder().with_attribute(KeyValue::new("service.version", version));
        let is_named = variable("OTEL_SERVICE_NAME").is_some()
            || variable("OTEL_RESOURCE_ATTRIBUTES").is_some_and(|value| value.contains("service.name="));
        if !is_named {
            resource = resource.with_service_name(Value::from(SERVICE));
        }
        let provider = SdkTracerProvider::builder().with_batch_exporter(exporter).with_resource(resource.build());
        Ok(Some(Traces(provider.build())))
    }

    /// What turns the spans of requests into spans of the export.
    pub fn layer<S: Subscriber + for<'a> LookupSpan<'a>>(&self) -> impl Layer<S> + use<S> {
        let layer = tracing_opentelemetry::layer().with_tracer(self.0.tracer("cloze-serve"));
        let layer = layer.with_location(false).with_threads(false).with_target(false).with_tracked_inactivity(false);
        // With the warnings and errors of the log that belong to a request.
        layer.with_filter(filter_fn(|meta| {
            if meta.is_span() { meta.target() == TARGET } else { *meta.level() <= Level::WARN }
        }))
    }

    /// Sends the spans that are left, and ends the export.
    pub fn stop(self) {
        // A collector that cannot be reached was reported.
        let _ = self.0.shutdown_with_timeout(LAST);
    }
}

/// The address of traces of a collector.
fn with_path(endpoint: &str) -> String {
    let endpoint = endpoint.trim_end_matches('/');
    if endpoint.ends_with(PATH) { endpoint.to_owned() } else { format!("{endpoint}{PATH}") }
}

fn check(address: &str) -> Result<(), String> {
    let uri = address.parse::<Uri>().ok();
    let uri = uri.filter(|uri| matches!(uri.scheme_str(), Some("http" | "https")) && uri.host().is_some());
    uri.map(drop)
        .ok_or_else(|| format!("expected the address of a collector such as http://localhost:4318, found {address}"))
}

/// The span of a request; it does nothing if no traces are exported.
pub fn span(method: &Method, route: Option<&str>, path: &str, id: &str, headers: &HeaderMap) -> Span {
    let span = tracing::info_span!(
        target: TARGET,
        "request",
        otel.name = route.map_or_else(|| method.to_string(), |route| format!("{method} {route}")),
        otel.kind = "server",
        otel.status_code = Empty,
        http.request.method = %method,
        http.route = route,
        http.response.status_code = Empty,
        url.path = path,
        error.type = Empty,
        gen_ai.request.model = Empty,
        gen_ai.usage.input_tokens = Empty,
        cloze.request_id = id,
        cloze.queue_seconds = Empty,
        cloze.compute_seconds = Empty,
    );
    if !span.is_disabled() {
        // It fails if there is no export, but another layer is interested in the span.
        let _ = span.set_parent(TraceContextPropagator::new().extract(&HeaderExtractor(headers)));
    }
    span
}

/// The trace of a span of an export.
pub fn trace_of(span: &Span) -> Option<String> {
    if span.is_disabled() {
        return None;
    }
    let context = span.context();
    let found = context.span().span_context().trace_id();
    (found != opentelemetry::TraceId::INVALID).then(|| found.to_string())
}

/// Says what the answer to a request was.
pub fn finish(span: &Span, status: u16, error: Option<&str>, notes: &Notes) {
    if span.is_disabled() {
        return;
    }
    span.record("http.response.status_code", i64::from(status));
    if let Some(error) = error {
        span.record("error.type", error);
    }
    // Those of clients are no errors of a server.
    if status >= 500 {
        span.record("otel.status_code", "ERROR");
    }
    if !notes.models.is_empty() {
        span.record("gen_ai.request.model", notes.models.as_str());
        span.record("gen_ai.usage.input_tokens", i64::try_from(notes.tokens).unwrap_or(i64::MAX));
        span.record("cloze.queue_seconds", notes.queued.as_secs_f64());
        span.record("cloze.compute_seconds", notes.computed.as_secs_f64());
    }
}

/// Sends spans, on the thread of the export.
#[derive(Debug)]
struct Client {
    agent: ureq::Agent,
    address: String,
    /// Whether the last request failed: a change is reported, and not each failure.
    is_failing: AtomicBool,
}

impl Client {
    fn send(&self, request: Request<Bytes>) -> Result<Response<Bytes>, HttpError> {
        let response = self.agent.run(request.map(Vec::from))?;
        let (head, mut body) = response.into_parts();
        Ok(Response::from_parts(head, body.read_to_vec()?.into()))
    }
}

#[async_trait::async_trait]
impl HttpClient for Client {
    async fn send_bytes(&self, request: Request<Bytes>) -> Result<Response<Bytes>, HttpError> {
        let found = self.send(request);
        let problem = match &found {
            Ok(response) if response.status().is_success() => None,
            Ok(response) => Some(format!("it answered {}", response.status())),
            Err(error) => Some(error.to_string()),
        };
        match problem {
            Some(problem) if !self.is_failing.swap(true, Ordering::Relaxed) => tracing::warn!(
                collector = self.address,
                problem,
                "traces cannot be sent, and are dropped; requests are not affected"
            ),
            None if self.is_failing.swap(false, Ordering::Relaxed) => {
                tracing::info!(collector = self.address, "traces are sent again");
            }
            _ => {}
        }
        found
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_of_collectors_are_checked() {
        for (given, expected) in [
            ("http://a:4318", "http://a:4318/v1/traces"),
            ("http://a:4318/", "http://a:4318/v1/traces"),
            ("https://a/otlp", "https://a/otlp/v1/traces"),
            ("http://a/v1/traces", "http://a/v1/traces"),
        ] {
            assert_eq!(with_path(given), expected);
            assert_eq!(check(&with_path(given)), Ok(()));
        }
        for wrong in ["localhost:4318", "ftp://a", "/v1/traces", "http://", "a b"] {
            let error = Traces::start(Some(wrong), "1").unwrap_err();
            assert!(error.contains("--otlp-endpoint: expected the address of a collector"), "{error}");
        }
    }
}
