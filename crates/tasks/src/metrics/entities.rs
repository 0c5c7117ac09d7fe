//! Entities of a tag sequence and their scores.
//!
//! Reference: seqeval 1.2 in its default mode, which is CoNLL's `conlleval`: tags of any of the schemes BIO (IOB2), IOB1,
//! BIOES and IOBES, written as `B-PER` ([`scheme`](super::scheme) sees to that), are read by one set of rules, and a sequence that no scheme allows is read as far as it makes sense
//! (`I-PER` after `O` begins an entity) rather than refused.

use std::collections::{BTreeMap, HashSet};

use serde::Serialize;

use super::{Counts, Score, assert_paired, ratio};

/// A stretch of tokens of one type.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
pub struct Entity {
    /// Its type, `PER`; `_` of tags without one.
    pub kind: String,
    /// Its first token.
    pub start: usize,
    /// One past its last token.
    pub end: usize,
}

/// The entities of a sentence, in the order of their ends. No sequence is refused: see the module's page. An empty tag is `O`.
pub fn entities<S: AsRef<str>>(tags: &[S]) -> Vec<Entity> {
    let mut reader = Reader::default();
    tags.iter().for_each(|tag| reader.read(tag.as_ref()));
    reader.finish()
}

/// seqeval's `get_entities`, a tag at a time.
struct Reader {
    found: Vec<Entity>,
    /// Tags read.
    at: usize,
    /// The first letter of the last tag.
    prefix: char,
    kind: String,
    start: usize,
}

impl Default for Reader {
    fn default() -> Reader {
        Reader { found: Vec::new(), at: 0, prefix: 'O', kind: String::new(), start: 0 }
    }
}

impl Reader {
    fn read(&mut self, tag: &str) {
        let (prefix, kind) = parts(tag);
        let other_kind = self.kind != kind;
        if ends(self.prefix, prefix, other_kind) {
            self.found.push(Entity { kind: self.kind.clone(), start: self.start, end: self.at });
        }
        if starts(self.prefix, prefix, other_kind) {
            self.start = self.at;
        }
        self.prefix = prefix;
        if other_kind {
            self.kind = kind.to_string();
        }
        self.at += 1;
    }

    fn finish(mut self) -> Vec<Entity> {
        self.read("O");
        self.found
    }
}

/// The letter of a tag and its type: what follows the first hyphen after the letter, or all that follows it.
fn parts(tag: &str) -> (char, &str) {
    let mut chars = tag.chars();
    let prefix = chars.next().unwrap_or('O');
    let rest = chars.as_str();
    let kind = rest.split_once('-').map_or(rest, |(_, kind)| kind);
    (prefix, if kind.is_empty() { "_" } else { kind })
}

/// Whether an entity ends between two tags. The dot, like `O`, belongs to none (a remnant of CoNLL-2000's script).
fn ends(before: char, after: char, other_kind: bool) -> bool {
    matches!((before, after), ('E' | 'S', _) | ('B' | 'I', 'B' | 'S' | 'O'))
        || (other_kind && !matches!(before, 'O' | '.'))
}

/// Whether an entity begins between two tags.
fn starts(before: char, after: char, other_kind: bool) -> bool {
    matches!((before, after), (_, 'B' | 'S') | ('E' | 'S' | 'O', 'E' | 'I'))
        || (other_kind && !matches!(after, 'O' | '.'))
}

/// Scores of the entities of many sentences: right is what has the same type, start and end.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct EntityScores {
    /// Of all entities taken together: the F1 that papers report.
    pub micro: Score,
    /// Mean over the types, each counting the same.
    pub macro_average: Score,
    /// Of each type that occurs in gold or predictions.
    pub by_type: BTreeMap<String, Score>,
}

/// Scores predicted tags against gold ones, sentence by sentence.
///
/// # Panics
/// If there are not as many predicted as gold sentences, or a sentence's numbers of tags differ.
pub fn entity_scores<S: AsRef<str>, P: AsRef<str>>(gold: &[Vec<S>], predicted: &[Vec<P>]) -> EntityScores {
    assert_paired(gold.len(), predicted.len());
    for (gold, predicted) in gold.iter().zip(predicted) {
        assert_paired(gold.len(), predicted.len());
    }
    // Sets, as seqeval's: a tag that no scheme knows can yield the same entity twice.
    let [gold, predicted] =
        [joined(gold), joined(predicted)].map(|all| all.into_iter().map(|entity| (0, entity)).collect());
    scores_of(&gold, &predicted)
}

/// The scores of predicted entities against gold ones, each with the number of its sentence.
pub(super) fn scores_of(gold: &HashSet<(usize, Entity)>, predicted: &HashSet<(usize, Entity)>) -> EntityScores {
    let mut by_type = BTreeMap::<String, Counts>::new();
    for (_, entity) in gold {
        by_type.entry(entity.kind.clone()).or_default().gold += 1;
    }
    for found in predicted {
        let counts = by_type.entry(found.1.kind.clone()).or_default();
        counts.predicted += 1;
        counts.correct += usize::from(gold.contains(found));
    }
    let mut all = Counts::default();
    by_type.values().for_each(|&counts| all += counts);
    let by_type: BTreeMap<String, Score> = by_type.into_iter().map(|(kind, counts)| (kind, counts.score())).collect();
    EntityScores { micro: all.score(), macro_average: Score::macro_average(by_type.values().copied()), by_type }
}

/// The entities of all sentences, read as one sequence with an `O` after each sentence, which is how seqeval reads them.
fn joined<S: AsRef<str>>(sentences: &[Vec<S>]) -> Vec<Entity> {
    let mut reader = Reader::default();
    for sentence in sentences {
        sentence.iter().for_each(|tag| reader.read(tag.as_ref()));
        reader.read("O");
    }
    reader.finish()
}

/// Share of the tokens whose tag is right, `O` included; 0 of none.
///
/// # Panics
/// As [`entity_scores`].
pub fn token_accuracy<S: AsRef<str>, P: AsRef<str>>(gold: &[Vec<S>], predicted: &[Vec<P>]) -> f64 {
    assert_paired(gold.len(), predicted.len());
    let (mut right, mut all) = (0, 0);
    for (gold, predicted) in gold.iter().zip(predicted) {
        assert_paired(gold.len(), predicted.len());
        right += gold.iter().zip(predicted).filter(|(g, p)| g.as_ref() == p.as_ref()).count();
        all += gold.len();
    }
    ratio(right, all)
}

#[cfg(test)]
mod tests {
    use serde::Deserialize;

    use super::super::fixtures::{Expected, assert_close, assert_score, read};
    use super::*;

    /// Type, start, end.
    type Span = (String, usize, usize);

    #[derive(Deserialize)]
    struct Fixture {
        flat: Vec<(String, Vec<Span>)>,
        reports: Vec<Report>,
    }

    #[derive(Deserialize)]
    struct Report {
        name: String,
        gold: Vec<String>,
        predicted: Vec<String>,
        micro: Expected,
        #[serde(rename = "macro")]
        macro_average: Expected,
        by_type: BTreeMap<String, Expected>,
        accuracy: f64,
    }

    fn tags(text: &str) -> Vec<&str> {
        text.split_ascii_whitespace().collect()
    }

    fn found(text: &str) -> Vec<Span> {
        entities(&tags(text)).into_iter().map(|e| (e.kind, e.start, e.end)).collect()
    }

    #[test]
    fn entities_are_seqevals() {
        let Fixture { flat, .. } = read("entities");
        // All of up to three tags, and random ones, legal and not.
        assert!(flat.len() > 700);
        for (text, expected) in flat {
            assert_eq!(found(&text), expected, "{text}");
        }
        assert_eq!(entities(&["", "I-A", ""]), [Entity { kind: "A".into(), start: 1, end: 2 }]);
    }

    #[test]
    fn scores_are_seqevals() {
        let Fixture { reports, .. } = read("entities");
        assert!(reports.len() > 12);
        for report in reports {
            let name = &report.name;
            let gold: Vec<_> = report.gold.iter().map(|s| tags(s)).collect();
            let predicted: Vec<_> = report.predicted.iter().map(|s| tags(s)).collect();
            let scores = entity_scores(&gold, &predicted);
            assert_score(scores.micro, &report.micro, name);
            assert_score(scores.macro_average, &report.macro_average, name);
            assert!(scores.by_type.keys().eq(report.by_type.keys()), "{name}: {:?}", scores.by_type);
            for (kind, expected) in &report.by_type {
                assert_score(scores.by_type[kind], expected, &format!("{name}: {kind}"));
            }
            assert_close(token_accuracy(&gold, &predicted), report.accuracy, 1e-12, name);
        }
    }

    #[test]
    fn of_nothing_everything_is_zero() {
        let none: [Vec<&str>; 0] = [];
        let zero = EntityScores { micro: Score::default(), macro_average: Score::default(), by_type: BTreeMap::new() };
        assert_eq!(entity_scores(&none, &none), zero);
        assert_eq!(entity_scores(&[vec!["O"]], &[vec!["O"]]), zero);
        assert_eq!(token_accuracy(&none, &none), 0.0);
    }

    #[test]
    #[should_panic(expected = "as many predictions")]
    fn a_sentence_of_another_length_is_a_bug() {
        entity_scores(&[vec!["O", "O"]], &[vec!["O"]]);
    }
}
