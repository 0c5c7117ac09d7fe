//! Parity with PyTorch and Transformers: hidden states, logits, losses, every parameter's gradient, ten training steps.
//!
//! The reference folders and their generator are in `fixtures/`. Each model folder in the directory `CLOZE_PARITY` is
//! checked as well; a folder that cannot be checked is a failure.
#![allow(clippy::print_stdout, reason = "prints the differences")]

mod attention;
mod compare;
mod reference;
mod ten_steps;

use std::fs;
use std::path::{Path, PathBuf};

use cloze_engine::{DType, Device};
use compare::{MaxErrors, check_folder};

fn fixtures() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures")
}

fn device() -> Device {
    Device::cpu(Some(2)).unwrap()
}

/// The CPU; CUDA's kernels in the emulator, where there is a C++ compiler; a real GPU, if there is one.
fn devices() -> Vec<Device> {
    let mut devices = vec![device()];
    #[cfg(target_os = "linux")]
    devices.extend(Device::gpus_for_tests());
    devices
}

/// Checks every folder in one precision on each device. Panics with the findings of all folders that fail.
fn check_all(folders: &[PathBuf], precision: DType) {
    let mut failures = Vec::new();
    for device in devices() {
        for folder in folders {
            let name = format!("{}, {}", folder.display(), device.describe());
            match check_folder(&device, folder, precision) {
                Ok(max_errors) => println!("{name}: {} {max_errors}", precision.name()),
                Err(findings) => failures.push(format!("{name}:\n  {}", findings.join("\n  "))),
            }
        }
    }
    assert!(
        failures.is_empty(),
        "{} of {} folders fail on some device:\n{}",
        failures.len(),
        folders.len(),
        failures.join("\n")
    );
}

fn goldens() -> Vec<PathBuf> {
    let entries = fs::read_dir(fixtures().join("parity")).unwrap();
    let mut folders: Vec<PathBuf> = entries.map(|entry| entry.unwrap().path()).collect();
    folders.sort();
    // 11 of BERT, 47 of its family, 16 of heads that Transformers does not have.
    assert_eq!(folders.len(), 74);
    folders
}

#[test]
fn goldens_parity_in_f32() {
    check_all(&goldens(), DType::F32);
}

#[test]
fn goldens_parity_in_bf16() {
    check_all(&goldens(), DType::BF16);
}

#[test]
fn named_folders_parity() {
    let Some(directory) = std::env::var_os("CLOZE_PARITY") else {
        println!("skipped: CLOZE_PARITY names no directory of model folders");
        return;
    };
    let entries = fs::read_dir(&directory).unwrap_or_else(|error| panic!("CLOZE_PARITY={directory:?}: {error}"));
    let mut folders: Vec<PathBuf> = entries.map(|entry| entry.unwrap().path()).filter(|path| path.is_dir()).collect();
    folders.sort();
    assert!(!folders.is_empty(), "CLOZE_PARITY={directory:?} holds no folder");
    for precision in [DType::F32, DType::BF16] {
        check_all(&folders, precision);
    }
}

/// A copy of a reference folder, in which the caller may change the config or the reference.
fn copied(name: &str) -> tempfile::TempDir {
    let copy = tempfile::tempdir().unwrap();
    for file in fs::read_dir(fixtures().join("parity").join(name)).unwrap() {
        let file = file.unwrap();
        fs::copy(file.path(), copy.path().join(file.file_name())).unwrap();
    }
    copy
}

/// Tests the check itself: it must detect a wrong epsilon, activation or weight, and unknown tensors.
#[test]
fn parity_check_detects_differences() {
    let device = device();
    let findings = |change: &dyn Fn(&Path)| -> Vec<String> {
        let folder = copied("bert-pretraining");
        change(folder.path());
        check_folder(&device, folder.path(), DType::F32).err().unwrap_or_default()
    };
    let edit_config = |from: &'static str, to: &'static str| {
        findings(&move |folder: &Path| {
            let path = folder.join("config.json");
            let text = fs::read_to_string(&path).unwrap();
            assert!(text.contains(from), "{from} is in the golden config");
            fs::write(path, text.replace(from, to)).unwrap();
        })
    };
    assert!(findings(&|_| ()).is_empty());
    assert!(edit_config("\"layer_norm_eps\": 1e-12", "\"layer_norm_eps\": 1e-3").len() > 10);
    assert!(edit_config("\"hidden_act\": \"gelu\"", "\"hidden_act\": \"gelu_new\"").len() > 10);
    assert!(edit_config("\"num_attention_heads\": 4", "\"num_attention_heads\": 2").len() > 10);
    // A weight that is changed by one percent.
    let moved = findings(&|folder: &Path| {
        let path = folder.join("model.safetensors");
        let mut bytes = fs::read(&path).unwrap();
        let last = bytes.len() - 4;
        let value = f32::from_le_bytes(bytes[last..].try_into().unwrap());
        bytes[last..].copy_from_slice(&(value * 1.01).to_le_bytes());
        fs::write(path, bytes).unwrap();
    });
    assert!(!moved.is_empty());
    let surplus = findings(&|folder: &Path| {
        let path = folder.join("reference.safetensors");
        reference::add_tensor(&path, "output.attentions");
    });
    assert_eq!(surplus, ["output.attentions is in the reference, but is not checked"]);
}

#[test]
fn parity_check_rejects_unknown_tensors() {
    let folder = copied("bert-nsp");
    let path = folder.path().join("model.safetensors");
    reference::add_tensor(&path, "adapter.weight");
    let findings = check_folder(&device(), folder.path(), DType::F32).unwrap_err();
    assert!(findings[0].contains("unexpected: adapter.weight"), "{findings:?}");
}

#[test]
fn saved_model_parity_with_the_original() {
    for golden in goldens() {
        let name = golden.display();
        let model = cloze_model::Model::load(&golden, &device()).unwrap();
        let copy = tempfile::tempdir().unwrap();
        model.save(copy.path()).unwrap();
        // Every byte equals the file of Transformers: same names, same order, same metadata, except for our checksum.
        let weights = |folder: &Path| {
            let bytes = fs::read(folder.join("model.safetensors")).unwrap();
            let (length, rest) = bytes.split_at(8);
            let (header, data) = rest.split_at(u64::from_le_bytes(length.try_into().unwrap()) as usize);
            let mut header: serde_json::Value = serde_json::from_slice(header).unwrap();
            header["__metadata__"].as_object_mut().unwrap().remove("xxh3");
            (header, data.to_vec())
        };
        assert!(weights(&golden) == weights(copy.path()), "{name}: model.safetensors differs");
        let config = |folder: &Path| -> serde_json::Value {
            serde_json::from_slice(&fs::read(folder.join("config.json")).unwrap()).unwrap()
        };
        assert_eq!(config(&golden), config(copy.path()), "{name}");
        fs::copy(golden.join("reference.safetensors"), copy.path().join("reference.safetensors")).unwrap();
        let max_errors: MaxErrors = check_folder(&device(), copy.path(), DType::F32).unwrap();
        println!("{name}: {max_errors}");
    }
}
