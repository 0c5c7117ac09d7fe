//! RoBERTa (Liu et al. 2019) and the families that share its network: XLM-RoBERTa (Conneau et al. 2020) and CamemBERT
//! (Martin et al. 2020). Transformers' `modeling_roberta.py`, `modeling_xlm_roberta.py`, `modeling_camembert.py`: all of
//! them name their tensors `roberta.…`.

use cloze_engine::ops::Activation;

use super::table::{
    ConfigKeys, DefaultValue, Family, HeadDropout, HeadDropouts, ModuleNames, Network, Positions, Projection, only,
    only_part,
};
use crate::architecture::SequenceHead;
use crate::heads::Class;
use crate::role::{Head, LayerPart, Module, Table};

const MODULES: &[ModuleNames] = &[
    only(Module::Embedding(Table::Word), "roberta.embeddings.word_embeddings"),
    only(Module::Embedding(Table::Position), "roberta.embeddings.position_embeddings"),
    only(Module::Embedding(Table::Segment), "roberta.embeddings.token_type_embeddings"),
    only(Module::EmbeddingNorm, "roberta.embeddings.LayerNorm"),
    only_part(LayerPart::Query, "roberta.encoder.layer.{}.attention.self.query"),
    only_part(LayerPart::Key, "roberta.encoder.layer.{}.attention.self.key"),
    only_part(LayerPart::Value, "roberta.encoder.layer.{}.attention.self.value"),
    only_part(LayerPart::AttentionOutput, "roberta.encoder.layer.{}.attention.output.dense"),
    only_part(LayerPart::AttentionNorm, "roberta.encoder.layer.{}.attention.output.LayerNorm"),
    only_part(LayerPart::Intermediate, "roberta.encoder.layer.{}.intermediate.dense"),
    only_part(LayerPart::Output, "roberta.encoder.layer.{}.output.dense"),
    only_part(LayerPart::OutputNorm, "roberta.encoder.layer.{}.output.LayerNorm"),
    only(Module::Pooler, "roberta.pooler.dense"),
    only(Module::MlmTransform, "lm_head.dense"),
    only(Module::MlmNorm, "lm_head.layer_norm"),
    only(Module::MlmBias, "lm_head"),
    only(Module::MlmDecoder, "lm_head.decoder"),
    only(Module::Classifier, "classifier"),
    only(Module::ClassifierDense, "classifier.dense"),
    only(Module::SequenceClassifier, "classifier.out_proj"),
    only(Module::SpanHead, "qa_outputs"),
];

const HEADS: &[(Head, &str)] = &[
    (Head::Pooler, "roberta.pooler."),
    (Head::Mlm, "lm_head."),
    (Head::Classifier, "classifier."),
    (Head::Span, "qa_outputs."),
];

const NETWORK: Network = Network {
    positions: Positions::AfterPadding,
    projection: Projection::Never,
    // `RobertaLMHead` computes gelu whatever hidden_act is.
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
        classify: HeadDropout::KeyOrHidden("classifier_dropout"),
        tag: HeadDropout::KeyOrHidden("classifier_dropout"),
        choose: HeadDropout::Hidden,
        answer: HeadDropout::None,
        pair: HeadDropout::None,
    },
};

const ABSENT: &[&str] = &["embedding_size", "num_hidden_groups", "inner_group_num"];

const fn family(
    model_type: &'static str,
    title: &'static str,
    classes: &'static [(Class, &'static str)],
    defaults: &'static [(&'static str, DefaultValue)],
) -> Family {
    Family {
        model_type,
        title,
        prefix: "roberta.",
        encoder: &["embeddings.", "encoder.", "pooler."],
        buffers: &["embeddings.position_ids", "embeddings.token_type_ids"],
        modules: MODULES,
        heads: HEADS,
        classes,
        orders_sentences: false,
        pair_logits: "seq_relationship_logits",
        config: ConfigKeys { also_berts_names: true, renamed: &[], absent: ABSENT, defaults },
        network: NETWORK,
    }
}

/// RoBERTa.
pub static ROBERTA: Family = family(
    "roberta",
    "RoBERTa",
    &[
        (Class::Encoder, "RobertaModel"),
        (Class::MaskedLm, "RobertaForMaskedLM"),
        (Class::CausalLm, "RobertaForCausalLM"),
        (Class::Classify, "RobertaForSequenceClassification"),
        (Class::Tag, "RobertaForTokenClassification"),
        (Class::Answer, "RobertaForQuestionAnswering"),
        (Class::Choose, "RobertaForMultipleChoice"),
    ],
    &[("vocab_size", DefaultValue::Count(50265)), ("pad_token_id", DefaultValue::Count(1))],
);

/// XLM-RoBERTa.
pub static XLM_ROBERTA: Family = family(
    "xlm-roberta",
    "XLM-RoBERTa",
    &[
        (Class::Encoder, "XLMRobertaModel"),
        (Class::MaskedLm, "XLMRobertaForMaskedLM"),
        (Class::CausalLm, "XLMRobertaForCausalLM"),
        (Class::Classify, "XLMRobertaForSequenceClassification"),
        (Class::Tag, "XLMRobertaForTokenClassification"),
        (Class::Answer, "XLMRobertaForQuestionAnswering"),
        (Class::Choose, "XLMRobertaForMultipleChoice"),
    ],
    &[("pad_token_id", DefaultValue::Count(1))],
);

/// CamemBERT.
pub static CAMEMBERT: Family = family(
    "camembert",
    "CamemBERT",
    &[
        (Class::Encoder, "CamembertModel"),
        (Class::MaskedLm, "CamembertForMaskedLM"),
        (Class::CausalLm, "CamembertForCausalLM"),
        (Class::Classify, "CamembertForSequenceClassification"),
        (Class::Tag, "CamembertForTokenClassification"),
        (Class::Answer, "CamembertForQuestionAnswering"),
        (Class::Choose, "CamembertForMultipleChoice"),
    ],
    &[("pad_token_id", DefaultValue::Count(1))],
);
