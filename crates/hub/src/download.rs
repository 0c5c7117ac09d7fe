//! The hub's API and downloads, with the `hf-hub` crate.
//!
//! The crate implements the protocol: listing, redirects, ranges, and continuing a download from a `.part` file. This module
//! handles what the crate does not: a part that is complete or too long, a blob that already exists because of another revision,
//! file systems without links, servers that ignore ranges, sizes and checksums, and retries. The crate adds a file to a snapshot
//! before it can be verified. It therefore works in a separate cache, from which files are moved after verification.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::{self, Read};
use std::path::Path;
use std::time::Duration;

use hf_hub::api::sync::{Api, ApiBuilder, ApiError, Metadata};
use hf_hub::{Cache, Repo, RepoType};
use serde::Deserialize;
use sha2::{Digest, Sha256};

use crate::cache::{Repository, is_commit};
use crate::files::{self, MODULES, SENTENCE_SETTINGS, SMALL_FILES, TOKENIZER_CONFIG, TOKENIZERS, Weights};
use crate::timeout::wait_for;
use crate::{Contents, Environment, Event, HubError, Request, Snapshot};

/// Time limit for each step of the hub's first response.
const RESPONSE_TIMEOUT: Duration = Duration::from_secs(30);
/// Pauses before retries of a download that made no progress.
const PAUSES: [Duration; 3] = [Duration::from_millis(300), Duration::from_secs(1), Duration::from_secs(3)];

/// A revision, as described by the hub's API.
#[derive(Deserialize)]
struct Listing {
    sha: String,
    siblings: Vec<Sibling>,
}

#[derive(Deserialize)]
struct Sibling {
    rfilename: String,
    /// Size in bytes.
    size: Option<u64>,
    lfs: Option<Lfs>,
}

#[derive(Deserialize)]
struct Lfs {
    sha256: Option<String>,
}

/// Downloads the requested contents of a model into the cache.
///
/// The token is sent only if the hub rejects a request without one: the crate would also send it to the server of large files,
/// and with an expired token, public models could not be downloaded.
pub(crate) fn download(
    environment: &Environment,
    stall_timeout: Duration,
    repository: &Repository,
    request: &Request<'_>,
    on_event: &mut dyn FnMut(Event<'_>),
) -> Result<Snapshot, HubError> {
    let anonymous = Environment { token: None, ..environment.clone() };
    let mut downloaded = 0;
    let mut attempt = |environment| attempt(environment, stall_timeout, repository, request, &mut downloaded, on_event);
    match attempt(&anonymous) {
        Err(HubError::NoModel { .. } | HubError::Gated { .. } | HubError::RateLimited { .. })
            if environment.token.is_some() =>
        {
            attempt(environment)
        }
        done => done,
    }
}

fn attempt(
    environment: &Environment,
    stall_timeout: Duration,
    repository: &Repository,
    request: &Request<'_>,
    downloaded: &mut u64,
    on_event: &mut dyn FnMut(Event<'_>),
) -> Result<Snapshot, HubError> {
    let incoming = repository.incoming();
    let api = ApiBuilder::from_cache(Cache::new(incoming.clone()))
        .with_endpoint(environment.endpoint.clone())
        .with_token(environment.token.clone())
        .with_progress(false)
        .with_user_agent("cloze", env!("CARGO_PKG_VERSION"))
        .build();
    let context = Context { environment, request };
    let api = api.map_err(|error| context.explain(error))?;
    let listing = list(&api, &context, stall_timeout.min(RESPONSE_TIMEOUT))?;
    let repo = Repo::with_revision(request.name.to_owned(), RepoType::Model, listing.sha.clone());
    let names: Vec<String> = listing.siblings.iter().map(|sibling| sibling.rfilename.clone()).collect();
    let mut transfer = Transfer {
        context,
        repository,
        incoming: Repository::new(&incoming, request.name),
        repo,
        api,
        stall_timeout,
        listing: &listing,
        processed: BTreeSet::new(),
        done: 0,
        total: 0,
        downloaded,
        on_event,
    };
    transfer.fetch_all(&names)?;
    let commit = listing.sha;
    let optional = TOKENIZERS.into_iter().chain([TOKENIZER_CONFIG, MODULES]).chain(SENTENCE_SETTINGS);
    for name in optional.filter(|name| !names.iter().any(|n| n == name)) {
        repository.mark_absent(&commit, name)?;
    }
    // Last, so that a branch refers to a commit whose files exist.
    repository.set_commit(request.revision(), &commit)?;
    Ok(Snapshot { folder: repository.snapshot(&commit), commit, downloaded: *downloaded, note: None })
}

/// The information for error messages.
struct Context<'a> {
    environment: &'a Environment,
    request: &'a Request<'a>,
}

impl Context<'_> {
    fn name(&self) -> String {
        self.request.name.to_owned()
    }

    fn endpoint(&self) -> String {
        self.environment.endpoint.clone()
    }

    fn network(&self, reason: impl ToString) -> HubError {
        HubError::Network { endpoint: self.endpoint(), reason: reason.to_string() }
    }

    fn unexpected(&self, reason: impl Into<String>) -> HubError {
        HubError::UnexpectedResponse { endpoint: self.endpoint(), reason: reason.into() }
    }

    /// The error for an unsuccessful status; `code` is the hub's error code.
    fn status(&self, status: u16, code: &str) -> HubError {
        let with_token = self.environment.token.is_some();
        let (name, endpoint) = (self.name(), self.endpoint());
        match (status, code) {
            (_, "RevisionNotFound") => {
                HubError::NoRevision { name, revision: self.request.revision().to_owned(), endpoint }
            }
            (_, "GatedRepo") | (403, _) => HubError::Gated { name, endpoint, with_token },
            (401 | 404, _) => HubError::NoModel { name, endpoint, with_token },
            (429, _) => HubError::RateLimited { endpoint, with_token },
            (500.., _) => self.network(format!("it responded with status {status}")),
            _ => self.unexpected(format!("status {status}")),
        }
    }

    /// Converts an error of the crate that occurred for a file in the listing.
    fn explain(&self, error: ApiError) -> HubError {
        match error {
            ApiError::RequestError(error) => match *error {
                ureq::Error::StatusCode(401 | 403) => self.status(403, ""),
                ureq::Error::StatusCode(status @ (429 | 500..)) => self.status(status, ""),
                ureq::Error::StatusCode(status) => {
                    self.unexpected(format!("status {status} for a file in its listing"))
                }
                ureq::Error::Io(error) => self.explain_io(error),
                ureq::Error::BadUri(_) | ureq::Error::Http(_) | ureq::Error::InvalidProxyUrl => {
                    self.unexpected(format!("{error}; check HF_ENDPOINT and the proxy variables"))
                }
                error => self.network(error),
            },
            ApiError::IoError(error) => self.explain_io(error),
            error => self.unexpected(error.to_string()),
        }
    }

    /// Distinguishes I/O errors of the disk from those of the network.
    fn explain_io(&self, source: io::Error) -> HubError {
        use io::ErrorKind::{PermissionDenied, QuotaExceeded, ReadOnlyFilesystem, StorageFull};
        match source.kind() {
            StorageFull | QuotaExceeded | ReadOnlyFilesystem | PermissionDenied => {
                HubError::Cache { path: self.environment.cache.clone(), source }
            }
            _ => self.network(source),
        }
    }
}

/// Requests the listing of a revision.
fn list(api: &Api, context: &Context<'_>, limit: Duration) -> Result<Listing, HubError> {
    let Request { name, .. } = *context.request;
    let revision = context.request.revision().to_owned();
    let repo = api.repo(Repo::with_revision(name.to_owned(), RepoType::Model, revision));
    // With `blobs`, the response also contains sizes and checksums.
    let request = repo.info_request().query("blobs", "true").config().http_status_as_error(false);
    let request = request.timeout_resolve(Some(limit)).timeout_connect(Some(limit));
    let request = request.timeout_recv_response(Some(limit)).timeout_recv_body(Some(limit)).build();
    let mut response = request.call().map_err(|error| context.explain(Box::new(error).into()))?;
    let status = response.status();
    if !status.is_success() {
        let code = response.headers().get("x-error-code").and_then(|code| code.to_str().ok()).unwrap_or_default();
        return Err(context.status(status.as_u16(), code));
    }
    let text = response.body_mut().read_to_vec().map_err(|error| context.explain(Box::new(error).into()))?;
    let listing: Listing = serde_json::from_slice(&text)
        .map_err(|error| context.unexpected(format!("expected the listing of a model: {error}")))?;
    if !is_commit(&listing.sha) {
        return Err(context.unexpected(format!("expected a commit, found {:?}", listing.sha)));
    }
    Ok(listing)
}

/// A download in progress.
struct Transfer<'a> {
    context: Context<'a>,
    repository: &'a Repository,
    /// The cache to which downloads are written.
    incoming: Repository,
    api: Api,
    repo: Repo,
    stall_timeout: Duration,
    listing: &'a Listing,
    /// Files that are complete or in progress.
    processed: BTreeSet<String>,
    /// Bytes of complete files.
    done: u64,
    total: u64,
    downloaded: &'a mut u64,
    on_event: &'a mut dyn FnMut(Event<'_>),
}

impl Transfer<'_> {
    fn sibling(&self, file: &str) -> Option<&Sibling> {
        self.listing.siblings.iter().find(|sibling| sibling.rfilename == file)
    }

    fn size(&self, file: &str) -> u64 {
        self.sibling(file).and_then(|sibling| sibling.size).unwrap_or(0)
    }

    /// Fetches all requested files. Files that determine which other files are needed come first, weights last.
    fn fetch_all(&mut self, names: &[String]) -> Result<(), HubError> {
        let contents = self.context.request.contents;
        let has = |name: &str| names.iter().any(|n| n == name);
        let config = files::config(&has, contents);
        if contents == Contents::Tokenizer {
            if !TOKENIZERS.into_iter().any(has) {
                return Err(HubError::NoTokenizer { name: self.context.name() });
            }
        } else if config.is_none() {
            return Err(HubError::NoConfig { name: self.context.name() });
        }
        let Some(weights) = files::weights(&has, names, contents) else {
            let found = files::other_weights(names);
            let convertible = found.is_some_and(|(_, convertible)| convertible);
            let found = found.map(|(file, _)| file.to_owned());
            return Err(HubError::NoWeights { name: self.context.name(), found, convertible });
        };
        let small = SMALL_FILES.into_iter().filter(|name| has(name)).chain(files::vocabulary(&has));
        let mut all: Vec<String> = small.map(str::to_owned).collect();
        self.total = all.iter().map(|file| self.size(file)).sum();
        if let (Some(check), Some(config)) = (self.context.request.check, config) {
            self.fetch(config)?;
            check(&self.repository.snapshot(&self.listing.sha).join(config))
                .map_err(|reason| HubError::Rejected { name: self.context.name(), reason })?;
        }
        if has(MODULES) && contents != Contents::Tokenizer {
            let modules = files::modules(&self.fetch_bytes(MODULES)?);
            all.extend(modules.iter().flat_map(|module| files::module_files(&module.path, names)));
        }
        match weights {
            Weights::Files(files) => all.extend(files),
            Weights::Index(index) => {
                let shards = files::shards(&self.fetch_bytes(index)?);
                all.push(index.to_owned());
                all.extend(shards.map_err(|reason| self.context.unexpected(format!("{index}: {reason}")))?);
            }
        }
        if let Some(absent) = all.iter().find(|file| !has(file)) {
            return Err(self.context.unexpected(format!("the model refers to {absent}, which is not in the listing")));
        }
        self.total = all.iter().map(|file| self.size(file)).sum();
        all.iter().try_for_each(|file| self.fetch(file))
    }

    /// Fetches a file that determines which other files are needed, and returns its content.
    fn fetch_bytes(&mut self, file: &str) -> Result<Vec<u8>, HubError> {
        self.fetch(file)?;
        let path = self.repository.snapshot(&self.listing.sha).join(file);
        fs::read(&path).map_err(|source| HubError::Cache { path, source })
    }

    /// Makes sure that a file is in the snapshot.
    fn fetch(&mut self, file: &str) -> Result<(), HubError> {
        if !self.processed.insert(file.to_owned()) {
            return Ok(());
        }
        if self.repository.snapshot(&self.listing.sha).join(file).is_file() {
            self.done += self.size(file);
            return Ok(());
        }
        let metadata = self.metadata(file)?;
        let blob = self.repository.blob(metadata.etag());
        let on_event = &mut self.on_event;
        let _lock = self.repository.lock(&blob, || on_event(Event::Waiting { file }))?;
        // The blob may exist because of another revision, or because another process downloaded it while this one waited.
        let is_new = !blob.is_file();
        if is_new {
            self.transfer(file, &metadata, &blob)?;
        }
        self.repository.link(&blob, &self.listing.sha, file, is_new)?;
        self.done += metadata.size() as u64;
        Ok(())
    }

    /// Requests a file's ETag and size, with retries.
    fn metadata(&mut self, file: &str) -> Result<Metadata, HubError> {
        let url = self.api.repo(self.repo.clone()).url(file);
        let mut pauses = PAUSES.into_iter();
        loop {
            let (api, url) = (self.api.clone(), url.clone());
            let response = wait_for(self.stall_timeout, move |_| api.metadata(&url), &mut |_| ());
            match response.map_err(|error| self.context.explain(error)) {
                Err(error) => self.pause_or_fail(file, error, pauses.next())?,
                Ok(metadata) => return self.check_metadata(file, metadata),
            }
        }
    }

    /// Checks a file's ETag and commit, which are used in paths of the cache.
    fn check_metadata(&self, file: &str, metadata: Metadata) -> Result<Metadata, HubError> {
        let etag = metadata.etag();
        let name = etag.strip_prefix("W/").unwrap_or(etag);
        if name.is_empty() || !name.chars().all(|c| c.is_ascii_alphanumeric() || c == '-' || c == '_') {
            return Err(self.context.unexpected(format!("the ETag {etag:?} of {file} is not a plain word")));
        }
        let (found, expected) = (metadata.commit_hash(), &self.listing.sha);
        if found != expected {
            return Err(self.context.unexpected(format!("{file} has commit {found:?}, expected {expected}")));
        }
        Ok(metadata)
    }

    /// Waits before a retry if that can help. Otherwise, or if there is no `pause`, returns the error.
    fn pause_or_fail(&mut self, file: &str, error: HubError, pause: Option<Duration>) -> Result<(), HubError> {
        let reason = match (&error, pause) {
            (HubError::Network { reason, .. }, Some(_)) => reason.clone(),
            (HubError::RateLimited { .. }, Some(_)) => "too many requests (status 429)".to_owned(),
            _ => return Err(error),
        };
        (self.on_event)(Event::Retry { file, reason: &reason });
        std::thread::sleep(pause.unwrap_or_default());
        Ok(())
    }

    /// Downloads a file, continuing an interrupted download.
    fn transfer(&mut self, file: &str, metadata: &Metadata, blob: &Path) -> Result<(), HubError> {
        let expected = metadata.size() as u64;
        let commit = &self.listing.sha;
        let incoming = self.incoming.blob(metadata.etag());
        let part = incoming.with_extension("part");
        let (mut was_damaged, mut was_too_long) = (false, false);
        let mut pauses = PAUSES.into_iter();
        loop {
            let before = length(&part);
            // The crate would request bytes after the end of a complete part, and fail for one that is too long. A complete part
            // remains if a process was killed during verification.
            if before == expected && before > 0 {
                fs::rename(&part, &incoming).map_err(|source| self.context.explain_io(source))?;
            } else if !incoming.is_file() {
                if before > expected {
                    fs::remove_file(&part).map_err(|source| self.context.explain_io(source))?;
                    // If it is too long again, the server sends other ranges than requested.
                    if was_too_long {
                        let reason = format!("found {before} bytes, expected {expected}");
                        return Err(HubError::Damaged { name: self.context.name(), file: file.to_owned(), reason });
                    }
                    was_too_long = true;
                }
                if let Err(error) = self.download_to(file, &incoming) {
                    if length(&part) > before {
                        pauses = PAUSES.into_iter();
                    }
                    self.pause_or_fail(file, error, pauses.next())?;
                    continue;
                }
                let existing = if before > expected { 0 } else { before };
                *self.downloaded += expected - existing;
            }
            let checked = self.verify(file, &incoming, expected)?;
            if checked.is_ok() {
                self.repository.accept(&incoming, blob)?;
            }
            self.incoming.clear(&incoming, commit, file);
            let Err(reason) = checked else { return Ok(()) };
            // A server without ranges sends the complete file again, so the appended part is wrong. A download from the start may be correct.
            if was_damaged {
                return Err(HubError::Damaged { name: self.context.name(), file: file.to_owned(), reason });
            }
            was_damaged = true;
            (self.on_event)(Event::Retry { file, reason: &reason });
        }
    }

    /// Downloads a file, or the rest of it, to `incoming`.
    fn download_to(&mut self, file: &str, incoming: &Path) -> Result<(), HubError> {
        let (repo, name) = (self.api.repo(self.repo.clone()), file.to_owned());
        let (before, total, on_event) = (self.done, self.total, &mut self.on_event);
        let work = move |progress| repo.download_with_progress(&name, progress);
        let result = wait_for(self.stall_timeout, work, &mut |bytes| {
            let done = before + bytes;
            on_event(Event::Bytes { file, done, total: total.max(done) });
        });
        // The lock of another program must not be removed.
        if let Err(ApiError::LockAcquisition(lock)) = result {
            return Err(HubError::Locked { name: self.context.name(), file: file.to_owned(), lock });
        }
        // The lock of an abandoned download would block the next one.
        let _ = fs::remove_file(incoming.with_extension("lock"));
        // If links need a privilege, the crate has moved the contents to the snapshot.
        let pointer = self.incoming.snapshot(&self.listing.sha).join(file);
        if !incoming.is_file() && pointer.is_file() {
            return fs::rename(&pointer, incoming).map_err(|source| self.context.explain_io(source));
        }
        match result {
            // An error after the contents are complete concerns only the link, which is not needed here.
            Err(error) if !incoming.is_file() => Err(self.context.explain(error)),
            _ => Ok(()),
        }
    }

    /// Verifies a blob: its size and, for large files, its checksum.
    fn verify(&self, file: &str, blob: &Path, expected: u64) -> Result<Result<(), String>, HubError> {
        let found = length(blob);
        if found != expected {
            return Ok(Err(format!("found {found} bytes, expected {expected}")));
        }
        let expected_sum = self.sibling(file).and_then(|sibling| sibling.lfs.as_ref()?.sha256.as_deref());
        let Some(expected_sum) = expected_sum else { return Ok(Ok(())) };
        let found = sha256(blob).map_err(|source| HubError::Cache { path: blob.to_owned(), source })?;
        Ok(if found == expected_sum { Ok(()) } else { Err(format!("found SHA-256 {found}, expected {expected_sum}")) })
    }
}

fn length(path: &Path) -> u64 {
    fs::metadata(path).map_or(0, |found| found.len())
}

fn sha256(path: &Path) -> io::Result<String> {
    let mut file = File::open(path)?;
    let mut hash = Sha256::new();
    let mut buffer = vec![0; 1 << 18];
    loop {
        match file.read(&mut buffer)? {
            0 => return Ok(hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect()),
            read => hash.update(&buffer[..read]),
        }
    }
}
