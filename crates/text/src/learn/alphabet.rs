//! Chooses the characters that get tokens.

use ahash::AHashMap;

use super::count::Counts;

/// The characters that get tokens, by code point.
pub(super) struct Alphabet {
    /// All of them; any may begin a word.
    pub(super) starts: Vec<char>,
    /// Those that also occur inside words.
    pub(super) continuations: Vec<char>,
    pub(super) left_out: usize,
}

impl Alphabet {
    pub(super) fn choose(counts: &Counts, coverage: f64) -> Alphabet {
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

    /// The words that consist of these characters.
    pub(super) fn spelled(&self, counts: Counts) -> Counts {
        let is_spelled = |word: &str| word.chars().all(|c| self.starts.binary_search(&c).is_ok());
        counts.into_iter().filter(|(word, _)| is_spelled(word)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rare_characters_are_left_out_only_beyond_the_coverage() {
        let counts: Counts = [("ab".into(), 100_000), ("\u{416}".into(), 3)].into_iter().collect();
        assert_eq!(Alphabet::choose(&counts, 1.0).starts, ['a', 'b', '\u{416}']);
        let chosen = Alphabet::choose(&counts, 0.9999);
        assert_eq!((chosen.starts, chosen.left_out), (vec!['a', 'b'], 1));
        assert_eq!(chosen.continuations, ['b']);
    }
}
