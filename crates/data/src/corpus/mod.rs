//! Corpora: files, folders, globs or standard input → a stream of documents, in a fixed order and with limited memory.
//!
//! | file name | document |
//! | --- | --- |
//! | `.txt`, `.text` | the lines between blank lines |
//! | `.tokens` | an article of WikiText: from one ` = Title = ` line to the next |
//! | `.jsonl`, `.ndjson`, `.json` | the text column of the object on each line |
//! | `.parquet`, `.pq` | the text column of each row |
//!
//! [`text`] defines what is valid text, and how byte-order marks and NUL bytes are handled.
//!
//! Each format may be uncompressed, gzip or zstd. Compression is detected by a file's first bytes, for any file name. The
//! format of standard input, and of explicitly listed files with other names, is also detected by the first bytes.

mod compression;
mod document;
mod inputs;
mod lines;
mod parquet;
mod parquet_columns;
mod parquet_pages;
mod reader;
pub mod text;

pub use document::{CorpusOptions, Document, MAX_DOCUMENT};
pub use parquet_columns::ParquetColumns;
pub use reader::{Corpus, CorpusNotes, FileStart, ReadProgress, open_corpus, open_file, peek, read_file, read_text};

#[cfg(test)]
mod tests;
