//! Whether the server lives and is ready, by the paths of Kubernetes, TEI, infinity and SageMaker; and the metrics.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use axum::http::header::CONTENT_TYPE;
use axum::response::{IntoResponse, Response};
use serde_json::{Value, json};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::app::App;
use crate::http::headers::seconds_since_1970;

/// The routes.
pub fn router() -> OpenApiRouter<Arc<App>> {
    OpenApiRouter::new()
        .routes(routes!(healthz))
        .routes(routes!(livez))
        .routes(routes!(readyz))
        .routes(routes!(health))
        .routes(routes!(ping))
        .routes(routes!(metrics))
}

/// Whether the process lives.
#[utoipa::path(get, path = "/livez", tag = "health", responses((status = 200, description = "It lives")))]
async fn livez() -> &'static str {
    "ok"
}

/// The same.
#[utoipa::path(get, path = "/healthz", tag = "health", responses((status = 200, description = "It lives")))]
async fn healthz() -> &'static str {
    "ok"
}

fn ready(app: &App) -> StatusCode {
    if app.is_ready() { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE }
}

/// Whether new requests should be sent: not while the server stops.
#[utoipa::path(get, path = "/readyz", tag = "health",
    responses((status = 200, description = "Ready"), (status = 503, description = "No model, or stopping")))]
async fn readyz(State(app): State<Arc<App>>) -> (StatusCode, &'static str) {
    let status = ready(&app);
    (status, if status == StatusCode::OK { "ok" } else { "not ready" })
}

/// The same, as TEI and infinity have it.
#[utoipa::path(get, path = "/health", tag = "health",
    responses((status = 200, description = "Ready", body = Value), (status = 503, description = "No model, or stopping")))]
async fn health(State(app): State<Arc<App>>) -> (StatusCode, Json<Value>) {
    (ready(&app), Json(json!({"unix": seconds_since_1970()})))
}

/// The same, as SageMaker has it.
#[utoipa::path(get, path = "/ping", tag = "health",
    responses((status = 200, description = "Ready"), (status = 503, description = "No model, or stopping")))]
async fn ping(State(app): State<Arc<App>>) -> StatusCode {
    ready(&app)
}

/// Metrics in the text format of Prometheus.
#[utoipa::path(get, path = "/metrics", tag = "health", responses((status = 200, description = "The metrics", body = String)))]
async fn metrics(State(app): State<Arc<App>>) -> Response {
    let (jobs, tokens) = app.scheduler.waiting();
    metrics::gauge!("cloze_queue_jobs").set(jobs as f64);
    metrics::gauge!("cloze_queue_tokens").set(tokens as f64);
    for model in app.registry.all() {
        let bytes = model.model.model.parameter_count() * size_of::<f32>();
        metrics::gauge!("cloze_model_bytes", "model" => model.name.clone()).set(bytes as f64);
        let rate = 1.0 / model.cost.seconds(1);
        metrics::gauge!("cloze_model_tokens_per_second", "model" => model.name.clone()).set(rate);
    }
    if let Some(bytes) = cloze_files::machine::resident_memory() {
        metrics::gauge!("process_resident_memory_bytes").set(bytes as f64);
    }
    ([(CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")], app.metrics.render()).into_response()
}
