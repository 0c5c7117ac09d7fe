//! KServe's Open Inference Protocol (version 2) and Triton's repository extension. Texts are `BYTES`; the answer of a model's task is `BYTES` of
//! JSON, except for vectors, which are `FP32`.

use std::sync::Arc;

use axum::Json;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::response::Response;
use cloze_tasks::inference::Precision;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::embeddings::{Wanted, embed};
use super::hugging_face::{Payload, pipeline_of, values};
use super::inputs::Inputs;
use crate::app::App;
use crate::failure::{Failure, Reason};
use crate::http::body::{Body, OptionalBody};
use crate::http::headers::{json_of, timed};
use crate::http::schema::Failures;
use crate::models::registry::Entry;
use crate::models::{Changes, Served, Task};

/// The name of the tensor with the second text of pairs.
const PAIR: &str = "text_pair";

/// The routes.
pub fn router() -> OpenApiRouter<Arc<App>> {
    OpenApiRouter::new()
        .routes(routes!(server))
        .routes(routes!(live))
        .routes(routes!(ready))
        .routes(routes!(model))
        .routes(routes!(model_version))
        .routes(routes!(model_ready))
        .routes(routes!(model_version_ready))
        .routes(routes!(infer))
        .routes(routes!(infer_version))
        .routes(routes!(index))
        .routes(routes!(load))
        .routes(routes!(unload))
}

/// What the server is.
#[utoipa::path(get, path = "/v2", tag = "KServe", responses((status = 200, description = "Its name and extensions", body = Value)))]
async fn server(State(app): State<Arc<App>>) -> Json<Value> {
    Json(json!({"name": "cloze", "version": app.version, "extensions": ["model_repository"]}))
}

/// Whether the process lives.
#[utoipa::path(get, path = "/v2/health/live", tag = "KServe", responses((status = 200, description = "It lives", body = Value)))]
async fn live() -> Json<Value> {
    Json(json!({"live": true}))
}

/// Whether all models are ready.
#[utoipa::path(get, path = "/v2/health/ready", tag = "KServe",
    responses((status = 200, description = "All are ready", body = Value), (status = 503, description = "Some are not", body = Value)))]
async fn ready(State(app): State<Arc<App>>) -> (StatusCode, Json<Value>) {
    let ready = app.is_ready() && app.registry.is_complete();
    let status = if ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    (status, Json(json!({"ready": ready})))
}

fn metadata(model: &Served) -> Value {
    let input = |name: &str| json!({"name": name, "datatype": "BYTES", "shape": [-1]});
    let output = match model.default_embedder() {
        Some(embedder) => json!({"name": "embeddings", "datatype": "FP32", "shape": [-1, embedder.width()]}),
        None => json!({"name": "output", "datatype": "BYTES", "shape": [-1]}),
    };
    json!({
        "name": model.name,
        "versions": [model.version.to_string()],
        "platform": "cloze",
        "inputs": [input("text"), input(PAIR)],
        "outputs": [output],
        "tasks": model.tasks(),
    })
}

fn versioned(app: &App, name: &str, version: &str) -> Result<Arc<Served>, Failure> {
    let model = app.registry.named(name)?;
    if model.version.to_string() == version {
        return Ok(model);
    }
    let message = format!("model \"{name}\" has the version {}, found {version}", model.version);
    Err(Failure::new(Reason::UnknownModel, message))
}

/// What a model takes and gives.
#[utoipa::path(get, path = "/v2/models/{model}", tag = "KServe", params(("model" = String, Path, description = "Its name")),
    responses((status = 200, description = "The model", body = Value), Failures))]
async fn model(State(app): State<Arc<App>>, Path(name): Path<String>) -> Result<Json<Value>, Failure> {
    Ok(Json(metadata(&*app.registry.named(&name)?)))
}

/// What a version of a model takes and gives.
#[utoipa::path(get, path = "/v2/models/{model}/versions/{version}", tag = "KServe",
    params(("model" = String, Path, description = "Its name"), ("version" = String, Path, description = "Its version")),
    responses((status = 200, description = "The model", body = Value), Failures))]
async fn model_version(
    State(app): State<Arc<App>>,
    Path((name, version)): Path<(String, String)>,
) -> Result<Json<Value>, Failure> {
    Ok(Json(metadata(&*versioned(&app, &name, &version)?)))
}

/// Whether a model is ready.
#[utoipa::path(get, path = "/v2/models/{model}/ready", tag = "KServe", params(("model" = String, Path, description = "Its name")),
    responses((status = 200, description = "It is ready", body = Value), Failures))]
async fn model_ready(State(app): State<Arc<App>>, Path(name): Path<String>) -> Result<Json<Value>, Failure> {
    let model = app.registry.named(&name)?;
    Ok(Json(json!({"name": model.name, "ready": true})))
}

/// Whether a version of a model is ready.
#[utoipa::path(get, path = "/v2/models/{model}/versions/{version}/ready", tag = "KServe",
    params(("model" = String, Path, description = "Its name"), ("version" = String, Path, description = "Its version")),
    responses((status = 200, description = "It is ready", body = Value), Failures))]
async fn model_version_ready(
    State(app): State<Arc<App>>,
    Path((name, version)): Path<(String, String)>,
) -> Result<Json<Value>, Failure> {
    let model = versioned(&app, &name, &version)?;
    Ok(Json(json!({"name": model.name, "ready": true})))
}

/// A tensor.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
pub struct Tensor {
    /// Its name.
    name: String,
    /// Its dimensions.
    shape: Vec<usize>,
    /// `BYTES` for texts.
    datatype: String,
    /// Its values, row by row; may be nested.
    data: Value,
}

/// Tensors to infer from.
#[derive(Debug, Deserialize, ToSchema)]
pub struct InferRequest {
    /// The request's id, which the answer repeats.
    id: Option<String>,
    /// The texts: a tensor `text` (or the only one), and `text_pair` for pairs.
    inputs: Vec<Tensor>,
    /// Parameters of the model's task, as in Hugging Face's payloads.
    #[serde(default)]
    parameters: serde_json::Map<String, Value>,
}

/// The texts of a tensor.
fn texts(tensor: &Tensor) -> Result<Vec<String>, Failure> {
    let wrong = |problem: String| Failure::validation(format!("input \"{}\": {problem}", tensor.name));
    if tensor.datatype != "BYTES" {
        return Err(wrong(format!("expected the datatype BYTES, found {}", tensor.datatype)));
    }
    fn flatten(value: &Value, out: &mut Vec<String>) -> Result<(), String> {
        match value {
            Value::String(text) => out.push(text.clone()),
            Value::Array(list) => list.iter().try_for_each(|value| flatten(value, out))?,
            other => return Err(format!("expected strings, found {}", super::inputs::kind(other))),
        }
        Ok(())
    }
    let mut found = Vec::new();
    flatten(&tensor.data, &mut found).map_err(wrong)?;
    let expected = tensor.shape.iter().try_fold(1usize, |product, size| product.checked_mul(*size));
    if expected != Some(found.len()) {
        return Err(wrong(format!("the shape {:?} does not fit the {} values", tensor.shape, found.len())));
    }
    Ok(found)
}

async fn infer_with(app: &Arc<App>, model: &Arc<Served>, request: InferRequest) -> Result<Response, Failure> {
    let InferRequest { id, inputs, parameters } = request;
    let pair = inputs.iter().find(|tensor| tensor.name == PAIR).map(texts).transpose()?;
    let Some(first) = inputs.iter().find(|tensor| tensor.name != PAIR) else {
        return Err(Failure::validation("expected an input tensor \"text\", found none"));
    };
    let first = texts(first)?;
    app.check_inputs(first.len())?;
    if let Some(found) = pair.as_ref().filter(|pair| pair.len() != first.len()) {
        return Err(Failure::validation(format!(
            "expected {} values of \"{PAIR}\", found {}",
            first.len(),
            found.len()
        )));
    }
    let (outputs, times) = if model.tasks().contains(&Task::Embed) && pair.is_none() {
        let found = embed(app, model, Inputs::Texts(first), Wanted::default(), |vectors, _| {
            Ok((vectors.len(), vectors.width(), vectors.values().to_vec()))
        })
        .await?;
        let (rows, width, values) = found.value;
        (json!([{"name": "embeddings", "datatype": "FP32", "shape": [rows, width], "data": values}]), found.times)
    } else {
        let task = pipeline_of(model)?;
        let payload = |(number, text): (usize, String)| {
            let inputs = match &pair {
                Some(pair) => task.pair(text, pair[number].clone()),
                None => text.into(),
            };
            (Arc::clone(model), Some(task), Payload { inputs, parameters: parameters.clone(), ..Payload::default() })
        };
        let payloads = first.into_iter().enumerate().map(payload).collect();
        let (answers, times) = values(app, payloads).await?;
        let answers: Vec<String> = answers.iter().map(Value::to_string).collect();
        (json!([{"name": "output", "datatype": "BYTES", "shape": [answers.len()], "data": answers}]), times)
    };
    let mut answer = json!({"model_name": model.name, "model_version": model.version.to_string(), "outputs": outputs});
    if let Some(id) = id {
        answer["id"] = id.into();
    }
    Ok(timed(&times, json_of(&answer)?))
}

/// The output of a model's task.
#[utoipa::path(post, path = "/v2/models/{model}/infer", tag = "KServe", request_body = InferRequest,
    params(("model" = String, Path, description = "Its name")),
    responses((status = 200, description = "Vectors as FP32, other answers as BYTES of JSON", body = Value), Failures))]
async fn infer(
    State(app): State<Arc<App>>,
    Path(name): Path<String>,
    Body(request): Body<InferRequest>,
) -> Result<Response, Failure> {
    let model = app.registry.named(&name)?;
    infer_with(&app, &model, request).await
}

/// The same, for a version of a model.
#[utoipa::path(post, path = "/v2/models/{model}/versions/{version}/infer", tag = "KServe", request_body = InferRequest,
    params(("model" = String, Path, description = "Its name"), ("version" = String, Path, description = "Its version")),
    responses((status = 200, description = "Vectors as FP32, other answers as BYTES of JSON", body = Value), Failures))]
async fn infer_version(
    State(app): State<Arc<App>>,
    Path((name, version)): Path<(String, String)>,
    Body(request): Body<InferRequest>,
) -> Result<Response, Failure> {
    let model = versioned(&app, &name, &version)?;
    infer_with(&app, &model, request).await
}

/// Which models are listed.
#[derive(Debug, Default, Deserialize, ToSchema)]
pub struct IndexRequest {
    /// Only those that are ready.
    #[serde(default)]
    ready: bool,
}

/// All models that the server may load: those that it was started with, and those of its repository.
#[utoipa::path(post, path = "/v2/repository/index", tag = "KServe", request_body = Option<IndexRequest>,
    responses((status = 200, description = "The models with their states", body = Value), Failures))]
async fn index(
    State(app): State<Arc<App>>,
    OptionalBody(request): OptionalBody<IndexRequest>,
) -> Result<Json<Value>, Failure> {
    let own = Arc::clone(&app);
    let found = blocking(move || own.registry.index()).await?;
    let one = |entry: Entry| {
        let version = app.registry.named(&entry.name).map(|model| model.version.to_string()).unwrap_or_default();
        let state = if entry.is_open { "READY" } else { "UNAVAILABLE" };
        json!({"name": entry.name, "version": version, "state": state, "reason": ""})
    };
    Ok(Json(found.into_iter().filter(|entry| entry.is_open || !request.ready).map(one).collect()))
}

/// How a model is loaded.
#[derive(Debug, Default, Deserialize, ToSchema)]
pub struct LoadRequest {
    /// What is different from the server's settings.
    #[serde(default)]
    #[schema(value_type = Option<LoadParameters>)]
    parameters: Option<LoadParameters>,
}

/// What is different from the server's settings.
#[derive(Debug, Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct LoadParameters {
    /// The model's folder in the repository, by default that of its name.
    path: Option<String>,
    /// `auto`, `f32`, `bf16`.
    precision: Option<String>,
    /// Maximum number of tokens of a sequence.
    max_len: Option<usize>,
    /// The name of the prompt before each text.
    prompt: Option<String>,
}

impl LoadParameters {
    fn changes(self) -> Result<Changes, Failure> {
        let precision = match self.precision {
            None => None,
            Some(name) => {
                let found = Precision::ALL.iter().find(|(_, known, _)| *known == name);
                let names = || Precision::ALL.iter().map(|(_, name, _)| *name).collect::<Vec<_>>().join(", ");
                let unknown = || Failure::validation(format!("precision: expected {}, found {name}", names()));
                Some(found.ok_or_else(unknown)?.0)
            }
        };
        if self.max_len == Some(0) {
            return Err(Failure::validation("max_len: expected at least 1, found 0"));
        }
        Ok(Changes { path: self.path, precision, max_len: self.max_len, prompt: self.prompt })
    }
}

/// Loads a model again, one that was unloaded, or one of the repository. Running requests finish on the old one.
#[utoipa::path(post, path = "/v2/repository/models/{model}/load", tag = "KServe", request_body = Option<LoadRequest>,
    params(("model" = String, Path, description = "Its name")),
    responses((status = 200, description = "Loaded", body = Value), Failures))]
async fn load(
    State(app): State<Arc<App>>,
    Path(name): Path<String>,
    OptionalBody(request): OptionalBody<LoadRequest>,
) -> Result<Json<Value>, Failure> {
    let changes = request.parameters.unwrap_or_default().changes()?;
    let model = blocking(move || app.registry.load(&name, &changes)).await??;
    Ok(Json(
        json!({"name": model.name, "version": model.version.to_string(), "load_seconds": model.took.as_secs_f64()}),
    ))
}

async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Result<T, Failure> {
    let done = tokio::task::spawn_blocking(work).await;
    done.map_err(|_| Failure::new(Reason::Backend, "internal error, see the server's log"))
}

/// Unloads a model. Running requests finish on it.
#[utoipa::path(post, path = "/v2/repository/models/{model}/unload", tag = "KServe",
    params(("model" = String, Path, description = "Its name")),
    responses((status = 200, description = "Unloaded", body = Value), Failures))]
async fn unload(State(app): State<Arc<App>>, Path(name): Path<String>) -> Result<Json<Value>, Failure> {
    // It waits while another model is opened.
    blocking(move || app.registry.unload(&name).map(|()| Json(json!({"name": name})))).await?
}
