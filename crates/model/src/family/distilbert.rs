//! DistilBERT (Sanh et al. 2019): Transformers' `modeling_distilbert.py`.

use cloze_engine::ops::Activation;

use super::table::{
    ConfigKeys, DefaultValue, Family, HeadDropout, HeadDropouts, Network, Positions, Projection, only, only_part,
};
use crate::architecture::SequenceHead;
use crate::heads::Class;
use crate::role::{Head, LayerPart, Module, Table};

/// A dense layer with relu on the state of the first token.
const FIRST_TOKEN: SequenceHead = SequenceHead {
    dense: Module::ClassifierDense,
    activation: Activation::Relu,
    drops_input: false,
    output: Module::Classifier,
};

/// DistilBERT.
pub static DISTILBERT: Family = Family {
    model_type: "distilbert",
    title: "DistilBERT",
    prefix: "distilbert.",
    encoder: &["embeddings.", "transformer."],
    buffers: &["embeddings.position_ids"],
    modules: &[
        only(Module::Embedding(Table::Word), "distilbert.embeddings.word_embeddings"),
        only(Module::Embedding(Table::Position), "distilbert.embeddings.position_embeddings"),
        only(Module::EmbeddingNorm, "distilbert.embeddings.LayerNorm"),
        only_part(LayerPart::Query, "distilbert.transformer.layer.{}.attention.q_lin"),
        only_part(LayerPart::Key, "distilbert.transformer.layer.{}.attention.k_lin"),
        only_part(LayerPart::Value, "distilbert.transformer.layer.{}.attention.v_lin"),
        only_part(LayerPart::AttentionOutput, "distilbert.transformer.layer.{}.attention.out_lin"),
        only_part(LayerPart::AttentionNorm, "distilbert.transformer.layer.{}.sa_layer_norm"),
        only_part(LayerPart::Intermediate, "distilbert.transformer.layer.{}.ffn.lin1"),
        only_part(LayerPart::Output, "distilbert.transformer.layer.{}.ffn.lin2"),
        only_part(LayerPart::OutputNorm, "distilbert.transformer.layer.{}.output_layer_norm"),
        only(Module::MlmTransform, "vocab_transform"),
        only(Module::MlmNorm, "vocab_layer_norm"),
        only(Module::MlmBias, "vocab_projector"),
        only(Module::MlmDecoder, "vocab_projector"),
        only(Module::ClassifierDense, "pre_classifier"),
        only(Module::Classifier, "classifier"),
        only(Module::SpanHead, "qa_outputs"),
    ],
    heads: &[
        (Head::Mlm, "vocab_"),
        (Head::Classifier, "pre_classifier."),
        (Head::Classifier, "classifier."),
        (Head::Span, "qa_outputs."),
    ],
    classes: &[
        (Class::Encoder, "DistilBertModel"),
        (Class::MaskedLm, "DistilBertForMaskedLM"),
        (Class::Classify, "DistilBertForSequenceClassification"),
        (Class::Tag, "DistilBertForTokenClassification"),
        (Class::Answer, "DistilBertForQuestionAnswering"),
        (Class::Choose, "DistilBertForMultipleChoice"),
    ],
    orders_sentences: false,
    pair_logits: "seq_relationship_logits",
    config: ConfigKeys {
        also_berts_names: true,
        renamed: &[
            ("hidden_size", "dim"),
            ("num_hidden_layers", "n_layers"),
            ("num_attention_heads", "n_heads"),
            ("intermediate_size", "hidden_dim"),
            ("hidden_act", "activation"),
            ("hidden_dropout_prob", "dropout"),
            ("attention_probs_dropout_prob", "attention_dropout"),
        ],
        absent: &[
            "type_vocab_size",
            "layer_norm_eps",
            "is_decoder",
            "add_cross_attention",
            "embedding_size",
            "num_hidden_groups",
            "inner_group_num",
        ],
        defaults: &[("num_hidden_layers", DefaultValue::Count(6)), ("type_vocab_size", DefaultValue::Count(0))],
    },
    network: Network {
        positions: Positions::All,
        projection: Projection::Never,
        mlm_activation: None,
        classify: FIRST_TOKEN,
        choose: FIRST_TOKEN,
        dropouts: HeadDropouts {
            classify: HeadDropout::Key("seq_classif_dropout", 0.2),
            tag: HeadDropout::Hidden,
            choose: HeadDropout::Key("seq_classif_dropout", 0.2),
            answer: HeadDropout::Key("qa_dropout", 0.1),
            pair: HeadDropout::None,
        },
    },
};
