//! Losses of embeddings, with their gradients, computed from the embeddings of a complete step.
//!
//! | file | loss | as in sentence-transformers |
//! | --- | --- | --- |
//! | `info_nce.rs` | cross-entropy of a positive among all candidates of the step | `MultipleNegativesRankingLoss`, `…SymmetricRankingLoss` |
//! | `cosent.rs` | the order of the similarities of scored pairs | `CoSENTLoss` |
//! | `triplet.rs` | the distance to a positive and to a negative | `TripletLoss` |
//! | `distillation.rs` | a teacher's scores or vectors | `MarginMSELoss`, `DistillKLDivLoss`, `MSELoss` |
//! | `vectors.rs` | – | similarities of rows, and their derivatives |
//!
//! A loss sees the embeddings of all texts of a step, however many micro-batches computed them; so the number of
//! candidates does not depend on memory (Gao et al. 2021, "Scaling Deep Contrastive Learning Batch Size under Memory
//! Limited Setup"). Any of them can be the sum over several numbers of leading dimensions (Kusupati et al. 2022,
//! "Matryoshka Representation Learning").

mod cosent;
mod distillation;
mod info_nce;
#[cfg(test)]
mod tests;
mod triplet;
mod vectors;

use std::ops::Range;

use cloze_engine::Device;
use cloze_engine::ops::LossSum;
use serde::{Deserialize, Serialize};

pub use info_nce::{Candidates, Hardness, InfoNce};
pub use vectors::Rows;

/// How two embeddings are compared in a loss.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum Compare {
    /// By the cosine.
    #[default]
    Cosine,
    /// By the dot product.
    Dot,
}

/// The distance in the triplet loss.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum Distance {
    /// 1 − cos.
    Cosine,
    /// ‖a − b + 1e-6‖, as PyTorch's `pairwise_distance`.
    #[default]
    Euclidean,
}

/// A loss of embeddings.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub enum Loss {
    /// Cross-entropy of each positive among the candidates.
    InfoNce(InfoNce),
    /// CoSENT of scored pairs (Huang et al. 2024): log(1 + Σ exp(scale · (s(k) − s(i)))) over the pairs i with a higher
    /// score than k.
    CoSent {
        /// The factor of the similarities.
        scale: f64,
    },
    /// max(d(anchor, positive) − d(anchor, negative) + margin, 0).
    Triplet {
        /// The distance.
        distance: Distance,
        /// The margin.
        margin: f64,
    },
    /// The squared difference between s(anchor, positive) − s(anchor, negative) and the teacher's (Hofstätter et al.
    /// 2020).
    MarginMse {
        /// The similarity s.
        compare: Compare,
    },
    /// KL(teacher ‖ student) over the candidates of a row, of softmax(s/T), times T².
    Kl {
        /// The similarity s.
        compare: Compare,
        /// T.
        temperature: f64,
    },
    /// The mean squared difference from a teacher's vector (Reimers and Gurevych 2020).
    Mse,
}

/// A row of a step: the places of its texts among the candidates, and its labels.
#[derive(Debug, Clone, PartialEq)]
pub struct Row {
    /// The positives.
    pub positives: Range<usize>,
    /// The hard negatives.
    pub negatives: Range<usize>,
    /// The score of a pair, a teacher's scores of the candidates, or a teacher's vector.
    pub labels: Vec<f32>,
}

impl Row {
    /// All candidates of this row: positives, then negatives.
    fn own(&self) -> impl Iterator<Item = usize> + Clone + use<> {
        self.positives.clone().chain(self.negatives.clone())
    }
}

/// The texts of a step without their embeddings. Texts are compared by a hash.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Step {
    /// The rows; row i has anchor i.
    pub rows: Vec<Row>,
    /// A hash of each anchor.
    pub anchors: Vec<u128>,
    /// A hash of each candidate.
    pub candidates: Vec<u128>,
}

/// The embeddings of a step.
#[derive(Clone, Copy)]
pub struct Embeddings<'a> {
    /// Those of the anchors, [N, D].
    pub anchors: Rows<'a>,
    /// Those of the candidates, [M, D].
    pub candidates: Rows<'a>,
}

/// A loss and its derivatives.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Outcome {
    /// The loss: its mean is what a step minimises. A prediction is correct if a positive is nearer than all other
    /// candidates, a negative is farther than the positive, or (for a teacher's scores) the same candidate is the best.
    pub loss: LossSum,
    /// The derivatives of the mean loss by the anchors' embeddings, [N, D].
    pub anchors: Vec<f32>,
    /// Those by the candidates' embeddings, [M, D].
    pub candidates: Vec<f32>,
    /// The derivative by the logarithm of InfoNCE's scale.
    pub log_scale: f64,
    /// The number of negatives that were compared with the anchors, in total.
    pub negatives: u64,
}

impl Outcome {
    fn zeros(embeddings: &Embeddings<'_>) -> Outcome {
        Outcome {
            anchors: vec![0.0; embeddings.anchors.values.len()],
            candidates: vec![0.0; embeddings.candidates.values.len()],
            ..Outcome::default()
        }
    }
}

impl Loss {
    /// The loss of a step and its derivatives. Panics if labels do not fit: see [`check`](Self::check).
    pub fn of(&self, device: &Device, step: &Step, embeddings: &Embeddings<'_>) -> Outcome {
        match self {
            Loss::InfoNce(settings) => info_nce::loss(device, *settings, step, embeddings),
            Loss::CoSent { scale } => cosent::loss(*scale, step, embeddings),
            Loss::Triplet { distance, margin } => triplet::loss(*distance, *margin, step, embeddings),
            Loss::MarginMse { compare } => distillation::margin_mse(*compare, step, embeddings),
            Loss::Kl { compare, temperature } => distillation::kl(*compare, *temperature, step, embeddings),
            Loss::Mse => distillation::mse(step, embeddings),
        }
    }

    /// Checks that a row has the texts and labels that the loss needs; `width` is that of an embedding.
    ///
    /// # Errors
    /// What was expected and found.
    pub fn check(&self, row: &Row, width: usize) -> Result<(), String> {
        let (positives, negatives, labels) = (row.positives.len(), row.negatives.len(), row.labels.len());
        let of_texts = |fits: bool, expected: &str| {
            let found = format!("{positives} positive and {negatives} negative texts");
            if fits { Ok(()) } else { Err(format!("expected an anchor with {expected}, found {found}")) }
        };
        let of_labels = |fits: bool, expected: String| {
            if fits { Ok(()) } else { Err(format!("expected {expected}, found {labels} scores")) }
        };
        match self {
            Loss::InfoNce(InfoNce { candidates: Candidates::Own, .. }) => of_texts(
                positives > 0 && negatives > 0,
                "a positive and a negative, because only a row's own negatives count",
            ),
            Loss::InfoNce(_) => of_texts(positives > 0, "a positive"),
            Loss::CoSent { .. } => {
                of_texts(positives == 1 && negatives == 0, "one other text")?;
                of_labels(labels == 1, "a score".to_owned())
            }
            Loss::Triplet { .. } => of_texts(positives > 0 && negatives > 0, "a positive and a negative"),
            Loss::MarginMse { .. } => {
                of_texts(positives == 1 && negatives > 0, "one positive and a negative")?;
                let expected = format!("{} scores, one for each text, or {negatives} margins", 1 + negatives);
                of_labels(labels == 1 + negatives || labels == negatives, expected)
            }
            Loss::Kl { .. } => {
                of_texts(positives + negatives > 1, "two candidates")?;
                of_labels(
                    labels == positives + negatives,
                    format!("{} scores, one for each text", positives + negatives),
                )
            }
            Loss::Mse => {
                of_labels(labels == width, format!("a teacher's vector of {width} numbers, the model's width"))
            }
        }
    }
}

/// A loss at several numbers of leading dimensions: the weighted sum of the losses of truncated embeddings. Gradients of
/// truncated embeddings are added.
#[derive(Debug, Clone, PartialEq)]
pub struct Matryoshka {
    /// The loss.
    pub loss: Loss,
    /// The numbers of dimensions with their weights; empty: only all dimensions, with weight 1.
    pub dimensions: Vec<(usize, f64)>,
}

impl Matryoshka {
    /// The loss of a step: sums, counts and the number of negatives are those of the first number of dimensions, except
    /// for the sum of the loss, which is the weighted sum. Panics for more dimensions than the embeddings have.
    pub fn of(&self, device: &Device, step: &Step, embeddings: &Embeddings<'_>) -> Outcome {
        let width = embeddings.anchors.width;
        if self.dimensions.is_empty() {
            return self.loss.of(device, step, embeddings);
        }
        let mut all = Outcome::zeros(embeddings);
        for (number, &(kept, weight)) in self.dimensions.iter().enumerate() {
            let [anchors, candidates] = [embeddings.anchors, embeddings.candidates].map(|rows| rows.truncated(kept));
            let truncated = Embeddings { anchors: Rows::new(kept, &anchors), candidates: Rows::new(kept, &candidates) };
            let own = self.loss.of(device, step, &truncated);
            for (to, from) in [(&mut all.anchors, &own.anchors), (&mut all.candidates, &own.candidates)] {
                for (to, from) in to.chunks_exact_mut(width).zip(from.chunks_exact(kept)) {
                    to.iter_mut().zip(from).for_each(|(to, from)| *to += (weight * f64::from(*from)) as f32);
                }
            }
            let sum = all.loss.sum + weight * own.loss.sum;
            if number == 0 {
                (all.loss, all.negatives) = (own.loss, own.negatives);
            }
            all.loss.sum = sum;
            all.log_scale += weight * own.log_scale;
        }
        all
    }
}
