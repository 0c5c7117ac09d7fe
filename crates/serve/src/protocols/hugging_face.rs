//! Hugging Face's inference payloads, `{"inputs": …, "parameters": {…}}`, at `/models/NAME` and, with the task in the path, at
//! `/models/NAME/pipeline/TASK`. The answers are those of Transformers' pipelines.

use std::sync::Arc;

use axum::extract::{Path, State};
use axum::response::Response;
use cloze_tasks::rerank::order;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value, json};
use tracing::Instrument;
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::attention;
use super::embeddings::{Numbers, Wanted, embed, similarities};
use super::inputs::{Inputs, Texts, characters, kind};
use super::rerank::scores;
use super::tei::tokens;
use crate::app::{Answered, App, Times};
use crate::failure::{Failure, Reason};
use crate::http::body::Body;
use crate::http::headers::{json_of, timed};
use crate::http::schema::Failures;
use crate::models::{Served, Task};
use crate::notes;
use crate::scheduler::ticket::Priority;

/// The routes.
pub fn router() -> OpenApiRouter<Arc<App>> {
    OpenApiRouter::new().routes(routes!(model)).routes(routes!(pipeline))
}

/// A payload of a task.
#[derive(Debug, Clone, Default, Deserialize, ToSchema)]
pub struct Payload {
    /// What the task reads: a text, texts, or an object.
    #[serde(default)]
    #[schema(value_type = Value)]
    pub inputs: Value,
    /// The task's parameters.
    #[serde(default)]
    #[schema(value_type = Value)]
    pub parameters: Map<String, Value>,
    /// The model, where the path does not say it.
    pub model: Option<String>,
    /// For vectors: whether they are divided by their norm.
    pub normalize: Option<bool>,
    /// For vectors: the name of a prompt of the model's folder.
    pub prompt_name: Option<String>,
    /// For vectors: whether too long texts are truncated.
    pub truncate: Option<bool>,
    /// For vectors: `Right` or `Left`.
    pub truncation_direction: Option<String>,
    /// For vectors: the number of leading dimensions to keep.
    pub dimensions: Option<usize>,
    /// For ranking: the query, if it is not in `inputs`.
    pub query: Option<String>,
    /// For ranking: the texts, if they are not in `inputs`.
    pub texts: Option<Vec<String>>,
    /// `auto`, `high` or `low`.
    #[serde(default)]
    #[schema(value_type = Option<String>)]
    pub priority: Priority,
}

/// A task by the name that Hugging Face gives it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pipeline {
    /// Labels of texts and pairs.
    TextClassification,
    /// Labels of tokens, entities.
    TokenClassification,
    /// Parts of a text that answer a question.
    QuestionAnswering,
    /// Tokens for masks.
    FillMask,
    /// Labels that the model was not trained for.
    ZeroShotClassification,
    /// Vectors.
    FeatureExtraction,
    /// Similarities.
    SentenceSimilarity,
    /// Texts by relevance.
    TextRanking,
    /// Whether one text follows another.
    NextSentence,
    /// The best of several endings.
    MultipleChoice,
    /// The tokens of texts.
    Tokenize,
    /// What `cloze predict` writes for a row.
    Predict,
}

impl Pipeline {
    const ALL: [(&'static str, Pipeline, &'static [Task]); 12] = [
        ("text-classification", Pipeline::TextClassification, &Task::CLASSIFIERS),
        ("token-classification", Pipeline::TokenClassification, &[Task::Tag]),
        ("question-answering", Pipeline::QuestionAnswering, &[Task::Answer]),
        ("fill-mask", Pipeline::FillMask, &[Task::FillMask]),
        ("zero-shot-classification", Pipeline::ZeroShotClassification, &[Task::ZeroShot]),
        ("feature-extraction", Pipeline::FeatureExtraction, &[Task::Embed]),
        ("sentence-similarity", Pipeline::SentenceSimilarity, &[Task::Similarity]),
        ("text-ranking", Pipeline::TextRanking, &[Task::Rerank]),
        ("next-sentence", Pipeline::NextSentence, &[Task::NextSentence]),
        ("multiple-choice", Pipeline::MultipleChoice, &[Task::Choose]),
        ("tokenize", Pipeline::Tokenize, &[]),
        ("predict", Pipeline::Predict, &[]),
    ];

    /// The task of this name.
    ///
    /// # Errors
    /// [`Reason::UnknownPath`].
    fn named(name: &str) -> Result<Pipeline, Failure> {
        let found = Pipeline::ALL.iter().find(|(known, ..)| *known == name);
        found.map(|(_, pipeline, _)| *pipeline).ok_or_else(|| {
            let names = Pipeline::ALL.iter().map(|(name, ..)| *name).chain([attention::NAME]);
            let names: Vec<&str> = names.collect();
            Failure::new(Reason::UnknownPath, format!("there is no task {name:?}; expected {}", names.join(", ")))
        })
    }

    /// The payload's inputs for a pair of texts.
    pub fn pair(self, text: String, pair: String) -> Value {
        match self {
            Pipeline::QuestionAnswering => json!({"question": text, "context": pair}),
            Pipeline::NextSentence => json!({"text": text, "next": pair}),
            Pipeline::TextRanking => json!({"query": text, "texts": [pair]}),
            _ => json!({"text": text, "text_pair": pair}),
        }
    }
}

/// The task of a model for a payload without one.
///
/// # Errors
/// A model without any task.
pub fn pipeline_of(model: &Served) -> Result<Pipeline, Failure> {
    let tasks = model.tasks();
    let found = Pipeline::ALL.iter().find(|(_, _, needs)| tasks.iter().any(|task| needs.contains(task)));
    found.map(|(_, pipeline, _)| *pipeline).ok_or_else(|| model.lacks(Task::Embed))
}

/// The task that a payload is for, which follows from the model and the form of the payload.
fn pipeline_for(model: &Served, payload: &Payload) -> Result<Pipeline, Failure> {
    let has = |task| model.tasks().contains(&task);
    let inputs = &payload.inputs;
    let keys: Vec<&str> = inputs.as_object().into_iter().flatten().map(|(key, _)| key.as_str()).collect();
    if keys.contains(&"source_sentence") {
        return Ok(Pipeline::SentenceSimilarity);
    }
    if payload.parameters.contains_key("candidate_labels") {
        return Ok(Pipeline::ZeroShotClassification);
    }
    let mask = model.model.tokenizer.mask_token();
    let is_masked = match inputs {
        Value::String(text) => text.contains(mask),
        Value::Array(texts) => texts.iter().any(|text| text.as_str().is_some_and(|text| text.contains(mask))),
        _ => false,
    };
    if has(Task::FillMask) && has(Task::Embed) && !is_masked && keys.is_empty() {
        return Ok(Pipeline::FeatureExtraction);
    }
    pipeline_of(model)
}

/// The inputs of a task.
fn inputs<T: DeserializeOwned>(given: Value) -> Result<T, Failure> {
    serde_path_to_error::deserialize(given).map_err(|error| {
        let path = error.path().to_string();
        let path = if path == "." { String::new() } else { format!(".{path}") };
        Failure::validation(format!("inputs{path}: {}", error.inner()))
    })
}

/// The answer to a payload, as JSON.
///
/// # Errors
/// Those of the task.
pub async fn value(
    app: &App,
    model: &Arc<Served>,
    pipeline: Option<Pipeline>,
    payload: Payload,
) -> Result<Answered<Value>, Failure> {
    let pipeline = pipeline.map_or_else(|| pipeline_for(model, &payload), Ok)?;
    let priority = payload.priority;
    match pipeline {
        Pipeline::FeatureExtraction => {
            let given: Inputs = inputs(payload.inputs)?;
            let wanted = Wanted {
                prompt_name: payload.prompt_name,
                truncate: payload.truncate,
                truncation_direction: payload.truncation_direction,
                normalize: payload.normalize.unwrap_or(false),
                dimensions: payload.dimensions,
                priority,
            };
            embed(app, model, given, wanted, |vectors, _| Ok(json!(vectors.rows().map(Numbers).collect::<Vec<_>>())))
                .await
        }
        Pipeline::SentenceSimilarity => {
            let found: super::tei::SimilarityInputs = inputs(payload.inputs)?;
            let wanted = Wanted { priority, ..Wanted::default() };
            let found = similarities(app, model, found.into(), wanted).await?;
            Ok(Answered { value: json!(Numbers(&found.value)), times: found.times })
        }
        Pipeline::TextRanking => {
            let (query, texts) = match (payload.query, payload.texts) {
                (Some(query), Some(texts)) => (query, texts),
                _ => {
                    let found: Ranking = inputs(payload.inputs)?;
                    (found.query, found.texts)
                }
            };
            let found = scores(app, model, query, texts, (false, payload.truncate), priority).await?;
            let ranks =
                order(&found.value).into_iter().map(|index| json!({"index": index, "score": found.value[index]}));
            Ok(Answered { value: ranks.collect(), times: found.times })
        }
        Pipeline::NextSentence => {
            let pairs: OneOrMore<NextPair> = inputs(payload.inputs)?;
            let (pairs, is_list) = pairs.split();
            app.check_inputs(pairs.len())?;
            let pairs: Vec<(String, String)> = pairs.into_iter().map(|pair| (pair.text, pair.next)).collect();
            let size = pairs.iter().map(|(text, next)| characters(&[text, next])).sum();
            app.compute(model, (priority, size), move |model, call| {
                let found = model.next_sentence()?.probabilities_on(call, &pairs)?;
                Ok(one_or_more(found.iter().map(|is_next| json!({"is_next": is_next})).collect(), is_list))
            })
            .await
        }
        Pipeline::MultipleChoice => {
            let (rows, is_list) = rows(payload.inputs)?;
            let found = predict(app, model, Some(Task::Choose), rows, priority).await?;
            let ranked = |row: Value| {
                let shares = row["probabilities"].as_array().into_iter().flatten();
                let shares: Vec<f32> = shares.filter_map(|share| share.as_f64().map(|share| share as f32)).collect();
                order(&shares).into_iter().map(|index| json!({"index": index, "score": shares[index]})).collect()
            };
            Ok(Answered {
                value: one_or_more(found.value.into_iter().map(ranked).collect(), is_list),
                times: found.times,
            })
        }
        Pipeline::Predict => {
            let (rows, is_list) = rows(payload.inputs)?;
            let found = predict(app, model, None, rows, priority).await?;
            Ok(Answered { value: one_or_more(found.value, is_list), times: found.times })
        }
        Pipeline::Tokenize => {
            let Texts { texts, .. } = inputs(payload.inputs)?;
            app.check_inputs(texts.len())?;
            let found = texts.iter().map(|text| tokens(model, text, true));
            Ok(Answered { value: json!(found.collect::<Vec<_>>()), times: Times::default() })
        }
        Pipeline::TextClassification
        | Pipeline::TokenClassification
        | Pipeline::QuestionAnswering
        | Pipeline::FillMask
        | Pipeline::ZeroShotClassification => super::pipelines::value(app, model, pipeline, payload).await,
    }
}

/// A query and texts to rank.
#[derive(Deserialize)]
struct Ranking {
    query: String,
    texts: Vec<String>,
}

/// Two texts, of which the second may follow the first.
#[derive(Deserialize)]
struct NextPair {
    text: String,
    next: String,
}

/// An input or a list of them.
#[derive(Deserialize)]
#[serde(untagged)]
enum OneOrMore<T> {
    One(T),
    More(Vec<T>),
}

impl<T> OneOrMore<T> {
    /// The inputs, and whether they came as a list.
    fn split(self) -> (Vec<T>, bool) {
        match self {
            OneOrMore::One(one) => (vec![one], false),
            OneOrMore::More(list) => (list, true),
        }
    }
}

/// Answers in the form of the inputs: one, or a list.
fn one_or_more(mut found: Vec<Value>, is_list: bool) -> Value {
    match found.pop() {
        Some(only) if !is_list && found.is_empty() => only,
        Some(last) => {
            found.push(last);
            Value::Array(found)
        }
        None => Value::Array(found),
    }
}

/// Rows as `cloze predict` reads them, and whether they came as a list.
fn rows(given: Value) -> Result<(Vec<Value>, bool), Failure> {
    match given {
        Value::Array(list) => Ok((list, true)),
        one @ (Value::String(_) | Value::Object(_)) => Ok((vec![one], false)),
        other => {
            let message =
                format!("inputs: expected a row (a string or an object) or a list of them, found {}", kind(&other));
            Err(Failure::validation(message))
        }
    }
}

/// What `cloze predict` writes for rows. The first row that fails is the failure of the request.
async fn predict(
    app: &App,
    model: &Arc<Served>,
    task: Option<Task>,
    rows: Vec<Value>,
    priority: Priority,
) -> Result<Answered<Vec<Value>>, Failure> {
    app.check_inputs(rows.len())?;
    let size = rows.iter().map(|row| row.as_str().map_or_else(|| row.to_string().len(), str::len)).sum();
    app.compute(model, (priority, size), move |model, call| {
        let predictor = match task {
            Some(task) => model.predictor(task)?,
            None => model.any_predictor().ok_or_else(|| model.lacks(Task::Classify))?,
        };
        let found = predictor.predict_on(call, &rows);
        let count = found.len();
        let row = |(number, row): (usize, Result<Value, _>)| {
            row.map_err(|error| {
                let failure = Failure::of(&error);
                let place = if count > 1 { format!("inputs[{number}]: ") } else { String::new() };
                Failure { message: format!("{place}{}", failure.message), ..failure }
            })
        };
        found.into_iter().enumerate().map(row).collect()
    })
    .await
}

/// The answer to a payload, as a response.
///
/// # Errors
/// Those of the task.
pub async fn answer(
    app: &App,
    model: &Arc<Served>,
    pipeline: Option<Pipeline>,
    payload: Payload,
) -> Result<Response, Failure> {
    let found = value(app, model, pipeline, payload).await?;
    Ok(timed(&found.times, json_of(&found.value)?))
}

/// The answers to several payloads, which wait for each other only at the end.
///
/// # Errors
/// That of the first payload that fails.
pub async fn values(
    app: &Arc<App>,
    payloads: Vec<(Arc<Served>, Option<Pipeline>, Payload)>,
) -> Result<(Vec<Value>, Times), Failure> {
    let mut running = tokio::task::JoinSet::new();
    for (number, (model, pipeline, payload)) in payloads.into_iter().enumerate() {
        let app = Arc::clone(app);
        let work = async move { (number, value(&app, &model, pipeline, payload).await) };
        running.spawn(notes::inherit(work).in_current_span());
    }
    let (mut found, mut times) = (Vec::new(), Times::default());
    // Dropping the set cancels what still runs.
    while let Some(done) = running.join_next().await {
        let (number, one) = done.map_err(|error| Failure::new(Reason::Backend, error.to_string()))?;
        let one = one.map_err(|failure| Failure { message: format!("[{number}]: {}", failure.message), ..failure })?;
        times.add(&one.times);
        found.push((number, one.value));
    }
    found.sort_by_key(|(number, _)| *number);
    Ok((found.into_iter().map(|(_, value)| value).collect(), times))
}

/// The answer of a model's task. The task follows from the model and the inputs.
#[utoipa::path(post, path = "/models/{model}", tag = "Hugging Face", request_body = Payload,
    params(("model" = String, Path, description = "The model's name")),
    responses((status = 200, description = "The answer of the task", body = Value), Failures))]
async fn model(
    State(app): State<Arc<App>>,
    Path(name): Path<String>,
    Body(payload): Body<Payload>,
) -> Result<Response, Failure> {
    let model = app.registry.named(&name)?;
    answer(&app, &model, None, payload).await
}

/// The answer of a task: `text-classification`, `token-classification`, `question-answering`, `fill-mask`, `zero-shot-classification`,
/// `feature-extraction`, `sentence-similarity`, `text-ranking`, `next-sentence`, `multiple-choice`, `tokenize`, `attention`, or `predict`, which answers as `cloze predict` does.
#[utoipa::path(post, path = "/models/{model}/pipeline/{task}", tag = "Hugging Face", request_body = Payload,
    params(("model" = String, Path, description = "The model's name"), ("task" = String, Path, description = "The task")),
    responses((status = 200, description = "The answer of the task", body = Value), Failures))]
async fn pipeline(
    State(app): State<Arc<App>>,
    Path((name, task)): Path<(String, String)>,
    Body(payload): Body<Payload>,
) -> Result<Response, Failure> {
    let model = app.registry.named(&name)?;
    if task == attention::NAME {
        return attention::respond(&app, &model, inputs(payload.inputs)?, payload.parameters, payload.priority).await;
    }
    let pipeline = Pipeline::named(&task)?;
    answer(&app, &model, Some(pipeline), payload).await
}
