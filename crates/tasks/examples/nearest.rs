//! Exact search for the nearest vectors by cosine: for `benches/mining.py`, which compares it with other programs.
//!
//! ```text
//! cargo run --release -p cloze-tasks --example nearest -- QUERIES.npy VECTORS.npy FOUND.npy TOP THREADS
//! ```
//!
//! Writes the rows of the vectors for each query, as f32, and prints the seconds of the search.
#![allow(clippy::print_stdout, reason = "a program")]

use std::error::Error;
use std::path::Path;
use std::time::Instant;

use cloze_engine::Device;
use cloze_tasks::embed::search::{Index, Similarity};
use cloze_tasks::embed::vectors::{Vectors, Writer, read_npy};

fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [queries, vectors, found, top, threads] = &arguments[..] else {
        return Err("expected QUERIES.npy VECTORS.npy FOUND.npy TOP THREADS".into());
    };
    let device = Device::cpu(Some(threads.parse()?))?;
    let (queries, vectors, top) = (read_npy(Path::new(queries))?, read_npy(Path::new(vectors))?, top.parse()?);
    let start = Instant::now();
    let hits = Index::new(vectors, Similarity::Cosine).nearest(&device, queries, top, |_, _| true);
    let seconds = start.elapsed().as_secs_f64();
    let rows = hits.iter().flatten().map(|hit| hit.row as f32).collect();
    let mut writer = Writer::create(Path::new(found), top)?;
    writer.push(&vec![""; hits.len()], &Vectors::new(top, rows))?;
    writer.finish()?;
    println!("{seconds}");
    Ok(())
}
