//! The settings of a server, and the file that has them.

use std::net::{IpAddr, Ipv4Addr};
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::Deserialize;

use crate::models::Repository;
use crate::models::served::Opening;

/// The settings of a server.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct Settings {
    /// The address to listen at.
    pub host: IpAddr,
    /// The port; 0 for a free one.
    pub port: u16,
    /// The path of a Unix socket to listen at instead.
    pub socket: Option<PathBuf>,
    /// A file with one key a line; without it no key is needed.
    pub keys: Option<PathBuf>,
    /// The origins of web pages that may use the server; `*` for all.
    pub cors: Vec<String>,
    /// Requests with a longer estimated wait are refused.
    pub max_wait: Duration,
    /// Maximum number of tokens of a batch.
    pub batch_tokens: usize,
    /// Maximum number of inputs of a request.
    pub max_inputs: usize,
    /// Maximum size of a request's body in bytes.
    pub max_body: usize,
    /// Maximum number of requests that are worked on or wait.
    pub max_requests: usize,
    /// How long running requests may take after a signal.
    pub drain_timeout: Duration,
    /// How long a client may take to send the head of a request, and how long a connection may be idle.
    pub head_timeout: Duration,
    /// How long the body of a request may pause.
    pub body_timeout: Duration,
    /// Whether models are loaded again when their files change.
    pub watch: bool,
    /// Whether too long texts are truncated if the request does not say it.
    pub truncate: bool,
    /// A folder whose models may be loaded by requests, and how they are opened.
    pub model_repository: Option<Repository>,
    /// The address of a collector of traces; by default that of the environment: see [`Traces`](crate::traces::Traces).
    pub otlp_endpoint: Option<String>,
}

impl Default for Settings {
    fn default() -> Settings {
        Settings {
            host: Ipv4Addr::LOCALHOST.into(),
            port: 8080,
            socket: None,
            keys: None,
            cors: Vec::new(),
            max_wait: Duration::from_secs(10),
            batch_tokens: 4096,
            max_inputs: 4096,
            max_body: 32 << 20,
            max_requests: 512,
            drain_timeout: Duration::from_secs(30),
            head_timeout: Duration::from_secs(75),
            body_timeout: Duration::from_secs(30),
            watch: true,
            truncate: true,
            model_repository: None,
            otlp_endpoint: None,
        }
    }
}

/// What a configuration file may contain. Everything is optional; options of the command line take precedence.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
#[non_exhaustive]
pub struct ConfigFile {
    /// The address to listen at.
    pub host: Option<IpAddr>,
    /// The port.
    pub port: Option<u16>,
    /// The path of a Unix socket.
    pub socket: Option<PathBuf>,
    /// A file with one key a line.
    pub keys: Option<PathBuf>,
    /// The origins of web pages.
    pub cors: Option<Vec<String>>,
    /// Seconds.
    pub max_wait: Option<f64>,
    /// Tokens.
    pub batch_tokens: Option<usize>,
    /// Inputs of a request.
    pub max_inputs: Option<usize>,
    /// MiB.
    pub max_body: Option<usize>,
    /// Requests.
    pub max_requests: Option<usize>,
    /// Seconds.
    pub drain_timeout: Option<f64>,
    /// Seconds.
    pub head_timeout: Option<f64>,
    /// Seconds.
    pub body_timeout: Option<f64>,
    /// Whether models are loaded again when their files change.
    pub watch: Option<bool>,
    /// Whether too long texts are truncated.
    pub truncate: Option<bool>,
    /// A folder whose models may be loaded by requests.
    pub model_repository: Option<PathBuf>,
    /// The address of a collector of traces.
    pub otlp_endpoint: Option<String>,
    /// The models.
    pub model: Vec<ConfigModel>,
}

/// A model of a configuration file.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
#[non_exhaustive]
pub struct ConfigModel {
    /// The name in requests; by default the folder's.
    pub name: Option<String>,
    /// A folder or a name on the hub. A relative path starts at the configuration file.
    pub path: PathBuf,
    /// `auto`, `f32`, `bf16`; by default that of the server.
    pub precision: Option<String>,
    /// Maximum number of tokens of a sequence.
    pub max_len: Option<usize>,
    /// The name of the prompt before each text.
    pub prompt: Option<String>,
}

impl ConfigFile {
    /// Reads a file. Relative paths in it start at its folder.
    ///
    /// # Errors
    /// A file that cannot be read, or that is not valid: one line with the position.
    pub fn read(path: &Path) -> Result<ConfigFile, String> {
        let text = std::fs::read_to_string(path).map_err(|error| format!("cannot read {}: {error}", path.display()))?;
        let mut found: ConfigFile = toml::from_str(&text).map_err(|error: toml::de::Error| {
            let line = error.span().map(|span| text[..span.start].matches('\n').count() + 1);
            let line = line.map(|line| format!(":{line}")).unwrap_or_default();
            format!("{}{line}: {}", path.display(), error.message().replace('\n', " "))
        })?;
        let folder = path.parent().unwrap_or(Path::new(""));
        for file in found.keys.iter_mut().chain(&mut found.socket).chain(&mut found.model_repository) {
            *file = folder.join(&*file);
        }
        for model in &mut found.model {
            let local = folder.join(&model.path);
            if local.exists() {
                model.path = local;
            }
        }
        Ok(found)
    }

    /// The settings of the file over others.
    ///
    /// # Errors
    /// A number that is not possible: one line.
    pub fn apply(&self, settings: &mut Settings) -> Result<(), String> {
        let seconds = |name: &str, value: f64| {
            Duration::try_from_secs_f64(value)
                .map_err(|_| format!("{name}: expected a number of seconds of at least 0, found {value}"))
        };
        fn set<T: Clone>(to: &mut T, from: &Option<T>) {
            if let Some(value) = from {
                *to = value.clone();
            }
        }
        set(&mut settings.host, &self.host);
        set(&mut settings.port, &self.port);
        set(&mut settings.cors, &self.cors);
        set(&mut settings.batch_tokens, &self.batch_tokens);
        set(&mut settings.max_inputs, &self.max_inputs);
        set(&mut settings.max_requests, &self.max_requests);
        set(&mut settings.watch, &self.watch);
        set(&mut settings.truncate, &self.truncate);
        let repository = self.model_repository.clone().map(|dir| Repository { dir, opening: Opening::default() });
        settings.model_repository = repository.or(settings.model_repository.take());
        settings.otlp_endpoint = self.otlp_endpoint.clone().or(settings.otlp_endpoint.take());
        settings.socket = self.socket.clone().or(settings.socket.take());
        settings.keys = self.keys.clone().or(settings.keys.take());
        if let Some(mebibytes) = self.max_body {
            settings.max_body = mebibytes << 20;
        }
        for (name, value, to) in [
            ("max_wait", self.max_wait, &mut settings.max_wait),
            ("drain_timeout", self.drain_timeout, &mut settings.drain_timeout),
            ("head_timeout", self.head_timeout, &mut settings.head_timeout),
            ("body_timeout", self.body_timeout, &mut settings.body_timeout),
        ] {
            if let Some(value) = value {
                *to = seconds(name, value)?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_have_settings_and_models() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("serve.toml");
        std::fs::create_dir(dir.path().join("m")).unwrap();
        let text = "port = 9\nmax_wait = 0.5\nmax_body = 2\nkeys = \"keys\"\n[[model]]\npath = \"m\"\n[[model]]\nname = \"x\"\npath = \"org/name\"\n";
        std::fs::write(&path, text).unwrap();
        let file = ConfigFile::read(&path).unwrap();
        let mut settings = Settings::default();
        file.apply(&mut settings).unwrap();
        assert_eq!((settings.port, settings.max_wait, settings.max_body), (9, Duration::from_millis(500), 2 << 20));
        assert_eq!(settings.keys, Some(dir.path().join("keys")));
        assert_eq!(file.model[0].path, dir.path().join("m"));
        assert_eq!(file.model[1].path, Path::new("org/name"));
    }

    #[test]
    fn mistakes_are_named_with_their_line() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("serve.toml");
        let error = |text: &str| {
            std::fs::write(&path, text).unwrap();
            let file = ConfigFile::read(&path);
            file.and_then(|file| file.apply(&mut Settings::default())).unwrap_err()
        };
        assert!(error("port = 1\nprot = 2\n").contains("serve.toml:2: unknown field `prot`"));
        assert!(error("port = 70000\n").contains("serve.toml:1: "));
        assert!(error("max_wait = -1.0").contains("max_wait: expected a number of seconds"));
        assert!(ConfigFile::read(Path::new("/none.toml")).unwrap_err().starts_with("cannot read /none.toml"));
    }
}
