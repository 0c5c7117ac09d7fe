//! Models named on the [Hugging Face Hub](https://huggingface.co): found in the local cache that `huggingface_hub` and Transformers
//! share, and downloaded into it.
//!
//! | module | what lives there |
//! | --- | --- |
//! | [`name`] | what can be a model's name there |
//! | [`environment`] | cache, endpoint, token and offline mode, from the environment variables of `huggingface_hub` |
//! | `cache` | the cache's layout; what a snapshot lacks |
//! | `files` | which files of a repository are worth having |
//! | `download` | the hub's API and transfers, by the `hf-hub` crate (feature `download`) |
//! | `patience` | gives up on connections that bring nothing more (feature `download`) |
//! | [`error`] | what the world can cause |
//!
//! The cache comes first: a snapshot that holds what is wanted is used without asking the hub, so that a model does not change
//! under a user who does not ask for it. `huggingface_hub` asks for a newer commit each time. To get one, name it as the
//! revision, or remove the model's folder from the cache.
//!
//! ```no_run
//! use cloze_hub::{Environment, Hub, Event, Contents, Request};
//!
//! # fn main() -> Result<(), cloze_hub::HubError> {
//! let hub = Hub::new(Environment::of_process());
//! let wish = Request::new("bert-base-uncased", Contents::Model);
//! let found = hub.find(&wish, &mut |news| {
//!     if let Event::Bytes { done, total, .. } = news {
//!         println!("{done} of {total} bytes");
//!     }
//! })?;
//! println!("{}", found.folder.display());
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
mod patience;

use std::path::{Path, PathBuf};
#[cfg(feature = "download")]
use std::time::Duration;

pub use environment::Environment;
pub use error::HubError;
pub use name::is_model_name;

use cache::{Lacks, Repository};

/// The revision that is taken where none is named.
pub const DEFAULT_REVISION: &str = "main";

/// What is needed of a model.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Contents {
    /// Its tokenizer alone.
    Tokenizer,
    /// Its configuration, its weights as safetensors, its tokenizer.
    Model,
    /// The same, and what sentence-transformers says of how a text becomes a vector.
    Vectors,
    /// A model to be converted: weights of any format that `cloze convert` reads.
    Source,
}

/// Looks at a model's configuration before its weights are downloaded; the error says why they are of no use.
pub type Check<'a> = &'a dyn Fn(&Path) -> Result<(), String>;

/// A model that somebody asks for.
#[derive(Clone, Copy)]
#[non_exhaustive]
pub struct Request<'a> {
    /// `name` or `organisation/name`.
    pub name: &'a str,
    /// A branch, tag or commit; none: [`DEFAULT_REVISION`].
    pub revision: Option<&'a str>,
    /// What is needed of it.
    pub wanted: Contents,
    /// Looks at `config.json` before the weights are downloaded.
    pub check: Option<Check<'a>>,
}

impl<'a> Request<'a> {
    /// A model at the default revision.
    pub fn new(name: &'a str, wanted: Contents) -> Request<'a> {
        Request { name, revision: None, wanted, check: None }
    }

    fn revision(&self) -> &'a str {
        self.revision.unwrap_or(DEFAULT_REVISION)
    }
}

/// A model's snapshot in the cache.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Found {
    /// Its folder.
    pub folder: PathBuf,
    /// The commit that it is of.
    pub commit: String,
    /// Bytes that were downloaded for it; 0 if all was there.
    pub downloaded: u64,
    /// What the user should know of it.
    pub note: Option<String>,
}

/// What happens on the way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Event<'a> {
    /// So much of a model's files is there.
    Bytes {
        /// The file in transfer.
        file: &'a str,
        /// Bytes that are there, of all files.
        done: u64,
        /// Bytes of all files.
        total: u64,
    },
    /// A transfer broke off and is tried again.
    Retry {
        /// The file in transfer.
        file: &'a str,
        /// What went wrong.
        reason: &'a str,
    },
    /// Another process downloads this file: it is waited for.
    Waiting {
        /// The file.
        file: &'a str,
    },
}

/// The cache and the hub behind it.
#[derive(Debug, Clone)]
pub struct Hub {
    environment: Environment,
    #[cfg(feature = "download")]
    patience: Duration,
}

/// How long a connection may bring nothing before it counts as broken, where [`Hub::with_patience`] sets nothing else.
#[cfg(feature = "download")]
pub const DEFAULT_PATIENCE: Duration = Duration::from_secs(60);

impl Hub {
    /// A hub as an environment describes it; touches nothing.
    pub fn new(environment: Environment) -> Hub {
        Hub {
            environment,
            #[cfg(feature = "download")]
            patience: DEFAULT_PATIENCE,
        }
    }

    /// Sets how long a connection may bring nothing before it counts as broken.
    #[cfg(feature = "download")]
    pub fn with_patience(self, patience: Duration) -> Hub {
        Hub { patience, ..self }
    }

    /// Finds a model in the cache, else downloads it into the cache.
    ///
    /// # Errors
    /// Anything that [`HubError`] can say.
    pub fn find(&self, wish: &Request<'_>, watch: &mut dyn FnMut(Event<'_>)) -> Result<Found, HubError> {
        name::check(wish.name, wish.revision())?;
        let repository = Repository::new(&self.environment.cache, wish.name);
        let cached = repository.commit(wish.revision()).map(|commit| {
            let lacks = repository.lacks(&commit, wish.wanted);
            (Found { folder: repository.snapshot(&commit), commit, downloaded: 0, note: None }, lacks)
        });
        match cached {
            Some((found, lacks)) if lacks.is_nothing() => Ok(found),
            cached if self.environment.offline => {
                self.take_cached(wish, cached, "run once without --offline and HF_HUB_OFFLINE to get what is missing")
            }
            cached => self.ask_hub(wish, &repository, cached, watch),
        }
    }

    /// What the cache has has to do; `remedy` says how to get more.
    fn take_cached(&self, wish: &Request<'_>, cached: Option<(Found, Lacks)>, remedy: &str) -> Result<Found, HubError> {
        match cached {
            Some((found, lacks)) if lacks.is_bearable() => {
                Ok(Found { note: lacks.caution(wish.name, remedy), ..found })
            }
            cached => Err(HubError::NotCached {
                name: wish.name.to_owned(),
                revision: wish.revision().to_owned(),
                cache: self.environment.cache.clone(),
                lacks: cached.map(|(_, lacks)| lacks.to_string()),
            }),
        }
    }

    #[cfg(feature = "download")]
    fn ask_hub(
        &self,
        wish: &Request<'_>,
        repository: &Repository,
        cached: Option<(Found, Lacks)>,
        watch: &mut dyn FnMut(Event<'_>),
    ) -> Result<Found, HubError> {
        let error = match download::download(&self.environment, self.patience, repository, wish, watch) {
            Err(error @ (HubError::Network { .. } | HubError::RateLimited { .. })) => error,
            done => return done,
        };
        match cached {
            // The cached files are enough; the missing ones may not exist at all.
            Some((found, lacks)) if lacks.is_bearable() => {
                let why = match &error {
                    HubError::Network { endpoint, reason } => format!("{endpoint} cannot be reached ({reason})"),
                    other => other.to_string(),
                };
                let caution = lacks.caution(wish.name, "run again when the hub answers to get what is missing");
                let caution = caution.map_or_else(String::new, |caution| format!("; {caution}"));
                Ok(Found { note: Some(format!("{why}: {} is taken from the cache{caution}", wish.name)), ..found })
            }
            _ => Err(error),
        }
    }

    #[cfg(not(feature = "download"))]
    fn ask_hub(
        &self,
        wish: &Request<'_>,
        _: &Repository,
        cached: Option<(Found, Lacks)>,
        _: &mut dyn FnMut(Event<'_>),
    ) -> Result<Found, HubError> {
        let remedy = format!("get what is missing with `hf download {}`: this build cannot download", wish.name);
        self.take_cached(wish, cached, &remedy)
            .map_err(|_| HubError::NoDownload { name: wish.name.to_owned(), cache: self.environment.cache.clone() })
    }
}
