//! The layout of the cache, which is that of `huggingface_hub`.
//!
//! ```text
//! CACHE/models--ORG--NAME/blobs/ETAG                 file contents
//! CACHE/models--ORG--NAME/snapshots/COMMIT/FILE      links to blobs, or the files themselves if links are not possible
//! CACHE/models--ORG--NAME/refs/REVISION              the commit of a branch or tag
//! CACHE/models--ORG--NAME/.no_exist/COMMIT/FILE      empty: the commit does not have this file
//! CACHE/models--ORG--NAME/.incoming                  only Cloze: a cache with the same layout for downloads; blobs/ETAG.part is incomplete
//! CACHE/.locks/models--ORG--NAME/ETAG.lock           locked while a process downloads
//! ```
//!
//! Downloaded files are verified in `.incoming` and then moved. If the process is killed, it leaves nothing that this or another
//! program could mistake for a complete file.

use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};

use crate::Contents;
use crate::files::{self, CONFIG, MODULES, SENTENCE_SETTINGS, TOKENIZER_CONFIG, TOKENIZERS, Weights};

/// A model's folder in the cache.
#[derive(Debug)]
pub(crate) struct Repository {
    root: PathBuf,
    #[cfg(feature = "download")]
    locks: PathBuf,
}

/// The files that a snapshot does not have.
#[derive(Debug, Default, PartialEq)]
pub(crate) struct MissingFiles {
    /// Files without which the model cannot be used.
    required: Vec<String>,
    /// Files of which the cache does not know whether the commit has them.
    unknown: Vec<String>,
}

impl MissingFiles {
    pub(crate) fn is_empty(&self) -> bool {
        self.is_usable() && self.unknown.is_empty()
    }

    /// Whether the model can be used if the hub is not available.
    pub(crate) fn is_usable(&self) -> bool {
        self.required.is_empty()
    }

    /// A message to the user of a model with unknown files; `remedy` says how to get them.
    pub(crate) fn note(&self, name: &str, remedy: &str) -> Option<String> {
        if self.unknown.is_empty() {
            return None;
        }
        let pooling = match self.unknown.iter().any(|file| file == MODULES) {
            true => " (without modules.json, vectors are the mean of the tokens)",
            false => "",
        };
        let files = self.unknown.join(", ");
        Some(format!(
            "the cache does not show whether the model {name:?} has {files}; the model is used without them{pooling}; {remedy}"
        ))
    }
}

impl fmt::Display for MissingFiles {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.required.join(", "))
    }
}

/// Whether a revision is a commit.
pub(crate) fn is_commit(text: &str) -> bool {
    text.len() == 40 && text.chars().all(|c| c.is_ascii_hexdigit())
}

impl Repository {
    /// A model's folder. Does not access the file system.
    pub(crate) fn new(cache: &Path, name: &str) -> Repository {
        let folder = format!("models--{}", name.replace('/', "--"));
        Repository {
            root: cache.join(&folder),
            #[cfg(feature = "download")]
            locks: cache.join(".locks").join(folder),
        }
    }

    /// The commit of a revision, if it is in the cache.
    pub(crate) fn commit(&self, revision: &str) -> Option<String> {
        if is_commit(revision) && self.snapshot(revision).is_dir() {
            return Some(revision.to_owned());
        }
        let commit = fs::read_to_string(self.reference(revision)).ok()?.trim().to_owned();
        is_commit(&commit).then_some(commit)
    }

    fn reference(&self, revision: &str) -> PathBuf {
        self.root.join("refs").join(revision)
    }

    /// The folder of a commit.
    pub(crate) fn snapshot(&self, commit: &str) -> PathBuf {
        self.root.join("snapshots").join(commit)
    }

    fn absence(&self, commit: &str, file: &str) -> PathBuf {
        self.root.join(".no_exist").join(commit).join(file)
    }

    /// The files of `contents` that a snapshot does not have.
    pub(crate) fn missing_files(&self, commit: &str, contents: Contents) -> MissingFiles {
        let folder = self.snapshot(commit);
        let has = |name: &str| folder.join(name).is_file();
        let is_known = |name: &str| has(name) || self.absence(commit, name).is_file();
        let mut missing = MissingFiles::default();
        if contents != Contents::Tokenizer && files::config(&has, contents).is_none() {
            missing.required.push(CONFIG.to_owned());
        }
        let names: Vec<String> = fs::read_dir(&folder)
            .map(|entries| entries.flatten().map(|entry| entry.file_name().to_string_lossy().into_owned()).collect())
            .unwrap_or_default();
        match files::weights(&has, &names, contents) {
            Some(Weights::Files(files)) => missing.required.extend(files.into_iter().filter(|file| !has(file))),
            Some(Weights::Index(index)) => match fs::read(folder.join(index)).map(|bytes| files::shards(&bytes)) {
                Ok(Ok(shards)) => missing.required.extend(shards.into_iter().filter(|shard| !has(shard))),
                _ => missing.required.push(index.to_owned()),
            },
            None => missing.required.push("model.safetensors".to_owned()),
        }
        let tokenizer = TOKENIZERS.iter().find(|name| has(name));
        missing
            .required
            .extend(tokenizer.and_then(|name| files::companion(name)).filter(|name| !has(name)).map(str::to_owned));
        match tokenizer {
            // tokenizer_config.json also determines how a tokenizer.json is read.
            Some(_) if !is_known(TOKENIZER_CONFIG) => missing.unknown.push(TOKENIZER_CONFIG.to_owned()),
            Some(_) => {}
            None if contents == Contents::Tokenizer => missing.required.push(TOKENIZERS.join(" or ")),
            // A model may have no tokenizer; then the cache has entries for the absent files.
            None if TOKENIZERS.iter().all(|name| is_known(name)) => {}
            None => missing.unknown.push(TOKENIZERS.join(" or ")),
        }
        if matches!(contents, Contents::Vectors | Contents::Source) {
            let settings = SENTENCE_SETTINGS.into_iter().filter(|_| has(MODULES));
            missing.unknown.extend([MODULES].into_iter().chain(settings).filter(|n| !is_known(n)).map(str::to_owned));
            let modules = fs::read(folder.join(MODULES)).map(|text| files::modules(&text)).unwrap_or_default();
            for module in modules.iter().filter(|module| module.has_files) {
                let config = format!("{}/{CONFIG}", module.path);
                if !is_known(&config) {
                    missing.required.push(config);
                }
            }
        }
        missing
    }
}

#[cfg(feature = "download")]
mod writing {
    use std::fs::{self, File, TryLockError};
    use std::io;
    use std::path::{Path, PathBuf};
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::{Repository, is_commit};
    use crate::HubError;

    /// Makes an error with this path.
    fn at(path: &Path) -> impl FnOnce(io::Error) -> HubError + use<'_> {
        move |source| HubError::Cache { path: path.to_owned(), source }
    }

    fn create_parent(path: &Path) -> Result<(), HubError> {
        match path.parent() {
            Some(parent) => fs::create_dir_all(parent).map_err(at(parent)),
            None => Ok(()),
        }
    }

    /// A temporary path in the same folder, which no other thread or process uses.
    fn tmp_path(path: &Path) -> PathBuf {
        static COUNTER: AtomicUsize = AtomicUsize::new(0);
        let mut tmp = path.as_os_str().to_owned();
        tmp.push(format!(".{}-{}.tmp", std::process::id(), COUNTER.fetch_add(1, Ordering::Relaxed)));
        PathBuf::from(tmp)
    }

    /// Writes a temporary file and renames it, so that an incomplete file is never visible.
    fn write(path: &Path, bytes: &[u8]) -> Result<(), HubError> {
        create_parent(path)?;
        let tmp = tmp_path(path);
        fs::write(&tmp, bytes).and_then(|()| fs::rename(&tmp, path)).map_err(at(path))
    }

    impl Repository {
        /// Records that a commit does not have a file.
        pub(crate) fn mark_absent(&self, commit: &str, file: &str) -> Result<(), HubError> {
            write(&self.absence(commit, file), b"")
        }

        /// Records the commit of a branch or tag.
        pub(crate) fn set_commit(&self, revision: &str, commit: &str) -> Result<(), HubError> {
            if is_commit(revision) || self.commit(revision).as_deref() == Some(commit) {
                return Ok(());
            }
            write(&self.reference(revision), commit.as_bytes())
        }

        /// The path of the contents with an ETag.
        pub(crate) fn blob(&self, etag: &str) -> PathBuf {
            self.root.join("blobs").join(etag)
        }

        /// The cache to which downloads are written.
        pub(crate) fn incoming(&self) -> PathBuf {
            self.root.join(".incoming")
        }

        /// Moves a downloaded file to the blobs.
        pub(crate) fn accept(&self, downloaded: &Path, blob: &Path) -> Result<(), HubError> {
            create_parent(blob)?;
            fs::rename(downloaded, blob).map_err(at(blob))
        }

        /// Removes what a download leaves in the cache of downloads, and its folders that become empty. An incomplete file
        /// remains.
        pub(crate) fn clear(&self, blob: &Path, commit: &str, file: &str) {
            let cache = self.root.parent().unwrap_or(&self.root);
            for leftover in [blob.to_owned(), self.snapshot(commit).join(file), self.reference(commit)] {
                let _ = fs::remove_file(&leftover);
                let mut folders = leftover.ancestors().skip(1).take_while(|folder| folder.starts_with(cache));
                let _ = folders.try_for_each(fs::remove_dir);
            }
        }

        /// Prevents other processes from downloading the same file while the returned lock exists, like `huggingface_hub`.
        /// `wait` is called before waiting for another process.
        pub(crate) fn lock(&self, blob: &Path, wait: impl FnOnce()) -> Result<File, HubError> {
            let name = blob.file_name().unwrap_or_default().to_string_lossy();
            let path = self.locks.join(format!("{name}.lock"));
            create_parent(&path)?;
            let file = File::options().create(true).append(true).open(&path).map_err(at(&path))?;
            match file.try_lock() {
                Ok(()) => Ok(file),
                Err(TryLockError::WouldBlock) => {
                    wait();
                    file.lock().map_err(at(&path)).map(|()| file)
                }
                // Some network file systems have no locks.
                Err(TryLockError::Error(e)) if e.kind() == io::ErrorKind::Unsupported => Ok(file),
                Err(TryLockError::Error(e)) => Err(at(&path)(e)),
            }
        }

        /// Links a file of a commit to a blob by a relative link. `is_new`: no other commit can refer to the blob yet.
        pub(crate) fn link(&self, blob: &Path, commit: &str, file: &str, is_new: bool) -> Result<(), HubError> {
            let pointer = self.snapshot(commit).join(file);
            if pointer.is_file() {
                return Ok(());
            }
            create_parent(&pointer)?;
            // The link may refer to a blob that was removed.
            let _ = fs::remove_file(&pointer);
            let target = blob.strip_prefix(&self.root).unwrap_or(blob);
            let up: PathBuf = std::iter::repeat_n("..", 2 + file.matches('/').count()).collect();
            match symlink(&up.join(target), &pointer) {
                Ok(()) => Ok(()),
                Err(_) => place(blob, &pointer, is_new),
            }
        }
    }

    /// For file systems without links: a new blob becomes the file itself; other blobs are copied.
    pub(super) fn place(blob: &Path, pointer: &Path, is_new: bool) -> Result<(), HubError> {
        if is_new {
            return fs::rename(blob, pointer).map_err(at(pointer));
        }
        // To a temporary file first: a killed process must not leave an incomplete file.
        let tmp = tmp_path(pointer);
        fs::copy(blob, &tmp).and_then(|_| fs::rename(&tmp, pointer)).map_err(at(pointer))
    }

    #[cfg(unix)]
    fn symlink(target: &Path, link: &Path) -> io::Result<()> {
        std::os::unix::fs::symlink(target, link)
    }

    #[cfg(windows)]
    fn symlink(target: &Path, link: &Path) -> io::Result<()> {
        std::os::windows::fs::symlink_file(target, link)
    }

    #[cfg(not(any(unix, windows)))]
    fn symlink(_: &Path, _: &Path) -> io::Result<()> {
        Err(io::ErrorKind::Unsupported.into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Environment, Hub, HubError, Request, Snapshot};

    const COMMIT: &str = "0123456789abcdef0123456789abcdef01234567";

    /// A cache with one model in the layout of `huggingface_hub`: links from the snapshot to blobs, or files without links.
    struct Cache {
        dir: tempfile::TempDir,
        links: bool,
    }

    impl Cache {
        fn new(links: bool) -> Cache {
            let cache = Cache { dir: tempfile::tempdir().unwrap(), links };
            fs::create_dir_all(cache.model().join("refs")).unwrap();
            fs::write(cache.model().join("refs/main"), COMMIT).unwrap();
            cache
        }

        fn model(&self) -> PathBuf {
            self.dir.path().join("models--org--name")
        }

        fn add(&self, file: &str, text: &str) {
            let path = self.model().join("snapshots").join(COMMIT).join(file);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            if self.links && cfg!(unix) {
                let blob = self.model().join("blobs").join(format!("{:040x}", text.len()));
                fs::create_dir_all(blob.parent().unwrap()).unwrap();
                fs::write(&blob, text).unwrap();
                let up = "../".repeat(2 + file.matches('/').count());
                #[cfg(unix)]
                std::os::unix::fs::symlink(format!("{up}blobs/{:040x}", text.len()), path).unwrap();
                let _ = up;
            } else {
                fs::write(path, text).unwrap();
            }
        }

        fn add_absent(&self, file: &str) {
            let path = self.model().join(".no_exist").join(COMMIT).join(file);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, "").unwrap();
        }

        fn missing(&self, contents: Contents) -> MissingFiles {
            Repository::new(self.dir.path(), "org/name").missing_files(COMMIT, contents)
        }

        #[cfg(not(feature = "download"))]
        fn find_online(&self) -> Result<PathBuf, HubError> {
            let cache = self.dir.path().to_owned();
            let environment = Environment { cache, endpoint: "http://127.0.0.1:9".into(), token: None, offline: false };
            let request = Request::new("org/name", Contents::Model);
            Hub::new(environment).find(&request, &mut |_| ()).map(|snapshot| snapshot.folder)
        }

        fn find(&self, revision: Option<&str>, contents: Contents) -> Result<PathBuf, HubError> {
            self.find_offline(revision, contents).map(|snapshot| snapshot.folder)
        }

        fn find_offline(&self, revision: Option<&str>, contents: Contents) -> Result<Snapshot, HubError> {
            let environment = Environment {
                cache: self.dir.path().to_owned(),
                endpoint: "http://127.0.0.1:9".into(),
                token: None,
                offline: true,
            };
            let request = Request { revision, ..Request::new("org/name", contents) };
            Hub::new(environment).find(&request, &mut |_| ())
        }
    }

    #[test]
    fn snapshots_of_huggingface_hub_are_found_with_and_without_links() {
        for links in [true, false] {
            let cache = Cache::new(links);
            cache.add("config.json", "{}");
            cache.add("model.safetensors", "weights");
            let error = cache.find(Some("v2"), Contents::Model).unwrap_err().to_string();
            assert!(error.contains("revision v2") && error.contains("`offline`"), "{error}");
            cache.add("vocab.txt", "[PAD]\n");
            cache.add("tokenizer_config.json", "{ }");
            let expected = cache.model().join("snapshots").join(COMMIT);
            for revision in [None, Some("main"), Some(COMMIT)] {
                assert_eq!(cache.find(revision, Contents::Model).unwrap(), expected, "{revision:?}");
            }
            assert_eq!(cache.missing(Contents::Model), MissingFiles::default());
        }
    }

    #[test]
    fn incomplete_snapshots_are_rejected() {
        let cache = Cache::new(true);
        let missing = |cache: &Cache| cache.find(None, Contents::Model).unwrap_err().to_string();
        assert!(missing(&cache).contains("config.json, model.safetensors"), "{}", missing(&cache));
        cache.add("config.json", "{}");
        cache.add("pytorch_model.bin", "pickled");
        assert!(missing(&cache).contains("missing model.safetensors"));
        assert!(cache.find(None, Contents::Source).is_ok(), "a source may be a pickle");
        cache
            .add("model.safetensors.index.json", r#"{"weight_map": {"a": "one.safetensors", "b": "two.safetensors"}}"#);
        cache.add("one.safetensors", "1");
        assert!(missing(&cache).contains("missing two.safetensors"), "{}", missing(&cache));
        cache.add("two.safetensors", "22");
        assert!(cache.find(None, Contents::Model).is_ok());
        // A removed blob leaves a broken link.
        if cfg!(unix) {
            fs::remove_file(cache.model().join("blobs").join(format!("{:040x}", 2))).unwrap();
            assert!(missing(&cache).contains("missing"), "{}", missing(&cache));
        }
    }

    #[test]
    fn files_that_are_known_to_be_absent_are_not_missing() {
        let cache = Cache::new(true);
        cache.add("config.json", "{}");
        cache.add("model.safetensors", "weights");
        let unknown = |contents| cache.missing(contents).unknown.join("; ");
        assert_eq!(unknown(Contents::Model), TOKENIZERS.join(" or "));
        for name in TOKENIZERS {
            assert!(!cache.missing(Contents::Model).is_empty() && cache.missing(Contents::Model).is_usable());
            cache.add_absent(name);
        }
        assert!(cache.missing(Contents::Model).is_empty());
        assert_eq!(unknown(Contents::Vectors), "modules.json");
        cache.add_absent("modules.json");
        assert!(cache.missing(Contents::Vectors).is_empty());
    }

    #[test]
    fn offline_use_with_unknown_modules_gives_a_note() {
        // As written by AutoModel and AutoTokenizer of Transformers.
        let cache = Cache::new(true);
        cache.add("config.json", "{}");
        cache.add("model.safetensors", "weights");
        cache.add("vocab.txt", "[PAD]\n");
        let note = |contents| cache.find_offline(None, contents).unwrap().note;
        let text = note(Contents::Vectors).unwrap();
        for part in ["org/name", "modules.json", "tokenizer_config.json", "mean of the tokens", "without `offline`"] {
            assert!(text.contains(part), "{text}");
        }
        let text = note(Contents::Model).unwrap();
        assert!(text.contains("tokenizer_config.json") && !text.contains("modules.json"), "{text}");
        cache.add_absent("tokenizer_config.json");
        cache.add_absent("modules.json");
        assert_eq!((note(Contents::Model), note(Contents::Vectors)), (None, None));
    }

    #[test]
    fn tokenizers_do_not_need_weights() {
        let cache = Cache::new(true);
        assert_eq!(cache.missing(Contents::Tokenizer).required, [TOKENIZERS.join(" or ")]);
        cache.add("vocab.json", "{}");
        assert_eq!(cache.missing(Contents::Tokenizer).required, ["merges.txt"]);
        cache.add("vocab.txt", "[PAD]\n");
        // Its settings define whether it is cased.
        assert_eq!(cache.missing(Contents::Tokenizer).unknown, ["tokenizer_config.json"]);
        cache.add("tokenizer.json", "{ }");
        assert_eq!(
            cache.missing(Contents::Tokenizer).unknown,
            ["tokenizer_config.json"],
            "r2: it also determines how that file is read"
        );
        cache.add_absent("tokenizer_config.json");
        assert!(cache.missing(Contents::Tokenizer).is_empty());
        assert!(cache.find(None, Contents::Model).is_err());
    }

    #[cfg(not(feature = "download"))]
    #[test]
    fn builds_without_downloads_use_the_cache_and_explain_how_to_download() {
        let cache = Cache::new(true);
        let error = cache.find_online().unwrap_err().to_string();
        assert!(error.contains("hf download org/name") && error.contains("feature `hub`"), "{error}");
        cache.add("config.json", "{}");
        cache.add("model.safetensors", "weights");
        assert!(cache.find_online().is_ok());
    }

    #[cfg(feature = "download")]
    #[test]
    fn without_links_new_blobs_are_moved_and_others_are_copied() {
        let dir = tempfile::tempdir().unwrap();
        let path = |name: &str| dir.path().join(name);
        fs::write(path("blob"), "contents").unwrap();
        writing::place(&path("blob"), &path("first"), false).unwrap();
        assert!(path("blob").is_file());
        writing::place(&path("blob"), &path("second"), true).unwrap();
        assert!(!path("blob").exists());
        for name in ["first", "second"] {
            assert_eq!(fs::read_to_string(path(name)).unwrap(), "contents");
        }
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 2, "no other file remains");
    }

    #[test]
    fn configurations_of_modules_are_required() {
        let cache = Cache::new(true);
        cache.add("config.json", "{}");
        cache.add("model.safetensors", "weights");
        cache.add("tokenizer.json", "{ }");
        cache.add_absent("tokenizer_config.json");
        let modules = r#"[{"path": "", "type": "Transformer"}, {"path": "1_Pooling", "type": "Pooling"}, {"path": "2", "type": "Normalize"}]"#;
        cache.add("modules.json", modules);
        assert_eq!(cache.missing(Contents::Vectors).required, ["1_Pooling/config.json"]);
        assert!(cache.missing(Contents::Model).is_empty());
        cache.add("1_Pooling/config.json", "{  }");
        // Lengths, case and prompts are in optional files.
        let files = ["sentence_bert_config.json", "config_sentence_transformers.json"];
        assert_eq!(
            (cache.missing(Contents::Vectors).required, cache.missing(Contents::Vectors).unknown),
            (vec![], files.map(str::to_owned).to_vec())
        );
        cache.add(files[0], "{\"max_seq_length\": 9}");
        cache.add_absent(files[1]);
        assert!(cache.missing(Contents::Vectors).is_empty());
    }
}
