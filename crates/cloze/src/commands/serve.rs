//! `cloze serve`: answers requests over HTTP with models of any kind.

use std::collections::HashSet;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::Result;
use cloze_hub::Contents;
use cloze_serve::models::Repository;
use cloze_serve::runs::RunSource;
use cloze_serve::traces::Traces;
use cloze_serve::{ConfigFile, Control, Opening, Settings, Spec};
use cloze_tasks::inference::Precision;

use super::model::{HubArguments, model_in};
use crate::failure::usage;
use crate::interrupt::{self, GracefulStop};
use crate::run_page::LiveRuns;
use crate::terminal::Terminal;
use crate::{help, program};

/// `cloze serve MODEL…`
#[derive(Debug, clap::Args)]
#[command(after_help = help::examples(&[
    "cloze serve runs/stars",
    "cloze serve all-minilm=models/minilm ner=runs/ner --port 3000",
    "cloze serve runs/stars --run runs",
    "cloze serve --config serve.toml --keys keys.txt --host 0.0.0.0",
]))]
pub struct Arguments {
    /// Models: folders, runs, or names on the Hugging Face Hub; NAME=MODEL gives a model another name in requests
    #[arg(value_name = "[NAME=]MODEL")]
    models: Vec<String>,

    /// File of settings and models (TOML); options take precedence
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,

    /// Address to listen at [default: 127.0.0.1, which only this machine reaches]
    #[arg(long, value_name = "ADDRESS")]
    host: Option<IpAddr>,

    /// Port to listen at; 0: a free one [default: 8080]
    #[arg(long, value_name = "PORT")]
    port: Option<u16>,

    /// Unix socket to listen at instead of an address
    #[arg(long, value_name = "PATH", conflicts_with_all = ["host", "port"])]
    socket: Option<PathBuf>,

    /// File of keys, one a line: a request needs one of them (Authorization: Bearer KEY)
    #[arg(long, value_name = "FILE")]
    keys: Option<PathBuf>,

    /// Origins of web pages that may use the server; *: all
    #[arg(long, value_name = "ORIGIN", value_delimiter = ',')]
    cors: Vec<String>,

    /// Refuse a request (429) if the estimated wait is longer than this many seconds [default: 10]
    #[arg(long, value_name = "SECONDS", value_parser = crate::values::above_zero)]
    max_wait: Option<f64>,

    /// Maximum number of requests that are worked on or wait [default: 512]
    #[arg(long, value_name = "N", value_parser = crate::values::items)]
    max_requests: Option<usize>,

    /// Maximum number of inputs of a request [default: 4096]
    #[arg(long, value_name = "N", value_parser = crate::values::items)]
    max_inputs: Option<usize>,

    /// Maximum size of a request in MiB [default: 32]
    #[arg(long, value_name = "MIB", value_parser = crate::values::items)]
    max_body: Option<usize>,

    /// Maximum number of tokens of a batch [default: 4096]
    #[arg(long, value_name = "N", value_parser = crate::values::items, hide_short_help = true)]
    batch_tokens: Option<usize>,

    /// Seconds that running requests have after SIGTERM or Ctrl-C [default: 30]
    #[arg(long, value_name = "SECONDS", value_parser = crate::values::above_zero, hide_short_help = true)]
    drain_timeout: Option<f64>,

    /// Seconds for the head of a request, and for an idle connection [default: 75]
    #[arg(long, value_name = "SECONDS", value_parser = crate::values::above_zero, hide_short_help = true)]
    head_timeout: Option<f64>,

    /// Seconds that the body of a request may pause [default: 30]
    #[arg(long, value_name = "SECONDS", value_parser = crate::values::above_zero, hide_short_help = true)]
    body_timeout: Option<f64>,

    /// Refuse texts that are too long, unless a request asks to truncate them
    #[arg(long)]
    no_truncate: bool,

    /// Do not load models again when their files change
    #[arg(long, hide_short_help = true)]
    no_watch: bool,

    /// Folder of models that requests may load by name (POST /v2/repository/models/NAME/load)
    #[arg(long, value_name = "FOLDER")]
    model_repository: Option<PathBuf>,

    /// Maximum number of tokens of a sequence [default: the model's]
    #[arg(long, value_name = "N", value_parser = crate::values::items)]
    max_len: Option<usize>,

    /// Precision of the activations [default: f32 for embedding models and rerankers, else auto, as the other commands]
    #[arg(long, value_parser = crate::values::named(&Precision::ALL))]
    precision: Option<Precision>,

    /// Show the curves of training runs on the page /runs: a run's folder, or a folder of runs; repeatable
    #[arg(long, value_name = "FOLDER")]
    run: Vec<PathBuf>,

    /// Log each request
    #[arg(long)]
    log_requests: bool,

    /// Write the log as JSON, one object a line
    #[arg(long)]
    log_json: bool,

    /// Collector of traces (OTLP over HTTP), such as http://localhost:4318 [default: OTEL_EXPORTER_OTLP_ENDPOINT, if set]
    #[arg(long, value_name = "URL")]
    otlp_endpoint: Option<String>,

    /// Check the configuration and open the models, then exit
    #[arg(long)]
    check: bool,

    #[command(flatten)]
    hub: HubArguments,
}

/// A model as it was named.
struct Named {
    name: Option<String>,
    path: PathBuf,
    precision: Option<Precision>,
    max_len: Option<usize>,
    prompt: Option<String>,
}

pub fn run(arguments: &Arguments, terminal: &Terminal) -> Result<()> {
    let mut settings = settings(arguments)?;
    let device = terminal.open_device()?;
    let chosen = arguments.precision.unwrap_or(Precision::F32);
    let others = arguments.precision.unwrap_or_default();
    let of_command = Opening { vectors: chosen, others, max_len: arguments.max_len, prompt: None };
    let found = specs(arguments, &of_command, terminal)?;
    if let Some(repository) = &mut settings.model_repository {
        if !repository.dir.is_dir() {
            return Err(usage(format!(
                "--model-repository: expected a folder of models, found {}",
                repository.dir.display()
            )));
        }
        repository.opening = of_command.clone();
    }
    if found.is_empty() && settings.model_repository.is_none() {
        return Err(usage("no model; name one, as in: cloze serve runs/stars, or list models in a --config file"));
    }
    terminal.detail(&device.describe());
    let format = if arguments.log_json { cloze_serve::log::Format::Json } else { cloze_serve::log::Format::Text };
    let traces = Traces::start(settings.otlp_endpoint.as_deref(), crate::VERSION).map_err(usage)?;
    cloze_serve::log::start(format, arguments.log_requests, terminal.is_quiet(), traces.as_ref());
    let is_public = settings.socket.is_none() && !settings.host.is_loopback();
    if is_public && settings.keys.is_none() {
        terminal.warn(&format!(
            "{} can be reached from other machines and no key is needed; give --keys FILE",
            settings.host
        ));
    }
    let runs: Option<Arc<dyn RunSource>> = match &arguments.run[..] {
        [] => None,
        folders => Some(Arc::new(LiveRuns::open(folders)?)),
    };
    if arguments.check {
        let registry = cloze_serve::models::Registry::open(device, found, None)?;
        terminal.note(&format!("{} models can be served", registry.all().len()));
        return Ok(());
    }
    let control = Control { stop: interrupt::stop(), reload: interrupt::reload() };
    let _graceful = GracefulStop::begin();
    let specs = || specs(arguments, &of_command, terminal).map_err(|error| format!("{error:#}"));
    let mut started = |address: &str| terminal.note(&format!("serving at {address}"));
    let done = cloze_serve::serve(settings, device.clone(), crate::VERSION, control, &specs, runs, &mut started);
    if let Some(traces) = traces {
        traces.stop();
    }
    Ok(done?)
}

fn settings(arguments: &Arguments) -> Result<Settings> {
    let mut settings = Settings::default();
    if let Some(file) = &arguments.config {
        let read = ConfigFile::read(file).and_then(|file| file.apply(&mut settings));
        read.map_err(usage)?;
    }
    let Arguments { host, port, max_requests, max_inputs, batch_tokens, .. } = *arguments;
    settings.host = host.unwrap_or(settings.host);
    settings.port = port.unwrap_or(settings.port);
    settings.max_requests = max_requests.unwrap_or(settings.max_requests);
    settings.max_inputs = max_inputs.unwrap_or(settings.max_inputs);
    settings.batch_tokens = batch_tokens.unwrap_or(settings.batch_tokens);
    settings.max_body = arguments.max_body.map_or(settings.max_body, |mebibytes| mebibytes << 20);
    for (given, setting) in [
        (arguments.max_wait, &mut settings.max_wait),
        (arguments.drain_timeout, &mut settings.drain_timeout),
        (arguments.head_timeout, &mut settings.head_timeout),
        (arguments.body_timeout, &mut settings.body_timeout),
    ] {
        *setting = given.map_or(*setting, Duration::from_secs_f64);
    }
    settings.keys = arguments.keys.clone().or(settings.keys);
    if let Some(dir) = &arguments.model_repository {
        settings.model_repository = Some(Repository { dir: dir.clone(), opening: Opening::default() });
    }
    settings.otlp_endpoint = arguments.otlp_endpoint.clone().or(settings.otlp_endpoint);
    settings.watch &= !arguments.no_watch;
    settings.truncate &= !arguments.no_truncate;
    if !arguments.cors.is_empty() {
        settings.cors.clone_from(&arguments.cors);
    }
    if host.is_some() || port.is_some() {
        settings.socket = None;
    }
    settings.socket = arguments.socket.clone().or(settings.socket);
    Ok(settings)
}

/// The models of the command line and of the file of settings.
fn specs(arguments: &Arguments, opening: &Opening, terminal: &Terminal) -> Result<Vec<Spec>> {
    let mut named: Vec<Named> = arguments.models.iter().map(|model| on_command_line(model)).collect();
    if let Some(file) = &arguments.config {
        for model in ConfigFile::read(file).map_err(usage)?.model {
            let precision = match model.precision.as_deref() {
                None => None,
                Some(name) => {
                    let known = Precision::ALL.iter().find(|(_, known, _)| *known == name);
                    let names: Vec<&str> = Precision::ALL.iter().map(|(_, name, _)| *name).collect();
                    let unknown =
                        || usage(format!("{}: precision: expected {}, found {name}", file.display(), names.join(", ")));
                    Some(known.ok_or_else(unknown)?.0)
                }
            };
            let max_len = model.max_len;
            named.push(Named { name: model.name, path: model.path, precision, max_len, prompt: model.prompt });
        }
    }
    let mut names = HashSet::new();
    let mut specs = Vec::new();
    for model in named {
        let dir = folder(&arguments.hub, &model.path, terminal)?;
        let name = model.name.unwrap_or_else(|| name_of(&model.path));
        if !names.insert(name.clone()) {
            return Err(usage(format!(
                "two models are named {name}; give one another name, as in: {} serve a={} b=…",
                program::name(),
                model.path.display()
            )));
        }
        let mut own = opening.clone();
        if let Some(precision) = model.precision {
            (own.vectors, own.others) = (precision, precision);
        }
        own.max_len = model.max_len.or(own.max_len);
        own.prompt = model.prompt;
        specs.push(Spec { name, dir, opening: own });
    }
    Ok(specs)
}

/// `[NAME=]MODEL`. A path that exists may contain "=".
fn on_command_line(given: &str) -> Named {
    let (name, path) = match given.split_once('=') {
        Some((name, path)) if !Path::new(given).exists() && !name.is_empty() => (Some(name.to_owned()), path),
        _ => (None, given),
    };
    Named { name, path: path.into(), precision: None, max_len: None, prompt: None }
}

/// The name of a model: that on the hub, or the last part of the path that is not `model`, as in `runs/stars/model`.
fn name_of(path: &Path) -> String {
    if !path.exists() {
        return path.display().to_string();
    }
    let full = std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
    let parts = full.components().rev().map(|part| part.as_os_str().to_string_lossy().into_owned());
    parts.into_iter().find(|part| !["model", "."].contains(&part.as_str())).unwrap_or_else(|| "model".to_owned())
}

/// The folder of a model; of a sentence-transformers folder, the one with its settings.
fn folder(hub: &HubArguments, path: &Path, terminal: &Terminal) -> Result<PathBuf> {
    let found = hub.find(path, Contents::Vectors, terminal)?;
    // Says now what is missing.
    model_in(&found)?;
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn models_have_names() {
        let named = |given: &str| {
            let found = on_command_line(given);
            (found.name, found.path.display().to_string())
        };
        assert_eq!(named("a=b/c"), (Some("a".to_owned()), "b/c".to_owned()));
        assert_eq!(named("b/c"), (None, "b/c".to_owned()));
        let dir = tempfile::tempdir().unwrap();
        let run = dir.path().join("stars/model");
        std::fs::create_dir_all(&run).unwrap();
        assert_eq!([name_of(&run), name_of(run.parent().unwrap())], ["stars", "stars"]);
        assert_eq!(name_of(Path::new("org/name")), "org/name");
    }
}
