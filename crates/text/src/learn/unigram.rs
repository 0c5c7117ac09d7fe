//! Learns the pieces of a Unigram model (Kudo 2018, "Subword Regularization", as in SentencePiece).
//!
//! Frequent substrings are the first pieces. Expectation maximisation estimates their probabilities; the pieces whose removal
//! lowers the likelihood least are removed; and so on, until few enough are left.
//!
//! The `tokenizers` crate has such a trainer. Its result depends on the number of threads and on a hash map's order, because it
//! adds numbers in the order of its threads and gives scores to rare characters in the order of the map. Here, threads add
//! integers, so that the result does not depend on the order.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};

use cloze_files::machine::on_threads;
use compact_str::CompactString;
use daachorse::DoubleArrayAhoCorasick;

use crate::TextError;

/// Maximal length of a piece in characters.
const MAX_PIECE_CHARS: usize = 16;
/// Number of first pieces for each piece of the result, and their maximal number.
const SEEDS_PER_PIECE: usize = 32;
const MAX_SEEDS: usize = 1_000_000;
/// Each round keeps this fraction of the pieces.
const SHRINKING: f64 = 0.75;
/// Updates of the probabilities in each round.
const UPDATES: usize = 2;
/// Pieces with a lower expected count are removed.
const MIN_EXPECTED: f64 = 0.5;
/// Expected counts are integers: multiples of 1 / `UNIT`.
const UNIT: f64 = (1u64 << 20) as f64;
/// Number of words that a thread takes at once.
const BLOCK: usize = 1024;
/// The end of a word in the text of all words. No word contains it.
const END: u8 = 0;

/// The words to learn from, with their counts.
pub(super) struct Corpus<'a> {
    pub(super) words: &'a [(CompactString, u64)],
    /// Sorted; each gets a piece.
    pub(super) characters: &'a [char],
    /// Substrings that occur fewer times do not become pieces.
    pub(super) min_frequency: u64,
    pub(super) threads: usize,
}

/// Pieces with the logarithms of their probabilities. The characters are first.
struct Pieces {
    texts: Vec<String>,
    scores: Vec<f64>,
    characters: usize,
}

/// A piece in a word.
#[derive(Clone, Copy)]
struct Match {
    start: usize,
    end: usize,
    piece: usize,
}

/// Finds pieces in words.
struct Finder(DoubleArrayAhoCorasick<u32>);

impl Corpus<'_> {
    /// Learns `size` pieces, or fewer if the corpus has not enough substrings. The most probable piece is first.
    pub(super) fn learn(&self, size: usize) -> Result<Vec<(String, f64)>, TextError> {
        let mut pieces = self.seeds(size);
        // As in SentencePiece: the last selection is by probability.
        let last = (size * 11 / 10).max(self.characters.len());
        loop {
            let finder = Finder::new(&pieces)?;
            for _ in 0..UPDATES {
                let expected = self.expected(&finder, &pieces);
                pieces.update(&expected);
            }
            if pieces.texts.len() <= last {
                break;
            }
            let kept = ((pieces.texts.len() as f64 * SHRINKING) as usize).max(last);
            pieces = self.prune(&finder, pieces, kept);
        }
        Ok(pieces.best(size))
    }

    /// The characters, and the most frequent substrings (weighted by their lengths).
    fn seeds(&self, size: usize) -> Pieces {
        let mut text = Vec::new();
        let mut starts = Vec::with_capacity(self.words.len());
        for (word, _) in self.words {
            starts.push(text.len());
            text.extend_from_slice(word.as_bytes());
            text.push(END);
        }
        let count_at = |at: usize| self.words[starts.partition_point(|&start| start <= at) - 1].1;
        let suffixes = sorted_suffixes(&text, self.threads);
        let mut counts = vec![0u64; self.characters.len()];
        for (word, count) in self.words {
            for place in word.chars().filter_map(|c| self.characters.binary_search(&c).ok()) {
                counts[place] += count;
            }
        }
        let limit = (size * SEEDS_PER_PIECE).min(MAX_SEEDS);
        let mut found = Substrings { text: &text, limit, min_frequency: self.min_frequency, best: Vec::new() };
        // The open nodes of the suffix tree: length in bytes, count, a suffix.
        let mut open: Vec<(usize, u64, usize)> = vec![(0, 0, 0)];
        for (number, &suffix) in suffixes.iter().enumerate() {
            let suffix = suffix as usize;
            let next = suffixes.get(number + 1).map_or(0, |&next| common(&text, suffix, next as usize));
            let mut count = count_at(suffix);
            while let Some(&(length, inside, first)) = open.last()
                && length > next
            {
                open.pop();
                count += inside;
                found.add(first, length, count);
            }
            match open.last_mut() {
                Some(top) if top.0 == next => top.1 += count,
                _ => open.push((next, count, suffix)),
            }
        }
        let mut texts: Vec<String> = self.characters.iter().map(|c| c.to_string()).collect();
        let mut weights: Vec<f64> = counts.iter().map(|&count| count as f64).collect();
        for (score, piece) in found.finish() {
            texts.push(String::from_utf8_lossy(piece).into_owned());
            weights.push(score as f64);
        }
        let total: f64 = weights.iter().sum();
        let scores = weights.iter().map(|weight| (weight.max(MIN_EXPECTED) / total).ln()).collect();
        Pieces { texts, scores, characters: self.characters.len() }
    }

    /// Adds up what `each` computes for every word: the numbers of pieces, in multiples of an integer unit.
    fn sum(&self, pieces: usize, each: impl Fn(&str, u64, &mut Scratch, &mut [u64]) + Sync) -> Vec<u64> {
        let (next, total) = (AtomicUsize::new(0), Mutex::new(vec![0u64; pieces]));
        on_threads(self.threads, || {
            let (mut own, mut scratch) = (vec![0u64; pieces], Scratch::default());
            while let Some(block) = self.words.chunks(BLOCK).nth(next.fetch_add(1, Ordering::Relaxed)) {
                block.iter().for_each(|(word, count)| each(word, *count, &mut scratch, &mut own));
            }
            let mut total = total.lock().unwrap_or_else(PoisonError::into_inner);
            total.iter_mut().zip(own).for_each(|(sum, own)| *sum += own);
        });
        total.into_inner().unwrap_or_else(PoisonError::into_inner)
    }

    /// The expected count of each piece, over all segmentations of all words.
    fn expected(&self, finder: &Finder, pieces: &Pieces) -> Vec<f64> {
        let lengths = pieces.texts.iter().map(|text| text.len() as f64);
        // Each byte of a word is scaled by the same factor, which cancels out. With this one, the likelihood of a usual word
        // is about 1 whatever its length, so that no number underflows.
        let (mut bits, mut bytes) = (0.0, 0.0);
        for (&score, length) in pieces.scores.iter().zip(lengths.clone()).filter(|(score, _)| score.is_finite()) {
            bits -= score.exp() * score;
            bytes += score.exp() * length;
        }
        let scale = bits / bytes;
        let weights: Vec<f64> =
            pieces.scores.iter().zip(lengths).map(|(score, length)| (score + scale * length).exp()).collect();
        let sums = self.sum(pieces.texts.len(), |word, count, scratch, out| {
            let Scratch { matches, forward, backward, .. } = scratch;
            finder.find(word, matches);
            for sums in [&mut *forward, &mut *backward] {
                sums.clear();
                sums.resize(word.len() + 1, 0.0);
            }
            forward[0] = 1.0;
            backward[word.len()] = 1.0;
            for found in matches.iter() {
                forward[found.end] += forward[found.start] * weights[found.piece];
            }
            for found in matches.iter().rev() {
                backward[found.start] += backward[found.end] * weights[found.piece];
            }
            let unit = count as f64 * UNIT / forward[word.len()];
            if unit.is_finite() && forward[word.len()].is_normal() {
                for Match { start, end, piece } in matches.iter().copied() {
                    out[piece] += (forward[start] * weights[piece] * backward[end] * unit + 0.5) as u64;
                }
            } else {
                // The word is far less probable than usual: its best segmentation has all the weight.
                scratch.segment(finder, word, &pieces.scores, None);
                scratch.path.iter().for_each(|&piece| out[piece] += count * UNIT as u64);
            }
        });
        sums.into_iter().map(|sum| sum as f64 / UNIT).collect()
    }

    /// The `kept` pieces whose removal would lower the likelihood most, and the characters.
    fn prune(&self, finder: &Finder, pieces: Pieces, kept: usize) -> Pieces {
        let Pieces { texts, scores, characters } = &pieces;
        let used = self.sum(texts.len(), |word, count, scratch, out| {
            scratch.segment(finder, word, scores, None);
            scratch.path.iter().for_each(|&piece| out[piece] += count);
        });
        let total = used.iter().sum::<u64>() as f64;
        // What the likelihood loses without the piece, whose occurrences are then spelled with others.
        let loss = |piece: usize, scratch: &mut Scratch| {
            if used[piece] == 0 || !scores[piece].is_finite() {
                return None;
            }
            let alternative = scratch.segment(finder, &texts[piece], scores, Some(piece));
            if alternative > scores[piece] {
                return None;
            }
            let count = used[piece] as f64;
            let total_without = total + count * (scratch.path.len() as f64 - 1.0);
            let spelled = |&other: &usize| ((used[other] as f64 + count) / total_without).ln();
            Some(count * ((count / total).ln() - scratch.path.iter().map(spelled).sum::<f64>()))
        };
        let (next, losses) = (AtomicUsize::new(0), Mutex::new(Vec::new()));
        on_threads(self.threads, || {
            let (mut own, mut scratch) = (Vec::new(), Scratch::default());
            loop {
                let first = *characters + BLOCK * next.fetch_add(1, Ordering::Relaxed);
                if first >= texts.len() {
                    break;
                }
                let block = first..(first + BLOCK).min(texts.len());
                own.extend(block.filter_map(|piece| Some((loss(piece, &mut scratch)?, piece))));
            }
            losses.lock().unwrap_or_else(PoisonError::into_inner).extend(own);
        });
        let mut losses = losses.into_inner().unwrap_or_else(PoisonError::into_inner);
        losses.sort_unstable_by(|a, b| b.0.total_cmp(&a.0).then_with(|| texts[a.1].cmp(&texts[b.1])));
        losses.truncate(kept.saturating_sub(*characters));
        pieces.select(losses.into_iter().map(|(_, piece)| piece))
    }
}

/// Scratch memory of a thread.
#[derive(Default)]
struct Scratch {
    matches: Vec<Match>,
    forward: Vec<f64>,
    backward: Vec<f64>,
    /// The best segmentation.
    path: Vec<usize>,
    /// The last piece of the best segmentation up to each byte.
    last: Vec<Option<Match>>,
}

impl Scratch {
    /// Finds the best segmentation of `word`, without the piece `except`, and returns its score.
    fn segment(&mut self, finder: &Finder, word: &str, scores: &[f64], except: Option<usize>) -> f64 {
        let Scratch { matches, forward, path, last, .. } = self;
        finder.find(word, matches);
        forward.clear();
        forward.resize(word.len() + 1, f64::NEG_INFINITY);
        forward[0] = 0.0;
        last.clear();
        last.resize(word.len() + 1, None);
        for found in matches.iter().filter(|found| Some(found.piece) != except) {
            let score = forward[found.start] + scores[found.piece];
            if score > forward[found.end] {
                (forward[found.end], last[found.end]) = (score, Some(*found));
            }
        }
        path.clear();
        let mut at = word.len();
        while let Some(found) = last[at] {
            path.push(found.piece);
            at = found.start;
        }
        forward[word.len()]
    }
}

impl Finder {
    fn new(pieces: &Pieces) -> Result<Finder, TextError> {
        let numbered = pieces.texts.iter().zip(0u32..);
        DoubleArrayAhoCorasick::with_values(numbered)
            .map(Finder)
            .map_err(|e| TextError::Engine { action: "learn the vocabulary", reason: e.to_string() })
    }

    /// All pieces in a word, by their ends.
    fn find(&self, word: &str, out: &mut Vec<Match>) {
        out.clear();
        let found = self.0.find_overlapping_iter(word);
        out.extend(found.map(|found| Match { start: found.start(), end: found.end(), piece: found.value() as usize }));
    }
}

impl Pieces {
    /// Sets the probabilities from expected counts (a variational Bayes estimate, which lowers those of rare pieces).
    fn update(&mut self, expected: &[f64]) {
        let counts = || {
            expected.iter().enumerate().map(|(piece, &count)| match count {
                count if piece < self.characters => count.max(MIN_EXPECTED),
                count if count < MIN_EXPECTED => 0.0,
                count => count,
            })
        };
        let total = digamma(counts().sum());
        let score = |count: f64| if count > 0.0 { digamma(count) - total } else { f64::NEG_INFINITY };
        self.scores = counts().map(score).collect();
    }

    /// The characters and these pieces.
    fn select(self, pieces: impl Iterator<Item = usize>) -> Pieces {
        let chosen: Vec<usize> = (0..self.characters).chain(pieces).collect();
        let scores = chosen.iter().map(|&piece| self.scores[piece]).collect();
        let mut texts = self.texts;
        let texts = chosen.into_iter().map(|piece| std::mem::take(&mut texts[piece])).collect();
        Pieces { texts, scores, characters: self.characters }
    }

    /// The characters and the most probable other pieces, `size` in all, in descending order of probability.
    fn best(self, size: usize) -> Vec<(String, f64)> {
        let characters = self.characters;
        let descending = |a: &(String, f64), b: &(String, f64)| b.1.total_cmp(&a.1).then_with(|| a.0.cmp(&b.0));
        let mut all: Vec<(String, f64)> = self.texts.into_iter().zip(self.scores).collect();
        let mut others = all.split_off(characters);
        others.retain(|(_, score)| score.is_finite());
        others.sort_unstable_by(descending);
        others.truncate(size.saturating_sub(characters));
        all.extend(others);
        all.sort_unstable_by(descending);
        // SentencePiece stores scores in this precision.
        all.into_iter().map(|(piece, score)| (piece, f64::from(score as f32))).collect()
    }
}

/// Whether a character begins at this byte of a UTF-8 text.
fn is_start(byte: u8) -> bool {
    byte & 0xc0 != 0x80
}

/// The beginnings of all characters of `text`, sorted by the text from there to the end of the word (equal ones by position).
fn sorted_suffixes(text: &[u8], threads: usize) -> Vec<u32> {
    let is_suffix = |&(_, byte): &(usize, &u8)| *byte != END && is_start(*byte);
    let mut ends = [0usize; 257];
    text.iter().enumerate().filter(is_suffix).for_each(|(_, &byte)| ends[usize::from(byte) + 1] += 1);
    for byte in 0..256 {
        ends[byte + 1] += ends[byte];
    }
    // One bucket for each first byte, in the order of the text.
    let mut suffixes = vec![0u32; ends[256]];
    let mut next = ends;
    for (at, &byte) in text.iter().enumerate().filter(is_suffix) {
        suffixes[next[usize::from(byte)]] = at as u32;
        next[usize::from(byte)] += 1;
    }
    let mut rest = suffixes.as_mut_slice();
    let mut buckets = Vec::new();
    for byte in 0..256 {
        let (bucket, others) = rest.split_at_mut(ends[byte + 1] - ends[byte]);
        buckets.push(bucket);
        rest = others;
    }
    // The longest last, so that it is taken first.
    buckets.sort_by_key(|bucket| bucket.len());
    let buckets = Mutex::new(buckets);
    let compared = |at: u32| {
        let rest = &text[at as usize..];
        let end = memchr::memchr(END, &rest[..rest.len().min(4 * MAX_PIECE_CHARS)]);
        &rest[..end.unwrap_or(rest.len().min(4 * MAX_PIECE_CHARS))]
    };
    on_threads(threads, || {
        let take = || buckets.lock().unwrap_or_else(PoisonError::into_inner).pop();
        while let Some(bucket) = take() {
            bucket.sort_unstable_by(|&a, &b| compared(a).cmp(compared(b)).then(a.cmp(&b)));
        }
    });
    suffixes
}

/// The length in bytes of the text that two suffixes have in common: entire characters of one word, at most those of a piece.
fn common(text: &[u8], a: usize, b: usize) -> usize {
    let (mut length, mut chars) = (0, 0);
    for (at, (&x, &y)) in text[a..].iter().zip(&text[b..]).enumerate() {
        if is_start(x) {
            length = at;
            if chars == MAX_PIECE_CHARS {
                return length;
            }
            chars += 1;
        }
        if x != y || x == END {
            return length;
        }
    }
    length
}

/// The best of the substrings that were found.
struct Substrings<'a> {
    text: &'a [u8],
    limit: usize,
    min_frequency: u64,
    /// Score, position, length.
    best: Vec<(u64, u32, u32)>,
}

impl<'a> Substrings<'a> {
    fn add(&mut self, at: usize, length: usize, count: u64) {
        let chars = self.text[at..at + length].iter().filter(|&&byte| is_start(byte)).count();
        if chars < 2 || count < self.min_frequency.max(2) {
            return;
        }
        self.best.push((count * chars as u64, at as u32, length as u32));
        if self.best.len() >= (4 * self.limit).max(1 << 16) {
            self.shorten();
        }
    }

    fn shorten(&mut self) {
        let text = self.text;
        let piece = |&(_, at, length): &(u64, u32, u32)| &text[at as usize..(at + length) as usize];
        self.best.sort_unstable_by(|a, b| b.0.cmp(&a.0).then_with(|| piece(a).cmp(piece(b))));
        self.best.truncate(self.limit);
    }

    fn finish(mut self) -> impl Iterator<Item = (u64, &'a [u8])> {
        self.shorten();
        let text = self.text;
        self.best.into_iter().map(move |(score, at, length)| (score, &text[at as usize..(at + length) as usize]))
    }
}

/// The derivative of ln Γ.
fn digamma(mut x: f64) -> f64 {
    let mut result = 0.0;
    while x < 7.0 {
        result -= 1.0 / x;
        x += 1.0;
    }
    // The asymptotic series (Abramowitz & Stegun, 6.3.18).
    let inverse = 1.0 / (x * x);
    result + x.ln() - 0.5 / x - inverse * (1.0 / 12.0 - inverse * (1.0 / 120.0 - inverse / 252.0))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(list: &[(&str, u64)]) -> Vec<(CompactString, u64)> {
        list.iter().map(|&(word, count)| (word.into(), count)).collect()
    }

    fn characters(words: &[(CompactString, u64)]) -> Vec<char> {
        let mut all: Vec<char> = words.iter().flat_map(|(word, _)| word.chars()).collect();
        all.sort_unstable();
        all.dedup();
        all
    }

    #[test]
    fn digamma_is_accurate() {
        // −γ, and ψ(x + 1) = ψ(x) + 1/x.
        assert!((digamma(1.0) + 0.577_215_664_901_532_9).abs() < 1e-9);
        assert!((digamma(0.5) + 1.963_510_026_021_423_5).abs() < 1e-9);
        assert!((digamma(100.5) - 4.605_174_352_6).abs() < 1e-8);
    }

    #[test]
    fn seeds_are_the_repeated_substrings_with_their_counts() {
        let words = words(&[("▁aba", 3), ("▁abé", 2), ("bé", 1)]);
        let characters = characters(&words);
        let corpus = Corpus { words: &words, characters: &characters, min_frequency: 1, threads: 2 };
        let seeds = corpus.seeds(100);
        // The characters, and substrings that different characters follow. A substring of length n counts n times.
        assert_eq!(seeds.texts, ["a", "b", "é", "▁", "▁ab", "ab", "bé"]);
        let total = 8.0 + 6.0 + 3.0 + 5.0 + 15.0 + 10.0 + 6.0;
        let expected = [8.0, 6.0, 3.0, 5.0, 15.0, 10.0, 6.0].map(|weight: f64| (weight / total).ln());
        for (found, expected) in seeds.scores.iter().zip(expected) {
            assert!((found - expected).abs() < 1e-12, "{found} {expected}");
        }
    }

    /// All segmentations, one by one.
    fn segmentations(word: &str, pieces: &Pieces) -> Vec<(Vec<usize>, f64)> {
        if word.is_empty() {
            return vec![(Vec::new(), 1.0)];
        }
        let mut all = Vec::new();
        for (piece, text) in pieces.texts.iter().enumerate() {
            for (mut rest, p) in word.strip_prefix(text.as_str()).map_or(Vec::new(), |rest| segmentations(rest, pieces))
            {
                rest.push(piece);
                all.push((rest, p * pieces.scores[piece].exp()));
            }
        }
        all
    }

    #[test]
    fn expected_counts_and_best_segmentations_are_those_of_all_segmentations() {
        let words = words(&[("abab", 3), ("ba", 2), ("aaaa", 1)]);
        let texts: Vec<String> = ["a", "b", "ab", "ba", "aa", "aba"].map(str::to_owned).into();
        let scores = vec![-2.0, -3.0, -2.5, -4.0, -3.5, -4.5];
        let pieces = Pieces { texts, scores, characters: 2 };
        let finder = Finder::new(&pieces).unwrap();
        let corpus = Corpus { words: &words, characters: &['a', 'b'], min_frequency: 1, threads: 2 };
        let mut expected = [0.0; 6];
        let mut scratch = Scratch::default();
        for (word, count) in &words {
            let all = segmentations(word, &pieces);
            let total: f64 = all.iter().map(|(_, p)| p).sum();
            for (path, p) in &all {
                path.iter().for_each(|&piece| expected[piece] += *count as f64 * p / total);
            }
            let best = all.iter().map(|(_, p)| *p).fold(0.0, f64::max);
            assert!((scratch.segment(&finder, word, &pieces.scores, None).exp() - best).abs() < 1e-12);
        }
        for (found, expected) in corpus.expected(&finder, &pieces).iter().zip(expected) {
            assert!((found - expected).abs() < 1e-4, "{found} {expected}");
        }
    }

    /// Words whose likelihood is below the smallest number count with their best segmentation.
    #[test]
    fn improbable_words_do_not_vanish() {
        let words = words(&[(&"z".repeat(400), 2), ("a", 1_000_000_000)]);
        let corpus = Corpus { words: &words, characters: &['a', 'z'], min_frequency: 1, threads: 1 };
        let pieces = Pieces { texts: vec!["a".into(), "z".into()], scores: vec![-1e-9, -20.0], characters: 2 };
        let expected = corpus.expected(&Finder::new(&pieces).unwrap(), &pieces);
        assert_eq!(expected, [1e9, 800.0]);
    }

    #[test]
    fn pieces_are_the_parts_that_words_share() {
        let mut list = Vec::new();
        for stem in ["▁walk", "▁talk", "▁jump", "▁paint", "▁cook", "▁open"] {
            for ending in ["ing", "ed", "er", "s", ""] {
                list.push((CompactString::from(format!("{stem}{ending}")), 20));
            }
        }
        let characters = characters(&list);
        let learn = |threads, size| {
            Corpus { words: &list, characters: &characters, min_frequency: 2, threads }.learn(size).unwrap()
        };
        let found = learn(1, characters.len() + 9);
        let has = |piece: &str| found.iter().any(|(text, _)| text == piece);
        assert!(["▁jump", "▁paint", "▁open", "ing", "ed", "er"].into_iter().all(has), "{found:?}");
        assert_eq!(found.len(), characters.len() + 9);
        assert!(found.is_sorted_by(|a, b| a.1 >= b.1));
        assert_eq!(found, learn(3, characters.len() + 9));
        // There are not more substrings than this.
        let all = learn(2, 500);
        assert!(all.len() < 200 && characters.iter().all(|c| all.iter().any(|(text, _)| *text == c.to_string())));
    }
}
