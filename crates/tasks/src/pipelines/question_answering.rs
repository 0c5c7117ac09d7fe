//! Question answering: a question and a context → spans of the context, as `QuestionAnsweringPipeline` of Transformers 4.
//!
//! The score of a span is the product of the probabilities of its first and its last token, of which each is a softmax over the
//! tokens of the context and `[CLS]`. ([`answer`](crate::answer) has the rules of google-research/bert instead.) The answers of
//! all windows are one list, in which answers with the same text, in any case, are one answer with the sum of the scores: a score
//! can be above 1.
//!
//! Spans with a score of 0 are left out; Transformers fills up a list with some of them. Questions are not truncated, as by
//! Transformers' fast tokenizers, which ignore `max_question_len`.

use std::ops::Range;
use std::sync::Arc;

use cloze_model::TaskHead;
use cloze_text::Piece;
use serde::{Deserialize, Serialize, Serializer};
use serde_json::Value;

use super::answers::Answers;
use super::fields::Fields;
use super::inputs::{Inputs, Question};
use super::logits::{are_finite, rounded};
use super::sequences::{positions, quoted, task_logits, windows, wrong_head};
use crate::TaskError;
use crate::example::{Example, Target};
use crate::inference::executor::Executor;
use crate::inference::pretrained::Pretrained;
use crate::parallel;

/// The number of tokens of a window if `max_seq_len` is absent.
const MAX_SEQ_LEN: usize = 384;

/// The number of shared tokens of windows if `doc_stride` is absent.
const DOC_STRIDE: usize = 128;

/// The logit of a token that cannot be in an answer.
const MASKED: f32 = -10_000.0;

/// The parameters.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(try_from = "Value")]
#[non_exhaustive]
pub struct Parameters {
    /// The number of answers, at least 1.
    pub top_k: usize,
    /// The number of tokens that windows share. None: 128, or half of `max_seq_len` if that is less.
    pub doc_stride: Option<usize>,
    /// The maximum number of tokens of an answer, at least 1.
    pub max_answer_len: usize,
    /// The maximum number of tokens of a window, question and special tokens included. None: 384, or the tokenizer's
    /// `model_max_length` if that is less. It is at most the number of the model's positions, for which Transformers fails.
    pub max_seq_len: Option<usize>,
    /// Whether "no answer" is an answer, with an empty text.
    pub handle_impossible_answer: bool,
    /// Whether answers are whole words.
    pub align_to_words: bool,
}

impl Default for Parameters {
    fn default() -> Parameters {
        Parameters {
            top_k: 1,
            doc_stride: None,
            max_answer_len: 15,
            max_seq_len: None,
            handle_impossible_answer: false,
            align_to_words: true,
        }
    }
}

impl TryFrom<Value> for Parameters {
    type Error = TaskError;

    fn try_from(value: Value) -> Result<Parameters, TaskError> {
        let (fields, default) = (Fields::of_parameters(value)?, Parameters::default());
        Ok(Parameters {
            // The old name is `topk`.
            top_k: fields.positive("top_k")?.or(fields.positive("topk")?).unwrap_or(default.top_k),
            doc_stride: fields.count("doc_stride")?,
            max_answer_len: fields.positive("max_answer_len")?.unwrap_or(default.max_answer_len),
            max_seq_len: fields.positive("max_seq_len")?,
            handle_impossible_answer: fields.flag("handle_impossible_answer")?.unwrap_or_default(),
            align_to_words: fields.flag("align_to_words")?.unwrap_or(default.align_to_words),
        })
    }
}

/// An answer.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[non_exhaustive]
pub struct Answer {
    /// Its score.
    pub score: f64,
    /// The first character in the context.
    pub start: usize,
    /// One past the last character in the context.
    pub end: usize,
    /// The text; empty for "no answer".
    pub answer: String,
}

/// The answers to a question, best first. Serialized, a single one is an object, and several are a list.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct Found {
    /// The answers.
    pub answers: Vec<Answer>,
}

impl Serialize for Found {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match &self.answers[..] {
            [answer] => answer.serialize(serializer),
            answers => answers.serialize(serializer),
        }
    }
}

/// A model that answers questions.
pub struct QuestionAnswering {
    model: Arc<Pretrained>,
}

/// A question, the tokens of its context, and its windows.
struct Encoded {
    pieces: Vec<Piece>,
    /// The position of the context's first token in each sequence.
    start: usize,
    /// The tokens of the context in each window.
    windows: Vec<Range<usize>>,
    examples: Vec<Example>,
}

/// A span of tokens of a window; 0 is its first token of the context.
struct Span {
    first: usize,
    last: usize,
    score: f32,
}

impl QuestionAnswering {
    /// Checks that a model has the head that answers questions.
    ///
    /// # Errors
    /// [`TaskError::Folder`] for a model without that head.
    pub fn new(model: Arc<Pretrained>) -> Result<QuestionAnswering, TaskError> {
        match model.model.heads.task {
            Some(TaskHead::Answer) => Ok(QuestionAnswering { model }),
            _ => Err(wrong_head(&model, "a model that answers questions, such as BertForQuestionAnswering")),
        }
    }

    /// The model.
    pub fn model(&self) -> &Arc<Pretrained> {
        &self.model
    }

    /// The answers to each question. A list with one question is answered like that question, as in Transformers.
    ///
    /// # Errors
    /// Those of [`run_on`](Self::run_on), except of an executor.
    pub fn run(&self, inputs: &Inputs<Question>, parameters: &Parameters) -> Result<Answers<Found>, TaskError> {
        self.run_on(&*self.model, inputs, parameters)
    }

    /// As [`run`](Self::run); `executor` runs the model's forward passes.
    ///
    /// # Errors
    /// [`TaskError::Input`] for an empty list, an empty question or context, a question that leaves no room for the context,
    /// a `doc_stride` that is not less than a window, a `top_k` or `max_answer_len` of 0; [`TaskError::Logits`]; those of the
    /// executor.
    pub fn run_on(
        &self,
        executor: &dyn Executor,
        inputs: &Inputs<Question>,
        parameters: &Parameters,
    ) -> Result<Answers<Found>, TaskError> {
        if inputs.rows.is_empty() {
            return Err(TaskError::input("\"inputs\"", "expected at least one question, found an empty list"));
        }
        for (name, value) in [("\"top_k\"", parameters.top_k), ("\"max_answer_len\"", parameters.max_answer_len)] {
            if value == 0 {
                return Err(TaskError::input(name, "expected a whole number, 1 or more, found 0"));
            }
        }
        let threads = self.model.device.threads();
        let encoded = parallel::map(&inputs.rows, threads, |row| self.encode(row, parameters));
        let mut encoded: Vec<Encoded> = encoded.into_iter().collect::<Result<_, _>>()?;
        let examples: Vec<Example> = encoded.iter_mut().flat_map(|row| std::mem::take(&mut row.examples)).collect();
        let mut logits = task_logits(&self.model, executor, &examples)?.into_iter();
        let mut rows = Vec::with_capacity(encoded.len());
        for (row, encoded) in inputs.rows.iter().zip(&encoded) {
            let of_row: Vec<Vec<f32>> = logits.by_ref().take(encoded.windows.len()).collect();
            if !of_row.iter().all(|logits| are_finite(logits)) {
                return Err(TaskError::Logits(quoted(&row.question)));
            }
            rows.push(Found { answers: answers(row, encoded, &of_row, parameters) });
        }
        Ok(Answers::new(rows, inputs.is_list && inputs.rows.len() > 1))
    }

    fn encode(&self, row: &Question, parameters: &Parameters) -> Result<Encoded, TaskError> {
        for (name, text) in [("\"question\"", &row.question), ("\"context\"", &row.context)] {
            if text.is_empty() {
                return Err(TaskError::input(name, "expected a text that is not empty"));
            }
        }
        let Pretrained { tokenizer, .. } = &*self.model;
        let template = tokenizer.template();
        let given = parameters.max_seq_len;
        let usual = || tokenizer.model_max_length().map_or(MAX_SEQ_LEN, |length| length.min(MAX_SEQ_LEN));
        let max_len = given.unwrap_or_else(usual).min(positions(&self.model));
        let overlap = parameters.doc_stride.unwrap_or(DOC_STRIDE.min(max_len / 2));
        if overlap > max_len {
            let problem = format!("expected at most \"max_seq_len\", {max_len}, found {overlap}");
            return Err(TaskError::input("\"doc_stride\"", problem));
        }
        let question = tokenizer.encode(&row.question);
        let pieces = tokenizer.encode_with_offsets(&row.context);
        let room = max_len.saturating_sub(template.added(true) + question.len());
        if pieces.len() > room {
            if room == 0 {
                let problem = format!(
                    "its {} tokens and {} special tokens leave no room for the context in {max_len} tokens; shorten it or raise \
                     \"max_seq_len\"",
                    question.len(),
                    template.added(true)
                );
                return Err(TaskError::input("\"question\"", problem));
            }
            if overlap >= room {
                let problem = format!("expected less than {room}, the context's tokens of a window, found {overlap}");
                return Err(TaskError::input("\"doc_stride\"", problem));
            }
        }
        let windows = windows(pieces.len(), room, overlap, tokenizer.truncates_left());
        let example = |window: &Range<usize>| {
            let ids: Vec<u32> = pieces[window.clone()].iter().map(|piece| piece.id).collect();
            Example::new(vec![template.sequence(&question, Some(&ids))], Target::positions::<2>(None))
        };
        let examples = windows.iter().map(example).collect();
        Ok(Encoded { start: template.start_of_second(question.len()), windows, examples, pieces })
    }
}

/// The answers of all windows.
fn answers(row: &Question, encoded: &Encoded, logits: &[Vec<f32>], parameters: &Parameters) -> Vec<Answer> {
    let count = match parameters.align_to_words {
        // Some candidates become the same if they are aligned to words.
        true => parameters.top_k * 2 + 10,
        false => parameters.top_k,
    };
    let (mut answers, mut no_answer): (Vec<(String, Answer)>, f64) = (Vec::new(), f64::INFINITY);
    for (window, logits) in encoded.windows.iter().zip(logits) {
        let [starts, ends] = [0, 1].map(|column| probabilities(logits, column, encoded.start, window.len()));
        no_answer = no_answer.min(f64::from(starts.0 * ends.0));
        let pieces = &encoded.pieces[window.clone()];
        for span in spans(&starts.1, &ends.1, parameters.max_answer_len, count) {
            let (first, last) = match parameters.align_to_words {
                true => (first_of_word(pieces, span.first), last_of_word(pieces, span.last)),
                false => (span.first, span.last),
            };
            let bytes = pieces[first].start..pieces[last].end;
            let text = row.context.get(bytes.clone()).unwrap_or_default();
            let (score, lower) = (f64::from(span.score), text.to_lowercase());
            match answers.iter_mut().find(|(known, _)| *known == lower) {
                Some((_, answer)) => answer.score += score,
                None => {
                    let [start, end] = [bytes.start, bytes.end].map(|byte| characters(&row.context, byte));
                    answers.push((lower, Answer { score, start, end, answer: text.to_owned() }));
                }
            }
        }
    }
    let mut answers: Vec<Answer> = answers.into_iter().map(|(_, answer)| answer).collect();
    let nothing = |score| Answer { score, start: 0, end: 0, answer: String::new() };
    if parameters.handle_impossible_answer {
        answers.push(nothing(no_answer));
    } else if answers.is_empty() {
        answers.push(nothing(0.0));
    }
    answers.sort_by(|a, b| b.score.total_cmp(&a.score));
    answers.truncate(parameters.top_k);
    answers
}

/// The probabilities that a token is the first (column 0) or last one (1) of an answer: that of `[CLS]`, and those of the
/// context's tokens.
fn probabilities(logits: &[f32], column: usize, start: usize, count: usize) -> (f32, Vec<f32>) {
    let logit = |token: usize| logits[2 * token + column];
    let tokens = logits.len() / 2;
    let is_masked = |token: &usize| *token != 0 && !(start..start + count).contains(token);
    let all: Vec<f32> = (0..tokens).map(|token| if is_masked(&token) { MASKED } else { logit(token) }).collect();
    let max = all.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let shares: Vec<f64> = all.iter().map(|logit| f64::from(logit - max).exp()).collect();
    let sum: f64 = shares.iter().sum();
    let share = |token: usize| rounded(shares[token] / sum) as f32;
    (share(0), (start..start + count).map(share).collect())
}

/// The best spans of at most `longest` tokens, best first.
fn spans(starts: &[f32], ends: &[f32], longest: usize, count: usize) -> Vec<Span> {
    let mut spans: Vec<Span> = starts
        .iter()
        .enumerate()
        .flat_map(|(first, start)| {
            let ends = ends.iter().enumerate().skip(first).take(longest);
            ends.map(move |(last, end)| Span { first, last, score: start * end })
        })
        .filter(|span| span.score > 0.0)
        .collect();
    spans.sort_by(|a, b| b.score.total_cmp(&a.score));
    spans.truncate(count);
    spans
}

/// The first token in the window of a token's word.
fn first_of_word(pieces: &[Piece], token: usize) -> usize {
    (0..token).rev().take_while(|&before| pieces[before].word == pieces[token].word).last().unwrap_or(token)
}

/// The last token in the window of a token's word.
fn last_of_word(pieces: &[Piece], token: usize) -> usize {
    (token + 1..pieces.len()).take_while(|&after| pieces[after].word == pieces[token].word).last().unwrap_or(token)
}

/// The number of characters before a byte of a text.
fn characters(text: &str, byte: usize) -> usize {
    text.get(..byte).map_or(0, |before| before.chars().count())
}
