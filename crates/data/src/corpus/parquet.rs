//! The documents of a parquet file: the rows of its text column.

use std::fs::File;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use parquet::basic::Type;
use parquet::column::reader::ColumnReaderImpl;
use parquet::data_type::{ByteArray, ByteArrayType};
use parquet::errors::ParquetError;
use parquet::file::reader::{FileReader, SerializedFileReader};

use super::compression::{bomb_reason, is_bomb};
use super::document::{CorpusOptions, Row};
use super::parquet_pages::column_pages;
use super::text::{MAX_LINE, too_long};
use crate::DataError;

/// Number of rows decoded at once.
const ROWS: usize = 32;

/// Reads the rows of one column in small groups.
pub(super) struct ParquetDocuments {
    path: Arc<Path>,
    file: Arc<File>,
    reader: SerializedFileReader<File>,
    /// Index of the text column among the leaf columns.
    column: usize,
    /// Index of the next row group.
    group: usize,
    values: Option<ColumnReaderImpl<ByteArrayType>>,
    /// Rows that have been decoded but not returned, in reverse order; `None` for null.
    rows: Vec<Option<ByteArray>>,
    /// Number of rows returned.
    row: u64,
    /// Progress in bytes of the file, estimated from rows; `None` if the bytes are counted elsewhere.
    read: Option<Arc<AtomicU64>>,
    bytes: u64,
    /// Number of rows decoded.
    decoded: u64,
    /// Size of the decoded rows: the bytes of their texts, and one per row.
    decoded_bytes: u64,
    /// Number of NUL bytes that were removed.
    nul_bytes: u64,
}

impl ParquetDocuments {
    pub fn open(
        file: File,
        path: Arc<Path>,
        options: &CorpusOptions,
        read: Option<Arc<AtomicU64>>,
    ) -> Result<ParquetDocuments, DataError> {
        let at = |e| DataError::io("open", &*path, e);
        let bytes = file.metadata().map_err(at)?.len();
        let copy = file.try_clone().map_err(at)?;
        let reader = SerializedFileReader::new(copy).map_err(|e| format_error(&path, &e))?;
        let schema = reader.metadata().file_metadata().schema_descr_ptr();
        let found = schema.columns().iter().position(|column| column.path().string() == options.text_column);
        let Some(column) = found else {
            return Err(DataError::NoTextColumn {
                path: path.to_path_buf(),
                column: options.text_column.clone(),
                present: schema.columns().iter().map(|column| column.path().string()).collect(),
            });
        };
        let leaf = schema.column(column);
        if leaf.physical_type() != Type::BYTE_ARRAY || leaf.max_rep_level() > 0 {
            return Err(DataError::Input {
                path: path.to_path_buf(),
                reason: format!(
                    "column \"{}\" is {}{:?}, expected strings",
                    options.text_column,
                    if leaf.max_rep_level() > 0 { "a list of " } else { "" },
                    leaf.physical_type()
                ),
            });
        }
        Ok(ParquetDocuments {
            path,
            file: Arc::new(file),
            reader,
            column,
            group: 0,
            values: None,
            rows: Vec::new(),
            row: 0,
            read,
            bytes,
            decoded: 0,
            decoded_bytes: 0,
            nul_bytes: 0,
        })
    }

    /// Number of NUL bytes removed so far.
    pub fn nul_bytes(&self) -> u64 {
        self.nul_bytes
    }

    pub fn next_row(&mut self) -> Result<Row, DataError> {
        if self.rows.is_empty() && !self.refill()? {
            return Ok(Row::End);
        }
        self.row += 1;
        let Some(Some(value)) = self.rows.pop() else {
            return Ok(Row::Blank);
        };
        let record = |reason: String| DataError::Record { path: self.path.to_path_buf(), line: self.row, reason };
        let text = std::str::from_utf8(value.data())
            .map_err(|e| record(format!("byte {} of this row's text is not UTF-8", e.valid_up_to() + 1)))?;
        if text.len() > MAX_LINE {
            return Err(record(too_long("text")));
        }
        let found = memchr::memchr_iter(0, text.as_bytes()).count() as u64;
        let text = if found > 0 { text.replace('\0', "") } else { text.to_owned() };
        self.nul_bytes += found;
        if text.trim().is_empty() {
            return Ok(Row::Blank);
        }
        Ok(Row::Document(text, self.row))
    }

    /// Decodes the next rows; false at the end.
    fn refill(&mut self) -> Result<bool, DataError> {
        loop {
            let groups = self.reader.num_row_groups();
            let Some(values) = &mut self.values else {
                if self.group == groups {
                    return Ok(false);
                }
                self.values = Some(self.open_group().map_err(|e| format_error(&self.path, &e))?);
                self.group += 1;
                continue;
            };
            let leaf = self.reader.metadata().file_metadata().schema_descr().column(self.column);
            let mut levels = Vec::new();
            let mut found = Vec::new();
            let (records, _, _) = values
                .read_records(ROWS, Some(&mut levels), None, &mut found)
                .map_err(|e| format_error(&self.path, &e))?;
            if records == 0 {
                self.values = None;
                continue;
            }
            self.decoded_bytes += records as u64 + found.iter().map(|text| text.len() as u64).sum::<u64>();
            // A few bytes can encode billions of copies of a text.
            if is_bomb(self.decoded_bytes, self.bytes) {
                return Err(DataError::NotText { path: self.path.to_path_buf(), reason: bomb_reason("decoded") });
            }
            self.count(records as u64);
            if leaf.max_def_level() == 0 {
                self.rows.extend(found.into_iter().map(Some));
            } else {
                let mut found = found.into_iter();
                let level = leaf.max_def_level();
                self.rows.extend(levels.iter().map(|&l| if l == level { found.next() } else { None }));
            }
            self.rows.reverse();
            return Ok(true);
        }
    }

    /// Adds the decoded rows to the progress: each counts for an equal part of the file's size.
    fn count(&mut self, rows: u64) {
        let all = self.reader.metadata().file_metadata().num_rows().max(1) as u64;
        let share = |rows: u64| (u128::from(self.bytes) * u128::from(rows.min(all)) / u128::from(all)) as u64;
        let (before, now) = (share(self.decoded), share(self.decoded.saturating_add(rows)));
        self.decoded = self.decoded.saturating_add(rows);
        if let Some(read) = &self.read {
            read.fetch_add(now - before, Ordering::Relaxed);
        }
    }

    fn open_group(&self) -> Result<ColumnReaderImpl<ByteArrayType>, ParquetError> {
        let group = self.reader.get_row_group(self.group)?;
        let pages = column_pages(&self.file, &*group, self.column)?;
        Ok(ColumnReaderImpl::new(group.metadata().column(self.column).column_descr_ptr(), pages))
    }
}

pub(super) fn format_error(path: &Path, error: &ParquetError) -> DataError {
    DataError::Format { path: path.to_path_buf(), format: "parquet", reason: error.to_string() }
}
