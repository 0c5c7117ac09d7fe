//! Load for a server with `/embed` (Cloze, text-embeddings-inference, or the peers of `benches/serve_peers.py`):
//!
//! ```text
//! cargo run --release -p cloze-serve --example load -- ADDRESS SCENARIO [SECONDS] [CLIENTS]
//! ```
//!
//! | scenario | clients | prints |
//! | --- | --- | --- |
//! | `query` | one, with a query of about 8 tokens | median and 99th percentile of the latency |
//! | `ragged` | 64, with texts of 8 to 512 words | texts and words per second |
//! | `lanes` | ten with queries, first alone and then beside one with 256 long texts a request | both 99th percentiles |
//! | `overload` | 32, and then four times as many | goodput of both, requests offered, refused and lost |
//!
//! Each client sends its next request after the answer to the last. The texts are the same in each run. Requests go to this machine only.
#![forbid(unsafe_code)]
#![allow(clippy::print_stdout, reason = "the results")]

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// Words that are one token in BERT's uncased vocabulary.
const WORDS: [&str; 16] = [
    "time", "people", "water", "house", "river", "story", "music", "light", "science", "market", "language", "history",
    "winter", "green", "seven", "before",
];

/// What the clients of a scenario have seen.
#[derive(Default)]
struct Seen {
    /// Seconds of each answered request.
    latencies: Vec<f64>,
    /// Answered before the end of the measurement: what is answered afterwards is no part of the throughput.
    words: usize,
    texts: usize,
    refused: usize,
    failed: usize,
}

impl Seen {
    fn add(&mut self, other: Seen) {
        self.latencies.extend(other.latencies);
        self.words += other.words;
        self.texts += other.texts;
        self.refused += other.refused;
        self.failed += other.failed;
    }

    /// Milliseconds.
    fn percentile(&mut self, share: f64) -> f64 {
        self.latencies.sort_by(f64::total_cmp);
        let last = self.latencies.len().saturating_sub(1);
        self.latencies.get((last as f64 * share).round() as usize).map_or(f64::NAN, |seconds| seconds * 1000.0)
    }
}

/// A linear congruential generator (Knuth's MMIX), for the same texts in each run.
struct Numbers(u64);

impl Numbers {
    fn below(&mut self, most: usize) -> usize {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) as usize % most
    }

    fn text(&mut self, words: usize) -> String {
        (0..words).map(|_| WORDS[self.below(WORDS.len())]).collect::<Vec<_>>().join(" ")
    }
}

/// Makes the texts of a request.
type Make = dyn Fn(&mut Numbers) -> Vec<String> + Sync;

/// Sends a request and reads the status of its answer, and the seconds of `Retry-After`.
fn ask(stream: &mut TcpStream, texts: &[String], buffer: &mut Vec<u8>) -> std::io::Result<(u16, u64)> {
    let quoted: Vec<String> = texts.iter().map(|text| format!("\"{text}\"")).collect();
    let body = format!("{{\"inputs\":[{}]}}", quoted.join(","));
    let head = format!(
        "POST /embed HTTP/1.1\r\nhost: load\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n",
        body.len()
    );
    stream.write_all((head + &body).as_bytes())?;
    buffer.clear();
    let mut part = [0; 1 << 16];
    loop {
        let count = stream.read(&mut part)?;
        if count == 0 {
            return Err(std::io::ErrorKind::UnexpectedEof.into());
        }
        buffer.extend_from_slice(&part[..count]);
        let Some(end) = buffer.windows(4).position(|bytes| bytes == b"\r\n\r\n") else { continue };
        let head = String::from_utf8_lossy(&buffer[..end]).to_ascii_lowercase();
        let field = |name: &str| head.lines().find_map(|line| line.strip_prefix(name)?.trim().parse::<usize>().ok());
        let length = field("content-length:").ok_or(std::io::ErrorKind::InvalidData)?;
        if buffer.len() >= end + 4 + length {
            let status = head.split(' ').nth(1).and_then(|status| status.parse().ok());
            let wait = field("retry-after:").unwrap_or(0) as u64;
            return status.map(|status| (status, wait)).ok_or_else(|| std::io::ErrorKind::InvalidData.into());
        }
    }
}

/// One client: sends texts made by `make` until `stop` is set. A refused client waits as long as it is told, or until the end.
fn client(address: SocketAddr, seed: u64, stop: &AtomicBool, make: &Make) -> Seen {
    let (mut seen, mut numbers, mut buffer) = (Seen::default(), Numbers(seed), Vec::new());
    let mut stream = None;
    while !stop.load(Ordering::Relaxed) {
        let texts = make(&mut numbers);
        let begin = Instant::now();
        let connected = match &mut stream {
            Some(stream) => stream,
            None => match TcpStream::connect(address) {
                Ok(new) => {
                    let _ = new.set_nodelay(true);
                    stream.insert(new)
                }
                Err(_) => {
                    seen.failed += 1;
                    std::thread::sleep(Duration::from_millis(10));
                    continue;
                }
            },
        };
        match ask(connected, &texts, &mut buffer) {
            Ok((200, _)) => {
                seen.latencies.push(begin.elapsed().as_secs_f64());
                if !stop.load(Ordering::Relaxed) {
                    seen.texts += texts.len();
                    seen.words += texts.iter().map(|text| text.split(' ').count()).sum::<usize>();
                }
            }
            Ok((429, wait)) => {
                seen.refused += 1;
                let until = Instant::now() + Duration::from_secs(wait);
                while Instant::now() < until && !stop.load(Ordering::Relaxed) {
                    std::thread::sleep(Duration::from_millis(20));
                }
            }
            Ok(_) | Err(_) => {
                seen.failed += 1;
                stream = None;
            }
        }
    }
    seen
}

/// Runs clients for a time.
fn run(address: SocketAddr, seconds: f64, groups: &[(usize, &Make)]) -> Vec<Seen> {
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let mut seed = 0;
        let mut running = Vec::new();
        for (clients, make) in groups {
            let group: Vec<_> = (0..*clients)
                .map(|_| {
                    seed += 1;
                    let (stop, make, seed) = (&stop, *make, seed);
                    scope.spawn(move || client(address, seed, stop, make))
                })
                .collect();
            running.push(group);
        }
        std::thread::sleep(Duration::from_secs_f64(seconds));
        stop.store(true, Ordering::Relaxed);
        let all = |group: Vec<std::thread::ScopedJoinHandle<'_, Seen>>| {
            let mut seen = Seen::default();
            group.into_iter().for_each(|client| seen.add(client.join().expect("a client")));
            seen
        };
        running.into_iter().map(all).collect()
    })
}

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let usage = "usage: load ADDRESS query|ragged|lanes|overload [SECONDS] [CLIENTS]";
    let address: SocketAddr = arguments.first().and_then(|text| text.parse().ok()).expect(usage);
    assert!(address.ip().is_loopback(), "load is sent to this machine only");
    let scenario = arguments.get(1).expect(usage).as_str();
    let seconds: f64 = arguments.get(2).map_or(10.0, |text| text.parse().expect(usage));
    let clients: usize = arguments.get(3).map_or(64, |text| text.parse().expect(usage));
    let query = |numbers: &mut Numbers| vec![numbers.text(8)];
    let ragged = |numbers: &mut Numbers| {
        let words = 8 + numbers.below(503);
        vec![numbers.text(words)]
    };
    let bulk = |numbers: &mut Numbers| (0..256).map(|_| numbers.text(200)).collect::<Vec<_>>();
    // The first requests are not measured.
    run(address, 1.0, &[(1, &query)]);
    match scenario {
        "query" => {
            let mut seen = run(address, seconds, &[(1, &query)]).remove(0);
            let (p50, p99, count) = (seen.percentile(0.5), seen.percentile(0.99), seen.latencies.len());
            println!("query: p50 {p50:.3} ms, p99 {p99:.3} ms, {count} requests, {} failed", seen.failed);
        }
        "ragged" => {
            let mut seen = run(address, seconds, &[(clients, &ragged)]).remove(0);
            let rate = |count: usize| count as f64 / seconds;
            let (p50, p99) = (seen.percentile(0.5), seen.percentile(0.99));
            // [CLS] and [SEP] are tokens, too.
            let tokens = rate(seen.words + 2 * seen.texts);
            println!(
                "ragged, {clients} clients: {:.1} texts/s, {tokens:.0} tokens/s, p50 {p50:.1} ms, p99 {p99:.1} ms, {} refused, {} failed",
                rate(seen.texts),
                seen.refused,
                seen.failed
            );
        }
        "lanes" => {
            let mut alone = run(address, seconds, &[(10, &query)]).remove(0);
            let mut both = run(address, seconds, &[(10, &query), (1, &bulk)]);
            let (before, after) = (alone.percentile(0.99), both[0].percentile(0.99));
            println!(
                "lanes: p99 of queries {before:.2} ms alone, {after:.2} ms beside bulk ({:.2} times); {} and {} queries, {} bulk texts/s, {} failed",
                after / before,
                alone.latencies.len(),
                both[0].latencies.len(),
                // Its requests may take seconds: by the time of those that were answered.
                256.0 * both[1].latencies.len() as f64 / both[1].latencies.iter().sum::<f64>(),
                both[0].failed + both[1].failed
            );
        }
        "overload" => {
            for clients in [32, 128] {
                let mut seen = run(address, seconds, &[(clients, &ragged)]).remove(0);
                let p99 = seen.percentile(0.99);
                println!(
                    "overload, {clients} clients: {:.1} texts/s answered of {:.1} offered, {} refused, {} failed, p99 {p99:.0} ms",
                    seen.texts as f64 / seconds,
                    (seen.texts + seen.refused) as f64 / seconds,
                    seen.refused,
                    seen.failed
                );
            }
        }
        _ => panic!("{usage}"),
    }
}
