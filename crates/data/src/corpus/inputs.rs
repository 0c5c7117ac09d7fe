//! Expands input paths to files in a fixed order, and opens files by format.

use std::collections::HashSet;
use std::fs::{self, File};
use std::io::{self, BufRead, Seek};
use std::path::{Component, Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use glob::{MatchOptions, Pattern};

use super::compression::{Compression, CountingReader, Stream};
use super::document::CorpusOptions;
use super::lines::{JsonDocuments, Lines, TextDocuments};
use super::parquet::ParquetDocuments;
use crate::DataError;

/// One file to read.
#[derive(Debug)]
pub(super) struct InputFile {
    pub path: Arc<Path>,
    /// Size on disk; unknown for standard input and pipes.
    pub bytes: Option<u64>,
}

/// An open file, by format.
pub(super) enum Source {
    Text(TextDocuments),
    Json(JsonDocuments),
    Parquet(Box<ParquetDocuments>),
}

/// The format of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Format {
    Text,
    WikiText,
    Json,
    Parquet,
}

const ENDINGS: &str = ".txt, .tokens, .jsonl or .parquet, plain, .gz or .zst";

/// Whether a path stands for standard input.
fn is_stdin(path: &Path) -> bool {
    path.as_os_str() == "-"
}

/// The files of the input paths.
#[derive(Debug, Default)]
pub(super) struct Inputs {
    pub files: Vec<InputFile>,
    /// Pipes in folders with the name of a corpus file. They are skipped, because a reader could wait for ever.
    pub skipped: Vec<PathBuf>,
    /// Canonical paths of the files found so far.
    seen: HashSet<PathBuf>,
}

/// Finds the files of the input paths.
pub(super) fn expand(paths: &[PathBuf]) -> Result<Inputs, DataError> {
    let mut inputs = Inputs::default();
    for path in paths {
        if is_stdin(path) {
            inputs.files.push(InputFile { path: Arc::from(path.as_path()), bytes: None });
            continue;
        }
        let reject = |reason: String| DataError::Input { path: path.clone(), reason };
        match fs::metadata(path) {
            Ok(meta) if meta.is_dir() => {
                if !inputs.walk(path, &mut HashSet::new())? {
                    return Err(reject(format!(
                        "the folder contains no corpus file; expected files ending in {ENDINGS}"
                    )));
                }
            }
            Ok(_) => inputs.add(path)?,
            Err(e) if e.kind() == io::ErrorKind::NotFound => {
                // Normalised like the paths that are found, which do not contain "a//*.txt".
                let plain: PathBuf = path.components().collect();
                let pattern = plain.to_string_lossy();
                if !pattern.contains(['*', '?', '[']) {
                    return Err(reject("no such file or folder".into()));
                }
                let pattern = Pattern::new(&pattern).map_err(|e| reject(format!("not a valid pattern: {e}")))?;
                let mut found = matching(path, &pattern)?;
                if found.is_empty() {
                    return Err(reject("the pattern matches no file".into()));
                }
                found.sort();
                for path in found {
                    if path.is_dir() {
                        inputs.walk(&path, &mut HashSet::new())?;
                    } else {
                        inputs.add(&path)?;
                    }
                }
            }
            Err(e) => return Err(DataError::io("open", path, e)),
        }
    }
    if inputs.files.is_empty() {
        return Err(DataError::Input {
            path: paths.first().cloned().unwrap_or_default(),
            reason: format!("nothing to read; expected files ending in {ENDINGS}"),
        });
    }
    Ok(inputs)
}

/// The paths that match a pattern. A byte of a name that is not UTF-8 counts as one character.
fn matching(typed: &Path, pattern: &Pattern) -> Result<Vec<PathBuf>, DataError> {
    let is_literal = |part: &Component<'_>| !part.as_os_str().to_string_lossy().contains(['*', '?', '[']);
    let start: PathBuf = typed.components().take_while(is_literal).collect();
    // As written in the pattern: a relative pattern starts in the working directory.
    let is_relative = start.as_os_str().is_empty();
    let parts = typed.components().count();
    let depth = if pattern.as_str().contains("**") { usize::MAX } else { parts };
    let options = MatchOptions { require_literal_separator: true, ..MatchOptions::default() };
    let mut found = Vec::new();
    let mut folders = vec![start];
    while let Some(folder) = folders.pop() {
        let opened = if is_relative && folder.as_os_str().is_empty() { Path::new(".") } else { &folder };
        let at = |e| DataError::io("read", opened, e);
        let entries = match fs::read_dir(opened) {
            Err(e) if matches!(e.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => continue,
            entries => entries.map_err(at)?,
        };
        for entry in entries {
            let entry = entry.map_err(at)?;
            let path = folder.join(entry.file_name());
            if pattern.matches_with(&path.to_string_lossy(), options) {
                found.push(path.clone());
            }
            // Links to folders are followed if the pattern lists each folder; ** does not follow links, which may form a cycle.
            let is_folder = if depth == usize::MAX { entry.file_type().map_err(at)?.is_dir() } else { path.is_dir() };
            if is_folder && path.components().count() < depth {
                folders.push(path);
            }
        }
    }
    Ok(found)
}

impl Inputs {
    fn add(&mut self, path: &Path) -> Result<(), DataError> {
        let canonical = fs::canonicalize(path).map_err(|e| DataError::io("open", path, e))?;
        if self.seen.insert(canonical) {
            let meta = fs::metadata(path).map_err(|e| DataError::io("open", path, e))?;
            self.files.push(InputFile {
                path: Arc::from(path),
                // The length of a pipe is meaningless.
                bytes: meta.is_file().then_some(meta.len()),
            });
        }
        Ok(())
    }

    /// Adds the corpus files of a folder and its sub-folders, sorted by name, without hidden ones. Returns whether there are
    /// any, including those already added.
    fn walk(&mut self, dir: &Path, above: &mut HashSet<PathBuf>) -> Result<bool, DataError> {
        let at = |e| DataError::io("read", dir, e);
        let canonical = fs::canonicalize(dir).map_err(at)?;
        // A link to a parent folder would recurse endlessly.
        if !above.insert(canonical.clone()) {
            return Ok(false);
        }
        let mut any = false;
        let mut entries = Vec::new();
        for entry in fs::read_dir(dir).map_err(at)? {
            entries.push(entry.map_err(at)?.path());
        }
        entries.sort();
        for path in entries {
            let name = path.file_name().unwrap_or_default().to_string_lossy();
            if name.starts_with('.') {
                continue;
            }
            if path.is_dir() {
                any |= self.walk(&path, above)?;
            } else if format_of_name(&path).is_some() {
                let is_pipe = fs::metadata(&path).is_ok_and(|meta| !meta.is_file());
                if is_pipe {
                    self.skipped.push(path);
                    continue;
                }
                self.add(&path)?;
                any = true;
            }
        }
        above.remove(&canonical);
        Ok(any)
    }
}

/// The format according to a file's name without its compression suffix.
fn format_of_name(path: &Path) -> Option<Format> {
    let name = path.file_name()?.to_string_lossy().to_ascii_lowercase();
    let stem = [".gz", ".gzip", ".zst", ".zstd"].iter().find_map(|ending| name.strip_suffix(ending)).unwrap_or(&name);
    match stem.rsplit_once('.')?.1 {
        "txt" | "text" => Some(Format::Text),
        "tokens" => Some(Format::WikiText),
        "jsonl" | "ndjson" | "json" => Some(Format::Json),
        "parquet" | "pq" => Some(Format::Parquet),
        _ => None,
    }
}

/// The raw bytes of a file or of standard input.
pub(super) fn open_raw(path: &Path) -> Result<Box<dyn io::Read + Send>, DataError> {
    if is_stdin(path) {
        return Ok(Box::new(io::stdin()));
    }
    Ok(Box::new(File::open(path).map_err(|e| DataError::io("open", path, e))?))
}

/// Opens a file; detects its compression and its format.
pub(super) fn open(file: &InputFile, options: &CorpusOptions, read: &Arc<AtomicU64>) -> Result<Source, DataError> {
    let path = &file.path;
    let named = format_of_name(path);
    if named == Some(Format::Parquet) {
        let file = File::open(path).map_err(|e| DataError::io("open", &**path, e))?;
        if is_uncompressed(&file, path)? {
            let documents = ParquetDocuments::open(file, path.clone(), options, Some(read.clone()));
            return Ok(Source::Parquet(Box::new(documents?)));
        }
    }
    let mut stream = Stream::open(CountingReader::new(open_raw(path)?, read.clone()), path)?;
    let start = stream.fill()?;
    let format = if start.starts_with(b"PAR1") {
        Format::Parquet
    } else {
        let object = start.trim_ascii_start().starts_with(b"{");
        named.unwrap_or(if object { Format::Json } else { Format::Text })
    };
    match format {
        Format::Text => Ok(Source::Text(TextDocuments::new(Lines::new(stream), false))),
        Format::WikiText => Ok(Source::Text(TextDocuments::new(Lines::new(stream), true))),
        Format::Json => Ok(Source::Json(JsonDocuments::new(Lines::new(stream), &options.text_column))),
        Format::Parquet => {
            // Parquet is read from the end of the file. A stream that cannot seek is copied to an unnamed temporary file.
            let mut spool =
                tempfile::tempfile().map_err(|e| DataError::io("create a temporary file for", &**path, e))?;
            stream.copy_to(&mut spool)?;
            spool.rewind().map_err(|e| DataError::io("rewind", &**path, e))?;
            let documents = ParquetDocuments::open(spool, path.clone(), options, None)?;
            Ok(Source::Parquet(Box::new(documents)))
        }
    }
}

/// Whether the file is uncompressed. A compressed file may also be named .parquet.
fn is_uncompressed(mut file: &File, path: &Path) -> Result<bool, DataError> {
    let at = |e| DataError::io("read", path, e);
    let mut reader = io::BufReader::with_capacity(16, &mut file);
    let start = reader.fill_buf().map_err(at)?;
    let plain = Compression::from_magic(start) == Compression::None;
    reader.into_inner().rewind().map_err(at)?;
    Ok(plain)
}
