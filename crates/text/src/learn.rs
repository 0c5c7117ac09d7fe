//! Learns a WordPiece vocabulary from text.
//!
//! This module counts words; the `tokenizers` crate's trainer then merges pieces. **Its "WordPiece" trainer is byte-pair
//! encoding with `##` prefixes: each step merges the most frequent pair of adjacent pieces**, whereas the original
//! WordPiece (Schuster & Nakajima 2012) merges the pair that most increases the corpus's likelihood. Only the learning
//! differs: encoding is the usual greedy longest match.
//!
//! The result depends only on the texts, their order and the options. It does not depend on the number of threads or on
//! chance: the trainer would number characters in a hash map's order, so they are numbered before it starts.

use std::error::Error;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;

use ahash::AHashMap;
use cloze_files::machine::on_threads;
use compact_str::CompactString;
use tokenizers::AddedToken;
use tokenizers::models::bpe::{BPE, BpeTrainer};
use tokenizers::normalizers::BertNormalizer;
use tokenizers::utils::parallelism::set_parallelism;

use crate::special::SPECIAL_TOKENS;
use crate::vocabulary::{CONTINUATION, MAX_WORD_CHARS};
use crate::words::WordSplitter;
use crate::{TextError, Tokenizer};

/// Options of [`learn`].
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct VocabularyOptions {
    /// Number of tokens, special tokens included. The result has fewer if the corpus has no more pairs to merge.
    pub size: usize,
    /// Keep case and accents. Otherwise text is lower-cased and accents are stripped.
    pub cased: bool,
    /// Keep accents, vowel signs and tone marks when text is lower-cased. `cased` always keeps them.
    pub keep_accents: bool,
    /// Pairs that occur fewer times than this are not merged.
    pub min_frequency: u64,
    /// Fraction of the corpus's characters that the vocabulary must be able to spell, in (0, 1]. The rarest characters
    /// beyond it get no token. Otherwise, words in scripts that the corpus hardly contains would fill the vocabulary.
    pub character_coverage: f64,
    /// Memory limit: when there are more distinct words than this, the rarest are dropped until half of this number remains
    /// (so a word that is rare everywhere is undercounted). Each takes about 60 bytes.
    pub max_words: usize,
    /// Threads for counting; 0 means one per core.
    pub threads: usize,
}

impl Default for VocabularyOptions {
    fn default() -> VocabularyOptions {
        VocabularyOptions {
            size: 30_522,
            cased: false,
            keep_accents: false,
            min_frequency: 2,
            character_coverage: 0.999_99,
            max_words: MAX_WORDS,
            threads: 0,
        }
    }
}

impl VocabularyOptions {
    fn normalizer(&self) -> BertNormalizer {
        BertNormalizer::new(true, true, self.keep_accents.then_some(false), !self.cased)
    }

    /// Whether accents and other marks are stripped.
    pub fn strips_accents(&self) -> bool {
        !self.cased && !self.keep_accents
    }
}

/// The stage of [`learn`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum LearnStage {
    /// Reading text and counting words.
    Counting,
    /// Merging pieces. This takes seconds to a minute, without progress reports.
    Merging,
    /// Done.
    Finished,
}

/// Progress of [`learn`], reported after every 32 MB of text and at each change of stage.
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
    /// Distinct characters without a token (see [`VocabularyOptions::character_coverage`]); 0 while counting.
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

/// The default of [`VocabularyOptions::max_words`].
pub(crate) const MAX_WORDS: usize = 2_000_000;
/// Bytes of text counted between two checks of the number of distinct words. It does not depend on the number of
/// threads, so neither does the pruning.
const ROUND_BYTES: usize = 32 << 20;
/// Memory per text in addition to its bytes.
const TEXT_BYTES: usize = 64;
/// Length of the longest part of a text that one thread counts at once.
const SLICE_BYTES: usize = 256 << 10;
/// Maximal number of words given to the trainer, the most frequent ones: it needs about 500 bytes for each.
const TRAINED_WORDS: usize = 500_000;
/// Maximal number of characters of these words: lines of data such as base64 are words of up to a hundred characters.
const TRAINED_CHARS: usize = 8_000_000;
/// Maximal bytes of the distinct words in memory, per word of `max_words`.
const WORD_BYTES: usize = 24;
/// The trainer counts pairs in `i32`. This limit leaves a margin.
const MAX_PAIR_COUNT: u64 = 1 << 30;

pub(crate) type Counts = AHashMap<CompactString, u64>;

/// Learns a vocabulary from `texts` (lines, paragraphs or documents, in any mixture). The special tokens come first, then
/// characters by code point, then pieces in the order in which they were merged.
///
/// Memory is limited for any corpus: 64 MB of text, `max_words` distinct words, and the trainer's data for the half
/// million most frequent ones.
///
/// # Errors
/// The iterator's own error ([`TextError::Input`]), a corpus without words, a size that is too small for the corpus's
/// characters, an option out of range.
pub fn learn<E>(
    options: &VocabularyOptions,
    texts: impl Iterator<Item = Result<String, E>>,
    progress: &dyn Fn(LearnProgress),
) -> Result<Tokenizer, TextError>
where
    E: Into<Box<dyn Error + Send + Sync>>,
{
    check(options)?;
    let words = WordSplitter::new(options.normalizer());
    let mut state = LearnProgress::START;
    let counts = count_in_rounds(options.threads, options.max_words, &words, texts, &mut state, progress)?;
    if counts.is_empty() {
        return Err(TextError::EmptyCorpus { bytes: state.bytes });
    }
    let alphabet = Alphabet::choose(&counts, options.character_coverage);
    state.characters = alphabet.starts.len();
    state.characters_left_out = alphabet.left_out;
    let needed = SPECIAL_TOKENS.len() + alphabet.starts.len() + alphabet.continuations.len();
    if options.size < needed {
        return Err(TextError::VocabularyTooSmall { size: options.size, needed, characters: alphabet.starts.len() });
    }
    state.stage = LearnStage::Merging;
    progress(state);
    let tokens = merge(options, counts, &alphabet)?;
    let tokenizer = Tokenizer::from_tokens_normalized(tokens, options.normalizer())?;
    state.stage = LearnStage::Finished;
    progress(state);
    Ok(tokenizer)
}

/// Counts the words of `texts` as [`learn`] does, but learns nothing. It measures a corpus and the reading speed. Returns
/// the number of distinct words.
///
/// # Errors
/// Those of `learn` that occur before it merges pieces.
pub fn count_words<E>(
    options: &VocabularyOptions,
    texts: impl Iterator<Item = Result<String, E>>,
) -> Result<usize, TextError>
where
    E: Into<Box<dyn Error + Send + Sync>>,
{
    check(options)?;
    let words = WordSplitter::new(options.normalizer());
    let mut state = LearnProgress::START;
    let counts = count_in_rounds(options.threads, options.max_words, &words, texts, &mut state, &|_| ())?;
    if counts.is_empty() { Err(TextError::EmptyCorpus { bytes: state.bytes }) } else { Ok(counts.len()) }
}

/// The trainer allocates memory for all tokens before the first merge.
const MAX_TOKENS: usize = 1 << 24;

fn check(options: &VocabularyOptions) -> Result<(), TextError> {
    let coverage = options.character_coverage;
    if !(coverage > 0.0 && coverage <= 1.0) {
        return Err(TextError::BadOption {
            option: "character_coverage",
            found: coverage.to_string(),
            expected: "above 0 and at most 1",
        });
    }
    if options.max_words < 1000 {
        return Err(TextError::BadOption {
            option: "max_words",
            found: options.max_words.to_string(),
            expected: "at least 1000",
        });
    }
    if options.size <= SPECIAL_TOKENS.len() {
        return Err(TextError::BadOption {
            option: "size",
            found: options.size.to_string(),
            expected: "greater than 5, the number of special tokens",
        });
    }
    if options.size > MAX_TOKENS {
        return Err(TextError::BadOption {
            option: "size",
            found: options.size.to_string(),
            expected: "at most 16,777,216",
        });
    }
    Ok(())
}

/// Counts words in rounds of [`ROUND_BYTES`]: while one round is counted, the next is read. About `max_words` distinct
/// words are held at most (see [`VocabularyOptions::max_words`]). If `threads` is 0, one thread per core is used.
pub(crate) fn count_in_rounds<E>(
    threads: usize,
    max_words: usize,
    words: &WordSplitter,
    mut texts: impl Iterator<Item = Result<String, E>>,
    state: &mut LearnProgress,
    progress: &dyn Fn(LearnProgress),
) -> Result<Counts, TextError>
where
    E: Into<Box<dyn Error + Send + Sync>>,
{
    let threads = match threads {
        0 => thread::available_parallelism().map_or(1, |n| n.get()),
        n => n,
    };
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

/// Whether the system can start this number of threads now.
fn can_start(threads: usize) -> bool {
    let gate = Mutex::new(());
    thread::scope(|scope| {
        // They all wait for the lock, so that they exist at the same time.
        let _closed = gate.lock();
        (0..threads).all(|_| thread::Builder::new().spawn_scoped(scope, || drop(gate.lock())).is_ok())
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
fn count_round(words: &WordSplitter, mut total: Counts, round: &[String], threads: usize, max_words: usize) -> Counted {
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

fn count_slices(words: &WordSplitter, slices: &[&str], next: &AtomicUsize) -> Counted {
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

/// The parts of a text, about [`SLICE_BYTES`] each, cut at spaces, so that no word is split.
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
            .map_or(text.len(), |i| SLICE_BYTES + i + 1);
        let (slice, rest) = text.split_at(space);
        self.0 = rest;
        Some(slice)
    }
}

/// The `n` most frequent words, in no particular order. Ties are broken alphabetically.
fn most_frequent(counts: Counts, n: usize) -> Vec<(CompactString, u64)> {
    let mut all: Vec<(CompactString, u64)> = counts.into_iter().collect();
    if all.len() > n {
        all.select_nth_unstable_by(n, |a, b| b.1.cmp(&a.1).then_with(|| a.0.cmp(&b.0)));
        all.truncate(n);
    }
    all
}

/// The most frequent of these words whose lengths add up to at most `max_total`. Of equally frequent ones, the shortest
/// come first.
fn truncate_total(
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

/// The characters that get tokens, by code point.
struct Alphabet {
    /// All of them; any may begin a word.
    starts: Vec<char>,
    /// Those that also occur inside words.
    continuations: Vec<char>,
    left_out: usize,
}

impl Alphabet {
    fn choose(counts: &Counts, coverage: f64) -> Alphabet {
        let mut seen: AHashMap<char, (u64, bool)> = AHashMap::new();
        for (word, &count) in counts {
            for (i, c) in word.chars().enumerate() {
                let entry = seen.entry(c).or_default();
                entry.0 += count;
                entry.1 |= i > 0;
            }
        }
        let total: u64 = seen.values().map(|&(count, _)| count).sum();
        let mut order: Vec<(char, u64, bool)> = seen.into_iter().map(|(c, (n, inside))| (c, n, inside)).collect();
        order.sort_unstable_by(|a, b| b.1.cmp(&a.1).then(a.0.cmp(&b.0)));
        // The number of occurrences that may be left uncovered, spent on the rarest characters.
        let mut budget = ((1.0 - coverage) * total as f64) as u64;
        let mut covered = order.len();
        while covered > 0 && order[covered - 1].1 <= budget {
            budget -= order[covered - 1].1;
            covered -= 1;
        }
        let left_out = order.len() - covered;
        order.truncate(covered);
        order.sort_unstable_by_key(|&(c, ..)| c);
        Alphabet {
            starts: order.iter().map(|&(c, ..)| c).collect(),
            continuations: order.iter().filter(|o| o.2).map(|&(c, ..)| c).collect(),
            left_out,
        }
    }
}

/// Runs the trainer; returns the tokens in the order of their ids.
fn merge(options: &VocabularyOptions, counts: Counts, alphabet: &Alphabet) -> Result<Vec<String>, TextError> {
    let spelled: Counts = counts
        .into_iter()
        .filter(|(word, _)| word.chars().all(|c| alphabet.starts.binary_search(&c).is_ok()))
        .collect();
    let trained = truncate_total(most_frequent(spelled, TRAINED_WORDS), TRAINED_CHARS, |word| word.chars().count());
    let mut counts: Counts = trained.into_iter().collect();
    let mut min_frequency = options.min_frequency;
    let divisor = count_divisor(&counts);
    if divisor > 1 {
        for count in counts.values_mut() {
            *count = (*count / divisor).max(1);
        }
        min_frequency = min_frequency.div_ceil(divisor);
    }
    // Characters that are declared in advance get ids in our order. Otherwise the trainer numbers them in the order of
    // its hash map, and ids differ from run to run, as does the choice among equally frequent pairs.
    let first = SPECIAL_TOKENS
        .iter()
        .map(|&token| token.to_owned())
        .chain(alphabet.starts.iter().map(|c| c.to_string()))
        .chain(alphabet.continuations.iter().map(|c| format!("{CONTINUATION}{c}")))
        .map(|token| AddedToken::from(token, true))
        .collect();
    if !can_start(thread::available_parallelism().map_or(1, |n| n.get())) {
        // Otherwise the trainer would panic when it starts its threads.
        set_parallelism(false);
    }
    let trainer = BpeTrainer::builder()
        .continuing_subword_prefix(CONTINUATION.into())
        .special_tokens(first)
        .vocab_size(options.size)
        .min_frequency(min_frequency)
        .show_progress(false)
        .build();
    let mut model = BPE::default();
    trainer
        .do_train(&counts, &mut model)
        .map_err(|e| TextError::Engine { action: "learn the vocabulary", reason: e.to_string() })?;
    let mut tokens: Vec<(u32, String)> = model.get_vocab().into_iter().map(|(token, id)| (id, token)).collect();
    tokens.sort_unstable();
    Ok(tokens.into_iter().map(|(_, token)| token).collect())
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

#[cfg(test)]
mod tests {
    use super::*;
    use std::cell::RefCell;
    use std::convert::Infallible;

    fn ignore(_: LearnProgress) {}

    fn texts(lines: &[&str]) -> impl Iterator<Item = Result<String, Infallible>> {
        lines.iter().map(|&line| Ok(line.to_owned())).collect::<Vec<_>>().into_iter()
    }

    fn options(size: usize) -> VocabularyOptions {
        VocabularyOptions { size, ..VocabularyOptions::default() }
    }

    fn tokens(tokenizer: &Tokenizer) -> Vec<&str> {
        (0..tokenizer.vocab_size() as u32).map(|id| tokenizer.token(id).unwrap()).collect()
    }

    /// Deterministic words of one to three syllables with a skewed distribution.
    fn synthetic_text(n: usize) -> String {
        let syllables = ["ka", "lo", "mi", "Ne", "tu", "ré", "san", "or", "eth", "ix"];
        let (mut state, mut text) = (7u64, String::new());
        for i in 0..n {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            let mut x = (state >> 33) as usize;
            for _ in 0..1 + x % 3 {
                text.push_str(syllables[(x * x) % syllables.len()]);
                x /= 5;
            }
            text.push(if i % 11 == 10 { '.' } else { ' ' });
        }
        text
    }

    #[test]
    fn special_tokens_then_characters_then_frequent_pieces() {
        let corpus = ["The cat sat. The cats sat!", "the cat"];
        let learned = learn(&options(30), texts(&corpus), &ignore).unwrap();
        let all = tokens(&learned);
        assert_eq!(all[..5], SPECIAL_TOKENS);
        assert_eq!(all[5..12], ["!", ".", "a", "c", "e", "h", "s"]);
        assert!(all.contains(&"the") && all.contains(&"cat"), "{all:?}");
        assert!(!all.contains(&"The"));
        assert_eq!(learned.decode(&learned.encode("THE cats")), "the cats");
        let cased = VocabularyOptions { cased: true, ..options(30) };
        let learned = learn(&cased, texts(&corpus), &ignore).unwrap();
        assert!(learned.is_cased());
        assert!(tokens(&learned).contains(&"T"));
    }

    #[test]
    fn result_is_deterministic_and_independent_of_threads() {
        let text = synthetic_text(40_000);
        let lines: Vec<&str> = text.split('.').collect();
        let run = |threads, lines: &[&str]| {
            let options = VocabularyOptions { threads, ..options(400) };
            learn(&options, texts(lines), &ignore).unwrap().fingerprint()
        };
        let one = run(1, &lines);
        assert_eq!(one, run(4, &lines));
        assert_eq!(one, run(3, &lines));
        // One long text is cut into slices for the threads.
        assert_eq!(one, run(3, &[&text.replace('.', " ")]).clone());
    }

    #[test]
    fn size_is_reached_and_an_error_reports_the_minimum() {
        let text = synthetic_text(20_000);
        let learned = learn(&options(200), texts(&[&text]), &ignore).unwrap();
        assert_eq!(learned.vocab_size(), 200);
        let error = learn(&options(12), texts(&[&text]), &ignore).unwrap_err();
        let TextError::VocabularyTooSmall { needed, .. } = error else {
            panic!("{error}");
        };
        assert!(error.to_string().contains(&needed.to_string()));
        assert_eq!(learn(&options(needed), texts(&[&text]), &ignore).unwrap().vocab_size(), needed);
    }

    #[test]
    fn a_high_minimum_frequency_merges_less() {
        let text = synthetic_text(2_000);
        let frequent = VocabularyOptions { min_frequency: 500, ..options(300) };
        let few = learn(&frequent, texts(&[&text]), &ignore).unwrap();
        let many = learn(&options(300), texts(&[&text]), &ignore).unwrap();
        assert!(few.vocab_size() < many.vocab_size());
    }

    #[test]
    fn empty_corpora_and_failing_readers_are_errors() {
        for lines in [&[][..], &["", " \n\t "][..]] {
            let error = learn(&options(100), texts(lines), &ignore).unwrap_err();
            assert!(matches!(error, TextError::EmptyCorpus { .. }), "{error}");
        }
        let failing = [Ok("a".to_owned()), Err("corpus.txt: bad byte")].into_iter();
        let error = learn(&options(100), failing, &ignore).unwrap_err();
        assert_eq!(error.to_string(), "corpus.txt: bad byte");
    }

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

    #[test]
    fn r22_marks_can_be_kept_when_text_is_lower_cased() {
        let options = VocabularyOptions { keep_accents: true, ..options(60) };
        let learned = learn(&options, texts(&["Möchte möchte MÖCHTE हिन्दी हिन्दी"]), &ignore).unwrap();
        assert!(!learned.is_cased() && !learned.strips_accents());
        assert_eq!(learned.decode(&learned.encode("MÖCHTE हिन्दी")), "möchte हिन्दी");
        let dir = tempfile::tempdir().unwrap();
        learned.save(dir.path()).unwrap();
        let again = Tokenizer::open(dir.path()).unwrap();
        assert_eq!((again.fingerprint(), again.strips_accents()), (learned.fingerprint(), false));
    }

    #[test]
    fn huge_counts_are_divided() {
        let counts: Counts = [("abab".into(), 1 << 33), ("cd".into(), 5)].into_iter().collect();
        assert!(count_divisor(&counts) >= 8);
        let alphabet = Alphabet::choose(&counts, 1.0);
        let all = merge(&options(100), counts, &alphabet).unwrap();
        assert!(all.contains(&"abab".to_owned()), "{all:?}");
    }

    #[test]
    fn rare_characters_are_left_out_only_beyond_the_coverage() {
        let counts: Counts = [("ab".into(), 100_000), ("\u{416}".into(), 3)].into_iter().collect();
        assert_eq!(Alphabet::choose(&counts, 1.0).starts, ['a', 'b', '\u{416}']);
        let chosen = Alphabet::choose(&counts, 0.9999);
        assert_eq!((chosen.starts, chosen.left_out), (vec!['a', 'b'], 1));
        assert_eq!(chosen.continuations, ['b']);
    }

    #[test]
    fn progress_reports_stages_bytes_and_words() {
        let seen = RefCell::new(Vec::new());
        learn(&options(40), texts(&["one two", "two three"]), &|p| {
            seen.borrow_mut().push(p);
        })
        .unwrap();
        let seen = seen.into_inner();
        let last = seen.last().unwrap();
        assert_eq!(seen[0].stage, LearnStage::Counting);
        assert_eq!(last.stage, LearnStage::Finished);
        assert_eq!((last.bytes, last.words, last.distinct), (16, 4, 3));
    }

    #[test]
    fn options_out_of_range_are_named_in_the_error() {
        let bad = VocabularyOptions { character_coverage: 0.0, ..options(100) };
        let error = learn(&bad, texts(&["a"]), &ignore).unwrap_err().to_string();
        assert!(error.contains("`character_coverage` must be above 0 and at most 1, found 0"), "{error}");
        assert!(learn(&options(5), texts(&["a"]), &ignore).is_err());
    }
}
