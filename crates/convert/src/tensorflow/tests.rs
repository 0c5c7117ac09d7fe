use std::fs;

use cloze_engine::Device;
use cloze_model::family::BERT;
use cloze_model::{Heads, Model, Schema};
use serde_json::{Value, json};
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
    let found = open(Schema::new(&BERT, 1), false, &prefix, &mut skipped).unwrap();
    let described: Vec<_> = found.iter().map(|t| (t.name.as_str(), t.dtype, t.shape.as_slice())).collect();
    assert_eq!(
        described,
        [
            ("bert.embeddings.word_embeddings.weight", Dtype::F32, &[2, 2][..]),
            ("bert.pooler.dense.weight", Dtype::F16, &[1, 2]),
            ("classifier.bias", Dtype::BF16, &[2]),
        ]
    );
    assert_eq!(
        skipped.groups().collect::<Vec<_>>(),
        [("not a variable of the model", &["extra/thing".to_owned()][..])]
    );
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
        (one.clone(), vec![], "expected the variables of Google's BERT"),
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
        let error =
            open(Schema::new(&BERT, 1), false, &prefix, &mut Skipped::default()).expect_err(expected).to_string();
        assert!(error.contains(expected) && error.contains("bert_model.ckpt.index"), "{error}: expected {expected}");
    }
}

#[test]
fn table_without_a_header_and_oversized_tensors_are_rejected() {
    let dir = tempdir().unwrap();
    let prefix = dir.path().join("bert_model.ckpt");
    fs::write(with_suffix(&prefix, ".index"), table(&[(b"a".to_vec(), vec![])], 1, false)).unwrap();
    let error = open(Schema::new(&BERT, 1), false, &prefix, &mut Skipped::default()).err().unwrap().to_string();
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
    let error = open(Schema::new(&BERT, 1), false, &prefix, &mut Skipped::default()).err().unwrap().to_string();
    assert!(error.contains("200 tensors have"), "{error}");
}

/// Writes a checkpoint with these f32 variables.
fn write_checkpoint(prefix: &Path, variables: &[(String, Vec<usize>, Vec<f32>)]) {
    let (mut entries, mut data) = (vec![(Vec::new(), field(1, 1))], Vec::new());
    for (name, sizes, values) in variables {
        let bytes: Vec<u8> = values.iter().flat_map(|value| value.to_le_bytes()).collect();
        let sizes: Vec<u64> = sizes.iter().map(|&size| size as u64).collect();
        let entry =
            [field(1, 1), shape(&sizes), field(4, data.len() as u64), field(5, bytes.len() as u64), sum(&bytes)];
        entries.push((name.clone().into_bytes(), entry.concat()));
        data.extend(bytes);
    }
    entries.sort();
    fs::write(with_suffix(prefix, ".index"), table(&entries, 4, true)).unwrap();
    fs::write(with_suffix(prefix, ".data-00000-of-00001"), data).unwrap();
}

/// The variables of a model: its parameters under the names that `named` returns for those of Transformers, with kernels
/// transposed.
fn variables(model: &Model, named: &dyn Fn(&str) -> String) -> Vec<(String, Vec<usize>, Vec<f32>)> {
    let variable = |id| {
        let name = named(model.params.name(id));
        let (shape, values) = (model.params.shape(id).to_vec(), model.params.read(id).into_owned());
        match *shape {
            [rows, columns] if name.ends_with("kernel") => {
                let transposed = (0..values.len()).map(|i| values[i % rows * columns + i / rows]).collect();
                (name, vec![columns, rows], transposed)
            }
            _ => (name, shape, values),
        }
    };
    model.params.ids().map(variable).collect()
}

fn distinct(config: Value, heads: Heads) -> Model {
    let device = Device::cpu(Some(1)).unwrap();
    let mut model = Model::new(serde_json::from_value(config).unwrap(), heads, &device, 3).unwrap();
    model.params.edit_all(|values| values.iter_mut().enumerate().for_each(|(i, value)| *value += i as f32));
    model
}

/// Converts the checkpoint in `dir`, and compares the result with the model.
fn assert_converts_to(dir: &Path, model: &Model) {
    let (out, device) = (tempdir().unwrap(), Device::cpu(Some(1)).unwrap());
    let to = out.path().join("out");
    let done = crate::convert(dir, &to, &device, &mut |_| ()).unwrap();
    assert_eq!((done.architectures, done.opened), (vec![model.class_name().to_owned()], true));
    let found = Model::load(&to, &device).unwrap();
    assert_eq!(found.params.ids().count(), model.params.ids().count());
    for id in model.params.ids() {
        let name = model.params.name(id);
        let other = found.params.find(name).unwrap_or_else(|| panic!("{name} is missing"));
        assert_eq!(found.params.read(other), model.params.read(id), "{name}");
    }
}

/// The names of google-research/albert's `modeling.py` and `run_pretraining.py`; a file `albert_config.json` without
/// `model_type`.
#[test]
fn albert_of_google_is_converted() {
    let mut config = json!({
        "vocab_size": 11, "embedding_size": 4, "hidden_size": 6, "num_hidden_layers": 3, "num_hidden_groups": 1,
        "inner_group_num": 2, "num_attention_heads": 2, "intermediate_size": 5, "max_position_embeddings": 7,
        "hidden_act": "gelu", "net_structure_type": 0, "gap_size": 0, "type_vocab_size": 2,
    });
    let dir = tempdir().unwrap();
    fs::write(dir.path().join("albert_config.json"), config.to_string()).unwrap();
    config["model_type"] = "albert".into();
    let model = distinct(config, Heads::PRETRAINING);
    let google = |name: &str| {
        let replacements = [
            ("albert.encoder.albert_layer_groups.0.albert_layers.", "bert/encoder/transformer/group_0/inner_group_"),
            (".attention.LayerNorm.", "/LayerNorm/"),
            (".full_layer_layer_norm.", "/LayerNorm_1/"),
            (".attention.dense.", "/attention_1/output/dense/"),
            (".attention.", "/attention_1/self/"),
            (".ffn_output.", "/ffn_1/intermediate/output/dense/"),
            (".ffn.", "/ffn_1/intermediate/dense/"),
            ("albert.pooler.", "bert/pooler/dense/"),
            ("albert.", "bert."),
            ("predictions.dense.", "cls/predictions/transform/dense/"),
            ("predictions.LayerNorm.", "cls/predictions/transform/LayerNorm/"),
            ("predictions.bias", "cls/predictions/output_bias"),
            ("sop_classifier.classifier.weight", "cls/seq_relationship/output_weights"),
            ("sop_classifier.classifier.bias", "cls/seq_relationship/output_bias"),
        ];
        let name = replacements.iter().fold(name.to_owned(), |name, (from, to)| name.replace(from, to));
        tensorflow_suffix(&name.replace('.', "/"))
    };
    write_checkpoint(&dir.path().join("model.ckpt-best"), &variables(&model, &google));
    assert_converts_to(dir.path(), &model);
}

/// `weight` and `bias` as TensorFlow's layers name them.
fn tensorflow_suffix(name: &str) -> String {
    let name = match name.rsplit_once('/') {
        Some((layer, "weight")) if layer.contains("LayerNorm") => format!("{layer}/gamma"),
        Some((layer, "bias")) if layer.contains("LayerNorm") => format!("{layer}/beta"),
        Some((layer, "weight")) if layer.ends_with("_embeddings") => layer.to_owned(),
        Some((layer, "weight")) => format!("{layer}/kernel"),
        _ => name.to_owned(),
    };
    name.replace("/layer/", "/layer_")
}

/// The names of google-research/electra's `modeling.py` and `run_pretraining.py`: both models in one checkpoint.
#[test]
fn electra_of_google_is_converted_to_either_model() {
    let sizes = |hidden: usize, class: &str| {
        json!({
            "model_type": "electra", "architectures": [class], "vocab_size": 11, "embedding_size": 4, "hidden_size": hidden,
            "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 5, "max_position_embeddings": 7,
        })
    };
    let google = |root: &str, name: &str| {
        let name = name.replace("dense_prediction.", "dense_1.").replace('.', "/");
        let name = name.replace("generator_lm_head/bias", "generator_predictions/output_bias");
        let is_shared = name.starts_with("electra/embeddings/");
        let name = if is_shared { name } else { name.replace("electra/", root) };
        tensorflow_suffix(&name)
    };
    let discriminator = distinct(sizes(6, "ElectraForPreTraining"), Heads::RTD);
    let mut generator = distinct(sizes(2, "ElectraForMaskedLM"), Heads::MLM);
    let shared = discriminator.params.ids().filter(|&id| discriminator.params.name(id).contains(".embeddings."));
    for id in shared {
        let own = generator.params.find(discriminator.params.name(id)).unwrap();
        generator.params.write(own, &discriminator.params.read(id));
    }
    let mut both = variables(&discriminator, &|name| google("electra/", name));
    let of_generator = variables(&generator, &|name| google("generator/", name));
    both.extend(of_generator.into_iter().filter(|(name, ..)| !name.starts_with("electra/")));
    for model in [&discriminator, &generator] {
        let dir = tempdir().unwrap();
        write_checkpoint(&dir.path().join("electra_small"), &both);
        fs::write(dir.path().join("config.json"), model.config().to_json()).unwrap();
        assert_converts_to(dir.path(), model);
    }
}
