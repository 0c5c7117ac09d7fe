//! Rescoring: the scores of a cross-encoder replace the similarities of vectors, before negatives are chosen.

use super::{Candidates, PairTexts};
use crate::TaskError;
use crate::embed::search::Hit;
use crate::rerank::{CrossEncoder, Scored};

/// The counts of [`rescore`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize)]
#[non_exhaustive]
pub struct Rescored {
    /// The number of pairs of an anchor and a document that the cross-encoder read.
    pub pairs: usize,
    /// The number of pairs that it truncated.
    pub cut: usize,
}

/// Replaces the scores of all candidates and positives by those of a cross-encoder, with its activation, and sorts the candidates of each
/// anchor by them; equal scores keep the order of the similarities. `texts` are the texts of the candidates. `progress` receives the
/// completed fraction.
///
/// # Errors
/// Those of [`CrossEncoder::scores`]; [`TaskError::Input`] for candidates of other texts.
pub fn rescore(
    encoder: &CrossEncoder,
    texts: &PairTexts,
    candidates: &mut Candidates,
    progress: &mut dyn FnMut(f64),
) -> Result<Rescored, TaskError> {
    let relations = &texts.relations;
    let (hits, positives) = (&candidates.hits, &candidates.positive_scores);
    if hits.len() != texts.anchors.len() || hits.iter().flatten().any(|hit| hit.row >= texts.documents.len()) {
        let problem = format!("expected those of {} anchors and {} documents", hits.len(), candidates.documents);
        return Err(TaskError::input("texts", problem));
    }
    let rows_of =
        |anchor: usize| relations.positives[anchor].iter().copied().chain(hits[anchor].iter().map(|hit| hit.row));
    let pairs: Vec<(&str, &str)> = (0..hits.len())
        .flat_map(|anchor| rows_of(anchor).map(move |row| (anchor, row)))
        .map(|(anchor, row)| (texts.anchors[anchor].as_str(), texts.documents[row].as_str()))
        .collect();
    let lengths: Vec<usize> = positives.iter().map(Vec::len).collect();
    let Scored { scores, cut, .. } = encoder.scores(&pairs, progress)?;
    let rescored = Rescored { pairs: pairs.len(), cut };
    let mut scores = scores.into_iter();
    for ((hits, positives), length) in candidates.hits.iter_mut().zip(&mut candidates.positive_scores).zip(lengths) {
        *positives = scores.by_ref().take(length).collect();
        hits.iter_mut().zip(&mut scores).for_each(|(hit, score)| hit.score = score);
        sort(hits);
    }
    Ok(rescored)
}

/// Sorts hits by their scores, best first; equal scores keep their order.
fn sort(hits: &mut [Hit]) {
    // Adding 0 converts −0 to 0, so that they are equal.
    hits.sort_by(|a, b| (b.score + 0.0).total_cmp(&(a.score + 0.0)));
}
