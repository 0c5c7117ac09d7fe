//! Text to ids, with and without offsets.

use std::sync::atomic::Ordering;

use tokenizers::{Model, ModelWrapper, Normalizer, OffsetReferential, OffsetType, PreTokenizedString, PreTokenizer};

use super::{Piece, Tokenizer};
use crate::Special;
use crate::added::{SpecialTokens, TextPart, with_literal_special_tokens, without_pieces};
use crate::kind::{Fast, Kind};
use crate::words::WordSplitter;

impl Tokenizer {
    /// Whether an added token is read as ordinary text where it occurs in a text.
    fn is_read_as_text(&self, id: u32) -> bool {
        match (self.inner.source.settings.splits_special(), self.special_tokens) {
            (true, _) => self.inner.added.token(id).is_some_and(|token| token.special),
            (false, SpecialTokens::Text) => self.inner.special.all().contains(&id),
            (false, SpecialTokens::Parse) => false,
        }
    }

    /// Counts the names of BERT's own special tokens in a text, except the token `found`.
    fn count_names(&self, text: &str, found: Option<u32>) {
        let own = self.inner.special.all();
        let seen = self.inner.added.occurrences(text, |id| own.contains(&id) && Some(id) != found);
        if seen > 0 {
            self.inner.special_names.fetch_add(seen, Ordering::Relaxed);
        }
    }

    /// Ids of `text`, without added special tokens. BERT's own special tokens in the text are ordinary text (`[MASK]` becomes
    /// the ids of `[`, `mask` and `]` in WordPiece) unless [`special_tokens`](Self::special_tokens) is `Parse`. Other special and
    /// added tokens are one token each.
    pub fn encode(&self, text: &str) -> Vec<u32> {
        // English text has about 4.5 bytes per token.
        let mut out = Vec::with_capacity(text.len() / 4 + 4);
        self.encode_into(text, &mut out);
        out
    }

    /// As [`encode`](Self::encode), appending to `out`.
    pub fn encode_into(&self, text: &str, out: &mut Vec<u32>) {
        self.count_names(text, None);
        match self.fast() {
            Some(fast) => self.encode_fast(fast, text, out),
            None => self.encode_reference(text, out),
        }
    }

    /// As [`encode_into`](Self::encode_into), on the fast path.
    fn encode_fast(&self, fast: &Fast, text: &str, out: &mut Vec<u32>) {
        let (Fast { words, trie }, added) = (fast, &self.inner.added);
        let mut buffer = String::new();
        added.split(
            text,
            |id| self.is_read_as_text(id),
            |part| match part {
                TextPart::Token(id) => out.push(id),
                TextPart::Text(text) if added.has_normalized() => {
                    added.split_normalized(
                        &words.normalize(text),
                        |id| self.is_read_as_text(id),
                        |part| match part {
                            TextPart::Token(id) => out.push(id),
                            TextPart::Text(text) => {
                                WordSplitter::split_normalized(text, |word, chars| trie.encode(word, chars, out))
                            }
                        },
                    );
                }
                TextPart::Text(text) => words.split(text, &mut buffer, |word, chars| trie.encode(word, chars, out)),
            },
        );
    }

    /// As [`encode_into`](Self::encode_into), but always with the `tokenizers` crate: the same ids, more slowly. For tests and
    /// the benchmark.
    pub fn encode_reference(&self, text: &str, out: &mut Vec<u32>) {
        self.encode_by(self.reference(), text, out);
    }

    fn encode_by(&self, reference: &tokenizers::Tokenizer, text: &str, out: &mut Vec<u32>) {
        let start = out.len();
        match reference.encode_fast(text, false) {
            Ok(encoding) => out.extend_from_slice(encoding.get_ids()),
            // Unreachable: `assemble` has tested it. Text that cannot be encoded is [UNK].
            Err(_) => out.push(self.special().unk),
        }
        if let Some(nameless) = self.nameless(&out[start..], None) {
            out.truncate(start);
            let encoded = nameless.encode_fast(text, false);
            out.extend(encoded.iter().flat_map(|encoding| encoding.get_ids()));
        }
    }

    /// The tokenizer with which to encode a text again because its ids have special tokens, although their names are to be read
    /// as text: a Unigram model may have the names as pieces. `mask` is the tokenizer that recognises only the mask.
    fn nameless(&self, ids: &[u32], mask: Option<&tokenizers::Tokenizer>) -> Option<&tokenizers::Tokenizer> {
        let ModelWrapper::Unigram(_) = self.inner.hf.get_model() else { return None };
        let Special { pad, unk, cls, sep, mask: mask_id } = self.special();
        let mut names = vec![pad, cls, sep];
        names.extend(mask.is_none().then_some(mask_id));
        names.retain(|&id| id != unk && self.is_read_as_text(id));
        if !ids.iter().any(|id| names.contains(id)) {
            return None;
        }
        let cell = &self.inner.nameless[usize::from(mask.is_some())];
        Some(cell.get_or_init(|| {
            let reference = mask.unwrap_or_else(|| self.reference());
            // Parsing cannot fail: the reference was parsed from equivalent JSON.
            without_pieces(reference, &names).unwrap_or_else(|_| reference.clone())
        }))
    }

    /// Ids of one word as it is encoded after a space (see [`needs_space`](Self::needs_space)).
    pub fn encode_word(&self, word: &str) -> Vec<u32> {
        if self.needs_space() && !word.starts_with(' ') { self.encode(&format!(" {word}")) } else { self.encode(word) }
    }

    /// As [`encode`](Self::encode), except that the [mask token](Self::mask_token) in the text becomes the mask's id.
    pub fn encode_masked(&self, text: &str) -> Vec<u32> {
        let mask = self.special().mask;
        let mut out = Vec::new();
        self.count_names(text, Some(mask));
        match (&self.inner.kind, self.special_tokens) {
            (_, SpecialTokens::Parse)
                if !self.inner.source.settings.splits_special() && self.inner.added.token(mask).is_some() =>
            {
                self.encode_by(self.reference(), text, &mut out);
            }
            (Kind::Other(other), _) => {
                let reference = other.mask_only(|| self.mask_only());
                let again = reference.encode_fast(text, false);
                let ids = again.as_ref().map(|encoding| encoding.get_ids()).unwrap_or_default();
                match self.nameless(ids, Some(reference)) {
                    Some(nameless) => {
                        out.extend(nameless.encode_fast(text, false).iter().flat_map(|encoding| encoding.get_ids()));
                    }
                    None => out.extend_from_slice(ids),
                }
            }
            (Kind::WordPiece(fast), _) => {
                for (i, part) in text.split(self.mask_token()).enumerate() {
                    if i > 0 {
                        out.push(mask);
                    }
                    match fast {
                        Some(fast) => self.encode_fast(fast, part, &mut out),
                        None => self.encode_reference(part, &mut out),
                    }
                }
            }
        }
        out
    }

    /// A copy of `hf` that recognises only the mask in a text, none of BERT's other special tokens.
    fn mask_only(&self) -> tokenizers::Tokenizer {
        let mask = self.special().mask;
        let literal = (0..self.vocab_size() as u32).filter(|&id| id != mask && self.is_read_as_text(id));
        let literal = literal.filter_map(|id| self.token(id)).collect();
        // Parsing cannot fail: `hf` was parsed from equivalent JSON.
        let copy = with_literal_special_tokens(&self.inner.hf, &literal);
        let mut copy = copy.unwrap_or_else(|_| self.inner.hf.clone());
        if self.inner.added.token(mask).is_none() {
            // Unreachable error: the token is in the vocabulary and is not normalised.
            let _ = copy.add_tokens([tokenizers::AddedToken::from(self.mask_token(), false).normalized(false)]);
        }
        copy
    }

    /// Ids of `text` with the byte range of the original text of each token, which is at character boundaries, and the number
    /// of its word. Uses the `tokenizers` crate.
    pub fn encode_with_offsets(&self, text: &str) -> Vec<Piece> {
        self.count_names(text, None);
        // Transformers also counts characters: offsets are trimmed in these units.
        let encoded = self.reference().encode_char_offsets(text, false);
        let ids = encoded.as_ref().map(|encoding| encoding.get_ids()).unwrap_or_default();
        let encoded = match self.nameless(ids, None) {
            Some(nameless) => nameless.encode_char_offsets(text, false),
            None => encoded,
        };
        let starts: Vec<usize> =
            if text.is_ascii() { Vec::new() } else { text.char_indices().map(|(start, _)| start).collect() };
        let byte = |char: usize| match starts.get(char) {
            _ if starts.is_empty() => char.min(text.len()),
            start => start.copied().unwrap_or(text.len()),
        };
        match encoded {
            Ok(encoding) => {
                let pieces = encoding.get_ids().iter().zip(encoding.get_offsets()).zip(encoding.get_word_ids());
                let piece = |((&id, &(start, end)), word): ((&u32, &(usize, usize)), &Option<u32>)| Piece {
                    id,
                    start: byte(start),
                    end: byte(end),
                    word: word.unwrap_or_default(),
                };
                pieces.map(piece).collect()
            }
            Err(_) => vec![Piece { id: self.special().unk, start: 0, end: text.len(), word: 0 }],
        }
    }

    /// As [`encode`](Self::encode), with the number of each token's word, in ascending order: the words into which the
    /// pre-tokeniser splits the text, as Transformers' `word_ids`. Uses the `tokenizers` crate.
    pub fn encode_with_words(&self, text: &str) -> Vec<(u32, u32)> {
        self.count_names(text, None);
        match self.reference().encode(text, false) {
            Ok(encoding) => {
                let words = encoding.get_word_ids().iter().map(|word| word.unwrap_or_default());
                encoding.get_ids().iter().copied().zip(words).collect()
            }
            Err(_) => vec![(self.special().unk, 0)],
        }
    }

    /// The normalised words of `text`, as the `tokenizers` crate splits it; empty if its normaliser fails.
    pub(crate) fn words(&self, text: &str) -> Vec<String> {
        let reference = &self.inner.hf;
        let mut split = PreTokenizedString::from(text);
        let normalized = split.normalize(|part| reference.get_normalizer().map_or(Ok(()), |n| n.normalize(part)));
        let done = normalized.and_then(|()| match reference.get_pre_tokenizer() {
            Some(pre_tokenizer) => pre_tokenizer.pre_tokenize(&mut split),
            None => Ok(()),
        });
        if done.is_err() {
            return Vec::new();
        }
        let words = split.get_splits(OffsetReferential::Normalized, OffsetType::Byte);
        words.into_iter().map(|(word, ..)| word.to_owned()).filter(|word| !word.is_empty()).collect()
    }

    /// Appends the ids of a word as [`words`](Self::words) gives it.
    pub(crate) fn spell_into(&self, word: &str, out: &mut Vec<u32>) {
        match self.fast() {
            Some(fast) => fast.trie.encode(word, word.chars().count(), out),
            None => {
                let tokens = self.hf().get_model().tokenize(word).unwrap_or_default();
                out.extend(tokens.into_iter().map(|token| token.id));
            }
        }
    }

    /// Splits a normalised word at added tokens. The result includes these tokens.
    pub(crate) fn split_at_added(&self, word: &str) -> Vec<String> {
        let mut parts = Vec::new();
        let text_of = |part: TextPart<'_>| match part {
            TextPart::Token(id) => self.token(id).unwrap_or_default().to_owned(),
            TextPart::Text(text) => text.to_owned(),
        };
        self.inner.added.split(
            word,
            |id| self.is_read_as_text(id),
            |part| match part {
                TextPart::Text(text) => {
                    self.inner.added.split_normalized(
                        text,
                        |id| self.is_read_as_text(id),
                        |part| parts.push(text_of(part)),
                    );
                }
                token => parts.push(text_of(token)),
            },
        );
        parts
    }
}
