//! The texts of rows as token ids, each text once; and the texts of a step.

use std::collections::HashMap;

use cloze_text::Sequence;
use xxhash_rust::xxh3::{Xxh3, xxh3_128};

use super::losses::{Row, Step};
use super::mined::MinedNegatives;
use super::rows::TextRow;
use crate::embed::Embedder;
use crate::embed::prompts::Purpose;
use crate::parallel;

/// A text as token ids.
pub(super) struct EncodedText {
    pub(super) sequence: Sequence,
    /// The number of leading tokens that are not pooled.
    pub(super) excluded: usize,
    /// The number of leading tokens that are the prompt's, `[CLS]` included; 0 without a prompt.
    pub(super) prompt: usize,
    /// A hash of the text.
    hash: u128,
}

/// A row, by the numbers of its texts.
#[derive(Debug, Clone)]
struct EncodedRow {
    anchor: usize,
    positives: Vec<usize>,
    negatives: Vec<usize>,
    scores: Vec<f32>,
}

/// Rows whose texts are encoded.
pub(super) struct EncodedTexts {
    pub(super) texts: Vec<EncodedText>,
    rows: Vec<EncodedRow>,
    /// The number of texts that were truncated.
    pub(super) cut: usize,
}

impl EncodedTexts {
    /// Encodes rows. `purposes` are those of the anchors and of all other texts.
    pub(super) fn new<'r>(embedder: &Embedder, rows: &'r [TextRow], purposes: [Purpose; 2]) -> EncodedTexts {
        let mut numbers: HashMap<(&'r str, usize), usize> = HashMap::new();
        let mut distinct: Vec<(&'r str, Purpose)> = Vec::new();
        // Both purposes may be the same.
        let roles = [0, usize::from(purposes[0] != purposes[1])];
        let mut place = |text: &'r str, role: usize| {
            *numbers.entry((text, roles[role])).or_insert_with(|| {
                distinct.push((text, purposes[role]));
                distinct.len() - 1
            })
        };
        let encoded_rows = rows
            .iter()
            .map(|row| EncodedRow {
                anchor: place(&row.anchor, 0),
                positives: row.positives.iter().map(|text| place(text, 1)).collect(),
                negatives: row.negatives.iter().map(|text| place(text, 1)).collect(),
                scores: row.scores.clone(),
            })
            .collect();
        let threads = embedder.model.device.threads();
        let prompts = Purpose::ALL.map(|purpose| embedder.prompt_tokens(purpose));
        let encoded = parallel::map(&distinct, threads, |(text, purpose)| {
            let (sequence, cut) = embedder.encode(text, *purpose);
            let (excluded, hash) = (embedder.excluded(*purpose), xxh3_128(text.as_bytes()));
            (EncodedText { sequence, excluded, prompt: prompts[*purpose as usize], hash }, cut)
        });
        let cut = encoded.iter().filter(|(_, cut)| *cut).count();
        EncodedTexts { texts: encoded.into_iter().map(|(text, _)| text).collect(), rows: encoded_rows, cut }
    }

    /// A hash of a text.
    pub(super) fn hash(&self, number: usize) -> u128 {
        self.texts[number].hash
    }

    /// Whether two texts are the same; they may have different prompts.
    pub(super) fn are_equal(&self, a: usize, b: usize) -> bool {
        self.texts[a].hash == self.texts[b].hash
    }

    /// The number of rows.
    pub(super) fn len(&self) -> usize {
        self.rows.len()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    /// The number of tokens of all rows; a text that several rows have counts for each.
    pub(super) fn tokens(&self) -> usize {
        let length = |number: &usize| self.texts[*number].sequence.ids.len();
        let of_row = |row: &EncodedRow| {
            length(&row.anchor) + row.positives.iter().chain(&row.negatives).map(length).sum::<usize>()
        };
        self.rows.iter().map(of_row).sum()
    }

    /// The step of some rows, and the number of each of its texts: of the anchors, then of the candidates. The negatives of a
    /// row are its own, and those that were mined for its anchor.
    pub(super) fn step(&self, chosen: &[usize], mined: &MinedNegatives) -> (Step, Vec<usize>) {
        let (mut step, mut candidates) = (Step::default(), Vec::new());
        let mut anchors = Vec::new();
        for row in chosen.iter().map(|&number| &self.rows[number]) {
            anchors.push(row.anchor);
            let first = candidates.len();
            candidates.extend(row.positives.iter().chain(&row.negatives).chain(mined.of(row.anchor)));
            let positives = first..first + row.positives.len();
            let negatives = positives.end..candidates.len();
            step.rows.push(Row { positives, negatives, labels: row.scores.clone() });
        }
        let hash = |numbers: &[usize]| numbers.iter().map(|&number| self.texts[number].hash).collect();
        (step.anchors, step.candidates) = (hash(&anchors), hash(&candidates));
        anchors.extend(candidates);
        (step, anchors)
    }

    /// The mean number of other texts that an anchor of a step is compared with: all candidates but those with the text of
    /// the anchor or of one of its positives.
    pub(super) fn negatives_in_batch(&self, chosen: &[usize]) -> f64 {
        let (step, _) = self.step(chosen, &MinedNegatives::default());
        let of_row = |(row, anchor): (&Row, &u128)| {
            let positives = &step.candidates[row.positives.clone()];
            step.candidates.iter().filter(|hash| *hash != anchor && !positives.contains(hash)).count()
        };
        let sum: usize = step.rows.iter().zip(&step.anchors).map(of_row).sum();
        sum as f64 / chosen.len().max(1) as f64
    }

    /// The row as the losses see it, to check it.
    pub(super) fn row(&self, number: usize) -> Row {
        self.step(&[number], &MinedNegatives::default()).0.rows.remove(0)
    }

    /// The number of a row's first text.
    pub(super) fn anchor(&self, row: usize) -> usize {
        self.rows[row].anchor
    }

    /// Whether a row has only one text, which is its own positive.
    pub(super) fn is_single(&self, row: usize) -> bool {
        let EncodedRow { anchor, positives, negatives, scores } = &self.rows[row];
        positives[..] == [*anchor] && negatives.is_empty() && scores.is_empty()
    }

    /// Pairs of a single positive with a score: anchor, positive, score.
    pub(super) fn scored_pairs(&self) -> Option<Vec<(usize, usize, f64)>> {
        let pair = |row: &EncodedRow| match (&row.positives[..], &row.negatives[..], &row.scores[..]) {
            ([positive], [], [score]) => Some((row.anchor, *positive, f64::from(*score))),
            _ => None,
        };
        self.rows.iter().map(pair).collect()
    }

    /// The anchor and the positives of each row, and all other texts: the numbers of the texts.
    pub(super) fn relations(&self) -> impl Iterator<Item = (usize, &[usize], &[usize])> {
        self.rows.iter().map(|row| (row.anchor, &row.positives[..], &row.negatives[..]))
    }

    /// Adds token ids, structure and scores to a fingerprint.
    pub(super) fn add_to(&self, hash: &mut Xxh3) {
        for text in &self.texts {
            text.sequence.ids.iter().for_each(|id| hash.update(&id.to_le_bytes()));
            hash.update(&[0xff]);
        }
        for row in &self.rows {
            hash.update(format!("{:?}", (row.anchor, &row.positives, &row.negatives)).as_bytes());
            row.scores.iter().for_each(|score| hash.update(&score.to_le_bytes()));
        }
    }
}
