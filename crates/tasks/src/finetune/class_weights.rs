//! The weights of the classes in the loss.

use cloze_model::Model;

use crate::TaskError;
use crate::example::{Example, IGNORE_INDEX, Target};
use crate::settings::ClassWeights;

/// The weights of the classes, computed from the training examples if necessary. None: all classes have weight 1.
pub(super) fn class_weights(
    setting: &ClassWeights,
    examples: &[Example],
    model: &Model,
) -> Result<Option<Vec<f32>>, TaskError> {
    let has_classes = matches!(examples.first().map(|example| &example.target), Some(Target::Classes(_)));
    let classes = match model.heads.task {
        Some(head) if has_classes => head.logits(),
        _ if *setting == ClassWeights::None => return Ok(None),
        _ => {
            return Err(TaskError::setting("class_weights", "this task has no classes; omit the option"));
        }
    };
    match setting {
        ClassWeights::None => Ok(None),
        ClassWeights::Given(weights) if weights.len() == classes => Ok(Some(weights.clone())),
        ClassWeights::Given(weights) => {
            let problem = format!("expected one number for each of the {classes} classes, found {}", weights.len());
            Err(TaskError::setting("class_weights", problem))
        }
        ClassWeights::Balanced => {
            let mut counts = vec![0usize; classes];
            for example in examples {
                if let Target::Classes(labels) = &example.target {
                    labels
                        .iter()
                        .filter(|label| **label != IGNORE_INDEX)
                        .for_each(|label| counts[*label as usize] += 1);
                }
            }
            let all: usize = counts.iter().sum();
            // The weight of a class without rows has no effect.
            let weight = |count: &usize| if *count == 0 { 0.0 } else { all as f32 / (classes * count) as f32 };
            Ok(Some(counts.iter().map(weight).collect()))
        }
    }
}
