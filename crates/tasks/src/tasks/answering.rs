//! A part of a paragraph that answers a question: start and end logits of every token, over overlapping windows.

use std::collections::HashMap;
use std::sync::Arc;

use cloze_model::{Config, TaskHead};
use cloze_text::{Sequence, Tokenizer};
use serde::Serialize;
use serde_json::json;

use crate::TaskError;
use crate::answer::{
    EncodedContext, ExtractOptions, Extraction, Logits, Window, WindowOptions, extract, target, windows,
};
use crate::datasets::squad::Question;
use crate::example::{Example, Target};
use crate::metrics::squad::{self, NullOdds, evaluate_v1, evaluate_v2};
use crate::parallel;
use crate::task::{Encoded, Scores, Task};

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
            examples.push(Example { sequences: vec![sequence], target: Target::Span(span) });
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
