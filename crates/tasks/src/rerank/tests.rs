//! Comparison with sentence-transformers' CrossEncoder. `fixtures/rerank/make.py` generates the reference.

use cloze_engine::DType;
use cloze_model::Heads;
use serde::Deserialize;
use serde_json::{Value, json};

use super::evaluation::{EvaluationOptions, lists, scores_of_lists};
use super::*;
use crate::datasets::rankings::{Others, Ranking};
use crate::metrics::reranking::{RerankingScores, mean};

const REFERENCE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/fixtures/rerank");

#[derive(Deserialize)]
struct Reference {
    pairs: Vec<(String, String)>,
    cases: Vec<Value>,
}

impl Reference {
    fn read() -> Reference {
        let text = std::fs::read_to_string(Path::new(REFERENCE).join("cases.json")).unwrap();
        serde_json::from_str(&text).unwrap()
    }

    /// The case of this name.
    fn case(&self, name: &str) -> &Value {
        self.cases.iter().find(|case| case["name"] == name).unwrap()
    }
}

/// Writes the folder of a case.
fn case_folder(case: &Value) -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    for entry in std::fs::read_dir(Path::new(REFERENCE).join(case["folder"].as_str().unwrap())).unwrap() {
        let path = entry.unwrap().path();
        std::fs::copy(&path, dir.path().join(path.file_name().unwrap())).unwrap();
    }
    let path = dir.path().join("config.json");
    let mut config: Value = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
    config.as_object_mut().unwrap().extend(case["config"].as_object().unwrap().clone());
    std::fs::write(path, config.to_string()).unwrap();
    for (name, value) in case["files"].as_object().unwrap() {
        std::fs::write(dir.path().join(name), value.to_string()).unwrap();
    }
    dir
}

fn open(dir: &Path, options: &Options) -> Result<CrossEncoder, TaskError> {
    CrossEncoder::open(dir, Device::cpu(Some(2)).unwrap(), DType::F32, options)
}

fn options_of(case: &Value) -> Options {
    let prompt = case["options"]["prompt"].as_str().map_or(Prompt::Auto, |prompt| Prompt::Text(prompt.to_owned()));
    let max_len = case["options"]["max_length"].as_u64().map(|length| length as usize);
    Options { max_len, prompt, ..Options::default() }
}

#[test]
fn scores_and_order_equal_sentence_transformers() {
    let Reference { pairs, cases } = Reference::read();
    assert!(cases.len() > 25);
    for case in &cases {
        let (dir, name) = (case_folder(case), &case["name"]);
        let encoder = open(dir.path(), &options_of(case)).unwrap();
        assert_eq!(encoder.max_len(), case["max_len"].as_u64().unwrap() as usize, "{name}");
        let Predicted { rows, .. } = encoder.predict(&pairs, &mut |_| ()).unwrap();
        let expected: Vec<Vec<f64>> = serde_json::from_value(case["scores"].clone()).unwrap();
        assert_eq!(rows.len(), expected.len());
        for (number, (row, expected)) in rows.iter().zip(&expected).enumerate() {
            assert_eq!(row.len(), expected.len(), "{name}");
            let gap = row.iter().zip(expected).map(|(x, y)| (f64::from(*x) - y).abs()).fold(0.0, f64::max);
            let largest = expected.iter().fold(1.0, |largest: f64, y| largest.max(y.abs()));
            assert!(gap < 1e-5 * largest, "{name}, pair {number}: found {row:?}, expected {expected:?}");
        }
        let Some(expected) = case["order"].as_array() else {
            assert!(encoder.labels() > 1, "{name}");
            continue;
        };
        let documents = &pairs[..expected.len()];
        let Scored { scores, .. } = encoder.scores(documents, &mut |_| ()).unwrap();
        let rows: Vec<u64> = order(&scores).into_iter().map(|row| row as u64).collect();
        assert_eq!(rows, expected.iter().map(|row| row.as_u64().unwrap()).collect::<Vec<_>>(), "{name}");
    }
}

#[test]
fn long_pairs_are_counted_and_the_number_of_pairs_does_not_matter() {
    let reference = Reference::read();
    let encoder = open(case_folder(reference.case("limit of the tokenizer")).path(), &Options::default()).unwrap();
    let all = encoder.predict(&reference.pairs, &mut |_| ()).unwrap();
    // Each pair with one of the two long texts.
    assert_eq!(all.cut, 5);
    let mut last = 0.0;
    let alone = encoder.predict(&reference.pairs[3..4], &mut |share| last = share).unwrap();
    assert!((alone.rows[0][0] - all.rows[3][0]).abs() < 1e-6 && last == 1.0);
    assert_eq!(encoder.predict::<&str, &str>(&[], &mut |_| ()).unwrap(), Predicted::default());
    // More pairs than are encoded at once.
    let many: Vec<_> = reference.pairs.iter().cycle().take(CHUNK_PAIRS + 3).collect();
    let many: Vec<(&str, &str)> = many.iter().map(|(query, document)| (&query[..], &document[..])).collect();
    let found = encoder.scores(&many, &mut |_| ()).unwrap().scores;
    assert_eq!(found.len(), many.len());
    let (row, place) = (CHUNK_PAIRS + 1, (CHUNK_PAIRS + 1) % reference.pairs.len());
    assert!((found[row] - all.rows[place][0]).abs() < 1e-6);
}

#[test]
fn equal_scores_keep_their_order() {
    assert_eq!(order(&[0.5, 1.0, 0.5, 1.0, 0.25]), [1, 3, 0, 2, 4]);
    assert_eq!(order(&[]), [0usize; 0]);
}

#[test]
fn custom_activations_give_a_note_and_options_take_precedence() {
    let reference = Reference::read();
    let dir = case_folder(reference.case("custom activation"));
    let encoder = open(dir.path(), &Options::default()).unwrap();
    assert!(encoder.notes.len() == 1 && encoder.notes[0].contains("my.package.Act"), "{:?}", encoder.notes);
    assert_eq!(encoder.activation, Activation::Sigmoid);
    let options = Options { activation: Some(Activation::Identity), ..Options::default() };
    assert_eq!(open(dir.path(), &options).unwrap().activation, Activation::Identity);
}

#[test]
fn folders_that_are_not_rerankers_are_errors() {
    let reference = Reference::read();
    let fails = |dir: &Path, options: &Options| {
        let line = open(dir, options).and_then(|encoder| encoder.check_scores()).unwrap_err().to_string();
        assert_eq!(line.lines().count(), 1, "{line}");
        line
    };
    let dir = tempfile::tempdir().unwrap();
    cloze_testing::save_letter_model(Heads::MLM, dir.path());
    let line = fails(dir.path(), &Options::default());
    assert!(line.contains("a classification head") && line.contains("found a BertForMaskedLM"), "{line}");
    let three = case_folder(reference.case("default of bert-three"));
    assert!(fails(three.path(), &Options::default()).contains("found 3 outputs"));
    for max_len in [0, 3, 65] {
        let case = reference.case("default of bert");
        let line = fails(case_folder(case).path(), &Options { max_len: Some(max_len), ..Options::default() });
        assert!(line.contains("expected 4 to 64") && line.contains(&format!("found {max_len}")), "{line}");
    }
    let changed = |name: &str, change: &dyn Fn(&mut Value)| {
        let mut case = reference.case(name).clone();
        change(&mut case);
        fails(case_folder(&case).path(), &Options::default())
    };
    let softmax = json!({"activation_fn": "torch.nn.modules.activation.Softmax"});
    let line = changed("default of bert", &|case| case["config"]["sentence_transformers"] = softmax.clone());
    assert!(line.contains("Softmax is not supported"), "{line}");
    let line = changed("saved", &|case| {
        let module =
            json!({"idx": 1, "name": "1", "path": "1_Dense", "type": "sentence_transformers.base.modules.dense.Dense"});
        case["files"]["modules.json"].as_array_mut().unwrap().push(module);
    });
    assert!(line.contains("module 1 of its modules.json is Dense"), "{line}");
    let line = changed("saved", &|case| {
        case["files"]["sentence_bert_config.json"]["transformer_task"] = json!("text-generation");
    });
    assert!(line.contains("transformer_task is \"text-generation\""), "{line}");
    let line = changed("limit of the tokenizer", &|case| {
        case["files"]["tokenizer_config.json"]["model_max_length"] = json!(3)
    });
    assert!(line.contains("above 3") && line.contains("`max_len`"), "{line}");
}

#[test]
fn damaged_weights_are_errors() {
    let reference = Reference::read();
    let dir = case_folder(reference.case("default of bert"));
    let path = dir.path().join("model.safetensors");
    let mut bytes = std::fs::read(&path).unwrap();
    let end = bytes.len();
    bytes[end / 2..].fill(0x7f);
    std::fs::write(path, bytes).unwrap();
    let encoder = open(dir.path(), &Options::default()).unwrap();
    let line = encoder.predict(&reference.pairs, &mut |_| ()).unwrap_err().to_string();
    assert!(line.contains("query \"a b c\"") && line.contains("not finite"), "{line}");
}

#[test]
fn lists_are_scored_as_by_the_evaluator() {
    let path = format!("{}/fixtures/embed-evaluation/lists.json", env!("CARGO_MANIFEST_DIR"));
    let reference: Value = serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap();
    let texts = |value: &Value| serde_json::from_value::<Vec<String>>(value.clone()).unwrap();
    let ranking = |sample: &Value| Ranking {
        query: sample["query"].as_str().unwrap().to_owned(),
        positive: texts(&sample["positive"]),
        others: match sample.get("documents") {
            Some(found) => Others::Found(texts(found)),
            None => Others::Negative(texts(&sample["negative"])),
        },
        line: 1,
    };
    let rankings: Vec<Ranking> = reference["samples"].as_array().unwrap().iter().map(ranking).collect();
    for result in reference["results"].as_array().unwrap() {
        let (k, adds_positives) = (result["k"].as_u64().unwrap() as usize, result["adds_positives"] == true);
        let lists = lists(&rankings, &EvaluationOptions { k, adds_positives });
        // The score of a document is its first word.
        let score = |document: &&str| document.split(' ').next().unwrap().parse::<f32>().unwrap();
        let scored = lists.iter().filter(|list| list.relevant.contains(&true));
        let scores: Vec<f32> = scored.flat_map(|list| list.documents.iter().map(score)).collect();
        let base: Vec<RerankingScores> = lists.iter().filter_map(|list| list.base).collect();
        for (prefix, found) in [("", scores_of_lists(&lists, &scores, k)), ("base_", mean(&base))] {
            for (key, found) in [("map", found.map), ("mrr", found.mrr), ("ndcg", found.ndcg)] {
                let expected = result["scores"][format!("{prefix}{key}")].as_f64().unwrap();
                assert!((found - expected).abs() < 1e-12, "{prefix}{key}@{k}: found {found}, expected {expected}");
            }
        }
    }
}
