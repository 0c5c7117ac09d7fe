//! ALBERT (Lan et al. 2020): Transformers' `modeling_albert.py`; google-research/albert's `modeling.py`,
//! `run_pretraining.py`, `run_classifier.py`, `run_squad_v1.py`.

use cloze_engine::ops::Activation;

use super::table::{
    ConfigKeys, DefaultValue, Family, HeadDropout, HeadDropouts, Network, Positions, Projection, module, only, part,
};
use crate::architecture::SequenceHead;
use crate::heads::Class;
use crate::role::{Head, LayerPart, Module, Table};

const POOLED: SequenceHead = SequenceHead {
    dense: Module::Pooler,
    activation: Activation::Tanh,
    drops_input: false,
    output: Module::Classifier,
};

const DROPOUT: HeadDropout = HeadDropout::Key("classifier_dropout_prob", 0.1);

/// ALBERT.
pub static ALBERT: Family = Family {
    model_type: "albert",
    title: "ALBERT",
    prefix: "albert.",
    encoder: &["embeddings.", "encoder.", "pooler."],
    buffers: &["embeddings.position_ids", "embeddings.token_type_ids"],
    modules: &[
        module(Module::Embedding(Table::Word), "albert.embeddings.word_embeddings", "bert/embeddings/word_embeddings"),
        module(
            Module::Embedding(Table::Position),
            "albert.embeddings.position_embeddings",
            "bert/embeddings/position_embeddings",
        ),
        module(
            Module::Embedding(Table::Segment),
            "albert.embeddings.token_type_embeddings",
            "bert/embeddings/token_type_embeddings",
        ),
        module(Module::EmbeddingNorm, "albert.embeddings.LayerNorm", "bert/embeddings/LayerNorm"),
        module(
            Module::EmbeddingProjection,
            "albert.encoder.embedding_hidden_mapping_in",
            "bert/encoder/embedding_hidden_mapping_in",
        ),
        part(
            LayerPart::Query,
            "albert.encoder.albert_layer_groups.{}.albert_layers.{}.attention.query",
            "bert/encoder/transformer/group_{}/inner_group_{}/attention_1/self/query",
        ),
        part(
            LayerPart::Key,
            "albert.encoder.albert_layer_groups.{}.albert_layers.{}.attention.key",
            "bert/encoder/transformer/group_{}/inner_group_{}/attention_1/self/key",
        ),
        part(
            LayerPart::Value,
            "albert.encoder.albert_layer_groups.{}.albert_layers.{}.attention.value",
            "bert/encoder/transformer/group_{}/inner_group_{}/attention_1/self/value",
        ),
        part(
            LayerPart::AttentionOutput,
            "albert.encoder.albert_layer_groups.{}.albert_layers.{}.attention.dense",
            "bert/encoder/transformer/group_{}/inner_group_{}/attention_1/output/dense",
        ),
        part(
            LayerPart::AttentionNorm,
            "albert.encoder.albert_layer_groups.{}.albert_layers.{}.attention.LayerNorm",
            "bert/encoder/transformer/group_{}/inner_group_{}/LayerNorm",
        ),
        part(
            LayerPart::Intermediate,
            "albert.encoder.albert_layer_groups.{}.albert_layers.{}.ffn",
            "bert/encoder/transformer/group_{}/inner_group_{}/ffn_1/intermediate/dense",
        ),
        part(
            LayerPart::Output,
            "albert.encoder.albert_layer_groups.{}.albert_layers.{}.ffn_output",
            "bert/encoder/transformer/group_{}/inner_group_{}/ffn_1/intermediate/output/dense",
        ),
        part(
            LayerPart::OutputNorm,
            "albert.encoder.albert_layer_groups.{}.albert_layers.{}.full_layer_layer_norm",
            "bert/encoder/transformer/group_{}/inner_group_{}/LayerNorm_1",
        ),
        module(Module::Pooler, "albert.pooler", "bert/pooler/dense"),
        module(Module::MlmTransform, "predictions.dense", "cls/predictions/transform/dense"),
        module(Module::MlmNorm, "predictions.LayerNorm", "cls/predictions/transform/LayerNorm"),
        module(Module::MlmBias, "predictions", "cls/predictions"),
        only(Module::MlmDecoder, "predictions.decoder"),
        module(Module::NspHead, "sop_classifier.classifier", "cls/seq_relationship"),
        module(Module::Classifier, "classifier", ""),
        module(Module::SpanHead, "qa_outputs", "cls/squad"),
    ],
    heads: &[
        (Head::Pooler, "albert.pooler."),
        (Head::Mlm, "predictions."),
        (Head::Nsp, "sop_classifier."),
        (Head::Classifier, "classifier."),
        (Head::Span, "qa_outputs."),
    ],
    classes: &[
        (Class::Encoder, "AlbertModel"),
        (Class::Pretraining, "AlbertForPreTraining"),
        (Class::MaskedLm, "AlbertForMaskedLM"),
        (Class::Classify, "AlbertForSequenceClassification"),
        (Class::Tag, "AlbertForTokenClassification"),
        (Class::Answer, "AlbertForQuestionAnswering"),
        (Class::Choose, "AlbertForMultipleChoice"),
    ],
    orders_sentences: true,
    pair_logits: "sop_logits",
    config: ConfigKeys {
        also_berts_names: true,
        renamed: &[],
        absent: &["is_decoder", "add_cross_attention"],
        // AlbertConfig's defaults are those of xxlarge.
        defaults: &[
            ("vocab_size", DefaultValue::Count(30000)),
            ("embedding_size", DefaultValue::Count(128)),
            ("hidden_size", DefaultValue::Count(4096)),
            ("num_attention_heads", DefaultValue::Count(64)),
            ("intermediate_size", DefaultValue::Count(16384)),
            ("num_hidden_groups", DefaultValue::Count(1)),
            ("inner_group_num", DefaultValue::Count(1)),
            ("hidden_act", DefaultValue::Name("gelu_new")),
            ("hidden_dropout_prob", DefaultValue::Number(0.0)),
            ("attention_probs_dropout_prob", DefaultValue::Number(0.0)),
        ],
    },
    network: Network {
        positions: Positions::All,
        projection: Projection::Always,
        mlm_activation: None,
        classify: POOLED,
        choose: POOLED,
        dropouts: HeadDropouts {
            classify: DROPOUT,
            tag: DROPOUT,
            choose: DROPOUT,
            answer: HeadDropout::None,
            pair: DROPOUT,
        },
    },
};
