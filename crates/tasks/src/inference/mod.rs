//! Inference: one [`Pretrained`] model, shared by all its users.
//!
//! | module | in → out |
//! | --- | --- |
//! | [`pretrained`] | a folder → a model with its tokenizer and its device |
//! | [`precision`] | f32, bf16 or int8 |
//! | [`fill`] | a text with \[MASK\]s → the most probable tokens |
//! | [`likelihood`] | sentences → their log-likelihoods |
//! | [`minimal_pairs`] | pairs of an acceptable and an unacceptable sentence (BLiMP) → accuracies |
//! | [`predictor`] | rows of a fine-tuned model's task → predictions and scores |
//!
//! [`Embedder`](crate::embed::Embedder) converts texts to vectors with the same model.

pub mod fill;
pub mod likelihood;
pub mod minimal_pairs;
pub mod precision;
pub mod predictor;
pub mod pretrained;

pub use fill::Filler;
pub use precision::Precision;
pub use predictor::Predictor;
pub use pretrained::Pretrained;
