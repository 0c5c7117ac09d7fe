//! The tasks that models can have.

use serde::Serialize;

/// A task of a model.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum Task {
    /// Vectors of texts.
    Embed,
    /// Vectors of the tokens of texts.
    TokenEmbed,
    /// Similarities of texts.
    Similarity,
    /// A label for each text or pair.
    Classify,
    /// Any number of labels for each text or pair.
    MultiLabel,
    /// A number for each text or pair.
    Regress,
    /// The relevance of documents for a query.
    Rerank,
    /// Labels that the model was not trained for, by natural-language inference.
    ZeroShot,
    /// A label for each word or token; entities.
    Tag,
    /// The part of a text that answers a question.
    Answer,
    /// The best of several endings.
    Choose,
    /// The most probable tokens for a mask.
    FillMask,
    /// Whether one text follows another.
    NextSentence,
    /// What its heads attend to.
    Attention,
}

impl Task {
    /// The tasks with scores for labels.
    pub const CLASSIFIERS: [Task; 3] = [Task::Classify, Task::MultiLabel, Task::Regress];

    /// The name, as in lists of models.
    pub fn name(self) -> &'static str {
        match self {
            Task::Embed => "embed",
            Task::TokenEmbed => "token-embed",
            Task::Similarity => "similarity",
            Task::Classify => "classify",
            Task::MultiLabel => "multi-label",
            Task::Regress => "regress",
            Task::Rerank => "rerank",
            Task::ZeroShot => "zero-shot",
            Task::Tag => "tag",
            Task::Answer => "answer",
            Task::Choose => "choose",
            Task::FillMask => "fill-mask",
            Task::NextSentence => "next-sentence",
            Task::Attention => "attention",
        }
    }
}
