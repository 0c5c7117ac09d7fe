//! What the world can cause.

use std::io;
use std::path::PathBuf;

/// Why a model is not to be had. Each is one line that says what to do.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum HubError {
    /// No name that a model on the hub can have.
    #[error(
        "{0:?} cannot be a model's name on the hub: expected `name` or `organisation/name` of letters, digits, -, _ and ."
    )]
    Name(String),
    /// No name that a revision can have.
    #[error("--revision {0:?}: expected a branch, a tag or a commit, such as main or v1.0")]
    Revision(String),
    /// The network must not be used, and the cache lacks what is needed.
    #[error(
        "no whole model {name:?} (revision {revision}) in the cache {}{}, and the network is not used (--offline or \
         HF_HUB_OFFLINE); run once without it, or give a folder",
        cache.display(),
        lacks.as_ref().map_or_else(String::new, |lacks| format!(" (it lacks {lacks})"))
    )]
    NotCached {
        /// The model.
        name: String,
        /// Its revision.
        revision: String,
        /// The cache.
        cache: PathBuf,
        /// What the cached snapshot lacks; none if there is no snapshot.
        lacks: Option<String>,
    },
    /// This build cannot download, and the cache lacks what is needed.
    #[error(
        "no whole model {name:?} in the cache {}, and this build cannot download (it was built without the feature `hub`); \
         get it with `hf download {name}`, or build with the default features",
        cache.display()
    )]
    NoDownload {
        /// The model.
        name: String,
        /// The cache.
        cache: PathBuf,
    },
    /// The hub has no such model, or hides it.
    #[error(
        "no model {name:?} on {endpoint}{}",
        if *with_token { ", or the token that was sent may not see it" } else { "; if it is private, set HF_TOKEN" }
    )]
    NoModel {
        /// The model.
        name: String,
        /// The hub.
        endpoint: String,
        /// Whether a token was sent.
        with_token: bool,
    },
    /// The hub has the model but not this revision.
    #[error("the model {name:?} on {endpoint} has no revision {revision:?}; leave --revision out for main")]
    NoRevision {
        /// The model.
        name: String,
        /// The revision.
        revision: String,
        /// The hub.
        endpoint: String,
    },
    /// The model may be seen but not downloaded.
    #[error(
        "the model {name:?} is gated: accept its terms at {endpoint}/{name}{}",
        if *with_token { " with the account of the token that was sent" } else { ", and set HF_TOKEN" }
    )]
    Gated {
        /// The model.
        name: String,
        /// The hub.
        endpoint: String,
        /// Whether a token was sent.
        with_token: bool,
    },
    /// The hub cannot be reached, or a transfer broke off more than once.
    #[error("{endpoint} cannot be reached: {reason}; try again (what was downloaded is kept), or give a folder")]
    Network {
        /// The hub.
        endpoint: String,
        /// What went wrong.
        reason: String,
    },
    /// The hub refuses requests because there were too many of them.
    #[error(
        "{endpoint} refuses requests for now, there were too many (status 429); try again in some minutes (what was downloaded is \
         kept){}",
        if *with_token { "" } else { ", or set HF_TOKEN: the limit of an account is higher" }
    )]
    RateLimited {
        /// The hub.
        endpoint: String,
        /// Whether a token was sent.
        with_token: bool,
    },
    /// Another program holds the lock of a transfer.
    #[error(
        "{file} of the model {name:?} cannot be downloaded: {} is locked; another program downloads the file (try again when it \
         is done), or the file system has no locks (name another cache with HF_HUB_CACHE)",
        lock.display()
    )]
    Locked {
        /// The model.
        name: String,
        /// The file.
        file: String,
        /// The lock.
        lock: PathBuf,
    },
    /// The hub answered with something that it should not.
    #[error("{endpoint}: unexpected answer: {reason}")]
    Answer {
        /// The hub.
        endpoint: String,
        /// What was expected and found.
        reason: String,
    },
    /// The model has no configuration as Transformers writes it.
    #[error("the model {name:?} has no config.json: expected a Transformers model")]
    NoConfig {
        /// The model.
        name: String,
    },
    /// The model has no tokenizer that is read.
    #[error("the model {name:?} has neither tokenizer.json nor vocab.txt")]
    NoTokenizer {
        /// The model.
        name: String,
    },
    /// The model has no weights in a format that is read.
    #[error(
        "the model {name:?} has no model.safetensors{}",
        match found.as_deref() {
            Some(found) if *convertible => {
                format!(" but {found}; make a model folder of it once: cloze convert {name} --out DIR")
            }
            Some(found) => format!(", and its {found} is not read here"),
            None => String::new(),
        }
    )]
    NoWeights {
        /// The model.
        name: String,
        /// The file with weights that it has.
        found: Option<String>,
        /// Whether `cloze convert` reads that file.
        convertible: bool,
    },
    /// The model's configuration says that its weights would be of no use.
    #[error("the model {name:?} is not downloaded: {reason}")]
    Refused {
        /// The model.
        name: String,
        /// Why.
        reason: String,
    },
    /// A file arrived other than announced, twice.
    #[error("{file} of the model {name:?} arrived damaged ({reason}); it was removed: try again")]
    Damaged {
        /// The model.
        name: String,
        /// The file.
        file: String,
        /// Size or checksum, expected and found.
        reason: String,
    },
    /// The cache cannot be read or written.
    #[error("the cache {}: {}{source}", path.display(), if source.kind() == io::ErrorKind::StorageFull { "the disk is full: " } else { "" })]
    Cache {
        /// The file or folder.
        path: PathBuf,
        /// The system's error.
        source: io::Error,
    },
}
