//! Question and context → windows, the inputs of the network.

use std::ops::Range;

use cloze_text::{Sequence, Template, Tokenizer};

use super::EncodedContext;
use crate::TaskError;
use crate::sequence::{check_stride, spans};

/// The length and the overlap of windows. The defaults are those of `run_squad.py` in google-research/bert.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WindowOptions {
    /// Maximum number of tokens of a window, special tokens included.
    pub max_len: usize,
    /// The step between the starts of consecutive windows, in tokens of the context; not an overlap (see
    /// [`answer`](crate::answer)). A step longer than a window's part of the context is reduced to the length of that
    /// part, so that every token of the context is in at least one window.
    pub stride: usize,
    /// Maximum number of tokens of a question; the rest is cut off.
    pub max_question: usize,
}

impl Default for WindowOptions {
    fn default() -> WindowOptions {
        WindowOptions { max_len: 384, stride: 128, max_question: 64 }
    }
}

impl WindowOptions {
    /// Checks that every question leaves room for context in a pair of this template. Call it before reading data.
    ///
    /// # Errors
    /// [`TaskError::Input`] if `stride` or `max_question` is 0, or if `max_len` is not greater than the sum of
    /// `max_question` and the number of special tokens (3 for BERT).
    pub fn check(&self, template: &Template) -> Result<(), TaskError> {
        check_stride(self.stride)?;
        if self.max_question == 0 {
            return Err(TaskError::input("`max_question`", "expected at least 1 token, found 0"));
        }
        let added = template.added(true);
        let taken = self.max_question.saturating_add(added);
        if self.max_len <= taken {
            return Err(TaskError::input(
                "`max_len`",
                format!(
                    "expected more than {taken}, found {}: a question of {} tokens and {added} special tokens leave no \
                     room for context; raise `max_len` or lower `max_question`",
                    self.max_len, self.max_question
                ),
            ));
        }
        Ok(())
    }
}

/// One input sequence of the network: `[CLS] question [SEP] part of the context [SEP]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Window {
    /// The token ids, special tokens included.
    pub ids: Vec<u32>,
    /// The segment of each id: 0 up to the first \[SEP\], 1 after it.
    pub segments: Vec<u8>,
    /// The row of the first token of the context.
    pub context_start: usize,
    /// The pieces of the context that this window contains.
    pub pieces: Range<usize>,
    /// For each of these pieces, whether this is the window with the maximum context around it. Answers that start with
    /// a piece are taken only from this window. True in exactly one window for each piece.
    pub max_context: Vec<bool>,
}

impl Window {
    /// The row of a piece of the context, if the window contains it.
    pub fn row(&self, piece: usize) -> Option<usize> {
        self.pieces.contains(&piece).then(|| self.context_start + (piece - self.pieces.start))
    }

    /// The piece of the context in a row; none for special tokens and the question.
    pub fn piece(&self, row: usize) -> Option<usize> {
        let piece = self.pieces.start.checked_add(row.checked_sub(self.context_start)?)?;
        self.pieces.contains(&piece).then_some(piece)
    }
}

/// The windows of a question, at least one, in the order of the context.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Windows {
    /// The windows.
    pub windows: Vec<Window>,
    /// The number of tokens that were cut off the question, for callers to report.
    pub question_cut: usize,
}

/// Makes the windows of a question and its context.
///
/// The context must have been encoded with the same tokenizer. Windows are those of `convert_examples_to_features` in
/// google-research/bert.
///
/// # Errors
/// Those of [`WindowOptions::check`]; [`TaskError::Input`] for a question or a context without tokens.
pub fn windows(
    tokenizer: &Tokenizer,
    question: &str,
    context: &EncodedContext,
    options: &WindowOptions,
) -> Result<Windows, TaskError> {
    let template = tokenizer.template();
    options.check(template)?;
    let mut question_ids = tokenizer.encode(question);
    if question_ids.is_empty() {
        return Err(no_tokens("question", question));
    }
    if context.pieces().is_empty() {
        return Err(no_tokens("context", context.text()));
    }
    let question_cut = question_ids.len().saturating_sub(options.max_question);
    question_ids.truncate(options.max_question);

    let room = template.room(options.max_len, true) - question_ids.len(); // At least 1, by the check.
    let ids: Vec<u32> = context.pieces().iter().map(|piece| piece.id).collect();
    let spans = spans(ids.len(), room, options.stride);
    let max_windows = max_context_windows(&spans, ids.len());
    let context_start = template.start_of_second(question_ids.len());
    let windows = spans
        .into_iter()
        .enumerate()
        .map(|(i, pieces)| {
            let part = ids.get(pieces.clone()).unwrap_or_default();
            let Sequence { ids, segments } = template.sequence(&question_ids, Some(part));
            let max_context =
                max_windows.get(pieces.clone()).unwrap_or_default().iter().map(|&best| best == i).collect();
            Window { ids, segments, context_start, pieces, max_context }
        })
        .collect();
    Ok(Windows { windows, question_cut })
}

/// The error of a question or a context without tokens.
pub(crate) fn no_tokens(what: &str, text: &str) -> TaskError {
    let problem = if text.is_empty() { "is empty" } else { "contains only white space or control characters" };
    TaskError::input(what, format!("expected text with at least one token, but it {problem}"))
}

/// For each token, the span with the maximum context around it: the maximum of min(tokens before it, tokens after it)
/// plus a small bonus for the length of the span; of ties, the first. The formula, in doubles, is Google's
/// (`_check_is_max_context`), so that near ties are decided in the same way.
fn max_context_windows(spans: &[Range<usize>], tokens: usize) -> Vec<usize> {
    let mut best = vec![(f64::NEG_INFINITY, 0); tokens];
    for (i, span) in spans.iter().enumerate() {
        for (token, best) in span.clone().zip(best.get_mut(span.clone()).unwrap_or_default()) {
            let (before, after) = (token - span.start, span.end - 1 - token);
            let score = before.min(after) as f64 + 0.01 * span.len() as f64;
            if score > best.0 {
                *best = (score, i);
            }
        }
    }
    best.into_iter().map(|(_, span)| span).collect()
}

#[cfg(test)]
mod tests {
    use super::super::tests::{Numbers, random_text, tokenizer};
    use super::*;

    #[test]
    fn windows_have_special_tokens_and_map_rows_to_pieces() {
        let t = tokenizer(false);
        let context = EncodedContext::new(&t, "The cats sat on the mat. The cat left.");
        let options = WindowOptions { max_len: 10, stride: 2, max_question: 3 };
        let Windows { windows, question_cut } = windows(&t, "who sat", &context, &options).unwrap();
        assert_eq!(question_cut, 0);
        let shown: Vec<String> = windows
            .iter()
            .map(|w| w.ids.iter().map(|&id| t.token(id).unwrap()).collect::<Vec<_>>().join(" "))
            .collect();
        assert_eq!(
            shown,
            [
                "[CLS] who sat [SEP] the cat ##s sat on [SEP]",
                "[CLS] who sat [SEP] ##s sat on the mat [SEP]",
                "[CLS] who sat [SEP] on the mat . the [SEP]",
                "[CLS] who sat [SEP] mat . the cat left [SEP]",
                "[CLS] who sat [SEP] the cat left . [SEP]",
            ]
        );
        let second = &windows[1];
        assert_eq!(second.segments, [0, 0, 0, 0, 1, 1, 1, 1, 1, 1]);
        assert_eq!((second.context_start, second.pieces.clone()), (4, 2..7));
        assert_eq!((second.row(2), second.row(6), second.row(1), second.row(7)), (Some(4), Some(8), None, None));
        assert_eq!((second.piece(4), second.piece(8)), (Some(2), Some(6)));
        assert_eq!((second.piece(3), second.piece(9), second.piece(usize::MAX)), (None, None, None));
    }

    #[test]
    fn each_token_belongs_to_the_span_with_the_maximum_context() {
        // A step of 3: token 7 is the last of the second span; in the third span there is one token before it and three
        // after it.
        let max_windows = max_context_windows(&[0..5, 3..8, 6..11], 11);
        assert_eq!(max_windows, [0, 0, 0, 0, 1, 1, 1, 2, 2, 2, 2]);
        // Equal context: the longer span, then the first.
        assert_eq!(max_context_windows(&[0..4, 3..6], 6)[3], 0);
        assert_eq!(max_context_windows(&[0..4, 3..8], 8)[3], 1);
        assert_eq!(max_context_windows(&[0..4, 3..7], 7)[3], 0);
    }

    #[test]
    fn windows_of_random_texts() {
        let mut numbers = Numbers(7);
        let (mut checked, mut split) = (0, 0);
        for round in 0..400 {
            let t = tokenizer(round % 2 == 0);
            let text = random_text(&mut numbers, 60);
            let context = EncodedContext::new(&t, text.as_str());
            // For every text, offsets are in order and at character boundaries, and the ids are those of `encode`.
            let ids: Vec<u32> = context.pieces().iter().map(|p| p.id).collect();
            assert_eq!(ids, t.encode(&text), "{text:?}");
            let mut before = 0;
            for piece in context.pieces() {
                assert!(piece.start >= before && text.get(piece.start..piece.end).is_some_and(|s| !s.is_empty()));
                before = piece.start;
            }
            if ids.is_empty() {
                continue;
            }
            let max_question = 1 + numbers.below(6);
            let options = WindowOptions {
                max_len: max_question + 3 + 1 + numbers.below(20),
                stride: 1 + numbers.below(24),
                max_question,
            };
            let question = t.encode("who sat on the mat");
            let Windows { windows, question_cut } = windows(&t, "who sat on the mat", &context, &options).unwrap();
            assert_eq!(question_cut, question.len().saturating_sub(max_question));
            let mut counts = vec![0; ids.len()];
            let mut max_counts = vec![0; ids.len()];
            for w in &windows {
                assert!(w.ids.len() <= options.max_len && w.segments.len() == w.ids.len());
                assert_eq!(w.max_context.len(), w.pieces.len());
                assert_eq!(w.ids.len(), w.context_start + w.pieces.len() + 1);
                for (i, &home) in w.pieces.clone().zip(&w.max_context) {
                    let row = w.row(i).unwrap();
                    assert_eq!((w.piece(row), w.ids[row], w.segments[row]), (Some(i), ids[i], 1));
                    counts[i] += 1;
                    max_counts[i] += usize::from(home);
                    // No other window may have more context on the side with less context.
                    if home {
                        let around = |w: &Window| (i - w.pieces.start).min(w.pieces.end - 1 - i);
                        let most = windows.iter().filter(|o| o.pieces.contains(&i)).map(around).max().unwrap();
                        assert_eq!(around(w), most);
                    }
                }
            }
            assert!(counts.iter().all(|&n| n > 0) && max_counts.iter().all(|&n| n == 1));
            checked += 1;
            split += usize::from(windows.len() > 2);
        }
        assert!(checked > 300 && split > 100, "{checked} {split}");
    }

    #[test]
    fn a_long_question_is_cut_and_counted() {
        let t = tokenizer(false);
        let context = EncodedContext::new(&t, "the cat");
        let options = WindowOptions { max_question: 2, ..WindowOptions::default() };
        let cut = windows(&t, "who sat on the mat", &context, &options).unwrap();
        assert_eq!(cut.question_cut, 3);
        assert_eq!(cut.windows[0].context_start, 4);
        assert_eq!(t.decode(&cut.windows[0].ids), "who sat the cat");
    }

    #[test]
    fn impossible_questions_and_lengths_are_errors() {
        let t = tokenizer(false);
        let cat = EncodedContext::new(&t, "the cat");
        let ask = |question: &str, context: &EncodedContext, max_len, stride, max_question| {
            windows(&t, question, context, &WindowOptions { max_len, stride, max_question }).map_err(|e| e.to_string())
        };
        assert!(
            ask("", &cat, 20, 4, 8)
                .unwrap_err()
                .starts_with("question: expected text with at least one token, but it is empty")
        );
        assert!(ask(" \u{200d}\n", &cat, 20, 4, 8).unwrap_err().contains("white space"));
        assert!(ask("who", &EncodedContext::new(&t, ""), 20, 4, 8).unwrap_err().starts_with("context: expected text"));
        assert!(ask("who", &EncodedContext::new(&t, " \t "), 20, 4, 8).unwrap_err().contains("white space"));
        assert!(ask("who", &cat, 20, 0, 8).unwrap_err().starts_with("`stride`"));
        assert!(ask("who", &cat, 20, 4, 0).unwrap_err().starts_with("`max_question`"));
        assert!(ask("who", &cat, 11, 4, 8).unwrap_err().contains("expected more than 11"));
        assert!(ask("who", &cat, usize::MAX, 4, usize::MAX).is_err());
        // The smallest valid length: one token of context per window.
        assert_eq!(ask("who sat on the mat who sat on", &cat, 12, 4, 8).unwrap().windows.len(), 2);
    }
}
