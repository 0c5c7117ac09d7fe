//! OpenAI's `/v1/embeddings` and `/v1/models`.

use std::sync::Arc;

use axum::Json;
use axum::extract::{Path, State};
use axum::response::Response;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::embeddings::{NumberType, Numbers, Wanted, embed};
use super::inputs::Inputs;
use super::tei::describe;
use crate::app::App;
use crate::failure::Failure;
use crate::http::body::Body;
use crate::http::headers::{json_of, timed};
use crate::http::schema::{Failures, InputsSchema};
use crate::models::Task;
use crate::scheduler::ticket::Priority;

/// The routes.
pub fn router() -> OpenApiRouter<Arc<App>> {
    OpenApiRouter::new()
        .routes(routes!(embeddings))
        .routes(routes!(embeddings_without_prefix))
        .routes(routes!(models))
        .routes(routes!(model))
}

/// How vectors are written.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum Encoding {
    /// Lists of numbers.
    #[default]
    Float,
    /// The little-endian bytes of the numbers in base64.
    Base64,
}

/// Texts to embed.
#[derive(Debug, Deserialize, ToSchema)]
pub struct EmbeddingsRequest {
    /// The texts, or their token ids in the model's vocabulary.
    #[schema(value_type = InputsSchema)]
    input: Inputs,
    /// The model; by default the first one that embeds.
    model: Option<String>,
    /// How vectors are written.
    encoding_format: Option<Encoding>,
    /// The type of numbers in base64.
    embed_dtype: Option<NumberType>,
    /// The number of leading dimensions to keep.
    dimensions: Option<usize>,
    /// Who asks; not used.
    #[allow(dead_code)]
    user: Option<String>,
    /// The name of a prompt of the model's folder.
    prompt_name: Option<String>,
    /// Whether too long texts are truncated; by default as the server is set.
    truncate: Option<bool>,
    /// `auto`, `high` or `low`.
    #[serde(default)]
    #[schema(value_type = Option<String>)]
    priority: Priority,
}

#[derive(Serialize)]
struct Embedding<V> {
    object: &'static str,
    index: usize,
    embedding: V,
}

#[derive(Serialize)]
struct Embeddings<'a, V> {
    object: &'static str,
    data: Vec<Embedding<V>>,
    model: &'a str,
    usage: Usage,
}

#[derive(Serialize)]
struct Usage {
    prompt_tokens: u64,
    total_tokens: u64,
}

/// Vectors of texts, each with the norm 1 if the model's folder says so.
#[utoipa::path(post, path = "/v1/embeddings", tag = "OpenAI", request_body = EmbeddingsRequest,
    responses((status = 200, description = "A vector for each text", body = Value), Failures))]
async fn embeddings(State(app): State<Arc<App>>, Body(request): Body<EmbeddingsRequest>) -> Result<Response, Failure> {
    let model = app.registry.find(request.model.as_deref(), &[Task::Embed])?;
    let EmbeddingsRequest { input, encoding_format, embed_dtype, dimensions, prompt_name, truncate, priority, .. } =
        request;
    let wanted = Wanted { prompt_name, truncate, dimensions, priority, ..Wanted::default() };
    let name = model.name.clone();
    let found = embed(&app, &model, input, wanted, move |vectors, call| {
        let tokens = call.ticket().tokens();
        let usage = Usage { prompt_tokens: tokens, total_tokens: tokens };
        match encoding_format.unwrap_or_default() {
            Encoding::Float => answer(vectors.rows().map(Numbers), &name, usage),
            Encoding::Base64 => {
                let number = embed_dtype.unwrap_or_default();
                answer(vectors.rows().map(|vector| number.base64(vector)), &name, usage)
            }
        }
    })
    .await?;
    Ok(timed(&found.times, found.value))
}

/// The same without the prefix `/v1`, as infinity has it.
#[utoipa::path(post, path = "/embeddings", tag = "OpenAI", request_body = EmbeddingsRequest,
    responses((status = 200, description = "A vector for each text", body = Value), Failures))]
async fn embeddings_without_prefix(
    app: State<Arc<App>>,
    request: Body<EmbeddingsRequest>,
) -> Result<Response, Failure> {
    embeddings(app, request).await
}

fn answer<V: Serialize>(vectors: impl Iterator<Item = V>, model: &str, usage: Usage) -> Result<Vec<u8>, Failure> {
    let one = |(index, embedding)| Embedding { object: "embedding", index, embedding };
    json_of(&Embeddings { object: "list", data: vectors.enumerate().map(one).collect(), model, usage })
}

/// The models.
#[utoipa::path(get, path = "/v1/models", tag = "OpenAI",
    responses((status = 200, description = "The models", body = Value), Failures))]
async fn models(State(app): State<Arc<App>>) -> Json<Value> {
    let data: Vec<Value> = app.registry.all().iter().map(|model| describe(model)).collect();
    Json(json!({"object": "list", "data": data}))
}

/// A model.
#[utoipa::path(get, path = "/v1/models/{model}", tag = "OpenAI", params(("model" = String, Path, description = "Its name")),
    responses((status = 200, description = "The model", body = Value), Failures))]
async fn model(State(app): State<Arc<App>>, Path(name): Path<String>) -> Result<Json<Value>, Failure> {
    Ok(Json(describe(&*app.registry.named(&name)?)))
}
