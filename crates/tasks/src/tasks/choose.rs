//! The right one of several endings: each with its context through \[CLS\] to one logit, a softmax over the endings.

use cloze_model::{Config, TaskHead};
use cloze_text::Tokenizer;
use serde::Serialize;

use super::{Length, Text, collapsed, largest, softmax};
use crate::TaskError;
use crate::example::{Example, Target};
use crate::metrics::classes::accuracy;
use crate::task::{Encoded, Scores, Task};

/// Multiple choice.
#[derive(Debug, Clone)]
pub struct Choose {
    /// Tokens of a context with one ending at most; what does not fit is cut off the longer of the two.
    pub max_len: usize,
}

/// A context with its endings.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Row {
    /// The first text.
    pub context: String,
    /// The second texts, one of which is right.
    pub endings: Vec<String>,
    /// Which, if known.
    pub label: Option<usize>,
}

/// The ending of a context.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Prediction {
    /// The likeliest ending's number, from 0.
    pub choice: usize,
    /// Its text.
    pub ending: String,
    /// The probability of each.
    pub probabilities: Vec<f64>,
}

impl Task for Choose {
    type Row = Row;
    type Notes = ();
    type Prediction = Prediction;

    fn head(&self) -> TaskHead {
        TaskHead::Choose
    }

    fn describe(&self, config: &mut Config) {
        for key in ["id2label", "label2id", "problem_type"] {
            config.extra.remove(key);
        }
    }

    fn encode(&self, row: &Row, tokenizer: &Tokenizer) -> Result<Encoded<()>, TaskError> {
        let length = Length { max_len: self.max_len, stride: None };
        let (mut sequences, mut cut) = (Vec::new(), 0);
        for ending in &row.endings {
            let text = Text { text: row.context.clone(), pair: Some(ending.clone()) };
            let (sequence, lost) = length.sequences(tokenizer, &text)?;
            sequences.extend(sequence);
            cut += lost;
        }
        if sequences.len() < 2 {
            return Err(TaskError::input("choices", format!("{} of them: expected two at least", sequences.len())));
        }
        Ok(Encoded { examples: vec![Example { sequences, target: Target::Choice(row.label) }], cut, notes: () })
    }

    fn predict(&self, row: &Row, _: &Encoded<()>, logits: &[Vec<f32>]) -> Result<Prediction, TaskError> {
        let shares =
            logits.first().and_then(|logits| softmax(logits)).filter(|shares| shares.len() == row.endings.len());
        let probabilities = shares.ok_or_else(|| TaskError::Logits(format!("context {:?}", row.context)))?;
        let choice = largest(&probabilities);
        Ok(Prediction { choice, ending: row.endings[choice].clone(), probabilities })
    }

    fn scores(&self, rows: &[&Row], predictions: &[&Prediction]) -> Scores {
        let known = rows.iter().zip(predictions).filter_map(|(row, found)| Some((row.label?, found.choice)));
        let (gold, predicted): (Vec<usize>, Vec<usize>) = known.unzip();
        Scores {
            rows: gold.len(),
            values: vec![("accuracy".to_owned(), accuracy(&gold, &predicted))],
            details: serde_json::Map::new(),
            collapsed: collapsed(&gold, &predicted).map(|choice| format!("choice {choice}")),
        }
    }
}
