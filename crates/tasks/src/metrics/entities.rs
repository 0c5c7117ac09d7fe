//! Entities of tag sequences, and their scores.
//!
//! Reference: seqeval 1.2 in its default mode, which equals CoNLL's `conlleval`. Tags of the schemes BIO (IOB2), IOB1,
//! BIOES and IOBES in the form `B-PER` ([`scheme`](super::scheme) converts other forms) are parsed by one set of rules.
//! Sequences that no scheme allows are not errors: for example, `I-PER` after `O` starts an entity.

use std::collections::{BTreeMap, HashSet};

use serde::Serialize;

use super::{Counts, Score, assert_paired, ratio};

/// A span of tokens with a type.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
pub struct Entity {
    /// The type, such as `PER`; `_` for tags without a type.
    pub kind: String,
    /// The index of its first token.
    pub start: usize,
    /// The index after its last token.
    pub end: usize,
}

/// The entities of a sentence, in the order of their ends. Every sequence is accepted: see the module's documentation.
/// An empty tag is `O`.
pub fn entities<S: AsRef<str>>(tags: &[S]) -> Vec<Entity> {
    let mut reader = Reader::default();
    tags.iter().for_each(|tag| reader.read(tag.as_ref()));
    reader.finish()
}

/// seqeval's `get_entities`, one tag at a time.
struct Reader {
    found: Vec<Entity>,
    /// The number of tags read.
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

/// The letter of a tag, and its type: the text after the first hyphen after the letter, or all text after the letter.
fn parts(tag: &str) -> (char, &str) {
    let mut chars = tag.chars();
    let prefix = chars.next().unwrap_or('O');
    let rest = chars.as_str();
    let kind = rest.split_once('-').map_or(rest, |(_, kind)| kind);
    (prefix, if kind.is_empty() { "_" } else { kind })
}

/// Whether an entity ends between two tags. Like `O`, a dot is outside of entities (as in CoNLL-2000's script).
fn ends(before: char, after: char, other_kind: bool) -> bool {
    matches!((before, after), ('E' | 'S', _) | ('B' | 'I', 'B' | 'S' | 'O'))
        || (other_kind && !matches!(before, 'O' | '.'))
}

/// Whether an entity starts between two tags.
fn starts(before: char, after: char, other_kind: bool) -> bool {
    matches!((before, after), (_, 'B' | 'S') | ('E' | 'S' | 'O', 'E' | 'I'))
        || (other_kind && !matches!(after, 'O' | '.'))
}

/// Scores of the entities of many sentences. A predicted entity is correct if a gold entity has the same type, start
/// and end.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct EntityScores {
    /// Micro average over all entities: the F1 of papers.
    pub micro: Score,
    /// Macro average: the unweighted mean over the types.
    pub macro_average: Score,
    /// The scores of each type that occurs in gold or predicted entities.
    pub by_type: BTreeMap<String, Score>,
}

/// Scores predicted tags against gold ones, sentence by sentence.
///
/// # Panics
/// If the numbers of gold and predicted sentences differ, or the numbers of tags of a sentence.
pub fn entity_scores<S: AsRef<str>, P: AsRef<str>>(gold: &[Vec<S>], predicted: &[Vec<P>]) -> EntityScores {
    assert_paired(gold.len(), predicted.len());
    for (gold, predicted) in gold.iter().zip(predicted) {
        assert_paired(gold.len(), predicted.len());
    }
    // Sets, as in seqeval: a tag that no scheme has can produce the same entity twice.
    let [gold, predicted] =
        [joined(gold), joined(predicted)].map(|all| all.into_iter().map(|entity| (0, entity)).collect());
    scores_of(&gold, &predicted)
}

/// The scores of predicted entities, each with the number of its sentence.
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

/// The entities of all sentences, joined to one sequence with an `O` after each sentence, as in seqeval.
fn joined<S: AsRef<str>>(sentences: &[Vec<S>]) -> Vec<Entity> {
    let mut reader = Reader::default();
    for sentence in sentences {
        sentence.iter().for_each(|tag| reader.read(tag.as_ref()));
        reader.read("O");
    }
    reader.finish()
}

/// The fraction of tokens whose tag is correct, including `O`; 0 if there are no tokens.
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

    /// The type, start and end of an entity.
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
    fn entities_equal_seqeval() {
        let Fixture { flat, .. } = read("entities");
        // All sequences of up to three tags, and random ones, valid and invalid.
        assert!(flat.len() > 700);
        for (text, expected) in flat {
            assert_eq!(found(&text), expected, "{text}");
        }
        assert_eq!(entities(&["", "I-A", ""]), [Entity { kind: "A".into(), start: 1, end: 2 }]);
    }

    #[test]
    fn scores_equal_seqeval() {
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
    fn empty_input_scores_zero() {
        let none: [Vec<&str>; 0] = [];
        let zero = EntityScores { micro: Score::default(), macro_average: Score::default(), by_type: BTreeMap::new() };
        assert_eq!(entity_scores(&none, &none), zero);
        assert_eq!(entity_scores(&[vec!["O"]], &[vec!["O"]]), zero);
        assert_eq!(token_accuracy(&none, &none), 0.0);
    }

    #[test]
    #[should_panic(expected = "one prediction for each gold label")]
    fn a_sentence_with_a_different_length_panics() {
        entity_scores(&[vec!["O", "O"]], &[vec!["O"]]);
    }
}
