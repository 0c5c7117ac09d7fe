//! SageMaker's `/invocations` and Vertex's `/vertex`: the payloads of the first model's task.

use std::sync::Arc;

use axum::extract::State;
use axum::response::Response;
use serde::Deserialize;
use serde_json::json;
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::hugging_face::{Payload, answer, values};
use crate::app::App;
use crate::failure::Failure;
use crate::http::body::Body;
use crate::http::headers::{json_of, timed};
use crate::http::schema::Failures;

/// The routes.
pub fn router() -> OpenApiRouter<Arc<App>> {
    OpenApiRouter::new().routes(routes!(invocations)).routes(routes!(vertex)).routes(routes!(root))
}

/// A payload of the task of the first model, as for `/models/NAME`.
#[utoipa::path(post, path = "/invocations", tag = "SageMaker and Vertex", request_body = Value,
    responses((status = 200, description = "The answer of the model's task", body = Value), Failures))]
async fn invocations(State(app): State<Arc<App>>, Body(payload): Body<Payload>) -> Result<Response, Failure> {
    let model = app.registry.find(payload.model.as_deref(), &[]).or_else(|failure| super::tei::first(&app, failure))?;
    answer(&app, &model, None, payload).await
}

/// The same, as TEI has it at `/`.
#[utoipa::path(post, path = "/", tag = "text-embeddings-inference", request_body = Value,
    responses((status = 200, description = "The answer of the model's task", body = Value), Failures))]
async fn root(app: State<Arc<App>>, payload: Body<Payload>) -> Result<Response, Failure> {
    invocations(app, payload).await
}

/// Payloads, each answered as one of `/invocations`.
#[derive(Debug, Deserialize, ToSchema)]
pub struct VertexRequest {
    /// The payloads.
    #[schema(value_type = Vec<Value>)]
    instances: Vec<Payload>,
}

/// Several payloads of the task of the first model.
#[utoipa::path(post, path = "/vertex", tag = "SageMaker and Vertex", request_body = VertexRequest,
    responses((status = 200, description = "The answer to each payload", body = Value), Failures))]
async fn vertex(State(app): State<Arc<App>>, Body(request): Body<VertexRequest>) -> Result<Response, Failure> {
    app.check_inputs(request.instances.len())?;
    let of_model = |payload: Payload| {
        let model =
            app.registry.find(payload.model.as_deref(), &[]).or_else(|failure| super::tei::first(&app, failure))?;
        Ok((model, None, payload))
    };
    let payloads = request.instances.into_iter().map(of_model).collect::<Result<Vec<_>, Failure>>()?;
    let (predictions, times) = values(&app, payloads).await?;
    Ok(timed(&times, json_of(&json!({"predictions": predictions}))?))
}
