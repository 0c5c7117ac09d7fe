//! MPNet (Song et al. 2020): Transformers' `modeling_mpnet.py`.

use cloze_engine::ops::Activation;

use super::table::{
    ConfigKeys, DefaultValue, Family, HeadDropout, HeadDropouts, Network, Positions, Projection, only, only_part,
};
use crate::architecture::SequenceHead;
use crate::heads::Class;
use crate::role::{Head, LayerPart, Module, Table};

/// MPNet.
pub static MPNET: Family = Family {
    model_type: "mpnet",
    title: "MPNet",
    prefix: "mpnet.",
    encoder: &["embeddings.", "encoder.", "pooler."],
    buffers: &["embeddings.position_ids"],
    modules: &[
        only(Module::Embedding(Table::Word), "mpnet.embeddings.word_embeddings"),
        only(Module::Embedding(Table::Position), "mpnet.embeddings.position_embeddings"),
        only(Module::EmbeddingNorm, "mpnet.embeddings.LayerNorm"),
        only(Module::DistanceBias, "mpnet.encoder.relative_attention_bias"),
        only_part(LayerPart::Query, "mpnet.encoder.layer.{}.attention.attn.q"),
        only_part(LayerPart::Key, "mpnet.encoder.layer.{}.attention.attn.k"),
        only_part(LayerPart::Value, "mpnet.encoder.layer.{}.attention.attn.v"),
        only_part(LayerPart::AttentionOutput, "mpnet.encoder.layer.{}.attention.attn.o"),
        only_part(LayerPart::AttentionNorm, "mpnet.encoder.layer.{}.attention.LayerNorm"),
        only_part(LayerPart::Intermediate, "mpnet.encoder.layer.{}.intermediate.dense"),
        only_part(LayerPart::Output, "mpnet.encoder.layer.{}.output.dense"),
        only_part(LayerPart::OutputNorm, "mpnet.encoder.layer.{}.output.LayerNorm"),
        only(Module::Pooler, "mpnet.pooler.dense"),
        only(Module::MlmTransform, "lm_head.dense"),
        only(Module::MlmNorm, "lm_head.layer_norm"),
        only(Module::MlmBias, "lm_head"),
        only(Module::MlmDecoder, "lm_head.decoder"),
        only(Module::Classifier, "classifier"),
        only(Module::ClassifierDense, "classifier.dense"),
        only(Module::SequenceClassifier, "classifier.out_proj"),
        only(Module::SpanHead, "qa_outputs"),
    ],
    heads: &[
        (Head::Pooler, "mpnet.pooler."),
        (Head::Mlm, "lm_head."),
        (Head::Classifier, "classifier."),
        (Head::Span, "qa_outputs."),
    ],
    classes: &[
        (Class::Encoder, "MPNetModel"),
        (Class::MaskedLm, "MPNetForMaskedLM"),
        (Class::Classify, "MPNetForSequenceClassification"),
        (Class::Tag, "MPNetForTokenClassification"),
        (Class::Answer, "MPNetForQuestionAnswering"),
        (Class::Choose, "MPNetForMultipleChoice"),
    ],
    orders_sentences: false,
    pair_logits: "seq_relationship_logits",
    config: ConfigKeys {
        also_berts_names: true,
        renamed: &[],
        absent: &[
            "type_vocab_size",
            "is_decoder",
            "add_cross_attention",
            "embedding_size",
            "num_hidden_groups",
            "inner_group_num",
        ],
        defaults: &[
            ("vocab_size", DefaultValue::Count(30527)),
            ("pad_token_id", DefaultValue::Count(1)),
            ("type_vocab_size", DefaultValue::Count(0)),
        ],
    },
    network: Network {
        // `MPNetEmbeddings` does not read `pad_token_id`.
        positions: Positions::After(1),
        projection: Projection::Never,
        // `MPNetLMHead` computes gelu whatever hidden_act is.
        mlm_activation: Some(Activation::Gelu),
        classify: SequenceHead {
            dense: Module::ClassifierDense,
            activation: Activation::Tanh,
            drops_input: true,
            output: Module::SequenceClassifier,
        },
        choose: SequenceHead {
            dense: Module::Pooler,
            activation: Activation::Tanh,
            drops_input: false,
            output: Module::Classifier,
        },
        dropouts: HeadDropouts {
            classify: HeadDropout::Hidden,
            tag: HeadDropout::Hidden,
            choose: HeadDropout::Hidden,
            answer: HeadDropout::None,
            pair: HeadDropout::None,
        },
    },
};
