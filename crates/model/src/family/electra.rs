//! ELECTRA (Clark et al. 2020): Transformers' `modeling_electra.py`; google-research/electra's `model/modeling.py`,
//! `run_pretraining.py` and `finetune/`.

use cloze_engine::ops::Activation;

use super::table::{
    ConfigKeys, DefaultValue, Family, HeadDropout, HeadDropouts, Network, Positions, Projection, module, only, part,
};
use crate::architecture::SequenceHead;
use crate::heads::Class;
use crate::role::{Head, LayerPart, Module, Table};

/// ELECTRA: discriminators and generators.
pub static ELECTRA: Family = Family {
    model_type: "electra",
    title: "ELECTRA",
    prefix: "electra.",
    encoder: &["embeddings.", "embeddings_project.", "encoder."],
    buffers: &["embeddings.position_ids", "embeddings.token_type_ids"],
    modules: &[
        module(
            Module::Embedding(Table::Word),
            "electra.embeddings.word_embeddings",
            "electra/embeddings/word_embeddings",
        ),
        module(
            Module::Embedding(Table::Position),
            "electra.embeddings.position_embeddings",
            "electra/embeddings/position_embeddings",
        ),
        module(
            Module::Embedding(Table::Segment),
            "electra.embeddings.token_type_embeddings",
            "electra/embeddings/token_type_embeddings",
        ),
        module(Module::EmbeddingNorm, "electra.embeddings.LayerNorm", "electra/embeddings/LayerNorm"),
        module(Module::EmbeddingProjection, "electra.embeddings_project", "electra/embeddings_project"),
        part(
            LayerPart::Query,
            "electra.encoder.layer.{}.attention.self.query",
            "electra/encoder/layer_{}/attention/self/query",
        ),
        part(
            LayerPart::Key,
            "electra.encoder.layer.{}.attention.self.key",
            "electra/encoder/layer_{}/attention/self/key",
        ),
        part(
            LayerPart::Value,
            "electra.encoder.layer.{}.attention.self.value",
            "electra/encoder/layer_{}/attention/self/value",
        ),
        part(
            LayerPart::AttentionOutput,
            "electra.encoder.layer.{}.attention.output.dense",
            "electra/encoder/layer_{}/attention/output/dense",
        ),
        part(
            LayerPart::AttentionNorm,
            "electra.encoder.layer.{}.attention.output.LayerNorm",
            "electra/encoder/layer_{}/attention/output/LayerNorm",
        ),
        part(
            LayerPart::Intermediate,
            "electra.encoder.layer.{}.intermediate.dense",
            "electra/encoder/layer_{}/intermediate/dense",
        ),
        part(LayerPart::Output, "electra.encoder.layer.{}.output.dense", "electra/encoder/layer_{}/output/dense"),
        part(
            LayerPart::OutputNorm,
            "electra.encoder.layer.{}.output.LayerNorm",
            "electra/encoder/layer_{}/output/LayerNorm",
        ),
        module(Module::MlmTransform, "generator_predictions.dense", "generator_predictions/dense"),
        module(Module::MlmNorm, "generator_predictions.LayerNorm", "generator_predictions/LayerNorm"),
        module(Module::MlmBias, "generator_lm_head", "generator_predictions"),
        only(Module::MlmDecoder, "generator_lm_head"),
        module(Module::RtdDense, "discriminator_predictions.dense", "discriminator_predictions/dense"),
        module(Module::RtdOutput, "discriminator_predictions.dense_prediction", "discriminator_predictions/dense_1"),
        only(Module::Classifier, "classifier"),
        only(Module::ClassifierDense, "classifier.dense"),
        only(Module::SequenceClassifier, "classifier.out_proj"),
        only(Module::ChoiceDense, "sequence_summary.summary"),
        only(Module::SpanHead, "qa_outputs"),
    ],
    heads: &[
        (Head::Mlm, "generator_predictions."),
        (Head::Mlm, "generator_lm_head."),
        (Head::Rtd, "discriminator_predictions."),
        (Head::Classifier, "classifier."),
        (Head::Classifier, "sequence_summary."),
        (Head::Span, "qa_outputs."),
    ],
    classes: &[
        (Class::Encoder, "ElectraModel"),
        (Class::ReplacedTokens, "ElectraForPreTraining"),
        (Class::MaskedLm, "ElectraForMaskedLM"),
        (Class::CausalLm, "ElectraForCausalLM"),
        (Class::Classify, "ElectraForSequenceClassification"),
        (Class::Tag, "ElectraForTokenClassification"),
        (Class::Answer, "ElectraForQuestionAnswering"),
        (Class::Choose, "ElectraForMultipleChoice"),
    ],
    orders_sentences: false,
    pair_logits: "seq_relationship_logits",
    config: ConfigKeys {
        also_berts_names: true,
        renamed: &[],
        absent: &["num_hidden_groups", "inner_group_num"],
        // ElectraConfig's defaults are those of small.
        defaults: &[
            ("embedding_size", DefaultValue::Count(128)),
            ("hidden_size", DefaultValue::Count(256)),
            ("num_attention_heads", DefaultValue::Count(4)),
            ("intermediate_size", DefaultValue::Count(1024)),
        ],
    },
    network: Network {
        positions: Positions::All,
        projection: Projection::IfNeeded,
        // `ElectraGeneratorPredictions` computes gelu whatever hidden_act is.
        mlm_activation: Some(Activation::Gelu),
        // `ElectraClassificationHead`: "although BERT uses tanh here, it seems Electra authors used gelu".
        classify: SequenceHead {
            dense: Module::ClassifierDense,
            activation: Activation::Gelu,
            drops_input: true,
            output: Module::SequenceClassifier,
        },
        choose: SequenceHead {
            dense: Module::ChoiceDense,
            activation: Activation::Gelu,
            drops_input: false,
            output: Module::Classifier,
        },
        dropouts: HeadDropouts {
            classify: HeadDropout::KeyOrHidden("classifier_dropout"),
            tag: HeadDropout::KeyOrHidden("classifier_dropout"),
            choose: HeadDropout::Key("summary_last_dropout", 0.1),
            answer: HeadDropout::None,
            pair: HeadDropout::None,
        },
    },
};
