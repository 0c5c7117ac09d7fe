//! Initialization of the task head.

use cloze_model::Config;
use cloze_tasks::{AnyRows, HeadInit};
use cloze_train::train_loop::Event;

use super::*;

/// A checkpoint with a head for the task, in its own folder.
fn checkpoint(bench: &Bench, task: &Classify) -> PathBuf {
    let mut model = bench.initial(task, 5);
    let mut config = model.config().clone();
    task.describe(&mut config);
    model.set_config(config).unwrap();
    let path = bench.path("checkpoint");
    model.save(&path).unwrap();
    tokenizer(&[]).save(&path).unwrap();
    path
}

/// The notes at the start of a run.
fn notes_of<T: Task>(bench: &Bench, task: &T, rows: &[T::Row], settings: &Settings, out: &str) -> Vec<String> {
    let mut notes = Vec::new();
    let on_event = &mut |event: &FineTuneEvent, _: &AtomicBool| {
        if let Event::Start(start) = event {
            notes.clone_from(&start.notes);
        }
    };
    assert!(bench.run(task, [rows, &[]], settings, out, false, on_event).unwrap().finished);
    notes
}

#[test]
fn n1_outputs_of_a_copied_head_are_matched_by_label_names() {
    let mut bench = Bench::new(0.0);
    let (task, rows) = classifier();
    let named = |labels: [&str; 3]| Classify { labels: labels.map(str::to_owned).to_vec(), ..task.clone() };
    let before = named(["OWL", "person", "fox"]);
    bench.model = checkpoint(&bench, &before);
    // A learning rate without effect.
    let settings = with!(settings(), epochs: 1, lr: 1e-12);
    let shares = |task: &Classify, model: &Pretrained| -> Vec<BTreeMap<String, f64>> {
        let found = Rows::new(task.clone(), rows.clone()).predict(0..rows.len(), model);
        let of_row = |found: Result<Value, TaskError>| {
            let shares: BTreeMap<String, f64> =
                serde_json::from_value(found.unwrap()["probabilities"].clone()).unwrap();
            shares.into_iter().map(|(name, share)| (name.to_lowercase(), share)).collect()
        };
        found.into_iter().map(of_row).collect()
    };
    let expected = shares(&before, &Pretrained::open(&bench.model, bench.device.clone(), DType::F32).unwrap());
    let close = |found: &[BTreeMap<String, f64>]| {
        found.iter().zip(&expected).all(|(a, b)| a.iter().all(|(name, share)| (share - b[name]).abs() < 1e-6))
    };
    for (number, (labels, expected_note)) in [
        (["OWL", "person", "fox"], "task head kept from the checkpoint"),
        (
            ["fox", "owl", "person"],
            "task head kept from the checkpoint, its outputs reordered to the order of the labels",
        ),
    ]
    .into_iter()
    .enumerate()
    {
        let (task, out) = (named(labels), format!("kept-{number}"));
        assert_eq!(notes_of(&bench, &task, &rows, &settings, &out), [expected_note]);
        let found = shares(&task, &bench.model(&out));
        assert!(close(&found), "{labels:?}: {found:?}, expected {expected:?}");
    }
    // Different names: a new head.
    let others = named(["fox", "owl", "wolf"]);
    let notes = notes_of(&bench, &others, &rows, &settings, "new");
    assert_eq!(
        notes.last().unwrap(),
        "task head not kept from the checkpoint: its labels are \"OWL\", \"person\", \"fox\""
    );
    assert!(notes.iter().any(|note| note == "newly initialized: task's head"), "{notes:?}");
    let weight = |model: &Model| values(model)["classifier.weight"].clone();
    let (old, new) = (Model::load(&bench.model, &bench.device).unwrap(), bench.model("new"));
    let changed = weight(&old).iter().zip(weight(&new.model)).filter(|(a, b)| *a != b).count();
    assert_eq!(changed, 3 * 32, "all weights are new");
    // A model class whose single output has another meaning.
    let (chooser, rows) = chooser();
    let notes = notes_of(&bench, &chooser, &rows, &settings, "other-class");
    assert!(notes.last().unwrap().ends_with("the checkpoint is a BertForSequenceClassification"), "{notes:?}");
}

#[test]
fn outputs_without_names_are_matched_by_number_or_preset_order() {
    let labels = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>();
    let mut start = Config::default();
    start.set_labels(&labels(&["LABEL_0", "LABEL_1"]));
    let head_init = |names: &[&str], is_known| HeadInit::from_labels(&labels(names), &start, is_known);
    assert_eq!(head_init(&["0", "1"], false), HeadInit::Copied { rows: None, note: String::new() });
    assert!(matches!(head_init(&["1", "0"], false), HeadInit::Copied { rows: Some(rows), .. } if rows == [1, 0]));
    assert!(matches!(head_init(&["negative", "positive"], false), HeadInit::Random { .. }));
    let HeadInit::Copied { rows: None, note } = head_init(&["negative", "positive"], true) else {
        panic!("expected a copied head")
    };
    assert!(note.contains("assumed") && note.contains("\"negative\", \"positive\""), "{note}");
}

#[test]
fn a_regression_starts_at_the_mean_of_its_targets() {
    let bench = Bench::new(0.0);
    let (task, mut rows) = regressor();
    rows.iter_mut().for_each(|row| row.value = row.value.map(|value| 100.0 + 10.0 * value));
    let settings = with!(settings(), epochs: 1, lr: 1e-12);
    let notes = notes_of(&bench, &task, &rows, &settings, "run");
    let expected = "task head starts at the mean 123.3333 and standard deviation 16.2447 of its targets";
    assert_eq!(notes.last().unwrap(), expected);
    let (found, fresh) = (values(&bench.model("run").model), values(&bench.initial(&task, settings.seed)));
    assert!((found["classifier.bias"][0] - 123.33333).abs() < 1e-4);
    let stretched = found["classifier.weight"].iter().zip(&fresh["classifier.weight"]);
    assert!(stretched.into_iter().all(|(a, b)| (a - 16.2447 * b).abs() < 1e-4));
    // A trained head is not changed.
    let (model, loss) = (bench.path("run/model"), |out: &str| figures(&bench.path(out), &["train"])[0]["loss"].clone());
    let again = Bench { model, ..Bench::new(0.0) };
    assert_eq!(notes_of(&again, &task, &rows, &settings, "again"), ["task head kept from the checkpoint"]);
    assert!(loss("run").as_f64().unwrap() < 2.0 * 16.2447f64.powi(2));
}
