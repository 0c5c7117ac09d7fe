//! Files, one after another, as one stream of documents.

use std::collections::VecDeque;
use std::fs::{File, Metadata};
use std::io::{BufRead, Seek};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use super::compression::{CountingReader, Stream};
use super::document::{CorpusOptions, Document, MAX_DOCUMENT, Row, cut};
use super::inputs::{self, InputFile, Source};
use super::text::WholeText;
use crate::DataError;

/// Bytes that are looked at.
const LOOK: usize = 64 << 10;
/// A file may grow as it likes by decompression up to so many bytes.
const SMALL: u64 = 64 << 20;
/// How many times a file may grow by decompression beyond that. Text grows five times, the most regular log perhaps fifty times.
const MAX_GROWTH: u64 = 200;

/// What reading found that is no error, but that a person should know.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct CorpusNotes {
    /// Files read to their end.
    pub files: u64,
    /// Files without any text, pipes in folders among them, which are not read.
    pub empty_files: Vec<PathBuf>,
    /// Text files of many lines without one blank line: each is one document.
    pub no_boundaries: Vec<PathBuf>,
    /// Rows without text.
    pub empty_documents: u64,
    /// Documents that were longer than [`MAX_DOCUMENT`] and were cut.
    pub cut_documents: u64,
    /// NUL bytes that were dropped.
    pub nuls: u64,
    /// Escaped surrogates without their other half that were read as U+FFFD.
    pub lone_surrogates: u64,
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

/// Pipes and standard input whose beginning was looked at, until they are opened to be read: they can be read once only.
static LOOKED_AT: Mutex<Vec<(PathBuf, Opened)>> = Mutex::new(Vec::new());

/// An open file.
type Opened = (Stream, ReadProgress);

fn open(path: &Path) -> Result<Opened, DataError> {
    let mut looked_at = LOOKED_AT.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(place) = looked_at.iter().position(|(known, _)| known == path) {
        return Ok(looked_at.swap_remove(place).1);
    }
    let read = Arc::default();
    let raw = CountingReader::new(inputs::raw(path)?, Arc::clone(&read));
    let stream = Stream::open(raw, &Arc::from(path))?;
    // A pipe has no length.
    let file = (path != Path::new("-")).then(|| std::fs::metadata(path).ok()).flatten();
    let total = file.filter(Metadata::is_file).map(|file| file.len());
    Ok((stream, ReadProgress { read, total }))
}

/// The beginning of a file, which is still read from its first byte.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Start {
    /// Its first bytes, decompressed: some 64 kB of a file, the lines up to the first that is not blank of a pipe.
    pub bytes: Vec<u8>,
    /// Whether it is a pipe or standard input.
    pub is_pipe: bool,
}

/// Looks at the beginning of a file, or of standard input for `-`, decompressed. Of a pipe no more is awaited than one line.
///
/// # Errors
/// Those of [`open_file`]; [`DataError::Format`] when it cannot be decompressed.
pub fn look(path: &Path) -> Result<Start, DataError> {
    let (mut stream, progress) = open(path)?;
    let is_pipe = progress.total.is_none();
    let mut bytes = Vec::new();
    while bytes.len() < LOOK {
        let ready = stream.fill()?;
        if ready.is_empty() {
            break;
        }
        let taken = ready.len().min(LOOK);
        bytes.extend_from_slice(&ready[..taken]);
        stream.consume(taken);
        let ends = |text: &[u8]| text.trim_ascii_start().iter().any(|byte| matches!(byte, b'\n' | b'\r'));
        if is_pipe && ends(&bytes) {
            break;
        }
    }
    if is_pipe {
        let mut looked_at = LOOKED_AT.lock().unwrap_or_else(PoisonError::into_inner);
        looked_at.push((path.to_owned(), (stream.put_back(bytes.clone()), progress)));
        // As much as one read gives depends on who writes.
        let start = bytes.len() - bytes.trim_ascii_start().len();
        let end = bytes[start..].iter().position(|byte| matches!(byte, b'\n' | b'\r'));
        bytes.truncate(end.map_or(bytes.len(), |end| start + end + 1));
    }
    Ok(Start { bytes, is_pipe })
}

/// A file's bytes, or standard input's for `-`, decompressed as they are read if they are gzip or zstd, whatever it is called; and
/// how far it has been read.
///
/// # Errors
/// [`DataError::Io`] when it cannot be read, [`DataError::Format`] when its name promises a compression that it does not have.
pub fn open_file(path: &Path) -> Result<(Box<dyn BufRead + Send>, ReadProgress), DataError> {
    let (stream, progress) = open(path)?;
    Ok((stream.into_reader(), progress))
}

/// A whole file's bytes, decompressed as by [`open_file`], a piece at a time.
///
/// # Errors
/// Those of [`open_file`] and of `take`; [`DataError::Format`] when it cannot be decompressed, or grows so much by it that it is not
/// data of people.
fn read_pieces(path: &Path, mut take: impl FnMut(&[u8]) -> Result<(), DataError>) -> Result<(), DataError> {
    let (mut stream, progress) = open(path)?;
    let mut whole = 0;
    loop {
        let bytes = stream.fill()?;
        let taken = bytes.len();
        if taken == 0 {
            return Ok(());
        }
        take(bytes)?;
        stream.consume(taken);
        whole += taken as u64;
        if whole > SMALL && whole / MAX_GROWTH > progress.bytes_read() {
            let problem = format!("grows more than {MAX_GROWTH} times when it is decompressed, which no data do");
            return Err(DataError::NotText { path: path.to_owned(), reason: problem });
        }
    }
}

/// An unnamed copy of a pipe's bytes, decompressed: for what is read from its end.
pub(super) fn spooled(path: &Path) -> Result<File, DataError> {
    let at = |e| DataError::io("create a temporary file for", path, e);
    let mut spool = tempfile::tempfile().map_err(at)?;
    open(path)?.0.copy_to(&mut spool)?;
    spool.rewind().map_err(at)?;
    Ok(spool)
}

/// A whole file's bytes, decompressed as by [`open_file`].
///
/// # Errors
/// Those of [`open_file`]; [`DataError::Format`] when it cannot be decompressed; [`DataError::NotText`] when it grows beyond measure
/// by it.
pub fn read_file(path: &Path) -> Result<Vec<u8>, DataError> {
    let mut bytes = Vec::new();
    read_pieces(path, |piece| {
        bytes.extend_from_slice(piece);
        Ok(())
    })?;
    Ok(bytes)
}

/// A whole file as text, by the rules of [`text`](super::text), and how many NULs were dropped.
///
/// # Errors
/// Those of [`read_file`]; [`DataError::Record`] for a line that is not UTF-8 or too long, [`DataError::NotText`] for what is not text
/// from its beginning.
pub fn read_text(path: &Path) -> Result<(String, usize), DataError> {
    let wrong = |(line, reason): (usize, String)| match line {
        0 => DataError::NotText { path: path.to_owned(), reason },
        line => DataError::Record { path: path.to_owned(), line: line as u64, reason },
    };
    let mut text = WholeText::default();
    read_pieces(path, |piece| text.push(piece).map_err(wrong))?;
    text.finish().map_err(wrong)
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
                    match source {
                        Source::Text(source) => self.notes.nuls += source.lines().nuls() as u64,
                        Source::Json(source) => {
                            let (lines, mended) = source.mended();
                            self.notes.nuls += lines.nuls() as u64;
                            self.notes.lone_surrogates += mended as u64;
                        }
                        Source::Parquet(source) => self.notes.nuls += source.nuls(),
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
