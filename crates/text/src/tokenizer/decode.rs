//! Ids to text, and the position of tokens in words.

use tokenizers::{Decoder, ModelWrapper};

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

    /// The text of `ids` as Transformers' `decode` gives it: by the tokenizer's own decoder, and then without spaces before
    /// punctuation if tokenizer_config.json says so (`clean_up_tokenization_spaces`). Ids outside the vocabulary are omitted, and
    /// special tokens if `skip_special`.
    pub fn decode_as_written(&self, ids: &[u32], skip_special: bool) -> String {
        // The crate's decoders do not fail for tokens of the vocabulary.
        let text = self.inner.hf.decode(ids, skip_special).unwrap_or_default();
        // Transformers does not clean up the text of BPE tokenizers.
        let is_bpe = matches!(self.inner.hf.get_model(), ModelWrapper::BPE(_));
        let cleans = self.inner.source.settings.flag("clean_up_tokenization_spaces").unwrap_or(false);
        if cleans && !is_bpe { cleaned_up(text) } else { text }
    }

    /// The text of tokens, as Transformers' `convert_tokens_to_string` gives it. They need not be in the vocabulary.
    pub fn join_tokens(&self, tokens: Vec<String>) -> String {
        match self.inner.hf.get_decoder() {
            Some(decoder) => {
                let plain = tokens.join(" ");
                decoder.decode(tokens).unwrap_or(plain)
            }
            None => tokens.join(" "),
        }
    }

    /// The prefix of tokens that continue a word, if the model itself has one: `##` in WordPiece. (Byte-level BPE and Unigram
    /// mark the beginning of words instead.)
    pub fn continuing_subword_prefix(&self) -> Option<&str> {
        let prefix = match self.inner.hf.get_model() {
            ModelWrapper::WordPiece(model) => Some(&model.continuing_subword_prefix),
            ModelWrapper::BPE(model) => model.continuing_subword_prefix.as_ref(),
            ModelWrapper::Unigram(_) | ModelWrapper::WordLevel(_) => None,
        };
        prefix.map(String::as_str).filter(|prefix| !prefix.is_empty())
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

/// The replacements of `PreTrainedTokenizerBase.clean_up_tokenization` of Transformers, in the same order.
fn cleaned_up(text: String) -> String {
    let spaced =
        [" .", " ?", " !", " ,", " ' ", " n't", " 'm", " 's", " 've", " 're"].map(|spaced| (spaced, spaced.trim()));
    spaced.iter().fold(text, |text, (spaced, joined)| text.replace(spaced, joined))
}
