//! Tokens per second of the fast path and the `tokenizers` crate on one thread:
//! `cargo bench -p cloze-text -- TOKENIZER_DIR TEXT_FILE`.
#![allow(clippy::print_stdout, reason = "a program")]

use std::hint::black_box;
use std::path::Path;
use std::time::Instant;

use cloze_text::Tokenizer;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let args: Vec<String> = std::env::args().skip(1).filter(|a| !a.starts_with("--")).collect();
    let [tokenizer, text] = args.as_slice() else {
        println!("usage: cargo bench -p cloze-text -- TOKENIZER_DIR TEXT_FILE");
        return Ok(());
    };
    let start = Instant::now();
    let tokenizer = Tokenizer::open(Path::new(tokenizer))?;
    println!("open {:.0} ms, {tokenizer:?}", start.elapsed().as_secs_f64() * 1e3);
    let text = std::fs::read_to_string(text)?;
    let lines: Vec<&str> = text.lines().collect();
    let mut ids: [Vec<u32>; 2] = Default::default();
    for (name, path) in [("fast path", 0), ("tokenizers crate", 1)] {
        let mut best = f64::INFINITY;
        for _ in 0..if path == 0 { 5 } else { 1 } {
            ids[path].clear();
            let start = Instant::now();
            for line in &lines {
                if path == 0 {
                    tokenizer.encode_into(black_box(line), &mut ids[path]);
                } else {
                    tokenizer.encode_reference(black_box(line), &mut ids[path]);
                }
            }
            best = best.min(start.elapsed().as_secs_f64());
        }
        println!(
            "{name:>17}: {:7.2} M tokens/s, {:7.1} MB/s, {} tokens",
            ids[path].len() as f64 / best / 1e6,
            text.len() as f64 / best / 1e6,
            ids[path].len()
        );
    }
    if ids[0] != ids[1] {
        return Err("the two paths differ".into());
    }
    println!("ids equal");
    Ok(())
}
