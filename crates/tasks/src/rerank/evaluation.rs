//! Evaluation of a cross-encoder on queries with relevant and irrelevant documents, as sentence-transformers'
//! `CrossEncoderRerankingEvaluator` does it, and reranking of the documents that a search found in a collection.

use serde::Serialize;

use super::CrossEncoder;
use crate::TaskError;
use crate::datasets::rankings::{Others, Ranking};
use crate::embed::search::Hit;
use crate::metrics::reranking::{RerankingScores, mean, of_query};
use crate::retrieval::Entry;

/// Options of the evaluation.
#[derive(Debug, Clone, Copy)]
#[non_exhaustive]
pub struct EvaluationOptions {
    /// The number of documents that MRR and nDCG consider.
    pub k: usize,
    /// Whether relevant documents that a search did not find are ranked too. It has no effect on queries with
    /// [`Others::Negative`].
    pub adds_positives: bool,
}

impl Default for EvaluationOptions {
    /// The first 10 documents, with all relevant documents ranked.
    fn default() -> EvaluationOptions {
        EvaluationOptions { k: 10, adds_positives: true }
    }
}

/// The documents to rank for a query.
#[derive(Debug, Clone, PartialEq)]
pub struct List<'a> {
    /// The query.
    pub query: &'a str,
    /// The documents.
    pub documents: Vec<&'a str>,
    /// Whether each document is relevant.
    pub relevant: Vec<bool>,
    /// The scores of the search that found the documents, if they have its order.
    pub base: Option<RerankingScores>,
}

/// The result of [`evaluate`].
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
#[non_exhaustive]
pub struct Evaluation {
    /// The mean scores over all queries. A query without a relevant document counts as 0.
    pub reranked: RerankingScores,
    /// The mean scores of the order before reranking, over the queries that have one; none if there are no such queries.
    pub base: Option<RerankingScores>,
    /// The number of queries.
    pub queries: usize,
    /// The number of queries without a relevant document among those to rank.
    pub without_relevant: usize,
    /// The number of pairs that were scored.
    pub pairs: usize,
    /// The number of pairs that were truncated.
    pub cut: usize,
}

/// The documents to rank for each query.
pub fn lists<'a>(rankings: &'a [Ranking], options: &EvaluationOptions) -> Vec<List<'a>> {
    rankings.iter().map(|ranking| list(ranking, options)).collect()
}

fn list<'a>(ranking: &'a Ranking, options: &EvaluationOptions) -> List<'a> {
    let Ranking { query, positive, others, .. } = ranking;
    let (mut documents, mut relevant) = (Vec::new(), Vec::new());
    let mut add = |document: &'a str, is_relevant: bool| {
        documents.push(document);
        relevant.push(is_relevant);
    };
    let base = match others {
        Others::Negative(negative) => {
            positive.iter().for_each(|document| add(document, true));
            negative.iter().for_each(|document| add(document, false));
            None
        }
        Others::Found(found) => {
            if options.adds_positives {
                positive.iter().for_each(|document| add(document, true));
                found.iter().filter(|document| !positive.contains(document)).for_each(|document| add(document, false));
            } else {
                found.iter().for_each(|document| add(document, positive.contains(document)));
            }
            Some(base_scores(positive, found, options.k))
        }
    };
    List { query, documents, relevant, base }
}

/// The scores of the order of a search. Relevant documents that it did not find come last.
fn base_scores(positive: &[String], found: &[String], k: usize) -> RerankingScores {
    let mut relevant: Vec<bool> = found.iter().map(|document| positive.contains(document)).collect();
    let hits = relevant.iter().filter(|is_relevant| **is_relevant).count();
    if hits == 0 {
        return RerankingScores::default();
    }
    relevant.extend(std::iter::repeat_n(true, positive.len().saturating_sub(hits)));
    let scores: Vec<f32> = (0..relevant.len()).rev().map(|place| place as f32).collect();
    of_query(&relevant, &scores, k)
}

/// The mean scores of lists whose documents have these scores, end to end. Lists without a relevant document are not
/// among the scored ones.
///
/// # Panics
/// Unless there is one score for each document of each list with a relevant document.
pub fn scores_of_lists(lists: &[List<'_>], scores: &[f32], k: usize) -> RerankingScores {
    let (mut rest, mut of_queries) = (scores, Vec::with_capacity(lists.len()));
    for list in lists {
        if !list.is_scored() {
            of_queries.push(RerankingScores::default());
            continue;
        }
        let (own, others) = rest.split_at(list.documents.len());
        of_queries.push(of_query(&list.relevant, own, k));
        rest = others;
    }
    assert!(rest.is_empty(), "expected one score for each document, found {} more", rest.len());
    mean(&of_queries)
}

impl List<'_> {
    /// Whether its documents must be scored: a list without a relevant document scores 0 in any order.
    fn is_scored(&self) -> bool {
        self.relevant.contains(&true)
    }
}

/// Reranks the documents of each query and scores the order. `progress` receives the completed fraction.
///
/// # Errors
/// Those of [`CrossEncoder::scores`].
pub fn evaluate(
    encoder: &CrossEncoder,
    rankings: &[Ranking],
    options: &EvaluationOptions,
    progress: &mut dyn FnMut(f64),
) -> Result<Evaluation, TaskError> {
    let lists = lists(rankings, options);
    let scored = || lists.iter().filter(|list| list.is_scored());
    let pairs: Vec<(&str, &str)> =
        scored().flat_map(|list| list.documents.iter().map(|document| (list.query, *document))).collect();
    let found = encoder.scores(&pairs, progress)?;
    let base: Vec<RerankingScores> = lists.iter().filter_map(|list| list.base).collect();
    Ok(Evaluation {
        reranked: scores_of_lists(&lists, &found.scores, options.k),
        base: (!base.is_empty()).then(|| mean(&base)),
        queries: lists.len(),
        without_relevant: lists.len() - scored().count(),
        pairs: pairs.len(),
        cut: found.cut,
    })
}

/// Replaces the scores of the documents found for each query by those of a cross-encoder. Returns the number of pairs
/// that were truncated. `progress` receives the completed fraction.
///
/// # Errors
/// Those of [`CrossEncoder::scores`].
///
/// # Panics
/// Unless there is one list of hits for each query, and each hit is a row of `documents`.
pub fn rescore(
    encoder: &CrossEncoder,
    queries: &[Entry],
    documents: &[Entry],
    hits: &mut [Vec<Hit>],
    progress: &mut dyn FnMut(f64),
) -> Result<usize, TaskError> {
    assert_eq!(queries.len(), hits.len(), "expected one list of hits for each query");
    let pairs: Vec<(&Entry, &Entry)> = queries
        .iter()
        .zip(hits.iter())
        .flat_map(|(query, hits)| hits.iter().map(move |hit| (query, &documents[hit.row])))
        .collect();
    let found = encoder.scores(&pairs, progress)?;
    for (hit, score) in hits.iter_mut().flatten().zip(found.scores) {
        hit.score = score;
    }
    Ok(found.cut)
}
