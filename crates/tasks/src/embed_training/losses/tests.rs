//! The losses beside those of sentence-transformers, from fixtures/embed_training/losses.json.

use super::*;
use serde_json::Value;

fn device() -> Device {
    Device::cpu(Some(2)).unwrap()
}

fn numbers(value: &Value) -> Vec<f64> {
    value
        .as_array()
        .unwrap()
        .iter()
        .flat_map(|v| if v.is_array() { numbers(v) } else { vec![v.as_f64().unwrap()] })
        .collect()
}

fn floats(value: &Value) -> Vec<f32> {
    numbers(value).into_iter().map(|x| x as f32).collect()
}

/// A step of rows with one positive each, and different texts.
fn step(rows: usize, negatives: usize, labels: &Value) -> Step {
    let labels: Vec<Vec<f32>> = match labels.as_array().map_or(0, Vec::len) {
        0 => vec![Vec::new(); rows],
        _ => (0..rows)
            .map(|i| if labels[i].is_array() { floats(&labels[i]) } else { vec![labels[i].as_f64().unwrap() as f32] })
            .collect(),
    };
    let each = 1 + negatives;
    let row = |(i, labels)| Row { positives: i * each..i * each + 1, negatives: i * each + 1..(i + 1) * each, labels };
    Step {
        rows: (0..rows).zip(labels).map(row).collect(),
        anchors: (0..rows as u128).collect(),
        candidates: (1000..1000 + (rows * each) as u128).collect(),
    }
}

fn loss_named(name: &str) -> Loss {
    let nce = InfoNce::default();
    let hard = |mode| Loss::InfoNce(InfoNce { hardness: Some((mode, 5.0)), ..nce });
    match name {
        "info-nce" | "matryoshka" => Loss::InfoNce(nce),
        "info-nce-dot" => Loss::InfoNce(InfoNce { scale: 1.0, compare: Compare::Dot, ..nce }),
        "symmetric" => Loss::InfoNce(InfoNce { symmetric: true, ..nce }),
        "hardness-in_batch_negatives" => hard(Hardness::InBatch),
        "hardness-hard_negatives" => hard(Hardness::Hard),
        "hardness-all_negatives" => hard(Hardness::All),
        "cosent" => Loss::CoSent { scale: 20.0 },
        "triplet-euclidean" => Loss::Triplet { distance: Distance::Euclidean, margin: 1.0 },
        "triplet-cosine" => Loss::Triplet { distance: Distance::Cosine, margin: 0.5 },
        "margin-mse" => Loss::MarginMse { compare: Compare::Dot },
        "kl" => Loss::Kl { compare: Compare::Dot, temperature: 2.0 },
        other => panic!("{other}"),
    }
}

fn assert_near(found: &[f32], expected: &[f64], what: &str) {
    assert_eq!(found.len(), expected.len(), "{what}");
    let largest = expected.iter().fold(0f64, |largest, x| largest.max(x.abs()));
    for (i, (found, expected)) in found.iter().zip(expected).enumerate() {
        let error = (f64::from(*found) - expected).abs();
        assert!(error < 2e-5 * (0.1 + largest), "{what} [{i}]: {found}, expected {expected}");
    }
}

#[test]
fn losses_and_gradients_equal_those_of_sentence_transformers() {
    let cases: Vec<Value> = serde_json::from_str(include_str!("../../../fixtures/embed_training/losses.json")).unwrap();
    assert!(cases.len() > 15);
    for case in &cases {
        let name = case["name"].as_str().unwrap();
        let size = |key: &str| case[key].as_u64().unwrap() as usize;
        let step = step(size("rows"), size("negatives"), &case["labels"]);
        let (anchors, candidates) = (floats(&case["anchors"]), floats(&case["candidates"]));
        let width = size("width");
        let embeddings = Embeddings { anchors: Rows::new(width, &anchors), candidates: Rows::new(width, &candidates) };
        let dimensions = numbers(&case["dims"]).into_iter().map(|kept| (kept as usize, 1.0)).collect();
        let loss = Matryoshka { loss: loss_named(name), dimensions };
        step.rows.iter().for_each(|row| loss.loss.check(row, width).unwrap());
        let found = loss.of(&device(), &step, &embeddings);
        let what = format!("{name}, {} rows with {} negatives", size("rows"), size("negatives"));
        let expected = case["expected"]["loss"].as_f64().unwrap();
        assert!(
            (found.loss.mean() - expected).abs() < 1e-5 * (1.0 + expected),
            "{what}: {}, expected {expected}",
            found.loss.mean()
        );
        assert_near(&found.anchors, &numbers(&case["expected"]["anchors"]), &format!("{what}: anchors"));
        assert_near(&found.candidates, &numbers(&case["expected"]["candidates"]), &format!("{what}: candidates"));
    }
}

/// Numbers without a pattern.
fn some(count: usize, key: usize) -> Vec<f32> {
    (0..count).map(|i| (((i + key * 131) * 7919) % 1009) as f32 / 504.5 - 1.0).collect()
}

fn nce_of(step: &Step, settings: InfoNce, anchors: &[f32], candidates: &[f32]) -> Outcome {
    let embeddings = Embeddings { anchors: Rows::new(8, anchors), candidates: Rows::new(8, candidates) };
    Loss::InfoNce(settings).of(&device(), step, &embeddings)
}

#[test]
fn duplicates_and_other_positives_are_no_negatives() {
    let (anchors, candidates) = (some(3 * 8, 1), some(5 * 8, 2));
    let row = |positives, negatives| Row { positives, negatives, labels: Vec::new() };
    // Row 0 has two positives; the positive of row 1 has the text of one of them, that of row 2 the text of anchor 0.
    let rows = vec![row(0..2, 2..2), row(2..3, 3..4), row(4..5, 5..5)];
    let step = Step { rows, anchors: vec![1, 2, 3], candidates: vec![10, 11, 10, 12, 1] };
    let found = nce_of(&step, InfoNce::default(), &anchors, &candidates);
    // Anchor 0 is compared with candidate 3; anchor 1 with 1, 3, 4 (0 has the text of its positive); anchor 2 with 0 to 3.
    assert_eq!(found.negatives, 1 + 3 + 4);
    // The loss by its definition.
    let unit = |rows: &[f32], i: usize| {
        let row = &rows[i * 8..(i + 1) * 8];
        let norm = row.iter().map(|x| f64::from(*x).powi(2)).sum::<f64>().sqrt();
        row.iter().map(|x| f64::from(*x) / norm).collect::<Vec<f64>>()
    };
    let logit =
        |a: usize, c: usize| 20.0 * unit(&anchors, a).iter().zip(unit(&candidates, c)).map(|(x, y)| x * y).sum::<f64>();
    let one = |a: usize, positive: usize, negatives: &[usize]| {
        let sum: f64 = negatives.iter().chain([&positive]).map(|c| logit(a, *c).exp()).sum();
        sum.ln() - logit(a, positive)
    };
    let expected = ((one(0, 0, &[3]) + one(0, 1, &[3])) / 2.0 + one(1, 2, &[1, 3, 4]) + one(2, 4, &[0, 1, 2, 3])) / 3.0;
    assert!((found.loss.mean() - expected).abs() < 1e-5, "{}, expected {expected}", found.loss.mean());
}

/// With several positives, in both directions, with hardness, and by the scale.
#[test]
fn gradients_are_those_of_central_differences() {
    let (anchors, candidates) = (some(4 * 8, 3), some(7 * 8, 4));
    let row = |positives, negatives| Row { positives, negatives, labels: Vec::new() };
    let rows = vec![row(0..2, 2..3), row(3..4, 4..4), row(4..5, 5..6), row(6..7, 7..7)];
    let step = Step { rows, anchors: vec![1, 2, 2, 4], candidates: vec![10, 11, 12, 13, 14, 15, 13] };
    for symmetric in [false, true] {
        let settings = InfoNce { scale: 4.0, symmetric, ..InfoNce::default() };
        let found = nce_of(&step, settings, &anchors, &candidates);
        let loss = |anchors: &[f32], candidates: &[f32], scale: f64| {
            nce_of(&step, InfoNce { scale, ..settings }, anchors, candidates).loss.mean()
        };
        let h = 1.0 / 256.0;
        for i in [0, 9, 20, 31] {
            let moved = |sign: f32| {
                let mut moved = anchors.clone();
                moved[i] += sign * h;
                loss(&moved, &candidates, 4.0)
            };
            let expected = (moved(1.0) - moved(-1.0)) / (2.0 * f64::from(h));
            assert!(
                (f64::from(found.anchors[i]) - expected).abs() < 1e-3,
                "{symmetric} {i}: {} {expected}",
                found.anchors[i]
            );
        }
        for i in [0, 9, 30, 55] {
            let moved = |sign: f32| {
                let mut moved = candidates.clone();
                moved[i] += sign * h;
                loss(&anchors, &moved, 4.0)
            };
            let expected = (moved(1.0) - moved(-1.0)) / (2.0 * f64::from(h));
            assert!(
                (f64::from(found.candidates[i]) - expected).abs() < 1e-3,
                "{symmetric} {i}: {} {expected}",
                found.candidates[i]
            );
        }
        let by_log =
            (loss(&anchors, &candidates, 4.0 * 1.01) - loss(&anchors, &candidates, 4.0 / 1.01)) / (2.0 * 1.01f64.ln());
        assert!((found.log_scale - by_log).abs() < 1e-3, "{symmetric}: {} {by_log}", found.log_scale);
    }
}

#[test]
fn own_negatives_alone_are_compared_on_request() {
    let (anchors, candidates) = (some(2 * 8, 5), some(5 * 8, 6));
    let row = |positives, negatives| Row { positives, negatives, labels: Vec::new() };
    let step =
        Step { rows: vec![row(0..1, 1..3), row(3..4, 4..5)], anchors: vec![1, 2], candidates: (10..15).collect() };
    let settings = InfoNce { candidates: Candidates::Own, ..InfoNce::default() };
    let found = nce_of(&step, settings, &anchors, &candidates);
    assert_eq!(found.negatives, 3);
    assert!(found.loss.mean() < nce_of(&step, InfoNce::default(), &anchors, &candidates).loss.mean());
}

#[test]
fn cosent_of_equal_scores_is_zero() {
    let (anchors, candidates) = (some(3 * 8, 7), some(3 * 8, 8));
    let row = |i: usize| Row { positives: i..i + 1, negatives: i + 1..i + 1, labels: vec![0.5] };
    let step = Step { rows: (0..3).map(row).collect(), anchors: vec![1, 2, 3], candidates: vec![4, 5, 6] };
    let embeddings = Embeddings { anchors: Rows::new(8, &anchors), candidates: Rows::new(8, &candidates) };
    let found = Loss::CoSent { scale: 20.0 }.of(&device(), &step, &embeddings);
    assert_eq!(found.loss.sum, 0.0);
    assert!(found.anchors.iter().chain(&found.candidates).all(|d| *d == 0.0));
}

#[test]
fn mse_pulls_all_texts_of_a_row_to_the_teachers_vector() {
    let (anchors, candidates) = (vec![1.0, 2.0], vec![0.0, 0.0]);
    let rows = vec![Row { positives: 0..1, negatives: 1..1, labels: vec![0.0, 2.0] }];
    let step = Step { rows, anchors: vec![1], candidates: vec![2] };
    let embeddings = Embeddings { anchors: Rows::new(2, &anchors), candidates: Rows::new(2, &candidates) };
    let found = Loss::Mse.of(&device(), &step, &embeddings);
    assert_eq!((found.loss.mean(), found.anchors, found.candidates), (5.0 / 4.0, vec![0.5, 0.0], vec![0.0, -1.0]));
}

#[test]
fn rows_that_do_not_fit_a_loss_say_what_is_expected() {
    let row = |positives: usize, negatives: usize, labels: usize| Row {
        positives: 0..positives,
        negatives: positives..positives + negatives,
        labels: vec![0.5; labels],
    };
    let problem = |loss: Loss, row: Row| loss.check(&row, 4).unwrap_err();
    assert_eq!(problem(loss_named("cosent"), row(1, 0, 0)), "expected a score, found 0 scores");
    assert!(
        problem(loss_named("triplet-cosine"), row(1, 0, 0))
            .contains("an anchor with a positive and a negative, found 1 positive and 0 negative")
    );
    assert!(problem(loss_named("kl"), row(1, 1, 1)).contains("expected 2 scores, one for each text, found 1"));
    assert!(
        problem(loss_named("margin-mse"), row(1, 2, 1))
            .contains("expected 3 scores, one for each text, or 2 margins, found 1")
    );
    assert!(problem(Loss::Mse, row(1, 0, 3)).contains("a teacher's vector of 4 numbers"));
    let own = InfoNce { candidates: Candidates::Own, ..InfoNce::default() };
    assert!(problem(Loss::InfoNce(own), row(1, 0, 0)).contains("only a row's own negatives count"));
}
