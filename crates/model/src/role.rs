//! The roles of the network's parameters, independent of their names in checkpoints.

/// A module of the network in PyTorch's sense: it has a weight, a bias or both.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Module {
    /// An embedding table: only a weight.
    Embedding(Table),
    /// LayerNorm of the summed embeddings.
    EmbeddingNorm,
    /// LayerNorm of the last hidden states, in models with LayerNorms before the blocks of a layer.
    FinalNorm,
    /// From the width of the embeddings to the width of the hidden states, if they differ.
    EmbeddingProjection,
    /// The bias of attention scores for each bucket of distances, which all layers use: only a weight.
    DistanceBias,
    /// A part of an encoder layer.
    Layer {
        /// The layer, from 0. In models whose layers share weights, the number of the set of weights (see
        /// [`Sharing`](crate::architecture::Sharing)).
        number: usize,
        /// Its part.
        part: LayerPart,
    },
    /// Dense layer with tanh on `[CLS]`.
    Pooler,
    /// The dense layer before the MLM head's decoder and before the output layer of every task, in families in which they
    /// share it.
    PredictionDense,
    /// The LayerNorm after that dense layer.
    PredictionNorm,
    /// The MLM head's dense layer.
    MlmTransform,
    /// The MLM head's LayerNorm.
    MlmNorm,
    /// The bias that is added to the MLM head's logits; no weight.
    MlmBias,
    /// The MLM head's last matrix product. Its bias is [tied](Role::tied_to), and usually its weight, too; some
    /// checkpoints contain copies of them. The network only declares a weight that is not tied.
    MlmDecoder,
    /// Next sentence or not; in ALBERT, whether two segments are in their original order.
    NspHead,
    /// Labels of sequences, tokens or choices.
    Classifier,
    /// Labels of sequences in families that give this module another name than that of [`Classifier`](Self::Classifier).
    SequenceClassifier,
    /// The dense layer with an activation before the labels of a sequence, in families that do not use the pooler for
    /// it.
    ClassifierDense,
    /// The dense layer with an activation before the score of a choice, in families that use neither the pooler nor
    /// [`ClassifierDense`](Self::ClassifierDense).
    ChoiceDense,
    /// The dense layer of the head that detects replaced tokens.
    RtdDense,
    /// Replaced or not.
    RtdOutput,
    /// Start and end of a span.
    SpanHead,
    /// A direction of a layer of the BiLSTM before the head of a task; no family has it.
    BiLstm {
        /// The layer, from 0.
        layer: usize,
        /// Whether it is the direction from the last token to the first.
        reverse: bool,
        /// Whether it is applied to the previous state; otherwise, to the input.
        recurrent: bool,
    },
    /// The weights of hidden states before their softmax, if the head of a task reads a weighted sum; only a weight.
    MixWeights,
    /// The factor of that weighted sum; only a weight.
    MixScale,
}

/// The embedding tables, whose rows are summed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Table {
    /// One row per token of the vocabulary.
    Word,
    /// One row per position.
    Position,
    /// One row per segment (token type); not in all families.
    Segment,
}

/// The modules of an encoder layer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum LayerPart {
    /// Projection to queries.
    Query,
    /// Projection to keys.
    Key,
    /// Projection to values.
    Value,
    /// Projection to queries, keys and values, in families that have one matrix for them.
    QueryKeyValue,
    /// From the concatenated outputs of the attention heads to the hidden size.
    AttentionOutput,
    /// LayerNorm after attention, or before it.
    AttentionNorm,
    /// From the hidden size to the inner width of the feed-forward block.
    Intermediate,
    /// From the hidden size to twice the inner width, in families with a gated linear unit: one half is multiplied by the
    /// activation of the other.
    GatedIntermediate,
    /// From the inner width back to the hidden size.
    Output,
    /// LayerNorm after the feed-forward block, or before it.
    OutputNorm,
}

/// The two kinds of parameters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kind {
    /// A matrix, or a LayerNorm's γ.
    Weight,
    /// A vector that is added.
    Bias,
}

/// The role of a parameter in the network.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Role {
    /// The module.
    pub module: Module,
    /// Which of the module's parameters.
    pub kind: Kind,
}

/// An extension of the encoder with its own tensors.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Head {
    /// Dense layer with tanh on `[CLS]`.
    Pooler,
    /// The dense layer with a LayerNorm that the masked-language-model head and the heads of tasks share.
    Prediction,
    /// Masked-language-model head.
    Mlm,
    /// Next-sentence head, or sentence-order head.
    Nsp,
    /// Replaced-token-detection head, of a discriminator.
    Rtd,
    /// Classifier of sequences, tokens or choices.
    Classifier,
    /// Start and end of a span.
    Span,
    /// What is between the hidden states and the head of a task: the BiLSTM, the weights of a sum of states.
    Features,
}

impl LayerPart {
    /// All of them.
    pub const ALL: [LayerPart; 10] = [
        LayerPart::Query,
        LayerPart::Key,
        LayerPart::Value,
        LayerPart::QueryKeyValue,
        LayerPart::AttentionOutput,
        LayerPart::AttentionNorm,
        LayerPart::Intermediate,
        LayerPart::GatedIntermediate,
        LayerPart::Output,
        LayerPart::OutputNorm,
    ];

    /// Whether it belongs to the attention; otherwise, to the feed-forward block.
    pub const fn is_of_attention(self) -> bool {
        !matches!(
            self,
            LayerPart::Intermediate | LayerPart::GatedIntermediate | LayerPart::Output | LayerPart::OutputNorm
        )
    }
}

impl Module {
    /// The role of its weight.
    pub const fn weight(self) -> Role {
        Role { module: self, kind: Kind::Weight }
    }

    /// The role of its bias.
    pub const fn bias(self) -> Role {
        Role { module: self, kind: Kind::Bias }
    }

    /// A module of encoder layer `number`.
    pub const fn layer(number: usize, part: LayerPart) -> Module {
        Module::Layer { number, part }
    }

    /// The head that this module belongs to; `None` for embeddings and encoder.
    pub fn head(self) -> Option<Head> {
        match self {
            Module::Embedding(_)
            | Module::EmbeddingNorm
            | Module::EmbeddingProjection
            | Module::FinalNorm
            | Module::DistanceBias
            | Module::Layer { .. } => None,
            Module::Pooler => Some(Head::Pooler),
            Module::PredictionDense | Module::PredictionNorm => Some(Head::Prediction),
            Module::MlmTransform | Module::MlmNorm | Module::MlmBias | Module::MlmDecoder => Some(Head::Mlm),
            Module::NspHead => Some(Head::Nsp),
            Module::RtdDense | Module::RtdOutput => Some(Head::Rtd),
            Module::Classifier | Module::SequenceClassifier | Module::ClassifierDense | Module::ChoiceDense => {
                Some(Head::Classifier)
            }
            Module::SpanHead => Some(Head::Span),
            Module::BiLstm { .. } | Module::MixWeights | Module::MixScale => Some(Head::Features),
        }
    }

    /// Whether the module has a parameter of this kind.
    pub fn has(self, kind: Kind) -> bool {
        match self {
            Module::Embedding(_) | Module::DistanceBias | Module::MixWeights | Module::MixScale => kind == Kind::Weight,
            Module::MlmBias => kind == Kind::Bias,
            _ => true,
        }
    }
}

impl Role {
    /// The parameter whose values this one usually shares.
    pub fn tied_to(self) -> Option<Role> {
        match (self.module, self.kind) {
            (Module::MlmDecoder, Kind::Weight) => Some(Module::Embedding(Table::Word).weight()),
            (Module::MlmDecoder, Kind::Bias) => Some(Module::MlmBias.bias()),
            _ => None,
        }
    }
}

impl Head {
    /// Its name in messages.
    pub fn name(self) -> &'static str {
        match self {
            Head::Pooler => "pooler",
            Head::Prediction => "prediction head",
            Head::Mlm => "masked-language-model head",
            Head::Nsp => "next-sentence head",
            Head::Rtd => "replaced-token head",
            Head::Classifier | Head::Span => "task's head",
            Head::Features => "BiLSTM or weights of features",
        }
    }
}
