//! Files and folders that are written completely or not at all, and their checksums.
//!
//! | module | what it does |
//! | --- | --- |
//! | [`file`](mod@file) | files that are written under a temporary name, synced and renamed |
//! | [`folder`] | the same for folders; checks for empty folders |
//! | `unfinished.rs` | the list of temporary files and folders, which are removed when a signal ends the process |
//! | [`machine`] | worker threads; the memory of this process and its limit |
//! | [`digest`] | checksums (xxh3, 128 bits) of files and bytes |
//!
//! ```
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # let dir = tempfile::tempdir()?;
//! let run = dir.path().join("run");
//! cloze_files::write_folder(&run, |partial| cloze_files::write(&partial.join("a.txt"), b"complete"))?;
//! assert_eq!(cloze_files::digest::of_file(&run.join("a.txt"))?.bytes, 8);
//! assert!(!cloze_files::is_unused(&run)?);
//! # Ok(())
//! # }
//! ```
#![forbid(unsafe_code)]

pub mod digest;
mod error;
pub mod file;
pub mod folder;
pub mod machine;
mod unfinished;

pub use digest::Digest;
pub use error::FileError;
pub use file::{AtomicFile, write, write_several, write_with};
pub use folder::{is_unused, write_folder};
pub use unfinished::remove_unfinished;
