//! Sequences that fit the model: truncation, and windows over long texts.

use std::ops::Range;

use crate::TaskError;
use crate::example::Example;
use crate::inference::executor::{Executor, Output, run_all};
use crate::inference::pretrained::Pretrained;

/// The maximum number of tokens of a sequence that Transformers' truncation leaves (`model_max_length`), at most as many as
/// the model has positions.
pub(super) fn limit(model: &Pretrained) -> usize {
    let positions = positions(model);
    model.tokenizer.model_max_length().map_or(positions, |limit| limit.min(positions))
}

/// The number of the model's positions.
pub(super) fn positions(model: &Pretrained) -> usize {
    model.model.architecture().max_sequence_length()
}

/// The overlapping windows of the `tokenizers` crate over `length` tokens, each of at most `room`, of which `overlap` are
/// those of the window before. They start at the end of the text if texts are truncated at the beginning (`from_end`).
/// `overlap` is less than `room` unless all tokens fit.
pub(super) fn windows(length: usize, room: usize, overlap: usize, from_end: bool) -> Vec<Range<usize>> {
    // Tokens that fit are one window, whatever the overlap is.
    let (step, mut windows, mut from) = (room.saturating_sub(overlap), Vec::new(), 0);
    loop {
        let to = length.min(from + room);
        // The mirror image, if they start at the end.
        windows.push(if from_end { length - to..length - from } else { from..to });
        if to == length {
            return windows;
        }
        from += step;
    }
}

/// The logits of the model's task head for each example.
pub(super) fn task_logits(
    model: &Pretrained,
    executor: &dyn Executor,
    examples: &[Example],
) -> Result<Vec<Vec<f32>>, TaskError> {
    model.check(examples)?;
    if examples.is_empty() {
        return Ok(Vec::new());
    }
    run_all(executor, &Output::Task, &examples.iter().collect::<Vec<_>>())
}

/// The error for a model without the head of a pipeline.
pub(super) fn wrong_head(model: &Pretrained, expected: &str) -> TaskError {
    let problem = format!("expected {expected}, found a {}", model.model.class_name());
    TaskError::Folder { path: model.dir().to_owned(), problem }
}

/// A text in an error message, shortened.
pub(super) fn quoted(text: &str) -> String {
    /// The longest text that is quoted completely.
    const LONGEST: usize = 80;
    match text.char_indices().nth(LONGEST) {
        Some((end, _)) => format!("text {:?}", format!("{}…", &text[..end])),
        None => format!("text {text:?}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The values are those of `enable_truncation` of the Python package `tokenizers` 0.23, in both directions.
    #[test]
    fn windows_are_those_of_the_tokenizers_crate() {
        for (length, overlap) in [(0, 1), (3, 0), (3, 9)] {
            assert_eq!(windows(length, 3, overlap, length == 3), [Range { start: 0, end: length }]);
        }
        assert_eq!(windows(4, 3, 0, false), [0..3, 3..4]);
        assert_eq!(windows(4, 3, 0, true), [1..4, 0..1]);
        assert_eq!(windows(9, 4, 2, false), [0..4, 2..6, 4..8, 6..9]);
        assert_eq!(windows(9, 4, 2, true), [5..9, 3..7, 1..5, 0..3]);
        assert_eq!(windows(8, 4, 2, false), [0..4, 2..6, 4..8]);
        assert_eq!(windows(6, 4, 3, true), [2..6, 1..5, 0..4]);
    }
}
