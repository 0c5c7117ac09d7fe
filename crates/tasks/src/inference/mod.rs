//! Inference: one [`Pretrained`] model, shared by all its users.
//!
//! | module | in → out |
//! | --- | --- |
//! | [`pretrained`] | a folder → a model with its tokenizer and its device |
//! | [`attention`] | a text or a pair → its tokens and what each head attends to |
//! | [`executor`] | examples → the network's numbers, at once or in a server's queue |
//! | [`precision`] | f32, bf16 or int8 |
//! | [`fill`] | a text with \[MASK\]s → the most probable tokens |
//! | [`likelihood`] | sentences → their log-likelihoods |
//! | [`minimal_pairs`] | pairs of an acceptable and an unacceptable sentence (BLiMP) → accuracies |
//! | [`next_sentence`] | pairs of texts → the probability that the second follows the first |
//! | [`predictor`] | rows of a fine-tuned model's task → predictions and scores |
//!
//! [`Embedder`](crate::embed::Embedder) converts texts to vectors with the same model.

pub mod attention;
pub mod executor;
pub mod fill;
pub mod likelihood;
pub mod minimal_pairs;
pub mod next_sentence;
pub mod precision;
pub mod predictor;
pub mod pretrained;

pub use attention::{Attention, AttentionOptions, attend};
pub use executor::{Executor, Output};
pub use fill::Filler;
pub use next_sentence::NextSentence;
pub use precision::Precision;
pub use predictor::Predictor;
pub use pretrained::Pretrained;
