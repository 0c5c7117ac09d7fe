//! End-to-end tests of fine-tuning with models of a few thousand weights.
//! This module has their common parts: the models, rows and runs.

/// Copies settings and changes some of them.
macro_rules! with {
    ($settings:expr, $($name:ident: $value:expr),+ $(,)?) => {{
        let mut settings: Settings = $settings;
        $(settings.$name = $value;)+
        settings
    }};
}

mod errors;
mod heads;
mod learning;
mod resuming;
mod selection;

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use cloze_comm::Communicator;
use cloze_engine::{DType, Device};
use cloze_model::{Heads, Model};
use cloze_tasks::answer::{ExtractOptions, WindowOptions};
use cloze_tasks::datasets::squad::{Answer, Question};
use cloze_tasks::finetune::{FineTuneConfig, FineTuneEvent, Outcome, finetune};
use cloze_tasks::inference::predictor::evaluate;
use cloze_tasks::kinds::answer::AnswerTask;
use cloze_tasks::kinds::choose::Choose;
use cloze_tasks::kinds::classify::Classify;
use cloze_tasks::kinds::regress::Regress;
use cloze_tasks::kinds::tag::Tag;
use cloze_tasks::kinds::text::{Length, Text};
use cloze_tasks::kinds::{answer, choose, classify, regress, tag};
use cloze_tasks::{Pretrained, Rows, Settings, Task, TaskError, TaskSettings};
use cloze_testing::tokenizer;
use cloze_train::recipe::{Precision, ScheduleKind};
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
            ranks: &Communicator::single(),
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
        length: Length { max_len: 20, ..Length::default() },
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

fn tagger() -> (Tag, Vec<tag::Row>) {
    let labels = ["O", "B-PER", "B-LOC"].map(str::to_owned).to_vec();
    let task = Tag { labels, max_len: 20, context: false };
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
