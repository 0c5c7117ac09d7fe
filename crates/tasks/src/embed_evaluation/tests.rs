//! Comparison with sentence-transformers' evaluators. `fixtures/embed-evaluation/make.py` generates the reference.

use serde::de::DeserializeOwned;
use serde_json::Value;

use super::*;
use crate::embed::search::Similarity;
use crate::embed::vectors::Vectors;

fn read<T: DeserializeOwned>(name: &str) -> T {
    let path = format!("{}/fixtures/embed-evaluation/{name}.json", env!("CARGO_MANIFEST_DIR"));
    serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap()
}

/// The matrix of a list of rows.
fn matrix(rows: &Value) -> Vectors {
    let rows: Vec<Vec<f32>> = serde_json::from_value(rows.clone()).unwrap();
    Vectors::new(rows[0].len(), rows.concat())
}

/// The reference is computed in f32: similarities, and thresholds between them, differ in the last digits.
#[track_caller]
fn assert_close(found: f64, expected: &Value, what: &str) {
    let expected = expected.as_f64().unwrap_or_else(|| panic!("{what}: no number"));
    assert!((found - expected).abs() < 2e-6 * expected.abs().max(1.0), "{what}: found {found}, expected {expected}");
}

#[test]
fn scores_of_pairs_and_triplets_equal_sentence_transformers() {
    let cases: Vec<Value> = read("cases");
    assert!(cases.len() > 3);
    for (number, case) in cases.iter().enumerate() {
        let rows = case["rows"].as_u64().unwrap() as usize;
        let scores: Vec<f64> = serde_json::from_value(case["scores"].clone()).unwrap();
        let labels: Vec<bool> = case["labels"].as_array().unwrap().iter().map(|label| *label == 1).collect();
        for result in case["results"].as_array().unwrap() {
            let dimensions = result["dimensions"].as_u64().unwrap() as usize;
            let all = matrix(&case["vectors"]).truncated(dimensions);
            let part = |first: usize| all.select(&(first * rows..(first + 1) * rows).collect::<Vec<_>>());
            let [first, second, third] = [0, 1, 2].map(part);
            let found = sts::correlations(&first, &second, &scores);
            let by_pairs = pairs::scores(&first, &second, &labels).unwrap();
            let by_triplets = triplets::accuracies(&first, &second, &third);
            assert_eq!(found.len(), Similarity::ALL.len());
            for ((correlations, pairs), triplets) in found.iter().zip(&by_pairs).zip(&by_triplets) {
                let name = correlations.similarity.name();
                let what = |key: &str| format!("case {number}, {dimensions} dimensions, {name}, {key}");
                let expected = |part: &str, key: String| result[part][key].clone();
                let sts = |key: &str| expected("sts", format!("{key}_{name}"));
                assert_close(correlations.pearson.unwrap(), &sts("pearson"), &what("pearson"));
                assert_close(correlations.spearman.unwrap(), &sts("spearman"), &what("spearman"));
                for (key, found) in [
                    ("ap", pairs.ap),
                    ("accuracy", pairs.accuracy),
                    ("accuracy_threshold", pairs.accuracy_threshold.into()),
                    ("f1", pairs.f1),
                    ("f1_threshold", pairs.f1_threshold.into()),
                    ("precision", pairs.precision),
                    ("recall", pairs.recall),
                    ("mcc", pairs.mcc),
                ] {
                    assert_close(found, &expected("pairs", format!("{name}_{key}")), &what(key));
                }
                assert_close(triplets.accuracy, &expected("triplets", format!("{name}_accuracy")), &what("triplets"));
            }
        }
    }
}

#[test]
fn mined_duplicates_equal_sentence_transformers() {
    let cases: Vec<Value> = read("mining");
    assert!(cases.len() > 2);
    for (number, case) in cases.iter().enumerate() {
        let vectors = matrix(&case["vectors"]);
        let pairs: Vec<(usize, usize)> = serde_json::from_value(case["duplicates"].clone()).unwrap();
        for result in case["results"].as_array().unwrap() {
            let duplicates = match result["transitive"] == true {
                true => Duplicates::transitive(&pairs),
                false => Duplicates::of_pairs(&pairs),
            };
            let number_of = |key: &str| result[key].as_u64().unwrap() as usize;
            assert_eq!(duplicates.len(), number_of("duplicates"), "case {number}");
            let options = MiningOptions { top_k: number_of("top"), max_pairs: number_of("most") };
            let found = mining::scores(
                &mining::mine(&cloze_engine::Device::cpu(Some(2)).unwrap(), vectors.clone(), &options, &mut |_| ()),
                &duplicates,
            );
            for (key, found) in [
                ("average_precision", found.average_precision),
                ("f1", found.f1),
                ("precision", found.precision),
                ("recall", found.recall),
                ("threshold", found.threshold.into()),
            ] {
                assert_close(found, &result[key], &format!("case {number}, {options:?}, {key}"));
            }
        }
    }
}

#[test]
fn constant_vectors_have_no_correlation_and_no_right_triplet() {
    let same = Vectors::new(2, [1.0, 2.0].repeat(4));
    let found = sts::correlations(&same, &same, &[1.0, 2.0, 3.0, 4.0]);
    assert!(found.iter().all(|one| one.spearman.is_none() && one.pearson.is_none()), "{found:?}");
    let found = sts::correlations(&same, &same, &[2.0; 4]);
    assert!(found.iter().all(|one| one.spearman.is_none()), "{found:?}");
    assert!(triplets::accuracies(&same, &same, &same).iter().all(|one| one.accuracy == 0.0));
    assert_eq!(pairs::scores(&same, &same, &[false; 4]), None);
    let found = pairs::scores(&same, &same, &[true, true, true, false]).unwrap();
    assert!(found.iter().all(|one| (one.ap, one.accuracy, one.mcc) == (0.75, 0.75, 0.0)), "{found:?}");
}
