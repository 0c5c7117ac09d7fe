//! What each token of one vocabulary was under another.

use crate::Tokenizer;
use crate::vocabulary::CONTINUATION;

/// What a token was under an older tokenizer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TokenOrigin {
    /// A token of the same text, with this id.
    Kept(u32),
    /// These pieces, at least one.
    Pieces(Vec<u32>),
    /// Nothing but \[UNK\].
    Unknown,
}

impl Tokenizer {
    /// For each of this tokenizer's tokens, in the order of ids, what it was under `old`.
    ///
    /// Special tokens are those of the same role, other tokens the same when their text is, `##` included. Another token's text is normalised and split as
    /// `old` does with any text, a `##` token's as what continues a word. Pieces that are \[UNK\] are left out.
    pub fn origins(&self, old: &Tokenizer) -> Vec<TokenOrigin> {
        let unk = old.special().unk;
        let (own, old_own) = (self.special().all(), old.special().all());
        let origin = |id: u32| {
            let role = own.iter().position(|&own| own == id).map(|role| old_own[role]);
            if let Some(same) = role.or_else(|| old.id(self.token(id).unwrap_or_default())) {
                return TokenOrigin::Kept(same);
            }
            let text = self.piece_text(id);
            let mut pieces = if self.is_continuation(id) { old.encode_continuation(&text) } else { old.encode(&text) };
            pieces.retain(|&piece| piece != unk);
            if pieces.is_empty() { TokenOrigin::Unknown } else { TokenOrigin::Pieces(pieces) }
        };
        (0..self.vocab_size() as u32).map(origin).collect()
    }

    /// Ids of `text` where it continues a word: its first word is spelled by `##` tokens alone.
    fn encode_continuation(&self, text: &str) -> Vec<u32> {
        if !self.is_word_piece() {
            return self.encode(text);
        }
        let words = self.words(text);
        let mut ids = Vec::new();
        for (number, word) in words.iter().enumerate() {
            if number > 0 {
                self.encode_into(word, &mut ids);
            } else {
                ids.extend(self.spell_continuation(word).unwrap_or_else(|| vec![self.special().unk]));
            }
        }
        ids
    }

    /// Greedy longest match of `##` tokens; none where some rest has no token.
    fn spell_continuation(&self, word: &str) -> Option<Vec<u32>> {
        let (mut ids, mut rest, mut token) = (Vec::new(), word, String::new());
        while !rest.is_empty() {
            let ends = rest.char_indices().map(|(start, c)| start + c.len_utf8());
            let (id, end) = ends.rev().find_map(|end| {
                token.clear();
                token.push_str(CONTINUATION);
                token.push_str(&rest[..end]);
                Some((self.id(&token)?, end))
            })?;
            ids.push(id);
            rest = &rest[end..];
        }
        Some(ids)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::SPECIAL_TOKENS;

    fn tokenizer(first: &[&str], rest: &[&str], cased: bool) -> Tokenizer {
        let tokens = first.iter().chain(rest).map(|token| token.to_string()).collect();
        Tokenizer::from_tokens(tokens, cased).unwrap()
    }

    #[test]
    fn tokens_are_kept_by_text_and_else_taken_apart() {
        let old =
            tokenizer(&SPECIAL_TOKENS, &["un", "##able", "##ab", "##e", "aff", "##aff", "paris", "-", "e"], false);
        let mut special = SPECIAL_TOKENS;
        special.reverse();
        let new = tokenizer(
            &special,
            &[
                "##able",
                "unaff",
                "##affable",
                "Paris",
                "##Aff",
                "aff-un",
                "##zz",
                "zz",
                "##É",
                "##aff-e",
                "##",
                "##un",
                "ez-",
            ],
            true,
        );
        let id = |token: &str| old.id(token).unwrap();
        let pieces = |tokens: &[&str]| TokenOrigin::Pieces(tokens.iter().map(|token| id(token)).collect());
        let expected = [
            TokenOrigin::Kept(id("[MASK]")),
            TokenOrigin::Kept(id("[SEP]")),
            TokenOrigin::Kept(id("[CLS]")),
            TokenOrigin::Kept(id("[UNK]")),
            TokenOrigin::Kept(id("[PAD]")),
            TokenOrigin::Kept(id("##able")),
            pieces(&["un", "##aff"]),
            pieces(&["##aff", "##able"]),
            pieces(&["paris"]),
            pieces(&["##aff"]),
            pieces(&["aff", "-", "un"]),
            TokenOrigin::Unknown,
            TokenOrigin::Unknown,
            pieces(&["##e"]),
            // A continuation that the splitting cuts: what follows is a word of its own.
            pieces(&["##aff", "-", "e"]),
            // The lone ## continues nothing, and there is no #.
            TokenOrigin::Unknown,
            // "un" is there only as a beginning.
            TokenOrigin::Unknown,
            pieces(&["-"]),
        ];
        assert_eq!(new.origins(&old), expected);
    }

    #[test]
    fn of_an_extended_tokenizer_only_the_new_words_are_pieces() {
        let old = tokenizer(&SPECIAL_TOKENS, &["un", "##able", "##aff"], false);
        let new = old.with_words(&["unaffable".to_owned(), "\u{2603}".to_owned()]).unwrap();
        let origins = new.origins(&old);
        let kept: Vec<TokenOrigin> = (0..8).map(TokenOrigin::Kept).collect();
        assert_eq!(origins[..8], kept);
        assert_eq!(origins[8..], [TokenOrigin::Pieces(vec![5, 7, 6]), TokenOrigin::Unknown]);
    }
}
