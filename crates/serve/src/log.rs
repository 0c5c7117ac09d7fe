//! The log, on standard error.

use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::Subscriber;

use crate::http::layers::REQUEST_TARGET;

/// How lines of the log are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// For people.
    Text,
    /// One JSON object a line.
    Json,
}

/// Starts the log. A line that cannot be written is dropped. The environment variable `RUST_LOG` takes precedence over the arguments.
#[allow(clippy::disallowed_methods, reason = "errors of writing are ignored: `log_internal_errors`")]
pub fn start(format: Format, requests: bool, quiet: bool) {
    let level = if quiet { "warn" } else { "info" };
    let of_requests = if requests { "info" } else { "warn" };
    let filter = EnvFilter::try_from_default_env()
        .unwrap_or_else(|_| EnvFilter::new(format!("{level},{REQUEST_TARGET}={of_requests}")));
    let log = Subscriber::builder().with_env_filter(filter).with_writer(std::io::stderr);
    let log = log.with_ansi(false).log_internal_errors(false);
    // It is already started if a process starts several servers.
    let _ = match format {
        Format::Text => log.with_target(false).try_init(),
        Format::Json => log.json().flatten_event(true).with_current_span(false).with_span_list(false).try_init(),
    };
}
