//! Reranking: the relevance of a document to a query. \[CLS\] through the pooler to one output.
//!
//! | loss | compares | source |
//! | --- | --- | --- |
//! | `bce` | the output for a pair with its label, 0 to 1 | sentence-transformers' `BinaryCrossEntropyLoss` |
//! | `mse` | the output for a pair with its score, any number | `MSELoss` |
//! | `listwise` | the outputs for a relevant document and for all irrelevant ones of the query, by a softmax | the localized contrastive loss of Gao et al. 2021, "Rethink Training of BERT Rerankers in Multi-Stage Retrieval Pipeline" |
//!
//! Rows are pairs, or lists of documents: JSON with `query`, `positive` and `negative`. With `listwise`, the pairs of a
//! file that have the same query are one list.
//!
//! The model is a cross-encoder that sentence-transformers opens, with the same scores. Its length is therefore the
//! limit of its tokenizer, unless the caller sets one; the length of its training is not stored as a default.

use std::collections::{HashMap, HashSet};
use std::path::{Path, PathBuf};

use cloze_model::{Config, TaskHead};
use cloze_text::Tokenizer;
use serde::ser::SerializeMap;
use serde::{Deserialize, Serialize, Serializer};
use serde_json::{Value, json};

use super::description::{Description, Examples, KindOption, RejectedOptions, Rows, Values};
use super::kind::{Kind, Mismatch};
use super::text::{Length, Text};
use crate::TaskError;
use crate::datasets::LabelsNeeded;
use crate::datasets::classification::LabelledText;
use crate::datasets::rankings::{Others, Ranking};
use crate::datasets::table::Table;
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
                    ("listwise", "Softmax over a relevant document and all irrelevant documents of the same query"),
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
                "cloze finetune rerank --train lists.jsonl --dev dev.jsonl --loss listwise --model runs/mini --out runs/reranker",
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
    /// Cross-entropy over the documents of a query.
    Listwise,
}

impl Loss {
    fn name(self) -> &'static str {
        match self {
            Loss::Bce => "bce",
            Loss::Mse => "mse",
            Loss::Listwise => "listwise",
        }
    }
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

/// A query with one document, or with several.
#[derive(Debug, Clone, PartialEq)]
pub struct Row {
    /// The query.
    pub query: String,
    /// The documents; at least one.
    pub documents: Vec<Document>,
}

/// A document with its label.
#[derive(Debug, Clone, PartialEq)]
pub struct Document {
    /// The text.
    pub text: String,
    /// The label, if known.
    pub label: Option<f32>,
}

impl Document {
    fn is_relevant(&self) -> bool {
        self.label.is_some_and(|label| label >= RELEVANT)
    }
}

/// The scores of the documents of a row. In JSON, a single one is `score`, several are `scores`.
#[derive(Debug, Clone, PartialEq)]
pub struct Prediction {
    /// The output for each document, after the activation.
    pub scores: Vec<f32>,
}

impl Serialize for Prediction {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(Some(1))?;
        match self.scores[..] {
            [score] => map.serialize_entry("score", &score)?,
            _ => map.serialize_entry("scores", &self.scores)?,
        }
        map.end()
    }
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
            (Some(number), Loss::Bce | Loss::Listwise) if (0.0..=1.0).contains(&number) => Ok(number),
            (_, Loss::Bce | Loss::Listwise) => Err(format!(
                "expected 1 (relevant), 0, or a number between them, found \"{label}\"; for other numbers set `loss` to mse"
            )),
            (None, Loss::Mse) => Err(format!("expected a finite number such as 3.5, found \"{label}\"")),
        }
    }

    /// The row of a pair, which must have a document.
    fn pair(&self, text: Text, label: Option<f32>) -> Result<Row, TaskError> {
        match text.pair {
            Some(document) if !document.trim().is_empty() && !text.text.trim().is_empty() => {
                Ok(Row { query: text.text, documents: vec![Document { text: document, label }] })
            }
            Some(_) => Err(TaskError::input("text", "expected a query and a document, found only white space in one")),
            None => {
                Err(TaskError::input("pair", "expected a query and a document, found one text; set `text` and `pair`"))
            }
        }
    }

    /// The rows of a file.
    fn read_file(
        &self,
        reading: &Reading,
        path: &PathBuf,
        need: LabelsNeeded,
        notes: &mut Notes,
    ) -> Result<FileRows<Row>, TaskError> {
        let has_columns = reading.options().settings.text.is_some();
        if need == LabelsNeeded::Required && !has_columns && has_lists(reading, path) {
            return Ok(Ranking::read(reading.file(path))?.into_iter().map(list).map(Ok).collect());
        }
        let mut rows = FileRows::new();
        for file in reading.texts(std::slice::from_ref(path), need, notes)? {
            let row = |text: LabelledText, label: Option<f32>| {
                let LabelledText { text, pair, line, .. } = text;
                self.pair(Text { text, pair }, label).map_err(|error| match error {
                    TaskError::Input { what, problem } => TaskError::line(path, line, format!("{what}: {problem}")),
                    other => other,
                })
            };
            match need {
                LabelsNeeded::Required => {
                    let labelled = file.with_labels(|label| self.label(label)).into_iter();
                    rows.extend(labelled.map(|found| found.and_then(|(text, label)| row(text, Some(label)))));
                }
                LabelsNeeded::Optional => {
                    rows.extend(file.without_labels().into_iter().map(|text| row(text?, None)));
                }
            }
        }
        Ok(if self.loss == Loss::Listwise && need == LabelsNeeded::Required { grouped(rows) } else { rows })
    }

    /// Whether a row contributes to the loss.
    fn is_trained_on(&self, row: &Row) -> bool {
        self.loss != Loss::Listwise
            || row.documents.iter().any(Document::is_relevant) && !row.documents.iter().all(Document::is_relevant)
    }

    /// The documents of each example of a row.
    fn examples(&self, row: &Row) -> Vec<Vec<usize>> {
        let all = 0..row.documents.len();
        if self.loss != Loss::Listwise {
            return all.map(|document| vec![document]).collect();
        }
        let (relevant, others): (Vec<usize>, Vec<usize>) =
            all.partition(|document| row.documents[*document].is_relevant());
        match relevant[..] {
            // A list whose relevant document is not known.
            [] => vec![others],
            _ => {
                relevant.into_iter().map(|document| std::iter::once(document).chain(others.clone()).collect()).collect()
            }
        }
    }
}

/// Whether a file contains lists of documents: objects with `query`, `positive`, and `negative` or `documents`.
fn has_lists(reading: &Reading, path: &Path) -> bool {
    let names = Table::names(reading.file(path)).unwrap_or_default();
    let has = |name: &str| names.iter().any(|other| other == name);
    has("query") && has("positive") && (has("negative") || has("documents"))
}

/// The row of a list: relevant documents have the label 1, others 0.
fn list(ranking: Ranking) -> Row {
    let Ranking { query, positive, others, .. } = ranking;
    let others = match others {
        Others::Negative(negative) => negative,
        Others::Found(found) => found.into_iter().filter(|document| !positive.contains(document)).collect(),
    };
    let with_label = |label: f32| move |text: String| Document { text, label: Some(label) };
    let documents = positive.into_iter().map(with_label(1.0)).chain(others.into_iter().map(with_label(0.0)));
    Row { query, documents: documents.collect() }
}

/// Joins the rows with the same query, at the place of the first one.
fn grouped(rows: FileRows<Row>) -> FileRows<Row> {
    let mut place_of: HashMap<String, usize> = HashMap::new();
    let mut found: FileRows<Row> = Vec::new();
    for row in rows {
        let place = row.as_ref().ok().and_then(|row| place_of.get(&row.query).copied());
        match (row, place.map(|place| &mut found[place])) {
            (Ok(row), Some(Ok(first))) => first.documents.extend(row.documents),
            (row, _) => {
                if let Ok(row) = &row {
                    place_of.insert(row.query.clone(), found.len());
                }
                found.push(row);
            }
        }
    }
    found
}

/// The activation of a new model: with the binary cross-entropy, outputs are logits.
fn default_activation(loss: Loss) -> Activation {
    match loss {
        Loss::Bce | Loss::Listwise => Activation::Sigmoid,
        Loss::Mse => Activation::Identity,
    }
}

impl Task for Rerank {
    type Row = Row;
    /// The documents of each example.
    type Aux = Vec<Vec<usize>>;
    type Prediction = Prediction;

    fn from_training_files(
        reading: &Reading,
        train: &[PathBuf],
        start: &Config,
        tokenizer: &Tokenizer,
        notes: &mut Notes,
    ) -> Result<(Rerank, FileRows<Row>), TaskError> {
        let task = Rerank::new(reading, start, true)?;
        let mut rows = task.read(reading, train, LabelsNeeded::Required, tokenizer, notes)?;
        let all = rows.len();
        rows.retain(|row| row.as_ref().map_or(true, |row| task.is_trained_on(row)));
        if rows.is_empty() && all > 0 {
            let problem =
                "listwise needs a relevant and an irrelevant document of the same query, but no query has both";
            return Err(TaskError::setting("loss", problem));
        }
        if rows.len() < all {
            let count = all - rows.len();
            notes
                .0
                .push(format!("queries without a relevant or without an irrelevant document, not trained on: {count}"));
        }
        Ok((task, rows))
    }

    fn from_model(reading: &Reading, config: &Config, _: TaskHead) -> Result<Rerank, TaskError> {
        Rerank::new(reading, config, false)
    }

    fn own_settings(&self, _: &Reading) -> Object {
        [("loss".to_owned(), Value::from(self.loss.name()))].into_iter().collect()
    }

    fn read(
        &self,
        reading: &Reading,
        paths: &[PathBuf],
        need: LabelsNeeded,
        _: &Tokenizer,
        notes: &mut Notes,
    ) -> Result<FileRows<Row>, TaskError> {
        let mut rows = FileRows::new();
        for path in paths {
            rows.extend(self.read_file(reading, path, need, notes)?);
        }
        Ok(rows)
    }

    fn row(&self, reading: &Reading, input: Input<'_>, _: &Tokenizer) -> Result<Row, TaskError> {
        self.pair(reading.text_of(input)?, None)
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
        let documents = || rows.iter().flat_map(|row| &row.documents).filter(|document| document.label.is_some());
        let pairs = documents().count();
        if pairs == 0 {
            return Vec::new();
        }
        let queries: HashSet<&str> = rows.iter().map(|row| row.query.as_str()).collect();
        let relevant = documents().filter(|document| document.is_relevant()).count();
        vec![format!("{pairs} pairs of {} queries, {relevant} with a label of at least {RELEVANT}", queries.len())]
    }

    fn encode(&self, row: &Row, tokenizer: &Tokenizer) -> Result<Encoded<Vec<Vec<usize>>>, TaskError> {
        let limit = self.max_len.or(tokenizer.model_max_length()).unwrap_or(self.positions);
        // A limit that the caller sets is checked against the model.
        let max_len = if self.max_len.is_some() { limit } else { limit.min(self.positions) };
        let (mut cut, mut sequences) = (0, Vec::with_capacity(row.documents.len()));
        for document in &row.documents {
            let text = Text { text: row.query.clone(), pair: Some(document.text.clone()) };
            let (own, own_cut) = Length { max_len, ..Length::default() }.sequences(tokenizer, &text)?;
            sequences.extend(own);
            cut += own_cut;
        }
        let aux = self.examples(row);
        let example = |documents: &Vec<usize>| {
            let label = documents.first().and_then(|document| row.documents[*document].label);
            let target = match self.loss {
                Loss::Bce => Target::Binary(vec![label.unwrap_or(f32::NAN)]),
                Loss::Mse => Target::value(label),
                // The relevant document is the first.
                Loss::Listwise => Target::positions(self.is_trained_on(row).then_some([0])),
            };
            Example::new(documents.iter().map(|document| sequences[*document].clone()).collect(), target)
        };
        Ok(Encoded { examples: aux.iter().map(example).collect(), cut, windows: None, aux })
    }

    fn row_json(&self, row: &Row) -> Object {
        if let [Document { text, label }] = &row.documents[..] {
            return Text { text: row.query.clone(), pair: Some(text.clone()) }.row_json(*label);
        }
        let texts: Vec<&str> = row.documents.iter().map(|document| document.text.as_str()).collect();
        let labels: Vec<Option<f32>> = row.documents.iter().map(|document| document.label).collect();
        [("query", json!(row.query)), ("documents", json!(texts)), ("gold", json!(labels))]
            .map(|(key, value)| (key.to_owned(), value))
            .into_iter()
            .collect()
    }

    fn predict(
        &self,
        row: &Row,
        encoded: &Encoded<Vec<Vec<usize>>>,
        logits: &[Vec<f32>],
    ) -> Result<Prediction, TaskError> {
        let mut scores = vec![f32::NAN; row.documents.len()];
        for (documents, logits) in encoded.aux.iter().zip(logits) {
            for (document, logit) in documents.iter().zip(logits) {
                scores[*document] = *logit;
            }
        }
        if scores.is_empty() || scores.iter().any(|logit| !logit.is_finite()) {
            return Err(TaskError::Logits(format!("query {:?}", row.query)));
        }
        Ok(Prediction { scores: scores.into_iter().map(|logit| self.activation.apply(logit)).collect() })
    }

    fn scores(&self, rows: &[&Row], predictions: &[&Prediction]) -> Scores {
        let (mut queries, mut gold, mut predicted) = (Vec::new(), Vec::new(), Vec::new());
        for (row, found) in rows.iter().zip(predictions) {
            for (Document { label, .. }, score) in row.documents.iter().zip(&found.scores) {
                if let Some(label) = label {
                    queries.push(row.query.as_str());
                    gold.push(*label);
                    predicted.push(*score);
                }
            }
        }
        let relevant: Vec<bool> = gold.iter().map(|label| *label >= RELEVANT).collect();
        let lists = of_lists(queries.into_iter(), &relevant, &predicted);
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

    fn document(text: &str, label: f32) -> Document {
        Document { text: text.to_owned(), label: Some(label) }
    }

    fn row(query: &str, label: f32) -> Row {
        Row { query: query.to_owned(), documents: vec![document("d", label)] }
    }

    #[test]
    fn documents_are_ranked_among_those_of_their_query() {
        let rows = [row("a", 1.0), row("b", 1.0), row("a", 0.0), row("b", 0.0), row("c", 1.0)];
        let rows: Vec<&Row> = rows.iter().collect();
        // Within each query the order is right, although not among all pairs.
        let found = [0.9, 0.2, 0.8, 0.1, 0.5].map(|score| Prediction { scores: vec![score] });
        let scores = task(Loss::Bce).scores(&rows, &found.iter().collect::<Vec<_>>());
        assert_eq!((scores.main_name(), scores.main(), scores.rows), ("ndcg_at_10", 1.0, 5));
        assert_eq!((scores.get("map"), scores.get("mrr_at_10")), (Some(1.0), Some(1.0)));
        let expected = (1.0 + 2.0 / 3.0 + 3.0 / 4.0) / 3.0;
        assert!((scores.get("average_precision").unwrap() - expected).abs() < 1e-12, "{scores:?}");
        let scores = task(Loss::Bce).scores(&rows[4..], &[&found[4]]);
        assert!(scores.main().is_nan() && scores.get("average_precision") == Some(1.0));
        let same = [0.5; 5].map(|score| Prediction { scores: vec![score] });
        assert!(task(Loss::Bce).scores(&rows, &same.iter().collect::<Vec<_>>()).collapsed.is_some());
    }

    #[test]
    fn lists_have_an_example_for_each_relevant_document() {
        let rows = [
            Ok(row("a", 1.0)),
            Ok(row("b", 0.0)),
            Err(TaskError::NoRows("training")),
            Ok(Row { query: "a".to_owned(), documents: vec![document("e", 0.0)] }),
            Ok(Row { query: "a".to_owned(), documents: vec![document("f", 1.0)] }),
        ];
        let found = grouped(rows.into_iter().collect());
        assert_eq!((found.len(), found[2].is_err()), (3, true));
        let (list, negative) = (found[0].as_ref().unwrap(), found[1].as_ref().unwrap());
        let expected = vec![document("d", 1.0), document("e", 0.0), document("f", 1.0)];
        assert_eq!((&list.query[..], &list.documents), ("a", &expected));
        let task = task(Loss::Listwise);
        assert_eq!(task.examples(list), [[0, 1], [2, 1]]);
        assert_eq!(task.examples(negative), [[0]]);
        assert!(task.is_trained_on(list) && !task.is_trained_on(negative));
        let tokenizer = cloze_testing::tokenizer(&["d", "e", "f"]);
        let encoded = task.encode(list, &tokenizer).unwrap();
        assert!(encoded.examples.iter().all(|example| example.target == Target::Positions(vec![0])));
        let prediction = task.predict(list, &encoded, &[vec![2.0, -1.0], vec![0.0, -1.0]]).unwrap();
        let sigmoid = |x: f32| 1.0 / (1.0 + (-x).exp());
        for (found, expected) in prediction.scores.iter().zip([2.0, -1.0, 0.0]) {
            assert!((found - sigmoid(expected)).abs() < 1e-6, "{prediction:?}");
        }
        assert!(serde_json::to_string(&prediction).unwrap().starts_with("{\"scores\":[0.8"));
        assert_eq!(serde_json::to_string(&Prediction { scores: vec![0.5] }).unwrap(), "{\"score\":0.5}");
        assert!(task.predict(list, &encoded, &[vec![f32::NAN, 0.0], vec![0.0, 0.0]]).is_err());
        // Other losses score each pair by itself.
        let Encoded { examples, .. } = super::Task::encode(&self::task(Loss::Bce), list, &tokenizer).unwrap();
        let targets: Vec<Target> = examples.into_iter().map(|example| example.target).collect();
        assert_eq!(targets, [1.0, 0.0, 1.0].map(|label| Target::Binary(vec![label])));
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
