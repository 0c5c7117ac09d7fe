//! Reads files in order as one stream of documents.

use std::collections::VecDeque;
use std::fs::{File, Metadata};
use std::io::{BufRead, Seek};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use super::compression::{CountingReader, Stream, bomb_reason, is_bomb};
use super::document::{CorpusOptions, Document, MAX_DOCUMENT, Row, split};
use super::inputs::{self, InputFile, Source};
use super::text::TextBuffer;
use crate::DataError;

/// Number of bytes that [`peek`] reads.
const PEEK_BYTES: usize = 64 << 10;

/// Observations during reading that are not errors, but that the user should know.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct CorpusNotes {
    /// Files read completely.
    pub files: u64,
    /// Files without any text, and pipes in folders, which are not read.
    pub empty_files: Vec<PathBuf>,
    /// Text files with many lines and no blank line: each is one document.
    pub no_boundaries: Vec<PathBuf>,
    /// Rows without text.
    pub empty_documents: u64,
    /// Documents that were longer than [`MAX_DOCUMENT`] and were split.
    pub split_documents: u64,
    /// NUL bytes that were removed.
    pub nul_bytes: u64,
    /// Unpaired surrogate escapes that were replaced by U+FFFD.
    pub lone_surrogates: u64,
}

/// The progress of reading a corpus, shared with the thread that reads it.
#[derive(Clone, Debug)]
pub struct ReadProgress {
    read: Arc<AtomicU64>,
    total: Option<u64>,
}

impl ReadProgress {
    /// Compressed bytes read so far.
    pub fn bytes_read(&self) -> u64 {
        self.read.load(Ordering::Relaxed)
    }

    /// Compressed size of all files; unknown with standard input and pipes.
    pub fn bytes_total(&self) -> Option<u64> {
        self.total
    }
}

/// A stream of documents. It ends after the first error.
pub struct Corpus {
    options: CorpusOptions,
    files: VecDeque<InputFile>,
    current: Option<(Arc<Path>, Source)>,
    /// The remaining parts of a document that was split, and their line.
    rest: VecDeque<(String, u64)>,
    documents_of_file: u64,
    documents: u64,
    progress: ReadProgress,
    notes: CorpusNotes,
    ended: bool,
}

/// Opens a corpus. Documents are in the order of `paths`; the files of folders and globs are sorted by name; each file is
/// read once, even if several paths lead to it.
///
/// # Errors
/// [`DataError::Input`] if there is nothing to read at a path, folder or glob. Errors inside a file come from the iterator.
/// A corpus without documents ends with [`DataError::EmptyCorpus`].
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
    let inputs::Inputs { files, skipped, .. } = inputs::expand(paths)?;
    let total = files.iter().map(|file| file.bytes).sum();
    Ok(Corpus {
        options: options.clone(),
        files: files.into(),
        current: None,
        rest: VecDeque::new(),
        documents_of_file: 0,
        documents: 0,
        progress: ReadProgress { read: Arc::default(), total },
        notes: CorpusNotes { empty_files: skipped, ..CorpusNotes::default() },
        ended: false,
    })
}

/// Pipes and standard input that were peeked at, until they are opened for reading: they can be read only once.
static PEEKED: Mutex<Vec<(PathBuf, OpenFile)>> = Mutex::new(Vec::new());

/// An open file and its progress.
type OpenFile = (Stream, ReadProgress);

fn open(path: &Path) -> Result<OpenFile, DataError> {
    let mut peeked = PEEKED.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(at) = peeked.iter().position(|(known, _)| known == path) {
        return Ok(peeked.swap_remove(at).1);
    }
    let read = Arc::default();
    let raw = CountingReader::new(inputs::open_raw(path)?, Arc::clone(&read));
    let stream = Stream::open(raw, &Arc::from(path))?;
    // A pipe has no length.
    let file = (path != Path::new("-")).then(|| std::fs::metadata(path).ok()).flatten();
    let total = file.filter(Metadata::is_file).map(|file| file.len());
    Ok((stream, ReadProgress { read, total }))
}

/// The first bytes of a file. The file can still be read from its beginning.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FileStart {
    /// The first decompressed bytes: about 64 kB of a file; of a pipe, the lines up to the first that is not blank.
    pub bytes: Vec<u8>,
    /// Whether it is a pipe or standard input.
    pub is_pipe: bool,
}

/// Reads the first decompressed bytes of a file, or of standard input for `-`. For a pipe, it waits for one line only.
///
/// # Errors
/// Those of [`open_file`]; [`DataError::Format`] if it cannot be decompressed.
pub fn peek(path: &Path) -> Result<FileStart, DataError> {
    let (mut stream, progress) = open(path)?;
    let is_pipe = progress.total.is_none();
    let mut bytes = Vec::new();
    while bytes.len() < PEEK_BYTES {
        let ready = stream.fill()?;
        if ready.is_empty() {
            break;
        }
        let taken = ready.len().min(PEEK_BYTES);
        bytes.extend_from_slice(&ready[..taken]);
        stream.consume(taken);
        let ends = |text: &[u8]| text.trim_ascii_start().iter().any(|byte| matches!(byte, b'\n' | b'\r'));
        if is_pipe && ends(&bytes) {
            break;
        }
    }
    if is_pipe {
        let mut peeked = PEEKED.lock().unwrap_or_else(PoisonError::into_inner);
        peeked.push((path.to_owned(), (stream.put_back(bytes.clone()), progress)));
        // The size of one read depends on the writer, so the result is cut after the first line.
        let start = bytes.len() - bytes.trim_ascii_start().len();
        let end = bytes[start..].iter().position(|byte| matches!(byte, b'\n' | b'\r'));
        bytes.truncate(end.map_or(bytes.len(), |end| start + end + 1));
    }
    Ok(FileStart { bytes, is_pipe })
}

/// Opens a file, or standard input for `-`, for reading with decompression. Gzip and zstd are detected by the first bytes,
/// for any file name. Also returns the progress of reading.
///
/// # Errors
/// [`DataError::Io`] if it cannot be read, [`DataError::Format`] if its name indicates a compression that it does not have.
pub fn open_file(path: &Path) -> Result<(Box<dyn BufRead + Send>, ReadProgress), DataError> {
    let (stream, progress) = open(path)?;
    Ok((stream.into_reader(), progress))
}

/// Reads a complete file in pieces, decompressed like [`open_file`].
///
/// # Errors
/// Those of [`open_file`] and of `take`; [`DataError::Format`] if it cannot be decompressed; [`DataError::NotText`] if its
/// compression ratio is not plausible for text.
fn read_pieces(path: &Path, mut take: impl FnMut(&[u8]) -> Result<(), DataError>) -> Result<(), DataError> {
    let (mut stream, progress) = open(path)?;
    let mut total = 0;
    loop {
        let bytes = stream.fill()?;
        let taken = bytes.len();
        if taken == 0 {
            return Ok(());
        }
        take(bytes)?;
        stream.consume(taken);
        total += taken as u64;
        if is_bomb(total, progress.bytes_read()) {
            return Err(DataError::NotText { path: path.to_owned(), reason: bomb_reason("decompressed") });
        }
    }
}

/// Copies the decompressed bytes of a pipe to an unnamed temporary file, for formats that are read from the end.
pub(super) fn spool(path: &Path) -> Result<File, DataError> {
    let at = |e| DataError::io("create a temporary file for", path, e);
    let mut spool = tempfile::tempfile().map_err(at)?;
    open(path)?.0.copy_to(&mut spool)?;
    spool.rewind().map_err(at)?;
    Ok(spool)
}

/// The complete bytes of a file, decompressed like [`open_file`].
///
/// # Errors
/// Those of [`open_file`]; [`DataError::Format`] if it cannot be decompressed; [`DataError::NotText`] if its compression
/// ratio is not plausible for text.
pub fn read_file(path: &Path) -> Result<Vec<u8>, DataError> {
    let mut bytes = Vec::new();
    read_pieces(path, |piece| {
        bytes.extend_from_slice(piece);
        Ok(())
    })?;
    Ok(bytes)
}

/// A complete file as text, by the rules of [`text`](super::text), and the number of NUL bytes that were removed.
///
/// # Errors
/// Those of [`read_file`]; [`DataError::Record`] for a line that is too long or not UTF-8; [`DataError::NotText`] if the first
/// bytes are not text.
pub fn read_text(path: &Path) -> Result<(String, usize), DataError> {
    let wrong = |(line, reason): (usize, String)| match line {
        0 => DataError::NotText { path: path.to_owned(), reason },
        line => DataError::Record { path: path.to_owned(), line: line as u64, reason },
    };
    let mut text = TextBuffer::default();
    read_pieces(path, |piece| text.push(piece).map_err(wrong))?;
    text.finish().map_err(wrong)
}

impl Corpus {
    /// A handle that reports the progress of reading this corpus.
    pub fn progress(&self) -> ReadProgress {
        self.progress.clone()
    }

    /// The observations so far.
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
                    let parts = split(text, MAX_DOCUMENT);
                    self.notes.split_documents += u64::from(parts.len() > 1);
                    self.rest.extend(parts.into_iter().map(|text| (text, line)));
                }
                Row::End => {
                    self.notes.files += 1;
                    if self.documents_of_file == 0 {
                        self.notes.empty_files.push(path.to_path_buf());
                    }
                    match source {
                        Source::Text(source) => self.notes.nul_bytes += source.lines().nul_bytes() as u64,
                        Source::Json(source) => {
                            self.notes.nul_bytes += source.lines().nul_bytes() as u64;
                            self.notes.lone_surrogates += source.lone_surrogates() as u64;
                        }
                        Source::Parquet(source) => self.notes.nul_bytes += source.nul_bytes(),
                    }
                    if let Source::Text(source) = source {
                        self.notes.split_documents += source.split_documents();
                        if source.has_no_boundaries() {
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
