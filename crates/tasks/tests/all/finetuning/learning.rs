//! What is learned: memorization, frozen layers, layer decay, accumulation, class weights, windows.

use cloze_model::{BiLstmSize, Features, SequenceToken, TaskHead, TaskInput};
use cloze_tasks::{AnyRows, ClassWeights};
use cloze_train::train_loop::Event;

use super::*;

/// Trains the complete network on a few rows until it predicts all of them.
#[track_caller]
fn memorizes<T: Task>((task, rows): (T, Vec<T::Row>), settings: &Settings, least: f64) {
    let bench = Bench::new(0.0);
    let mut example_count = 0;
    let outcome = bench
        .run(&task, [&rows, &rows], settings, "run", false, &mut |event, _| {
            if let Event::Start(start) = event {
                example_count = start.examples;
                assert!(!start.load_report.newly_initialized.is_empty(), "the head is new");
            }
        })
        .unwrap();
    assert!(example_count >= rows.len());
    let best = outcome.best.expect("dev rows were scored");
    assert!(best.score >= least && best.score <= 1.0 + 1e-9, "{best:?}");
    assert_eq!(best.collapsed, None);

    // The saved model is the one that was scored.
    let trained = bench.model("run");
    assert_eq!(trained.model.heads.task.unwrap(), task.head());
    let (score, _) = main_score(&trained, &task, &rows).unwrap();
    assert!((score - best.score).abs() < 1e-9, "{score} and {}", best.score);
    assert_eq!(json_of(bench.path("run/scores.json"))["best"]["score"], best.score);
    assert!(!bench.path("run/checkpoints").exists(), "a finished run has no checkpoints");

    // Adding a constant to all keys, or to all logits of a softmax over positions, changes nothing: the gradient is
    // only a rounding error.
    let over_positions = matches!(task.head(), TaskHead::Answer | TaskHead::Choose);
    let free = |name: &str| {
        name.ends_with("key.bias") || over_positions && (name == "classifier.bias" || name == "qa_outputs.bias")
    };
    let moved = distances(&bench.initial(&task, settings.seed), &trained.model);
    assert!(moved.len() > 16 * LAYERS);
    for (name, distance) in moved.iter().filter(|(name, _)| !free(name)) {
        assert!(*distance > 1e-5, "{name} moved only by {distance}");
    }
}

#[test]
fn classes_are_memorized() {
    memorizes(classifier(), &settings(), 1.0);
}

#[test]
fn numbers_are_memorized() {
    memorizes(regressor(), &with!(settings(), epochs: 150), 0.99);
}

#[test]
fn tags_are_memorized() {
    memorizes(tagger(), &settings(), 1.0);
}

#[test]
fn answers_are_memorized() {
    memorizes(answerer(), &settings(), 1.0);
}

#[test]
fn choices_are_memorized() {
    memorizes(chooser(), &settings(), 1.0);
}

/// The number of the layer of a tensor, where the embeddings are 0; none for pooler and head.
fn layer(name: &str) -> Option<usize> {
    if name.starts_with("bert.embeddings.") {
        return Some(0);
    }
    let number = name.strip_prefix("bert.encoder.layer.")?.split('.').next()?;
    Some(number.parse::<usize>().unwrap() + 1)
}

#[test]
fn frozen_layers_do_not_change() {
    // With dropout: frozen layers run without it, so their outputs do not change either.
    let bench = Bench::new(0.1);
    let (task, rows) = classifier();
    for freeze in [0, 2] {
        let out = format!("freeze-{freeze}");
        let settings = with!(settings(), epochs: 4, freeze: Some(freeze));
        bench.finish(&task, [&rows, &[]], &settings, &out);
        let initial = bench.initial(&task, settings.seed);
        let end = bench.model(&out);
        for (name, distance) in distances(&initial, &end.model) {
            match layer(&name) {
                Some(layer) if layer <= freeze => assert_eq!(distance, 0.0, "{name} with {freeze} layers frozen"),
                _ => assert!(distance > 0.0 || name.ends_with("key.bias"), "{name} with {freeze} layers frozen"),
            }
        }
    }
}

#[test]
fn the_feature_based_approach_changes_only_the_head() {
    let bench = Bench::new(0.1);
    let (task, rows) = tagger();
    for (features, bilstm, epochs) in [(Features::ConcatLast(LAYERS), 0, 150), (Features::SumAll, 2, 40)] {
        let settings = with!(settings(), epochs: epochs, lr: 1e-2, features: Some(features), bilstm: bilstm);
        let out = features.to_string();
        bench.finish(&task, [&rows, &[]], &settings, &out);
        let trained = bench.model(&out);
        assert_eq!(main_score(&trained, &task, &rows).unwrap().0, 1.0, "{features}");
        let input = trained.model.architecture().task_input;
        let size = (bilstm > 0).then_some(BiLstmSize { layers: bilstm, size: 32 });
        assert_eq!((input.features, input.bilstm), (features, size));
        let initial = Model::load_for_task(&bench.model, task.head(), input, &[], &bench.device, settings.seed);
        for (name, distance) in distances(&initial.unwrap().0, &trained.model) {
            let is_new = name.starts_with("classifier.") || name.starts_with("cloze_");
            assert_eq!(distance > 0.0, is_new, "{name} moved by {distance}");
        }
    }
}

/// Trains a model on the rows of a task, which it then predicts correctly.
#[track_caller]
fn learns<T: Task>(bench: &Bench, (task, rows): (T, Vec<T::Row>), settings: &Settings, out: &str) -> TaskInput {
    bench.finish(&task, [&rows, &[]], settings, out);
    let model = bench.model(out);
    assert_eq!(main_score(&model, &task, &rows).unwrap().0, 1.0, "{out}");
    assert!(model.model.architecture().causal);
    model.model.architecture().task_input
}

/// The row "LTR & No NSP" of table 5, and the same with a BiLSTM.
#[test]
fn a_left_to_right_model_learns_all_kinds_of_tasks() {
    let mut bench = Bench::new(0.0);
    bench.model = bench.path("left-to-right");
    let mut config = cloze_testing::config().causal();
    config.num_hidden_layers = LAYERS;
    Model::new(config, Heads::MLM, &bench.device, 7).unwrap().save(&bench.model).unwrap();
    tokenizer(&[]).save(&bench.model).unwrap();
    for bilstm in [0, 1] {
        let settings = with!(settings(), bilstm: bilstm);
        let size = (bilstm > 0).then_some(BiLstmSize { layers: bilstm, size: 32 });
        for (input, expected) in [
            (learns(&bench, classifier(), &settings, &format!("classify-{bilstm}")), SequenceToken::Last),
            (learns(&bench, tagger(), &settings, &format!("tag-{bilstm}")), SequenceToken::First),
            (learns(&bench, answerer(), &settings, &format!("answer-{bilstm}")), SequenceToken::First),
            (learns(&bench, chooser(), &settings, &format!("choose-{bilstm}")), SequenceToken::Last),
        ] {
            assert_eq!((input.token, input.bilstm), (expected, size));
        }
    }
}

#[test]
fn layer_decay_lowers_the_rates_of_lower_layers() {
    let bench = Bench::new(0.0);
    let (task, rows) = classifier();
    // The size of AdamW's first step is the learning rate for every gradient, so distances are rates.
    let one = |decay: f64, out: &str| {
        let settings =
            with!(settings(), epochs: 1, batch: rows.len(), warmup: 0.0, weight_decay: 0.0, layer_decay: decay);
        bench.finish(&task, [&rows, &[]], &settings, out);
        let moved = distances(&bench.initial(&task, 1), &bench.model(out).model);
        move |name: &str| moved[name]
    };
    let (even, falling) = (one(1.0, "even"), one(0.5, "falling"));
    // google-research/electra, model/optimization.py: the embeddings have depth 0, layer n, from 0, has n + 1, the head
    // has L + 2. So all below the head have one factor more than here.
    let electra = |depth: usize| 0.5f64.powi((LAYERS + 2 - depth) as i32);
    let tensor = |layer: usize| format!("bert.encoder.layer.{layer}.output.dense.weight");
    for layer in 0..LAYERS {
        let share = falling(&tensor(layer)) / even(&tensor(layer));
        let expected = electra(layer + 1) / 0.5;
        assert!((share / expected - 1.0).abs() < 1e-3, "layer {layer}: {share} of the full rate, expected {expected}");
    }
    let share = |name: &str| falling(name) / even(name);
    assert!((share("bert.embeddings.position_embeddings.weight") / (electra(0) / 0.5) - 1.0).abs() < 1e-3);
    assert!((share("classifier.weight") - 1.0).abs() < 1e-3 && (share("bert.pooler.dense.weight") - 1.0).abs() < 1e-3);
}

#[test]
fn accumulation_equals_a_large_batch() {
    #[track_caller]
    fn check<T: Task>((task, rows): (T, Vec<T::Row>), class_weights: ClassWeights) {
        let bench = Bench::new(0.0);
        // A large ε, so that gradients that are only rounding errors have no effect.
        let big = with!(settings(), epochs: 5, lr: 1e-2, eps: 1e-3, class_weights: class_weights);
        let small = with!(big.clone(), accumulate: 3);
        let a = bench.finish(&task, [&rows, &rows], &big, "big").best.unwrap();
        let b = bench.finish(&task, [&rows, &rows], &small, "small").best.unwrap();
        assert!((a.score - b.score).abs() < 1e-4, "{a:?} and {b:?}");
        let (first, a, b) = (bench.initial(&task, 1), bench.model("big"), bench.model("small"));
        let largest = |a: &Model, b: &Model| {
            let (a, b) = (a.params.read_all(), b.params.read_all());
            a.iter().zip(b.iter()).map(|(x, y)| (x - y).abs()).fold(0.0f32, f32::max)
        };
        assert!(largest(&first, &a.model) > 1e-2);
        let difference = largest(&a.model, &b.model);
        assert!(difference < 1e-5, "weights differ by {difference}");
        let loss = |out: &str| -> Vec<f64> {
            figures(&bench.path(out), &["eval"]).iter().map(|line| line["loss"].as_f64().unwrap()).collect()
        };
        let (a, b) = (loss("big"), loss("small"));
        assert!(a.len() == 5 && a[0] > a[4]);
        assert!(a.iter().zip(&b).all(|(a, b)| (a - b).abs() < 1e-5), "{a:?} and {b:?}");
    }
    check(classifier(), ClassWeights::Given(vec![1.0, 3.0, 0.5]));
    check(tagger(), ClassWeights::None);
    check(answerer(), ClassWeights::None);
}

/// The label of each row, and its loss: −ln of the label's probability.
fn row_losses(bench: &Bench, task: &Classify, rows: &[classify::Row]) -> Vec<(usize, f64)> {
    let model = bench.initial(task, 1);
    let model = Pretrained::new(model, tokenizer(&[]), bench.device.clone(), DType::F32, &bench.model).unwrap();
    let found = Rows::new(task.clone(), rows.to_vec()).predict(0..rows.len(), &model);
    let loss = |(row, found): (&classify::Row, Result<Value, TaskError>)| {
        let label = row.label.unwrap();
        (label, -found.unwrap()["probabilities"][&task.labels[label]].as_f64().unwrap().ln())
    };
    rows.iter().zip(found).map(loss).collect()
}

#[test]
fn class_weights_weigh_the_loss() {
    let bench = Bench::new(0.0);
    let (task, rows) = classifier();
    let losses = row_losses(&bench, &task, &rows);
    let count = |class: usize| losses.iter().filter(|(label, _)| *label == class).count();
    assert_eq!([0, 1, 2].map(count), [3, 2, 5]);
    // scikit-learn's `balanced`: n / (classes · n_c).
    let balanced = [0, 1, 2].map(|class| 10.0 / (3.0 * count(class) as f64));
    for (number, (class_weights, weights)) in [
        (ClassWeights::None, [1.0; 3]),
        (ClassWeights::Balanced, balanced),
        (ClassWeights::Given(vec![0.0, 2.0, 0.5]), [0.0, 2.0, 0.5]),
    ]
    .into_iter()
    .enumerate()
    {
        let weight: f64 = losses.iter().map(|(label, _)| weights[*label]).sum();
        let expected = losses.iter().map(|(label, loss)| weights[*label] * loss).sum::<f64>() / weight;
        for accumulate in [1, 3] {
            let settings =
                with!(settings(), epochs: 1, batch: 10, accumulate: accumulate, class_weights: class_weights.clone());
            let mut found = f64::NAN;
            let out = format!("run-{number}-{accumulate}");
            bench
                .run(&task, [&rows, &[]], &settings, &out, false, &mut |event, _| {
                    if let Event::Step(step) = event {
                        found = step.figures.loss;
                    }
                })
                .unwrap();
            assert!((found - expected).abs() < 1e-5, "{class_weights:?}: {found}, expected {expected}");
        }
    }
}

#[test]
fn a_long_text_is_split_into_windows() {
    let bench = Bench::new(0.0);
    let (mut task, _) = classifier();
    task.labels.truncate(2);
    // Two texts that differ only at their ends, which do not fit into one sequence.
    let begin = "the old red tower in the quiet river in the old red tower";
    let rows: Vec<classify::Row> = ["fox", "owl"]
        .iter()
        .enumerate()
        .map(|(label, end)| classify::Row { text: text(&format!("{begin} {end}")), label: Some(label) })
        .collect();
    task.length = Length { max_len: 8, ..Length::default() };
    let cut = task.encode(&rows[0], &tokenizer(&[])).unwrap();
    assert_eq!((cut.examples[0].sequences.len(), cut.cut), (1, 8));
    let settings = with!(settings(), epochs: 40);
    let best = bench.finish(&task, [&rows, &rows], &settings, "cut").best.unwrap();
    assert_eq!(best.score, 0.5, "truncated texts are equal");

    task.length = Length { max_len: 8, stride: Some(3), ..Length::default() };
    let windows = task.encode(&rows[0], &tokenizer(&[])).unwrap();
    assert_eq!((windows.examples.len(), windows.cut), (1, 0), "one example");
    assert_eq!(windows.examples[0].sequences.len(), 4, "with several sequences");
    let best = bench.finish(&task, [&rows, &rows], &settings, "windows").best.unwrap();
    assert_eq!(best.score, 1.0);
    assert_eq!(main_score(&bench.model("windows"), &task, &rows).unwrap(), (1.0, 2));
}
