//! From a configuration to the sizes and settings of the network.

use cloze_engine::ops::Activation;
use serde::Deserialize;
use serde_json::Value;

use super::modern_keys::ModernKeys;
use super::validate::MAX_WIDTH;
use super::{Config, HiddenAct};
use crate::architecture::{Architecture, Biases, DISTANCE_BUCKETS, Dropouts, Sharing};
use crate::family::{HeadDropout, Projection};
use crate::role::{LayerPart, Module};

/// The key of the number of rows of the table of distance biases.
pub(super) const BUCKETS: &str = "relative_attention_num_buckets";

impl Config {
    /// The values of ModernBERT's own keys.
    pub(super) fn modern_keys(&self) -> Result<ModernKeys, Vec<String>> {
        ModernKeys::read(&self.extra, self.num_hidden_layers)
    }

    /// MPNet's `relative_attention_num_buckets`; 0 if it is not a number of rows.
    pub(super) fn distance_buckets(&self) -> usize {
        match self.extra.get(BUCKETS) {
            None => DISTANCE_BUCKETS,
            Some(found) => found
                .as_u64()
                .and_then(|found| usize::try_from(found).ok())
                .filter(|&found| found <= MAX_WIDTH)
                .unwrap_or(0),
        }
    }

    /// ELECTRA's `summary_activation`.
    pub(super) fn summary_activation(&self) -> Result<Activation, &Value> {
        match self.extra.get("summary_activation") {
            None => Ok(Activation::Gelu),
            Some(Value::Null) => Ok(Activation::None),
            Some(found) if found == "" => Ok(Activation::None),
            Some(found) if found == "tanh" => Ok(Activation::Tanh),
            Some(found) => HiddenAct::deserialize(found).map(HiddenAct::activation).map_err(|_| found),
        }
    }

    /// The keys of the dropouts of heads.
    pub(super) fn head_dropout_keys(&self) -> impl Iterator<Item = &'static str> {
        let of = &self.family().network.dropouts;
        let mut keys: Vec<&str> = [of.classify, of.tag, of.choose, of.answer, of.pair]
            .into_iter()
            .filter_map(|dropout| match dropout {
                HeadDropout::Key(key, _) | HeadDropout::KeyOrHidden(key) => Some(key),
                HeadDropout::None | HeadDropout::Hidden => None,
            })
            .collect();
        keys.dedup();
        keys.into_iter()
    }

    fn head_dropout(&self, dropout: HeadDropout) -> f32 {
        let number = |key: &str| self.extra.get(key).and_then(Value::as_f64);
        let probability = match dropout {
            HeadDropout::None => 0.0,
            HeadDropout::Hidden => self.hidden_dropout_prob,
            HeadDropout::Key(key, default) => number(key).unwrap_or(default),
            HeadDropout::KeyOrHidden(key) => number(key).unwrap_or(self.hidden_dropout_prob),
        };
        probability as f32
    }

    /// The sizes and settings of the network. The configuration must be [valid](Self::validate).
    pub fn architecture(&self) -> Architecture {
        let (family, network) = (self.family(), &self.family().network);
        let embedding_size = self.embedding_size.unwrap_or(self.hidden_size);
        let activation = self.hidden_act.activation();
        let mut choose = network.choose;
        if choose.dense == Module::ChoiceDense {
            choose.activation = self.summary_activation().unwrap_or(choose.activation);
        }
        let inner = self.inner_group_num.unwrap_or(1);
        let modern = if family.is_modern() { self.modern_keys().ok() } else { None };
        let hidden = self.hidden_dropout_prob as f32;
        let attention = self.attention_probs_dropout_prob as f32;
        Architecture {
            vocab_size: self.vocab_size,
            embedding_size,
            projects_embeddings: match network.projection {
                Projection::Never => false,
                Projection::IfNeeded => embedding_size != self.hidden_size,
                Projection::Always => true,
            },
            hidden_size: self.hidden_size,
            layers: self.num_hidden_layers * inner,
            sharing: match self.num_hidden_groups {
                Some(groups) => Sharing::Groups { passes: self.num_hidden_layers, groups, inner },
                None => Sharing::Parts(self.shared_parts),
            },
            attention_heads: self.num_attention_heads,
            intermediate_size: self.intermediate_size,
            positions: self.max_position_embeddings,
            rotary: modern.map(|keys| keys.rotary),
            local: modern.and_then(|keys| keys.local),
            pre_norm: family.has_module(Module::FinalNorm),
            fused_projections: family.has_module(Module::layer(0, LayerPart::QueryKeyValue)),
            gated: family.has_module(Module::layer(0, LayerPart::GatedIntermediate)),
            biases: modern.map_or(Biases::ALL, |keys| keys.biases),
            prediction_head: family.has_module(Module::PredictionDense),
            mean_pooling: modern.is_some_and(|keys| keys.mean_pooling),
            word_padding: family.padding(self.pad_token_id),
            position_padding: family.padding(self.pad_token_id).filter(|_| family.positions_skip_padding()),
            segments: if family.has_key("type_vocab_size") { self.type_vocab_size } else { 0 },
            activation,
            mlm_activation: modern.map(|keys| keys.activation).or(network.mlm_activation).unwrap_or(activation),
            classify: network.classify,
            choose,
            dropouts: Dropouts {
                embeddings: modern.map_or(hidden, |keys| keys.embedding_dropout),
                attention,
                attention_output: if family.is_modern() { attention } else { hidden },
                gated: if family.is_modern() { hidden } else { 0.0 },
                output: if family.is_modern() { 0.0 } else { hidden },
                classify: self.head_dropout(network.dropouts.classify),
                tag: self.head_dropout(network.dropouts.tag),
                choose: self.head_dropout(network.dropouts.choose),
                answer: self.head_dropout(network.dropouts.answer),
                pair: self.head_dropout(network.dropouts.pair),
            },
            initializer_range: self.initializer_range as f32,
            layer_norm_eps: self.layer_norm_eps as f32,
            distance_buckets: family.has_module(Module::DistanceBias).then(|| self.distance_buckets()),
            causal: self.is_decoder,
            tied_decoder: self.tie_word_embeddings,
            task_input: self.task_input,
        }
    }
}
