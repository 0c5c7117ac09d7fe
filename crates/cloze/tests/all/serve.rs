//! `cloze serve`: every task over HTTP gives what the commands give; every protocol has its forms; bad requests affect nothing else.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::process::Stdio;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::common::{command, is_refused, json_lines, success, success_with};
use crate::serving::{Models, Server, all, close, read_answer};

#[test]
fn every_task_answers_as_its_command_does() {
    let (models, server) = all();
    let rows: [(&str, &[Value]); 7] = [
        ("classify", &[json!({"text": "a b c"}), json!({"text": "d e"})]),
        ("multi-label", &[json!({"text": "a b c"})]),
        ("regress", &[json!({"text": "a b", "pair": "c d"})]),
        ("nli", &[json!({"text": "a b"}), json!({"text": "x y a b c"})]),
        ("tag", &[json!({"text": "a bc d e"}), json!({"words": ["a", "b"]})]),
        ("answer", &[json!({"question": "a b", "context": "c d e f a b c", "id": "1"})]),
        ("choose", &[json!({"context": "a b", "endings": ["c", "d e"]})]),
    ];
    for (name, rows) in rows {
        let lines: String = rows.iter().map(|row| format!("{row}\n")).collect();
        let model = models.path(name);
        let arguments =
            ["predict", "--model", &model, "--input", "-", "--format", "jsonl", "--precision", "f32", "--quiet"];
        let expected = json_lines(&success_with(&arguments, &lines));
        let found = server.ask(&format!("/models/{name}/pipeline/predict"), &json!({"inputs": rows}));
        for (number, (found, expected)) in found.as_array().unwrap().iter().zip(&expected).enumerate() {
            for (key, value) in found.as_object().unwrap() {
                assert!(close(value, &expected[key]), "{name} {number} {key}: {value} and {}", expected[key]);
            }
        }
        assert_eq!(found.as_array().unwrap().len(), rows.len());
    }

    // Vectors.
    let texts = ["a b c", "", "d e f g h"];
    let file = models.path("texts.txt");
    std::fs::write(&file, texts.join("\n") + "\n").unwrap();
    let out = models.path("v.jsonl");
    success(&["embed", "--model", &models.path("embed"), "--input", &file, "--out", &out, "--quiet"]);
    let expected: Vec<Value> = json_lines(&std::fs::read_to_string(&out).unwrap());
    let expected: Value = expected.into_iter().map(|row| row["embedding"].clone()).collect();
    let found = server.ask("/embed", &json!({"inputs": texts, "normalize": false}));
    assert!(close(&found, &expected), "{found} and {expected}");
    let openai = server.ask("/v1/embeddings", &json!({"input": texts, "model": "embed"}));
    let vectors: Value = openai["data"].as_array().unwrap().iter().map(|row| row["embedding"].clone()).collect();
    assert!(close(&vectors, &expected));
    assert_eq!(openai["usage"]["total_tokens"], 3 + 2 + 2 + 5 + 2);
    let by_kserve = json!({"inputs": [{"name": "text", "shape": [3], "datatype": "BYTES", "data": texts}]});
    let found = server.ask("/v2/models/embed/infer", &by_kserve);
    assert_eq!(found["outputs"][0]["shape"], json!([3, 32]));
    assert!(close(&found["outputs"][0]["data"][0], &expected[0][0]));
    let features = server.ask("/models/embed", &json!({"inputs": texts}));
    assert!(close(&features, &expected));

    // Relevance.
    let ranked = success(&[
        "rerank",
        "--model",
        &models.path("rerank"),
        "--documents",
        &file,
        "--query",
        "a",
        "--json",
        "--quiet",
    ]);
    // The command leaves out blank texts.
    let results = json_lines(&ranked)[0]["results"].as_array().unwrap().clone();
    let found = server.ask("/rerank", &json!({"query": "a", "texts": texts}));
    assert_eq!((results.len(), found.as_array().unwrap().len()), (2, 3));
    for result in results {
        let index = result["line"].as_u64().unwrap() - 1;
        let own = found.as_array().unwrap().iter().find(|rank| rank["index"] == index).unwrap();
        assert!(close(&own["score"], &result["score"]), "{found} and {result}");
    }
}

#[test]
fn transformers_pipelines_answer_at_the_paths_of_hugging_face() {
    let (_models, server) = all();
    let labels = |value: &Value| -> Vec<String> {
        let rows = value.as_array().unwrap();
        rows.iter().map(|row| row["label"].as_str().unwrap().to_owned()).collect()
    };
    // The hosted API answers one text as a list of one.
    let found = server.ask("/models/classify", &json!({"inputs": "a b c"}));
    assert_eq!(labels(&found[0]).len(), 3);
    let found = server.ask("/models/classify", &json!({"inputs": "a b c", "parameters": {"top_k": 1}}));
    assert_eq!(labels(&found[0]).len(), 1);
    let found = server.ask("/models/tag", &json!({"inputs": "a b c", "parameters": {"ignore_labels": []}}));
    assert!(found.as_array().unwrap().len() <= 3 && found[0]["start"] == 0, "{found}");
    let question = json!({"inputs": {"question": "a b", "context": "c d e f"}});
    let found = server.ask("/models/answer", &question);
    assert!("c d e f".contains(found["answer"].as_str().unwrap()), "{found}");
    let found = server.ask("/models/mask", &json!({"inputs": "a [MASK] c", "parameters": {"top_k": 2}}));
    assert_eq!((found.as_array().unwrap().len(), found[0]["token_str"].as_str().map(str::len)), (2, Some(1)));
    let zero_shot = json!({"inputs": "a b", "parameters": {"candidate_labels": ["x", "y"]}});
    let mut found = labels(&server.ask("/models/nli", &zero_shot));
    found.sort();
    assert_eq!(found, ["x", "y"]);
    let next = json!({"inputs": {"text": "a b", "next": "c d"}});
    let found = server.ask("/models/mask/pipeline/next-sentence", &next);
    assert!((0.0..=1.0).contains(&found["is_next"].as_f64().unwrap()));
    let choice = json!({"inputs": {"context": "a", "endings": ["b", "c d"]}});
    assert_eq!(server.ask("/models/choose", &choice).as_array().unwrap().len(), 2);
    let similar = json!({"inputs": {"source_sentence": "a b", "sentences": ["a b", "c"]}});
    let found = server.ask("/models/embed", &similar);
    assert!((found[0].as_f64().unwrap() - 1.0).abs() < 1e-5);
}

#[test]
fn every_protocol_has_its_forms() {
    let (_models, server) = all();
    // TEI: a list of two strings is a pair, of lists a batch.
    assert_eq!(server.ask("/predict", &json!({"inputs": ["a", "b"]})).as_array().unwrap().len(), 3);
    assert!(server.ask("/predict", &json!({"inputs": [["a"], ["b", "c"]]}))[1][0]["label"].is_string());
    let answer = server.post("/embed", &json!({"inputs": "a b"}));
    assert_eq!(answer.header("x-compute-tokens"), Some("4"));
    assert!(answer.header("x-queue-time").is_some() && answer.header("x-request-id").is_some());
    let norm: f64 = answer.json()[0].as_array().unwrap().iter().map(|x| x.as_f64().unwrap().powi(2)).sum();
    assert!((norm - 1.0).abs() < 1e-5);
    assert_eq!(server.ask("/embed_all", &json!({"inputs": "a b"}))[0].as_array().unwrap().len(), 4);
    let tokens = server.ask("/tokenize", &json!({"inputs": "ä b"}));
    assert_eq!(tokens[0][2], json!({"id": 6, "text": "b", "special": false, "start": 2, "stop": 3}));
    let ids: Vec<&Value> = tokens[0].as_array().unwrap().iter().map(|token| &token["id"]).collect();
    assert_eq!(server.ask("/decode", &json!({"ids": ids})), json!(["a b"]));
    let by_ids = server.ask("/embed", &json!({"inputs": ids}));
    assert!(close(&by_ids, &server.ask("/embed", &json!({"inputs": "a b"}))));
    assert_eq!(server.get("/info").json()["models"].as_array().unwrap().len(), 10);
    // OpenAI: base64 of little-endian f32.
    let found = server.ask("/v1/embeddings", &json!({"input": "a", "encoding_format": "base64", "dimensions": 8}));
    assert_eq!(found["data"][0]["embedding"].as_str().unwrap().len(), 44);
    assert_eq!(server.get("/v1/models").json()["data"][0]["id"], "embed");
    // Rerankers.
    let documents = json!({"query": "a", "documents": ["b", {"text": "c"}], "top_n": 1, "model": "rerank"});
    let cohere = server.ask("/v2/rerank", &documents);
    assert_eq!(cohere["results"].as_array().unwrap().len(), 1);
    assert!(cohere["results"][0]["relevance_score"].is_f64() && cohere["meta"]["billed_units"]["search_units"] == 1);
    assert!(server.ask("/v1/rerank", &documents)["results"][0]["document"]["text"].is_string());
    let infinity = server.ask("/rerank", &json!({"query": "a", "documents": ["b", "c"]}));
    assert_eq!(infinity["object"], "rerank");
    assert_eq!(
        server.ask("/score", &json!({"queries": "a", "documents": ["b", "c"]}))["data"].as_array().unwrap().len(),
        2
    );
    let found = server.ask("/classify", &json!({"input": ["a", "b"], "model": "classify"}));
    assert_eq!(found["data"][1].as_array().unwrap().len(), 3);
    // KServe, clouds, probes.
    assert_eq!(server.get("/v2/health/ready").json(), json!({"ready": true}));
    assert_eq!(server.get("/v2/models/tag").json()["inputs"][0]["datatype"], "BYTES");
    let tensor = json!({"id": "7", "inputs": [{"name": "text", "shape": [1], "datatype": "BYTES", "data": ["a"]}]});
    let found = server.ask("/v2/models/classify/infer", &tensor);
    assert!(found["id"] == "7" && found["outputs"][0]["data"][0].as_str().unwrap().contains("label"), "{found}");
    assert_eq!(server.ask("/invocations", &json!({"inputs": ["a"]}))[0].as_array().unwrap().len(), 32);
    let instances = json!({"instances": [{"inputs": "a"}, {"inputs": "b"}]});
    assert_eq!(server.ask("/vertex", &instances)["predictions"].as_array().unwrap().len(), 2);
    let document = server.get("/api-doc/openapi.json").json();
    for path in ["/runs.json", "/runs/{name}.json", "/v2/repository/models/{model}/load"] {
        assert!(document["paths"][path].is_object(), "{path}");
    }
    for path in ["/healthz", "/livez", "/readyz", "/health", "/ping", "/metrics", "/docs/", "/api-doc/openapi.json"] {
        assert_eq!(server.get(path).status, 200, "{path}");
    }
    let metrics = server.get("/metrics").body;
    assert!(metrics.contains("cloze_requests_total{route=\"/embed\",status=\"200\"} 3"), "{metrics}");
}

#[test]
fn failures_have_the_form_of_the_protocol_and_affect_nothing_else() {
    let (models, server) = all();
    let tei = |body: &Value, status: u16, expected: &str| {
        let answer = server.post("/embed", body);
        let found = answer.json();
        assert_eq!(answer.status, status, "{body}: {found}");
        assert!(found["error"].as_str().unwrap().contains(expected), "{body}: {found}");
    };
    tei(&json!({}), 422, "missing field `inputs`");
    tei(&json!({"inputs": 3}), 422, "expected a string");
    tei(&json!({"inputs": []}), 400, "no inputs");
    tei(&json!({"inputs": [1, 99999]}), 422, "found 99999");
    tei(&json!({"inputs": "a", "prompt_name": "none"}), 422, "none");
    tei(&json!({"inputs": "a", "dimensions": 33}), 422, "expected 1 to 32");
    tei(&json!({"inputs": "a", "truncation_direction": "Up"}), 422, "Left or Right");
    tei(&json!({"inputs": "a ".repeat(50), "truncate": false}), 422, "52 tokens");
    tei(&json!({"inputs": "a", "model": "classify"}), 422, "no task embed");
    let json_header = "content-type: application/json\r\n";
    for body in [&b"{"[..], b"\xff\xfe", b"[[[[", b"null", b"\"a\"", "[".repeat(100_000).as_bytes()] {
        assert_eq!(server.send("POST", "/embed", json_header, body).status, 422);
    }
    assert_eq!(server.send("POST", "/embed", "content-type: text/plain\r\n", b"{\"inputs\": \"a\"}").status, 422);
    let nested = server.post("/v1/embeddings", &json!({"input": "a", "model": "none"}));
    assert_eq!((nested.status, &nested.json()["error"]["code"]), (404, &json!("model_not_found")));
    assert!(nested.json()["error"]["message"].as_str().unwrap().contains("\"embed\""));
    assert_eq!(
        server.post("/v2/rerank", &json!({"query": 1, "documents": []})).json()["message"].as_str().map(str::is_empty),
        Some(false)
    );
    let mask = server.post("/models/mask/pipeline/fill-mask", &json!({"inputs": "a b"}));
    assert!(mask.status == 400 && mask.json()["error"].as_str().unwrap().contains("[MASK]"), "{}", mask.body);
    assert_eq!(server.get("/embed").status, 405);
    assert_eq!(server.get("/none").json()["error_type"], "Validation");
    let shape = json!({"inputs": [{"name": "text", "shape": [2], "datatype": "BYTES", "data": ["a"]}]});
    assert!(server.post("/v2/models/embed/infer", &shape).json()["error"].as_str().unwrap().contains("shape"));
    // Too large, by its header and by its bytes.
    let head = "POST /embed HTTP/1.1\r\nhost: a\r\nconnection: close\r\ncontent-type: application/json\r\ncontent-length: 99999999999\r\n\r\n";
    let answer = server.exchange(head.as_bytes());
    assert!(answer.status == 413 && answer.body.contains("--max-body"), "{}", answer.body);
    let many = server.post("/embed", &json!({"inputs": vec!["a"; 4097]}));
    assert!(
        many.status == 413 && many.body.contains("4097 inputs, the limit of this server is 4096 (--max-inputs)"),
        "{}",
        many.body
    );
    // Not HTTP.
    assert_eq!(server.exchange(b"hello\r\n\r\n").status, 400);

    // Damaged weights are not loaded; what was loaded before answers.
    let weights = Path::new(&models.path("classify")).join("model.safetensors");
    let mut bytes = std::fs::read(&weights).unwrap();
    let end = bytes.len();
    bytes[end - 4..].copy_from_slice(&f32::NAN.to_le_bytes());
    std::fs::write(&weights, bytes).unwrap();
    let refused = server.post("/v2/repository/models/classify/load", &json!({}));
    assert!(refused.status == 500 && refused.json()["error"].as_str().unwrap().contains("NaN"), "{}", refused.body);
    assert_eq!(server.post("/predict", &json!({"inputs": "a", "model": "classify"})).status, 200);
    assert_eq!(server.post("/embed", &json!({"inputs": "a"})).status, 200);
}

#[test]
fn models_are_loaded_removed_and_replaced_while_requests_run() {
    let models = Models::new();
    let server = Server::start(&[&format!("first={}", models.path("embed")), &models.path("classify")]);
    let vector = || server.ask("/embed", &json!({"inputs": "a b"}));
    let before = vector();
    assert_eq!(server.post("/v2/repository/models/first/unload", &json!({})).status, 200);
    assert_eq!(server.post("/embed", &json!({"inputs": "a"})).status, 422);
    assert_eq!(server.get("/v2/health/ready").status, 503);
    let index = server.ask("/v2/repository/index", &json!({}));
    assert_eq!([&index[0]["state"], &index[1]["state"]], ["UNAVAILABLE", "READY"]);
    assert_eq!(server.post("/v2/repository/models/none/load", &json!({})).status, 404);
    assert_eq!(server.post("/v2/repository/models/first/load", &json!({})).status, 200);
    assert!(close(&vector(), &before));
    // The files change.
    let other = models.path("mask");
    let copy = |name: &str| {
        std::fs::copy(Path::new(&other).join(name), Path::new(&models.path("embed")).join(name)).unwrap();
    };
    copy("model.safetensors");
    copy("config.json");
    server.wait_for("model loaded");
    let end = Instant::now() + Duration::from_secs(30);
    while close(&vector(), &before) {
        assert!(Instant::now() < end, "the model was not read again");
        std::thread::sleep(Duration::from_millis(100));
    }
    // Files that are not a model: the old one stays.
    let now = vector();
    std::fs::write(Path::new(&models.path("embed")).join("config.json"), "{}").unwrap();
    server.wait_for("model not loaded");
    assert!(close(&vector(), &now));
}

/// Copies the files of a model's folder.
fn copy_model(from: &str, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap().flatten().filter(|entry| entry.path().is_file()) {
        std::fs::copy(entry.path(), to.join(entry.file_name())).unwrap();
    }
}

#[test]
fn models_of_a_repository_are_loaded_by_name() {
    let models = Models::new();
    let repository = models.path("repository");
    for (from, to) in [("embed", "vectors"), ("embed", "org/name"), ("classify", "run/model")] {
        copy_model(&models.path(from), &Path::new(&repository).join(to));
    }
    let server = Server::start(&["--model-repository", &repository, "--precision", "f32"]);
    let state = |body: Value| -> Vec<(String, String)> {
        let found = server.ask("/v2/repository/index", &body);
        let text = |value: &Value| value.as_str().unwrap().to_owned();
        found.as_array().unwrap().iter().map(|model| (text(&model["name"]), text(&model["state"]))).collect()
    };
    let states = |list: [(&str, &str); 3]| list.map(|(name, state)| (name.to_owned(), state.to_owned())).to_vec();
    let (off, on) = ("UNAVAILABLE", "READY");
    // Without models, but ready to load them.
    assert_eq!([server.get("/readyz").status, server.get("/v2/health/ready").status], [200, 200]);
    assert_eq!(state(json!({})), states([("org/name", off), ("run", off), ("vectors", off)]));
    assert_eq!(server.send("POST", "/v2/repository/index", "", b"").json().as_array().unwrap().len(), 3);
    assert_eq!(server.post("/embed", &json!({"inputs": "a"})).status, 422);

    let load = |name: &str, parameters: Value| {
        server.post(&format!("/v2/repository/models/{name}/load"), &json!({"parameters": parameters}))
    };
    assert_eq!(server.send("POST", "/v2/repository/models/vectors/load", "", b"").status, 200);
    assert_eq!(load("run", Value::Null).status, 200);
    let vector = server.ask("/embed", &json!({"inputs": "a b", "model": "vectors"}));
    assert!(server.ask("/predict", &json!({"inputs": "a", "model": "run"}))[0]["label"].is_string());
    // Another name and another length.
    assert_eq!(load("short", json!({"path": "vectors", "max_len": 4, "precision": "f32"})).status, 200);
    let long = json!({"inputs": "a b c d", "model": "short", "truncate": false});
    assert!(server.post("/embed", &long).body.contains("the model reads 4"));
    assert_eq!(state(json!({"ready": true})).len(), 3);
    assert!(state(json!({})).contains(&("org/name".to_owned(), off.to_owned())));

    // Nothing outside of the folder, and only what is known.
    let outside = models.path("mask");
    for (name, parameters, status, expected) in [
        ("..%2Fmask", json!({}), 400, "expected the name of a folder in the repository"),
        ("x", json!({"path": "../mask"}), 400, "expected the name of a folder in the repository"),
        ("x", json!({"path": outside}), 400, "expected the name of a folder in the repository"),
        ("x", json!({"path": "vectors/../../mask"}), 400, "expected the name of a folder in the repository"),
        ("none", json!({}), 404, "the repository, which has org/name, run, vectors"),
        ("x", json!({"path": "none"}), 404, "the repository, which has org/name, run, vectors"),
        ("vectors", json!({"config": "{}"}), 400, "unknown field `config`"),
        ("vectors", json!({"max_len": 0}), 400, "max_len: expected at least 1"),
        ("vectors", json!({"precision": "f8"}), 400, "precision: expected auto, f32"),
        ("vectors", json!({"prompt": "none"}), 500, "none"),
    ] {
        let answer = load(name, parameters.clone());
        assert_eq!(answer.status, status, "{name} {parameters}: {}", answer.body);
        assert!(answer.json()["error"].as_str().unwrap().contains(expected), "{name} {parameters}: {}", answer.body);
    }
    assert!(close(&server.ask("/embed", &json!({"inputs": "a b", "model": "vectors"})), &vector));

    // Names as on the hub, with a slash that clients do not write as %2F.
    assert_eq!(server.post("/models/org/name", &json!({"inputs": "a b"})).status, 404);
    assert_eq!(load("org/name", json!({})).status, 200);
    for path in ["/models/org/name", "/models/org%2Fname", "/models/org/name/pipeline/feature-extraction"] {
        assert!(close(&server.ask(path, &json!({"inputs": "a b", "normalize": true}))[0], &vector[0]), "{path}");
    }
    assert_eq!(server.get("/v1/models/org/name").json()["id"], "org/name");
    assert_eq!(server.get("/v2/models/org/name/ready").json()["ready"], true);
    let openai = server.ask("/v1/embeddings", &json!({"input": "a b", "model": "org/name"}));
    assert_eq!(openai["model"], "org/name");
    let tensor = json!({"inputs": [{"name": "text", "shape": [1], "datatype": "BYTES", "data": ["a b"]}]});
    assert_eq!(server.ask("/v2/models/org/name/infer", &tensor)["model_name"], "org/name");
    assert_eq!(server.get("/models/org/name").status, 405);
    let metrics = server.get("/metrics").body;
    assert!(metrics.contains("cloze_requests_total{route=\"/v2/models/{model}/infer\",status=\"200\"} 1"), "{metrics}");

    // Their files are watched, and they stay after SIGHUP.
    let version = || server.get("/v2/models/vectors").json()["versions"][0].clone();
    let before = version();
    for file in ["model.safetensors", "config.json"] {
        let to = Path::new(&repository).join("vectors").join(file);
        std::fs::copy(Path::new(&models.path("mask")).join(file), to).unwrap();
    }
    #[cfg(unix)]
    server.signal("-HUP");
    let end = Instant::now() + Duration::from_secs(30);
    while version() == before {
        assert!(Instant::now() < end, "the model was not read again");
        std::thread::sleep(Duration::from_millis(100));
    }
    assert!(server.ask("/models/vectors/pipeline/fill-mask", &json!({"inputs": "a [MASK]"}))[0]["score"].is_f64());
    assert_eq!(server.send("POST", "/v2/repository/models/org/name/unload", "", b"").status, 200);
    assert_eq!(server.post("/models/org/name", &json!({"inputs": "a b"})).status, 404);
    assert_eq!(server.get("/v2/health/ready").status, 200);
    assert!(state(json!({})).contains(&("org/name".to_owned(), off.to_owned())));
    assert!(state(json!({})).contains(&("vectors".to_owned(), on.to_owned())));
    is_refused(&["serve", "--model-repository", &models.path("none")], &["expected a folder of models"]);
}

#[test]
fn keys_are_needed_and_read_again() {
    let models = Models::new();
    let keys = models.path("keys");
    std::fs::write(&keys, "one\ntwo\n").unwrap();
    let server = Server::start(&["--keys", &keys, "--cors", "https://example.org", &models.path("embed")]);
    let status = |key: &str| {
        let header = format!("content-type: application/json\r\nAuthorization: {key}\r\n");
        server.send("POST", "/embed", &header, br#"{"inputs": "a"}"#).status
    };
    assert_eq!(
        [status("Bearer one"), status("bearer two"), status("Bearer three"), status("Basic one")],
        [200, 200, 401, 401]
    );
    let refused = server.post("/v1/embeddings", &json!({"input": "a"}));
    assert_eq!((refused.status, &refused.json()["error"]["code"]), (401, &json!("invalid_api_key")));
    assert_eq!(refused.header("www-authenticate"), Some("Bearer"));
    assert_eq!([server.get("/readyz").status, server.get("/metrics").status], [200, 401]);
    let preflight = server.send(
        "OPTIONS",
        "/embed",
        "origin: https://example.org\r\naccess-control-request-method: POST\r\naccess-control-request-headers: authorization\r\n",
        b"",
    );
    assert_eq!(preflight.header("access-control-allow-origin"), Some("https://example.org"));
    assert!(preflight.header("access-control-allow-headers").unwrap().contains("authorization"));
    #[cfg(unix)]
    {
        std::fs::write(&keys, "three\n").unwrap();
        server.signal("-HUP");
        let end = Instant::now() + Duration::from_secs(30);
        while status("Bearer three") != 200 {
            assert!(Instant::now() < end, "the keys were not read again");
            std::thread::sleep(Duration::from_millis(50));
        }
        assert_eq!(status("Bearer one"), 401);
    }
}

#[test]
fn too_long_a_wait_is_refused_and_large_requests_are_split() {
    let models = Models::new();
    let server = Server::start(&["--max-wait", "0.001", "--max-inputs", "100000", &models.path("embed")]);
    let bulk = json!({"inputs": vec!["a b c d e f g h i j k l m n o p q r s t u v w x y"; 20_000], "priority": "low"});
    let bulk = bulk.to_string();
    let head = format!(
        "POST /embed HTTP/1.1\r\nhost: a\r\nconnection: close\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n",
        bulk.len()
    );
    let mut running = server.connect();
    running.write_all(head.as_bytes()).unwrap();
    running.write_all(bulk.as_bytes()).unwrap();
    let end = Instant::now() + Duration::from_secs(60);
    while server.get("/info").json()["waiting_tokens"] == 0 {
        assert!(Instant::now() < end, "the large request did not begin");
    }
    let refused = server.post("/embed", &json!({"inputs": ["a b c"], "priority": "low"}));
    assert_eq!(refused.status, 429, "{}", refused.body);
    assert!(refused.header("retry-after").unwrap().parse::<u64>().unwrap() >= 1);
    assert_eq!(refused.json()["error_type"], "Overloaded");
    // A small request would wait only for the running batch.
    let small = server.post("/embed", &json!({"inputs": "a", "priority": "high"}));
    assert!([200, 429].contains(&small.status), "{}", small.body);
    let answer = read_answer(&mut running);
    assert_eq!((answer.status, answer.json().as_array().unwrap().len()), (200, 20_000));
}

/// Regression tests of servers: work for clients that have gone, and requests that are cut off by a stop.
#[cfg(unix)]
#[test]
fn work_of_closed_connections_is_dropped_and_running_requests_are_finished() {
    let models = Models::new();
    let mut server = Server::start(&["--max-inputs", "100000", &models.path("embed")]);
    let bulk = json!({"inputs": vec!["a b c d e f g h i j k l m n o p q r s t u v w x y"; 30_000]}).to_string();
    let head = format!(
        "POST /embed HTTP/1.1\r\nhost: a\r\nconnection: close\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n",
        bulk.len()
    );
    let begin = |server: &Server| {
        let mut stream = server.connect();
        stream.write_all(head.as_bytes()).unwrap();
        stream.write_all(bulk.as_bytes()).unwrap();
        let end = Instant::now() + Duration::from_secs(60);
        while server.get("/info").json()["waiting_tokens"] == 0 {
            assert!(Instant::now() < end, "the request did not begin");
        }
        stream
    };
    drop(begin(&server));
    let end = Instant::now() + Duration::from_secs(5);
    while server.get("/info").json()["waiting_tokens"] != 0 {
        assert!(Instant::now() < end, "the work of a closed connection goes on");
    }
    assert!(server.get("/metrics").body.contains("cloze_requests_cancelled_total 1"));

    let mut running = begin(&server);
    server.signal("-TERM");
    let end = Instant::now() + Duration::from_secs(5);
    while TcpStream::connect(&server.address).is_ok() {
        if server.get("/readyz").status == 503 {
            break;
        }
        assert!(Instant::now() < end, "the server is still ready");
    }
    let answer = read_answer(&mut running);
    assert_eq!((answer.status, answer.json().as_array().unwrap().len()), (200, 30_000));
    assert!(server.child.wait().unwrap().success());
}

#[test]
fn wrong_command_lines_are_refused() {
    let models = Models::new();
    let model = models.path("embed");
    is_refused(&["serve"], &["no model"]);
    is_refused(&["serve", &model, &model], &["two models are named embed"]);
    let config = models.path("serve.toml");
    std::fs::write(&config, "prot = 1\n").unwrap();
    is_refused(&["serve", "--config", &config, &model], &["serve.toml:1: unknown field `prot`"]);
    std::fs::write(&config, format!("[[model]]\npath = {model:?}\nname = \"a\"\nprecision = \"f16\"\n")).unwrap();
    is_refused(&["serve", "--config", &config], &["precision: expected auto, f32, bf16", "f16"]);
    std::fs::write(&config, format!("port = 0\n[[model]]\npath = {model:?}\nname = \"a\"\n")).unwrap();
    let checked = command(&["serve", "--config", &config, "--check"]).output().unwrap();
    assert!(checked.status.success(), "{checked:?}");
    let none = command(&["serve", &models.path("none")]).output().unwrap();
    assert!(none.status.code() == Some(1), "{none:?}");
}

#[cfg(unix)]
#[test]
fn a_unix_socket_answers() {
    use std::os::unix::net::UnixStream;
    let models = Models::new();
    let socket = models.path("s");
    let mut child = command(&["serve", "--threads", "1", "--socket", &socket, &models.path("embed")]);
    let mut child = child.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    let end = Instant::now() + Duration::from_secs(60);
    let mut stream = loop {
        match UnixStream::connect(&socket) {
            Ok(stream) => break stream,
            Err(_) => assert!(Instant::now() < end, "no socket"),
        }
        std::thread::sleep(Duration::from_millis(20));
    };
    stream.write_all(b"GET /readyz HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n").unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    child.kill().unwrap();
    child.wait().unwrap();
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
}

#[test]
fn the_page_has_its_files_attention_and_growing_runs() {
    let models = Models::new();
    let runs = tempfile::tempdir().unwrap();
    let run = runs.path().join("stars");
    std::fs::create_dir(&run).unwrap();
    let record =
        |step: u64| format!("{{\"kind\":\"train\",\"step\":{step},\"tokens\":{},\"mlm_loss\":5.5}}\n", 10 * step);
    std::fs::write(run.join("metrics.jsonl"), record(1) + &record(2)).unwrap();
    let keys = runs.path().join("keys");
    std::fs::write(&keys, "secret\n").unwrap();
    let folder = runs.path().display().to_string();
    let server = Server::start(&[&models.path("mask"), "--run", &folder, "--keys", &keys.display().to_string()]);
    let get = |path: &str| server.send("GET", path, "authorization: Bearer secret\r\n", b"");
    let ask = |body: Value| {
        let headers = "authorization: Bearer secret\r\ncontent-type: application/json\r\n";
        server.send("POST", "/models/mask/pipeline/attention", headers, body.to_string().as_bytes())
    };

    // The page needs no key, its data does. Nothing may come from elsewhere.
    for (path, kind) in
        [("/", "text/html"), ("/runs", "text/html"), ("/web/app.js", "text/javascript"), ("/web/style.css", "text/css")]
    {
        let found = server.get(path);
        assert_eq!(found.status, 200, "{path}");
        assert!(found.header("content-type").unwrap().starts_with(kind), "{path}");
        let policy = found.header("content-security-policy").unwrap();
        assert!(policy.contains("default-src 'none'; script-src 'self'; style-src 'self'"), "{policy}");
        assert!(!policy.contains("unsafe"), "{policy}");
    }
    assert_eq!(server.get("/web/none.js").status, 404);
    for path in ["/models", "/runs.json", "/runs/stars.json"] {
        assert_eq!(server.get(path).status, 401, "{path}");
    }
    assert!(get("/models").json()["data"][0]["capabilities"].as_array().unwrap().contains(&json!("attention")));

    let all = ask(json!({"inputs": ["a b [MASK]", "c"]}));
    assert_eq!(all.status, 200, "{}", all.body);
    let all = all.json();
    let tokens: Vec<&str> =
        all["tokens"].as_array().unwrap().iter().map(|token| token["text"].as_str().unwrap()).collect();
    assert_eq!(tokens, ["[CLS]", "a", "b", "[MASK]", "[SEP]", "c", "[SEP]"]);
    assert_eq!((&all["layers"], &all["heads"], &all["layer_numbers"]), (&json!(2), &json!(4), &json!([0, 1])));
    let rows: Vec<Vec<f64>> = serde_json::from_value(all["attention"][1][3].clone()).unwrap();
    assert!(rows.len() == 7 && rows.iter().all(|row| row.len() == 7 && (row.iter().sum::<f64>() - 1.0).abs() < 1e-3));
    let last = ask(json!({"inputs": ["a b [MASK]", "c"], "parameters": {"layers": [1]}})).json();
    assert_eq!((&last["attention"][0], &last["entropy"][0]), (&all["attention"][1], &all["entropy"][1]));
    for (body, expected) in [
        (json!({"inputs": "a", "parameters": {"layers": [2]}}), "expected layers from 0 to 1, found 2"),
        (
            json!({"inputs": "a b c", "parameters": {"max_tokens": 4}}),
            "expected at most 4 tokens with special tokens, found 5",
        ),
        (json!({"inputs": "a ".repeat(60)}), "the model 40 positions"),
        (json!({"inputs": ["a", "b", "c"]}), "expected a text, or a list of two texts"),
        (json!({"inputs": "a", "parameters": {"layer": 0}}), "unknown field `layer`"),
    ] {
        let found = ask(body);
        assert_eq!(found.status, 400, "{}", found.body);
        let message = found.json()["error"].as_str().unwrap().to_owned();
        assert!(message.contains(expected), "{message}");
    }

    let list = get("/runs.json").json();
    assert_eq!(
        (&list["enabled"], &list["runs"][0]["name"], &list["runs"][0]["step"]),
        (&json!(true), &json!("stars"), &json!(2))
    );
    let mut metrics = std::fs::File::options().append(true).open(run.join("metrics.jsonl")).unwrap();
    metrics.write_all(record(3).as_bytes()).unwrap();
    let more = get("/runs/stars.json?after=2").json();
    assert_eq!((&more["training"]["step"], &more["training"]["tokens"]), (&json!([2, 3]), &json!([20, 30])));
    assert_eq!((&more["measures"][0]["key"], &more["status"]), (&json!("mlm_loss"), &json!("running")));
    let unknown = get("/runs/moon.json");
    assert_eq!(
        (unknown.status, unknown.json()["error"].as_str().unwrap().contains("there is no run \"moon\"")),
        (404, true)
    );
    let none =
        command(&["serve", &models.path("mask"), "--port", "0", "--run", &models.path("none")]).output().unwrap();
    let message = String::from_utf8(none.stderr).unwrap();
    assert!(
        none.status.code() == Some(1) && message.contains("expected the folder of a run, or a folder with runs"),
        "{message}"
    );
}
