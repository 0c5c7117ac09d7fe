//! Models at work: one [`Pretrained`] model, shared by whatever uses it.
//!
//! | module | in → out |
//! | --- | --- |
//! | [`pretrained`] | a folder → a model with its tokenizer and its device |
//! | [`fill`] | a text with \[MASK\]s → the likeliest tokens |
//! | [`predictor`] | rows of a fine-tuned model's task → predictions, scores |
//!
//! [`Embedder`](crate::embed::Embedder) turns texts into vectors with the same model.

pub mod fill;
pub mod predictor;
pub mod pretrained;

pub use fill::Filler;
pub use predictor::Predictor;
pub use pretrained::Pretrained;
