//! Text → shards. One thread reads documents, worker threads (one per core) split them into sentences and tokenise them, and
//! the caller's thread writes them in order. The bytes written do not depend on the number of workers.
//!
//! If a job has several ranks, each reads all documents and tokenises a part of them; rank 0 receives the rest and writes:
//! see `exchange.rs`. The bytes do not depend on the number of ranks, either.
//!
//! All files are written into a folder `.OUT.partial` next to the output folder, synced, and renamed at the end. An
//! interrupted run leaves no output that looks complete.

mod chunk;
mod exchange;
mod filters;
mod wire;

use std::collections::BTreeMap;
use std::fs;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::Builder;

use cloze_comm::{Communicator, RootWork};
use cloze_text::Tokenizer;
use crossbeam_channel::{Receiver, bounded, unbounded};
use xxhash_rust::xxh3::{xxh3_64, xxh3_64_with_seed};

use crate::DataError;
use crate::corpus::{Corpus, CorpusNotes, CorpusOptions, Document, open_corpus};
use crate::manifest::{MANIFEST, Manifest, ShardEntry, Split, SplitEntry, Splits, TOKENIZER, TokenizerEntry};
use crate::report::{CorpusReport, Dropped, DuplicateCounter, Tally, VocabularyCase};
use crate::sentences;
use crate::shard_writer::ShardWriter;
use crate::shards::Documents;
use chunk::{TokenisedChunk, TokenisedDocument};
use exchange::{Exchange, Sink};
use filters::Filter;
pub use filters::Filters;

/// Maximal length of a sentence in tokens. Longer ones (lists, tables, text without punctuation) are split between words, so
/// that sequences of 512 tokens can contain any part of a text.
pub const MAX_SENTENCE: usize = 512;

/// Bytes of text that a worker processes at once.
const CHUNK_BYTES: usize = 256 << 10;
/// Memory per document in addition to its text, in bytes.
const DOCUMENT_BYTES: usize = 256;
/// Maximal bytes of text between the reader and the writer.
const IN_FLIGHT_BYTES: usize = 24 << 20;
/// Number of hashes in memory for counting duplicates, 36 MB per counter.
const MAX_HASHES: usize = 1_800_000;

/// The inputs, the output and the options of [`prepare`].
#[derive(Clone)]
#[non_exhaustive]
pub struct PrepareOptions {
    /// Files, folders, globs or `-`: see [`corpus`](crate::corpus).
    pub inputs: Vec<PathBuf>,
    /// Options for reading them.
    pub corpus: CorpusOptions,
    /// What is left out.
    pub filters: Filters,
    /// The tokenizer.
    pub tokenizer: Tokenizer,
    /// The output folder. It must not exist, or be empty.
    pub out: PathBuf,
    /// Fraction of the documents to hold out, `0 ≤ f < 1`. The choice depends only on the documents' numbers. Of two or more
    /// documents, at least one is held out and at least one is not; 0 holds out none.
    pub valid_fraction: f64,
    /// Number of tokenising threads; `None` for one per core.
    pub workers: Option<usize>,
    /// Number of tokens in a shard.
    pub shard_tokens: u64,
    /// The ranks of a job that work together: each reads all text and tokenises a part of it, rank 0 writes. By default, one process.
    pub ranks: Communicator,
}

impl PrepareOptions {
    /// The default options: 1 % held out, all cores, shards of 32 M tokens.
    pub fn new(inputs: Vec<PathBuf>, tokenizer: Tokenizer, out: PathBuf) -> PrepareOptions {
        PrepareOptions {
            inputs,
            corpus: CorpusOptions::default(),
            filters: Filters::default(),
            tokenizer,
            out,
            valid_fraction: 0.01,
            workers: None,
            shard_tokens: 32 << 20,
            ranks: Communicator::single(),
        }
    }
}

/// The progress of [`prepare`]. Rank 0 writes; at other ranks, only `bytes_read` and `bytes_total` are known.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct PrepareProgress {
    /// Compressed bytes of the files whose text has been written. Reading is further ahead.
    pub bytes_read: u64,
    /// Compressed size of all files; unknown with standard input.
    pub bytes_total: Option<u64>,
    /// Bytes of text written so far.
    pub text_bytes: u64,
    /// Documents written so far.
    pub documents: u64,
    /// Tokens written so far.
    pub tokens: u64,
}

/// Converts text to shards and returns statistics of the corpus. `progress` is called several times per second; if it
/// returns `Break`, the run stops and leaves no output.
///
/// If [`PrepareOptions::ranks`] are several, all of them must call this function, with the same options and files. All get the
/// report; `Break` of one rank stops all.
///
/// # Errors
/// Errors of the input, the output folder or the disk; [`DataError::Interrupted`] if `progress` returned `Break`;
/// [`DataError::Ranks`] if ranks have different text or tokenizers. After an error there is no output folder. An error of one rank
/// may leave the others waiting: the process must end, and with it the job.
pub fn prepare(
    options: &PrepareOptions,
    mut progress: impl FnMut(&PrepareProgress) -> ControlFlow<()>,
) -> Result<CorpusReport, DataError> {
    if !(0.0..1.0).contains(&options.valid_fraction) {
        return Err(DataError::Option {
            option: "valid_fraction",
            reason: format!("must be at least 0 and below 1, found {}", options.valid_fraction),
        });
    }
    if options.workers == Some(0) || options.shard_tokens == 0 {
        return Err(DataError::Option {
            option: if options.shard_tokens == 0 { "shard_tokens" } else { "workers" },
            reason: "must be at least 1, found 0".into(),
        });
    }
    let ranks = &options.ranks;
    if ranks.is_root() {
        check_unused(&options.out)?;
    }
    let corpus = open_corpus(&options.inputs, &options.corpus)?;
    if !ranks.is_single() {
        exchange::check(ranks, corpus.progress().bytes_total().is_none(), &options.tokenizer.fingerprint())?;
    }
    if !ranks.is_root() {
        tokenise(options, corpus, None, &mut progress)?;
        ranks.wait_for_root();
        return exchange::receive_report(ranks);
    }
    let mut done = None;
    cloze_files::write_folder(&options.out, |partial| {
        done = Some(write_all(options, corpus, partial, &mut progress)?);
        // This may take hours. Files that another program wrote in the meantime must not be replaced.
        check_unused(&options.out)
    })?;
    let (report, working) = done.ok_or(DataError::Interrupted)?;
    working.done();
    exchange::send_report(ranks, &report)?;
    Ok(report)
}

/// Also returns the work for which the other ranks wait.
fn write_all(
    options: &PrepareOptions,
    corpus: Corpus,
    dir: &Path,
    progress: &mut dyn FnMut(&PrepareProgress) -> ControlFlow<()>,
) -> Result<(CorpusReport, RootWork), DataError> {
    let tokenizer = &options.tokenizer;
    let mut output = Output::new(options, dir);
    let ReadEnd { notes, dropped, .. } = tokenise(options, corpus, Some(&mut output), progress)?;
    let working = options.ranks.work_at_root();

    let tokenizer_dir = dir.join(TOKENIZER);
    fs::create_dir_all(&tokenizer_dir).map_err(|e| DataError::io("create", &tokenizer_dir, e))?;
    tokenizer.save(&tokenizer_dir)?;

    let documents = output.train_documents + output.valid_documents;
    if documents == 0 && dropped != Dropped::default() {
        return Err(DataError::Option {
            option: "min_words",
            reason: format!("all documents were left out: {dropped}"),
        });
    }
    if documents == 0 {
        return Err(DataError::EmptyCorpus { path: options.inputs.first().cloned().unwrap_or_default() });
    }
    let mut splits = Splits {
        train: SplitEntry { shards: output.train.finish()? },
        valid: SplitEntry { shards: output.valid.finish()? },
    };
    let balancer = SplitBalancer { dir, vocab_size: tokenizer.vocab_size(), characters: &output.characters };
    if output.train_documents == 0 {
        balancer.move_document(Split::Valid, &mut splits)?;
        output.valid_documents -= 1;
    } else if output.valid_documents == 0 && documents > 1 && options.valid_fraction > 0.0 {
        balancer.move_document(Split::Train, &mut splits)?;
        output.valid_documents += 1;
    }
    let mut report = CorpusReport::new(&output.tally, &notes, documents);
    report.valid_documents = output.valid_documents;
    report.lines = output.lines;
    report.dropped = dropped;
    report.duplicate_documents = output.document_hashes.duplicates();
    report.duplicate_lines = output.line_hashes.duplicates();
    report.duplicates_estimated = output.document_hashes.is_estimate() || output.line_hashes.is_estimate();
    report.warn(vocabulary_case(tokenizer), output.tally.letters);
    let entry = TokenizerEntry {
        fingerprint: tokenizer.fingerprint(),
        vocab_size: tokenizer.vocab_size(),
        cased: tokenizer.is_cased(),
    };
    write_manifest(dir, &Manifest::new(entry, splits, report.clone()))?;
    Ok((report, working))
}

/// Documents that are processed together.
struct Chunk {
    /// Position in the order of this rank's chunks, from 0.
    number: u64,
    documents: Vec<Document>,
    bytes: usize,
    /// Compressed bytes of the files read up to its end.
    read: u64,
}

/// What is known when all documents have been read.
struct ReadEnd {
    notes: CorpusNotes,
    dropped: Dropped,
    /// Of all documents, also of those that other ranks tokenise; 0 for one process.
    digest: u64,
}

/// Messages to the writer.
enum Message {
    Chunk(TokenisedChunk),
    Read(ReadEnd),
    Failed(DataError),
}

/// Reads, tokenises and (at rank 0, which has an `output`) writes. The reader waits if there is too much text between it and the writer.
fn tokenise(
    options: &PrepareOptions,
    corpus: Corpus,
    output: Option<&mut Output>,
    progress: &mut dyn FnMut(&PrepareProgress) -> ControlFlow<()>,
) -> Result<ReadEnd, DataError> {
    let workers =
        options.workers.unwrap_or_else(|| std::thread::available_parallelism().map_or(1, std::num::NonZero::get));
    let gate = Gate::default();
    let writer = Writer { output, bytes_total: corpus.progress().bytes_total(), progress };
    let mut exchange = Exchange::new(&options.ranks, writer);
    let names_before = options.tokenizer.special_name_count();
    // Taken by the reading thread, or by the caller if no thread can be started.
    let corpus = Mutex::new(Some(corpus));
    let take = || corpus.lock().unwrap_or_else(PoisonError::into_inner).take();
    let by_threads = std::thread::scope(|scope| {
        // The gate limits the bytes in this channel.
        let (to_workers, from_reader) = unbounded::<Chunk>();
        let (to_writer, messages) = bounded::<Message>(workers * 4);
        let mut has_worker = false;
        for _ in 0..workers {
            let (from_reader, to_writer) = (from_reader.clone(), to_writer.clone());
            let (tokenizer, gate) = (&options.tokenizer, &gate);
            let started = Builder::new().spawn_scoped(scope, move || {
                let _close = CloseOnPanic(gate);
                for chunk in from_reader {
                    if gate.is_closed() {
                        return;
                    }
                    let message = Message::Chunk(tokenise_chunk(tokenizer, chunk));
                    if to_writer.send(message).is_err() {
                        return;
                    }
                }
            });
            if started.is_err() {
                break;
            }
            has_worker = true;
        }
        drop(from_reader);
        if !has_worker {
            return None;
        }
        let (take, gate) = (&take, &gate);
        let reader = Builder::new().spawn_scoped(scope, move || {
            let _close = CloseOnPanic(gate);
            let Some(corpus) = take() else { return };
            let send = |chunk: Chunk| Ok(gate.enter(chunk.bytes) && to_workers.send(chunk).is_ok());
            let end = match read_chunks(corpus, options, send) {
                Ok(end) => Message::Read(end),
                Err(error) => Message::Failed(error),
            };
            // The receiver is gone only if the writer failed.
            to_writer.send(end).ok();
        });
        reader.ok()?;
        let result = take_in_order(messages, gate, |chunk| exchange.take(chunk));
        gate.close();
        Some(result)
    });
    let end = match (by_threads, take()) {
        (None, Some(corpus)) => read_chunks(corpus, options, |chunk| {
            exchange.take(tokenise_chunk(&options.tokenizer, chunk))?;
            Ok(true)
        }),
        (result, _) => result.unwrap_or(Err(DataError::Interrupted)),
    }?;
    let names = options.tokenizer.special_name_count() - names_before;
    let of_others = exchange.finish(end.digest, names)?;
    options.tokenizer.add_special_names(of_others);
    Ok(end)
}

/// Passes the documents that are not left out to `send` in chunks, until it returns false. With several ranks, those of this rank.
fn read_chunks(
    mut corpus: Corpus,
    options: &PrepareOptions,
    mut send: impl FnMut(Chunk) -> Result<bool, DataError>,
) -> Result<ReadEnd, DataError> {
    let (reading, mut filter) = (corpus.progress(), Filter::new(options.filters.clone()));
    let (ranks, mut digest) = (&options.ranks, 0);
    let (mut number, mut sent) = (0, 0);
    let mut documents = Vec::new();
    let mut bytes = 0;
    loop {
        let document = corpus.next().transpose()?;
        let ended = document.is_none();
        let is_own = exchange::owner(number, ranks.size()) == ranks.rank();
        if let Some(document) = document.and_then(|document| filter.apply(document)) {
            bytes += document.text.len() + DOCUMENT_BYTES;
            if !ranks.is_single() {
                digest = xxh3_64_with_seed(document.text.as_bytes(), digest);
            }
            if is_own {
                documents.push(document);
            }
        }
        if bytes > 0 && (ended || bytes >= CHUNK_BYTES) {
            number += 1;
            let chunk = Chunk {
                number: sent,
                documents: std::mem::take(&mut documents),
                bytes: std::mem::take(&mut bytes),
                read: reading.bytes_read(),
            };
            if is_own {
                sent += 1;
                if !send(chunk)? {
                    break;
                }
            }
        }
        if ended {
            break;
        }
    }
    Ok(ReadEnd { notes: corpus.notes().clone(), dropped: filter.dropped, digest })
}

fn take_in_order(
    messages: Receiver<Message>,
    gate: &Gate,
    mut take: impl FnMut(TokenisedChunk) -> Result<(), DataError>,
) -> Result<ReadEnd, DataError> {
    let mut out_of_order = BTreeMap::new();
    let mut next = 0;
    let mut end = None;
    for message in messages {
        match message {
            Message::Failed(error) => return Err(error),
            Message::Read(found) => end = Some(found),
            Message::Chunk(chunk) => {
                out_of_order.insert(chunk.number, chunk);
                while let Some(chunk) = out_of_order.remove(&next) {
                    next += 1;
                    gate.leave(chunk.bytes);
                    take(chunk)?;
                }
            }
        }
    }
    // The channel closes when all threads have ended. Without an end, the reader did not finish.
    end.ok_or(DataError::Interrupted)
}

fn tokenise_chunk(tokenizer: &Tokenizer, chunk: Chunk) -> TokenisedChunk {
    let (unknown, takes_spaces) = (tokenizer.special().unk, tokenizer.needs_space());
    let mut tally = Tally::default();
    let mut documents = Vec::with_capacity(chunk.documents.len());
    for document in &chunk.documents {
        let text = document.text.trim();
        tally.count_text(text);
        if tokenizer.strips_accents() {
            tally.marks.count(text);
        }
        let mut ids = Vec::with_capacity(text.len() / 4);
        let mut ends = Vec::new();
        for sentence in sentences::split(text) {
            let start = ids.len();
            tokenizer.encode_into(if takes_spaces { with_space_before(text, sentence) } else { sentence }, &mut ids);
            if ids.len() == start {
                continue; // Control characters only.
            }
            tally.cut_sentences += cut_sentence(tokenizer, &ids, start, &mut ends);
            ends.push(ids.len() as u32);
        }
        tally.sentences += ends.len() as u64;
        tally.tokens += ids.len() as u64;
        tally.unknown_tokens += ids.iter().filter(|&&id| id == unknown).count() as u64;
        tally.one_sentence_documents += u64::from(ends.len() == 1);
        let lines = text.lines().map(str::trim).filter(|line| !line.is_empty());
        documents.push(TokenisedDocument {
            characters: text.chars().count() as u64,
            hash: xxh3_64(text.as_bytes()),
            line_hashes: lines.map(|line| xxh3_64(line.as_bytes())).collect(),
            ids,
            ends,
        });
    }
    TokenisedChunk { number: chunk.number, bytes: chunk.bytes, read: chunk.read, documents, tally }
}

/// The sentence, a part of `text`, with the space before it.
fn with_space_before<'a>(text: &'a str, sentence: &'a str) -> &'a str {
    let start = (sentence.as_ptr() as usize).wrapping_sub(text.as_ptr() as usize);
    let before = start.checked_sub(1).filter(|&at| text.as_bytes().get(at) == Some(&b' '));
    before.and_then(|before| text.get(before..start + sentence.len())).unwrap_or(sentence)
}

/// Splits the sentence that begins at `start` if it is too long, by adding ends inside it. Returns 1 if it was too long.
fn cut_sentence(tokenizer: &Tokenizer, ids: &[u32], start: usize, ends: &mut Vec<u32>) -> u64 {
    let mut begin = start;
    while ids.len() - begin > MAX_SENTENCE {
        let mut end = begin + MAX_SENTENCE;
        // Between words, unless a word is very long.
        while end > begin + MAX_SENTENCE / 2 && tokenizer.is_continuation(ids[end]) {
            end -= 1;
        }
        ends.push(end as u32);
        begin = end;
    }
    u64::from(begin > start)
}

/// The writer's state.
struct Output {
    train: ShardWriter,
    valid: ShardWriter,
    train_documents: u64,
    valid_documents: u64,
    /// While one split has no documents: the number of characters of each document of the other, because one may be moved.
    characters: Vec<u64>,
    /// Number of documents processed, including those without tokens.
    ordinal: u64,
    /// Compressed bytes of the files that they were read from.
    read: u64,
    valid_fraction: f64,
    tally: Tally,
    lines: u64,
    document_hashes: DuplicateCounter,
    line_hashes: DuplicateCounter,
}

impl Output {
    fn new(options: &PrepareOptions, dir: &Path) -> Output {
        let vocab_size = options.tokenizer.vocab_size();
        let writer = |split| ShardWriter::new(dir, split, vocab_size, options.shard_tokens);
        Output {
            train: writer(Split::Train),
            valid: writer(Split::Valid),
            train_documents: 0,
            valid_documents: 0,
            characters: Vec::new(),
            ordinal: 0,
            read: 0,
            valid_fraction: options.valid_fraction,
            tally: Tally::default(),
            lines: 0,
            document_hashes: DuplicateCounter::new(MAX_HASHES),
            line_hashes: DuplicateCounter::new(MAX_HASHES),
        }
    }

    fn write(&mut self, chunk: TokenisedChunk) -> Result<(), DataError> {
        self.tally.add(&chunk.tally);
        self.read = chunk.read;
        for document in chunk.documents {
            let held_out = is_held_out(self.ordinal, self.valid_fraction);
            self.ordinal += 1;
            if document.ids.is_empty() {
                continue;
            }
            self.document_hashes.add(document.hash);
            self.lines += document.line_hashes.len() as u64;
            for hash in document.line_hashes {
                self.line_hashes.add(hash);
            }
            if held_out {
                self.valid_documents += 1;
                self.valid.push(&document.ids, &document.ends, document.characters)?;
            } else {
                self.train_documents += 1;
                self.train.push(&document.ids, &document.ends, document.characters)?;
            }
            match self.train_documents.min(self.valid_documents) {
                0 if self.valid_fraction > 0.0 => self.characters.push(document.characters),
                _ => self.characters = Vec::new(),
            }
        }
        Ok(())
    }
}

/// Writes chunks at rank 0, and reports the progress.
struct Writer<'a> {
    output: Option<&'a mut Output>,
    bytes_total: Option<u64>,
    progress: &'a mut dyn FnMut(&PrepareProgress) -> ControlFlow<()>,
}

impl Sink for Writer<'_> {
    fn write(&mut self, chunk: TokenisedChunk) -> Result<ControlFlow<()>, DataError> {
        let Some(output) = &mut self.output else { return Ok(ControlFlow::Continue(())) };
        output.write(chunk)?;
        Ok((self.progress)(&PrepareProgress {
            bytes_read: output.read,
            bytes_total: self.bytes_total,
            text_bytes: output.tally.text_bytes,
            documents: output.train_documents + output.valid_documents,
            tokens: output.tally.tokens,
        }))
    }

    fn pass(&mut self, chunk: &TokenisedChunk) -> ControlFlow<()> {
        let bytes_total = self.bytes_total;
        (self.progress)(&PrepareProgress { bytes_read: chunk.read, bytes_total, ..PrepareProgress::default() })
    }
}

/// Decides by a hash of the document's number. The first document is always for training, so training is never empty.
fn is_held_out(ordinal: u64, fraction: f64) -> bool {
    ordinal > 0 && (rank(ordinal) as f64) < fraction * 2f64.powi(64)
}

/// Documents with lower ranks are held out first.
fn rank(ordinal: u64) -> u64 {
    xxh3_64_with_seed(&ordinal.to_le_bytes(), 0x0063_6c6f_7a65)
}

/// Moves a document to the other split if that one is empty by chance. Only the shard that contains it is rewritten.
struct SplitBalancer<'a> {
    dir: &'a Path,
    vocab_size: usize,
    /// The number of characters of each document of the split that has documents.
    characters: &'a [u64],
}

impl SplitBalancer<'_> {
    /// Moves one document of a split to the other split, which is empty.
    fn move_document(&self, from: Split, splits: &mut Splits) -> Result<(), DataError> {
        let (from_entry, to, to_entry) = match from {
            Split::Train => (&mut splits.train, Split::Valid, &mut splits.valid),
            Split::Valid => (&mut splits.valid, Split::Train, &mut splits.train),
        };
        let shards = &mut from_entry.shards;
        let (shard, first, document) = self.choose(shards)?;
        let path = self.dir.join(&shards[shard].file);
        // Written to another folder first, because the old file is still mapped.
        let tmp_dir = self.dir.join("moving");
        fs::create_dir(&tmp_dir).map_err(|e| DataError::io("create", &tmp_dir, e))?;
        // The documents fitted into one shard before.
        let writer = |split| ShardWriter::new(&tmp_dir, split, self.vocab_size, u64::MAX);
        let (mut remaining, mut moved) = (writer(from), writer(to));
        let documents = Documents::open_file(&path, None)?;
        let mut ids = Vec::new();
        for number in 0..documents.len() {
            ids.clear();
            documents.read(number, 0..documents.sentences(number), &mut ids);
            let target = if number == document { &mut moved } else { &mut remaining };
            target.push(&ids, documents.sentence_ends(number), self.characters[first + number])?;
        }
        drop(documents);
        let (remaining, moved) = (remaining.finish()?, moved.finish()?);
        fs::remove_file(&path).map_err(|e| DataError::io("remove", &path, e))?;
        let rename = |from: &Path, to: &Path| fs::rename(from, to).map_err(|e| DataError::io("create", to, e));
        for entry in &moved {
            rename(&tmp_dir.join(&entry.file), &self.dir.join(&entry.file))?;
        }
        to_entry.shards = moved;
        match remaining.into_iter().next() {
            Some(rest) => {
                rename(&tmp_dir.join(&rest.file), &path)?;
                let file = std::mem::take(&mut shards[shard].file);
                shards[shard] = ShardEntry { file, ..rest };
            }
            None => {
                // The numbers in file names have no gaps: each later shard gets the name of the previous one.
                let mut free = shards.remove(shard).file;
                for later in &mut shards[shard..] {
                    rename(&self.dir.join(&later.file), &self.dir.join(&free))?;
                    std::mem::swap(&mut later.file, &mut free);
                }
            }
        }
        fs::remove_dir(&tmp_dir).map_err(|e| DataError::io("remove", &tmp_dir, e))
    }

    /// The shard that contains the document to move, the number of its first document in the split, and the index of the
    /// document to move in it.
    fn choose(&self, shards: &[ShardEntry]) -> Result<(usize, usize, usize), DataError> {
        let mut lengths = Vec::new();
        let mut firsts = Vec::new();
        for shard in shards {
            let documents = Documents::open_file(&self.dir.join(&shard.file), None)?;
            firsts.push(lengths.len());
            lengths.extend((0..documents.len()).map(|document| documents.document_len(document)));
        }
        let chosen = choose_document(&lengths);
        let shard = firsts.partition_point(|&first| first <= chosen) - 1;
        Ok((shard, firsts[shard], chosen - firsts[shard]))
    }
}

/// Chooses the document to move from one split to the other, by the documents' lengths: the one with the lowest rank that
/// has at most half of all text, is not short compared to the others (if possible), and is not the first (if possible).
fn choose_document(lengths: &[usize]) -> usize {
    let total: usize = lengths.iter().sum();
    let key = |&number: &usize| {
        let length = lengths[number];
        (2 * length > total, 2 * length * lengths.len() < total, number == 0, rank(number as u64))
    };
    (0..lengths.len()).min_by_key(key).unwrap_or_default()
}

fn vocabulary_case(tokenizer: &Tokenizer) -> VocabularyCase {
    let mut tokens = 0u64;
    let mut capitals = 0u64;
    for id in 0..tokenizer.vocab_size() as u32 {
        let Some(token) = tokenizer.token(id) else {
            continue;
        };
        if token.starts_with('[') && token.ends_with(']') {
            continue;
        }
        tokens += 1;
        capitals += u64::from(token.contains(char::is_uppercase));
    }
    VocabularyCase { cased: tokenizer.is_cased(), capital_tokens: capitals as f64 / tokens.max(1) as f64 }
}

/// Limits the bytes of text between the reader and the writer.
#[derive(Default)]
struct Gate {
    state: Mutex<GateState>,
    changed: Condvar,
}

#[derive(Default)]
struct GateState {
    bytes: usize,
    closed: bool,
}

impl Gate {
    fn lock(&self) -> MutexGuard<'_, GateState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits until `bytes` more are allowed; false if the gate has been closed.
    fn enter(&self, bytes: usize) -> bool {
        let mut state = self.lock();
        // One chunk is always allowed, even if it is too large.
        while !state.closed && state.bytes > 0 && state.bytes + bytes > IN_FLIGHT_BYTES {
            state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        state.bytes += bytes;
        !state.closed
    }

    fn leave(&self, bytes: usize) {
        self.lock().bytes -= bytes;
        self.changed.notify_all();
    }

    fn close(&self) {
        self.lock().closed = true;
        self.changed.notify_all();
    }

    fn is_closed(&self) -> bool {
        self.lock().closed
    }
}

/// Closes the gate if a thread panics, so that the reader does not wait for ever.
struct CloseOnPanic<'a>(&'a Gate);

impl Drop for CloseOnPanic<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.0.close();
        }
    }
}

fn check_unused(out: &Path) -> Result<(), DataError> {
    if out.file_name().is_none() {
        return Err(DataError::Option {
            option: "out",
            reason: format!("must be a folder's path, found {}", out.display()),
        });
    }
    if cloze_files::is_unused(out)? { Ok(()) } else { Err(DataError::OutputExists { path: out.to_path_buf() }) }
}

fn write_manifest(dir: &Path, manifest: &Manifest) -> Result<(), DataError> {
    let path = dir.join(MANIFEST);
    let mut text = serde_json::to_vec_pretty(manifest).map_err(|e| DataError::io("write", &path, e.into()))?;
    text.push(b'\n');
    // The folder is not visible yet, and will be synced as a unit.
    fs::write(&path, text).map_err(|e| DataError::io("write", &path, e))
}

#[cfg(test)]
mod tests;
