//! The log, early stopping, and the selection of the best model.

use super::*;

#[test]
fn the_log_describes_the_training_data() {
    let bench = Bench::new(0.1);
    let (task, rows) = classifier();
    bench.finish(&task, [&rows, &rows], &with!(settings(), epochs: 2, batch: 4), "run");
    let run = bench.path("run");
    let start = &figures(&run, &["start"])[0];
    assert_eq!((&start["train_rows"], &start["dev_rows"]), (&rows.len().into(), &rows.len().into()), "{start}");
    assert!(start["model"].is_string(), "{start}");
    assert!(lines(&run).iter().filter(|line| line["kind"] == "eval").all(|line| line["seconds"].is_number()));
}

#[test]
fn early_stopping_ends_training_without_better_scores() {
    let bench = Bench::new(0.0);
    let (task, rows) = classifier();
    // A learning rate without effect: the first evaluation remains the best.
    let settings = with!(settings(), epochs: 50, lr: 1e-12, patience: Some(3));
    let outcome = bench.finish(&task, [&rows, &rows], &settings, "run");
    // Two steps per epoch: the first evaluation and three that are not better.
    assert_eq!((outcome.steps, outcome.best.unwrap().step), (8, 2));
    let events = figures(&bench.path("run"), &["event"]);
    assert!(events.iter().any(|line| line["message"].as_str().unwrap().contains("no better score in 3")), "{events:?}");
    assert_eq!(figures(&bench.path("run"), &["eval"]).len(), 4);
}

#[test]
fn the_best_model_is_kept_and_not_the_last() {
    let bench = Bench::new(0.0);
    let (task, rows) = classifier();
    // The dev rows contradict the training rows: the better the training rows are learned, the worse the dev score is.
    let wrong = |row: &classify::Row| classify::Row { label: row.label.map(|label| (label + 1) % 3), ..row.clone() };
    let dev: Vec<classify::Row> = rows.iter().map(wrong).collect();
    let best = bench.finish(&task, [&rows, &dev], &settings(), "run").best.unwrap();
    let scores: Vec<f64> = figures(&bench.path("run"), &["eval"])
        .iter()
        .map(|line| line["scores"]["accuracy"].as_f64().unwrap())
        .collect();
    assert!(best.score > 0.0 && *scores.last().unwrap() < best.score, "{scores:?}");
    assert_eq!(best.score, scores.iter().copied().fold(0.0, f64::max));
    let (kept, _) = main_score(&bench.model("run"), &task, &dev).unwrap();
    assert_eq!(kept, best.score);
}

#[test]
fn r29_the_loss_selects_the_best_model_if_all_scores_are_nan() {
    let bench = Bench::new(0.0);
    let (task, rows) = regressor();
    let mut dev = rows.clone();
    dev.iter_mut().for_each(|row| row.value = Some(2.0));
    let settings = with!(settings(), epochs: 12, patience: Some(2));
    let best = bench.finish(&task, [&rows, &dev], &settings, "run").best.unwrap();
    let losses: Vec<f64> =
        figures(&bench.path("run"), &["eval"]).iter().map(|line| line["loss"].as_f64().unwrap()).collect();
    let least = losses.iter().copied().fold(f64::INFINITY, f64::min);
    assert!(best.score.is_nan() && best.loss == least, "{best:?}, {losses:?}");
    let place = losses.iter().position(|loss| *loss == least).unwrap();
    assert!(losses.len() == 12 || losses.len() == place + 3, "two evaluations without a lower loss end it: {losses:?}");
}
