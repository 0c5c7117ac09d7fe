//! infinity's `/classify` and `/models`.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::response::Response;
use serde::Deserialize;
use serde_json::{Value, json};
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;
use uuid::Uuid;

use super::classes::classify;
use super::inputs::{Texts, characters};
use super::tei::describe;
use crate::app::App;
use crate::failure::Failure;
use crate::http::body::Body;
use crate::http::headers::{json_of, seconds_since_1970, timed};
use crate::http::schema::{Failures, TextsSchema};
use crate::models::Task;
use crate::scheduler::ticket::Priority;

/// The routes.
pub fn router() -> OpenApiRouter<Arc<App>> {
    OpenApiRouter::new().routes(routes!(classify_texts)).routes(routes!(models))
}

/// Texts to classify.
#[derive(Debug, Deserialize, ToSchema)]
pub struct ClassifyRequest {
    /// The texts.
    #[schema(value_type = TextsSchema)]
    input: Texts,
    /// The model; by default the first classifier.
    model: Option<String>,
    /// Whether scores are the model's outputs without softmax or sigmoid.
    #[serde(default)]
    raw_scores: bool,
    /// `auto`, `high` or `low`.
    #[serde(default)]
    #[schema(value_type = Option<String>)]
    priority: Priority,
}

/// The labels of texts with their scores, best first.
#[utoipa::path(post, path = "/classify", tag = "infinity", request_body = ClassifyRequest,
    responses((status = 200, description = "The labels of each text", body = Value), Failures))]
async fn classify_texts(
    State(app): State<Arc<App>>,
    Body(request): Body<ClassifyRequest>,
) -> Result<Response, Failure> {
    let model = app.registry.find(request.model.as_deref(), &Task::CLASSIFIERS)?;
    let texts = request.input.texts;
    let size = characters(&texts);
    let rows = texts.into_iter().map(|text| (text, None)).collect();
    let found = classify(&app, &model, rows, (request.raw_scores, None), (request.priority, size)).await?;
    let answer = json!({
        "object": "classify",
        "data": found.value,
        "model": model.name,
        "usage": {"prompt_tokens": found.times.tokens, "total_tokens": found.times.tokens},
        "id": format!("infinity-{}", Uuid::new_v4()),
        "created": seconds_since_1970(),
    });
    Ok(timed(&found.times, json_of(&answer)?))
}

/// The models with their tasks.
#[utoipa::path(get, path = "/models", tag = "infinity",
    responses((status = 200, description = "The models", body = Value), Failures))]
async fn models(State(app): State<Arc<App>>) -> Json<Value> {
    let (jobs, _) = app.scheduler.waiting();
    let most = app.settings.max_requests.max(1);
    let stats = json!({
        "queue_fraction": jobs as f64 / most as f64,
        "queue_absolute": jobs,
        "results_pending": jobs,
        "batch_size": app.settings.batch_tokens,
    });
    let one = |model: &Arc<crate::models::Served>| {
        let mut found = describe(model);
        found["stats"] = stats.clone();
        found["backend"] = "cloze".into();
        found
    };
    let data: Vec<Value> = app.registry.all().iter().map(one).collect();
    Json(json!({"object": "list", "data": data}))
}
