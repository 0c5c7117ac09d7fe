//! Counts the words of texts in bounded memory, on several threads.

use std::error::Error;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;

use ahash::AHashMap;
use cloze_files::machine::on_threads;
use compact_str::CompactString;

use crate::TextError;
use crate::vocabulary::MAX_WORD_CHARS;
use crate::words::WordSplitter;

/// Splits texts into words.
pub(crate) trait Words: Sync {
    /// Calls `each` with every word of `text` and its number of characters. `buffer` is scratch memory.
    fn split(&self, text: &str, buffer: &mut String, each: impl FnMut(&str, usize));
}

impl Words for WordSplitter {
    fn split(&self, text: &str, buffer: &mut String, each: impl FnMut(&str, usize)) {
        WordSplitter::split(self, text, buffer, each);
    }
}

/// Words between white space.
pub(crate) struct SpacedWords;

impl Words for SpacedWords {
    fn split(&self, text: &str, _: &mut String, mut each: impl FnMut(&str, usize)) {
        text.split_whitespace().for_each(|word| each(word, word.chars().count()));
    }
}

/// The stage of [`learn`](crate::learn()).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum LearnStage {
    /// Reading text and counting words.
    Counting,
    /// Merging pieces, or (Unigram) estimating and removing pieces. This takes seconds to minutes, without progress reports.
    Merging,
    /// Done.
    Finished,
}

/// Progress of [`learn`](crate::learn()), reported after every 32 MB of text and at each change of stage.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct LearnProgress {
    /// The current stage.
    pub stage: LearnStage,
    /// Bytes of text read.
    pub bytes: u64,
    /// Words counted so far.
    pub words: u64,
    /// Distinct words in memory.
    pub distinct: usize,
    /// Distinct characters that get a token; 0 while counting.
    pub characters: usize,
    /// Distinct characters without a token (see [`VocabularyOptions::character_coverage`](crate::VocabularyOptions::character_coverage)); 0 while counting.
    pub characters_left_out: usize,
    /// Words of more than 100 characters, which are left out.
    pub long_words: u64,
    /// Distinct words that were dropped (the rarest) to limit memory.
    pub dropped: u64,
}

impl LearnProgress {
    pub(crate) const START: LearnProgress = LearnProgress {
        stage: LearnStage::Counting,
        bytes: 0,
        words: 0,
        distinct: 0,
        characters: 0,
        characters_left_out: 0,
        long_words: 0,
        dropped: 0,
    };
}

/// The default of [`VocabularyOptions::max_words`](crate::VocabularyOptions::max_words).
pub(crate) const MAX_WORDS: usize = 2_000_000;
/// Bytes of text counted between two checks of the number of distinct words. It does not depend on the number of
/// threads, so neither does the pruning.
const ROUND_BYTES: usize = 32 << 20;
/// Memory per text in addition to its bytes.
const TEXT_BYTES: usize = 64;
/// Length of the longest part of a text that one thread counts at once.
const SLICE_BYTES: usize = 256 << 10;
/// Maximal bytes of the distinct words in memory, per word of `max_words`.
const WORD_BYTES: usize = 24;
pub(crate) type Counts = AHashMap<CompactString, u64>;

/// Gives each of `counts` to `each` with an accumulator, on several threads, and adds up the accumulators.
pub(crate) fn map_counts(counts: Counts, threads: usize, each: impl Fn(&str, u64, &mut Counts) + Sync) -> Counts {
    let words: Vec<(CompactString, u64)> = counts.into_iter().collect();
    let (blocks, total) = (Mutex::new(words.chunks(4096)), Mutex::new(Counts::new()));
    on_threads(threads, || {
        let take = || blocks.lock().unwrap_or_else(PoisonError::into_inner).next();
        let mut own = Counts::new();
        while let Some(block) = take() {
            block.iter().for_each(|(word, count)| each(word, *count, &mut own));
        }
        let mut total = total.lock().unwrap_or_else(PoisonError::into_inner);
        own.into_iter().for_each(|(word, count)| *total.entry(word).or_default() += count);
    });
    total.into_inner().unwrap_or_else(PoisonError::into_inner)
}

/// The number of threads that an option means: 0 is one per core.
pub(crate) fn thread_count(threads: usize) -> usize {
    match threads {
        0 => thread::available_parallelism().map_or(1, |n| n.get()),
        n => n,
    }
}

/// Counts words in rounds of [`ROUND_BYTES`]: while one round is counted, the next is read. About `max_words` distinct
/// words are held at most (see [`VocabularyOptions::max_words`](crate::VocabularyOptions::max_words)). If `threads` is 0, one thread per core is used.
pub(crate) fn count_in_rounds<E>(
    threads: usize,
    max_words: usize,
    words: &impl Words,
    mut texts: impl Iterator<Item = Result<String, E>>,
    state: &mut LearnProgress,
    progress: &dyn Fn(LearnProgress),
) -> Result<Counts, TextError>
where
    E: Into<Box<dyn Error + Send + Sync>>,
{
    let threads = thread_count(threads);
    progress(*state);
    thread::scope(|scope| {
        let mut counting: Option<Counting<'_>> = None;
        let mut total = Counts::new();
        loop {
            let (mut round, mut bytes, mut text_bytes) = (Vec::new(), 0, 0);
            while bytes < ROUND_BYTES {
                match texts.next() {
                    Some(Ok(text)) => {
                        bytes += text.len() + TEXT_BYTES;
                        text_bytes += text.len();
                        round.push(text);
                    }
                    Some(Err(error)) => return Err(TextError::Input(error.into())),
                    None => break,
                }
            }
            if let Some(counting) = counting.take() {
                let counted = counting.finish();
                total = counted.counts;
                state.words += counted.words;
                state.long_words += counted.long_words;
                state.dropped += counted.dropped;
                state.distinct = total.len();
                progress(*state);
            }
            if round.is_empty() {
                return Ok(total);
            }
            state.bytes += text_bytes as u64;
            let before = std::mem::take(&mut total);
            // The closure is shared: if the system cannot start a thread, this thread calls it.
            let work = Arc::new(Mutex::new(Some((before, round))));
            let count = {
                let work = Arc::clone(&work);
                move || {
                    let work = work.lock().unwrap_or_else(PoisonError::into_inner).take();
                    work.map(|(before, round)| count_round(words, before, &round, threads, max_words))
                        .unwrap_or_default()
                }
            };
            counting = Some(match thread::Builder::new().spawn_scoped(scope, count.clone()) {
                Ok(thread) => Counting::Thread(thread),
                Err(_) => Counting::Done(count()),
            });
        }
    })
}

/// A round that is being counted by another thread, or that was counted by this one.
enum Counting<'scope> {
    Thread(thread::ScopedJoinHandle<'scope, Counted>),
    Done(Counted),
}

impl Counting<'_> {
    fn finish(self) -> Counted {
        match self {
            Counting::Thread(thread) => thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)),
            Counting::Done(counted) => counted,
        }
    }
}

/// The result of counting a round.
#[derive(Default)]
struct Counted {
    /// All words so far, pruned.
    counts: Counts,
    /// Words in the round.
    words: u64,
    /// Words that were left out because they are too long.
    long_words: u64,
    /// Distinct words that were dropped.
    dropped: u64,
}

/// Adds the words of `round` to `total`.
fn count_round(words: &impl Words, mut total: Counts, round: &[String], threads: usize, max_words: usize) -> Counted {
    let slices: Vec<&str> = round.iter().flat_map(|text| Slices(text)).collect();
    let next = AtomicUsize::new(0);
    let counted = Mutex::new(Vec::new());
    on_threads(threads.min(slices.len()), || {
        let own = count_slices(words, &slices, &next);
        counted.lock().unwrap_or_else(PoisonError::into_inner).push(own);
    });
    let (mut seen, mut long_words) = (0, 0);
    for own in counted.into_inner().unwrap_or_else(PoisonError::into_inner) {
        seen += own.words;
        long_words += own.long_words;
        let counts = own.counts;
        if total.is_empty() {
            total = counts;
        } else {
            for (word, count) in counts {
                *total.entry(word).or_default() += count;
            }
        }
    }
    let before = total.len();
    let bytes = |total: &Counts| total.keys().map(|word| word.len()).sum::<usize>();
    if before > max_words || bytes(&total) > max_words * WORD_BYTES {
        let frequent = most_frequent(total, max_words / 2);
        total = truncate_total(frequent, max_words * WORD_BYTES / 2, str::len).into_iter().collect();
    }
    let dropped = (before - total.len()) as u64;
    Counted { counts: total, words: seen, long_words, dropped }
}

fn count_slices(words: &impl Words, slices: &[&str], next: &AtomicUsize) -> Counted {
    let mut counts = Counts::new();
    let (mut seen, mut long_words, mut buffer) = (0, 0, String::new());
    while let Some(slice) = slices.get(next.fetch_add(1, Ordering::Relaxed)) {
        words.split(slice, &mut buffer, |word, chars| {
            if chars > MAX_WORD_CHARS {
                long_words += 1;
                return;
            }
            seen += 1;
            match counts.get_mut(word) {
                Some(count) => *count += 1,
                None => {
                    counts.insert(CompactString::from(word), 1);
                }
            }
        });
    }
    Counted { counts, words: seen, long_words, dropped: 0 }
}

/// The parts of a text, about [`SLICE_BYTES`] each, cut before spaces, so that no word is split, nor a space from the word
/// after it.
struct Slices<'a>(&'a str);

impl<'a> Iterator for Slices<'a> {
    type Item = &'a str;

    fn next(&mut self) -> Option<&'a str> {
        let text = self.0;
        if text.is_empty() {
            return None;
        }
        let space = text
            .as_bytes()
            .iter()
            .skip(SLICE_BYTES)
            .position(|&b| b == b' ' || b == b'\n')
            .map_or(text.len(), |i| SLICE_BYTES + i);
        let (slice, rest) = text.split_at(space);
        self.0 = rest;
        Some(slice)
    }
}

/// The `n` most frequent words, in no particular order. Ties are broken alphabetically.
pub(crate) fn most_frequent(counts: Counts, n: usize) -> Vec<(CompactString, u64)> {
    let mut all: Vec<(CompactString, u64)> = counts.into_iter().collect();
    if all.len() > n {
        all.select_nth_unstable_by(n, |a, b| b.1.cmp(&a.1).then_with(|| a.0.cmp(&b.0)));
        all.truncate(n);
    }
    all
}

/// The most frequent of these words whose lengths add up to at most `max_total`. Of equally frequent ones, the shortest
/// come first.
pub(crate) fn truncate_total(
    mut words: Vec<(CompactString, u64)>,
    max_total: usize,
    length: impl Fn(&str) -> usize,
) -> Vec<(CompactString, u64)> {
    let mut total = 0;
    if words.iter().map(|(word, _)| length(word)).sum::<usize>() > max_total {
        words.sort_unstable_by(|a, b| b.1.cmp(&a.1).then(a.0.len().cmp(&b.0.len())).then_with(|| a.0.cmp(&b.0)));
        words.retain(|(word, _)| {
            total += length(word);
            total <= max_total
        });
    }
    words
}

#[cfg(test)]
mod tests {
    use tokenizers::normalizers::BertNormalizer;

    use super::*;

    #[test]
    fn pruning_keeps_the_frequent_words() {
        let mut counts: Counts = (0..5000u64).map(|i| (CompactString::from(format!("w{i:04}")), 1)).collect();
        counts.insert("frequent".into(), 9);
        let text = "frequent other other".to_owned();
        let words = WordSplitter::new(BertNormalizer::default());
        let Counted { counts: total, words: seen, dropped, .. } = count_round(&words, counts, &[text], 2, 1000);
        assert_eq!((seen, total.len(), dropped), (3, 500, 4502));
        assert_eq!(total["frequent"], 10);
        assert_eq!(total["other"], 2);
        assert!(total.contains_key("w0000") && !total.contains_key("w4999"));
    }

    /// Lines of base64 are words of up to a hundred letters, each of which occurs once.
    #[test]
    fn memory_for_long_rare_words_is_limited() {
        let words = WordSplitter::new(BertNormalizer::default());
        let mut state = 1u64;
        let mut text = "word ".repeat(50);
        for number in 0..900 {
            let mut word = format!("{number}");
            for _ in 0..80 {
                state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                word.push(char::from(b'a' + (state >> 40) as u8 % 26));
            }
            text += &format!("{word} ");
        }
        text += &"x".repeat(500);
        let counted = count_round(&words, Counts::new(), &[text], 2, 1000);
        let bytes: usize = counted.counts.keys().map(|word| word.len()).sum();
        assert!(bytes <= 1000 * WORD_BYTES / 2, "{bytes}");
        assert_eq!((counted.counts["word"], counted.words, counted.long_words), (50, 950, 1));
        assert_eq!(counted.dropped, 901 - counted.counts.len() as u64);
        assert!(counted.dropped > 500);
    }
}
