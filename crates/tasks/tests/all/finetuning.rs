//! End-to-end tests of fine-tuning with models of a few thousand weights.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use cloze_engine::{DType, Device};
use cloze_model::{Config, Heads, Model, TaskHead};
use cloze_tasks::answer::{ExtractOptions, WindowOptions};
use cloze_tasks::datasets::squad::{Answer, Question};
use cloze_tasks::finetune::{
    FineTuneConfig, FineTuneEvent, Outcome, dry_run, finetune, read_settings, restore_compute,
};
use cloze_tasks::inference::predictor::evaluate;
use cloze_tasks::kinds::answer::{self, AnswerTask};
use cloze_tasks::kinds::choose::{self, Choose};
use cloze_tasks::kinds::classify::{self, Classify};
use cloze_tasks::kinds::regress::{self, Regress};
use cloze_tasks::kinds::tag::{self, Tag};
use cloze_tasks::kinds::text::{Length, Text};
use cloze_tasks::{AnyRows, ClassWeights, HeadInit, Pretrained, Rows, Settings, Task, TaskError, TaskSettings};
use cloze_testing::tokenizer;
use cloze_train::recipe::{Precision, ScheduleKind};
use cloze_train::train_loop::Event;
use serde_json::{Value, json};
use tempfile::TempDir;

const LAYERS: usize = 3;

fn device() -> Device {
    Device::cpu(Some(2)).unwrap()
}

/// A random model with pre-training heads and this dropout.
fn start(dir: &Path, dropout: f64) -> PathBuf {
    let mut config = cloze_testing::config();
    config.num_hidden_layers = LAYERS;
    config.hidden_dropout_prob = dropout;
    config.attention_probs_dropout_prob = dropout;
    let path = dir.join("start");
    cloze_testing::save_model(config, &path);
    tokenizer(&[]).save(&path).unwrap();
    path
}

/// Copies settings and changes some of them.
macro_rules! with {
    ($settings:expr, $($name:ident: $value:expr),+ $(,)?) => {{
        let mut settings: Settings = $settings;
        $(settings.$name = $value;)+
        settings
    }};
}

fn settings() -> Settings {
    with!(Settings::default(), epochs: 60, batch: 8, lr: 2e-3, schedule: ScheduleKind::Constant, precision: Precision::F32)
}

/// A temporary folder with a model to fine-tune, and the configuration of runs in it.
struct Bench {
    dir: TempDir,
    model: PathBuf,
    device: Device,
    /// The task settings of the runs.
    task_settings: RefCell<TaskSettings>,
}

impl Bench {
    fn new(dropout: f64) -> Bench {
        let dir = tempfile::tempdir().unwrap();
        let model = start(dir.path(), dropout);
        Bench { dir, model, device: device(), task_settings: RefCell::new(stored(json!({"max_len": 20}))) }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn run<T: Task>(
        &self,
        task: &T,
        [train, dev]: [&[T::Row]; 2],
        settings: &Settings,
        out: &str,
        resume: bool,
        on_event: &mut dyn FnMut(&FineTuneEvent, &AtomicBool),
    ) -> Result<Outcome, TaskError> {
        let out = self.path(out);
        let config = FineTuneConfig {
            task,
            train: &Rows::new(task.clone(), train.to_vec()),
            dev: &Rows::new(task.clone(), dev.to_vec()),
            files: [&[], &[]],
            model: &self.model,
            settings,
            out: &out,
            resume,
            device: &self.device,
            task_settings: &self.task_settings.borrow(),
        };
        let stop = AtomicBool::new(false);
        finetune(&config, &stop, &mut |event| on_event(event, &stop))
    }

    fn finish<T: Task>(&self, task: &T, rows: [&[T::Row]; 2], settings: &Settings, out: &str) -> Outcome {
        let outcome = self.run(task, rows, settings, out, false, &mut |_, _| ()).unwrap();
        assert!(outcome.finished);
        outcome
    }

    /// The initial model with a task head of a run with this seed.
    fn initial<T: Task>(&self, task: &T, seed: u64) -> Model {
        Model::load_with(&self.model, Heads::of(task.head()), &[], &self.device, seed).unwrap().0
    }

    fn model(&self, out: &str) -> Arc<Pretrained> {
        Arc::new(Pretrained::open(&self.path(out).join("model"), self.device.clone(), DType::F32).unwrap())
    }
}

/// The main score of a model for rows with gold labels, and the number of predictions.
fn main_score<T: Task>(model: &Pretrained, task: &T, rows: &[T::Row]) -> Result<(f64, usize), TaskError> {
    let rows = Rows::new(task.clone(), rows.to_vec());
    let found = evaluate(model, &rows, &mut |_| ())?;
    Ok((found.scores.main(), found.predictions.to_json()?.len()))
}

fn stored(settings: Value) -> TaskSettings {
    TaskSettings::from_json(&settings).unwrap()
}

fn values(model: &Model) -> BTreeMap<String, Vec<f32>> {
    model.params.ids().map(|id| (model.params.name(id).to_owned(), model.params.read(id).to_vec())).collect()
}

/// The mean absolute difference of each tensor between two models.
fn distances(a: &Model, b: &Model) -> BTreeMap<String, f64> {
    let (a, b) = (values(a), values(b));
    assert!(a.keys().eq(b.keys()), "{:?} and {:?}", a.keys(), b.keys());
    let mean = |x: &[f32], y: &[f32]| {
        x.iter().zip(y).map(|(x, y)| f64::from((x - y).abs())).sum::<f64>() / x.len().max(1) as f64
    };
    a.iter().map(|(name, x)| (name.clone(), mean(x, &b[name]))).collect()
}

fn lines(run: &Path) -> Vec<Value> {
    let text = fs::read_to_string(run.join("metrics.jsonl")).unwrap();
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

/// The lines of these kinds, without values that depend on the clock.
fn figures(run: &Path, kinds: &[&str]) -> Vec<Value> {
    let mut lines = lines(run);
    lines.retain(|line| kinds.contains(&line["kind"].as_str().unwrap()));
    for line in &mut lines {
        for key in ["seconds", "eval_seconds", "tokens_per_s"] {
            line.as_object_mut().unwrap().remove(key);
        }
    }
    lines
}

fn json_of(path: PathBuf) -> Value {
    serde_json::from_slice(&fs::read(path).unwrap()).unwrap()
}

fn names(dir: &Path) -> Vec<String> {
    let mut names: Vec<String> =
        fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().file_name().to_string_lossy().into_owned()).collect();
    names.sort();
    names
}

fn text(words: &str) -> Text {
    Text { text: words.to_owned(), pair: None }
}

fn classifier() -> (Classify, Vec<classify::Row>) {
    let labels = ["fox", "owl", "person"].map(str::to_owned).to_vec();
    let task = Classify {
        labels,
        positive: 1,
        length: Length { max_len: 20, stride: None },
        metrics: vec!["accuracy", "f1", "matthews"],
    };
    let row = |words: &str, label| classify::Row { text: text(words), label: Some(label) };
    let rows = vec![
        row("the old fox leaves .", 0),
        row("the owl sees a red tower in paris .", 1),
        row("anna paints .", 2),
        row("a quiet owl leaves rome", 1),
        row("otto sees the old tower", 2),
        row("in the river a red fox", 0),
        row("anna leaves paris", 2),
        row("otto paints a quiet river in rome .", 2),
        row("anna sees the red tower in rome", 2),
        row("an old fox", 0),
    ];
    (task, rows)
}

fn regressor() -> (Regress, Vec<regress::Row>) {
    let task = Regress { length: Length::default(), metrics: vec!["pearson", "spearman"] };
    let row = |words: &str, pair: &str, value| regress::Row {
        text: Text { text: words.to_owned(), pair: Some(pair.to_owned()) },
        value: Some(value),
    };
    let rows = vec![
        row("the old fox leaves", "a fox leaves", 3.5),
        row("anna paints", "otto sees rome", 0.0),
        row("the owl sees a tower", "an owl sees the tower", 5.0),
        row("a red river", "the quiet river", 2.0),
        row("otto leaves paris", "otto leaves rome", 2.5),
        row("in the tower", "where", 1.0),
    ];
    (task, rows)
}

fn tagger(layers: usize) -> (Tag, Vec<tag::Row>) {
    let labels = ["O", "B-PER", "B-LOC"].map(str::to_owned).to_vec();
    let task = Tag { labels, max_len: 20, layers, context: false };
    let row = |words: &str| {
        let words: Vec<String> = words.split(' ').map(str::to_owned).collect();
        let label = |word: &String| match word.as_str() {
            "anna" | "otto" => 1,
            "paris" | "rome" => 2,
            _ => 0,
        };
        let labels = Some(words.iter().map(label).collect());
        tag::Row { words, labels, ..tag::Row::default() }
    };
    let rows =
        ["anna leaves paris .", "the fox sees otto in rome", "rome", "otto paints the old red tower .", "an owl"];
    (task, rows.map(row).to_vec())
}

fn answerer() -> (AnswerTask, Vec<answer::Row>) {
    // Short windows: the paragraph is split into several.
    let windows = WindowOptions { max_len: 16, stride: 4, max_question: 4 };
    let task = AnswerTask { windows, extract: ExtractOptions::default() };
    let context = "the old fox leaves rome . anna paints a red tower in paris . the owl sees otto in the quiet river .";
    let question = |number: usize, question: &str, answer: &str| Question {
        id: number.to_string(),
        title: String::new(),
        question: question.to_owned(),
        context: context.into(),
        answers: vec![Answer { text: answer.to_owned(), start: context.find(answer).unwrap() }],
        impossible: false,
    };
    let questions = [
        question(0, "who paints", "anna"),
        question(1, "where paints anna", "in paris"),
        question(2, "who leaves rome", "the old fox"),
        question(3, "where sees owl", "the quiet river"),
    ];
    (task, answer::rows(&questions, &tokenizer(&[]), 1))
}

fn chooser() -> (Choose, Vec<choose::Row>) {
    let row = |context: &str, endings: [&str; 3], label| choose::Row {
        context: context.to_owned(),
        endings: endings.map(str::to_owned).to_vec(),
        label: Some(label),
    };
    let rows = vec![
        row("anna paints", ["a tower", "paris leaves", "in the the"], 0),
        row("the fox", [". . red", "leaves rome", "who where"], 1),
        row("otto sees", ["old", "where who", "the quiet river"], 2),
        row("the owl", ["sees a red fox", "in", "rome anna otto"], 0),
    ];
    (Choose { max_len: 20, first_number: 0 }, rows)
}

/// Trains the complete network on a few rows until it predicts all of them.
#[track_caller]
fn memorizes<T: Task>((task, rows): (T, Vec<T::Row>), settings: &Settings, least: f64) {
    let bench = Bench::new(0.0);
    let mut example_count = 0;
    let outcome = bench
        .run(&task, [&rows, &rows], settings, "run", false, &mut |event, _| {
            if let Event::Start(start) = event {
                example_count = start.examples;
                assert!(!start.load_report.newly_initialized.is_empty(), "the head is new");
            }
        })
        .unwrap();
    assert!(example_count >= rows.len());
    let best = outcome.best.expect("dev rows were scored");
    assert!(best.score >= least && best.score <= 1.0 + 1e-9, "{best:?}");
    assert_eq!(best.collapsed, None);

    // The saved model is the one that was scored.
    let trained = bench.model("run");
    assert_eq!(trained.model.heads.task.unwrap(), task.head());
    let (score, _) = main_score(&trained, &task, &rows).unwrap();
    assert!((score - best.score).abs() < 1e-9, "{score} and {}", best.score);
    assert_eq!(json_of(bench.path("run/scores.json"))["best"]["score"], best.score);
    assert!(!bench.path("run/checkpoints").exists(), "a finished run has no checkpoints");

    // Adding a constant to all keys, or to all logits of a softmax over positions, changes nothing: the gradient is
    // only a rounding error.
    let over_positions = matches!(task.head(), TaskHead::Answer | TaskHead::Choose);
    let free = |name: &str| {
        name.ends_with("key.bias") || over_positions && (name == "classifier.bias" || name == "qa_outputs.bias")
    };
    let moved = distances(&bench.initial(&task, settings.seed), &trained.model);
    assert!(moved.len() > 16 * LAYERS);
    for (name, distance) in moved.iter().filter(|(name, _)| !free(name)) {
        assert!(*distance > 1e-5, "{name} moved only by {distance}");
    }
}

#[test]
fn classes_are_memorized() {
    memorizes(classifier(), &settings(), 1.0);
}

#[test]
fn numbers_are_memorized() {
    memorizes(regressor(), &with!(settings(), epochs: 150), 0.99);
}

#[test]
fn tags_are_memorized() {
    memorizes(tagger(1), &settings(), 1.0);
}

#[test]
fn answers_are_memorized() {
    memorizes(answerer(), &settings(), 1.0);
}

#[test]
fn choices_are_memorized() {
    memorizes(chooser(), &settings(), 1.0);
}

/// The number of the layer of a tensor, where the embeddings are 0; none for pooler and head.
fn layer(name: &str) -> Option<usize> {
    if name.starts_with("bert.embeddings.") {
        return Some(0);
    }
    let number = name.strip_prefix("bert.encoder.layer.")?.split('.').next()?;
    Some(number.parse::<usize>().unwrap() + 1)
}

#[test]
fn frozen_layers_do_not_change() {
    // With dropout: frozen layers run without it, so their outputs do not change either.
    let bench = Bench::new(0.1);
    let (task, rows) = classifier();
    for freeze in [0, 2] {
        let out = format!("freeze-{freeze}");
        let settings = with!(settings(), epochs: 4, freeze: Some(freeze));
        bench.finish(&task, [&rows, &[]], &settings, &out);
        let initial = bench.initial(&task, settings.seed);
        let end = bench.model(&out);
        for (name, distance) in distances(&initial, &end.model) {
            match layer(&name) {
                Some(layer) if layer <= freeze => assert_eq!(distance, 0.0, "{name} with {freeze} layers frozen"),
                _ => assert!(distance > 0.0 || name.ends_with("key.bias"), "{name} with {freeze} layers frozen"),
            }
        }
    }
}

#[test]
fn the_feature_based_approach_changes_only_the_head() {
    let bench = Bench::new(0.1);
    let (task, rows) = tagger(LAYERS);
    let settings = with!(settings(), epochs: 150, lr: 1e-2, freeze: Some(LAYERS));
    let best = bench.finish(&task, [&rows, &rows], &settings, "run").best.unwrap();
    assert_eq!(best.score, 1.0, "{best:?}");
    // The width of the saved head determines how many layers it reads.
    let trained = bench.model("run");
    let head = trained.model.heads.task.unwrap();
    assert_eq!(head, TaskHead::Tag { labels: 3, layers: LAYERS });
    assert_eq!(main_score(&trained, &task, &rows).unwrap().0, 1.0);
    for (name, distance) in distances(&bench.initial(&task, settings.seed), &trained.model) {
        assert_eq!(distance > 0.0, name.starts_with("classifier."), "{name} moved by {distance}");
    }
}

#[test]
fn layer_decay_lowers_the_rates_of_lower_layers() {
    let bench = Bench::new(0.0);
    let (task, rows) = classifier();
    // The size of AdamW's first step is the learning rate for every gradient, so distances are rates.
    let one = |decay: f64, out: &str| {
        let settings =
            with!(settings(), epochs: 1, batch: rows.len(), warmup: 0.0, weight_decay: 0.0, layer_decay: decay);
        bench.finish(&task, [&rows, &[]], &settings, out);
        let moved = distances(&bench.initial(&task, 1), &bench.model(out).model);
        move |name: &str| moved[name]
    };
    let (even, falling) = (one(1.0, "even"), one(0.5, "falling"));
    let tensor = |layer: usize| format!("bert.encoder.layer.{layer}.output.dense.weight");
    for layer in 0..LAYERS {
        let share = falling(&tensor(layer)) / even(&tensor(layer));
        let expected = 0.5f64.powi((LAYERS - layer) as i32);
        assert!((share / expected - 1.0).abs() < 1e-3, "layer {layer}: {share} of the full rate, expected {expected}");
    }
    let share = |name: &str| falling(name) / even(name);
    assert!((share("bert.embeddings.position_embeddings.weight") / 0.0625 - 1.0).abs() < 1e-3);
    assert!((share("classifier.weight") - 1.0).abs() < 1e-3 && (share("bert.pooler.dense.weight") - 1.0).abs() < 1e-3);
}

#[test]
fn accumulation_equals_a_large_batch() {
    #[track_caller]
    fn check<T: Task>((task, rows): (T, Vec<T::Row>), class_weights: ClassWeights) {
        let bench = Bench::new(0.0);
        // A large ε, so that gradients that are only rounding errors have no effect.
        let big = with!(settings(), epochs: 5, lr: 1e-2, eps: 1e-3, class_weights: class_weights);
        let small = with!(big.clone(), accumulate: 3);
        let a = bench.finish(&task, [&rows, &rows], &big, "big").best.unwrap();
        let b = bench.finish(&task, [&rows, &rows], &small, "small").best.unwrap();
        assert!((a.score - b.score).abs() < 1e-4, "{a:?} and {b:?}");
        let (first, a, b) = (bench.initial(&task, 1), bench.model("big"), bench.model("small"));
        let largest = |a: &Model, b: &Model| {
            let (a, b) = (a.params.read_all(), b.params.read_all());
            a.iter().zip(b.iter()).map(|(x, y)| (x - y).abs()).fold(0.0f32, f32::max)
        };
        assert!(largest(&first, &a.model) > 1e-2);
        let difference = largest(&a.model, &b.model);
        assert!(difference < 1e-5, "weights differ by {difference}");
        let loss = |out: &str| -> Vec<f64> {
            figures(&bench.path(out), &["eval"]).iter().map(|line| line["loss"].as_f64().unwrap()).collect()
        };
        let (a, b) = (loss("big"), loss("small"));
        assert!(a.len() == 5 && a[0] > a[4]);
        assert!(a.iter().zip(&b).all(|(a, b)| (a - b).abs() < 1e-5), "{a:?} and {b:?}");
    }
    check(classifier(), ClassWeights::Given(vec![1.0, 3.0, 0.5]));
    check(tagger(1), ClassWeights::None);
    check(answerer(), ClassWeights::None);
}

#[track_caller]
fn resumes_bitwise<T: Task>((task, rows): (T, Vec<T::Row>), stops: &[u64]) {
    let bench = Bench::new(0.1);
    let settings = with!(settings(), epochs: 24, batch: 4, evals_per_epoch: 2, lr: 1e-3);
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
    // The interval of checkpoints and activation checkpointing may change. (If a head reads several trained layers,
    // recomputation adds their gradients in a different order.)
    let recompute = !matches!(task.head(), TaskHead::Tag { layers: 2.., .. });
    let settings = with!(settings, checkpoint_every: Some(1), recompute: recompute);
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
    resumes_bitwise(classifier(), &[7, 8, 33]);
}

#[test]
fn an_interrupted_tagger_resumes_bitwise() {
    resumes_bitwise(tagger(2), &[1, 29]);
}

#[test]
fn the_log_describes_the_training_data() {
    let bench = Bench::new(0.1);
    let (task, rows) = classifier();
    bench.finish(&task, [&rows, &rows], &with!(settings(), epochs: 2, batch: 4), "run");
    let run = bench.path("run");
    let start = &figures(&run, &["start"])[0];
    assert_eq!((&start["train_rows"], &start["dev_rows"]), (&rows.len().into(), &rows.len().into()), "{start}");
    assert!(start["model"].is_string(), "{start}");
    assert!(lines(&run).iter().filter(|line| line["kind"] == "eval").all(|line| line["seconds"].is_number()));
}

/// A NaN score, such as the correlation with a constant, is restored from a checkpoint.
#[test]
fn a_nan_score_is_restored() {
    let (task, mut rows) = regressor();
    rows.iter_mut().for_each(|row| row.value = Some(2.0));
    resumes_bitwise((task, rows), &[9]);
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

#[test]
fn early_stopping_ends_training_without_better_scores() {
    let bench = Bench::new(0.0);
    let (task, rows) = classifier();
    // A learning rate without effect: the first evaluation remains the best.
    let settings = with!(settings(), epochs: 50, lr: 1e-12, patience: Some(3));
    let outcome = bench.finish(&task, [&rows, &rows], &settings, "run");
    // Two steps per epoch: the first evaluation and three that are not better.
    assert_eq!((outcome.steps, outcome.best.unwrap().step), (8, 2));
    let events = figures(&bench.path("run"), &["event"]);
    assert!(events.iter().any(|line| line["message"].as_str().unwrap().contains("no better score in 3")), "{events:?}");
    assert_eq!(figures(&bench.path("run"), &["eval"]).len(), 4);
}

#[test]
fn the_best_model_is_kept_and_not_the_last() {
    let bench = Bench::new(0.0);
    let (task, rows) = classifier();
    // The dev rows contradict the training rows: the better the training rows are learned, the worse the dev score is.
    let wrong = |row: &classify::Row| classify::Row { label: row.label.map(|label| (label + 1) % 3), ..row.clone() };
    let dev: Vec<classify::Row> = rows.iter().map(wrong).collect();
    let best = bench.finish(&task, [&rows, &dev], &settings(), "run").best.unwrap();
    let scores: Vec<f64> = figures(&bench.path("run"), &["eval"])
        .iter()
        .map(|line| line["scores"]["accuracy"].as_f64().unwrap())
        .collect();
    assert!(best.score > 0.0 && *scores.last().unwrap() < best.score, "{scores:?}");
    assert_eq!(best.score, scores.iter().copied().fold(0.0, f64::max));
    let (kept, _) = main_score(&bench.model("run"), &task, &dev).unwrap();
    assert_eq!(kept, best.score);
}

/// The label of each row, and its loss: −ln of the label's probability.
fn row_losses(bench: &Bench, task: &Classify, rows: &[classify::Row]) -> Vec<(usize, f64)> {
    let model = bench.initial(task, 1);
    let model = Pretrained::new(model, tokenizer(&[]), bench.device.clone(), DType::F32, &bench.model).unwrap();
    let found = Rows::new(task.clone(), rows.to_vec()).predict(0..rows.len(), &model);
    let loss = |(row, found): (&classify::Row, Result<Value, TaskError>)| {
        let label = row.label.unwrap();
        (label, -found.unwrap()["probabilities"][&task.labels[label]].as_f64().unwrap().ln())
    };
    rows.iter().zip(found).map(loss).collect()
}

#[test]
fn class_weights_weigh_the_loss() {
    let bench = Bench::new(0.0);
    let (task, rows) = classifier();
    let losses = row_losses(&bench, &task, &rows);
    let count = |class: usize| losses.iter().filter(|(label, _)| *label == class).count();
    assert_eq!([0, 1, 2].map(count), [3, 2, 5]);
    // scikit-learn's `balanced`: n / (classes · n_c).
    let balanced = [0, 1, 2].map(|class| 10.0 / (3.0 * count(class) as f64));
    for (number, (class_weights, weights)) in [
        (ClassWeights::None, [1.0; 3]),
        (ClassWeights::Balanced, balanced),
        (ClassWeights::Given(vec![0.0, 2.0, 0.5]), [0.0, 2.0, 0.5]),
    ]
    .into_iter()
    .enumerate()
    {
        let weight: f64 = losses.iter().map(|(label, _)| weights[*label]).sum();
        let expected = losses.iter().map(|(label, loss)| weights[*label] * loss).sum::<f64>() / weight;
        for accumulate in [1, 3] {
            let settings =
                with!(settings(), epochs: 1, batch: 10, accumulate: accumulate, class_weights: class_weights.clone());
            let mut found = f64::NAN;
            let out = format!("run-{number}-{accumulate}");
            bench
                .run(&task, [&rows, &[]], &settings, &out, false, &mut |event, _| {
                    if let Event::Step(step) = event {
                        found = step.figures.loss;
                    }
                })
                .unwrap();
            assert!((found - expected).abs() < 1e-5, "{class_weights:?}: {found}, expected {expected}");
        }
    }
}

#[test]
fn weights_that_are_not_finite_end_a_run_without_partial_files() {
    let bench = Bench::new(0.0);
    let mut model = Model::load(&bench.model, &bench.device).unwrap();
    let id = model.params.ids().find(|id| model.params.name(*id).ends_with("layer.1.output.dense.weight")).unwrap();
    model.params.edit(id, |values| values[5] = f32::INFINITY);
    model.save(&bench.model).unwrap();
    let (task, rows) = classifier();
    let run = |epochs: u32, dev: &[classify::Row], out: &str| {
        let settings = with!(settings(), epochs: epochs, checkpoint_every: Some(1));
        let error = bench.run(&task, [&rows, dev], &settings, out, false, &mut |_, _| ()).unwrap_err();
        let left = names(&bench.path(out));
        assert!(left.iter().all(|name| name != "model" && !name.contains("partial")), "{left:?}");
        assert!(names(&bench.path(out).join("checkpoints")).is_empty());
        error
    };
    // Ten steps, where five consecutive ones are skipped; fewer steps than that; an evaluation before that.
    let error = run(5, &[], "many");
    assert!(matches!(error, TaskError::NotFinite { step: 5 }), "{error}");
    assert_eq!(figures(&bench.path("many"), &["event"]).len(), 5);
    let error = run(1, &[], "few");
    assert!(matches!(error, TaskError::NotFinite { step: 2 }), "{error}");
    let error = run(5, &rows, "dev");
    assert!(matches!(error, TaskError::Logits(_)) && error.to_string().contains("damaged"), "{error}");
}

#[test]
fn a_long_text_is_split_into_windows() {
    let bench = Bench::new(0.0);
    let (mut task, _) = classifier();
    task.labels.truncate(2);
    // Two texts that differ only at their ends, which do not fit into one sequence.
    let begin = "the old red tower in the quiet river in the old red tower";
    let rows: Vec<classify::Row> = ["fox", "owl"]
        .iter()
        .enumerate()
        .map(|(label, end)| classify::Row { text: text(&format!("{begin} {end}")), label: Some(label) })
        .collect();
    task.length = Length { max_len: 8, stride: None };
    let cut = task.encode(&rows[0], &tokenizer(&[])).unwrap();
    assert_eq!((cut.examples[0].sequences.len(), cut.cut), (1, 8));
    let settings = with!(settings(), epochs: 40);
    let best = bench.finish(&task, [&rows, &rows], &settings, "cut").best.unwrap();
    assert_eq!(best.score, 0.5, "truncated texts are equal");

    task.length = Length { max_len: 8, stride: Some(3) };
    let windows = task.encode(&rows[0], &tokenizer(&[])).unwrap();
    assert_eq!((windows.examples.len(), windows.cut), (1, 0), "one example");
    assert_eq!(windows.examples[0].sequences.len(), 4, "with several sequences");
    let best = bench.finish(&task, [&rows, &rows], &settings, "windows").best.unwrap();
    assert_eq!(best.score, 1.0);
    assert_eq!(main_score(&bench.model("windows"), &task, &rows).unwrap(), (1.0, 2));
}

#[test]
fn rows_that_do_not_fit_the_model_are_errors_before_the_folder_is_created() {
    let bench = Bench::new(0.0);
    let (mut task, rows) = classifier();
    task.length.max_len = 600;
    let long = classify::Row { text: text(&"fox ".repeat(50)), label: Some(0) };
    let with_long = [&rows[..], std::slice::from_ref(&long)].concat();
    let message = |error: TaskError| {
        let message = error.to_string();
        assert!(message.contains("40 positions") && message.contains("52 tokens"), "{message}");
        assert!(message.contains("`max_len`"), "{message}");
    };
    for rows in [[&with_long[..], &rows[..]], [&rows, &with_long]] {
        message(bench.run(&task, rows, &settings(), "run", false, &mut |_, _| ()).unwrap_err());
        assert!(!bench.path("run").exists());
    }
    bench.finish(&task, [&rows, &[]], &with!(settings(), epochs: 1), "fits");
    let trained = bench.model("fits");
    // A row that does not fit does not affect the predictions of the others.
    let mut found = Rows::new(task.clone(), with_long.clone()).predict(0..with_long.len(), &trained);
    message(found.pop().unwrap().unwrap_err());
    assert!(found.iter().all(Result::is_ok) && found.len() == rows.len());
    message(main_score(&trained, &task, &with_long).unwrap_err());

    let freeze = with!(settings(), freeze: Some(LAYERS + 1));
    let message = bench.run(&task, [&rows, &[]], &freeze, "run", false, &mut |_, _| ()).unwrap_err().to_string();
    assert!(message.contains("`freeze`: expected at most 3"), "{message}");
    let weights = with!(settings(), class_weights: ClassWeights::Given(vec![1.0, 2.0]));
    let message = bench.run(&task, [&rows, &[]], &weights, "run", false, &mut |_, _| ()).unwrap_err().to_string();
    assert!(message.contains("each of the 3 classes, found 2"), "{message}");
    let none = bench.run(&task, [&[], &rows], &settings(), "run", false, &mut |_, _| ()).unwrap_err().to_string();
    assert!(none.contains("no training rows"), "{none}");
    assert!(!bench.path("run").exists());
}

/// A checkpoint with a head for the task, in its own folder.
fn checkpoint(bench: &Bench, task: &Classify) -> PathBuf {
    let mut model = bench.initial(task, 5);
    let mut config = model.config().clone();
    task.describe(&mut config);
    model.set_config(config).unwrap();
    let path = bench.path("checkpoint");
    model.save(&path).unwrap();
    tokenizer(&[]).save(&path).unwrap();
    path
}

/// The notes at the start of a run.
fn notes_of<T: Task>(bench: &Bench, task: &T, rows: &[T::Row], settings: &Settings, out: &str) -> Vec<String> {
    let mut notes = Vec::new();
    let on_event = &mut |event: &FineTuneEvent, _: &AtomicBool| {
        if let Event::Start(start) = event {
            notes.clone_from(&start.notes);
        }
    };
    assert!(bench.run(task, [rows, &[]], settings, out, false, on_event).unwrap().finished);
    notes
}

#[test]
fn n1_outputs_of_a_copied_head_are_matched_by_label_names() {
    let mut bench = Bench::new(0.0);
    let (task, rows) = classifier();
    let named = |labels: [&str; 3]| Classify { labels: labels.map(str::to_owned).to_vec(), ..task.clone() };
    let before = named(["OWL", "person", "fox"]);
    bench.model = checkpoint(&bench, &before);
    // A learning rate without effect.
    let settings = with!(settings(), epochs: 1, lr: 1e-12);
    let shares = |task: &Classify, model: &Pretrained| -> Vec<BTreeMap<String, f64>> {
        let found = Rows::new(task.clone(), rows.clone()).predict(0..rows.len(), model);
        let of_row = |found: Result<Value, TaskError>| {
            let shares: BTreeMap<String, f64> =
                serde_json::from_value(found.unwrap()["probabilities"].clone()).unwrap();
            shares.into_iter().map(|(name, share)| (name.to_lowercase(), share)).collect()
        };
        found.into_iter().map(of_row).collect()
    };
    let expected = shares(&before, &Pretrained::open(&bench.model, bench.device.clone(), DType::F32).unwrap());
    let close = |found: &[BTreeMap<String, f64>]| {
        found.iter().zip(&expected).all(|(a, b)| a.iter().all(|(name, share)| (share - b[name]).abs() < 1e-6))
    };
    for (number, (labels, expected_note)) in [
        (["OWL", "person", "fox"], "task head kept from the checkpoint"),
        (
            ["fox", "owl", "person"],
            "task head kept from the checkpoint, its outputs reordered to the order of the labels",
        ),
    ]
    .into_iter()
    .enumerate()
    {
        let (task, out) = (named(labels), format!("kept-{number}"));
        assert_eq!(notes_of(&bench, &task, &rows, &settings, &out), [expected_note]);
        let found = shares(&task, &bench.model(&out));
        assert!(close(&found), "{labels:?}: {found:?}, expected {expected:?}");
    }
    // Different names: a new head.
    let others = named(["fox", "owl", "wolf"]);
    let notes = notes_of(&bench, &others, &rows, &settings, "new");
    assert_eq!(
        notes.last().unwrap(),
        "task head not kept from the checkpoint: its labels are \"OWL\", \"person\", \"fox\""
    );
    assert!(notes.iter().any(|note| note == "newly initialized: task's head"), "{notes:?}");
    let weight = |model: &Model| values(model)["classifier.weight"].clone();
    let (old, new) = (Model::load(&bench.model, &bench.device).unwrap(), bench.model("new"));
    let changed = weight(&old).iter().zip(weight(&new.model)).filter(|(a, b)| *a != b).count();
    assert_eq!(changed, 3 * 32, "all weights are new");
    // A model class whose single output has another meaning.
    let (chooser, rows) = chooser();
    let notes = notes_of(&bench, &chooser, &rows, &settings, "other-class");
    assert!(notes.last().unwrap().ends_with("the checkpoint is a BertForSequenceClassification"), "{notes:?}");
}

#[test]
fn outputs_without_names_are_matched_by_number_or_preset_order() {
    let labels = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>();
    let mut start = Config::default();
    start.set_labels(&labels(&["LABEL_0", "LABEL_1"]));
    let head_init = |names: &[&str], is_known| HeadInit::from_labels(&labels(names), &start, is_known);
    assert_eq!(head_init(&["0", "1"], false), HeadInit::Copied { rows: None, note: String::new() });
    assert!(matches!(head_init(&["1", "0"], false), HeadInit::Copied { rows: Some(rows), .. } if rows == [1, 0]));
    assert!(matches!(head_init(&["negative", "positive"], false), HeadInit::Random { .. }));
    let HeadInit::Copied { rows: None, note } = head_init(&["negative", "positive"], true) else {
        panic!("expected a copied head")
    };
    assert!(note.contains("assumed") && note.contains("\"negative\", \"positive\""), "{note}");
}

#[test]
fn a_regression_starts_at_the_mean_of_its_targets() {
    let bench = Bench::new(0.0);
    let (task, mut rows) = regressor();
    rows.iter_mut().for_each(|row| row.value = row.value.map(|value| 100.0 + 10.0 * value));
    let settings = with!(settings(), epochs: 1, lr: 1e-12);
    let notes = notes_of(&bench, &task, &rows, &settings, "run");
    let expected = "task head starts at the mean 123.3333 and standard deviation 16.2447 of its targets";
    assert_eq!(notes.last().unwrap(), expected);
    let (found, fresh) = (values(&bench.model("run").model), values(&bench.initial(&task, settings.seed)));
    assert!((found["classifier.bias"][0] - 123.33333).abs() < 1e-4);
    let stretched = found["classifier.weight"].iter().zip(&fresh["classifier.weight"]);
    assert!(stretched.into_iter().all(|(a, b)| (a - 16.2447 * b).abs() < 1e-4));
    // A trained head is not changed.
    let (model, loss) = (bench.path("run/model"), |out: &str| figures(&bench.path(out), &["train"])[0]["loss"].clone());
    let again = Bench { model, ..Bench::new(0.0) };
    assert_eq!(notes_of(&again, &task, &rows, &settings, "again"), ["task head kept from the checkpoint"]);
    assert!(loss("run").as_f64().unwrap() < 2.0 * 16.2447f64.powi(2));
}

#[test]
fn r29_the_loss_selects_the_best_model_if_all_scores_are_nan() {
    let bench = Bench::new(0.0);
    let (task, rows) = regressor();
    let mut dev = rows.clone();
    dev.iter_mut().for_each(|row| row.value = Some(2.0));
    let settings = with!(settings(), epochs: 12, patience: Some(2));
    let best = bench.finish(&task, [&rows, &dev], &settings, "run").best.unwrap();
    let losses: Vec<f64> =
        figures(&bench.path("run"), &["eval"]).iter().map(|line| line["loss"].as_f64().unwrap()).collect();
    let least = losses.iter().copied().fold(f64::INFINITY, f64::min);
    assert!(best.score.is_nan() && best.loss == least, "{best:?}, {losses:?}");
    let place = losses.iter().position(|loss| *loss == least).unwrap();
    assert!(losses.len() == 12 || losses.len() == place + 3, "two evaluations without a lower loss end it: {losses:?}");
}
