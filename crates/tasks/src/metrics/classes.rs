//! Scores of single-label classification: one gold and one predicted class index for each example.
//!
//! Reference: scikit-learn's `accuracy_score`, `precision_recall_fscore_support(zero_division=0)`, `matthews_corrcoef`
//! and `confusion_matrix`. GLUE reports accuracy (most tasks), the F1 of class 1 (MRPC, QQP) and Matthews' correlation
//! (CoLA).

use std::fmt;

use serde::Serialize;

use super::{Counts, Score, assert_paired, ratio};

/// The fraction of correct predictions; 0 if there are none.
///
/// # Panics
/// If the slices' lengths differ.
pub fn accuracy(gold: &[usize], predicted: &[usize]) -> f64 {
    assert_paired(gold.len(), predicted.len());
    ratio(gold.iter().zip(predicted).filter(|(g, p)| g == p).count(), gold.len())
}

/// Precision, recall and F1 of one class against all others (one-vs-rest).
///
/// # Panics
/// If the slices' lengths differ.
pub fn of_class(gold: &[usize], predicted: &[usize], class: usize) -> Score {
    micro(gold, predicted, &[class])
}

/// The unweighted mean of the scores of the classes.
///
/// A class that occurs neither in gold nor in predicted labels is ignored, which is the default of scikit-learn.
///
/// # Panics
/// If the slices' lengths differ or a class is not below `classes`.
pub fn macro_average(gold: &[usize], predicted: &[usize], classes: usize) -> Score {
    let counts = counts(gold, predicted, classes);
    let present = counts.into_iter().filter(|c| c.gold + c.predicted > 0);
    Score::macro_average(present.map(Counts::score))
}

/// Micro-averaged scores of some classes: precision, recall and F1 of their summed counts.
///
/// Over all classes the three scores equal the accuracy, so pass only the classes that matter, such as all except "no
/// relation".
///
/// # Panics
/// If the slices' lengths differ.
pub fn micro(gold: &[usize], predicted: &[usize], classes: &[usize]) -> Score {
    assert_paired(gold.len(), predicted.len());
    let mut counts = Counts::default();
    for (g, p) in gold.iter().zip(predicted) {
        let (is_gold, is_predicted) = (classes.contains(g), classes.contains(p));
        counts.gold += usize::from(is_gold);
        counts.predicted += usize::from(is_predicted);
        counts.correct += usize::from(is_gold && g == p);
    }
    counts.score()
}

/// Matthews' correlation coefficient, from −1 to 1. With two classes it is the correlation of two binary variables,
/// with more classes Gorodkin's R_K ("Comparing two K-category assignments by a K-category correlation coefficient",
/// 2004).
///
/// 0 if it is undefined: if all gold or all predicted labels are the same, or if there are none.
///
/// # Panics
/// If the slices' lengths differ or a class is not below `classes`.
pub fn matthews(gold: &[usize], predicted: &[usize], classes: usize) -> f64 {
    let counts = counts(gold, predicted, classes);
    // Integer arithmetic is exact: if all are correct the result is exactly 1, with only one class exactly 0.
    let total = gold.len() as i128;
    let sum = |of: fn(&Counts) -> i128| counts.iter().map(of).sum::<i128>();
    let covariance = sum(|c| c.correct as i128) * total - sum(|c| c.gold as i128 * c.predicted as i128);
    let of_gold = total * total - sum(|c| (c.gold as i128).pow(2));
    let of_predicted = total * total - sum(|c| (c.predicted as i128).pow(2));
    if of_gold == 0 || of_predicted == 0 {
        return 0.0;
    }
    covariance as f64 / (of_gold as f64 * of_predicted as f64).sqrt()
}

/// The counts of each class.
fn counts(gold: &[usize], predicted: &[usize], classes: usize) -> Vec<Counts> {
    assert_paired(gold.len(), predicted.len());
    let mut counts = vec![Counts::default(); classes];
    for (&g, &p) in gold.iter().zip(predicted) {
        assert!(g < classes && p < classes, "expected classes below {classes}, found {g} (gold) and {p} (predicted)");
        counts[g].gold += 1;
        counts[p].predicted += 1;
        counts[g].correct += usize::from(g == p);
    }
    counts
}

/// A confusion matrix. Its `Display` is an aligned table: rows are gold classes, columns are predicted classes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ConfusionMatrix {
    /// The names of the classes, by index.
    pub labels: Vec<String>,
    /// The number of examples for each gold and predicted class: `counts[gold][predicted]`.
    pub counts: Vec<Vec<usize>>,
}

impl ConfusionMatrix {
    /// Counts the predictions; `labels` are the names of the classes.
    ///
    /// # Panics
    /// If the slices' lengths differ or a class has no label.
    pub fn new<L: Into<String>>(
        gold: &[usize],
        predicted: &[usize],
        labels: impl IntoIterator<Item = L>,
    ) -> ConfusionMatrix {
        assert_paired(gold.len(), predicted.len());
        let labels: Vec<String> = labels.into_iter().map(Into::into).collect();
        let n = labels.len();
        let mut counts = vec![vec![0; n]; n];
        for (&g, &p) in gold.iter().zip(predicted) {
            assert!(g < n && p < n, "expected classes below {n}, found {g} (gold) and {p} (predicted)");
            counts[g][p] += 1;
        }
        ConfusionMatrix { labels, counts }
    }
}

impl fmt::Display for ConfusionMatrix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const CORNER: &str = "gold \\ predicted";
        let width = |text: &str| text.chars().count();
        let first = self.labels.iter().map(|l| width(l)).fold(width(CORNER), usize::max);
        write!(f, "{CORNER:first$}")?;
        // The width of a column is that of its label or of its largest count.
        let mut widths = Vec::with_capacity(self.labels.len());
        for (column, label) in self.labels.iter().enumerate() {
            let largest = self.counts.iter().filter_map(|row| row.get(column)).max().copied().unwrap_or(0);
            let wide = width(label).max(width(&largest.to_string()));
            write!(f, "  {label:>wide$}")?;
            widths.push(wide);
        }
        for (label, row) in self.labels.iter().zip(&self.counts) {
            write!(f, "\n{label:first$}")?;
            for (count, &wide) in row.iter().zip(&widths) {
                write!(f, "  {count:>wide$}")?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use serde::Deserialize;

    use super::super::fixtures::{Expected, assert_close, assert_score, read};
    use super::*;

    #[derive(Deserialize)]
    struct Case {
        name: String,
        classes: usize,
        gold: Vec<usize>,
        predicted: Vec<usize>,
        accuracy: f64,
        each: Vec<Expected>,
        #[serde(rename = "macro")]
        macro_average: Expected,
        micro: Expected,
        matthews: f64,
        confusion: Vec<Vec<usize>>,
    }

    #[test]
    fn scores_equal_scikit_learn() {
        let cases: Vec<Case> = read("classes");
        assert!(cases.len() > 15);
        for case in cases {
            let (gold, predicted, name) = (&case.gold[..], &case.predicted[..], &case.name[..]);
            assert_close(accuracy(gold, predicted), case.accuracy, 1e-12, name);
            assert_eq!(case.each.len(), case.classes);
            for (class, expected) in case.each.iter().enumerate() {
                assert_score(of_class(gold, predicted, class), expected, name);
            }
            assert_score(macro_average(gold, predicted, case.classes), &case.macro_average, name);
            let but_first: Vec<usize> = (1..case.classes).collect();
            assert_score(micro(gold, predicted, &but_first), &case.micro, name);
            assert_close(matthews(gold, predicted, case.classes), case.matthews, 1e-12, name);
            let labels = (0..case.classes).map(|c| c.to_string());
            assert_eq!(ConfusionMatrix::new(gold, predicted, labels).counts, case.confusion, "{name}");
            let all: Vec<usize> = (0..case.classes).collect();
            assert_close(micro(gold, predicted, &all).f1, case.accuracy, 1e-12, name);
        }
    }

    #[test]
    fn empty_input_scores_zero() {
        assert_eq!(accuracy(&[], &[]), 0.0);
        assert_eq!(of_class(&[], &[], 1), Score::default());
        assert_eq!(macro_average(&[], &[], 3), Score::default());
        assert_eq!(micro(&[0, 1], &[1, 0], &[]), Score::default());
        assert_eq!(matthews(&[], &[], 2), 0.0);
        assert_eq!(ConfusionMatrix::new(&[], &[], [""; 0]).to_string(), "gold \\ predicted");
    }

    #[test]
    fn perfect_predictions_score_exactly_one() {
        let labels: Vec<usize> = (0..30_011).map(|i| i % 3).collect();
        assert_eq!(matthews(&labels, &labels, 3), 1.0);
        assert_eq!(macro_average(&labels, &labels, 3).f1, 1.0);
    }

    #[test]
    #[should_panic(expected = "expected classes below 2")]
    fn a_class_without_a_label_panics() {
        ConfusionMatrix::new(&[0], &[2], ["a", "b"]);
    }

    #[test]
    #[should_panic(expected = "one prediction for each gold label")]
    fn unequal_lengths_panic() {
        accuracy(&[0], &[]);
    }

    #[test]
    fn the_table_is_aligned() {
        let matrix =
            ConfusionMatrix { labels: vec!["né".into(), "yes".into()], counts: vec![vec![1200, 3], vec![0, 45]] };
        assert_eq!(
            matrix.to_string(),
            "gold \\ predicted    né  yes\n\
             né                1200    3\n\
             yes                  0   45"
        );
        let json = serde_json::to_string(&matrix).unwrap();
        assert_eq!(json, r#"{"labels":["né","yes"],"counts":[[1200,3],[0,45]]}"#);
    }
}
