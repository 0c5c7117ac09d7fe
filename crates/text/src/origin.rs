//! Maps the tokens of one vocabulary to the tokens of another.

use crate::Tokenizer;
use crate::vocabulary::CONTINUATION;

/// The equivalent of a token in an older tokenizer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TokenOrigin {
    /// The token with the same text, by its id.
    Kept(u32),
    /// These tokens, at least one.
    Pieces(Vec<u32>),
    /// Only \[UNK\].
    Unknown,
}

impl Tokenizer {
    /// For each token, by id, its equivalent in the tokenizer `old`.
    ///
    /// Special tokens correspond by role, other tokens by text (including `##`). The text of any other token is normalised
    /// and split as `old` does with a text; the text of a `##` token is encoded as the continuation of a word. Pieces that are
    /// \[UNK\] are left out.
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

    /// Ids of `text` as the continuation of a word: its first word is spelled with `##` tokens only.
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

    /// Greedy longest match with `##` tokens; `None` if some rest has no token.
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
    fn tokens_map_to_the_same_text_or_to_pieces() {
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
            // A continuation that the pre-tokeniser splits: what follows the punctuation is another word.
            pieces(&["##aff", "-", "e"]),
            // "##" by itself does not continue a word, and there is no token "#".
            TokenOrigin::Unknown,
            // "un" exists only as the beginning of a word.
            TokenOrigin::Unknown,
            pieces(&["-"]),
        ];
        assert_eq!(new.origins(&old), expected);
    }

    #[test]
    fn only_new_words_of_an_extended_tokenizer_map_to_pieces() {
        let old = tokenizer(&SPECIAL_TOKENS, &["un", "##able", "##aff"], false);
        let new = old.with_words(&["unaffable".to_owned(), "\u{2603}".to_owned()]).unwrap();
        let origins = new.origins(&old);
        let kept: Vec<TokenOrigin> = (0..8).map(TokenOrigin::Kept).collect();
        assert_eq!(origins[..8], kept);
        assert_eq!(origins[8..], [TokenOrigin::Pieces(vec![5, 7, 6]), TokenOrigin::Unknown]);
    }
}
