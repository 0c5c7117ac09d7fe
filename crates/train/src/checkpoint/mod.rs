//! Checkpoints: a Hugging Face folder (config.json, model.safetensors, the tokenizer's files) that also contains
//! optimizer.safetensors and training_state.json.
//!
//! A checkpoint is written to a sibling folder whose name starts with a dot; every file and the folder are synced, and
//! then it is renamed. So a folder named `step-…` is always complete. training_state.json contains the size and XXH3 of
//! every other file and of itself, which are compared when the checkpoint is loaded.
//!
//! | file | what it does |
//! | --- | --- |
//! | `saved.rs` | writes and reads checkpoints and final models |
//! | `state.rs` | training_state.json and its checksums |
//! | `moments.rs` | optimizer.safetensors |
//! | `listing.rs` | lists checkpoints, finds the newest and the best, removes old ones |

mod listing;
mod moments;
mod saved;
mod state;

pub use listing::{best, list, mark_best, path_of, path_of_newest, prune, remove_stale, resume};
pub use saved::{Loaded, load, save, save_model};
pub use state::{verify, verify_model};
