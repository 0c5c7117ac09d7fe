//! Scores of multi-label classification: any number of gold and predicted labels for each example.
//!
//! Reference: scikit-learn's `precision_recall_fscore_support(zero_division=0)` and `accuracy_score` (subset accuracy)
//! with label indicator matrices. If a label of an example is not known, it is ignored in the scores of this label, and
//! the example is ignored in [`exact_match`].

use super::{Counts, Score, assert_paired, ratio};

/// The gold labels of an example: whether it has each label, if known.
pub type Gold = Vec<Option<bool>>;

/// The counts of each label.
///
/// # Panics
/// If the slices' lengths differ, or the number of an example's labels is not `labels`.
pub fn counts(gold: &[&Gold], predicted: &[&Vec<bool>], labels: usize) -> Vec<Counts> {
    assert_paired(gold.len(), predicted.len());
    let mut counts = vec![Counts::default(); labels];
    for (gold, predicted) in gold.iter().zip(predicted) {
        assert_paired(gold.len(), labels);
        assert_paired(predicted.len(), labels);
        for ((counts, gold), predicted) in counts.iter_mut().zip(*gold).zip(*predicted) {
            let Some(gold) = *gold else { continue };
            counts.gold += usize::from(gold);
            counts.predicted += usize::from(*predicted);
            counts.correct += usize::from(gold && *predicted);
        }
    }
    counts
}

/// Micro average: the scores of the summed counts of all labels.
pub fn micro(counts: &[Counts]) -> Score {
    let mut all = Counts::default();
    counts.iter().for_each(|label| all += *label);
    all.score()
}

/// Macro average: the unweighted mean of the labels' scores. Labels that never occur are included with scores of 0.
pub fn macro_average(counts: &[Counts]) -> Score {
    Score::macro_average(counts.iter().map(|label| label.score()))
}

/// The fraction of examples whose labels are all correct, among the examples whose labels are all known; 0 if there are
/// none.
///
/// # Panics
/// If the slices' lengths differ.
pub fn exact_match(gold: &[&Gold], predicted: &[&Vec<bool>]) -> f64 {
    assert_paired(gold.len(), predicted.len());
    let known: Vec<bool> = gold
        .iter()
        .zip(predicted)
        .filter(|(gold, _)| gold.iter().all(Option::is_some))
        .map(|(gold, predicted)| gold.iter().zip(*predicted).all(|(gold, predicted)| *gold == Some(*predicted)))
        .collect();
    ratio(known.iter().filter(|exact| **exact).count(), known.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rows(rows: &[&str]) -> Vec<Vec<bool>> {
        rows.iter().map(|row| row.chars().map(|mark| mark == '1').collect()).collect()
    }

    fn known(rows: &[Vec<bool>]) -> Vec<Gold> {
        rows.iter().map(|row| row.iter().copied().map(Some).collect()).collect()
    }

    /// The values of scikit-learn 1.9.1, which can be checked by hand: labels a, b, c have 2, 1, 0 true positives, 1,
    /// 0, 1 false positives and 0, 1, 0 false negatives.
    #[test]
    fn scores_equal_those_of_indicator_matrices() {
        let (gold, predicted) = (known(&rows(&["110", "100", "010", "000"])), rows(&["110", "100", "000", "101"]));
        let (gold, predicted): (Vec<&Gold>, Vec<&Vec<bool>>) = (gold.iter().collect(), predicted.iter().collect());
        let counts = counts(&gold, &predicted, 3);
        let of = |label: usize| {
            let Score { precision, recall, f1, support } = counts[label].score();
            (precision, recall, f1, support)
        };
        assert_eq!(of(0), (2.0 / 3.0, 1.0, 0.8, 2));
        assert_eq!(of(1), (1.0, 0.5, 2.0 / 3.0, 2));
        assert_eq!(of(2), (0.0, 0.0, 0.0, 0));
        // 3 true positives of 5 predicted and 4 gold labels; means over three labels, including the one that never
        // occurs.
        let micro = micro(&counts);
        assert_eq!((micro.precision, micro.recall, micro.f1), (3.0 / 5.0, 3.0 / 4.0, 6.0 / 9.0));
        let mean = macro_average(&counts);
        assert!((mean.f1 - (0.8 + 2.0 / 3.0) / 3.0).abs() < 1e-12, "{mean:?}");
        assert!((mean.precision - (2.0 / 3.0 + 1.0) / 3.0).abs() < 1e-12 && mean.recall == 0.5);
        assert_eq!(exact_match(&gold, &predicted), 0.5);
    }

    /// scikit-learn 1.9.1: `precision_recall_fscore_support(gold, predicted, average=…, zero_division=0)`,
    /// `accuracy_score`.
    #[test]
    fn scores_of_many_rows_equal_scikit_learn() {
        let mut state = 1u64;
        let mut next = || {
            state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
            state >> 40
        };
        let (mut gold, mut predicted) = (Vec::new(), Vec::new());
        for _ in 0..50 {
            let row: Vec<bool> = (0..4).map(|_| next() % 3 == 0).collect();
            predicted.push(row.iter().map(|gold| if next() % 2 == 1 { next() % 5 < 2 } else { *gold }).collect());
            gold.push(row.into_iter().map(Some).collect());
        }
        let (gold, predicted): (Vec<&Gold>, Vec<&Vec<bool>>) = (gold.iter().collect(), predicted.iter().collect());
        let counts = counts(&gold, &predicted, 4);
        assert_eq!(counts.iter().map(|counts| counts.gold).collect::<Vec<_>>(), [10, 15, 21, 20]);
        for (found, expected) in [
            (micro(&counts), [0.6097560975609756, 0.7575757575757576, 0.6756756756756757]),
            (macro_average(&counts), [0.6156417112299466, 0.7797619047619049, 0.6829407294832827]),
            (counts[2].score(), [0.5, 0.6190476190476191, 0.5531914893617021]),
        ] {
            for (found, expected) in [found.precision, found.recall, found.f1].into_iter().zip(expected) {
                assert!((found - expected).abs() < 1e-12, "found {found}, expected {expected}");
            }
        }
        assert_eq!(exact_match(&gold, &predicted), 0.34);
    }

    #[test]
    fn unknown_labels_are_ignored() {
        let gold = [vec![Some(true), None], vec![Some(false), Some(true)]];
        let predicted = rows(&["11", "01"]);
        let (gold, predicted): (Vec<&Gold>, Vec<&Vec<bool>>) = (gold.iter().collect(), predicted.iter().collect());
        let counts = counts(&gold, &predicted, 2);
        assert_eq!(counts[1], Counts { correct: 1, predicted: 1, gold: 1 });
        assert_eq!((micro(&counts).f1, exact_match(&gold, &predicted)), (1.0, 1.0));
        assert_eq!((micro(&[]).f1, exact_match(&[], &[])), (0.0, 0.0));
    }
}
