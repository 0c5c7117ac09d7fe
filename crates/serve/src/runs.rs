//! Training runs, for the page `/runs`: their list and their curves, also while they are trained.
//!
//! What reads the folders of runs is outside of this crate: a [`RunSource`].

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::extract::rejection::QueryRejection;
use axum::extract::{Path, Query, State};
use axum::{Json, Router};
use serde::{Deserialize, Serialize};
use utoipa::openapi::OpenApi;
use utoipa::{IntoParams, ToSchema};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::failure::{Failure, Reason};
use crate::http::schema::Failures;

/// At most this many records of a run are sent by default; others between them are left out.
const POINTS: usize = 2_000;

/// Where runs come from. The functions may read files, and are not called on the threads of connections.
pub trait RunSource: Send + Sync {
    /// All runs, in a stable order.
    fn list(&self) -> Vec<RunSummary>;

    /// The records of a run from a step on, that step included; at most about `points` of each kind if `after` is `None`. `None` for an
    /// unknown run.
    fn series(&self, name: &str, after: Option<u64>, points: usize) -> Option<RunSeries>;
}

/// What is known of a run at a glance.
#[derive(Debug, Clone, PartialEq, Serialize, ToSchema)]
pub struct RunSummary {
    /// The name: the path of its folder below the given one.
    pub name: String,
    /// `pre-training` or `fine-tuning`.
    pub kind: String,
    /// What it does now.
    pub status: RunStatus,
    /// Steps done.
    pub step: u64,
    /// Steps in all, if known.
    pub steps: Option<u64>,
    /// Seconds of training.
    pub seconds: Option<f64>,
    /// Seconds since 1970 of its last record.
    pub updated: u64,
    /// How often it was started; a resumed run may repeat steps.
    pub starts: usize,
    /// The last loss of training.
    pub loss: Option<f64>,
    /// The last evaluation: the title of the measure that decides and its value as text.
    pub score: Option<(String, String)>,
    /// Real tokens per second in the last record.
    pub tokens_per_s: Option<f64>,
}

/// What a run does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum RunStatus {
    /// Its records are new.
    Running,
    /// It reached its end.
    Finished,
    /// It was interrupted, or its process ended.
    Stopped,
}

/// The records of a run.
#[derive(Debug, Clone, PartialEq, Serialize, ToSchema)]
pub struct RunSeries {
    /// What is known at a glance.
    #[serde(flatten)]
    pub summary: RunSummary,
    /// The measures that have values, in the order in which they are shown.
    pub measures: Vec<RunMeasure>,
    /// Records of training steps.
    pub training: RunRecords,
    /// Records of evaluations.
    pub evaluation: RunRecords,
    /// The first steps of the second and later phases.
    pub phases: Vec<u64>,
    /// Messages with their steps.
    pub events: Vec<(Option<u64>, String)>,
}

/// A measure.
#[derive(Debug, Clone, PartialEq, Serialize, ToSchema)]
pub struct RunMeasure {
    /// The key in records.
    pub key: String,
    /// The name.
    pub title: String,
    /// The label of the vertical axis.
    pub axis: String,
    /// `percent`, `score`, `rate`, `count` or `plain`.
    pub unit: String,
    /// Whether a running mean is easier to read.
    pub noisy: bool,
}

/// Records as columns of equal length.
#[derive(Debug, Clone, Default, PartialEq, Serialize, ToSchema)]
pub struct RunRecords {
    /// Steps, ascending.
    pub step: Vec<u64>,
    /// Passes over the training rows.
    pub epoch: Vec<Option<f64>>,
    /// Real tokens trained on.
    pub tokens: Vec<Option<u64>>,
    /// Seconds of training.
    pub seconds: Vec<Option<f64>>,
    /// The values of each measure.
    pub values: BTreeMap<String, Vec<Option<f64>>>,
}

/// The runs of a server, if it was started with some.
type Source = Option<Arc<dyn RunSource>>;

/// The routes `GET /runs.json` and `GET /runs/NAME.json`. Without a source the list is empty.
pub fn router(source: Option<Arc<dyn RunSource>>) -> (Router, OpenApi) {
    let router = OpenApiRouter::new().routes(routes!(list)).routes(routes!(series)).with_state(source);
    let (router, mut document) = router.split_for_parts();
    // A path of the router ends with the parameter; OpenAPI has no parameters with slashes.
    if let Some(series) = document.paths.paths.remove("/runs/{*name}") {
        document.paths.paths.insert("/runs/{name}.json".to_owned(), series);
    }
    (router, document)
}

/// The list of runs.
#[derive(Serialize, ToSchema)]
struct RunList {
    /// Whether the server was started with folders of runs.
    enabled: bool,
    runs: Vec<RunSummary>,
}

#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
struct SeriesQuery {
    /// Only records from this step on.
    after: Option<u64>,
    /// About how many records at most.
    points: Option<usize>,
}

/// The training runs with which the server was started.
#[utoipa::path(get, path = "/runs.json", tag = "runs", responses((status = 200, description = "The runs", body = RunList), Failures))]
async fn list(State(source): State<Source>) -> Result<Json<RunList>, Failure> {
    let enabled = source.is_some();
    let runs = blocking(move || source.map(|source| source.list()).unwrap_or_default()).await?;
    Ok(Json(RunList { enabled, runs }))
}

/// The curves of a run; the path ends with `.json`.
#[utoipa::path(get, path = "/runs/{*name}", tag = "runs",
    params(("name" = String, Path, description = "The run's name"), SeriesQuery),
    responses((status = 200, description = "The curves", body = RunSeries), Failures))]
async fn series(
    State(source): State<Source>,
    Path(file): Path<String>,
    query: Result<Query<SeriesQuery>, QueryRejection>,
) -> Result<Json<RunSeries>, Failure> {
    let unknown =
        |name: &str| Failure::new(Reason::UnknownPath, format!("there is no run {name:?}; /runs.json lists them"));
    let Some(name) = file.strip_suffix(".json").map(str::to_owned) else { return Err(unknown(&file)) };
    let Query(query) = query.map_err(|error| Failure::validation(error.body_text()))?;
    let wanted = name.clone();
    let points = query.points.unwrap_or(POINTS).max(2);
    let found = blocking(move || source?.series(&wanted, query.after, points)).await?;
    found.map(Json).ok_or_else(|| unknown(&name))
}

async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Result<T, Failure> {
    tokio::task::spawn_blocking(work)
        .await
        .map_err(|_| Failure::new(Reason::Backend, "the runs could not be read: internal error, see the server's log"))
}

#[cfg(test)]
mod tests {
    use axum::body::Body;
    use axum::http::Request;
    use serde_json::{Value, json};
    use tower::ServiceExt;

    use super::*;

    struct One;

    impl RunSource for One {
        fn list(&self) -> Vec<RunSummary> {
            vec![RunSummary {
                name: "a/b".into(),
                kind: "pre-training".into(),
                status: RunStatus::Running,
                step: 20,
                steps: Some(90),
                seconds: Some(1.5),
                updated: 7,
                starts: 1,
                loss: Some(2.5),
                score: Some(("MLM loss".into(), "2.400".into())),
                tokens_per_s: None,
            }]
        }

        fn series(&self, name: &str, after: Option<u64>, points: usize) -> Option<RunSeries> {
            let summary = self.list().into_iter().find(|run| run.name == name)?;
            let step = vec![after.unwrap_or(0), points as u64];
            let training = RunRecords { step, ..RunRecords::default() };
            let (measures, phases, events) = (Vec::new(), Vec::new(), Vec::new());
            Some(RunSeries { summary, measures, training, evaluation: RunRecords::default(), phases, events })
        }
    }

    async fn get_json(path: &str) -> Result<Value, Failure> {
        let (router, document) = router(Some(Arc::new(One)));
        assert_eq!(document.paths.paths.keys().collect::<Vec<_>>(), ["/runs.json", "/runs/{name}.json"]);
        let response = router.oneshot(Request::get(path).body(Body::empty()).unwrap()).await.unwrap();
        if let Some(failure) = response.extensions().get::<Failure>() {
            return Err(failure.clone());
        }
        let bytes = axum::body::to_bytes(response.into_body(), 1 << 20).await.unwrap();
        Ok(serde_json::from_slice(&bytes).unwrap())
    }

    #[test]
    fn runs_are_listed_and_read_by_name() {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(async {
            let list = get_json("/runs.json").await.unwrap();
            let expected = json!({
                "name": "a/b", "kind": "pre-training", "status": "running", "step": 20, "steps": 90, "seconds": 1.5, "updated": 7,
                "starts": 1, "loss": 2.5, "score": ["MLM loss", "2.400"], "tokens_per_s": null
            });
            assert_eq!(list, json!({"enabled": true, "runs": [expected]}));
            let all = get_json("/runs/a/b.json").await.unwrap();
            assert_eq!((&all["name"], &all["training"]["step"]), (&json!("a/b"), &json!([0, POINTS])));
            let some = get_json("/runs/a%2Fb.json?after=10&points=0").await.unwrap();
            assert_eq!(some["training"]["step"], json!([10, 2]));
            let failure = get_json("/runs/a/b.json?after=-1").await.unwrap_err();
            assert_eq!(failure.reason, Reason::Validation, "{}", failure.message);
            for path in ["/runs/a.json", "/runs/a/b", "/runs/..%2Fa.json"] {
                let failure = get_json(path).await.unwrap_err();
                assert_eq!(failure.reason, Reason::UnknownPath, "{path}");
                assert!(failure.message.contains("/runs.json lists them"), "{}", failure.message);
            }
        });
    }
}
