//! The hub's API and transfers, by the `hf-hub` crate.
//!
//! The crate speaks the protocol: the listing, redirects, ranges, and a transfer that goes on where a `.part` file ends. What it
//! leaves to its caller stands here: a part that is whole or too long, a blob that another revision has brought, file systems without
//! links, a server that ignores the range, sizes and checksums, and trying again. It makes a file part of a snapshot before anybody
//! can check it, so it works in a cache of its own, from where files are moved once they are verified.

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
use crate::files::{self, MODULES, OF_SENTENCES, SMALL, TOKENIZER_CONFIG, TOKENIZERS, Weights};
use crate::patience::wait_for;
use crate::{Contents, Environment, Event, Found, HubError, Request};

/// How long each step of the hub's first answer may take.
const ANSWER: Duration = Duration::from_secs(30);
/// Pauses before a transfer that brought nothing is tried again.
const PAUSES: [Duration; 3] = [Duration::from_millis(300), Duration::from_secs(1), Duration::from_secs(3)];

/// A revision as the hub's API describes it.
#[derive(Deserialize)]
struct Listing {
    sha: String,
    siblings: Vec<Sibling>,
}

#[derive(Deserialize)]
struct Sibling {
    rfilename: String,
    /// Bytes.
    size: Option<u64>,
    lfs: Option<Lfs>,
}

#[derive(Deserialize)]
struct Lfs {
    sha256: Option<String>,
}

/// Downloads what is wanted of a model into the cache.
///
/// The token is sent only where the hub refuses without one: the crate passes it on to wherever a large file lies, and one that has
/// expired would close public models.
pub(crate) fn download(
    environment: &Environment,
    patience: Duration,
    repository: &Repository,
    wish: &Request<'_>,
    watch: &mut dyn FnMut(Event<'_>),
) -> Result<Found, HubError> {
    let anonymous = Environment { token: None, ..environment.clone() };
    let mut downloaded = 0;
    let mut attempt = |environment| attempt(environment, patience, repository, wish, &mut downloaded, watch);
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
    patience: Duration,
    repository: &Repository,
    wish: &Request<'_>,
    downloaded: &mut u64,
    watch: &mut dyn FnMut(Event<'_>),
) -> Result<Found, HubError> {
    let incoming = repository.incoming();
    let api = ApiBuilder::from_cache(Cache::new(incoming.clone()))
        .with_endpoint(environment.endpoint.clone())
        .with_token(environment.token.clone())
        .with_progress(false)
        .with_user_agent("cloze", env!("CARGO_PKG_VERSION"))
        .build();
    let context = Context { environment, wish };
    let api = api.map_err(|error| context.explain(error))?;
    let listing = list(&api, &context, patience.min(ANSWER))?;
    let repo = Repo::with_revision(wish.name.to_owned(), RepoType::Model, listing.sha.clone());
    let names: Vec<String> = listing.siblings.iter().map(|sibling| sibling.rfilename.clone()).collect();
    let mut work = Transfer {
        context,
        repository,
        incoming: Repository::new(&incoming, wish.name),
        repo,
        api,
        patience,
        listing: &listing,
        counted: BTreeSet::new(),
        done: 0,
        total: 0,
        downloaded,
        watch,
    };
    work.all(&names)?;
    let commit = listing.sha;
    let asked_for = TOKENIZERS.into_iter().chain([TOKENIZER_CONFIG, MODULES]).chain(OF_SENTENCES);
    for name in asked_for.filter(|name| !names.iter().any(|n| n == name)) {
        repository.mark_absent(&commit, name)?;
    }
    // Last: a branch points at a commit whose files are there.
    repository.set_commit(wish.revision(), &commit)?;
    Ok(Found { folder: repository.snapshot(&commit), commit, downloaded: *downloaded, note: None })
}

/// What errors are to name.
struct Context<'a> {
    environment: &'a Environment,
    wish: &'a Request<'a>,
}

impl Context<'_> {
    fn name(&self) -> String {
        self.wish.name.to_owned()
    }

    fn endpoint(&self) -> String {
        self.environment.endpoint.clone()
    }

    fn network(&self, reason: impl ToString) -> HubError {
        HubError::Network { endpoint: self.endpoint(), reason: reason.to_string() }
    }

    fn answer(&self, reason: impl Into<String>) -> HubError {
        HubError::Answer { endpoint: self.endpoint(), reason: reason.into() }
    }

    /// What an unsuccessful status means; `code` is the hub's word for it.
    fn status(&self, status: u16, code: &str) -> HubError {
        let with_token = self.environment.token.is_some();
        let (name, endpoint) = (self.name(), self.endpoint());
        match (status, code) {
            (_, "RevisionNotFound") => {
                HubError::NoRevision { name, revision: self.wish.revision().to_owned(), endpoint }
            }
            (_, "GatedRepo") | (403, _) => HubError::Gated { name, endpoint, with_token },
            (401 | 404, _) => HubError::NoModel { name, endpoint, with_token },
            (429, _) => HubError::RateLimited { endpoint, with_token },
            (500.., _) => self.network(format!("it answered with status {status}")),
            _ => self.answer(format!("status {status}")),
        }
    }

    /// What an error of the crate means when a file of the listing is requested.
    fn explain(&self, error: ApiError) -> HubError {
        match error {
            ApiError::RequestError(error) => match *error {
                ureq::Error::StatusCode(401 | 403) => self.status(403, ""),
                ureq::Error::StatusCode(status @ (429 | 500..)) => self.status(status, ""),
                ureq::Error::StatusCode(status) => self.answer(format!("status {status} for a file that it lists")),
                ureq::Error::Io(error) => self.explain_io(error),
                ureq::Error::BadUri(_) | ureq::Error::Http(_) | ureq::Error::InvalidProxyUrl => {
                    self.answer(format!("{error}; check HF_ENDPOINT and the proxy's variables"))
                }
                error => self.network(error),
            },
            ApiError::IoError(error) => self.explain_io(error),
            error => self.answer(error.to_string()),
        }
    }

    /// The disk and the network both speak through the system's errors.
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

/// Asks the hub what a revision is and has.
fn list(api: &Api, context: &Context<'_>, limit: Duration) -> Result<Listing, HubError> {
    let Request { name, .. } = *context.wish;
    let revision = context.wish.revision().to_owned();
    let repo = api.repo(Repo::with_revision(name.to_owned(), RepoType::Model, revision));
    // With `blobs` the hub says sizes and checksums too.
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
    let listing: Listing =
        serde_json::from_slice(&text).map_err(|error| context.answer(format!("no listing of a model: {error}")))?;
    if !is_commit(&listing.sha) {
        return Err(context.answer(format!("{:?} is no commit", listing.sha)));
    }
    Ok(listing)
}

/// A download under way.
struct Transfer<'a> {
    context: Context<'a>,
    repository: &'a Repository,
    /// Where transfers write to.
    incoming: Repository,
    api: Api,
    repo: Repo,
    patience: Duration,
    listing: &'a Listing,
    /// Files that are there, and their bytes.
    counted: BTreeSet<String>,
    done: u64,
    total: u64,
    downloaded: &'a mut u64,
    watch: &'a mut dyn FnMut(Event<'_>),
}

impl Transfer<'_> {
    fn sibling(&self, file: &str) -> Option<&Sibling> {
        self.listing.siblings.iter().find(|sibling| sibling.rfilename == file)
    }

    fn size(&self, file: &str) -> u64 {
        self.sibling(file).and_then(|sibling| sibling.size).unwrap_or(0)
    }

    /// All files that are wanted: those that say what others there are first, weights last.
    fn all(&mut self, names: &[String]) -> Result<(), HubError> {
        let wanted = self.context.wish.wanted;
        let has = |name: &str| names.iter().any(|n| n == name);
        let config = files::config(&has, wanted);
        if wanted == Contents::Tokenizer {
            if !TOKENIZERS.into_iter().any(has) {
                return Err(HubError::NoTokenizer { name: self.context.name() });
            }
        } else if config.is_none() {
            return Err(HubError::NoConfig { name: self.context.name() });
        }
        let Some(weights) = files::weights(&has, names, wanted) else {
            let found = files::other_weights(names);
            let convertible = found.is_some_and(|(_, convertible)| convertible);
            let found = found.map(|(file, _)| file.to_owned());
            return Err(HubError::NoWeights { name: self.context.name(), found, convertible });
        };
        let mut all: Vec<String> = SMALL.into_iter().filter(|name| has(name)).map(str::to_owned).collect();
        self.total = all.iter().map(|file| self.size(file)).sum();
        if let (Some(check), Some(config)) = (self.context.wish.check, config) {
            self.file(config)?;
            check(&self.repository.snapshot(&self.listing.sha).join(config))
                .map_err(|reason| HubError::Refused { name: self.context.name(), reason })?;
        }
        if has(MODULES) && wanted != Contents::Tokenizer {
            let modules = files::modules(&self.text(MODULES)?);
            all.extend(modules.iter().flat_map(|module| files::of_module(&module.path, names)));
        }
        match weights {
            Weights::Files(files) => all.extend(files),
            Weights::Index(index) => {
                let shards = files::shards(&self.text(index)?);
                all.push(index.to_owned());
                all.extend(shards.map_err(|reason| self.context.answer(format!("{index}: {reason}")))?);
            }
        }
        if let Some(absent) = all.iter().find(|file| !has(file)) {
            return Err(self.context.answer(format!("{absent} is named by the model and not listed")));
        }
        self.total = all.iter().map(|file| self.size(file)).sum();
        all.iter().try_for_each(|file| self.file(file))
    }

    /// A file that says what others there are.
    fn text(&mut self, file: &str) -> Result<Vec<u8>, HubError> {
        self.file(file)?;
        let path = self.repository.snapshot(&self.listing.sha).join(file);
        fs::read(&path).map_err(|source| HubError::Cache { path, source })
    }

    /// Makes sure that a file is in the snapshot.
    fn file(&mut self, file: &str) -> Result<(), HubError> {
        if !self.counted.insert(file.to_owned()) {
            return Ok(());
        }
        if self.repository.snapshot(&self.listing.sha).join(file).is_file() {
            self.done += self.size(file);
            return Ok(());
        }
        let metadata = self.metadata(file)?;
        let blob = self.repository.blob(metadata.etag());
        let watch = &mut self.watch;
        let _lock = self.repository.lock(&blob, || watch(Event::Waiting { file }))?;
        // Another revision may have brought it, or another process while this one waited.
        let is_new = !blob.is_file();
        if is_new {
            self.transfer(file, &metadata, &blob)?;
        }
        self.repository.link(&blob, &self.listing.sha, file, is_new)?;
        self.done += metadata.size() as u64;
        Ok(())
    }

    /// Asks for a file's ETag and size, several times if need be.
    fn metadata(&mut self, file: &str) -> Result<Metadata, HubError> {
        let url = self.api.repo(self.repo.clone()).url(file);
        let mut pauses = PAUSES.into_iter();
        loop {
            let (api, url) = (self.api.clone(), url.clone());
            let answer = wait_for(self.patience, move |_| api.metadata(&url), &mut |_| ());
            match answer.map_err(|error| self.context.explain(error)) {
                Err(error) => self.pause(file, error, pauses.next())?,
                Ok(metadata) => return self.check(file, metadata),
            }
        }
    }

    /// A file's ETag and commit become paths in the cache.
    fn check(&self, file: &str, metadata: Metadata) -> Result<Metadata, HubError> {
        let etag = metadata.etag();
        let name = etag.strip_prefix("W/").unwrap_or(etag);
        if name.is_empty() || !name.chars().all(|c| c.is_ascii_alphanumeric() || c == '-' || c == '_') {
            return Err(self.context.answer(format!("the ETag {etag:?} of {file} is no plain word")));
        }
        let (found, expected) = (metadata.commit_hash(), &self.listing.sha);
        if found != expected {
            return Err(self.context.answer(format!("{file} is of the commit {found:?}, expected {expected}")));
        }
        Ok(metadata)
    }

    /// Waits where trying again may help, and passes the error on where it does not or `pause` is none.
    fn pause(&mut self, file: &str, error: HubError, pause: Option<Duration>) -> Result<(), HubError> {
        let reason = match (&error, pause) {
            (HubError::Network { reason, .. }, Some(_)) => reason.clone(),
            (HubError::RateLimited { .. }, Some(_)) => "too many requests (status 429)".to_owned(),
            _ => return Err(error),
        };
        (self.watch)(Event::Retry { file, reason: &reason });
        std::thread::sleep(pause.unwrap_or_default());
        Ok(())
    }

    /// Brings a file's contents, going on where an earlier transfer broke off.
    fn transfer(&mut self, file: &str, metadata: &Metadata, blob: &Path) -> Result<(), HubError> {
        let expected = metadata.size() as u64;
        let commit = &self.listing.sha;
        let incoming = self.incoming.blob(metadata.etag());
        let part = incoming.with_extension("part");
        let (mut was_damaged, mut was_too_long) = (false, false);
        let mut pauses = PAUSES.into_iter();
        loop {
            let before = length(&part);
            // The crate would ask for the bytes after the end of a whole part, and give up on one that is too long. Whole contents
            // are of a process that was killed while it checked them.
            if before == expected && before > 0 {
                fs::rename(&part, &incoming).map_err(|source| self.context.explain_io(source))?;
            } else if !incoming.is_file() {
                if before > expected {
                    fs::remove_file(&part).map_err(|source| self.context.explain_io(source))?;
                    // A server that sends other ranges than requested would do so every time.
                    if was_too_long {
                        let reason = format!("{before} bytes of {expected}");
                        return Err(HubError::Damaged { name: self.context.name(), file: file.to_owned(), reason });
                    }
                    was_too_long = true;
                }
                if let Err(error) = self.receive(file, &incoming) {
                    if length(&part) > before {
                        pauses = PAUSES.into_iter();
                    }
                    self.pause(file, error, pauses.next())?;
                    continue;
                }
                let kept = if before > expected { 0 } else { before };
                *self.downloaded += expected - kept;
            }
            let checked = self.verify(file, &incoming, expected)?;
            if checked.is_ok() {
                self.repository.accept(&incoming, blob)?;
            }
            self.incoming.clear(&incoming, commit, file);
            let Err(reason) = checked else { return Ok(()) };
            // A server that knows no ranges sends everything once more; from the start it can be right.
            if was_damaged {
                return Err(HubError::Damaged { name: self.context.name(), file: file.to_owned(), reason });
            }
            was_damaged = true;
            (self.watch)(Event::Retry { file, reason: &reason });
        }
    }

    /// Transfers a file, or the rest of it, to `incoming`.
    fn receive(&mut self, file: &str, incoming: &Path) -> Result<(), HubError> {
        let (repo, name) = (self.api.repo(self.repo.clone()), file.to_owned());
        let (before, total, watch) = (self.done, self.total, &mut self.watch);
        let result = wait_for(self.patience, move |pulse| repo.download_with_progress(&name, pulse), &mut |bytes| {
            let done = before + bytes;
            watch(Event::Bytes { file, done, total: total.max(done) });
        });
        // Somebody else's lock is not ours to remove.
        if let Err(ApiError::LockAcquisition(lock)) = result {
            return Err(HubError::Locked { name: self.context.name(), file: file.to_owned(), lock });
        }
        // That of an abandoned transfer would close the file to the next one.
        let _ = fs::remove_file(incoming.with_extension("lock"));
        // Where links need a privilege, the crate has made the contents the file itself.
        let pointer = self.incoming.snapshot(&self.listing.sha).join(file);
        if !incoming.is_file() && pointer.is_file() {
            return fs::rename(&pointer, incoming).map_err(|source| self.context.explain_io(source));
        }
        match result {
            // What fails after the contents are there is their link, which is of no use here.
            Err(error) if !incoming.is_file() => Err(self.context.explain(error)),
            _ => Ok(()),
        }
    }

    /// Whether a blob is what the hub announced: its size and, of large files, its checksum.
    fn verify(&self, file: &str, blob: &Path, expected: u64) -> Result<Result<(), String>, HubError> {
        let found = length(blob);
        if found != expected {
            return Ok(Err(format!("{found} bytes of {expected}")));
        }
        let announced = self.sibling(file).and_then(|sibling| sibling.lfs.as_ref()?.sha256.as_deref());
        let Some(announced) = announced else { return Ok(Ok(())) };
        let found = sha256(blob).map_err(|source| HubError::Cache { path: blob.to_owned(), source })?;
        Ok(if found == announced { Ok(()) } else { Err(format!("SHA-256 {found}, expected {announced}")) })
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
