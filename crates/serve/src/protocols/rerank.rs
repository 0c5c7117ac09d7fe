//! Reranking as Cohere, Jina, infinity and vLLM do it.

use std::sync::Arc;

use axum::extract::State;
use axum::response::Response;
use cloze_tasks::TaskError;
use cloze_tasks::rerank::order;
use serde::Deserialize;
use serde_json::{Value, json};
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;
use uuid::Uuid;

use super::inputs::{Documents, Texts};
use crate::app::{Answered, App};
use crate::failure::Failure;
use crate::http::body::Body;
use crate::http::headers::{json_of, seconds_since_1970, timed};
use crate::http::schema::{DocumentSchema, Failures, TextsSchema};
use crate::models::{Served, Task};
use crate::scheduler::ticket::Priority;

/// The routes.
pub fn router() -> OpenApiRouter<Arc<App>> {
    OpenApiRouter::new()
        .routes(routes!(cohere))
        .routes(routes!(jina))
        .routes(routes!(score))
        .routes(routes!(score_with_prefix))
}

/// The scores of texts for a query, in their order. Without the sigmoid, if `raw`; `truncate` is as in a request.
///
/// # Errors
/// No texts or too many; a pair that is too long and not to be truncated; the failures of the model.
pub async fn scores(
    app: &App,
    model: &Arc<Served>,
    query: String,
    texts: Vec<String>,
    (raw, truncate): (bool, Option<bool>),
    priority: Priority,
) -> Result<Answered<Vec<f32>>, Failure> {
    let pairs = texts.into_iter().map(|text| (query.clone(), text)).collect();
    pair_scores(app, model, pairs, (raw, truncate), priority).await
}

/// The scores of pairs of a query and a text.
async fn pair_scores(
    app: &App,
    model: &Arc<Served>,
    pairs: Vec<(String, String)>,
    (raw, truncate): (bool, Option<bool>),
    priority: Priority,
) -> Result<Answered<Vec<f32>>, Failure> {
    app.check_inputs(pairs.len())?;
    let truncate = truncate.unwrap_or(app.settings.truncate);
    let size = pairs.iter().map(|(query, text)| query.chars().count() + text.chars().count()).sum();
    app.compute(model, (priority, size), move |model, call| {
        let cross_encoder = model.cross_encoder()?;
        let found = match raw {
            true => cross_encoder.logits_on(call, &pairs, &mut |_| ()),
            false => cross_encoder.predict_on(call, &pairs, &mut |_| ()),
        };
        let found: Result<_, TaskError> = found;
        let found = found?;
        if !truncate && found.cut > 0 {
            let most = cross_encoder.max_len();
            return Err(Failure::validation(format!(
                "{} of the {} pairs have more than {most} tokens, which is what the model reads; shorten them, or set \"truncate\": true",
                found.cut,
                pairs.len()
            )));
        }
        Ok(found.rows.into_iter().flatten().collect())
    })
    .await
}

/// A query and documents to rank.
#[derive(Debug, Deserialize, ToSchema)]
pub struct RankRequest {
    /// The query.
    query: String,
    /// The documents.
    #[schema(value_type = Vec<DocumentSchema>)]
    documents: Documents,
    /// The model; by default the first reranker.
    model: Option<String>,
    /// The number of documents in the answer.
    #[schema(minimum = 1)]
    top_n: Option<usize>,
    /// Whether the answer has the documents.
    return_documents: Option<bool>,
    /// `auto`, `high` or `low`.
    #[serde(default)]
    #[schema(value_type = Option<String>)]
    priority: Priority,
}

/// The numbers of the best texts, and how many are wanted.
fn best(scores: &[f32], most: Option<usize>) -> Result<Vec<usize>, Failure> {
    if most == Some(0) {
        return Err(Failure::validation("top_n: expected at least 1, found 0"));
    }
    let mut order = order(scores);
    order.truncate(most.unwrap_or(order.len()));
    Ok(order)
}

/// Cohere's reranking.
#[utoipa::path(post, path = "/v2/rerank", tag = "Cohere and Jina", request_body = RankRequest,
    responses((status = 200, description = "The documents, most relevant first", body = Value), Failures))]
async fn cohere(State(app): State<Arc<App>>, Body(request): Body<RankRequest>) -> Result<Response, Failure> {
    let model = app.registry.find(request.model.as_deref(), &[Task::Rerank])?;
    let RankRequest { query, documents: Documents(documents), top_n, priority, .. } = request;
    let units = documents.len().div_ceil(100);
    let found = scores(&app, &model, query, documents, (false, None), priority).await?;
    let results: Vec<Value> = best(&found.value, top_n)?
        .into_iter()
        .map(|index| json!({"index": index, "relevance_score": found.value[index]}))
        .collect();
    let answer = json!({
        "id": Uuid::new_v4().to_string(),
        "results": results,
        "meta": {
            "api_version": {"version": "2"},
            "billed_units": {"search_units": units},
            "tokens": {"input_tokens": found.times.tokens},
        },
    });
    Ok(timed(&found.times, json_of(&answer)?))
}

/// Jina's reranking, which Cohere's first version and vLLM resemble.
#[utoipa::path(post, path = "/v1/rerank", tag = "Cohere and Jina", request_body = RankRequest,
    responses((status = 200, description = "The documents, most relevant first", body = Value), Failures))]
async fn jina(State(app): State<Arc<App>>, Body(request): Body<RankRequest>) -> Result<Response, Failure> {
    let model = app.registry.find(request.model.as_deref(), &[Task::Rerank])?;
    let RankRequest { query, documents: Documents(documents), top_n, return_documents, priority, .. } = request;
    let units = documents.len().div_ceil(100);
    // Jina's default.
    let kept = return_documents.unwrap_or(true).then(|| documents.clone());
    let found = scores(&app, &model, query, documents, (false, None), priority).await?;
    let result = |index: usize| {
        let mut result = json!({"index": index, "relevance_score": found.value[index]});
        if let Some(documents) = &kept {
            result["document"] = json!({"text": documents[index]});
        }
        result
    };
    let answer = json!({
        "id": Uuid::new_v4().to_string(),
        "model": model.name,
        "object": "list",
        "usage": {"total_tokens": found.times.tokens, "prompt_tokens": found.times.tokens},
        "results": best(&found.value, top_n)?.into_iter().map(result).collect::<Vec<_>>(),
        "meta": {"api_version": {"version": "1"}, "billed_units": {"search_units": units}},
    });
    Ok(timed(&found.times, json_of(&answer)?))
}

/// infinity's reranking, for `/rerank` with `documents`. `options` are whether scores are without the sigmoid, whether documents are returned,
/// and how many.
///
/// # Errors
/// As [`scores`].
pub async fn of_infinity(
    app: &App,
    model: &Arc<Served>,
    query: String,
    documents: Vec<String>,
    (raw, with_documents, top_n): (bool, bool, Option<usize>),
    priority: Priority,
) -> Result<Response, Failure> {
    let kept = with_documents.then(|| documents.clone());
    let found = scores(app, model, query, documents, (raw, None), priority).await?;
    let result = |index: usize| {
        let mut result = json!({"relevance_score": found.value[index], "index": index});
        if let Some(documents) = &kept {
            result["document"] = json!(documents[index]);
        }
        result
    };
    let answer = json!({
        "object": "rerank",
        "results": best(&found.value, top_n)?.into_iter().map(result).collect::<Vec<_>>(),
        "model": model.name,
        "usage": {"prompt_tokens": found.times.tokens, "total_tokens": found.times.tokens},
        "id": format!("infinity-{}", Uuid::new_v4()),
        "created": seconds_since_1970(),
    });
    Ok(timed(&found.times, json_of(&answer)?))
}

/// Queries and documents to score: as many of each, or one query for all.
#[derive(Debug, Deserialize, ToSchema)]
pub struct ScoreRequest {
    /// The queries.
    #[serde(alias = "text_1")]
    #[schema(value_type = TextsSchema)]
    queries: Texts,
    /// The documents.
    #[serde(alias = "text_2")]
    #[schema(value_type = TextsSchema)]
    documents: Texts,
    /// The model; by default the first reranker.
    model: Option<String>,
}

/// vLLM's scores of pairs.
#[utoipa::path(post, path = "/score", tag = "vLLM", request_body = ScoreRequest,
    responses((status = 200, description = "The score of each pair", body = Value), Failures))]
async fn score(State(app): State<Arc<App>>, Body(request): Body<ScoreRequest>) -> Result<Response, Failure> {
    let model = app.registry.find(request.model.as_deref(), &[Task::Rerank])?;
    let (queries, documents) = (request.queries.texts, request.documents.texts);
    let pairs: Vec<(String, String)> = match queries.len() {
        1 => documents.into_iter().map(|document| (queries[0].clone(), document)).collect(),
        count if count == documents.len() => queries.into_iter().zip(documents).collect(),
        count => {
            let message = format!(
                "expected one query, or as many as documents, found {count} queries and {} documents",
                documents.len()
            );
            return Err(Failure::validation(message));
        }
    };
    let found = pair_scores(&app, &model, pairs, (false, None), Priority::Auto).await?;
    let data: Vec<Value> = found
        .value
        .iter()
        .enumerate()
        .map(|(index, score)| json!({"index": index, "object": "score", "score": score}))
        .collect();
    let answer = json!({
        "id": format!("score-{}", Uuid::new_v4()),
        "object": "list",
        "created": seconds_since_1970(),
        "model": model.name,
        "data": data,
        "usage": {"prompt_tokens": found.times.tokens, "total_tokens": found.times.tokens},
    });
    Ok(timed(&found.times, json_of(&answer)?))
}

/// The same with the prefix `/v1`.
#[utoipa::path(post, path = "/v1/score", tag = "vLLM", request_body = ScoreRequest,
    responses((status = 200, description = "The score of each pair", body = Value), Failures))]
async fn score_with_prefix(app: State<Arc<App>>, request: Body<ScoreRequest>) -> Result<Response, Failure> {
    score(app, request).await
}
