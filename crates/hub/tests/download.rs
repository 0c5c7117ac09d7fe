//! Downloads from an imitated hub.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use cloze_hub::{Contents, Environment, Event, Found, Hub, HubError, Request};
use cloze_testing::hub::{COMMIT, Server, etag};

const NAME: &str = "org/name";

/// A value after a change.
fn but<T>(mut value: T, change: impl FnOnce(&mut T)) -> T {
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
    /// With a model of a small and a large file, a tokenizer, and much that nobody wants.
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

    fn find_as(&self, environment: Environment, wish: &Request<'_>) -> Result<Found, HubError> {
        Hub::new(environment).find(wish, &mut |_| ())
    }

    fn find(&self) -> Result<Found, HubError> {
        self.find_as(self.environment(), &Request::new(NAME, Contents::Model))
    }

    fn error(&self, wish: &Request<'_>) -> String {
        let line = self.find_as(self.environment(), wish).unwrap_err().to_string();
        assert!(!line.contains('\n'), "{line}");
        line
    }

    fn model(&self) -> PathBuf {
        self.dir.path().join("models--org--name")
    }

    fn blob(&self) -> PathBuf {
        self.model().join("blobs").join(etag(&self.weights))
    }

    /// Where the weights are until they are verified.
    fn incoming(&self) -> PathBuf {
        self.model().join(".incoming/models--org--name/blobs").join(etag(&self.weights))
    }

    fn part(&self) -> PathBuf {
        self.incoming().with_extension("part")
    }
}

/// Paths of all files and links below a folder.
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
fn a_model_is_downloaded_once_in_the_layout_of_huggingface_hub() {
    let bench = Bench::new();
    let mut last = (0, 0);
    let wish = Request::new(NAME, Contents::Model);
    let found = Hub::new(bench.environment()).find(&wish, &mut |news| {
        if let Event::Bytes { done, total, .. } = news {
            assert!(done >= last.0 && done <= total, "{done} of {total} after {last:?}");
            last = (done, total);
        }
    });
    let found = found.unwrap();
    let wanted = ["config.json", "model.safetensors", "tokenizer.json", "vocab.txt"];
    let files = bench.server.change(|state| state.models[NAME].files.clone());
    let bytes: u64 = wanted.iter().map(|file| files[*file].len() as u64).sum();
    assert_eq!((found.downloaded, last), (bytes, (bytes, bytes)));
    assert_eq!(found.commit, COMMIT);
    assert_eq!(found.folder, bench.model().join("snapshots").join(COMMIT));

    let mut expected = vec!["refs/main".to_owned()];
    let absent =
        ["config_sentence_transformers.json", "modules.json", "sentence_bert_config.json", "tokenizer_config.json"];
    expected.extend(absent.map(|file| format!(".no_exist/{COMMIT}/{file}")));
    for file in wanted {
        expected.push(format!("blobs/{}", etag(&files[file])));
        expected.push(format!("snapshots/{COMMIT}/{file}"));
        assert_eq!(fs::read(found.folder.join(file)).unwrap(), files[file]);
    }
    expected.sort();
    assert_eq!(tree(&bench.model()), expected);
    assert!(!bench.model().join(".incoming").exists(), "no folder is left of the transfers");
    assert_eq!(fs::read_to_string(bench.model().join("refs/main")).unwrap(), COMMIT);
    if cfg!(unix) {
        let target = fs::read_link(found.folder.join("model.safetensors")).unwrap();
        assert_eq!(target, Path::new("../../blobs").join(etag(&bench.weights)));
    }

    // Now nobody is asked, for any name of the revision.
    bench.server.requests();
    for revision in [None, Some("main"), Some(COMMIT)] {
        let again = bench.find_as(bench.environment(), &but(wish, |it| it.revision = revision)).unwrap();
        assert_eq!(again, but(found.clone(), |it| it.downloaded = 0));
    }
    assert_eq!(bench.server.requests(), []);
}

#[test]
fn a_broken_transfer_goes_on_where_it_broke_off() {
    let bench = Bench::new();
    bench.server.change(|state| state.cuts.insert("model.safetensors".into(), vec![20_000, 7_000]));
    let mut retries = 0;
    let found = Hub::new(bench.environment()).find(&Request::new(NAME, Contents::Model), &mut |news| {
        retries += usize::from(matches!(news, Event::Retry { .. }))
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
fn an_interrupted_download_looks_unfinished_and_the_next_one_goes_on() {
    let bench = Bench::new();
    // The connection breaks and the hub stays away: as for a process that is killed, what is there stays there.
    bench.server.change(|state| state.cuts.insert("model.safetensors".into(), vec![30_000, 0, 0, 0]));
    let error = bench.find().unwrap_err();
    assert!(matches!(error, HubError::Network { .. }) && error.to_string().contains("is kept"), "{error}");
    let part = bench.part();
    assert_eq!(fs::metadata(&part).unwrap().len(), 30_000);
    assert!(!bench.blob().exists() && !bench.model().join("refs/main").exists());
    let offline = but(bench.environment(), |it| it.offline = true);
    let wish = but(Request::new(NAME, Contents::Model), |it| it.revision = Some(COMMIT));
    let error = bench.find_as(offline, &wish).unwrap_err().to_string();
    assert!(error.contains("lacks model.safetensors"), "{error}");

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
fn parts_that_are_whole_too_long_or_wrong_do_no_harm() {
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
fn a_server_without_ranges_is_asked_for_everything() {
    let bench = Bench::new();
    bench.server.change(|state| {
        state.ignores_ranges = true;
        state.cuts.insert("model.safetensors".into(), vec![10_000]);
    });
    let found = bench.find().unwrap();
    assert_eq!(fs::read(found.folder.join("model.safetensors")).unwrap(), bench.weights);
}

#[test]
fn what_arrives_damaged_is_never_kept() {
    let bench = Bench::new();
    let wish = but(Request::new(NAME, Contents::Model), |it| it.name = "large");
    // All files are large here, so that each has a checksum.
    let config: Vec<u8> = [b"{}".as_slice(), &[b' '; 2000]].concat();
    bench.server.add("large", &[("config.json", &config), ("model.safetensors", &bench.weights)]);
    bench.server.change(|state| state.corruptions = 1);
    assert_eq!(
        fs::read(bench.find_as(bench.environment(), &wish).unwrap().folder.join("config.json")).unwrap(),
        config
    );
    fs::remove_dir_all(bench.dir.path().join("models--large")).unwrap();
    bench.server.change(|state| state.corruptions = 2);
    let error = bench.error(&wish);
    assert!(error.contains("config.json") && error.contains("damaged") && error.contains("SHA-256"), "{error}");
    assert_eq!(tree(&bench.dir.path().join("models--large")), [""; 0]);
}

#[test]
fn what_a_process_left_that_was_killed_while_it_verified_is_verified() {
    // All bytes have come, the checksum was not compared: once they are right, once they are not.
    for flip in [false, true] {
        let bench = Bench::new();
        let mut left = bench.weights.clone();
        left[3] ^= u8::from(flip);
        // The crate has made its link already.
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
        assert_eq!(transfers.count(), usize::from(flip), "what is right is not transferred again");
        assert!(!bench.model().join(".incoming").exists());
    }
}

#[test]
fn the_lock_of_another_program_is_left_alone() {
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
    assert!(path.is_file(), "the lock of a live program was removed");
    drop(lock);
    bench.find().unwrap();
}

#[test]
fn a_connection_that_brings_nothing_more_is_given_up_and_the_rest_comes_by_another() {
    let bench = Bench::new();
    bench.server.change(|state| state.stall = Some(("model.safetensors".into(), 20_000)));
    let hub = Hub::new(bench.environment()).with_patience(Duration::from_millis(700));
    let mut reasons = Vec::new();
    let found = hub.find(&Request::new(NAME, Contents::Model), &mut |news| {
        if let Event::Retry { reason, .. } = news {
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
fn a_hub_that_stays_silent_is_an_error_and_what_came_is_kept() {
    let bench = Bench::new();
    let find = |endpoint: &str| {
        let environment = but(bench.environment(), |it| it.endpoint = endpoint.to_owned());
        let hub = Hub::new(environment).with_patience(Duration::from_millis(300));
        hub.find(&Request::new(NAME, Contents::Model), &mut |_| ()).unwrap_err()
    };
    bench.server.change(|state| state.stall = Some(("model.safetensors".into(), 20_000)));
    let error = find(&bench.server.endpoint);
    assert!(matches!(error, HubError::Network { .. }) && error.to_string().contains("nothing arrived"), "{error}");
    assert!(fs::metadata(bench.part()).unwrap().len() >= 20_000);
    // Connections are taken and no word is said.
    let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let error = find(&format!("http://{}", silent.local_addr().unwrap()));
    assert!(matches!(error, HubError::Network { .. }), "{error}");
}

#[test]
fn a_token_is_used_where_the_hub_limits_those_without_one() {
    // Refused at once, and in the middle.
    for answered in [0, 5] {
        let bench = Bench::new();
        let wish = Request::new(NAME, Contents::Model);
        bench.server.change(|state| state.anonymous = Some(answered));
        let error = bench.find().unwrap_err();
        assert!(matches!(error, HubError::RateLimited { with_token: false, .. }), "{error}");
        assert!(error.to_string().contains("HF_TOKEN") && error.to_string().contains("429"), "{error}");
        bench.server.requests();
        let environment = but(bench.environment(), |it| it.token = Some("key".into()));
        let found = bench.find_as(environment, &wish).unwrap();
        assert_eq!(fs::read(found.folder.join("model.safetensors")).unwrap(), bench.weights);
        assert!(bench.server.requests().iter().any(|request| request.token.as_deref() == Some("key")));
    }
}

#[test]
fn a_busy_hub_is_asked_again() {
    let bench = Bench::new();
    let wish = Request::new(NAME, Contents::Model);
    bench.server.change(|state| state.busy = 1);
    assert!(bench.error(&wish).contains("503"));
    // The listing came through; a file did not at first.
    let mut hub_is_busy = |news: Event<'_>| {
        if let Event::Bytes { file: "config.json", .. } = news {
            bench.server.change(|state| state.busy = 2);
        }
    };
    assert!(Hub::new(bench.environment()).find(&wish, &mut hub_is_busy).is_ok());
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
    // The cache comes first: main stays what it was.
    assert_eq!(bench.find().unwrap().commit, COMMIT);
    let wish = but(Request::new(NAME, Contents::Model), |it| it.revision = Some("refs/pr/1"));
    let found = bench.find_as(bench.environment(), &wish).unwrap();
    assert_eq!((found.commit.as_str(), found.downloaded), (newer, 17));
    assert_eq!(fs::read_to_string(bench.model().join("refs/refs/pr/1")).unwrap(), newer);
    let by_commit = but(wish, |it| it.revision = Some(newer));
    assert_eq!(bench.find_as(bench.environment(), &by_commit).unwrap().downloaded, 0);
}

#[test]
fn a_commit_leaves_no_reference() {
    let bench = Bench::new();
    let wish = but(Request::new(NAME, Contents::Model), |it| it.revision = Some(COMMIT));
    bench.find_as(bench.environment(), &wish).unwrap();
    assert!(!tree(&bench.model()).iter().any(|path| path.starts_with("refs/")), "{:?}", tree(&bench.model()));
}

#[test]
fn a_tokenizer_comes_without_weights_and_the_model_after_it() {
    let bench = Bench::new();
    let found = bench.find_as(bench.environment(), &Request::new(NAME, Contents::Tokenizer)).unwrap();
    assert_eq!(tree(&found.folder), ["config.json", "tokenizer.json", "vocab.txt"]);
    let whole = bench.find().unwrap();
    assert_eq!((whole.folder, whole.downloaded), (found.folder, bench.weights.len() as u64));
}

#[test]
fn shards_and_modules_are_named_by_small_files() {
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
    let found = Hub::new(bench.environment()).find(&Request::new("sharded", Contents::Vectors), &mut |news| {
        if let Event::Bytes { done, total, .. } = news {
            last = (done, total);
        }
    });
    let found = found.unwrap();
    assert_eq!(last, (found.downloaded, found.downloaded), "each file counts once");
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
fn a_snapshot_of_another_program_is_completed() {
    // Transformers takes no modules.json; without it vectors would be pooled otherwise than the model says.
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
    assert_eq!(bench.server.requests(), [], "nothing is missing of a model");
    let wish = Request::new(NAME, Contents::Vectors);

    // Where the hub cannot be asked, what is there does.
    let offline = but(bench.environment(), |it| it.offline = true);
    let note = bench.find_as(offline, &wish).unwrap().note.unwrap();
    assert!(note.contains("modules.json") && note.contains("without --offline"), "{note}");
    bench.server.change(|state| state.is_down = true);
    let found = bench.find_as(bench.environment(), &wish).unwrap();
    let note = found.note.unwrap();
    assert!(note.contains("taken from the cache") && note.contains("modules.json"), "{note}");

    bench.server.change(|state| state.is_down = false);
    let found = bench.find_as(bench.environment(), &wish).unwrap();
    assert!(found.folder.join("1_Pooling/config.json").is_file());
    assert!(found.downloaded < 100, "{} bytes for two small files", found.downloaded);
}

#[test]
fn tokens_open_what_is_private_or_gated() {
    let bench = Bench::new();
    let wish = Request::new(NAME, Contents::Model);
    let with = |token: &str| but(bench.environment(), |it| it.token = Some(token.into()));
    let fails = |environment| bench.find_as(environment, &wish).unwrap_err();
    bench.server.change(|state| state.models.get_mut(NAME).unwrap().private = Some("key".into()));
    let error = fails(bench.environment());
    assert!(matches!(error, HubError::NoModel { .. }) && error.to_string().contains("set HF_TOKEN"), "{error}");
    let error = fails(with("wrong"));
    assert!(error.to_string().contains("may not see it"), "{error}");

    bench.server.change(|state| state.models.get_mut(NAME).unwrap().gated = Some("key".into()));
    bench.server.change(|state| state.models.get_mut(NAME).unwrap().private = None);
    for (environment, expected) in [(bench.environment(), "and set HF_TOKEN"), (with("wrong"), "with the account")] {
        let error = fails(environment);
        assert!(matches!(error, HubError::Gated { .. }) && error.to_string().contains(expected), "{error}");
    }
    assert!(bench.find_as(with("key"), &wish).is_ok());

    let open = Bench::new();
    let environment = but(open.environment(), |it| it.token = Some("key".into()));
    open.find_as(environment, &wish).unwrap();
    assert!(open.server.requests().iter().all(|request| request.token.is_none()), "a public model needs no token");
}

#[test]
fn what_the_hub_has_not_is_named() {
    let bench = Bench::new();
    let wish = Request::new(NAME, Contents::Model);
    assert!(bench.error(&but(wish, |it| it.name = "absent")).contains("no model \"absent\" on http://127.0.0.1"));
    assert!(bench.error(&but(wish, |it| it.revision = Some("v9"))).contains("no revision \"v9\""));
    assert!(bench.error(&but(wish, |it| it.revision = Some("../main"))).contains("expected a branch"));
    assert!(bench.error(&but(wish, |it| it.name = "a/b/c")).contains("cannot be a model's name"));

    let weights: &[u8] = &bench.weights;
    bench.server.add("pickle", &[("config.json", b"{}"), ("pytorch_model.bin", weights), ("vocab.txt", b"x")]);
    let error = bench.error(&but(wish, |it| it.name = "pickle"));
    assert!(error.contains("cloze convert pickle --out DIR"), "{error}");
    let found = bench.find_as(bench.environment(), &Request::new("pickle", Contents::Source)).unwrap();
    assert_eq!(fs::read(found.folder.join("pytorch_model.bin")).unwrap(), weights);
    bench.server.add("h5", &[("config.json", b"{}"), ("tf_model.h5", weights)]);
    assert!(bench.error(&but(wish, |it| it.name = "h5")).contains("tf_model.h5 is not read here"));
    assert!(
        bench
            .error(&but(Request::new(NAME, Contents::Tokenizer), |it| it.name = "h5"))
            .contains("neither tokenizer.json nor")
    );
    bench.server.add("empty", &[("README.md", b"{}")]);
    assert!(bench.error(&but(wish, |it| it.name = "empty")).contains("no config.json"));
    let original = [("bert_config.json", b"{}".as_slice()), ("vocab.txt", b"x"), ("bert_model.ckpt.index", b"i")];
    let data = ("bert_model.ckpt.data-00000-of-00001", weights);
    bench.server.add("original", &[&original[..], &[data]].concat());
    let found = bench.find_as(bench.environment(), &Request::new("original", Contents::Source)).unwrap();
    assert!(found.folder.join("bert_model.ckpt.data-00000-of-00001").is_file());
}

#[test]
fn a_model_of_no_use_is_refused_before_its_weights_come() {
    let bench = Bench::new();
    let refuse = |config: &Path| {
        assert!(fs::read_to_string(config).unwrap().contains("model_type"));
        Err("not of this kind".to_owned())
    };
    let wish = but(Request::new(NAME, Contents::Model), |it| it.check = Some(&refuse));
    let error = bench.error(&wish);
    assert!(error.contains("not downloaded") && error.contains("not of this kind"), "{error}");
    assert!(!bench.server.requests().iter().any(|request| request.path.ends_with("model.safetensors")));
}

#[test]
fn a_hub_that_is_away_is_one_line() {
    let bench = Bench::new();
    let environment = but(bench.environment(), |it| it.endpoint = "http://127.0.0.1:9".into());
    let error = bench.find_as(environment, &Request::new(NAME, Contents::Model)).unwrap_err();
    assert!(matches!(error, HubError::Network { .. }), "{error}");
    let environment = but(bench.environment(), |it| it.endpoint = "no address".into());
    let error = bench.find_as(environment, &Request::new(NAME, Contents::Model)).unwrap_err();
    assert!(error.to_string().contains("no address"), "{error}");
    let environment = but(bench.environment(), |it| it.endpoint = bench.server.endpoint.clone() + "/elsewhere");
    let error = bench.find_as(environment, &Request::new(NAME, Contents::Model)).unwrap_err();
    assert!(error.to_string().contains("elsewhere"), "{error}");
}

#[test]
fn what_a_server_sends_cannot_lead_out_of_the_cache() {
    for (etag, commit) in [(Some("../../../stolen"), None), (Some(""), None), (None, Some("../../stolen"))] {
        let bench = Bench::new();
        bench.server.change(|state| (state.etag, state.commit) = (etag.map(Into::into), commit.map(Into::into)));
        let error = bench.find().unwrap_err();
        assert!(matches!(error, HubError::Answer { .. }), "{error}");
        assert_eq!(tree(bench.dir.path()), [""; 0]);
    }
}

#[test]
fn two_at_a_time_download_once() {
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
fn a_cache_that_cannot_be_written_is_named() {
    use std::os::unix::fs::PermissionsExt;
    let bench = Bench::new();
    let locked = bench.dir.path().join("locked");
    fs::create_dir(&locked).unwrap();
    fs::set_permissions(&locked, fs::Permissions::from_mode(0o500)).unwrap();
    if fs::write(locked.join("x"), "").is_ok() {
        return; // Whoever is root may write everywhere.
    }
    let environment = but(bench.environment(), |it| it.cache = locked);
    let error = bench.find_as(environment, &Request::new(NAME, Contents::Model)).unwrap_err();
    assert!(matches!(error, HubError::Cache { .. }) && error.to_string().contains("locked"), "{error}");
}
