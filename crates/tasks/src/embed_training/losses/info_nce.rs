//! InfoNCE: the cross-entropy of each positive among the candidates (van den Oord et al. 2018; in-batch negatives:
//! Henderson et al. 2017).
//!
//! For the anchor a of row i and a positive p, with logits z(c) = scale · s(a, c):
//!
//! ```text
//! ℓ = log(exp z(p) + Σ_c exp z(c)) − z(p),   over the candidates c that are compared
//! ```
//!
//! The loss of a row is the mean over its positives. A candidate is not compared if its text is that of the anchor or of
//! one of the row's positives: other rows may have the same text, and a positive is no negative of its own anchor.
//!
//! With [`InfoNce::symmetric`], each positive also selects its anchor among all anchors, and the loss is the mean of both
//! directions. With [`InfoNce::hardness`] α, the logits of some negatives are z(c) + α s(a, c), where the addition is a
//! constant: it increases the weight of hard negatives (Lan et al. 2025, "LLaVE").
//!
//! Similarities are computed by blocks of rows, so that the memory grows with the number of candidates, not with its
//! square.

use std::collections::HashMap;
use std::ops::Range;
use std::sync::{Mutex, PoisonError};

use cloze_engine::ops::{LossSum, matmul};
use cloze_engine::{Device, Tensor};
use serde::{Deserialize, Serialize};

use super::vectors::through_normalization;
use super::{Compare, Embeddings, Outcome, Row, Rows, Step};
use crate::parallel;

/// Similarities in a block: 64 MB.
const BLOCK: usize = 16 << 20;

/// The candidates that an anchor is compared with.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum Candidates {
    /// All candidates of the step.
    #[default]
    InBatch,
    /// The row's own hard negatives.
    Own,
}

/// The negatives whose logits are raised by their similarity.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum Hardness {
    /// Candidates of other rows.
    #[default]
    InBatch,
    /// The row's own negatives.
    Hard,
    /// Both.
    All,
}

/// The settings of InfoNCE.
#[derive(Debug, Clone, Copy, PartialEq)]
#[non_exhaustive]
pub struct InfoNce {
    /// The factor of the similarities: 1/temperature.
    pub scale: f64,
    /// The similarity.
    pub compare: Compare,
    /// What the anchors are compared with.
    pub candidates: Candidates,
    /// Whether the positives also select their anchors.
    pub symmetric: bool,
    /// Which negatives weigh more, and α; `None`: none.
    pub hardness: Option<(Hardness, f64)>,
}

impl Default for InfoNce {
    fn default() -> InfoNce {
        InfoNce {
            scale: 20.0,
            compare: Compare::Cosine,
            candidates: Candidates::InBatch,
            symmetric: false,
            hardness: None,
        }
    }
}

/// One query, which selects its targets among options.
struct Query {
    /// The weight of its loss.
    weight: f64,
    targets: Vec<usize>,
    /// The places of its own hard negatives.
    hard: Range<usize>,
    /// Whether only these are compared.
    only_hard: bool,
    /// Hashes of texts that are not compared.
    excluded: Vec<u128>,
}

/// Loss, number correct, number of compared options, and Σ dz · s of one query.
#[derive(Default)]
struct OfQuery {
    loss: f64,
    correct: usize,
    compared: u64,
    by_log_scale: f64,
}

impl InfoNce {
    /// Replaces the similarities of a query by the derivatives of its loss by them.
    fn query(&self, query: &Query, options: &[u128], similarities: &mut [f32]) -> OfQuery {
        let InfoNce { scale, hardness, .. } = *self;
        let mut compared = vec![false; options.len()];
        if query.only_hard {
            compared[query.hard.clone()].fill(true);
        } else {
            compared.fill(true);
        }
        for (place, hash) in options.iter().enumerate() {
            if query.excluded.contains(hash) {
                compared[place] = false;
            }
        }
        query.targets.iter().for_each(|&place| compared[place] = false);
        let logit = |place: usize, similarity: f32| {
            let hard = query.hard.contains(&place);
            let more = match hardness {
                Some((Hardness::InBatch, alpha)) if !hard => alpha,
                Some((Hardness::Hard, alpha)) if hard => alpha,
                Some((Hardness::All, alpha)) => alpha,
                _ => 0.0,
            };
            ((scale + more) * f64::from(similarity)) as f32
        };
        let targets: Vec<f32> =
            query.targets.iter().map(|&place| (scale * f64::from(similarities[place])) as f32).collect();
        let mut max = targets.iter().copied().fold(f32::NEG_INFINITY, f32::max);
        let mut nearest = f32::NEG_INFINITY;
        let mut count = 0;
        for (place, similarity) in similarities.iter().enumerate() {
            if compared[place] {
                nearest = nearest.max(logit(place, *similarity));
                count += 1;
            }
        }
        max = max.max(nearest);
        // Exponentials replace the similarities; their derivatives by log scale need both.
        let (mut sum, mut by_log_scale) = (0f64, 0f64);
        let mut weighted = 0f64;
        let of_targets: Vec<f64> = query.targets.iter().map(|&place| f64::from(similarities[place])).collect();
        for (place, similarity) in similarities.iter_mut().enumerate() {
            if compared[place] {
                let exponential = (logit(place, *similarity) - max).exp();
                sum += f64::from(exponential);
                weighted += f64::from(exponential) * f64::from(*similarity);
                *similarity = exponential;
            } else {
                *similarity = 0.0;
            }
        }
        let share = query.weight / query.targets.len() as f64;
        let (mut loss, mut inverse, mut correct) = (0.0, 0.0, 0);
        for ((&place, &z), &similarity) in query.targets.iter().zip(&targets).zip(&of_targets) {
            let own = f64::from((z - max).exp());
            let total = sum + own;
            loss += share * (total.ln() + f64::from(max) - f64::from(z));
            let d = share * (own / total - 1.0);
            by_log_scale += scale * (d * similarity + share * weighted / total);
            similarities[place] = (scale * d) as f32;
            inverse += share / total;
            correct += usize::from(z > nearest);
        }
        // The targets are not among the compared, so their derivatives are not scaled.
        for (similarity, _) in similarities.iter_mut().zip(&compared).filter(|(_, compared)| **compared) {
            *similarity = (scale * inverse * f64::from(*similarity)) as f32;
        }
        OfQuery { loss, correct: usize::from(correct == query.targets.len()), compared: count, by_log_scale }
    }

    /// The loss of all queries. Adds the derivatives by queries and options, both [·, D].
    fn direction(
        &self,
        device: &Device,
        [queries, options]: [&[f32]; 2],
        hashes: &[u128],
        query_of: impl Fn(usize) -> Query + Sync,
        [d_queries, d_options]: [&mut [f32]; 2],
    ) -> OfQuery {
        let width = options.len() / hashes.len();
        let count = queries.len() / width;
        let per_block = (BLOCK / hashes.len().max(1)).clamp(1, count.max(1));
        let all_options = device.tensor_f32(options, &[hashes.len(), width]);
        let mut sums = OfQuery::default();
        for first in (0..count).step_by(per_block) {
            let rows = first..count.min(first + per_block);
            let block = device.tensor_f32(&queries[rows.start * width..rows.end * width], &[rows.len(), width]);
            let mut similarities = matmul(device, &block, &all_options, [false, true]).to_vec_f32();
            let of_rows: Vec<(usize, Mutex<&mut [f32]>)> =
                rows.clone().zip(similarities.chunks_exact_mut(hashes.len()).map(Mutex::new)).collect();
            let found = parallel::map(&of_rows, device.threads(), |(number, row)| {
                let mut row = row.lock().unwrap_or_else(PoisonError::into_inner);
                self.query(&query_of(*number), hashes, &mut row)
            });
            drop(of_rows);
            for one in found {
                sums.loss += one.loss;
                sums.correct += one.correct;
                sums.compared += one.compared;
                sums.by_log_scale += one.by_log_scale;
            }
            let derivatives = device.tensor_f32(&similarities, &[rows.len(), hashes.len()]);
            let add = |to: &mut [f32], product: Tensor| {
                to.iter_mut().zip(product.to_vec_f32()).for_each(|(to, more)| *to += more);
            };
            add(
                &mut d_queries[rows.start * width..rows.end * width],
                matmul(device, &derivatives, &all_options, [false; 2]),
            );
            add(d_options, matmul(device, &derivatives, &block, [true, false]));
        }
        sums
    }
}

pub(super) fn loss(device: &Device, settings: InfoNce, step: &Step, embeddings: &Embeddings<'_>) -> Outcome {
    let width = embeddings.anchors.width;
    let is_cosine = settings.compare == Compare::Cosine;
    let unit = |rows: &Rows<'_>| if is_cosine { rows.normalized() } else { (rows.values.to_vec(), Vec::new()) };
    let (anchors, anchor_norms) = unit(&embeddings.anchors);
    let (candidates, candidate_norms) = unit(&embeddings.candidates);
    let mut outcome = Outcome::zeros(embeddings);
    let rows = step.rows.len();
    let weight = if settings.symmetric { 0.5 } else { 1.0 } / rows as f64;
    let forward = |number: usize| {
        let Row { positives, negatives, .. } = &step.rows[number];
        let own = positives.clone().map(|place| step.candidates[place]);
        Query {
            weight,
            targets: positives.clone().collect(),
            hard: negatives.clone(),
            only_hard: settings.candidates == Candidates::Own,
            excluded: std::iter::once(step.anchors[number]).chain(own).collect(),
        }
    };
    let derivatives = [&mut outcome.anchors[..], &mut outcome.candidates[..]];
    let sums = settings.direction(device, [&anchors, &candidates], &step.candidates, forward, derivatives);
    outcome.loss = LossSum { sum: sums.loss * rows as f64, weight: rows as f64, count: rows, correct: sums.correct };
    outcome.log_scale = sums.by_log_scale;
    outcome.negatives = sums.compared;
    if settings.symmetric {
        settings.backward(device, weight, step, [&anchors, &candidates], &mut outcome);
    }
    if is_cosine {
        through_normalization(&mut outcome.anchors, &anchors, &anchor_norms, width);
        through_normalization(&mut outcome.candidates, &candidates, &candidate_norms, width);
    }
    outcome
}

impl InfoNce {
    /// Adds the direction from the positives to the anchors. An anchor is not compared if its text is the positive's, or
    /// if the positive's text is one of its own positives.
    fn backward(
        &self,
        device: &Device,
        weight: f64,
        step: &Step,
        [anchors, candidates]: [&[f32]; 2],
        outcome: &mut Outcome,
    ) {
        let width = anchors.len() / step.anchors.len();
        let of_row = |(row, of): (usize, &Row)| of.positives.clone().map(move |place| (row, place)).collect::<Vec<_>>();
        let positives: Vec<(usize, usize)> = step.rows.iter().enumerate().flat_map(of_row).collect();
        let mut anchors_of: HashMap<u128, Vec<u128>> = HashMap::new();
        for &(row, place) in &positives {
            anchors_of.entry(step.candidates[place]).or_default().push(step.anchors[row]);
        }
        let query_of = |number: usize| {
            let (row, place) = positives[number];
            let mut excluded = anchors_of[&step.candidates[place]].clone();
            excluded.push(step.candidates[place]);
            let weight = weight / step.rows[row].positives.len() as f64;
            Query { weight, targets: vec![row], hard: 0..0, only_hard: false, excluded }
        };
        let range = |place: usize| place * width..(place + 1) * width;
        let queries: Vec<f32> = positives.iter().flat_map(|(_, place)| &candidates[range(*place)]).copied().collect();
        let mut d_queries = vec![0.0; queries.len()];
        let plain = InfoNce { hardness: None, ..*self };
        let derivatives = [&mut d_queries[..], &mut outcome.anchors[..]];
        let sums = plain.direction(device, [&queries, anchors], &step.anchors, query_of, derivatives);
        for ((_, place), d) in positives.iter().zip(d_queries.chunks_exact(width)) {
            outcome.candidates[range(*place)].iter_mut().zip(d).for_each(|(to, d)| *to += d);
        }
        outcome.loss.sum += sums.loss * outcome.loss.weight;
        outcome.log_scale += sums.by_log_scale;
    }
}
