//! The log, on standard error; and the spans of requests, if they are exported.

use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{EnvFilter, Layer};

use crate::http::layers::REQUEST_TARGET;
use crate::traces::{self, Traces};

/// How lines of the log are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// For people.
    Text,
    /// One JSON object a line.
    Json,
}

/// Starts the log and the export of traces. A line that cannot be written is dropped. The environment variable `RUST_LOG` takes
/// precedence over the arguments.
#[allow(clippy::disallowed_methods, reason = "errors of writing are ignored: `log_internal_errors`")]
pub fn start(format: Format, requests: bool, quiet: bool, traces: Option<&Traces>) {
    let level = if quiet { "warn" } else { "info" };
    let of_requests = if requests { "info" } else { "warn" };
    let filter = EnvFilter::try_from_default_env()
        .unwrap_or_else(|_| EnvFilter::new(format!("{level},{REQUEST_TARGET}={of_requests},{}=off", traces::TARGET)));
    let lines = tracing_subscriber::fmt::layer().with_writer(std::io::stderr);
    let lines = lines.with_ansi(false).log_internal_errors(false);
    let lines = match format {
        Format::Text => lines.with_target(false).boxed(),
        Format::Json => lines.json().flatten_event(true).with_current_span(false).with_span_list(false).boxed(),
    };
    let spans = traces.map(Traces::layer);
    // It is already started if a process starts several servers.
    let _ = tracing_subscriber::registry().with(lines.with_filter(filter)).with(spans).try_init();
}
