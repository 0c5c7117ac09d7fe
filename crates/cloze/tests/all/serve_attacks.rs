//! `cloze serve` under requests that are meant to harm it: each gets its protocol's error or a closed connection, and others are answered.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::common::command;
use crate::serving::{Models, Server, all, read_answer};

/// Other requests are answered, and soon.
fn is_well(server: &Server) {
    let begin = Instant::now();
    assert_eq!(server.post("/embed", &json!({"inputs": "a b"})).status, 200);
    assert!(begin.elapsed() < Duration::from_secs(10), "{:?}", begin.elapsed());
}

/// Connections that send the beginning of a request, or nothing.
fn idle(server: &Server, count: usize) -> Vec<TcpStream> {
    let open = |number: usize| {
        let mut stream = server.connect();
        if number.is_multiple_of(2) {
            let _ = stream.write_all(b"POST /embed HTTP/1.1\r\nhost: a\r\n");
        }
        stream
    };
    (0..count).map(open).collect()
}

#[test]
fn thousands_of_idle_connections_leave_room_for_others() {
    let models = Models::new();
    let server = Server::start(&[&models.path("embed")]);
    let held = idle(&server, 2_000);
    is_well(&server);
    assert!(server.get("/metrics").body.contains("cloze_requests_in_flight 1"));
    drop(held);
    is_well(&server);
}

/// The limit of open files is reached: idle connections are closed, and the server says what to do.
#[cfg(unix)]
#[test]
fn connections_beyond_the_limit_of_open_files_close_idle_ones() {
    let models = Models::new();
    let mut start = std::process::Command::new("sh");
    let line = "ulimit -n 200; exec \"$0\" serve --port 0 --threads 1 --head-timeout 2 \"$1\"";
    start.args(["-c", line, env!("CARGO_BIN_EXE_cloze"), &models.path("embed")]);
    let mut server = Server::of(start);
    // They have answered a request, and are idle.
    let mut kept: Vec<TcpStream> = Vec::new();
    for _ in 0..120 {
        let mut stream = server.connect();
        stream.write_all(b"GET /livez HTTP/1.1\r\nhost: a\r\n\r\n").unwrap();
        let mut start = [0; 12];
        stream.read_exact(&mut start).unwrap();
        assert_eq!(&start, b"HTTP/1.1 200");
        kept.push(stream);
    }
    let held = idle(&server, 400);
    server.wait_for("no room for another connection");
    for _ in 0..3 {
        is_well(&server);
    }
    drop((held, kept));
    is_well(&server);
    assert!(server.child.try_wait().unwrap().is_none());
}

#[test]
fn slow_senders_are_timed_out_and_others_answered() {
    let models = Models::new();
    let server = Server::start(&["--head-timeout", "1", "--body-timeout", "1", &models.path("embed")]);
    let head = "POST /embed HTTP/1.1\r\nhost: a\r\ncontent-type: application/json\r\ncontent-length: 4000\r\n\r\n";
    std::thread::scope(|scope| {
        // One byte at a time, each soon after the one before: only the whole is slow.
        let slow = |first: &'static str, rest: &'static [u8]| {
            let mut stream = server.connect();
            stream.write_all(first.as_bytes()).unwrap();
            let (mut reader, begin) = (stream.try_clone().unwrap(), Instant::now());
            scope.spawn(move || {
                for byte in rest.iter().cycle() {
                    if stream.write_all(&[*byte]).is_err() || begin.elapsed() > Duration::from_secs(20) {
                        break;
                    }
                    std::thread::sleep(Duration::from_millis(100));
                }
            });
            scope.spawn(move || {
                let mut answer = Vec::new();
                let _ = reader.read_to_end(&mut answer);
                (String::from_utf8(answer).unwrap(), begin.elapsed())
            })
        };
        let heads: Vec<_> = (0..20).map(|_| slow("", b"GET /aaaaaaaaaaaaaaaaaaaaaaaaaa")).collect();
        let bodies: Vec<_> = (0..20).map(|_| slow(head, b"{\"inputs\": \"aaaaaaaaaaaaaaaa")).collect();
        is_well(&server);
        for slow in heads {
            let (answer, time) = slow.join().unwrap();
            assert!(answer.is_empty() || answer.starts_with("HTTP/1.1 408"), "{answer}");
            assert!(time < Duration::from_secs(10), "{time:?}");
        }
        for slow in bodies {
            let (answer, time) = slow.join().unwrap();
            assert!(answer.starts_with("HTTP/1.1 408") && answer.contains("--body-timeout"), "{answer}");
            assert!(time < Duration::from_secs(10), "{time:?}");
        }
    });
    // A body that pauses, and one that ends early.
    for body in [&b"{\"inputs\": "[..], b""] {
        let mut stream = server.connect();
        stream.write_all(head.as_bytes()).unwrap();
        stream.write_all(body).unwrap();
        assert_eq!(read_answer(&mut stream).status, 408);
    }
    is_well(&server);
}

#[test]
fn bodies_that_are_deep_endless_or_not_text_are_refused() {
    let (_models, server) = all();
    let json_header = "content-type: application/json\r\n";
    let deep = |open: &str, close: &str| format!("{}1{}", open.repeat(50_000), close.repeat(50_000));
    for value in [deep("[", "]"), deep("{\"a\":", "}")] {
        for (path, body, status) in [
            ("/embed", format!("{{\"inputs\": {value}}}"), 422),
            ("/predict", format!("{{\"inputs\": {value}}}"), 422),
            ("/v1/embeddings", format!("{{\"input\": {value}}}"), 400),
            ("/models/tag", format!("{{\"inputs\": {value}}}"), 400),
            ("/models/tag", format!("{{\"inputs\": \"a\", \"parameters\": {{\"x\": {value}}}}}"), 400),
            (
                "/v2/models/tag/infer",
                format!(
                    "{{\"inputs\": [{{\"name\": \"text\", \"shape\": [1], \"datatype\": \"BYTES\", \"data\": {value}}}]}}"
                ),
                400,
            ),
            ("/v2/rerank", format!("{{\"query\": \"a\", \"documents\": {value}}}"), 400),
            ("/vertex", format!("{{\"instances\": [{{\"inputs\": {value}}}]}}"), 422),
        ] {
            let answer = server.send("POST", path, json_header, body.as_bytes());
            assert_eq!(answer.status, status, "{path}: {}", answer.body);
            assert!(answer.body.len() < 1000, "{path}: {}", answer.body);
        }
    }
    // Invalid UTF-8 within a string, lone surrogates, NUL.
    for (body, status) in [
        (&b"{\"inputs\": \"\xff\"}"[..], 422),
        (b"{\"inputs\": \"\xc3\"}", 422),
        (b"{\"inputs\": \"\\ud800\"}", 422),
        (b"{\"inputs\": \"a\\u0000b\"}", 200),
        (b"\xef\xbb\xbf{\"inputs\": \"a\"}", 422),
    ] {
        assert_eq!(
            server.send("POST", "/embed", json_header, body).status,
            status,
            "{}",
            String::from_utf8_lossy(body)
        );
    }
    for (path, status) in [
        ("/%ff", 404),
        ("/models/%ff", 405),
        ("/v2/models/%ff", 400),
        ("/v2/models/%00", 404),
        ("/../../etc/passwd", 404),
        ("/web/..%2f..%2fCargo.toml", 404),
    ] {
        assert_eq!(server.get(path).status, status, "{path}");
    }
    // Larger than the limit, without saying so.
    let mut stream = server.connect();
    let mut writer = stream.try_clone().unwrap();
    let sender = std::thread::spawn(move || {
        let head = "POST /embed HTTP/1.1\r\nhost: a\r\nconnection: close\r\ncontent-type: application/json\r\ntransfer-encoding: chunked\r\n\r\n";
        let chunk = [&b"100000\r\n"[..], &vec![b'a'; 1 << 20], b"\r\n"].concat();
        let mut sent = writer.write_all(head.as_bytes()).is_ok();
        for _ in 0..200 {
            sent = sent && writer.write_all(&chunk).is_ok();
        }
        sent
    });
    let answer = read_answer(&mut stream);
    assert!(answer.status == 413 && answer.body.contains("--max-body"), "{}", answer.body);
    drop(stream);
    assert!(!sender.join().unwrap(), "200 MiB were read");
    // Two lengths, and a head without an end.
    let two = b"POST /embed HTTP/1.1\r\nhost: a\r\ncontent-length: 5\r\ncontent-length: 6\r\n\r\n{}   ";
    assert_eq!(server.exchange(two).status, 400);
    let endless = [&b"GET / HTTP/1.1\r\nhost: a\r\nx: "[..], &vec![b'a'; 2 << 20]].concat();
    assert_eq!(server.exchange(&endless).status, 431);
    is_well(&server);
}

#[test]
fn token_ids_outside_of_the_vocabulary_are_refused_by_every_protocol() {
    let (_models, server) = all();
    for (path, body, status) in [
        ("/embed", json!({"inputs": [1, 99_999]}), 422),
        ("/embed", json!({"inputs": [[1], [4_294_967_295_u64]]}), 422),
        ("/embed", json!({"inputs": [-1]}), 422),
        ("/embed", json!({"inputs": [4_294_967_296_u64]}), 422),
        ("/embed", json!({"inputs": [1.5]}), 422),
        ("/v1/embeddings", json!({"input": [[99_999]]}), 400),
        ("/models/embed", json!({"inputs": [99_999]}), 400),
        ("/decode", json!({"ids": [99_999]}), 422),
        ("/decode", json!({"ids": [-1]}), 422),
    ] {
        let answer = server.post(path, &body);
        assert_eq!(answer.status, status, "{path} {body}: {}", answer.body);
        assert!(answer.json().is_object());
    }
    is_well(&server);
}

/// Weights that are finite, with which the model computes NaN: no vector or score is invented, and other models answer.
#[test]
fn outputs_that_are_not_numbers_are_failures_of_their_model_only() {
    let models = Models::new();
    let names = ["embed", "classify", "rerank", "tag", "answer", "mask", "choose", "nli"];
    for name in names {
        let from = models.path(name);
        let to = models.path(&format!("{name}-broken"));
        std::fs::create_dir(&to).unwrap();
        for entry in std::fs::read_dir(&from).unwrap().flatten().filter(|entry| entry.path().is_file()) {
            std::fs::copy(entry.path(), Path::new(&to).join(entry.file_name())).unwrap();
        }
        overflow(&Path::new(&to).join("model.safetensors"));
    }
    let broken: Vec<String> = names.iter().map(|name| models.path(&format!("{name}-broken"))).collect();
    let mut start = command(&["serve", "--port", "0", "--threads", "1", "--no-verify", &models.path("embed")]);
    start.args(&broken);
    let server = Server::of(start);
    for (path, body) in [
        ("/embed", json!({"inputs": "a b", "model": "embed-broken"})),
        ("/embed_all", json!({"inputs": "a b", "model": "embed-broken"})),
        ("/v1/embeddings", json!({"input": "a b", "model": "embed-broken"})),
        ("/v1/embeddings", json!({"input": "a b", "model": "embed-broken", "encoding_format": "base64"})),
        ("/predict", json!({"inputs": "a", "model": "classify-broken"})),
        ("/rerank", json!({"query": "a", "texts": ["b", "c"], "model": "rerank-broken"})),
        ("/v2/rerank", json!({"query": "a", "documents": ["b", "c"], "model": "rerank-broken"})),
        ("/models/tag-broken", json!({"inputs": "a b"})),
        ("/models/answer-broken", json!({"inputs": {"question": "a", "context": "b c"}})),
        ("/models/mask-broken", json!({"inputs": "a [MASK]"})),
        ("/models/choose-broken", json!({"inputs": {"context": "a", "endings": ["b", "c"]}})),
        ("/models/nli-broken", json!({"inputs": "a", "parameters": {"candidate_labels": ["b", "c"]}})),
        ("/models/classify-broken/pipeline/predict", json!({"inputs": "a"})),
        (
            "/v2/models/embed-broken/infer",
            json!({"inputs": [{"name": "text", "shape": [1], "datatype": "BYTES", "data": ["a"]}]}),
        ),
    ] {
        let answer = server.post(path, &body);
        assert!([424, 500].contains(&answer.status), "{path} {body}: {} {}", answer.status, answer.body);
        assert!(answer.body.contains("NaN"), "{path}: {}", answer.body);
        is_well(&server);
    }
}

/// Makes the first layer's output too large for f32.
fn overflow(path: &Path) {
    let mut bytes = std::fs::read(path).unwrap();
    let length = u64::from_le_bytes(bytes[..8].try_into().unwrap()) as usize;
    let header: Value = serde_json::from_slice(&bytes[8..8 + length]).unwrap();
    for (name, tensor) in header.as_object().unwrap() {
        if name.contains("layer.0.") && name.ends_with("weight") && !name.contains("LayerNorm") {
            let at = |number: usize| 8 + length + tensor["data_offsets"][number].as_u64().unwrap() as usize;
            for value in bytes[at(0)..at(1)].chunks_exact_mut(4) {
                value.copy_from_slice(&3e38_f32.to_le_bytes());
            }
        }
    }
    std::fs::write(path, bytes).unwrap();
}
