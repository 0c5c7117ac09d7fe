//! Helpers for the tests of this folder.

use std::path::PathBuf;

use crate::TaskError;

/// A file in its own temporary folder, which is removed when dropped.
pub(super) struct TempFile {
    _folder: tempfile::TempDir,
    pub path: PathBuf,
}

pub(super) fn file(name: &str, bytes: impl AsRef<[u8]>) -> TempFile {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join(name);
    std::fs::write(&path, bytes).unwrap();
    TempFile { _folder: folder, path }
}

/// Asserts that a result is an error whose message contains every part.
#[track_caller]
pub(super) fn fails<T>(result: Result<T, TaskError>, parts: &[&str]) {
    let error = result.err().expect("should fail").to_string();
    for part in parts {
        assert!(error.contains(part), "{part:?} is not in {error:?}");
    }
}

/// The seed inputs of a fuzz target, including inputs that it found.
pub(crate) fn seeds(target: &str) -> Vec<Vec<u8>> {
    let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fuzz/seeds").join(target);
    let Ok(entries) = std::fs::read_dir(folder) else {
        println!("skipped: no seeds of the fuzz target {target}");
        return Vec::new();
    };
    entries.map(|entry| std::fs::read(entry.unwrap().path()).unwrap()).collect()
}
