//! Configurations and weights.

use std::fs;
use std::sync::LazyLock;

use cloze_convert::{convert, copy_modules};
use cloze_engine::{DType, Device};
use cloze_model::{Config, Layout, Model, read_tensors, stored_tensors};
use cloze_tasks::TaskSettings;
use cloze_tasks::embed::prompts::Purpose;
use cloze_tasks::embed::{Embedder, Options};
use safetensors::tensor::{TensorView, serialize};
use safetensors::{Dtype, SafeTensors};

use crate::files;
use crate::folder::Folder;

/// A tiny model.
const CONFIG: &[u8] = include_bytes!("../../crates/convert/fixtures/config.json");
const WEIGHTS: &[u8] = include_bytes!("../../crates/convert/fixtures/torch/expected.safetensors");
const BERT_CONFIG: &[u8] = include_bytes!("../../crates/convert/fixtures/tensorflow/bert_config.json");
const ONE_SHARD: &[u8] = include_bytes!("../../crates/convert/fixtures/tensorflow/bert_model.ckpt.data-00000-of-00001");
const FIRST_SHARD: &[u8] = include_bytes!("../../crates/convert/fixtures/tensorflow/sharded.ckpt.data-00000-of-00002");
const SECOND_SHARD: &[u8] = include_bytes!("../../crates/convert/fixtures/tensorflow/sharded.ckpt.data-00001-of-00002");

static DEVICE: LazyLock<Device> = LazyLock::new(|| Device::cpu(Some(1)).expect("a CPU"));

/// `config.json` and `modules.json` of a model folder.
pub fn config(input: &[u8]) {
    static FOLDER: LazyLock<Folder> = LazyLock::new(|| {
        let folder = Folder::new("config");
        folder.write("model.safetensors", WEIGHTS);
        folder
    });
    let [config, modules] = files(input);
    let path = FOLDER.set("config.json", config);
    FOLDER.set("modules.json", modules);
    if let Ok(layout) = Layout::of(FOLDER.path()) {
        assert!(layout.modules.iter().all(|module| layout.folder_of(module).starts_with(FOLDER.path())));
        let out = FOLDER.join("out");
        let _ = fs::remove_dir_all(&out);
        fs::create_dir(&out).expect("a folder");
        let _ = copy_modules(&layout, &out);
    }
    if let Ok(config) = Config::read(&path) {
        config.architecture();
        config.labels();
        config.problem_type();
        if let Ok(Some(settings)) = TaskSettings::from_config(&config, FOLDER.path()) {
            assert_eq!(TaskSettings::from_json(&settings.to_json()), Ok(settings), "task settings change");
        }
        FOLDER.write("config.json", config.to_json().as_bytes());
        assert_eq!(Config::read(&path).expect("what was written can be read"), config, "a configuration changes");
    }
    let _ = Model::load(FOLDER.path(), &DEVICE);
    let _ = Model::load_encoder(FOLDER.path(), &DEVICE);
}

/// `modules.json`, the pooling's settings, `sentence_bert_config.json`, `config_sentence_transformers.json` and the settings of a dense
/// layer.
pub fn sentences(input: &[u8]) {
    static FOLDER: LazyLock<Folder> = LazyLock::new(|| {
        let folder = Folder::new("sentences");
        folder.write("config.json", include_bytes!("../../crates/tasks/fixtures/embed/model/config.json"));
        folder.write("model.safetensors", include_bytes!("../../crates/tasks/fixtures/embed/model/model.safetensors"));
        folder.write("vocab.txt", include_bytes!("../../crates/tasks/fixtures/embed/model/vocab.txt"));
        for name in ["1_Pooling", "2_Dense"] {
            fs::create_dir(folder.join(name)).expect("a folder");
        }
        let data = [0; 4 * 4 * 9];
        let view = |shape: &[usize], from, to| TensorView::new(Dtype::F32, shape.to_vec(), &data[from..to]);
        let weight = view(&[4, 8], 0, 128).expect("a tensor");
        let bias = view(&[4], 128, 144).expect("a tensor");
        let dense = [("linear.weight", weight), ("linear.bias", bias)];
        folder.write("2_Dense/model.safetensors", &serialize(dense, None).expect("safetensors"));
        folder
    });
    let [modules, pooling, settings, sentences, dense] = files(input);
    FOLDER.set("modules.json", modules);
    FOLDER.set("1_Pooling/config.json", pooling);
    FOLDER.set("sentence_bert_config.json", settings);
    FOLDER.set("config_sentence_transformers.json", sentences);
    FOLDER.set("2_Dense/config.json", dense);
    let Ok(embedder) = Embedder::open(FOLDER.path(), DEVICE.clone(), DType::F32, &Options::default()) else { return };
    for purpose in Purpose::ALL {
        if let Ok(found) = embedder.embed(&["the cat", ""], purpose, &mut |_| {}) {
            assert!(found.vectors.rows().all(|row| row.len() == embedder.width()));
        }
    }
}

/// `model.safetensors`, or its index of shards.
pub fn safetensors(input: &[u8]) {
    static FOLDER: LazyLock<Folder> = LazyLock::new(|| {
        let folder = Folder::new("safetensors");
        folder.write("config.json", CONFIG);
        folder.write("model-00001-of-00001.safetensors", WEIGHTS);
        folder
    });
    let is_index = input.starts_with(b"{");
    let single = FOLDER.set("model.safetensors", (!is_index).then_some(input));
    FOLDER.set("model.safetensors.index.json", is_index.then_some(input));
    let stored = stored_tensors(FOLDER.path());
    if !is_index {
        let reference = SafeTensors::deserialize(input);
        assert_eq!(stored.is_ok(), reference.is_ok() && input.len() >= 8, "{stored:?} and {reference:?}");
        if let (Ok(stored), Ok(reference)) = (&stored, &reference) {
            assert_eq!(stored.len(), reference.len());
            for tensor in stored {
                let found = reference.tensor(&tensor.name).expect("a tensor of the reference");
                assert_eq!((found.shape(), format!("{:?}", found.dtype())), (&tensor.shape[..], tensor.dtype.clone()));
            }
            let expected: Vec<(&str, &[usize])> = stored.iter().map(|t| (t.name.as_str(), &t.shape[..])).collect();
            if let Ok(values) = read_tensors(FOLDER.path(), &expected) {
                for ((name, _), values) in expected.iter().zip(values) {
                    let found = reference.tensor(name).expect("a tensor of the reference");
                    if found.dtype() == Dtype::F32 {
                        let bytes: Vec<u8> = values.iter().flat_map(|value| value.to_le_bytes()).collect();
                        assert_eq!(bytes, found.data(), "{name}");
                    }
                }
            }
        }
    }
    let _ = Model::load(FOLDER.path(), &DEVICE);
    let _ = Model::load_encoder(FOLDER.path(), &DEVICE);
    // As a source of conversions, which has a reader of its own.
    let source = if is_index { FOLDER.join("model.safetensors.index.json") } else { single };
    converted(&source, &FOLDER.join("out"));
}

/// `pytorch_model.bin`, or its index of shards.
pub fn pickle(input: &[u8]) {
    static FOLDER: LazyLock<Folder> = LazyLock::new(|| {
        let folder = Folder::new("pickle");
        folder.write("config.json", CONFIG);
        folder
    });
    let is_index = input.starts_with(b"{");
    FOLDER.set("pytorch_model.bin", (!is_index).then_some(input));
    let index = FOLDER.set("pytorch_model.bin.index.json", is_index.then_some(input));
    converted(if is_index { &index } else { FOLDER.path() }, &FOLDER.join("out"));
}

/// The `.index` of a TensorFlow checkpoint. Its checksums are made right, so that mutations are read.
pub fn tensorflow(input: &[u8]) {
    static FOLDER: LazyLock<Folder> = LazyLock::new(|| {
        let folder = Folder::new("tensorflow");
        folder.write("bert_config.json", BERT_CONFIG);
        folder.write("m.ckpt.data-00000-of-00001", ONE_SHARD);
        folder.write("m.ckpt.data-00000-of-00002", FIRST_SHARD);
        folder.write("m.ckpt.data-00001-of-00002", SECOND_SHARD);
        folder
    });
    let mut table = input.to_vec();
    let _ = with_checksums(&mut table);
    FOLDER.write("m.ckpt.index", &table);
    converted(FOLDER.path(), &FOLDER.join("out"));
}

/// Converts; what is written can be read by the reference.
fn converted(source: &std::path::Path, out: &std::path::Path) {
    if convert(source, out, &DEVICE, &mut |_| {}).is_ok() {
        let written = fs::read(out.join("model.safetensors")).expect("converted weights");
        SafeTensors::deserialize(&written).expect("safetensors that the reference reads");
        Config::read(&out.join("config.json")).expect("a configuration");
        fs::remove_dir_all(out).expect("the result can be removed");
    }
    assert!(!out.exists(), "a conversion that failed left its result");
}

/// Sets the checksum of each block that a table's footer and index name.
fn with_checksums(table: &mut [u8]) -> Option<()> {
    let mut footer = table.get(table.len().checked_sub(48)?..)?;
    let meta = handle(&mut footer)?;
    let index = handle(&mut footer)?;
    let (content, compression) = block(table, index)?;
    let content = match compression {
        1 if snap::raw::decompress_len(content).ok()? < 1 << 20 => {
            snap::raw::Decoder::new().decompress_vec(content).ok()?
        }
        _ => content.to_vec(),
    };
    let mut rest = &content[..];
    while let Some([_, own, value]) = varint(&mut rest).zip(varint(&mut rest)).zip(varint(&mut rest)).map(flat) {
        let Some((_, after)) = rest.split_at_checked(own as usize) else { break };
        let Some((mut at, after)) = after.split_at_checked(value as usize) else { break };
        rest = after;
        if let Some(data) = handle(&mut at) {
            sum(table, data);
        }
    }
    sum(table, index)?;
    sum(table, meta)
}

fn flat(((a, b), c): ((u64, u64), u64)) -> [u64; 3] {
    [a, b, c]
}

fn varint(bytes: &mut &[u8]) -> Option<u64> {
    let mut value = 0;
    for shift in (0..64).step_by(7) {
        let (&byte, rest) = bytes.split_first()?;
        *bytes = rest;
        value |= u64::from(byte & 0x7f) << shift;
        if byte < 0x80 {
            return Some(value);
        }
    }
    None
}

fn handle(bytes: &mut &[u8]) -> Option<(usize, usize)> {
    Some((varint(bytes)? as usize, varint(bytes)? as usize))
}

fn block(table: &[u8], (start, size): (usize, usize)) -> Option<(&[u8], u8)> {
    let (compression, content) = table.get(start..)?.get(..size.checked_add(1)?)?.split_last()?;
    Some((content, *compression))
}

fn sum(table: &mut [u8], (start, size): (usize, usize)) -> Option<()> {
    let (summed, rest) = table.get_mut(start..)?.split_at_mut_checked(size.checked_add(1)?)?;
    let sum = crc32c::crc32c(summed).rotate_right(15).wrapping_add(0xa282_ead8);
    rest.first_chunk_mut::<4>().map(|place| *place = sum.to_le_bytes())
}
