//! Finds the words of a corpus that are worth a token.

use std::error::Error;

use cloze_comm::Communicator;
use compact_str::CompactString;

use crate::learn::count::{Counter, Counts, LearnProgress, LearnStage, SpacedWords, map_counts, thread_count};
use crate::{TextError, Tokenizer};

/// The words of a corpus with their counts, normalised and split as by a tokenizer. In WordPiece and BPE, a punctuation mark is
/// a word; in Unigram, words are separated by spaces only.
///
/// Memory is bounded as in [`learn`](crate::learn): when there are more than two million distinct words, the rarest are
/// dropped. Words of more than 100 characters are left out.
#[derive(Debug)]
pub struct WordCounts {
    /// With their marks, as the tokenizer's model gets them. Most frequent first, then alphabetically.
    counts: Vec<(CompactString, u64)>,
}

/// A word that the vocabulary splits into several tokens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DomainWord {
    /// The word.
    pub word: String,
    /// Number of occurrences in the corpus.
    pub count: u64,
    /// The tokens that encode it, at least two.
    pub pieces: Vec<u32>,
}

impl DomainWord {
    /// Number of tokens that the corpus would save if the word were one token: count × (pieces − 1).
    pub fn tokens_saved(&self) -> u64 {
        self.count * (self.pieces.len() as u64).saturating_sub(1)
    }
}

impl WordCounts {
    /// Counts the words of `texts`. If `threads` is 0, one thread per core is used. `progress` is called during
    /// [counting](LearnStage::Counting).
    ///
    /// # Errors
    /// [`TextError::NotExtensible`], the iterator's own error ([`TextError::Input`]), or a corpus without words.
    pub fn count<E>(
        tokenizer: &Tokenizer,
        threads: usize,
        texts: impl Iterator<Item = Result<String, E>>,
        progress: &dyn Fn(LearnProgress),
    ) -> Result<WordCounts, TextError>
    where
        E: Into<Box<dyn Error + Send + Sync>>,
    {
        tokenizer.check_extensible()?;
        let mut state = LearnProgress::START;
        let ranks = Communicator::single();
        let counter = Counter::single(&ranks, threads);
        let counts = match tokenizer.fast() {
            Some(fast) => counter.count(&fast.words, texts, &mut state, progress)?,
            None => {
                // Only distinct words are normalised and split, not the corpus.
                let spaced = counter.count(&SpacedWords, texts, &mut state, progress)?;
                map_counts(spaced, thread_count(threads), |word, count, own| {
                    for word in tokenizer.spaced_words(word) {
                        *own.entry(word.into()).or_default() += count;
                    }
                })
            }
        };
        if counts.is_empty() {
            return Err(TextError::EmptyCorpus { bytes: state.bytes });
        }
        state.stage = LearnStage::Finished;
        progress(state);
        Ok(WordCounts { counts: sorted(counts) })
    }

    /// Total number of words counted.
    pub fn total_words(&self) -> u64 {
        self.counts.iter().map(|(_, count)| count).sum()
    }

    /// Number of tokens that `tokenizer` makes of these words. It must normalise and split like the one they were counted with.
    pub fn total_tokens(&self, tokenizer: &Tokenizer) -> u64 {
        let (mut ids, mut tokens) = (Vec::new(), 0);
        for (word, count) in &self.counts {
            ids.clear();
            tokenizer.spell_into(word, &mut ids);
            tokens += count * ids.len() as u64;
        }
        tokens
    }

    /// The `size` words that would save most if they were tokens, best first: words with at least `min_count` occurrences that
    /// `tokenizer` splits into two or more tokens, ranked by [tokens saved](DomainWord::tokens_saved), then alphabetically. Words
    /// without a letter (numbers) are left out, because their digits mean more than the number as one token. In Unigram, the
    /// punctuation after a word does not belong to it.
    ///
    /// Each saving is estimated independently: a new word may also become the first token of other words, which is ignored.
    pub fn rank_new_words(&self, tokenizer: &Tokenizer, size: usize, min_count: u64) -> Vec<DomainWord> {
        let mut texts = Counts::new();
        for (word, count) in &self.counts {
            if let Some(text) = tokenizer.text_of_word(word) {
                let end = match tokenizer.model() {
                    "Unigram" => text.find(|c: char| !c.is_alphanumeric()).unwrap_or(text.len()),
                    _ => text.len(),
                };
                *texts.entry(text[..end].into()).or_default() += count;
            }
        }
        let mut found = Vec::new();
        for (word, count) in sorted(texts).into_iter().take_while(|(_, count)| *count >= min_count) {
            let mut pieces = Vec::new();
            tokenizer.spaced_words(&word).iter().for_each(|word| tokenizer.spell_into(word, &mut pieces));
            if pieces.len() > 1 && word.contains(char::is_alphabetic) && tokenizer.check_new_word(&word).is_ok() {
                found.push(DomainWord { word: word.into(), count, pieces });
            }
        }
        found.sort_by(|a, b| b.tokens_saved().cmp(&a.tokens_saved()).then_with(|| a.word.cmp(&b.word)));
        found.truncate(size);
        found
    }
}

/// Most frequent first, then alphabetically.
fn sorted(counts: Counts) -> Vec<(CompactString, u64)> {
    let mut counts: Vec<(CompactString, u64)> = counts.into_iter().collect();
    counts.sort_unstable_by(|a, b| b.1.cmp(&a.1).then_with(|| a.0.cmp(&b.0)));
    counts
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{SPECIAL_TOKENS, VocabularyKind, VocabularyOptions, learn};
    use std::convert::Infallible;

    fn tokenizer() -> Tokenizer {
        let tokens = ["the", "cell", "##s", "gl", "##io", "##ma", "is", "##1", "1", ".", "-", "tum", "##or"];
        Tokenizer::from_tokens(SPECIAL_TOKENS.iter().chain(&tokens).map(|token| token.to_string()).collect(), false)
            .unwrap()
    }

    fn counted(text: &str) -> WordCounts {
        let texts = text.lines().map(|line| Ok::<_, Infallible>(line.to_owned()));
        WordCounts::count(&tokenizer(), 2, texts, &|_| {}).unwrap()
    }

    #[test]
    fn words_are_ranked_by_the_tokens_that_they_would_save() {
        // glioma 3 pieces × 3, cells 2 × 4, tumor 2 × 4, gliomas 4 × 1; never numbers, [UNK]s or words that are tokens.
        let text = "the Glioma cells tumor 111 xyz\nglioma-glioma. gliomas\ncells cells cells 111 111 111 111\n\
                    xyz xyz xyz tumor tumor tumor the the the the";
        let counts = counted(text);
        let t = tokenizer();
        let words = |size, min| counts.rank_new_words(&t, size, min);
        let shown: Vec<(String, u64, u64)> =
            words(9, 1).into_iter().map(|w| (w.word.clone(), w.count, w.tokens_saved())).collect();
        let expected = [("glioma", 3, 6), ("cells", 4, 4), ("tumor", 4, 4), ("gliomas", 1, 3)];
        assert_eq!(shown, expected.map(|(word, count, saved)| (word.to_owned(), count, saved)));
        assert_eq!(words(2, 1).len(), 2);
        assert_eq!(words(9, 4).iter().map(|w| w.word.as_str()).collect::<Vec<_>>(), ["cells", "tumor"]);
        assert!(words(9, 5).is_empty());
        assert_eq!(words(1, 1)[0].pieces, t.encode("glioma"));
    }

    #[test]
    fn tokens_are_those_of_encoding_the_text() {
        let text = "the glioma cells. gliomas is 11-xyz the cells";
        let counts = counted(text);
        let old = tokenizer();
        let new = old.with_words(&["glioma".to_owned()]).unwrap();
        assert_eq!(counts.total_words(), 11);
        assert_eq!(counts.total_tokens(&old), old.encode(text).len() as u64);
        assert_eq!(counts.total_tokens(&new), new.encode(text).len() as u64);
        // glioma saves two; gliomas begins with it and also saves two.
        assert_eq!(counts.total_tokens(&old) - counts.total_tokens(&new), 4);
    }

    #[test]
    fn no_words_is_an_error() {
        let texts = std::iter::once(Ok::<_, Infallible>(" \n".to_owned()));
        let error = WordCounts::count(&tokenizer(), 1, texts, &|_| {}).unwrap_err();
        assert!(matches!(error, TextError::EmptyCorpus { .. }), "{error}");
    }

    #[test]
    fn words_of_byte_pairs_and_unigrams_are_ranked() {
        let text = "the glioma cells. (glioma) gliomas: glioma, 11 glioma! Glioma.";
        for kind in [VocabularyKind::Bpe, VocabularyKind::Unigram] {
            let mut options = VocabularyOptions::default();
            (options.kind, options.size) = (kind, 300);
            let corpus = "the cells is a tumor of tissue and the gli oma ".repeat(20) + "!:,.()GS1";
            let corpus = std::iter::once(Ok::<_, Infallible>(corpus));
            let old = learn(&options, corpus, &|_| {}).unwrap();
            let texts = std::iter::once(Ok::<_, Infallible>(text.to_owned()));
            let counts = WordCounts::count(&old, 2, texts, &|_| {}).unwrap();
            assert_eq!(counts.total_tokens(&old), old.encode_word(text).len() as u64, "{kind:?}");
            let best = counts.rank_new_words(&old, 1, 2);
            // Byte-level BPE keeps the case; in Unigram, the word in brackets begins with one.
            let expected = if kind == VocabularyKind::Bpe { 3 } else { 4 };
            assert_eq!((best[0].word.as_str(), best[0].count), ("glioma", expected), "{kind:?}");
            assert_eq!(best[0].pieces, old.encode_word("glioma"));
        }
    }
}
