//! Reranking: the relevance of a document to a query. \[CLS\] through the pooler to one output, trained with the binary
//! cross-entropy (sentence-transformers' `BinaryCrossEntropyLoss`) or with the squared error (`MSELoss`).
//!
//! The model is a cross-encoder that sentence-transformers opens, with the same scores. Its length is therefore the
//! limit of its tokenizer, unless the caller sets one; the length of its training is not stored as a default.

use std::collections::HashMap;
use std::path::PathBuf;

use cloze_model::{Config, TaskHead};
use cloze_text::Tokenizer;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::description::{Description, Examples, KindOption, RejectedOptions, Rows, Values};
use super::kind::{Kind, Mismatch};
use super::labelled_texts::texts_of;
use super::text::{Length, Text};
use crate::TaskError;
use crate::datasets::LabelsNeeded;
use crate::embed::modules::Activation;
use crate::example::{Example, Target};
use crate::input::{Input, Object};
use crate::metrics::binary::{average_precision, best_accuracy, best_f1};
use crate::metrics::correlation::spearman;
use crate::metrics::reranking::{RerankingScores, mean, of_query};
use crate::reading::{Notes, Reading};
use crate::rerank::{activation_of_config, is_cross_encoder};
use crate::task::{Encoded, FileRows, HeadInit, Scores, Task};

/// The documents of a query that nDCG and MRR consider.
const CUTOFF: usize = 10;
/// The label from which a document is relevant.
const RELEVANT: f32 = 0.5;

/// A score for each pair of a query and a document.
pub static KIND: Kind = Kind::of::<Rerank>(
    Description {
        name: "rerank",
        about: "a score of relevance for each pair of a query and a document",
        scores: "Scores of a reranker: average precision of all pairs; nDCG@10, MRR@10 and MAP of the documents of each query",
        input: super::text::INPUT,
        output: "score.",
        max_len: 512,
        metrics: &["average_precision", "ndcg_at_10", "mrr_at_10", "map", "f1", "accuracy", "spearman"],
        options: &["text", "pair", "label", "metric", "skip_bad"],
        own_options: &[KindOption {
            name: "loss",
            help: "Loss of a reranker [default: bce]",
            rare: false,
            values: Values::OneOf {
                placeholder: "LOSS",
                names: &[
                    ("bce", "Binary cross-entropy: labels from 0 to 1; scores are probabilities"),
                    ("mse", "Squared error: labels are any numbers, such as the scores of another model"),
                ],
            },
        }],
        check: |_| Ok(()),
        rows: Rows::Texts,
        rejected_options: RejectedOptions {
            finetune: &[],
            predict: &[("loss", "predict computes no loss")],
            evaluate: &[("loss", "the loss of a fine-tuned model is that of its training")],
        },
        examples: Examples {
            finetune: &[
                "cloze finetune rerank --train pairs.tsv --dev dev.tsv --text query --pair document --model runs/mini --out runs/reranker",
                "cloze finetune rerank --train scored.jsonl --text query --pair passage --label score --loss mse --model runs/mini",
            ],
            sweep: &[
                "cloze sweep rerank --train a.tsv --dev b.tsv --text query --pair document --model runs/mini --out runs/grid",
            ],
            predict: &["cloze predict rerank --model runs/reranker --input pairs.tsv --text query --pair document"],
            evaluate: &["cloze evaluate --model runs/reranker --data dev.tsv --text query --pair document"],
        },
    },
    |_, head| match head {
        TaskHead::Classify { labels: 1 } => Ok(()),
        _ => Err(Mismatch::Head),
    },
);

/// The loss of the training.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Loss {
    /// Binary cross-entropy.
    #[default]
    Bce,
    /// Squared error.
    Mse,
}

/// The settings specific to this kind.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Settings {
    loss: Option<Loss>,
}

/// Reranking of documents.
#[derive(Debug, Clone)]
pub struct Rerank {
    /// Maximum number of tokens of a pair; none: the tokenizer's limit, at most the number of positions.
    pub max_len: Option<usize>,
    /// The number of the model's positions.
    pub positions: usize,
    /// The loss.
    pub loss: Loss,
    /// The function that is applied to the output.
    pub activation: Activation,
    /// The metrics to report; the first one selects the best model.
    pub metrics: Vec<&'static str>,
}

/// A query and a document, with their label.
#[derive(Debug, Clone, PartialEq)]
pub struct Row {
    /// The query and the document.
    pub text: Text,
    /// The label, if known.
    pub label: Option<f32>,
}

/// The score of a pair.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Prediction {
    /// The output after the activation.
    pub score: f32,
}

impl Rerank {
    fn new(reading: &Reading, config: &Config, is_new: bool) -> Result<Rerank, TaskError> {
        let [given, stored] =
            [&reading.options().settings, reading.stored()].map(|settings| settings.own::<Settings>());
        let loss = given?.loss.or(stored?.loss).unwrap_or_default();
        let stored = activation_of_config(config)?;
        let activation = match is_new && !is_cross_encoder(config) {
            true => default_activation(loss),
            false => stored.unwrap_or(Activation::Sigmoid),
        };
        Ok(Rerank {
            max_len: reading.options().settings.max_len,
            positions: config.architecture().max_sequence_length(),
            loss,
            activation,
            metrics: reading.metrics(),
        })
    }

    /// Parses a label.
    fn label(&self, label: &str) -> Result<f32, String> {
        let number = label.parse::<f32>().ok().filter(|number| number.is_finite());
        match (number, self.loss) {
            (Some(number), Loss::Mse) => Ok(number),
            (Some(number), Loss::Bce) if (0.0..=1.0).contains(&number) => Ok(number),
            (_, Loss::Bce) => Err(format!(
                "expected 1 (relevant), 0, or a number between them, found \"{label}\"; for other numbers set `loss` to mse"
            )),
            (None, Loss::Mse) => Err(format!("expected a finite number such as 3.5, found \"{label}\"")),
        }
    }

    /// Checks that a row has a document.
    fn pair(&self, text: Text) -> Result<Text, TaskError> {
        match &text.pair {
            Some(document) if !document.trim().is_empty() && !text.text.trim().is_empty() => Ok(text),
            Some(_) => Err(TaskError::input("text", "expected a query and a document, found only white space in one")),
            None => {
                Err(TaskError::input("pair", "expected a query and a document, found one text; set `text` and `pair`"))
            }
        }
    }
}

/// The activation of a new model: with the binary cross-entropy, outputs are logits.
fn default_activation(loss: Loss) -> Activation {
    match loss {
        Loss::Bce => Activation::Sigmoid,
        Loss::Mse => Activation::Identity,
    }
}

impl Task for Rerank {
    type Row = Row;
    type Aux = ();
    type Prediction = Prediction;

    fn from_training_files(
        reading: &Reading,
        train: &[PathBuf],
        start: &Config,
        tokenizer: &Tokenizer,
        notes: &mut Notes,
    ) -> Result<(Rerank, FileRows<Row>), TaskError> {
        let task = Rerank::new(reading, start, true)?;
        let rows = task.read(reading, train, LabelsNeeded::Required, tokenizer, notes)?;
        Ok((task, rows))
    }

    fn from_model(reading: &Reading, config: &Config, _: TaskHead) -> Result<Rerank, TaskError> {
        Rerank::new(reading, config, false)
    }

    fn own_settings(&self, _: &Reading) -> Object {
        let name = if self.loss == Loss::Mse { "mse" } else { "bce" };
        [("loss".to_owned(), Value::from(name))].into_iter().collect()
    }

    fn read(
        &self,
        reading: &Reading,
        paths: &[PathBuf],
        need: LabelsNeeded,
        _: &Tokenizer,
        notes: &mut Notes,
    ) -> Result<FileRows<Row>, TaskError> {
        let texts = texts_of(reading.texts(paths, need, notes)?, need, |label| self.label(label));
        let row = |row: Result<(Text, Option<f32>), TaskError>| {
            let (text, label) = row?;
            Ok(Row { text: self.pair(text)?, label })
        };
        Ok(texts.into_iter().map(row).collect())
    }

    fn row(&self, reading: &Reading, input: Input<'_>, _: &Tokenizer) -> Result<Row, TaskError> {
        Ok(Row { text: self.pair(reading.text_of(input)?)?, label: None })
    }

    fn head(&self) -> TaskHead {
        TaskHead::Classify { labels: 1 }
    }

    fn describe(&self, config: &mut Config) {
        config.set_labels(&["LABEL_0".to_owned()]);
        config.extra.remove("problem_type");
        if !is_cross_encoder(config) {
            let class = match self.activation {
                Activation::Identity => "torch.nn.modules.linear.Identity".to_owned(),
                other => format!("torch.nn.modules.activation.{}", other.name()),
            };
            config.extra.insert("sentence_transformers".to_owned(), json!({"activation_fn": class}));
        }
    }

    fn head_init(&self, start: &Config, _: bool) -> HeadInit {
        match start.problem_type() {
            None | Some("regression") => HeadInit::Copied { rows: None, note: String::new() },
            Some(other) => HeadInit::Random { reason: format!("its problem_type is {other}") },
        }
    }

    fn summary(&self, rows: &[&Row]) -> Vec<String> {
        let labels: Vec<f32> = rows.iter().filter_map(|row| row.label).collect();
        if labels.is_empty() {
            return Vec::new();
        }
        let queries: HashMap<&str, usize> = rows.iter().map(|row| (row.text.text.as_str(), 0)).collect();
        let relevant = labels.iter().filter(|label| **label >= RELEVANT).count();
        vec![format!(
            "{} pairs of {} queries, {relevant} with a label of at least {RELEVANT}",
            rows.len(),
            queries.len()
        )]
    }

    fn encode(&self, row: &Row, tokenizer: &Tokenizer) -> Result<Encoded<()>, TaskError> {
        let limit = self.max_len.or(tokenizer.model_max_length()).unwrap_or(self.positions);
        // A limit that the caller sets is checked against the model.
        let max_len = if self.max_len.is_some() { limit } else { limit.min(self.positions) };
        let (sequences, cut) = Length { max_len, stride: None }.sequences(tokenizer, &row.text)?;
        let target = match self.loss {
            Loss::Bce => Target::Binary(vec![row.label.unwrap_or(f32::NAN)]),
            Loss::Mse => Target::value(row.label),
        };
        Ok(Encoded { examples: vec![Example::new(sequences, target)], cut, aux: () })
    }

    fn row_json(&self, row: &Row) -> Object {
        row.text.row_json(row.label)
    }

    fn predict(&self, row: &Row, _: &Encoded<()>, logits: &[Vec<f32>]) -> Result<Prediction, TaskError> {
        match logits.first().and_then(|logits| logits.first()) {
            Some(logit) if logit.is_finite() => Ok(Prediction { score: self.activation.apply(*logit) }),
            _ => Err(TaskError::Logits(format!("text {:?}", row.text.text))),
        }
    }

    fn scores(&self, rows: &[&Row], predictions: &[&Prediction]) -> Scores {
        let known = rows.iter().zip(predictions).filter_map(|(row, found)| Some((row.label?, found.score)));
        let (gold, predicted): (Vec<f32>, Vec<f32>) = known.unzip();
        let relevant: Vec<bool> = gold.iter().map(|label| *label >= RELEVANT).collect();
        let queries = rows.iter().filter(|row| row.label.is_some()).map(|row| row.text.text.as_str());
        let lists = of_lists(queries, &relevant, &predicted);
        let of_queries = |value: fn(&RerankingScores) -> f64| lists.as_ref().map(value);
        let wide = |numbers: &[f32]| numbers.iter().copied().map(f64::from).collect::<Vec<_>>();
        let value = |metric: &&str| match *metric {
            "ndcg_at_10" => of_queries(|scores| scores.ndcg),
            "mrr_at_10" => of_queries(|scores| scores.mrr),
            "map" => of_queries(|scores| scores.map),
            "f1" => Some(best_f1(&relevant, &predicted).f1),
            "accuracy" => best_accuracy(&relevant, &predicted).map(|best| best.accuracy),
            "spearman" => spearman(&wide(&gold), &wide(&predicted)),
            _ => average_precision(&relevant, &predicted),
        };
        let named = |metric: &&'static str| ((*metric).to_owned(), value(metric).unwrap_or(f64::NAN));
        let constant = predicted.first().filter(|first| predicted.len() > 1 && predicted.iter().all(|x| x == *first));
        Scores {
            rows: gold.len(),
            values: self.metrics.iter().map(named).collect(),
            details: serde_json::Map::new(),
            collapsed: constant.map(|score| format!("{score}")),
        }
    }
}

/// The mean scores of the queries that have a relevant document and another one; none if there are no such queries.
fn of_lists<'a>(queries: impl Iterator<Item = &'a str>, relevant: &[bool], scores: &[f32]) -> Option<RerankingScores> {
    let mut number_of: HashMap<&str, usize> = HashMap::new();
    let mut lists: Vec<(Vec<bool>, Vec<f32>)> = Vec::new();
    for ((query, relevant), score) in queries.zip(relevant).zip(scores) {
        let number = *number_of.entry(query).or_insert(lists.len());
        if number == lists.len() {
            lists.push(Default::default());
        }
        lists[number].0.push(*relevant);
        lists[number].1.push(*score);
    }
    let scored = lists.iter().filter(|(relevant, _)| relevant.contains(&true) && relevant.contains(&false));
    let found: Vec<RerankingScores> = scored.map(|(relevant, scores)| of_query(relevant, scores, CUTOFF)).collect();
    (!found.is_empty()).then(|| mean(&found))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn task(loss: Loss) -> Rerank {
        Rerank {
            max_len: None,
            positions: 64,
            loss,
            activation: default_activation(loss),
            metrics: vec!["ndcg_at_10", "average_precision", "map", "mrr_at_10", "spearman"],
        }
    }

    fn row(query: &str, label: f32) -> Row {
        Row { text: Text { text: query.to_owned(), pair: Some("d".to_owned()) }, label: Some(label) }
    }

    #[test]
    fn documents_are_ranked_among_those_of_their_query() {
        let rows = [row("a", 1.0), row("b", 1.0), row("a", 0.0), row("b", 0.0), row("c", 1.0)];
        let rows: Vec<&Row> = rows.iter().collect();
        // Within each query the order is right, although not among all pairs.
        let found = [0.9, 0.2, 0.8, 0.1, 0.5].map(|score| Prediction { score });
        let scores = task(Loss::Bce).scores(&rows, &found.iter().collect::<Vec<_>>());
        assert_eq!((scores.main_name(), scores.main(), scores.rows), ("ndcg_at_10", 1.0, 5));
        assert_eq!((scores.get("map"), scores.get("mrr_at_10")), (Some(1.0), Some(1.0)));
        let expected = (1.0 + 2.0 / 3.0 + 3.0 / 4.0) / 3.0;
        assert!((scores.get("average_precision").unwrap() - expected).abs() < 1e-12, "{scores:?}");
        let scores = task(Loss::Bce).scores(&rows[4..], &[&found[4]]);
        assert!(scores.main().is_nan() && scores.get("average_precision") == Some(1.0));
        let same = [Prediction { score: 0.5 }; 5];
        assert!(task(Loss::Bce).scores(&rows, &same.iter().collect::<Vec<_>>()).collapsed.is_some());
    }

    #[test]
    fn labels_fit_the_loss() {
        for label in ["0", "1", "0.25", "1.0"] {
            assert!(task(Loss::Bce).label(label).is_ok() && task(Loss::Mse).label(label).is_ok());
        }
        for label in ["2", "-0.5"] {
            assert!(task(Loss::Bce).label(label).unwrap_err().contains("`loss` to mse"));
            assert!(task(Loss::Mse).label(label).is_ok());
        }
        for label in ["nan", "inf", "x", ""] {
            assert!(task(Loss::Bce).label(label).is_err() && task(Loss::Mse).label(label).is_err());
        }
    }

    #[test]
    fn the_activation_is_stored_and_that_of_a_cross_encoder_is_kept() {
        let mut config = Config::default();
        config.extra.insert("problem_type".to_owned(), "regression".into());
        task(Loss::Mse).describe(&mut config);
        let stored = json!({"activation_fn": "torch.nn.modules.linear.Identity"});
        assert_eq!(config.extra["sentence_transformers"], stored);
        assert_eq!((config.problem_type(), config.labels().unwrap().len()), (None, 1));
        task(Loss::Bce).describe(&mut config);
        assert_eq!(config.extra["sentence_transformers"], stored);
        let mut config = Config::default();
        task(Loss::Bce).describe(&mut config);
        assert_eq!(activation_of_config(&config).unwrap(), Some(Activation::Sigmoid));
    }
}
