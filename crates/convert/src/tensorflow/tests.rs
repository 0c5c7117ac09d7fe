use std::fs;

use cloze_model::Schema;
use cloze_model::family::BERT;
use tempfile::{TempDir, tempdir};

use super::table::tests::{mask, put_varint, table};
use super::*;

/// A varint field of a message.
fn field(number: u64, value: u64) -> Vec<u8> {
    let mut bytes = Vec::new();
    put_varint(&mut bytes, number << 3);
    put_varint(&mut bytes, value);
    bytes
}

fn message(number: u64, content: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::new();
    put_varint(&mut bytes, number << 3 | 2);
    put_varint(&mut bytes, content.len() as u64);
    [bytes, content.to_vec()].concat()
}

fn sum(bytes: &[u8]) -> Vec<u8> {
    [&[6 << 3 | 5][..], &mask(crc32c::crc32c(bytes)).to_le_bytes()].concat()
}

fn shape(sizes: &[u64]) -> Vec<u8> {
    message(2, &sizes.iter().flat_map(|&size| message(2, &field(1, size))).collect::<Vec<u8>>())
}

/// A checkpoint with these entries, whose data file has 24 bytes 0, 1, 2, ….
fn checkpoint(header: &[u8], entries: &[(&str, Vec<u8>)]) -> (TempDir, PathBuf) {
    let dir = tempdir().unwrap();
    let prefix = dir.path().join("bert_model.ckpt");
    let named = entries.iter().map(|(name, value)| (name.as_bytes().to_vec(), value.clone()));
    let mut all: Vec<table::Entry> = std::iter::once((Vec::new(), header.to_vec())).chain(named).collect();
    all.sort();
    fs::write(with_suffix(&prefix, ".index"), table(&all, 2, true)).unwrap();
    fs::write(with_suffix(&prefix, ".data-00000-of-00001"), (0..24).collect::<Vec<u8>>()).unwrap();
    (dir, prefix)
}

const WORDS: &str = "bert/embeddings/word_embeddings";

#[test]
fn classifier_of_run_classifier_is_read() {
    let data: Vec<u8> = (0..24).collect();
    let words = [field(1, 1), shape(&[2, 2]), field(5, 16), sum(&data[..16])].concat();
    // Two bf16 values of a head, after the word embeddings.
    let bias = [field(1, 14), shape(&[2]), field(4, 16), field(5, 4), sum(&data[16..20])].concat();
    let kernel = [field(1, 19), shape(&[2, 1]), field(4, 20), field(5, 4), sum(&data[20..])].concat();
    let entries =
        [(WORDS, words), ("output_bias", bias), ("bert/pooler/dense/kernel", kernel), ("extra/thing", vec![])];
    let (_dir, prefix) = checkpoint(&field(1, 1), &entries);
    let mut skipped = Skipped::default();
    let found = open(Schema::new(&BERT, 1), &prefix, &mut skipped).unwrap();
    let described: Vec<_> = found.iter().map(|t| (t.name.as_str(), t.dtype, t.shape.as_slice())).collect();
    assert_eq!(
        described,
        [
            ("bert.embeddings.word_embeddings.weight", Dtype::F32, &[2, 2][..]),
            ("bert.pooler.dense.weight", Dtype::F16, &[1, 2]),
            ("classifier.bias", Dtype::BF16, &[2]),
        ]
    );
    assert_eq!(skipped.groups().collect::<Vec<_>>(), [("not a variable of BERT", &["extra/thing".to_owned()][..])]);
    let mut seen = Default::default();
    for tensor in &found {
        tensor.verify(&mut seen).unwrap();
    }
}

#[test]
fn invalid_entries_are_rejected_with_a_reason() {
    let data: Vec<u8> = (0..24).collect();
    let good = [field(1, 1), shape(&[6]), field(5, 24), sum(&data)].concat();
    let with = |changes: &[Vec<u8>]| [good.clone(), changes.concat()].concat();
    let one = field(1, 1);
    type Case = (Vec<u8>, Vec<(&'static str, Vec<u8>)>, &'static str);
    let cases: Vec<Case> = vec![
        (field(1, 0), vec![], "0 data shards"),
        (field(1, 1 << 40), vec![], "data shards, expected 1 to"),
        ([one.clone(), field(2, 1)].concat(), vec![], "big-endian"),
        (vec![0xff], vec![], "invalid header"),
        (one.clone(), vec![], "expected the variables of google-research/bert"),
        (one.clone(), vec![("electra/x", vec![])], "found [electra/x]"),
        (one.clone(), vec![(WORDS, with(&[field(3, 1)]))], "found data shard 1"),
        (one.clone(), vec![(WORDS, with(&[field(1, 7)]))], "type number 7"),
        (one.clone(), vec![(WORDS, with(&[field(5, 23)]))], "needs 24 bytes, found 23"),
        (one.clone(), vec![(WORDS, with(&[field(4, 1)]))], "exceed the file's 24"),
        (one.clone(), vec![(WORDS, with(&[field(4, u64::MAX)]))], "exceed"),
        (one.clone(), vec![(WORDS, with(&[shape(&[1 << 62, 1 << 62])]))], "too many to count"),
        (one.clone(), vec![(WORDS, with(&[shape(&[u64::MAX])]))], "too many to count"),
        (one.clone(), vec![(WORDS, with(&[message(7, &[])]))], "partitioned into slices"),
        (one.clone(), vec![(WORDS, with(&[message(2, &field(3, 1))]))], "unknown rank"),
        (one.clone(), vec![(WORDS, [field(1, 1), shape(&[6]), field(5, 24)].concat())], "found no checksum"),
        (one.clone(), vec![(WORDS, vec![0x0a, 0x7f])], "expected 127 more bytes"),
        (one.clone(), vec![("bert/pooler/dense/kernel", good.clone())], "expected a matrix"),
    ];
    for (header, entries, expected) in cases {
        let (_dir, prefix) = checkpoint(&header, &entries);
        let error = open(Schema::new(&BERT, 1), &prefix, &mut Skipped::default()).expect_err(expected).to_string();
        assert!(error.contains(expected) && error.contains("bert_model.ckpt.index"), "{error}: expected {expected}");
    }
}

#[test]
fn table_without_a_header_and_oversized_tensors_are_rejected() {
    let dir = tempdir().unwrap();
    let prefix = dir.path().join("bert_model.ckpt");
    fs::write(with_suffix(&prefix, ".index"), table(&[(b"a".to_vec(), vec![])], 1, false)).unwrap();
    let error = open(Schema::new(&BERT, 1), &prefix, &mut Skipped::default()).err().unwrap().to_string();
    assert!(error.contains("found no header"), "{error}");
    let many: Vec<(String, Vec<u8>)> = (0..200)
        .map(|i| {
            let data: Vec<u8> = (0..24).collect();
            let entry = [field(1, 1), shape(&[6]), field(5, 24), sum(&data)].concat();
            (format!("bert/encoder/layer_{i:03}/output/dense/bias"), entry)
        })
        .collect();
    let many: Vec<(&str, Vec<u8>)> = many.iter().map(|(name, entry)| (name.as_str(), entry.clone())).collect();
    let (_dir, prefix) = checkpoint(&field(1, 1), &many);
    let error = open(Schema::new(&BERT, 1), &prefix, &mut Skipped::default()).err().unwrap().to_string();
    assert!(error.contains("200 tensors have"), "{error}");
}
