//! Splits a long text into overlapping windows. (The alternative is truncation: [`cloze_text::truncate_pair`].)

use std::ops::Range;

use cloze_text::{Sequence, Template};

use crate::TaskError;

/// Splits a text that is longer than `max_len` into overlapping windows. Each window becomes one sequence. With a pair,
/// each sequence contains the complete second text: `[CLS] window [SEP] pair [SEP]`.
///
/// `stride` is the distance in tokens between the starts of consecutive windows, as in google-research/bert; see
/// [`answer`](crate::answer) for the other meaning of the word. A stride longer than a window is reduced to the
/// window's length, so that every token is in at least one window. The last window ends with the text and may be
/// shorter than the others. A text that fits, including the empty text, gives one window.
///
/// # Errors
/// [`TaskError::Input`] for a stride of 0 and for a `max_len` that leaves no room for a token of the text.
pub fn text_windows(
    template: &Template,
    ids: &[u32],
    pair: Option<&[u32]>,
    max_len: usize,
    stride: usize,
) -> Result<Vec<Sequence>, TaskError> {
    let added = template.added(pair.is_some());
    let taken = added + pair.map_or(0, <[u32]>::len);
    let room = max_len.saturating_sub(taken);
    if room == 0 {
        return Err(TaskError::input(
            "`max_len`",
            match pair {
                None => format!(
                    "expected at least {}, found {max_len}: {added} special tokens leave no room for text",
                    taken + 1
                ),
                Some(pair) => format!(
                    "expected at least {1}, found {max_len}: {added} special tokens and the pair's {0} tokens leave no room for \
                     the text; shorten the pair or raise `max_len`",
                    pair.len(),
                    taken + 1
                ),
            },
        ));
    }
    check_stride(stride)?;
    Ok(spans(ids.len(), room, stride)
        .into_iter()
        .filter_map(|span| ids.get(span))
        .map(|window| template.sequence(window, pair))
        .collect())
}

/// Checks that a stride is not 0.
pub(crate) fn check_stride(stride: usize) -> Result<(), TaskError> {
    if stride == 0 {
        return Err(TaskError::input("`stride`", "expected at least 1 token from window to window, found 0"));
    }
    Ok(())
}

/// The windows over `len` tokens. Each has `room` tokens, except that the last may have fewer. They start `stride`
/// tokens apart, or `room` tokens if that is less. `room` and `stride` are at least 1.
pub(crate) fn spans(len: usize, room: usize, stride: usize) -> Vec<Range<usize>> {
    let step = stride.min(room);
    let mut spans = Vec::with_capacity(1 + len.saturating_sub(room).div_ceil(step));
    let mut start = 0usize;
    loop {
        let end = len.min(start.saturating_add(room));
        spans.push(start..end);
        if end == len {
            return spans;
        }
        start += step;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bert() -> Template {
        Template::bert(2, 3)
    }

    #[test]
    fn windows_advance_by_the_stride_and_end_with_the_text() {
        let cut = |len, room, stride| -> Vec<(usize, usize)> {
            spans(len, room, stride).into_iter().map(|span| (span.start, span.end)).collect()
        };
        assert_eq!(cut(0, 4, 2), [(0, 0)]);
        assert_eq!(cut(4, 4, 2), [(0, 4)]);
        assert_eq!(cut(5, 4, 2), [(0, 4), (2, 5)]);
        assert_eq!(cut(9, 4, 2), [(0, 4), (2, 6), (4, 8), (6, 9)]);
        // A stride longer than the window would skip tokens.
        assert_eq!(cut(9, 4, 100), [(0, 4), (4, 8), (8, 9)]);
        assert_eq!(cut(3, usize::MAX, usize::MAX), [(0, 3)]);
    }

    #[test]
    fn every_token_is_in_a_window() {
        let (mut checked, mut several) = (0, 0);
        for len in 0..40 {
            for room in 1..12 {
                for stride in 1..15 {
                    let spans = spans(len, room, stride);
                    let mut covered = vec![0; len];
                    for span in &spans {
                        assert!(span.len() <= room);
                        covered[span.clone()].iter_mut().for_each(|n| *n += 1);
                    }
                    assert!(covered.iter().all(|&n| n > 0), "{len} {room} {stride}");
                    // All windows except the last are full, and none is contained in the previous one.
                    assert!(spans[..spans.len() - 1].iter().all(|span| span.len() == room));
                    assert!(spans.windows(2).all(|w| w[0].end < w[1].end && w[0].start < w[1].start));
                    checked += 1;
                    several += usize::from(spans.len() > 1);
                }
            }
        }
        assert!(checked > 5000 && several > 3000);
    }

    #[test]
    fn long_texts_are_split_into_windows() {
        let ids: Vec<u32> = (10..17).collect();
        let windows = text_windows(&bert(), &ids, None, 6, 3).unwrap();
        let expected: [&[u32]; 2] = [&[2, 10, 11, 12, 13, 3], &[2, 13, 14, 15, 16, 3]];
        assert_eq!(windows.iter().map(|w| w.ids.as_slice()).collect::<Vec<_>>(), expected);
        assert!(windows.iter().all(|w| w.segments == [0; 6]));

        let paired = text_windows(&bert(), &ids, Some(&[90, 91]), 9, 4).unwrap();
        assert_eq!(paired[0].ids, [2, 10, 11, 12, 13, 3, 90, 91, 3]);
        assert_eq!(paired[1].ids, [2, 14, 15, 16, 3, 90, 91, 3]);
        assert_eq!(paired[1].segments, [0, 0, 0, 0, 0, 1, 1, 1]);

        assert_eq!(text_windows(&bert(), &[], None, 3, 1).unwrap()[0].ids, [2, 3]);
    }

    #[test]
    fn impossible_lengths_are_errors() {
        let message = |result: Result<Vec<Sequence>, TaskError>| result.unwrap_err().to_string();
        assert!(message(text_windows(&bert(), &[9], None, 2, 1)).contains("at least 3"));
        assert!(message(text_windows(&bert(), &[9], None, 0, 1)).contains("max_len"));
        let pair = message(text_windows(&bert(), &[9], Some(&[1; 10]), 13, 1));
        assert!(pair.contains("10 tokens") && pair.contains("at least 14"), "{pair}");
        assert!(text_windows(&bert(), &[9], Some(&[1; 10]), 14, 1).is_ok());
        assert!(message(text_windows(&bert(), &[9], None, 9, 0)).contains("stride"));
    }
}
