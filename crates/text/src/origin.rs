//! Maps the tokens of one vocabulary to the tokens of another.

use ahash::AHashSet;

use crate::Tokenizer;
use crate::kind::Other;
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
    /// Special tokens correspond by role, other tokens by text (including `##`) if both begin a word or both continue one. The
    /// text of any other token is normalised and split as `old` does with a word; the text of a token that continues a word is
    /// encoded as the continuation of a word. Pieces that are \[UNK\] are left out. If both are byte-level BPE, whose tokens may
    /// end inside a character, the bytes are encoded instead of the text.
    pub fn origins(&self, old: &Tokenizer) -> Vec<TokenOrigin> {
        let unk = old.special().unk;
        let (own, old_own) = (self.special().all(), old.special().all());
        let added: AHashSet<u32> = self.all_added().into_iter().map(|(id, _)| id).collect();
        let is_of_bytes = [self, old].iter().all(|tokenizer| tokenizer.other().is_some_and(Other::is_of_bytes));
        let origin = |id: u32| {
            let role = own.iter().position(|&own| own == id).map(|role| old_own[role]);
            let same = || old.id(self.token(id).unwrap_or_default());
            let same = || same().filter(|&same| self.is_continuation(id) == old.is_continuation(same));
            if let Some(same) = role.or_else(same) {
                return TokenOrigin::Kept(same);
            }
            let mut pieces = Vec::new();
            if is_of_bytes && !added.contains(&id) {
                old.spell_into(self.token(id).unwrap_or_default(), &mut pieces);
            } else if self.is_continuation(id) {
                pieces = old.encode_continuation(&self.piece_text(id));
            } else {
                pieces = old.encode_word(&self.piece_text(id));
            }
            pieces.retain(|&piece| piece != unk);
            if pieces.is_empty() { TokenOrigin::Unknown } else { TokenOrigin::Pieces(pieces) }
        };
        (0..self.vocab_size() as u32).map(origin).collect()
    }

    /// Ids of `text` as the continuation of a word: its first word is spelled with `##` tokens only, or without the mark of a
    /// beginning.
    fn encode_continuation(&self, text: &str) -> Vec<u32> {
        let words = self.words(text);
        if let Some(other) = self.other() {
            let first = words.first().map(|word| other.without_mark(word));
            let mut ids = Vec::new();
            let words = first.into_iter().chain(words.iter().skip(1).map(String::as_str));
            words.for_each(|word| self.spell_into(word, &mut ids));
            return ids;
        }
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
    use crate::{SPECIAL_TOKENS, VocabularyKind, VocabularyOptions, learn};

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

    /// WordPiece, byte-level BPE and Unigram mark the beginnings of words in different ways.
    #[test]
    fn tokens_map_between_kinds() {
        let text = "walk walking talk talking walks talks king ink é ".repeat(20);
        let learned = |kind| {
            let mut options = VocabularyOptions::default();
            (options.kind, options.size) = (kind, 290);
            learn(&options, std::iter::once(Ok::<_, std::convert::Infallible>(text.clone())), &|_| {}).unwrap()
        };
        let new = tokenizer(&SPECIAL_TOKENS, &["walk", "##ing", "talking", "##s", "ing", "é"], true);
        let bpe = learned(VocabularyKind::Bpe);
        let pieces = |old: &Tokenizer, tokens: &[&str]| {
            TokenOrigin::Pieces(tokens.iter().map(|token| old.id(token).unwrap()).collect())
        };
        let origins = new.origins(&bpe);
        assert_eq!(origins[0], TokenOrigin::Kept(bpe.special().pad));
        assert_eq!(origins[5..8], [&["Ġwalk"][..], &["ing"], &["Ġtalking"]].map(|tokens| pieces(&bpe, tokens)));
        assert_eq!(origins[8], pieces(&bpe, &["s"]));
        assert!(matches!(&origins[9], TokenOrigin::Pieces(ids) if bpe.token(ids[0]).unwrap().starts_with('Ġ')));
        let unigram = learned(VocabularyKind::Unigram);
        let spelled = |origin: &TokenOrigin| match origin {
            TokenOrigin::Pieces(ids) => ids.iter().map(|&id| unigram.token(id).unwrap()).collect::<String>(),
            TokenOrigin::Kept(id) => unigram.token(*id).unwrap().to_owned(),
            TokenOrigin::Unknown => "?".to_owned(),
        };
        let origins = new.origins(&unigram);
        assert_eq!(
            origins[5..].iter().map(spelled).collect::<Vec<_>>(),
            ["▁walk", "ing", "▁talking", "s", "▁ing", "▁e"]
        );
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
