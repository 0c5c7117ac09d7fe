//! Interrupted runs continue with identical results, and only with the same settings and rows.

use std::sync::atomic::Ordering;

use cloze_comm::Communicator;
use cloze_model::Features;
use cloze_tasks::ClassWeights;
use cloze_tasks::finetune::{dry_run, read_settings, restore_compute};
use cloze_train::train_loop::Event;

use super::*;

#[track_caller]
fn resumes_bitwise<T: Task>((task, rows): (T, Vec<T::Row>), settings: &Settings, stops: &[u64]) {
    let bench = Bench::new(0.1);
    let settings = with!(settings.clone(), epochs: 24, batch: 4, evals_per_epoch: 2, lr: 1e-3);
    let rows: [&[T::Row]; 2] = [&rows, &rows];
    let uninterrupted = bench.finish(&task, rows, &settings, "uninterrupted");
    assert!(uninterrupted.steps > *stops.last().unwrap() + 1);

    for (number, &at) in stops.iter().enumerate() {
        let outcome = bench.run(&task, rows, &settings, "interrupted", number > 0, &mut |event, stop| {
            if matches!(event, Event::Step(step) if step.figures.step == at) {
                stop.store(true, Ordering::Relaxed);
            }
        });
        let outcome = outcome.unwrap();
        assert!(!outcome.finished);
        assert_eq!(outcome.steps, at, "the step is completed and no further one was started");
        assert_eq!(names(&bench.path("interrupted/checkpoints")), [format!("step-{at:08}")]);
        let logged = figures(&bench.path("interrupted"), &["train"]);
        assert_eq!(logged.last().unwrap()["step"], at, "the last step is logged");
    }
    let mut resumed_at = None;
    // The interval of checkpoints and activation checkpointing may change.
    let settings = with!(settings, checkpoint_every: Some(1), recompute: true);
    let outcome = bench.run(&task, rows, &settings, "interrupted", true, &mut |event, _| {
        if let Event::Start(start) = event {
            resumed_at = Some(start.step);
        }
    });
    let outcome = outcome.unwrap();
    assert!(outcome.finished);
    // Compared as text, because NaN does not equal itself.
    assert_eq!(format!("{:?}", outcome.best), format!("{:?}", uninterrupted.best));
    assert_eq!(resumed_at, stops.last().copied());

    let [a, b] = ["uninterrupted", "interrupted"].map(|name| bench.path(name));
    for file in names(&a.join("model")) {
        assert!(
            fs::read(a.join("model").join(&file)).unwrap() == fs::read(b.join("model").join(&file)).unwrap(),
            "{file}"
        );
    }
    assert_eq!(names(&a.join("model")), names(&b.join("model")));
    let expected = figures(&a, &["train", "eval"]);
    assert!(expected.iter().any(|line| line["kind"] == "train") && expected.len() > 24);
    assert_eq!(expected, figures(&b, &["train", "eval"]));
    assert_eq!(json_of(a.join("scores.json"))["best"], json_of(b.join("scores.json"))["best"]);
    assert_eq!(figures(&b, &["start"]).len(), 1 + stops.len());
}

#[test]
fn an_interrupted_classifier_resumes_bitwise() {
    // In the middle of an epoch and of a logging interval, one step later, and at the end of an epoch.
    resumes_bitwise(classifier(), &settings(), &[7, 8, 33]);
}

#[test]
fn an_interrupted_tagger_resumes_bitwise() {
    resumes_bitwise(tagger(), &with!(settings(), bilstm: 2, bilstm_size: Some(5)), &[1, 29]);
}

#[test]
fn an_interrupted_run_on_features_resumes_bitwise() {
    let settings = with!(settings(), features: Some(Features::SumLast(2)), bilstm: 1);
    resumes_bitwise(classifier(), &settings, &[5]);
}

/// A NaN score, such as the correlation with a constant, is restored from a checkpoint.
#[test]
fn a_nan_score_is_restored() {
    let (task, mut rows) = regressor();
    rows.iter_mut().for_each(|row| row.value = Some(2.0));
    resumes_bitwise((task, rows), &settings(), &[9]);
}

/// The data type of activations is chosen when a run starts, and kept.
#[test]
fn a_resumed_run_keeps_its_precision() {
    let bench = Bench::new(0.1);
    let (task, rows) = classifier();
    let rows: [&[classify::Row]; 2] = [&rows, &rows];
    for precision in [Precision::F32, Precision::Bf16] {
        let settings = with!(settings(), epochs: 3, precision: precision);
        let [uninterrupted, interrupted] =
            ["uninterrupted", "interrupted"].map(|name| format!("{name}-{}", precision.name()));
        bench.finish(&task, rows, &settings, &uninterrupted);
        let stop = &mut |event: &FineTuneEvent, stop: &AtomicBool| {
            stop.store(matches!(event, Event::Step(_)), Ordering::Relaxed);
        };
        assert!(!bench.run(&task, rows, &settings, &interrupted, false, stop).unwrap().finished);
        // `auto` means one of the two types on this machine.
        let automatic = with!(settings, precision: Precision::Auto);
        assert!(bench.run(&task, rows, &automatic, &interrupted, true, &mut |_, _| ()).unwrap().finished);
        let weights = |name: &str| fs::read(bench.path(name).join("model/model.safetensors")).unwrap();
        assert!(weights(&uninterrupted) == weights(&interrupted), "{precision:?}");
        let kept = read_settings(&bench.path(&interrupted)).unwrap();
        assert_eq!(kept.precision, precision);
        assert_eq!(kept.instruction_set.as_deref(), Some(bench.device.instruction_set()));
    }
    let automatic = with!(settings(), precision: Precision::Auto, epochs: 1);
    bench.finish(&task, rows, &automatic, "automatic");
    assert_eq!(read_settings(&bench.path("automatic")).unwrap().precision, Precision::Auto.resolved(&bench.device));
}

/// Regression test: on a CPU without the run's instruction set, the run was resumed without a note.
#[test]
fn resuming_with_a_different_instruction_set_gives_a_note() {
    let present = Device::instruction_sets();
    let Some(absent) = ["amx", "avx512bf16", "avx512", "avx2", "neon"].into_iter().find(|name| !present.contains(name))
    else {
        return println!("skipped: this machine has every instruction set");
    };
    let bench = Bench::new(0.1);
    let (task, rows) = classifier();
    let rows: [&[classify::Row]; 2] = [&rows, &rows];
    let settings = with!(settings(), epochs: 2);
    let stop = &mut |_: &FineTuneEvent, stop: &AtomicBool| stop.store(true, Ordering::Relaxed);
    assert!(!bench.run(&task, rows, &settings, "run", false, stop).unwrap().finished);
    let elsewhere = with!(read_settings(&bench.path("run")).unwrap(), instruction_set: Some(absent.to_owned()));
    fs::write(bench.path("run/finetune.toml"), elsewhere.to_toml().unwrap()).unwrap();
    let mut messages = Vec::new();
    let on_event = &mut |event: &FineTuneEvent, _: &AtomicBool| {
        if let Event::Message(message) = event {
            messages.push(message.clone());
        }
    };
    assert!(bench.run(&task, rows, &settings, "run", true, on_event).unwrap().finished);
    let now = bench.device.instruction_set();
    let expected = format!(
        "the run started with the instruction set {absent}, this machine uses {now}: results differ in their last bits"
    );
    assert_eq!(messages, [expected]);
}

/// Regression test: a dry run measured the data type that the machine would choose, not the run's.
#[test]
fn a_resumed_run_uses_the_original_precision_and_instruction_set() {
    let device = Device::cpu(Some(1)).unwrap();
    let automatic = settings_of(Precision::Auto);
    for precision in [Precision::F32, Precision::Bf16] {
        let original = with!(settings_of(precision), instruction_set: Some("portable".to_owned()));
        let (settings, restored) = restore_compute(&original, &automatic, &device).unwrap();
        assert_eq!(settings, settings_of(precision));
        if std::env::var_os("CLOZE_CPU").is_none_or(|word| word.is_empty()) {
            assert_eq!(restored.instruction_set(), "portable");
        }
    }
    let given = settings_of(Precision::F32);
    assert_eq!(restore_compute(&settings_of(Precision::Bf16), &given, &device).unwrap().0, given);
}

fn settings_of(precision: Precision) -> Settings {
    with!(settings(), precision: precision)
}

#[test]
fn a_dry_run_estimates_the_duration_and_writes_nothing() {
    let bench = Bench::new(0.1);
    let (task, rows) = classifier();
    let settings = with!(settings(), epochs: 3, batch: 4, evals_per_epoch: 2);
    let (out, task_settings) = (bench.path("dry"), stored(json!({})));
    let read = Rows::new(task.clone(), rows.clone());
    let mut config = FineTuneConfig {
        ranks: &Communicator::single(),
        task: &task,
        train: &read,
        dev: &read,
        files: [&[], &[]],
        model: &bench.model,
        settings: &settings,
        out: &out,
        resume: false,
        device: &bench.device,
        task_settings: &task_settings,
    };
    let estimate = dry_run(&config, &AtomicBool::new(false)).unwrap().unwrap();
    assert!(!out.exists());
    let steps = 3 * rows.len().div_ceil(4) as u64;
    assert_eq!((estimate.steps, estimate.evaluations), (steps, 6));
    assert!(estimate.step_seconds > 0.0 && estimate.seconds > steps as f64 * estimate.step_seconds, "{estimate:?}");
    assert_eq!(dry_run(&config, &AtomicBool::new(true)).unwrap(), None);

    // The rest of a run; a folder in use.
    let stopped = finetune(&config, &AtomicBool::new(true), &mut |_| ()).unwrap();
    assert_eq!(stopped.steps, 1);
    assert!(dry_run(&config, &AtomicBool::new(false)).is_err());
    config.resume = true;
    assert_eq!(dry_run(&config, &AtomicBool::new(false)).unwrap().unwrap().steps, steps - 1);
    let mut others = rows.clone();
    others[3].label = Some(2);
    let others = Rows::new(task.clone(), others);
    config.train = &others;
    let message = dry_run(&config, &AtomicBool::new(false)).unwrap_err().to_string();
    assert!(message.contains("different rows"), "{message}");
}

#[test]
fn only_the_same_run_is_resumed() {
    let bench = Bench::new(0.1);
    let (task, rows) = classifier();
    let settings = with!(settings(), epochs: 4);
    let stop_at_once = &mut |_: &FineTuneEvent, stop: &AtomicBool| stop.store(true, Ordering::Relaxed);
    let resume = |rows: [&[classify::Row]; 2], settings: &Settings, out: &str| {
        bench.run(&task, rows, settings, out, true, &mut |_, _| ()).unwrap_err().to_string()
    };
    let all: [&[classify::Row]; 2] = [&rows, &rows];

    let nothing = resume(all, &settings, "nothing");
    assert!(nothing.contains("nothing") && nothing.contains("without `resume`"), "{nothing}");
    assert!(!bench.path("nothing").exists());

    assert!(!bench.run(&task, all, &settings, "run", false, stop_at_once).unwrap().finished);
    let again = bench.run(&task, all, &settings, "run", false, stop_at_once).unwrap_err().to_string();
    assert!(again.contains("already in use") && again.contains("`resume`"), "{again}");

    let mut others = rows.clone();
    others[3].label = Some(2);
    let (fewer, count) = (rows[..rows.len() - 1].to_vec(), rows.len());
    for (train, dev, which) in [
        (&others, &rows, "example 4 of the training rows is different".to_owned()),
        (&rows, &others, "example 4 of the dev rows is different".to_owned()),
        (&fewer, &rows, format!("there were {count} examples of the training rows, now there are {}", count - 1)),
    ] {
        let message = resume([train, dev], &settings, "run");
        assert!(message.contains("run") && message.contains("different rows") && message.contains(&which), "{message}");
    }
    for other in [
        with!(settings.clone(), lr: 1e-3),
        with!(settings.clone(), batch: 7),
        with!(settings.clone(), seed: 2),
        with!(settings.clone(), class_weights: ClassWeights::Balanced),
        with!(settings.clone(), precision: Precision::Bf16),
    ] {
        let message = resume(all, &other, "run");
        assert!(message.contains("finetune.toml") && message.contains("the run started with "), "{message}");
        assert!(message.matches(", now ").count() == 1 && !message.contains("instruction"), "{message}");
    }
    for (other, expected) in [
        (json!({"max_len": 20, "metric": "f1"}), "metric = not given, now \"f1\""),
        (json!({"max_len": 21}), "max_len = 20, now 21"),
        (json!({}), "max_len = 20, now not given"),
    ] {
        let before = bench.task_settings.replace(stored(other));
        let message = resume(all, &settings, "run");
        bench.task_settings.replace(before);
        assert!(message.contains("run: ") && message.contains(expected), "{message}");
    }
    let mut renamed = task.clone();
    renamed.labels[0] = "wolf".to_owned();
    let message = bench.run(&renamed, all, &settings, "run", true, &mut |_, _| ()).unwrap_err().to_string();
    assert!(message.contains("different rows"), "{message}");
    assert!(bench.run(&task, all, &settings, "run", true, &mut |_, _| ()).unwrap().finished);
    // A finished run has nothing to do. If it was killed while it removed its checkpoints, the rest is removed.
    let rest = bench.path("run/.checkpoints/step-00000009");
    std::fs::create_dir_all(&rest).unwrap();
    let over = bench.run(&task, all, &settings, "run", true, &mut |_, _| ()).unwrap();
    assert!(over.finished && over.model.is_some() && !rest.parent().unwrap().exists());
    let scores = json_of(bench.path("run/scores.json"));
    assert_eq!(
        (over.steps, over.best.map(|best| best.score)),
        (scores["steps"].as_u64().unwrap(), scores["best"]["score"].as_f64())
    );
}
