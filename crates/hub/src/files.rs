//! Selects the files of a repository that are needed.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Component, Path};

use serde::Deserialize;

use crate::Contents;

pub(crate) const CONFIG: &str = "config.json";
/// The name of the configuration in the original TensorFlow release.
const OLD_CONFIG: &str = "bert_config.json";
pub(crate) const LIST: &str = "vocab.txt";
/// The complete description of a tokenizer.
pub(crate) const TOKENIZER: &str = "tokenizer.json";
const BPE: &str = "vocab.json";
const MERGES: &str = "merges.txt";
/// A tokenizer is one of these files. vocab.json also needs merges.txt.
pub(crate) const TOKENIZERS: [&str; 5] = [TOKENIZER, LIST, BPE, "sentencepiece.bpe.model", "spiece.model"];
pub(crate) const MODULES: &str = "modules.json";
/// The settings of sentence-transformers in addition to its modules: maximal length and case; prompts.
pub(crate) const SENTENCE_SETTINGS: [&str; 2] = ["sentence_bert_config.json", "config_sentence_transformers.json"];
const SAFETENSORS: &str = "model.safetensors";
const SAFETENSORS_INDEX: &str = "model.safetensors.index.json";
const PYTORCH: &str = "pytorch_model.bin";
const PYTORCH_INDEX: &str = "pytorch_model.bin.index.json";

/// The settings of a tokenizer, for both kinds of vocabulary files.
pub(crate) const TOKENIZER_CONFIG: &str = "tokenizer_config.json";

/// Small files in the top folder of a repository, in the order in which they are downloaded.
#[cfg(feature = "download")]
pub(crate) const SMALL_FILES: [&str; 10] = [
    CONFIG,
    OLD_CONFIG,
    TOKENIZER_CONFIG,
    "special_tokens_map.json",
    "added_tokens.json",
    MODULES,
    SENTENCE_SETTINGS[0],
    SENTENCE_SETTINGS[1],
    LIST,
    TOKENIZER,
];

/// The vocabulary of a tokenizer that is not a list and has no tokenizer.json.
#[cfg(feature = "download")]
pub(crate) fn vocabulary(has: &dyn Fn(&str) -> bool) -> Vec<&'static str> {
    let other = TOKENIZERS.into_iter().skip(2).chain([MERGES]);
    other.filter(|name| !has(TOKENIZER) && has(name)).collect()
}

/// The files that a tokenizer file needs in addition.
pub(crate) fn companion(tokenizer: &str) -> Option<&'static str> {
    (tokenizer == BPE).then_some(MERGES)
}

/// The configuration among the files in the top folder of a repository.
pub(crate) fn config(has: &dyn Fn(&str) -> bool, contents: Contents) -> Option<&'static str> {
    let accepted: &[&str] = if contents == Contents::Source { &[CONFIG, OLD_CONFIG] } else { &[CONFIG] };
    accepted.iter().copied().find(|name| has(name))
}

/// The location of a model's weights.
#[derive(Debug, PartialEq)]
pub(crate) enum Weights {
    /// These files.
    Files(Vec<String>),
    /// The files in this index.
    Index(&'static str),
}

/// The weights among the files in the top folder of a repository, in order of preference.
pub(crate) fn weights(has: &dyn Fn(&str) -> bool, names: &[String], contents: Contents) -> Option<Weights> {
    if contents == Contents::Tokenizer {
        return Some(Weights::Files(Vec::new()));
    }
    let one = |name: &str| Some(Weights::Files(vec![name.to_owned()]));
    if has(SAFETENSORS) {
        return one(SAFETENSORS);
    }
    if has(SAFETENSORS_INDEX) {
        return Some(Weights::Index(SAFETENSORS_INDEX));
    }
    if contents != Contents::Source {
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

/// The index of a TensorFlow checkpoint in the top folder of a repository.
fn tensorflow_index(names: &[String]) -> Option<&str> {
    names.iter().map(String::as_str).find(|name| name.ends_with(".index") && !name.contains('/'))
}

/// The file with weights that a repository has instead of safetensors, and whether it can be converted.
#[cfg(feature = "download")]
pub(crate) fn other_weights(names: &[String]) -> Option<(&str, bool)> {
    let listed = |file: &'static str| names.iter().any(|name| name == file).then_some(file);
    let convertible = listed(PYTORCH).or_else(|| listed(PYTORCH_INDEX)).or_else(|| tensorflow_index(names));
    let unsupported = ["tf_model.h5", "flax_model.msgpack", "model.onnx", "rust_model.ot"];
    let unsupported = unsupported.into_iter().find_map(listed).map(|file| (file, false));
    convertible.map(|file| (file, true)).or(unsupported)
}

#[derive(Deserialize)]
struct Index {
    weight_map: BTreeMap<String, String>,
}

/// The files in an index of weights, which must all be in its folder.
pub(crate) fn shards(index: &[u8]) -> Result<BTreeSet<String>, String> {
    let parsed: Index = serde_json::from_slice(index).map_err(|e| format!("expected an index of weights: {e}"))?;
    let files: BTreeSet<String> = parsed.weight_map.into_values().collect();
    match files.iter().find(|file| Path::new(file).file_name() != Some(file.as_ref())) {
        Some(file) => Err(format!("expected a plain file name as shard, found {file:?}")),
        None => Ok(files),
    }
}

/// A module of a sentence-transformers model in its own folder.
#[derive(Debug, PartialEq)]
pub(crate) struct Module {
    pub path: String,
    /// Whether it has files; normalisation has none.
    pub has_files: bool,
}

/// The modules in modules.json, except those in the top folder. An invalid file causes an error later, when the model is loaded.
pub(crate) fn modules(text: &[u8]) -> Vec<Module> {
    #[derive(Deserialize)]
    struct Named {
        path: String,
        #[serde(rename = "type")]
        kind: String,
    }
    let named: Vec<Named> = serde_json::from_slice(text).unwrap_or_default();
    let inside = |path: &str| Path::new(path).components().all(|part| matches!(part, Component::Normal(_)));
    let modules = named.into_iter().filter(|named| !named.path.is_empty() && inside(&named.path));
    modules.map(|named| Module { has_files: !named.kind.ends_with("Normalize"), path: named.path }).collect()
}

/// The files of a module: those directly in its folder, with weights in only one supported format.
#[cfg(feature = "download")]
pub(crate) fn module_files(path: &str, names: &[String]) -> Vec<String> {
    let inside = |name: &&String| {
        name.strip_prefix(path).and_then(|rest| rest.strip_prefix('/')).is_some_and(|rest| !rest.contains('/'))
    };
    let files: Vec<&String> = names.iter().filter(inside).collect();
    let has_safetensors = files.iter().any(|name| name.ends_with(".safetensors"));
    let is_unneeded = |name: &str| {
        [".h5", ".msgpack", ".onnx", ".ot"].iter().any(|ending| name.ends_with(ending))
            || (has_safetensors && name.ends_with(".bin"))
    };
    files.into_iter().filter(|name| !is_unneeded(name)).cloned().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chosen(names: &[&str], contents: Contents) -> Option<Weights> {
        let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
        weights(&|name| names.iter().any(|n| n == name), &names, contents)
    }

    #[test]
    fn safetensors_are_preferred_and_other_formats_need_conversion() {
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
    fn shards_of_an_index_are_in_its_folder() {
        let index = |map: &str| shards(format!("{{\"weight_map\": {map}}}").as_bytes());
        assert_eq!(index(r#"{"a": "x", "b": "y", "c": "x"}"#), Ok(["x".to_owned(), "y".to_owned()].into()));
        assert!(index(r#"{"a": "../x"}"#).is_err() && index(r#"{"a": 1}"#).is_err() && shards(b"{").is_err());
    }

    #[test]
    fn modules_are_sub_folders() {
        let text = r#"[{"path": "", "type": "m.Transformer"}, {"path": "1_Pooling", "type": "m.Pooling"},
            {"path": "../x", "type": "m.Dense"}, {"path": "2_Normalize", "type": "m.Normalize"}]"#;
        let found = modules(text.as_bytes());
        let expected = [("1_Pooling", true), ("2_Normalize", false)];
        assert_eq!(found.iter().map(|m| (m.path.as_str(), m.has_files)).collect::<Vec<_>>(), expected);
        assert!(modules(b"{}").is_empty());
    }

    #[cfg(feature = "download")]
    #[test]
    fn module_files_include_weights_in_one_format() {
        let names = [
            "2_Dense/config.json",
            "2_Dense/model.safetensors",
            "2_Dense/pytorch_model.bin",
            "2_Dense/onnx/a",
            "2_Dense2/b",
        ];
        let names = names.map(str::to_owned);
        assert_eq!(module_files("2_Dense", &names), names[..2]);
        assert_eq!(module_files("2_Dense", &names[2..]), ["2_Dense/pytorch_model.bin"]);
    }
}
