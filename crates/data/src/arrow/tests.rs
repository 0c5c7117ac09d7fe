use std::path::{Path, PathBuf};

use super::read::{Lists, batches};
use super::write::{Column, FileWriter};
use super::{Field, Int};

/// Files for and from pyarrow and the `arrow` crates, see `fixtures/arrow/make.py`.
fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures/arrow").join(name)
}

/// A file with every kind of column and a batch without rows.
fn ours() -> Vec<u8> {
    let fields = [
        Field::new("step", Int::I64),
        Field::list("ids", Int::U16),
        Field::list("ends", Int::U32),
        Field::nullable("label", Int::I32),
    ];
    let mut writer = FileWriter::new(Vec::new(), &fields).unwrap();
    let mut write = |steps: &[i64], ids: (&[i32], &[u16]), ends: (&[i32], &[u32]), labels: &[i32], valid: &[bool]| {
        writer
            .write(&[
                Column::numbers(steps),
                Column::lists(ids.0, ids.1),
                Column::lists(ends.0, ends.1),
                Column::nullable(labels, valid.to_vec()),
            ])
            .unwrap();
    };
    let steps: Vec<i64> = (-1..9).collect();
    let valid: Vec<bool> = steps.iter().map(|step| step % 3 != 0).collect();
    let labels: Vec<i32> = steps.iter().map(|step| -7 * *step as i32).collect();
    let offsets = [0, 2, 2, 3, 3, 3, 3, 3, 3, 3, 6];
    write(&steps, (&offsets, &[1, 65_535, 3, 4, 5, 6]), (&offsets, &[2, 70_000, 1, 3, 3, 3]), &labels, &valid);
    write(&[], (&[0], &[]), (&[0], &[]), &[], &[]);
    write(&[i64::MAX], (&[0, 1], &[9]), (&[0, 1], &[1]), &[i32::MIN], &[true]);
    writer.finish().unwrap()
}

/// The lists of a column of u16 or u32.
fn lists(file: &[u8], Lists { int, offsets, values }: &Lists) -> Vec<Vec<u32>> {
    let values: Vec<u32> = match int {
        Int::U16 => file[values.clone()].as_chunks().0.iter().map(|two| u16::from_ne_bytes(*two).into()).collect(),
        _ => file[values.clone()].as_chunks().0.iter().map(|four| u32::from_ne_bytes(*four)).collect(),
    };
    let offsets: Vec<usize> =
        file[offsets.clone()].as_chunks().0.iter().map(|four| i32::from_ne_bytes(*four) as usize).collect();
    offsets.windows(2).map(|pair| values[pair[0]..pair[1]].to_vec()).collect()
}

/// `make.py` has checked this file with pyarrow.
#[cfg(target_endian = "little")]
#[test]
fn output_is_the_file_that_pyarrow_has_read() {
    let file = ours();
    if file != std::fs::read(fixture("ours.arrow")).unwrap() {
        let path = std::env::temp_dir().join("ours.arrow");
        std::fs::write(&path, file).unwrap();
        panic!("the output has changed: copy {} to fixtures/arrow and run make.py there", path.display());
    }
}

#[test]
fn written_columns_are_read_back() {
    let file = ours();
    let batches = batches(&file).unwrap();
    assert_eq!(batches.iter().map(|batch| batch.rows()).collect::<Vec<_>>(), [10, 0, 1]);
    let column = |batch: usize, name: &str| lists(&file, &batches[batch].lists(name).unwrap());
    let ids = column(0, "ids");
    assert_eq!((&ids[0][..], &ids[2][..], &ids[9][..]), (&[1, 65_535][..], &[3][..], &[4, 5, 6][..]));
    assert_eq!(column(0, "ends")[0], [2, 70_000]);
    assert_eq!(column(2, "ids"), [[9]]);
    assert!(batches[0].lists("step").is_none() && batches[0].lists("other").is_none());
}

/// Shards written by pyarrow, and by Cloze with the `arrow` crates.
#[test]
fn shards_of_other_writers_are_read() {
    let files = [
        ("pyarrow.arrow", [&[5, 6, 7, 5][..], &[], &[8]], [&[2, 4][..], &[], &[1]]),
        ("arrow-rs.arrow", [&[5, 6, 7, 5, 6, 7], &[6], &[5]], [&[3, 6], &[1], &[1]]),
    ];
    for (name, tokens, sentence_ends) in files {
        let file = std::fs::read(fixture(name)).unwrap();
        let batches = batches(&file).unwrap();
        let column = |name: &str| -> Vec<Vec<u32>> {
            batches.iter().flat_map(|batch| lists(&file, &batch.lists(name).unwrap())).collect()
        };
        assert_eq!(column("tokens"), tokens, "{name}");
        assert_eq!(column("sentence_ends"), sentence_ends, "{name}");
    }
}

#[test]
fn unsupported_files_are_rejected() {
    let error = |name: &str| batches(&std::fs::read(fixture(name)).unwrap()).unwrap_err();
    assert!(error("nulls.arrow").contains("column \"tokens\" has nulls"));
    assert!(error("compressed.arrow").contains("compressed"));
    assert!(error("texts.arrow").contains("column \"text\": expected integers or lists of integers"));
}

/// Changes every byte of a file in several ways.
#[test]
fn damaged_files_do_not_panic() {
    let file = ours();
    for position in 0..file.len() {
        for change in [1, 0x80, 0xff] {
            let mut damaged = file.clone();
            damaged[position] ^= change;
            for batch in batches(&damaged).into_iter().flatten() {
                for name in ["ids", "ends"] {
                    batch.lists(name).map(|found| lists(&damaged, &found));
                }
            }
        }
        assert!(batches(&file[..position]).is_err());
    }
}
