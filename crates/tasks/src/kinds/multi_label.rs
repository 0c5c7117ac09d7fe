//! Multi-label classification of a text or a pair: \[CLS\] through the pooler, a sigmoid for each label.
//!
//! Files store the labels of a row in one of three forms:
//!
//! | | column | cells |
//! | --- | --- | --- |
//! | lists | the option `label`, else `label` or `labels` | a list of names or numbers (JSONL, Parquet; in other tables
//! as JSON) |
//! | names | the same | names or numbers between `\|`, or between commas where there is no `\|`; empty: no label |
//! | a column for each label | the names in the option `labels`, if the file has no label column | 1 or `true`, 0 or
//! `false`; empty or −1: not known |

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use cloze_model::{Class, Config, TaskHead};
use cloze_text::Tokenizer;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::description::{Description, Examples, KindOption, RejectedOptions, Rows, Values};
use super::kind::{Kind, Mismatch};
use super::labelled_texts::{label_counts, labels_of};
use super::probabilities::{as_map, collapsed};
use super::text::{EncodedText, Length, Text};
use crate::TaskError;
use crate::datasets::LabelsNeeded;
use crate::datasets::classification::TextColumns;
use crate::datasets::labels::{Labels, canonical, is_missing, parse_index};
use crate::datasets::table::{Column, Row as TableRow, Table};
use crate::example::Target;
use crate::input::{Input, Object};
use crate::metrics::multi_label::{Gold, counts, exact_match, macro_average, micro};
use crate::reading::{Notes, Reading, non_blank};
use crate::task::{Encoded, FileRows, HeadInit, Scores, Task};

/// The value of `problem_type` in a model's configuration.
const PROBLEM: &str = "multi_label_classification";
/// The default threshold: a label is predicted if its probability is at least this.
const THRESHOLD: f64 = 0.5;

/// Any number of labels for each text.
pub static KIND: Kind = Kind::of::<MultiLabel>(
    Description {
        name: "multi-label",
        about: "any number of labels for each text or pair of texts",
        scores: "Scores of multi-label classification: micro and macro F1, exact match, scores by label",
        input: super::text::INPUT,
        output: "the labels whose probability reaches the threshold, and all probabilities.",
        max_len: 128,
        metrics: &["micro_f1", "macro_f1", "exact_match"],
        options: &["text", "pair", "label", "labels", "metric", "stride", "long", "skip_bad"],
        own_options: &[KindOption {
            name: "threshold",
            help: "Minimum probability of predicted labels: one for all labels, or a list such as joy=0.3,anger=0.7 [default: the \
                   model's, or 0.5]",
            rare: false,
            values: Values::Parsed { placeholder: "P|LABEL=P,…", parse: thresholds, missing: None },
        }],
        check: |_| Ok(()),
        rows: Rows::Texts,
        rejected_options: RejectedOptions::NONE,
        examples: Examples {
            finetune: &[
                "cloze finetune multi-label --train go.train.jsonl --dev go.dev.jsonl --label labels --model runs/mini --out runs/go",
                "cloze finetune multi-label --train toxic.csv --text comment --labels toxic,insult,threat --model runs/mini",
            ],
            sweep: &["cloze sweep multi-label --train a.jsonl --dev b.jsonl --model runs/mini --out runs/grid"],
            predict: &["echo 'what a day' | cloze predict multi-label --model runs/go --threshold joy=0.3"],
            evaluate: &["cloze evaluate multi-label --model runs/go --data go.test.jsonl --bootstrap 1000"],
        },
    },
    |config, head| match head {
        TaskHead::Classify { .. } => match config.problem_type() {
            Some(PROBLEM) => Ok(()),
            other => {
                Err(Mismatch::Outputs(format!("expected problem_type {PROBLEM}, found {}", other.unwrap_or("none"))))
            }
        },
        _ => Err(Mismatch::Head),
    },
);

/// The settings specific to this kind.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Settings {
    threshold: Option<Thresholds>,
}

/// The thresholds: a label is predicted if its probability is at least its threshold.
#[derive(Debug, Clone, Deserialize)]
#[serde(untagged)]
enum Thresholds {
    /// The same for all labels.
    All(f64),
    /// For some labels; the others have the default.
    Of(BTreeMap<String, f64>),
}

/// Parses thresholds given as an option's value.
fn thresholds(text: &str) -> Result<Value, String> {
    let number = |text: &str| match text.trim().parse::<f64>() {
        Ok(threshold) if (0.0..=1.0).contains(&threshold) => Ok(threshold),
        _ => Err(format!("expected a probability from 0 to 1, found {text:?}")),
    };
    if !text.contains('=') {
        return number(text).map(Value::from);
    }
    let one = |part: &str| {
        let (label, threshold) = part.rsplit_once('=').ok_or_else(|| format!("expected LABEL=P, found {part:?}"))?;
        Ok((label.trim().to_owned(), number(threshold)?.into()))
    };
    let of_labels: Result<Object, String> = text.split(',').map(one).collect();
    of_labels.map(Value::Object)
}

impl Thresholds {
    /// The threshold of each label.
    fn of(&self, labels: &[String]) -> Result<Vec<f64>, TaskError> {
        match self {
            Thresholds::All(threshold) => Ok(vec![*threshold; labels.len()]),
            Thresholds::Of(named) => {
                if let Some(name) = named.keys().find(|name| !labels.contains(name)) {
                    let problem = format!("expected labels among {}, found {name}", labels.join(", "));
                    return Err(TaskError::setting("threshold", problem));
                }
                Ok(labels.iter().map(|label| named.get(label).copied().unwrap_or(THRESHOLD)).collect())
            }
        }
    }
}

/// Classification of texts with any number of labels.
#[derive(Debug, Clone)]
pub struct MultiLabel {
    /// The names of the labels, by index.
    pub labels: Vec<String>,
    /// The threshold of each label.
    pub thresholds: Vec<f64>,
    /// How long texts are handled.
    pub length: Length,
    /// The metrics to report; the first one selects the best model.
    pub metrics: Vec<&'static str>,
}

/// A text with its labels.
#[derive(Debug, Clone, PartialEq)]
pub struct Row {
    /// The text or pair.
    pub text: Text,
    /// Whether it has each label, if known.
    pub labels: Option<Gold>,
}

/// The predicted labels of a text.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Prediction {
    /// The labels whose probability reaches their threshold.
    pub labels: Vec<String>,
    /// The probability of each label, in the labels' order.
    #[serde(serialize_with = "as_map")]
    pub probabilities: Vec<(String, f64)>,
    /// Whether each label is predicted.
    #[serde(skip)]
    pub present: Vec<bool>,
}

/// How a file stores labels.
enum LabelLayout {
    /// All labels are in one column.
    OneColumn(Column),
    /// Each label has its own column.
    ColumnPerLabel(Vec<Column>),
}

/// How a file stores labels. `labels` are the names that are known.
fn label_layout(
    reading: &Reading,
    path: &Path,
    columns: &TextColumns,
    labels: &[String],
) -> Result<LabelLayout, TaskError> {
    let settings = &reading.options().settings;
    let named = settings.label.clone().or(reading.stored_of_files().label);
    if let Some(column) = named {
        return Ok(LabelLayout::OneColumn(column));
    }
    let names = match columns.text {
        Column::Name(_) => Table::names(reading.file(path))?,
        Column::Number(_) => Vec::new(),
    };
    let has = |name: &str| names.iter().any(|other| other == name);
    match ["label", "labels"].into_iter().find(|name| has(name)) {
        None if !labels.is_empty() && labels.iter().all(|label| has(label)) => {
            Ok(LabelLayout::ColumnPerLabel(labels.iter().map(|label| Column::Name(label.clone().into())).collect()))
        }
        found => Ok(LabelLayout::OneColumn(Column::name(found.unwrap_or("label")))),
    }
}

/// The texts of a file with their labels.
struct LabelledFile {
    path: PathBuf,
    rows: FileRows<LabelledRow>,
}

struct LabelledRow {
    text: Text,
    line: usize,
    raw_labels: RawLabels,
}

enum RawLabels {
    None,
    Names(Vec<String>),
    Flags(Gold),
}

impl LabelledFile {
    fn read(
        reading: &Reading,
        path: &Path,
        need: LabelsNeeded,
        labels: &[String],
        notes: &mut Notes,
    ) -> Result<LabelledFile, TaskError> {
        let columns = reading.columns_of(path);
        let mut required = vec![columns.text.clone()];
        required.extend(columns.pair.clone());
        let label_layout = match need {
            LabelsNeeded::Optional => None,
            LabelsNeeded::Required => Some(label_layout(reading, path, &columns, labels)?),
        };
        let (mut optional, mut lists) = (Vec::new(), Vec::new());
        match &label_layout {
            Some(LabelLayout::OneColumn(column)) => {
                required.push(column.clone());
                lists.push(column.clone());
            }
            Some(LabelLayout::ColumnPerLabel(columns)) => optional = columns.clone(),
            None => {}
        }
        let table = Table::open_with_lists(reading.file(path), &required, &optional, &lists, reading.ragged_rows());
        let table = table.map_err(|error| reading.explain(error))?;
        notes.skipped(path, table.skipped().len());
        let class_names: Vec<String> = lists.first().map_or(&[][..], |column| table.class_names(column)).to_vec();
        notes.notes(path, table.notes());
        let row = |row: Result<TableRow, TaskError>| {
            let TableRow { line, cells, optional } = row?;
            let mut cells = cells.into_iter();
            let text = cells.next().unwrap_or_default();
            let pair = columns.pair.as_ref().and_then(|_| cells.next());
            let raw_labels = match &label_layout {
                None => RawLabels::None,
                Some(LabelLayout::OneColumn(_)) => {
                    let names = names_of(&cells.next().unwrap_or_default());
                    // The file's own names of numbers.
                    let named =
                        |name: String| parse_index(&name).and_then(|id| class_names.get(id).cloned()).unwrap_or(name);
                    RawLabels::Names(names.into_iter().map(named).collect())
                }
                Some(LabelLayout::ColumnPerLabel(columns)) => {
                    let flag = |(cell, column): (&Option<String>, &Column)| {
                        let flag = flag_of(cell.as_deref().unwrap_or_default());
                        flag.map_err(|problem| TaskError::line(path, line, format!("column {column}: {problem}")))
                    };
                    RawLabels::Flags(optional.iter().zip(columns).map(flag).collect::<Result<_, _>>()?)
                }
            };
            let text = Text { text, pair };
            let text = if need == LabelsNeeded::Optional { non_blank(text)? } else { text };
            Ok(LabelledRow { text, line, raw_labels })
        };
        Ok(LabelledFile { path: path.to_owned(), rows: table.into_rows().into_iter().map(row).collect() })
    }

    /// Converts the file to rows, given the labels of the task.
    fn rows(self, labels: &Labels, notes: &mut Notes) -> FileRows<Row> {
        for row in self.rows.iter().flatten() {
            if let RawLabels::Names(names) = &row.raw_labels {
                notes.assumed(labels, names.iter().map(String::as_str));
            }
        }
        let LabelledFile { path, rows } = self;
        let row = |row: Result<LabelledRow, TaskError>| {
            let LabelledRow { text, line, raw_labels } = row?;
            let labels = match raw_labels {
                RawLabels::None => None,
                RawLabels::Flags(flags) => Some(flags),
                RawLabels::Names(names) => {
                    let mut gold = vec![Some(false); labels.len()];
                    for name in names {
                        let id = labels.id_or_problem(&name);
                        gold[id.map_err(|problem| TaskError::line(&path, line, problem))?] = Some(true);
                    }
                    Some(gold)
                }
            };
            Ok(Row { text, labels })
        };
        rows.into_iter().map(row).collect()
    }
}

/// The label names in a cell: a JSON list, or names separated by bars or commas.
fn names_of(cell: &str) -> Vec<String> {
    let cell = cell.trim();
    if let Ok(Value::Array(values)) = serde_json::from_str(cell) {
        let name = |value: Value| value.as_str().map_or_else(|| value.to_string(), str::to_owned);
        return values.into_iter().map(name).collect();
    }
    // Lists as Python prints them are accepted too.
    let inner = cell.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(cell);
    let separator = if inner.contains('|') { '|' } else { ',' };
    let names = inner.split(separator).map(|name| name.trim().trim_matches(['\'', '"']).to_owned());
    names.filter(|name| !name.is_empty()).collect()
}

/// Parses the cell of a label that has its own column; none if it is not known.
fn flag_of(cell: &str) -> Result<Option<bool>, String> {
    match canonical(cell).as_str() {
        "1" | "true" => Ok(Some(true)),
        "0" | "false" => Ok(Some(false)),
        "-1" => Ok(None),
        other if is_missing(other) => Ok(None),
        other => Err(format!("expected 1, 0, or nothing if it is not known; found \"{other}\"")),
    }
}

impl MultiLabel {
    fn new(labels: Vec<String>, reading: &Reading) -> Result<MultiLabel, TaskError> {
        let given: Settings = reading.options().settings.own()?;
        let stored: Settings = reading.stored().own()?;
        let thresholds = given.threshold.or(stored.threshold).unwrap_or(Thresholds::All(THRESHOLD)).of(&labels)?;
        Ok(MultiLabel { labels, thresholds, length: reading.length(), metrics: reading.metrics() })
    }
}

impl Task for MultiLabel {
    type Row = Row;
    type Aux = ();
    type Prediction = Prediction;

    fn from_training_files(
        reading: &Reading,
        train: &[PathBuf],
        start: &Config,
        _: &Tokenizer,
        notes: &mut Notes,
    ) -> Result<(MultiLabel, FileRows<Row>), TaskError> {
        let named = reading.options().labels.clone().unwrap_or_default();
        let read = |path: &PathBuf| LabelledFile::read(reading, path, LabelsNeeded::Required, &named, notes);
        let files: Vec<LabelledFile> = train.iter().map(read).collect::<Result<_, _>>()?;
        let rows = files.iter().flat_map(|file| file.rows.iter().flatten());
        let names =
            rows.filter_map(|row| if let RawLabels::Names(names) = &row.raw_labels { Some(names) } else { None });
        let found: Vec<&str> = names.flatten().map(String::as_str).collect();
        let labels = match (found.is_empty(), named.is_empty()) {
            (true, true) => {
                let problem = "no row has a label; expected a column of labels (set `label`), or a column for each label (set `labels`)";
                return Err(TaskError::setting("labels", problem));
            }
            (true, false) => Labels::from_names(named)?,
            (false, _) => reading.labels(Labels::from_data(found)?, start, Class::Classify)?,
        };
        let task = MultiLabel::new(labels.names().to_vec(), reading)?;
        let rows = files.into_iter().flat_map(|file| file.rows(&labels, notes)).collect();
        Ok((task, rows))
    }

    fn from_model(reading: &Reading, config: &Config, head: TaskHead) -> Result<MultiLabel, TaskError> {
        MultiLabel::new(labels_of(config, head.logits()), reading)
    }

    fn own_settings(&self, reading: &Reading) -> Object {
        let mut own = reading.options().settings.own.clone();
        own.retain(|name, _| name == "threshold");
        own
    }

    fn read(
        &self,
        reading: &Reading,
        paths: &[PathBuf],
        need: LabelsNeeded,
        _: &Tokenizer,
        notes: &mut Notes,
    ) -> Result<FileRows<Row>, TaskError> {
        let labels = reading.labels_of(&self.labels)?;
        let mut rows = Vec::new();
        for path in paths {
            rows.extend(LabelledFile::read(reading, path, need, &self.labels, notes)?.rows(&labels, notes));
        }
        Ok(rows)
    }

    fn row(&self, reading: &Reading, input: Input<'_>, _: &Tokenizer) -> Result<Row, TaskError> {
        Ok(Row { text: reading.text_of(input)?, labels: None })
    }

    fn head(&self) -> TaskHead {
        TaskHead::Classify { labels: self.labels.len() }
    }

    fn describe(&self, config: &mut Config) {
        config.set_labels(&self.labels);
        config.extra.insert("problem_type".to_owned(), PROBLEM.into());
    }

    fn head_init(&self, start: &Config, has_preset: bool) -> HeadInit {
        HeadInit::from_labels(&self.labels, start, has_preset)
    }

    fn summary(&self, rows: &[&Row]) -> Vec<String> {
        let present =
            |labels: &Gold| -> Vec<usize> { (0..labels.len()).filter(|label| labels[*label] == Some(true)).collect() };
        label_counts(&self.labels, rows.iter().filter_map(|row| row.labels.as_ref()).flat_map(present))
    }

    fn encode(&self, row: &Row, tokenizer: &Tokenizer) -> Result<Encoded<()>, TaskError> {
        let number = |label: &Option<bool>| label.map_or(f32::NAN, |label| f32::from(u8::from(label)));
        let targets = match &row.labels {
            Some(labels) => labels.iter().map(number).collect(),
            None => vec![f32::NAN; self.labels.len()],
        };
        let EncodedText { examples, cut, windows } =
            self.length.encode(tokenizer, &row.text, Target::Binary(targets))?;
        Ok(Encoded { examples, cut, windows, aux: () })
    }

    fn row_json(&self, row: &Row) -> Object {
        let named = |gold: &Gold| -> Vec<&str> {
            let present = self.labels.iter().zip(gold).filter(|(_, gold)| **gold == Some(true));
            present.map(|(label, _)| label.as_str()).collect()
        };
        row.text.row_json(row.labels.as_ref().map(named))
    }

    fn predict(&self, row: &Row, _: &Encoded<()>, logits: &[Vec<f32>]) -> Result<Prediction, TaskError> {
        let logits = logits.first().filter(|logits| logits.len() == self.labels.len());
        let logits = logits.filter(|logits| !logits.iter().any(|z| z.is_nan()));
        let logits = logits.ok_or_else(|| TaskError::Logits(format!("text {:?}", row.text.text)))?;
        let shares: Vec<f64> = logits.iter().map(|z| 1.0 / (1.0 + (-f64::from(*z)).exp())).collect();
        let present: Vec<bool> = shares.iter().zip(&self.thresholds).map(|(share, least)| share >= least).collect();
        let named = self.labels.iter().zip(&present).filter(|(_, present)| **present);
        let labels = named.map(|(label, _)| label.clone()).collect();
        Ok(Prediction { labels, probabilities: self.labels.iter().cloned().zip(shares).collect(), present })
    }

    fn scores(&self, rows: &[&Row], predictions: &[&Prediction]) -> Scores {
        let known =
            rows.iter().zip(predictions).filter_map(|(row, found)| Some((row.labels.as_ref()?, &found.present)));
        let (gold, predicted): (Vec<&Gold>, Vec<&Vec<bool>>) = known.unzip();
        let counts = counts(&gold, &predicted, self.labels.len());
        let (micro, mean) = (micro(&counts), macro_average(&counts));
        let value = |metric: &&'static str| match *metric {
            "macro_f1" => mean.f1,
            "exact_match" => exact_match(&gold, &predicted),
            _ => micro.f1,
        };
        let values = self.metrics.iter().map(|metric| ((*metric).to_owned(), value(metric))).collect();
        let by_label: Object =
            self.labels.iter().cloned().zip(counts.iter().map(|counts| json!(counts.score()))).collect();
        let details = [("by_label", json!(by_label)), ("micro_average", json!(micro)), ("macro_average", json!(mean))];
        // Unknown labels count as absent here.
        let sure: Vec<Vec<bool>> =
            gold.iter().map(|gold| gold.iter().map(|gold| *gold == Some(true)).collect()).collect();
        let predicted: Vec<Vec<bool>> = predicted.into_iter().cloned().collect();
        let named = |present: &Vec<bool>| {
            let names = self.labels.iter().zip(present).filter(|(_, present)| **present);
            let names: Vec<&str> = names.map(|(label, _)| label.as_str()).collect();
            if names.is_empty() { "no label".to_owned() } else { names.join(", ") }
        };
        Scores {
            rows: sure.len(),
            values,
            details: details.into_iter().map(|(name, value)| (name.to_owned(), value)).collect(),
            collapsed: collapsed(&sure, &predicted).map(named),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::reading::TaskOptions;
    use crate::task_settings::TaskSettings;

    fn task() -> MultiLabel {
        MultiLabel {
            labels: ["joy", "anger", "fear"].map(str::to_owned).to_vec(),
            thresholds: vec![0.5, 0.7, 0.5],
            length: Length::default(),
            metrics: vec!["micro_f1", "macro_f1", "exact_match"],
        }
    }

    fn predict(logits: [f32; 3]) -> Result<Prediction, TaskError> {
        let row = Row { text: Text::default(), labels: None };
        task().predict(&row, &Encoded { examples: Vec::new(), cut: 0, windows: None, aux: () }, &[logits.to_vec()])
    }

    #[test]
    fn each_label_has_its_own_probability_and_threshold() {
        // 3/4 is 1 / (1 + e^−ln 3), 2/3 is 1 / (1 + e^−ln 2).
        let found = predict([3f32.ln(), 2f32.ln(), -1.0]).unwrap();
        assert_eq!((found.labels.clone(), found.present), (vec!["joy".to_owned()], vec![true, false, false]));
        let shares: Vec<f64> = found.probabilities.iter().map(|(_, share)| *share).collect();
        assert!((shares[0] - 0.75).abs() < 1e-6 && (shares[1] - 2.0 / 3.0).abs() < 1e-6, "{shares:?}");
        assert_eq!(predict([1000.0, -1000.0, 0.0]).unwrap().labels, ["joy", "fear"]);
        assert!(predict([f32::NAN, 0.0, 0.0]).is_err());
        let text = serde_json::to_string(&predict([0.0, 9.0, -9.0]).unwrap()).unwrap();
        assert!(text.starts_with(r#"{"labels":["joy","anger"],"probabilities":{"#), "{text}");
    }

    #[test]
    fn cells_contain_lists_names_or_flags() {
        for (cell, expected) in [
            ("[\"joy\", \"fear\"]", &["joy", "fear"][..]),
            ("[0, 27]", &["0", "27"]),
            ("['joy', 'fear']", &["joy", "fear"]),
            ("joy, fear", &["joy", "fear"]),
            ("joy|fear, mild", &["joy", "fear, mild"]),
            ("2", &["2"]),
            ("[]", &[]),
            (" ", &[]),
        ] {
            assert_eq!(names_of(cell), expected, "{cell}");
        }
        assert_eq!(
            [flag_of("1"), flag_of("false"), flag_of("-1"), flag_of("")],
            [Ok(Some(true)), Ok(Some(false)), Ok(None), Ok(None)]
        );
        assert!(flag_of("0.7").unwrap_err().contains("expected 1, 0"));
    }

    #[test]
    fn thresholds_are_one_for_all_or_one_per_label() {
        let labels = task().labels;
        let of = |text: &str| {
            let settings: Settings = serde_json::from_value(json!({"threshold": thresholds(text)?})).unwrap();
            settings.threshold.unwrap().of(&labels).map_err(|e| e.to_string())
        };
        assert_eq!(of("0.4").unwrap(), [0.4; 3]);
        assert_eq!(of("anger=0.7, joy=0.2").unwrap(), [0.2, 0.7, 0.5]);
        assert!(of("1.5").unwrap_err().contains("from 0 to 1"));
        assert!(of("joy=0.2,0.3").unwrap_err().contains("LABEL=P"));
        assert!(of("hope=0.2").unwrap_err().contains("expected labels among joy, anger, fear, found hope"));
    }

    /// The task and rows of a file, with these label names.
    fn read(name: &str, text: &str, labels: &str) -> Result<(MultiLabel, Vec<Row>), TaskError> {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join(name);
        std::fs::write(&path, text).unwrap();
        let labels = (!labels.is_empty()).then(|| labels.split(',').map(str::to_owned).collect());
        let settings =
            TaskSettings { own: [("threshold".to_owned(), 0.4.into())].into_iter().collect(), ..Default::default() };
        let reading =
            Reading::new(&KIND.description, TaskOptions { labels, settings, ..TaskOptions::default() }, None).unwrap();
        let tokens = cloze_text::SPECIAL_TOKENS.iter().map(|token| token.to_string()).collect();
        let tokenizer = Tokenizer::from_tokens(tokens, false).unwrap();
        let start = Config::default();
        let (task, rows) =
            MultiLabel::from_training_files(&reading, &[path], &start, &tokenizer, &mut Notes::default())?;
        Ok((task, rows.into_iter().collect::<Result<_, _>>()?))
    }

    #[test]
    fn files_are_read_in_three_ways() {
        let golds = |rows: &[Row]| -> Vec<Gold> { rows.iter().map(|row| row.labels.clone().unwrap()).collect() };
        let both = vec![vec![Some(true), Some(true)], vec![Some(false), Some(false)], vec![Some(false), Some(true)]];
        let jsonl = "{\"text\": \"a\", \"labels\": [1, 0]}\n{\"text\": \"b\", \"labels\": []}\n{\"text\": \"c\", \"labels\": [1]}\n";
        let (task, rows) = read("a.jsonl", jsonl, "joy,anger").unwrap();
        assert_eq!((task.labels.join(","), golds(&rows)), ("joy,anger".to_owned(), both.clone()));
        assert_eq!(task.thresholds, [0.4; 2]);
        let (task, rows) = read("a.jsonl", jsonl, "").unwrap();
        assert_eq!((task.labels.join(","), golds(&rows)), ("0,1".to_owned(), both.clone()));
        let tsv = "label\ttext\nanger|joy\ta\n\tb\njoy\tc\n";
        let (task, rows) = read("a.tsv", tsv, "").unwrap();
        assert_eq!((task.labels.join(","), golds(&rows)), ("anger,joy".to_owned(), both));
        assert_eq!(rows[2].text.text, "c");
        let csv = "id,text,joy,anger\n1,a,1,0\n2,b,-1,1\n";
        let (task, rows) = read("a.csv", csv, "joy,anger").unwrap();
        assert_eq!(task.labels, ["joy", "anger"]);
        assert_eq!(golds(&rows), [vec![Some(true), Some(false)], vec![None, Some(true)]]);
        let fails = |name: &str, text: &str, labels: &str, expected: &str| {
            let error = read(name, text, labels).unwrap_err().to_string();
            assert!(error.contains(expected), "{error}");
        };
        fails("a.csv", csv, "", "no column \"label\"");
        fails("a.csv", "text,joy\na,yes\n", "joy", "a.csv:2: column \"joy\": expected 1, 0,");
        fails("a.tsv", tsv, "joy,fear", "a.tsv:2: unknown label \"anger\"");
        fails("a.tsv", "text\tlabel\na\t\n", "", "`labels`: no row has a label");
    }

    #[test]
    fn scores_are_micro_macro_and_exact() {
        let row = |marks: [i8; 3]| Row {
            text: Text::default(),
            labels: Some(marks.map(|mark| (mark >= 0).then_some(mark == 1)).to_vec()),
        };
        let rows = [row([1, 1, 0]), row([1, 0, -1])];
        let found = [predict([9.0, 9.0, -9.0]).unwrap(), predict([-9.0, 9.0, -9.0]).unwrap()];
        let scores = task().scores(&rows.iter().collect::<Vec<_>>(), &found.iter().collect::<Vec<_>>());
        // joy: 1 of 2 found; anger: 1 of 2 predicted is right; fear: never.
        assert_eq!((scores.main_name(), scores.rows, scores.collapsed.clone()), ("micro_f1", 2, None));
        assert!((scores.main() - 2.0 / 3.0).abs() < 1e-12);
        assert!((scores.get("macro_f1").unwrap() - (2.0 / 3.0 + 2.0 / 3.0) / 3.0).abs() < 1e-12);
        assert_eq!(scores.get("exact_match"), Some(1.0));
        assert_eq!(scores.details["by_label"]["joy"]["recall"], 0.5);
        let same = [&found[0], &found[0]];
        let scores = task().scores(&rows.iter().collect::<Vec<_>>(), &same);
        assert_eq!(scores.collapsed.as_deref(), Some("joy, anger"));
    }
}
