//! Batches as tokens, for display.

use cloze_text::{Template, Tokenizer};

use super::packed::Batch;

/// One sequence of a batch as tokens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Example {
    /// The tokens in order, with \[CLS\] and \[SEP\].
    pub pieces: Vec<ExamplePiece>,
    /// The label of the pair, 0 or 1: see [`PairTask`](super::PairTask); `None` without pairs.
    pub pair_label: Option<i32>,
}

/// One token of an [`Example`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ExamplePiece {
    /// The token in the model's input: `[MASK]`, `walk`, `##ing`…
    pub token: String,
    /// The original token, if it is to be predicted. One in ten of these equals `token`.
    pub label: Option<String>,
    /// 0 for \[CLS\] A \[SEP\], 1 for B \[SEP\].
    pub segment: u8,
    /// Whether it was added by the tokenizer's template (\[CLS\] or \[SEP\]).
    pub added: bool,
}

/// Every sequence of a batch as tokens. An id outside the vocabulary is shown as `<id>`.
pub fn describe(batch: &Batch, tokenizer: &Tokenizer) -> Vec<Example> {
    describe_with(batch, tokenizer.template(), |id| tokenizer.token(id).map(str::to_string))
}

pub(super) fn describe_with(batch: &Batch, template: &Template, token: impl Fn(u32) -> Option<String>) -> Vec<Example> {
    let name = |id: i32| token(id as u32).unwrap_or_else(|| format!("<{id}>"));
    (0..batch.sequences())
        .map(|sequence| {
            let rows = batch.rows(sequence);
            let mut pieces: Vec<ExamplePiece> = rows
                .clone()
                .map(|row| ExamplePiece {
                    token: name(batch.ids[row]),
                    label: None,
                    segment: batch.segments[row] as u8,
                    added: template.adds(batch.ids[row] as u32),
                })
                .collect();
            for at in batch.prediction_range(sequence) {
                let row = batch.mlm_rows[at] as usize - rows.start;
                pieces[row].label = Some(name(batch.mlm_labels[at]));
            }
            Example { pieces, pair_label: batch.pair_labels.get(sequence).copied() }
        })
        .collect()
}
