//! Which words of a corpus would be worth a token.

use std::error::Error;

use compact_str::CompactString;

use crate::learn::{LearnProgress, LearnStage, MAX_WORDS, count};
use crate::{TextError, Tokenizer};

/// The words of a corpus with their counts, normalised and split as a tokenizer does (a punctuation mark is a word).
///
/// As in [`learn`](crate::learn), memory is bounded: beyond two million distinct words the rarest are forgotten on the way,
/// and words of more than 100 characters are left out.
#[derive(Debug)]
pub struct WordCounts {
    /// Most frequent first, then alphabetically.
    counts: Vec<(CompactString, u64)>,
}

/// A word that a vocabulary splits.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DomainWord {
    /// The word.
    pub word: String,
    /// How often the corpus has it.
    pub count: u64,
    /// The tokens that it is now, at least two.
    pub pieces: Vec<u32>,
}

impl DomainWord {
    /// Tokens that the corpus would save if the word were one: count × (pieces − 1).
    pub fn saved(&self) -> u64 {
        self.count * (self.pieces.len() as u64).saturating_sub(1)
    }
}

impl WordCounts {
    /// Counts the words of `texts`. `threads` of 0 is one a core; `progress` is told the [counting](LearnStage::Counting).
    ///
    /// # Errors
    /// [`TextError::NotPlain`], the iterator's own error ([`TextError::Input`]), no words at all.
    pub fn of<E>(
        tokenizer: &Tokenizer,
        threads: usize,
        texts: impl Iterator<Item = Result<String, E>>,
        progress: &dyn Fn(LearnProgress),
    ) -> Result<WordCounts, TextError>
    where
        E: Into<Box<dyn Error + Send + Sync>>,
    {
        let words = &tokenizer.fast().ok_or(TextError::NotPlain)?.words;
        let mut news = LearnProgress::START;
        let counts = count(threads, MAX_WORDS, words, texts, &mut news, progress)?;
        if counts.is_empty() {
            return Err(TextError::EmptyCorpus { bytes: news.bytes });
        }
        let mut counts: Vec<(CompactString, u64)> = counts.into_iter().collect();
        counts.sort_unstable_by(|a, b| b.1.cmp(&a.1).then_with(|| a.0.cmp(&b.0)));
        news.stage = LearnStage::Finished;
        progress(news);
        Ok(WordCounts { counts })
    }

    /// Words counted.
    pub fn words(&self) -> u64 {
        self.counts.iter().map(|(_, count)| count).sum()
    }

    /// Tokens that they are under `tokenizer`, which must normalise as the one they were counted with.
    ///
    /// # Errors
    /// [`TextError::NotPlain`].
    pub fn tokens(&self, tokenizer: &Tokenizer) -> Result<u64, TextError> {
        let trie = &tokenizer.fast().ok_or(TextError::NotPlain)?.trie;
        let (mut ids, mut tokens) = (Vec::new(), 0);
        for (word, count) in &self.counts {
            ids.clear();
            trie.encode(word, word.chars().count(), &mut ids);
            tokens += count * ids.len() as u64;
        }
        Ok(tokens)
    }

    /// The `size` words whose own tokens would save most, best first: words of at least `min_count` occurrences that
    /// `tokenizer` splits into two pieces or more, by [tokens saved](DomainWord::saved), then alphabetically. Words without a
    /// letter (numbers) are left out, for their digits mean more than the whole.
    ///
    /// The saving is each word's alone: that one new word also begins others is not reckoned with.
    ///
    /// # Errors
    /// [`TextError::NotPlain`].
    pub fn most_saving(
        &self,
        tokenizer: &Tokenizer,
        size: usize,
        min_count: u64,
    ) -> Result<Vec<DomainWord>, TextError> {
        let trie = &tokenizer.fast().ok_or(TextError::NotPlain)?.trie;
        let mut found = Vec::new();
        for (word, count) in self.counts.iter().take_while(|(_, count)| *count >= min_count) {
            let mut pieces = Vec::new();
            trie.encode(word, word.chars().count(), &mut pieces);
            if pieces.len() > 1 && word.contains(char::is_alphabetic) && tokenizer.check_new_word(word).is_ok() {
                found.push(DomainWord { word: word.to_string(), count: *count, pieces });
            }
        }
        found.sort_by(|a, b| b.saved().cmp(&a.saved()).then_with(|| a.word.cmp(&b.word)));
        found.truncate(size);
        Ok(found)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::SPECIAL_TOKENS;
    use std::convert::Infallible;

    fn tokenizer() -> Tokenizer {
        let tokens = ["the", "cell", "##s", "gl", "##io", "##ma", "is", "##1", "1", ".", "-", "tum", "##or"];
        Tokenizer::from_tokens(SPECIAL_TOKENS.iter().chain(&tokens).map(|token| token.to_string()).collect(), false)
            .unwrap()
    }

    fn counted(text: &str) -> WordCounts {
        let texts = text.lines().map(|line| Ok::<_, Infallible>(line.to_owned()));
        WordCounts::of(&tokenizer(), 2, texts, &|_| {}).unwrap()
    }

    #[test]
    fn words_are_ranked_by_the_tokens_that_they_would_save() {
        // glioma 3 pieces × 3, cells 2 × 4, tumor 2 × 4, gliomas 4 × 1; numbers, [UNK]s and whole words never.
        let text = "the Glioma cells tumor 111 xyz\nglioma-glioma. gliomas\ncells cells cells 111 111 111 111\n\
                    xyz xyz xyz tumor tumor tumor the the the the";
        let counts = counted(text);
        let t = tokenizer();
        let words = |size, min| counts.most_saving(&t, size, min).unwrap();
        let shown: Vec<(String, u64, u64)> =
            words(9, 1).into_iter().map(|w| (w.word.clone(), w.count, w.saved())).collect();
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
        assert_eq!(counts.words(), 11);
        assert_eq!(counts.tokens(&old).unwrap(), old.encode(text).len() as u64);
        assert_eq!(counts.tokens(&new).unwrap(), new.encode(text).len() as u64);
        // glioma saves two, gliomas begins with it and saves two more.
        assert_eq!(counts.tokens(&old).unwrap() - counts.tokens(&new).unwrap(), 4);
    }

    #[test]
    fn no_words_is_an_error() {
        let texts = std::iter::once(Ok::<_, Infallible>(" \n".to_owned()));
        let error = WordCounts::of(&tokenizer(), 1, texts, &|_| {}).unwrap_err();
        assert!(matches!(error, TextError::EmptyCorpus { .. }), "{error}");
    }
}
