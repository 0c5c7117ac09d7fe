//! Text → shards, once: documents are read by one thread, cut into sentences and tokenised by as many as there are
//! cores, and written in their order by the caller's thread. The bytes written do not depend on the number of workers.
//!
//! Everything is written into a folder `.OUT.partial` beside the output folder, synced, and renamed at the very end:
//! a run that is interrupted leaves nothing that looks finished.

use std::collections::BTreeMap;
use std::fs;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::Builder;

use cloze_text::Tokenizer;
use crossbeam_channel::{Receiver, bounded, unbounded};
use xxhash_rust::xxh3::{xxh3_64, xxh3_64_with_seed};

use crate::DataError;
use crate::corpus::{Corpus, CorpusNotes, CorpusOptions, Document, open_corpus};
use crate::manifest::{MANIFEST, Manifest, ShardEntry, Split, SplitEntry, Splits, TOKENIZER, TokenizerEntry};
use crate::report::{CorpusReport, Repeats, Tally, VocabularyCase};
use crate::sentences;
use crate::shard_writer::ShardWriter;
use crate::shards::Documents;

/// Longest sentence in tokens: longer ones (lists, tables, text without punctuation) are cut between words, so that no
/// text is out of reach of sequences of 512.
pub const MAX_SENTENCE: usize = 512;

/// Text handed to a worker at a time, in bytes.
const CHUNK_BYTES: usize = 256 << 10;
/// What a document takes beside its text while it is handed on, in bytes.
const DOCUMENT_BYTES: usize = 256;
/// Text between the reader and the writer, in bytes.
const IN_FLIGHT_BYTES: usize = 24 << 20;
/// Hashes kept to count duplicates: 36 MB each.
const REPEATS: usize = 1_800_000;

/// What to prepare, and how.
#[derive(Clone)]
#[non_exhaustive]
pub struct PrepareOptions {
    /// Files, folders, globs or `-`: see [`corpus`](crate::corpus).
    pub inputs: Vec<PathBuf>,
    /// How they are read.
    pub corpus: CorpusOptions,
    /// Turns text into ids.
    pub tokenizer: Tokenizer,
    /// The folder to make. Must not exist, or be empty.
    pub out: PathBuf,
    /// Share of the documents to hold out, `0 ≤ f < 1`. Which ones depends on their numbers only. Of two or more documents one
    /// at least is held out and one at least is not; 0 holds out none.
    pub valid_fraction: f64,
    /// Threads that tokenise; all cores if not given.
    pub workers: Option<usize>,
    /// Tokens of a shard.
    pub shard_tokens: u64,
}

impl PrepareOptions {
    /// The usual options: 1 % held out, all cores, shards of 32 M tokens.
    pub fn new(inputs: Vec<PathBuf>, tokenizer: Tokenizer, out: PathBuf) -> PrepareOptions {
        PrepareOptions {
            inputs,
            corpus: CorpusOptions::default(),
            tokenizer,
            out,
            valid_fraction: 0.01,
            workers: None,
            shard_tokens: 32 << 20,
        }
    }
}

/// How far `prepare` has come.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct PrepareProgress {
    /// Bytes of the files, as stored (compressed), whose text is written. Reading itself is ahead of that.
    pub bytes_read: u64,
    /// Bytes of all files, as stored; unknown with standard input.
    pub bytes_total: Option<u64>,
    /// Bytes of text written so far, before tokenising.
    pub text_bytes: u64,
    /// Documents written so far.
    pub documents: u64,
    /// Tokens written so far.
    pub tokens: u64,
}

/// Turns text into shards, and tells what it found. `progress` is called some times a second; if it breaks, the run
/// stops and leaves nothing.
///
/// # Errors
/// Whatever is wrong with the input, the output folder or the disk; [`DataError::Interrupted`] if `progress` broke.
/// After an error no output folder exists.
pub fn prepare(
    options: &PrepareOptions,
    mut progress: impl FnMut(&PrepareProgress) -> ControlFlow<()>,
) -> Result<CorpusReport, DataError> {
    if !(0.0..1.0).contains(&options.valid_fraction) {
        return Err(DataError::Option {
            option: "--valid-fraction",
            reason: format!("{}, expected 0 ≤ f < 1", options.valid_fraction),
        });
    }
    if options.workers == Some(0) || options.shard_tokens == 0 {
        return Err(DataError::Option {
            option: if options.shard_tokens == 0 { "shard_tokens" } else { "--workers" },
            reason: "0, expected at least 1".into(),
        });
    }
    refuse_used(&options.out)?;
    let corpus = open_corpus(&options.inputs, &options.corpus)?;
    let mut report = None;
    cloze_files::write_folder(&options.out, |partial| {
        report = Some(write_all(options, corpus, partial, &mut progress)?);
        // Hours may have passed: what another program wrote meanwhile is not replaced.
        refuse_used(&options.out)
    })?;
    report.ok_or(DataError::Interrupted)
}

fn write_all(
    options: &PrepareOptions,
    corpus: Corpus,
    dir: &Path,
    progress: &mut dyn FnMut(&PrepareProgress) -> ControlFlow<()>,
) -> Result<CorpusReport, DataError> {
    let tokenizer = &options.tokenizer;
    let mut output = Output::new(options, dir);
    let notes = tokenise(options, corpus, &mut output, progress)?;

    let tokenizer_dir = dir.join(TOKENIZER);
    fs::create_dir_all(&tokenizer_dir).map_err(|e| DataError::io("create", &tokenizer_dir, e))?;
    tokenizer.save(&tokenizer_dir)?;

    let documents = output.train_documents + output.valid_documents;
    if documents == 0 {
        return Err(DataError::EmptyCorpus { path: options.inputs.first().cloned().unwrap_or_default() });
    }
    let mut splits = Splits {
        train: SplitEntry { shards: output.train.finish()? },
        valid: SplitEntry { shards: output.valid.finish()? },
    };
    let mover = Mover { dir, vocab_size: tokenizer.vocab_size() };
    if output.train_documents == 0 {
        mover.move_one(Split::Valid, &mut splits)?;
        output.valid_documents -= 1;
    } else if output.valid_documents == 0 && documents > 1 && options.valid_fraction > 0.0 {
        mover.move_one(Split::Train, &mut splits)?;
        output.valid_documents += 1;
    }
    let mut report = CorpusReport::new(&output.tally, &notes, documents);
    report.valid_documents = output.valid_documents;
    report.lines = output.lines;
    report.duplicate_documents = output.repeated_documents.repeats();
    report.duplicate_lines = output.repeated_lines.repeats();
    report.duplicates_estimated = output.repeated_documents.is_estimate() || output.repeated_lines.is_estimate();
    report.warn(vocabulary_case(tokenizer), output.tally.letters);
    let entry = TokenizerEntry {
        fingerprint: tokenizer.fingerprint(),
        vocab_size: tokenizer.vocab_size(),
        cased: tokenizer.is_cased(),
    };
    write_manifest(dir, &Manifest::new(entry, splits, report.clone()))?;
    Ok(report)
}

/// Documents read together.
struct Chunk {
    /// Place in the order, from 0.
    number: u64,
    documents: Vec<Document>,
    bytes: usize,
    /// Bytes of the files read up to its end.
    read: u64,
}

/// A chunk after its worker.
struct Tokenised {
    number: u64,
    bytes: usize,
    read: u64,
    documents: Vec<TokenisedDocument>,
    tally: Tally,
}

struct TokenisedDocument {
    ids: Vec<u32>,
    ends: Vec<u32>,
    hash: u64,
    line_hashes: Vec<u64>,
}

/// What threads send to the writer.
enum Message {
    Chunk(Tokenised),
    Read(CorpusNotes),
    Failed(DataError),
}

/// Reads, tokenises and writes. The reader waits when too much text is between it and the writer.
fn tokenise(
    options: &PrepareOptions,
    corpus: Corpus,
    output: &mut Output,
    progress: &mut dyn FnMut(&PrepareProgress) -> ControlFlow<()>,
) -> Result<CorpusNotes, DataError> {
    let workers =
        options.workers.unwrap_or_else(|| std::thread::available_parallelism().map_or(1, std::num::NonZero::get));
    let (reading, gate) = (corpus.progress(), Gate::default());
    let mut progress = |output: &Output| {
        progress(&PrepareProgress {
            bytes_read: output.read,
            bytes_total: reading.bytes_total(),
            text_bytes: output.tally.text_bytes,
            documents: output.train_documents + output.valid_documents,
            tokens: output.tally.tokens,
        })
    };
    // Taken by the thread that reads: the caller's where the system starts no other.
    let corpus = Mutex::new(Some(corpus));
    let take = || corpus.lock().unwrap_or_else(PoisonError::into_inner).take();
    let by_threads = std::thread::scope(|scope| {
        // Bounded by the gate, which counts bytes.
        let (to_workers, from_reader) = unbounded::<Chunk>();
        let (to_writer, messages) = bounded::<Message>(workers * 4);
        let mut is_worked = false;
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
            is_worked = true;
        }
        drop(from_reader);
        if !is_worked {
            return None;
        }
        let (take, gate) = (&take, &gate);
        let reader = Builder::new().spawn_scoped(scope, move || {
            let _close = CloseOnPanic(gate);
            let Some(corpus) = take() else { return };
            let hand_on = |chunk: Chunk| Ok(gate.enter(chunk.bytes) && to_workers.send(chunk).is_ok());
            let end = match read_chunks(corpus, hand_on) {
                Ok(notes) => Message::Read(notes),
                Err(error) => Message::Failed(error),
            };
            // The writer has gone only if it failed itself.
            to_writer.send(end).ok();
        });
        reader.ok()?;
        let result = write_in_order(messages, output, gate, &mut progress);
        gate.close();
        Some(result)
    });
    match (by_threads, take()) {
        (None, Some(corpus)) => read_chunks(corpus, |chunk| {
            output.write(tokenise_chunk(&options.tokenizer, chunk))?;
            if progress(output).is_break() { Err(DataError::Interrupted) } else { Ok(true) }
        }),
        (result, _) => result.unwrap_or(Err(DataError::Interrupted)),
    }
}

/// Hands the documents on in chunks, as long as `hand_on` takes them.
fn read_chunks(
    mut corpus: Corpus,
    mut hand_on: impl FnMut(Chunk) -> Result<bool, DataError>,
) -> Result<CorpusNotes, DataError> {
    let reading = corpus.progress();
    let mut number = 0;
    let mut documents = Vec::new();
    let mut bytes = 0;
    loop {
        let document = corpus.next().transpose()?;
        let ended = document.is_none();
        if let Some(document) = document {
            bytes += document.text.len() + DOCUMENT_BYTES;
            documents.push(document);
        }
        if !documents.is_empty() && (ended || bytes >= CHUNK_BYTES) {
            let chunk = Chunk {
                number,
                documents: std::mem::take(&mut documents),
                bytes: std::mem::take(&mut bytes),
                read: reading.bytes_read(),
            };
            number += 1;
            if !hand_on(chunk)? {
                break;
            }
        }
        if ended {
            break;
        }
    }
    Ok(corpus.notes().clone())
}

fn write_in_order(
    messages: Receiver<Message>,
    output: &mut Output,
    gate: &Gate,
    mut progress: impl FnMut(&Output) -> ControlFlow<()>,
) -> Result<CorpusNotes, DataError> {
    let mut early = BTreeMap::new();
    let mut next = 0;
    let mut notes = None;
    for message in messages {
        match message {
            Message::Failed(error) => return Err(error),
            Message::Read(found) => notes = Some(found),
            Message::Chunk(chunk) => {
                early.insert(chunk.number, chunk);
                while let Some(chunk) = early.remove(&next) {
                    next += 1;
                    gate.leave(chunk.bytes);
                    output.write(chunk)?;
                    if progress(output).is_break() {
                        return Err(DataError::Interrupted);
                    }
                }
            }
        }
    }
    // The channel closes when all threads have ended; without notes the reader did not come to its end.
    notes.ok_or(DataError::Interrupted)
}

fn tokenise_chunk(tokenizer: &Tokenizer, chunk: Chunk) -> Tokenised {
    let unknown = tokenizer.special().unk;
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
            tokenizer.encode_into(sentence, &mut ids);
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
            hash: xxh3_64(text.as_bytes()),
            line_hashes: lines.map(|line| xxh3_64(line.as_bytes())).collect(),
            ids,
            ends,
        });
    }
    Tokenised { number: chunk.number, bytes: chunk.bytes, read: chunk.read, documents, tally }
}

/// Pushes ends inside the sentence that begins at `start`, if it is too long; returns 1 if it was.
fn cut_sentence(tokenizer: &Tokenizer, ids: &[u32], start: usize, ends: &mut Vec<u32>) -> u64 {
    let mut begin = start;
    while ids.len() - begin > MAX_SENTENCE {
        let mut end = begin + MAX_SENTENCE;
        // Not inside a word, unless the word is very long.
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
    /// Documents seen, written or not.
    ordinal: u64,
    /// Bytes of the files that they were read from.
    read: u64,
    valid_fraction: f64,
    tally: Tally,
    lines: u64,
    repeated_documents: Repeats,
    repeated_lines: Repeats,
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
            ordinal: 0,
            read: 0,
            valid_fraction: options.valid_fraction,
            tally: Tally::default(),
            lines: 0,
            repeated_documents: Repeats::new(REPEATS),
            repeated_lines: Repeats::new(REPEATS),
        }
    }

    fn write(&mut self, chunk: Tokenised) -> Result<(), DataError> {
        self.tally.add(&chunk.tally);
        self.read = chunk.read;
        for document in chunk.documents {
            let held_out = is_held_out(self.ordinal, self.valid_fraction);
            self.ordinal += 1;
            if document.ids.is_empty() {
                continue;
            }
            self.repeated_documents.add(document.hash);
            self.lines += document.line_hashes.len() as u64;
            for hash in document.line_hashes {
                self.repeated_lines.add(hash);
            }
            if held_out {
                self.valid_documents += 1;
                self.valid.push(&document.ids, &document.ends)?;
            } else {
                self.train_documents += 1;
                self.train.push(&document.ids, &document.ends)?;
            }
        }
        Ok(())
    }
}

/// A hash of the document's number decides. The first document is always trained on, so that training is never empty.
fn is_held_out(ordinal: u64, fraction: f64) -> bool {
    ordinal > 0 && (rank(ordinal) as f64) < fraction * 2f64.powi(64)
}

/// The lower, the sooner a document is held out.
fn rank(ordinal: u64) -> u64 {
    xxh3_64_with_seed(&ordinal.to_le_bytes(), 0x0063_6c6f_7a65)
}

/// Moves a document to the other split where chance has left that one empty. Only the shard that it is in is written again.
struct Mover<'a> {
    dir: &'a Path,
    vocab_size: usize,
}

impl Mover<'_> {
    /// Takes one document from a split and makes it the whole of the other.
    fn move_one(&self, from: Split, splits: &mut Splits) -> Result<(), DataError> {
        let (from_entry, to, to_entry) = match from {
            Split::Train => (&mut splits.train, Split::Valid, &mut splits.valid),
            Split::Valid => (&mut splits.valid, Split::Train, &mut splits.train),
        };
        let shards = &mut from_entry.shards;
        let (shard, document) = self.choose(shards)?;
        let path = self.dir.join(&shards[shard].file);
        // Written to another folder first: the old file is still mapped.
        let aside = self.dir.join("moving");
        fs::create_dir(&aside).map_err(|e| DataError::io("create", &aside, e))?;
        // It fitted one shard before.
        let writer = |split| ShardWriter::new(&aside, split, self.vocab_size, u64::MAX);
        let (mut stay, mut go) = (writer(from), writer(to));
        let documents = Documents::open_file(&path, None)?;
        let mut ids = Vec::new();
        for number in 0..documents.len() {
            ids.clear();
            documents.read(number, 0..documents.sentences(number), &mut ids);
            let target = if number == document { &mut go } else { &mut stay };
            target.push(&ids, documents.sentence_ends(number))?;
        }
        drop(documents);
        let (stay, go) = (stay.finish()?, go.finish()?);
        fs::remove_file(&path).map_err(|e| DataError::io("remove", &path, e))?;
        let place = |from: &Path, to: &Path| fs::rename(from, to).map_err(|e| DataError::io("create", to, e));
        for moved in &go {
            place(&aside.join(&moved.file), &self.dir.join(&moved.file))?;
        }
        to_entry.shards = go;
        match stay.into_iter().next() {
            Some(rest) => {
                place(&aside.join(&rest.file), &path)?;
                let file = std::mem::take(&mut shards[shard].file);
                shards[shard] = ShardEntry { file, ..rest };
            }
            None => {
                // Names without a gap: each of the later ones takes that of the one before.
                let mut free = shards.remove(shard).file;
                for later in &mut shards[shard..] {
                    place(&self.dir.join(&later.file), &self.dir.join(&free))?;
                    std::mem::swap(&mut later.file, &mut free);
                }
            }
        }
        fs::remove_dir(&aside).map_err(|e| DataError::io("remove", &aside, e))
    }

    /// The shard, and the document in it, that goes.
    fn choose(&self, shards: &[ShardEntry]) -> Result<(usize, usize), DataError> {
        let mut lengths = Vec::new();
        let mut firsts = Vec::new();
        for shard in shards {
            let documents = Documents::open_file(&self.dir.join(&shard.file), None)?;
            firsts.push(lengths.len());
            lengths.extend((0..documents.len()).map(|document| documents.document_len(document)));
        }
        let chosen = spared(&lengths);
        let shard = firsts.partition_point(|&first| first <= chosen) - 1;
        Ok((shard, chosen - firsts[shard]))
    }
}

/// Which of some documents, given by their lengths, to take from the others: the one that would be held out first, but none that
/// is more than half of all text, none that is short beside the others if there is another, and not the first if there is another.
fn spared(lengths: &[usize]) -> usize {
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

/// Bounds the text between the reader and the writer.
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

    /// Waits for room; false if the gate has been closed.
    fn enter(&self, bytes: usize) -> bool {
        let mut state = self.lock();
        // One chunk may always enter, however large.
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

/// A thread that panics must not leave the reader waiting.
struct CloseOnPanic<'a>(&'a Gate);

impl Drop for CloseOnPanic<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.0.close();
        }
    }
}

fn refuse_used(out: &Path) -> Result<(), DataError> {
    if out.file_name().is_none() {
        return Err(DataError::Option { option: "--out", reason: format!("{} names no folder", out.display()) });
    }
    if cloze_files::is_unused(out)? { Ok(()) } else { Err(DataError::OutputExists { path: out.to_path_buf() }) }
}

fn write_manifest(dir: &Path, manifest: &Manifest) -> Result<(), DataError> {
    let path = dir.join(MANIFEST);
    let mut text = serde_json::to_vec_pretty(manifest).map_err(|e| DataError::io("write", &path, e.into()))?;
    text.push(b'\n');
    // The folder is not there yet for anyone else, and is made durable as a whole.
    fs::write(&path, text).map_err(|e| DataError::io("write", &path, e))
}

#[cfg(test)]
mod tests;
