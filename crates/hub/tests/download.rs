//! Downloads from a simulated hub.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use cloze_hub::{Contents, Environment, Event, Hub, HubError, Request, Snapshot};
use cloze_testing::hub::{COMMIT, Server, etag};

const NAME: &str = "org/name";

/// Returns a changed value. (The types are non-exhaustive, so a struct update is not possible.)
fn changed<T>(mut value: T, change: impl FnOnce(&mut T)) -> T {
    change(&mut value);
    value
}

/// A server and an empty cache.
struct Bench {
    server: Server,
    dir: tempfile::TempDir,
    weights: Vec<u8>,
}

impl Bench {
    /// With a model of a small and a large file, a tokenizer, and many files that are not needed.
    fn new() -> Bench {
        let server = Server::start();
        let weights: Vec<u8> = (0..50_000u32).map(|i| (i * i / 7) as u8).collect();
        server.add(
            NAME,
            &[
                ("config.json", b"{\"model_type\": \"bert\"}"),
                ("model.safetensors", &weights),
                ("tokenizer.json", b"{\"model\": {}}"),
                ("vocab.txt", b"[PAD]\n"),
                ("pytorch_model.bin", &weights[1..]),
                ("tf_model.h5", &weights[2..]),
                ("flax_model.msgpack", &weights[3..]),
                ("onnx/model.onnx", &weights[4..]),
                ("openvino/openvino_model.bin", &weights[5..]),
                ("README.md", b"# A model"),
                ("training/model.safetensors", &weights[6..]),
            ],
        );
        Bench { server, dir: tempfile::tempdir().unwrap(), weights }
    }

    fn environment(&self) -> Environment {
        let mut environment = Environment::from_variables(|_| None, None);
        environment.cache = self.dir.path().to_owned();
        environment.endpoint = self.server.endpoint.clone();
        environment.token = None;
        environment
    }

    fn find_as(&self, environment: Environment, request: &Request<'_>) -> Result<Snapshot, HubError> {
        Hub::new(environment).find(request, &mut |_| ())
    }

    fn find(&self) -> Result<Snapshot, HubError> {
        self.find_as(self.environment(), &Request::new(NAME, Contents::Model))
    }

    fn error(&self, request: &Request<'_>) -> String {
        let line = self.find_as(self.environment(), request).unwrap_err().to_string();
        assert!(!line.contains('\n'), "{line}");
        line
    }

    fn model(&self) -> PathBuf {
        self.dir.path().join("models--org--name")
    }

    fn blob(&self) -> PathBuf {
        self.model().join("blobs").join(etag(&self.weights))
    }

    /// The path of the weights before they are verified.
    fn incoming(&self) -> PathBuf {
        self.model().join(".incoming/models--org--name/blobs").join(etag(&self.weights))
    }

    fn part(&self) -> PathBuf {
        self.incoming().with_extension("part")
    }
}

/// The paths of all files and links in a folder.
fn tree(dir: &Path) -> Vec<String> {
    fn walk(dir: &Path, root: &Path, found: &mut Vec<String>) {
        for entry in fs::read_dir(dir).unwrap().flatten() {
            match entry.file_type().unwrap().is_dir() {
                true => walk(&entry.path(), root, found),
                false => found.push(entry.path().strip_prefix(root).unwrap().to_string_lossy().replace('\\', "/")),
            }
        }
    }
    let mut found = Vec::new();
    walk(dir, dir, &mut found);
    found.sort();
    found
}

#[test]
fn models_are_downloaded_once_in_the_layout_of_huggingface_hub() {
    let bench = Bench::new();
    let mut last = (0, 0);
    let request = Request::new(NAME, Contents::Model);
    let found = Hub::new(bench.environment()).find(&request, &mut |event| {
        if let Event::Bytes { done, total, .. } = event {
            assert!(done >= last.0 && done <= total, "{done} of {total} after {last:?}");
            last = (done, total);
        }
    });
    let found = found.unwrap();
    let needed = ["config.json", "model.safetensors", "tokenizer.json", "vocab.txt"];
    let files = bench.server.change(|state| state.models[NAME].files.clone());
    let bytes: u64 = needed.iter().map(|file| files[*file].len() as u64).sum();
    assert_eq!((found.downloaded, last), (bytes, (bytes, bytes)));
    assert_eq!(found.commit, COMMIT);
    assert_eq!(found.folder, bench.model().join("snapshots").join(COMMIT));

    let mut expected = vec!["refs/main".to_owned()];
    let absent = [
        "config_sentence_transformers.json",
        "modules.json",
        "sentence_bert_config.json",
        "sentencepiece.bpe.model",
        "spiece.model",
        "tokenizer_config.json",
        "vocab.json",
    ];
    expected.extend(absent.map(|file| format!(".no_exist/{COMMIT}/{file}")));
    for file in needed {
        expected.push(format!("blobs/{}", etag(&files[file])));
        expected.push(format!("snapshots/{COMMIT}/{file}"));
        assert_eq!(fs::read(found.folder.join(file)).unwrap(), files[file]);
    }
    expected.sort();
    assert_eq!(tree(&bench.model()), expected);
    assert!(!bench.model().join(".incoming").exists(), "no folder of downloads remains");
    assert_eq!(fs::read_to_string(bench.model().join("refs/main")).unwrap(), COMMIT);
    if cfg!(unix) {
        let target = fs::read_link(found.folder.join("model.safetensors")).unwrap();
        assert_eq!(target, Path::new("../../blobs").join(etag(&bench.weights)));
    }

    // The cache is now used without requests, for any name of the revision.
    bench.server.requests();
    for revision in [None, Some("main"), Some(COMMIT)] {
        let again = bench.find_as(bench.environment(), &changed(request, |value| value.revision = revision)).unwrap();
        assert_eq!(again, changed(found.clone(), |value| value.downloaded = 0));
    }
    assert_eq!(bench.server.requests(), []);
}

#[test]
fn interrupted_transfers_are_continued() {
    let bench = Bench::new();
    bench.server.change(|state| state.cuts.insert("model.safetensors".into(), vec![20_000, 7_000]));
    let mut retries = 0;
    let found = Hub::new(bench.environment()).find(&Request::new(NAME, Contents::Model), &mut |event| {
        retries += usize::from(matches!(event, Event::Retry { .. }))
    });
    assert_eq!(fs::read(found.unwrap().folder.join("model.safetensors")).unwrap(), bench.weights);
    assert_eq!(retries, 2);
    let asked = bench.server.requests();
    let ranges: Vec<&str> = asked
        .iter()
        .filter(|request| request.path.starts_with("/cdn/"))
        .filter_map(|request| request.range.as_deref())
        .filter(|range| *range != "bytes=0-0")
        .collect();
    assert_eq!(ranges, ["bytes=0-", "bytes=20000-", "bytes=27000-"]);
}

#[test]
fn interrupted_downloads_are_incomplete_and_can_be_continued() {
    let bench = Bench::new();
    // The connection breaks and the hub is not available. As with a killed process, the existing files remain.
    bench.server.change(|state| state.cuts.insert("model.safetensors".into(), vec![30_000, 0, 0, 0]));
    let error = bench.find().unwrap_err();
    assert!(matches!(error, HubError::Network { .. }) && error.to_string().contains("is kept"), "{error}");
    let part = bench.part();
    assert_eq!(fs::metadata(&part).unwrap().len(), 30_000);
    assert!(!bench.blob().exists() && !bench.model().join("refs/main").exists());
    let offline = changed(bench.environment(), |value| value.offline = true);
    let request = changed(Request::new(NAME, Contents::Model), |value| value.revision = Some(COMMIT));
    let error = bench.find_as(offline, &request).unwrap_err().to_string();
    assert!(error.contains("missing model.safetensors"), "{error}");

    bench.server.requests();
    let found = bench.find().unwrap();
    assert_eq!(found.downloaded, 20_000);
    assert_eq!(fs::read(found.folder.join("model.safetensors")).unwrap(), bench.weights);
    let asked = bench.server.requests();
    assert!(asked.iter().any(|request| request.range.as_deref() == Some("bytes=30000-")), "{asked:?}");
    assert!(!asked.iter().any(|request| request.path.ends_with("config.json")), "asked again: {asked:?}");
    assert!(!part.exists());
}

#[test]
fn complete_too_long_and_wrong_parts_are_handled() {
    for (length, flip) in [(50_000, false), (60_000, false), (40_000, true), (50_000, true)] {
        let bench = Bench::new();
        let mut left = bench.weights.clone();
        left.resize(length, 0);
        left[3] ^= u8::from(flip);
        let part = bench.part();
        fs::create_dir_all(part.parent().unwrap()).unwrap();
        fs::write(&part, left).unwrap();
        let found = bench.find().unwrap();
        assert_eq!(fs::read(found.folder.join("model.safetensors")).unwrap(), bench.weights, "{length} {flip}");
        assert!(!part.exists());
    }
}

#[test]
fn servers_without_ranges_send_the_complete_file() {
    let bench = Bench::new();
    bench.server.change(|state| {
        state.ignores_ranges = true;
        state.cuts.insert("model.safetensors".into(), vec![10_000]);
    });
    let found = bench.find().unwrap();
    assert_eq!(fs::read(found.folder.join("model.safetensors")).unwrap(), bench.weights);
}

#[test]
fn damaged_downloads_are_removed() {
    let bench = Bench::new();
    let request = changed(Request::new(NAME, Contents::Model), |value| value.name = "large");
    // All files are large, so each has a checksum.
    let config: Vec<u8> = [b"{}".as_slice(), &[b' '; 2000]].concat();
    bench.server.add("large", &[("config.json", &config), ("model.safetensors", &bench.weights)]);
    bench.server.change(|state| state.corruptions = 1);
    assert_eq!(
        fs::read(bench.find_as(bench.environment(), &request).unwrap().folder.join("config.json")).unwrap(),
        config
    );
    fs::remove_dir_all(bench.dir.path().join("models--large")).unwrap();
    bench.server.change(|state| state.corruptions = 2);
    let error = bench.error(&request);
    assert!(error.contains("config.json") && error.contains("damaged") && error.contains("SHA-256"), "{error}");
    assert_eq!(tree(&bench.dir.path().join("models--large")), [""; 0]);
}

#[test]
fn files_of_a_process_killed_during_verification_are_verified() {
    // The file is complete, but not verified: in the first case it is correct, in the second it is not.
    for flip in [false, true] {
        let bench = Bench::new();
        let mut left = bench.weights.clone();
        left[3] ^= u8::from(flip);
        // The crate has already created its link.
        let incoming = bench.incoming();
        let pointer = incoming.parent().unwrap().with_file_name("snapshots").join(COMMIT).join("model.safetensors");
        for path in [&incoming, &pointer] {
            fs::create_dir_all(path.parent().unwrap()).unwrap();
        }
        fs::write(&incoming, left).unwrap();
        #[cfg(unix)]
        std::os::unix::fs::symlink(Path::new("../../blobs").join(etag(&bench.weights)), pointer).unwrap();
        let found = bench.find().unwrap();
        assert_eq!(fs::read(found.folder.join("model.safetensors")).unwrap(), bench.weights, "{flip}");
        let transfers = bench.server.requests().into_iter().filter(|request| {
            request.path.starts_with("/cdn/") && request.range.as_deref().is_some_and(|range| range != "bytes=0-0")
        });
        assert_eq!(transfers.count(), usize::from(flip), "a correct file is not transferred again");
        assert!(!bench.model().join(".incoming").exists());
    }
}

#[test]
fn locks_of_other_programs_are_respected() {
    let bench = Bench::new();
    let path = bench.incoming().with_file_name(format!("{}.lock", etag(b"{\"model_type\": \"bert\"}")));
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    let lock = fs::File::create(&path).unwrap();
    lock.lock().unwrap();
    let error = bench.find().unwrap_err();
    assert!(matches!(error, HubError::Locked { .. }), "{error}");
    let line = error.to_string();
    assert!(
        line.contains("config.json of the model") && line.contains("try again") && line.contains(".lock"),
        "{line}"
    );
    assert!(path.is_file(), "the lock of a running program was removed");
    drop(lock);
    bench.find().unwrap();
}

#[test]
fn stalled_connections_are_replaced_and_the_transfer_continues() {
    let bench = Bench::new();
    bench.server.change(|state| state.stall = Some(("model.safetensors".into(), 20_000)));
    let hub = Hub::new(bench.environment()).with_stall_timeout(Duration::from_millis(700));
    let mut reasons = Vec::new();
    let found = hub.find(&Request::new(NAME, Contents::Model), &mut |event| {
        if let Event::Retry { reason, .. } = event {
            reasons.push(reason.to_owned());
            bench.server.change(|state| state.stall = None);
        }
    });
    assert_eq!(fs::read(found.unwrap().folder.join("model.safetensors")).unwrap(), bench.weights);
    assert!(reasons.len() == 1 && reasons[0].contains("nothing arrived for 700ms"), "{reasons:?}");
    let asked = bench.server.requests();
    assert!(asked.iter().any(|request| request.range.as_deref() == Some("bytes=20000-")), "{asked:?}");
}

#[test]
fn a_stalled_hub_is_an_error_and_downloaded_data_is_kept() {
    let bench = Bench::new();
    let find = |endpoint: &str| {
        let environment = changed(bench.environment(), |value| value.endpoint = endpoint.to_owned());
        let hub = Hub::new(environment).with_stall_timeout(Duration::from_millis(300));
        hub.find(&Request::new(NAME, Contents::Model), &mut |_| ()).unwrap_err()
    };
    bench.server.change(|state| state.stall = Some(("model.safetensors".into(), 20_000)));
    let error = find(&bench.server.endpoint);
    assert!(matches!(error, HubError::Network { .. }) && error.to_string().contains("nothing arrived"), "{error}");
    assert!(fs::metadata(bench.part()).unwrap().len() >= 20_000);
    // Connections are accepted, but there is no response.
    let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let error = find(&format!("http://{}", silent.local_addr().unwrap()));
    assert!(matches!(error, HubError::Network { .. }), "{error}");
}

#[test]
fn the_token_is_used_if_requests_without_one_are_limited() {
    // Rejected from the first request, or later.
    for answered in [0, 5] {
        let bench = Bench::new();
        let request = Request::new(NAME, Contents::Model);
        bench.server.change(|state| state.anonymous = Some(answered));
        let error = bench.find().unwrap_err();
        assert!(matches!(error, HubError::RateLimited { with_token: false, .. }), "{error}");
        assert!(error.to_string().contains("HF_TOKEN") && error.to_string().contains("429"), "{error}");
        bench.server.requests();
        let environment = changed(bench.environment(), |value| value.token = Some("key".into()));
        let found = bench.find_as(environment, &request).unwrap();
        assert_eq!(fs::read(found.folder.join("model.safetensors")).unwrap(), bench.weights);
        assert!(bench.server.requests().iter().any(|request| request.token.as_deref() == Some("key")));
    }
}

#[test]
fn requests_to_a_busy_hub_are_retried() {
    let bench = Bench::new();
    let request = Request::new(NAME, Contents::Model);
    bench.server.change(|state| state.busy = 1);
    assert!(bench.error(&request).contains("503"));
    // The listing succeeds; the request of a file fails at first.
    let mut hub_is_busy = |event: Event<'_>| {
        if let Event::Bytes { file: "config.json", .. } = event {
            bench.server.change(|state| state.busy = 2);
        }
    };
    assert!(Hub::new(bench.environment()).find(&request, &mut hub_is_busy).is_ok());
}

#[test]
fn renamed_models_are_followed() {
    let bench = Bench::new();
    bench.server.change(|state| state.renamed.insert("old".into(), NAME.into()));
    let found = bench.find_as(bench.environment(), &Request::new("old", Contents::Model)).unwrap();
    assert_eq!(found.folder, bench.dir.path().join("models--old/snapshots").join(COMMIT));
    assert_eq!(fs::read(found.folder.join("model.safetensors")).unwrap(), bench.weights);
}

#[test]
fn another_revision_shares_the_blobs() {
    let bench = Bench::new();
    bench.find().unwrap();
    let newer = "aaaaaaaaaabbbbbbbbbbccccccccccdddddddddd";
    bench.server.change(|state| {
        let model = state.models.get_mut(NAME).unwrap();
        model.commit = newer.into();
        model.revisions = vec!["main".into(), "refs/pr/1".into()];
        model.files.insert("config.json".into(), b"{\"changed\": true}".to_vec());
    });
    // The cache has precedence: main does not change.
    assert_eq!(bench.find().unwrap().commit, COMMIT);
    let request = changed(Request::new(NAME, Contents::Model), |value| value.revision = Some("refs/pr/1"));
    let found = bench.find_as(bench.environment(), &request).unwrap();
    assert_eq!((found.commit.as_str(), found.downloaded), (newer, 17));
    assert_eq!(fs::read_to_string(bench.model().join("refs/refs/pr/1")).unwrap(), newer);
    let by_commit = changed(request, |value| value.revision = Some(newer));
    assert_eq!(bench.find_as(bench.environment(), &by_commit).unwrap().downloaded, 0);
}

#[test]
fn commits_as_revision_create_no_reference() {
    let bench = Bench::new();
    let request = changed(Request::new(NAME, Contents::Model), |value| value.revision = Some(COMMIT));
    bench.find_as(bench.environment(), &request).unwrap();
    assert!(!tree(&bench.model()).iter().any(|path| path.starts_with("refs/")), "{:?}", tree(&bench.model()));
}

#[test]
fn tokenizers_are_downloaded_without_weights() {
    let bench = Bench::new();
    let found = bench.find_as(bench.environment(), &Request::new(NAME, Contents::Tokenizer)).unwrap();
    assert_eq!(tree(&found.folder), ["config.json", "tokenizer.json", "vocab.txt"]);
    let model = bench.find().unwrap();
    assert_eq!((model.folder, model.downloaded), (found.folder, bench.weights.len() as u64));
}

#[test]
fn shards_and_modules_are_downloaded() {
    let bench = Bench::new();
    let modules = br#"[{"path": "", "type": "m.Transformer"}, {"path": "1_Pooling", "type": "m.Pooling"},
        {"path": "2_Dense", "type": "m.Dense"}, {"path": "3_Normalize", "type": "m.Normalize"}]"#;
    bench.server.add(
        "sharded",
        &[
            ("config.json", b"{}"),
            ("model.safetensors.index.json", br#"{"weight_map": {"a": "one.safetensors", "b": "two.safetensors"}}"#),
            ("one.safetensors", &bench.weights),
            ("two.safetensors", b"two"),
            ("three.safetensors", b"three"),
            ("pytorch_model.bin", b"pickled"),
            ("vocab.txt", b"[PAD]"),
            ("modules.json", modules),
            ("sentence_bert_config.json", b"{\"max_seq_length\": 9}"),
            ("1_Pooling/config.json", b"{ }"),
            ("2_Dense/config.json", b"{  }"),
            ("2_Dense/model.safetensors", b"dense"),
            ("2_Dense/pytorch_model.bin", b"dense, pickled"),
        ],
    );
    let mut last = (0, 0);
    let found = Hub::new(bench.environment()).find(&Request::new("sharded", Contents::Vectors), &mut |event| {
        if let Event::Bytes { done, total, .. } = event {
            last = (done, total);
        }
    });
    let found = found.unwrap();
    assert_eq!(last, (found.downloaded, found.downloaded), "each file is counted once");
    let expected = [
        "1_Pooling/config.json",
        "2_Dense/config.json",
        "2_Dense/model.safetensors",
        "config.json",
        "model.safetensors.index.json",
        "modules.json",
        "one.safetensors",
        "sentence_bert_config.json",
        "two.safetensors",
        "vocab.txt",
    ];
    assert_eq!(tree(&found.folder), expected);
    assert_eq!(fs::read(found.folder.join("1_Pooling/config.json")).unwrap(), b"{ }");
    bench.server.requests();
    bench.find_as(bench.environment(), &Request::new("sharded", Contents::Vectors)).unwrap();
    assert_eq!(bench.server.requests(), []);
}

#[test]
fn snapshots_of_other_programs_are_completed() {
    // Transformers does not download modules.json. Without it, vectors would be pooled differently from the model's definition.
    let bench = Bench::new();
    bench.server.change(|state| {
        let files = &mut state.models.get_mut(NAME).unwrap().files;
        files.insert("modules.json".into(), br#"[{"path": "1_Pooling", "type": "m.Pooling"}]"#.to_vec());
        files.insert("1_Pooling/config.json".into(), b"{ }".to_vec());
    });
    let snapshot = bench.model().join("snapshots").join(COMMIT);
    fs::create_dir_all(&snapshot).unwrap();
    fs::create_dir_all(bench.model().join("refs")).unwrap();
    fs::write(bench.model().join("refs/main"), COMMIT).unwrap();
    let files = [
        ("config.json", b"{}".as_slice()),
        ("model.safetensors", &bench.weights),
        ("tokenizer.json", b""),
        ("tokenizer_config.json", b"{ }"),
    ];
    for (file, bytes) in files {
        fs::write(snapshot.join(file), bytes).unwrap();
    }
    assert_eq!(bench.find().unwrap().downloaded, 0);
    assert_eq!(bench.server.requests(), [], "the model has no missing files");
    let request = Request::new(NAME, Contents::Vectors);

    // If the hub is not available, the cached files are used.
    let offline = changed(bench.environment(), |value| value.offline = true);
    let note = bench.find_as(offline, &request).unwrap().note.unwrap();
    assert!(note.contains("modules.json") && note.contains("without `offline`"), "{note}");
    bench.server.change(|state| state.is_down = true);
    let found = bench.find_as(bench.environment(), &request).unwrap();
    let note = found.note.unwrap();
    assert!(note.contains("taken from the cache") && note.contains("modules.json"), "{note}");

    bench.server.change(|state| state.is_down = false);
    let found = bench.find_as(bench.environment(), &request).unwrap();
    assert!(found.folder.join("1_Pooling/config.json").is_file());
    assert!(found.downloaded < 100, "{} bytes for two small files", found.downloaded);
}

#[test]
fn tokens_give_access_to_private_and_gated_models() {
    let bench = Bench::new();
    let request = Request::new(NAME, Contents::Model);
    let with = |token: &str| changed(bench.environment(), |value| value.token = Some(token.into()));
    let fails = |environment| bench.find_as(environment, &request).unwrap_err();
    bench.server.change(|state| state.models.get_mut(NAME).unwrap().private = Some("key".into()));
    let error = fails(bench.environment());
    assert!(matches!(error, HubError::NoModel { .. }) && error.to_string().contains("set HF_TOKEN"), "{error}");
    let error = fails(with("wrong"));
    assert!(error.to_string().contains("has no access"), "{error}");

    bench.server.change(|state| state.models.get_mut(NAME).unwrap().gated = Some("key".into()));
    bench.server.change(|state| state.models.get_mut(NAME).unwrap().private = None);
    for (environment, expected) in [(bench.environment(), "and set HF_TOKEN"), (with("wrong"), "with the account")] {
        let error = fails(environment);
        assert!(matches!(error, HubError::Gated { .. }) && error.to_string().contains(expected), "{error}");
    }
    assert!(bench.find_as(with("key"), &request).is_ok());

    let open = Bench::new();
    let environment = changed(open.environment(), |value| value.token = Some("key".into()));
    open.find_as(environment, &request).unwrap();
    assert!(open.server.requests().iter().all(|request| request.token.is_none()), "a public model needs no token");
}

#[test]
fn missing_models_revisions_and_files_are_named_in_the_error() {
    let bench = Bench::new();
    let request = Request::new(NAME, Contents::Model);
    assert!(
        bench
            .error(&changed(request, |value| value.name = "absent"))
            .contains("no model \"absent\" on http://127.0.0.1")
    );
    assert!(bench.error(&changed(request, |value| value.revision = Some("v9"))).contains("no revision \"v9\""));
    assert!(
        bench
            .error(&changed(request, |value| value.revision = Some("../main")))
            .contains("`revision` must be a branch")
    );
    assert!(bench.error(&changed(request, |value| value.name = "a/b/c")).contains("cannot be a model's name"));

    let weights: &[u8] = &bench.weights;
    bench.server.add("pickle", &[("config.json", b"{}"), ("pytorch_model.bin", weights), ("vocab.txt", b"x")]);
    let error = bench.error(&changed(request, |value| value.name = "pickle"));
    assert!(error.contains("must first be converted"), "{error}");
    let found = bench.find_as(bench.environment(), &Request::new("pickle", Contents::Source)).unwrap();
    assert_eq!(fs::read(found.folder.join("pytorch_model.bin")).unwrap(), weights);
    let files = ["config.json", "model.safetensors", "vocab.json", "merges.txt"];
    bench.server.add("bpe", &files.map(|file| (file, if file.starts_with("model") { weights } else { b"{}" })));
    let found = bench.find_as(bench.environment(), &Request::new("bpe", Contents::Model)).unwrap();
    assert!(
        files.iter().all(|file| found.folder.join(file).is_file()),
        "without tokenizer.json, both files are needed"
    );
    bench.server.add("h5", &[("config.json", b"{}"), ("tf_model.h5", weights)]);
    assert!(bench.error(&changed(request, |value| value.name = "h5")).contains("tf_model.h5 is not supported"));
    assert!(
        bench
            .error(&changed(Request::new(NAME, Contents::Tokenizer), |value| value.name = "h5"))
            .contains("has no tokenizer: expected tokenizer.json")
    );
    bench.server.add("empty", &[("README.md", b"{}")]);
    assert!(bench.error(&changed(request, |value| value.name = "empty")).contains("no config.json"));
    let original = [("bert_config.json", b"{}".as_slice()), ("vocab.txt", b"x"), ("bert_model.ckpt.index", b"i")];
    let data = ("bert_model.ckpt.data-00000-of-00001", weights);
    bench.server.add("original", &[&original[..], &[data]].concat());
    let found = bench.find_as(bench.environment(), &Request::new("original", Contents::Source)).unwrap();
    assert!(found.folder.join("bert_model.ckpt.data-00000-of-00001").is_file());
}

#[test]
fn unsupported_models_are_rejected_before_their_weights_are_downloaded() {
    let bench = Bench::new();
    let reject = |config: &Path| {
        assert!(fs::read_to_string(config).unwrap().contains("model_type"));
        Err("unsupported kind".to_owned())
    };
    let request = changed(Request::new(NAME, Contents::Model), |value| value.check = Some(&reject));
    let error = bench.error(&request);
    assert!(error.contains("not downloaded") && error.contains("unsupported kind"), "{error}");
    assert!(!bench.server.requests().iter().any(|request| request.path.ends_with("model.safetensors")));
}

#[test]
fn unreachable_hubs_give_one_line_errors() {
    let bench = Bench::new();
    let environment = changed(bench.environment(), |value| value.endpoint = "http://127.0.0.1:9".into());
    let error = bench.find_as(environment, &Request::new(NAME, Contents::Model)).unwrap_err();
    assert!(matches!(error, HubError::Network { .. }), "{error}");
    let environment = changed(bench.environment(), |value| value.endpoint = "no address".into());
    let error = bench.find_as(environment, &Request::new(NAME, Contents::Model)).unwrap_err();
    assert!(error.to_string().contains("no address"), "{error}");
    let environment =
        changed(bench.environment(), |value| value.endpoint = bench.server.endpoint.clone() + "/elsewhere");
    let error = bench.find_as(environment, &Request::new(NAME, Contents::Model)).unwrap_err();
    assert!(error.to_string().contains("elsewhere"), "{error}");
}

#[test]
fn server_responses_cannot_lead_out_of_the_cache() {
    for (etag, commit) in [(Some("../../../stolen"), None), (Some(""), None), (None, Some("../../stolen"))] {
        let bench = Bench::new();
        bench.server.change(|state| (state.etag, state.commit) = (etag.map(Into::into), commit.map(Into::into)));
        let error = bench.find().unwrap_err();
        assert!(matches!(error, HubError::UnexpectedResponse { .. }), "{error}");
        assert_eq!(tree(bench.dir.path()), [""; 0]);
    }
}

#[test]
fn concurrent_downloads_transfer_files_once() {
    let bench = Bench::new();
    let found: Vec<_> = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..4).map(|_| scope.spawn(|| bench.find().unwrap())).collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    });
    assert!(found.windows(2).all(|pair| pair[0].folder == pair[1].folder));
    assert_eq!(fs::read(found[0].folder.join("model.safetensors")).unwrap(), bench.weights);
    let transfers = bench.server.requests().into_iter();
    let transfers = transfers.filter(|request| request.path.starts_with("/cdn/"));
    assert_eq!(transfers.filter(|request| request.range.as_deref() == Some("bytes=0-")).count(), 1);
}

#[cfg(unix)]
#[test]
fn unwritable_caches_are_named_in_the_error() {
    use std::os::unix::fs::PermissionsExt;
    let bench = Bench::new();
    let locked = bench.dir.path().join("locked");
    fs::create_dir(&locked).unwrap();
    fs::set_permissions(&locked, fs::Permissions::from_mode(0o500)).unwrap();
    if fs::write(locked.join("x"), "").is_ok() {
        return; // The root user can write everywhere.
    }
    let environment = changed(bench.environment(), |value| value.cache = locked);
    let error = bench.find_as(environment, &Request::new(NAME, Contents::Model)).unwrap_err();
    assert!(matches!(error, HubError::Cache { .. }) && error.to_string().contains("locked"), "{error}");
}
