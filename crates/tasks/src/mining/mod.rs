//! Mining of hard negatives: for each anchor, documents that a model finds similar although they are not its positives.
//!
//! | module | in → out |
//! | --- | --- |
//! | [`pairs`] | a file of (anchor, positive) pairs → pairs |
//! | [`texts`] | pairs and a corpus → unique texts, and which are positives of which |
//! | this one | vectors of the unique texts → candidates → the rows of the negatives |
//! | `rescoring` | the scores of candidates → those of a cross-encoder |
//! | [`output`] | texts and rows → lines of triplets, tuples, labelled pairs or lists |
//!
//! The rules and their defaults are those of `mine_hard_negatives` of sentence-transformers 6.2 (see
//! `fixtures/mining`), in this order:
//!
//! 1. The candidates of an anchor are the `range_max` + P most similar documents, where P is the largest number of pairs with the same
//!    anchor ([`candidates`]). A cross-encoder may give them, and the positives, new scores and a new order ([`rescore`]).
//! 2. The anchor's positives are removed, then candidates by the margins, `max_score` and `min_score`. A margin is compared with the least
//!    similar positive of the anchor.
//! 3. Of the best `range_max` of the rest, the first `range_min` are skipped. `num_negatives` of the others are taken, from the top or
//!    at random.
//!
//! Three things differ: equal similarities are in the order of the documents, a document with the text of the anchor is never a
//! candidate, and a cross-encoder that is given always gives the scores; sentence-transformers uses it only with a margin or a limit
//! of scores. Random choices come from another generator.
//!
//! Vectors pass in blocks ([`Index`]). [`mine`] needs only vectors, so that a training run can mine again with its current model.

pub mod output;
pub mod pairs;
mod rescoring;
pub mod texts;

use cloze_data::{Purpose as RandomPurpose, Random};
use cloze_engine::Device;

use crate::TaskError;
use crate::embed::Embedder;
use crate::embed::prompts::Purpose;
use crate::embed::search::{Hit, Index, Similarity};
use crate::embed::vectors::Vectors;
pub use rescoring::{Rescored, rescore};
pub use texts::{PairTexts, Relations};

/// How negatives are chosen from the candidates.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Sampling {
    /// The most similar.
    #[default]
    Top,
    /// A random sample, with [`Options::seed`].
    Random,
}

impl Sampling {
    /// All strategies, with names (those of sentence-transformers) and descriptions.
    pub const ALL: [(Sampling, &'static str, &'static str); 2] = [
        (Sampling::Top, "top", "The most similar candidates"),
        (Sampling::Random, "random", "A random sample of the candidates"),
    ];
}

/// Which documents become negatives. The defaults are those of sentence-transformers.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct Options {
    /// The number of most similar candidates that are skipped, because they may be positives that nobody marked.
    pub range_min: usize,
    /// The number of most similar candidates that are considered, including those skipped. None:
    /// [`range_max`](method@Self::range_max).
    pub range_max: Option<usize>,
    /// The highest similarity of a negative.
    pub max_score: Option<f32>,
    /// The lowest similarity of a negative.
    pub min_score: Option<f32>,
    /// How much less similar than the positive a negative must be.
    pub absolute_margin: Option<f32>,
    /// The same as a fraction of the positive's similarity: 0.05 keeps negatives of at most 95 % of it.
    pub relative_margin: Option<f32>,
    /// The number of negatives of an anchor; at least 1.
    pub num_negatives: usize,
    /// How negatives are chosen from the candidates.
    pub sampling: Sampling,
    /// The seed of a random choice.
    pub seed: u64,
    /// Whether a cross-encoder scores the candidates again ([`rescore`]). It changes only the default of [`range_max`](method@Self::range_max).
    pub rescored: bool,
}

impl Default for Options {
    fn default() -> Options {
        Options {
            range_min: 0,
            range_max: None,
            max_score: None,
            min_score: None,
            absolute_margin: None,
            relative_margin: None,
            num_negatives: 3,
            sampling: Sampling::Top,
            seed: 1,
            rescored: false,
        }
    }
}

impl Options {
    /// The number of candidates that are considered if the largest number of pairs with the same anchor is `most_pairs`.
    pub fn range_max(&self, most_pairs: usize) -> usize {
        let removes = self.max_score.is_some()
            || self.absolute_margin.is_some()
            || self.relative_margin.is_some()
            // The most similar documents are then not those with the highest scores.
            || self.rescored && self.min_score.is_some();
        let wanted = self.num_negatives.saturating_mul(if removes { 10 } else { 1 });
        self.range_max.unwrap_or_else(|| self.range_min.saturating_add(wanted).saturating_add(most_pairs))
    }

    /// Checks the options.
    ///
    /// # Errors
    /// [`TaskError::Setting`] for a range that is too small for the negatives, and for numbers that are not finite.
    pub fn check(&self) -> Result<(), TaskError> {
        if self.num_negatives == 0 {
            return Err(TaskError::setting("num_negatives", "expected at least 1, found 0"));
        }
        for (name, value) in [
            ("max_score", self.max_score),
            ("min_score", self.min_score),
            ("absolute_margin", self.absolute_margin),
            ("relative_margin", self.relative_margin),
        ] {
            if let Some(value) = value.filter(|value| !value.is_finite()) {
                return Err(TaskError::setting(name, format!("expected a finite number, found {value}")));
            }
        }
        if let (Some(min), Some(max)) = (self.min_score, self.max_score)
            && min > max
        {
            return Err(TaskError::setting("min_score", format!("expected at most `max_score`, {max}, found {min}")));
        }
        if let Some(range_max) = self.range_max {
            let (min, count) = (self.range_min, self.num_negatives);
            if range_max.saturating_sub(min) < count {
                let problem = format!(
                    "expected at least {}, `range_min` {min} and {count} negatives, found {range_max}",
                    min.saturating_add(count)
                );
                return Err(TaskError::setting("range_max", problem));
            }
        }
        Ok(())
    }
}

/// The candidates of all anchors, among which [`select`] chooses.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct Candidates {
    /// For each anchor, the rows of its most similar documents without its positives, and their scores, in descending order.
    pub hits: Vec<Vec<Hit>>,
    /// For each anchor, the scores of its positives, in the order of [`Relations::positives`].
    pub positive_scores: Vec<Vec<f32>>,
    /// The number of documents.
    pub documents: usize,
    /// [`Options::range_max`](method@Options::range_max).
    range_max: usize,
}

/// The negatives of all anchors.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct Mined {
    /// For each anchor, the rows of its negatives and their similarities, in descending order.
    pub negatives: Vec<Vec<Hit>>,
    /// For each anchor, the similarities of its positives, in the order of [`Relations::positives`].
    pub positive_scores: Vec<Vec<f32>>,
    /// Counts and means.
    pub summary: Summary,
}

/// Counts and means of [`mine`].
#[derive(Clone, Copy, Debug, Default, PartialEq, serde::Serialize)]
#[non_exhaustive]
pub struct Summary {
    /// Unique anchors.
    pub anchors: usize,
    /// Unique documents.
    pub documents: usize,
    /// The number of candidates that were considered for each anchor: [`Options::range_max`](method@Options::range_max).
    pub range_max: usize,
    /// Candidates of all anchors, without their positives.
    pub candidates: usize,
    /// Candidates removed by the absolute margin.
    pub by_absolute_margin: usize,
    /// Candidates removed by the relative margin.
    pub by_relative_margin: usize,
    /// Candidates above the highest score.
    pub by_max_score: usize,
    /// Candidates below the lowest score.
    pub by_min_score: usize,
    /// Negatives of all anchors.
    pub negatives: usize,
    /// Anchors with fewer negatives than wanted.
    pub incomplete: usize,
    /// Those without any.
    pub without: usize,
    /// The mean similarity of anchors and their positives.
    pub mean_positive: f64,
    /// The mean similarity of anchors and their negatives; none without negatives.
    pub mean_negative: Option<f64>,
}

/// What [`embed_and_mine`] is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Stage {
    /// Computing the vectors of the documents.
    Documents,
    /// Computing the vectors of the anchors.
    Anchors,
    /// Comparing them.
    Search,
}

/// The purpose of random numbers; every use has its own.
const RANDOM_NEGATIVES: RandomPurpose = RandomPurpose::Other(0x6d69_6e65);

/// An index of the documents to mine in: of vectors that are divided by their norms, as sentence-transformers does, whatever the
/// model's similarity is.
pub fn index(documents: Vectors, similarity: Similarity) -> Index {
    match similarity {
        // The dot product of unit vectors is the cosine.
        Similarity::Cosine | Similarity::Dot => Index::new(documents, Similarity::Cosine),
        other => Index::new(documents.normalized(), other),
    }
}

/// Mines the negatives of anchors among documents, from their vectors: [`candidates`], then [`select`].
///
/// # Errors
/// Those of [`candidates`].
pub fn mine(
    device: &Device,
    anchors: Vectors,
    index: &Index,
    relations: &Relations,
    options: &Options,
    progress: &mut dyn FnMut(f64),
) -> Result<Mined, TaskError> {
    Ok(select(candidates(device, anchors, index, relations, options, progress)?, options))
}

/// The candidates of anchors among documents, from their vectors. The vectors of `anchors` and the documents of `index` belong to the
/// texts of [`PairTexts`], which computes `relations`; see [`index`]. The result does not depend on the number of threads. `progress`
/// receives the completed fraction.
///
/// # Errors
/// [`TaskError::Setting`] for options that do not fit; [`TaskError::Input`] for vectors that do not fit the relations, or that are not
/// finite.
pub fn candidates(
    device: &Device,
    anchors: Vectors,
    index: &Index,
    relations: &Relations,
    options: &Options,
    progress: &mut dyn FnMut(f64),
) -> Result<Candidates, TaskError> {
    options.check()?;
    let wrong = |problem: String| TaskError::input("vectors", problem);
    let (expected, found) = ((relations.positives.len(), index.width()), (anchors.len(), anchors.width()));
    if found != expected {
        return Err(wrong(format!(
            "expected {} anchors of {} dimensions, as the documents, found {} of {}",
            expected.0, expected.1, found.0, found.1
        )));
    }
    if relations.documents != index.len() {
        return Err(wrong(format!("expected {} documents, found {}", relations.documents, index.len())));
    }
    if let Some(row) = anchors.rows().position(|row| row.iter().any(|value| !value.is_finite())) {
        return Err(wrong(format!("expected finite numbers, found NaN or infinity in anchor {}", row + 1)));
    }
    let anchors = anchors.normalized();
    let positive_scores = index.scores(&anchors, &relations.positives, device.threads());
    if let Some(row) = positive_scores.iter().position(|scores| scores.iter().any(|score| !score.is_finite())) {
        return Err(wrong(format!(
            "expected finite numbers, found NaN or infinity in a positive of anchor {}",
            row + 1
        )));
    }
    let range_max = options.range_max(relations.most_pairs);
    let depth = range_max.saturating_add(relations.most_pairs);
    let keep = |anchor: usize, row: usize| relations.same_text[anchor] != Some(row);
    let mut hits = index.nearest_reporting(device, anchors, depth.min(index.len()), keep, progress);
    for (hits, positives) in hits.iter_mut().zip(&relations.positives) {
        hits.retain(|hit| !positives.contains(&hit.row));
    }
    Ok(Candidates { hits, positive_scores, documents: index.len(), range_max })
}

/// Chooses the negatives among the candidates, with the options that these were found with.
pub fn select(candidates: Candidates, options: &Options) -> Mined {
    let Candidates { hits: found, positive_scores, documents, range_max } = candidates;
    let mut summary = Summary { anchors: found.len(), documents, range_max, ..Summary::default() };
    let mut negatives = Vec::with_capacity(found.len());
    for (number, (mut hits, scores)) in found.into_iter().zip(&positive_scores).enumerate() {
        summary.candidates += hits.len();
        let least = scores.iter().copied().fold(f32::INFINITY, f32::min);
        let mut remove = |is_removed: &dyn Fn(f32) -> bool| {
            let before = hits.len();
            hits.retain(|hit| !is_removed(hit.score));
            before - hits.len()
        };
        if let Some(margin) = options.absolute_margin {
            summary.by_absolute_margin += remove(&|score| score + margin > least);
        }
        if let Some(margin) = options.relative_margin {
            // Not (1 − margin) · least, which would be above a negative similarity.
            let most = least - least.abs() * margin;
            summary.by_relative_margin += remove(&|score| score > most);
        }
        if let Some(most) = options.max_score {
            summary.by_max_score += remove(&|score| score > most);
        }
        if let Some(lowest) = options.min_score {
            summary.by_min_score += remove(&|score| score < lowest);
        }
        hits.truncate(range_max);
        hits.drain(..options.range_min.min(hits.len()));
        if options.sampling == Sampling::Random {
            sample(&mut hits, options, number);
        }
        hits.truncate(options.num_negatives);
        summary.negatives += hits.len();
        summary.incomplete += usize::from(hits.len() < options.num_negatives);
        summary.without += usize::from(hits.is_empty());
        negatives.push(hits);
    }
    let mean = |scores: &mut dyn Iterator<Item = f32>| {
        let (mut sum, mut count) = (0.0, 0u64);
        scores.for_each(|score| (sum, count) = (sum + f64::from(score), count + 1));
        (count > 0).then(|| sum / count as f64)
    };
    summary.mean_positive = mean(&mut positive_scores.iter().flatten().copied()).unwrap_or_default();
    summary.mean_negative = mean(&mut negatives.iter().flatten().map(|hit| hit.score));
    Mined { negatives, positive_scores, summary }
}

/// Keeps a random sample, in the same order. It depends only on the seed, the anchor's number and the number of candidates.
fn sample(hits: &mut Vec<Hit>, options: &Options, anchor: usize) {
    let wanted = options.num_negatives.min(hits.len());
    let mut random = Random::keyed(options.seed, RANDOM_NEGATIVES, &[anchor as u64]);
    // The first steps of a Fisher–Yates shuffle.
    let mut places: Vec<usize> = (0..hits.len()).collect();
    for place in 0..wanted {
        let other = place + random.below(hits.len() - place);
        places.swap(place, other);
    }
    places.truncate(wanted);
    places.sort_unstable();
    *hits = places.into_iter().map(|place| hits[place]).collect();
}

/// Embeds texts and mines the negatives of their anchors. Anchors are embedded as queries, the others as documents. `progress` receives the
/// stage and its completed fraction.
///
/// # Errors
/// Those of [`Embedder::embed`] and [`mine`].
pub fn embed_and_mine(
    embedder: &Embedder,
    texts: &PairTexts,
    options: &Options,
    progress: &mut dyn FnMut(Stage, f64),
) -> Result<Mined, TaskError> {
    options.check()?;
    let mut embed = |texts: &[String], purpose: Purpose, stage: Stage| -> Result<Vectors, TaskError> {
        let mut vectors = Vectors::new(embedder.width(), Vec::new());
        let mut report = |done: usize| progress(stage, done as f64 / texts.len().max(1) as f64);
        embedder.embed_stream(texts.iter().map(Ok), purpose, &mut report, |_, more| {
            vectors.append(more);
            Ok(())
        })?;
        Ok(vectors)
    };
    let documents = embed(&texts.documents, Purpose::Document, Stage::Documents)?;
    let anchors = embed(&texts.anchors, Purpose::Query, Stage::Anchors)?;
    let index = index(documents, embedder.similarity);
    let mut report = |share: f64| progress(Stage::Search, share);
    mine(&embedder.model.device, anchors, &index, &texts.relations, options, &mut report)
}

#[cfg(test)]
mod tests;
