//! What a task's rows become: sequences of ids, and what is right.

use cloze_text::Sequence;

/// PyTorch's `ignore_index`: what is right is not known, and is not counted.
pub const IGNORED: i32 = -100;

/// The unit of training: some sequences that are judged together, and what is right of them.
#[derive(Debug, Clone, PartialEq)]
pub struct Example {
    /// One; or a long text's windows, whose logits are averaged; or the choices.
    pub sequences: Vec<Sequence>,
    /// The tokens of the one sequence whose logits are read, rising: a word's first piece. Only a tagger's head reads tokens.
    pub tokens: Vec<u32>,
    /// What is right.
    pub target: Target,
}

impl Example {
    /// An example of sequences whose head chooses the tokens that it reads.
    pub fn new(sequences: Vec<Sequence>, target: Target) -> Example {
        Example { sequences, tokens: Vec::new(), target }
    }

    /// Tokens of all sequences.
    pub fn length(&self) -> usize {
        self.sequences.iter().map(|sequence| sequence.ids.len()).sum()
    }
}

/// What logits are compared with: the input of one of the engine's losses.
#[derive(Debug, Clone, PartialEq)]
pub enum Target {
    /// Cross-entropy over each row's logits: the class of each row; [`IGNORED`] where it is not known.
    Classes(Vec<i32>),
    /// Squared error: a number for each logit; not a number where it is not known.
    Values(Vec<f32>),
    /// Binary cross-entropy of each logit on its own: 1 or 0; not a number where it is not known.
    Binary(Vec<f32>),
    /// Cross-entropy over an example's rows: for each column of logits the right row, from the example's first; [`IGNORED`] where it
    /// is not known.
    Positions(Vec<i32>),
}

impl Target {
    /// The class of an example, if known.
    pub fn class(class: Option<usize>) -> Target {
        Target::Classes(vec![known(class)])
    }

    /// The number of an example, if known.
    pub fn value(value: Option<f32>) -> Target {
        Target::Values(vec![value.unwrap_or(f32::NAN)])
    }

    /// The right row for each column of logits, if known.
    pub fn positions<const COLUMNS: usize>(rows: Option<[usize; COLUMNS]>) -> Target {
        Target::Positions(match rows {
            Some(rows) => rows.map(|row| row as i32).to_vec(),
            None => vec![IGNORED; COLUMNS],
        })
    }

    /// How many of what is right is known.
    pub fn known(&self) -> usize {
        match self {
            Target::Classes(labels) | Target::Positions(labels) => {
                labels.iter().filter(|label| **label != IGNORED).count()
            }
            Target::Values(values) | Target::Binary(values) => values.iter().filter(|value| !value.is_nan()).count(),
        }
    }

    /// Appends another example's; panics on a mixture of losses, which no task makes.
    pub fn append(&mut self, other: &Target) {
        match (self, other) {
            (Target::Classes(all), Target::Classes(more)) | (Target::Positions(all), Target::Positions(more)) => {
                all.extend(more);
            }
            (Target::Values(all), Target::Values(more)) | (Target::Binary(all), Target::Binary(more)) => {
                all.extend(more)
            }
            (_, other) => panic!("a batch of one loss, found {other:?} among others"),
        }
    }
}

fn known(class: Option<usize>) -> i32 {
    class.map_or(IGNORED, |class| class as i32)
}
