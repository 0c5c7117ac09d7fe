//! Gold answer → target rows of a window.

use super::{EncodedContext, Window};
use crate::TaskError;

/// The row of \[CLS\], which means "no answer in this window".
const NO_ANSWER: (usize, usize) = (0, 0);

/// The first and the last row of an answer in a window: the rows of the pieces that cover its characters. The target of
/// an answer within a piece is the complete piece ("artist" for "art", if that is one piece).
///
/// `answer` is the start byte in the context and the text of the answer (SQuAD's `answer_start` counts characters
/// instead); none for a question without an answer. Both rows are 0, the row of \[CLS\], without an answer and for an
/// answer that is not completely in this window: also in SQuAD 1.1, as in google-research/bert.
///
/// # Errors
/// [`TaskError::Input`] if the answer is empty, is not at that byte of the context, or has no tokens (only white
/// space). Google's code skips such examples; callers may do the same and count them.
pub fn target(
    window: &Window,
    context: &EncodedContext,
    answer: Option<(usize, &str)>,
) -> Result<(usize, usize), TaskError> {
    let Some((start, text)) = answer else {
        return Ok(NO_ANSWER);
    };
    let refuse = |problem: String| Err(TaskError::input(format!("answer {text:?} at byte {start}"), problem));
    if text.is_empty() {
        return refuse(
            "expected a span of the context, or none for a question without an answer; found an empty text".into(),
        );
    }
    let end = start.saturating_add(text.len());
    if context.text().as_bytes().get(start..end) != Some(text.as_bytes()) {
        let from = context.text().floor_char_boundary(start);
        let found: String = context.text().get(from..).unwrap_or_default().chars().take(40).collect();
        return refuse(format!(
            "the context of {} bytes has {found:?} there; expected a start in bytes, not in characters",
            context.text().len()
        ));
    }
    let pieces = context.covering(start..end);
    let Some(last) = pieces.clone().next_back() else {
        return refuse(
            "expected an answer with tokens, found only white space or characters that the tokenizer drops".into(),
        );
    };
    Ok(match (window.row(pieces.start), window.row(last)) {
        (Some(first), Some(last)) => (first, last),
        _ => NO_ANSWER,
    })
}

#[cfg(test)]
mod tests {
    use super::super::tests::tokenizer;
    use super::super::{WindowOptions, windows};
    use super::*;

    const TEXT: &str = "The cats sat on the mat (1895-1943). 日本 café.";

    fn rows(window: usize, answer: &str) -> (usize, usize) {
        let t = tokenizer(false);
        let context = EncodedContext::new(&t, TEXT);
        let options = WindowOptions { max_len: 14, stride: 4, max_question: 2 };
        let made = windows(&t, "who sat", &context, &options).unwrap();
        let start = TEXT.find(answer).unwrap();
        target(&made.windows[window], &context, Some((start, answer))).unwrap()
    }

    #[test]
    fn answers_become_the_pieces_that_cover_them() {
        // Window 0: the cat ##s sat on the mat ( 1895, from row 4.
        assert_eq!(rows(0, "cats"), (5, 6));
        assert_eq!(rows(0, "The cats sat"), (4, 7));
        assert_eq!(rows(0, "1895"), (12, 12));
        // Within a piece, and with white space around words.
        assert_eq!(rows(0, "a"), (5, 5));
        assert_eq!(rows(0, "ats s"), (5, 7));
        assert_eq!(rows(0, " sat "), (7, 7));
    }

    #[test]
    fn targets_of_answers_outside_the_window_are_cls() {
        // Partly outside counts as outside.
        assert_eq!(rows(0, "1895-1943"), (0, 0));
        assert_eq!(rows(0, "日本"), (0, 0));
        assert_eq!(rows(1, "cats"), (0, 0));
        // Window 1: on the mat ( 1895 - 1943 ) ., from row 4.
        assert_eq!(rows(1, "1895-1943"), (8, 10));
        assert_eq!(rows(1, "(1895-1943)."), (7, 12));
        // Window 2: 1895 - 1943 ) . 日 本 cafe .
        assert_eq!(rows(2, "日本"), (9, 10));
        assert_eq!(rows(2, "本 caf"), (10, 11));
        assert_eq!(rows(2, "é"), (11, 11));
    }

    #[test]
    fn invalid_answers_are_errors() {
        let t = tokenizer(false);
        let context = EncodedContext::new(&t, TEXT);
        let made = windows(&t, "who", &context, &WindowOptions::default()).unwrap();
        let error = |start, text| target(&made.windows[0], &context, Some((start, text))).unwrap_err().to_string();
        assert!(error(0, "cats").contains("has \"The cats"), "{}", error(0, "cats"));
        assert!(error(4, "").contains("empty"));
        assert!(error(3, " ").contains("white space"));
        assert!(error(usize::MAX, "cats").contains("has \"\""));
        // Within a character.
        let inside = TEXT.find('本').unwrap() + 1;
        assert!(error(inside, "x").contains("has \"本"));
        assert_eq!(target(&made.windows[0], &context, None).unwrap(), (0, 0));
    }
}
