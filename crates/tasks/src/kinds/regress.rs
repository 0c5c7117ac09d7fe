//! Regression on a text or a pair: \[CLS\] through the pooler to one output, trained with the squared error.

use std::path::PathBuf;

use cloze_model::{Config, TaskHead};
use cloze_text::Tokenizer;
use serde::Serialize;

use super::description::{Description, Examples, RejectedOptions, Rows};
use super::kind::{Kind, Mismatch};
use super::labelled_texts::texts_of;
use super::text::{EncodedText, Length, Text};
use crate::TaskError;
use crate::datasets::LabelsNeeded;
use crate::datasets::classification::score;
use crate::example::Target;
use crate::input::{Input, Object};
use crate::metrics::correlation::{pearson, spearman};
use crate::reading::{Notes, Reading};
use crate::task::{Encoded, FileRows, HeadInit, Scores, Task};

/// A number for each text.
pub static KIND: Kind = Kind::of::<Regress>(
    Description {
        name: "regress",
        about: "a number for each text or pair of texts",
        scores: "Scores of a regression: Pearson and Spearman correlation",
        input: super::text::INPUT,
        output: "value.",
        max_len: 128,
        metrics: &["pearson", "spearman"],
        options: &["text", "pair", "label", "metric", "stride", "long", "skip_bad"],
        own_options: &[],
        check: |_| Ok(()),
        rows: Rows::Texts,
        rejected_options: RejectedOptions::NONE,
        examples: Examples {
            finetune: &[
                "cloze finetune regress --task stsb --data glue/STS-B --model runs/mini --out runs/stsb",
                "cloze finetune regress --train pairs.csv --dev dev.csv --text a --pair b --label score --model runs/mini",
            ],
            sweep: &["cloze sweep regress --task stsb --data glue/STS-B --model runs/mini"],
            predict: &["cloze predict regress --model runs/stsb --input pairs.tsv --text a --pair b"],
            evaluate: &["cloze evaluate regress --model runs/stsb --data glue/STS-B/dev.tsv"],
        },
    },
    |_, head| match head {
        TaskHead::Classify { labels: 1 } => Ok(()),
        _ => Err(Mismatch::Head),
    },
);

/// Regression on texts.
#[derive(Debug, Clone)]
pub struct Regress {
    /// How long texts are handled.
    pub length: Length,
    /// The metrics to report in addition to the mean squared error; the first one selects the best model.
    pub metrics: Vec<&'static str>,
}

/// A text with its number.
#[derive(Debug, Clone, PartialEq)]
pub struct Row {
    /// The text or pair.
    pub text: Text,
    /// The gold number, if known.
    pub value: Option<f32>,
}

/// The predicted number of a text.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Prediction {
    /// The number.
    pub value: f32,
}

impl Task for Regress {
    type Row = Row;
    type Aux = ();
    type Prediction = Prediction;

    fn from_training_files(
        reading: &Reading,
        train: &[PathBuf],
        _: &Config,
        tokenizer: &Tokenizer,
        notes: &mut Notes,
    ) -> Result<(Regress, FileRows<Row>), TaskError> {
        let task = Regress { length: reading.length(), metrics: reading.metrics() };
        let rows = task.read(reading, train, LabelsNeeded::Required, tokenizer, notes)?;
        Ok((task, rows))
    }

    fn from_model(reading: &Reading, _: &Config, _: TaskHead) -> Result<Regress, TaskError> {
        Ok(Regress { length: reading.length(), metrics: reading.metrics() })
    }

    fn read(
        &self,
        reading: &Reading,
        paths: &[PathBuf],
        need: LabelsNeeded,
        _: &Tokenizer,
        notes: &mut Notes,
    ) -> Result<FileRows<Row>, TaskError> {
        let texts = texts_of(reading.texts(paths, need, notes)?, need, score);
        let mut values = texts.iter().flatten().filter_map(|(_, value)| *value);
        if let (Some(first), Some(_)) = (values.next(), values.next())
            && texts.iter().flatten().all(|(_, value)| value.is_none_or(|value| value == first))
        {
            let files: Vec<String> = paths.iter().map(|path| path.display().to_string()).collect();
            notes.0.push(format!(
                "{}: all numbers are {first}; their correlation with the predictions is undefined",
                files.join(", ")
            ));
        }
        Ok(texts.into_iter().map(|row| row.map(|(text, value)| Row { text, value })).collect())
    }

    fn row(&self, reading: &Reading, input: Input<'_>, _: &Tokenizer) -> Result<Row, TaskError> {
        Ok(Row { text: reading.text_of(input)?, value: None })
    }

    fn head(&self) -> TaskHead {
        TaskHead::Classify { labels: 1 }
    }

    fn describe(&self, config: &mut Config) {
        // The default name of Transformers for a single label.
        config.set_labels(&["LABEL_0".to_owned()]);
        config.extra.insert("problem_type".to_owned(), "regression".into());
    }

    fn head_init(&self, start: &Config, _: bool) -> HeadInit {
        match start.problem_type() {
            // Transformers interprets one output without a problem type as a regression.
            None | Some("regression") => HeadInit::Copied { rows: None, note: String::new() },
            Some(other) => HeadInit::Random { reason: format!("its problem_type is {other}") },
        }
    }

    fn encode(&self, row: &Row, tokenizer: &Tokenizer) -> Result<Encoded<()>, TaskError> {
        let EncodedText { examples, cut, windows } =
            self.length.encode(tokenizer, &row.text, Target::value(row.value))?;
        Ok(Encoded { examples, cut, windows, aux: () })
    }

    fn row_json(&self, row: &Row) -> Object {
        row.text.row_json(row.value)
    }

    fn predict(&self, row: &Row, _: &Encoded<()>, logits: &[Vec<f32>]) -> Result<Prediction, TaskError> {
        match logits.first().and_then(|logits| logits.first()) {
            Some(value) if value.is_finite() => Ok(Prediction { value: *value }),
            _ => Err(TaskError::Logits(format!("text {:?}", row.text.text))),
        }
    }

    fn scores(&self, rows: &[&Row], predictions: &[&Prediction]) -> Scores {
        let known = rows
            .iter()
            .zip(predictions)
            .filter_map(|(row, found)| Some((f64::from(row.value?), f64::from(found.value))));
        let (gold, predicted): (Vec<f64>, Vec<f64>) = known.unzip();
        let value = |metric: &&str| match *metric {
            "spearman" => ("spearman", spearman(&gold, &predicted)),
            _ => ("pearson", pearson(&gold, &predicted)),
        };
        // The correlation with a constant is undefined.
        let named = |(name, score): (&str, Option<f64>)| (name.to_owned(), score.unwrap_or(f64::NAN));
        let mut values: Vec<(String, f64)> = self.metrics.iter().map(value).map(named).collect();
        let squares: f64 = gold.iter().zip(&predicted).map(|(a, b)| (a - b).powi(2)).sum();
        values.push(("mean_squared_error".to_owned(), squares / gold.len().max(1) as f64));
        let constant = predicted.first().filter(|first| predicted.len() > 1 && predicted.iter().all(|x| x == *first));
        Scores {
            rows: gold.len(),
            values,
            details: serde_json::Map::new(),
            collapsed: constant.map(|value| format!("{value}")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_correlation_is_the_main_score() {
        let task = Regress { length: Length::default(), metrics: vec!["spearman", "pearson"] };
        let rows: Vec<Row> = [1.0, 2.0, 3.0].map(|v| Row { text: Text::default(), value: Some(v) }).to_vec();
        let rows: Vec<&Row> = rows.iter().collect();
        let found = [0.0, 1.0, 10.0].map(|value| Prediction { value });
        let scores = task.scores(&rows, &found.iter().collect::<Vec<_>>());
        assert_eq!(scores.main_name(), "spearman");
        assert!((scores.main() - 1.0).abs() < 1e-12);
        assert!(scores.get("pearson").unwrap() < 1.0);
        assert_eq!(scores.get("mean_squared_error"), Some(17.0));
        let constant = [Prediction { value: 2.0 }; 3];
        let scores = task.scores(&rows, &constant.iter().collect::<Vec<_>>());
        assert!(scores.main().is_nan() && scores.collapsed.is_some());
    }
}
