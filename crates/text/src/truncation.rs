//! Which of two texts loses tokens when both are too long together.

/// How many tokens of two texts of `a` and `b` tokens stay, so that both together have at most `room`: tokens are taken one by
/// one from the end of the longer text.
///
/// Of two equally long texts the second gives first: google-research/bert's `_truncate_seq_pair`, and `longest_first`
/// of Transformers' tokenizers in Python. (The `tokenizers` crate spares the second text instead, so its rows may
/// differ by one token on each side.)
pub fn longest_first(mut a: usize, mut b: usize, room: usize) -> (usize, usize) {
    let mut excess = (a + b).saturating_sub(room);
    let level = excess.min(a.abs_diff(b));
    if a > b {
        a -= level;
    } else {
        b -= level;
    }
    excess -= level;
    // Now they are equal, or nothing is left to take: in turns, B first.
    (a - excess / 2, b - excess.div_ceil(2))
}

/// Cuts the ends of two texts by [`longest_first`] to `room` tokens (a sequence's length less what its
/// [template](crate::Template::added) adds); returns how many tokens were taken, so that callers can count the rows that were
/// cut.
pub fn truncate_pair<T>(a: &mut Vec<T>, b: &mut Vec<T>, room: usize) -> usize {
    let before = a.len() + b.len();
    let (first, second) = longest_first(a.len(), b.len(), room);
    a.truncate(first);
    b.truncate(second);
    before - first - second
}

#[cfg(test)]
mod tests {
    use super::*;

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
}
