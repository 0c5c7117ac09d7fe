//! The description of a model family: one [`Family`] per file of this folder.

use cloze_engine::ops::Activation;

use crate::architecture::SequenceHead;
use crate::heads::Class;
use crate::role::{Head, LayerPart, Module};

/// Everything that distinguishes a model family: its names in checkpoints, the keys of its config.json, and the parts of
/// the network that differ between families.
#[derive(Debug)]
pub struct Family {
    /// `model_type` of its config.json.
    pub model_type: &'static str,
    /// Its name in messages.
    pub title: &'static str,
    /// Prefix of all tensor names except those of heads. Missing in files with only an encoder.
    pub(crate) prefix: &'static str,
    /// The beginnings of names without that prefix.
    pub(crate) encoder: &'static [&'static str],
    /// Suffixes of the names of tensors that are not weights.
    pub(crate) buffers: &'static [&'static str],
    /// The modules of a layer are listed once, for layer 0; `{}` in a name is the number of the layer. In a name with
    /// two `{}`, they are the number of the group and the number of the layer in its group.
    ///
    /// The modules determine the network: for example, positions are rotations if there is no table of positions.
    pub(crate) modules: &'static [ModuleNames],
    /// Prefixes of the names of each head's tensors.
    pub(crate) heads: &'static [(Head, &'static str)],
    /// Transformers' classes.
    pub(crate) classes: &'static [(Class, &'static str)],
    /// Whether its head of sentence pairs predicts their order; otherwise, whether the second follows the first.
    pub orders_sentences: bool,
    /// The name of the sentence-pair head's logits in Transformers' outputs.
    pub pair_logits: &'static str,
    pub(crate) config: ConfigKeys,
    pub(crate) network: Network,
}

/// A module with its names in Transformers' models with a head and in Google's TensorFlow code.
#[derive(Debug)]
pub(crate) struct ModuleNames {
    pub(crate) module: Module,
    pub(crate) name: &'static str,
    pub(crate) tensorflow: Option<&'static str>,
}

/// How a family's config.json differs from BERT's.
#[derive(Debug)]
pub(crate) struct ConfigKeys {
    /// Whether Transformers also accepts BERT's names of renamed keys (`attribute_map`).
    pub(crate) also_berts_names: bool,
    /// Keys of BERT with the names that the family has for them.
    pub(crate) renamed: &'static [(&'static str, &'static str)],
    /// Keys of BERT that the family does not have.
    pub(crate) absent: &'static [&'static str],
    /// Values of missing keys, by BERT's names, where they differ from BERT's.
    pub(crate) defaults: &'static [(&'static str, DefaultValue)],
}

/// The value of a missing key.
#[derive(Debug, Clone, Copy)]
pub(crate) enum DefaultValue {
    Count(usize),
    Number(f64),
    Name(&'static str),
}

/// What differs in the network.
#[derive(Debug)]
pub(crate) struct Network {
    pub(crate) positions: Positions,
    /// The dense layer from the width of the embeddings to the hidden size.
    pub(crate) projection: Projection,
    /// Activation of the MLM head's transform, if not `hidden_act`.
    pub(crate) mlm_activation: Option<Activation>,
    pub(crate) classify: SequenceHead,
    pub(crate) choose: SequenceHead,
    pub(crate) dropouts: HeadDropouts,
}

/// How a family counts positions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Positions {
    /// All tokens, from 0.
    All,
    /// Tokens other than padding, from `pad_token_id` + 1.
    AfterPadding,
    /// Tokens other than this one, from its id + 1, whatever `pad_token_id` is. This token counts as padding.
    After(u32),
}

/// When there is a dense layer after the embeddings.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Projection {
    /// Never: the embeddings are as wide as the hidden states.
    Never,
    /// If the widths differ.
    IfNeeded,
    /// Also for equal widths.
    Always,
}

/// Dropout before the output layer of each head.
#[derive(Debug)]
pub(crate) struct HeadDropouts {
    pub(crate) classify: HeadDropout,
    pub(crate) tag: HeadDropout,
    pub(crate) choose: HeadDropout,
    pub(crate) answer: HeadDropout,
    pub(crate) pair: HeadDropout,
}

/// Where the probability of a head's dropout comes from.
#[derive(Debug, Clone, Copy)]
pub(crate) enum HeadDropout {
    None,
    /// The dropout of the hidden states.
    Hidden,
    /// A key, with its default.
    Key(&'static str, f64),
    /// A key; if it is missing or null, the dropout of the hidden states.
    KeyOrHidden(&'static str),
}

/// A module that Google's TensorFlow code has, too.
pub(crate) const fn module(module: Module, name: &'static str, tensorflow: &'static str) -> ModuleNames {
    ModuleNames { module, name, tensorflow: Some(tensorflow) }
}

/// A module that exists only in Transformers.
pub(crate) const fn only(module: Module, name: &'static str) -> ModuleNames {
    ModuleNames { module, name, tensorflow: None }
}

/// A module of a layer that Google's TensorFlow code has, too.
pub(crate) const fn part(part: LayerPart, name: &'static str, tensorflow: &'static str) -> ModuleNames {
    module(Module::layer(0, part), name, tensorflow)
}

/// A module of a layer that exists only in Transformers.
pub(crate) const fn only_part(part: LayerPart, name: &'static str) -> ModuleNames {
    only(Module::layer(0, part), name)
}
