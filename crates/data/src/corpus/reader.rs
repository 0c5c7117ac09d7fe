//! Files, one after another, as one stream of documents.

use std::collections::VecDeque;
use std::fs::Metadata;
use std::io::BufRead;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use super::compression::{CountingReader, Stream};
use super::document::{CorpusOptions, Document, MAX_DOCUMENT, Row, cut};
use super::inputs::{self, InputFile, Source};
use crate::DataError;

/// What reading found that is no error, but that a person should know.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
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
