//! Inference: one model with several uses, from several threads.

use std::path::Path;
use std::sync::Arc;

use cloze_engine::{DType, Device};
use cloze_model::{Heads, Model, TaskHead};
use cloze_tasks::embed::prompts::Purpose;
use cloze_tasks::embed::{Embedder, Options};
use cloze_tasks::inference::Precision;
use cloze_tasks::inference::likelihood::{PseudoLikelihood, Scorer};
use cloze_tasks::inference::minimal_pairs::{MinimalPair, report, score_pairs};
use cloze_tasks::{Filler, Predictor, Pretrained, TaskError, TaskOptions};
use cloze_testing::WORDS;
use serde_json::{Value, json};

/// A random model with all heads.
fn pretrained(dir: &Path) -> Arc<Pretrained> {
    pretrained_in(dir, DType::F32.into(), &|_| ())
}

/// The same in a precision, after `change`.
fn pretrained_in(dir: &Path, precision: Precision, change: &dyn Fn(&mut Model)) -> Arc<Pretrained> {
    let device = Device::cpu(Some(2)).unwrap();
    let mut config = cloze_testing::config();
    config.max_position_embeddings = 64;
    config.initializer_range = 0.3;
    config.set_labels(&["fox", "owl", "person"].map(str::to_owned));
    let mut heads = Heads::PRETRAINING;
    heads.task = Some(TaskHead::Classify { labels: 3 });
    let mut model = Model::new(config, heads, &device, 7).unwrap();
    change(&mut model);
    Arc::new(Pretrained::new(model, cloze_testing::tokenizer(&[]), device, precision, dir).unwrap())
}

/// A text of `length` words, different for each number.
fn text(number: usize, length: usize) -> String {
    (0..length).map(|i| WORDS[(number * 7 + i * (number + 3)) % WORDS.len()]).collect::<Vec<_>>().join(" ")
}

#[test]
fn eight_threads_give_the_same_bits_as_one() {
    let dir = tempfile::tempdir().unwrap();
    let model = pretrained(dir.path());
    let predictor = Predictor::new(Arc::clone(&model), None, TaskOptions::default()).unwrap();
    let filler = Filler::new(Arc::clone(&model)).unwrap();
    let embedder = Embedder::new(Arc::clone(&model), dir.path(), &Options::default()).unwrap();
    // The model is shared, not copied.
    assert_eq!(Arc::strong_count(&model), 4);
    let outputs = |number: usize| -> (Value, Value, Vec<f32>) {
        let rows = [json!(text(number, 1 + number % 40)), json!({"text": text(number + 1, 5)})];
        let predicted: Vec<Value> = predictor.predict(&rows).into_iter().map(Result::unwrap).collect();
        let filled = filler.fill(&format!("{} [MASK] .", text(number, 6)), 3).unwrap();
        let vectors = embedder.embed(&[text(number, 9)], Purpose::Text, &mut |_| ()).unwrap().vectors;
        (json!(predicted), json!(filled), vectors.values().to_vec())
    };
    let expected: Vec<_> = (0..100).map(outputs).collect();
    assert!(expected.windows(2).all(|pair| pair[0] != pair[1]), "the texts differ");
    std::thread::scope(|scope| {
        for thread in 0..8 {
            let (expected, outputs) = (&expected, &outputs);
            scope.spawn(move || {
                for number in (0..100).map(|number| (number + 13 * thread) % 100) {
                    let (predicted, filled, vector) = outputs(number);
                    let (expected_rows, expected_fill, expected_vector) = &expected[number];
                    assert_eq!((&predicted, &filled), (expected_rows, expected_fill), "{number}");
                    let bits = |values: &[f32]| values.iter().map(|x| x.to_bits()).collect::<Vec<_>>();
                    assert_eq!(bits(&vector), bits(expected_vector), "{number}");
                }
            });
        }
    });
}

/// The vectors of `model` for some texts, and its predictions; errors without the folder.
type Outputs = (Result<Vec<f32>, String>, Vec<Result<Value, String>>);

fn outputs(model: &Arc<Pretrained>, dir: &Path) -> Outputs {
    let message = |error: TaskError| error.to_string().replace(&dir.display().to_string(), "");
    let embedder = Embedder::new(Arc::clone(model), dir, &Options::default()).unwrap();
    let predictor = Predictor::new(Arc::clone(model), None, TaskOptions::default()).unwrap();
    let texts: Vec<String> = (0..20).map(|number| text(number, 1 + 2 * number)).collect();
    let embedded = embedder.embed(&texts, Purpose::Text, &mut |_| ());
    let rows: Vec<Value> = texts.iter().map(|text| json!(text)).collect();
    let predicted = predictor.predict(&rows).into_iter().map(|row| row.map_err(message)).collect();
    (embedded.map(|embedded| embedded.vectors.values().to_vec()).map_err(message), predicted)
}

/// All numbers of a prediction.
fn numbers(value: &Value) -> Vec<f64> {
    match value {
        Value::Number(number) => number.as_f64().into_iter().collect(),
        Value::Array(values) => values.iter().flat_map(numbers).collect(),
        Value::Object(values) => values.values().flat_map(numbers).collect(),
        _ => Vec::new(),
    }
}

#[test]
fn int8_changes_results_a_little_and_not_the_model() {
    let dir = tempfile::tempdir().unwrap();
    let [exact, int8] =
        [Precision::F32, Precision::Int8].map(|precision| pretrained_in(dir.path(), precision, &|_| ()));
    assert_eq!((exact.precision(), int8.precision()), (Precision::F32, Precision::Int8));
    assert_ne!(pretrained_in(dir.path(), Precision::Auto, &|_| ()).precision(), Precision::Auto);
    assert_eq!(exact.model.params.read_all(), int8.model.params.read_all());
    let [(exact, exact_rows), (int8, int8_rows)] = [&exact, &int8].map(|model| outputs(model, dir.path()));
    let (exact, int8) = (exact.unwrap(), int8.unwrap());
    assert_ne!(exact, int8);
    let norm = |x: &mut dyn Iterator<Item = f32>| x.map(|x| x * x).sum::<f32>().sqrt();
    let error = norm(&mut exact.iter().zip(&int8).map(|(x, y)| x - y)) / norm(&mut exact.iter().copied());
    assert!(error < 0.05, "{error}");
    for (exact, int8) in exact_rows.into_iter().zip(int8_rows) {
        let (exact, int8) = (numbers(&exact.unwrap()), numbers(&int8.unwrap()));
        assert!(!exact.is_empty() && exact.len() == int8.len(), "{exact:?}, {int8:?}");
        assert!(exact.iter().zip(&int8).all(|(x, y)| (x - y).abs() < 0.1), "{exact:?}, {int8:?}");
    }
}

/// A number that is not finite is never rounded to a number: the results are the same errors as in f32.
#[test]
fn int8_keeps_numbers_that_are_not_finite() {
    let dir = tempfile::tempdir().unwrap();
    for (name, value) in [
        ("bert.encoder.layer.0.attention.output.dense.weight", f32::NAN),
        ("bert.encoder.layer.0.output.dense.weight", f32::INFINITY),
        ("bert.encoder.layer.0.attention.self.value.weight", f32::NEG_INFINITY),
        ("bert.embeddings.LayerNorm.bias", f32::NAN),
    ] {
        let broken = |precision| {
            pretrained_in(dir.path(), precision, &|model| {
                let id = model.params.find(name).unwrap_or_else(|| panic!("{name}"));
                model.params.edit(id, |values| values[3] = value);
            })
        };
        let [exact, int8] = [Precision::F32, Precision::Int8].map(|precision| outputs(&broken(precision), dir.path()));
        assert!(exact.0.as_ref().is_err_and(|error| error.contains("not finite")), "{name}: {:?}", exact.0);
        assert!(exact.1.iter().all(Result::is_err), "{name}: {:?}", exact.1);
        assert_eq!(exact, int8, "{name}");
    }
}

#[test]
fn an_invalid_row_does_not_affect_the_others() {
    let dir = tempfile::tempdir().unwrap();
    let predictor = Predictor::new(pretrained(dir.path()), None, TaskOptions::default()).unwrap();
    let rows =
        [json!("the fox"), json!(3), json!({"title": "a"}), json!({"text": "an owl ."}), json!("red ".repeat(80))];
    let found = predictor.predict(&rows);
    let expected =
        [None, Some("expected a string or an object, found 3"), Some("\"text\": missing"), None, Some("64 positions")];
    assert_eq!(found.len(), expected.len());
    for (found, expected) in found.iter().zip(expected) {
        match (found, expected) {
            (Ok(found), None) => assert!(found["label"].is_string(), "{found}"),
            (Err(error), Some(expected)) => assert!(error.to_string().contains(expected), "{error}"),
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(predictor.predict(&rows[..1])[0].as_ref().unwrap(), found[0].as_ref().unwrap());
    assert!(predictor.predict(&[]).is_empty());
}

#[test]
fn masked_tokens_are_predicted() {
    let dir = tempfile::tempdir().unwrap();
    let filler = Filler::new(pretrained(dir.path())).unwrap();
    let filled = filler.fill("The [MASK] fox sees a [MASK].", 3).unwrap();
    assert_eq!((filled.len(), filled[0].len()), (2, 3));
    assert!(filled[0][0].probability >= filled[0][1].probability && filled[0][0].probability < 1.0);
    assert!(filled[0][0].text.contains(&filled[0][0].token));
    assert!(matches!(filler.fill("no mask here", 3), Err(TaskError::NoMask { .. })));
    let long = "the [MASK] ".repeat(40);
    assert!(matches!(filler.fill(&long, 3), Err(TaskError::TooLong { found: 82, positions: 64 })));
}

#[test]
fn errors_of_missing_heads_name_the_head() {
    let dir = tempfile::tempdir().unwrap();
    let device = Device::cpu(Some(1)).unwrap();
    let base = pretrained(dir.path());
    let model = Model::new(base.model.config().clone(), Heads::ENCODER, &device, 1).unwrap();
    model.save(dir.path()).unwrap();
    base.tokenizer.save(dir.path()).unwrap();
    let encoder = Arc::new(Pretrained::open(dir.path(), device.clone(), DType::F32).unwrap());
    let no_fill = Filler::new(Arc::clone(&encoder)).err().unwrap().to_string();
    assert!(no_fill.contains("expected a model with a masked-language-model head"), "{no_fill}");
    let no_task = Predictor::new(encoder, None, TaskOptions::default()).err().unwrap().to_string();
    assert!(no_task.contains("found a BertModel without a task head"), "{no_task}");
    let mut few = base.model.config().clone();
    few.vocab_size = 9;
    Model::new(few, Heads::ENCODER, &device, 1).unwrap().save(dir.path()).unwrap();
    let misfit = Pretrained::open(dir.path(), device, DType::F32).err().unwrap().to_string();
    assert!(misfit.contains("its tokenizer has 25 tokens, but the model only has 9 embeddings"), "{misfit}");
}

/// A model of the parity fixtures with the vocabulary of the minimal pairs.
fn scorer(model: &str, score: Option<PseudoLikelihood>) -> Result<Scorer, TaskError> {
    let fixtures = Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures");
    let (dir, device) = (fixtures.join("parity").join(model), Device::cpu(Some(2)).unwrap());
    let vocabulary = std::fs::read_to_string(fixtures.join("minimal-pairs/vocab.txt")).unwrap();
    let tokenizer = cloze_text::Tokenizer::from_tokens(vocabulary.lines().map(str::to_owned).collect(), false).unwrap();
    let model = Model::load(&dir, &device).unwrap();
    Scorer::new(Arc::new(Pretrained::new(model, tokenizer, device, DType::F32, &dir).unwrap()), score)
}

#[test]
fn scores_of_minimal_pairs_equal_those_of_transformers() {
    let fixtures = Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures/minimal-pairs");
    let path = fixtures.join("pairs.jsonl");
    let pairs = MinimalPair::read(&path).unwrap();
    let expected: Value = serde_json::from_slice(&std::fs::read(fixtures.join("scores.json")).unwrap()).unwrap();
    // More passes than fit into one batch: sentences are divided between batches.
    let many: Vec<MinimalPair> = (0..6).flat_map(|_| pairs.clone()).collect();
    for (model, score) in [
        ("bert-mlm", None),
        ("bert-mlm", Some(PseudoLikelihood::WordL2r)),
        ("bert-mlm", Some(PseudoLikelihood::Pll)),
        ("bert-causal", None),
    ] {
        let scorer = scorer(model, score).unwrap();
        let mut fractions = Vec::new();
        let scores = score_pairs(&scorer, &path, &many, &mut |fraction| fractions.push(fraction)).unwrap();
        assert!(fractions.is_sorted() && fractions.last() == Some(&1.0), "{fractions:?}");
        assert!(fractions.len() > 1 || model == "bert-causal", "several batches");
        let expected: Vec<[f64; 2]> = serde_json::from_value(expected[scorer.method().name()].clone()).unwrap();
        for (number, found) in scores.iter().enumerate() {
            let [good, bad] = expected[number % pairs.len()];
            let gap = (found.good - good).abs().max((found.bad - bad).abs());
            assert!(gap < 1e-4, "{} of pair {number}: {found:?}, {good} {bad}", scorer.method().name());
        }
        let right: Vec<f64> = expected.iter().map(|[good, bad]| f64::from(good > bad)).collect();
        let report = report(&many, &scores);
        assert_eq!((report.pairs, report.ties), (6 * pairs.len(), 6), "the last pair has the same tokens");
        let form = report.fields.iter().find(|group| group.name == "form").unwrap();
        assert_eq!((form.accuracy, report.terms[0].pairs), (0.5, 6 * 5));
        assert_eq!(report.paradigms[2].accuracy, right[3]);
    }
}

#[test]
fn sentences_that_cannot_be_scored_are_named() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("pairs.jsonl");
    let scored = |bad: &str| {
        let line =
            json!({"sentence_good": "the cat", "sentence_bad": bad, "UID": "p", "linguistics_term": "t", "field": "f"});
        std::fs::write(&path, format!("\n{line}\n")).unwrap();
        let pairs = MinimalPair::read(&path).unwrap();
        score_pairs(&scorer("bert-mlm", None).unwrap(), &path, &pairs, &mut |_| ()).unwrap_err().to_string()
    };
    let long = scored(&"cat ".repeat(60));
    assert!(long.contains("pairs.jsonl:2: \"sentence_bad\": the text has 62 tokens") && !long.contains('\n'), "{long}");
    let empty = scored("\u{1}");
    assert!(empty.contains("pairs.jsonl:2: \"sentence_bad\": ") && empty.contains("has no tokens"), "{empty}");
    let error = |model: &str, score| scorer(model, score).err().unwrap().to_string();
    let causal = error("bert-causal", Some(PseudoLikelihood::Pll));
    assert!(causal.contains("`score`: a causal language model scores by log-likelihood"), "{causal}");
    let nsp = error("bert-nsp", None);
    assert!(nsp.contains("expected a masked or causal language model, found a BertForNextSentencePrediction"), "{nsp}");
}
