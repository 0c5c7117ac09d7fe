//! Byte-pair encoding with the `tokenizers` crate's trainer: each step merges the most frequent pair of adjacent pieces.

use std::sync::Mutex;
use std::thread;

use ahash::AHashMap;
use compact_str::CompactString;
use regex::Regex;
use tokenizers::models::bpe::{BPE, BpeTrainer};
use tokenizers::pre_tokenizers::byte_level::ByteLevel;
use tokenizers::utils::parallelism::set_parallelism;
use tokenizers::{AddedToken, OffsetReferential, OffsetType, PreTokenizedString, PreTokenizer};

use super::alphabet::Alphabet;
use super::count::{Counts, Words, most_frequent, truncate_total};
use crate::TextError;
use crate::special::{OTHER_NAMES, SPECIAL_TOKENS};
use crate::vocabulary::CONTINUATION;

/// Maximal number of words given to the trainer, the most frequent ones: it needs about 500 bytes for each.
const TRAINED_WORDS: usize = 500_000;
/// Maximal number of characters of these words: lines of data such as base64 are words of up to a hundred characters.
const TRAINED_CHARS: usize = 8_000_000;
/// The trainer counts pairs in `i32`. This limit leaves a margin.
const MAX_PAIR_COUNT: u64 = 1 << 30;

/// The size of the result and the frequency from which pairs are merged.
#[derive(Clone, Copy)]
pub(super) struct Limits {
    pub(super) size: usize,
    pub(super) min_frequency: u64,
}

fn failed(e: Box<dyn std::error::Error + Send + Sync>) -> TextError {
    TextError::Engine { action: "learn the vocabulary", reason: e.to_string() }
}

/// The tokens of a WordPiece vocabulary, in the order of their ids.
pub(super) fn word_pieces(limits: Limits, counts: Counts, alphabet: &Alphabet) -> Result<Vec<String>, TextError> {
    // Characters that are declared in advance get ids in our order. Otherwise the trainer numbers them in the order of
    // its hash map, and ids differ from run to run, as does the choice among equally frequent pairs.
    let first = SPECIAL_TOKENS
        .iter()
        .map(|&token| token.to_owned())
        .chain(alphabet.starts.iter().map(|c| c.to_string()))
        .chain(alphabet.continuations.iter().map(|c| format!("{CONTINUATION}{c}")));
    let model = merge(limits, trained(alphabet.spelled(counts)), first.collect(), CONTINUATION)?;
    let mut tokens: Vec<(u32, String)> = model.get_vocab().into_iter().map(|(token, id)| (id, token)).collect();
    tokens.sort_unstable();
    Ok(tokens.into_iter().map(|(_, token)| token).collect())
}

/// RoBERTa's special tokens in the order of their ids, all at the beginning: models expect that `<pad>` is 1, and the others need
/// not move when the vocabulary grows. (In the published vocabulary, `<mask>` is last, because fairseq added it later.)
const ROBERTA: [&str; 5] = [OTHER_NAMES[2], OTHER_NAMES[0], OTHER_NAMES[3], OTHER_NAMES[1], OTHER_NAMES[4]];

/// Number of tokens of byte-level BPE before the first merge.
pub(super) const BYTES_AND_SPECIAL: usize = 256 + ROBERTA.len();

/// A model of byte-level BPE: RoBERTa's special tokens, the bytes, then pieces in the order in which they were merged. `counts`
/// are those of [`ByteWords`].
pub(super) fn byte_pairs(limits: Limits, counts: Counts) -> Result<BPE, TextError> {
    let bytes = ByteLevel::new(false, true, false);
    let visible = |word: &str| -> Result<CompactString, TextError> {
        let mut text = PreTokenizedString::from(word);
        bytes.pre_tokenize(&mut text).map_err(failed)?;
        let parts = text.get_splits(OffsetReferential::Normalized, OffsetType::Byte);
        Ok(parts.into_iter().map(|(part, ..)| part).collect())
    };
    let words = trained(counts).into_iter();
    let words = words.map(|(word, count)| Ok((visible(&word)?, count))).collect::<Result<Counts, TextError>>()?;
    let mut alphabet: Vec<char> = ByteLevel::alphabet().into_iter().collect();
    alphabet.sort_unstable();
    let first = ROBERTA.iter().map(|&token| token.to_owned()).chain(alphabet.iter().map(|c| c.to_string()));
    merge(limits, words, first.collect(), "")
}

/// The most frequent words, in bounded memory.
pub(super) fn trained(counts: Counts) -> Counts {
    let words = truncate_total(most_frequent(counts, TRAINED_WORDS), TRAINED_CHARS, |word| word.chars().count());
    words.into_iter().collect()
}

/// Runs the trainer. `first` are the first tokens: the special ones and all characters.
fn merge(limits: Limits, mut counts: Counts, first: Vec<String>, prefix: &str) -> Result<BPE, TextError> {
    let mut min_frequency = limits.min_frequency;
    let divisor = count_divisor(&counts);
    if divisor > 1 {
        for count in counts.values_mut() {
            *count = (*count / divisor).max(1);
        }
        min_frequency = min_frequency.div_ceil(divisor);
    }
    if !can_start(thread::available_parallelism().map_or(1, |n| n.get())) {
        // Otherwise the trainer would panic when it starts its threads.
        set_parallelism(false);
    }
    let mut trainer = BpeTrainer::builder()
        .special_tokens(first.into_iter().map(|token| AddedToken::from(token, true)).collect())
        .vocab_size(limits.size)
        .min_frequency(min_frequency)
        .show_progress(false);
    if !prefix.is_empty() {
        trainer = trainer.continuing_subword_prefix(prefix.into());
    }
    let mut model = BPE::default();
    trainer.build().do_train(&counts, &mut model).map_err(failed)?;
    Ok(model)
}

/// Whether the system can start this number of threads now.
fn can_start(threads: usize) -> bool {
    let gate = Mutex::new(());
    thread::scope(|scope| {
        // They all wait for the lock, so that they exist at the same time.
        let _closed = gate.lock();
        (0..threads).all(|_| thread::Builder::new().spawn_scoped(scope, || drop(gate.lock())).is_ok())
    })
}

/// The divisor of counts with which no pair's count overflows the trainer's `i32`; it is above 1 only for corpora of
/// gigabytes. No later pair is more frequent than the most frequent pair of characters.
fn count_divisor(counts: &Counts) -> u64 {
    let mut pairs: AHashMap<(bool, char, char), u64> = AHashMap::new();
    for (word, &count) in counts {
        let mut before = None;
        for (i, c) in word.chars().enumerate() {
            if let Some(b) = before {
                *pairs.entry((i == 1, b, c)).or_default() += count;
            }
            before = Some(c);
        }
    }
    let largest = pairs.values().copied().max().unwrap_or(0);
    largest.div_ceil(MAX_PAIR_COUNT).max(1)
}

/// The words of byte-level BPE: GPT-2's regular expression on each line. A word has the space before it.
pub(super) struct ByteWords(Regex);

impl ByteWords {
    pub(super) fn new() -> Result<ByteWords, TextError> {
        // As in the crate's `ByteLevel`, but `\s+(?!\S)` is done in `split`, because only slow engines know it.
        let words = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+";
        Regex::new(words).map(ByteWords).map_err(|e| failed(e.into()))
    }
}

impl Words for ByteWords {
    fn split(&self, text: &str, _: &mut String, mut each: impl FnMut(&str, usize)) {
        for line in text.lines() {
            let mut at = 0;
            while let Some(found) = self.0.find_at(line, at) {
                let mut word = found.as_str();
                at = found.end();
                // White space before a word gives its last character to the word.
                if at < line.len()
                    && let Some((last, c)) =
                        word.char_indices().next_back().filter(|&(last, c)| last > 0 && c.is_whitespace())
                {
                    word = &word[..last];
                    at -= c.len_utf8();
                }
                each(word, word.chars().count());
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn huge_counts_are_divided() {
        let counts: Counts = [("abab".into(), 1 << 33), ("cd".into(), 5)].into_iter().collect();
        assert!(count_divisor(&counts) >= 8);
        let alphabet = Alphabet::choose(&counts, 1.0);
        let all = word_pieces(Limits { size: 100, min_frequency: 2 }, counts, &alphabet).unwrap();
        assert!(all.contains(&"abab".to_owned()), "{all:?}");
    }

    #[test]
    fn words_of_bytes_are_those_of_the_crate() {
        let words = ByteWords::new().unwrap();
        let crate_words = ByteLevel::new(false, true, true);
        for text in [
            "It's  the dog's\t\tday: 12,5 %  ",
            " leading\u{a0}\u{a0}space \u{3000} x",
            "naïve café — 東京 １２ ½ x₂ a_b they'LL '",
            "👩\u{200d}🔬 e\u{301} \u{200b}z\u{85} y",
            "",
            "   ",
        ] {
            let mut ours = Vec::new();
            words.split(text, &mut String::new(), |word, chars| {
                assert_eq!(chars, word.chars().count());
                ours.push(word.to_owned());
            });
            let mut split = PreTokenizedString::from(text);
            crate_words.pre_tokenize(&mut split).unwrap();
            let splits = split.get_splits(OffsetReferential::Original, OffsetType::Byte);
            let expected: Vec<&str> = splits.iter().map(|(_, (start, end), _)| &text[*start..*end]).collect();
            assert_eq!(ours, expected, "{text:?}");
        }
    }
}
