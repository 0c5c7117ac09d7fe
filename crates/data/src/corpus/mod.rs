//! Corpora: files, folders, globs or standard input → a stream of documents, in a fixed order and in bounded memory.
//!
//! | ending | a document is |
//! | --- | --- |
//! | `.txt`, `.text` | the lines between blank lines |
//! | `.tokens` | an article of WikiText: from one ` = Title = ` line to the next |
//! | `.jsonl`, `.ndjson`, `.json` | the text column of one object a line |
//! | `.parquet`, `.pq` | the text column of one row |
//!
//! Each may be plain, `.gz` or `.zst`; compression is found by a file's first bytes, whatever it is called. Standard
//! input and files of other names, if named outright, are told apart by their first bytes.

mod compression;
mod inputs;
mod lines;
mod parquet;
mod parquet_columns;
mod parquet_pages;

use std::collections::VecDeque;
use std::fs::Metadata;
use std::io::BufRead;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::DataError;
use compression::{CountingReader, Stream};
use inputs::InputFile;
pub use parquet_columns::ParquetColumns;

/// Longest document in bytes: longer ones are cut at a line or a space, so that memory stays bounded.
pub const MAX_DOCUMENT: usize = 4 << 20;

/// How a corpus is read.
#[derive(Clone, Debug)]
pub struct CorpusOptions {
    /// The column that holds the text, in .jsonl and .parquet files.
    pub text_column: String,
}

impl Default for CorpusOptions {
    fn default() -> CorpusOptions {
        CorpusOptions { text_column: "text".into() }
    }
}

/// One document, or a part of one longer than [`MAX_DOCUMENT`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Document {
    /// Its text: never blank, never longer than [`MAX_DOCUMENT`] bytes.
    pub text: String,
    /// The file it is from (`-` for standard input).
    pub file: Arc<Path>,
    /// The line or row where it begins, from 1.
    pub line: u64,
}

/// What reading found that is no error, but that a person should know.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CorpusNotes {
    /// Files read to their end.
    pub files: u64,
    /// Files without any text.
    pub empty_files: Vec<PathBuf>,
    /// Text files of many lines without one blank line: each is one document.
    pub no_boundaries: Vec<PathBuf>,
    /// Rows without text.
    pub empty_documents: u64,
    /// Documents that were longer than [`MAX_DOCUMENT`] and were cut.
    pub cut_documents: u64,
}

/// How far a corpus has been read, shared with the thread that reads it.
#[derive(Clone, Debug)]
pub struct ReadProgress {
    read: Arc<AtomicU64>,
    total: Option<u64>,
}

impl ReadProgress {
    /// Bytes read so far, as stored (compressed).
    pub fn bytes_read(&self) -> u64 {
        self.read.load(Ordering::Relaxed)
    }

    /// Bytes of all files, as stored; unknown with standard input and pipes.
    pub fn bytes_total(&self) -> Option<u64> {
        self.total
    }
}

/// A stream of documents. Ends after the first error.
pub struct Corpus {
    options: CorpusOptions,
    files: VecDeque<InputFile>,
    current: Option<(Arc<Path>, Source)>,
    /// Rest of a document that was cut, and its line.
    rest: VecDeque<(String, u64)>,
    documents_of_file: u64,
    documents: u64,
    progress: ReadProgress,
    notes: CorpusNotes,
    ended: bool,
}

enum Source {
    Text(lines::TextDocuments),
    Json(lines::JsonDocuments),
    Parquet(Box<parquet::ParquetDocuments>),
}

/// What a source gives next.
enum Row {
    /// A text and where it begins.
    Document(String, u64),
    /// A row without text.
    Blank,
    /// The source has ended.
    End,
}

/// Opens a corpus. The order of documents is that of `paths`; folders and globs are sorted by name; a file reached
/// twice is read once.
///
/// # Errors
/// [`DataError::Input`] for a path, folder or glob where there is nothing to read. What is wrong inside a file comes
/// from the iterator; a corpus with no document at all ends with [`DataError::EmptyCorpus`].
///
/// ```
/// use cloze_data::corpus::{CorpusOptions, open_corpus};
/// let dir = tempfile::tempdir()?;
/// let path = dir.path().join("two.txt");
/// std::fs::write(&path, "One. Two.\nThree.\n\nAnother document.\n")?;
/// let corpus = open_corpus(&[path], &CorpusOptions::default())?;
/// let texts: Result<Vec<String>, _> = corpus.map(|d| d.map(|d| d.text)).collect();
/// assert_eq!(texts?, ["One. Two.\nThree.", "Another document."]);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub fn open_corpus(paths: &[PathBuf], options: &CorpusOptions) -> Result<Corpus, DataError> {
    let files = inputs::expand(paths)?;
    let total = files.iter().map(|file| file.bytes).sum();
    Ok(Corpus {
        options: options.clone(),
        files: files.into(),
        current: None,
        rest: VecDeque::new(),
        documents_of_file: 0,
        documents: 0,
        progress: ReadProgress { read: Arc::default(), total },
        notes: CorpusNotes::default(),
        ended: false,
    })
}

/// A file's bytes, or standard input's for `-`, decompressed as they are read if they are gzip or zstd, whatever it is called; and
/// how far it has been read.
///
/// # Errors
/// [`DataError::Io`] when it cannot be read, [`DataError::Format`] when its name promises a compression that it does not have.
pub fn open_file(path: &Path) -> Result<(Box<dyn BufRead + Send>, ReadProgress), DataError> {
    let read = Arc::default();
    let raw = CountingReader::new(inputs::raw(path)?, Arc::clone(&read));
    let reader = Stream::open(raw, &Arc::from(path))?.into_reader();
    // A pipe has no length.
    let file = (path != Path::new("-")).then(|| std::fs::metadata(path).ok()).flatten();
    let total = file.filter(Metadata::is_file).map(|file| file.len());
    Ok((reader, ReadProgress { read, total }))
}

/// A whole file's bytes, decompressed as by [`open_file`].
///
/// # Errors
/// Those of [`open_file`]; [`DataError::Format`] when it cannot be decompressed.
pub fn read_file(path: &Path) -> Result<Vec<u8>, DataError> {
    let mut bytes = Vec::new();
    Stream::open(inputs::raw(path)?, &Arc::from(path))?.copy_to(&mut bytes)?;
    Ok(bytes)
}

impl Corpus {
    /// A handle that tells how far this corpus has been read.
    pub fn progress(&self) -> ReadProgress {
        self.progress.clone()
    }

    /// What reading has found so far.
    pub fn notes(&self) -> &CorpusNotes {
        &self.notes
    }

    fn step(&mut self) -> Result<Option<Document>, DataError> {
        loop {
            let Some((path, source)) = &mut self.current else {
                let Some(file) = self.files.pop_front() else {
                    return if self.documents == 0 {
                        Err(DataError::EmptyCorpus {
                            path: self.notes.empty_files.first().cloned().unwrap_or_default(),
                        })
                    } else {
                        Ok(None)
                    };
                };
                let source = inputs::open(&file, &self.options, &self.progress.read)?;
                self.current = Some((file.path, source));
                self.documents_of_file = 0;
                continue;
            };
            if let Some((text, line)) = self.rest.pop_front() {
                self.documents += 1;
                self.documents_of_file += 1;
                return Ok(Some(Document { text, file: path.clone(), line }));
            }
            let row = match source {
                Source::Text(source) => source.next_row()?,
                Source::Json(source) => source.next_row()?,
                Source::Parquet(source) => source.next_row()?,
            };
            match row {
                Row::Blank => self.notes.empty_documents += 1,
                Row::Document(text, line) => {
                    let parts = cut(text, MAX_DOCUMENT);
                    self.notes.cut_documents += u64::from(parts.len() > 1);
                    self.rest.extend(parts.into_iter().map(|text| (text, line)));
                }
                Row::End => {
                    self.notes.files += 1;
                    if self.documents_of_file == 0 {
                        self.notes.empty_files.push(path.to_path_buf());
                    }
                    if let Source::Text(source) = source {
                        self.notes.cut_documents += source.cut_documents();
                        if source.lacks_boundaries() {
                            self.notes.no_boundaries.push(path.to_path_buf());
                        }
                    }
                    self.current = None;
                }
            }
        }
    }
}

impl Iterator for Corpus {
    type Item = Result<Document, DataError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.ended {
            return None;
        }
        let item = self.step().transpose();
        self.ended = !matches!(item, Some(Ok(_)));
        item
    }
}

/// Cuts a text into parts of at most `limit` bytes, each ending at a line, else at a space, else at a character.
fn cut(text: String, limit: usize) -> Vec<String> {
    if text.len() <= limit {
        return vec![text];
    }
    let mut parts = Vec::new();
    let mut rest = text.as_str();
    while !rest.is_empty() {
        let end = if rest.len() <= limit { rest.len() } else { cut_point(rest.as_bytes(), limit) };
        let (part, tail) = rest.split_at(end);
        if !part.trim().is_empty() {
            parts.push(part.trim_end().to_string());
        }
        rest = tail;
    }
    parts
}

/// Where to cut UTF-8 bytes longer than `limit`, in `1..=limit`: after the last newline of the second half, else after
/// the last space of the last 4 KiB, else before the character that crosses the limit.
fn cut_point(bytes: &[u8], limit: usize) -> usize {
    if let Some(at) = memchr::memrchr(b'\n', &bytes[limit / 2..limit]) {
        return limit / 2 + at + 1;
    }
    let window = limit.saturating_sub(4096);
    if let Some(at) = memchr::memrchr(b' ', &bytes[window..limit]) {
        return window + at + 1;
    }
    let mut end = limit;
    // Continuation bytes are 10xxxxxx; a character has at most three.
    while end + 4 > limit && end > 1 && bytes[end] & 0xC0 == 0x80 {
        end -= 1;
    }
    end
}

#[cfg(test)]
mod tests;
