//! Truncates a pair of texts to a total number of tokens.

/// Truncates two texts at their ends so that they have at most `room` tokens together (the sequence's length minus the
/// special tokens that its [template](crate::Template::added) adds). Returns the number of tokens removed, so that callers
/// can count truncated examples.
///
/// The rule is `longest_first` of the `tokenizers` crate, which Transformers uses: if truncating the longer text is enough,
/// only that one is truncated; otherwise each text keeps half of `room`. If `room` is odd, the longer text keeps one token
/// more; if the texts have equal length, the second does. (In google-research/bert's `_truncate_seq_pair`, the first does.)
pub fn truncate_pair<T>(a: &mut Vec<T>, b: &mut Vec<T>, room: usize) -> usize {
    let before = a.len() + b.len();
    if before <= room {
        return 0;
    }
    let shorter = a.len().min(b.len());
    let (short, long) = if shorter <= room / 2 { (shorter, room - shorter) } else { (room / 2, room.div_ceil(2)) };
    let (first, second) = if a.len() > b.len() { (long, short) } else { (short, long) };
    a.truncate(first);
    b.truncate(second);
    before - first - second
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The values are those of BertTokenizerFast; crates/tasks/fixtures/answer/make_answers.py generates more of them.
    #[test]
    fn the_longer_text_is_truncated_or_the_first_of_equal_ones() {
        let cut = |a: usize, b: usize, room: usize| {
            let (mut x, mut y) = ((0..a).collect::<Vec<_>>(), (0..b).collect::<Vec<_>>());
            let taken = truncate_pair(&mut x, &mut y, room);
            // The beginning of each text remains.
            assert!(x.iter().copied().eq(0..x.len()) && y.iter().copied().eq(0..y.len()));
            (x.len(), y.len(), taken)
        };
        assert_eq!(cut(5, 5, 10), (5, 5, 0));
        assert_eq!(cut(5, 5, 9), (4, 5, 1));
        assert_eq!(cut(5, 5, 5), (2, 3, 5));
        assert_eq!(cut(8, 7, 5), (3, 2, 10));
        assert_eq!(cut(9, 2, 6), (4, 2, 5));
        assert_eq!(cut(2, 9, 6), (2, 4, 5));
        assert_eq!(cut(9, 2, 3), (2, 1, 8));
        assert_eq!(cut(3, 0, 1), (1, 0, 2));
        assert_eq!(cut(3, 3, 0), (0, 0, 6));
        assert_eq!(cut(0, 0, 0), (0, 0, 0));
    }
}
