//! A question and its context → windows that the network can read.

use std::ops::Range;

use cloze_text::{Sequence, Template, Tokenizer};

use super::EncodedContext;
use crate::TaskError;
use crate::sequence::{check_stride, spans};

/// How long windows are and how they overlap. The defaults are those of google-research/bert's `run_squad.py`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WindowOptions {
    /// Tokens of a window at most, special ones included.
    pub max_len: usize,
    /// Tokens of the context from one window's begin to the next one's: a step, not an overlap (see
    /// [`answer`](crate::answer)). A step longer than a window's part of the context is taken for that part's length,
    /// so that every token of the context is in at least one window.
    pub stride: usize,
    /// Tokens of a question at most; the rest is cut off.
    pub max_question: usize,
}

impl Default for WindowOptions {
    fn default() -> WindowOptions {
        WindowOptions { max_len: 384, stride: 128, max_question: 64 }
    }
}

impl WindowOptions {
    /// Whether every question leaves room for context in a pair of this template; to be asked before hours are spent on data.
    ///
    /// # Errors
    /// `stride` or `max_question` is 0; `max_len` is not greater than `max_question` and the special tokens (3 of BERT's)
    /// together.
    pub fn check(&self, template: &Template) -> Result<(), TaskError> {
        check_stride(self.stride)?;
        if self.max_question == 0 {
            return Err(TaskError::input("max_question", "0; a question needs at least 1 token"));
        }
        let added = template.added(true);
        let taken = self.max_question.saturating_add(added);
        if self.max_len <= taken {
            return Err(TaskError::input(
                "max_len",
                format!(
                    "{} leaves no room for context beside a question of {} tokens and {added} special ones; expected \
                     more than {taken}: raise max_len or lower max_question",
                    self.max_len, self.max_question
                ),
            ));
        }
        Ok(())
    }
}

/// One row for the network: `[CLS] question [SEP] part of the context [SEP]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Window {
    /// Token ids, special ones included.
    pub ids: Vec<u32>,
    /// 0 up to the first \[SEP\], 1 after it; one for each id.
    pub segments: Vec<u8>,
    /// The row of the first token of the context.
    pub context_start: usize,
    /// Which of the context's pieces stand here.
    pub pieces: Range<usize>,
    /// For each of them, whether no other window shows more of what surrounds it: the answers that begin with a piece
    /// are taken from that one window. True in exactly one window for each piece.
    pub max_context: Vec<bool>,
}

impl Window {
    /// The row of one of the context's pieces, if it stands here.
    pub fn row(&self, piece: usize) -> Option<usize> {
        self.pieces.contains(&piece).then(|| self.context_start + (piece - self.pieces.start))
    }

    /// Which of the context's pieces stands in a row; none for special tokens and the question.
    pub fn piece(&self, row: usize) -> Option<usize> {
        let piece = self.pieces.start.checked_add(row.checked_sub(self.context_start)?)?;
        self.pieces.contains(&piece).then_some(piece)
    }
}

/// A question's windows, in the context's order; at least one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Windows {
    /// The windows.
    pub windows: Vec<Window>,
    /// Tokens that were cut off the question, for callers to count and report.
    pub question_cut: usize,
}

/// Sets a question before each part of its context.
///
/// The context must have been encoded by the same tokenizer. Windows are cut as in google-research/bert's
/// `convert_examples_to_features`.
///
/// # Errors
/// Those of [`WindowOptions::check`]; a question or a context that has no tokens.
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
    let home = most_context(&spans, ids.len());
    let context_start = template.start_of_second(question_ids.len());
    let windows = spans
        .into_iter()
        .enumerate()
        .map(|(i, pieces)| {
            let part = ids.get(pieces.clone()).unwrap_or_default();
            let Sequence { ids, segments } = template.sequence(&question_ids, Some(part));
            let max_context = home.get(pieces.clone()).unwrap_or_default().iter().map(|&best| best == i).collect();
            Window { ids, segments, context_start, pieces, max_context }
        })
        .collect();
    Ok(Windows { windows, question_cut })
}

/// The error of a question or a context without tokens.
pub(crate) fn no_tokens(what: &str, text: &str) -> TaskError {
    let problem = if text.is_empty() { "is empty" } else { "holds white space or control characters only" };
    TaskError::input(what, format!("no token in it (it {problem}); expected text with at least one word"))
}

/// For each token, the span that shows most of its surroundings: the greatest of min(tokens before it, tokens after
/// it), and for equals a little for the span's length, and then the first. The formula, in doubles, is Google's
/// (`_check_is_max_context`), to fall on the same side of its near ties.
fn most_context(spans: &[Range<usize>], tokens: usize) -> Vec<usize> {
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
    fn rows_are_framed_and_placed() {
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
    fn the_span_with_most_around_a_token_is_its_home() {
        // A step of 3: token 7 ends the second span, with nothing after it; the third has one before
        // it and three after.
        let home = most_context(&[0..5, 3..8, 6..11], 11);
        assert_eq!(home, [0, 0, 0, 0, 1, 1, 1, 2, 2, 2, 2]);
        // Equally much around: the longer span, then the first.
        assert_eq!(most_context(&[0..4, 3..6], 6)[3], 0);
        assert_eq!(most_context(&[0..4, 3..8], 8)[3], 1);
        assert_eq!(most_context(&[0..4, 3..7], 7)[3], 0);
    }

    #[test]
    fn windows_of_random_texts() {
        let mut numbers = Numbers(7);
        let (mut checked, mut split) = (0, 0);
        for round in 0..400 {
            let t = tokenizer(round % 2 == 0);
            let text = random_text(&mut numbers, 60);
            let context = EncodedContext::new(&t, text.as_str());
            // Whatever the text: places are in order, between characters, and the ids are those of `encode`.
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
            let mut seen = vec![0; ids.len()];
            let mut homes = vec![0; ids.len()];
            for w in &windows {
                assert!(w.ids.len() <= options.max_len && w.segments.len() == w.ids.len());
                assert_eq!(w.max_context.len(), w.pieces.len());
                assert_eq!(w.ids.len(), w.context_start + w.pieces.len() + 1);
                for (i, &home) in w.pieces.clone().zip(&w.max_context) {
                    let row = w.row(i).unwrap();
                    assert_eq!((w.piece(row), w.ids[row], w.segments[row]), (Some(i), ids[i], 1));
                    seen[i] += 1;
                    homes[i] += usize::from(home);
                    // No other window may show more on its poorer side.
                    if home {
                        let around = |w: &Window| (i - w.pieces.start).min(w.pieces.end - 1 - i);
                        let most = windows.iter().filter(|o| o.pieces.contains(&i)).map(around).max().unwrap();
                        assert_eq!(around(w), most);
                    }
                }
            }
            assert!(seen.iter().all(|&n| n > 0) && homes.iter().all(|&n| n == 1));
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
    fn what_cannot_be_asked_is_refused() {
        let t = tokenizer(false);
        let cat = EncodedContext::new(&t, "the cat");
        let ask = |question: &str, context: &EncodedContext, max_len, stride, max_question| {
            windows(&t, question, context, &WindowOptions { max_len, stride, max_question }).map_err(|e| e.to_string())
        };
        assert!(ask("", &cat, 20, 4, 8).unwrap_err().starts_with("question: no token in it (it is empty)"));
        assert!(ask(" \u{200d}\n", &cat, 20, 4, 8).unwrap_err().contains("white space"));
        assert!(ask("who", &EncodedContext::new(&t, ""), 20, 4, 8).unwrap_err().starts_with("context: no token"));
        assert!(ask("who", &EncodedContext::new(&t, " \t "), 20, 4, 8).unwrap_err().contains("white space"));
        assert!(ask("who", &cat, 20, 0, 8).unwrap_err().starts_with("stride"));
        assert!(ask("who", &cat, 20, 4, 0).unwrap_err().starts_with("max_question"));
        assert!(ask("who", &cat, 11, 4, 8).unwrap_err().contains("expected more than 11"));
        assert!(ask("who", &cat, usize::MAX, 4, usize::MAX).is_err());
        // The smallest that goes: one token of context a window.
        assert_eq!(ask("who sat on the mat who sat on", &cat, 12, 4, 8).unwrap().windows.len(), 2);
    }
}
