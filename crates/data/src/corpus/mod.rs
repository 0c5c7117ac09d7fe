//! Corpora: files, folders, globs or standard input → a stream of documents, in a fixed order and in bounded memory.
//!
//! | ending | a document is |
//! | --- | --- |
//! | `.txt`, `.text` | the lines between blank lines |
//! | `.tokens` | an article of WikiText: from one ` = Title = ` line to the next |
//! | `.jsonl`, `.ndjson`, `.json` | the text column of one object a line |
//! | `.parquet`, `.pq` | the text column of one row |
//!
//! What is text, and what becomes of byte-order marks and NULs, says [`text`].
//!
//! Each may be plain, `.gz` or `.zst`; compression is found by a file's first bytes, whatever it is called. Standard
//! input and files of other names, if named outright, are told apart by their first bytes.

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
pub use reader::{Corpus, CorpusNotes, ReadProgress, Start, look, open_corpus, open_file, read_file, read_text};

#[cfg(test)]
mod tests;
