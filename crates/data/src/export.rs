//! Writes batches as an Arrow IPC file, so that another trainer can use exactly the same batches.

use std::io::{self, Write};
use std::ops::Range;
use std::path::Path;

use cloze_files::AtomicFile;

use crate::DataError;
use crate::arrow::write::{Column, FileWriter};
use crate::arrow::{Field, Int};
use crate::batch::{Batch, BatchSource};
use crate::shards::offsets;

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
/// | `nsp_label` | int32 | the label of the pair, 0 or 1 (see [`PairTask`](crate::batch::PairTask)); null without pairs |
///
/// `progress` is the progress of the run, 0 to 1, at a batch: the masking rate may depend on it. The file is written under a temporary name and renamed when it is complete.
///
/// # Errors
/// [`DataError::Io`] and [`DataError::DiskFull`] if the file cannot be written.
pub fn write_batches(
    source: &BatchSource,
    range: Range<u64>,
    progress: impl FnMut(u64) -> f64,
    path: &Path,
) -> Result<(), DataError> {
    let mut file = AtomicFile::create(path)?;
    file.write_with(|file| write_rows(source, range, progress, file))?;
    Ok(file.commit()?)
}

fn write_rows(
    source: &BatchSource,
    range: Range<u64>,
    mut progress: impl FnMut(u64) -> f64,
    file: &mut impl Write,
) -> io::Result<()> {
    let mut writer = FileWriter::new(file, &schema())?;
    for index in range {
        write_batch(&source.mask(source.unmasked(index), progress(index)), index, &mut writer)?;
    }
    writer.finish()?;
    Ok(())
}

fn schema() -> [Field; 6] {
    [
        Field::new("step", Int::I64),
        Field::list("ids", Int::I32),
        Field::list("segments", Int::I32),
        Field::list("mlm_positions", Int::I32),
        Field::list("mlm_labels", Int::I32),
        Field::nullable("nsp_label", Int::I32),
    ]
}

fn write_batch(batch: &Batch, index: u64, writer: &mut FileWriter<impl Write>) -> io::Result<()> {
    let sequences = 0..batch.sequences();
    let steps = vec![index as i64; sequences.len()];
    let predictions = offsets(sequences.clone().map(|sequence| batch.prediction_range(sequence).len()));
    let positions: Vec<i32> = sequences
        .clone()
        .flat_map(|sequence| {
            let start = batch.rows(sequence).start as i32;
            batch.mlm_rows[batch.prediction_range(sequence)].iter().map(move |row| row - start)
        })
        .collect();
    let pair_labels: Vec<i32> =
        sequences.clone().map(|sequence| batch.pair_labels.get(sequence).copied().unwrap_or_default()).collect();
    let has_label = sequences.map(|sequence| sequence < batch.pair_labels.len()).collect();
    writer.write(&[
        Column::numbers(&steps),
        Column::lists(&batch.cu_seqlens, &batch.ids),
        Column::lists(&batch.cu_seqlens, &batch.segments),
        Column::lists(&predictions, &positions),
        Column::lists(&predictions, &batch.mlm_labels),
        Column::nullable(&pair_labels, has_label),
    ])
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::arrow::read;
    use crate::batch::tests::{corpus, table};
    use crate::batch::{BatchOptions, PairTask};

    #[test]
    fn file_contains_the_batches_and_no_temporary_file_remains() {
        let folder = tempfile::tempdir().unwrap();
        for pairs in [PairTask::Nsp, PairTask::None] {
            let options = BatchOptions { seq_len: 48, pairs, ..BatchOptions::default() };
            let source = BatchSource::new(corpus(60), table(), options).unwrap();
            let path = folder.path().join("batches.arrow");
            write_batches(&source, 5..8, |_| 0.0, &path).unwrap();

            let file = std::fs::read(&path).unwrap();
            let mut indices = 5..8;
            for rows in read::batches(&file).unwrap() {
                let expected = source.batch(indices.next().unwrap());
                assert_eq!(rows.rows(), expected.sequences());
                let numbers = |bytes: Range<usize>| -> Vec<i32> {
                    file[bytes].as_chunks().0.iter().map(|four| i32::from_ne_bytes(*four)).collect()
                };
                let list = |name: &str| {
                    let lists = rows.lists(name).unwrap();
                    assert_eq!(lists.int, Int::I32);
                    (numbers(lists.offsets), numbers(lists.values))
                };
                assert_eq!(list("ids"), (expected.cu_seqlens.clone(), expected.ids.clone()));
                assert_eq!(list("segments"), (expected.cu_seqlens.clone(), expected.segments.clone()));
                let (ends, positions) = list("mlm_positions");
                assert_eq!(list("mlm_labels"), (ends.clone(), expected.mlm_labels.clone()));
                let starts = (0..rows.rows()).flat_map(|sequence| {
                    let predictions = ends[sequence + 1] - ends[sequence];
                    std::iter::repeat_n(expected.cu_seqlens[sequence], predictions as usize)
                });
                let token_rows: Vec<i32> =
                    positions.iter().zip(starts).map(|(position, start)| position + start).collect();
                assert_eq!(token_rows, expected.mlm_rows);
            }
            assert!(indices.is_empty());
        }
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1);
    }

    #[test]
    fn missing_folder_is_named_in_the_error() {
        let source = BatchSource::new(corpus(20), table(), BatchOptions::default()).unwrap();
        let error = write_batches(&source, 0..1, |_| 0.0, Path::new("/nonexistent/x.arrow")).unwrap_err();
        assert!(error.to_string().contains("/nonexistent/x.arrow"), "{error}");
    }
}
