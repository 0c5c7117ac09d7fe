//! A part of a paragraph that answers a question: start and end logits of every token, over overlapping windows.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::Arc;

use cloze_model::{Config, TaskHead};
use cloze_text::{Sequence, Tokenizer};
use serde::de::Error;
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::{Value, json};

use super::description::{Description, Examples, Refused, TaskOption, Values, positive};
use super::kind::{Kind, Misfit};
use crate::TaskError;
use crate::answer::{
    EncodedContext, ExtractOptions, Extraction, Logits, Window, WindowOptions, extract, target, windows,
};
use crate::datasets::Need;
use crate::datasets::squad::{BadAnswers, Question, Questions};
use crate::example::{Example, Target};
use crate::input::{Input, Object, string_of};
use crate::metrics::squad::{self, NullOdds, evaluate_v1, evaluate_v2};
use crate::parallel;
use crate::reading::{Notes, Reading};
use crate::task::{Encoded, FileRows, Scores, Task};

/// The part of a paragraph that answers each question.
pub static KIND: Kind = Kind::of::<Answering>(
    Description {
        name: "answer",
        about: "the part of a paragraph that answers a question",
        scores: "Exact match and F1 of answers by SQuAD's rules",
        input: "SQuAD's .json; else lines of JSON: {\"question\": …, \"context\": …, \"id\": …}.",
        output: "the best answer with its characters and its score, and the n best.",
        max_len: 384,
        metrics: &[],
        options: &["stride", "skip_bad"],
        own_options: &[
            TaskOption {
                name: "max_question",
                help: "Tokens of a question at most",
                rare: true,
                values: Values::Parsed { placeholder: "N", parse: positive, missing: None },
            },
            TaskOption {
                name: "max_answer",
                help: "Tokens of an answer at most",
                rare: true,
                values: Values::Parsed { placeholder: "N", parse: positive, missing: None },
            },
            TaskOption {
                name: "n_best",
                help: "Answers listed for each question",
                rare: false,
                values: Values::Parsed { placeholder: "N", parse: positive, missing: None },
            },
            TaskOption {
                name: "null_threshold",
                help: "Questions may have no answer (SQuAD 2.0): \"none\" is preferred where its score exceeds the best answer's by \
                       more than this; inf: never",
                rare: true,
                values: Values::Parsed { placeholder: "THRESHOLD", parse: threshold, missing: Some("0") },
            },
        ],
        check: |given| match given.stride {
            Some(0) => Err(TaskError::setting(
                "stride",
                "0: paragraphs are always read in windows to answer; give a number above 0",
            )),
            _ => Ok(()),
        },
        table_endings: &["json"],
        format_options: &[],
        refused: Refused {
            finetune: &[(
                "n_best",
                "answers are listed by `cloze predict answer` and `cloze evaluate answer`, not while a model learns",
            )],
            predict: &[],
            evaluate: &[],
        },
        examples: Examples {
            finetune: &[
                "cloze finetune answer --train train-v1.1.json --dev dev-v1.1.json --model runs/mini --out runs/qa --lr 3e-5 --epochs 2",
                "cloze finetune answer --task squad2 --data squad --model runs/mini --out runs/squad2",
            ],
            sweep: &["cloze sweep answer --task squad1 --data squad --model runs/mini --epochs-list 2 --batches 32"],
            predict: &["cloze predict answer --model runs/qa --input questions.jsonl --n-best 3"],
            evaluate: &["cloze evaluate answer --model runs/qa --data dev-v1.1.json --predictions answers.jsonl"],
        },
    },
    |_, head| match head {
        TaskHead::Answer => Ok(()),
        _ => Err(Misfit::Head),
    },
);

/// The settings that answering has for itself.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
struct AnswerSettings {
    max_question: Option<usize>,
    max_answer: Option<usize>,
    /// Not remembered.
    n_best: Option<usize>,
    #[serde(deserialize_with = "number_or_name")]
    null_threshold: Option<f32>,
}

/// A threshold as a setting: JSON has no infinity, so that it is a string.
fn threshold_setting(threshold: f32) -> Value {
    if threshold.is_finite() { threshold.into() } else { threshold.to_string().into() }
}

/// A threshold as an option's value.
fn threshold(text: &str) -> Result<Value, String> {
    match text.parse::<f32>() {
        Ok(threshold) if !threshold.is_nan() => Ok(threshold_setting(threshold)),
        _ => Err("expected a number, or inf".to_owned()),
    }
}

fn number_or_name<'de, D: Deserializer<'de>>(from: D) -> Result<Option<f32>, D::Error> {
    match Option::<Value>::deserialize(from)? {
        None | Some(Value::Null) => Ok(None),
        Some(Value::String(name)) => name.parse().map(Some).map_err(D::Error::custom),
        Some(value) => f32::deserialize(value).map(Some).map_err(D::Error::custom),
    }
}

/// Extractive question answering.
#[derive(Debug, Clone)]
pub struct Answering {
    /// How paragraphs are read.
    pub windows: WindowOptions,
    /// How answers are found; with a null threshold, questions may have none (SQuAD 2.0) and are scored by its rules.
    pub extract: ExtractOptions,
}

/// A question and its paragraph.
#[derive(Debug, Clone)]
pub struct Row {
    /// Its id.
    pub id: String,
    /// The question.
    pub question: String,
    /// The paragraph, shared by its questions.
    pub context: Arc<EncodedContext>,
    /// The first byte and the text of each answer; none: it has no answer, or it is not known.
    pub answers: Vec<(usize, String)>,
    /// Whether the answers are known.
    pub answered: bool,
}

impl Answering {
    fn new(reading: &Reading) -> Result<Answering, TaskError> {
        let given: AnswerSettings = reading.given().settings.own()?;
        let stored: AnswerSettings = reading.stored().own()?;
        let of_files: AnswerSettings = reading.stored_of_files().own()?;
        let (window, extract) = (WindowOptions::default(), ExtractOptions::default());
        let known = reading.known();
        let known_question = known.and_then(|known| known.settings.max_question);
        let unanswerable = known.is_some_and(|known| known.name == "squad2");
        let windows = WindowOptions {
            max_len: reading.max_len(),
            stride: reading.stride().unwrap_or(window.stride),
            max_question: given.max_question.or(stored.max_question).or(known_question).unwrap_or(window.max_question),
        };
        let extract = ExtractOptions {
            n_best: given.n_best.unwrap_or(extract.n_best),
            max_answer: given.max_answer.or(stored.max_answer).unwrap_or(extract.max_answer),
            null_threshold: given.null_threshold.or(of_files.null_threshold).or(unanswerable.then_some(0.0)),
        };
        Ok(Answering { windows, extract })
    }
}

/// Questions as rows: every paragraph is encoded once, on all threads.
pub fn rows(questions: &[Question], tokenizer: &Tokenizer, threads: usize) -> Vec<Row> {
    let mut distinct: Vec<&Arc<str>> = Vec::new();
    let mut place: HashMap<*const u8, usize> = HashMap::new();
    for question in questions {
        place.entry(question.context.as_ptr()).or_insert_with(|| {
            distinct.push(&question.context);
            distinct.len() - 1
        });
    }
    let encode = |text: &&Arc<str>| Arc::new(EncodedContext::new(tokenizer, text.to_string()));
    let contexts = parallel::map(&distinct, threads, encode);
    let row = |question: &Question| Row {
        id: question.id.clone(),
        question: question.question.clone(),
        context: Arc::clone(&contexts[place[&question.context.as_ptr()]]),
        answers: question.answers.iter().map(|answer| (answer.start, answer.text.clone())).collect(),
        answered: question.impossible || !question.answers.is_empty(),
    };
    questions.iter().map(row).collect()
}

/// The answer to a question.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Prediction {
    /// The question's id.
    pub id: String,
    /// What was found.
    #[serde(flatten)]
    pub found: Extraction,
}

impl Prediction {
    /// The best answer that is not "none".
    fn best_text(&self) -> &str {
        let named = self.found.n_best.iter().find(|answer| !answer.is_empty());
        named.map_or("", |answer| &answer.text)
    }
}

impl Task for Answering {
    type Row = Row;
    type Notes = Vec<Window>;
    type Prediction = Prediction;

    fn learned_from(
        reading: &Reading,
        train: &[PathBuf],
        _: &Config,
        tokenizer: &Tokenizer,
        notes: &mut Notes,
    ) -> Result<(Answering, FileRows<Row>), TaskError> {
        let task = Answering::new(reading)?;
        let rows = task.read(reading, train, Need::Required, tokenizer, notes)?;
        Ok((task, rows))
    }

    fn of_model(reading: &Reading, _: &Config, _: TaskHead) -> Result<Answering, TaskError> {
        Answering::new(reading)
    }

    fn own_settings(&self, _: &Reading) -> Object {
        let mut own = Object::new();
        own.insert("max_question".to_owned(), self.windows.max_question.into());
        own.insert("max_answer".to_owned(), self.extract.max_answer.into());
        if let Some(threshold) = self.extract.null_threshold {
            own.insert("null_threshold".to_owned(), threshold_setting(threshold));
        }
        own
    }

    fn read(
        &self,
        reading: &Reading,
        paths: &[PathBuf],
        need: Need,
        tokenizer: &Tokenizer,
        notes: &mut Notes,
    ) -> Result<FileRows<Row>, TaskError> {
        self.windows.check(tokenizer.template())?;
        let bad = match need {
            Need::Optional => BadAnswers::Ignore,
            Need::Required if reading.given().skip_bad => BadAnswers::Skip,
            Need::Required => BadAnswers::Error,
        };
        let mut rows = Vec::new();
        for path in paths {
            let file = Questions::read(path, bad)?;
            let counts = file.notes();
            notes.count(
                path,
                counts.moved_answers,
                "answers stand elsewhere than answer_start says: the nearest place was taken",
            );
            notes.count(path, counts.skipped_answers, "answers that are not in their paragraph left out");
            notes.count(path, counts.skipped_questions, "questions left without an answer left out");
            let found = self::rows(file.questions(), tokenizer, reading.given().threads);
            if need == Need::Required
                && let Some(row) = found.iter().find(|row| !row.answered)
            {
                let problem =
                    format!("question {} has no answers: expected \"answers\", empty if there is none", row.id);
                return Err(TaskError::File { path: path.clone(), problem });
            }
            rows.extend(found.into_iter().map(Ok));
        }
        Ok(rows)
    }

    /// An object with a `question`, a `context` and perhaps an `id`.
    fn row(&self, _: &Reading, input: Input<'_>, tokenizer: &Tokenizer) -> Result<Row, TaskError> {
        let object = input.object("{\"question\": \"…\", \"context\": \"…\"}")?;
        let id = object.get("id").map(|id| id.as_str().map_or_else(|| id.to_string(), str::to_owned));
        let question = Question {
            id: id.unwrap_or_default(),
            title: String::new(),
            question: string_of(object, "question")?,
            context: string_of(object, "context")?.into(),
            answers: Vec::new(),
            impossible: false,
        };
        self::rows(&[question], tokenizer, 1).pop().ok_or_else(|| TaskError::input("line", "no question"))
    }

    fn head(&self) -> TaskHead {
        TaskHead::Answer
    }

    fn describe(&self, config: &mut Config) {
        // Two outputs, as Transformers has them by default.
        for key in ["id2label", "label2id", "problem_type"] {
            config.extra.remove(key);
        }
    }

    fn encode(&self, row: &Row, tokenizer: &Tokenizer) -> Result<Encoded<Vec<Window>>, TaskError> {
        let in_question = |error| match error {
            TaskError::Input { what, problem } => {
                TaskError::Input { what: format!("question {}: {what}", row.id), problem }
            }
            other => other,
        };
        let found = windows(tokenizer, &row.question, &row.context, &self.windows).map_err(in_question)?;
        // Of several gold answers, the first is learned.
        let gold = row.answers.first().map(|(start, text)| (*start, text.as_str()));
        let mut examples = Vec::with_capacity(found.windows.len());
        for window in &found.windows {
            let span = match row.answered {
                true => Some(target(window, &row.context, gold).map_err(in_question)?),
                false => None,
            };
            let sequence = Sequence { ids: window.ids.clone(), segments: window.segments.clone() };
            examples.push(Example::new(vec![sequence], Target::positions(span.map(|(start, end)| [start, end]))));
        }
        Ok(Encoded { examples, cut: found.question_cut, notes: found.windows })
    }

    fn predict(&self, row: &Row, encoded: &Encoded<Vec<Window>>, logits: &[Vec<f32>]) -> Result<Prediction, TaskError> {
        let column =
            |logits: &Vec<f32>, column: usize| -> Vec<f32> { logits.iter().skip(column).step_by(2).copied().collect() };
        let both: Vec<[Vec<f32>; 2]> = logits.iter().map(|logits| [column(logits, 0), column(logits, 1)]).collect();
        let logits: Vec<Logits<'_>> = both.iter().map(|[start, end]| Logits { start, end }).collect();
        let found = extract(&row.context, &encoded.notes, &logits, &self.extract).map_err(|error| match error {
            TaskError::Logits(place) => TaskError::Logits(format!("question {}, {place}", row.id)),
            other => other,
        })?;
        Ok(Prediction { id: row.id.clone(), found })
    }

    fn scores(&self, rows: &[&Row], predictions: &[&Prediction]) -> Scores {
        // A resample draws a question more than once: ids would make one of them, places do not.
        let places: Vec<String> = (0..rows.len()).map(|place| place.to_string()).collect();
        let known = || rows.iter().zip(&places).filter(|(row, _)| row.answered);
        let questions = || {
            known().map(|(row, id)| squad::Question {
                id,
                answers: row.answers.iter().map(|(_, text)| text.as_str()).collect(),
            })
        };
        let text_of = |text: &dyn Fn(&Prediction) -> String| -> HashMap<String, String> {
            places.iter().zip(predictions).map(|(id, found)| (id.clone(), text(found))).collect()
        };
        let share = |percent: f64| percent / 100.0;
        let mut scores = Scores { rows: known().count(), ..Scores::default() };
        if self.extract.null_threshold.is_none() {
            let texts = text_of(&|found| found.found.best.text.clone());
            if let Some(found) = evaluate_v1(questions(), &texts) {
                scores.values.push(("f1".to_owned(), share(found.all.f1)));
                scores.values.push(("exact_match".to_owned(), share(found.all.exact)));
            }
            return scores;
        }
        let threshold = self.extract.null_threshold.map_or(0.0, f64::from);
        // Without odds there is no answer but the null one.
        let odds: HashMap<String, f64> = places
            .iter()
            .zip(predictions)
            .map(|(id, found)| (id.clone(), found.found.null_odds.map_or(f64::MAX, f64::from)))
            .collect();
        let texts = text_of(&|found| found.best_text().to_owned());
        let Some(found) = evaluate_v2(questions(), &texts, Some(NullOdds { odds: &odds, threshold })) else {
            return scores;
        };
        if let Some(best) = &found.best {
            scores.values.push(("best_f1".to_owned(), share(best.f1)));
            scores.values.push(("best_exact_match".to_owned(), share(best.exact)));
            scores.details.insert("best_f1_threshold".to_owned(), json!(best.f1_threshold));
            scores.details.insert("best_exact_match_threshold".to_owned(), json!(best.exact_threshold));
        }
        scores.values.push(("f1".to_owned(), share(found.all.f1)));
        scores.values.push(("exact_match".to_owned(), share(found.all.exact)));
        scores.details.insert("threshold".to_owned(), json!(threshold));
        for (name, part) in [("answerable", found.has_answer), ("unanswerable", found.no_answer)] {
            if let Some(part) = part {
                let part = json!({"f1": share(part.f1), "exact_match": share(part.exact), "questions": part.total});
                scores.details.insert(name.to_owned(), part);
            }
        }
        let none = predictions.iter().all(|found| found.found.best.is_empty());
        let some_answers = known().any(|(row, _)| !row.answers.is_empty());
        scores.collapsed = (none && some_answers && !predictions.is_empty()).then(|| "no answer".to_owned());
        scores
    }
}
