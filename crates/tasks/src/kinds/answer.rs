//! Extractive question answering: start and end logits of every token of a paragraph, which is read in overlapping
//! windows.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use cloze_model::{Config, TaskHead};
use cloze_text::{Sequence, Tokenizer};
use serde::de::Error;
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::{Value, json};

use super::description::{Description, Examples, KindOption, RejectedOptions, Rows, Values, positive};
use super::kind::{Kind, Mismatch};
use crate::TaskError;
use crate::answer::{
    Answer, EncodedContext, ExtractOptions, Extraction, Logits, Window, WindowOptions, extract, no_tokens, target,
    windows,
};
use crate::datasets::LabelsNeeded;
use crate::datasets::squad::{BadAnswers, Question, Questions, SquadNotes};
use crate::example::{Example, Target};
use crate::input::{Input, Object, string_of};
use crate::metrics::squad::{self, NullOdds, SquadV2, evaluate_v1, evaluate_v2};
use crate::parallel;
use crate::reading::{Notes, Reading, count_noun};
use crate::task::{Encoded, FileRows, Scores, Task};

/// The span of a paragraph that answers each question.
pub static KIND: Kind = Kind::of::<AnswerTask>(
    Description {
        name: "answer",
        about: "the part of a paragraph that answers a question",
        scores: "Exact match and F1 of answers by SQuAD's rules",
        input: "SQuAD's .json, or .parquet; else lines of JSON: {\"question\": …, \"context\": …, \"id\": …}.",
        output: "the best answer, its score, and the n best answers. start_char and end_char count Unicode characters, as Transformers and \
                 Python do; start_byte and end_byte count bytes of UTF-8.",
        max_len: 384,
        metrics: &[],
        options: &["stride", "skip_bad"],
        own_options: &[
            KindOption {
                name: "max_question",
                help: "Maximum number of tokens of a question",
                rare: true,
                values: Values::Parsed { placeholder: "N", parse: positive, missing: None },
            },
            KindOption {
                name: "max_answer",
                help: "Maximum number of tokens of an answer",
                rare: true,
                values: Values::Parsed { placeholder: "N", parse: positive, missing: None },
            },
            KindOption {
                name: "n_best",
                help: "Number of answers to list for each question; the best answer does not depend on it",
                rare: false,
                values: Values::Parsed { placeholder: "N", parse: positive, missing: None },
            },
            KindOption {
                name: "null_threshold",
                help: "Questions may have no answer (SQuAD 2.0): \"no answer\" is predicted if its score exceeds the best answer's by \
                       more than this; inf: never [default: the model's; 0 if some training questions have no answer; else every \
                       question is answered]",
                rare: true,
                values: Values::Parsed { placeholder: "THRESHOLD", parse: threshold, missing: Some("0") },
            },
        ],
        check: |given| match given.stride {
            Some(0) => Err(TaskError::setting(
                "stride",
                "expected a number above 0, found 0: to answer, paragraphs are always read in windows",
            )),
            _ => Ok(()),
        },
        rows: Rows::Questions,
        rejected_options: RejectedOptions {
            finetune: &[("n_best", "it is used only in prediction and evaluation")],
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
        _ => Err(Mismatch::Head),
    },
);

/// The settings specific to this kind.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
struct AnswerSettings {
    max_question: Option<usize>,
    max_answer: Option<usize>,
    /// Not stored in models.
    n_best: Option<usize>,
    #[serde(deserialize_with = "number_or_name")]
    null_threshold: Option<f32>,
}

/// A threshold as JSON. JSON has no infinity, so infinity is a string.
fn threshold_setting(threshold: f32) -> Value {
    if threshold.is_finite() { threshold.into() } else { threshold.to_string().into() }
}

/// Parses a threshold given as an option's value.
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
pub struct AnswerTask {
    /// How paragraphs are split into windows.
    pub windows: WindowOptions,
    /// How answers are extracted. With a null threshold, questions may have no answer, and the scores are those of
    /// SQuAD 2.0.
    pub extract: ExtractOptions,
}

/// A question and its paragraph.
#[derive(Debug, Clone)]
pub struct Row {
    /// The question's id.
    pub id: String,
    /// The question.
    pub question: String,
    /// The tokenized paragraph, shared by its questions.
    pub context: Arc<EncodedContext>,
    /// The start byte and the text of each gold answer. Empty if the question has no answer or the answers are not
    /// known.
    pub answers: Vec<(usize, String)>,
    /// Whether the gold answers are known.
    pub answered: bool,
    /// Whether the question or the paragraph has no tokens, so that there is no prediction.
    pub blank: bool,
}

impl Row {
    /// The answer to train on: the first one that has tokens.
    fn target(&self) -> Option<(usize, &str)> {
        let has_tokens =
            |(start, text): &&(usize, String)| !self.context.covering(*start..*start + text.len()).is_empty();
        self.answers.iter().find(has_tokens).map(|(start, text)| (*start, text.as_str()))
    }

    /// The error of a question or paragraph without tokens.
    fn blank_error(&self) -> TaskError {
        let (what, text) = if self.context.pieces().is_empty() {
            ("context", self.context.text())
        } else {
            ("question", self.question.as_str())
        };
        self.name(no_tokens(what, text))
    }

    /// Adds the question's id to an error.
    fn name(&self, error: TaskError) -> TaskError {
        match error {
            TaskError::Input { what, problem } if !self.id.is_empty() => {
                TaskError::Input { what: format!("question \"{}\": {what}", self.id), problem }
            }
            other => other,
        }
    }
}

impl AnswerTask {
    fn new(reading: &Reading) -> Result<AnswerTask, TaskError> {
        let given: AnswerSettings = reading.options().settings.own()?;
        let stored: AnswerSettings = reading.stored().own()?;
        let of_files: AnswerSettings = reading.stored_of_files().own()?;
        let (window, extract) = (WindowOptions::default(), ExtractOptions::default());
        let known = reading.preset();
        let known_question = known.and_then(|known| known.settings.max_question);
        let unanswerable = known.is_some_and(|known| known.name == "squad2");
        let windows = WindowOptions {
            max_len: reading.max_len(),
            stride: reading.stride().unwrap_or(window.stride),
            max_question: given.max_question.or(stored.max_question).or(known_question).unwrap_or(window.max_question),
        };
        let extract = ExtractOptions {
            candidates: extract.candidates,
            n_best: given.n_best.unwrap_or(extract.n_best),
            max_answer: given.max_answer.or(stored.max_answer).unwrap_or(extract.max_answer),
            null_threshold: given.null_threshold.or(of_files.null_threshold).or(unanswerable.then_some(0.0)),
        };
        Ok(AnswerTask { windows, extract })
    }

    /// The rows of files, with errors in the positions of rows that cannot be used; and the number of questions without
    /// an answer.
    fn files(
        &self,
        reading: &Reading,
        paths: &[PathBuf],
        need: LabelsNeeded,
        tokenizer: &Tokenizer,
        notes: &mut Notes,
    ) -> Result<(FileRows<Row>, usize), TaskError> {
        self.windows.check(tokenizer.template())?;
        let bad = match need {
            LabelsNeeded::Optional => BadAnswers::Ignore,
            LabelsNeeded::Required if reading.options().skip_bad => BadAnswers::Skip,
            LabelsNeeded::Required => BadAnswers::Error,
        };
        let (mut rows, mut impossible) = (Vec::new(), 0);
        for path in paths {
            let file = Questions::read(path, bad)?;
            note(path, file.notes(), notes);
            impossible += file.notes().impossible;
            let (mut good, mut places) = (Vec::new(), Vec::new());
            for question in file.into_questions() {
                places.push(question.map(|question| good.push(question)));
            }
            let mut found = self::rows(&good, tokenizer, reading.options().threads).into_iter();
            let row = |place: Result<(), TaskError>| {
                let row = place.map(|()| found.next())?;
                let row = row.ok_or_else(|| TaskError::file(path, "expected a question for each row, found fewer"))?;
                match need {
                    LabelsNeeded::Required if !row.answered => {
                        let problem = "expected \"answers\" (an empty list if there is no answer), found none";
                        Err(TaskError::file(path, format!("question \"{}\": {problem}", row.id)))
                    }
                    LabelsNeeded::Optional if row.blank => Err(row.blank_error()),
                    _ => Ok(row),
                }
            };
            rows.extend(places.into_iter().map(row));
        }
        Ok((rows, impossible))
    }
}

/// Converts questions to rows. Each paragraph is tokenized once, on `threads` threads.
pub fn rows(questions: &[Question], tokenizer: &Tokenizer, threads: usize) -> Vec<Row> {
    let mut distinct: Vec<&Arc<str>> = Vec::new();
    let mut place: HashMap<usize, usize> = HashMap::new();
    for question in questions {
        place.entry(question.context.as_ptr().addr()).or_insert_with(|| {
            distinct.push(&question.context);
            distinct.len() - 1
        });
    }
    let encode = |text: &&Arc<str>| Arc::new(EncodedContext::new(tokenizer, text.to_string()));
    let contexts = parallel::map(&distinct, threads, encode);
    let row = |question: &Question| {
        let context = Arc::clone(&contexts[place[&question.context.as_ptr().addr()]]);
        Row {
            id: question.id.clone(),
            question: question.question.clone(),
            blank: context.pieces().is_empty() || tokenizer.encode(&question.question).is_empty(),
            context,
            answers: question.answers.iter().map(|answer| (answer.start, answer.text.clone())).collect(),
            answered: question.impossible || !question.answers.is_empty(),
        }
    };
    parallel::map(questions, threads, row)
}

/// Adds notes about what was changed or assumed while a file was read.
fn note(path: &Path, found: SquadNotes, notes: &mut Notes) {
    let SquadNotes { moved_answers, in_utf16, in_bytes, without_start, without_id, skipped_answers, impossible: _ } =
        found;
    for (count, noun, what) in [
        (moved_answers, "answer", "not at answer_start: the nearest occurrence is used"),
        (
            in_utf16,
            "answer",
            "whose answer_start counts UTF-16 code units (as JavaScript and Java do) and not Unicode characters (as SQuAD does): it is \
             converted",
        ),
        (
            in_bytes,
            "answer",
            "whose answer_start counts bytes and not Unicode characters (as SQuAD does): it is converted",
        ),
        (without_start, "answer", "without answer_start: the first occurrence in the paragraph is used"),
        (without_id, "question", "without an id: the line or the number in the file is used as id"),
        (skipped_answers, "answer", "skipped: not in the paragraph"),
    ] {
        if count > 0 {
            notes.0.push(format!("{}: {} {what}", path.display(), count_noun(count, noun)));
        }
    }
}

/// Whether a text contains a script that is written without spaces between words: Thai, Lao, Tibetan, Burmese, Khmer,
/// Chinese, Japanese.
fn is_without_spaces(text: &str) -> bool {
    text.chars().any(|c| {
        matches!(c,
            '\u{0e00}'..='\u{109f}' | '\u{1780}'..='\u{17ff}' | '\u{3040}'..='\u{30ff}' | '\u{31f0}'..='\u{31ff}'
            | '\u{3400}'..='\u{9fff}' | '\u{f900}'..='\u{faff}' | '\u{ff66}'..='\u{ff9d}' | '\u{20000}'..='\u{3ffff}')
    })
}

/// The answer to a question.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Prediction {
    /// The question's id.
    pub id: String,
    /// The extracted answers.
    #[serde(flatten)]
    pub found: Extraction,
}

impl Prediction {
    /// The text of the best answer that is not the null answer.
    fn best_text(&self) -> &str {
        let named = self.found.n_best.iter().find(|answer| !answer.is_empty());
        named.map_or("", |answer| &answer.text)
    }
}

impl Task for AnswerTask {
    type Row = Row;
    type Aux = Vec<Window>;
    type Prediction = Prediction;

    fn from_training_files(
        reading: &Reading,
        train: &[PathBuf],
        _: &Config,
        tokenizer: &Tokenizer,
        notes: &mut Notes,
    ) -> Result<(AnswerTask, FileRows<Row>), TaskError> {
        let mut task = AnswerTask::new(reading)?;
        let (mut rows, impossible) = task.files(reading, train, LabelsNeeded::Required, tokenizer, notes)?;
        if impossible > 0 && task.extract.null_threshold.is_none() {
            task.extract.null_threshold = Some(0.0);
            notes.0.push(format!(
                "{} without an answer (SQuAD 2.0): the model may predict that there is no answer, with a null threshold of 0; set `null_threshold` to change it",
                count_noun(impossible, "training question")
            ));
        }
        let all = rows.len();
        rows.retain(|row| row.as_ref().map_or(true, |row| !row.blank));
        let blank = all - rows.len();
        rows.retain(|row| row.as_ref().map_or(true, |row| row.answers.is_empty() || row.target().is_some()));
        let unlearnable = all - blank - rows.len();
        for (count, what) in [(blank, "the question or its paragraph"), (unlearnable, "the answers")] {
            if count > 0 {
                notes.0.push(format!("{} skipped: no tokens in {what}", count_noun(count, "training question")));
            }
        }
        Ok((task, rows))
    }

    fn from_model(reading: &Reading, _: &Config, _: TaskHead) -> Result<AnswerTask, TaskError> {
        AnswerTask::new(reading)
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
        need: LabelsNeeded,
        tokenizer: &Tokenizer,
        notes: &mut Notes,
    ) -> Result<FileRows<Row>, TaskError> {
        let (rows, impossible) = self.files(reading, paths, need, tokenizer, notes)?;
        if impossible > 0 && self.extract.null_threshold.is_none() {
            notes.0.push(format!(
                "{} without an answer (SQuAD 2.0): this model answers every question; set `null_threshold` to 0 to allow \"no answer\"",
                count_noun(impossible, "question")
            ));
        }
        if need == LabelsNeeded::Required {
            let usable = || rows.iter().flatten();
            let blank = usable().filter(|row| row.blank).count();
            if blank > 0 {
                let blank = count_noun(blank, "question");
                notes.0.push(format!(
                    "{blank} without tokens in the question or its paragraph: the predicted answer is empty"
                ));
            }
            let gold = || usable().filter_map(|row| row.answers.first());
            let without_spaces = gold().filter(|(_, text)| is_without_spaces(text)).count();
            if 2 * without_spaces > gold().count() {
                notes.0.push(
                    "most answers are in a script without spaces between words: SQuAD's F1 compares words between spaces, so it is nearly \
                     the same as exact match"
                        .to_owned(),
                );
            }
        }
        Ok(rows)
    }

    /// An object with `question`, `context` and optionally `id`.
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
        let row = self::rows(&[question], tokenizer, 1).pop();
        let row = row.ok_or_else(|| TaskError::input("line", "no question"))?;
        if row.blank { Err(row.blank_error()) } else { Ok(row) }
    }

    fn head(&self) -> TaskHead {
        TaskHead::Answer
    }

    fn describe(&self, config: &mut Config) {
        // Two outputs are the default of Transformers.
        for key in ["id2label", "label2id", "problem_type"] {
            config.extra.remove(key);
        }
    }

    fn encode(&self, row: &Row, tokenizer: &Tokenizer) -> Result<Encoded<Vec<Window>>, TaskError> {
        if row.blank {
            return Ok(Encoded { examples: Vec::new(), cut: 0, windows: None, aux: Vec::new() });
        }
        let found = windows(tokenizer, &row.question, &row.context, &self.windows).map_err(|error| row.name(error))?;
        let gold = row.target();
        let has_preset = row.answered && (gold.is_some() || row.answers.is_empty());
        let mut examples = Vec::with_capacity(found.windows.len());
        for window in &found.windows {
            let span = has_preset.then(|| target(window, &row.context, gold)).transpose();
            let span = span.map_err(|error| row.name(error))?;
            let sequence = Sequence { ids: window.ids.clone(), segments: window.segments.clone() };
            examples.push(Example::new(vec![sequence], Target::positions(span.map(|(start, end)| [start, end]))));
        }
        Ok(Encoded { examples, cut: found.question_cut, windows: None, aux: found.windows })
    }

    fn row_json(&self, row: &Row) -> Object {
        let gold: Vec<&str> = row.answers.iter().map(|(_, text)| text.as_str()).collect();
        Object::from_iter([
            ("question".to_owned(), row.question.as_str().into()),
            ("gold".to_owned(), row.answered.then_some(gold).into()),
        ])
    }

    fn predict(&self, row: &Row, encoded: &Encoded<Vec<Window>>, logits: &[Vec<f32>]) -> Result<Prediction, TaskError> {
        if row.blank {
            let found = Extraction { best: Answer::default(), n_best: Vec::new(), null_odds: None };
            return Ok(Prediction { id: row.id.clone(), found });
        }
        let column =
            |logits: &Vec<f32>, column: usize| -> Vec<f32> { logits.iter().skip(column).step_by(2).copied().collect() };
        let both: Vec<[Vec<f32>; 2]> = logits.iter().map(|logits| [column(logits, 0), column(logits, 1)]).collect();
        let logits: Vec<Logits<'_>> = both.iter().map(|[start, end]| Logits { start, end }).collect();
        let found = extract(&row.context, &encoded.aux, &logits, &self.extract).map_err(|error| match error {
            TaskError::Logits(place) => TaskError::Logits(format!("question {}, {place}", row.id)),
            other => other,
        })?;
        Ok(Prediction { id: row.id.clone(), found })
    }

    fn scores(&self, rows: &[&Row], predictions: &[&Prediction]) -> Scores {
        // A bootstrap resample may contain a question several times: its positions are distinct, its ids are not.
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
        let parts = |scores: &mut Scores, found: &SquadV2| {
            for (name, part) in [("answerable", found.has_answer), ("unanswerable", found.no_answer)] {
                if let Some(part) = part {
                    let part = json!({"f1": share(part.f1), "exact_match": share(part.exact), "questions": part.total});
                    scores.details.insert(name.to_owned(), part);
                }
            }
        };
        let Some(threshold) = self.extract.null_threshold.map(f64::from) else {
            let texts = text_of(&|found| found.found.best.text.clone());
            // Questions without an answer are scored as in SQuAD 2.0, although the model answered every question.
            let all = if known().any(|(row, _)| row.answers.is_empty()) {
                let found = evaluate_v2(questions(), &texts, None);
                found.iter().for_each(|found| parts(&mut scores, found));
                found.map(|found| found.all)
            } else {
                evaluate_v1(questions(), &texts).map(|found| found.all)
            };
            if let Some(all) = all {
                scores.values.push(("f1".to_owned(), share(all.f1)));
                scores.values.push(("exact_match".to_owned(), share(all.exact)));
            }
            return scores;
        };
        // If there are no odds, the null answer is the only one.
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
        parts(&mut scores, &found);
        let none = predictions.iter().all(|found| found.found.best.is_empty());
        let some_answers = known().any(|(row, _)| !row.answers.is_empty());
        scores.collapsed = (none && some_answers && !predictions.is_empty()).then(|| "no answer".to_owned());
        scores
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::answer::tests::tokenizer;
    use crate::reading::TaskOptions;
    use crate::task_settings::TaskSettings;

    /// A SQuAD file of questions about the text "The cats sat on the mat.".
    fn squad(qas: &[&str]) -> (tempfile::TempDir, PathBuf) {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("questions.json");
        let context = "The cats sat on the mat.";
        let text = format!(
            "{{\"data\": [{{\"paragraphs\": [{{\"context\": \"{context}\", \"qas\": [{}]}}]}}]}}",
            qas.join(",")
        );
        std::fs::write(&path, text).unwrap();
        (dir, path)
    }

    const CATS: &str = r#"{"id": "cats", "question": "who sat", "answers": [{"text": "cats", "answer_start": 4}]}"#;
    const UNANSWERABLE: &str =
        r#"{"id": "unanswerable", "question": "who left", "answers": [], "is_impossible": true}"#;
    const BLANK: &str = r#"{"id": "blank", "question": " ", "answers": [{"text": "cats", "answer_start": 4}]}"#;

    fn reading(given: TaskOptions) -> Reading {
        Reading::new(&KIND.description, given, None).unwrap()
    }

    fn read(task: &AnswerTask, path: &Path, need: LabelsNeeded) -> (FileRows<Row>, Vec<String>) {
        let (mut notes, reading) = (Notes::default(), reading(TaskOptions::default()));
        let rows = Task::read(task, &reading, &[path.to_owned()], need, &tokenizer(false), &mut notes).unwrap();
        (rows, notes.0)
    }

    fn from_training_files(path: &Path) -> (AnswerTask, FileRows<Row>, Vec<String>) {
        let (mut notes, reading, start) = (Notes::default(), reading(TaskOptions::default()), Config::default());
        let (task, rows) =
            AnswerTask::from_training_files(&reading, &[path.to_owned()], &start, &tokenizer(false), &mut notes)
                .unwrap();
        (task, rows, notes.0)
    }

    fn found(text: &str) -> Prediction {
        let best = Answer { text: text.to_owned(), score: 1.0, ..Answer::default() };
        let found = Extraction { n_best: vec![best.clone()], best, null_odds: None };
        Prediction { id: String::new(), found }
    }

    #[test]
    fn x4_questions_without_an_answer_give_a_note() {
        let (_dir, path) = squad(&[CATS, UNANSWERABLE]);
        let (task, _, notes) = from_training_files(&path);
        assert_eq!(task.extract.null_threshold, Some(0.0));
        assert_eq!(task.own_settings(&reading(TaskOptions::default()))["null_threshold"], json!(0.0));
        assert!(matches!(&notes[..], [note] if note.starts_with("1 training question without an answer")), "{notes:?}");
        assert!(read(&task, &path, LabelsNeeded::Required).1.is_empty(), "the model may predict no answer");

        // A model that was trained on SQuAD 1.1 answers every question; a note says so, also in prediction.
        let task = AnswerTask::new(&reading(TaskOptions::default())).unwrap();
        for need in [LabelsNeeded::Required, LabelsNeeded::Optional] {
            let (_, notes) = read(&task, &path, need);
            assert!(matches!(&notes[..], [note] if note.contains("`null_threshold` to 0")), "{notes:?}");
        }
        let (rows, _) = read(&task, &path, LabelsNeeded::Required);
        let rows: Vec<&Row> = rows.iter().flatten().collect();
        let scores = task.scores(&rows, &[&found("cats"), &found("mat")]);
        assert_eq!(scores.get("f1"), Some(0.5));
        assert_eq!(scores.details["answerable"], json!({"f1": 1.0, "exact_match": 1.0, "questions": 1}));
        assert_eq!(scores.details["unanswerable"], json!({"f1": 0.0, "exact_match": 0.0, "questions": 1}));
        // If all questions have an answer, the scores are those of version 1.1.
        let scores = task.scores(&rows[..1], &[&found("cats")]);
        assert!(scores.get("f1") == Some(1.0) && scores.details.is_empty());
    }

    #[test]
    fn r41_a_blank_question_affects_only_its_own_row() {
        // A blank paragraph cannot contain its answers.
        let file = |paragraph: &str| {
            let dir = tempfile::tempdir().unwrap();
            let path = dir.path().join("a.jsonl");
            let row = |context: &str| {
                format!("{{\"question\": \"who\", \"context\": \"{context}\", \"answers\": [\"cat\"]}}\n")
            };
            std::fs::write(&path, row("cat") + &row(paragraph)).unwrap();
            (dir, path)
        };
        for paragraph in ["", "  ", "\u{200b}"] {
            let (_dir, path) = file(paragraph);
            let (task, rows, _) = from_training_files(&path);
            assert_eq!(rows.len(), 1, "{paragraph:?}");
            let (rows, _) = read(&task, &path, LabelsNeeded::Required);
            assert!(rows[1].as_ref().is_ok_and(|row| row.blank), "{paragraph:?}");
        }

        let (_dir, path) = squad(&[
            CATS,
            BLANK,
            r#"{"id": "mat", "question": "on", "answers": [{"text": "mat", "answer_start": 20}]}"#,
        ]);
        let (task, rows, notes) = from_training_files(&path);
        let ids = |rows: &[Result<Row, TaskError>]| -> Vec<String> {
            rows.iter().map(|row| row.as_ref().map_or_else(TaskError::to_string, |row| row.id.clone())).collect()
        };
        assert_eq!(ids(&rows), ["cats", "mat"]);
        assert!(matches!(&notes[..], [note] if note.starts_with("1 training question skipped")), "{notes:?}");

        // In evaluation its predicted answer is empty, which is wrong.
        let (rows, notes) = read(&task, &path, LabelsNeeded::Required);
        assert_eq!(ids(&rows), ["cats", "blank", "mat"]);
        assert!(matches!(&notes[..], [note] if note.starts_with("1 question without tokens")), "{notes:?}");
        let blank = rows[1].as_ref().unwrap();
        let encoded = task.encode(blank, &tokenizer(false)).unwrap();
        assert!(encoded.examples.is_empty());
        let predicted = task.predict(blank, &encoded, &[]).unwrap();
        assert!(predicted.id == "blank" && predicted.found.best.is_empty());
        assert_eq!(task.scores(&[blank], &[&predicted]).get("f1"), Some(0.0));

        // In prediction it is an error in its position.
        let (rows, _) = read(&task, &path, LabelsNeeded::Optional);
        let ids = ids(&rows);
        assert_eq!((ids.len(), &*ids[0], &*ids[2]), (3, "cats", "mat"));
        assert!(ids[1].starts_with("question \"blank\": question: expected text with at least one token"), "{ids:?}");
        let row = |line: &str| {
            let object: Object = serde_json::from_str(line).unwrap();
            task.row(&reading(TaskOptions::default()), Input::Object(&object), &tokenizer(false))
        };
        let error = row(r#"{"question": "who", "context": "\u200b"}"#).unwrap_err().to_string();
        assert!(error.starts_with("context: expected text with at least one token"), "{error}");
        assert!(row(r#"{"question": "who", "context": "cats"}"#).is_ok());
    }

    #[test]
    fn r44_f1_of_text_without_spaces_gives_a_note() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.jsonl");
        let row = |text: &str| {
            format!(
                "{{\"question\": \"who\", \"context\": \"日本 cat\", \"answers\": [{{\"text\": \"{text}\", \"answer_start\": -1}}]}}\n"
            )
        };
        let task = AnswerTask::new(&reading(TaskOptions::default())).unwrap();
        let noted = |rows: &[&str]| {
            std::fs::write(&path, rows.iter().map(|text| row(text)).collect::<String>()).unwrap();
            read(&task, &path, LabelsNeeded::Required).1.iter().any(|note| note.contains("without spaces"))
        };
        assert!(noted(&["日本", "本", "cat"]));
        assert!(!noted(&["日本", "cat", "cat"]));
    }

    #[test]
    fn an_answer_without_tokens_is_not_trained_on_but_scored() {
        let mark = r#"{"id": "1", "question": "who", "context": "cat \u200b mat", "answers": [{"text": "\u200b", "answer_start": 4}]}"#;
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.jsonl");
        std::fs::write(
            &path,
            format!("{mark}\n{{\"question\": \"who\", \"context\": \"cat\", \"answers\": [\"cat\"]}}\n"),
        )
        .unwrap();
        let (task, rows, notes) = from_training_files(&path);
        assert_eq!(rows.len(), 1);
        assert!(notes.iter().any(|note| note.contains("no tokens in the answers")), "{notes:?}");
        let (rows, _) = read(&task, &path, LabelsNeeded::Required);
        let encoded = task.encode(rows[0].as_ref().unwrap(), &tokenizer(false)).unwrap();
        assert_eq!(encoded.examples[0].target.known_count(), 0);
    }

    #[test]
    fn part_3_8_the_models_stride_scales_with_max_len() {
        let windows = |max_len: Option<usize>, stride: Option<usize>| {
            let stored = TaskSettings { max_len: Some(128), stride: Some(64), ..TaskSettings::default() };
            let settings = TaskSettings { max_len, stride, ..TaskSettings::default() };
            let given = TaskOptions { settings, ..TaskOptions::default() };
            let reading = Reading::new(&KIND.description, given, Some(stored)).unwrap();
            let windows = AnswerTask::new(&reading).unwrap().windows;
            (windows.max_len, windows.stride)
        };
        assert_eq!(windows(None, None), (128, 64));
        assert_eq!(windows(Some(384), None), (384, 192));
        assert_eq!(windows(Some(64), None), (64, 32));
        assert_eq!(windows(Some(384), Some(64)), (384, 64));
    }
}
