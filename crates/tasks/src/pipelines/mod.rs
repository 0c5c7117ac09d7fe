//! The pipelines of Transformers: what `pipeline(task)` answers, number by number. `cloze serve` answers payloads of Hugging
//! Face's inference API with them.
//!
//! | module | in → out |
//! | --- | --- |
//! | [`text_classification`] | a text or a pair → labels with scores |
//! | [`token_classification`] | a text → the entities of its tokens, words or groups of words |
//! | [`question_answering`] | a question and a context → spans of the context |
//! | [`fill_mask`] | a text with masks → tokens |
//! | [`zero_shot_classification`] | a text and candidate labels → the labels with scores, by natural language inference |
//! | [`sentence_similarity`] | a sentence and others → cosines of their vectors |
//! | [`answers`] | the answers to one input or to a list |
//! | [`inputs`] | JSON → the inputs of a request |
//! | `fields` | JSON → parameters |
//! | `logits` | logits → scores, in Transformers' precision |
//! | `sequences` | texts → sequences that fit the model |
//!
//! The semantics are those of transformers 5.24, and of 4.57 for question answering, which later versions do not have.
//! `fixtures/pipelines` has their answers. Each pipeline documents where it differs: where Transformers fails or leaves out
//! text without a message. Names of special tokens in texts (`[SEP]`) are read as the model's
//! [tokenizer](cloze_text::Tokenizer::special_tokens) says; Transformers reads them as special tokens (`parse`).
//!
//! `Parameters` and inputs are made from JSON with `TryFrom<Value>`, whose errors are clear lines, or by serde. Unknown keys
//! are ignored, and null is the same as absent, as in the API.

pub mod answers;
mod fields;
pub mod fill_mask;
pub mod inputs;
mod logits;
pub mod question_answering;
pub mod sentence_similarity;
mod sequences;
#[cfg(test)]
mod tests;
pub mod text_classification;
pub mod token_classification;
pub mod zero_shot_classification;

pub use answers::{Answers, LabelScore};
pub use fill_mask::FillMask;
pub use inputs::{Inputs, Question, TextOrPair};
pub use question_answering::QuestionAnswering;
pub use sentence_similarity::SentenceSimilarity;
pub use text_classification::TextClassification;
pub use token_classification::TokenClassification;
pub use zero_shot_classification::ZeroShotClassification;
