//! Start and end logits → answers.
//!
//! The search is that of `write_predictions` in google-research/bert, with the same order of ties, except that
//!
//! - answers are slices of the context by byte offsets (see [`answer`](super)), and empty slices are not answers;
//! - the null answer and the best other answer are always listed, even if the list is shorter (Google's code appends only
//!   the first and fails if the second is missing);
//! - if no span is possible there is no answer, where Google's code adds an answer "empty".

use std::cmp::Ordering;
use std::collections::HashSet;

use serde::Serialize;

use super::{EncodedContext, Window};
use crate::TaskError;

/// The logits of a window: for each row (token), how likely it is the start and the end of the answer.
#[derive(Clone, Copy, Debug)]
pub struct Logits<'a> {
    /// Start logits, one for each id of the window.
    pub start: &'a [f32],
    /// End logits, one for each id of the window.
    pub end: &'a [f32],
}

/// Options of the search for answers. The defaults are those of `run_squad.py` in google-research/bert for SQuAD 1.1.
#[derive(Clone, Copy, Debug, PartialEq)]
#[non_exhaustive]
pub struct ExtractOptions {
    /// The number of start rows and of end rows that are considered in each window: those with the largest logits
    /// (`n_best_size` of Google's code and of Transformers).
    pub candidates: usize,
    /// The number of answers to list. The best answer does not depend on it.
    pub n_best: usize,
    /// Maximum number of tokens of an answer.
    pub max_answer: usize,
    /// For data where a question may have no answer (SQuAD 2.0): the null answer is predicted if its score exceeds that
    /// of the best other answer by more than this (`null_score_diff_threshold`; 0 in Google's code, tuned on the
    /// development set in the paper). None: every question has an answer (SQuAD 1.1).
    pub null_threshold: Option<f32>,
}

impl Default for ExtractOptions {
    fn default() -> ExtractOptions {
        ExtractOptions { candidates: 20, n_best: 20, max_answer: 30, null_threshold: None }
    }
}

/// A span of the context, or the null answer: "there is no answer".
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
#[non_exhaustive]
pub struct Answer {
    /// The text of the span, as in the context; empty for the null answer.
    pub text: String,
    /// The index of its first character in the context, in Unicode scalar values as in Python strings; 0 for the null
    /// answer.
    pub start_char: usize,
    /// The index after its last character.
    pub end_char: usize,
    /// The index of its first byte in the context; 0 for the null answer.
    pub start_byte: usize,
    /// The index after its last byte.
    pub end_byte: usize,
    /// Start logit + end logit.
    pub score: f32,
    /// The probability: the softmax of the scores of the best answers, whose number is the larger of
    /// [`candidates`](ExtractOptions::candidates) and [`n_best`](ExtractOptions::n_best).
    pub probability: f64,
}

impl Answer {
    /// Whether this is the null answer.
    pub fn is_empty(&self) -> bool {
        self.text.is_empty()
    }
}

/// The answers to one question.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[non_exhaustive]
pub struct Extraction {
    /// The predicted answer. It is empty if the null answer is preferred, and if no span is possible; in the latter
    /// case, without a null answer, its score and probability are 0.
    pub best: Answer,
    /// The best answers, in descending order. Each text occurs once, with its best score. If questions may have no
    /// answer, the null answer is included. Empty if no span is possible and there is no null answer.
    pub n_best: Vec<Answer>,
    /// The score of the null answer minus that of the best other answer. `best` is the null answer if this exceeds the
    /// threshold. None without a threshold, and if there is no other answer.
    pub null_odds: Option<f32>,
}

/// A scored span of the context, in bytes. The span of the null answer is empty.
#[derive(Clone, Copy)]
struct Candidate {
    start: usize,
    end: usize,
    score: f64,
}

impl Candidate {
    fn is_null(&self) -> bool {
        self.start == self.end
    }
}

/// Finds the best answers to a question from the logits of all its windows.
///
/// A candidate starts at one of the `candidates` rows with the largest start logits of its window and ends at one of
/// the `candidates` rows with the largest end logits. Both rows are tokens of the context, the start is in the window
/// that shows most of its context, the end is not before the start, and the span has at most `max_answer` tokens. The
/// score of the null answer is the minimum over the windows of the sum of \[CLS\]'s start and end logit: it must be
/// high in every window (Devlin et al. 2019, section 4.3, as in Google's code).
///
/// # Errors
/// [`TaskError::Input`] if `candidates`, `n_best` or `max_answer` is 0, if the threshold is NaN, if there are no
/// windows, if the number of logits does not match, or if the windows belong to a different context;
/// [`TaskError::Logits`] for logits that are not finite.
pub fn extract(
    context: &EncodedContext,
    windows: &[Window],
    logits: &[Logits<'_>],
    options: &ExtractOptions,
) -> Result<Extraction, TaskError> {
    check(context, windows, logits, options)?;
    let mut candidates = Vec::new();
    let mut null_score = f64::INFINITY;
    for (window, logits) in windows.iter().zip(logits) {
        if let (Some(&start), Some(&end)) = (logits.start.first(), logits.end.first()) {
            null_score = null_score.min(f64::from(start) + f64::from(end));
        }
        collect_candidates(context, window, logits, options, &mut candidates);
    }
    if options.null_threshold.is_some() {
        candidates.push(Candidate { start: 0, end: 0, score: null_score });
    }
    // The sort is stable: ties stay in the order of windows, starts and ends, with the null answer last.
    candidates.sort_by(|a, b| descending(a.score, b.score));

    // The list is truncated at the end, so that neither the best answer nor its probability depends on its length.
    let considered = select(context, &candidates, options.candidates.max(options.n_best));
    let mut n_best = answers(context, &considered);
    let best_of = |null: bool| considered.iter().position(|c| c.is_null() == null);
    let (null, other) = (best_of(true), best_of(false));
    let score_of = |at: Option<usize>| at.and_then(|at| considered.get(at)).map(|c| c.score);
    let null_odds = score_of(null).zip(score_of(other)).map(|(null, other)| (null - other) as f32);
    let prefers_null = null_odds.zip(options.null_threshold).is_some_and(|(odds, threshold)| odds > threshold);
    let chosen = if prefers_null { null } else { other.or(null) };
    let best = chosen.and_then(|at| n_best.get(at)).cloned().unwrap_or_default();
    let mut place = 0;
    n_best.retain(|_| {
        place += 1;
        place <= options.n_best || [null, other].contains(&Some(place - 1))
    });
    Ok(Extraction { best, n_best, null_odds })
}

/// Adds the candidates of a window, in the order of their start logits and then of their end logits.
fn collect_candidates(
    context: &EncodedContext,
    window: &Window,
    logits: &Logits<'_>,
    options: &ExtractOptions,
    out: &mut Vec<Candidate>,
) {
    let ends: Vec<usize> =
        top_rows(logits.end, options.candidates).into_iter().filter(|&row| window.piece(row).is_some()).collect();
    for start in top_rows(logits.start, options.candidates) {
        let Some(first) = window.piece(start) else {
            continue;
        };
        if !window.max_context.get(start - window.context_start).is_some_and(|&is_max| is_max) {
            continue;
        }
        for &end in &ends {
            let Some(last) = window.piece(end).filter(|&last| last >= first && last - first < options.max_answer)
            else {
                continue;
            };
            let pieces = context.pieces();
            if let (Some(first), Some(last), Some(a), Some(b)) =
                (pieces.get(first), pieces.get(last), logits.start.get(start), logits.end.get(end))
                && first.start < last.end
            {
                out.push(Candidate { start: first.start, end: last.end, score: f64::from(*a) + f64::from(*b) });
            }
        }
    }
}

/// The rows of the `k` largest logits in descending order. Ties are in the order of rows, as with Python's stable sort.
fn top_rows(logits: &[f32], k: usize) -> Vec<usize> {
    let mut rows: Vec<(usize, f32)> = logits.iter().copied().enumerate().collect();
    let order = |a: &(usize, f32), b: &(usize, f32)| descending(a.1.into(), b.1.into()).then(a.0.cmp(&b.0));
    if k < rows.len() {
        rows.select_nth_unstable_by(k, order);
        rows.truncate(k);
    }
    rows.sort_unstable_by(order);
    rows.into_iter().map(|(row, _)| row).collect()
}

/// Descending order of finite numbers. Unlike `total_cmp` it treats 0 and −0 as equal.
fn descending(a: f64, b: f64) -> Ordering {
    b.partial_cmp(&a).unwrap_or(Ordering::Equal)
}

/// The first `most` candidates with distinct texts; also the null answer and the best other answer if they are not
/// among these.
fn select(context: &EncodedContext, candidates: &[Candidate], most: usize) -> Vec<Candidate> {
    let mut seen = HashSet::new();
    let mut quoted_list: Vec<Candidate> = Vec::new();
    for candidate in candidates {
        if quoted_list.len() >= most {
            break;
        }
        if seen.insert(context.text().get(candidate.start..candidate.end).unwrap_or_default()) {
            quoted_list.push(*candidate);
        }
    }
    for null in [false, true] {
        if quoted_list.iter().all(|c| c.is_null() != null) {
            quoted_list.extend(candidates.iter().find(|c| c.is_null() == null));
        }
    }
    quoted_list
}

/// Converts candidates to answers with texts, offsets and probabilities.
fn answers(context: &EncodedContext, quoted_list: &[Candidate]) -> Vec<Answer> {
    let text = context.text();
    let max_score = quoted_list.iter().map(|c| c.score).fold(f64::NEG_INFINITY, f64::max);
    let total: f64 = quoted_list.iter().map(|c| (c.score - max_score).exp()).sum();
    let characters = |bytes: &str| bytes.chars().count();
    quoted_list
        .iter()
        .map(|c| {
            let answer = text.get(c.start..c.end).unwrap_or_default();
            let start_char = characters(text.get(..c.start).unwrap_or_default());
            Answer {
                text: answer.to_owned(),
                start_char,
                end_char: start_char + characters(answer),
                start_byte: c.start,
                end_byte: c.end,
                score: c.score as f32,
                probability: (c.score - max_score).exp() / total,
            }
        })
        .collect()
}

fn check(
    context: &EncodedContext,
    windows: &[Window],
    logits: &[Logits<'_>],
    options: &ExtractOptions,
) -> Result<(), TaskError> {
    let counts = [("candidates", options.candidates), ("n_best", options.n_best), ("max_answer", options.max_answer)];
    for (name, value) in counts {
        if value == 0 {
            return Err(TaskError::input(format!("`{name}`"), "expected at least 1, found 0"));
        }
    }
    if options.null_threshold.is_some_and(f32::is_nan) {
        return Err(TaskError::input("`null_threshold`", "expected a number, such as the default 0, found NaN"));
    }
    if windows.is_empty() || windows.len() != logits.len() {
        return Err(TaskError::input(
            "logits",
            format!(
                "expected logits of all {1} windows of one question, found those of {0} windows",
                logits.len(),
                windows.len()
            ),
        ));
    }
    for (i, (window, logits)) in windows.iter().zip(logits).enumerate() {
        let (pieces, rows) = (&window.pieces, window.ids.len());
        if pieces.end > context.pieces().len()
            || window.max_context.len() != pieces.len()
            || window.context_start.saturating_add(pieces.len()) >= rows
        {
            return Err(TaskError::input(
                format!("window {i}"),
                format!(
                    "the pieces {pieces:?} from row {} of {rows} do not fit a context of {} pieces; pass the context from which \
                     the windows were made",
                    window.context_start,
                    context.pieces().len()
                ),
            ));
        }
        for (name, values) in [("start", logits.start), ("end", logits.end)] {
            let what = || format!("{name} logits of window {i}");
            if values.len() != rows {
                return Err(TaskError::input(
                    what(),
                    format!("expected one for each of the {rows} rows, found {}", values.len()),
                ));
            }
            if let Some((row, value)) = values.iter().enumerate().find(|(_, value)| !value.is_finite()) {
                return Err(TaskError::Logits(format!("{}, row {row}: {value}", what())));
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::super::tests::{Numbers, random_text, tokenizer};
    use super::super::{WindowOptions, Windows, windows};
    use super::*;

    fn made(context: &EncodedContext, max_len: usize, stride: usize) -> Vec<Window> {
        let options = WindowOptions { max_len, stride, max_question: 2 };
        windows(&tokenizer(false), "who sat", context, &options).unwrap().windows
    }

    fn context(text: &str) -> EncodedContext {
        EncodedContext::new(&tokenizer(false), text)
    }

    /// Logits of −9 except for these rows.
    fn peaks(rows: usize, at: &[(usize, f32)]) -> Vec<f32> {
        let mut logits = vec![-9.0; rows];
        at.iter().for_each(|&(row, value)| logits[row] = value);
        logits
    }

    /// Calls `extract` for a question with one window.
    fn one(
        context: &EncodedContext,
        start: &[(usize, f32)],
        end: &[(usize, f32)],
        options: ExtractOptions,
    ) -> Extraction {
        let windows = made(context, 60, 60);
        assert_eq!(windows.len(), 1);
        let (start, end) = (peaks(windows[0].ids.len(), start), peaks(windows[0].ids.len(), end));
        extract(context, &windows, &[Logits { start: &start, end: &end }], &options).unwrap()
    }

    #[test]
    fn answers_are_slices_of_the_original_text() {
        // Rows: [CLS] who sat [SEP] the cat ##s sat on 日 本 . 🙂 cafe [SEP]
        let text = "The  CATS sat\non 日本. 🙂 Cafe\u{301}!";
        let context = context(text);
        let found = one(&context, &[(5, 3.0), (9, 2.0)], &[(7, 4.0), (10, 1.0)], ExtractOptions::default());
        assert_eq!(found.best.text, "CATS sat");
        assert_eq!((found.best.start_byte, found.best.end_byte), (5, 13));
        assert_eq!(found.best.score, 7.0);
        assert!(found.null_odds.is_none());
        let second = &found.n_best[1];
        assert_eq!((second.text.as_str(), second.score), ("CATS sat\non 日本", 4.0));
        assert_eq!((second.start_char, second.end_char), (5, 19));
        for answer in &found.n_best {
            assert_eq!(answer.text, text[answer.start_byte..answer.end_byte]);
            let characters: String =
                text.chars().skip(answer.start_char).take(answer.end_char - answer.start_char).collect();
            assert_eq!(answer.text, characters);
        }
        let total: f64 = found.n_best.iter().map(|a| a.probability).sum();
        assert!((total - 1.0).abs() < 1e-12);
        let ratio = found.n_best[0].probability / second.probability;
        assert!((ratio - 3f64.exp()).abs() < 1e-9);
        // A decomposed accent, and an emoji.
        let accent = one(&context, &[(12, 3.0)], &[(13, 3.0)], ExtractOptions::default()).best;
        assert_eq!(accent.text, "🙂 Cafe\u{301}");
        assert_eq!(accent.end_char, 28);
    }

    #[test]
    fn special_tokens_question_and_inverted_spans_are_not_answers() {
        let context = context("the cat sat on the mat");
        let start = [(0, 9.0), (1, 8.0), (3, 7.0), (7, 6.0), (4, 1.0)];
        let end = [(0, 9.0), (2, 8.0), (10, 7.0), (5, 6.5), (8, 1.0)];
        let found = one(&context, &start, &end, ExtractOptions::default());
        // Rows 4 to 5, and 7 to 8. Rows of special tokens and the span from 7 to 5 are ignored.
        assert_eq!(found.best.text, "the cat");
        assert_eq!(found.n_best[1].text, "on the");
        // As in Google's code the candidates are chosen from all rows: it is possible that none of them is in the
        // context.
        let none = one(&context, &start, &end, ExtractOptions { candidates: 2, ..ExtractOptions::default() });
        assert_eq!((none.best, none.n_best, none.null_odds), (Answer::default(), vec![], None));
    }

    #[test]
    fn answers_have_a_maximum_length() {
        let context = context("the cat sat on the mat");
        let options = ExtractOptions { max_answer: 2, ..ExtractOptions::default() };
        let found = one(&context, &[(4, 5.0)], &[(6, 5.0), (5, 0.0)], options);
        assert_eq!(found.best.text, "the cat");
        assert!(found.n_best.iter().all(|a| a.text.split(' ').count() <= 2));
    }

    #[test]
    fn the_same_text_counts_once_with_its_best_score() {
        let context = context("cat sat cat");
        let found = one(&context, &[(4, 1.0), (6, 2.0)], &[(4, 1.0), (6, 2.0)], ExtractOptions::default());
        assert_eq!(found.n_best.iter().filter(|a| a.text == "cat").count(), 1);
        assert_eq!((found.best.text.as_str(), found.best.start_byte, found.best.score), ("cat", 8, 4.0));
        // Of ties the first occurrence is taken.
        let tied = one(&context, &[(4, 1.0), (6, 1.0)], &[(4, 1.0), (6, 1.0)], ExtractOptions::default());
        assert_eq!((tied.best.text.as_str(), tied.best.start_byte), ("cat", 0));
    }

    #[test]
    fn the_null_answer_must_win_in_every_window() {
        let context = context("the cat sat on the mat");
        let windows = made(&context, 8, 3);
        assert_eq!(windows.len(), 2);
        let logits = |null: f32, best: f32| (peaks(8, &[(0, null), (5, best)]), peaks(8, &[(0, null), (5, best)]));
        let run = |nulls: [f32; 2], threshold| {
            let rows = [logits(nulls[0], 2.0), logits(nulls[1], 1.0)];
            let rows: Vec<_> = rows.iter().map(|(start, end)| Logits { start, end }).collect();
            let options = ExtractOptions { null_threshold: threshold, ..ExtractOptions::default() };
            extract(&context, &windows, &rows, &options).unwrap()
        };
        let no = run([5.0, 1.5], Some(0.0));
        assert_eq!((no.best.text.as_str(), no.null_odds), ("cat", Some(-1.0)));
        assert_eq!(no.n_best.iter().filter(|a| a.is_empty()).count(), 1);
        assert_eq!(no.n_best.iter().position(|a| a.is_empty()), Some(1));
        let yes = run([5.0, 2.5], Some(0.0));
        assert_eq!((yes.best.text.as_str(), yes.best.score, yes.null_odds), ("", 5.0, Some(1.0)));
        assert_eq!(yes.n_best[0], yes.best);
        // The odds must be greater than the threshold; without a threshold there is no null answer.
        assert_eq!(run([5.0, 2.5], Some(1.0)).best.text, "cat");
        assert_eq!(run([5.0, 2.0], Some(0.0)).best.text, "cat");
        assert_eq!(run([5.0, 1.5], Some(-1.5)).best.text, "");
        let never = run([50.0, 50.0], None);
        assert!(never.best.text == "cat" && never.n_best.iter().all(|a| !a.is_empty()) && never.null_odds.is_none());
    }

    #[test]
    fn null_and_best_are_always_listed() {
        let context = context("the cat sat on the mat");
        let options = ExtractOptions { candidates: 3, n_best: 3, max_answer: 30, null_threshold: Some(0.0) };
        let low = one(&context, &[(4, 5.0), (5, 4.0), (6, 3.0)], &[(7, 5.0), (8, 4.0), (9, 3.0)], options);
        assert_eq!(low.n_best.len(), 4);
        assert!(low.n_best[3].is_empty() && low.n_best[3].score == -18.0);
        assert_eq!(low.null_odds, Some(-28.0));
        // One candidate, whose only row is [CLS]: there is no other answer and no odds; the null answer is predicted.
        let single = ExtractOptions { candidates: 1, n_best: 1, ..options };
        let only = one(&context, &[(0, 5.0)], &[(0, 5.0)], single);
        assert!(only.best.is_empty() && only.n_best == [only.best.clone()] && only.null_odds.is_none());
        assert_eq!((only.best.score, only.best.probability), (10.0, 1.0));
        // One candidate, where the null answer comes from a different window than the best answer.
        let windows = made(&context, 8, 3);
        let rows =
            [(peaks(8, &[(5, 1.0)]), peaks(8, &[(5, 1.0), (0, -3.0)])), (peaks(8, &[(0, 4.0)]), peaks(8, &[(0, 4.0)]))];
        let rows: Vec<_> = rows.iter().map(|(start, end)| Logits { start, end }).collect();
        let found = extract(&context, &windows, &rows, &single).unwrap();
        assert_eq!((found.best.text.as_str(), found.n_best.len()), ("cat", 2));
        assert_eq!(found.null_odds, Some(-14.0));
        let yes =
            extract(&context, &windows, &rows, &ExtractOptions { null_threshold: Some(-15.0), ..single }).unwrap();
        assert!(yes.best.is_empty() && yes.n_best == found.n_best);
    }

    /// The search by definition: every pair of rows of every window, with ranks by counting.
    fn oracle(
        context: &EncodedContext,
        windows: &[Window],
        logits: &[(Vec<f32>, Vec<f32>)],
        options: &ExtractOptions,
    ) -> Vec<(String, f64)> {
        let rank = |logits: &[f32], row: usize| {
            (0..logits.len())
                .filter(|&other| logits[other] > logits[row] || (logits[other] == logits[row] && other < row))
                .count()
        };
        let mut spans = Vec::new();
        for (w, (start, end)) in windows.iter().zip(logits) {
            for first in 0..w.ids.len() {
                for last in first..w.ids.len() {
                    let within = |row| row >= w.context_start && row + 1 < w.ids.len();
                    if !within(first) || !within(last) || last - first + 1 > options.max_answer {
                        continue;
                    }
                    if rank(start, first) >= options.candidates || rank(end, last) >= options.candidates {
                        continue;
                    }
                    if !w.max_context[first - w.context_start] {
                        continue;
                    }
                    let byte = |row: usize| context.pieces()[row - w.context_start + w.pieces.start];
                    let text = context.text()[byte(first).start..byte(last).end].to_string();
                    spans.push((text, f64::from(start[first]) + f64::from(end[last])));
                }
            }
        }
        // The best score of each text, in descending order.
        let mut best = std::collections::BTreeMap::<String, f64>::new();
        for (text, score) in spans {
            let known = best.entry(text).or_insert(score);
            *known = known.max(score);
        }
        let mut best: Vec<_> = best.into_iter().collect();
        best.sort_by(|a, b| b.1.total_cmp(&a.1));
        best
    }

    #[test]
    fn the_search_equals_every_pair_of_rows() {
        let mut numbers = Numbers(11);
        let (mut checked, mut some, mut several, mut nulls) = (0, 0, 0, 0);
        for _ in 0..600 {
            let text = random_text(&mut numbers, 40);
            let context = context(&text);
            if context.pieces().is_empty() {
                continue;
            }
            let windows = made(&context, 6 + numbers.below(20), 1 + numbers.below(16));
            let null_threshold = (numbers.below(2) == 0).then_some(numbers.below(9) as f32 - 4.0);
            let (candidates, n_best) = (1 + numbers.below(24), 1 + numbers.below(24));
            let options = ExtractOptions { candidates, n_best, max_answer: 1 + numbers.below(12), null_threshold };
            // Coarse values produce ties, which may be in any order.
            let coarse = if numbers.below(2) == 0 { 4 } else { 1 << 20 };
            let mut draw = |n: usize| -> Vec<f32> {
                (0..n).map(|_| numbers.below(coarse) as f32 / coarse as f32 * 16.0 - 8.0).collect()
            };
            let logits: Vec<_> = windows.iter().map(|w| (draw(w.ids.len()), draw(w.ids.len()))).collect();
            let rows: Vec<_> = logits.iter().map(|(start, end)| Logits { start, end }).collect();
            let found = extract(&context, &windows, &rows, &options).unwrap();
            let expected = oracle(&context, &windows, &logits, &options);

            let texts: Vec<_> = found.n_best.iter().filter(|a| !a.is_empty()).collect();
            // The null answer takes a position of the list if its score is high enough.
            let null = logits.iter().map(|(s, e)| f64::from(s[0]) + f64::from(e[0])).fold(f64::INFINITY, f64::min);
            let before = expected.iter().filter(|(_, score)| *score >= null).count();
            let room = options.n_best - usize::from(null_threshold.is_some() && before < options.n_best);
            assert_eq!(texts.len(), expected.len().min(room.max(1)));
            for (answer, (_, score)) in texts.iter().zip(&expected) {
                assert_eq!(f64::from(answer.score), *score as f32 as f64);
                assert!(expected.iter().any(|(text, s)| *text == answer.text && *s as f32 == answer.score));
                assert_eq!(answer.text, text[answer.start_byte..answer.end_byte]);
            }
            let different: HashSet<_> = texts.iter().map(|a| &a.text).collect();
            assert_eq!(different.len(), texts.len());
            match null_threshold {
                None => {
                    assert!(found.null_odds.is_none());
                    assert_eq!(found.best.score, expected.first().map_or(0.0, |(_, score)| *score as f32));
                }
                Some(threshold) => {
                    let odds = expected.first().map(|(_, score)| (null - score) as f32);
                    assert_eq!(found.null_odds, odds);
                    assert_eq!(found.best.is_empty(), odds.is_none_or(|odds| odds > threshold));
                    assert_eq!(found.n_best.iter().filter(|a| a.is_empty()).count(), 1);
                    nulls += usize::from(found.best.is_empty());
                }
            }
            let total: f64 = found.n_best.iter().map(|a| a.probability).sum();
            assert!(found.n_best.is_empty() || total < 1.0 + 1e-9 && (n_best < candidates || total > 1.0 - 1e-9));
            checked += 1;
            some += usize::from(texts.len() > 3);
            several += usize::from(windows.len() > 2);
        }
        assert!(checked > 400 && some > 150 && several > 150 && nulls > 30, "{checked} {some} {several} {nulls}");
    }

    #[test]
    fn with_all_rows_as_candidates_the_best_answer_is_the_global_best() {
        let mut numbers = Numbers(5);
        for _ in 0..50 {
            let context = context("the cats sat on the mat. the cat left. who sat on the mat?");
            let windows = made(&context, 12, 4);
            let mut draw = |n: usize| -> Vec<f32> { (0..n).map(|_| numbers.below(1 << 20) as f32 / 65536.0).collect() };
            let logits: Vec<_> = windows.iter().map(|w| (draw(w.ids.len()), draw(w.ids.len()))).collect();
            let rows: Vec<_> = logits.iter().map(|(start, end)| Logits { start, end }).collect();
            let options = ExtractOptions { candidates: 1000, n_best: 1000, max_answer: 1000, null_threshold: None };
            let found = extract(&context, &windows, &rows, &options).unwrap();
            let best = oracle(&context, &windows, &logits, &options);
            assert_eq!(found.n_best.len(), best.len());
            assert_eq!((found.best.text, found.best.score), (best[0].0.clone(), best[0].1 as f32));
        }
    }

    #[test]
    fn invalid_logits_are_errors() {
        let context = context("the cat sat on the mat");
        let windows = made(&context, 60, 60);
        let rows = windows[0].ids.len();
        let good = vec![0.0; rows];
        let error = |start: &[f32], end: &[f32], options: ExtractOptions| {
            extract(&context, &windows, &[Logits { start, end }], &options).unwrap_err().to_string()
        };
        let defaults = ExtractOptions::default();
        let mut bad = good.clone();
        bad[3] = f32::NAN;
        assert!(error(&bad, &good, defaults).starts_with("start logits of window 0, row 3: NaN"));
        assert!(error(&good, &bad, defaults).starts_with("end logits of window 0, row 3: NaN"));
        bad[3] = f32::NEG_INFINITY;
        assert!(error(&good, &bad, defaults).contains("row 3: -inf"));
        assert!(
            error(&good[1..], &good, defaults)
                .contains(&format!("expected one for each of the {rows} rows, found {}", rows - 1))
        );
        assert!(error(&good, &[], defaults).contains("found 0"));
        assert!(error(&good, &good, ExtractOptions { candidates: 0, ..defaults }).starts_with("`candidates`"));
        assert!(error(&good, &good, ExtractOptions { n_best: 0, ..defaults }).starts_with("`n_best`"));
        assert!(error(&good, &good, ExtractOptions { max_answer: 0, ..defaults }).starts_with("`max_answer`"));
        let nan = ExtractOptions { null_threshold: Some(f32::NAN), ..defaults };
        assert!(error(&good, &good, nan).starts_with("`null_threshold`"));

        assert!(extract(&context, &windows, &[], &defaults).is_err());
        assert!(extract(&context, &[], &[], &defaults).is_err());
        let other = EncodedContext::new(&tokenizer(false), "cat");
        let logits = Logits { start: &good, end: &good };
        let error = extract(&other, &windows, &[logits], &defaults).unwrap_err().to_string();
        assert!(error.contains("from which the windows were made"), "{error}");
        // The largest numbers do not overflow to infinity or NaN.
        let huge = vec![f32::MAX; rows];
        let found = extract(&context, &windows, &[Logits { start: &huge, end: &huge }], &defaults).unwrap();
        assert!(found.n_best.iter().all(|a| a.probability.is_finite()));
    }

    #[test]
    fn answers_serialize_to_json() {
        let context = context("日本 cat");
        let options = ExtractOptions { null_threshold: Some(0.0), ..ExtractOptions::default() };
        let found = one(&context, &[(6, 2.0)], &[(6, 1.5)], options);
        let json = serde_json::to_value(&found).unwrap();
        assert_eq!(json["best"]["text"], "cat");
        assert_eq!((&json["best"]["start_byte"], &json["best"]["start_char"]), (&7.into(), &3.into()));
        assert_eq!((&json["best"]["end_byte"], &json["best"]["end_char"]), (&10.into(), &6.into()));
        assert_eq!(json["best"]["score"], 3.5);
        assert_eq!(json["null_odds"], -21.5);
        assert_eq!(json["n_best"].as_array().unwrap().len(), found.n_best.len());
    }

    #[test]
    fn ties_of_top_rows_are_in_order() {
        assert_eq!(top_rows(&[1.0, 3.0, -0.0, 3.0, 0.0], 3), [1, 3, 0]);
        assert_eq!(top_rows(&[1.0, 3.0, -0.0, 3.0, 0.0], 4), [1, 3, 0, 2]);
        assert_eq!(top_rows(&[0.5], 20), [0]);
        assert!(top_rows(&[], 20).is_empty());
    }

    #[test]
    fn a_window_of_one_token_has_an_answer() {
        let context = context("cat");
        let Windows { windows, .. } = windows(&tokenizer(false), "who", &context, &WindowOptions::default()).unwrap();
        let rows = vec![0.0; windows[0].ids.len()];
        let found =
            extract(&context, &windows, &[Logits { start: &rows, end: &rows }], &ExtractOptions::default()).unwrap();
        assert_eq!((found.best.text.as_str(), found.best.probability), ("cat", 1.0));
    }
}
