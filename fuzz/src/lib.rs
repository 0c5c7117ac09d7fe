//! One function for each reader of foreign bytes. It must return for every input; a panic is a finding, and so is a result that
//! contradicts itself or the reference.
//!
//! Inputs of several files are their contents, joined by [`SEPARATOR`]. Where a reader depends on a file's name, a digit at the
//! beginning of the input chooses it.

mod data;
mod folder;
mod tables;
mod text;
mod weights;

pub use data::{corpus, manifest, npy, parquet_corpus, recipe, shards};
pub use tables::{parquet_table, retrieval, squad, table, tagged};
pub use text::{tokenizer_folder, tokenizer_json};
pub use weights::{config, pickle, safetensors, sentences, tensorflow};

/// What separates the files of an input.
const SEPARATOR: &[u8] = b"\n-----\n";

/// The first `N` files of an input; those that it does not have are none.
fn files<const N: usize>(mut input: &[u8]) -> [Option<&[u8]>; N] {
    let mut files = [None; N];
    for (i, file) in files.iter_mut().enumerate() {
        let end = input.windows(SEPARATOR.len()).position(|bytes| bytes == SEPARATOR);
        match end {
            Some(end) if i + 1 < N => {
                *file = Some(&input[..end]);
                input = &input[end + SEPARATOR.len()..];
            }
            _ => {
                *file = Some(input);
                break;
            }
        }
    }
    files
}
