//! `manifest.json`: the contents of a folder of shards. It is written last, so a folder with a manifest is complete.

use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::DataError;
use crate::report::CorpusReport;

/// The manifest's file name.
pub const MANIFEST: &str = "manifest.json";
/// The sub-folder with a copy of the tokenizer.
pub const TOKENIZER: &str = "tokenizer";
/// The only version of the format.
const VERSION: u32 = 1;

/// A part of the documents: for training, or held out for validation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Split {
    /// Training documents.
    Train,
    /// Held-out documents.
    Valid,
}

impl Split {
    /// "train" or "valid". It is the prefix of the shards' file names.
    pub fn name(self) -> &'static str {
        match self {
            Split::Train => "train",
            Split::Valid => "valid",
        }
    }
}

/// The contents of a folder of shards.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[non_exhaustive]
pub struct Manifest {
    /// Version of this format: 1.
    pub version: u32,
    /// The tokenizer that made the ids.
    pub tokenizer: TokenizerEntry,
    /// The shards of each split.
    pub splits: Splits,
    /// The corpus statistics of [`prepare`](crate::prepare::prepare).
    pub report: CorpusReport,
}

/// The tokenizer that made the ids.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[non_exhaustive]
pub struct TokenizerEntry {
    /// Hash of the vocabulary in id order and of the tokenizer's settings.
    pub fingerprint: String,
    /// Number of ids.
    pub vocab_size: usize,
    /// Whether upper case is preserved.
    pub cased: bool,
}

/// The shards of both splits.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[non_exhaustive]
pub struct Splits {
    /// Training documents.
    pub train: SplitEntry,
    /// Held-out documents.
    pub valid: SplitEntry,
}

/// The shards of one split, in order.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[non_exhaustive]
pub struct SplitEntry {
    /// One entry per file.
    pub shards: Vec<ShardEntry>,
}

/// One shard file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[non_exhaustive]
pub struct ShardEntry {
    /// File name, relative to the manifest.
    pub file: String,
    /// Size of the file in bytes.
    pub bytes: u64,
    /// XXH3 checksum (128 bits, hexadecimal) of the file.
    pub xxh3: String,
    /// Number of documents (rows).
    pub documents: u64,
    /// Number of sentences.
    pub sentences: u64,
    /// Number of tokens.
    pub tokens: u64,
    /// Number of characters (Unicode scalar values) of the documents' text; missing in shards of earlier versions.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub characters: Option<u64>,
}

impl SplitEntry {
    /// A sum over the shards. A damaged manifest may contain any numbers.
    fn sum(&self, count: impl Fn(&ShardEntry) -> u64) -> u64 {
        self.shards.iter().map(count).fold(0, u64::saturating_add)
    }

    /// Number of documents in all shards.
    pub fn documents(&self) -> u64 {
        self.sum(|shard| shard.documents)
    }

    /// Number of sentences in all shards.
    pub fn sentences(&self) -> u64 {
        self.sum(|shard| shard.sentences)
    }

    /// Number of tokens in all shards.
    pub fn tokens(&self) -> u64 {
        self.sum(|shard| shard.tokens)
    }

    /// Number of characters of the text in all shards; `None` if it is missing in one of them.
    pub fn characters(&self) -> Option<u64> {
        self.shards.iter().map(|shard| shard.characters).try_fold(0u64, |sum, count| Some(sum.saturating_add(count?)))
    }
}

impl Manifest {
    pub(crate) fn new(tokenizer: TokenizerEntry, splits: Splits, report: CorpusReport) -> Manifest {
        Manifest { version: VERSION, tokenizer, splits, report }
    }

    /// Reads `dir/manifest.json`, but no shard.
    ///
    /// # Errors
    /// [`DataError::NotShards`] if it is missing or invalid.
    pub fn read(dir: &Path) -> Result<Manifest, DataError> {
        let reject = |reason: String| DataError::NotShards { path: dir.to_path_buf(), reason };
        let text = match std::fs::read_to_string(dir.join(MANIFEST)) {
            Ok(text) => text,
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => {
                return Err(reject(format!("found no {MANIFEST}")));
            }
            Err(e) => return Err(DataError::io("read", dir.join(MANIFEST), e)),
        };
        #[derive(Deserialize)]
        struct Version {
            version: u32,
        }
        let unreadable = |e: serde_json::Error| reject(format!("{MANIFEST}: {e}"));
        let version: Version = serde_json::from_str(&text).map_err(unreadable)?;
        if version.version != VERSION {
            return Err(reject(format!("{MANIFEST} has version {}, expected version {VERSION}", version.version)));
        }
        let manifest: Manifest = serde_json::from_str(&text).map_err(unreadable)?;
        let splits = [&manifest.splits.train, &manifest.splits.valid];
        for entry in splits.iter().flat_map(|split| &split.shards) {
            // A manifest must not refer to files outside its folder.
            if Path::new(&entry.file).file_name() != Some(entry.file.as_ref()) {
                return Err(reject(format!(
                    "{MANIFEST} contains the shard name {:?}, expected a plain file name",
                    entry.file
                )));
            }
        }
        Ok(manifest)
    }

    /// The shards of one split.
    pub fn split(&self, split: Split) -> &SplitEntry {
        match split {
            Split::Train => &self.splits.train,
            Split::Valid => &self.splits.valid,
        }
    }
}

impl ShardEntry {
    /// Compares the file's size and checksum with this entry.
    pub(crate) fn check(&self, path: &Path) -> Result<(), DataError> {
        let damaged = |reason: String| DataError::ShardDamaged { path: path.to_path_buf(), reason };
        let bytes = match std::fs::metadata(path) {
            Ok(metadata) => metadata.len(),
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => {
                return Err(damaged("missing".into()));
            }
            Err(e) => return Err(DataError::io("open", path, e)),
        };
        if bytes != self.bytes {
            return Err(damaged(format!("found {bytes} bytes, expected {} according to the manifest", self.bytes)));
        }
        let found = cloze_files::digest::of_file(path)?.xxh3;
        if found != self.xxh3 {
            return Err(damaged(format!("found checksum {found}, expected {} according to the manifest", self.xxh3)));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The sum overflowed.
    #[test]
    fn a_damaged_manifest_may_contain_any_numbers() {
        let (documents, sentences, tokens) = (u64::MAX, u64::MAX - 1, 1);
        let entry = ShardEntry {
            file: "train-00000.arrow".to_owned(),
            bytes: 0,
            xxh3: String::new(),
            documents,
            sentences,
            tokens,
            characters: None,
        };
        let split = SplitEntry { shards: vec![entry.clone(), entry] };
        assert_eq!((split.documents(), split.sentences(), split.tokens()), (u64::MAX, u64::MAX, 2));
        assert_eq!(split.characters(), None, "shards of earlier versions");
    }
}
