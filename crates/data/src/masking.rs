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

use crate::DataError;
use crate::random::Random;
use crate::tokens::TokenTable;

/// How many tokens are predicted, and what replaces them in the input.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct Masking {
    /// Fraction of a sequence's tokens that are chosen, in (0, 1].
    pub rate: f64,
    /// Fraction of the chosen tokens that are replaced by \[MASK\].
    pub mask: f64,
    /// Fraction of the chosen tokens that are replaced by a random token. The remaining chosen tokens are unchanged.
    pub random: f64,
    /// Choose complete words, with their `##` pieces. The replacement is still chosen per piece, as in Google's code.
    pub whole_word: bool,
    /// Maximal number of predictions in a sequence; `None` for no limit. (Google's default of 20 chooses only 4 % of a
    /// sequence of 512.)
    pub max_predictions: Option<usize>,
}

impl Default for Masking {
    fn default() -> Masking {
        Masking { rate: 0.15, mask: 0.8, random: 0.1, whole_word: false, max_predictions: None }
    }
}

impl Masking {
    /// Checks that the fractions are in range.
    ///
    /// # Errors
    /// [`DataError::Option`] with the option, its range and its value.
    pub fn validate(&self) -> Result<(), DataError> {
        let reject = |option, reason| Err(DataError::Option { option, reason });
        // Written so that NaN is also rejected.
        if !(self.rate > 0.0 && self.rate <= 1.0) {
            let reason = format!("must be above 0 and at most 1, found {}", self.rate);
            return reject("masking.rate", reason);
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
        Ok(())
    }

    /// Number of tokens to choose in a sequence of `length` tokens, special tokens included.
    pub fn predictions(&self, length: usize) -> usize {
        // Rounds half to even, like Python's round().
        let count = (self.rate * length as f64).round_ties_even() as usize;
        count.max(1).min(self.max_predictions.unwrap_or(usize::MAX))
    }
}

/// Memory that is reused for all sequences.
#[derive(Debug, Default)]
pub(crate) struct MaskScratch {
    /// Words that can be chosen, as ranges of positions. Without `whole_word`, each token is a word.
    words: Vec<(u32, u32)>,
    /// After [`apply_mask`]: the chosen positions, ascending, with their original ids.
    pub(crate) chosen: Vec<(u32, i32)>,
}

/// Chooses tokens of one sequence `ids` and masks them in place. `scratch.chosen` then contains their positions and original
/// ids. It is empty only if all tokens of the sequence are special.
pub(crate) fn apply_mask(
    ids: &mut [i32],
    table: &TokenTable,
    masking: &Masking,
    random: &mut Random,
    scratch: &mut MaskScratch,
) {
    let MaskScratch { words, chosen } = scratch;
    words.clear();
    chosen.clear();
    let mut inside = false;
    for (at, &id) in (0u32..).zip(ids.iter()) {
        let id = id as u32;
        if table.is_special(id) {
            inside = false;
            continue;
        }
        match words.last_mut() {
            Some(word) if masking.whole_word && inside && table.is_continuation(id) => {
                word.1 = at + 1;
            }
            _ => words.push((at, at + 1)),
        }
        inside = true;
    }

    let budget = masking.predictions(ids.len());
    let mut take = |word: (u32, u32)| {
        chosen.extend((word.0..word.1).map(|at| (at, ids[at as usize])));
        chosen.len()
    };
    let mut taken = 0;
    // A lazy Fisher–Yates shuffle: only the part that is needed.
    for next in 0..words.len() {
        if taken >= budget {
            break;
        }
        let pick = next + random.below(words.len() - next);
        words.swap(next, pick);
        let word = words[next];
        // A word that would exceed the budget is skipped, as in Google's code.
        if taken + (word.1 - word.0) as usize <= budget {
            taken = take(word);
        }
    }
    if taken == 0
        && let Some(&shortest) = words.iter().min_by_key(|word| word.1 - word.0)
    {
        // Every word is longer than the budget. A sequence without predictions would be useless.
        take(shortest);
    }
    chosen.sort_unstable();

    for &(at, _) in chosen.iter() {
        let draw = random.unit();
        if draw < masking.mask {
            ids[at as usize] = table.special.mask as i32;
        } else if draw < masking.mask + masking.random {
            ids[at as usize] = loop {
                let id = random.below(table.vocab_size) as u32;
                if !table.is_special(id) {
                    break id as i32;
                }
            };
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

    fn run(masking: &Masking, times: u64, mut look: impl FnMut(&[i32], &[i32], &[(u32, i32)])) {
        let (table, mut scratch) = (table(), MaskScratch::default());
        for time in 0..times {
            let mut random = Random::keyed(5, Purpose::Mask, &[time]);
            let before = sequence(&mut random);
            let mut after = before.clone();
            apply_mask(&mut after, &table, masking, &mut random, &mut scratch);
            look(&before, &after, &scratch.chosen);
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
        run(&Masking::default(), 3000, |before, after, chosen| {
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
        let masking = Masking { whole_word: true, ..Masking::default() };
        let (mut total, mut multi) = (0, 0);
        run(&masking, 500, |before, _, chosen| {
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
        let masking = Masking { whole_word: true, ..Masking::default() };
        let mut scratch = MaskScratch::default();
        let mut random = Random::keyed(1, Purpose::Mask, &[]);
        let mut ids = vec![2, 7, 9, 12, 3];
        apply_mask(&mut ids, &table(), &masking, &mut random, &mut scratch);
        assert_eq!(scratch.chosen, [(1, 7), (2, 9), (3, 12)]);
        let mut ids = vec![2, 1, 1, 3];
        apply_mask(&mut ids, &table(), &masking, &mut random, &mut scratch);
        assert!(scratch.chosen.is_empty());
        assert_eq!(ids, [2, 1, 1, 3]);
    }

    #[test]
    fn counts_use_googles_rounding_and_limit() {
        let masking = Masking::default();
        let counts = [3, 10, 30, 127, 128, 512].map(|n| masking.predictions(n));
        // 0.45 → at least 1; 1.5 → 2; 4.5 → 4 (half to even); 19.05; 19.2; 76.8
        assert_eq!(counts, [1, 2, 4, 19, 19, 77]);
        let limited = Masking { max_predictions: Some(20), ..masking };
        assert_eq!([128, 512].map(|n| limited.predictions(n)), [19, 20]);
    }

    #[test]
    fn other_rates_and_fractions_are_applied() {
        let masking = Masking { rate: 0.4, mask: 0.0, random: 1.0, ..Masking::default() };
        masking.validate().unwrap();
        run(&masking, 50, |_, after, chosen| {
            assert_eq!(chosen.len(), 51);
            assert!(!after.contains(&4));
        });
        let all = Masking { rate: 1.0, mask: 1.0, random: 0.0, ..Masking::default() };
        run(&all, 5, |before, after, chosen| {
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
