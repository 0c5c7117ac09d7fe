//! Variables of a TensorFlow checkpoint that are not part of the model, and those of ELECTRA's two models in one file.

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

/// A variable's name in a checkpoint of google-research/electra, which has a generator and a discriminator, with the
/// generator's name replaced by the discriminator's; `None` for a variable of the other model. The two share the
/// embeddings (`electra/embeddings`), unless the checkpoint has `generator/embeddings`.
/// Source: `model/modeling.py` and `run_pretraining.py`; Transformers' `load_tf_weights_in_electra`.
pub(super) fn electra_variable(variable: &str, is_generator: bool) -> Option<String> {
    if let Some(own) = variable.strip_prefix("generator/") {
        return is_generator.then(|| format!("electra/{own}"));
    }
    let shared = variable.starts_with("electra/embeddings/");
    let of_generator = variable.starts_with("generator_predictions/");
    (shared || of_generator == is_generator).then(|| variable.to_owned())
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

    #[test]
    fn the_two_models_of_electra_are_separated() {
        let cases = [
            ("electra/embeddings/LayerNorm/beta", Some("electra/embeddings/LayerNorm/beta"), true),
            ("electra/encoder/layer_0/output/dense/bias", Some("electra/encoder/layer_0/output/dense/bias"), false),
            ("discriminator_predictions/dense_1/bias", Some("discriminator_predictions/dense_1/bias"), false),
        ];
        for (name, discriminator, shared) in cases {
            assert_eq!(electra_variable(name, false).as_deref(), discriminator, "{name}");
            assert_eq!(electra_variable(name, true).is_some(), shared, "{name}");
        }
        let own = electra_variable("generator/embeddings_project/kernel", true);
        assert_eq!(own.as_deref(), Some("electra/embeddings_project/kernel"));
        for name in ["generator/encoder/layer_0/output/dense/bias", "generator_predictions/output_bias"] {
            assert_eq!((electra_variable(name, false), electra_variable(name, true).is_some()), (None, true), "{name}");
        }
    }
}
