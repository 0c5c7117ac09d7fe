//! Comparison with the pipelines of Transformers. `fixtures/pipelines` has the reference.

use std::collections::HashMap;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use cloze_engine::{DType, Device};
use cloze_text::SpecialTokens;
use serde::Deserialize;
use serde_json::{Value, json};

use super::*;
use crate::embed::{self, Embedder};
use crate::example::{Example, Target};
use crate::inference::executor::{Executor, Output};
use crate::{Pretrained, TaskError};

const REFERENCE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/fixtures/pipelines");

#[derive(Deserialize)]
struct Case {
    folder: String,
    inputs: Value,
    parameters: Value,
    result: Option<Value>,
    error: Option<String>,
}

fn cases(task: &str) -> Vec<Case> {
    let text = std::fs::read_to_string(Path::new(REFERENCE).join(format!("{task}.json"))).unwrap();
    serde_json::from_str(&text).unwrap()
}

/// A model that reads special tokens in texts as Transformers does.
fn open(folder: &str) -> Arc<Pretrained> {
    let mut model =
        Pretrained::open(&Path::new(REFERENCE).join(folder), Device::cpu(Some(2)).unwrap(), DType::F32).unwrap();
    model.tokenizer = model.tokenizer.with_special_tokens(SpecialTokens::Parse);
    Arc::new(model)
}

/// Runs examples one by one or two by two, the shortest first, and not in their order.
struct Odd {
    model: Arc<Pretrained>,
    batches: Mutex<usize>,
}

impl Executor for Odd {
    fn run(
        &self,
        output: &Output,
        examples: &[&Example],
        done: &mut dyn FnMut(usize, Vec<f32>),
    ) -> Result<(), TaskError> {
        let mut order: Vec<usize> = (0..examples.len()).collect();
        order.sort_by_key(|&i| examples[i].length());
        let mut rest = &order[..];
        while !rest.is_empty() {
            let mut batches = self.batches.lock().unwrap_or_else(PoisonError::into_inner);
            *batches += 1;
            let (now, later) = rest.split_at((1 + *batches % 2).min(rest.len()));
            let batch: Vec<&Example> = now.iter().map(|&i| examples[i]).collect();
            for (&i, numbers) in now.iter().zip(self.model.compute(output, &batch)) {
                done(i, numbers);
            }
            rest = later;
        }
        Ok(())
    }
}

/// Computes nothing.
struct Full;

impl Executor for Full {
    fn run(&self, _: &Output, _: &[&Example], _: &mut dyn FnMut(usize, Vec<f32>)) -> Result<(), TaskError> {
        Err(TaskError::Executor("the queue is full".into()))
    }
}

/// Computes NaN.
struct Broken(Arc<Pretrained>);

impl Executor for Broken {
    fn run(
        &self,
        output: &Output,
        examples: &[&Example],
        done: &mut dyn FnMut(usize, Vec<f32>),
    ) -> Result<(), TaskError> {
        self.0.run(output, examples, &mut |i, mut numbers| {
            numbers[0] = f32::NAN;
            done(i, numbers);
        })
    }
}

/// Whether two results are equal, except that numbers that are not whole may differ by rounding. The error says where not.
fn compare(found: &Value, expected: &Value, place: &str) -> Result<(), String> {
    let differ = || format!("{place}: found {found}, expected {expected}");
    match (found, expected) {
        (Value::Array(found), Value::Array(expected)) if found.len() == expected.len() => {
            let mut pairs = found.iter().zip(expected).enumerate();
            pairs.try_for_each(|(i, (found, expected))| compare(found, expected, &format!("{place}[{i}]")))
        }
        (Value::Object(found), Value::Object(expected)) if found.keys().eq(expected.keys()) => {
            let mut pairs = found.iter().zip(expected.values());
            pairs.try_for_each(|((key, found), expected)| compare(found, expected, &format!("{place}.{key}")))
        }
        (Value::Number(found), Value::Number(expected)) if expected.is_f64() => {
            let [found, expected] = [found, expected].map(|number| number.as_f64().unwrap());
            let tolerance = 1e-5 * expected.abs().max(1.0);
            if (found - expected).abs() <= tolerance { Ok(()) } else { Err(differ()) }
        }
        (found, expected) if found == expected => Ok(()),
        _ => Err(differ()),
    }
}

type Answered = Result<Value, TaskError>;

/// Compares all cases of a task, with the executors that must give the same answers. `run` answers a case with a pipeline.
fn check<P>(
    task: &str,
    least: usize,
    new: impl Fn(Arc<Pretrained>) -> Result<P, TaskError>,
    run: impl Fn(&P, &dyn Executor, &Case) -> Answered,
) {
    let (cases, mut opened) = (cases(task), HashMap::new());
    assert!(cases.len() > least, "{}", cases.len());
    let mut wrong = Vec::new();
    for case in &cases {
        let (pipeline, model) = opened.entry(case.folder.clone()).or_insert_with(|| {
            let model = open(&case.folder);
            (new(Arc::clone(&model)).unwrap(), model)
        });
        let odd = Odd { model: Arc::clone(model), batches: Mutex::new(0) };
        let name = format!("{}, {}, {}", case.folder, case.inputs, case.parameters);
        let executors: [&dyn Executor; 2] = [&**model, &odd];
        for executor in executors {
            match (run(pipeline, executor, case), &case.result, &case.error) {
                (Ok(found), Some(expected), None) => wrong.extend(compare(&found, expected, &name).err()),
                (Err(error), None, Some(_)) => {
                    let line = error.to_string();
                    assert!(!line.contains('\n') && !line.is_empty(), "{line}");
                    let is_input =
                        matches!(error, TaskError::Input { .. } | TaskError::NoMask { .. } | TaskError::TooLong { .. });
                    assert!(is_input, "{name}: {error:?}");
                }
                (found, expected, error) => wrong.push(format!("{name}: {found:?}, expected {expected:?} {error:?}")),
            }
        }
        let full = run(pipeline, &Full, case);
        // Texts without tokens need no executor.
        let needs_none = case.result.as_ref().is_some_and(|result| *result == json!([]));
        match (&case.error, full) {
            (Some(_), Err(_)) => {}
            (None, Err(TaskError::Executor(_))) => {}
            (None, Ok(_)) if needs_none => {}
            (_, found) => panic!("{name}: {found:?}"),
        }
        if case.error.is_none() && !needs_none {
            let broken = run(pipeline, &Broken(Arc::clone(model)), case);
            assert!(matches!(broken, Err(TaskError::Logits(_))), "{name}: {broken:?}");
        }
    }
    assert!(wrong.is_empty(), "{} differences:\n{}", wrong.len(), wrong[..wrong.len().min(12)].join("\n"));
}

fn shown(answers: impl serde::Serialize) -> Value {
    serde_json::to_value(answers).unwrap()
}

#[test]
fn text_classification_equals_transformers() {
    check("text-classification", 150, TextClassification::new, |pipeline, executor, case| {
        let inputs = Inputs::try_from(case.inputs.clone())?;
        let parameters = text_classification::Parameters::try_from(case.parameters.clone())?;
        let answers = pipeline.run_on(executor, &inputs, &parameters)?;
        assert_eq!(answers.cut > 0, parameters.truncation == Some(true));
        assert_eq!(answers.notes.len(), usize::from(answers.cut > 0));
        Ok(shown(answers))
    });
}

#[test]
fn token_classification_equals_transformers() {
    check("token-classification", 400, TokenClassification::new, |pipeline, executor, case| {
        let inputs = Inputs::try_from(case.inputs.clone())?;
        let parameters = token_classification::Parameters::try_from(case.parameters.clone())?;
        let answers = pipeline.run_on(executor, &inputs, &parameters)?;
        if answers.notes.is_empty() {
            return Ok(shown(answers));
        }
        // Transformers leaves out the end of the text.
        let expected = case.result.as_ref().unwrap().as_array().unwrap().len();
        assert!(answers.rows[0].len() > expected + 20, "{:?}", answers.rows[0].len());
        Ok(shown(&answers.rows[0][..expected]))
    });
}

#[test]
fn fill_mask_equals_transformers() {
    check("fill-mask", 200, FillMask::new, |pipeline, executor, case| {
        let inputs = Inputs::try_from(case.inputs.clone())?;
        let parameters = fill_mask::Parameters::try_from(case.parameters.clone())?;
        Ok(shown(pipeline.run_on(executor, &inputs, &parameters)?))
    });
}

#[test]
fn zero_shot_classification_equals_transformers() {
    check("zero-shot-classification", 100, ZeroShotClassification::new, |pipeline, executor, case| {
        let inputs = Inputs::try_from(case.inputs.clone())?;
        let parameters = zero_shot_classification::Parameters::try_from(case.parameters.clone())?;
        let answers = pipeline.run_on(executor, &inputs, &parameters)?;
        assert_eq!(answers.notes.iter().any(|note| note.contains("entail")), case.folder == "electra-nli");
        Ok(shown(answers))
    });
}

#[test]
fn question_answering_equals_transformers() {
    check("question-answering", 150, QuestionAnswering::new, |pipeline, executor, case| {
        let inputs = Inputs::try_from(case.inputs.clone())?;
        let parameters = question_answering::Parameters::try_from(case.parameters.clone())?;
        Ok(shown(pipeline.run_on(executor, &inputs, &parameters)?))
    });
}

const FOX: &str = "anna lives in new york , paris is the capital of france . ";

#[test]
fn texts_that_do_not_fit_are_truncated_with_a_note() {
    let pipeline = TextClassification::new(open("bert-classify")).unwrap();
    let inputs = Inputs::<TextOrPair>::list([FOX.repeat(8), FOX.to_owned()]);
    let mut parameters = text_classification::Parameters::default();
    let usual = pipeline.run(&inputs, &parameters).unwrap();
    assert_eq!(
        (usual.cut, &usual.notes[..]),
        (1, &["1 text was truncated to 48 tokens, which is all that the model reads".to_owned()][..])
    );
    parameters.truncation = Some(true);
    assert_eq!(pipeline.run(&inputs, &parameters).unwrap(), usual);
    parameters.truncation = Some(false);
    assert!(matches!(pipeline.run(&inputs, &parameters), Err(TaskError::TooLong { found: 106, positions: 48 })));
}

#[test]
fn long_texts_are_labelled_to_their_end() {
    let pipeline = TokenClassification::new(open("distilbert-tag")).unwrap();
    let parameters = token_classification::Parameters {
        ignore_labels: Some(Vec::new()),
        ..token_classification::Parameters::default()
    };
    let text = FOX.repeat(12);
    let answers = pipeline.run(&Inputs::one(text.clone()), &parameters).unwrap();
    let tokens = &answers.rows[0];
    assert_eq!(tokens.len(), pipeline.model().tokenizer.encode(&text).len());
    assert!(tokens.iter().enumerate().all(|(i, token)| token.index == Some(i + 1)));
    assert!(tokens.windows(2).all(|pair| pair[0].end <= pair[1].start));
    assert!(answers.notes[0].starts_with("1 text was longer than the 48 tokens"), "{:?}", answers.notes);
}

/// Tokenizers read the names of special tokens as text unless they are told otherwise.
#[test]
fn names_of_special_tokens_are_text_by_default() {
    let dir = Path::new(REFERENCE).join("bert-tag");
    let model = Arc::new(Pretrained::open(&dir, Device::cpu(Some(2)).unwrap(), DType::F32).unwrap());
    let parameters = token_classification::Parameters {
        ignore_labels: Some(Vec::new()),
        ..token_classification::Parameters::default()
    };
    let answers = TokenClassification::new(model).unwrap().run(&Inputs::one("a [SEP]"), &parameters).unwrap();
    let words: Vec<&str> = answers.rows[0].iter().map(|token| token.word.as_str()).collect();
    assert_eq!(words, ["a", "[", "s", "##e", "##p", "]"]);
}

#[test]
fn similarities_are_cosines() {
    let dir = Path::new(REFERENCE).join("bert-tag");
    let options = embed::Options::default();
    let embedder = Embedder::open(&dir, Device::cpu(Some(2)).unwrap(), DType::F32, &options).unwrap();
    let inputs = json!({"source_sentence": "anna", "sentences": ["anna", "a great film", "paris"]});
    let sentences = sentence_similarity::Sentences::try_from(inputs).unwrap();
    let pipeline = SentenceSimilarity::new(&embedder);
    let found = pipeline.run(&sentences).unwrap();
    let texts = ["anna", "a great film", "paris"];
    let vectors = embedder.embed(&texts, embed::prompts::Purpose::Text, &mut |_| ()).unwrap().vectors;
    let product = |a: &[f32], b: &[f32]| a.iter().zip(b).map(|(a, b)| a * b).sum::<f32>();
    for (row, found) in vectors.rows().zip(&found) {
        let source = vectors.row(0);
        let expected = product(source, row) / (product(source, source) * product(row, row)).sqrt();
        assert!((found - expected).abs() < 1e-5, "{found} {expected}");
    }
    assert!((found[0] - 1.0).abs() < 1e-6 && found[1] < 0.9999);
    assert!(matches!(pipeline.run_on(&Full, &sentences), Err(TaskError::Executor(_))));
    let line = sentence_similarity::Sentences::try_from(json!({"source_sentence": "a"})).unwrap_err().to_string();
    assert_eq!(line, "\"sentences\": missing from the object in \"inputs\"");
}

#[test]
fn wrong_values_and_models_are_named() {
    let line = |value: Value| text_classification::Parameters::try_from(value).unwrap_err().to_string();
    assert_eq!(line(json!({"top_k": "two"})), "\"top_k\": expected a whole number, 0 or more, found \"two\"");
    let names = "\"function_to_apply\": expected one of \"sigmoid\", \"softmax\", \"none\", found \"tanh\"";
    assert_eq!(line(json!({"function_to_apply": "tanh"})), names);
    assert_eq!(line(json!([])), "\"parameters\": expected an object, found a list");
    let ignored = text_classification::Parameters::try_from(json!({"unknown": 1, "function_to_apply": null})).unwrap();
    assert_eq!(ignored, text_classification::Parameters::default());
    let by_serde = serde_json::from_value::<text_classification::Parameters>(json!({"top_k": null})).unwrap();
    assert_eq!(by_serde.top_k, text_classification::TopK::All);
    let inputs = Inputs::<String>::try_from(json!(["a", 3])).unwrap_err().to_string();
    assert_eq!(inputs, "\"inputs\": expected a string as item 2 of the list, found a number");
    let model = open("bert-tag");
    assert!(matches!(TextClassification::new(Arc::clone(&model)), Err(TaskError::Folder { .. })));
    assert!(matches!(ZeroShotClassification::new(Arc::clone(&model)), Err(TaskError::Folder { .. })));
    assert!(matches!(QuestionAnswering::new(Arc::clone(&model)), Err(TaskError::Folder { .. })));
    assert!(matches!(FillMask::new(Arc::clone(&model)), Err(TaskError::Folder { .. })));
    assert!(matches!(TokenClassification::new(open("bert-nli")), Err(TaskError::Folder { .. })));
}

/// Regression test: a batch with examples of a classifier and of a cross-encoder, whose targets differ, panicked.
#[test]
fn examples_with_different_targets_are_computed_together() {
    let model = open("bert-classify");
    let template = model.tokenizer.template();
    let targets = [Target::class(None), Target::value(None), Target::Binary(vec![f32::NAN; 3]), Target::class(None)];
    let example = |(text, target): (&str, Target)| {
        Example::new(vec![template.sequence(&model.tokenizer.encode(text), None)], target)
    };
    let examples: Vec<Example> = ["anna", "a film", "paris", "it is"].into_iter().zip(targets).map(example).collect();
    let found = model.compute(&Output::Task, &examples.iter().collect::<Vec<_>>());
    for (example, found) in examples.iter().zip(&found) {
        let alone = &model.compute(&Output::Task, &[example])[0];
        assert!(found.iter().zip(alone).all(|(a, b)| (a - b).abs() < 1e-5) && found.len() == 3, "{found:?} {alone:?}");
    }
}
