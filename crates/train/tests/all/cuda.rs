//! Runs on a GPU: CUDA's kernels in the emulator, and a real GPU, if there is one.

use std::fs;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};

use cloze_comm::Communicator;
use cloze_engine::Device;
use cloze_train::pretrain::{PretrainEvent, pretrain};
use cloze_train::recipe::Recipe;
use cloze_train::run::{Line, read_metrics};
use cloze_train::train_loop::Event;

use crate::corpus::{assert_same_files, losses, make_shards, recipe};

/// Runs to the end, or until step `last`.
fn run_on(device: &Device, recipe: &Recipe, out: &Path, resume: bool, last: Option<u64>) {
    let stop = AtomicBool::new(false);
    let mut watch = |event: &PretrainEvent| {
        if matches!(event, Event::Step(s) if Some(s.figures.step) == last) {
            stop.store(true, Ordering::Relaxed);
        }
    };
    pretrain(recipe, device, out, resume, &Communicator::single(), &stop, &mut watch).unwrap();
}

/// The loss of each logged step.
fn curve(run: &Path) -> Vec<f64> {
    let lines = read_metrics(&run.join("metrics.jsonl")).unwrap();
    lines.iter().filter_map(|line| if let Line::Train(line) = line { line.losses.loss("mlm") } else { None }).collect()
}

/// A run on the GPU has the losses of the same run on the CPU, with dropout; two runs are equal; and an interrupted run continues bit by
/// bit.
#[test]
fn a_run_follows_the_cpu_and_resumes_bit_by_bit() {
    for gpu in Device::gpus_for_tests() {
        check_runs_on(&gpu);
    }
}

fn check_runs_on(gpu: &Device) {
    let cpu = Device::cpu(Some(1)).unwrap();
    let dir = tempfile::tempdir().unwrap();
    let shards = make_shards(dir.path(), 0);
    let recomputed = ["precision=f32", "recompute=true", "optimizer.kind=lamb"];
    for (name, overrides, tolerance) in
        [("f32", &["precision=f32"][..], 1e-4), ("bf16", &["precision=bf16"], 2e-2), ("recomputed", &recomputed, 1e-4)]
    {
        let recipe = recipe(&shards, overrides);
        let out = |kind: &str| dir.path().join(format!("{name}-{kind}"));
        run_on(&cpu, &recipe, &out("cpu"), false, None);
        run_on(gpu, &recipe, &out("gpu"), false, None);
        let (expected, found) = (curve(&out("cpu")), curve(&out("gpu")));
        assert!(expected.len() >= 5 && expected.len() == found.len(), "{expected:?}, {found:?}");
        for (found, expected) in found.iter().zip(&expected) {
            assert!(
                (found - expected).abs() <= tolerance * expected,
                "{name}: {found} on the GPU, {expected} on the CPU"
            );
        }
        for (number, last) in [3, 7, 8].into_iter().enumerate() {
            run_on(gpu, &recipe, &out("interrupted"), number > 0, Some(last));
        }
        run_on(gpu, &recipe, &out("interrupted"), true, None);
        assert_same_files(&out("gpu").join("model"), &out("interrupted").join("model"));
        assert_eq!(losses(&out("gpu")), losses(&out("interrupted")), "{name}");
        fs::remove_dir_all(out("interrupted")).unwrap();
    }
    let memory = gpu.memory_use().expect("a GPU has memory of its own");
    assert!(memory.peak > 0 && memory.used == 0, "{memory:?}: all tensors are dropped");
}
