//! google-research/bert's variable names, as `modeling.py`, `run_pretraining.py`, `run_classifier.py` and `run_squad.py`
//! give them, and Transformers' names for the same tensors.

/// What a variable of a checkpoint is.
#[derive(Debug, PartialEq)]
pub(super) enum Variable {
    /// A tensor of the model.
    Tensor {
        /// Transformers' name.
        name: String,
        /// A kernel `[in, out]`, where Transformers keeps `[out, in]`.
        transposed: bool,
    },
    /// The optimizer's or the training loop's.
    Training,
    /// Nothing that BERT knows.
    Unknown,
}

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

/// What the variable `name` is.
pub(super) fn variable(name: &str) -> Variable {
    let parts: Vec<&str> = name.split('/').collect();
    let last = parts.last().copied().unwrap_or_default();
    if SLOTS.contains(&last)
        || COUNTERS.contains(&last)
        || parts.first().is_some_and(|first| first.ends_with("Optimizer"))
    {
        return Variable::Training;
    }
    let tensor = |name: String, transposed| Variable::Tensor { name, transposed };
    let as_is = |name: &str| tensor(name.to_owned(), false);
    match parts.as_slice() {
        ["bert", "embeddings", table @ ("word_embeddings" | "position_embeddings" | "token_type_embeddings")] => {
            tensor(format!("bert.embeddings.{table}.weight"), false)
        }
        ["bert", "embeddings", "LayerNorm", part] => layer("bert.embeddings.LayerNorm", part),
        ["bert", "encoder", number, inner @ .., part] => {
            let number = number.strip_prefix("layer_").and_then(|number| number.parse::<u16>().ok());
            let known = matches!(
                inner,
                ["attention", "self", "query" | "key" | "value"]
                    | ["attention", "output", "dense" | "LayerNorm"]
                    | ["intermediate", "dense"]
                    | ["output", "dense" | "LayerNorm"]
            );
            match number {
                Some(number) if known => layer(&format!("bert.encoder.layer.{number}.{}", inner.join(".")), part),
                _ => Variable::Unknown,
            }
        }
        ["bert", "pooler", "dense", part] => layer("bert.pooler.dense", part),
        ["cls", "predictions", "transform", inner @ ("dense" | "LayerNorm"), part] => {
            layer(&format!("cls.predictions.transform.{inner}"), part)
        }
        ["cls", "predictions", "output_bias"] => as_is("cls.predictions.bias"),
        ["cls", "seq_relationship", "output_weights"] => as_is("cls.seq_relationship.weight"),
        ["cls", "seq_relationship", "output_bias"] => as_is("cls.seq_relationship.bias"),
        ["cls", "squad", "output_weights"] => as_is("qa_outputs.weight"),
        ["cls", "squad", "output_bias"] => as_is("qa_outputs.bias"),
        ["output_weights"] => as_is("classifier.weight"),
        ["output_bias"] => as_is("classifier.bias"),
        _ => Variable::Unknown,
    }
}

/// A dense layer's or a LayerNorm's part.
fn layer(name: &str, part: &str) -> Variable {
    let (part, transposed) = match (part, name.ends_with("LayerNorm")) {
        ("kernel", false) => ("weight", true),
        ("bias", false) | ("beta", true) => ("bias", false),
        ("gamma", true) => ("weight", false),
        _ => return Variable::Unknown,
    };
    Variable::Tensor { name: format!("{name}.{part}"), transposed }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_of_variable_finds_its_name() {
        let cases = [
            ("bert/embeddings/word_embeddings", "bert.embeddings.word_embeddings.weight", false),
            ("bert/embeddings/LayerNorm/gamma", "bert.embeddings.LayerNorm.weight", false),
            (
                "bert/encoder/layer_11/attention/self/query/kernel",
                "bert.encoder.layer.11.attention.self.query.weight",
                true,
            ),
            (
                "bert/encoder/layer_0/attention/output/LayerNorm/beta",
                "bert.encoder.layer.0.attention.output.LayerNorm.bias",
                false,
            ),
            ("bert/encoder/layer_3/output/dense/bias", "bert.encoder.layer.3.output.dense.bias", false),
            ("bert/pooler/dense/kernel", "bert.pooler.dense.weight", true),
            ("cls/predictions/transform/dense/kernel", "cls.predictions.transform.dense.weight", true),
            ("cls/predictions/output_bias", "cls.predictions.bias", false),
            ("cls/seq_relationship/output_weights", "cls.seq_relationship.weight", false),
            ("cls/squad/output_bias", "qa_outputs.bias", false),
            ("output_weights", "classifier.weight", false),
        ];
        for (from, name, transposed) in cases {
            assert_eq!(variable(from), Variable::Tensor { name: name.to_owned(), transposed }, "{from}");
        }
        for training in ["global_step", "bert/pooler/dense/kernel/adam_v", "bert/embeddings/word_embeddings/lamb_m"] {
            assert_eq!(variable(training), Variable::Training, "{training}");
        }
        for unknown in [
            "",
            "bert",
            "bert/encoder/layer_x/output/dense/bias",
            "bert/encoder/layer_1/output/dense/gamma",
            "bert/encoder/layer_1/output/LayerNorm/kernel",
            "bert/encoder/layer_1/attention/dense/kernel",
            "electra/embeddings/word_embeddings",
        ] {
            assert_eq!(variable(unknown), Variable::Unknown, "{unknown}");
        }
    }
}
