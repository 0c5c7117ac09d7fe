//! The time of eight threads with a hundred predictions each, divided by that of one thread with all of them. Forward
//! passes run one at a time, so the best possible ratio is 1. Every prediction must have the same bits as the
//! sequential one.
//!
//! ```text
//! cargo run --release -p cloze-tasks --example threads -- [FOLDER OF A FINE-TUNED MODEL]
//! ```
#![allow(clippy::print_stdout, reason = "a program")]

use std::error::Error;
use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use cloze_engine::{DType, Device};
use cloze_model::{Config, Heads, Model, TaskHead};
use cloze_tasks::{Predictor, Pretrained, TaskOptions};
use cloze_text::{SPECIAL_TOKENS, Tokenizer};
use serde_json::Value;

const THREADS: usize = 8;
const PREDICTIONS: usize = 100;
/// The number of measurements; the two cases alternate.
const ROUNDS: usize = 9;
/// The number of words of a text.
const LENGTH: usize = 60;

/// A classifier of BERT-mini's size with random weights.
fn random(device: Device) -> Result<Pretrained, Box<dyn Error>> {
    let words = (0..1000).map(|number| format!("w{number}"));
    let tokens: Vec<String> = SPECIAL_TOKENS.iter().map(|token| token.to_string()).chain(words).collect();
    let mut config = Config::preset("mini")?;
    config.vocab_size = tokens.len();
    let model = Model::new(config, Heads::of(TaskHead::Classify { labels: 3 }), &device, 1)?;
    Ok(Pretrained::new(model, Tokenizer::from_tokens(tokens, false)?, device, DType::F32, Path::new("random"))?)
}

fn main() -> Result<(), Box<dyn Error>> {
    let device = Device::cpu(None)?;
    let model = match std::env::args_os().nth(1) {
        Some(folder) => Pretrained::open(Path::new(&folder), device, DType::F32)?,
        None => random(device)?,
    };
    let predictor = Predictor::new(Arc::new(model), None, TaskOptions::default())?;
    let text =
        |number: usize| (0..LENGTH).map(|i| format!("w{}", (number * 31 + i * 7) % 1000)).collect::<Vec<_>>().join(" ");
    let rows: Vec<[Value; 1]> = (0..PREDICTIONS).map(|number| [Value::String(text(number))]).collect();
    let predict = |number: usize| predictor.predict(&rows[number]).remove(0);
    let expected: Vec<Value> = (0..PREDICTIONS).map(predict).collect::<Result<_, _>>()?;

    let mut ratios = Vec::new();
    for _ in 0..ROUNDS {
        let began = Instant::now();
        for number in (0..THREADS).flat_map(|_| 0..PREDICTIONS) {
            predict(number)?;
        }
        let sequential = began.elapsed().as_secs_f64();
        let began = Instant::now();
        let wrong: usize = std::thread::scope(|scope| {
            let work =
                || (0..PREDICTIONS).filter(|&number| predict(number).ok().as_ref() != Some(&expected[number])).count();
            let running: Vec<_> = (0..THREADS).map(|_| scope.spawn(work)).collect();
            running.into_iter().map(|thread| thread.join().unwrap_or(PREDICTIONS)).sum()
        });
        let together = began.elapsed().as_secs_f64();
        ratios.push(together / sequential);
        println!(
            "{} predictions: {sequential:.3} s by one thread, {together:.3} s by {THREADS} at once; {wrong} differ",
            THREADS * PREDICTIONS
        );
    }
    ratios.sort_by(f64::total_cmp);
    println!("{:.3} times as long (median; {:.3} to {:.3})", ratios[ROUNDS / 2], ratios[0], ratios[ROUNDS - 1]);
    Ok(())
}
