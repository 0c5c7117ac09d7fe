//! A context, tokenised once for all the questions that are asked about it.

use std::ops::Range;

use cloze_text::{Piece, Tokenizer};
use unicode_categories::UnicodeCategories;

/// A context and its tokens. Questions share it: its tokenisation, which keeps places, is the slow part.
#[derive(Clone, Debug)]
pub struct EncodedContext {
    text: String,
    pieces: Vec<Piece>,
}

impl EncodedContext {
    /// Tokenises `text`. A text without tokens (empty, or all white space) is [refused](super::windows()) when it is
    /// asked about.
    pub fn new(tokenizer: &Tokenizer, text: impl Into<String>) -> EncodedContext {
        let text = text.into();
        let pieces = settled(tokenizer.encode_with_offsets(&text), &text);
        EncodedContext { text, pieces }
    }

    /// The text as it was written.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// Its tokens in order. `start` and `end` are bytes of [`text`](Self::text) at character boundaries; neither ever
    /// decreases from one token to the next. Two tokens made of one character have the same place.
    pub fn pieces(&self) -> &[Piece] {
        &self.pieces
    }

    /// The pieces that share at least a byte with these bytes; none if they are white space.
    pub(crate) fn covering(&self, bytes: Range<usize>) -> Range<usize> {
        let first = self.pieces.partition_point(|piece| piece.end <= bytes.start);
        let last = self.pieces.partition_point(|piece| piece.start < bytes.end);
        first..last.max(first)
    }
}

/// Makes places safe to cut at: within the text, between characters, in order, whatever an unusual normaliser says. And
/// gives combining marks back to the letter they stand on: a normaliser that strips them leaves them to no token, and
/// an answer that ends between a letter and its accent is cut within what a reader takes for one letter.
fn settled(mut pieces: Vec<Piece>, text: &str) -> Vec<Piece> {
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
    fn marks_stay_with_their_letter() {
        // Stripped accents, decomposed: one, two, before more of the word, before a full stop.
        assert_eq!(spans(false, "cafe\u{301} cat"), ["cafe\u{301}", "cat"]);
        assert_eq!(spans(false, "cafe\u{301}\u{316}."), ["cafe\u{301}\u{316}", "."]);
        assert_eq!(spans(false, "cafe\u{301}s"), ["cafe\u{301}", "s"]);
        // Composed, nothing to give back; kept, nothing lost.
        assert_eq!(spans(false, "café cat"), ["café", "cat"]);
        assert_eq!(spans(true, "日\u{3099} cat"), ["日", "\u{3099}", "cat"]);
        // An emoji's variation selector is such a mark. A mark on nothing belongs to nobody, nor do other dropped ones.
        assert_eq!(spans(false, "\u{2764}\u{fe0f} cat"), ["\u{2764}\u{fe0f}", "cat"]);
        assert_eq!(spans(false, "cat \u{301} cat"), ["cat", "cat"]);
        assert_eq!(spans(false, "cat\u{ad}."), ["cat", "."]);
    }

    #[test]
    fn tokens_of_one_character_share_its_place() {
        assert_eq!(spans(false, "cat 가"), ["cat", "가", "가"]);
    }

    #[test]
    fn impossible_places_are_settled() {
        let text = "aé日";
        let piece = |start, end| Piece { id: 9, start, end };
        let settled = settled(vec![piece(2, 2), piece(0, 1), piece(4, 5), piece(9, 99), piece(3, 1)], text);
        assert!(settled.iter().all(|p| text.get(p.start..p.end).is_some()));
        assert!(settled.windows(2).all(|w| w[0].start <= w[1].start && w[0].end <= w[1].end));
        assert_eq!((settled[0].start, settled[0].end), (1, 3));
        assert_eq!((settled[2].start, settled[2].end), (3, 6));
    }

    #[test]
    fn covering_takes_whole_pieces() {
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
