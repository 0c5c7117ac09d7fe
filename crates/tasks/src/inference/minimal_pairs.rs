//! Minimal pairs: two sentences that differ in one point of grammar, of which one is acceptable, as in BLiMP (Warstadt et
//! al. 2020). A model is right about a pair if the acceptable sentence has the higher score.

use std::path::Path;

use serde::Serialize;
use serde_json::Value;

use crate::TaskError;
use crate::inference::likelihood::Scorer;
use crate::lines::Lines;

/// A pair of sentences.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct MinimalPair {
    /// The acceptable sentence (`sentence_good`).
    pub good: String,
    /// The other one (`sentence_bad`).
    pub bad: String,
    /// The paradigm: pairs made by one template (`UID`).
    pub paradigm: String,
    /// The phenomenon to which the paradigm belongs (`linguistics_term`).
    pub term: String,
    /// The field of the phenomenon, such as syntax (`field`).
    pub field: String,
    /// The line in the file, from 1.
    pub line: usize,
}

/// The scores of a pair.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
#[non_exhaustive]
pub struct PairScores {
    /// The (pseudo-)log-likelihood of the acceptable sentence, in nats.
    pub good: f64,
    /// That of the other one.
    pub bad: f64,
}

impl PairScores {
    /// 1 if the acceptable sentence has the higher score, 0.5 for equal scores, otherwise 0.
    pub fn correct(self) -> f64 {
        match self.good.total_cmp(&self.bad) {
            std::cmp::Ordering::Greater => 1.0,
            std::cmp::Ordering::Equal => 0.5,
            std::cmp::Ordering::Less => 0.0,
        }
    }
}

/// The accuracy over some pairs.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[non_exhaustive]
pub struct GroupAccuracy {
    /// The name of the paradigm, phenomenon or field.
    pub name: String,
    /// Number of pairs.
    pub pairs: usize,
    /// Of a paradigm, the mean of [`PairScores::correct`]; of other groups, the mean over their paradigms.
    pub accuracy: f64,
}

/// The accuracies over all pairs. Groups are in the order of the file.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[non_exhaustive]
pub struct PairReport {
    /// The mean over the paradigms, as in the BLiMP paper.
    pub accuracy: f64,
    /// Number of pairs.
    pub pairs: usize,
    /// Number of pairs with equal scores, each of which counts half.
    pub ties: usize,
    /// Accuracy by field.
    pub fields: Vec<GroupAccuracy>,
    /// Accuracy by phenomenon.
    pub terms: Vec<GroupAccuracy>,
    /// Accuracy by paradigm.
    pub paradigms: Vec<GroupAccuracy>,
}

impl MinimalPair {
    /// Reads a file of JSON lines (plain or compressed) with the keys of BLiMP.
    ///
    /// # Errors
    /// A file that cannot be read or is empty; [`TaskError::Line`] for a line without one of the keys.
    pub fn read(path: &Path) -> Result<Vec<MinimalPair>, TaskError> {
        let (mut lines, mut pairs) = (Lines::open(path)?, Vec::new());
        while lines.advance()? {
            if lines.text().trim().is_empty() {
                continue;
            }
            let row: Value = serde_json::from_str(lines.text())
                .map_err(|error| lines.problem(format!("expected a JSON object with the keys of BLiMP: {error}")))?;
            let text = |key: &str| match row.get(key) {
                Some(Value::String(text)) if !text.trim().is_empty() => Ok(text.clone()),
                found => {
                    let found = found.map_or_else(|| "no such key".to_owned(), Value::to_string);
                    Err(lines.problem(format!("expected \"{key}\" with a text, found {found}")))
                }
            };
            pairs.push(MinimalPair {
                good: text("sentence_good")?,
                bad: text("sentence_bad")?,
                paradigm: text("UID")?,
                term: text("linguistics_term")?,
                field: text("field")?,
                line: lines.number(),
            });
        }
        if pairs.is_empty() {
            return Err(TaskError::file(path, "expected lines with minimal pairs, found none"));
        }
        Ok(pairs)
    }
}

/// Scores pairs that were read from `path`, in their order. `progress` receives the completed fraction.
///
/// # Errors
/// [`TaskError::Line`] for a sentence that the model cannot read; [`TaskError::Logits`].
pub fn score_pairs(
    scorer: &Scorer,
    path: &Path,
    pairs: &[MinimalPair],
    progress: &mut dyn FnMut(f64),
) -> Result<Vec<PairScores>, TaskError> {
    let mut sentences = Vec::with_capacity(2 * pairs.len());
    for pair in pairs {
        for (key, text) in [("sentence_good", &pair.good), ("sentence_bad", &pair.bad)] {
            let sentence = scorer.encode(text);
            let sentence = sentence.map_err(|e| TaskError::line(path, pair.line, format!("\"{key}\": {e}")))?;
            sentences.push(sentence);
        }
    }
    let scores = scorer.score(&sentences, progress)?;
    let of_pair = |(sentences, scores): (&[_], &[f64])| match sentences[0] == sentences[1] {
        // The same tokens: rounding must not decide.
        true => PairScores { good: scores[0], bad: scores[0] },
        false => PairScores { good: scores[0], bad: scores[1] },
    };
    Ok(sentences.chunks(2).zip(scores.chunks(2)).map(of_pair).collect())
}

/// The accuracies of scored pairs.
pub fn report(pairs: &[MinimalPair], scores: &[PairScores]) -> PairReport {
    let correct: Vec<f64> = scores.iter().map(|scores| scores.correct()).collect();
    // A paradigm with the index of its first pair.
    let mut paradigms: Vec<(usize, GroupAccuracy)> = Vec::new();
    for (number, (pair, correct)) in pairs.iter().zip(&correct).enumerate() {
        let known = paradigms.iter_mut().find(|(_, group)| group.name == pair.paradigm);
        match known {
            Some((_, group)) => {
                group.pairs += 1;
                group.accuracy += correct;
            }
            None => {
                paradigms.push((number, GroupAccuracy { name: pair.paradigm.clone(), pairs: 1, accuracy: *correct }))
            }
        }
    }
    paradigms.iter_mut().for_each(|(_, group)| group.accuracy /= group.pairs as f64);
    let mean = |members: &[&GroupAccuracy]| {
        members.iter().map(|group| group.accuracy).sum::<f64>() / members.len().max(1) as f64
    };
    let grouped = |name_of: fn(&MinimalPair) -> &String| {
        let mut groups: Vec<(&String, Vec<&GroupAccuracy>)> = Vec::new();
        for (first, paradigm) in &paradigms {
            let name = name_of(&pairs[*first]);
            match groups.iter_mut().find(|(known, _)| *known == name) {
                Some((_, members)) => members.push(paradigm),
                None => groups.push((name, vec![paradigm])),
            }
        }
        let accuracy = |(name, members): (&String, Vec<&GroupAccuracy>)| GroupAccuracy {
            name: name.clone(),
            pairs: members.iter().map(|group| group.pairs).sum(),
            accuracy: mean(&members),
        };
        groups.into_iter().map(accuracy).collect()
    };
    PairReport {
        accuracy: mean(&paradigms.iter().map(|(_, group)| group).collect::<Vec<_>>()),
        pairs: pairs.len(),
        ties: correct.iter().filter(|correct| **correct == 0.5).count(),
        fields: grouped(|pair| &pair.field),
        terms: grouped(|pair| &pair.term),
        paradigms: paradigms.into_iter().map(|(_, group)| group).collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pair(paradigm: &str, term: &str, field: &str) -> MinimalPair {
        let [good, bad] = ["a", "b"].map(str::to_owned);
        let [paradigm, term, field] = [paradigm, term, field].map(str::to_owned);
        MinimalPair { good, bad, paradigm, term, field, line: 1 }
    }

    #[test]
    fn groups_are_means_over_paradigms_and_ties_count_half() {
        let pairs = [
            pair("p", "agreement", "syntax"),
            pair("q", "agreement", "syntax"),
            pair("p", "agreement", "syntax"),
            pair("p", "agreement", "syntax"),
            pair("r", "npi", "semantics"),
        ];
        let scores = [(-1.0, -2.0), (-3.0, -3.0), (-5.0, -4.0), (-1.0, -9.0), (-2.0, -1.0)];
        let report = report(&pairs, &scores.map(|(good, bad)| PairScores { good, bad }));
        let shown = |groups: &[GroupAccuracy]| -> Vec<(String, usize, f64)> {
            groups.iter().map(|group| (group.name.clone(), group.pairs, (group.accuracy * 1e4).round() / 1e4)).collect()
        };
        let named = |name: &str, pairs, accuracy| (name.to_owned(), pairs, accuracy);
        assert_eq!(shown(&report.paradigms), [named("p", 3, 0.6667), named("q", 1, 0.5), named("r", 1, 0.0)]);
        assert_eq!(shown(&report.terms), [named("agreement", 4, 0.5833), named("npi", 1, 0.0)]);
        assert_eq!(shown(&report.fields), [named("syntax", 4, 0.5833), named("semantics", 1, 0.0)]);
        assert_eq!((report.pairs, report.ties), (5, 1));
        assert!((report.accuracy - (2.0 / 3.0 + 0.5) / 3.0).abs() < 1e-12);
    }

    #[test]
    fn incomplete_rows_are_reported_with_their_line() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("pairs.jsonl");
        let good = r#"{"sentence_good": "a", "sentence_bad": "b", "UID": "p", "linguistics_term": "t", "field": "f"}"#;
        let read = |second: &str| {
            std::fs::write(&path, format!("{good}\n\n{second}\n")).unwrap();
            MinimalPair::read(&path)
        };
        assert_eq!(read(good).unwrap().iter().map(|pair| pair.line).collect::<Vec<_>>(), [1, 3]);
        for (bad, expected) in [
            (good.replace("sentence_bad", "sentence"), "expected \"sentence_bad\" with a text, found no such key"),
            (good.replace("\"p\"", "7"), "expected \"UID\" with a text, found 7"),
            (good.replace("\"a\"", "\" \""), "expected \"sentence_good\" with a text, found \" \""),
            ("[1".to_owned(), "expected a JSON object with the keys of BLiMP"),
        ] {
            let error = read(&bad).unwrap_err().to_string();
            assert!(error.contains("pairs.jsonl:3: ") && error.contains(expected), "{error}");
        }
        std::fs::write(&path, "\n").unwrap();
        assert!(MinimalPair::read(&path).unwrap_err().to_string().contains("found none"));
    }
}
