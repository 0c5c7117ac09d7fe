//! One or two texts → what the network reads: `[CLS] a [SEP]` or `[CLS] a [SEP] b [SEP]`, cut to the network's length.
//!
//! Two ways to cut: [`truncate_pair`] throws the excess away, [`text_windows`] reads all of a long text in overlapping
//! windows.

use std::ops::Range;

use cloze_text::Special;

use crate::TaskError;

/// Ids of one row and, beside each, the segment it belongs to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sequence {
    /// Token ids, framed by \[CLS\] and \[SEP\].
    pub ids: Vec<u32>,
    /// 0 for \[CLS\], the first text and its \[SEP\]; 1 for the second text and its \[SEP\].
    pub segments: Vec<u8>,
}

impl Sequence {
    /// `[CLS] a [SEP]` or, with a second text, `[CLS] a [SEP] b [SEP]` (Devlin et al. 2019, figure 2).
    pub fn framed(special: Special, a: &[u32], b: Option<&[u32]>) -> Sequence {
        let second = b.map_or(0, |b| b.len() + 1);
        let mut ids = Vec::with_capacity(a.len() + 2 + second);
        ids.push(special.cls);
        ids.extend_from_slice(a);
        ids.push(special.sep);
        let mut segments = vec![0; ids.len()];
        if let Some(b) = b {
            ids.extend_from_slice(b);
            ids.push(special.sep);
            segments.resize(ids.len(), 1);
        }
        Sequence { ids, segments }
    }
}

/// Takes tokens from the longer text's end, one by one, until both together have at most `room` (a model's length less
/// the three of the frame); returns how many were taken, so that callers can count the rows that were cut.
///
/// Of two equally long texts the second gives first: google-research/bert's `_truncate_seq_pair`, and `longest_first`
/// of Transformers' tokenizers in Python. (The `tokenizers` crate spares the second text instead, so its rows may
/// differ by one token on each side.)
pub fn truncate_pair<T>(a: &mut Vec<T>, b: &mut Vec<T>, room: usize) -> usize {
    let before = a.len() + b.len();
    while a.len() + b.len() > room {
        if a.len() > b.len() {
            a.pop();
        } else {
            b.pop();
        }
    }
    before - a.len() - b.len()
}

/// Cuts a text longer than a model's `max_len` into overlapping windows, each `[CLS] … [SEP]` or, with a pair,
/// `[CLS] … [SEP] pair [SEP]`: the pair stands whole in each.
///
/// `stride` is the step in tokens from one window's begin to the next one's, as in google-research/bert; see
/// [`answer`](crate::answer) for the other meaning. A step longer than a window is taken for a window's length, so that
/// every token is in at least one. The last window ends with the text and may be shorter than the others; a text that
/// fits, the empty one included, gives one window.
///
/// # Errors
/// A stride of 0; a `max_len` that leaves no room for a token of the text.
pub fn text_windows(
    special: Special,
    ids: &[u32],
    pair: Option<&[u32]>,
    max_len: usize,
    stride: usize,
) -> Result<Vec<Sequence>, TaskError> {
    let frame = pair.map_or(2, |pair| pair.len() + 3);
    let room = max_len.saturating_sub(frame);
    if room == 0 {
        return Err(TaskError::input(
            "max_len",
            match pair {
                None => format!("{max_len} leaves no room for text beside [CLS] and [SEP]; at least 3 are needed"),
                Some(pair) => format!(
                    "{max_len} leaves no room for the text beside its pair of {} tokens and three special ones; \
                     shorten the pair or raise max_len to {} at least",
                    pair.len(),
                    frame + 1
                ),
            },
        ));
    }
    check_stride(stride)?;
    Ok(spans(ids.len(), room, stride)
        .into_iter()
        .filter_map(|span| ids.get(span))
        .map(|window| Sequence::framed(special, window, pair))
        .collect())
}

/// Refuses a step that would never arrive.
pub(crate) fn check_stride(stride: usize) -> Result<(), TaskError> {
    if stride == 0 {
        return Err(TaskError::input("stride", "0; it is the step between windows, in tokens, and must be at least 1"));
    }
    Ok(())
}

/// The windows over `len` tokens: `room` tokens each, the last perhaps fewer, begun `stride` apart but never with a
/// gap. `room` and `stride` are at least 1.
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

    const SPECIAL: Special = Special { pad: 0, unk: 1, cls: 2, sep: 3, mask: 4 };

    #[test]
    fn frames_have_segments() {
        assert_eq!(
            Sequence::framed(SPECIAL, &[7, 8], None),
            Sequence { ids: vec![2, 7, 8, 3], segments: vec![0, 0, 0, 0] }
        );
        assert_eq!(
            Sequence::framed(SPECIAL, &[7, 8], Some(&[9])),
            Sequence { ids: vec![2, 7, 8, 3, 9, 3], segments: vec![0, 0, 0, 0, 1, 1] }
        );
        // An empty pair is a pair.
        assert_eq!(Sequence::framed(SPECIAL, &[], Some(&[])).segments, [0, 0, 1]);
    }

    #[test]
    fn the_longer_side_gives_and_the_second_on_a_tie() {
        let cut = |a: usize, b: usize, room: usize| {
            let (mut x, mut y) = ((0..a).collect::<Vec<_>>(), (0..b).collect::<Vec<_>>());
            let taken = truncate_pair(&mut x, &mut y, room);
            // What is left is the begin of each.
            assert!(x.iter().copied().eq(0..x.len()) && y.iter().copied().eq(0..y.len()));
            (x.len(), y.len(), taken)
        };
        assert_eq!(cut(5, 5, 10), (5, 5, 0));
        assert_eq!(cut(5, 5, 9), (5, 4, 1));
        assert_eq!(cut(5, 5, 5), (3, 2, 5));
        assert_eq!(cut(9, 2, 6), (4, 2, 5));
        assert_eq!(cut(2, 9, 6), (2, 4, 5));
        assert_eq!(cut(9, 2, 3), (2, 1, 8));
        assert_eq!(cut(3, 0, 1), (1, 0, 2));
        assert_eq!(cut(3, 3, 0), (0, 0, 6));
        assert_eq!(cut(0, 0, 0), (0, 0, 0));
    }

    #[test]
    fn windows_step_and_end_with_the_text() {
        let cut = |len, room, stride| -> Vec<(usize, usize)> {
            spans(len, room, stride).into_iter().map(|span| (span.start, span.end)).collect()
        };
        assert_eq!(cut(0, 4, 2), [(0, 0)]);
        assert_eq!(cut(4, 4, 2), [(0, 4)]);
        assert_eq!(cut(5, 4, 2), [(0, 4), (2, 5)]);
        assert_eq!(cut(9, 4, 2), [(0, 4), (2, 6), (4, 8), (6, 9)]);
        // A step beyond the window would skip tokens.
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
                    // All but the last are full, and none lies within the one before.
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
    fn long_texts_are_read_in_windows() {
        let ids: Vec<u32> = (10..17).collect();
        let windows = text_windows(SPECIAL, &ids, None, 6, 3).unwrap();
        let expected: [&[u32]; 2] = [&[2, 10, 11, 12, 13, 3], &[2, 13, 14, 15, 16, 3]];
        assert_eq!(windows.iter().map(|w| w.ids.as_slice()).collect::<Vec<_>>(), expected);
        assert!(windows.iter().all(|w| w.segments == [0; 6]));

        let paired = text_windows(SPECIAL, &ids, Some(&[90, 91]), 9, 4).unwrap();
        assert_eq!(paired[0].ids, [2, 10, 11, 12, 13, 3, 90, 91, 3]);
        assert_eq!(paired[1].ids, [2, 14, 15, 16, 3, 90, 91, 3]);
        assert_eq!(paired[1].segments, [0, 0, 0, 0, 0, 1, 1, 1]);

        assert_eq!(text_windows(SPECIAL, &[], None, 3, 1).unwrap()[0].ids, [2, 3]);
    }

    #[test]
    fn impossible_lengths_are_refused() {
        let message = |result: Result<Vec<Sequence>, TaskError>| result.unwrap_err().to_string();
        assert!(message(text_windows(SPECIAL, &[9], None, 2, 1)).contains("at least 3"));
        assert!(message(text_windows(SPECIAL, &[9], None, 0, 1)).contains("max_len"));
        let pair = message(text_windows(SPECIAL, &[9], Some(&[1; 10]), 13, 1));
        assert!(pair.contains("10 tokens") && pair.contains("to 14"), "{pair}");
        assert!(text_windows(SPECIAL, &[9], Some(&[1; 10]), 14, 1).is_ok());
        assert!(message(text_windows(SPECIAL, &[9], None, 9, 0)).contains("stride"));
    }
}
