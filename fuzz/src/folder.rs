//! A folder in memory, for readers that take paths.

use std::fs;
use std::path::{Path, PathBuf};

/// A folder of this process. `run.sh` chooses where, and removes it.
pub struct Folder(PathBuf);

impl Folder {
    /// An empty folder.
    pub fn new(name: &str) -> Folder {
        let root = std::env::var_os("CLOZE_FUZZ_FOLDER").map_or_else(
            || if Path::new("/dev/shm").is_dir() { PathBuf::from("/dev/shm") } else { std::env::temp_dir() },
            PathBuf::from,
        );
        let path = root.join(format!("cloze-fuzz-{}", std::process::id())).join(name);
        let _ = fs::remove_dir_all(&path);
        fs::create_dir_all(&path).expect("a folder for the inputs");
        Folder(path)
    }

    /// Its path.
    pub fn path(&self) -> &Path {
        &self.0
    }

    /// The path of an entry.
    pub fn join(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }

    /// Writes a file.
    pub fn write(&self, name: &str, bytes: &[u8]) -> PathBuf {
        let path = self.join(name);
        fs::write(&path, bytes).expect("room for an input");
        path
    }

    /// Writes a file, or removes it.
    pub fn set(&self, name: &str, bytes: Option<&[u8]>) -> PathBuf {
        match bytes {
            Some(bytes) => self.write(name, bytes),
            None => {
                let path = self.join(name);
                let _ = fs::remove_file(&path);
                path
            }
        }
    }
}
