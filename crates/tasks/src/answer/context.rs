//! A context, tokenized once for all its questions.

use std::ops::Range;

use cloze_text::{Piece, Tokenizer};
use unicode_categories::UnicodeCategories;

/// A context and its tokens. All questions about a context share it, because tokenization with offsets is slow.
#[derive(Clone, Debug)]
pub struct EncodedContext {
    text: String,
    pieces: Vec<Piece>,
}

impl EncodedContext {
    /// Tokenizes `text`. A text without tokens (empty, or only white space) is an error [later](super::windows()).
    pub fn new(tokenizer: &Tokenizer, text: impl Into<String>) -> EncodedContext {
        let text = text.into();
        let pieces = valid_offsets(tokenizer.encode_with_offsets(&text), &text);
        EncodedContext { text, pieces }
    }

    /// The original text.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// The tokens in order. `start` and `end` are bytes of [`text`](Self::text) at character boundaries. Neither
    /// decreases from one token to the next. Two tokens made of one character have the same offsets.
    pub fn pieces(&self) -> &[Piece] {
        &self.pieces
    }

    /// The range of the pieces that overlap with these bytes; empty if the bytes are white space.
    pub(crate) fn covering(&self, bytes: Range<usize>) -> Range<usize> {
        let first = self.pieces.partition_point(|piece| piece.end <= bytes.start);
        let last = self.pieces.partition_point(|piece| piece.start < bytes.end);
        first..last.max(first)
    }
}

/// Makes offsets valid for slicing with any normalizer: within the text, at character boundaries, in order. Also
/// extends each piece over the combining marks after it. A normalizer that strips such marks leaves them outside of all
/// tokens, and an answer that ends before them would split a letter from its accent.
fn valid_offsets(mut pieces: Vec<Piece>, text: &str) -> Vec<Piece> {
    let (mut start, mut end) = (0, 0);
    for piece in &mut pieces {
        start = text.floor_char_boundary(piece.start).max(start);
        end = text.ceil_char_boundary(piece.end).max(end).max(start);
        (piece.start, piece.end) = (start, end);
    }
    for i in 0..pieces.len() {
        let next = pieces.get(i + 1).map_or(text.len(), |next| next.start);
        if let Some(piece) = pieces.get_mut(i)
            && let Some(between) = text.get(piece.end..next)
        {
            let marks = between.find(|c: char| !c.is_mark_nonspacing()).unwrap_or(between.len());
            piece.end += marks;
        }
    }
    pieces
}

#[cfg(test)]
mod tests {
    use super::super::tests::tokenizer;
    use super::*;

    fn spans(cased: bool, text: &str) -> Vec<String> {
        let context = EncodedContext::new(&tokenizer(cased), text);
        context.pieces().iter().map(|p| text[p.start..p.end].to_string()).collect()
    }

    #[test]
    fn combining_marks_belong_to_the_piece_of_their_letter() {
        // Decomposed accents that are stripped: one, two, within a word, before a full stop.
        assert_eq!(spans(false, "cafe\u{301} cat"), ["cafe\u{301}", "cat"]);
        assert_eq!(spans(false, "cafe\u{301}\u{316}."), ["cafe\u{301}\u{316}", "."]);
        assert_eq!(spans(false, "cafe\u{301}s"), ["cafe\u{301}", "s"]);
        // Composed accents need no extension; marks that are not stripped are tokens.
        assert_eq!(spans(false, "café cat"), ["café", "cat"]);
        assert_eq!(spans(true, "日\u{3099} cat"), ["日", "\u{3099}", "cat"]);
        // The variation selector of an emoji is such a mark. A mark after a space and other dropped characters belong
        // to no token.
        assert_eq!(spans(false, "\u{2764}\u{fe0f} cat"), ["\u{2764}\u{fe0f}", "cat"]);
        assert_eq!(spans(false, "cat \u{301} cat"), ["cat", "cat"]);
        assert_eq!(spans(false, "cat\u{ad}."), ["cat", "."]);
    }

    #[test]
    fn tokens_of_one_character_have_the_same_offsets() {
        assert_eq!(spans(false, "cat 가"), ["cat", "가", "가"]);
    }

    #[test]
    fn invalid_offsets_are_made_valid() {
        let text = "aé日";
        let piece = |start, end| Piece { id: 9, start, end, word: 0 };
        let valid_offsets = valid_offsets(vec![piece(2, 2), piece(0, 1), piece(4, 5), piece(9, 99), piece(3, 1)], text);
        assert!(valid_offsets.iter().all(|p| text.get(p.start..p.end).is_some()));
        assert!(valid_offsets.windows(2).all(|w| w[0].start <= w[1].start && w[0].end <= w[1].end));
        assert_eq!((valid_offsets[0].start, valid_offsets[0].end), (1, 3));
        assert_eq!((valid_offsets[2].start, valid_offsets[2].end), (3, 6));
    }

    #[test]
    fn covering_returns_complete_pieces() {
        let context = EncodedContext::new(&tokenizer(false), "the cats sat.");
        // the cat ##s sat .
        assert_eq!(context.covering(4..7), 1..2);
        assert_eq!(context.covering(5..6), 1..2);
        assert_eq!(context.covering(6..8), 1..3);
        assert_eq!(context.covering(7..10), 2..4);
        assert!(context.covering(3..4).is_empty());
        assert_eq!(context.covering(0..13), 0..5);
    }
}
