//! Reads complete columns of a parquet file as texts. This is for labelled data, which is small and has several columns.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use parquet::basic::{LogicalType, Type};
use parquet::column::reader::ColumnReaderImpl;
use parquet::data_type::{BoolType, ByteArray, ByteArrayType, DataType, DoubleType, FloatType, Int32Type, Int64Type};
use parquet::errors::ParquetError;
use parquet::file::reader::{FileReader, Length, SerializedFileReader};
use parquet::schema::types::{ColumnDescPtr, ColumnDescriptor};

use super::compression::{bomb_reason, is_bomb};
use super::parquet::format_error;
use super::parquet_pages::column_pages;
use super::reader::spool;
use super::text::{MAX_LINE, too_long};
use crate::DataError;

/// Number of records decoded at once.
const RECORDS: usize = 1024;

/// A parquet file whose columns can be read as texts: strings, integers, floats, booleans, and lists of these. It may be
/// uncompressed or compressed with snappy, gzip, lz4 or zstd.
pub struct ParquetColumns {
    path: PathBuf,
    file: Arc<File>,
    reader: SerializedFileReader<File>,
}

impl ParquetColumns {
    /// Opens a file and reads its schema.
    ///
    /// # Errors
    /// [`DataError::Io`] if the file cannot be read, [`DataError::Format`] if it is not a parquet file.
    pub fn open(path: &Path) -> Result<ParquetColumns, DataError> {
        let at = |e| DataError::io("open", path, e);
        let is_file = path != Path::new("-") && std::fs::metadata(path).map_err(at)?.is_file();
        let file = if is_file { File::open(path).map_err(at)? } else { spool(path)? };
        let copy = file.try_clone().map_err(at)?;
        let reader = SerializedFileReader::new(copy).map_err(|e| format_error(path, &e))?;
        Ok(ParquetColumns { path: path.to_owned(), file: Arc::new(file), reader })
    }

    /// The names of the leaf columns. The name of a nested column is its path, joined by dots.
    pub fn names(&self) -> Vec<String> {
        let schema = self.reader.metadata().file_metadata().schema_descr();
        schema.columns().iter().map(|column| column.path().string()).collect()
    }

    /// The name of the list that contains the elements of a leaf column: `labels` for `labels.list.element`, and
    /// `choices.text` for `choices.text.list.element`. `None` for columns that are not in exactly one list.
    pub fn list_name(&self, column: usize) -> Option<String> {
        let schema = self.reader.metadata().file_metadata().schema_descr();
        let leaf = schema.columns().get(column).filter(|leaf| leaf.max_rep_level() == 1)?;
        // A list is a group with a repeated group of elements. Older writers omit the inner group.
        match leaf.path().parts() {
            [name, _] | [name, _, _] => Some(name.clone()),
            [name @ .., list, element] if list == "list" && (element == "element" || element == "item") => {
                Some(name.join("."))
            }
            _ => None,
        }
    }

    /// The value of a key in the file's metadata, such as the key `huggingface` of the library `datasets`.
    pub fn metadata(&self, key: &str) -> Option<&str> {
        let entries = self.reader.metadata().file_metadata().key_value_metadata()?;
        entries.iter().find(|entry| entry.key == key)?.value.as_deref()
    }

    /// The values of a column of [`names`](Self::names), one text per row; `None` for null. Numbers are written with the
    /// shortest representation that identifies them, booleans as `true` and `false`.
    ///
    /// # Errors
    /// [`DataError::Input`] if there is no such column, or if it contains lists, dates or decimals; [`DataError::Record`] for
    /// a string that is not UTF-8; [`DataError::Format`] if the file is damaged.
    pub fn read(&self, column: usize) -> Result<Vec<Option<String>>, DataError> {
        let leaf = self.leaf(column)?;
        if leaf.max_rep_level() > 0 {
            return Err(self.unsupported(&leaf, "lists"));
        }
        Ok(self.entries(column, &leaf)?.into_iter().map(|entry| entry.value).collect())
    }

    /// The lists of a column with a [`list_name`](Self::list_name), each as a JSON array; `None` for null.
    ///
    /// # Errors
    /// Those of [`read`](Self::read); [`DataError::Input`] for a column that does not contain lists.
    pub fn read_lists(&self, column: usize) -> Result<Vec<Option<String>>, DataError> {
        let leaf = self.leaf(column)?;
        if self.list_name(column).is_none() {
            return Err(self.unsupported(&leaf, "no lists of plain values"));
        }
        let is_text = leaf.physical_type() == Type::BYTE_ARRAY;
        // Definition levels: `element` and higher mean that there is an element, `element - 1` that there is an empty list.
        let element = leaf.max_def_level() - i16::from(leaf.self_type().is_optional());
        let mut rows: Vec<Option<Vec<String>>> = Vec::new();
        for Entry { definition, repetition, value } in self.entries(column, &leaf)? {
            if repetition == 0 {
                rows.push((definition >= element - 1).then(Vec::new));
            }
            if definition >= element
                && let Some(Some(list)) = rows.last_mut()
            {
                list.push(match value {
                    Some(text) if is_text => serde_json::Value::from(text).to_string(),
                    Some(number) => number,
                    None => "null".to_owned(),
                });
            }
        }
        Ok(rows.into_iter().map(|row| row.map(|list| format!("[{}]", list.join(",")))).collect())
    }

    fn leaf(&self, column: usize) -> Result<ColumnDescPtr, DataError> {
        let schema = self.reader.metadata().file_metadata().schema_descr();
        let count = schema.num_columns();
        if column >= count {
            let reason = format!("found no column {}; the file has {count}", column + 1);
            return Err(DataError::Input { path: self.path.clone(), reason });
        }
        Ok(schema.column(column))
    }

    fn unsupported(&self, leaf: &ColumnDescriptor, kind: &str) -> DataError {
        let name = leaf.path().string();
        let reason = format!("column \"{name}\" contains {kind}; expected strings, integers, floats or booleans");
        DataError::Input { path: self.path.clone(), reason }
    }

    fn entries(&self, column: usize, leaf: &ColumnDescriptor) -> Result<Vec<Entry>, DataError> {
        let mut signed = true;
        match leaf.logical_type_ref() {
            None | Some(LogicalType::String | LogicalType::Enum | LogicalType::Json) => {}
            Some(LogicalType::Integer(kind)) => signed = kind.is_signed,
            Some(other) => return Err(self.unsupported(leaf, &format!("{other:?}"))),
        }
        match leaf.physical_type() {
            Type::BYTE_ARRAY => self.values::<ByteArrayType>(column, |value: &ByteArray| {
                if value.len() > MAX_LINE {
                    return Err(too_long("cell"));
                }
                std::str::from_utf8(value.data())
                    .map(str::to_owned)
                    .map_err(|e| format!("byte {} of this row's text is not UTF-8", e.valid_up_to() + 1))
            }),
            Type::BOOLEAN => self.values::<BoolType>(column, |value| Ok(value.to_string())),
            Type::FLOAT => self.values::<FloatType>(column, |value| Ok(value.to_string())),
            Type::DOUBLE => self.values::<DoubleType>(column, |value| Ok(value.to_string())),
            // Unsigned integers are stored as signed integers with the same bits.
            Type::INT32 if signed => self.values::<Int32Type>(column, |value| Ok(value.to_string())),
            Type::INT32 => self.values::<Int32Type>(column, |value| Ok(value.cast_unsigned().to_string())),
            Type::INT64 if signed => self.values::<Int64Type>(column, |value| Ok(value.to_string())),
            Type::INT64 => self.values::<Int64Type>(column, |value| Ok(value.cast_unsigned().to_string())),
            other => Err(self.unsupported(leaf, &format!("{other:?}"))),
        }
    }

    fn values<D: DataType>(
        &self,
        column: usize,
        text: impl Fn(&D::T) -> Result<String, String>,
    ) -> Result<Vec<Entry>, DataError> {
        let damaged = |e: &ParquetError| format_error(&self.path, e);
        let (mut entries, mut rows, mut bytes) = (Vec::new(), 0, 0);
        let stored = self.file.len();
        for group in 0..self.reader.num_row_groups() {
            let group = self.reader.get_row_group(group).map_err(|e| damaged(&e))?;
            let expected = u64::saturating_add(rows, group.metadata().num_rows().unsigned_abs());
            let leaf = group.metadata().column(column).column_descr_ptr();
            let (full, has_lists) = (leaf.max_def_level(), leaf.max_rep_level() > 0);
            let pages = column_pages(&self.file, &*group, column).map_err(|e| damaged(&e))?;
            let mut reader = ColumnReaderImpl::<D>::new(leaf, pages);
            loop {
                let (mut definitions, mut repetitions, mut found) = (Vec::new(), Vec::new(), Vec::new());
                let repeated = has_lists.then_some(&mut repetitions);
                let (records, _, levels) = reader
                    .read_records(RECORDS, Some(&mut definitions), repeated, &mut found)
                    .map_err(|e| damaged(&e))?;
                if records == 0 {
                    break;
                }
                let mut found = found.iter();
                // Columns without nulls and lists have no levels.
                for number in 0..if full == 0 { records } else { levels } {
                    let definition = definitions.get(number).copied().unwrap_or(0);
                    let repetition = repetitions.get(number).copied().unwrap_or(0);
                    rows += u64::from(repetition == 0);
                    let value = if definition == full { found.next().map(&text).transpose() } else { Ok(None) };
                    let value =
                        value.map_err(|reason| DataError::Record { path: self.path.clone(), line: rows, reason })?;
                    bytes += (size_of::<Entry>() + value.as_ref().map_or(0, String::len)) as u64;
                    entries.push(Entry { definition, repetition, value });
                }
                // A few bytes can encode billions of copies of a value.
                if is_bomb(bytes, stored) {
                    return Err(DataError::NotText { path: self.path.clone(), reason: bomb_reason("decoded") });
                }
            }
            if rows != expected {
                let column = column + 1;
                let reason = format!("column {column} has {rows} rows, expected {expected}");
                return Err(damaged(&ParquetError::General(reason)));
            }
        }
        Ok(entries)
    }
}

/// A value of a column, or a missing value.
struct Entry {
    /// Definition level: the number of optional and repeated groups around the value that are present.
    definition: i16,
    /// Repetition level; 0 at the beginning of a row.
    repetition: i16,
    value: Option<String>,
}
