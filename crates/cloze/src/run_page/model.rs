//! The contents of a run's folder: records of training and evaluation, starts, messages, settings, the corpus report.

use std::path::{Path, PathBuf};

use cloze_data::report::CorpusReport;
use cloze_tasks::datasets::preset::DatasetPreset;
use cloze_tasks::finetune::Best;
use cloze_tasks::kinds;
use cloze_tasks::metrics::mean_std::{MeanStd, mean_std};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use super::chart::Point;
use super::measure::{MEASURES, Measure, XAxis};

/// The kind of a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Kind {
    /// Pre-training on text: `cloze pretrain`.
    PreTraining,
    /// Fine-tuning on labelled rows: `cloze finetune`.
    FineTuning,
}

impl Kind {
    /// "pre-training" or "fine-tuning".
    pub fn name(self) -> &'static str {
        match self {
            Kind::PreTraining => "pre-training",
            Kind::FineTuning => "fine-tuning",
        }
    }

    /// The name of the evaluation data.
    pub fn held_out(self) -> &'static str {
        match self {
            Kind::PreTraining => "held-out",
            Kind::FineTuning => "dev",
        }
    }
}

/// A line of metrics.jsonl with the values of training steps or of an evaluation.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Record {
    /// Steps done.
    pub step: u64,
    /// Completed passes over the training rows.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub epoch: Option<f64>,
    /// Real tokens (without padding) trained on.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tokens: Option<u64>,
    /// Seconds of training.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub seconds: Option<f64>,
    /// All other keys.
    #[serde(flatten)]
    pub figures: Map<String, Value>,
}

impl Record {
    /// The value of a measure, also from the `scores` of a fine-tuning's evaluation. `None` if it is missing or not
    /// finite.
    pub fn value(&self, key: &str) -> Option<f64> {
        let number = |value: &Value| value.as_f64().filter(|value| value.is_finite());
        self.figures.get(key).and_then(number).or_else(|| self.figures.get("scores")?.get(key).and_then(number))
    }

    fn x(&self, x: XAxis) -> Option<f64> {
        match x {
            XAxis::Step => Some(self.step as f64),
            XAxis::Epoch => self.epoch,
            XAxis::Tokens => self.tokens.map(|tokens| tokens as f64),
            XAxis::Time => self.seconds,
        }
    }
}

/// The start of a run, or of its continuation. Keys that the writing version did not know are absent.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct Start {
    /// Description of the device.
    pub machine: Option<String>,
    /// `bf16` or `f32`.
    pub precision: Option<String>,
    /// Why this instruction set and precision were chosen.
    pub reason: Option<String>,
    /// Compute threads.
    pub threads: Option<u64>,
    /// The measured peak of matrix multiplication in GFLOP/s.
    pub peak_gflops: Option<f64>,
    /// Number of parameters of the model.
    pub parameters: Option<u64>,
    /// Tokens of the training shards.
    pub corpus_tokens: Option<u64>,
    /// Version of the program.
    pub version: Option<String>,
    /// Total number of steps.
    pub steps: Option<u64>,
    /// Training examples; each window of a long row counts.
    pub examples: Option<u64>,
    /// Tokens of all training examples.
    pub tokens: Option<u64>,
    /// Training rows.
    pub train_rows: Option<u64>,
    /// Training files.
    pub train_files: Vec<String>,
    /// Dev rows.
    pub dev_rows: Option<u64>,
    /// Dev files.
    pub dev_files: Vec<String>,
    /// Rows truncated to the maximum length.
    pub cut_rows: Option<u64>,
    /// The initial model of a fine-tuning.
    pub model: Option<String>,
}

/// The settings file of a run.
#[derive(Clone, Debug, Default)]
pub struct Settings {
    /// The file's text.
    pub text: String,
    /// Dotted keys with their values in TOML syntax; strings without quotes.
    pub keys: Vec<(String, String)>,
}

impl Settings {
    /// Parses a TOML text. Invalid TOML gives no keys.
    pub fn new(text: String) -> Settings {
        let mut keys = Vec::new();
        if let Ok(table) = text.parse::<toml::Table>() {
            flatten("", &toml::Value::Table(table), &mut keys);
        }
        Settings { text, keys }
    }

    /// The value of a key.
    pub fn get(&self, key: &str) -> Option<&str> {
        self.keys.iter().find(|(known, _)| known == key).map(|(_, value)| value.as_str())
    }
}

fn flatten(prefix: &str, value: &toml::Value, out: &mut Vec<(String, String)>) {
    let dotted = |key: &str| if prefix.is_empty() { key.to_owned() } else { format!("{prefix}.{key}") };
    match value {
        toml::Value::Table(table) => table.iter().for_each(|(key, value)| flatten(&dotted(key), value, out)),
        toml::Value::Array(items) if items.iter().any(toml::Value::is_table) => {
            items.iter().enumerate().for_each(|(number, item)| flatten(&dotted(&number.to_string()), item, out));
        }
        toml::Value::String(text) => out.push((prefix.to_owned(), text.clone())),
        toml::Value::Float(value) if *value != 0.0 && value.abs() < 1e-3 => {
            out.push((prefix.to_owned(), format!("{value:e}")));
        }
        other => out.push((prefix.to_owned(), other.to_string())),
    }
}

/// A pre-training or fine-tuning run.
#[derive(Clone, Debug)]
pub struct Run {
    /// The name on the page.
    pub name: String,
    /// The run's folder.
    pub dir: PathBuf,
    /// Pre-training or fine-tuning.
    pub kind: Kind,
    /// Training records in order of their steps.
    pub training: Vec<Record>,
    /// Evaluation records in order of their steps.
    pub evaluations: Vec<Record>,
    /// The first start, and one for each resumption.
    pub starts: Vec<Start>,
    /// Messages with their steps, if those are known.
    pub events: Vec<(Option<u64>, String)>,
    /// Number of unreadable lines. The last line is incomplete if the run was killed.
    pub unreadable: usize,
    /// The contents of recipe.toml or finetune.toml.
    pub settings: Settings,
    /// The corpus report of a pre-training, if its shards still exist.
    pub corpus: Option<CorpusReport>,
    /// Fingerprint of the shards' tokenizer.
    pub tokenizer: Option<String>,
    /// How the rows of a fine-tuning are read and scored.
    pub reading: Map<String, Value>,
    /// Fingerprint of the rows of a fine-tuning.
    pub rows: Option<String>,
    /// The best evaluation of a fine-tuning.
    pub best: Option<Best>,
    /// For one of several runs: the reason why it failed, if it did.
    pub failed: Option<String>,
    /// For one of several runs: whether results.json does not list it yet, because it is running or was stopped.
    pub unfinished: bool,
}

impl Run {
    /// An empty run.
    pub fn new(name: String, dir: &Path, kind: Kind) -> Run {
        Run {
            name,
            dir: dir.to_owned(),
            kind,
            training: Vec::new(),
            evaluations: Vec::new(),
            starts: Vec::new(),
            events: Vec::new(),
            unreadable: 0,
            settings: Settings::default(),
            corpus: None,
            tokenizer: None,
            reading: Map::new(),
            rows: None,
            best: None,
            failed: None,
            unfinished: false,
        }
    }

    /// Reads the lines of metrics.jsonl. Steps that a resumed run repeated replace the earlier ones.
    pub fn read_metrics(&mut self, text: &str) {
        for line in text.lines().filter(|line| !line.trim().is_empty()) {
            if self.read_line(line).is_none() {
                self.unreadable += 1;
            }
        }
    }

    fn read_line(&mut self, line: &str) -> Option<()> {
        let line: Value = serde_json::from_str(line).ok()?;
        let step = line["step"].as_u64();
        match line["kind"].as_str()? {
            "train" => push_by_step(&mut self.training, serde_json::from_value(line).ok()?),
            "eval" => push_by_step(&mut self.evaluations, serde_json::from_value(line).ok()?),
            "start" => self.starts.push(serde_json::from_value(line).ok()?),
            "event" => self.events.push((step, line["message"].as_str()?.to_owned())),
            _ => return None,
        }
        Some(())
    }

    /// All training and evaluation records.
    pub fn records(&self) -> impl Iterator<Item = &Record> {
        self.training.iter().chain(&self.evaluations)
    }

    /// The number of steps done, from the newest record of either kind.
    pub fn step(&self) -> u64 {
        self.records().map(|record| record.step).max().unwrap_or(0)
    }

    /// Real tokens (without padding) trained on.
    pub fn tokens(&self) -> Option<u64> {
        self.records().filter_map(|record| record.tokens).max()
    }

    /// Seconds of training, from the newest record of either kind.
    pub fn seconds(&self) -> Option<f64> {
        self.records().filter_map(|record| record.seconds).reduce(f64::max)
    }

    /// The last start.
    pub fn start(&self) -> Option<&Start> {
        self.starts.last()
    }

    /// The first steps of the second and later phases.
    pub fn phases(&self) -> Vec<u64> {
        let phase = |record: &Record| record.value("phase");
        let pairs = self.training.windows(2).filter(|pair| phase(&pair[0]) != phase(&pair[1]));
        pairs.map(|pair| pair[1].step).collect()
    }

    /// The horizontal axes for which records have values.
    pub fn axes(&self) -> Vec<XAxis> {
        XAxis::ALL.into_iter().filter(|&x| self.records().any(|record| record.x(x).is_some())).collect()
    }

    /// The position of a step on one of the run's [`axes`](Run::axes), interpolated between records.
    pub fn axis_position(&self, step: u64, x: XAxis) -> f64 {
        let step = step as f64;
        if x == XAxis::Step {
            return step;
        }
        let (mut before, mut after): ((f64, f64), Option<(f64, f64)>) = ((0.0, 0.0), None);
        for known in self.records().filter_map(|record| Some((record.step as f64, record.x(x)?))) {
            if known.0 == step {
                return known.1;
            }
            if known.0 < step && known.0 > before.0 {
                before = known;
            }
            if known.0 > step && after.is_none_or(|after| known.0 < after.0) {
                after = Some(known);
            }
        }
        match after {
            Some(after) => before.1 + (after.1 - before.1) * (step - before.0) / (after.0 - before.0),
            None if before.0 > 0.0 => before.1 * step / before.0,
            None => 0.0,
        }
    }

    /// The curve of a measure in training or evaluation.
    pub fn curve(&self, key: &str, part: Part, axes: &[XAxis]) -> Vec<Point> {
        let records = match part {
            Part::Training => &self.training,
            Part::Evaluation => &self.evaluations,
        };
        let point = |record: &Record| {
            let x = axes
                .iter()
                .map(|&axis| record.x(axis).unwrap_or_else(|| self.axis_position(record.step, axis)))
                .collect();
            Some(Point { step: record.step, value: record.value(key)?, x })
        };
        records.iter().filter_map(point).collect()
    }

    /// The losses with values. The first one of a pre-training selects its best evaluation.
    pub fn losses(&self) -> Vec<Measure> {
        let is_loss = |measure: &Measure| match self.kind {
            Kind::PreTraining => measure.loss_name().is_some(),
            Kind::FineTuning => measure.key == "loss",
        };
        let is_known = |measure: &Measure| self.records().any(|record| record.value(measure.key).is_some());
        MEASURES.into_iter().filter(|measure| is_loss(measure) && is_known(measure)).collect()
    }

    /// Whether any evaluation has a value of the measure.
    fn has_score(&self, measure: &Measure) -> bool {
        self.evaluations.iter().any(|record| record.value(measure.key).is_some())
    }

    /// The score that selects the best evaluation of a fine-tuning. Higher is better; it is never a loss.
    pub fn deciding(&self) -> Option<Measure> {
        if self.kind == Kind::PreTraining {
            return None;
        }
        self.best.as_ref().and_then(|best| Measure::find(&best.metric)).or_else(|| self.expected_to_decide())
    }

    /// The expected one for a run without a best evaluation: the given metric, otherwise the default of its task or
    /// kind of task.
    fn expected_to_decide(&self) -> Option<Measure> {
        let setting = |key: &str| self.reading.get(key).and_then(Value::as_str);
        let of_task = || DatasetPreset::named(setting("task")?).ok().map(|known| known.best);
        let of_kind = || kinds::named(setting("kind")?)?.description.metrics.first().copied();
        let key = of_kind().and_then(|usual| setting("metric").or_else(of_task).or(Some(usual)));
        // The F1 over more than two labels is called `macro_f1`.
        let keys = [key, key.filter(|key| *key == "f1").and(Some("macro_f1"))];
        let expected = keys.into_iter().flatten().filter_map(Measure::find);
        expected
            .chain(MEASURES.into_iter().filter(|measure| !measure.is_loss()))
            .find(|measure| self.has_score(measure))
    }

    /// The measures of the evaluations, the deciding one first.
    pub fn scores(&self) -> Vec<Measure> {
        deciding_first(self.deciding(), |measure| self.has_score(measure))
    }

    /// The final value of a measure: at the best evaluation of a fine-tuning, or at the last of a pre-training. A
    /// failed fine-tuning has none.
    pub fn final_score(&self, key: &str) -> Option<f64> {
        match self.kind {
            Kind::PreTraining => self.evaluations.last()?.value(key),
            Kind::FineTuning => self.best_record()?.value(key),
        }
    }

    /// The evaluation of the best model; `None` for a failed run.
    pub fn best_record(&self) -> Option<&Record> {
        match &self.best {
            _ if self.failed.is_some() => None,
            Some(best) => self.evaluations.iter().find(|record| record.step == best.step),
            // An unfinished run has marked its best evaluations so far; take the last of them.
            None => self.evaluations.iter().rev().find(|record| record.figures.get("best") == Some(&Value::Bool(true))),
        }
    }

    /// The single answer that a collapsed model gives.
    pub fn collapsed(&self) -> Option<&str> {
        self.best_record()?.figures.get("scores")?.get("collapsed")?.as_str()
    }

    /// The summary as JSON.
    pub fn json(&self) -> Value {
        json!({
            "name": self.name, "dir": self.dir, "kind": self.kind, "steps": self.step(), "tokens": self.tokens(),
            "seconds": self.seconds(), "evaluations": self.evaluations.len(),
            "last_training": self.training.last(), "last_evaluation": self.evaluations.last(), "best": self.best,
            "collapsed": self.collapsed(), "failed": self.failed,
        })
    }
}

/// The deciding measure, then the other available ones.
fn deciding_first(deciding: Option<Measure>, known: impl Fn(&Measure) -> bool) -> Vec<Measure> {
    let others = MEASURES.into_iter().filter(|measure| Some(*measure) != deciding && known(measure));
    deciding.into_iter().chain(others).collect()
}

/// Training or evaluation records.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    /// Records of training steps.
    Training,
    /// Records of evaluations on dev rows or held-out documents.
    Evaluation,
}

/// Appends a record after removing those at its step or later, which a resumed run has repeated.
fn push_by_step(records: &mut Vec<Record>, record: Record) {
    while records.last().is_some_and(|last| last.step >= record.step) {
        records.pop();
    }
    records.push(record);
}

/// A folder with several fine-tunings of one task: several seeds, or a grid of settings.
#[derive(Clone, Debug)]
pub struct Group {
    /// The name on the page.
    pub name: String,
    /// The folder.
    pub dir: PathBuf,
    /// The runs in order.
    pub runs: Vec<Run>,
}

/// The runs of a group with the same settings except for the seed.
#[derive(Clone, Debug)]
pub struct Setting<'a> {
    /// The values that differ from the group's other settings; the group's name if there is only one setting.
    pub name: String,
    /// The runs.
    pub runs: Vec<&'a Run>,
}

/// The keys of finetune.toml that a grid can vary.
const GRID: [&str; 3] = ["batch", "lr", "epochs"];

impl Group {
    /// The score that selects the best run: from a finished run if there is one, otherwise the expected one.
    pub fn deciding(&self) -> Option<Measure> {
        let finished = self.runs.iter().filter(|run| run.best.is_some());
        finished.chain(&self.runs).find_map(Run::deciding)
    }

    /// The measures of the runs' evaluations, the deciding one first.
    pub fn scores(&self) -> Vec<Measure> {
        deciding_first(self.deciding(), |measure| self.runs.iter().any(|run| run.has_score(measure)))
    }

    /// The keys of the grid whose values differ between runs.
    pub fn varied(&self) -> Vec<&'static str> {
        let value = |run: &Run, key: &str| run.settings.get(key).map(str::to_owned);
        let differs = |key: &&str| self.runs.windows(2).any(|pair| value(&pair[0], key) != value(&pair[1], key));
        GRID.into_iter().filter(differs).collect()
    }

    /// The runs grouped by setting, in order.
    pub fn settings(&self) -> Vec<Setting<'_>> {
        let varied = self.varied();
        let name = |run: &Run| match varied.is_empty() {
            true => self.name.clone(),
            false => {
                let part = |key: &&str| format!("{key} {}", run.settings.get(key).unwrap_or("?"));
                varied.iter().map(part).collect::<Vec<_>>().join(", ")
            }
        };
        let mut settings: Vec<Setting<'_>> = Vec::new();
        for run in &self.runs {
            let name = name(run);
            match settings.iter_mut().find(|setting| setting.name == name) {
                Some(setting) => setting.runs.push(run),
                None => settings.push(Setting { name, runs: vec![run] }),
            }
        }
        settings
    }

    /// The settings sorted by descending mean of the deciding score; settings without a score last. Unsorted without a
    /// deciding score.
    pub fn ranked(&self) -> Vec<Setting<'_>> {
        let deciding = self.deciding();
        let spread = |setting: &Setting<'_>| setting.spread(deciding?.key);
        let mean = |setting: &Setting<'_>| spread(setting).map_or(f64::NEG_INFINITY, |spread| spread.mean);
        let mut settings = self.settings();
        settings.sort_by(|a, b| mean(b).total_cmp(&mean(a)));
        settings
    }

    /// A summary as JSON.
    pub fn json(&self) -> Value {
        let summed = |setting: &Setting<'_>| {
            let spread = |measure: &Measure| Some((measure.key.to_owned(), json!(setting.spread(measure.key)?)));
            json!({"name": setting.name, "runs": setting.runs.len(),
                   "scores": self.scores().iter().filter_map(spread).collect::<Map<_, _>>()})
        };
        json!({
            "name": self.name, "dir": self.dir, "kind": Kind::FineTuning,
            "settings": self.settings().iter().map(summed).collect::<Vec<_>>(),
            "runs": self.runs.iter().map(Run::json).collect::<Vec<_>>(),
        })
    }
}

impl Setting<'_> {
    /// Mean and standard deviation of a measure's final values.
    pub fn spread(&self, key: &str) -> Option<MeanStd> {
        mean_std(&self.runs.iter().filter_map(|run| run.final_score(key)).collect::<Vec<_>>())
    }

    /// The mean curve of the runs that have the measure, at the steps that all of them logged.
    pub fn curve(&self, key: &str, part: Part, axes: &[XAxis]) -> Vec<Point> {
        // Failed runs are not included in the mean, unless all runs failed.
        let all_failed = self.runs.iter().all(|run| run.failed.is_some());
        let drawn = self.runs.iter().filter(|run| all_failed || run.failed.is_none());
        let curves = drawn.map(|run| run.curve(key, part, axes)).filter(|curve| !curve.is_empty());
        let curves: Vec<Vec<Point>> = curves.collect();
        let Some((first, others)) = curves.split_first() else { return Vec::new() };
        let mean = |point: &Point| {
            let mut points = vec![point];
            for curve in others {
                points.push(&curve[curve.binary_search_by_key(&point.step, |point| point.step).ok()?]);
            }
            let n = points.len() as f64;
            let x = (0..axes.len()).map(|axis| points.iter().map(|point| point.x[axis]).sum::<f64>() / n).collect();
            Some(Point { step: point.step, value: points.iter().map(|point| point.value).sum::<f64>() / n, x })
        };
        first.iter().filter_map(mean).collect()
    }
}

/// The contents of a folder given by the user.
#[derive(Clone, Debug)]
pub enum Subject {
    /// One run.
    Run(Box<Run>),
    /// Several fine-tunings.
    Group(Group),
}

impl Subject {
    /// The name on the page.
    pub fn name(&self) -> &str {
        match self {
            Subject::Run(run) => &run.name,
            Subject::Group(group) => &group.name,
        }
    }

    /// The folder.
    pub fn dir(&self) -> &Path {
        match self {
            Subject::Run(run) => &run.dir,
            Subject::Group(group) => &group.dir,
        }
    }

    /// Pre-training or fine-tuning.
    pub fn kind(&self) -> Kind {
        match self {
            Subject::Run(run) => run.kind,
            Subject::Group(_) => Kind::FineTuning,
        }
    }

    /// The setting shown in a comparison: the best setting of a grid, or its first one if there are no scores.
    pub fn compared_setting(&self) -> Setting<'_> {
        let group = match self {
            Subject::Run(run) => return Setting { name: run.name.clone(), runs: vec![run.as_ref()] },
            Subject::Group(group) => group,
        };
        let ranked = group.ranked().into_iter().next();
        let best = ranked.unwrap_or_else(|| Setting { name: group.name.clone(), runs: Vec::new() });
        let is_known = group.deciding().is_some_and(|measure| best.spread(measure.key).is_some());
        let which = if is_known { "best" } else { "first" };
        let name = match best.name == group.name {
            true => best.name,
            false => format!("{}: {which} setting, {}", group.name, best.name),
        };
        Setting { name, runs: best.runs }
    }

    /// A summary as JSON.
    pub fn json(&self) -> Value {
        match self {
            Subject::Run(run) => run.json(),
            Subject::Group(group) => group.json(),
        }
    }
}

#[cfg(test)]
pub mod tests {
    use super::*;

    /// A pre-training of `steps` steps with an evaluation after the last.
    pub fn pretraining(name: &str, steps: u64) -> Run {
        let mut run = Run::new(name.into(), Path::new(name), Kind::PreTraining);
        let mut lines = String::from(
            "{\"kind\":\"start\",\"step\":0,\"machine\":\"cpu <avx>, 2 threads\",\"precision\":\"bf16\",\"threads\":2,\
             \"peak_gflops\":180.4,\"parameters\":4400000,\"corpus_tokens\":1234567,\"version\":\"0.1.0\"}\n",
        );
        for step in 1..=steps {
            let loss = 8.0 - step as f64 / steps as f64;
            lines += &format!(
                "{{\"kind\":\"train\",\"step\":{step},\"tokens\":{},\"seconds\":{step},\"mlm_loss\":{loss},\
                 \"mlm_accuracy\":0.0714,\"nsp_loss\":null,\"nsp_accuracy\":null,\"loss\":{loss},\"lr\":1e-4,\
                 \"grad_norm\":1.0,\"tokens_per_s\":100.0,\"share_of_peak\":0.5,\"phase\":{}}}\n",
                step * 100,
                u64::from(step > steps / 2),
            );
        }
        lines += &format!(
            "{{\"kind\":\"eval\",\"step\":{},\"seconds\":{},\"mlm_loss\":7.5,\"mlm_perplexity\":1808,\
             \"mlm_accuracy\":0.12,\"nsp_loss\":null,\"nsp_accuracy\":null}}\n",
            steps + 1,
            steps + 4,
        );
        run.read_metrics(&lines);
        run
    }

    /// A fine-tuning with two evaluations, of which the second is better.
    pub fn finetuning(name: &str, accuracy: f64, settings: &str) -> Run {
        let mut run = Run::new(name.into(), Path::new(name), Kind::FineTuning);
        run.read_metrics(&format!(
            "{{\"kind\":\"start\",\"step\":0,\"steps\":40,\"train_rows\":160,\"train_files\":[\"a.tsv\"],\"dev_rows\":50}}\n\
             {{\"kind\":\"train\",\"step\":20,\"epoch\":1,\"seconds\":10,\"loss\":0.7,\"lr\":5e-5,\"grad_norm\":2}}\n\
             {{\"kind\":\"eval\",\"step\":20,\"epoch\":1,\"loss\":0.69,\"best\":true,\"scores\":{{\"rows\":50,\"accuracy\":0.5,\
             \"macro_f1\":0.33,\"collapsed\":\"yes\"}}}}\n\
             {{\"kind\":\"train\",\"step\":40,\"epoch\":2,\"seconds\":20,\"loss\":0.3,\"lr\":0,\"grad_norm\":1}}\n\
             {{\"kind\":\"eval\",\"step\":40,\"epoch\":2,\"loss\":0.5,\"best\":true,\"scores\":{{\"rows\":50,\
             \"accuracy\":{accuracy},\"macro_f1\":0.8,\"by_label\":{{}}}}}}\n",
        ));
        let best =
            json!({"step": 40, "epoch": 2.0, "metric": "accuracy", "score": accuracy, "scores": {}, "collapsed": null});
        run.best = serde_json::from_value(best).unwrap();
        run.settings = Settings::new(settings.to_owned());
        run
    }

    #[test]
    fn repeated_steps_of_a_resumed_run_replace_earlier_ones() {
        let mut run = Run::new("r".into(), Path::new("r"), Kind::PreTraining);
        for (step, loss) in [(1, 9.0), (2, 8.0), (3, 7.0), (2, 8.5)] {
            run.read_metrics(&json!({"kind": "train", "step": step, "mlm_loss": loss}).to_string());
        }
        let points: Vec<(u64, f64)> = run.training.iter().map(|r| (r.step, r.value("mlm_loss").unwrap())).collect();
        assert_eq!(points, [(1, 9.0), (2, 8.5)]);
    }

    #[test]
    fn progress_comes_from_the_newest_record() {
        let mut run = pretraining("r", 20);
        assert_eq!((run.step(), run.seconds(), run.tokens()), (21, Some(24.0), Some(2000)));
        run.read_metrics("{\"kind\":\"tr");
        assert_eq!(run.unreadable, 1);
        assert_eq!(run.phases(), [11]);
    }

    #[test]
    fn axis_positions_between_records_are_interpolated() {
        let run = pretraining("r", 20);
        assert_eq!(run.axes(), [XAxis::Step, XAxis::Tokens, XAxis::Time]);
        assert_eq!(run.axis_position(10, XAxis::Tokens), 1000.0);
        assert_eq!(run.axis_position(21, XAxis::Tokens), 2100.0);
        let run = finetuning("f", 0.9, "");
        assert_eq!((run.axis_position(30, XAxis::Time), run.axis_position(30, XAxis::Epoch)), (15.0, 1.5));
        assert_eq!(run.axis_position(10, XAxis::Time), 5.0);
    }

    #[test]
    fn final_scores_of_a_fine_tuning_are_from_its_best_evaluation() {
        let run = finetuning("f", 0.9, "");
        let keys: Vec<&str> = run.scores().iter().map(|measure| measure.key).collect();
        assert_eq!(keys, ["accuracy", "loss", "macro_f1"]);
        assert_eq!((run.final_score("accuracy"), run.final_score("loss")), (Some(0.9), Some(0.5)));
        assert_eq!(run.collapsed(), None);
    }

    #[test]
    fn runs_with_different_seeds_are_one_setting() {
        let run = |lr: &str, seed: u64, accuracy| {
            finetuning(&format!("{lr}-{seed}"), accuracy, &format!("lr = {lr}\nbatch = 8\nseed = {seed}"))
        };
        let runs = vec![run("1e-4", 1, 0.5), run("1e-4", 2, 0.6), run("5e-5", 1, 0.8), run("5e-5", 2, 0.9)];
        let group = Group { name: "grid".into(), dir: "grid".into(), runs };
        assert_eq!(group.varied(), ["lr"]);
        let best = group.ranked().swap_remove(0);
        assert_eq!((best.name.as_str(), best.runs.len()), ("lr 5e-5", 2));
        assert!((best.spread("accuracy").unwrap().mean - 0.85).abs() < 1e-12);
        let curve = best.curve("accuracy", Part::Evaluation, &[XAxis::Step, XAxis::Time]);
        assert_eq!(curve.len(), 2);
        assert!((curve[1].value - 0.85).abs() < 1e-12 && curve[1].x == [40.0, 20.0]);
    }

    /// A fine-tuning after its first evaluation.
    fn unfinished(name: &str, settings: &str) -> Run {
        let mut run = finetuning(name, 0.9, settings);
        run.best = None;
        run.evaluations.truncate(1);
        run.unfinished = true;
        run
    }

    #[test]
    fn a_group_with_an_unfinished_run_is_ranked_by_its_score() {
        let runs =
            vec![finetuning("a", 0.7, "lr = 1e-4"), finetuning("b", 0.8, "lr = 5e-5"), unfinished("c", "lr = 1e-5")];
        let mut group = Group { name: "grid".into(), dir: "grid".into(), runs };
        let keys = |group: &Group| group.scores().iter().map(|measure| measure.key).collect::<Vec<_>>();
        assert_eq!(keys(&group), ["accuracy", "loss", "macro_f1"]);
        let names = |group: &Group| group.ranked().into_iter().map(|setting| setting.name).collect::<Vec<_>>();
        assert_eq!(names(&group), ["lr 5e-5", "lr 1e-4", "lr 1e-5"]);
        // Even without a finished run the highest score is the best, not the highest loss.
        group.runs = vec![unfinished("a", "lr = 1e-4"), unfinished("b", "lr = 5e-5")];
        group.runs[0].evaluations[0].figures["loss"] = 2.0.into();
        group.runs[1].evaluations[0].figures["scores"]["accuracy"] = 0.6.into();
        assert_eq!(names(&group), ["lr 5e-5", "lr 1e-4"]);
        assert_eq!(keys(&group), ["accuracy", "loss", "macro_f1"]);
    }

    #[test]
    fn an_unfinished_run_is_scored_by_the_metric_of_its_task() {
        let mut run = Run::new("r".into(), Path::new("r"), Kind::FineTuning);
        let scores = json!({"accuracy": 0.5, "f1": 0.4, "matthews": 0.1, "pearson": 0.3, "spearman": 0.2,
            "mean_squared_error": 3.0, "micro_f1": 0.6});
        run.read_metrics(&json!({"kind": "eval", "step": 1, "loss": 0.7, "best": true, "scores": scores}).to_string());
        let mut deciding = |reading: Value| {
            run.reading = reading.as_object().unwrap().clone();
            run.deciding().unwrap().key
        };
        assert_eq!(deciding(json!({"kind": "classify"})), "accuracy");
        assert_eq!(deciding(json!({"kind": "classify", "metric": "f1"})), "f1");
        assert_eq!(deciding(json!({"kind": "classify", "task": "cola"})), "matthews");
        assert_eq!(deciding(json!({"kind": "regress", "metric": "spearman"})), "spearman");
        assert_eq!(deciding(json!({"kind": "multi-label"})), "micro_f1");
        assert_eq!(deciding(json!({})), "f1");
        for key in ["f1", "micro_f1", "accuracy", "matthews", "pearson", "spearman"] {
            run.evaluations[0].figures["scores"][key] = Value::Null;
        }
        assert_eq!(run.deciding(), None, "a loss never decides");
        assert_eq!(finetuning("f", 0.9, "").deciding(), Some(Measure::of("accuracy")));
        assert_eq!(pretraining("p", 5).deciding(), None);
    }

    #[test]
    fn failed_runs_are_excluded_from_the_mean() {
        let mut runs = vec![finetuning("a", 0.7, ""), finetuning("b", 0.8, ""), finetuning("c", 0.1, "")];
        runs[2].best = None;
        runs[2].failed = Some("not finite at step 30".into());
        // It also ended early.
        runs[2].evaluations.truncate(1);
        assert_eq!((runs[2].final_score("accuracy"), runs[2].collapsed()), (None, None));
        let group = Group { name: "seeds".into(), dir: "seeds".into(), runs };
        let setting = group.ranked().swap_remove(0);
        let spread = setting.spread("accuracy").unwrap();
        assert_eq!((spread.runs, (spread.mean * 1e6).round()), (2, 750_000.0));
        assert_eq!(
            setting.curve("accuracy", Part::Evaluation, &[XAxis::Step]).len(),
            2,
            "the mean curve continues after the failed run's end"
        );
    }

    #[test]
    fn settings_have_dotted_keys() {
        let settings =
            Settings::new("seed = 1\n[model]\ninit = \"x\"\n[[phase]]\nseq_len = 128\n[[phase]]\nseq_len = 512".into());
        assert_eq!((settings.get("model.init"), settings.get("phase.1.seq_len")), (Some("x"), Some("512")));
    }
}
