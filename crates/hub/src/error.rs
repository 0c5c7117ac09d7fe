//! Errors of this crate, caused by input or environment.

use std::io;
use std::path::PathBuf;

/// Why a model is not available. Each message is one line that says what to do.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum HubError {
    /// Not a valid name of a model on the hub.
    #[error(
        "{0:?} cannot be a model's name on the hub: expected `name` or `organisation/name` of letters, digits, -, _ and ."
    )]
    Name(String),
    /// Not a valid name of a revision.
    #[error("`revision` must be a branch, a tag or a commit, such as main or v1.0, found {0:?}")]
    Revision(String),
    /// Offline mode, and the cache does not have all files of the model.
    #[error(
        "the model {name:?} (revision {revision}) is not completely in the cache {}{}, and the network is not used (`offline` or \
         HF_HUB_OFFLINE); run once without it, or use a folder",
        cache.display(),
        missing.as_ref().map_or_else(String::new, |missing| format!(" (missing {missing})"))
    )]
    NotCached {
        /// The model.
        name: String,
        /// The revision.
        revision: String,
        /// The cache.
        cache: PathBuf,
        /// The required files that are missing in the cached snapshot; `None` if there is no snapshot.
        missing: Option<String>,
    },
    /// This build cannot download, and the cache does not have all files of the model.
    #[error(
        "the model {name:?} is not completely in the cache {}, and this build cannot download (it was built without the feature `hub`); \
         download it with `hf download {name}`, or build with the default features",
        cache.display()
    )]
    NoDownload {
        /// The model.
        name: String,
        /// The cache.
        cache: PathBuf,
    },
    /// The hub has no model with this name, or does not show it.
    #[error(
        "no model {name:?} on {endpoint}{}",
        if *with_token { ", or the token has no access to it" } else { "; if it is private, set HF_TOKEN" }
    )]
    NoModel {
        /// The model.
        name: String,
        /// The hub.
        endpoint: String,
        /// Whether a token was sent.
        with_token: bool,
    },
    /// The hub has the model, but not this revision.
    #[error("the model {name:?} on {endpoint} has no revision {revision:?}; omit `revision` for main")]
    NoRevision {
        /// The model.
        name: String,
        /// The revision.
        revision: String,
        /// The hub.
        endpoint: String,
    },
    /// The model is visible, but its files cannot be downloaded without permission.
    #[error(
        "the model {name:?} is gated: accept its terms at {endpoint}/{name}{}",
        if *with_token { " with the account of the token" } else { ", and set HF_TOKEN" }
    )]
    Gated {
        /// The model.
        name: String,
        /// The hub.
        endpoint: String,
        /// Whether a token was sent.
        with_token: bool,
    },
    /// The hub cannot be reached, or a download failed several times.
    #[error("{endpoint} cannot be reached: {reason}; try again (downloaded data is kept), or use a folder")]
    Network {
        /// The hub.
        endpoint: String,
        /// What went wrong.
        reason: String,
    },
    /// The hub rejects requests because there were too many.
    #[error(
        "{endpoint} rejects requests because there were too many (status 429); try again in a few minutes (downloaded data is \
         kept){}",
        if *with_token { "" } else { ", or set HF_TOKEN, because the limit of an account is higher" }
    )]
    RateLimited {
        /// The hub.
        endpoint: String,
        /// Whether a token was sent.
        with_token: bool,
    },
    /// Another program has locked a download.
    #[error(
        "{file} of the model {name:?} cannot be downloaded: {} is locked. Either another program downloads the file (try again when it \
         has finished), or the file system does not support locks (set HF_HUB_CACHE to another folder)",
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
    /// The hub sent an unexpected response.
    #[error("{endpoint}: unexpected response: {reason}")]
    UnexpectedResponse {
        /// The hub.
        endpoint: String,
        /// What was expected and what was found.
        reason: String,
    },
    /// The model has no configuration in Transformers' format.
    #[error("the model {name:?} has no config.json: expected a Transformers model")]
    NoConfig {
        /// The model.
        name: String,
    },
    /// The model has no tokenizer in a supported format.
    #[error(
        "the model {name:?} has no tokenizer: expected tokenizer.json, vocab.txt, vocab.json or a SentencePiece model"
    )]
    NoTokenizer {
        /// The model.
        name: String,
    },
    /// The model has no weights in a supported format.
    #[error(
        "the model {name:?} has no model.safetensors{}",
        match found.as_deref() {
            Some(found) if *convertible => {
                format!(" but {found}, which must first be converted to a model folder")
            }
            Some(found) => format!(", and its {found} is not supported"),
            None => String::new(),
        }
    )]
    NoWeights {
        /// The model.
        name: String,
        /// The file with weights that it has instead.
        found: Option<String>,
        /// Whether this file can be converted.
        convertible: bool,
    },
    /// The check of the model's configuration failed, so its weights were not downloaded.
    #[error("the model {name:?} is not downloaded: {reason}")]
    Rejected {
        /// The model.
        name: String,
        /// The reason.
        reason: String,
    },
    /// A downloaded file differed twice from what the hub described.
    #[error("{file} of the model {name:?} was damaged during the download ({reason}) and has been removed; try again")]
    Damaged {
        /// The model.
        name: String,
        /// The file.
        file: String,
        /// Size or checksum: what was expected and what was found.
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
