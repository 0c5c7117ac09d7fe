//! Start and end logits → answers.
//!
//! The search is `write_predictions` of google-research/bert, with its order of equals, except that
//!
//! - texts are cut out of the context by their bytes (see [`answer`](super)), and those without characters are no
//!   answer;
//! - the null answer and the best other one are in the list whatever its length (Google's code appends the first only
//!   and fails if the second is missing);
//! - where it makes up an answer "empty" because none is possible, there is none.

use std::cmp::Ordering;
use std::collections::HashSet;

use serde::Serialize;

use super::{EncodedContext, Window};
use crate::TaskError;

/// What the network says of a window: how much each row looks like an answer's begin and like its end.
#[derive(Clone, Copy, Debug)]
pub struct Logits<'a> {
    /// One for each of the window's ids.
    pub start: &'a [f32],
    /// One for each of the window's ids.
    pub end: &'a [f32],
}

/// How answers are searched. The defaults are those of google-research/bert's `run_squad.py` for SQuAD 1.1.
#[derive(Clone, Copy, Debug, PartialEq)]
#[non_exhaustive]
pub struct ExtractOptions {
    /// Begins and ends considered in each window: the best of all its rows (`n_best_size` of Google's code and of Transformers).
    pub candidates: usize,
    /// Answers listed. The best answer does not depend on it.
    pub n_best: usize,
    /// Tokens of an answer at most.
    pub max_answer: usize,
    /// For data where a question may have no answer (SQuAD 2.0): by how much the null answer's score must exceed the
    /// best other one's to be preferred (`null_score_diff_threshold`; 0 in Google's code, tuned on a development set in
    /// the paper). None: every question has an answer (SQuAD 1.1).
    pub null_threshold: Option<f32>,
}

impl Default for ExtractOptions {
    fn default() -> ExtractOptions {
        ExtractOptions { candidates: 20, n_best: 20, max_answer: 30, null_threshold: None }
    }
}

/// A part of the context, or nothing: "there is no answer".
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
#[non_exhaustive]
pub struct Answer {
    /// The context's own characters; empty for the null answer.
    pub text: String,
    /// Its first character (Unicode scalar value: an index into Python's strings) in the context; 0 for the null answer.
    pub start_char: usize,
    /// One past its last character.
    pub end_char: usize,
    /// Its first byte in the context; 0 for the null answer.
    pub start_byte: usize,
    /// One past its last byte.
    pub end_byte: usize,
    /// Start logit + end logit.
    pub score: f32,
    /// Its share among the best answers: the softmax of the scores of as many as there are [candidates](ExtractOptions::candidates),
    /// or as are listed if that is more.
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
    /// The answer. Empty if the null answer is preferred, and if no span is possible: then, without a null answer to
    /// score, its score and probability are 0.
    pub best: Answer,
    /// The best answers, best first, no text twice (the same words elsewhere in the context count for the better of the
    /// two), the null answer among them where questions may have none. Empty if no span is possible and none may be
    /// null.
    pub n_best: Vec<Answer>,
    /// The null answer's score less the best other one's: `best` is empty if this exceeds the threshold. None without a
    /// threshold, and if there is no other answer.
    pub null_odds: Option<f32>,
}

/// A scored part of the context, in bytes. The null answer has none.
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

/// Finds the best answers to a question in the logits of all its windows.
///
/// A candidate begins at one of the `candidates` rows with the greatest start logits of its window and ends at one of those
/// with the greatest end logits, both in the context, the begin where it has most of the context around it, not after
/// the end, and at most `max_answer` tokens long. The null answer's score is the least, over the windows, of \[CLS\]'s
/// start and end logit: every window must want it (Devlin et al. 2019, section 4.3, as in Google's code).
///
/// # Errors
/// `candidates`, `n_best` or `max_answer` is 0, a threshold that is not a number; no windows; logits that are not one for each row or
/// not finite; windows of another context.
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
        collect(context, window, logits, options, &mut candidates);
    }
    if options.null_threshold.is_some() {
        candidates.push(Candidate { start: 0, end: 0, score: null_score });
    }
    // Stable: equals stay in the order of windows, begins and ends, the null answer last.
    candidates.sort_by(|a, b| descending(a.score, b.score));

    // The list is cut at the end, so that neither the best answer nor its probability depends on the list's length.
    let considered = list(context, &candidates, options.candidates.max(options.n_best));
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

/// Adds a window's candidates, in the order of their begins' and then of their ends' logits.
fn collect(
    context: &EncodedContext,
    window: &Window,
    logits: &Logits<'_>,
    options: &ExtractOptions,
    out: &mut Vec<Candidate>,
) {
    let ends: Vec<usize> =
        top(logits.end, options.candidates).into_iter().filter(|&row| window.piece(row).is_some()).collect();
    for start in top(logits.start, options.candidates) {
        let Some(first) = window.piece(start) else {
            continue;
        };
        if !window.max_context.get(start - window.context_start).is_some_and(|&home| home) {
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

/// The rows of the `k` greatest logits, greatest first; of equals the first first, as Python's stable sort has it.
fn top(logits: &[f32], k: usize) -> Vec<usize> {
    let mut rows: Vec<(usize, f32)> = logits.iter().copied().enumerate().collect();
    let order = |a: &(usize, f32), b: &(usize, f32)| descending(a.1.into(), b.1.into()).then(a.0.cmp(&b.0));
    if k < rows.len() {
        rows.select_nth_unstable_by(k, order);
        rows.truncate(k);
    }
    rows.sort_unstable_by(order);
    rows.into_iter().map(|(row, _)| row).collect()
}

/// The order of finite numbers, greatest first; unlike `total_cmp`'s, it takes 0 and −0 for equals.
fn descending(a: f64, b: f64) -> Ordering {
    b.partial_cmp(&a).unwrap_or(Ordering::Equal)
}

/// The first `most` different texts of the sorted candidates, and the best null and the best other answer if they are
/// not among these.
fn list(context: &EncodedContext, candidates: &[Candidate], most: usize) -> Vec<Candidate> {
    let mut seen = HashSet::new();
    let mut listed: Vec<Candidate> = Vec::new();
    for candidate in candidates {
        if listed.len() >= most {
            break;
        }
        if seen.insert(context.text().get(candidate.start..candidate.end).unwrap_or_default()) {
            listed.push(*candidate);
        }
    }
    for null in [false, true] {
        if listed.iter().all(|c| c.is_null() != null) {
            listed.extend(candidates.iter().find(|c| c.is_null() == null));
        }
    }
    listed
}

/// Candidates with their texts, places and probabilities.
fn answers(context: &EncodedContext, listed: &[Candidate]) -> Vec<Answer> {
    let text = context.text();
    let greatest = listed.iter().map(|c| c.score).fold(f64::NEG_INFINITY, f64::max);
    let total: f64 = listed.iter().map(|c| (c.score - greatest).exp()).sum();
    let characters = |bytes: &str| bytes.chars().count();
    listed
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
                probability: (c.score - greatest).exp() / total,
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
            return Err(TaskError::input(name, "0; expected at least 1"));
        }
    }
    if options.null_threshold.is_some_and(f32::is_nan) {
        return Err(TaskError::input("null_threshold", "NaN; expected a number, 0 if nothing better is known"));
    }
    if windows.is_empty() || windows.len() != logits.len() {
        return Err(TaskError::input(
            "logits",
            format!("of {} windows; expected those of all {} windows of one question", logits.len(), windows.len()),
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
                    "pieces {pieces:?} from row {} of {rows} do not fit a context of {} pieces; windows and context \
                     must belong together",
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
                    format!("{}; expected one for each of {rows} rows", values.len()),
                ));
            }
            if let Some((row, value)) = values.iter().enumerate().find(|(_, value)| !value.is_finite()) {
                return Err(TaskError::Logits(format!("{}, {value} in row {row}", what())));
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

    /// Logits of −9 except for the rows named.
    fn peaks(rows: usize, at: &[(usize, f32)]) -> Vec<f32> {
        let mut logits = vec![-9.0; rows];
        at.iter().for_each(|&(row, value)| logits[row] = value);
        logits
    }

    /// `extract` of a one-window question.
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
    fn answers_are_cut_from_the_text_as_written() {
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
    fn frame_and_question_and_inverted_spans_are_no_answers() {
        let context = context("the cat sat on the mat");
        let start = [(0, 9.0), (1, 8.0), (3, 7.0), (7, 6.0), (4, 1.0)];
        let end = [(0, 9.0), (2, 8.0), (10, 7.0), (5, 6.5), (8, 1.0)];
        let found = one(&context, &start, &end, ExtractOptions::default());
        // Rows 4 to 5, and 7 to 8; the frame's rows and 7 to 5 are passed over.
        assert_eq!(found.best.text, "the cat");
        assert_eq!(found.n_best[1].text, "on the");
        // In Google's code the candidates are of all rows, so that of two none may be in the context.
        let none = one(&context, &start, &end, ExtractOptions { candidates: 2, ..ExtractOptions::default() });
        assert_eq!((none.best, none.n_best, none.null_odds), (Answer::default(), vec![], None));
    }

    #[test]
    fn answers_have_a_greatest_length() {
        let context = context("the cat sat on the mat");
        let options = ExtractOptions { max_answer: 2, ..ExtractOptions::default() };
        let found = one(&context, &[(4, 5.0)], &[(6, 5.0), (5, 0.0)], options);
        assert_eq!(found.best.text, "the cat");
        assert!(found.n_best.iter().all(|a| a.text.split(' ').count() <= 2));
    }

    #[test]
    fn the_same_words_count_once_at_their_best_place() {
        let context = context("cat sat cat");
        let found = one(&context, &[(4, 1.0), (6, 2.0)], &[(4, 1.0), (6, 2.0)], ExtractOptions::default());
        assert_eq!(found.n_best.iter().filter(|a| a.text == "cat").count(), 1);
        assert_eq!((found.best.text.as_str(), found.best.start_byte, found.best.score), ("cat", 8, 4.0));
        // Of equals the first place.
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
        // Not greater than the threshold is not enough; without one there is no null answer.
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
        // A list of one, whose only row is [CLS]: no other answer, so no odds, and the null answer.
        let single = ExtractOptions { candidates: 1, n_best: 1, ..options };
        let only = one(&context, &[(0, 5.0)], &[(0, 5.0)], single);
        assert!(only.best.is_empty() && only.n_best == [only.best.clone()] && only.null_odds.is_none());
        assert_eq!((only.best.score, only.best.probability), (10.0, 1.0));
        // A list of one led by the null answer of a window that is not the best one's.
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

    /// The search by its definition: every pair of rows of every window, ranks by counting.
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
        // Each text's best score, in descending order.
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
            // Coarse values make ties, of which texts of equal score must come out in any order.
            let coarse = if numbers.below(2) == 0 { 4 } else { 1 << 20 };
            let mut draw = |n: usize| -> Vec<f32> {
                (0..n).map(|_| numbers.below(coarse) as f32 / coarse as f32 * 16.0 - 8.0).collect()
            };
            let logits: Vec<_> = windows.iter().map(|w| (draw(w.ids.len()), draw(w.ids.len()))).collect();
            let rows: Vec<_> = logits.iter().map(|(start, end)| Logits { start, end }).collect();
            let found = extract(&context, &windows, &rows, &options).unwrap();
            let expected = oracle(&context, &windows, &logits, &options);

            let texts: Vec<_> = found.n_best.iter().filter(|a| !a.is_empty()).collect();
            // The null answer takes a place of the list if it is good enough for one.
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
    fn with_room_for_every_row_the_best_is_the_best_of_all() {
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
    fn what_is_no_logits_is_refused() {
        let context = context("the cat sat on the mat");
        let windows = made(&context, 60, 60);
        let rows = windows[0].ids.len();
        let good = vec![0.0; rows];
        let refuse = |start: &[f32], end: &[f32], options: ExtractOptions| {
            extract(&context, &windows, &[Logits { start, end }], &options).unwrap_err().to_string()
        };
        let defaults = ExtractOptions::default();
        let mut bad = good.clone();
        bad[3] = f32::NAN;
        assert!(refuse(&bad, &good, defaults).starts_with("start logits of window 0, NaN in row 3"));
        assert!(refuse(&good, &bad, defaults).starts_with("end logits of window 0, NaN in row 3"));
        bad[3] = f32::NEG_INFINITY;
        assert!(refuse(&good, &bad, defaults).contains("-inf in row 3"));
        assert!(
            refuse(&good[1..], &good, defaults).contains(&format!("{}; expected one for each of {rows}", rows - 1))
        );
        assert!(refuse(&good, &[], defaults).contains("0; expected"));
        assert!(refuse(&good, &good, ExtractOptions { candidates: 0, ..defaults }).starts_with("candidates"));
        assert!(refuse(&good, &good, ExtractOptions { n_best: 0, ..defaults }).starts_with("n_best"));
        assert!(refuse(&good, &good, ExtractOptions { max_answer: 0, ..defaults }).starts_with("max_answer"));
        let nan = ExtractOptions { null_threshold: Some(f32::NAN), ..defaults };
        assert!(refuse(&good, &good, nan).starts_with("null_threshold"));

        assert!(extract(&context, &windows, &[], &defaults).is_err());
        assert!(extract(&context, &[], &[], &defaults).is_err());
        let other = EncodedContext::new(&tokenizer(false), "cat");
        let logits = Logits { start: &good, end: &good };
        let error = extract(&other, &windows, &[logits], &defaults).unwrap_err().to_string();
        assert!(error.contains("must belong together"), "{error}");
        // The ends of the numbers do not overflow into no numbers.
        let huge = vec![f32::MAX; rows];
        let found = extract(&context, &windows, &[Logits { start: &huge, end: &huge }], &defaults).unwrap();
        assert!(found.n_best.iter().all(|a| a.probability.is_finite()));
    }

    #[test]
    fn answers_are_written_as_json() {
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
    fn top_rows_are_stable() {
        assert_eq!(top(&[1.0, 3.0, -0.0, 3.0, 0.0], 3), [1, 3, 0]);
        assert_eq!(top(&[1.0, 3.0, -0.0, 3.0, 0.0], 4), [1, 3, 0, 2]);
        assert_eq!(top(&[0.5], 20), [0]);
        assert!(top(&[], 20).is_empty());
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
