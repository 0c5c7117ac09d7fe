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
