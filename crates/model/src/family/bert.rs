//! Devlin et al. 2019: Transformers' `modeling_bert.py`; google-research/bert's `modeling.py`, `run_pretraining.py`,
//! `run_classifier.py` and `run_squad.py`.

use cloze_engine::ops::Activation;

use super::table::{ConfigKeys, Family, HeadDropout, HeadDropouts, Network, Positions, Projection, module, only, part};
use crate::architecture::SequenceHead;
use crate::heads::Class;
use crate::role::{Head, LayerPart, Module, Table};

/// The labels of a sequence are computed from the pooler's output.
const POOLED: SequenceHead = SequenceHead {
    dense: Module::Pooler,
    activation: Activation::Tanh,
    drops_input: false,
    output: Module::Classifier,
};

/// BERT.
pub static BERT: Family = Family {
    model_type: "bert",
    title: "BERT",
    prefix: "bert.",
    encoder: &["embeddings.", "encoder.", "pooler."],
    buffers: &["embeddings.position_ids", "embeddings.token_type_ids"],
    modules: &[
        module(Module::Embedding(Table::Word), "bert.embeddings.word_embeddings", "bert/embeddings/word_embeddings"),
        module(
            Module::Embedding(Table::Position),
            "bert.embeddings.position_embeddings",
            "bert/embeddings/position_embeddings",
        ),
        module(
            Module::Embedding(Table::Segment),
            "bert.embeddings.token_type_embeddings",
            "bert/embeddings/token_type_embeddings",
        ),
        module(Module::EmbeddingNorm, "bert.embeddings.LayerNorm", "bert/embeddings/LayerNorm"),
        part(
            LayerPart::Query,
            "bert.encoder.layer.{}.attention.self.query",
            "bert/encoder/layer_{}/attention/self/query",
        ),
        part(LayerPart::Key, "bert.encoder.layer.{}.attention.self.key", "bert/encoder/layer_{}/attention/self/key"),
        part(
            LayerPart::Value,
            "bert.encoder.layer.{}.attention.self.value",
            "bert/encoder/layer_{}/attention/self/value",
        ),
        part(
            LayerPart::AttentionOutput,
            "bert.encoder.layer.{}.attention.output.dense",
            "bert/encoder/layer_{}/attention/output/dense",
        ),
        part(
            LayerPart::AttentionNorm,
            "bert.encoder.layer.{}.attention.output.LayerNorm",
            "bert/encoder/layer_{}/attention/output/LayerNorm",
        ),
        part(
            LayerPart::Intermediate,
            "bert.encoder.layer.{}.intermediate.dense",
            "bert/encoder/layer_{}/intermediate/dense",
        ),
        part(LayerPart::Output, "bert.encoder.layer.{}.output.dense", "bert/encoder/layer_{}/output/dense"),
        part(LayerPart::OutputNorm, "bert.encoder.layer.{}.output.LayerNorm", "bert/encoder/layer_{}/output/LayerNorm"),
        module(Module::Pooler, "bert.pooler.dense", "bert/pooler/dense"),
        module(Module::MlmTransform, "cls.predictions.transform.dense", "cls/predictions/transform/dense"),
        module(Module::MlmNorm, "cls.predictions.transform.LayerNorm", "cls/predictions/transform/LayerNorm"),
        module(Module::MlmBias, "cls.predictions", "cls/predictions"),
        only(Module::MlmDecoder, "cls.predictions.decoder"),
        module(Module::NspHead, "cls.seq_relationship", "cls/seq_relationship"),
        module(Module::Classifier, "classifier", ""),
        module(Module::SpanHead, "qa_outputs", "cls/squad"),
    ],
    heads: &[
        (Head::Pooler, "bert.pooler."),
        (Head::Mlm, "cls.predictions."),
        (Head::Nsp, "cls.seq_relationship."),
        (Head::Classifier, "classifier."),
        (Head::Span, "qa_outputs."),
    ],
    classes: &[
        (Class::Encoder, "BertModel"),
        (Class::Pretraining, "BertForPreTraining"),
        (Class::MaskedLm, "BertForMaskedLM"),
        (Class::CausalLm, "BertLMHeadModel"),
        (Class::NextSentence, "BertForNextSentencePrediction"),
        (Class::Classify, "BertForSequenceClassification"),
        (Class::Tag, "BertForTokenClassification"),
        (Class::Answer, "BertForQuestionAnswering"),
        (Class::Choose, "BertForMultipleChoice"),
    ],
    orders_sentences: false,
    pair_logits: "seq_relationship_logits",
    config: ConfigKeys {
        also_berts_names: true,
        renamed: &[],
        absent: &["embedding_size", "num_hidden_groups", "inner_group_num"],
        defaults: &[],
    },
    network: Network {
        positions: Positions::All,
        projection: Projection::Never,
        mlm_activation: None,
        classify: POOLED,
        choose: POOLED,
        dropouts: HeadDropouts {
            classify: HeadDropout::KeyOrHidden("classifier_dropout"),
            tag: HeadDropout::KeyOrHidden("classifier_dropout"),
            choose: HeadDropout::KeyOrHidden("classifier_dropout"),
            answer: HeadDropout::None,
            pair: HeadDropout::None,
        },
    },
};
