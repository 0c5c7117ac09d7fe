//! The cache's layout, as `huggingface_hub` has it.
//!
//! ```text
//! CACHE/models--ORG--NAME/blobs/ETAG                 contents
//! CACHE/models--ORG--NAME/snapshots/COMMIT/FILE      links to them, or the files themselves where links are not possible
//! CACHE/models--ORG--NAME/refs/REVISION              the commit of a branch or tag
//! CACHE/models--ORG--NAME/.no_exist/COMMIT/FILE      empty: the commit has no such file
//! CACHE/models--ORG--NAME/.incoming                  ours: a cache of the same layout for transfers; blobs/ETAG.part is one under way
//! CACHE/.locks/models--ORG--NAME/ETAG.lock           locked while a process downloads
//! ```
//!
//! What arrives is checked in `.incoming` and moved to its place after that: a process that is killed in between leaves nothing that
//! this or another program takes for whole.

use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};

use crate::Contents;
use crate::files::{self, CONFIG, MODULES, OF_SENTENCES, TOKENIZER_CONFIG, TOKENIZERS, Weights};

/// A model's folder in the cache.
#[derive(Debug)]
pub(crate) struct Repository {
    root: PathBuf,
    #[cfg(feature = "download")]
    locks: PathBuf,
}

/// What a snapshot lacks.
#[derive(Debug, Default, PartialEq)]
pub(crate) struct Lacks {
    /// Files without which nothing can be done.
    needed: Vec<String>,
    /// Files that the commit may or may not have: nobody has asked yet.
    unknown: Vec<String>,
}

impl Lacks {
    pub(crate) fn is_nothing(&self) -> bool {
        self.is_bearable() && self.unknown.is_empty()
    }

    /// Whether the model can be used if the hub cannot be asked.
    pub(crate) fn is_bearable(&self) -> bool {
        self.needed.is_empty()
    }

    /// What a user should know of a model that is used all the same; `remedy` says how to get the rest.
    pub(crate) fn caution(&self, name: &str, remedy: &str) -> Option<String> {
        if self.unknown.is_empty() {
            return None;
        }
        let pooling = match self.unknown.iter().any(|file| file == MODULES) {
            true => " (without modules.json, vectors are the mean of the tokens)",
            false => "",
        };
        let files = self.unknown.join(", ");
        Some(format!(
            "the cache does not say whether the model {name:?} has {files}; it is used as if it had none{pooling}; {remedy}"
        ))
    }
}

impl fmt::Display for Lacks {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.needed.join(", "))
    }
}

/// Whether a revision is a commit.
pub(crate) fn is_commit(text: &str) -> bool {
    text.len() == 40 && text.chars().all(|c| c.is_ascii_hexdigit())
}

impl Repository {
    /// Names a model's folder; touches nothing.
    pub(crate) fn new(cache: &Path, name: &str) -> Repository {
        let folder = format!("models--{}", name.replace('/', "--"));
        Repository {
            root: cache.join(&folder),
            #[cfg(feature = "download")]
            locks: cache.join(".locks").join(folder),
        }
    }

    /// The commit of a revision, if the cache knows one.
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

    /// The folder of a commit's files.
    pub(crate) fn snapshot(&self, commit: &str) -> PathBuf {
        self.root.join("snapshots").join(commit)
    }

    fn absence(&self, commit: &str, file: &str) -> PathBuf {
        self.root.join(".no_exist").join(commit).join(file)
    }

    /// What a snapshot lacks of what is wanted.
    pub(crate) fn lacks(&self, commit: &str, wanted: Contents) -> Lacks {
        let folder = self.snapshot(commit);
        let has = |name: &str| folder.join(name).is_file();
        let is_known = |name: &str| has(name) || self.absence(commit, name).is_file();
        let mut lacks = Lacks::default();
        if wanted != Contents::Tokenizer && files::config(&has, wanted).is_none() {
            lacks.needed.push(CONFIG.to_owned());
        }
        let names: Vec<String> = fs::read_dir(&folder)
            .map(|entries| entries.flatten().map(|entry| entry.file_name().to_string_lossy().into_owned()).collect())
            .unwrap_or_default();
        match files::weights(&has, &names, wanted) {
            Some(Weights::Files(files)) => lacks.needed.extend(files.into_iter().filter(|file| !has(file))),
            Some(Weights::Index(index)) => match fs::read(folder.join(index)).map(|bytes| files::shards(&bytes)) {
                Ok(Ok(shards)) => lacks.needed.extend(shards.into_iter().filter(|shard| !has(shard))),
                _ => lacks.needed.push(index.to_owned()),
            },
            None => lacks.needed.push("model.safetensors".to_owned()),
        }
        match TOKENIZERS.iter().find(|name| has(name)) {
            // It decides how a tokenizer.json is read, too.
            Some(_) if !is_known(TOKENIZER_CONFIG) => lacks.unknown.push(TOKENIZER_CONFIG.to_owned()),
            Some(_) => {}
            None if wanted == Contents::Tokenizer => lacks.needed.push(TOKENIZERS.join(" or ")),
            // A model may come without a tokenizer; then that is written down.
            None if TOKENIZERS.iter().all(|name| is_known(name)) => {}
            None => lacks.unknown.push(TOKENIZERS.join(" or ")),
        }
        if matches!(wanted, Contents::Vectors | Contents::Source) {
            let of_sentences = OF_SENTENCES.into_iter().filter(|_| has(MODULES));
            lacks.unknown.extend([MODULES].into_iter().chain(of_sentences).filter(|n| !is_known(n)).map(str::to_owned));
            let modules = fs::read(folder.join(MODULES)).map(|text| files::modules(&text)).unwrap_or_default();
            for module in modules.iter().filter(|module| module.has_files) {
                let config = format!("{}/{CONFIG}", module.path);
                if !is_known(&config) {
                    lacks.needed.push(config);
                }
            }
        }
        lacks
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

    /// The path of an error.
    fn at(path: &Path) -> impl FnOnce(io::Error) -> HubError + use<'_> {
        move |source| HubError::Cache { path: path.to_owned(), source }
    }

    fn create_parent(path: &Path) -> Result<(), HubError> {
        match path.parent() {
            Some(parent) => fs::create_dir_all(parent).map_err(at(parent)),
            None => Ok(()),
        }
    }

    /// A temporary path next to another, used by no other thread or process.
    fn beside(path: &Path) -> PathBuf {
        static USED: AtomicUsize = AtomicUsize::new(0);
        let mut aside = path.as_os_str().to_owned();
        aside.push(format!(".{}-{}.tmp", std::process::id(), USED.fetch_add(1, Ordering::Relaxed)));
        PathBuf::from(aside)
    }

    /// Writes a file aside and renames it into place, so that nobody reads half of it.
    fn write(path: &Path, bytes: &[u8]) -> Result<(), HubError> {
        create_parent(path)?;
        let aside = beside(path);
        fs::write(&aside, bytes).and_then(|()| fs::rename(&aside, path)).map_err(at(path))
    }

    impl Repository {
        /// Writes down that a commit lacks a file.
        pub(crate) fn mark_absent(&self, commit: &str, file: &str) -> Result<(), HubError> {
            write(&self.absence(commit, file), b"")
        }

        /// Writes down the commit of a branch or tag.
        pub(crate) fn set_commit(&self, revision: &str, commit: &str) -> Result<(), HubError> {
            if is_commit(revision) || self.commit(revision).as_deref() == Some(commit) {
                return Ok(());
            }
            write(&self.reference(revision), commit.as_bytes())
        }

        /// The contents of an ETag.
        pub(crate) fn blob(&self, etag: &str) -> PathBuf {
            self.root.join("blobs").join(etag)
        }

        /// The cache that transfers write to.
        pub(crate) fn incoming(&self) -> PathBuf {
            self.root.join(".incoming")
        }

        /// Moves what has arrived to its place.
        pub(crate) fn accept(&self, arrived: &Path, blob: &Path) -> Result<(), HubError> {
            create_parent(blob)?;
            fs::rename(arrived, blob).map_err(at(blob))
        }

        /// Removes what the transfer of a file leaves in the cache of transfers, and those of its folders that become empty. A
        /// part stays.
        pub(crate) fn clear(&self, blob: &Path, commit: &str, file: &str) {
            let cache = self.root.parent().unwrap_or(&self.root);
            for leftover in [blob.to_owned(), self.snapshot(commit).join(file), self.reference(commit)] {
                let _ = fs::remove_file(&leftover);
                let mut folders = leftover.ancestors().skip(1).take_while(|folder| folder.starts_with(cache));
                let _ = folders.try_for_each(fs::remove_dir);
            }
        }

        /// Keeps other processes from downloading the same file for as long as what is returned lives, as
        /// `huggingface_hub` does. `wait` is called where that takes a while.
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

        /// Makes a blob a file of a commit by a relative link. `is_new`: no other commit can have it yet.
        pub(crate) fn link(&self, blob: &Path, commit: &str, file: &str, is_new: bool) -> Result<(), HubError> {
            let pointer = self.snapshot(commit).join(file);
            if pointer.is_file() {
                return Ok(());
            }
            create_parent(&pointer)?;
            // A link to a blob that is gone.
            let _ = fs::remove_file(&pointer);
            let target = blob.strip_prefix(&self.root).unwrap_or(blob);
            let up: PathBuf = std::iter::repeat_n("..", 2 + file.matches('/').count()).collect();
            match symlink(&up.join(target), &pointer) {
                Ok(()) => Ok(()),
                Err(_) => place(blob, &pointer, is_new),
            }
        }
    }

    /// Where the file system has no links: a new blob becomes the file itself, another is copied.
    pub(super) fn place(blob: &Path, pointer: &Path, is_new: bool) -> Result<(), HubError> {
        if is_new {
            return fs::rename(blob, pointer).map_err(at(pointer));
        }
        // Aside first: a process that is killed must not leave half a file.
        let aside = beside(pointer);
        fs::copy(blob, &aside).and_then(|_| fs::rename(&aside, pointer)).map_err(at(pointer))
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
    use crate::{Environment, Found, Hub, HubError, Request};

    const COMMIT: &str = "0123456789abcdef0123456789abcdef01234567";

    /// A cache with one model as `huggingface_hub` leaves it: links from the snapshot into blobs, or files without links.
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

        fn absent(&self, file: &str) {
            let path = self.model().join(".no_exist").join(COMMIT).join(file);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, "").unwrap();
        }

        fn lacks(&self, wanted: Contents) -> Lacks {
            Repository::new(self.dir.path(), "org/name").lacks(COMMIT, wanted)
        }

        #[cfg(not(feature = "download"))]
        fn find_online(&self) -> Result<PathBuf, HubError> {
            let cache = self.dir.path().to_owned();
            let environment = Environment { cache, endpoint: "http://127.0.0.1:9".into(), token: None, offline: false };
            let wish = Request::new("org/name", Contents::Model);
            Hub::new(environment).find(&wish, &mut |_| ()).map(|found| found.folder)
        }

        fn find(&self, revision: Option<&str>, wanted: Contents) -> Result<PathBuf, HubError> {
            self.find_offline(revision, wanted).map(|found| found.folder)
        }

        fn find_offline(&self, revision: Option<&str>, wanted: Contents) -> Result<Found, HubError> {
            let environment = Environment {
                cache: self.dir.path().to_owned(),
                endpoint: "http://127.0.0.1:9".into(),
                token: None,
                offline: true,
            };
            let wish = Request { revision, ..Request::new("org/name", wanted) };
            Hub::new(environment).find(&wish, &mut |_| ())
        }
    }

    #[test]
    fn a_snapshot_of_huggingface_hub_is_found_with_links_and_without() {
        for links in [true, false] {
            let cache = Cache::new(links);
            cache.add("config.json", "{}");
            cache.add("model.safetensors", "weights");
            let error = cache.find(Some("v2"), Contents::Model).unwrap_err().to_string();
            assert!(error.contains("revision v2") && error.contains("--offline"), "{error}");
            cache.add("vocab.txt", "[PAD]\n");
            cache.add("tokenizer_config.json", "{ }");
            let expected = cache.model().join("snapshots").join(COMMIT);
            for revision in [None, Some("main"), Some(COMMIT)] {
                assert_eq!(cache.find(revision, Contents::Model).unwrap(), expected, "{revision:?}");
            }
            assert_eq!(cache.lacks(Contents::Model), Lacks::default());
        }
    }

    #[test]
    fn a_snapshot_with_holes_is_not_whole() {
        let cache = Cache::new(true);
        let missing = |cache: &Cache| cache.find(None, Contents::Model).unwrap_err().to_string();
        assert!(missing(&cache).contains("config.json, model.safetensors"), "{}", missing(&cache));
        cache.add("config.json", "{}");
        cache.add("pytorch_model.bin", "pickled");
        assert!(missing(&cache).contains("lacks model.safetensors"));
        assert!(cache.find(None, Contents::Source).is_ok(), "a source may be a pickle");
        cache
            .add("model.safetensors.index.json", r#"{"weight_map": {"a": "one.safetensors", "b": "two.safetensors"}}"#);
        cache.add("one.safetensors", "1");
        assert!(missing(&cache).contains("lacks two.safetensors"), "{}", missing(&cache));
        cache.add("two.safetensors", "22");
        assert!(cache.find(None, Contents::Model).is_ok());
        // A blob that was removed leaves a link to nothing.
        if cfg!(unix) {
            fs::remove_file(cache.model().join("blobs").join(format!("{:040x}", 2))).unwrap();
            assert!(missing(&cache).contains("lacks"), "{}", missing(&cache));
        }
    }

    #[test]
    fn what_is_known_to_be_absent_is_not_asked_for_again() {
        let cache = Cache::new(true);
        cache.add("config.json", "{}");
        cache.add("model.safetensors", "weights");
        let unknown = |wanted| cache.lacks(wanted).unknown.join("; ");
        assert_eq!(unknown(Contents::Model), "tokenizer.json or vocab.txt");
        cache.absent("tokenizer.json");
        assert!(!cache.lacks(Contents::Model).is_nothing() && cache.lacks(Contents::Model).is_bearable());
        cache.absent("vocab.txt");
        assert!(cache.lacks(Contents::Model).is_nothing());
        assert_eq!(unknown(Contents::Vectors), "modules.json");
        cache.absent("modules.json");
        assert!(cache.lacks(Contents::Vectors).is_nothing());
    }

    #[test]
    fn a_cache_that_does_not_know_of_modules_says_so_offline() {
        // As AutoModel and AutoTokenizer of Transformers leave it.
        let cache = Cache::new(true);
        cache.add("config.json", "{}");
        cache.add("model.safetensors", "weights");
        cache.add("vocab.txt", "[PAD]\n");
        let note = |wanted| cache.find_offline(None, wanted).unwrap().note;
        let said = note(Contents::Vectors).unwrap();
        for part in ["org/name", "modules.json", "tokenizer_config.json", "mean of the tokens", "without --offline"] {
            assert!(said.contains(part), "{said}");
        }
        let said = note(Contents::Model).unwrap();
        assert!(said.contains("tokenizer_config.json") && !said.contains("modules.json"), "{said}");
        cache.absent("tokenizer_config.json");
        cache.absent("modules.json");
        assert_eq!((note(Contents::Model), note(Contents::Vectors)), (None, None));
    }

    #[test]
    fn a_tokenizer_needs_no_weights() {
        let cache = Cache::new(true);
        assert_eq!(cache.lacks(Contents::Tokenizer).needed, ["tokenizer.json or vocab.txt"]);
        cache.add("vocab.txt", "[PAD]\n");
        // Whether it is cased stands in its settings.
        assert_eq!(cache.lacks(Contents::Tokenizer).unknown, ["tokenizer_config.json"]);
        cache.add("tokenizer.json", "{ }");
        assert_eq!(
            cache.lacks(Contents::Tokenizer).unknown,
            ["tokenizer_config.json"],
            "r2: it decides of that file too"
        );
        cache.absent("tokenizer_config.json");
        assert!(cache.lacks(Contents::Tokenizer).is_nothing());
        assert!(cache.find(None, Contents::Model).is_err());
    }

    #[cfg(not(feature = "download"))]
    #[test]
    fn a_build_without_downloads_takes_what_is_there_and_says_how_to_get_more() {
        let cache = Cache::new(true);
        let error = cache.find_online().unwrap_err().to_string();
        assert!(error.contains("hf download org/name") && error.contains("feature `hub`"), "{error}");
        cache.add("config.json", "{}");
        cache.add("model.safetensors", "weights");
        assert!(cache.find_online().is_ok());
    }

    #[cfg(feature = "download")]
    #[test]
    fn without_links_a_new_blob_is_moved_and_another_is_copied() {
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
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 2, "nothing is left beside them");
    }

    #[test]
    fn modules_bring_their_configurations() {
        let cache = Cache::new(true);
        cache.add("config.json", "{}");
        cache.add("model.safetensors", "weights");
        cache.add("tokenizer.json", "{ }");
        cache.absent("tokenizer_config.json");
        let modules = r#"[{"path": "", "type": "Transformer"}, {"path": "1_Pooling", "type": "Pooling"}, {"path": "2", "type": "Normalize"}]"#;
        cache.add("modules.json", modules);
        assert_eq!(cache.lacks(Contents::Vectors).needed, ["1_Pooling/config.json"]);
        assert!(cache.lacks(Contents::Model).is_nothing());
        cache.add("1_Pooling/config.json", "{  }");
        // Lengths, case and prompts stand in files that a model may have.
        let files = ["sentence_bert_config.json", "config_sentence_transformers.json"];
        assert_eq!(
            (cache.lacks(Contents::Vectors).needed, cache.lacks(Contents::Vectors).unknown),
            (vec![], files.map(str::to_owned).to_vec())
        );
        cache.add(files[0], "{\"max_seq_length\": 9}");
        cache.absent(files[1]);
        assert!(cache.lacks(Contents::Vectors).is_nothing());
    }
}
