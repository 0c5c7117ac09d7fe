//! Pre-training runs of several ranks, which are threads here. The binary's tests do the same with MPI.

use std::fs;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};

use cloze_testing::ranks;
use cloze_train::TrainError;
use cloze_train::pretrain::{Outcome, PretrainEvent, device_of_run, pretrain};
use cloze_train::recipe::Recipe;
use cloze_train::train_loop::Event;

use crate::corpus::{assert_same_files, losses, make_shards, recipe};

/// Runs on `size` ranks; rank `stops` sets its flag after the step `last`.
fn run(
    recipe: &Recipe,
    out: &Path,
    resume: bool,
    size: usize,
    interrupt: Option<(usize, u64)>,
) -> Vec<Result<Outcome, TrainError>> {
    ranks(size, |ranks| {
        let stop = AtomicBool::new(false);
        let mut watch = |event: &PretrainEvent| {
            if let (Event::Step(step), Some((rank, last))) = (event, interrupt)
                && rank == ranks.rank()
                && step.figures.step == last
            {
                stop.store(true, Ordering::Relaxed);
            }
        };
        let device = device_of_run(recipe, out, resume, ranks)?;
        pretrain(recipe, &device, out, resume, ranks, &stop, &mut watch)
    })
}

#[test]
fn runs_have_the_same_files_for_any_number_of_ranks_and_can_be_resumed_on_another() {
    let dir = tempfile::tempdir().unwrap();
    let shards = make_shards(dir.path(), 0);
    let growing = ["phase.0.accumulate=4", "phase.1.accumulate=3", "schedule.batch_warmup_share=0.5"];
    let recipe = recipe(&shards, &growing);
    let path = |name: &str| dir.path().join(name);
    let last = "checkpoints/step-00000010";
    for outcome in run(&recipe, &path("alone"), false, 1, None) {
        assert!(outcome.unwrap().finished);
    }
    for size in [2, 3] {
        let out = path(&format!("{size}-ranks"));
        for outcome in run(&recipe, &out, false, size, None) {
            assert!(outcome.unwrap().finished);
        }
        assert_same_files(&path("alone").join("model"), &out.join("model"));
        assert_same_files(&path("alone").join(last), &out.join(last));
        assert_eq!(losses(&path("alone")), losses(&out));
    }
    // A signal at one of the ranks stops all after the same step; another number of ranks goes on.
    let out = path("changing");
    for (resume, size, interrupt) in [(false, 3, Some((2, 3))), (true, 1, Some((0, 6))), (true, 2, None)] {
        for outcome in run(&recipe, &out, resume, size, interrupt) {
            let outcome = outcome.unwrap();
            assert_eq!(outcome.finished, interrupt.is_none());
            assert_eq!(outcome.step, interrupt.map_or(10, |(_, last)| last));
        }
    }
    assert_same_files(&path("alone").join("model"), &out.join("model"));
    assert_same_files(&path("alone").join(last), &out.join(last));
    assert_eq!(losses(&path("alone")), losses(&out));
}

#[test]
fn ranks_that_differ_and_too_few_micro_batches_are_rejected() {
    let dir = tempfile::tempdir().unwrap();
    let shards = make_shards(dir.path(), 0);
    let out = dir.path().join("run");
    let recipe = |overrides: &[&str]| recipe(&shards, overrides);
    let few = recipe(&["phase.0.accumulate=1"]);
    let e = run(&few, &out, false, 2, None).remove(1).unwrap_err().to_string();
    assert!(e.contains("phase 0 has 1 micro-batches") && e.contains("set `phase.0.accumulate` to at least 2"), "{e}");
    let other = ranks(2, |ranks| {
        let lr = if ranks.rank() == 1 { "optimizer.lr=1e-3" } else { "optimizer.lr=2e-3" };
        let recipe = recipe(&["phase.0.accumulate=2", "phase.1.accumulate=2", lr]);
        let device = device_of_run(&recipe, &out, false, ranks)?;
        pretrain(&recipe, &device, &out, false, ranks, &AtomicBool::new(false), &mut |_| ())
    });
    for result in other {
        let e = result.unwrap_err().to_string();
        assert!(e.contains("rank 1") && e.contains("different recipe than rank 0"), "{e}");
    }
    assert!(!fs::exists(&out).unwrap(), "nothing was written");
}

/// Local steps: evaluations and checkpoints wait for the next exchange, and the outer optimizer's velocity is in checkpoints.
#[test]
fn a_run_with_local_steps_learns_and_continues_from_an_exchange() {
    let dir = tempfile::tempdir().unwrap();
    let shards = make_shards(dir.path(), 0);
    let local =
        ["steps=30", "phase.0.accumulate=2", "phase.1.accumulate=2", "ranks.local_steps=4", "optimizer.lr=3e-3"];
    let recipe = recipe(&shards, &local);
    let path = |name: &str| dir.path().join(name);
    for name in ["first", "again"] {
        for outcome in run(&recipe, &path(name), false, 2, None) {
            assert!(outcome.unwrap().finished);
        }
    }
    // Evaluations were due after steps 4, 8, … and 30.
    assert_same_files(&path("first").join("model"), &path("again").join("model"));
    let lines = losses(&path("first"));
    let evaluated: Vec<u64> =
        lines.iter().filter(|(_, line)| line.starts_with("eval")).map(|(step, _)| *step).collect();
    assert!(evaluated[..evaluated.len() - 1].iter().all(|step| step % 4 == 0), "{evaluated:?}");
    assert_eq!(evaluated.last(), Some(&30));
    let moments = fs::read(path("first").join("checkpoints/step-00000030/optimizer.safetensors")).unwrap();
    assert!(String::from_utf8_lossy(&moments).contains("outer_momentum"));
    // Interrupted at an exchange, it continues as if it had not been; between two, the exchange comes early.
    for (name, last) in [("at-exchange", 8), ("between", 10)] {
        run(&recipe, &path(name), false, 2, Some((1, last)));
        for outcome in run(&recipe, &path(name), true, 2, None) {
            assert!(outcome.unwrap().finished);
        }
    }
    assert_same_files(&path("first").join("model"), &path("at-exchange").join("model"));
}
