//! What the tests of this folder share.

use std::path::{Path, PathBuf};

use crate::TaskError;

/// A file of its own folder, removed when dropped.
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

/// That a result is an error whose text holds every part.
#[track_caller]
pub(super) fn fails<T>(result: Result<T, TaskError>, parts: &[&str]) {
    let error = result.err().expect("should fail").to_string();
    for part in parts {
        assert!(error.contains(part), "{part:?} is not in {error:?}");
    }
}

/// The shared data's folder, if this machine has it.
pub(super) fn shared_data() -> Option<PathBuf> {
    let folder = std::env::var_os("CLOZE_DATA")
        .map_or_else(|| Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../../../shared/data")).into(), PathBuf::from);
    if !folder.is_dir() {
        println!("skipped: no shared data");
        return None;
    }
    Some(folder)
}
