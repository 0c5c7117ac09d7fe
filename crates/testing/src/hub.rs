//! A server on 127.0.0.1 that simulates the hub: the listing, small files with an ETag, large files behind a redirect to another
//! address, ranges, renamed models. It can also simulate faults: interrupted transfers, gated models, rejected requests.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex};

use sha2::{Digest, Sha256};

/// A received request.
#[derive(Debug, Clone, PartialEq)]
pub struct Request {
    /// The path with its query.
    pub path: String,
    /// The header `range`.
    pub range: Option<String>,
    /// The bearer token.
    pub token: Option<String>,
}

/// A model on the server.
#[derive(Debug, Clone, Default)]
pub struct Model {
    /// Its only commit.
    pub commit: String,
    /// Branches and tags of the commit.
    pub revisions: Vec<String>,
    /// Contents by file name.
    pub files: BTreeMap<String, Vec<u8>>,
    /// The token that is required to see the model.
    pub private: Option<String>,
    /// The token that is required to download the files.
    pub gated: Option<String>,
}

/// The contents and the behaviour of the server.
#[derive(Debug, Default)]
pub struct State {
    /// Models by name.
    pub models: BTreeMap<String, Model>,
    /// Maps old names to new ones.
    pub renamed: BTreeMap<String, String>,
    /// For each file, the numbers of bytes after which the connection breaks, one for each transfer.
    pub cuts: BTreeMap<String, Vec<usize>>,
    /// Only this number of bytes of this file is sent; then the connection remains open without data.
    pub stall: Option<(String, usize)>,
    /// All connections are closed without a response.
    pub is_down: bool,
    /// Ranges are ignored: the complete file is sent each time, except for requests of the size.
    pub ignores_ranges: bool,
    /// The number of transfers in which one byte is wrong.
    pub corruptions: usize,
    /// The ETag of small files, instead of the correct one.
    pub etag: Option<String>,
    /// The commit of all files, instead of the correct one.
    pub commit: Option<String>,
    /// The number of requests that are answered with status 503.
    pub busy: usize,
    /// The number of requests without a token that are answered; later ones are rejected with status 429.
    pub anonymous: Option<usize>,
    /// Requests since [`Server::requests`] was called.
    pub requests: Vec<Request>,
}

/// A running server.
pub struct Server {
    /// Its address, for `HF_ENDPOINT`.
    pub endpoint: String,
    state: Arc<Mutex<State>>,
}

/// Files of at least this size are large: they are behind a redirect, and the listing contains their checksum.
const LARGE: usize = 1000;

/// The commit of the models that [`Server::add`] adds.
pub const COMMIT: &str = "1f0e2d3c4b5a69788796a5b4c3d2e1f001234567";

/// The checksum in hexadecimal digits.
pub fn sha256(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The ETag of a file: a SHA-256 for large files, 40 digits (as a Git hash has) for small ones.
pub fn etag(bytes: &[u8]) -> String {
    let hash = sha256(bytes);
    if bytes.len() >= LARGE { hash } else { hash[..40].to_owned() }
}

impl Server {
    /// Starts a server; it ends with the process.
    pub fn start() -> Server {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let endpoint = format!("http://{}", listener.local_addr().unwrap());
        let state = Arc::new(Mutex::new(State::default()));
        let (shared, own) = (state.clone(), endpoint.clone());
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let (state, endpoint) = (shared.clone(), own.clone());
                std::thread::spawn(move || serve(stream, &state, &endpoint));
            }
        });
        Server { endpoint, state }
    }

    /// Adds a model with the branch main.
    pub fn add(&self, name: &str, files: &[(&str, &[u8])]) {
        let files = files.iter().map(|(file, bytes)| ((*file).to_owned(), bytes.to_vec())).collect();
        let model = Model { commit: COMMIT.into(), revisions: vec!["main".into()], files, ..Model::default() };
        self.change(|state| state.models.insert(name.to_owned(), model));
    }

    /// Changes what the server has and does.
    pub fn change<T>(&self, change: impl FnOnce(&mut State) -> T) -> T {
        change(&mut self.state.lock().unwrap())
    }

    /// The requests since the last call.
    pub fn requests(&self) -> Vec<Request> {
        self.change(|state| std::mem::take(&mut state.requests))
    }
}

fn serve(stream: TcpStream, state: &Mutex<State>, endpoint: &str) {
    let mut lines = BufReader::new(stream.try_clone().unwrap()).lines();
    let Some(Ok(first)) = lines.next() else { return };
    let mut request =
        Request { path: first.split(' ').nth(1).unwrap_or_default().to_owned(), range: None, token: None };
    for line in lines.map_while(Result::ok) {
        if line.is_empty() {
            break;
        }
        let (key, value) = line.split_once(": ").unwrap_or((&line, ""));
        match key.to_ascii_lowercase().as_str() {
            "range" => request.range = Some(value.to_owned()),
            "authorization" => request.token = value.strip_prefix("Bearer ").map(str::to_owned),
            _ => {}
        }
    }
    let mut state = state.lock().unwrap();
    state.requests.push(request.clone());
    if state.is_down {
        return;
    }
    if state.busy > 0 {
        state.busy -= 1;
        return respond(stream, "503 Busy", &[], b"", None);
    }
    if request.token.is_none()
        && let Some(left) = &mut state.anonymous
    {
        let Some(fewer) = left.checked_sub(1) else {
            return respond(stream, "429 Too Many Requests", &[], b"", None);
        };
        *left = fewer;
    }
    let path = request.path.split('?').next().unwrap_or_default().to_owned();
    if let Some(rest) = path.strip_prefix("/api/models/") {
        let Some((name, revision)) = rest.split_once("/revision/") else {
            return respond(stream, "404 Not Found", &[], b"", None);
        };
        listing(stream, &state, &request, name, revision);
    } else if let Some(hash) = path.strip_prefix("/cdn/") {
        let found = state.models.values().flat_map(|model| &model.files).find(|(_, bytes)| sha256(bytes) == hash);
        let Some((file, bytes)) = found.map(|(file, bytes)| (file.clone(), bytes.clone())) else {
            return respond(stream, "404 Not Found", &[], b"", None);
        };
        contents(stream, &mut state, &request, &file, bytes, &[]);
    } else if let Some((name, rest)) = path[1..].split_once("/resolve/") {
        let Some((revision, file)) = rest.split_once('/') else {
            return respond(stream, "404 Not Found", &[], b"", None);
        };
        resolve(stream, &mut state, &request, endpoint, [name, revision, file]);
    } else {
        respond(stream, "404 Not Found", &[], b"", None);
    }
}

fn code(code: &str) -> Vec<(String, String)> {
    vec![("X-Error-Code".into(), code.into())]
}

fn listing(stream: TcpStream, state: &State, request: &Request, name: &str, revision: &str) {
    if let Some(new) = state.renamed.get(name) {
        let to = format!("/api/models/{new}/revision/{revision}?blobs=true");
        return respond(stream, "307 Temporary Redirect", &[("Location".into(), to)], b"", None);
    }
    let revision = revision.replace("%2F", "/");
    let Some(model) = state.models.get(name) else {
        // Without a token, the hub does not say whether a model is private or does not exist.
        let status = if request.token.is_some() { "404 Not Found" } else { "401 Unauthorized" };
        return respond(stream, status, &code("RepoNotFound"), b"", None);
    };
    if model.private.is_some() && model.private != request.token {
        return respond(stream, "401 Unauthorized", &code("RepoNotFound"), b"", None);
    }
    if revision != model.commit && !model.revisions.contains(&revision) {
        return respond(stream, "404 Not Found", &code("RevisionNotFound"), b"", None);
    }
    let siblings: Vec<String> = model
        .files
        .iter()
        .map(|(file, bytes)| {
            let lfs = match bytes.len() >= LARGE {
                true => format!(r#", "lfs": {{"sha256": "{}", "size": {}}}"#, sha256(bytes), bytes.len()),
                false => String::new(),
            };
            format!(r#"{{"rfilename": "{file}", "size": {}{lfs}}}"#, bytes.len())
        })
        .collect();
    let text = format!(r#"{{"id": "{name}", "sha": "{}", "siblings": [{}]}}"#, model.commit, siblings.join(", "));
    respond(stream, "200 OK", &[("Content-Type".into(), "application/json".into())], text.as_bytes(), None);
}

fn resolve(stream: TcpStream, state: &mut State, request: &Request, endpoint: &str, [name, revision, file]: [&str; 3]) {
    if let Some(new) = state.renamed.get(name) {
        let to = format!("/{new}/resolve/{revision}/{file}");
        return respond(stream, "307 Temporary Redirect", &[("Location".into(), to)], b"", None);
    }
    let Some(model) = state.models.get(name) else {
        return respond(stream, "401 Unauthorized", &code("RepoNotFound"), b"", None);
    };
    if model.gated.is_some() && model.gated != request.token {
        let status = if request.token.is_some() { "403 Forbidden" } else { "401 Unauthorized" };
        return respond(stream, status, &code("GatedRepo"), b"", None);
    }
    let Some(bytes) = model.files.get(file).cloned() else {
        return respond(stream, "404 Not Found", &code("EntryNotFound"), b"", None);
    };
    let commit = ("X-Repo-Commit".to_owned(), state.commit.clone().unwrap_or_else(|| model.commit.clone()));
    if bytes.len() >= LARGE {
        let hash = sha256(&bytes);
        let headers = [
            commit,
            ("Location".into(), format!("{endpoint}/cdn/{hash}?signature=x")),
            ("X-Linked-Etag".into(), format!("\"{hash}\"")),
            ("X-Linked-Size".into(), bytes.len().to_string()),
        ];
        return respond(stream, "302 Found", &headers, b"", None);
    }
    let headers = [commit, ("ETag".into(), format!("\"{}\"", state.etag.clone().unwrap_or_else(|| etag(&bytes))))];
    contents(stream, state, request, file, bytes, &headers);
}

/// A file's bytes, or a range of them.
fn contents(
    stream: TcpStream,
    state: &mut State,
    request: &Request,
    file: &str,
    mut bytes: Vec<u8>,
    headers: &[(String, String)],
) {
    let mut headers = headers.to_vec();
    let total = bytes.len();
    let range = request.range.as_deref().and_then(|range| range.strip_prefix("bytes=")?.split_once('-'));
    let is_size_request = range == Some(("0", "0"));
    if !is_size_request && state.corruptions > 0 {
        state.corruptions -= 1;
        bytes[total / 2] ^= 1;
    }
    let cut = match state.cuts.get_mut(file) {
        Some(cuts) if !is_size_request && !cuts.is_empty() => Some(cuts.remove(0)),
        _ => None,
    };
    let stall =
        state.stall.as_ref().filter(|(stalled, _)| !is_size_request && stalled == file).map(|(_, bytes)| *bytes);
    if let Some(sent) = stall {
        let kept = stream.try_clone().unwrap();
        std::thread::spawn(move || {
            std::thread::sleep(std::time::Duration::from_secs(60));
            drop(kept);
        });
        let from: usize = range.map_or(0, |(from, _)| from.parse().unwrap());
        headers.push(("Content-Range".into(), format!("bytes {from}-{}/{total}", total - 1)));
        return respond(stream, "206 Partial Content", &headers, &bytes[from..], Some(sent.saturating_sub(from)));
    }
    match range {
        Some((from, to)) if !state.ignores_ranges || is_size_request => {
            let from: usize = from.parse().unwrap();
            if from >= total {
                let headers = [("Content-Range".into(), format!("bytes */{total}"))];
                return respond(stream, "416 Range Not Satisfiable", &headers, b"", None);
            }
            let end = to.parse().map_or(total, |last: usize| last + 1);
            headers.push(("Content-Range".into(), format!("bytes {from}-{}/{total}", end - 1)));
            respond(stream, "206 Partial Content", &headers, &bytes[from..end], cut);
        }
        _ => respond(stream, "200 OK", &headers, &bytes, cut),
    }
}

/// Sends a response; the connection breaks after `cut` bytes of its body.
fn respond(mut stream: TcpStream, status: &str, headers: &[(String, String)], body: &[u8], cut: Option<usize>) {
    let mut head = format!("HTTP/1.1 {status}\r\nContent-Length: {}\r\nConnection: close\r\n", body.len());
    for (key, value) in headers {
        head += &format!("{key}: {value}\r\n");
    }
    let sent = &body[..cut.unwrap_or(body.len()).min(body.len())];
    let _ = stream
        .write_all(head.as_bytes())
        .and_then(|()| stream.write_all(b"\r\n"))
        .and_then(|()| stream.write_all(sent));
}
