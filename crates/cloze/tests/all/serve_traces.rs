//! `cloze serve --otlp-endpoint`: the spans that a collector receives, and servers whose collector does not answer.

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::{Duration, Instant};

use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::any_value::Value as Any;
use opentelemetry_proto::tonic::common::v1::{AnyValue, KeyValue};
use opentelemetry_proto::tonic::trace::v1::Span;
use opentelemetry_proto::tonic::trace::v1::span::SpanKind;
use opentelemetry_proto::tonic::trace::v1::status::StatusCode;
use prost::Message;
use serde_json::json;

use crate::common::{command, is_refused};
use crate::serving::{Models, Server};

const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";
const PARENT: &str = "00f067aa0ba902b7";

/// A collector that answers each export, and what it receives: the path, the type, the payload.
fn collector() -> (String, Receiver<(String, ExportTraceServiceRequest)>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = format!("http://{}", listener.local_addr().unwrap());
    let (send, received) = channel();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let send = send.clone();
            std::thread::spawn(move || collect(stream.unwrap(), &send));
        }
    });
    (address, received)
}

fn collect(mut stream: TcpStream, send: &Sender<(String, ExportTraceServiceRequest)>) {
    let mut bytes = Vec::new();
    let mut more = |bytes: &mut Vec<u8>| {
        let mut part = [0; 65_536];
        let read = stream.read(&mut part).unwrap_or(0);
        bytes.extend_from_slice(&part[..read]);
        read > 0
    };
    let end = loop {
        if let Some(end) = bytes.windows(4).position(|four| four == b"\r\n\r\n") {
            break end + 4;
        }
        if !more(&mut bytes) {
            return;
        }
    };
    let head = String::from_utf8(bytes[..end].to_vec()).unwrap().to_lowercase();
    let length = head.lines().find_map(|line| line.strip_prefix("content-length: ")).unwrap();
    while bytes.len() < end + length.parse::<usize>().unwrap() {
        assert!(more(&mut bytes));
    }
    assert!(head.contains("content-type: application/x-protobuf"), "{head}");
    let request = ExportTraceServiceRequest::decode(&bytes[end..]).unwrap();
    let _ = send.send((head.lines().next().unwrap().to_owned(), request));
    let _ = stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\nconnection: close\r\n\r\n");
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn attributes(list: &[KeyValue]) -> BTreeMap<String, String> {
    let text = |value: &Option<AnyValue>| match value.as_ref().and_then(|value| value.value.as_ref()) {
        Some(Any::StringValue(text)) => text.clone(),
        Some(Any::IntValue(number)) => number.to_string(),
        Some(Any::DoubleValue(number)) => format!("{number:?}"),
        other => panic!("{other:?}"),
    };
    let found: BTreeMap<String, String> = list.iter().map(|pair| (pair.key.clone(), text(&pair.value))).collect();
    assert_eq!(found.len(), list.len(), "keys must be unique: {list:?}");
    found
}

fn is_error(span: &Span) -> bool {
    span.status.as_ref().is_some_and(|status| status.code() == StatusCode::Error)
}

#[cfg(unix)]
#[test]
fn a_collector_receives_a_span_for_each_request() {
    let models = Models::new();
    let (address, received) = collector();
    let mut start = command(&["serve", "--port", "0", "--threads", "1", "--log-requests", "--log-json"]);
    start.args(["--otlp-endpoint", &address, &models.path("embed"), &models.path("classify")]);
    // The spans arrive at the end, and not before.
    start.env("OTEL_SERVICE_NAME", "vectors").env("OTEL_BSP_SCHEDULE_DELAY", "100000");
    let mut server = Server::of(start);
    let body = json!({"inputs": "a b"}).to_string();
    let headers =
        format!("content-type: application/json\r\ntraceparent: 00-{TRACE}-{PARENT}-01\r\nx-request-id: seven\r\n");
    assert_eq!(server.send("POST", "/embed", &headers, body.as_bytes()).status, 200);
    server.wait_for(&format!("\"trace\":\"{TRACE}\""));
    // A request that its sender does not want to be traced.
    let unsampled = headers.replace("-01\r\n", "-00\r\n");
    assert_eq!(server.send("POST", "/embed", &unsampled, body.as_bytes()).status, 200);
    let parts = json!({"instances": [{"inputs": "a", "model": "classify"}, {"inputs": "b c", "model": "embed"}]});
    assert_eq!(server.ask("/vertex", &parts)["predictions"].as_array().unwrap().len(), 2);
    assert_eq!(server.post("/v1/embeddings", &json!({"input": "a", "model": "none"})).status, 404);
    assert_eq!(server.get("/none").status, 404);
    assert!(received.try_recv().is_err());

    server.signal("-TERM");
    assert!(server.child.wait().unwrap().success());
    let (line, request) = received.recv_timeout(Duration::from_secs(10)).unwrap();
    assert_eq!(line, "post /v1/traces http/1.1");
    let [of_resource] = &request.resource_spans[..] else { panic!("{request:?}") };
    let resource = attributes(&of_resource.resource.as_ref().unwrap().attributes);
    assert_eq!(resource["service.name"], "vectors");
    assert!(!resource["service.version"].is_empty());
    let spans: Vec<&Span> = of_resource.scope_spans.iter().flat_map(|scope| &scope.spans).collect();
    let names: Vec<&str> = spans.iter().map(|span| span.name.as_str()).collect();
    assert_eq!(names, ["POST /embed", "POST /vertex", "POST /v1/embeddings", "GET"]);

    let embed = spans[0];
    assert_eq!((hex(&embed.trace_id), hex(&embed.parent_span_id)), (TRACE.to_owned(), PARENT.to_owned()));
    assert!(embed.kind() == SpanKind::Server && embed.end_time_unix_nano > embed.start_time_unix_nano);
    let found = attributes(&embed.attributes);
    for (key, expected) in [
        ("http.request.method", "POST"),
        ("http.route", "/embed"),
        ("url.path", "/embed"),
        ("http.response.status_code", "200"),
        ("gen_ai.request.model", "embed"),
        ("gen_ai.usage.input_tokens", "4"),
        ("cloze.request_id", "seven"),
    ] {
        assert_eq!(found[key], expected, "{key}");
    }
    let seconds = |key: &str| found[key].parse::<f64>().unwrap();
    let (queue, compute) = (seconds("cloze.queue_seconds"), seconds("cloze.compute_seconds"));
    let whole = (embed.end_time_unix_nano - embed.start_time_unix_nano) as f64 / 1e9;
    assert!(queue >= 0.0 && compute > 0.0 && queue + compute <= whole, "{queue} + {compute} and {whole}");

    // A request with two models, without a parent.
    let vertex = attributes(&spans[1].attributes);
    let mut models: Vec<&str> = vertex["gen_ai.request.model"].split(',').collect();
    models.sort_unstable();
    assert_eq!((&models[..], vertex["gen_ai.usage.input_tokens"].as_str()), (&["classify", "embed"][..], "7"));
    assert!(spans[1].parent_span_id.is_empty() && hex(&spans[1].trace_id) != TRACE);

    // Failures: the reason; those of clients are no errors of the server.
    let unknown = attributes(&spans[2].attributes);
    assert_eq!(
        (unknown["http.response.status_code"].as_str(), unknown["error.type"].as_str()),
        ("404", "UnknownModel")
    );
    assert!(!unknown.contains_key("gen_ai.request.model") && !spans.iter().any(|span| is_error(span)));
    assert_eq!(attributes(&spans[3].attributes)["url.path"], "/none");
}

#[cfg(unix)]
#[test]
fn a_collector_that_does_not_answer_is_reported_once_and_slows_nothing() {
    let models = Models::new();
    // One refuses connections, one accepts them and says nothing.
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let refusing = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    for (address, is_reported) in [(refusing, true), (silent.local_addr().unwrap(), false)] {
        let mut start = command(&["serve", "--port", "0", "--threads", "1", "--log-requests", &models.path("embed")]);
        // The address of the environment; a batch every 50 ms.
        start.env("OTEL_EXPORTER_OTLP_ENDPOINT", format!("http://{address}")).env("OTEL_BSP_SCHEDULE_DELAY", "50");
        let mut server = Server::of(start);
        let begin = Instant::now();
        for _ in 0..200 {
            assert_eq!(server.post("/embed", &json!({"inputs": "a"})).status, 200);
        }
        assert!(begin.elapsed() < Duration::from_secs(20), "requests wait for the collector: {:?}", begin.elapsed());
        if is_reported {
            server.wait_for("traces cannot be sent");
        }
        server.signal("-TERM");
        let stopping = Instant::now();
        assert!(server.child.wait().unwrap().success());
        assert!(stopping.elapsed() < Duration::from_secs(10), "{:?}", stopping.elapsed());
        let rest: Vec<String> = server.log.try_iter().collect();
        assert!(!rest.iter().any(|line| line.contains("traces cannot be sent")), "{rest:#?}");
    }
    is_refused(
        &["serve", "--otlp-endpoint", "localhost:4318", &models.path("embed")],
        &["--otlp-endpoint: expected the address of a collector such as http://localhost:4318"],
    );
}
