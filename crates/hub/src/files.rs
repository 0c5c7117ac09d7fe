//! Which files of a repository are worth having.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Component, Path};

use serde::Deserialize;

use crate::Contents;

pub(crate) const CONFIG: &str = "config.json";
/// As the original TensorFlow release has it.
const OLD_CONFIG: &str = "bert_config.json";
pub(crate) const LIST: &str = "vocab.txt";
/// A tokenizer is either of these.
pub(crate) const TOKENIZERS: [&str; 2] = ["tokenizer.json", LIST];
pub(crate) const MODULES: &str = "modules.json";
/// What sentence-transformers stores in addition to its modules: lengths and case, prompts.
pub(crate) const OF_SENTENCES: [&str; 2] = ["sentence_bert_config.json", "config_sentence_transformers.json"];
const SAFETENSORS: &str = "model.safetensors";
const SAFETENSORS_INDEX: &str = "model.safetensors.index.json";
const PYTORCH: &str = "pytorch_model.bin";
const PYTORCH_INDEX: &str = "pytorch_model.bin.index.json";

/// What a tokenizer has its settings in, whichever file its vocabulary is in.
pub(crate) const TOKENIZER_CONFIG: &str = "tokenizer_config.json";

/// Small files at the top of a repository, in the order in which they are fetched.
#[cfg(feature = "download")]
pub(crate) const SMALL: [&str; 10] = [
    CONFIG,
    OLD_CONFIG,
    TOKENIZER_CONFIG,
    "special_tokens_map.json",
    "added_tokens.json",
    MODULES,
    OF_SENTENCES[0],
    OF_SENTENCES[1],
    LIST,
    "tokenizer.json",
];

/// The configuration among the files at the top of a repository.
pub(crate) fn config(has: &dyn Fn(&str) -> bool, wanted: Contents) -> Option<&'static str> {
    let accepted: &[&str] = if wanted == Contents::Source { &[CONFIG, OLD_CONFIG] } else { &[CONFIG] };
    accepted.iter().copied().find(|name| has(name))
}

/// Where a model's weights are.
#[derive(Debug, PartialEq)]
pub(crate) enum Weights {
    /// In files that are known by their names.
    Files(Vec<String>),
    /// In the files that this index names.
    Index(&'static str),
}

/// The weights among the files at the top of a repository, in the order in which they are preferred.
pub(crate) fn weights(has: &dyn Fn(&str) -> bool, names: &[String], wanted: Contents) -> Option<Weights> {
    if wanted == Contents::Tokenizer {
        return Some(Weights::Files(Vec::new()));
    }
    let one = |name: &str| Some(Weights::Files(vec![name.to_owned()]));
    if has(SAFETENSORS) {
        return one(SAFETENSORS);
    }
    if has(SAFETENSORS_INDEX) {
        return Some(Weights::Index(SAFETENSORS_INDEX));
    }
    if wanted != Contents::Source {
        return None;
    }
    if has(PYTORCH) {
        return one(PYTORCH);
    }
    if has(PYTORCH_INDEX) {
        return Some(Weights::Index(PYTORCH_INDEX));
    }
    let index = tensorflow_index(names)?;
    let data = format!("{}.data-", index.trim_end_matches(".index"));
    let mut files = vec![index.to_owned()];
    files.extend(names.iter().filter(|name| name.starts_with(&data) && !name.contains('/')).cloned());
    (files.len() > 1).then_some(Weights::Files(files))
}

/// The index of a TensorFlow checkpoint at the top of a repository.
fn tensorflow_index(names: &[String]) -> Option<&str> {
    names.iter().map(String::as_str).find(|name| name.ends_with(".index") && !name.contains('/'))
}

/// The file with weights that a repository has in place of safetensors, and whether they can be converted.
#[cfg(feature = "download")]
pub(crate) fn other_weights(names: &[String]) -> Option<(&str, bool)> {
    let listed = |file: &'static str| names.iter().any(|name| name == file).then_some(file);
    let convertible = listed(PYTORCH).or_else(|| listed(PYTORCH_INDEX)).or_else(|| tensorflow_index(names));
    let foreign = ["tf_model.h5", "flax_model.msgpack", "model.onnx", "rust_model.ot"];
    let foreign = foreign.into_iter().find_map(listed).map(|file| (file, false));
    convertible.map(|file| (file, true)).or(foreign)
}

#[derive(Deserialize)]
struct Index {
    weight_map: BTreeMap<String, String>,
}

/// The files that an index of weights names, all in its own folder.
pub(crate) fn shards(index: &[u8]) -> Result<BTreeSet<String>, String> {
    let parsed: Index = serde_json::from_slice(index).map_err(|e| format!("no index of weights: {e}"))?;
    let files: BTreeSet<String> = parsed.weight_map.into_values().collect();
    match files.iter().find(|file| Path::new(file).file_name() != Some(file.as_ref())) {
        Some(file) => Err(format!("its shard {file:?} is no plain file name")),
        None => Ok(files),
    }
}

/// A module of a sentence-transformers model that lies in a folder of its own.
#[derive(Debug, PartialEq)]
pub(crate) struct Module {
    pub path: String,
    /// Whether it has files: normalisation has none.
    pub has_files: bool,
}

/// The modules that modules.json names, those at the top left out. A file that cannot be read is refused later, when the model is opened.
pub(crate) fn modules(text: &[u8]) -> Vec<Module> {
    #[derive(Deserialize)]
    struct Named {
        path: String,
        #[serde(rename = "type")]
        kind: String,
    }
    let named: Vec<Named> = serde_json::from_slice(text).unwrap_or_default();
    let inside = |path: &str| Path::new(path).components().all(|part| matches!(part, Component::Normal(_)));
    let kept = named.into_iter().filter(|named| !named.path.is_empty() && inside(&named.path));
    kept.map(|named| Module { has_files: !named.kind.ends_with("Normalize"), path: named.path }).collect()
}

/// The files of a module: those right in its folder, weights once and in a format that is read.
#[cfg(feature = "download")]
pub(crate) fn of_module(path: &str, names: &[String]) -> Vec<String> {
    let inside = |name: &&String| {
        name.strip_prefix(path).and_then(|rest| rest.strip_prefix('/')).is_some_and(|rest| !rest.contains('/'))
    };
    let files: Vec<&String> = names.iter().filter(inside).collect();
    let has_safetensors = files.iter().any(|name| name.ends_with(".safetensors"));
    let left_out = |name: &str| {
        [".h5", ".msgpack", ".onnx", ".ot"].iter().any(|ending| name.ends_with(ending))
            || (has_safetensors && name.ends_with(".bin"))
    };
    files.into_iter().filter(|name| !left_out(name)).cloned().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chosen(names: &[&str], wanted: Contents) -> Option<Weights> {
        let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
        weights(&|name| names.iter().any(|n| n == name), &names, wanted)
    }

    #[test]
    fn safetensors_come_first_and_others_only_to_convert() {
        let files = |names: &[&str]| Some(Weights::Files(names.iter().map(|name| (*name).to_owned()).collect()));
        let all = [PYTORCH, SAFETENSORS, "tf_model.h5", "model.ckpt.index", "model.ckpt.data-00000-of-00001"];
        assert_eq!(chosen(&all, Contents::Model), files(&[SAFETENSORS]));
        assert_eq!(chosen(&all, Contents::Source), files(&[SAFETENSORS]));
        assert_eq!(chosen(&[PYTORCH], Contents::Model), None);
        assert_eq!(chosen(&[PYTORCH, PYTORCH_INDEX], Contents::Source), files(&[PYTORCH]));
        assert_eq!(
            chosen(&[PYTORCH_INDEX, SAFETENSORS_INDEX], Contents::Source),
            Some(Weights::Index(SAFETENSORS_INDEX))
        );
        assert_eq!(chosen(&[PYTORCH_INDEX], Contents::Source), Some(Weights::Index(PYTORCH_INDEX)));
        assert_eq!(chosen(&all[2..], Contents::Source), files(&all[3..]));
        assert_eq!(chosen(&["model.ckpt.index"], Contents::Source), None, "its data is missing");
        assert_eq!(chosen(&["tf_model.h5"], Contents::Source), None);
    }

    #[test]
    fn an_index_names_files_beside_it() {
        let index = |map: &str| shards(format!("{{\"weight_map\": {map}}}").as_bytes());
        assert_eq!(index(r#"{"a": "x", "b": "y", "c": "x"}"#), Ok(["x".to_owned(), "y".to_owned()].into()));
        assert!(index(r#"{"a": "../x"}"#).is_err() && index(r#"{"a": 1}"#).is_err() && shards(b"{").is_err());
    }

    #[test]
    fn modules_are_folders_within() {
        let text = r#"[{"path": "", "type": "m.Transformer"}, {"path": "1_Pooling", "type": "m.Pooling"},
            {"path": "../x", "type": "m.Dense"}, {"path": "2_Normalize", "type": "m.Normalize"}]"#;
        let found = modules(text.as_bytes());
        let expected = [("1_Pooling", true), ("2_Normalize", false)];
        assert_eq!(found.iter().map(|m| (m.path.as_str(), m.has_files)).collect::<Vec<_>>(), expected);
        assert!(modules(b"{}").is_empty());
    }

    #[cfg(feature = "download")]
    #[test]
    fn a_module_brings_its_weights_once() {
        let names = [
            "2_Dense/config.json",
            "2_Dense/model.safetensors",
            "2_Dense/pytorch_model.bin",
            "2_Dense/onnx/a",
            "2_Dense2/b",
        ];
        let names = names.map(str::to_owned);
        assert_eq!(of_module("2_Dense", &names), names[..2]);
        assert_eq!(of_module("2_Dense", &names[2..]), ["2_Dense/pytorch_model.bin"]);
    }
}
