//! Shared by the tests of several files: the configuration of a tiny model, and a batch for it.

use cloze_engine::Device;

use crate::config::Config;
use crate::inputs::{Inputs, PretrainLabels};

pub(crate) fn device() -> Device {
    Device::cpu(Some(1)).unwrap()
}

pub(crate) fn small() -> Config {
    Config {
        vocab_size: 50,
        hidden_size: 16,
        num_hidden_layers: 2,
        num_attention_heads: 2,
        intermediate_size: 32,
        max_position_embeddings: 12,
        ..Config::default()
    }
}

/// Of the other network: pre-norm, rotary positions, windows of one token on each side in the second layer, dropout
/// everywhere.
pub(crate) fn modern() -> Config {
    let mut config = Config { model_type: "modernbert".to_owned(), type_vocab_size: 0, ..small() };
    config.extra.insert("local_attention".to_owned(), 2.into());
    config.set_dropout(Some(0.1), Some(0.1));
    config
}

pub(crate) fn inputs() -> Inputs {
    let mut inputs = Inputs::default();
    inputs.push(&[2, 9, 4, 3], &[0, 0, 1, 1]);
    inputs.push(&[2, 4, 12, 3, 30, 3], &[0, 0, 0, 0, 1, 1]);
    inputs
}

pub(crate) fn labels() -> PretrainLabels {
    PretrainLabels { mlm_rows: vec![2, 5], mlm_labels: vec![11, 13], nsp_labels: vec![0, 1] }
}
