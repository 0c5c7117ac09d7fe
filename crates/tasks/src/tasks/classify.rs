//! One label for a text or a pair: \[CLS\] through the pooler to a softmax over the labels.

use cloze_model::{Config, TaskHead};
use cloze_text::Tokenizer;
use serde::{Serialize, Serializer};
use serde_json::json;

use super::{Length, Text, collapsed, largest, softmax};
use crate::TaskError;
use crate::datasets::known::Metric;
use crate::example::{Example, Target};
use crate::metrics::classes::{ConfusionMatrix, accuracy, macro_average, matthews, of_class};
use crate::task::{Encoded, Scores, Task};

/// Classification of texts.
#[derive(Debug, Clone)]
pub struct Classify {
    /// The labels' names by their numbers.
    pub labels: Vec<String>,
    /// What is done with long texts.
    pub length: Length,
    /// What is reported; the first decides which model is best.
    pub metrics: Vec<Metric>,
}

/// A text with its label.
#[derive(Debug, Clone, PartialEq)]
pub struct Row {
    /// The text or pair.
    pub text: Text,
    /// The number of its label, if known.
    pub label: Option<usize>,
}

/// The label of a text.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Prediction {
    /// The likeliest label.
    pub label: String,
    /// The probability of each label, in the labels' order.
    #[serde(serialize_with = "as_map")]
    pub probabilities: Vec<(String, f64)>,
    /// The likeliest label's number.
    #[serde(skip)]
    pub class: usize,
}

fn as_map<S: Serializer>(pairs: &[(String, f64)], to: S) -> Result<S::Ok, S::Error> {
    to.collect_map(pairs.iter().map(|(name, value)| (name, value)))
}

impl Task for Classify {
    type Row = Row;
    type Notes = ();
    type Prediction = Prediction;

    fn head(&self) -> TaskHead {
        TaskHead::Classify { labels: self.labels.len() }
    }

    fn describe(&self, config: &mut Config) {
        config.set_labels(&self.labels);
        config.extra.insert("problem_type".to_owned(), "single_label_classification".into());
    }

    fn encode(&self, row: &Row, tokenizer: &Tokenizer) -> Result<Encoded<()>, TaskError> {
        let (sequences, cut) = self.length.sequences(tokenizer, &row.text)?;
        Ok(Encoded { examples: vec![Example { sequences, target: Target::Class(row.label) }], cut, notes: () })
    }

    fn predict(&self, row: &Row, _: &Encoded<()>, logits: &[Vec<f32>]) -> Result<Prediction, TaskError> {
        let logits = logits.first().map_or(&[][..], Vec::as_slice);
        let shares = softmax(logits).filter(|shares| shares.len() == self.labels.len());
        let shares = shares.ok_or_else(|| TaskError::Logits(format!("text {:?}", row.text.text)))?;
        let class = largest(&shares);
        let probabilities = self.labels.iter().cloned().zip(shares).collect();
        Ok(Prediction { label: self.labels[class].clone(), probabilities, class })
    }

    fn scores(&self, rows: &[&Row], predictions: &[&Prediction]) -> Scores {
        let known = rows.iter().zip(predictions).filter_map(|(row, found)| Some((row.label?, found.class)));
        let (gold, predicted): (Vec<usize>, Vec<usize>) = known.unzip();
        let classes = self.labels.len();
        let value = |metric: &Metric| match metric {
            Metric::Matthews => ("matthews", matthews(&gold, &predicted, classes)),
            // GLUE's F1 is that of label 1; of more labels, the mean of theirs.
            Metric::F1 if classes == 2 => ("f1", of_class(&gold, &predicted, 1).f1),
            Metric::F1 => ("macro_f1", macro_average(&gold, &predicted, classes).f1),
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
            length: Length::default(),
            metrics: vec![Metric::F1, Metric::Accuracy, Metric::Matthews],
        }
    }

    fn row(label: usize) -> Row {
        Row { text: Text { text: "a text".to_owned(), pair: None }, label: Some(label) }
    }

    fn predict(logits: [f32; 2]) -> Result<Prediction, TaskError> {
        let encoded = Encoded { examples: Vec::new(), cut: 0, notes: () };
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
        // Logits too large for exp alone are no reason to fail.
        assert_eq!(predict([1000.0, -1000.0]).unwrap().probabilities[0].1, 1.0);
    }

    #[test]
    fn the_first_metric_decides_and_a_collapse_is_named() {
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
        // A set of one class is rightly given that one.
        assert_eq!(task().scores(&rows[1..], &[&yes, &yes, &yes]).collapsed, None);
    }
}
