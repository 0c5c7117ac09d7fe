//! Writes batches as an Arrow IPC file, so that another trainer can use exactly the same batches.

use std::io::Write;
use std::ops::Range;
use std::path::Path;
use std::sync::Arc;

use arrow_array::builder::{Int32Builder, Int64Builder, ListBuilder};
use arrow_array::{ArrayRef, RecordBatch};
use arrow_ipc::writer::FileWriter;
use arrow_schema::{ArrowError, DataType, Field, Schema};
use cloze_files::AtomicFile;

use crate::DataError;
use crate::batch::{Batch, BatchSource};

/// Writes batches `range` of `source` to `path`, for pyarrow's `ipc.open_file`: one row per sequence, one record batch per
/// batch, without padding.
///
/// | column | type | content |
/// | --- | --- | --- |
/// | `step` | int64 | the batch's index |
/// | `ids` | list of int32 | input ids after masking |
/// | `segments` | list of int32 | 0 or 1 for each token |
/// | `mlm_positions` | list of int32 | positions in this sequence to predict, ascending |
/// | `mlm_labels` | list of int32 | the original ids at these positions |
/// | `nsp_label` | int32 | 0: B continues A, 1: it does not; null without sentence pairs |
///
/// The file is written under a temporary name and renamed when it is complete.
///
/// # Errors
/// [`DataError::Io`] and [`DataError::DiskFull`] if the file cannot be written.
pub fn write_batches(source: &BatchSource, range: Range<u64>, path: &Path) -> Result<(), DataError> {
    let mut file = AtomicFile::create(path)?;
    file.write_with(|file| write_rows(source, range, file).map_err(into_io))?;
    Ok(file.commit()?)
}

fn write_rows(source: &BatchSource, range: Range<u64>, file: &mut impl Write) -> Result<(), ArrowError> {
    let schema = Arc::new(schema());
    let mut writer = FileWriter::try_new(file, &schema)?;
    for index in range {
        let columns = columns(&source.batch(index), index);
        writer.write(&RecordBatch::try_new(Arc::clone(&schema), columns)?)?;
    }
    writer.finish()
}

fn into_io(error: ArrowError) -> std::io::Error {
    match error {
        ArrowError::IoError(_, error) => error,
        other => std::io::Error::other(other),
    }
}

fn schema() -> Schema {
    let list = |name: &str| Field::new_list(name, Field::new_list_field(DataType::Int32, true), false);
    Schema::new(vec![
        Field::new("step", DataType::Int64, false),
        list("ids"),
        list("segments"),
        list("mlm_positions"),
        list("mlm_labels"),
        Field::new("nsp_label", DataType::Int32, true),
    ])
}

fn columns(batch: &Batch, index: u64) -> Vec<ArrayRef> {
    let mut step = Int64Builder::new();
    let mut nsp_label = Int32Builder::new();
    let mut lists: [ListBuilder<Int32Builder>; 4] = std::array::from_fn(|_| ListBuilder::new(Int32Builder::new()));
    for sequence in 0..batch.sequences() {
        let (rows, predicted) = (batch.rows(sequence), batch.prediction_range(sequence));
        let base = rows.start as i32;
        let [ids, segments, positions, labels] = &mut lists;
        step.append_value(index as i64);
        ids.append_value(batch.ids[rows.clone()].iter().copied().map(Some));
        segments.append_value(batch.segments[rows].iter().copied().map(Some));
        positions.append_value(batch.mlm_rows[predicted.clone()].iter().map(|row| Some(row - base)));
        labels.append_value(batch.mlm_labels[predicted].iter().copied().map(Some));
        nsp_label.append_option(batch.nsp_labels.get(sequence).copied());
    }
    let mut columns: Vec<ArrayRef> = vec![Arc::new(step.finish())];
    columns.extend(lists.map(|mut list| Arc::new(list.finish()) as ArrayRef));
    columns.push(Arc::new(nsp_label.finish()));
    columns
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::batch::BatchOptions;
    use crate::batch::tests::{corpus, table};
    use arrow_array::cast::AsArray;
    use arrow_array::types::{Int32Type, Int64Type};
    use arrow_ipc::reader::FileReader;
    use std::fs::File;

    #[test]
    fn file_contains_the_batches_and_no_temporary_file_remains() {
        let folder = tempfile::tempdir().unwrap();
        for nsp in [true, false] {
            let options = BatchOptions { seq_len: 48, nsp, ..BatchOptions::default() };
            let source = BatchSource::new(corpus(60), table(), options).unwrap();
            let path = folder.path().join("batches.arrow");
            write_batches(&source, 5..8, &path).unwrap();

            let reader = FileReader::try_new(File::open(&path).unwrap(), None).unwrap();
            assert_eq!(*reader.schema(), schema());
            let mut indices = 5..8;
            for rows in reader {
                let rows = rows.unwrap();
                let index = indices.next().unwrap();
                let mut read = Batch { cu_seqlens: vec![0], ..Batch::default() };
                let list = |name: &str, row: usize| {
                    let column = rows.column_by_name(name).unwrap().as_list::<i32>();
                    column.value(row).as_primitive::<Int32Type>().values().to_vec()
                };
                let nsp_label = rows.column_by_name("nsp_label").unwrap();
                for row in 0..rows.num_rows() {
                    let step = rows.column_by_name("step").unwrap();
                    assert_eq!(step.as_primitive::<Int64Type>().value(row), index as i64);
                    let base = read.ids.len() as i32;
                    read.ids.extend(list("ids", row));
                    read.segments.extend(list("segments", row));
                    read.cu_seqlens.push(read.ids.len() as i32);
                    let positions = list("mlm_positions", row);
                    read.mlm_rows.extend(positions.iter().map(|at| at + base));
                    read.mlm_labels.extend(list("mlm_labels", row));
                    if nsp_label.is_valid(row) {
                        read.nsp_labels.push(nsp_label.as_primitive::<Int32Type>().value(row));
                    }
                }
                assert_eq!(read, source.batch(index));
            }
            assert!(indices.is_empty());
        }
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1);
    }

    #[test]
    fn missing_folder_is_named_in_the_error() {
        let source = BatchSource::new(corpus(20), table(), BatchOptions::default()).unwrap();
        let error = write_batches(&source, 0..1, Path::new("/nonexistent/x.arrow")).unwrap_err();
        assert!(error.to_string().contains("/nonexistent/x.arrow"), "{error}");
    }
}
