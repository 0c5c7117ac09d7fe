//! The best of a stream of scores.

use super::Hit;

/// The `k` highest scores so far, with their rows. Of equal scores, those with the lowest rows. Scores that are NaN are left
/// out. Rows are offered in ascending order.
pub(super) struct Best {
    k: usize,
    /// More than `k` are collected before the worst are removed, so that this is rarely done.
    found: Vec<(f32, u32)>,
    /// The k-th best score when the worst were last removed: a later row must exceed it.
    threshold: Option<f32>,
}

/// Scores that are compared with the threshold at a time.
const CHUNK: usize = 32;

impl Best {
    pub(super) fn new(k: usize) -> Best {
        Best { k, found: Vec::new(), threshold: None }
    }

    /// Offers the scores of consecutive rows from `first`. Rows for which `keep` is false are excluded.
    pub(super) fn offer(&mut self, scores: &[f32], first: usize, keep: impl Fn(usize) -> bool) {
        if self.k == 0 {
            return;
        }
        for (number, chunk) in scores.chunks(CHUNK).enumerate() {
            // Without branches, so that the comparisons are vector instructions.
            if let Some(threshold) = self.threshold
                && !chunk.iter().fold(false, |any, score| any | (*score > threshold))
            {
                continue;
            }
            for (score, row) in chunk.iter().zip(first + number * CHUNK..) {
                let is_better = match self.threshold {
                    Some(threshold) => *score > threshold,
                    None => !score.is_nan(),
                };
                if is_better && keep(row) {
                    // −0 becomes 0, so that equal scores are also equal in the order of `total_cmp`.
                    self.found.push((score + 0.0, row as u32));
                    if self.found.len() >= self.k + (self.k / 2).max(16) {
                        self.remove_worst();
                    }
                }
            }
        }
    }

    fn remove_worst(&mut self) {
        let (_, worst, _) = self.found.select_nth_unstable_by(self.k - 1, order);
        self.threshold = Some(worst.0);
        self.found.truncate(self.k);
    }

    /// The best, in descending order of scores, equal scores in ascending order of rows.
    pub(super) fn into_hits(mut self) -> Vec<Hit> {
        self.found.sort_unstable_by(order);
        self.found.truncate(self.k);
        self.found.into_iter().map(|(score, row)| Hit { row: row as usize, score }).collect()
    }
}

fn order(a: &(f32, u32), b: &(f32, u32)) -> std::cmp::Ordering {
    b.0.total_cmp(&a.0).then(a.1.cmp(&b.1))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_best_of_parts_are_those_of_a_complete_sort() {
        // Many equal scores, both zeros, infinities and NaN.
        let mut scores: Vec<f32> = (0..5000u64).map(|i| (((i * 2_654_435_761) >> 7) % 97) as f32 - 48.0).collect();
        for (place, special) in
            [(3, f32::NAN), (4, f32::INFINITY), (900, f32::NEG_INFINITY), (901, -0.0), (4999, -f32::NAN)]
        {
            scores[place] = special;
        }
        let keep = |row: usize| !row.is_multiple_of(5);
        let mut expected: Vec<(f32, u32)> = scores.iter().map(|s| s + 0.0).zip(0..).collect();
        expected.retain(|(score, row)| !score.is_nan() && keep(*row as usize));
        expected.sort_by(order);
        for k in [0, 1, 2, 10, 333, 10_000] {
            for part in [1, 31, 32, 1000, 5000] {
                let mut best = Best::new(k);
                for (number, scores) in scores.chunks(part).enumerate() {
                    best.offer(scores, number * part, keep);
                }
                let found: Vec<(f32, u32)> = best.into_hits().iter().map(|hit| (hit.score, hit.row as u32)).collect();
                assert_eq!(found, expected[..k.min(expected.len())], "the best {k}, in parts of {part}");
            }
        }
    }
}
