//! Checkpoints: a Hugging Face folder (config.json, model.safetensors, the tokenizer's files) with optimizer.safetensors
//! and training_state.json beside.
//!
//! A checkpoint is written into a sibling folder whose name starts with a dot, every file and the folder are synced, and
//! it is renamed: a folder named `step-…` is whole. training_state.json holds the size and XXH3 of every other file and of
//! itself, compared at load.
//!
//! | file | what it does |
//! | --- | --- |
//! | `saved.rs` | a checkpoint, and a final model, written and read |
//! | `state.rs` | training_state.json and the checksums in it |
//! | `moments.rs` | optimizer.safetensors |
//! | `listing.rs` | which checkpoints a run has: the newest, the best, what is removed |

mod listing;
mod moments;
mod saved;
mod state;

pub use listing::{best, list, mark_best, path_of, prune, remove_stale, resume};
pub use saved::{Loaded, load, save, save_model};
pub use state::{verify, verify_model};
