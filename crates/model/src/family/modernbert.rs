//! ModernBERT (Warner et al. 2024, "Smarter, Better, Faster, Longer"): Transformers' `modeling_modernbert.py`.

use cloze_engine::ops::Activation;

use super::table::{
    ConfigKeys, DefaultValue, Family, HeadDropout, HeadDropouts, Network, Positions, Projection, only, only_part,
};
use crate::architecture::SequenceHead;
use crate::heads::Class;
use crate::role::{Head, LayerPart, Module, Table};

/// The prediction head. Its activation is `classifier_activation`.
const PREDICTION: SequenceHead = SequenceHead {
    dense: Module::PredictionDense,
    activation: Activation::Gelu,
    drops_input: false,
    output: Module::Classifier,
};

const DROPOUT: HeadDropout = HeadDropout::Key("classifier_dropout", 0.0);

/// ModernBERT.
pub static MODERNBERT: Family = Family {
    model_type: "modernbert",
    title: "ModernBERT",
    prefix: "model.",
    encoder: &["embeddings.", "layers.", "final_norm."],
    buffers: &["inv_freq"],
    modules: &[
        only(Module::Embedding(Table::Word), "model.embeddings.tok_embeddings"),
        only(Module::EmbeddingNorm, "model.embeddings.norm"),
        // The first layer has no `attn_norm`: the embeddings have one.
        only_part(LayerPart::AttentionNorm, "model.layers.{}.attn_norm"),
        only_part(LayerPart::QueryKeyValue, "model.layers.{}.attn.Wqkv"),
        only_part(LayerPart::AttentionOutput, "model.layers.{}.attn.Wo"),
        only_part(LayerPart::OutputNorm, "model.layers.{}.mlp_norm"),
        only_part(LayerPart::GatedIntermediate, "model.layers.{}.mlp.Wi"),
        only_part(LayerPart::Output, "model.layers.{}.mlp.Wo"),
        only(Module::FinalNorm, "model.final_norm"),
        only(Module::PredictionDense, "head.dense"),
        only(Module::PredictionNorm, "head.norm"),
        only(Module::MlmBias, "decoder"),
        only(Module::MlmDecoder, "decoder"),
        only(Module::Classifier, "classifier"),
    ],
    heads: &[(Head::Prediction, "head."), (Head::Mlm, "decoder."), (Head::Classifier, "classifier.")],
    classes: &[
        (Class::Encoder, "ModernBertModel"),
        (Class::MaskedLm, "ModernBertForMaskedLM"),
        // Transformers has no such class: only Cloze opens it. For runs that begin with causal LM, and as a baseline.
        (Class::CausalLm, "ClozeModernBertForCausalLM"),
        (Class::Classify, "ModernBertForSequenceClassification"),
        (Class::Tag, "ModernBertForTokenClassification"),
        (Class::Answer, "ModernBertForQuestionAnswering"),
        (Class::Choose, "ModernBertForMultipleChoice"),
    ],
    orders_sentences: false,
    pair_logits: "seq_relationship_logits",
    config: ConfigKeys {
        also_berts_names: false,
        renamed: &[
            ("hidden_act", "hidden_activation"),
            ("hidden_dropout_prob", "mlp_dropout"),
            ("attention_probs_dropout_prob", "attention_dropout"),
            ("layer_norm_eps", "norm_eps"),
            ("is_decoder", "cloze_causal"),
        ],
        absent: &["type_vocab_size", "add_cross_attention", "embedding_size", "num_hidden_groups", "inner_group_num"],
        defaults: &[
            ("vocab_size", DefaultValue::Count(50368)),
            ("intermediate_size", DefaultValue::Count(1152)),
            ("num_hidden_layers", DefaultValue::Count(22)),
            ("max_position_embeddings", DefaultValue::Count(8192)),
            ("hidden_dropout_prob", DefaultValue::Number(0.0)),
            ("attention_probs_dropout_prob", DefaultValue::Number(0.0)),
            ("layer_norm_eps", DefaultValue::Number(1e-5)),
            ("pad_token_id", DefaultValue::Count(50283)),
            ("type_vocab_size", DefaultValue::Count(0)),
        ],
    },
    network: Network {
        positions: Positions::All,
        projection: Projection::Never,
        mlm_activation: None,
        classify: PREDICTION,
        choose: PREDICTION,
        dropouts: HeadDropouts {
            classify: DROPOUT,
            tag: DROPOUT,
            choose: DROPOUT,
            answer: DROPOUT,
            pair: HeadDropout::None,
        },
    },
};
