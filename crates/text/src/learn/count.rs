//! Counts the words of texts in bounded memory, on several threads and ranks.
//!
//! All ranks read all texts, and each counts every n-th slice of them. A rank keeps its counts until all of them together could
//! have more words than are allowed; then rank 0 adds them up and drops the rarest words if there really are too many. So
//! words are dropped after the same texts, and the counts are the same, for any number of ranks.

use std::error::Error;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;

use ahash::AHashMap;
use cloze_comm::Communicator;
use cloze_files::machine::on_threads;
use compact_str::CompactString;
use xxhash_rust::xxh3::xxh3_64_with_seed;

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
    /// Distinct words in memory. While several ranks count, the sum of those of all ranks.
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
pub(crate) const ROUND_BYTES: usize = 32 << 20;
/// Memory per text in addition to its bytes.
const TEXT_BYTES: usize = 64;
/// Length of the longest part of a text that one thread counts at once.
const SLICE_BYTES: usize = 256 << 10;
/// Maximal bytes of the distinct words in memory, per word of `max_words`.
const WORD_BYTES: usize = 24;
/// Bytes of counts that rank 0 receives from the others at once.
const WINDOW: usize = 32 << 20;
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

/// How words are counted.
pub(crate) struct Counter<'a> {
    /// The ranks that share the work. All of them must count together.
    pub(crate) ranks: &'a Communicator,
    /// Threads of this rank; 0 is one per core.
    pub(crate) threads: usize,
    /// About this number of distinct words are held at most (see
    /// [`VocabularyOptions::max_words`](crate::VocabularyOptions::max_words)).
    pub(crate) max_words: usize,
    /// Bytes of text between two checks of the number of words.
    pub(crate) round_bytes: usize,
    /// Whether texts that differ between ranks are an error. Otherwise the counts are a sample.
    pub(crate) compares_texts: bool,
}

impl<'a> Counter<'a> {
    /// Of one process.
    pub(crate) fn single(ranks: &'a Communicator, threads: usize) -> Counter<'a> {
        Counter { ranks, threads, max_words: MAX_WORDS, round_bytes: ROUND_BYTES, compares_texts: false }
    }

    /// Counts words in rounds: while one round is counted, the next is read. Rank 0 gets the counts, the
    /// others nothing; all get the complete `state`.
    pub(crate) fn count<E>(
        &self,
        words: &impl Words,
        mut texts: impl Iterator<Item = Result<String, E>>,
        state: &mut LearnProgress,
        progress: &dyn Fn(LearnProgress),
    ) -> Result<Counts, TextError>
    where
        E: Into<Box<dyn Error + Send + Sync>>,
    {
        let Counter { ranks, max_words, .. } = *self;
        let threads = thread_count(self.threads);
        let share = (ranks.rank(), ranks.size());
        progress(*state);
        thread::scope(|scope| {
            let mut counting: Option<Counting<'_>> = None;
            let mut digest = 0;
            loop {
                let (mut round, mut bytes, mut text_bytes) = (Vec::new(), 0, 0);
                while bytes < self.round_bytes {
                    match texts.next() {
                        Some(Ok(text)) => {
                            bytes += text.len() + TEXT_BYTES;
                            text_bytes += text.len();
                            if !ranks.is_single() {
                                digest = xxh3_64_with_seed(text.as_bytes(), digest);
                            }
                            round.push(text);
                        }
                        Some(Err(error)) => return Err(TextError::Input(error.into())),
                        None => break,
                    }
                }
                let has_counted = counting.is_some();
                let mut counted = counting.take().map(Counting::finish).unwrap_or_default();
                let ended =
                    if ranks.is_single() { round.is_empty() } else { self.share(&mut counted, round.is_empty())? };
                if has_counted {
                    state.words += counted.words;
                    state.long_words += counted.long_words;
                    state.dropped += counted.dropped;
                    state.distinct = counted.distinct;
                    progress(*state);
                }
                if self.compares_texts {
                    self.compare(digest)?;
                }
                if ended {
                    return Ok(counted.counts);
                }
                state.bytes += text_bytes as u64;
                // The closure is shared: if the system cannot start a thread, this thread calls it.
                let work = Arc::new(Mutex::new(Some((counted.counts, round))));
                let count = {
                    let work = Arc::clone(&work);
                    move || {
                        let work = work.lock().unwrap_or_else(PoisonError::into_inner).take();
                        let counted = work.map(|(before, round)| count_round(words, before, &round, threads, share));
                        let mut counted = counted.unwrap_or_default();
                        // With several ranks, this is decided when all have counted.
                        if share.1 == 1 {
                            counted.prune(max_words);
                        }
                        counted
                    }
                };
                counting = Some(match thread::Builder::new().spawn_scoped(scope, count.clone()) {
                    Ok(thread) => Counting::Thread(thread),
                    Err(_) => Counting::Done(count()),
                });
            }
        })
    }

    /// Adds up what all ranks counted in a round. Rank 0 gets the words of the others if there could be too many, or at the end.
    /// Returns whether the texts of all ranks have ended.
    fn share(&self, counted: &mut Counted, ended: bool) -> Result<bool, TextError> {
        let Counter { ranks, max_words, .. } = *self;
        let bytes = word_bytes(&counted.counts) as u64;
        let mine = [counted.words, counted.long_words, counted.counts.len() as u64, bytes, u64::from(ended)];
        let all = ranks.all_gather_numbers(&mine);
        let sum = |column: usize| all.iter().skip(column).step_by(mine.len()).sum::<u64>();
        let all_ended = sum(4) == ranks.size() as u64;
        (counted.words, counted.long_words, counted.distinct) = (sum(0), sum(1), sum(2) as usize);
        // A word of several ranks is counted several times here, so this is an upper limit.
        if !all_ended && !are_too_many(counted.distinct, sum(3) as usize, max_words) {
            return Ok(false);
        }
        let mine = if ranks.is_root() { Vec::new() } else { encode(&std::mem::take(&mut counted.counts)) };
        ranks.gather_bytes(&mine, WINDOW, |rank, bytes| {
            let other_version = || {
                TextError::Ranks(format!("rank {rank} has another version of Cloze than rank 0: install the same one"))
            };
            add_encoded(bytes, &mut counted.counts).ok_or_else(other_version)
        })?;
        if ranks.is_root() {
            counted.prune(max_words);
        }
        let mut known = [counted.distinct as u64, counted.dropped];
        ranks.broadcast_numbers(&mut known);
        (counted.distinct, counted.dropped) = (known[0] as usize, known[1]);
        Ok(all_ended)
    }

    /// Compares the digests of the texts that the ranks have read.
    fn compare(&self, digest: u64) -> Result<(), TextError> {
        match self.ranks.first_difference(digest) {
            Some((rank, host)) => Err(TextError::Ranks(format!(
                "rank {rank} ({host}) reads other text than rank 0: all machines need the same files under the same paths"
            ))),
            None => Ok(()),
        }
    }
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
    /// All words so far, or those of this rank.
    counts: Counts,
    /// The number of distinct words.
    distinct: usize,
    /// Words in the round.
    words: u64,
    /// Words that were left out because they are too long.
    long_words: u64,
    /// Distinct words that were dropped.
    dropped: u64,
}

impl Counted {
    /// Drops the rarest words if there are too many.
    fn prune(&mut self, max_words: usize) {
        let before = self.counts.len();
        if are_too_many(before, word_bytes(&self.counts), max_words) {
            let frequent = most_frequent(std::mem::take(&mut self.counts), max_words / 2);
            self.counts = truncate_total(frequent, max_words * WORD_BYTES / 2, str::len).into_iter().collect();
        }
        self.distinct = self.counts.len();
        self.dropped = (before - self.distinct) as u64;
    }
}

fn word_bytes(counts: &Counts) -> usize {
    counts.keys().map(|word| word.len()).sum()
}

/// Whether so many distinct words, with so many bytes, are more than are allowed.
fn are_too_many(distinct: usize, bytes: usize, max_words: usize) -> bool {
    distinct > max_words || bytes > max_words * WORD_BYTES
}

/// Words with their counts: count, length, bytes.
fn encode(counts: &Counts) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(word_bytes(counts) + 12 * counts.len());
    for (word, count) in counts {
        bytes.extend_from_slice(&count.to_le_bytes());
        bytes.extend_from_slice(&(word.len() as u32).to_le_bytes());
        bytes.extend_from_slice(word.as_bytes());
    }
    bytes
}

/// Adds encoded counts; `None` if they are not valid.
fn add_encoded(mut bytes: &[u8], counts: &mut Counts) -> Option<()> {
    while !bytes.is_empty() {
        let count = u64::from_le_bytes(*bytes.split_off(..8)?.first_chunk()?);
        let length = u32::from_le_bytes(*bytes.split_off(..4)?.first_chunk()?);
        let word = std::str::from_utf8(bytes.split_off(..length as usize)?).ok()?;
        match counts.get_mut(word) {
            Some(sum) => *sum += count,
            None => {
                counts.insert(CompactString::from(word), count);
            }
        }
    }
    Some(())
}

/// Adds to `total` the words of this rank's slices of `round`: every `size`-th, from the one with the number `rank`.
fn count_round(
    words: &impl Words,
    mut total: Counts,
    round: &[String],
    threads: usize,
    (rank, size): (usize, usize),
) -> Counted {
    let slices: Vec<&str> = round.iter().flat_map(|text| Slices(text)).skip(rank).step_by(size).collect();
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
    Counted { counts: total, words: seen, long_words, ..Counted::default() }
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
    Counted { counts, words: seen, long_words, ..Counted::default() }
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
        let mut counted = count_round(&words, counts, &[text], 2, (0, 1));
        counted.prune(1000);
        let Counted { counts: total, words: seen, dropped, .. } = counted;
        assert_eq!((seen, total.len(), dropped), (3, 500, 4502));
        assert_eq!(total["frequent"], 10);
        assert_eq!(total["other"], 2);
        assert!(total.contains_key("w0000") && !total.contains_key("w4999"));
    }

    /// Words are dropped after the same rounds, from the same counts.
    #[test]
    fn the_number_of_ranks_changes_nothing_even_if_words_are_dropped() {
        let mut state = 1u64;
        let mut random = |below: u64| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            (state >> 33) % below
        };
        let mut line =
            || (0..30).map(|_| format!("w{} ", random(40) * random(60) * random(80) / 7)).collect::<String>();
        let lines: Vec<String> = (0..3000).map(|_| line()).collect();
        let words = WordSplitter::new(BertNormalizer::default());
        let count = |ranks: &Communicator, max_words| {
            let counter = Counter { ranks, threads: 2, max_words, round_bytes: 40_000, compares_texts: true };
            let mut state = LearnProgress::START;
            let texts = lines.iter().map(|line| Ok::<_, std::convert::Infallible>(line.clone()));
            let mut counts: Vec<_> = counter.count(&words, texts, &mut state, &|_| ()).unwrap().into_iter().collect();
            counts.sort_unstable();
            (counts, format!("{state:?}"), state.dropped)
        };
        for max_words in [1000, 4000, 100_000] {
            let (expected, progress, dropped) = count(&Communicator::single(), max_words);
            assert_eq!(dropped > 0, max_words < 100_000, "{dropped} of {max_words}");
            for size in [2, 3, 5] {
                let found = cloze_testing::ranks(size, |ranks| count(ranks, max_words));
                assert_eq!(found[0].0, expected, "{max_words} words on {size} ranks");
                assert!(found[1..].iter().all(|(counts, ..)| counts.is_empty()));
                assert!(found.iter().all(|(_, state, _)| *state == progress), "{found:?}");
            }
        }
    }

    #[test]
    fn encoded_counts_are_complete_or_refused() {
        let counts: Counts = [("a".into(), 3), ("w\u{f6}rter".into(), u64::MAX / 2)].into_iter().collect();
        let bytes = encode(&counts);
        let mut sum = counts.clone();
        assert_eq!(add_encoded(&bytes, &mut sum), Some(()));
        assert!(sum.len() == 2 && sum["a"] == 6 && sum["w\u{f6}rter"] == u64::MAX - 1);
        let cuts = (1..bytes.len()).filter(|&cut| add_encoded(&bytes[..cut], &mut Counts::new()).is_some());
        assert_eq!(cuts.count(), 1, "between the words");
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
        let mut counted = count_round(&words, Counts::new(), &[text], 2, (0, 1));
        counted.prune(1000);
        let bytes: usize = counted.counts.keys().map(|word| word.len()).sum();
        assert!(bytes <= 1000 * WORD_BYTES / 2, "{bytes}");
        assert_eq!((counted.counts["word"], counted.words, counted.long_words), (50, 950, 1));
        assert_eq!(counted.dropped, 901 - counted.counts.len() as u64);
        assert!(counted.dropped > 500);
    }
}
