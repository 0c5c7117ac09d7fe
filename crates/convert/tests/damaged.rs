//! Converts each fixture with flipped, overwritten and truncated bytes. The result must be an error or a model, never a panic,
//! and use little memory.
//!
//! The allocator of this test has a limit: if a size in a damaged header were allocated before it is checked, the process
//! would end.

use std::alloc::System;
use std::fs;
use std::path::{Path, PathBuf};

use cap::Cap;
use cloze_convert::convert;
use cloze_engine::Device;

#[global_allocator]
static ALLOCATOR: Cap<System> = Cap::new(System, 256 << 20);

/// SplitMix64.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    fn below(&mut self, bound: usize) -> usize {
        (self.next() % bound as u64) as usize
    }
}

fn fixtures() -> PathBuf {
    PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/fixtures"))
}

/// Converts `tries` damaged versions of `victim`, which is one of `files` (fixture, name in the folder).
fn damage(files: &[(&str, &str)], victim: &str, tries: usize) {
    let dir = tempfile::tempdir().unwrap();
    let source = dir.path().join("source");
    fs::create_dir(&source).unwrap();
    for (from, to) in files.iter().chain(&[("config.json", "config.json"), ("vocab.txt", "vocab.txt")]) {
        fs::copy(fixtures().join(from), source.join(to)).unwrap();
    }
    let out = dir.path().join("out");
    let device = Device::cpu(Some(1)).unwrap();
    let try_it = || {
        let done = convert(&source, &out, &device, &mut |_| {});
        let left = fs::read_dir(dir.path()).unwrap().count();
        assert_eq!(left, 1 + usize::from(done.is_ok()), "no incomplete output remains");
        if done.is_ok() {
            fs::remove_dir_all(&out).unwrap();
        }
        done.map_err(|e| e.to_string())
    };
    try_it().expect("the undamaged fixture");
    let path: &Path = &source.join(victim);
    let good = fs::read(path).unwrap();
    let mut random = Random(good.len() as u64);
    let mut rejected = 0;
    for i in 0..tries {
        let mut bytes = good.clone();
        match i % 4 {
            0 => bytes.truncate(random.below(good.len())),
            1 => bytes[random.below(good.len())] ^= 1 << random.below(8),
            2 => bytes[random.below(good.len())] = [0, 0xff, 0x7f, 0x80][random.below(4)],
            // Sizes have four or eight bytes.
            _ => {
                let at = random.below(good.len() - 8);
                let width = [4, 8][random.below(2)];
                let value = [u64::MAX, 1 << 62, 1 << 31, 1 << 40, 0][random.below(5)];
                bytes[at..at + width].copy_from_slice(&value.to_le_bytes()[..width]);
            }
        }
        fs::write(path, &bytes).unwrap();
        if let Err(message) = try_it() {
            rejected += 1;
            assert!(!message.is_empty());
        }
    }
    // A quarter of the files was truncated, which is always detected.
    assert!(rejected >= tries / 4, "{victim}: {rejected} of {tries}");
}

#[test]
fn damaged_zip_files() {
    damage(&[("torch/zip.bin", "pytorch_model.bin")], "pytorch_model.bin", 240);
}

#[test]
fn damaged_legacy_files() {
    damage(&[("torch/legacy.bin", "pytorch_model.bin")], "pytorch_model.bin", 240);
}

#[test]
fn damaged_indexes_and_data_of_tensorflow() {
    let files = [
        ("tensorflow/bert_model.ckpt.index", "bert_model.ckpt.index"),
        ("tensorflow/bert_model.ckpt.data-00000-of-00001", "bert_model.ckpt.data-00000-of-00001"),
    ];
    damage(&files, files[0].1, 240);
    damage(&files, files[1].1, 60);
}

#[test]
fn damaged_safetensors() {
    damage(&[("torch/expected.safetensors", "model.safetensors")], "model.safetensors", 240);
}
