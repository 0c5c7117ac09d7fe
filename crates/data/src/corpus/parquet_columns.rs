//! Columns of a parquet file as texts, read whole: for labelled data, which is small and has more columns than one.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use parquet::basic::{LogicalType, Type};
use parquet::column::reader::ColumnReaderImpl;
use parquet::data_type::{BoolType, ByteArray, ByteArrayType, DataType, DoubleType, FloatType, Int32Type, Int64Type};
use parquet::errors::ParquetError;
use parquet::file::reader::{FileReader, SerializedFileReader};

use super::parquet::format_error;
use super::parquet_pages::column_pages;
use crate::DataError;

/// Records decoded at a time.
const RECORDS: usize = 1024;

/// A parquet file whose columns of strings, integers, floats and booleans can be read as texts; plain or compressed by
/// snappy, gzip, lz4 or zstd.
pub struct ParquetColumns {
    path: PathBuf,
    file: Arc<File>,
    reader: SerializedFileReader<File>,
}

impl ParquetColumns {
    /// Opens a file and reads what it says of its columns.
    ///
    /// # Errors
    /// [`DataError::Io`] when the file cannot be read, [`DataError::Format`] when it is no parquet file.
    pub fn open(path: &Path) -> Result<ParquetColumns, DataError> {
        let at = |e| DataError::io("open", path, e);
        let file = File::open(path).map_err(at)?;
        let copy = file.try_clone().map_err(at)?;
        let reader = SerializedFileReader::new(copy).map_err(|e| format_error(path, &e))?;
        Ok(ParquetColumns { path: path.to_owned(), file: Arc::new(file), reader })
    }

    /// The names of the columns; a nested one's is its path joined by dots.
    pub fn names(&self) -> Vec<String> {
        let schema = self.reader.metadata().file_metadata().schema_descr();
        schema.columns().iter().map(|column| column.path().string()).collect()
    }

    /// The values of a column of [`names`](Self::names), a text a row; `None` for null. Numbers are written with as
    /// many digits as tell them from their neighbours, booleans as `true` and `false`.
    ///
    /// # Errors
    /// [`DataError::Input`] when there is no such column, or it holds lists, dates or decimals; [`DataError::Record`]
    /// for a string that is not UTF-8; [`DataError::Format`] when the file is damaged.
    pub fn read(&self, column: usize) -> Result<Vec<Option<String>>, DataError> {
        let input = |reason: String| DataError::Input { path: self.path.clone(), reason };
        let schema = self.reader.metadata().file_metadata().schema_descr();
        let count = schema.num_columns();
        if column >= count {
            return Err(input(format!("no column {}; it has {count}", column + 1)));
        }
        let leaf = schema.column(column);
        let refused = |kind: String| {
            let name = leaf.path().string();
            Err(input(format!("column \"{name}\" holds {kind}; expected strings, integers, floats or booleans")))
        };
        if leaf.max_rep_level() > 0 {
            return refused("lists".into());
        }
        let mut signed = true;
        match leaf.logical_type_ref() {
            None | Some(LogicalType::String | LogicalType::Enum | LogicalType::Json) => {}
            Some(LogicalType::Integer(kind)) => signed = kind.is_signed,
            Some(other) => return refused(format!("{other:?}")),
        }
        match leaf.physical_type() {
            Type::BYTE_ARRAY => self.values::<ByteArrayType>(column, |value: &ByteArray| {
                std::str::from_utf8(value.data())
                    .map(str::to_owned)
                    .map_err(|e| format!("byte {} of this row's text is not UTF-8", e.valid_up_to()))
            }),
            Type::BOOLEAN => self.values::<BoolType>(column, |value| Ok(value.to_string())),
            Type::FLOAT => self.values::<FloatType>(column, |value| Ok(value.to_string())),
            Type::DOUBLE => self.values::<DoubleType>(column, |value| Ok(value.to_string())),
            // Unsigned integers are stored as the signed ones of the same bits.
            Type::INT32 if signed => self.values::<Int32Type>(column, |value| Ok(value.to_string())),
            Type::INT32 => self.values::<Int32Type>(column, |value| Ok(value.cast_unsigned().to_string())),
            Type::INT64 if signed => self.values::<Int64Type>(column, |value| Ok(value.to_string())),
            Type::INT64 => self.values::<Int64Type>(column, |value| Ok(value.cast_unsigned().to_string())),
            other => refused(format!("{other:?}")),
        }
    }

    fn values<D: DataType>(
        &self,
        column: usize,
        text: impl Fn(&D::T) -> Result<String, String>,
    ) -> Result<Vec<Option<String>>, DataError> {
        let damaged = |e: &ParquetError| format_error(&self.path, e);
        let mut rows: Vec<Option<String>> = Vec::new();
        for group in 0..self.reader.num_row_groups() {
            let group = self.reader.get_row_group(group).map_err(|e| damaged(&e))?;
            let expected = rows.len() as u64 + group.metadata().num_rows().unsigned_abs();
            let leaf = group.metadata().column(column).column_descr_ptr();
            let full = leaf.max_def_level();
            let pages = column_pages(&self.file, &*group, column).map_err(|e| damaged(&e))?;
            let mut reader = ColumnReaderImpl::<D>::new(leaf, pages);
            loop {
                let mut levels = Vec::new();
                let mut found = Vec::new();
                let (records, ..) =
                    reader.read_records(RECORDS, Some(&mut levels), None, &mut found).map_err(|e| damaged(&e))?;
                if records == 0 {
                    break;
                }
                let mut found = found.iter();
                for record in 0..records {
                    let present = full == 0 || levels.get(record) == Some(&full);
                    let value = if present { found.next().map(&text).transpose() } else { Ok(None) };
                    let line = rows.len() as u64 + 1;
                    let value = value.map_err(|reason| DataError::Record { path: self.path.clone(), line, reason })?;
                    rows.push(value);
                }
            }
            if rows.len() as u64 != expected {
                let (column, found) = (column + 1, rows.len());
                let reason = format!("{found} rows of column {column}, expected {expected}");
                return Err(damaged(&ParquetError::General(reason)));
            }
        }
        Ok(rows)
    }
}
