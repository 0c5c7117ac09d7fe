//! Masks tokens for the masked language model (Devlin et al. 2019, section 3.1 and appendix A.1).
//!
//! As in Google's `create_masked_lm_predictions`, `min(max_predictions, max(1, round(rate · length)))` tokens of a
//! sequence are chosen, where the length includes `[CLS]` and `[SEP]`. Of the chosen tokens, 80 % are replaced by \[MASK\],
//! 10 % by a random token, and 10 % are unchanged; all of them are predicted. There are two differences from Google's code:
//! - The five special tokens are never chosen (also not \[UNK\], because predicting it teaches nothing) and never used as
//!   random tokens: \[CLS\] or \[PAD\] inside a text does not occur when the model is used.
//! - A word never crosses \[SEP\]. In Google's code it does if truncation makes B begin inside a word.
//!
//! All other tokens of the vocabulary can be used as random tokens, as in Google's code.
//!
//! [`MaskingUnit`] says what is chosen together. Units start at random words and are chosen until the number of tokens is
//! reached. A unit is shortened by words where it would exceed this number, and where a special token or a word that is
//! already chosen follows. (In ALBERT's code, an n-gram that overlaps another one is dropped, so that high rates are not
//! reached.) Only if each word has more tokens than that, the number is exceeded: the shortest word is chosen.

use crate::DataError;
use crate::random::Random;
use crate::tokens::TokenTable;

/// What is chosen together.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum MaskingUnit {
    /// Single tokens.
    #[default]
    Token,
    /// Complete words, with their `##` pieces. The replacement is chosen per token, as in Google's code.
    WholeWord,
    /// One to `max` consecutive words, n with a probability in proportion to 1/n; the replacement is chosen per token (Lan et
    /// al. 2020, "ALBERT", section 3.1, and its `create_pretraining_data.py`).
    Ngram {
        /// Maximal number of words; ALBERT's is 3.
        max: usize,
    },
    /// Spans of consecutive words. Their number has a geometric distribution with p = 0.2 up to 10: P(n) in proportion to
    /// 0.8ⁿ, with a mean of 3.8. A span is replaced as a unit: all its tokens by \[MASK\], all by random tokens, or none
    /// (Joshi et al. 2020, "SpanBERT", section 3.1).
    Span,
}

/// Maximal number of words in a span.
const MAX_SPAN: usize = 10;
/// The parameter p of the geometric distribution of a span's length.
const SPAN_P: f64 = 0.2;

impl MaskingUnit {
    /// Whether words must be recognised.
    pub fn needs_words(self) -> bool {
        self != MaskingUnit::Token
    }

    /// The number of words to choose together. It draws no random number if it is always 1.
    fn draw_length(self, random: &mut Random) -> usize {
        match self {
            MaskingUnit::Token | MaskingUnit::WholeWord => 1,
            MaskingUnit::Ngram { max } => draw_weighted(max, random, |n| 1.0 / n as f64),
            MaskingUnit::Span => draw_weighted(MAX_SPAN, random, |n| (1.0 - SPAN_P).powi(n as i32)),
        }
    }
}

/// A number from 1 to `max`, with a probability in proportion to its weight.
fn draw_weighted(max: usize, random: &mut Random, weight: impl Fn(usize) -> f64) -> usize {
    let mut rest = random.unit() * (1..=max).map(&weight).sum::<f64>();
    for n in 1..max {
        rest -= weight(n);
        if rest < 0.0 {
            return n;
        }
    }
    max
}

/// How many tokens are predicted, and what replaces them in the input.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct Masking {
    /// Fraction of a sequence's tokens that are chosen, in (0, 1]; with `final_rate`, at the start of the run.
    pub rate: f64,
    /// The rate at the end of the run. In between, the rate is linear in the run's progress.
    pub final_rate: Option<f64>,
    /// Fraction of the chosen tokens that are replaced by \[MASK\].
    pub mask: f64,
    /// Fraction of the chosen tokens that are replaced by a random token. The remaining chosen tokens are unchanged.
    pub random: f64,
    /// What is chosen together.
    pub unit: MaskingUnit,
    /// Maximal number of predictions in a sequence; `None` for no limit. (Google's default of 20 chooses only 4 % of a
    /// sequence of 512.)
    pub max_predictions: Option<usize>,
}

impl Default for Masking {
    fn default() -> Masking {
        Masking {
            rate: 0.15,
            final_rate: None,
            mask: 0.8,
            random: 0.1,
            unit: MaskingUnit::Token,
            max_predictions: None,
        }
    }
}

impl Masking {
    /// Checks that the fractions are in range.
    ///
    /// # Errors
    /// [`DataError::Option`] with the option, its range and its value.
    pub fn validate(&self) -> Result<(), DataError> {
        let reject = |option, reason| Err(DataError::Option { option, reason });
        for (option, rate) in
            [("masking.rate", self.rate), ("masking.final_rate", self.final_rate.unwrap_or(self.rate))]
        {
            // Written so that NaN is also rejected.
            if !(rate > 0.0 && rate <= 1.0) {
                return reject(option, format!("must be above 0 and at most 1, found {rate}"));
            }
        }
        for (option, fraction) in [("masking.mask", self.mask), ("masking.random", self.random)] {
            if !(0.0..=1.0).contains(&fraction) {
                return reject(option, format!("must be between 0 and 1, found {fraction}"));
            }
        }
        // Fractions such as 0.9 and 0.1 can add up to slightly more than 1 in binary.
        if self.mask + self.random > 1.0 + 1e-9 {
            let reason = format!("{} plus `masking.random` {} must be at most 1", self.mask, self.random);
            return reject("masking.mask", reason);
        }
        if self.max_predictions == Some(0) {
            let reason = "must be at least 1, found 0; leave it unset for no limit".to_string();
            return reject("masking.max_predictions", reason);
        }
        if self.unit == (MaskingUnit::Ngram { max: 0 }) {
            return reject("masking.unit", "must have n-grams of at least 1 word, found 0".to_string());
        }
        Ok(())
    }

    /// The rate when the fraction `progress` (0 to 1) of the run is done.
    pub fn rate_at(&self, progress: f64) -> f64 {
        self.final_rate.map_or(self.rate, |end| self.rate + (end - self.rate) * progress)
    }

    /// Number of tokens to choose in a sequence of `length` tokens, special tokens included, at this rate.
    fn predictions(&self, rate: f64, length: usize) -> usize {
        // Rounds half to even, like Python's round().
        let count = (rate * length as f64).round_ties_even() as usize;
        count.max(1).min(self.max_predictions.unwrap_or(usize::MAX))
    }
}

/// Memory that is reused for all sequences.
#[derive(Debug, Default)]
pub(crate) struct MaskScratch {
    /// The words that can be chosen, as ranges of positions, ascending. For [`MaskingUnit::Token`], each token is a word.
    words: Vec<(u32, u32)>,
    /// Whether each word is chosen.
    is_chosen: Vec<bool>,
    /// The words in the random order in which they are tried.
    order: Vec<u32>,
    /// After [`apply_mask`]: the units, as ranges of positions, ascending.
    units: Vec<(u32, u32)>,
    /// After [`apply_mask`]: the chosen positions, ascending, with their original ids.
    pub(crate) chosen: Vec<(u32, i32)>,
}

impl MaskScratch {
    /// Finds the words of a sequence.
    fn find_words(&mut self, ids: &[i32], table: &TokenTable, unit: MaskingUnit) {
        self.words.clear();
        let mut inside = false;
        for (at, &id) in (0u32..).zip(ids.iter()) {
            let id = id as u32;
            if table.is_special(id) {
                inside = false;
                continue;
            }
            match self.words.last_mut() {
                Some(word) if unit.needs_words() && inside && table.is_continuation(id) => {
                    word.1 = at + 1;
                }
                _ => self.words.push((at, at + 1)),
            }
            inside = true;
        }
        self.is_chosen.clear();
        self.is_chosen.resize(self.words.len(), false);
        self.order.clear();
        self.order.extend(0..self.words.len() as u32);
    }

    /// Chooses up to `budget` tokens.
    fn choose(&mut self, budget: usize, unit: MaskingUnit, random: &mut Random) {
        let MaskScratch { words, is_chosen, order, units, .. } = self;
        units.clear();
        let mut taken = 0;
        // A lazy Fisher–Yates shuffle: only the part that is needed.
        for next in 0..words.len() {
            if taken >= budget {
                break;
            }
            let pick = next + random.below(words.len() - next);
            order.swap(next, pick);
            let first = order[next] as usize;
            if is_chosen[first] {
                continue;
            }
            let (start, mut end) = (words[first].0, words[first].0);
            let length = unit.draw_length(random);
            for (word, is_chosen) in words[first..].iter().zip(&mut is_chosen[first..]).take(length) {
                // A word that would exceed the budget is left out, as in Google's code.
                if word.0 != end || *is_chosen || taken + (word.1 - word.0) as usize > budget {
                    break;
                }
                *is_chosen = true;
                taken += (word.1 - word.0) as usize;
                end = word.1;
            }
            if end > start {
                units.push((start, end));
            }
        }
        if units.is_empty() {
            // Every word is longer than the budget. A sequence without predictions would be useless.
            let in_order = order.iter().map(|&word| words[word as usize]);
            units.extend(in_order.min_by_key(|word| word.1 - word.0));
        }
        units.sort_unstable();
    }
}

/// What a chosen token becomes in the input.
#[derive(Clone, Copy)]
enum Replacement {
    Mask,
    Random,
    None,
}

impl Replacement {
    fn draw(masking: &Masking, random: &mut Random) -> Replacement {
        let draw = random.unit();
        if draw < masking.mask {
            Replacement::Mask
        } else if draw < masking.mask + masking.random {
            Replacement::Random
        } else {
            Replacement::None
        }
    }

    fn apply(self, id: &mut i32, table: &TokenTable, random: &mut Random) {
        match self {
            Replacement::Mask => *id = table.special.mask as i32,
            Replacement::Random => {
                *id = loop {
                    let id = random.below(table.vocab_size) as u32;
                    if !table.is_special(id) {
                        break id as i32;
                    }
                }
            }
            Replacement::None => {}
        }
    }
}

/// Chooses tokens of one sequence `ids` at a rate and masks them in place. `scratch.chosen` then contains their positions and
/// original ids. It is empty only if all tokens of the sequence are special.
pub(crate) fn apply_mask(
    ids: &mut [i32],
    table: &TokenTable,
    masking: &Masking,
    rate: f64,
    random: &mut Random,
    scratch: &mut MaskScratch,
) {
    scratch.find_words(ids, table, masking.unit);
    scratch.choose(masking.predictions(rate, ids.len()), masking.unit, random);
    let MaskScratch { units, chosen, .. } = scratch;
    chosen.clear();
    for &(start, end) in units.iter() {
        let mut of_unit = None;
        for at in start..end {
            let id = &mut ids[at as usize];
            chosen.push((at, *id));
            let replacement = match masking.unit {
                MaskingUnit::Span => *of_unit.get_or_insert_with(|| Replacement::draw(masking, random)),
                _ => Replacement::draw(masking, random),
            };
            replacement.apply(id, table, random);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::random::Purpose;
    use cloze_text::{Special, Template};

    /// Ids 0 to 4 are special; every third id from 5 on continues a word.
    fn table() -> TokenTable {
        TokenTable {
            vocab_size: 1000,
            special: Special { pad: 0, unk: 1, cls: 2, sep: 3, mask: 4 },
            template: Template::bert(2, 3),
            continuation: Some((0..1000).map(|id| id >= 5 && id % 3 == 0).collect()),
        }
    }

    /// [CLS] 60 random tokens [SEP] 64 random tokens (some \[UNK\]) [SEP].
    fn sequence(random: &mut Random) -> Vec<i32> {
        let mut ids = vec![2];
        for at in 0..125 {
            ids.push(match at {
                60 => 3,
                _ if random.chance(0.03) => 1,
                _ => 5 + random.below(995) as i32,
            });
        }
        ids.push(3);
        ids
    }

    fn run(masking: &Masking, times: u64, mut look: impl FnMut(&[i32], &[i32], &MaskScratch)) {
        let (table, mut scratch) = (table(), MaskScratch::default());
        for time in 0..times {
            let mut random = Random::keyed(5, Purpose::Mask, &[time]);
            let before = sequence(&mut random);
            let mut after = before.clone();
            apply_mask(&mut after, &table, masking, masking.rate, &mut random, &mut scratch);
            look(&before, &after, &scratch);
        }
    }

    /// Whether `count` of `total` is within five standard deviations of probability `p`.
    fn binomial(count: usize, total: usize, p: f64) -> bool {
        let sigma = (total as f64 * p * (1.0 - p)).sqrt();
        (count as f64 - total as f64 * p).abs() <= 5.0 * sigma
    }

    #[test]
    fn chosen_count_and_replacements_match_the_paper() {
        let table = table();
        let (mut chosen_total, mut masked, mut unchanged) = (0, 0, 0);
        let mut by_position = vec![0usize; 127];
        let mut random_ids = std::collections::HashSet::new();
        run(&Masking::default(), 3000, |before, after, MaskScratch { chosen, .. }| {
            // 0.15 · 127 = 19.05
            assert_eq!(chosen.len(), 19);
            assert!(chosen.is_sorted_by(|a, b| a.0 < b.0));
            for &(at, label) in chosen {
                let (was, is) = (before[at as usize], after[at as usize]);
                assert_eq!(was, label);
                assert!(!table.is_special(was as u32), "special {was} chosen");
                by_position[at as usize] += 1;
                chosen_total += 1;
                masked += usize::from(is == 4);
                unchanged += usize::from(is == was);
                if is != 4 && is != was {
                    assert!(!table.is_special(is as u32), "special {is} used as random token");
                    random_ids.insert(is);
                }
            }
            let rows: Vec<_> = chosen.iter().map(|c| c.0 as usize).collect();
            for at in (0..127).filter(|at| !rows.contains(at)) {
                assert_eq!(before[at], after[at], "a token that was not chosen was changed");
            }
        });
        assert!(binomial(masked, chosen_total, 0.8), "{masked} of {chosen_total}");
        // A random token equals the original token in one of 995 cases.
        assert!(binomial(unchanged, chosen_total, 0.1 + 0.1 / 995.0), "{unchanged} of {chosen_total}");
        // About 5700 random ids out of 995 omit about three.
        assert!(random_ids.len() > 980, "{} different ids", random_ids.len());
        assert_eq!((by_position[0], by_position[61], by_position[126]), (0, 0, 0));
        let candidates = 0.97 * 124.0;
        for (at, &count) in by_position.iter().enumerate() {
            assert!(
                [0, 61, 126].contains(&at) || binomial(count, 3000, 0.97 * 19.0 / candidates),
                "position {at} chosen {count} times"
            );
        }
    }

    #[test]
    fn whole_words_are_not_split() {
        let table = table();
        let masking = Masking { unit: MaskingUnit::WholeWord, ..Masking::default() };
        let (mut total, mut multi) = (0, 0);
        run(&masking, 500, |before, _, MaskScratch { chosen, .. }| {
            total += chosen.len();
            assert!(chosen.len() <= 19);
            let picked = |at: usize| chosen.iter().any(|c| c.0 as usize == at);
            for at in 1..before.len() {
                let joined = table.is_continuation(before[at] as u32) && !table.is_special(before[at - 1] as u32);
                if joined {
                    assert_eq!(picked(at), picked(at - 1), "a word was split at {at}");
                    multi += usize::from(picked(at));
                }
            }
        });
        assert!(multi > 500, "words of several pieces are also chosen");
        assert!(total > 18 * 500, "{total}");
    }

    #[test]
    fn one_long_word_is_chosen_entirely_and_special_tokens_never() {
        let masking = Masking { unit: MaskingUnit::WholeWord, ..Masking::default() };
        let mut scratch = MaskScratch::default();
        let mut random = Random::keyed(1, Purpose::Mask, &[]);
        let mut ids = vec![2, 7, 9, 12, 3];
        apply_mask(&mut ids, &table(), &masking, masking.rate, &mut random, &mut scratch);
        assert_eq!(scratch.chosen, [(1, 7), (2, 9), (3, 12)]);
        let mut ids = vec![2, 1, 1, 3];
        apply_mask(&mut ids, &table(), &masking, masking.rate, &mut random, &mut scratch);
        assert!(scratch.chosen.is_empty());
        assert_eq!(ids, [2, 1, 1, 3]);
    }

    /// The shares of the lengths 1, 2, … in `times` draws.
    fn drawn_lengths(unit: MaskingUnit, times: usize) -> Vec<f64> {
        let mut random = Random::keyed(3, Purpose::Mask, &[]);
        let mut counts = vec![0.0; MAX_SPAN];
        (0..times).for_each(|_| counts[unit.draw_length(&mut random) - 1] += 1.0 / times as f64);
        counts
    }

    #[test]
    fn lengths_have_the_distributions_of_the_papers() {
        let times = 100_000;
        let ngram = [6.0 / 11.0, 3.0 / 11.0, 2.0 / 11.0];
        // 0.2 · 0.8ⁿ⁻¹, divided by its sum up to 10.
        let span: Vec<f64> = (0..10).map(|n| 0.2 * 0.8f64.powi(n) / (1.0 - 0.8f64.powi(10))).collect();
        for (unit, expected) in [(MaskingUnit::Ngram { max: 3 }, &ngram[..]), (MaskingUnit::Span, &span[..])] {
            let found = drawn_lengths(unit, times);
            for (length, share) in found.iter().enumerate() {
                let expected = expected.get(length).copied().unwrap_or_default();
                let sigma = (expected * (1.0 - expected) / times as f64).sqrt();
                assert!((share - expected).abs() <= 5.0 * sigma, "{unit:?} {}: {share}, {expected}", length + 1);
            }
        }
        let lengths = drawn_lengths(MaskingUnit::Span, times);
        let mean: f64 = lengths.iter().zip(1..).map(|(share, length)| share * f64::from(length)).sum();
        assert!((mean - 3.8).abs() < 0.03, "{mean}");
    }

    /// The number of words in each unit of a masked sequence; checks that units consist of complete words of one text.
    fn words_of_units(before: &[i32], scratch: &MaskScratch) -> Vec<usize> {
        let table = table();
        let continues =
            |at: usize| table.is_continuation(before[at] as u32) && !table.is_special(before[at - 1] as u32);
        let words = |&(start, end): &(u32, u32)| {
            let (start, end) = (start as usize, end as usize);
            let is_complete = !continues(start) && (end == before.len() || !continues(end));
            assert!(is_complete, "a word was split");
            assert!(before[start..end].iter().all(|&id| !table.is_special(id as u32)), "a special token was chosen");
            1 + (start + 1..end).filter(|&at| !continues(at)).count()
        };
        scratch.units.iter().map(words).collect()
    }

    #[test]
    fn units_are_complete_words_within_the_budget() {
        for (unit, means) in [
            (MaskingUnit::Ngram { max: 3 }, 1.45..1.7),
            (MaskingUnit::Ngram { max: 1 }, 1.0..1.01),
            (MaskingUnit::Span, 2.5..3.0),
        ] {
            let masking = Masking { unit, ..Masking::default() };
            let (mut words, mut units, mut chosen) = (0, 0, 0);
            run(&masking, 2000, |before, _, scratch| {
                assert!(scratch.chosen.len() <= 19, "{}", scratch.chosen.len());
                let lengths = words_of_units(before, scratch);
                assert!(lengths.iter().all(|&length| length <= MAX_SPAN));
                words += lengths.iter().sum::<usize>();
                units += lengths.len();
                chosen += scratch.chosen.len();
            });
            // Shorter than what is drawn: units end at the budget, at special tokens and at chosen words.
            let mean = words as f64 / units as f64;
            assert!(means.contains(&mean), "{unit:?}: {mean}");
            assert!(chosen > 18 * 2000, "{unit:?}: {chosen} tokens");
        }
    }

    #[test]
    fn spans_in_long_texts_have_nearly_the_drawn_mean() {
        let masking = Masking { unit: MaskingUnit::Span, ..Masking::default() };
        let (mut scratch, mut tokens, mut spans) = (MaskScratch::default(), 0, 0);
        for time in 0..20 {
            let mut random = Random::keyed(5, Purpose::Mask, &[time]);
            // One text of words of one token.
            let mut ids: Vec<i32> = (0..20_000).map(|at| 7 + 3 * (at % 300)).collect();
            apply_mask(&mut ids, &table(), &masking, 0.02, &mut random, &mut scratch);
            assert_eq!(scratch.chosen.len(), 400);
            tokens += 400;
            spans += scratch.units.len();
        }
        let mean = f64::from(tokens) / spans as f64;
        assert!((mean - 3.8).abs() < 0.25, "{mean}");
    }

    #[test]
    fn a_span_is_replaced_as_a_unit_and_an_ngram_by_token() {
        let mixed_units = |unit: MaskingUnit| {
            let masking = Masking { unit, ..Masking::default() };
            let (mut masked, mut mixed, mut total) = (0, 0, 0);
            run(&masking, 500, |_, after, scratch| {
                for &(start, end) in &scratch.units {
                    let range = start as usize..end as usize;
                    let masks = after[range.clone()].iter().filter(|id| **id == 4).count();
                    masked += usize::from(masks == range.len());
                    mixed += usize::from(masks > 0 && masks < range.len());
                    total += 1;
                }
            });
            (masked, mixed, total)
        };
        let (masked, mixed, total) = mixed_units(MaskingUnit::Span);
        assert!(binomial(masked, total, 0.8) && mixed == 0, "{masked}, {mixed} of {total}");
        let (_, mixed, total) = mixed_units(MaskingUnit::Ngram { max: 3 });
        assert!(mixed * 8 > total, "{mixed} of {total}");
    }

    #[test]
    fn high_rates_are_reached_with_every_unit() {
        for unit in [MaskingUnit::WholeWord, MaskingUnit::Ngram { max: 3 }, MaskingUnit::Span] {
            let masking = Masking { rate: 1.0, mask: 1.0, random: 0.0, unit, ..Masking::default() };
            run(&masking, 20, |before, after, scratch| {
                let ordinary = before.iter().filter(|id| **id >= 5).count();
                assert_eq!(scratch.chosen.len(), ordinary, "{unit:?}");
                assert_eq!(after.iter().filter(|id| **id == 4).count(), ordinary);
            });
        }
    }

    #[test]
    fn the_rate_is_linear_in_progress() {
        let masking = Masking { rate: 0.3, final_rate: Some(0.15), ..Masking::default() };
        masking.validate().unwrap();
        let counts = [0.0, 0.5, 1.0].map(|progress| masking.predictions(masking.rate_at(progress), 100));
        // 22.5 is rounded half to even.
        assert_eq!(counts, [30, 22, 15]);
        assert_eq!(Masking::default().rate_at(0.7), 0.15);
    }

    #[test]
    fn counts_use_googles_rounding_and_limit() {
        let masking = Masking::default();
        let counts = [3, 10, 30, 127, 128, 512].map(|n| masking.predictions(0.15, n));
        // 0.45 → at least 1; 1.5 → 2; 4.5 → 4 (half to even); 19.05; 19.2; 76.8
        assert_eq!(counts, [1, 2, 4, 19, 19, 77]);
        let limited = Masking { max_predictions: Some(20), ..masking };
        assert_eq!([128, 512].map(|n| limited.predictions(0.15, n)), [19, 20]);
    }

    #[test]
    fn other_rates_and_fractions_are_applied() {
        let masking = Masking { rate: 0.4, mask: 0.0, random: 1.0, ..Masking::default() };
        masking.validate().unwrap();
        run(&masking, 50, |_, after, MaskScratch { chosen, .. }| {
            assert_eq!(chosen.len(), 51);
            assert!(!after.contains(&4));
        });
        let all = Masking { rate: 1.0, mask: 1.0, random: 0.0, ..Masking::default() };
        run(&all, 5, |before, after, MaskScratch { chosen, .. }| {
            let ordinary = before.iter().filter(|id| **id >= 5).count();
            assert_eq!(chosen.len(), ordinary);
            assert_eq!(after.iter().filter(|id| **id == 4).count(), ordinary);
        });
    }

    #[test]
    fn invalid_fractions_are_named_in_the_error() {
        let good = Masking::default();
        let bad = [
            (Masking { rate: 0.0, ..good.clone() }, "rate"),
            (Masking { rate: 1.5, ..good.clone() }, "rate"),
            (Masking { rate: f64::NAN, ..good.clone() }, "rate"),
            (Masking { final_rate: Some(0.0), ..good.clone() }, "masking.final_rate"),
            (Masking { unit: MaskingUnit::Ngram { max: 0 }, ..good.clone() }, "masking.unit"),
            (Masking { mask: -0.1, ..good.clone() }, "masking.mask"),
            (Masking { mask: 0.95, ..good.clone() }, "at most 1"),
            (Masking { max_predictions: Some(0), ..good.clone() }, "max_predictions"),
        ];
        for (masking, word) in bad {
            let text = masking.validate().unwrap_err().to_string();
            assert!(text.contains(word), "{text}");
        }
        good.validate().unwrap();
        Masking { mask: 0.9, random: 0.1, ..good }.validate().unwrap();
    }
}
