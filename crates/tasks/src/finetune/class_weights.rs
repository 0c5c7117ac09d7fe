//! How much each class counts in the loss.

use cloze_model::Model;

use crate::TaskError;
use crate::example::{Example, IGNORED, Target};
use crate::settings::ClassWeights;

/// The weights of the classes, from the training examples if need be.
pub(super) fn class_weights(
    asked: &ClassWeights,
    examples: &[Example],
    model: &Model,
) -> Result<Option<Vec<f32>>, TaskError> {
    let has_classes = matches!(examples.first().map(|example| &example.target), Some(Target::Classes(_)));
    let classes = match model.heads.task {
        Some(head) if has_classes => head.logits(),
        _ if *asked == ClassWeights::None => return Ok(None),
        _ => {
            return Err(TaskError::setting("class-weights", "this task has no classes to weigh"));
        }
    };
    match asked {
        ClassWeights::None => Ok(None),
        ClassWeights::Given(weights) if weights.len() == classes => Ok(Some(weights.clone())),
        ClassWeights::Given(weights) => {
            let problem = format!("{} numbers for {classes} classes: expected one for each", weights.len());
            Err(TaskError::setting("class-weights", problem))
        }
        ClassWeights::Balanced => {
            let mut counts = vec![0usize; classes];
            for example in examples {
                if let Target::Classes(labels) = &example.target {
                    labels.iter().filter(|label| **label != IGNORED).for_each(|label| counts[*label as usize] += 1);
                }
            }
            let all: usize = counts.iter().sum();
            // A class without rows weighs nothing, which changes nothing.
            let weight = |count: &usize| if *count == 0 { 0.0 } else { all as f32 / (classes * count) as f32 };
            Ok(Some(counts.iter().map(weight).collect()))
        }
    }
}
