//! Evaluations of embedding models on pairs, triplets and duplicates of texts, as sentence-transformers' evaluators
//! compute them. [`retrieval`](crate::retrieval) has the evaluation on test collections.
//!
//! | module | in → out | evaluator |
//! | --- | --- | --- |
//! | [`vectors`] | texts → vectors, each distinct text once | – |
//! | [`similarity`] | vectors of pairs → their similarities | `pairwise_cos_sim` and others |
//! | [`sts`] | vectors of pairs, gold scores → correlations | `EmbeddingSimilarityEvaluator` |
//! | [`pairs`] | vectors of pairs, labels → average precision, best accuracy, best F1 | `BinaryClassificationEvaluator` |
//! | [`triplets`] | vectors of triplets → accuracy | `TripletEvaluator` |
//! | [`mining`] | vectors of texts, duplicates → average precision, best F1 | `ParaphraseMiningEvaluator` |
//!
//! All modules but the first compute on vectors only, so that they can also be used while a model is trained. The
//! readers of files are in [`datasets::tuples`](crate::datasets::tuples).

pub mod mining;
pub mod pairs;
pub mod similarity;
pub mod sts;
pub mod triplets;
pub mod vectors;

pub use mining::{Duplicates, MinedPair, MiningOptions, MiningScores};
pub use pairs::PairScores;
pub use sts::Correlations;
pub use triplets::TripletAccuracy;
pub use vectors::embed_columns;

#[cfg(test)]
mod tests;
