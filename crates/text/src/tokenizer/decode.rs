//! Ids to text, and the position of tokens in words.

use super::Tokenizer;
use crate::kind::Kind;
use crate::special::Special;
use crate::vocabulary::CONTINUATION;

impl Tokenizer {
    /// Readable text of `ids`, without \[PAD\], \[CLS\] and \[SEP\]. An id outside the vocabulary becomes \[UNK\].
    pub fn decode(&self, ids: &[u32]) -> String {
        let Special { pad, cls, sep, .. } = self.special();
        let kept: Vec<u32> = ids.iter().copied().filter(|id| ![pad, cls, sep].contains(id)).collect();
        self.decode_all(&kept)
    }

    /// As [`decode`](Self::decode), with all special tokens. In WordPiece, `##` pieces are joined, and words are separated by a space.
    pub fn decode_all(&self, ids: &[u32]) -> String {
        let unk = self.special().unk;
        if let Kind::Other(_) = self.inner.kind {
            let known = |&id: &u32| if self.token(id).is_some() { id } else { unk };
            let ids: Vec<u32> = ids.iter().map(known).collect();
            // The crate's decoders do not fail for ids that are in the vocabulary.
            return self.inner.hf.decode(&ids, false).unwrap_or_default();
        }
        let mut text = String::new();
        for &id in ids {
            let token = self.token(id).or(self.token(unk)).unwrap_or_default();
            match token.strip_prefix(CONTINUATION) {
                Some(rest) if self.is_continuation(id) => text.push_str(rest),
                _ => {
                    if !text.is_empty() {
                        text.push(' ');
                    }
                    text.push_str(token);
                }
            }
        }
        text
    }

    /// The text of one token, without the marker of its position in a word: `ing` for `##ing`, `the` for `Ġthe` or `▁the`.
    pub fn piece_text(&self, id: u32) -> String {
        match (&self.inner.kind, self.token(id).unwrap_or_default()) {
            (Kind::WordPiece(_), token) if self.is_continuation(id) => token[CONTINUATION.len()..].to_owned(),
            (Kind::WordPiece(_), token) => token.to_owned(),
            (Kind::Other(_), _) => self.decode_all(&[id]).trim_start().to_owned(),
        }
    }

    /// Whether the token continues a word: `##ing` in WordPiece (but not the token `##`), a token without `Ġ` in byte-level
    /// BPE, a token without `▁` in Unigram. Always false if tokens do not [mark word starts](Self::marks_word_starts).
    pub fn is_continuation(&self, id: u32) -> bool {
        let Some(token) = self.token(id) else { return false };
        match &self.inner.kind {
            Kind::WordPiece(_) => token.len() > CONTINUATION.len() && token.starts_with(CONTINUATION),
            Kind::Other(other) => other.is_continuation(id, token),
        }
    }

    /// Whether a word has other tokens at the beginning of a text than after a space, as in RoBERTa.
    pub fn needs_space(&self) -> bool {
        match &self.inner.kind {
            Kind::WordPiece(_) => false,
            Kind::Other(other) => other.needs_space(),
        }
    }

    /// Whether tokens mark where words begin.
    pub fn marks_word_starts(&self) -> bool {
        match &self.inner.kind {
            Kind::WordPiece(_) => true,
            Kind::Other(other) => other.marks_word_starts(),
        }
    }
}
