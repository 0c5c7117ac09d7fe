//! What a task's rows become: sequences of ids, and what is right.

use cloze_text::Sequence;

/// The unit of training: some sequences that are judged together, and what is right of them.
#[derive(Debug, Clone, PartialEq)]
pub struct Example {
    /// One; or a long text's windows, whose logits are averaged; or the choices.
    pub sequences: Vec<Sequence>,
    /// What is right.
    pub target: Target,
}

impl Example {
    /// Tokens of all sequences.
    pub fn tokens(&self) -> usize {
        self.sequences.iter().map(|sequence| sequence.ids.len()).sum()
    }
}

/// What the logits of an example are compared with. Every kind of task has its own; `None` in each: not known.
#[derive(Debug, Clone, PartialEq)]
pub enum Target {
    /// The class of the sequences.
    Class(Option<usize>),
    /// The number to predict.
    Value(Option<f32>),
    /// The classes of some tokens of the one sequence.
    Tags {
        /// Their rows, rising: a word's first piece.
        rows: Vec<u32>,
        /// Their classes.
        labels: Option<Vec<usize>>,
    },
    /// The rows of the one sequence where the answer starts and ends (the last row of it); \[CLS\], 0, if it is not here.
    Span(Option<(usize, usize)>),
    /// The right one among the sequences.
    Choice(Option<usize>),
}
