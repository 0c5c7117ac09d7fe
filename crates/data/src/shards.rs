//! Memory-mapped shards in Arrow's IPC file format. Each row is a document: `tokens: list<uint16|uint32>` (all ids of the
//! document) and `sentence_ends: list<uint32>` (the exclusive end of each sentence in `tokens`).
//!
//! Reading does not copy: the arrays point into the map. When the folder is opened, the size and checksum of each shard are
//! compared with the manifest. If a file is truncated *while* it is mapped, the process ends with SIGBUS, as for any map.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::marker::PhantomData;
use std::ops::{Deref, Range};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use cloze_text::Tokenizer;
use memmap2::Mmap;
use zerocopy::{FromBytes, Immutable};

use crate::DataError;
use crate::arrow::Int;
use crate::arrow::read::{self, Batch, Lists};
use crate::manifest::Manifest;
pub use crate::manifest::Split;
use crate::mapped;

/// A folder of shards written by [`prepare`](crate::prepare::prepare), verified and mapped.
#[derive(Clone, Debug)]
pub struct Shards {
    /// Counts, checksums, tokenizer and corpus report.
    pub manifest: Manifest,
    dir: PathBuf,
    train: Documents,
    valid: Documents,
}

impl Shards {
    /// Opens a folder, and compares every shard's size and checksum with the manifest.
    ///
    /// # Errors
    /// [`DataError::NotShards`] for a folder without a readable manifest; [`DataError::ShardDamaged`] with the first shard that
    /// is missing, truncated or altered, or that contains an id outside the vocabulary.
    pub fn open(dir: &Path) -> Result<Shards, DataError> {
        let manifest = Manifest::read(dir)?;
        let open = |split: Split| -> Result<Documents, DataError> {
            let mut parts = Vec::new();
            let listed = manifest.split(split);
            for entry in &listed.shards {
                let path = dir.join(&entry.file);
                entry.check(&path)?;
                parts.extend(map_chunks(&path, Some(manifest.tokenizer.vocab_size))?);
            }
            let documents = Documents::from_chunks(parts);
            for (what, expected, found) in [
                ("documents", listed.documents(), documents.len() as u64),
                ("tokens", listed.tokens(), documents.tokens()),
                ("sentences", listed.sentences(), documents.total_sentences() as u64),
            ] {
                if expected != found {
                    return Err(DataError::NotShards {
                        path: dir.to_path_buf(),
                        reason: format!(
                            "expected {expected} {} {what} according to the manifest, found {found} in the shards",
                            split.name()
                        ),
                    });
                }
            }
            Ok(documents)
        };
        Ok(Shards { train: open(Split::Train)?, valid: open(Split::Valid)?, dir: dir.to_path_buf(), manifest })
    }

    /// The documents of one split.
    pub fn split(&self, split: Split) -> &Documents {
        match split {
            Split::Train => &self.train,
            Split::Valid => &self.valid,
        }
    }

    /// The folder that was opened.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// The folder with a copy of the tokenizer that made these shards.
    pub fn tokenizer_dir(&self) -> PathBuf {
        self.dir.join(crate::manifest::TOKENIZER)
    }

    /// Compares a tokenizer with the one that made these shards.
    ///
    /// # Errors
    /// [`DataError::OtherTokenizer`] if their fingerprints differ; [`DataError::NotShards`] if the manifest has a wrong vocabulary
    /// size.
    pub fn check_tokenizer(&self, tokenizer: &Tokenizer) -> Result<(), DataError> {
        let (expected, found) = (&self.manifest.tokenizer, tokenizer.fingerprint());
        if expected.fingerprint != found {
            let expected = expected.fingerprint.clone();
            return Err(DataError::OtherTokenizer { path: self.dir.clone(), expected, found });
        }
        if expected.vocab_size != tokenizer.vocab_size() {
            let (counted, tokens) = (expected.vocab_size, tokenizer.vocab_size());
            let reason =
                format!("expected {counted} tokens in the vocabulary according to the manifest, found {tokens}");
            return Err(DataError::NotShards { path: self.dir.clone(), reason });
        }
        Ok(())
    }
}

/// Documents as token ids with sentence boundaries, mapped from shards or in memory. Cloning is cheap.
#[derive(Clone, Debug)]
pub struct Documents {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    chunks: Vec<Chunk>,
    /// `[chunks+1]`: the index of the first document of each chunk, then the number of documents.
    starts: Vec<usize>,
    tokens: u64,
    sentences: usize,
}

/// One record batch.
#[derive(Debug)]
struct Chunk {
    tokens: Tokens,
    /// `[documents+1]`: the first token of each document.
    token_offsets: Numbers<i32>,
    ends: Numbers<u32>,
    /// `[documents+1]`: the first sentence end of each document.
    end_offsets: Numbers<i32>,
}

#[derive(Debug)]
enum Tokens {
    U16(Numbers<u16>),
    U32(Numbers<u32>),
}

/// Numbers in memory or in a mapped file.
#[derive(Debug)]
enum Numbers<T> {
    Memory(Vec<T>),
    /// A range of bytes, aligned for `T`.
    Mapped {
        map: Arc<Mmap>,
        bytes: Range<usize>,
        marker: PhantomData<T>,
    },
}

impl<T> Numbers<T> {
    fn mapped(map: &Arc<Mmap>, bytes: Range<usize>) -> Numbers<T> {
        Numbers::Mapped { map: Arc::clone(map), bytes, marker: PhantomData }
    }
}

impl<T: FromBytes + Immutable> Deref for Numbers<T> {
    type Target = [T];

    fn deref(&self) -> &[T] {
        match self {
            Numbers::Memory(numbers) => numbers,
            Numbers::Mapped { map, bytes, .. } => {
                <[T]>::ref_from_bytes(&map[bytes.clone()]).expect("length and alignment were checked when it was read")
            }
        }
    }
}

impl Chunk {
    fn documents(&self) -> usize {
        self.token_offsets.len() - 1
    }

    fn token_range(&self, doc: usize) -> Range<usize> {
        self.token_offsets[doc] as usize..self.token_offsets[doc + 1] as usize
    }

    fn ends(&self, doc: usize) -> &[u32] {
        &self.ends[self.end_offsets[doc] as usize..self.end_offsets[doc + 1] as usize]
    }

    /// Sentence ends must not decrease, and the last must equal the document's length.
    fn check(&self) -> Result<(), String> {
        for doc in 0..self.documents() {
            let ends = self.ends(doc);
            let length = self.token_range(doc).len();
            if ends.last().copied().unwrap_or(0) as usize != length || ends.windows(2).any(|pair| pair[0] > pair[1]) {
                return Err(format!(
                    "document {doc} of a batch: expected ascending sentence ends up to its length, {length} tokens"
                ));
            }
        }
        Ok(())
    }
}

/// Number of bytes read at once.
const BLOCK: usize = 1 << 20;

impl Chunk {
    /// The first id outside a vocabulary of this size, and its row. It reads the file instead of the map, because pages of
    /// the map would count as memory of this process.
    fn find_invalid_id(&self, file: &mut File, vocab_size: usize) -> io::Result<Option<(u32, usize)>> {
        let (start, width) = match &self.tokens {
            Tokens::U16(_) if vocab_size > u16::MAX.into() => return Ok(None),
            Tokens::U16(Numbers::Mapped { bytes, .. }) => (bytes.start, 2),
            Tokens::U32(Numbers::Mapped { bytes, .. }) => (bytes.start, 4),
            Tokens::U16(Numbers::Memory(_)) | Tokens::U32(Numbers::Memory(_)) => return Ok(None),
        };
        let [mut first, end] = [self.token_offsets[0], self.token_offsets[self.documents()]].map(|id| id as usize);
        file.seek(SeekFrom::Start((start + first * width) as u64))?;
        let mut block = vec![0; BLOCK.min((end - first) * width)];
        while first < end {
            let bytes = &mut block[..BLOCK.min((end - first) * width)];
            file.read_exact(bytes)?;
            let invalid = match width {
                2 => find_id_from(bytes.as_chunks().0, |id| u16::from_le_bytes(id).into(), vocab_size),
                _ => find_id_from(bytes.as_chunks().0, u32::from_le_bytes, vocab_size),
            };
            if let Some((position, id)) = invalid {
                let row = self.token_offsets.partition_point(|&offset| offset as usize <= first + position) - 1;
                return Ok(Some((id, row)));
            }
            first += bytes.len() / width;
        }
        Ok(None)
    }
}

/// The first id that is `vocab_size` or higher, with its position.
fn find_id_from<const N: usize>(
    ids: &[[u8; N]],
    read: impl Fn([u8; N]) -> u32,
    vocab_size: usize,
) -> Option<(usize, u32)> {
    let max = ids.iter().map(|&id| read(id)).max()?;
    if (max as usize) < vocab_size {
        return None;
    }
    ids.iter().map(|&id| read(id)).enumerate().find(|&(_, id)| id as usize >= vocab_size)
}

impl Documents {
    /// Documents in memory: `docs[document][sentence]` is a list of ids.
    pub fn from_memory(docs: Vec<Vec<Vec<u32>>>) -> Documents {
        let mut tokens = Vec::new();
        let mut ends = Vec::new();
        let mut token_lengths = Vec::with_capacity(docs.len());
        let mut end_lengths = Vec::with_capacity(docs.len());
        let mut chunks = Vec::new();
        let mut finish_chunk = |tokens: &mut Vec<u32>,
                                ends: &mut Vec<u32>,
                                token_lengths: &mut Vec<usize>,
                                end_lengths: &mut Vec<usize>| {
            chunks.push(Chunk {
                tokens: Tokens::U32(Numbers::Memory(std::mem::take(tokens))),
                token_offsets: Numbers::Memory(offsets(token_lengths.drain(..))),
                ends: Numbers::Memory(std::mem::take(ends)),
                end_offsets: Numbers::Memory(offsets(end_lengths.drain(..))),
            });
        };
        for document in docs {
            let start = tokens.len();
            end_lengths.push(document.len());
            for sentence in document {
                tokens.extend(sentence);
                ends.push((tokens.len() - start) as u32);
            }
            token_lengths.push(tokens.len() - start);
            // Offsets are i32: start a new chunk long before they overflow.
            if tokens.len() >= 1 << 28 {
                finish_chunk(&mut tokens, &mut ends, &mut token_lengths, &mut end_lengths);
            }
        }
        finish_chunk(&mut tokens, &mut ends, &mut token_lengths, &mut end_lengths);
        Documents::from_chunks(chunks)
    }

    /// Maps one shard file. Checks its structure, and its ids if `vocab_size` is given, but not its checksum (see
    /// [`Shards::open`]).
    ///
    /// # Errors
    /// [`DataError::ShardDamaged`] if the file is not a shard, or contains an id outside the vocabulary.
    pub fn open_file(path: &Path, vocab_size: Option<usize>) -> Result<Documents, DataError> {
        Ok(Documents::from_chunks(map_chunks(path, vocab_size)?))
    }

    fn from_chunks(chunks: Vec<Chunk>) -> Documents {
        let chunks: Vec<Chunk> = chunks.into_iter().filter(|c| c.documents() > 0).collect();
        let mut starts = vec![0];
        let mut tokens = 0;
        let mut sentences = 0;
        for chunk in &chunks {
            let documents = chunk.documents();
            starts.push(starts[starts.len() - 1] + documents);
            tokens += (chunk.token_offsets[documents] - chunk.token_offsets[0]) as u64;
            sentences += (chunk.end_offsets[documents] - chunk.end_offsets[0]) as usize;
        }
        Documents { inner: Arc::new(Inner { chunks, starts, tokens, sentences }) }
    }

    /// Number of documents.
    pub fn len(&self) -> usize {
        self.inner.starts[self.inner.starts.len() - 1]
    }

    /// Whether there are no documents.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Number of tokens in all documents.
    pub fn tokens(&self) -> u64 {
        self.inner.tokens
    }

    /// Number of sentences in all documents.
    pub fn total_sentences(&self) -> usize {
        self.inner.sentences
    }

    /// Number of sentences in one document, `doc` in `0..len()`.
    pub fn sentences(&self, doc: usize) -> usize {
        self.sentence_ends(doc).len()
    }

    /// The exclusive end of each sentence of a document, as token offsets from the beginning of the document.
    pub fn sentence_ends(&self, doc: usize) -> &[u32] {
        let (chunk, row) = self.locate(doc);
        chunk.ends(row)
    }

    /// Number of tokens in one document.
    pub fn document_len(&self, doc: usize) -> usize {
        let (chunk, row) = self.locate(doc);
        chunk.token_range(row).len()
    }

    /// Number of tokens in sentence `sentence` of document `doc`.
    pub fn sentence_len(&self, doc: usize, sentence: usize) -> usize {
        let ends = self.sentence_ends(doc);
        (ends[sentence] - start_of(ends, sentence)) as usize
    }

    /// Appends the ids of a range of a document's sentences to `out`.
    pub fn read(&self, doc: usize, sentences: Range<usize>, out: &mut Vec<u32>) {
        if sentences.is_empty() {
            return;
        }
        let (chunk, row) = self.locate(doc);
        let ends = chunk.ends(row);
        let base = chunk.token_range(row).start;
        let range = base + start_of(ends, sentences.start) as usize..base + ends[sentences.end - 1] as usize;
        match &chunk.tokens {
            Tokens::U16(ids) => out.extend(ids[range].iter().map(|&id| u32::from(id))),
            Tokens::U32(ids) => out.extend_from_slice(&ids[range]),
        }
    }

    fn locate(&self, doc: usize) -> (&Chunk, usize) {
        let inner = &*self.inner;
        let chunk = inner.starts.partition_point(|&start| start <= doc) - 1;
        (&inner.chunks[chunk], doc - inner.starts[chunk])
    }
}

fn start_of(ends: &[u32], sentence: usize) -> u32 {
    if sentence == 0 { 0 } else { ends[sentence - 1] }
}

/// The start of each list in the concatenation of lists with these lengths, then its total length, which must be below 2³¹.
pub(crate) fn offsets(lengths: impl IntoIterator<Item = usize>) -> Vec<i32> {
    let ends = lengths.into_iter().scan(0, |end, length| {
        *end += length as i32;
        Some(*end)
    });
    std::iter::once(0).chain(ends).collect()
}

/// Maps a shard and finds its record batches, without copying.
fn map_chunks(path: &Path, vocab_size: Option<usize>) -> Result<Vec<Chunk>, DataError> {
    let damaged = |reason: String| DataError::ShardDamaged { path: path.to_path_buf(), reason };
    let mut file = File::open(path).map_err(|e| DataError::io("open", path, e))?;
    let length = file.metadata().map_err(|e| DataError::io("read", path, e))?.len();
    if length == 0 {
        return Err(damaged("the file is empty".to_owned()));
    }
    let map = mapped::map(&file).map_err(|e| DataError::io("map", path, e))?;
    let map = Arc::new(map);
    let (mut chunks, mut documents) = (Vec::new(), 0);
    for batch in read::batches(&map).map_err(damaged)? {
        if batch.rows() == 0 {
            continue;
        }
        let chunk = chunk_of(&map, &batch).map_err(&damaged)?;
        chunk.check().map_err(&damaged)?;
        if let Some(vocab_size) = vocab_size {
            let invalid = chunk.find_invalid_id(&mut file, vocab_size);
            if let Some((id, row)) = invalid.map_err(|e| DataError::io("read", path, e))? {
                let document = documents + row + 1;
                return Err(damaged(format!("document {document} contains id {id}, expected ids below {vocab_size}")));
            }
        }
        documents += chunk.documents();
        chunks.push(chunk);
    }
    Ok(chunks)
}

fn chunk_of(map: &Arc<Mmap>, batch: &Batch) -> Result<Chunk, String> {
    let column = |name: &str| batch.lists(name).ok_or_else(|| format!("found no column \"{name}\" of lists"));
    let Lists { int, offsets, values } = column("tokens")?;
    let tokens = match int {
        Int::U16 => Tokens::U16(Numbers::mapped(map, values)),
        Int::U32 => Tokens::U32(Numbers::mapped(map, values)),
        other => return Err(format!("expected tokens of type uint16 or uint32, found {other:?}")),
    };
    let token_offsets = Numbers::mapped(map, offsets);
    let Lists { int: Int::U32, offsets, values } = column("sentence_ends")? else {
        return Err("expected sentence_ends of type uint32".to_owned());
    };
    Ok(Chunk { tokens, token_offsets, ends: Numbers::mapped(map, values), end_offsets: Numbers::mapped(map, offsets) })
}

#[cfg(test)]
mod tests {
    use cloze_testing::fuzz_seeds;

    use super::*;

    #[test]
    fn documents_in_memory_are_read_by_sentence() {
        let documents = Documents::from_memory(vec![
            vec![vec![1, 2, 3], vec![4]],
            vec![],
            vec![vec![70_000, 5], vec![], vec![6, 7]],
        ]);
        assert_eq!(documents.len(), 3);
        assert_eq!(documents.tokens(), 8);
        assert_eq!(documents.total_sentences(), 5);
        assert_eq!(documents.sentences(0), 2);
        assert_eq!(documents.sentences(1), 0);
        assert_eq!(documents.sentence_len(0, 0), 3);
        assert_eq!(documents.sentence_len(2, 1), 0);
        assert_eq!(documents.document_len(2), 4);
        let mut out = vec![9];
        documents.read(2, 0..1, &mut out);
        documents.read(2, 1..3, &mut out);
        documents.read(0, 1..2, &mut out);
        documents.read(0, 1..1, &mut out);
        assert_eq!(out, [9, 70_000, 5, 6, 7, 4]);
        assert!(Documents::from_memory(vec![]).is_empty());
    }

    #[test]
    fn file_that_is_not_a_shard_is_rejected() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("x.arrow");
        for bytes in [&b"short"[..], &[b'x'; 100][..]] {
            std::fs::write(&path, bytes).unwrap();
            let error = Documents::open_file(&path, None).unwrap_err().to_string();
            assert!(error.contains("x.arrow"), "{error}");
        }
    }

    /// Each seed must give documents or an error, without a panic.
    #[test]
    fn seeds_of_the_fuzz_target_are_read() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("x.arrow");
        for seed in fuzz_seeds("shards") {
            std::fs::write(&path, seed).unwrap();
            let Ok(documents) = Documents::open_file(&path, Some(100)) else { continue };
            let mut ids = Vec::new();
            (0..documents.len()).for_each(|doc| documents.read(doc, 0..documents.sentences(doc), &mut ids));
            assert_eq!(ids.len() as u64, documents.tokens());
        }
    }
}
