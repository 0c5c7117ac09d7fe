//! Predictions for texts that are longer than the maximum length: their windows' logits are pooled.

use std::path::Path;
use std::sync::Arc;

use cloze_engine::{DType, Device};
use cloze_model::{Heads, Model, TaskHead};
use cloze_tasks::datasets::LabelsNeeded;
use cloze_tasks::{Long, Notes, Predictor, Pretrained, TaskOptions};
use serde_json::{Value, json};

const LONG: [&str; 12] = ["a", "b", "c", "d", "e", "f", "g", "h", "i", "j", "k", "l"];

/// A random classifier of letters with three outputs, whose problem is of this type.
fn model(dir: &Path, problem: Option<&str>, labels: usize) -> Arc<Pretrained> {
    cloze_testing::save_letter_model(Heads::of(TaskHead::Classify { labels }), dir);
    let device = Device::cpu(Some(2)).unwrap();
    let opened = Pretrained::open(dir, device.clone(), DType::F32).unwrap();
    let mut config = opened.model.config().clone();
    config.initializer_range = 0.5;
    if labels == 3 {
        config.set_labels(&["x", "y", "z"].map(str::to_owned));
    }
    if let Some(problem) = problem {
        config.extra.insert("problem_type".to_owned(), problem.into());
    }
    let model = Model::new(config, opened.model.heads, &device, 7).unwrap();
    Arc::new(Pretrained::new(model, opened.tokenizer, device, DType::F32, dir).unwrap())
}

fn open(model: &Arc<Pretrained>, long: Option<Long>, max_len: usize, stride: Option<usize>) -> Predictor {
    let mut options = TaskOptions::default();
    options.settings.max_len = Some(max_len);
    options.settings.stride = stride;
    options.long = long;
    Predictor::new(Arc::clone(model), None, options).unwrap()
}

fn predict(predictor: &Predictor, row: &Value) -> Value {
    predictor.predict(std::slice::from_ref(row)).remove(0).unwrap()
}

/// The logits of the outputs of a prediction, from probabilities; for several classes up to a constant.
fn logits(found: &Value, is_softmax: bool) -> Vec<f64> {
    if let Some(value) = found["value"].as_f64() {
        return vec![value];
    }
    let shares = ["x", "y", "z"].map(|label| found["probabilities"][label].as_f64().unwrap());
    shares.iter().map(|share| if is_softmax { share.ln() } else { (share / (1.0 - share)).ln() }).collect()
}

/// Logits less their mean, for which a constant makes no difference.
fn centred(logits: &[f64], is_softmax: bool) -> Vec<f64> {
    let mean = if is_softmax { logits.iter().sum::<f64>() / logits.len() as f64 } else { 0.0 };
    logits.iter().map(|z| z - mean).collect()
}

/// Asserts that the prediction for a row is that of the windows, with their numbers of tokens.
#[track_caller]
fn assert_pooled(
    model: &Arc<Pretrained>,
    is_softmax: bool,
    long: Long,
    stride: Option<usize>,
    row: &Value,
    of: &[(Value, usize)],
) {
    let whole = open(model, None, 40, None);
    let parts: Vec<(Vec<f64>, f64)> =
        of.iter().map(|(row, tokens)| (logits(&predict(&whole, row), is_softmax), *tokens as f64)).collect();
    let all: f64 = parts.iter().map(|(_, tokens)| tokens).sum();
    let pooled: Vec<f64> = (0..parts[0].0.len())
        .map(|i| match long {
            Long::Max => parts.iter().map(|(z, _)| z[i]).fold(f64::NEG_INFINITY, f64::max),
            _ => parts.iter().map(|(z, tokens)| z[i] * tokens).sum::<f64>() / all,
        })
        .collect();
    let predictor = open(model, Some(long), 8, stride);
    let found = predict(&predictor, row);
    assert_eq!(found["windows"], of.len(), "{found}");
    let gaps = centred(&logits(&found, is_softmax), is_softmax).into_iter().zip(centred(&pooled, is_softmax));
    gaps.for_each(|(found, expected)| assert!((found - expected).abs() < 1e-4, "{found} {expected}"));
}

fn letters(range: std::ops::Range<usize>) -> String {
    LONG[range].join(" ")
}

#[test]
fn logits_of_windows_are_averaged_or_maximised() {
    let dir = tempfile::tempdir().unwrap();
    let text = json!(letters(0..12));
    for (problem, labels, is_softmax) in
        [(None, 3, true), (Some("multi_label_classification"), 3, false), (Some("regression"), 1, false)]
    {
        let model = model(dir.path(), problem, labels);
        let part = |range: std::ops::Range<usize>| (json!(letters(range.clone())), range.len());
        // [CLS] and [SEP] leave room for 6 tokens.
        assert_pooled(&model, is_softmax, Long::Mean, None, &text, &[part(0..6), part(6..12)]);
        assert_pooled(&model, is_softmax, Long::Mean, Some(4), &text, &[part(0..6), part(4..10), part(8..12)]);
        if !is_softmax {
            assert_pooled(&model, is_softmax, Long::Max, Some(5), &text, &[part(0..6), part(5..11), part(10..12)]);
        }
        // Others are not affected, and the first window is what truncation leaves.
        for (long, ..) in Long::ALL {
            let short = json!("a b c");
            let found = predict(&open(&model, Some(long), 8, None), &short);
            assert_eq!(found, predict(&open(&model, None, 8, None), &short));
            assert!(found.get("windows").is_none());
        }
        let truncated = predict(&open(&model, None, 8, None), &text);
        assert_eq!(predict(&open(&model, Some(Long::First), 8, None), &text), truncated);
        assert_eq!(predict(&open(&model, Some(Long::Truncate), 8, None), &text), truncated);
        assert_eq!(truncated, predict(&open(&model, None, 8, None), &json!(letters(0..6))));
    }
}

#[test]
fn the_longer_text_of_a_pair_is_read_in_windows() {
    let dir = tempfile::tempdir().unwrap();
    let model = model(dir.path(), None, 3);
    let pair = |first: &str, second: &str| json!({"text": first, "pair": second});
    // Three special tokens leave room for 5 tokens.
    let (premise, question) = (letters(0..8), "x y");
    let windows = |is_second: bool| -> Vec<(Value, usize)> {
        [0..3, 3..6, 6..8]
            .map(|range| {
                let part = letters(range.clone());
                let row = if is_second { pair(question, &part) } else { pair(&part, question) };
                (row, range.len())
            })
            .to_vec()
    };
    assert_pooled(&model, true, Long::Mean, None, &pair(&premise, question), &windows(false));
    assert_pooled(&model, true, Long::Mean, None, &pair(question, &premise), &windows(true));
    // The shorter text gets at most half of the room; that it was truncated is counted.
    let predictor = open(&model, Some(Long::Mean), 8, None);
    let counted = |rows: &[Value]| {
        let before = model.long_rows();
        predictor.predict(rows);
        let after = model.long_rows();
        [
            after.rows - before.rows,
            after.cut - before.cut,
            after.windowed - before.windowed,
            after.windows - before.windows,
        ]
    };
    assert_eq!(counted(&[pair(&premise, "v w x y"), json!("a"), json!(premise)]), [3, 1, 2, 5]);
    assert_eq!(counted(&[json!(""), pair(&premise, question)])[2..], [1, 3]);
}

#[test]
fn the_loss_and_scores_of_an_evaluation_are_those_of_the_pooled_logits() {
    let dir = tempfile::tempdir().unwrap();
    let folder = tempfile::tempdir().unwrap();
    let texts = [letters(0..12), "c b a".to_owned(), letters(2..11), "k".to_owned()];
    for (problem, labels, golds) in [
        (None, 3, ["x", "z", "y", "x"]),
        (Some("multi_label_classification"), 3, ["x|y", "", "z", "x"]),
        (Some("regression"), 1, ["0.5", "-1", "2", "0.25"]),
    ] {
        let model = model(dir.path(), problem, labels);
        let rows: String = texts.iter().zip(golds).map(|(text, gold)| format!("{text}\t{gold}\n")).collect();
        let path = folder.path().join("rows.tsv");
        std::fs::write(&path, format!("text\tlabel\n{rows}")).unwrap();
        let predictor = open(&model, Some(Long::Mean), 8, None);
        let rows = predictor.read(&[path], LabelsNeeded::Required, &mut Notes::default()).unwrap();
        let found = predictor.evaluate(&*rows, &mut |_| ()).unwrap();
        let long = found.long;
        assert_eq!((long.rows, long.cut, long.windowed, long.windows), (4, 0, 2, 4));
        let lines = found.predictions.to_json().unwrap();
        let mut losses = Vec::new();
        for ((line, text), gold) in lines.iter().zip(&texts).zip(golds) {
            let alone = predict(&predictor, &json!(text));
            for (key, value) in alone.as_object().unwrap() {
                assert_eq!(&line[key], value, "{line}");
            }
            assert_eq!(line.get("windows").is_some(), text.len() > 11);
            if let Some(value) = alone["value"].as_f64() {
                losses.push((value - gold.parse::<f64>().unwrap()).powi(2));
            } else {
                for label in ["x", "y", "z"] {
                    let share = alone["probabilities"][label].as_f64().unwrap();
                    let is_gold = gold.split('|').any(|gold| gold == label);
                    match problem {
                        None if is_gold => losses.push(-share.ln()),
                        None => {}
                        Some(_) => losses.push(-if is_gold { share } else { 1.0 - share }.ln()),
                    }
                }
            }
        }
        let mean = losses.iter().sum::<f64>() / losses.len() as f64;
        assert!((found.loss - mean).abs() < 1e-5, "{problem:?}: {} {mean}", found.loss);
    }
}

#[test]
fn options_that_contradict_are_errors() {
    let dir = tempfile::tempdir().unwrap();
    let model = model(dir.path(), None, 3);
    let fails = |long: Long, stride: usize| {
        let mut options = TaskOptions::default();
        options.settings.stride = Some(stride);
        options.long = Some(long);
        Predictor::new(Arc::clone(&model), None, options).err().map(|error| error.to_string()).unwrap_or_default()
    };
    assert!(fails(Long::First, 4).contains("`stride`: has no effect with `long = first`"));
    assert!(fails(Long::Mean, 0).contains("`stride`: expected at least 1 token"));
    assert_eq!(fails(Long::Truncate, 0), "");
}
