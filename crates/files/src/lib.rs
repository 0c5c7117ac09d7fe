//! Files and folders that appear whole or not at all, and their checksums.
//!
//! | module | what it does |
//! | --- | --- |
//! | [`file`](mod@file) | a file that is written under another name, made durable and renamed |
//! | [`folder`] | the same of a folder; folders that must be empty |
//! | `unfinished.rs` | what has its temporary name now, removed where a signal ends the process |
//! | [`machine`] | what the machine gives a process: threads and memory |
//! | [`digest`] | checksums (xxh3, 128 bits) of files and bytes |
//!
//! ```
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # let dir = tempfile::tempdir()?;
//! let run = dir.path().join("run");
//! cloze_files::write_folder(&run, |partial| cloze_files::write(&partial.join("a.txt"), b"whole"))?;
//! assert_eq!(cloze_files::digest::of_file(&run.join("a.txt"))?.bytes, 5);
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
