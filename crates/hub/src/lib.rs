//! Finds models by name on the [Hugging Face Hub](https://huggingface.co): in the local cache, which is shared with
//! `huggingface_hub` and Transformers, or by downloading them into it.
//!
//! | module | content |
//! | --- | --- |
//! | [`name`] | checks names of models and revisions |
//! | [`environment`] | cache, endpoint, token and offline mode, from the environment variables of `huggingface_hub` |
//! | `cache` | the layout of the cache; files that a snapshot does not have |
//! | `files` | selects the files of a repository that are needed |
//! | `download` | the hub's API and downloads, with the `hf-hub` crate (feature `download`) |
//! | `timeout` | ends connections that transfer no more data (feature `download`) |
//! | [`error`] | errors caused by input or environment |
//!
//! The cache is checked first. A snapshot with all requested files is used without a request to the hub, so a model does not
//! change unless the user wants it to. (`huggingface_hub` checks for a newer commit each time.) To get a newer commit, pass it as
//! the revision, or remove the model's folder from the cache.
//!
//! ```no_run
//! use cloze_hub::{Contents, Environment, Event, Hub, Request};
//!
//! # fn main() -> Result<(), cloze_hub::HubError> {
//! let hub = Hub::new(Environment::from_process());
//! let request = Request::new("bert-base-uncased", Contents::Model);
//! let snapshot = hub.find(&request, &mut |event| {
//!     if let Event::Bytes { done, total, .. } = event {
//!         println!("{done} of {total} bytes");
//!     }
//! })?;
//! println!("{}", snapshot.folder.display());
//! # Ok(())
//! # }
//! ```
#![forbid(unsafe_code)]

mod cache;
#[cfg(feature = "download")]
mod download;
pub mod environment;
pub mod error;
mod files;
pub mod name;
#[cfg(feature = "download")]
mod timeout;

use std::path::{Path, PathBuf};
#[cfg(feature = "download")]
use std::time::Duration;

pub use environment::Environment;
pub use error::HubError;
pub use name::is_model_name;

use cache::{MissingFiles, Repository};

/// The default revision.
pub const DEFAULT_REVISION: &str = "main";

/// The files of a model that are needed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Contents {
    /// Only the tokenizer.
    Tokenizer,
    /// The configuration, the weights as safetensors, and the tokenizer.
    Model,
    /// Those of [`Contents::Model`], and the modules of sentence-transformers, which define how a text becomes a vector.
    Vectors,
    /// A model to be converted: weights in any format that `cloze-convert` supports.
    Source,
}

/// Checks a model's configuration before its weights are downloaded. The error says why the model cannot be used.
pub type Check<'a> = &'a dyn Fn(&Path) -> Result<(), String>;

/// A request for a model.
#[derive(Clone, Copy)]
#[non_exhaustive]
pub struct Request<'a> {
    /// `name` or `organisation/name`.
    pub name: &'a str,
    /// A branch, tag or commit; `None` for [`DEFAULT_REVISION`].
    pub revision: Option<&'a str>,
    /// The files that are needed.
    pub contents: Contents,
    /// A check of `config.json` before the weights are downloaded.
    pub check: Option<Check<'a>>,
}

impl<'a> Request<'a> {
    /// A model with the default revision.
    pub fn new(name: &'a str, contents: Contents) -> Request<'a> {
        Request { name, revision: None, contents, check: None }
    }

    fn revision(&self) -> &'a str {
        self.revision.unwrap_or(DEFAULT_REVISION)
    }
}

/// A model's snapshot in the cache.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Snapshot {
    /// The folder.
    pub folder: PathBuf,
    /// The commit.
    pub commit: String,
    /// Number of bytes downloaded; 0 if all files were in the cache.
    pub downloaded: u64,
    /// A message to the user about the snapshot.
    pub note: Option<String>,
}

/// An event during [`Hub::find`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Event<'a> {
    /// Progress of the download.
    Bytes {
        /// The file being downloaded.
        file: &'a str,
        /// Available bytes of all files.
        done: u64,
        /// Size of all files in bytes.
        total: u64,
    },
    /// A download was interrupted and will be retried.
    Retry {
        /// The file being downloaded.
        file: &'a str,
        /// The reason.
        reason: &'a str,
    },
    /// Waiting for another process that downloads this file.
    Waiting {
        /// The file.
        file: &'a str,
    },
}

/// Access to the cache and the hub.
#[derive(Debug, Clone)]
pub struct Hub {
    environment: Environment,
    #[cfg(feature = "download")]
    stall_timeout: Duration,
}

/// The default of [`Hub::with_stall_timeout`].
#[cfg(feature = "download")]
pub const DEFAULT_STALL_TIMEOUT: Duration = Duration::from_secs(60);

impl Hub {
    /// A hub with this environment. Does not access the file system or the network.
    pub fn new(environment: Environment) -> Hub {
        Hub {
            environment,
            #[cfg(feature = "download")]
            stall_timeout: DEFAULT_STALL_TIMEOUT,
        }
    }

    /// Sets how long a connection may transfer no data before it is considered broken.
    #[cfg(feature = "download")]
    pub fn with_stall_timeout(self, stall_timeout: Duration) -> Hub {
        Hub { stall_timeout, ..self }
    }

    /// Finds a model in the cache, or downloads it into the cache.
    ///
    /// # Errors
    /// All variants of [`HubError`].
    pub fn find(&self, request: &Request<'_>, on_event: &mut dyn FnMut(Event<'_>)) -> Result<Snapshot, HubError> {
        name::check(request.name, request.revision())?;
        let repository = Repository::new(&self.environment.cache, request.name);
        let cached = repository.commit(request.revision()).map(|commit| {
            let missing = repository.missing_files(&commit, request.contents);
            (Snapshot { folder: repository.snapshot(&commit), commit, downloaded: 0, note: None }, missing)
        });
        match cached {
            Some((snapshot, missing)) if missing.is_empty() => Ok(snapshot),
            cached if self.environment.offline => {
                let remedy = "run once without `offline` and HF_HUB_OFFLINE to download missing files";
                self.use_cached(request, cached, remedy)
            }
            cached => self.request_from_hub(request, &repository, cached, on_event),
        }
    }

    /// The cached snapshot, if it is usable; `remedy` says how to get missing files.
    fn use_cached(
        &self,
        request: &Request<'_>,
        cached: Option<(Snapshot, MissingFiles)>,
        remedy: &str,
    ) -> Result<Snapshot, HubError> {
        match cached {
            Some((snapshot, missing)) if missing.is_usable() => {
                Ok(Snapshot { note: missing.note(request.name, remedy), ..snapshot })
            }
            cached => Err(HubError::NotCached {
                name: request.name.to_owned(),
                revision: request.revision().to_owned(),
                cache: self.environment.cache.clone(),
                missing: cached.map(|(_, missing)| missing.to_string()),
            }),
        }
    }

    #[cfg(feature = "download")]
    fn request_from_hub(
        &self,
        request: &Request<'_>,
        repository: &Repository,
        cached: Option<(Snapshot, MissingFiles)>,
        on_event: &mut dyn FnMut(Event<'_>),
    ) -> Result<Snapshot, HubError> {
        let result = download::download(&self.environment, self.stall_timeout, repository, request, on_event);
        let error = match result {
            Err(error @ (HubError::Network { .. } | HubError::RateLimited { .. })) => error,
            done => return done,
        };
        match cached {
            // The cached files are sufficient. The other files may not exist.
            Some((snapshot, missing)) if missing.is_usable() => {
                let why = match &error {
                    HubError::Network { endpoint, reason } => format!("{endpoint} cannot be reached ({reason})"),
                    other => other.to_string(),
                };
                let note = missing.note(request.name, "run again when the hub is available to download missing files");
                let note = note.map_or_else(String::new, |note| format!("; {note}"));
                Ok(Snapshot {
                    note: Some(format!("{why}: {} is taken from the cache{note}", request.name)),
                    ..snapshot
                })
            }
            _ => Err(error),
        }
    }

    #[cfg(not(feature = "download"))]
    fn request_from_hub(
        &self,
        request: &Request<'_>,
        _: &Repository,
        cached: Option<(Snapshot, MissingFiles)>,
        _: &mut dyn FnMut(Event<'_>),
    ) -> Result<Snapshot, HubError> {
        let remedy =
            format!("download missing files with `hf download {}`, because this build cannot download", request.name);
        self.use_cached(request, cached, &remedy)
            .map_err(|_| HubError::NoDownload { name: request.name.to_owned(), cache: self.environment.cache.clone() })
    }
}
