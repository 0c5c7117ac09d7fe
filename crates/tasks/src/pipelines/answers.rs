//! The answers to the inputs of a request.

use serde::{Serialize, Serializer};

/// The answers to one input or to a list of inputs. Serialized, they are what the pipeline of Transformers returns: a list of
/// answers for a list, else one answer.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct Answers<T> {
    /// One answer for each input, in order.
    pub rows: Vec<T>,
    /// Whether the inputs were a list.
    pub is_list: bool,
    /// The number of inputs that were truncated.
    pub cut: usize,
    /// Notes for the user, such as that inputs were truncated.
    pub notes: Vec<String>,
}

impl<T> Answers<T> {
    pub(super) fn new(rows: Vec<T>, is_list: bool) -> Answers<T> {
        Answers { rows, is_list, cut: 0, notes: Vec::new() }
    }

    /// With a note if some of the inputs were truncated to `limit` tokens.
    pub(super) fn with_cut(mut self, cut: usize, limit: usize) -> Answers<T> {
        self.cut = cut;
        if cut > 0 {
            let texts = if cut == 1 { "text was" } else { "texts were" };
            self.notes.push(format!("{cut} {texts} truncated to {limit} tokens, which is all that the model reads"));
        }
        self
    }
}

impl<T: Serialize> Serialize for Answers<T> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match (&self.rows[..], self.is_list) {
            ([row], false) => row.serialize(serializer),
            (rows, _) => rows.serialize(serializer),
        }
    }
}

/// A label with its score.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[non_exhaustive]
pub struct LabelScore {
    /// The label.
    pub label: String,
    /// The score.
    pub score: f64,
}

impl LabelScore {
    pub(super) fn new(label: String, score: f64) -> LabelScore {
        LabelScore { label, score }
    }
}
