//! Tests of complete conversions.

use std::fs;
use std::path::{Path, PathBuf};

use ::safetensors::tensor::{TensorView, serialize};
use ::safetensors::{Dtype, SafeTensors};
use serde_json::{Value, json};
use tempfile::{TempDir, tempdir};

use super::*;

fn fixtures() -> PathBuf {
    PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/fixtures"))
}

/// A folder with these fixtures (under new names if given), the configuration and the vocabulary.
fn folder(files: &[(&str, &str)]) -> TempDir {
    let dir = tempdir().unwrap();
    for (from, to) in files.iter().chain(&[("config.json", "config.json"), ("vocab.txt", "vocab.txt")]) {
        fs::copy(fixtures().join(from), dir.path().join(to)).unwrap();
    }
    dir
}

fn torch(file: &str) -> TempDir {
    folder(&[(&format!("torch/{file}"), "pytorch_model.bin")])
}

fn tensorflow(checkpoint: &str, shards: usize) -> TempDir {
    let name = |rest: &str| format!("tensorflow/{checkpoint}.ckpt{rest}");
    let dir =
        folder(&[(&name(".index"), "bert_model.ckpt.index"), ("tensorflow/bert_config.json", "bert_config.json")]);
    fs::remove_file(dir.path().join("config.json")).unwrap();
    for shard in 0..shards {
        let rest = format!(".data-{shard:05}-of-{shards:05}");
        fs::copy(fixtures().join(name(&rest)), dir.path().join(format!("bert_model.ckpt{rest}"))).unwrap();
    }
    dir
}

fn device() -> Device {
    Device::cpu(Some(1)).unwrap()
}

fn convert_to(source: &Path, out: &Path) -> Result<Converted, ConvertError> {
    convert(source, out, &device(), &mut |_| {})
}

type Tensors = Vec<(String, Dtype, Vec<usize>, Vec<u8>)>;

fn stored(path: &Path) -> Tensors {
    let bytes = fs::read(path).unwrap();
    let file = SafeTensors::deserialize(&bytes).unwrap();
    let mut stored: Tensors = file
        .iter()
        .map(|(name, view)| (name.to_owned(), view.dtype(), view.shape().to_vec(), view.data().to_vec()))
        .collect();
    stored.sort();
    stored
}

fn expected() -> Tensors {
    stored(&fixtures().join("torch/expected.safetensors"))
}

fn store(path: &Path, tensors: &Tensors) {
    let views =
        tensors.iter().map(|(name, dtype, shape, data)| (name, TensorView::new(*dtype, shape.clone(), data).unwrap()));
    fs::write(path, serialize(views, None).unwrap()).unwrap();
}

fn names(dir: &Path) -> Vec<String> {
    let mut names: Vec<String> =
        fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

/// Checks the error of converting `source`, and that no output remains.
#[track_caller]
fn fails(source: &Path, expected: &str) {
    let dir = tempdir().unwrap();
    let error = convert_to(source, &dir.path().join("out")).expect_err(expected).to_string();
    assert!(error.contains(expected), "{error}: expected {expected}");
    assert!(names(dir.path()).is_empty(), "{expected}: {:?} remains", names(dir.path()));
}

#[test]
fn all_formats_give_the_same_model() {
    let sharded = folder(&[
        ("torch/pytorch_model.bin.index.json", "pytorch_model.bin.index.json"),
        ("torch/pytorch_model-00001-of-00002.bin", "pytorch_model-00001-of-00002.bin"),
        ("torch/pytorch_model-00002-of-00002.bin", "pytorch_model-00002-of-00002.bin"),
    ]);
    let google = tensorflow("bert_model", 1);
    let (zip, legacy, wrapped) = (torch("zip.bin"), torch("legacy.bin"), torch("wrapped.bin"));
    let unsummed = torch("unsummed.bin");
    let cases: [(PathBuf, Format, usize); 10] = [
        (zip.path().to_owned(), Format::PyTorch, 3),
        (zip.path().join("pytorch_model.bin"), Format::PyTorch, 3),
        (legacy.path().to_owned(), Format::PyTorchLegacy, 3),
        (unsummed.path().to_owned(), Format::PyTorch, 3),
        (wrapped.path().to_owned(), Format::PyTorch, 3),
        (sharded.path().to_owned(), Format::PyTorch, 0),
        (google.path().to_owned(), Format::TensorFlow, 5),
        (google.path().join("bert_model.ckpt"), Format::TensorFlow, 5),
        (google.path().join("bert_model.ckpt.index"), Format::TensorFlow, 5),
        (google.path().join("bert_model.ckpt.data-00000-of-00001"), Format::TensorFlow, 5),
    ];
    for (source, format, skipped) in cases {
        let dir = tempdir().unwrap();
        let out = dir.path().join("a/b");
        let mut stages = Vec::new();
        let done = convert(&source, &out, &device(), &mut |stage| stages.push(stage.to_owned())).unwrap();
        let place = source.display();
        assert_eq!(stored(&out.join("model.safetensors")), expected(), "{place}");
        assert_eq!((done.format, done.tensors, done.opened, done.tokenizer), (format, 30, true, true), "{place}");
        let parameters: usize = expected().iter().map(|(_, _, shape, _)| shape.iter().product::<usize>()).sum();
        assert_eq!((done.parameters, done.bytes), (parameters as u64, 4 * parameters as u64));
        assert_eq!(done.architectures, ["BertForPreTraining"], "{place}");
        assert_eq!(done.skipped.groups().map(|(_, names)| names.len()).sum::<usize>(), skipped, "{place}");
        let files = ["config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json", "vocab.txt"];
        assert_eq!(
            (names(&out), names(out.parent().unwrap())),
            (files.map(str::to_owned).to_vec(), vec!["b".to_owned()])
        );
        assert_eq!(fs::read(out.join("vocab.txt")).unwrap(), fs::read(fixtures().join("vocab.txt")).unwrap());
        assert!(!Tokenizer::open(&out).unwrap().is_cased());
        let config: Value = serde_json::from_slice(&fs::read(out.join("config.json")).unwrap()).unwrap();
        assert_eq!(
            (&config["architectures"], &config["model_type"], &config["dtype"]),
            (&json!(["BertForPreTraining"]), &json!("bert"), &json!("float32"))
        );
        assert_eq!(stages.len(), 1 + 30 + 1, "{stages:?}");
    }
}

#[test]
fn skipped_tensors_are_reported_with_the_reason() {
    let dir = tempdir().unwrap();
    let listed = |source: &Path, out: &str| -> Vec<(String, Vec<String>)> {
        let done = convert_to(source, &dir.path().join(out)).unwrap();
        done.skipped.groups().map(|(reason, names)| (reason.to_owned(), names.to_vec())).collect()
    };
    let owned = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect::<Vec<String>>();
    assert_eq!(
        listed(tensorflow("bert_model", 1).path(), "a"),
        [(
            "a variable of the optimizer or the training loop".to_owned(),
            owned(&[
                "bert/pooler/dense/bias/adam_m",
                "bert/pooler/dense/bias/adam_v",
                "bert/pooler/dense/kernel/adam_m",
                "bert/pooler/dense/kernel/adam_v",
                "global_step"
            ])
        )]
    );
    assert_eq!(
        listed(torch("zip.bin").path(), "b"),
        [
            ("a buffer of old exporters, not a weight".to_owned(), owned(&["bert.embeddings.position_ids"])),
            (
                "a copy of the tensor to which it is tied".to_owned(),
                owned(&["cls.predictions.decoder.weight", "cls.predictions.decoder.bias"])
            ),
        ]
    );
    assert_eq!(
        listed(torch("wrapped.bin").path(), "c"),
        [("not in the state_dict".to_owned(), owned(&["epoch", "lr", "note"]))]
    );
}

#[test]
fn an_encoder_in_two_shards_becomes_a_bert_model() {
    let dir = tempdir().unwrap();
    let out = dir.path().join("out");
    let done = convert_to(tensorflow("sharded", 2).path(), &out).unwrap();
    assert_eq!((done.architectures.as_slice(), done.opened), (&["BertModel".to_owned()][..], true));
    let encoder: Tensors = expected()
        .into_iter()
        .filter_map(|(name, dtype, shape, data)| Some((name.strip_prefix("bert.")?.to_owned(), dtype, shape, data)))
        .collect();
    assert_eq!(stored(&out.join("model.safetensors")), encoder);
    let missing = tensorflow("sharded", 2);
    fs::remove_file(missing.path().join("bert_model.ckpt.data-00001-of-00002")).unwrap();
    fails(missing.path(), "cannot open");
}

#[test]
fn old_sharded_safetensors_become_a_current_folder() {
    let source = folder(&[]);
    let old: Tensors = expected()
        .into_iter()
        .map(|(name, dtype, shape, data)| {
            (
                name.replace("LayerNorm.weight", "LayerNorm.gamma").replace("LayerNorm.bias", "LayerNorm.beta"),
                dtype,
                shape,
                data,
            )
        })
        .collect();
    let (first, second) = old.split_at(9);
    store(&source.path().join("a.safetensors"), &first.to_vec());
    store(&source.path().join("b.safetensors"), &second.to_vec());
    let map = |tensors: &[(String, Dtype, Vec<usize>, Vec<u8>)], file: &str| {
        tensors.iter().map(|(name, ..)| (name.clone(), json!(file))).collect::<Vec<_>>()
    };
    let weight_map: serde_json::Map<String, Value> =
        map(first, "a.safetensors").into_iter().chain(map(second, "b.safetensors")).collect();
    let index = source.path().join("model.safetensors.index.json");
    fs::write(&index, json!({ "weight_map": weight_map }).to_string()).unwrap();
    let dir = tempdir().unwrap();
    let done = convert_to(source.path(), &dir.path().join("out")).unwrap();
    assert_eq!(done.format, Format::Safetensors);
    assert!(done.skipped.is_empty());
    assert_eq!(stored(&dir.path().join("out/model.safetensors")), expected());

    let mut more = weight_map.clone();
    more.insert("bert.lost".to_owned(), json!("a.safetensors"));
    fs::write(&index, json!({ "weight_map": more }).to_string()).unwrap();
    fails(source.path(), "no shard with bert.lost");
    fs::write(&index, json!({ "weight_map": { "a": "../a.safetensors" } }).to_string()).unwrap();
    fails(source.path(), "expected a plain file name");
    fs::write(&index, "{").unwrap();
    fails(source.path(), "shard index");
}

#[test]
fn task_heads_and_labels_are_kept() {
    let source = folder(&[]);
    let mut tensors: Tensors = expected().into_iter().filter(|(name, ..)| name.starts_with("bert.")).collect();
    tensors.push(("classifier.weight".to_owned(), Dtype::F32, vec![3, 8], vec![1; 96]));
    tensors.push(("classifier.bias".to_owned(), Dtype::F32, vec![3], vec![2; 12]));
    store(&source.path().join("model.safetensors"), &tensors);
    let config = source.path().join("config.json");
    let mut value: Value = serde_json::from_slice(&fs::read(&config).unwrap()).unwrap();
    value["architectures"] = json!(["BertForTokenClassification"]);
    value["id2label"] = json!({"0": "O", "1": "B-PER", "2": "I-PER"});
    fs::write(&config, value.to_string()).unwrap();
    let dir = tempdir().unwrap();
    let done = convert_to(source.path(), &dir.path().join("out")).unwrap();
    assert!(done.opened);
    tensors.sort();
    assert_eq!(stored(&dir.path().join("out/model.safetensors")), tensors);
    let written: Value = serde_json::from_slice(&fs::read(dir.path().join("out/config.json")).unwrap()).unwrap();
    assert_eq!((&written["architectures"], &written["id2label"]), (&value["architectures"], &value["id2label"]));

    // A head that is not supported is also kept; without `architectures`, none is added.
    tensors.push(("projection.weight".to_owned(), Dtype::F32, vec![2], vec![3; 8]));
    store(&source.path().join("model.safetensors"), &tensors);
    value.as_object_mut().unwrap().remove("architectures");
    fs::write(&config, value.to_string()).unwrap();
    let done = convert_to(source.path(), &dir.path().join("more")).unwrap();
    assert!(!done.opened && done.architectures.is_empty());
    assert_eq!(stored(&dir.path().join("more/model.safetensors")), tensors);
}

#[test]
fn element_types_are_kept() {
    let source = folder(&[]);
    let half = |(name, _, shape, data): (String, Dtype, Vec<usize>, Vec<u8>)| {
        let data = data.chunks(4).flat_map(|value| [value[2], value[3]]).collect();
        (name, Dtype::BF16, shape, data)
    };
    let tensors: Tensors = expected().into_iter().map(half).collect();
    store(&source.path().join("model.safetensors"), &tensors);
    let dir = tempdir().unwrap();
    assert!(convert_to(source.path(), &dir.path().join("out")).unwrap().opened);
    assert_eq!(stored(&dir.path().join("out/model.safetensors")), tensors);
    let written: Value = serde_json::from_slice(&fs::read(dir.path().join("out/config.json")).unwrap()).unwrap();
    assert_eq!(written["dtype"], "bfloat16");
}

#[test]
fn used_output_folder_is_rejected_and_empty_one_is_accepted() {
    let (source, dir) = (torch("zip.bin"), tempdir().unwrap());
    let out = dir.path().join("out");
    fs::create_dir(&out).unwrap();
    // The remains of a killed conversion are replaced.
    fs::create_dir(dir.path().join(".out.partial")).unwrap();
    fs::write(dir.path().join(".out.partial/half"), "").unwrap();
    convert_to(source.path(), &out).unwrap();
    assert_eq!(names(dir.path()), ["out"]);
    let error = convert_to(source.path(), &out).unwrap_err().to_string();
    assert!(error.contains("exists and is not empty"), "{error}");
    let file = dir.path().join("file");
    fs::write(&file, "").unwrap();
    assert!(convert_to(source.path(), &file).unwrap_err().to_string().contains("expected a folder"));
    assert!(convert_to(source.path(), Path::new("/")).unwrap_err().to_string().contains("output folder /"));
}

#[test]
fn r12_modules_of_sentence_transformers_are_kept_for_each_way_to_name_the_source() {
    let source = tempdir().unwrap();
    let model = source.path().join("0_Transformer");
    fs::rename(torch("zip.bin").keep(), &model).unwrap();
    let module =
        |class: &str, path: &str| json!({"type": format!("sentence_transformers.models.{class}"), "path": path});
    let modules = [module("Transformer", "0_Transformer"), module("Pooling", "1_Pooling"), module("Dense", "2_Dense")];
    fs::write(source.path().join("modules.json"), json!(modules).to_string()).unwrap();
    for folder in ["1_Pooling", "2_Dense"] {
        fs::create_dir(source.path().join(folder)).unwrap();
        fs::write(source.path().join(folder).join("config.json"), folder).unwrap();
    }
    // The content of a module's pickle does not matter here.
    fs::copy(fixtures().join("torch/unsummed.bin"), source.path().join("2_Dense/pytorch_model.bin")).unwrap();
    for given in [source.path().to_owned(), model.clone(), model.join("pytorch_model.bin")] {
        let dir = tempdir().unwrap();
        let out = dir.path().join("out");
        let done = convert_to(&given, &out).unwrap();
        assert_eq!(done.modules, ["Transformer", "Pooling", "Dense"], "{}", given.display());
        assert_eq!(stored(&out.join("model.safetensors")), expected());
        let layout = cloze_model::Layout::of(&out).unwrap();
        assert_eq!((&layout.model, layout.modules[2].path.as_str()), (&out, "2_Dense"));
        assert_eq!(fs::read_to_string(out.join("1_Pooling/config.json")).unwrap(), "1_Pooling");
        assert_eq!(names(&out.join("2_Dense")), ["config.json", "model.safetensors"]);
        assert!(
            stored(&out.join("2_Dense/model.safetensors")).len() > 30,
            "with the copies that a model would not keep"
        );
    }
}

#[test]
fn invalid_sources_are_rejected_with_the_expectation() {
    fails(Path::new("nowhere"), "no such file or folder");
    let empty = folder(&[]);
    fails(empty.path(), "found none of model.safetensors");
    fails(&empty.path().join("vocab.txt"), "expected a name that ends in");
    fs::write(empty.path().join("tf_model.h5"), "").unwrap();
    fails(empty.path(), "tf_model.h5 is not supported");
    let without = torch("zip.bin");
    fs::remove_file(without.path().join("config.json")).unwrap();
    fails(without.path(), "none of config.json, bert_config.json");
    let several = tensorflow("bert_model", 1);
    let index = several.path().join("bert_model.ckpt.index");
    fs::copy(&index, several.path().join("model.ckpt-1.index")).unwrap();
    fs::rename(&index, several.path().join("model.ckpt-2.index")).unwrap();
    fails(several.path(), "several checkpoints (model.ckpt-1, model.ckpt-2); name one");
    fails(tensorflow("objects", 1).path(), "object-based checkpoint of TensorFlow 2");
    fails(torch("evil.bin").path(), "refers to posix.system");
}

#[test]
fn models_that_do_not_match_their_configuration_are_rejected() {
    let edit = |source: &TempDir, key: &str, to: Value| {
        let path = source.path().join("config.json");
        let mut config: Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
        config[key] = to;
        fs::write(&path, config.to_string()).unwrap();
    };
    let source = torch("zip.bin");
    edit(&source, "intermediate_size", json!(16));
    fails(source.path(), "bert.encoder.layer.0.intermediate.dense.weight, expected [16, 8], found [12, 8]");
    edit(&source, "intermediate_size", json!(12));
    edit(&source, "vocab_size", json!(22));
    fails(source.path(), "23 tokens in the vocabulary, 22 in the model");
    edit(&source, "model_type", json!("t5"));
    fails(source.path(), "model_type is \"t5\": expected one of the supported architectures");

    let source = folder(&[]);
    let path = source.path().join("model.safetensors");
    let mut untied = expected();
    untied.push(("cls.predictions.decoder.weight".to_owned(), Dtype::F32, vec![23, 8], vec![7; 23 * 8 * 4]));
    store(&path, &untied);
    let dir = tempdir().unwrap();
    let done = convert_to(source.path(), &dir.path().join("out")).unwrap();
    assert!(done.opened, "r10: an untied decoder");
    let written: Value = serde_json::from_slice(&fs::read(dir.path().join("out/config.json")).unwrap()).unwrap();
    assert_eq!(written["tie_word_embeddings"], false);
    // Transformers reads the bias of an untied decoder under the decoder's name.
    let (_, dtype, shape, data) = untied.iter().find(|(name, ..)| name == "cls.predictions.bias").unwrap().clone();
    untied.push(("cls.predictions.decoder.bias".to_owned(), dtype, shape, data));
    untied.sort();
    assert_eq!(stored(&dir.path().join("out/model.safetensors")), untied);
    let mut twice = expected();
    twice.push(("bert.pooler.dense.beta".to_owned(), Dtype::F32, vec![8], vec![7; 32]));
    store(&path, &twice);
    fails(source.path(), "duplicate:");
    store(&path, &vec![("roberta.x".to_owned(), Dtype::F32, vec![1], vec![0; 4])]);
    fails(source.path(), "found no tensors of BERT");
    store(&path, &vec![("bert.x".to_owned(), Dtype::F8_E4M3, vec![1], vec![0])]);
    fails(source.path(), "F8_E4M3 is not supported");
}

#[test]
fn changed_bytes_of_data_are_detected() {
    for (source, file) in [
        (torch("zip.bin"), "pytorch_model.bin"),
        (tensorflow("bert_model", 1), "bert_model.ckpt.data-00000-of-00001"),
        (tensorflow("sharded", 2), "bert_model.ckpt.data-00001-of-00002"),
    ] {
        let path = source.path().join(file);
        let mut bytes = fs::read(&path).unwrap();
        // A weight of the model, not one of the optimizer.
        let (_, _, _, data) =
            expected().into_iter().find(|(name, ..)| name.ends_with("word_embeddings.weight")).unwrap();
        let at = bytes.windows(8).position(|window| *window == data[80..88]);
        let at = at.unwrap_or(bytes.len() / 2);
        bytes[at] ^= 1;
        fs::write(&path, &bytes).unwrap();
        fails(source.path(), "checksum");
        bytes[at] ^= 1;
        bytes.truncate(bytes.len() / 2);
        fs::write(&path, &bytes).unwrap();
        fails(source.path(), file);
    }
}

#[test]
fn damaged_safetensors_are_rejected() {
    let source = folder(&[("torch/expected.safetensors", "model.safetensors")]);
    let path = source.path().join("model.safetensors");
    let good = fs::read(&path).unwrap();
    let header = |text: &str| [&(text.len() as u64).to_le_bytes()[..], text.as_bytes()].concat();
    let cases: [(Vec<u8>, &str); 7] = [
        (Vec::new(), "found 0 bytes, expected at least 8"),
        (good[..good.len() - 1].to_vec(), "according to its header"),
        (good[..100].to_vec(), "in a file of 100"),
        (vec![0xff; 16], "a header length of 18446744073709551615 bytes"),
        (header("{"), "invalid header: EOF"),
        (
            header(r#"{"a":{"dtype":"F32","shape":[1099511627776,1099511627776],"data_offsets":[0,4]}}"#),
            "invalid header",
        ),
        (header(r#"{"a":{"dtype":"F32","shape":[4611686018427387904],"data_offsets":[0,4]}}"#), "invalid header"),
    ];
    for (bytes, expected) in cases {
        fs::write(&path, bytes).unwrap();
        fails(source.path(), expected);
    }
}

#[test]
fn unsupported_tokenizers_are_skipped_and_damaged_ones_rejected() {
    let source = torch("zip.bin");
    fs::write(source.path().join("tokenizer.json"), r#"{"model": {"type": "Morpheme"}}"#).unwrap();
    let dir = tempdir().unwrap();
    let done = convert_to(source.path(), &dir.path().join("out")).unwrap();
    assert!(!done.tokenizer);
    assert!(done.skipped.groups().any(|(reason, _)| reason == "a tokenizer of an unsupported kind"));
    fs::remove_file(source.path().join("tokenizer.json")).unwrap();
    fs::write(source.path().join("vocab.txt"), "a\nb\n").unwrap();
    fails(source.path(), "the vocabulary of 2 tokens has no [PAD]");
}

/// Each seed must give a model or an error, without a panic.
#[test]
fn seeds_of_the_fuzz_targets_are_read() {
    for (target, name) in
        [("pickle", "pytorch_model.bin"), ("safetensors", "model.safetensors"), ("tensorflow", "bert_model.ckpt.index")]
    {
        let source = folder(&[]);
        for seed in cloze_testing::fuzz_seeds(target) {
            fs::write(source.path().join(name), seed).unwrap();
            let out = tempdir().unwrap();
            let _ = convert_to(source.path(), &out.path().join("out"));
        }
    }
}
