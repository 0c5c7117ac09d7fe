//! A server from its start to its end.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use axum::Router;
use axum::middleware::{from_fn, from_fn_with_state};
use axum::routing::any;
use cloze_engine::Device;
use cloze_tasks::TaskError;
use metrics_exporter_prometheus::{Matcher, PrometheusBuilder};
use tower_http::catch_panic::CatchPanicLayer;
use tower_http::request_id::{MakeRequestUuid, PropagateRequestIdLayer, SetRequestIdLayer};
use utoipa::OpenApi;
use utoipa_axum::router::OpenApiRouter;
use utoipa_swagger_ui::SwaggerUi;

use crate::app::App;
use crate::failure::{Failure, Reason};
use crate::http::layers::{
    Again, REQUEST_ID, authorize, cors, give_form, observe, remember_route, unknown_path, wrong_method,
};
use crate::http::listen::Listener;
use crate::models::{Registry, Spec, Watch};
use crate::protocols;
use crate::runs::{self, RunSource};
use crate::scheduler::Scheduler;
use crate::scheduler::queue::Limits;
use crate::settings::Settings;
use crate::web;

/// Maximum time of a batch: an arriving request waits at most for the end of one.
const BATCH_TIME: Duration = Duration::from_millis(50);
/// Maximum time of a bulk batch while small requests arrive.
const SHARED_TIME: Duration = Duration::from_millis(8);
/// How often the signals are read.
const TICK: Duration = Duration::from_millis(20);
/// How often folders of models are looked at, and metrics are condensed.
const WATCH_INTERVAL: Duration = Duration::from_secs(2);
/// Between the change of the readiness and the last accepted connection, so that load balancers see it.
const READINESS_DELAY: Duration = Duration::from_millis(500);
/// Seconds: the bounds of histograms of times.
const TIME_BUCKETS: [f64; 15] =
    [0.0005, 0.001, 0.002, 0.004, 0.008, 0.016, 0.032, 0.064, 0.125, 0.25, 0.5, 1.0, 2.0, 4.0, 8.0];
/// The bounds of histograms of numbers of tokens.
const SIZE_BUCKETS: [f64; 13] = [1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0, 256.0, 512.0, 1024.0, 2048.0, 4096.0];

/// Signals to a server, set by its process.
#[derive(Debug, Clone, Copy)]
pub struct Control<'a> {
    /// The server stops: running requests are finished.
    pub stop: &'a AtomicBool,
    /// Keys and models are read again; the server resets it.
    pub reload: &'a AtomicBool,
}

/// Why a server could not start.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ServeError {
    /// A model.
    #[error(transparent)]
    Model(#[from] TaskError),
    /// The address or the socket.
    #[error("cannot listen at {address}: {source}")]
    Listen {
        /// The address.
        address: String,
        /// The error of the system.
        source: std::io::Error,
    },
    /// Threads.
    #[error("cannot start the server: {0}")]
    Start(#[source] std::io::Error),
    /// A setting.
    #[error("{0}")]
    Setting(String),
}

/// The OpenAPI document without its paths.
#[derive(OpenApi)]
#[openapi(info(
    title = "Cloze",
    description = "Models of the BERT family, by the protocols of text-embeddings-inference, OpenAI, Cohere, Jina, infinity, Hugging Face and KServe."
))]
struct Document;

/// All routes with what is around them.
fn router(app: &Arc<App>, runs: Option<Arc<dyn RunSource>>) -> Result<Router, String> {
    let (of_runs, runs_document) = runs::router(runs);
    let (routes, mut document) = OpenApiRouter::with_openapi(Document::openapi())
        .merge(protocols::tei::router())
        .merge(protocols::openai::router())
        .merge(protocols::rerank::router())
        .merge(protocols::infinity::router())
        .merge(protocols::hugging_face::router())
        .merge(protocols::kserve::router())
        .merge(protocols::cloud::router())
        .merge(protocols::health::router())
        .split_for_parts();
    document.info.version = app.version.to_owned();
    document.merge(runs_document);
    let routes = routes
        .with_state(Arc::clone(app))
        .merge(web::router())
        .merge(of_runs)
        .merge(SwaggerUi::new("/docs").url("/api-doc/openapi.json", document))
        .method_not_allowed_fallback(wrong_method);
    let again = Again { app: Arc::clone(app), routes: routes.clone().layer(from_fn(remember_route)) };
    let routes = routes.fallback_service(any(unknown_path).with_state(again));
    let panicked = |panic: Box<dyn std::any::Any + Send>| {
        let message = panic.downcast_ref::<String>().map(String::as_str).or(panic.downcast_ref::<&str>().copied());
        tracing::error!(panic = message, "a handler panicked");
        axum::response::IntoResponse::into_response(Failure::new(
            Reason::Backend,
            "internal error, see the server's log",
        ))
    };
    // The last one is the outermost.
    let mut routes = routes
        .layer(from_fn_with_state(Arc::clone(app), authorize))
        .layer(CatchPanicLayer::custom(panicked))
        .layer(from_fn(give_form));
    if !app.settings.cors.is_empty() {
        routes = routes.layer(cors(&app.settings.cors)?);
    }
    Ok(routes
        .layer(from_fn(observe))
        .layer(PropagateRequestIdLayer::new(REQUEST_ID))
        .layer(SetRequestIdLayer::new(REQUEST_ID, MakeRequestUuid)))
}

/// Serves models until `control.stop` is set. `specs` gives the models, again after each `control.reload`. `runs` are the
/// training runs of the page. `started` receives the address.
///
/// # Errors
/// A model that cannot be opened, an address that is in use.
pub fn serve(
    settings: Settings,
    device: Device,
    version: &'static str,
    control: Control<'_>,
    specs: &(dyn Fn() -> Result<Vec<Spec>, String> + Sync),
    runs: Option<Arc<dyn RunSource>>,
    started: &mut dyn FnMut(&str),
) -> Result<(), ServeError> {
    let limits = Limits { batch_tokens: settings.batch_tokens, batch_time: BATCH_TIME, shared_time: SHARED_TIME };
    let recorder = PrometheusBuilder::new()
        .set_buckets_for_metric(Matcher::Suffix("_seconds".to_owned()), &TIME_BUCKETS)
        .and_then(|builder| builder.set_buckets_for_metric(Matcher::Suffix("_tokens".to_owned()), &SIZE_BUCKETS))
        .map_err(|error| ServeError::Setting(error.to_string()))?;
    let metrics = recorder.install_recorder().map_err(|error| ServeError::Setting(error.to_string()))?;
    let scheduler = Scheduler::start(limits, settings.max_wait).map_err(ServeError::Start)?;
    let registry = Registry::open(device, specs().map_err(ServeError::Setting)?, settings.model_repository.clone())?;
    let app = App::new(registry, scheduler, settings, metrics, version).map_err(ServeError::Setting)?;
    let app = Arc::new(app);
    let routes = router(&app, runs).map_err(ServeError::Setting)?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .max_blocking_threads(app.settings.max_requests + 16)
        .thread_name("serve")
        .enable_all()
        .build()
        .map_err(ServeError::Start)?;
    runtime.block_on(async {
        let listener = listen(&app.settings).await?;
        started(&listener.address());
        let upkeep = upkeep(&app, control, specs);
        let stop = async {
            while !control.stop.load(Ordering::Relaxed) {
                tokio::time::sleep(TICK).await;
            }
            app.set_draining();
            tracing::info!("stopping: running requests are finished, new ones are refused");
            tokio::time::sleep(READINESS_DELAY).await;
        };
        tokio::select! {
            () = listener.serve(routes, stop, (app.settings.head_timeout, app.settings.drain_timeout)) => {}
            () = upkeep => {}
        }
        Ok::<(), ServeError>(())
    })?;
    // Does not wait for requests that were cut off.
    runtime.shutdown_timeout(Duration::from_millis(100));
    Ok(())
}

async fn listen(settings: &Settings) -> Result<Listener, ServeError> {
    #[cfg(unix)]
    if let Some(path) = &settings.socket {
        let listener = Listener::unix(path).await;
        return listener.map_err(|source| ServeError::Listen { address: path.display().to_string(), source });
    }
    let address = SocketAddr::new(settings.host, settings.port);
    Listener::tcp(address).await.map_err(|source| ServeError::Listen { address: address.to_string(), source })
}

/// Reads keys and models again when the process is told to, and models whose files change.
async fn upkeep(app: &Arc<App>, control: Control<'_>, specs: &(dyn Fn() -> Result<Vec<Spec>, String> + Sync)) {
    let (mut watch, mut looked) = (Watch::default(), tokio::time::Instant::now());
    loop {
        tokio::time::sleep(TICK).await;
        if control.reload.swap(false, Ordering::Relaxed) {
            if let Err(error) = app.read_keys() {
                tracing::error!(error, "the keys were not read again; those before stay valid");
            }
            match specs() {
                Ok(specs) => {
                    let own = Arc::clone(app);
                    // Opening models blocks.
                    if let Err(error) = tokio::task::spawn_blocking(move || own.registry.update(specs)).await {
                        tracing::error!(%error, "the models were not read again");
                    }
                }
                Err(error) => tracing::error!(error, "the configuration was not read again"),
            }
        }
        if looked.elapsed() < WATCH_INTERVAL {
            continue;
        }
        // Without it, histograms keep every value until they are read.
        app.metrics.run_upkeep();
        looked = tokio::time::Instant::now();
        if app.settings.watch {
            let own = Arc::clone(app);
            let looking = tokio::task::spawn_blocking(move || {
                own.registry.reload_changed(&mut watch);
                watch
            });
            watch = looking.await.unwrap_or_default();
        }
    }
}
