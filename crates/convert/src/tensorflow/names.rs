//! Variables of a TensorFlow checkpoint that are not part of the model.

/// Variables that optimizers store for each variable, named with its name and a slash.
const SLOTS: [&str; 11] = [
    "adam_m",
    "adam_v",
    "lamb_m",
    "lamb_v",
    "Adam",
    "Adam_1",
    "AdamWeightDecayOptimizer",
    "AdamWeightDecayOptimizer_1",
    "LAMBOptimizer",
    "LAMBOptimizer_1",
    "Momentum",
];
const COUNTERS: [&str; 6] = ["global_step", "beta1_power", "beta2_power", "good_steps", "bad_steps", "loss_scale"];

/// Whether a variable belongs to the optimizer or the training loop.
pub(super) fn is_training_variable(variable: &str) -> bool {
    let first = variable.split('/').next().unwrap_or_default();
    let last = variable.rsplit('/').next().unwrap_or_default();
    SLOTS.contains(&last) || COUNTERS.contains(&last) || first.ends_with("Optimizer")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn training_variables_are_detected() {
        for training in ["global_step", "bert/pooler/dense/kernel/adam_v", "bert/embeddings/word_embeddings/lamb_m"] {
            assert!(is_training_variable(training), "{training}");
        }
        assert!(!is_training_variable("bert/embeddings/word_embeddings") && !is_training_variable(""));
    }
}
