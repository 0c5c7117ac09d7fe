//! Hiding tokens for the masked language model (Devlin et al. 2019, section 3.1 and appendix A.1).
//!
//! As in Google's `create_masked_lm_predictions`: `min(max_predictions, max(1, round(rate · length)))` tokens of a
//! sequence are chosen, the length counting `[CLS]` and `[SEP]`; of the chosen, 80 % show \[MASK\], 10 % a random token and
//! 10 % themselves; all of them are predicted. Where this differs from Google's code:
//! - none of the five special tokens is ever chosen (\[UNK\] included: there is nothing to learn from predicting it),
//!   nor drawn as a random token: \[CLS\] or \[PAD\] inside a text is a thing that no reader of the model will meet;
//! - a word never reaches across \[SEP\], which happens there when truncation starts B inside a word.
//!
//! Everything else of the vocabulary may be drawn as a random token, as there.

use crate::DataError;
use crate::random::Random;
use crate::tokens::TokenTable;

/// How many tokens are predicted, and what is shown in their place.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct Masking {
    /// Share of a sequence's tokens that are chosen, in (0, 1].
    pub rate: f64,
    /// Share of the chosen that show \[MASK\].
    pub mask: f64,
    /// Share of the chosen that show a random token. The rest of the chosen show themselves.
    pub random: f64,
    /// Choose whole words: a word's `##` pieces with it. What is shown is still drawn piece by piece, as in Google's code.
    pub whole_word: bool,
    /// At most this many predictions in a sequence; no limit if `None`. (Google's default of 20 chooses only 4 % of a
    /// sequence of 512.)
    pub max_predictions: Option<usize>,
}

impl Default for Masking {
    fn default() -> Masking {
        Masking { rate: 0.15, mask: 0.8, random: 0.1, whole_word: false, max_predictions: None }
    }
}

impl Masking {
    /// Checks that the shares are shares.
    ///
    /// # Errors
    /// [`DataError::Option`] names the value and its range.
    pub fn validate(&self) -> Result<(), DataError> {
        let refuse = |option, reason| Err(DataError::Option { option, reason });
        // Written so that NaN is refused too.
        if !(self.rate > 0.0 && self.rate <= 1.0) {
            let reason = format!("is {}; expected more than 0 and at most 1", self.rate);
            return refuse("masking rate", reason);
        }
        for (option, share) in [("masking share of [MASK]", self.mask), ("masking share of random tokens", self.random)]
        {
            if !(0.0..=1.0).contains(&share) {
                return refuse(option, format!("is {share}; expected 0 to 1"));
            }
        }
        // Shares such as 0.9 and 0.1 add up to a hair over 1 in binary.
        if self.mask + self.random > 1.0 + 1e-9 {
            let reason = format!("[MASK] {} and random {} add up to more than 1", self.mask, self.random);
            return refuse("masking shares", reason);
        }
        if self.max_predictions == Some(0) {
            let reason = "is 0; expected at least 1, or none for no limit".to_string();
            return refuse("max_predictions", reason);
        }
        Ok(())
    }

    /// How many tokens of a sequence of `length` (specials included) are to be chosen.
    pub fn predictions(&self, length: usize) -> usize {
        // Half to even, as Python's round().
        let wanted = (self.rate * length as f64).round_ties_even() as usize;
        wanted.max(1).min(self.max_predictions.unwrap_or(usize::MAX))
    }
}

/// Memory used again from sequence to sequence.
#[derive(Debug, Default)]
pub(crate) struct MaskScratch {
    /// Words that may be chosen, as ranges of positions; single tokens without `whole_word`.
    words: Vec<(u32, u32)>,
    /// After [`hide`]: the chosen positions, ascending, with the ids that stood there.
    pub(crate) chosen: Vec<(u32, i32)>,
}

/// Chooses tokens of one sequence `ids` and hides them in place; `scratch.chosen` then says which, and what they were.
/// Empty only if the sequence holds nothing but special tokens.
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

    let wanted = masking.predictions(ids.len());
    let mut take = |word: (u32, u32)| {
        chosen.extend((word.0..word.1).map(|at| (at, ids[at as usize])));
        chosen.len()
    };
    let mut taken = 0;
    // A lazy Fisher–Yates: only as much of the shuffle as is used.
    for next in 0..words.len() {
        if taken >= wanted {
            break;
        }
        let pick = next + random.below(words.len() - next);
        words.swap(next, pick);
        let word = words[next];
        // A word that would go over the count is passed over, as in Google's code.
        if taken + (word.1 - word.0) as usize <= wanted {
            taken = take(word);
        }
    }
    if taken == 0
        && let Some(&shortest) = words.iter().min_by_key(|word| word.1 - word.0)
    {
        // Every word is longer than the count: a sequence with nothing to predict would be a waste.
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

    /// 0..5 special, every third id from 5 on continues a word.
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
    fn chosen_count_and_split_are_the_papers() {
        let table = table();
        let (mut chosen_total, mut masked, mut kept) = (0, 0, 0);
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
                kept += usize::from(is == was);
                if is != 4 && is != was {
                    assert!(!table.is_special(is as u32), "special {is} drawn");
                    random_ids.insert(is);
                }
            }
            let rows: Vec<_> = chosen.iter().map(|c| c.0 as usize).collect();
            for at in (0..127).filter(|at| !rows.contains(at)) {
                assert_eq!(before[at], after[at], "a token that was not chosen was changed");
            }
        });
        assert!(binomial(masked, chosen_total, 0.8), "{masked} of {chosen_total}");
        // A random token is the token itself once in 995.
        assert!(binomial(kept, chosen_total, 0.1 + 0.1 / 995.0), "{kept} of {chosen_total}");
        // Some 5700 draws of 995 ids leave out three or so.
        assert!(random_ids.len() > 980, "{} ids drawn", random_ids.len());
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
    fn whole_words_stay_whole() {
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
        assert!(multi > 500, "words of several pieces are chosen too");
        assert!(total > 18 * 500, "{total}");
    }

    #[test]
    fn one_long_word_is_chosen_whole_and_nothing_but_specials_gives_nothing() {
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
    fn counts_follow_googles_rounding_and_limit() {
        let masking = Masking::default();
        let counts = [3, 10, 30, 127, 128, 512].map(|n| masking.predictions(n));
        // 0.45 → 1 at least; 1.5 → 2; 4.5 → 4 (half to even); 19.05; 19.2; 76.8
        assert_eq!(counts, [1, 2, 4, 19, 19, 77]);
        let limited = Masking { max_predictions: Some(20), ..masking };
        assert_eq!([128, 512].map(|n| limited.predictions(n)), [19, 20]);
    }

    #[test]
    fn free_rates_and_splits_hold() {
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
    fn impossible_shares_are_refused_by_name() {
        let good = Masking::default();
        let bad = [
            (Masking { rate: 0.0, ..good.clone() }, "rate"),
            (Masking { rate: 1.5, ..good.clone() }, "rate"),
            (Masking { rate: f64::NAN, ..good.clone() }, "rate"),
            (Masking { mask: -0.1, ..good.clone() }, "[MASK]"),
            (Masking { mask: 0.95, ..good.clone() }, "add up"),
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
