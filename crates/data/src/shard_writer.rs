//! Writes the shards of one split: Arrow IPC files of limited size.

use std::fs::File;
use std::io::BufWriter;
use std::path::{Path, PathBuf};

use cloze_files::digest::{Digest, DigestWriter};

use crate::DataError;
use crate::arrow::write::{Column, FileWriter};
use crate::arrow::{Field, Int};
use crate::manifest::{ShardEntry, Split};
use crate::shards::offsets;

/// Number of tokens in a record batch. The writer holds one in memory.
const BATCH_TOKENS: usize = 1 << 20;

/// Writes the documents of one split into `dir/train-00000.arrow`, … The sizes of shards depend only on the documents.
pub(crate) struct ShardWriter {
    dir: PathBuf,
    split: Split,
    shard_tokens: u64,
    schema: [Field; 2],
    /// The current batch.
    ids: Ids,
    token_lengths: Vec<usize>,
    ends: Vec<u32>,
    end_lengths: Vec<usize>,
    characters: u64,
    open: Option<OpenShard>,
    entries: Vec<ShardEntry>,
}

enum Ids {
    U16(Vec<u16>),
    U32(Vec<u32>),
}

struct OpenShard {
    path: PathBuf,
    writer: FileWriter<BufWriter<DigestWriter<File>>>,
    entry: ShardEntry,
}

impl ShardWriter {
    /// `shard_tokens`: a shard ends with the batch that reaches this number of tokens.
    pub fn new(dir: &Path, split: Split, vocab_size: usize, shard_tokens: u64) -> ShardWriter {
        let fits_16_bits = vocab_size <= 1 << 16;
        let id_type = if fits_16_bits { Int::U16 } else { Int::U32 };
        ShardWriter {
            dir: dir.to_path_buf(),
            split,
            shard_tokens,
            schema: [Field::list("tokens", id_type), Field::list("sentence_ends", Int::U32)],
            ids: if fits_16_bits { Ids::U16(Vec::new()) } else { Ids::U32(Vec::new()) },
            token_lengths: Vec::new(),
            ends: Vec::new(),
            end_lengths: Vec::new(),
            characters: 0,
            open: None,
            entries: Vec::new(),
        }
    }

    /// Adds a document: its ids, which must be below the vocabulary's size, the end of each sentence, and the number of
    /// characters of its text.
    pub fn push(&mut self, ids: &[u32], ends: &[u32], characters: u64) -> Result<(), DataError> {
        match &mut self.ids {
            // The vocabulary has at most 65,536 ids.
            Ids::U16(all) => all.extend(ids.iter().map(|&id| id as u16)),
            Ids::U32(all) => all.extend_from_slice(ids),
        }
        self.token_lengths.push(ids.len());
        self.ends.extend_from_slice(ends);
        self.end_lengths.push(ends.len());
        self.characters += characters;
        let gathered = self.ids.len();
        let written = self.open.as_ref().map_or(0, |open| open.entry.tokens);
        let full = written + gathered as u64 >= self.shard_tokens;
        if gathered >= BATCH_TOKENS || full {
            self.write_batch()?;
        }
        if full {
            self.close_shard()?;
        }
        Ok(())
    }

    /// Writes the remaining documents. Returns the entries of all shards, in order.
    pub fn finish(mut self) -> Result<Vec<ShardEntry>, DataError> {
        if !self.token_lengths.is_empty() {
            self.write_batch()?;
        }
        self.close_shard()?;
        Ok(self.entries)
    }

    fn write_batch(&mut self) -> Result<(), DataError> {
        if self.open.is_none() {
            self.open = Some(self.open_shard()?);
        }
        let Some(open) = &mut self.open else {
            return Ok(());
        };
        open.entry.documents += self.token_lengths.len() as u64;
        open.entry.sentences += self.ends.len() as u64;
        open.entry.tokens += self.ids.len() as u64;
        *open.entry.characters.get_or_insert_default() += std::mem::take(&mut self.characters);
        let token_offsets = offsets(self.token_lengths.drain(..));
        let end_offsets = offsets(self.end_lengths.drain(..));
        let tokens = match &self.ids {
            Ids::U16(ids) => Column::lists(&token_offsets, ids),
            Ids::U32(ids) => Column::lists(&token_offsets, ids),
        };
        let written = open.writer.write(&[tokens, Column::lists(&end_offsets, &self.ends)]);
        written.map_err(|e| DataError::io("write", &open.path, e))?;
        self.ids.clear();
        self.ends.clear();
        Ok(())
    }

    fn open_shard(&self) -> Result<OpenShard, DataError> {
        let name = format!("{}-{:05}.arrow", self.split.name(), self.entries.len());
        let path = self.dir.join(&name);
        let file = File::create_new(&path).map_err(|e| DataError::io("create", &path, e))?;
        let file = BufWriter::with_capacity(1 << 20, DigestWriter::new(file));
        let writer = FileWriter::new(file, &self.schema).map_err(|e| DataError::io("write", &path, e))?;
        Ok(OpenShard {
            path,
            writer,
            entry: ShardEntry {
                file: name,
                bytes: 0,
                xxh3: String::new(),
                documents: 0,
                sentences: 0,
                tokens: 0,
                characters: None,
            },
        })
    }

    fn close_shard(&mut self) -> Result<(), DataError> {
        let Some(OpenShard { path, writer, mut entry }) = self.open.take() else {
            return Ok(());
        };
        let buffered = writer.finish().map_err(|e| DataError::io("write", &path, e))?;
        let digesting = buffered.into_inner().map_err(|e| DataError::io("write", &path, e.into_error()))?;
        let (file, Digest { bytes, xxh3 }) = digesting.finish();
        file.sync_all().map_err(|e| DataError::io("write", &path, e))?;
        (entry.bytes, entry.xxh3) = (bytes, xxh3);
        self.entries.push(entry);
        Ok(())
    }
}

impl Ids {
    fn clear(&mut self) {
        match self {
            Ids::U16(ids) => ids.clear(),
            Ids::U32(ids) => ids.clear(),
        }
    }

    fn len(&self) -> usize {
        match self {
            Ids::U16(ids) => ids.len(),
            Ids::U32(ids) => ids.len(),
        }
    }
}
