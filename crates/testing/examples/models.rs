//! Saves a tiny random model for each task in a folder, for scripts that test a server: `cargo run -p cloze-testing --example models -- DIR`.
#![forbid(unsafe_code)]
#![allow(clippy::print_stdout, reason = "the names of the models")]

use std::path::Path;

fn main() {
    let dir = std::env::args().nth(1).expect("usage: models DIR");
    cloze_testing::save_model_of_each_task(Path::new(&dir)).iter().for_each(|name| println!("{name}"));
}
