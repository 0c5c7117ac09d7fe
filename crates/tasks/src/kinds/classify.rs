//! Classification of a text or a pair with one label: \[CLS\] through the pooler, softmax over the labels.

use std::path::PathBuf;

use cloze_model::{Class, Config, TaskHead};
use cloze_text::Tokenizer;
use serde::Serialize;
use serde_json::json;

use super::description::{Description, Examples, RejectedOptions, Rows};
use super::kind::{Kind, Mismatch};
use super::labelled_texts::{label_counts, labels_of, merge_labels, texts_of};
use super::probabilities::{argmax, as_map, collapsed, softmax};
use super::text::{EncodedText, Length, Text};
use crate::TaskError;
use crate::datasets::LabelsNeeded;
use crate::datasets::classification::LabelledTexts;
use crate::datasets::labels::Labels;
use crate::example::Target;
use crate::input::{Input, Object};
use crate::metrics::classes::{ConfusionMatrix, accuracy, macro_average, matthews, of_class};
use crate::reading::{Notes, Reading};
use crate::task::{Encoded, FileRows, HeadInit, Scores, Task};

/// The value of `problem_type` in a model's configuration.
const PROBLEM: &str = "single_label_classification";

/// A label for each text.
pub static KIND: Kind = Kind::of::<Classify>(
    Description {
        name: "classify",
        about: "a label for each text or pair of texts",
        scores: "Scores of a classifier: accuracy, F1, Matthews correlation, confusion matrix",
        input: super::text::INPUT,
        output: "label and probabilities.",
        max_len: 128,
        metrics: &["accuracy", "f1", "matthews"],
        options: &["text", "pair", "label", "labels", "metric", "stride", "long", "skip_bad", "class_weights"],
        own_options: &[],
        check: |_| Ok(()),
        rows: Rows::Texts,
        rejected_options: RejectedOptions::NONE,
        examples: Examples {
            finetune: &[
                "cloze finetune classify --train stars/train.tsv --dev stars/dev.tsv --text review --label stars --model runs/mini --out runs/stars",
                "cloze finetune classify --task mnli --data glue/MNLI --model runs/mini --out runs/mnli --seeds 5",
                "cloze finetune classify --train pairs.jsonl --text a --pair b --model runs/mini --class-weights balanced",
            ],
            sweep: &["cloze sweep classify --train a.tsv --dev b.tsv --model runs/mini --out runs/grid --seeds 3"],
            predict: &[
                "echo 'a gripping film' | cloze predict classify --model runs/sst2 --input -",
                "cloze predict classify --model runs/stars --input new.csv --text body",
            ],
            evaluate: &[
                "cloze evaluate classify --model runs/sst2 --data dev.tsv --json",
                "cloze evaluate classify --task mrpc --model runs/mrpc --data glue/MRPC --bootstrap 1000",
            ],
        },
    },
    |config, head| match head {
        TaskHead::Classify { labels: 2.. } => match config.problem_type() {
            // Its logits have another meaning: independent labels, or several numbers.
            Some(other) if other != PROBLEM => Err(Mismatch::Outputs(format!(
                "expected a model that predicts one label for each text, found problem_type {other}"
            ))),
            _ => Ok(()),
        },
        _ => Err(Mismatch::Head),
    },
);

/// Classification of texts.
#[derive(Debug, Clone)]
pub struct Classify {
    /// The names of the labels, by index.
    pub labels: Vec<String>,
    /// With two labels: the index of the positive label, whose F1 is reported. It is label 1 of the data set preset.
    pub positive: usize,
    /// How long texts are handled.
    pub length: Length,
    /// The metrics to report; the first one selects the best model.
    pub metrics: Vec<&'static str>,
}

/// A text with its label.
#[derive(Debug, Clone, PartialEq)]
pub struct Row {
    /// The text or pair.
    pub text: Text,
    /// The index of its label, if known.
    pub label: Option<usize>,
}

/// The predicted label of a text.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Prediction {
    /// The most probable label.
    pub label: String,
    /// The probability of each label, in the labels' order.
    #[serde(serialize_with = "as_map")]
    pub probabilities: Vec<(String, f64)>,
    /// The index of the most probable label.
    #[serde(skip)]
    pub class: usize,
}

impl Classify {
    fn new(labels: Vec<String>, reading: &Reading) -> Classify {
        // A model may have the preset's labels in a different order.
        let known = reading.preset().and_then(|known| known.labels.get(1));
        let positive = known.and_then(|name| labels.iter().position(|label| label.eq_ignore_ascii_case(name)));
        let (length, metrics) = (reading.length(), reading.metrics());
        Classify { positive: positive.unwrap_or(1), labels, length, metrics }
    }
}

fn rows(files: Vec<LabelledTexts>, labels: &Labels, need: LabelsNeeded, notes: &mut Notes) -> FileRows<Row> {
    let files: Vec<LabelledTexts> = files.into_iter().map(|file| file.restore_numbers(labels)).collect();
    if need == LabelsNeeded::Required {
        notes.assumed(labels, files.iter().flat_map(LabelledTexts::raw_labels));
    }
    let texts = texts_of(files, need, |label| labels.id_or_problem(label));
    texts.into_iter().map(|row| row.map(|(text, label)| Row { text, label })).collect()
}

impl Task for Classify {
    type Row = Row;
    type Aux = ();
    type Prediction = Prediction;

    fn from_training_files(
        reading: &Reading,
        train: &[PathBuf],
        start: &Config,
        _: &Tokenizer,
        notes: &mut Notes,
    ) -> Result<(Classify, FileRows<Row>), TaskError> {
        let files = reading.texts(train, LabelsNeeded::Required, notes)?;
        let found = merge_labels(files.iter().map(LabelledTexts::labels))?;
        let labels = reading.labels(found, start, Class::Classify)?;
        if labels.len() < 2 {
            // The reason may be a row that cannot be read.
            let mut failed = files.into_iter().flat_map(LabelledTexts::without_labels).filter_map(Result::err);
            if let Some(error) = failed.next().filter(|_| !reading.options().skip_bad) {
                return Err(error);
            }
            let problem =
                format!("expected at least two labels; all rows have the label {:?}", labels.names().join(", "));
            return Err(TaskError::setting("labels", problem));
        }
        let task = Classify::new(labels.names().to_vec(), reading);
        Ok((task, rows(files, &labels, LabelsNeeded::Required, notes)))
    }

    fn from_model(reading: &Reading, config: &Config, head: TaskHead) -> Result<Classify, TaskError> {
        Ok(Classify::new(labels_of(config, head.logits()), reading))
    }

    fn read(
        &self,
        reading: &Reading,
        paths: &[PathBuf],
        need: LabelsNeeded,
        _: &Tokenizer,
        notes: &mut Notes,
    ) -> Result<FileRows<Row>, TaskError> {
        Ok(rows(reading.texts(paths, need, notes)?, &reading.labels_of(&self.labels)?, need, notes))
    }

    fn row(&self, reading: &Reading, input: Input<'_>, _: &Tokenizer) -> Result<Row, TaskError> {
        Ok(Row { text: reading.text_of(input)?, label: None })
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
        label_counts(&self.labels, rows.iter().filter_map(|row| row.label))
    }

    fn encode(&self, row: &Row, tokenizer: &Tokenizer) -> Result<Encoded<()>, TaskError> {
        let EncodedText { examples, cut, windows } =
            self.length.encode(tokenizer, &row.text, Target::class(row.label))?;
        Ok(Encoded { examples, cut, windows, aux: () })
    }

    fn row_json(&self, row: &Row) -> Object {
        row.text.row_json(row.label.map(|label| self.labels[label].as_str()))
    }

    fn predict(&self, row: &Row, _: &Encoded<()>, logits: &[Vec<f32>]) -> Result<Prediction, TaskError> {
        let logits = logits.first().map_or(&[][..], Vec::as_slice);
        let shares = softmax(logits).filter(|shares| shares.len() == self.labels.len());
        let shares = shares.ok_or_else(|| TaskError::Logits(format!("text {:?}", row.text.text)))?;
        let class = argmax(&shares);
        let probabilities = self.labels.iter().cloned().zip(shares).collect();
        Ok(Prediction { label: self.labels[class].clone(), probabilities, class })
    }

    fn scores(&self, rows: &[&Row], predictions: &[&Prediction]) -> Scores {
        let known = rows.iter().zip(predictions).filter_map(|(row, found)| Some((row.label?, found.class)));
        let (gold, predicted): (Vec<usize>, Vec<usize>) = known.unzip();
        let classes = self.labels.len();
        let value = |metric: &&str| match *metric {
            "matthews" => ("matthews", matthews(&gold, &predicted, classes)),
            // GLUE's F1 is that of label 1; with more labels it is the mean over the labels.
            "f1" if classes == 2 => ("f1", of_class(&gold, &predicted, self.positive).f1),
            "f1" => ("macro_f1", macro_average(&gold, &predicted, classes).f1),
            _ => ("accuracy", accuracy(&gold, &predicted)),
        };
        let mut values: Vec<(String, f64)> = Vec::new();
        for (name, score) in self.metrics.iter().map(value) {
            if values.iter().all(|(known, _)| known != name) {
                values.push((name.to_owned(), score));
            }
        }
        let by_label: serde_json::Map<String, serde_json::Value> = self
            .labels
            .iter()
            .enumerate()
            .map(|(class, label)| (label.clone(), json!(of_class(&gold, &predicted, class))))
            .collect();
        let confusion = ConfusionMatrix::new(&gold, &predicted, self.labels.clone());
        let details = [("by_label".to_owned(), by_label.into()), ("confusion".to_owned(), json!(confusion))];
        Scores {
            rows: gold.len(),
            values,
            details: details.into_iter().collect(),
            collapsed: collapsed(&gold, &predicted).map(|class| self.labels[*class].clone()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn task() -> Classify {
        Classify {
            labels: vec!["no".to_owned(), "yes".to_owned()],
            positive: 1,
            length: Length::default(),
            metrics: vec!["f1", "accuracy", "matthews"],
        }
    }

    fn row(label: usize) -> Row {
        Row { text: Text { text: "a text".to_owned(), pair: None }, label: Some(label) }
    }

    fn predict(logits: [f32; 2]) -> Result<Prediction, TaskError> {
        let encoded = Encoded { examples: Vec::new(), cut: 0, windows: None, aux: () };
        task().predict(&row(0), &encoded, &[logits.to_vec()])
    }

    #[test]
    fn predictions_are_probabilities_of_labels() {
        let found = predict([0.0, 3f32.ln()]).unwrap();
        assert_eq!(found.label, "yes");
        let text = serde_json::to_string(&found).unwrap();
        assert!(text.starts_with(r#"{"label":"yes","probabilities":{"no":0.2"#), "{text}");
        assert!((found.probabilities[0].1 - 0.25).abs() < 1e-6);
        assert!(predict([f32::NAN, 0.0]).is_err());
        // Logits for which exp overflows are valid.
        assert_eq!(predict([1000.0, -1000.0]).unwrap().probabilities[0].1, 1.0);
    }

    #[test]
    fn the_first_metric_is_the_main_score_and_a_collapse_is_reported() {
        let rows = [row(0), row(1), row(1), row(1)];
        let rows: Vec<&Row> = rows.iter().collect();
        let [yes, no] = [[0.0, 1.0], [1.0, 0.0]].map(|logits| predict(logits).unwrap());
        let scores = task().scores(&rows, &[&yes, &yes, &yes, &no]);
        assert_eq!((scores.main_name(), scores.rows), ("f1", 4));
        assert!((scores.main() - 2.0 / 3.0).abs() < 1e-12);
        assert_eq!(scores.get("accuracy"), Some(0.5));
        assert_eq!(scores.collapsed, None);
        assert_eq!(scores.details["confusion"]["counts"], json!([[0, 1], [1, 2]]));
        let collapsed = task().scores(&rows, &[&yes, &yes, &yes, &yes]);
        assert_eq!(collapsed.collapsed.as_deref(), Some("yes"));
        // If all gold labels are the same, it is correct to predict only this label.
        assert_eq!(task().scores(&rows[1..], &[&yes, &yes, &yes]).collapsed, None);
    }
}
