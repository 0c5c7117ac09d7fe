//! The routes of text-embeddings-inference 1.9, with its payloads, headers and errors. Where several models are served, a request may name one
//! in `model`; without it, the first model with the task answers.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::response::Response;
use cloze_tasks::pipelines::sentence_similarity::Sentences;
use cloze_tasks::rerank::order;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::classes::classify;
use super::embeddings::{Numbers, Wanted, embed, similarities, token_embeddings};
use super::inputs::{Inputs, Pairs, Texts, characters};
use super::rerank::scores;
use crate::app::App;
use crate::failure::{Failure, Reason};
use crate::http::body::Body;
use crate::http::headers::{json_of, since_1970, timed};
use crate::http::schema::{Failures, InputsSchema, PairsSchema, TextsSchema};
use crate::models::{Served, Task};
use crate::scheduler::ticket::Priority;

/// The routes.
pub fn router() -> OpenApiRouter<Arc<App>> {
    OpenApiRouter::new()
        .routes(routes!(embed_texts))
        .routes(routes!(embed_all))
        .routes(routes!(predict))
        .routes(routes!(rerank))
        .routes(routes!(similarity))
        .routes(routes!(tokenize))
        .routes(routes!(decode))
        .routes(routes!(info))
}

/// Texts to embed.
#[derive(Debug, Deserialize, ToSchema)]
pub struct EmbedRequest {
    /// The texts, or their token ids.
    #[schema(value_type = InputsSchema)]
    pub inputs: Inputs,
    /// The model; by default the first one that embeds.
    pub model: Option<String>,
    /// Whether too long texts are truncated; by default as the server is set.
    pub truncate: Option<bool>,
    /// `Right` or `Left`.
    pub truncation_direction: Option<String>,
    /// The name of a prompt of the model's folder.
    pub prompt_name: Option<String>,
    /// Whether vectors are divided by their norm.
    #[serde(default = "yes")]
    pub normalize: bool,
    /// The number of leading dimensions to keep.
    pub dimensions: Option<usize>,
    /// `auto`, `high` or `low`.
    #[serde(default)]
    #[schema(value_type = Option<String>)]
    pub priority: Priority,
}

fn yes() -> bool {
    true
}

impl EmbedRequest {
    /// The inputs, and how they are embedded.
    pub fn split(self) -> (Inputs, Wanted) {
        let EmbedRequest {
            inputs, truncate, truncation_direction, prompt_name, normalize, dimensions, priority, ..
        } = self;
        (inputs, Wanted { prompt_name, truncate, truncation_direction, normalize, dimensions, priority })
    }
}

/// Vectors of texts.
#[utoipa::path(post, path = "/embed", tag = "text-embeddings-inference", request_body = EmbedRequest,
    responses((status = 200, description = "A vector for each text", body = Vec<Vec<f32>>), Failures))]
async fn embed_texts(State(app): State<Arc<App>>, Body(request): Body<EmbedRequest>) -> Result<Response, Failure> {
    let model = app.registry.find(request.model.as_deref(), &[Task::Embed])?;
    let (inputs, wanted) = request.split();
    let found =
        embed(&app, &model, inputs, wanted, |vectors, _| json_of(&vectors.rows().map(Numbers).collect::<Vec<_>>()))
            .await?;
    Ok(timed(&found.times, found.value))
}

/// Vectors of the tokens of texts, before pooling.
#[utoipa::path(post, path = "/embed_all", tag = "text-embeddings-inference", request_body = EmbedRequest,
    responses((status = 200, description = "A vector for each token of each text", body = Vec<Vec<Vec<f32>>>), Failures))]
async fn embed_all(State(app): State<Arc<App>>, Body(request): Body<EmbedRequest>) -> Result<Response, Failure> {
    let model = app.registry.find(request.model.as_deref(), &[Task::TokenEmbed])?;
    let (inputs, wanted) = request.split();
    let Inputs::Texts(texts) = inputs else {
        return Err(Failure::validation("inputs: expected texts, found token ids"));
    };
    let found = token_embeddings(&app, &model, texts, wanted, |texts| {
        let texts: Vec<Vec<Numbers<'_>>> = texts.iter().map(|tokens| tokens.rows().map(Numbers).collect()).collect();
        json_of(&texts)
    })
    .await?;
    Ok(timed(&found.times, found.value))
}

/// Texts or pairs to classify.
#[derive(Debug, Deserialize, ToSchema)]
pub struct PredictRequest {
    /// A text, a pair `[a, b]`, or a batch of lists of one or two texts.
    #[schema(value_type = PairsSchema)]
    pub inputs: Pairs,
    /// The model; by default the first classifier.
    pub model: Option<String>,
    /// Whether too long texts are truncated; by default as the server is set.
    pub truncate: Option<bool>,
    /// Whether scores are the model's outputs without softmax or sigmoid.
    #[serde(default)]
    pub raw_scores: bool,
    /// `auto`, `high` or `low`.
    #[serde(default)]
    #[schema(value_type = Option<String>)]
    pub priority: Priority,
}

/// The labels of texts with their scores, best first.
#[utoipa::path(post, path = "/predict", tag = "text-embeddings-inference", request_body = PredictRequest,
    responses((status = 200, description = "The labels of the text, or of each text of a batch", body = Value), Failures))]
async fn predict(State(app): State<Arc<App>>, Body(request): Body<PredictRequest>) -> Result<Response, Failure> {
    let PredictRequest { inputs: Pairs { rows, is_batch }, model, truncate, raw_scores, priority } = request;
    let model = app.registry.find(model.as_deref(), &Task::CLASSIFIERS)?;
    let size = rows.iter().map(|(text, pair)| characters(&[text]) + characters(pair.as_slice())).sum();
    let mut found = classify(&app, &model, rows, (raw_scores, truncate), (priority, size)).await?;
    let body = if is_batch { json_of(&found.value)? } else { json_of(&found.value.pop())? };
    Ok(timed(&found.times, body))
}

/// A query and texts to rank.
#[derive(Debug, Deserialize, ToSchema)]
pub struct RerankRequest {
    /// The query.
    pub query: String,
    /// The texts.
    pub texts: Option<Vec<String>>,
    /// The texts, by infinity's name.
    pub documents: Option<Vec<String>>,
    /// The model; by default the first reranker.
    pub model: Option<String>,
    /// Whether too long pairs are truncated; by default as the server is set.
    pub truncate: Option<bool>,
    /// Whether scores are the model's outputs without the sigmoid.
    #[serde(default)]
    pub raw_scores: bool,
    /// Whether the answer has the texts.
    #[serde(default)]
    pub return_text: bool,
    /// The same, by infinity's name.
    #[serde(default)]
    pub return_documents: bool,
    /// The number of texts in infinity's answer.
    #[schema(minimum = 1)]
    pub top_n: Option<usize>,
    /// `auto`, `high` or `low`.
    #[serde(default)]
    #[schema(value_type = Option<String>)]
    pub priority: Priority,
}

/// The rank of a text.
#[derive(Debug, Serialize, ToSchema)]
pub struct Rank {
    /// The number of the text in the request, from 0.
    pub index: usize,
    /// The text, if wanted.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub text: Option<String>,
    /// Its relevance.
    pub score: f32,
}

/// Texts in the order of their relevance for a query. `texts` is answered as TEI does, `documents` as infinity does.
#[utoipa::path(post, path = "/rerank", tag = "text-embeddings-inference", request_body = RerankRequest,
    responses((status = 200, description = "The texts, most relevant first", body = Vec<Rank>), Failures))]
async fn rerank(State(app): State<Arc<App>>, Body(request): Body<RerankRequest>) -> Result<Response, Failure> {
    let RerankRequest {
        query,
        texts,
        documents,
        model,
        raw_scores,
        return_text,
        return_documents,
        top_n,
        priority,
        truncate,
    } = request;
    let model = app.registry.find(model.as_deref(), &[Task::Rerank])?;
    match (texts, documents) {
        (Some(texts), None) => {
            let kept = return_text.then(|| texts.clone());
            let found = scores(&app, &model, query, texts, (raw_scores, truncate), priority).await?;
            let rank = |index: usize| Rank {
                index,
                text: kept.as_ref().map(|texts| texts[index].clone()),
                score: found.value[index],
            };
            let ranks: Vec<Rank> = order(&found.value).into_iter().map(rank).collect();
            Ok(timed(&found.times, json_of(&ranks)?))
        }
        (None, Some(documents)) => {
            super::rerank::of_infinity(&app, &model, query, documents, (raw_scores, return_documents, top_n), priority)
                .await
        }
        _ => {
            Err(Failure::validation("expected \"texts\" (as text-embeddings-inference) or \"documents\" (as infinity)"))
        }
    }
}

/// A sentence and others to compare with it.
#[derive(Debug, Deserialize, ToSchema)]
pub struct SimilarityInputs {
    /// The sentence.
    pub source_sentence: String,
    /// The others.
    pub sentences: Vec<String>,
}

impl From<SimilarityInputs> for Sentences {
    fn from(inputs: SimilarityInputs) -> Sentences {
        Sentences::new(inputs.source_sentence, inputs.sentences)
    }
}

/// How sentences are compared.
#[derive(Debug, Default, Deserialize, ToSchema)]
#[serde(default)]
pub struct SimilarityParameters {
    /// Whether too long texts are truncated.
    pub truncate: Option<bool>,
    /// `Right` or `Left`.
    pub truncation_direction: Option<String>,
    /// The name of a prompt of the model's folder.
    pub prompt_name: Option<String>,
}

/// Sentences to compare.
#[derive(Debug, Deserialize, ToSchema)]
pub struct SimilarityRequest {
    /// The sentences.
    pub inputs: SimilarityInputs,
    /// How they are compared.
    pub parameters: Option<SimilarityParameters>,
    /// The model; by default the first one that embeds.
    pub model: Option<String>,
}

/// Cosine similarities of a sentence and others.
#[utoipa::path(post, path = "/similarity", tag = "text-embeddings-inference", request_body = SimilarityRequest,
    responses((status = 200, description = "The similarity of each sentence", body = Vec<f32>), Failures))]
async fn similarity(State(app): State<Arc<App>>, Body(request): Body<SimilarityRequest>) -> Result<Response, Failure> {
    let model = app.registry.find(request.model.as_deref(), &[Task::Similarity])?;
    let SimilarityParameters { truncate, truncation_direction, prompt_name } = request.parameters.unwrap_or_default();
    let wanted = Wanted { truncate, truncation_direction, prompt_name, ..Wanted::default() };
    let found = similarities(&app, &model, request.inputs.into(), wanted).await?;
    Ok(timed(&found.times, json_of(&Numbers(&found.value))?))
}

/// Texts to tokenize.
#[derive(Debug, Deserialize, ToSchema)]
pub struct TokenizeRequest {
    /// The texts.
    #[schema(value_type = TextsSchema)]
    pub inputs: Texts,
    /// Whether special tokens are added.
    #[serde(default = "yes")]
    pub add_special_tokens: bool,
    /// The name of a prompt of the model's folder.
    pub prompt_name: Option<String>,
    /// The model; by default the first one.
    pub model: Option<String>,
}

/// A token of a text.
#[derive(Debug, Serialize, ToSchema)]
pub struct SimpleToken {
    /// Its id.
    pub id: u32,
    /// Its text, as in the vocabulary.
    pub text: String,
    /// Whether it is a special token that was added.
    pub special: bool,
    /// The index of its first character in the text; none for a special token.
    pub start: Option<usize>,
    /// The index after its last character.
    pub stop: Option<usize>,
}

/// The tokens of texts.
#[utoipa::path(post, path = "/tokenize", tag = "text-embeddings-inference", request_body = TokenizeRequest,
    responses((status = 200, description = "The tokens of each text", body = Vec<Vec<SimpleToken>>), Failures))]
async fn tokenize(State(app): State<Arc<App>>, Body(request): Body<TokenizeRequest>) -> Result<Json<Value>, Failure> {
    let TokenizeRequest { inputs: Texts { texts, .. }, add_special_tokens, prompt_name, model } = request;
    let model = app.registry.find(model.as_deref(), &[]).or_else(|failure| first(&app, failure))?;
    app.check_inputs(texts.len())?;
    let size = characters(&texts);
    let found = app.compute(&model, (Priority::Auto, size), move |model, _| {
        let prompt = match &prompt_name {
            Some(name) => {
                model.embedder(Some(name), None)?.prompt(cloze_tasks::embed::prompts::Purpose::Text).to_owned()
            }
            None => String::new(),
        };
        let tokens = |text: &String| tokens(model, &format!("{prompt}{text}"), add_special_tokens);
        Ok(json!(texts.iter().map(tokens).collect::<Vec<_>>()))
    });
    found.await.map(|found| Json(found.value))
}

/// The first model, for requests that every model can answer.
pub fn first(app: &App, failure: Failure) -> Result<Arc<Served>, Failure> {
    match failure.reason {
        Reason::WrongTask => app.registry.all().into_iter().next().ok_or(failure),
        _ => Err(failure),
    }
}

/// The tokens of a text with the characters that they stand for.
pub fn tokens(model: &Served, text: &str, add_special_tokens: bool) -> Vec<SimpleToken> {
    let tokenizer = &model.model.tokenizer;
    let name = |id: u32| tokenizer.token(id).unwrap_or_default().to_owned();
    // The number of characters before each byte, one step at a time, because offsets do not decrease.
    let (mut at, mut count) = (0, 0);
    let mut character = |byte: usize| {
        let byte = text.floor_char_boundary(byte);
        if byte >= at {
            count += text[at..byte].chars().count();
        } else {
            count = text[..byte].chars().count();
        }
        at = byte;
        count
    };
    let pieces = tokenizer.encode_with_offsets(text);
    let own = pieces.iter().map(|piece| SimpleToken {
        id: piece.id,
        text: name(piece.id),
        special: false,
        start: Some(character(piece.start)),
        stop: Some(character(piece.end)),
    });
    if !add_special_tokens {
        return own.collect();
    }
    let ids: Vec<u32> = pieces.iter().map(|piece| piece.id).collect();
    let sequence = tokenizer.template().sequence(&ids, None).ids;
    let begin = tokenizer.template().start_of_first(false);
    let special = |id: &u32| SimpleToken { id: *id, text: name(*id), special: true, start: None, stop: None };
    let after = (begin + ids.len()).min(sequence.len());
    let mut all: Vec<SimpleToken> = sequence[..begin].iter().map(special).collect();
    all.extend(own);
    all.extend(sequence[after..].iter().map(special));
    all
}

/// Token ids to decode.
#[derive(Debug, Deserialize, ToSchema)]
pub struct DecodeRequest {
    /// The ids of a text, or of texts.
    #[schema(value_type = InputsSchema)]
    pub ids: Inputs,
    /// Whether special tokens are left out.
    #[serde(default = "yes")]
    pub skip_special_tokens: bool,
    /// The model; by default the first one.
    pub model: Option<String>,
}

/// The texts of token ids.
#[utoipa::path(post, path = "/decode", tag = "text-embeddings-inference", request_body = DecodeRequest,
    responses((status = 200, description = "The text of each list of ids", body = Vec<String>), Failures))]
async fn decode(State(app): State<Arc<App>>, Body(request): Body<DecodeRequest>) -> Result<Json<Vec<String>>, Failure> {
    let model = app.registry.find(request.model.as_deref(), &[]).or_else(|failure| first(&app, failure))?;
    let texts = match request.ids {
        Inputs::Ids(texts) => texts,
        Inputs::Texts(texts) if texts.is_empty() => Vec::new(),
        Inputs::Texts(_) => return Err(Failure::validation("ids: expected token ids, found strings")),
    };
    app.check_inputs(texts.len())?;
    let tokenizer = &model.model.tokenizer;
    let words = tokenizer.vocab_size();
    if let Some(id) = texts.iter().flatten().find(|id| **id as usize >= words) {
        let message = format!("ids: expected 0 to {}, the ids of the model's vocabulary, found {id}", words - 1);
        return Err(Failure::validation(message));
    }
    let decode = |ids: &Vec<u32>| {
        let kept: Vec<u32> =
            ids.iter().copied().filter(|id| !request.skip_special_tokens || !tokenizer.is_special(*id)).collect();
        tokenizer.decode_all(&kept)
    };
    Ok(Json(texts.iter().map(decode).collect()))
}

/// What the server is and serves.
#[utoipa::path(get, path = "/info", tag = "text-embeddings-inference",
    responses((status = 200, description = "The first model as TEI describes it, the limits, and all models", body = Value), Failures))]
async fn info(State(app): State<Arc<App>>) -> Json<Value> {
    let models = app.registry.all();
    let settings = &app.settings;
    let first = models.first();
    let (jobs, tokens) = app.scheduler.waiting();
    Json(json!({
        "model_id": first.map(|model| model.dir.display().to_string()),
        "model_sha": null,
        "model_dtype": first.map(|model| model.model.precision().name()),
        "served_model_name": first.map(|model| model.name.clone()),
        "model_type": first.map(|model| model_type(model)),
        "max_concurrent_requests": settings.max_requests,
        "max_input_length": first.map(|model| model.max_len()),
        "max_batch_tokens": settings.batch_tokens,
        "max_batch_requests": null,
        "max_client_batch_size": settings.max_inputs,
        "auto_truncate": settings.truncate,
        "tokenization_workers": settings.max_requests,
        "version": app.version,
        "sha": null,
        "docker_label": null,
        "max_wait_seconds": settings.max_wait.as_secs_f64(),
        "max_body_bytes": settings.max_body,
        "device": first.map(|model| model.model.device.describe()),
        "waiting_jobs": jobs,
        "waiting_tokens": tokens,
        "started": since_1970(app.started),
        "models": models.iter().map(|model| describe(model)).collect::<Vec<_>>(),
    }))
}

/// A model as TEI describes it.
fn model_type(model: &Served) -> Value {
    let labels = model.labels();
    let by_id: serde_json::Map<String, Value> =
        labels.iter().enumerate().map(|(id, label)| (id.to_string(), label.as_str().into())).collect();
    let by_label: serde_json::Map<String, Value> =
        labels.iter().enumerate().map(|(id, label)| (label.clone(), id.into())).collect();
    let classes = json!({"id2label": by_id, "label2id": by_label});
    match model.default_embedder() {
        Some(embedder) => {
            let pools: Vec<&str> = embedder.pooling.pools.iter().map(|pool| pool.name()).collect();
            json!({"embedding": {"pooling": pools.join("+")}})
        }
        None if model.tasks().contains(&Task::Rerank) => json!({"reranker": classes}),
        None => json!({"classifier": classes}),
    }
}

/// A model for lists of models.
pub fn describe(model: &Served) -> Value {
    let architecture = model.model.model.architecture();
    json!({
        "id": model.name,
        "object": "model",
        "created": since_1970(model.opened),
        "owned_by": "cloze",
        "capabilities": model.tasks(),
        "class": model.model.model.class_name(),
        "dtype": model.model.precision().name(),
        "labels": model.labels(),
        "layers": architecture.layers,
        "heads": architecture.attention_heads,
        "hidden_size": architecture.hidden_size,
        "dimensions": model.default_embedder().map(|embedder| embedder.width()),
        "max_input_length": model.max_len(),
        "mask_token": model.model.tokenizer.mask_token(),
        "parameters": model.model.model.parameter_count(),
        "version": model.version,
        "load_seconds": model.took.as_secs_f64(),
    })
}
